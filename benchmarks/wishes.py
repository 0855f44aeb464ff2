"""Wishes with graded answers: what text search and a saved model find for sixty requests as customers type them.

    python benchmarks/wishes.py --data path/to/tables
    python benchmarks/wishes.py --data path/to/tables --model outputs/office/mender-emb-seed0/model
    python benchmarks/wishes.py --data path/to/tables --lists mine.json --json wishes.json

The tables folder holds items.parquet (item_id, title, text) of the data set that a collection in benchmarks/wishes was
graded on; wishes/README.md says where to get it, how grades were given and what they show. The collection holds
item ids only. --lists takes the answers of any other method: {"name": {"w01": ["item id", ...], ...}}, best first.

Encoding the items takes a minute or two on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import polars as pl
from measuring import write_rows
from rich.console import Console
from rich.table import Table

from mender.evaluation import metric_module

COLLECTION = Path(__file__).parent / "wishes" / "office_products.json"
RELEVANT = 2
"""Lowest grade of an answer that satisfies: 3 is exactly what was asked, 2 fits with a small reservation."""

TOP_K, TOP_FEW = 10, 5
FIGURES = ("ndcg@10", "precision@5", "avoided@10", "unjudged@10")
SHOWN = "BM25 + dense"
RATIO = "ndcg@10 ratio"
"""NDCG@10 divided by that of SHOWN."""

EXAMPLES = ("w01", "w03", "w04", "w10", "w13", "w20", "w28", "w35", "w42", "w53")

Rankings = Mapping[str, Sequence[str]]
"""Item ids by wish id, best first."""


def main() -> None:
    """Score text search, and what else was passed; print tables and examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with items.parquet")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a saved model; may be repeated")
    parser.add_argument("--lists", type=Path, help="JSON file with the ranked ids of other methods")
    parser.add_argument("--collection", type=Path, default=COLLECTION)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--examples", type=Path, help="write the examples here, as a Markdown table")
    arguments = parser.parse_args()
    collection = json.loads(arguments.collection.read_text("utf-8"))
    wishes = collection["wishes"]
    try:
        items = read_items(arguments.data, collection)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"nothing scored: {error}")

    searches = text_rankings(items, wishes)
    methods = dict(searches)
    for folder in arguments.model:
        name = folder.absolute().parent.name if folder.name == "model" else folder.name
        if name in methods:
            sys.exit(f"nothing scored: two models are named {name!r}; rename the folder of one of them")
        methods[name] = model_rankings(folder, wishes)
    if arguments.lists:
        methods |= json.loads(arguments.lists.read_text("utf-8"))

    console = Console(width=140)
    scores = {name: score(rankings, wishes) for name, rankings in methods.items()}
    rows = [{"method": name, **summary(values), **ratio(values, scores[SHOWN])} for name, values in scores.items()]
    console.print(figures_table(rows, f"{len(wishes)} wishes, 95% bootstrap intervals over wishes"))
    console.print(tags_table(scores, wishes))
    shown = {name: rankings for name, rankings in methods.items() if name == SHOWN or name not in searches}
    print_examples(console, shown, wishes, items)
    if arguments.examples:
        arguments.examples.write_text(examples_markdown(shown, wishes, items), "utf-8")
    write_rows(rows, arguments.json)


def read_items(folder: Path, collection: Mapping[str, Any]) -> pl.DataFrame:
    """The items that were graded.

    Raises:
        FileNotFoundError: if the folder has no items.parquet.
        ValueError: if it holds other items than the ones that were graded.
    """
    path = folder / "items.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; benchmarks/wishes/README.md says how to make the tables")
    items = pl.read_parquet(path)
    if catalogue_digest(items) != collection["catalogue"]["sha256"]:
        raise ValueError(
            f"{path} holds {len(items):,} items that are not the {collection['catalogue']['items']:,} of "
            f"{collection['data_set']}; ids would name other items, so pass the tables that were graded"
        )
    return items


