"""Benchmarks that others have published, converted to our columns.

The preferences of Preference Discerning (Paischer et al. 2025, arXiv:2412.08604) were written by a large language
model. They are public, also as a Parquet data set on the Hub (`xiaoleichu/amazon-beauty-steerable-gr`, MIT) with two
configs: `benchmark`, one row per example with its axis, history, text and target, and `catalog`, the items with their
semantic IDs. Reading it here lets anyone evaluate on these preferences without a language model.

The result is a folder that `load`, training and evaluation read like a built one. No text is written and nothing is
matched again, so the folder has no statistics of a build; its card says where everything is from.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCardData

from preference_benchmark.axes.examples import COLUMNS, STORED_FEATURES, item_features, of_split, write_shards
from preference_benchmark.axes.protocol import AXES, SENTIMENT_AXES, SPLITS
from preference_benchmark.hub.card import benchmark_configs, markdown_table
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE
from preference_benchmark.stages import digest_of

__all__ = [
    "ReadyMade",
    "read_ready_made",
    "write_ready_made",
]

logger = logging.getLogger(__name__)


_EXAMPLE_COLUMNS = (
    "dimension",
    "expected_behavior",
    "user_id",
    "history_item_ids",
    "prompt_text",
    "target_item_id",
    "target_semantic_id",
)
_ITEM_COLUMNS = ("item_id", "semantic_id", "title")
_FILES = {split: f"data/benchmark/{split}.parquet" for split in SPLITS}
_CATALOG = "data/catalog/catalog.parquet"
# Licences that are known.
_LICENCES = {"xiaoleichu/amazon-beauty-steerable-gr": "mit"}
_BEHAVIOURS = {"retrieve_target": POSITIVE, "avoid_target": NEGATIVE}
# An axis is recognised by words in its name, whatever is around and between them; the first pattern that fits counts.
_WORDS = {
    "sentiment_following_with_history": r"sentiment.*hist|hist.*sentiment",
    "sentiment_following": r"sentiment",
    "history_consolidation": r"consolidat",
    "fine_grained_steering": r"fine",
    "coarse_grained_steering": r"coarse",
    "recommendation": r"recommend",
}


@dataclass(frozen=True)
class ReadyMade:
    """A published benchmark in our columns.

    Attributes:
        examples: of all splits, with the columns of `axes.examples.COLUMNS`.
        items: item_id, title, text, aspects (empty: none are published), semantic_id (list of int).
        axes: by their name of an axis ours.
        unpaired: examples of the sentiment axes that were left out because the text of opposite sentiment about the
            same target is missing, by split.
    """

    examples: pl.DataFrame
    items: pl.DataFrame
    axes: dict[str, str]
    unpaired: dict[str, int]


def read_ready_made(
    path: str | Path, *, revision: str | None = None, axes: Mapping[str, str] | None = None
) -> ReadyMade:
    """A benchmark of this schema, from the Hub or from a folder.

    A prompt of the axis of history consolidation is cut at ". " into its preferences.

    Args:
        path: the name of a data set on the Hub, or a folder that holds `data/benchmark/{split}.parquet` and
            `data/catalog/catalog.parquet`.
        revision: branch, tag or commit on the Hub.
        axes: their names of axes and ours (one of `protocol.AXES`); by default they are recognised by their words.

    Raises:
        FileNotFoundError: if a folder lacks a file; lists what belongs there.
        ValueError: if columns are missing, an axis or behaviour is unknown, or an example names an item that the
            catalogue lacks or gives another semantic ID.

    >>> from preference_benchmark.hub.ready_made import read_ready_made
    >>> beauty = read_ready_made("xiaoleichu/amazon-beauty-steerable-gr")  # doctest: +SKIP
    >>> beauty.examples["preferences"][0]  # doctest: +SKIP
    """
    logger.info("reading %s", path)
    splits, catalog = _load(path, revision)
    items = _items(_frame(catalog, _ITEM_COLUMNS, f"{path} (catalog)"))
    frames = {
        split: _frame(data, _EXAMPLE_COLUMNS, f"{path} ({split})").with_columns(split=pl.lit(split))
        for split, data in splits.items()
    }
    rows = pl.concat([frames[split] for split in SPLITS if split in frames], how="vertical_relaxed")
    named = _axes(rows["dimension"].unique().sort().to_list(), dict(axes or {}))
    rows = rows.with_columns(
        axis=pl.col("dimension").replace_strict(named, return_dtype=pl.String),
        sentiment=_sentiment(rows["expected_behavior"]),
    )
    _check_items(rows, items)
    examples = _paired(_examples(rows, items["item_id"]))
    kept = examples.filter(pl.col("pair_id").is_not_null()).select(COLUMNS)
    lost = examples.filter(pl.col("pair_id").is_null())["split"].value_counts()
    return ReadyMade(kept, items, named, dict(sorted(lost.iter_rows())))


def _load(path: str | Path, revision: str | None) -> tuple[Mapping[str, Dataset], Dataset]:
    folder = Path(path)
    if not folder.is_dir():
        if isinstance(path, Path):
            raise FileNotFoundError(f"{path} does not exist; pass a folder, or the name of a Hub data set as text.")
        benchmark = load_dataset(path, "benchmark", revision=revision)
        catalog = load_dataset(path, "catalog", revision=revision)
        return benchmark, next(iter(catalog.values()))
    missing = [name for name in (*_FILES.values(), _CATALOG) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {missing}; copy the data set's `data` folder there as it is.")
    files = {split: str(folder / name) for split, name in _FILES.items()}
    catalog = load_dataset("parquet", data_files=str(folder / _CATALOG), split="train")
    return load_dataset("parquet", data_files=files), catalog


def _frame(data: Dataset, columns: tuple[str, ...], what: str) -> pl.DataFrame:
    missing = [name for name in columns if name not in data.column_names]
    if missing:
        raise ValueError(f"{what} lacks the columns {missing}; found {data.column_names}. It is of another schema.")
    return data.select_columns(list(columns)).to_polars()


def _items(frame: pl.DataFrame) -> pl.DataFrame:
    repeated = frame.filter(pl.col("item_id").is_duplicated())["item_id"]
    if len(repeated):
        raise ValueError(f"the catalogue lists {repeated.n_unique():,} items more than once, such as {repeated[0]}.")
    return frame.sort("item_id").select(
        pl.col("item_id").cast(pl.String),
        "title",
        text="title",
        aspects=pl.lit([], dtype=pl.List(pl.String)),
        semantic_id=pl.col("semantic_id").cast(pl.List(pl.Int64)),
    )


def _axes(found: list[str], given: dict[str, str]) -> dict[str, str]:
    """Our name of each of their axes."""
    wrong = [name for name in given.values() if name not in AXES]
    if wrong or not set(given) <= set(found):
        raise ValueError(f"axes={given} does not fit: the data set has {found}, and axes here are {list(AXES)}.")
    names = pl.Series("theirs", found, dtype=pl.String)
    lower = names.str.to_lowercase()
    guess = pl.coalesce(pl.when(lower.str.contains(words)).then(pl.lit(ours)) for ours, words in _WORDS.items())
    guessed = dict(zip(found, pl.select(guess).to_series().to_list(), strict=True)) if found else {}
    named = guessed | given
    unknown = [theirs for theirs, ours in named.items() if ours is None]
    if unknown:
        example = {unknown[0]: AXES[0]}
        raise ValueError(f"axes {unknown} are not known; pass what they are, such as axes={example}.")
    if len(set(named.values())) < len(named):
        raise ValueError(f"two axes would have the same name here: {named}; pass axes= to tell them apart.")
    return named


def _sentiment(behaviour: pl.Series) -> pl.Series:
    unknown = behaviour.filter(~behaviour.is_in(list(_BEHAVIOURS)) | behaviour.is_null()).unique()
    if len(unknown):
        raise ValueError(f"expected_behavior holds {unknown.to_list()[:5]}; known are {list(_BEHAVIOURS)}.")
    return behaviour.replace_strict(_BEHAVIOURS, return_dtype=pl.String)


def _check_items(rows: pl.DataFrame, items: pl.DataFrame) -> None:
    """Every item that an example names is in the catalogue, and its semantic ID is the catalogue's."""
    known = items["item_id"].cast(rows.schema["target_item_id"])
    named = pl.concat([rows["target_item_id"], rows["history_item_ids"].explode().drop_nulls()]).unique()
    unknown = named.filter(~named.is_in(known.implode()))
    if len(unknown):
        raise ValueError(
            f"{len(unknown):,} items of the examples are not in the catalogue, such as {unknown.sort()[0]}; the two "
            "files are not of the same data set."
        )
    codes = pl.DataFrame({"target_item_id": known, "code": items["semantic_id"]})
    theirs = rows.select("target_item_id", pl.col("target_semantic_id").cast(pl.List(pl.Int64))).drop_nulls()
    other = theirs.join(codes, on="target_item_id").filter(pl.col("target_semantic_id") != pl.col("code"))
    if other.height:
        raise ValueError(
            f"{other.height:,} examples give their target another semantic ID than the catalogue, such as item "
            f"{other['target_item_id'][0]}: {other['target_semantic_id'][0].to_list()} and "
            f"{other['code'][0].to_list()}; the two files are not of the same data set."
        )


