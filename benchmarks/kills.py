"""Kills processes at random moments, and counts what their folders then load as.

Saving: two small models of the same shape, with other weights, items and semantic IDs, are saved in turn into one
folder. What AutoModel and AutoProcessor load afterwards is model A, model B, refused, or a mixture: weights of one with
items of the other. Then A is saved once more, which has to leave nothing else behind.

Other work: editing a recommender that counts purchases, building a benchmark over another one, training. What is there
afterwards must be the state before or after, and the same work must go on to its end.

    python benchmarks/kills.py --kills 200 --output benchmarks/results/kills.md
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoModel, AutoProcessor, BertConfig
from transformers.utils import logging

from mender import Recommender, model_folder
from mender.model_folder import check_folder, load_whole, replace_folder, write_record
from mender.runs import provenance
from mender.saved_models import load_saved
from mender.terminal import run_script
from modeling_mender import (
    MenderConfig,
    MenderForGenerativeRetrieval,
    MenderProcessor,
    SemanticIdCatalogue,
    build_method,
    load_preset,
)
from preference_benchmark import load
from preference_benchmark.hub.folder import contents, problems

ITEMS, CODES = 200, [16, 16, 4]
WAYS = ("files", "exchange", "renames")
OUTCOMES = ("A", "B", "refused", "mixture", "leftovers")


def model_and_processor(seed: int) -> tuple[Any, MenderProcessor]:
    """A model with random weights, and a processor with its items."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = MenderConfig(
        encoder=BertConfig(
            vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        ),
        decoder={"d_model": 32, "d_ff": 64, "d_kv": 16, "num_layers": 2, "num_heads": 2},
        codebook_sizes=CODES,
        num_items=ITEMS,
    )
    model = MenderForGenerativeRetrieval(config)
    keys = torch.randperm(1024)[:ITEMS]
    model.set_catalogue(SemanticIdCatalogue(torch.stack([keys // 64, keys // 4 % 16, keys % 4], 1), CODES))
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    ids = [f"{seed}-{index}" for index in range(ITEMS)]
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    return model, MenderProcessor(words, {"item_id": ids, "title": [f"title {item}" for item in ids]})


def save_files(path: Path, model: Any, processor: Any) -> None:
    """What transformers does by itself: one file after the other, in place."""
    model.save_pretrained(path, max_shard_size="50KB")
    processor.save_pretrained(path)


def save_whole(path: Path, model: Any, processor: Any) -> None:
    """The folder as a whole."""
    with replace_folder(path) as folder:
        save_files(folder, model, processor)
        write_record(folder, model, processor)


def loads_as(path: Path, versions: dict[str, tuple[Any, Any]]) -> str:
    """One of `OUTCOMES`."""

    def load() -> tuple[Any, Any]:
        model, processor = AutoModel.from_pretrained(path), AutoProcessor.from_pretrained(path)
        check_folder(path, model, processor)
        return model, processor

    try:
        model, processor = load_whole(path, load)
    except (OSError, ValueError, RuntimeError):
        return "refused"
    weights = model.state_dict()
    for name, (other, items) in versions.items():
        same = all(torch.equal(tensor, weights[key]) for key, tensor in other.state_dict().items())
        if same and (items.item_ids, items.titles) == (processor.item_ids, processor.titles):
            return name
    return "mixture"


def kill(
    save: Callable[[Path, Any, Any], None], path: Path, versions: dict[str, tuple[Any, Any]], after: float
) -> None:
    """Save the versions in turn in a process of its own, and kill it after so many seconds."""
    _kill(lambda: [save(path, *versions[name]) for name in cycle("BA")], after)


def _kill(work: Callable[[], Any], after: float) -> None:
    """Do endless work in a process of its own, and kill it after so many seconds."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"the process ended by itself with status {status}; it should run until killed")


def run_way(way: str, kills: int, seed: int) -> Counter[str]:
    """Outcomes of so many kills, and the seconds of a save."""
    versions, chance, found = {"A": model_and_processor(0), "B": model_and_processor(1)}, random.Random(seed), Counter()
    save = save_files if way == "files" else save_whole
    exchange = model_folder._exchange
    if way == "renames":
        model_folder._exchange = lambda one, other: False
    try:
        with tempfile.TemporaryDirectory() as root:
            path = Path(root) / "model"
            save(path, *versions["A"])
            started = time.perf_counter()
            save(path, *versions["A"])
            found["save"] = time.perf_counter() - started
            for _ in range(kills):
                kill(save, path, versions, chance.uniform(0, 3 * found["save"]))
                found[loads_as(path, versions)] += 1
                save(path, *versions["A"])
                found["leftovers"] += [entry.name for entry in Path(root).iterdir()] != ["model"]
    finally:
        model_folder._exchange = exchange
    return found


WORK_OUTCOMES = ("as before", "as after", "lost", "stuck")
SHOP = ["--option", "num_items=40", "--option"]


@dataclass(frozen=True)
class Work:
    """Work that is killed again and again in one folder.

    Attributes:
        command: the words of `mender` for the work, by folder and version.
        state: the version that a folder holds; raises an error if it is none.
        versions: that it leads from and to; they change places, or `fresh` leads to the first one again.
        fresh: removes what is there before each time, if it has to.
        environment: of the process, beside that of this one.
    """

    command: Callable[[Path, str], list[str]]
    state: Callable[[Path], str]
    versions: tuple[str, str]
    fresh: Callable[[Path], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def save_encoder(path: Path) -> None:
    """A text encoder with random weights, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertModel, PreTrainedTokenizerFast

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=300, **shape)).save_pretrained(path)
    characters = {"[PAD]": 0, "[UNK]": 1, **{chr(code): code for code in range(33, 127)}}
    tokenizer = Tokenizer(models.WordLevel(characters, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)


def build_command(root: Path, users: str) -> list[str]:
    """Build the corner shop with so many users."""
    words = ["benchmark", "build", "corner-shop", *SHOP, f"num_users={users}"]
    return [*words, "--encoder", str(root / "encoder"), "--output", str(root / "shop")]


def built(root: Path) -> str:
    """Users of the benchmark that is there, whole."""
    load(root / "shop")
    if wrong := problems(root / "shop"):
        raise ValueError(wrong[0])
    (found,) = contents(root / "shop")
    return str(found.statistics["read"]["before"]["users"])


def train_command(root: Path, version: str) -> list[str]:
    """Train, or go on from the last checkpoint."""
    words = ["train", "--preset", "mender-tok", "--source", "corner-shop", "--data", str(root / "shop")]
    words += ["--encoder", str(root / "encoder"), "--output", str(root / "run"), "--validation-limit", "8"]
    words += ["--set", "decoder={num_layers: 1, d_ff: 32}", "--train", "num_train_epochs=2"]
    words += ["--train", "save_strategy=steps", "--train", "save_steps=5", "--train", "eval_strategy=no"]
    checkpoints = (root / "run" / "checkpoints").glob("checkpoint-*/trainer_state.json")
    return words + (["--resume"] if any(checkpoints) else [])


def trained(root: Path) -> str:
    """Whether there is a model, which then has to load."""
    if not (root / "run" / "model").exists():
        return "none"
    load_saved(root / "run" / "model", "cpu")
    return "model"


WORKS = {
    "build": Work(build_command, built, ("60", "61")),
    "train": Work(train_command, trained, ("none", "model"), lambda root: shutil.rmtree(root / "run")),
}


def start(words: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """`mender` in a process of its own."""
    with log.open("w") as file:
        command = [sys.executable, "-u", "-m", "mender", *words]
        return subprocess.Popen(command, stdout=file, stderr=file, cwd=log.parent, env=os.environ | environment)


def begun(process: subprocess.Popen, log: Path) -> None:
    """Wait for the first line: until then, the process imports libraries."""
    while not log.stat().st_size and process.poll() is None:
        time.sleep(0.01)


def run_work(work: Work, kills: int, seed: int, root: Path) -> Counter[str]:
    """Outcomes of so many kills.

    Args:
        work: what is killed.
        kills: how often.
        seed: of the moments.
        root: a folder for it.
    """
    chance, found, log, seconds = random.Random(seed), Counter(), root / "log.txt", 0.0

    def finish(version: str) -> None:
        nonlocal seconds
        process = start(work.command(root, version), log, work.environment)
        begun(process, log)
        started = time.perf_counter()
        if process.wait() != 0 or work.state(root) != version:
            found["stuck"] += 1
            print(log.read_text()[-2_000:], file=sys.stderr)
        seconds = max(seconds, time.perf_counter() - started)

    before, after = work.versions
    if work.fresh is None:
        finish(before)
    finish(after)
    for _ in range(kills):
        if work.fresh is None:
            before, after = after, before
        else:
            work.fresh(root)
        process = start(work.command(root, after), log, work.environment)
        begun(process, log)
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.wait()
        try:
            state = work.state(root)
            found["as after" if state == after else "as before" if state == before else "lost"] += 1
        except (OSError, ValueError, RuntimeError) as error:
            print(f"lost: {error}", file=sys.stderr)
            found["lost"] += 1
        finish(after)
    return found


def run_named(name: str, kills: int, seed: int, root: Path) -> Counter[str]:
    """Outcomes of so many kills of "edit" or one of `WORKS`, in an empty folder."""
    if name == "edit":
        return run_edits(kills, seed, root)
    save_encoder(root / "encoder")
    if name == "train" and start(build_command(root, "60"), root / "log.txt", {}).wait():
        raise RuntimeError((root / "log.txt").read_text())
    return run_work(WORKS[name], kills, seed, root)


def edit(path: Path) -> None:
    """Add an item, remove the one that was added before, count a purchase, and save."""
    shop = Recommender.from_pretrained(path, device="cpu")
    number = shop.status["observed"]
    shop.add_items([{"item_id": f"new-{number + 1}", "title": f"mug {number}"}])
    if number:
        shop.remove_items([f"new-{number}"])
    shop.observe([("somebody", f"new-{number + 1}")])
    shop.save_pretrained(path, purchases=True)


def edited(path: Path) -> int:
    """How many edits a folder has seen, if it is whole."""
    shop = Recommender.from_pretrained(path, device="cpu")
    number = shop.status["observed"]
    new = [item["item_id"] for item in shop.items if item["item_id"].startswith("new-")]
    bought = len(shop._version.purchases.get("somebody", ()))
    if bought != number or new != [f"new-{number}"] * bool(number):
        raise ValueError(f"{number} edits, {bought} purchases, items {new}")
    shop.recommend(history=[shop.items[0]["item_id"]], top_k=3)
    return number


def run_edits(kills: int, seed: int, root: Path) -> Counter[str]:
    """Outcomes of so many kills of a process that edits a recommender and saves it, again and again."""
    chance, found, path = random.Random(seed), Counter(), root / "model"
    items = {"item_id": [f"i{index}" for index in range(40)], "title": [f"tea {index}" for index in range(40)]}
    method = build_method(load_preset("item-item"), items)
    Recommender(method.model, method.processor, purchases={"u": [0, 1]}).save_pretrained(path, purchases=True)
    edit(path)
    started = time.perf_counter()
    edit(path)
    seconds = time.perf_counter() - started
    for _ in range(kills):
        before = edited(path)
        _kill(lambda: [edit(path) for _ in count()], chance.uniform(0, 3 * seconds))
        try:
            now = edited(path)
            found["as after" if now > before else "as before"] += 1
            edit(path)
            found["stuck"] += edited(path) != now + 1 or [entry.name for entry in root.iterdir()] != ["model"]
        except (OSError, ValueError, RuntimeError) as error:
            print(f"lost: {error}", file=sys.stderr)
            found["lost"] += 1
    return found


def table(results: dict[str, tuple[int, float, Counter[str]]], settings: dict[str, Any]) -> str:
    """The outcomes as Markdown."""
    title = {"files": "files in place (transformers alone)", "exchange": "exchange of names", "renames": "two renames"}
    lines = [
        "# Killed while saving",
        "",
        "Two small models are saved over each other in turn by a process that is killed at a random moment; then the",
        "folder is loaded. A mixture has the weights or items of both. Leftovers: saves after which anything but the",
        "folder was there. A save takes " + ", ".join(f"{f['save']:.2f} s ({w})" for w, (_, _, f) in results.items()),
        "on this machine.",
        "",
        f"`{settings['command']}`, commit {settings['commit']}, seed {settings['seed']}.",
        "",
        "| saved by | kills | as A | as B | refused | mixtures | leftovers | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + rows({title[way]: result for way, result in results.items()}, OUTCOMES)) + "\n"


def work_table(results: dict[str, tuple[int, float, Counter[str]]]) -> str:
    """The outcomes of other work as Markdown."""
    lines = [
        "# Killed while working",
        "",
        "Edits and purchases of a recommender that is saved after each, a benchmark that is built over another one,",
        "and training, in processes that are killed at a random moment after their first line. Lost: what is there",
        "is neither the state before nor after. Stuck: the same work, done again, does not end well.",
        "",
        "| work | kills | as before | as after | lost | stuck | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + rows(results, WORK_OUTCOMES)) + "\n"


def rows(results: dict[str, tuple[int, float, Counter[str]]], outcomes: Sequence[str]) -> list[str]:
    """A line of Markdown for each result: kills, how often each outcome, and seconds."""
    counts = {name: [kills, *map(found.get, outcomes), seconds] for name, (kills, seconds, found) in results.items()}
    return [f"| {name} | {' | '.join(str(round(count or 0)) for count in own)} |" for name, own in counts.items()]


def main(
    kills: Annotated[int, typer.Option(min=1, help="Kills of each way to save.")] = 20,
    ways: Annotated[str, typer.Option(help=f"Some of {', '.join(WAYS)}, separated by commas.")] = ",".join(WAYS),
    works: Annotated[int, typer.Option(help="Kills of edits, builds and trainings, each.")] = 0,
    seed: int = 0,
    output: Annotated[Path | None, typer.Option(help="Markdown file for the table.")] = None,
) -> None:
    """Count what killed saves leave."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    settings, results = provenance(seed), {}
    for way in ways.split(","):
        started = time.perf_counter()
        found = run_way(way, kills, seed)
        results[way] = (kills, time.perf_counter() - started, found)
    text = table(results, settings)
    if works:
        others = {}
        for name in ("edit", *WORKS):
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as root:
                found = run_named(name, works, seed, Path(root))
            others[name] = (works, time.perf_counter() - started, found)
        text += f"\n{work_table(others)}"
    print(text)
    if output is not None:
        output.write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main, __doc__)
