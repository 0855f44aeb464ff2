"""What wrong matching costs: one model, trained on preferences that were matched better and worse.

    python benchmarks/matching.py                                  # everything that is not there yet
    python benchmarks/matching.py --only oracle --only last --seed 1
    python benchmarks/matching.py --tables-only
    python benchmarks/matching.py --accuracy-only                  # of all matchers, without training

Which of a customer's preferences conditions a training example is for a matcher to choose; the benchmark has "oracle"
and "last". Here are worse and better ones. In the corner shop the true tastes are known, so a matcher has an accuracy.
A preference names a true reason if it names an attribute that the item bought has and that its customer liked when
choosing it. Accuracy is the share of matched preferences that name one, over the training examples where some candidate
does: a matcher that knows the truth has 1.

Every run trains `mender-emb` on one matching and leaves run.json and ranks.parquet under benchmarks/results/matching.
What is trained on is all that differs: validation and test are those of the benchmark, validation matched by oracle,
test asked in both of its modes. Most runs train on recommendation alone, so that a model has all that it knows of
preferences from matched examples; those named "all axes" also train on steering and sentiment, which no matcher
touches. A finished run is not repeated; a killed one begins again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import typer
from matched_training import ALONE, EVERYWHERE, Shop, kept, knowing, plan_of, train_and_keep
from measuring import shown
from sklearn.feature_extraction.text import TfidfVectorizer

from mender.comparison import Cell, Comparison, compare
from mender.report import number, save_figure
from mender.terminal import UserError, run_script
from mender.training import choose_preset
from preference_benchmark.axes.examples import KEYS
from preference_benchmark.axes.next_item import Matcher, Similarity
from preference_benchmark.embedding import CachedEmbedder, Embedder, TextEmbedder
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.preferences.candidates import Candidates
from preference_benchmark.stages import write_atomically

RESULTS = Path(__file__).parent / "results" / "matching"
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
OWN, OTHERS = "of the customer", "of others"


def above(least: float) -> Matcher:
    """The closest to the target, if its cosine is above a threshold."""

    def matcher(candidates: Candidates, similarity: Similarity) -> pl.Series:
        cosine = similarity("item")
        return cosine.set(cosine <= least, None)

    return matcher


def drawn(shop: Shop, first: int = 0, end: int | None = None) -> Matcher:
    """A random candidate of those in some places, if sorted by cosine with the target (0: the closest)."""

    def matcher(candidates: Candidates, similarity: Similarity) -> pl.Series:
        step = ["user", "step"]
        descending = [False, False, True, True, False, False]
        places = (
            candidates.rows.with_columns(cosine=similarity("item"))
            .with_row_index("row")
            .sort([*step, "cosine", "written", "rank", "text"], descending=descending)  # of equal ones as `match` does
            .with_columns(new=pl.col("text").is_first_distinct().over(step))
            .with_columns(place=pl.col("new").cum_sum().over(step).cast(pl.Int64) - 1)
        )
        draws = pl.Series(np.random.default_rng(shop.seed).random(places.height))
        allowed = pl.col("new") & (pl.col("place") >= first) & (True if end is None else pl.col("place") < end)
        return places.select("row", score=pl.when(allowed).then(pl.lit(draws))).sort("row")["score"]

    return matcher


def exchanged(shop: Shop) -> pl.DataFrame:
    """Oracle's matches, each given to another customer."""
    matches = shop.match("oracle")
    users = matches.select(pl.col("user_id").unique().sort())
    users = users.with_columns(turn=pl.Series(np.random.default_rng(shop.seed).permutation(users.height)))
    rows = matches.join(users, on="user_id").sort("turn", "step")
    # No customer has more examples than this, so the preference comes from another one.
    most = rows["turn"].value_counts()["count"].max()
    return rows.with_columns(text=pl.Series(np.roll(rows["text"].to_numpy(), most))).select(*KEYS, "text").sort(KEYS)


