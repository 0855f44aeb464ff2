"""Kills processes that save one model over another, and counts what the folder then loads as.

Two small models of the same shape, with other weights, items and semantic IDs, are saved in turn into one folder. The
process is killed at a random moment. What AutoModel and AutoProcessor load afterwards is model A, model B, refused, or
a mixture: weights of one with items of the other. Then A is saved once more, which has to leave nothing else behind.

    python benchmarks/kills.py --kills 200 --output benchmarks/results/kills.md
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoModel, AutoProcessor, BertConfig
from transformers.utils import logging

from mender import model_folder
from mender.model_folder import check_folder, load_whole, replace_folder, write_record
from mender.runs import provenance
from mender.terminal import run_script
from modeling_mender import MenderConfig, MenderForGenerativeRetrieval, MenderProcessor, SemanticIdCatalogue

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
    child = os.fork()
    if child == 0:
        try:
            for name in cycle("BA"):
                save(path, *versions[name])
        finally:
            os._exit(1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"the process that saves ended by itself with status {status}; it should run until killed")


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
    for way, (kills, seconds, found) in results.items():
        counts = [kills, *(found[name] for name in OUTCOMES), round(seconds)]
        lines.append(f"| {title[way]} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


def main(
    kills: Annotated[int, typer.Option(min=1, help="Kills of each way to save.")] = 20,
    ways: Annotated[str, typer.Option(help=f"Some of {', '.join(WAYS)}, separated by commas.")] = ",".join(WAYS),
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
    print(text)
    if output is not None:
        output.write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main, __doc__)
