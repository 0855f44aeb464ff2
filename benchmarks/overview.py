"""All methods on all data sets: the tables of results/README.md and of each data set's page, and one picture.

    python benchmarks/overview.py

Reads the comparisons that benchmarks/comparisons.py wrote, trains and asks nothing. A table stands between two comments
in its page and is replaced; the words around it are written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from comparisons import planned

from mender.report import number, save_figure
from mender.terminal import UserError, run_script
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.stages import write_atomically

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DATA_SETS = ("corner_shop", "steam", "musical_instruments", "office_products", "gift_cards")
PRINCIPAL = (
    "mender",
    "mender-lite",
    "mender-emb",
    "hybrid",
    "text-search",
    "item-item",
    "popularity",
    "sasrec",
    "tiger",
)
"""Methods of the table over all data sets."""
COLUMNS = {
    "recommendation: matched / last / silent": [f"recommendation ({kind})" for kind in ("oracle", "last", "silent")],
    "steering: fine / coarse": ["fine steering", "coarse steering"],
    "sentiment m@10": ["sentiment following"],
    "consolidation": ["history consolidation"],
    "wishes: known / withheld": ["open wishes (known)", "open wishes (withheld)"],
    "composite / misspelt": ["open wishes (composite)", "open wishes (misspelt)"],
    "wish and avoid: known / withheld": ["wish and avoid (known)", "wish and avoid (withheld)"],
}
"""Titles of the tables' columns, and the rows of a comparison that each shows."""
PANELS = {
    "matched recommendation": "recommendation (oracle)",
    "from the history alone": "recommendation (silent)",
    "fine steering": "fine steering",
    "sentiment following": "sentiment following",
    "wishes, attribute known": "open wishes (known)",
    "wishes, attribute withheld": "open wishes (withheld)",
}
"""Of the picture: title, and row of a comparison."""
BEGIN, END = "<!-- benchmarks/overview.py: begin -->", "<!-- benchmarks/overview.py: end -->"


@dataclass(frozen=True)
class DataSet:
    """What was measured on one data set.

    Attributes:
        name: key of comparisons.yaml.
        cells: by row of its comparison, then by method, as `mender compare` writes them.
        seeds: by method, how many runs there are.
        avoided: by method, then by stratum, how many of ten items have what was to be avoided; the mean over seeds.
    """

    name: str
    cells: dict[str, dict[str, dict[str, Any]]]
    seeds: dict[str, int]
    avoided: dict[str, dict[str, float]]

    @property
    def title(self) -> str:
        """Its name in prose."""
        return self.name.replace("_", " ")

    @property
    def methods(self) -> list[str]:
        """Names of the methods, as comparisons.yaml orders them."""
        return list(self.seeds)


def main() -> None:
    """Write the tables and the picture of what is kept."""
    plan = yaml.safe_load((HERE / "comparisons.yaml").read_text("utf-8"))
    there = [name for name in DATA_SETS if (RESULTS / name / "comparison.json").exists()]
    for name in sorted({*DATA_SETS} - {*there}):
        print(f"{name} has no comparison yet; benchmarks/comparisons.py {name} --partial makes it")
    data_sets = [read(name, plan[name]) for name in there]
    for data_set in data_sets:
        write_table(RESULTS / data_set.name / "README.md", table([data_set], data_set.methods))
    over_all = table(data_sets, PRINCIPAL)
    write_table(RESULTS / "README.md", over_all)
    print(over_all)
    draw(data_sets, RESULTS / "overview.png")


def read(name: str, entry: dict[str, Any]) -> DataSet:
    """The comparison of all methods on one data set, and what their runs say of avoided items."""
    file = RESULTS / name / "comparison.json"
    comparison = json.loads(file.read_text("utf-8"))
    seeds = {method: int(cost["seeds"]) for method, cost in comparison["costs"].items()}
    runs = [run for run in planned(name, entry, None) if run.is_there]
    avoided = {method: mean_avoided([run.kept for run in runs if run.method == method]) for method in seeds}
    return DataSet(name, comparison["cells"], seeds, avoided)