def _examples(rows: pl.DataFrame, item_ids: pl.Series) -> pl.DataFrame:
    stray = rows.filter((pl.col("sentiment") == NEGATIVE) & ~pl.col("axis").is_in(SENTIMENT_AXES))
    if stray.height:
        raise ValueError(
            f"{stray.height:,} examples of {stray['dimension'].unique().to_list()} ask to avoid their target; only "
            f"{list(SENTIMENT_AXES)} have such. Pass axes= if these axes are among them."
        )
    prompt = pl.col("prompt_text").str.strip_chars()
    several = prompt.str.strip_chars_end(". ").str.split(". ")
    consolidated = pl.col("axis") == "history_consolidation"
    index = {"old": item_ids, "new": pl.int_range(len(item_ids), eager=True), "return_dtype": pl.Int32}
    history = pl.col("history_item_ids").fill_null([]).cast(pl.List(pl.String))
    return rows.select(
        "axis",
        "split",
        "sentiment",
        pl.col("user_id").cast(pl.String).fill_null(""),
        kind=pl.when(consolidated).then(pl.lit("inferred")).otherwise(pl.lit("stated")),
        history=history.list.eval(pl.element().replace_strict(**index)),
        preferences=pl.when(consolidated).then(several).otherwise(pl.concat_list(prompt)),
        avoid=pl.lit([], dtype=pl.List(pl.String)),
        targets=pl.concat_list(pl.col("target_item_id").cast(pl.String).replace_strict(**index)),
        stratum=pl.lit(""),
        avoided=pl.lit([], dtype=pl.List(pl.Int32)),
    )