def catalogue_digest(items: pl.DataFrame) -> str:
    """SHA-256 of ids and titles in the order of the table: a collection's ids belong to one catalogue."""
    lines = (f"{item_id}\t{title}" for item_id, title in items.select("item_id", "title").iter_rows())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def score(rankings: Rankings, wishes: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Figures of every wish.

    Args:
        rankings: ranked ids of every wish; ids without a grade count as not relevant.
        wishes: the wishes of a collection.

    Returns:
        One row per wish: `ndcg@10` with the grades as gains, `precision@5`: satisfying items in the first j divided
        by j, where j is 5 or the number of satisfying items if that is smaller; both null for a wish that nothing
        satisfies. `avoided@10`: how many of the first ten have what the wish rules out; null where it rules nothing
        out. `unjudged@10`: share of the first ten without a grade.

    Raises:
        ValueError: if a wish has no list, or one with an item twice.
    """
    return pl.DataFrame([_score(wish, rankings.get(wish["id"])) for wish in wishes], infer_schema_length=None)


def _score(wish: Mapping[str, Any], ranked: Sequence[str] | None) -> dict[str, Any]:
    if ranked is None:
        raise ValueError(
            f"no list for wish {wish['id']} ({wish['text']!r}); pass one per wish, an empty one if need be"
        )
    first = list(ranked[:TOP_K])
    if len(set(first)) < len(first):
        raise ValueError(f"the list for wish {wish['id']} holds an item twice: {first}")
    grades = np.array([wish["grades"].get(item_id, 0) for item_id in first])
    best = np.sort(list(wish["grades"].values()))[::-1][:TOP_K]
    few = min(TOP_FEW, int((best >= RELEVANT).sum()))
    return {
        "wish": wish["id"],
        "ndcg@10": _discounted(grades) / _discounted(best) if few else None,
        "precision@5": float((grades[:few] >= RELEVANT).sum() / few) if few else None,
        "avoided@10": float(len(set(first) & set(wish["avoided"]))) if wish["avoid"] else None,
        "unjudged@10": float(np.mean([item_id not in wish["grades"] for item_id in first])) if first else 0.0,
    }


def _discounted(grades: np.ndarray) -> float:
    return float(grades @ (1 / np.log2(np.arange(2, len(grades) + 2))))


def agreement(confusion: Sequence[Sequence[int]]) -> dict[str, float]:
    """How far two judgements of the same pairs agree.

    Args:
        confusion: pairs by first and second grade. Shape: (G, G).

    Returns:
        `exact`: share of equal grades; `kappa`: Cohen's kappa with quadratic weights (Cohen 1968).
    """
    counts = np.asarray(confusion, float)
    distance = np.subtract.outer(range(len(counts)), range(len(counts))) ** 2
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    return {
        "exact": float(np.trace(counts) / counts.sum()),
        "kappa": float(1 - (distance * counts).sum() / (distance * expected).sum()),
    }


def summary(scores: pl.DataFrame) -> dict[str, float]:
    """Mean of every figure over the wishes that have it, with the ends of its bootstrap interval."""
    figures = {}
    for name in FIGURES:
        values = scores[name].drop_nulls().to_numpy()
        if not len(values):  # such as avoided items where no wish rules anything out
            figures |= dict.fromkeys((name, f"{name}/low", f"{name}/high"), float("nan"))
            continue
        low, high = metric_module().bootstrap_interval(values[:, None])
        figures |= {name: float(values.mean()), f"{name}/low": float(low[0]), f"{name}/high": float(high[0])}
    return figures


def ratio(scores: pl.DataFrame, reference: pl.DataFrame, n_resamples: int = 10_000, seed: int = 0) -> dict[str, float]:
    """Mean NDCG@10 divided by that of a reference, with the ends of its paired 95% bootstrap interval over wishes.

    Both tables have the same wishes in the same order. A wish is drawn with the figures of both methods, so
    difficult wishes do not widen the interval.
    """
    values = np.column_stack([scores["ndcg@10"], reference["ndcg@10"]]).astype(float)
    values = values[~np.isnan(values).any(axis=1)]
    drawn = np.random.default_rng(seed).integers(len(values), size=(n_resamples, len(values)))
    means = values[drawn].mean(axis=1)
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975])
    mean = values.mean(axis=0)
    return {RATIO: float(mean[0] / mean[1]), f"{RATIO}/low": float(low), f"{RATIO}/high": float(high)}


def text_rankings(items: pl.DataFrame, wishes: Sequence[Mapping[str, Any]]) -> dict[str, Rankings]:
    """First ten of every wish by BM25, by the default encoder on titles and whole texts, and by sums of these.

    What a wish rules out is scored by its own phrase, and only what speaks for it more than an empty text does is
    subtracted.
    """
    from preference_benchmark.embedding import TextEmbedder

    queries = [wish["text"] for wish in wishes]
    encoder = TextEmbedder(progress=False)
    titles, texts = encoder.encode(items["title"]), encoder.encode(items["text"])
    asked = encoder.encode(queries)
    lexical, dense = bm25_scores(items["text"].to_list(), queries), asked @ texts.T
    both = standardised(lexical) + standardised(dense)
    avoided = np.zeros_like(dense)
    nothing = encoder.encode([""]) @ texts.T
    for row, wish in enumerate(wishes):
        evidence = encoder.encode(wish["avoid"]) @ texts.T - nothing if wish["avoid"] else 0 * nothing
        avoided[row] = np.maximum(evidence, 0).sum(axis=0)
    scores = {
        "BM25": lexical,
        "dense, titles": asked @ titles.T,
        "dense": dense,
        "BM25 + dense": both,
        "BM25 + dense - avoid": both - avoided / dense.std(axis=1, keepdims=True),
    }
    ids = items["item_id"].to_numpy()
    best = {name: ids[np.argsort(-values, axis=1, kind="stable")[:, :TOP_K]] for name, values in scores.items()}
    return {
        name: {wish["id"]: row.tolist() for wish, row in zip(wishes, rows, strict=True)} for name, rows in best.items()
    }


def bm25_scores(texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """BM25 (Robertson et al. 1995) of every query and text, English stop words left out. Shape: (Q, N)."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts), stopwords="en", show_progress=False), show_progress=False)
    words = bm25s.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
    known = [[word for word in query if word in index.vocab_dict] for query in words]
    return np.stack([index.get_scores(query) if query else np.zeros(len(texts), np.float32) for query in known])


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores of every query with mean 0 and deviation 1 over the items, so that two methods can be added."""
    return (scores - scores.mean(axis=1, keepdims=True)) / np.maximum(scores.std(axis=1, keepdims=True), 1e-9)


def model_rankings(folder: Path, wishes: Sequence[Mapping[str, Any]]) -> Rankings:
    """First ten of every wish by a saved model, asked without a history."""
    from mender import Recommender

    requests = [{"preference": wish["text"], "avoid": wish["avoid"] or None} for wish in wishes]
    found = Recommender.from_pretrained(folder).recommend_batch(requests, top_k=TOP_K)
    return {wish["id"]: [item["item_id"] for item in items] for wish, items in zip(wishes, found, strict=True)}


def figures_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """All figures of all methods, each with its interval."""
    table = Table(title=title)
    columns = (FIGURES[0], RATIO, *FIGURES[1:])
    for name in ("method", *columns):
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        table.add_row(
            row["method"],
            *(f"{row[name]:.3f} ({row[f'{name}/low']:.3f}-{row[f'{name}/high']:.3f})" for name in columns),
        )
    return table


def tags_table(scores: Mapping[str, pl.DataFrame], wishes: Sequence[Mapping[str, Any]]) -> Table:
    """NDCG@10 by kind of wish."""
    table = Table(title="NDCG@10 by kind of wish; a wish may be of several")
    for name in ("kind", "wishes", *scores):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for tag in sorted({tag for wish in wishes for tag in wish["tags"]} - {"unanswerable"}):
        members = [wish["id"] for wish in wishes if tag in wish["tags"] and "unanswerable" not in wish["tags"]]
        means = [values.filter(pl.col("wish").is_in(members))["ndcg@10"].mean() for values in scores.values()]
        table.add_row(tag, str(len(members)), *(f"{mean:.3f}" for mean in means))
    return table


def print_examples(
    console: Console, methods: Mapping[str, Rankings], wishes: Sequence[Mapping[str, Any]], items: pl.DataFrame
) -> None:
    """Ten wishes, the first five titles of each method and their grades; a dash marks an item without a grade."""
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    for wish in wishes:
        if wish["id"] not in EXAMPLES:
            continue
        ruled_out = f"  without: {', '.join(wish['avoid'])}" if wish["avoid"] else ""
        console.print(f"\n{wish['text']}{ruled_out}", style="bold", markup=False)
        for name, rankings in methods.items():
            console.print(f"  {name}", markup=False)
            for item_id in rankings[wish["id"]][:TOP_FEW]:
                grade = wish["grades"].get(item_id, "-")
                console.print(f"    {grade}  {titles[item_id][:100]}", markup=False, highlight=False)


def examples_markdown(methods: Mapping[str, Rankings], wishes: Sequence[Mapping[str, Any]], items: pl.DataFrame) -> str:
    """The same examples as one Markdown table: a column per method, five rows per wish."""
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    lines = [f"| wish | {' | '.join(methods)} |", f"|---|{'---|' * len(methods)}"]
    for wish in wishes:
        if wish["id"] not in EXAMPLES:
            continue
        ruled_out = f" (without: {', '.join(wish['avoid'])})" if wish["avoid"] else ""
        for rank in range(TOP_FEW):
            cells = [f"**{wish['text']}**{ruled_out}" if rank == 0 else ""]
            for rankings in methods.values():
                ranked = rankings[wish["id"]]
                if rank < len(ranked):
                    title = titles[ranked[rank]][:70].replace("|", "\\|")
                    cells.append(f"{wish['grades'].get(ranked[rank], '-')}: {title}")
                else:
                    cells.append("")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