def partly(right: pl.DataFrame, wrong: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """Matches of which a random share is replaced by wrong ones; a larger share replaces the same and more."""
    replaced = np.random.default_rng(seed).permutation(right.height) < round(share * right.height)
    both = right.join(wrong.rename({"text": "wrong"}), on=KEYS, how="left", maintain_order="left")
    text = pl.when(pl.Series(replaced) & pl.col("wrong").is_not_null()).then("wrong").otherwise("text")
    return both.select(*KEYS, text=text)


class Words:
    """An embedder without a neural network: words weighted by TF-IDF, English stop words left out."""

    def __init__(self, shop: Shop) -> None:
        texts = pl.concat([shop.tables.items["text"], shop.preferences["text"].unique().sort()])
        self.weights = TfidfVectorizer(stop_words="english").fit(texts.to_list())

    def encode(self, texts: Any) -> np.ndarray:
        """One vector per text. Shape: (N, words)."""
        return self.weights.transform(list(texts)).toarray().astype(np.float32)


def first_layers(shop: Shop, layers: int) -> Embedder:
    """The benchmark's encoder with its first layers only."""
    embedder = TextEmbedder(shop.encoder, progress=False)
    stack = embedder.model[0].auto_model.encoder
    stack.layer = stack.layer[:layers]
    return CachedEmbedder(embedder)


def in_part(share: float, source: str) -> Callable[[Shop], pl.DataFrame]:
    """Oracle's matches with a share of wrong ones: another preference of the same customer, or of others."""

    def matches(shop: Shop) -> pl.DataFrame:
        wrong = shop.match(drawn(shop, first=1)) if source == OWN else exchanged(shop)
        return partly(shop.match("oracle"), wrong, share, shop.seed)

    return matches


def share_name(share: float, source: str) -> str:
    """Name of such a run."""
    return "shuffled" if share == 1 and source == OTHERS else f"{share:.0%} {source}"


MATCHINGS: dict[str, Callable[[Shop], pl.DataFrame]] = {
    "oracle": lambda shop: shop.match("oracle"),
    "last": lambda shop: shop.match("last"),
    "truth": lambda shop: shop.match(knowing(shop)),
    "words (TF-IDF)": lambda shop: shop.match("oracle", Words(shop)),
    "two layers": lambda shop: shop.match("oracle", first_layers(shop, 2)),
    "cosine > .4": lambda shop: shop.match(above(0.4)),
    "cosine > .5": lambda shop: shop.match(above(0.5)),
    "random of 5": lambda shop: shop.match(drawn(shop, end=5)),
    "earlier steps": lambda shop: shop.match("oracle", all_earlier_steps=True),
    "earlier steps, random of 5": lambda shop: shop.match(drawn(shop, end=5), all_earlier_steps=True),
    **{share_name(share, source): in_part(share, source) for source in (OWN, OTHERS) for share in SHARES},
}
"""By name, what gives the matches. "5": a step has at most five candidates, unless earlier steps count as well."""
CURVES = {source: ["oracle", *(share_name(share, source) for share in SHARES)] for source in (OWN, OTHERS)}
ALL_AXES = ("oracle", "last", share_name(0.5, OTHERS), "shuffled")


@dataclass(frozen=True)
class Run:
    """One matching, trained on.

    Attributes:
        matching: a key of `MATCHINGS`.
        all_axes: whether steering and sentiment examples are trained on as well.
        seed: of the matching and of the training.
        epochs: of the training.
        shape: options of the corner shop.
        encoder: a text encoder; None: the default one.
        limit: test examples per axis at most.
    """

    matching: str
    all_axes: bool
    seed: int
    epochs: int
    shape: Mapping[str, int]
    encoder: str | None = None
    limit: int | None = None

    @property
    def method(self) -> str:
        """Name in the tables."""
        return self.matching + (", all axes" if self.all_axes else "")

    @property
    def name(self) -> str:
        """Name of its folder."""
        return re.sub(r"[^a-z0-9.]+", "-", self.method.lower().replace(">", "above")).strip("-") + f"-seed{self.seed}"

    @property
    def preset(self) -> Any:
        """What is trained, and how."""
        changes = EVERYWHERE | ({} if self.all_axes else ALONE)
        return choose_preset("mender-emb", changes=changes, training={"num_train_epochs": self.epochs})

    @property
    def plan(self) -> dict[str, Any]:
        """All that the run depends on but the code: it is made again when this changes."""
        return plan_of(self)


def main(
    only: Annotated[list[str] | None, typer.Option(help="A name in the table; may be given several times.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="May be given several times; default: 0.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    users: Annotated[int, typer.Option(help="Customers of the corner shop.")] = 600,
    items: Annotated[int, typer.Option(help="Its items, before those are left out that few buy.")] = 240,
    encoder: Annotated[str | None, typer.Option(help="A text encoder; default: all-MiniLM-L6-v2.")] = None,
    eval_limit: Annotated[int | None, typer.Option(help="Test examples per axis at most.")] = None,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Train nothing.")] = False,
    accuracy_only: Annotated[bool, typer.Option("--accuracy-only", help="Write accuracy.md, train nothing.")] = False,
    results: Annotated[Path, typer.Option(help="Where runs, tables and picture are kept.")] = RESULTS,
    scratch: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("outputs/matching"),
) -> None:
    """Match, train, measure, compare."""
    shape = {"num_users": users, "num_items": items}
    every = [(name, False) for name in MATCHINGS] + [(name, True) for name in ALL_AXES]
    runs = [
        Run(name, all_axes, number, epochs, shape, encoder, eval_limit)
        for number in seed or [0]
        for name, all_axes in every
    ]
    known = {run.method for run in runs}
    if unknown := [name for name in only or [] if name not in known]:
        raise UserError(f"{unknown[0]!r} is none of the runs {'; '.join(sorted(known))}")
    if accuracy_only:
        write_accuracies(results, Shop.read(shape, encoder))
        return
    chosen = [] if tables_only else runs
    if only:  # in the order given, so that what is wanted most is there first
        chosen = [run for name in only for run in chosen if run.method == name]
    if missing := [run for run in chosen if kept(results / run.name).get("plan") != run.plan]:
        shop = Shop.read(shape, encoder)
        for run in missing:
            make(run, replace(shop, seed=run.seed), results / run.name, scratch / run.name)
    write_tables(results, runs)


def make(run: Run, shop: Shop, folder: Path, scratch: Path) -> None:
    """Train and measure one run, and keep what is needed to compare it."""
    matches = MATCHINGS[run.matching](shop)
    about = {
        "method": run.method,
        "plan": run.plan,
        "matched": matches.height / shop.training.height,
        "explained": shop.explained.height,
        "accuracy": shop.accuracy(matches),
    }
    train_and_keep(run.preset, shop, matches, folder, scratch, about, seed=run.seed, limit=run.limit)


def write_accuracies(results: Path, shop: Shop) -> None:
    """Accuracy of every matcher, and how much it agrees with oracle: accuracy.md."""
    oracle = shop.match("oracle")
    rows = []
    for name, choose in MATCHINGS.items():
        matches = choose(shop)
        same = matches.join(oracle, on=[*KEYS, "text"], how="semi").height / matches.height
        rows.append([name, shop.accuracy(matches), same, matches.height / shop.training.height])
    header = ["matched by", "accuracy", "chosen by oracle as well", "with a preference"]
    text = markdown_table(header, [[name, *map(number, shares)] for name, *shares in rows])
    counts = f"{shop.training.height:,} training examples; in {shop.explained.height:,} a candidate names a true reason"
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / "accuracy.md", f"{text.rstrip()}\n\n{counts}.\n".encode())
    print(f"Saved accuracy.md under {results}")


def write_tables(results: Path, planned: list[Run]) -> None:
    """Compare the runs that are there with the settings of these, of all seeds: table.md and curves.png."""
    shared = {name: planned[0].plan[name] for name in ("epochs", "shape", "encoder", "limit")}
    found = {folder: kept(folder) for folder in sorted(results.glob("*-seed*"))}
    found = {folder: record for folder, record in found.items() if shared.items() <= record.get("plan", {}).items()}
    parts, comparisons = [], {}
    for ending in ("", ", all axes"):
        methods = dict.fromkeys(run.method for run in planned if run.all_axes == bool(ending))
        runs = {
            folder: {"settings": record}
            for name in methods
            for folder, record in found.items()
            if record["method"] == name
        }
        if not any(run["settings"]["method"] == f"oracle{ending}" for run in runs.values()):
            print(f"nothing to compare{' of all axes' if ending else ''}: oracle is missing")
            continue
        comparison = comparisons[ending] = compare(runs, reference=f"oracle{ending}")
        title = "Trained on recommendation, steering and sentiment" if ending else "Trained on recommendation alone"
        parts += [f"## {title}", table(comparison, accuracies(runs))]
        if not ending:
            if any(len(curve_of(source, comparison.methods)) > 2 for source in CURVES):
                parts += ["## What ten points of accuracy are worth", slopes(comparison, accuracies(runs))]
            draw(comparison, accuracies(runs), results / "curves.png")
    if parts:
        write_atomically(results / "table.md", ("\n\n".join(part.rstrip() for part in parts) + "\n").encode())
        print(f"Saved table.md{' and curves.png' if '' in comparisons else ''} under {results}")


def accuracies(runs: Mapping[Path, Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """By method, accuracy and share of examples with a preference; means over seeds."""
    values: dict[str, list[tuple[float, float]]] = {}
    for run in runs.values():
        values.setdefault(run["settings"]["method"], []).append(
            (run["settings"]["accuracy"], run["settings"]["matched"])
        )
    return {method: tuple(np.mean(own, axis=0).tolist()) for method, own in values.items()}


def table(comparison: Comparison, accuracy: Mapping[str, tuple[float, float]]) -> str:
    """One line per matching."""
    labels = list(comparison.cells)
    header = ["matched by", "accuracy", "with a preference", "seeds"]
    header += [f"{label}, n = {next(iter(comparison.cells[label].values())).n:,}" for label in labels]
    rows = []
    for method in comparison.methods:
        right, matched = accuracy[method]
        cells = [comparison.cells[label][method] for label in labels]
        seeds = f"{comparison.costs[method]['seeds']:.0f}"
        rows.append([method, number(right), number(matched), seeds, *map(shown, cells)])
    return markdown_table(header, rows)


def curve_of(source: str, methods: Container[str]) -> list[str]:
    """Those of the methods that have a share of wrong preferences from one source, after oracle."""
    return [name for name in CURVES[source] if name in methods]


def slopes(comparison: Comparison, accuracy: Mapping[str, tuple[float, float]]) -> str:
    """What every axis loses per ten points of accuracy, by least squares over oracle and the shares of each curve."""
    rows = []
    for label, cells in comparison.cells.items():
        row = [label]
        for source in CURVES:
            there = curve_of(source, cells)
            x, y = [accuracy[name][0] for name in there], [cells[name].value for name in there]
            row.append(f"{np.polyfit(x, y, 1)[0] / 10:+.3f}" if len(there) > 2 else "")
        rows.append(row)
    return markdown_table(["axis", *(f"wrong ones {source}" for source in CURVES)], rows)


def draw(comparison: Comparison, accuracy: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Every axis against the accuracy of matching: two curves of growing shares, and the other matchers as points."""
    labels = list(comparison.cells)
    columns = 4
    figure, grid = plt.subplots(
        -(-(len(labels) + 1) // columns), columns, figsize=(15, 10.5), sharex=True, layout="constrained"
    )
    curves = {source: curve_of(source, comparison.methods) for source in CURVES}
    plain = [name for name in comparison.methods if not any(name in names for names in curves.values())]
    markers = dict(zip(plain, "s^vD<>Pph*XdH", strict=False))
    for place, label in zip(grid.flat, labels, strict=False):
        cells = comparison.cells[label]
        for (source, names), colour in zip(curves.items(), ("tab:blue", "tab:red"), strict=True):
            label_of_curve = f"oracle, 0 to 100% wrong ones {source}"
            _points(place, names, cells, accuracy, color=colour, marker="o", label=label_of_curve)
        for name in plain:
            style = {"color": "tab:green" if name == "truth" else "0.35", "marker": markers[name], "label": name}
            _points(place, [name], cells, accuracy, **style)
        place.set_title(f"{label}, n = {next(iter(cells.values())).n:,}", fontsize=10)
        place.set(xlim=(-0.03, 1.03), ylim=(0, None))
        place.grid(alpha=0.3)
    spare = list(grid.flat)[len(labels) :]
    for place in spare:
        place.axis("off")
    handles, names = grid.flat[0].get_legend_handles_labels()
    spare[0].legend(handles, names, loc="center", fontsize=9, frameon=False)
    figure.supxlabel("accuracy of matching: share of preferences that name a true reason, where some candidate does")
    figure.supylabel("recall@10; m@10 of sentiment pairs, precision@10 of wishes")
    save_figure(figure, path)


def _points(
    place: Any,
    names: list[str],
    cells: Mapping[str, Cell],
    accuracy: Mapping[str, tuple[float, float]],
    **style: Any,
) -> None:
    """Values with their intervals, joined by a line."""
    if not names:
        return
    x = [accuracy[name][0] for name in names]
    y = np.array([cells[name].value for name in names])
    ends = np.array([[cells[name].low, cells[name].high] for name in names]).T
    reach = np.maximum(np.abs(ends - y), 0)
    place.errorbar(x, y, reach, markersize=5, linewidth=1.4, elinewidth=0.7, capsize=2, **style)


if __name__ == "__main__":
    run_script(main, __doc__)
