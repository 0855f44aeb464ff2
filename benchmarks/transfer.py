"""Transfer: train in one domain, ask in another, without training and with shares of its purchases.

    python benchmarks/transfer.py --data path/to/data                        # everything that is not there yet
    python benchmarks/transfer.py --data path/to/data --only gift_cards --only steam
    python benchmarks/transfer.py --data path/to/data --part pairs --method "text-search"
    python benchmarks/transfer.py --tables-only

Three parts. "pairs": `mender-lite` of a source domain is given the items of a target domain (`add_items`, then
`remove_items` of its own) and is asked the target's test requests; then some users of the target are drawn, and their
purchases are counted, or weights are fitted, or language experts trained, from the source's or from scratch. Single
experts are asked as well. "quantizers": codebooks fitted on the items of all domains against those of one domain, and
what `mender-emb` makes of either, at home and in another domain. "cold": a tenth of a domain's items is held out of
catalogue, histories and targets, and added after training.

Every cell leaves run.json and ranks.parquet under benchmarks/results/transfer; what all cells of a domain are asked,
users and items hashed, is kept once. A finished cell
is not repeated; models of the sources are kept under --scratch. Source and target have different items and customers;
what may have been seen is the text encoder's.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import typer
from comparisons import RUNS, hashed, public_command
from matched_training import kept
from measuring import shown, write_rows
from transfer_cells import HOW, cells, quantizer_rows
from transfer_lab import (
    BASELINES,
    CELLS,
    DOMAINS,
    GENERATOR,
    LITE,
    OWN,
    PAIRS,
    PRESENT,
    QUANTIZERS,
    RANKS,
    REQUESTS,
    RESULTS,
    SHARES,
    Cell,
    Lab,
)

from mender.comparison import Comparison, compare
from mender.evaluation import score_model
from mender.report import save_figure
from mender.runs import provenance
from mender.terminal import UserError, run_script
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.stages import write_atomically


def main(
    data: Annotated[Path | None, typer.Option(help="Folder that holds the folders of raw files.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A domain to ask in; may be given several times.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="pairs, cold or quantizers; may be given several times.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="A name in the tables; may be given several times.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of the generators.")] = 8,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Make no cell.")] = False,
    results: Annotated[Path, typer.Option(help="Where cells, tables and picture are kept.")] = RESULTS,
    scratch: Annotated[Path, typer.Option(help="Folder for models and checkpoints.")] = Path("outputs/transfer"),
) -> None:
    """Make the cells that are missing, write the tables."""
    every = cells(seed)
    chosen = every
    for name, asked in (("domain", only), ("part", part), ("method", method)):
        known = dict.fromkeys(getattr(cell, name) for cell in every)
        if unknown := {*(asked or [])} - {*known}:
            raise UserError(f"{min(unknown)!r} is none of {'; '.join(known)}")
        if asked:  # in the order given, so that what is wanted most is there first
            chosen = [cell for value in asked for cell in chosen if getattr(cell, name) == value]
    missing = [cell for cell in chosen if kept(results / CELLS / cell.folder).get("plan") != cell.plan]
    if missing and not tables_only:
        lab = Lab(data, scratch, epochs, seed)
        if not (results / QUANTIZERS).exists():
            write_rows(quantizer_rows(lab), results / QUANTIZERS)
        for cell in missing:
            make(cell, lab, results / CELLS / cell.folder)
    write_tables(results, every)


def make(cell: Cell, lab: Lab, folder: Path) -> None:
    """Make and measure one cell, and keep what is needed to compare it."""
    origin, started = provenance(cell.seed), time.process_time()
    origin["command"] = public_command(origin["command"])
    print(f"{time.strftime('%H:%M')} {cell.folder}: begins", flush=True)
    made = HOW[cell.how](lab, cell.domain, **cell.arguments)
    trained = time.process_time() - started
    data, limit = lab.data(cell.domain), DOMAINS[cell.domain].limit
    if made.examples is not None:
        data, limit = replace(data, examples=made.examples), None
    lab.texts.serve(made.model)
    _, ranks = score_model(made.model.eval(), made.processor, data, cell.method, limit, 0, shuffled=False)
    if made.examples is not None:  # a comparison names one group of an axis, not two
        both = pl.format("{}, {}", "matching", "stratum")
        ranks = ranks.with_columns(matching=pl.when(pl.col("matching") != "").then(both).otherwise("matching"))
    content = {
        **origin,
        "source": lab.data(cell.domain).source,
        "method": cell.method,
        "plan": cell.plan,
        "record": {name: value for name, value in made.record.items() if name != "curve"},
        "processor_seconds": {"making": round(trained, 1), "all": round(time.process_time() - started, 1)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    ranks = ranks.with_columns(hashed(ranks[name]) for name in ("user_id", "target"))
    asked = folder.parent / REQUESTS
    if not asked.exists():
        write_table(asked, ranks.drop(OWN))
    elif not pl.read_parquet(asked).equals(ranks.drop(OWN)):
        raise UserError(f"{cell.folder} was asked otherwise than {asked} says; remove the cells of that folder")
    write_table(folder / RANKS, ranks.select(OWN))
    write_atomically(folder / "run.json", (json.dumps(content, indent=1) + "\n").encode())
    print(f"{time.strftime('%H:%M')} {cell.folder}: done after {content['processor_seconds']} s", flush=True)


def write_table(path: Path, rows: pl.DataFrame) -> None:
    """Write a table, whole or not at all."""
    table = BytesIO()
    rows.write_parquet(table, compression="zstd")
    write_atomically(path, table.getvalue())


# Tables


COLUMNS = {
    "pairs": (
        "recommendation (oracle)",
        "recommendation (silent)",
        "fine steering",
        "coarse steering",
        "sentiment following",
        "history consolidation",
        "open wishes (known)",
        "open wishes (withheld)",
        "wish and avoid (known)",
    ),
    "cold": tuple(
        f"{row}{group})"
        for row in ("recommendation (oracle, ", "recommendation (silent, ", "fine steering (", "coarse steering (")
        for group in ("cold", "warm")
    ),
}
COLUMNS["quantizers"] = COLUMNS["pairs"]
REFERENCES = {"pairs": "text-search", "cold": LITE, "quantizers": f"{GENERATOR}, own codes"}
TITLES = {
    "pairs": "Asked in {domain}",
    "cold": "Items added after training: {domain}",
    "quantizers": "Generators asked in {domain}",
}


def write_tables(results: Path, every: Sequence[Cell]) -> None:
    """Compare the cells that are there: table.md, and transfer.png of the pairs."""
    parts, comparisons = [], {}
    for part in COLUMNS:
        for domain in dict.fromkeys(cell.domain for cell in every if cell.part == part):
            comparison = compared(results, [cell for cell in every if (cell.part, cell.domain) == (part, domain)])
            if comparison is not None:
                comparisons[part, domain] = comparison
                parts += [
                    f"## {TITLES[part].format(domain=domain.replace('_', ' '))}",
                    table(comparison, COLUMNS[part]),
                ]
    quantizers = results / QUANTIZERS
    if quantizers.exists():
        rows = json.loads(quantizers.read_text("utf-8"))
        header = list(rows[0])
        cells_of = [[", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in row.values()] for row in rows]
        parts += ["## Codebooks", markdown_table(header, cells_of)]
    if parts:
        write_atomically(results / "table.md", ("\n\n".join(part.rstrip() for part in parts) + "\n").encode())
        draw(comparisons, results / "transfer.png")
        print(f"Saved table.md and transfer.png under {results}")


def compared(results: Path, every: Sequence[Cell]) -> Comparison | None:
    """The comparison of some cells that are there with their reference; `None` without that."""
    folders = {cell.method: results / CELLS / cell.folder for cell in every}
    records = {method: record for method, folder in folders.items() if (record := kept(folder))}
    part, domain = every[0].part, every[0].domain
    if not records:
        return None
    requests = pl.read_parquet(folders[next(iter(records))].parent / REQUESTS)
    with tempfile.TemporaryDirectory() as place:
        runs = baselines(domain, requests, Path(place)) if part == "pairs" else {}
        for method, record in records.items():
            folder = Path(place) / "cells" / folders[method].name
            folder.mkdir(parents=True)
            both = pl.concat([requests, pl.read_parquet(folders[method] / RANKS)], how="horizontal")
            both.write_parquet(folder / RANKS)
            runs[folder] = {"settings": record}
        if not any(run["settings"]["method"] == REFERENCES[part] for run in runs.values()):
            return None
        return compare(runs, reference=REFERENCES[part])


def baselines(domain: str, requests: pl.DataFrame, place: Path) -> dict[Path, dict[str, Any]]:
    """Runs on all of a domain that benchmarks/comparisons.py made of the same requests, copied to a folder."""
    found, names = {}, ["matching", "axis", "stratum", "user_id", "target", "unit", "pair_id"]
    for method in BASELINES if domain in PRESENT else ():
        folder = RUNS / domain / f"{method}-seed0"
        ranks = pl.read_parquet(folder / RANKS).filter(pl.col("condition") == "")  # not with shuffled preferences
        if ranks.select(names).sort(names).equals(requests.select(names).sort(names)):
            (place / method).mkdir()
            ranks.write_parquet(place / method / RANKS)
            settings = json.loads((folder / "five_axes.json").read_text("utf-8"))["settings"]
            found[place / method] = {"settings": settings}
    return found


def table(comparison: Comparison, columns: Sequence[str]) -> str:
    """One line per method."""
    columns = [label for label in columns if label in comparison.cells]
    header = ["", *(f"{label}, n = {next(iter(comparison.cells[label].values())).n:,}" for label in columns)]
    rows = [[method, *(shown(comparison.cells[label][method]) for label in columns)] for method in comparison.methods]
    return markdown_table(header, rows)


DRAWN = ("recommendation (silent)", "recommendation (oracle)", "fine steering", "open wishes (known)")


def draw(comparisons: Mapping[tuple[str, str], Comparison], path: Path) -> None:
    """For every pair, what a source is worth at 0, 1, 10 and 100 % of the users; baselines are lines."""
    pairs = [(source, domain) for source, domain in PAIRS if ("pairs", domain) in comparisons]
    if not pairs:
        return
    figure, grid = plt.subplots(
        len(pairs), len(DRAWN), figsize=(15, 3.1 * len(pairs) + 0.8), squeeze=False, sharex=True, layout="constrained"
    )
    shares = [0.0, *SHARES, 1.0]
    for row, (source, domain) in zip(grid, pairs, strict=True):
        cells_of = comparisons["pairs", domain].cells
        curves = {
            "from scratch": [None, *(f"{LITE}, {share:.0%}" for share in SHARES), LITE],
            "moved, purchases counted": [
                f"{source}, no training",
                *(f"{source}, {share:.0%} observed" for share in SHARES),
            ],
            "moved and trained on": [
                f"{source}, wishes trained on",
                *(f"{source}, {share:.0%} trained on" for share in SHARES),
            ],
        }
        for axes, label in zip(row, DRAWN, strict=True):
            own = cells_of[label]
            for (name, methods), colour in zip(curves.items(), ("0.3", "tab:blue", "tab:orange"), strict=True):
                there = [(place, own[method]) for place, method in enumerate(methods) if method in own]
                y = np.array([cell.value for _, cell in there])
                ends = np.array([[cell.low, cell.high] for _, cell in there]).T if there else np.zeros((2, 0))
                axes.errorbar(
                    [place for place, _ in there],
                    y,
                    np.maximum(np.abs(ends - y), 0),
                    color=colour,
                    marker="o",
                    label=name,
                    markersize=5,
                    linewidth=1.4,
                    elinewidth=0.7,
                    capsize=2,
                )
            for name, style in (("text-search", "--"), ("popularity", ":")):
                if name in own:
                    axes.axhline(own[name].value, color="tab:green", linestyle=style, linewidth=1.2, label=name)
            axes.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
            axes.set_ylim(0, None)
            axes.grid(alpha=0.3)
            axes.set_title(f"{label}, n = {next(iter(own.values())).n:,}", fontsize=10)
        row[0].set_ylabel(f"{source.replace('_', ' ')} to\n{domain.replace('_', ' ')}")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=5, frameon=False)
    figure.supxlabel("share of the target's users whose purchases are known")
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main, __doc__)
