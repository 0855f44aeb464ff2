"""Kills processes at random moments, and counts what their folders then load as.

Saving: two small models of the same shape, with other weights, items and semantic IDs, are saved in turn into one
folder. What AutoModel and AutoProcessor load afterwards is model A, model B, refused, or a mixture: weights of one with
items of the other. Then A is saved once more, which has to leave nothing else behind.

Other work: editing a recommender that counts purchases, and the commands of `killed_commands.py`. What is there
afterwards must be the state before or after, and the same work must go on to its end.

    python benchmarks/kills.py --kills 200 --output benchmarks/results/kills.md
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from killed_commands import MODULES, WORKS, build_command, run_work, save_encoder
from transformers import AutoModel, AutoProcessor, BertConfig
from transformers.utils import logging
from warm_processes import WarmProcesses

from mender import Recommender, model_folder
from mender.model_folder import check_folder, load_whole, replace_folder, write_record
from mender.runs import provenance
from mender.terminal import run_script
from modeling_mender import (
    MenderConfig,
    MenderForGenerativeRetrieval,
    MenderProcessor,
    SemanticIdCatalogue,
    build_method,
    load_preset,
)

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


def run_named(name: str, kills: int, seed: int, root: Path) -> Counter[str]:
    """Outcomes of so many kills of "edit" or one of `WORKS`, in an empty folder."""
    if name == "edit":
        return run_edits(kills, seed, root)
    save_encoder(root / "encoder")
    if name == "train":
        with WarmProcesses(MODULES) as processes:
            if processes.run("killed_commands.command", build_command(root, "60"), root / "log.txt"):
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