def mean_avoided(runs: Sequence[Path]) -> dict[str, float]:
    """Items to be avoided among ten, by stratum: the mean over runs."""
    values: dict[str, list[float]] = {}
    for folder in runs:
        for score in json.loads((folder / "five_axes.json").read_text("utf-8"))["scores"]:
            if "avoided@10" in score and "shuffled" not in score["method"]:
                values.setdefault(score["stratum"], []).append(score["avoided@10"])
    return {stratum: mean(found) for stratum, found in values.items()}


def table(data_sets: Sequence[DataSet], methods: Sequence[str]) -> str:
    """A Markdown table with a line for each data set and method."""
    several = len(data_sets) > 1
    header = [*(["data set"] if several else []), "method", *COLUMNS, "seeds"]
    lines = []
    for data_set in data_sets:
        best = {row: max(cell["value"] for cell in cells.values()) for row, cells in data_set.cells.items()}
        there = [method for method in methods if method in data_set.seeds]
        for method in there:
            first = [data_set.title if method == there[0] else ""] if several else []
            groups = [
                " / ".join(text(data_set, method, row, best[row]) for row in rows if row in data_set.cells)
                for rows in COLUMNS.values()
            ]
            lines.append([*first, f"`{method}`", *groups, str(data_set.seeds[method])])
    return markdown_table(header, lines)


def text(data_set: DataSet, method: str, row: str, best: float) -> str:
    """One value, bold if it is the best of its data set, with the number of avoided items where it has one."""
    value = data_set.cells[row][method]["value"]
    shown = f"**{number(value)}**" if number(value) == number(best) else number(value)
    if row.startswith("wish and avoid"):
        stratum = row[row.index("(") + 1 : -1]
        shown += f" ({data_set.avoided[method][stratum]:.1f})"
    return shown


def write_table(page: Path, written: str) -> None:
    """Replace the table of a page.

    Raises:
        UserError: if the page lacks the comments that a table stands between.
    """
    content = page.read_text("utf-8") if page.exists() else ""
    if content.count(BEGIN) != 1 or content.count(END) != 1:
        raise UserError(f"{page} needs the comments {BEGIN} and {END} once, around its table")
    before, rest = content.split(BEGIN)
    _, after = rest.split(END)
    write_atomically(page, f"{before}{BEGIN}\n\n{written}\n{END}{after}".encode())


def draw(data_sets: Sequence[DataSet], path: Path) -> None:
    """For some rows, the value of each principal method on each data set, with its interval."""
    colours = dict(zip(PRINCIPAL, plt.get_cmap("tab10").colors, strict=False))
    figure, panels = plt.subplots(2, 3, figsize=(15, 8), sharex=True)
    offsets = np.linspace(-0.36, 0.36, len(PRINCIPAL))
    for axes, (title, row) in zip(panels.flat, PANELS.items(), strict=True):
        for place, data_set in enumerate(data_sets):
            axes.axvspan(place - 0.45, place + 0.45, color="0.96", zorder=0)
            for offset, method in zip(offsets, PRINCIPAL, strict=True):
                cell = data_set.cells.get(row, {}).get(method)
                if cell is None:
                    continue
                ends = [[cell["value"] - cell["low"]], [cell["high"] - cell["value"]]]
                axes.errorbar(
                    place + offset,
                    cell["value"],
                    yerr=np.maximum(ends, 0),
                    fmt="o" if method.startswith("mender") else "D",
                    markersize=7 if method.startswith("mender") else 5,
                    color=colours[method],
                    elinewidth=1,
                    label=method if not axes.get_legend_handles_labels()[1].count(method) else None,
                )
        axes.set_title(title)
        axes.set_ylim(0, None)
        axes.set_xticks(range(len(data_sets)), [data_set.title.replace(" ", "\n") for data_set in data_sets])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("recall@10")
    panels[1, 0].set_ylabel("m@10; of wishes precision@10")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=len(PRINCIPAL), frameon=False)
    figure.suptitle("Test examples, means over seeds, bootstrap 95% intervals")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main, __doc__)