def _paired(examples: pl.DataFrame) -> pl.DataFrame:
    """The examples with pair_id: -1 outside the sentiment axes, null where the other half of a pair is missing.

    A pair is the n-th positive and the n-th negative example, in file order, of the same user, history and target;
    then, of those without a history that are left, of the same target.
    """
    rows = examples.with_row_index("row")
    left = rows.filter(pl.col("axis").is_in(SENTIMENT_AXES)).with_columns(
        pl.col("history").cast(pl.List(pl.String)).list.join(" "), target=pl.col("targets").list.first()
    )
    found = [pl.DataFrame(schema={"row": pl.UInt32, "first": pl.UInt32})]
    for same in (["user_id", "history", "target"], ["history", "target"]):
        group = ["split", "axis", *same]
        nth = left.with_columns(nth=pl.int_range(pl.len()).over([*group, "sentiment"]))
        pairs = nth.with_columns(size=pl.len().over([*group, "nth"]), first=pl.col("row").min().over([*group, "nth"]))
        found.append(pairs.filter(pl.col("size") == 2).select("row", "first"))
        left = left.join(found[-1], on="row", how="anti", maintain_order="left").filter(pl.col("history") == "")
    ids = pl.concat(found).select("row", pair_id=pl.col("first").rank("dense").cast(pl.Int64) - 1)
    rows = rows.join(ids, on="row", how="left", maintain_order="left")
    outside = ~pl.col("axis").is_in(SENTIMENT_AXES)
    return rows.with_columns(pair_id=pl.when(outside).then(-1).otherwise("pair_id")).drop("row")


