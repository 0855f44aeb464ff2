"""What a comparison of preferences found: a table to read, numbers to keep, a picture to look at."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from preference_benchmark.preferences.retrieval import Ranks

__all__ = ["METRICS", "Comparison", "Found"]

Interval = tuple[float, float, float]

METRICS = {
    "recall@10": lambda ranks: ranks.recall(10),
    "recall@50": lambda ranks: ranks.recall(50),
    "MRR": Ranks.reciprocal,
    "share ranked before": Ranks.share_before,
}


@dataclass(frozen=True)
class Found:
    """How one way to order the catalogue found the next items.

    Attributes:
        values: mean and 95% interval (low, high) by metric; "share ranked before" is 0 at best and 0.5 by chance.
        median_rank: of the next item.
        curve: recall at each of the comparison's k.
    """

    values: dict[str, Interval]
    median_rank: float
    curve: list[float]


@dataclass(frozen=True)
class Comparison:
    """Quality of tables of preferences on the same users; `print` it.

    Attributes:
        users: users compared on.
        targets: next items sought.
        items: size of the catalogue.
        seed: of everything drawn.
        retrieval: what was found, by method: controls, tables, and tables exchanged between users.
        lift: own preferences minus another user's, by table and metric, with 95% interval of the paired difference.
        described: other measures by table.
        ks: where the curves are measured.
    """

    users: int
    targets: int
    items: int
    seed: int
    retrieval: dict[str, Found]
    lift: dict[str, dict[str, Interval]]
    described: dict[str, dict[str, float]]
    ks: list[int]

    def __str__(self) -> str:
        head = f"{self.targets:,} next items of {self.users:,} users among {self.items:,} items (95% over users)"
        rows = [["the next item, found by", *METRICS, "median rank"]]
        rows += [
            [name, *(_shown(found.values[metric]) for metric in METRICS), f"{found.median_rank:,.0f}"]
            for name, found in self.retrieval.items()
        ]
        lifts = [["own minus another user's", *METRICS]]
        for name, values in self.lift.items():
            lifts.append([name, *(_shown(values[metric], sign=True) for metric in METRICS)])
        measures = list(dict.fromkeys(measure for values in self.described.values() for measure in values))
        others = [["", *self.described]]
        others += [
            [measure, *(_number(values.get(measure)) for values in self.described.values())] for measure in measures
        ]
        return "\n\n".join([head, _table(rows), _table(lifts), _table(others)])

    def write_json(self, path: str | Path) -> None:
        """All numbers; those that are not defined are null."""
        content = json.dumps(_plain(asdict(self)), indent=1, allow_nan=False)
        _replace(Path(path), lambda temporary: temporary.write_text(content + "\n", encoding="utf-8"))

    def draw(self, path: str | Path) -> None:
        """Recall against k for every method, as a picture (the suffix says in which format)."""
        from matplotlib import pyplot

        path = Path(path)
        figure, axes = pyplot.subplots(figsize=(7.5, 5), layout="constrained")
        tables = list(self.described)
        for name, found in self.retrieval.items():
            own = next((number for number, table in enumerate(tables) if name.startswith(table)), None)
            style = {"color": f"C{own}", "linewidth": 2} if own is not None else {"color": "0.5", "linewidth": 1.2}
            if own is None:
                style["linestyle"] = {"random": ":", "popularity": "--"}.get(name, "-.")
            elif name not in tables:
                style |= {"linestyle": "--", "linewidth": 1.2}
            axes.plot(self.ks, found.curve, label=name, **style)
        axes.set(xscale="log", xlabel="k", ylabel="share of next items among the first k", ylim=(0, 1))
        axes.set_xlim(1, self.items)
        axes.set_title(f"{self.targets:,} next items of {self.users:,} users among {self.items:,} items", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=9)
        kind = path.suffix.removeprefix(".") or "png"
        _replace(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=150))
        pyplot.close(figure)


def _shown(interval: Interval, *, sign: bool = False) -> str:
    mean, low, high = interval
    plus = "+" if sign else ""
    return f"{mean:{plus}.3f} ({low:{plus}.3f} to {high:{plus}.3f})"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1_000 else f"{value:.2f}"


def _table(rows: list[list[str]]) -> str:
    """Rows as a Markdown table, aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _replace(path: Path, write) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
