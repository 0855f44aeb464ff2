"""Folders of strangers: saved models, built benchmarks and tables in which files were changed at random.

Each is given to a command in a process of its own, which may use little memory and time. It has to answer, or to
refuse the folder in one line: no traceback, no question whether to run code, nothing of the folder run, and nothing
that a terminal would act on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import sys
from pathlib import Path

import pytest
from doubles import encoder_folder, measured
from small_shops import IDS, shop_of
from strangers import outcome

from mender.cli import main
from preference_benchmark.embedding import TextEmbedder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EVIL = "raise SystemExit('evil code has run')\n"
ESCAPES = "\x1b]0;evil\x07\x9b2J\u202e\r<script>"
NUMBERS = [0, -1, 1, 3, 10**5, 10**9, 10**18, 1e308, 0.5]
VALUES = [*NUMBERS, "", ESCAPES, "a" * 5_000, "../../x", "/etc/passwd", None, True, [], {}, [[]], "\ud83d", "evil.Evil"]
FIELDS = {
    "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": "evil.Evil"},
    "model_type": "evil",
    "tokenizer_class": "Evil",
    "attn_implementation": "evil/kernel",
    "quantization_config": {"quant_method": "evil"},
    "base_model_name_or_path": "evil/model",
}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A saved recommender with everything that a folder may hold."""
    root = tmp_path_factory.mktemp("model")
    shop = shop_of("mender", root / "encoder")
    shop.add_items([{"item_id": "new", "title": "green tea", "aspects": ["green"]}])
    shop.remove_items(IDS[:1])
    shop.save_pretrained(root / "model", purchases=True)
    (root / "model" / "evil.py").write_text(EVIL)
    return root / "model"


@pytest.fixture(scope="module")
def benchmark_folder(tmp_path_factory) -> Path:
    """A built benchmark."""
    root = tmp_path_factory.mktemp("benchmark")
    small = ["--quiet", "--option", "num_users=60", "--option", "num_items=40"]
    small += ["--encoder", encoder_folder(root / "encoder"), "--output", str(root / "shop")]
    assert main(["benchmark", "build", "corner-shop", *small]) == 0
    shutil.rmtree(root / "shop" / ".stages", ignore_errors=True)
    return root / "shop"


def places(value, path=()):
    """Paths of all values in parsed JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield from places(inner, (*path, name))


def change_json(path: Path, chance: random.Random) -> str:
    """Change a value, or add one that means something to transformers."""
    content = json.loads(path.read_text("utf-8"))
    for _ in range(chance.randrange(1, 3)):
        where = chance.choice(list(places(content)))
        inner = content
        for name in where[:-1]:
            inner = inner[name]
        new = chance.choice(VALUES)
        if not where:
            content = chance.choice([content, new])
            break
        if chance.random() < 0.2:
            del inner[where[-1]]
            break
        old = inner[where[-1]]
        # The same kind of value is what passes the first checks.
        if isinstance(old, (int, float)) and not isinstance(old, bool) and chance.random() < 0.7:
            new = chance.choice(NUMBERS)
        inner[where[-1]] = new
    if isinstance(content, dict) and chance.random() < 0.3:
        name = chance.choice(sorted(FIELDS))
        content[name] = FIELDS[name]
    path.write_text(json.dumps(content), "utf-8", "replace")
    return "value"


def change_bytes(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    kind = chance.choice(["cut", "bytes", "header", "empty", "doubled", "nested"])
    if kind == "cut":
        data = data[: chance.randrange(len(data) + 1)]
    elif kind == "bytes":
        for _ in range(chance.randrange(1, 9)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == "header":  # the length of the header of safetensors, and sizes at the start of other files
        data[:8] = struct.pack("<Q", chance.choice([0, 2, 10**6, 2**40, 2**64 - 1]))
    elif kind == "empty":
        data = bytearray()
    elif kind == "doubled":
        data = data + data
    else:
        data = bytearray(b"[" * 200_000)
    path.write_bytes(bytes(data))
    return kind


def change_folder(folder: Path, chance: random.Random, names: tuple[str, ...] = ()) -> list[str]:
    """Change one or two files of a folder, of these names if there are any; returns what was done."""
    done = []
    for _ in range(chance.randrange(1, 3)):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py")
        files = [path for path in files if not names or path.name in names] or files
        path = chance.choice(files)
        try:
            kind = chance.choice(["json", "json", "bytes", "gone", "link", "other"])
            if kind == "json" and path.suffix == ".json":
                kind = change_json(path, chance)
            elif kind in ("json", "bytes"):
                kind = change_bytes(path, chance)
            elif kind == "gone":
                path.unlink()
            elif kind == "link":
                path.unlink()
                path.symlink_to(chance.choice(["/dev/zero", "/dev/null", "nowhere", path.name, "/etc"]))
            else:
                shutil.copyfile(chance.choice(files), path)
        except (ValueError, OSError, RecursionError) as error:
            kind = f"nothing ({type(error).__name__})"
        done.append(f"{path.relative_to(folder)}: {kind}")
    return done


@pytest.fixture(scope="module")
def processes():
    """Where the work is done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        from warm_processes import WarmProcesses
    # Modules of the tests, and those of this checkout.
    with WarmProcesses(
        ["mender.recommender", "preference_benchmark"], path=[Path(folder) for folder in sys.path if folder]
    ) as found:
        yield found


def try_folders(tally, processes, original: Path, folder: Path, work: str, names: tuple[str, ...] = ()) -> None:
    chance = random.Random(tally.seed)
    assert outcome(processes, work, original, folder.parent) == "answered"
    while tally.tried < tally.count:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, folder)
        done = change_folder(folder, chance, names)
        result = outcome(processes, work, folder, folder.parent)
        tally.note(result if result in ("answered", "refused") else "failed")
        tally.check(result in ("answered", "refused"), f"{done}: {result}")
    tally.finish()


@pytest.mark.campaign("folders", 1)
def test_saved_models_of_strangers(tally, processes, model, tmp_path):
    try_folders(tally, processes, model, tmp_path / "bad", "recommend")


@pytest.mark.campaign("folders", None)  # its slice is hub/test_folder
def test_benchmarks_of_strangers(tally, processes, benchmark_folder, tmp_path):
    try_folders(tally, processes, benchmark_folder, tmp_path / "bad", "read_benchmark")


@pytest.mark.campaign("folders", None)
def test_results_and_cards_of_strangers(tally, processes, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "good")
    (folder / "five_axes.json").write_text(json.dumps(measured(0.75)))
    assert main(["card", str(folder), "--results", str(folder / "five_axes.json")]) == 0
    try_folders(
        tally, processes, folder, tmp_path / "bad", "show_results", ("five_axes.json", "README.md", "config.json")
    )


@pytest.mark.campaign("folders", None)
def test_encoders_of_strangers(tally, processes, tmp_path):
    embedder = TextEmbedder(encoder_folder(tmp_path / "encoder"), device="cpu", progress=False)
    embedder.model.save(str(tmp_path / "good"))
    try_folders(tally, processes, tmp_path / "good", tmp_path / "bad", "use_encoder")