def write_ready_made(found: ReadyMade, output: Path, *, name: str, origin: str, licence: str | None = None) -> Path:
    """Write the configs `name` and `name-items` as Parquet, and their card.

    The folder appears as a whole, or not at all.

    Args:
        found: of `read_ready_made`.
        output: a folder that does not exist yet.
        name: of the benchmark.
        origin: where it is from: its name on the Hub, or a folder.
        licence: its licence, as the Hub names it; default: "mit" for the paper's own data set, else "unknown".

    Returns:
        The folder.

    Raises:
        FileExistsError: if there is something already.
    """
    output = Path(output)
    if output.exists():
        raise FileExistsError(f"{output} exists; pass another folder as --output, or remove it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}-"))
    try:
        # As in a built folder, a digest is part of every path: load_dataset keys its cache by the paths in the card.
        place = f"{name}/{digest_of(origin, found.examples.hash_rows().to_list(), found.items.hash_rows().to_list())}"
        configs = {name: SPLITS, f"{name}-items": ("items",)}
        for config in configs:
            (scratch / place / config).mkdir(parents=True)
        for split in SPLITS:
            write_shards(of_split(found.examples, split), STORED_FEATURES, scratch / place / name, split)
        write_shards(found.items, item_features(found.items), scratch / place / f"{name}-items", "items")
        patterns = {
            config: {split: f"{place}/{config}/{split}-*.parquet" for split in splits}
            for config, splits in configs.items()
        }
        card = _card(found, name, origin, licence or _LICENCES.get(origin, "unknown"), patterns)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        scratch.chmod(0o755)
        os.rename(scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def _card(found: ReadyMade, name: str, origin: str, licence: str, patterns: dict[str, dict[str, str]]) -> str:
    data = DatasetCardData(
        pretty_name=f"Preference discerning, after {origin}",
        license=licence,
        annotations_creators="machine-generated",
        tags=["recommendation", "sequential-recommendation", "generative-retrieval", "preferences"],
        configs=benchmark_configs(patterns),
    )
    counts = Counter(found.examples.select("axis", "split").rows())
    rows = [
        [f"`{ours}`", f"`{theirs}`", *(counts[ours, split] for split in SPLITS)]
        for theirs, ours in sorted(found.axes.items(), key=lambda pair: AXES.index(pair[1]))
    ]
    lost = ", ".join(f"{count:,} of {split}" for split, count in found.unpaired.items()) or "none"
    return f"""---
{data.to_yaml()}
---

# {name}

The examples, preferences and {len(found.items):,} items of `{origin}` in the columns of this benchmark. No text was
written and nothing was matched again. Items carry the semantic IDs that were published with them.

{markdown_table(["axis", "there", *SPLITS], rows)}
Examples of sentiment axes left out because the text of opposite sentiment about their target is missing: {lost}.

```python
from datasets import load_dataset

examples = load_dataset("path/to/this/folder", "{name}")
items = load_dataset("path/to/this/folder", "{name}-items", split="items")
```
"""
