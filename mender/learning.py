"""Trains and measures recommenders on whatever holds purchases: folders, data frames, data sets, names of recipes."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor

from mender.data import CACHE, BenchmarkData, encoder_path, load_benchmark_data, reading_for
from mender.recommender import Recommender
from mender.training import choose_preset, fit, new_method, recommender_of
from modeling_mender.training.data import DEFAULTS, example_column, select_axes
from preference_benchmark import RECIPES
from preference_benchmark.embedding import TextEmbedder, encoder_identity
from preference_benchmark.hub.folder import names_in
from preference_benchmark.sources import SOURCES

__all__ = ["embed", "evaluate", "push", "read_data", "train", "upload", "write_with_card"]

logger = logging.getLogger(__name__)

PLAIN = "examples"
"""Name of a benchmark of examples that were passed as they are; it may lack axes of a preset."""
HELD_OUT = 0.1
"""Share of examples that validate, where a data set has one split."""

WRITTEN = ["*.safetensors", "*.safetensors.index.json", "pytorch_model*", "adapter_*.json", "items.json"]
"""Patterns of files on the Hub that are removed where a new version of a recommender lacks them."""


def train(
    data: Any,
    items: Any = None,
    *,
    preset: str = "mender",
    source: str | None = None,
    encoder: str | None = None,
    seed: int = 0,
    conditioning: str = "both",
    changes: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    validation_limit: int = 400,
    resume: bool = False,
    **reading: Any,
) -> Recommender:
    """Train a recommender. The last two purchases of every user are held out, so that `evaluate` can measure it.

    Args:
        data: see `read_data`.
        items: see `read_data`.
        preset: name of a method, or a YAML file.
        source: see `read_data`.
        encoder: Hub name or folder of a text encoder; default: all-MiniLM-L6-v2, which reads English.
        seed: random seed.
        conditioning: what the model may read: "none", "preference", "history", "both" or "all".
        changes: fields of the preset. With a `max_history` above 20, tables keep as many purchases of every user.
        training: arguments of the Trainer.
        output: folder for checkpoints; default: outputs/NAME/PRESET-seedSEED.
        validation_limit: validation examples per axis that early stopping uses.
        resume: whether to continue from the last checkpoint.
        **reading: see `read_data`.

    Raises:
        FileNotFoundError: if there are no such files.
        ValueError: if a name is unknown, or a value or the data cannot be used.
    """
    chosen = choose_preset(preset, conditioning, changes, training)
    reading = _reading(data, chosen.max_history, reading)
    benchmark = read_data(data, items, source=source, encoder=encoder, **reading)
    if benchmark.source == PLAIN and chosen.trained:
        present = set(example_column(benchmark.examples["oracle"]["train"], "axis"))
        axes = {axis: weight for axis, weight in chosen.axes.items() if axis in present}
        chosen = choose_preset(preset, conditioning, {**(changes or {}), "axes": axes}, training)
    encoder = encoder_path(encoder)
    examples = benchmark.matched(chosen.matching)
    if chosen.trained:
        select_axes(examples["train"], chosen.axes)  # refuses a missing axis before anything is computed
    method = new_method(chosen, benchmark, encoder, seed)
    folder = Path(output or Path("outputs") / benchmark.source / f"{chosen.name.replace('/', '-')}-seed{seed}")
    record = fit(method, benchmark, folder / "checkpoints", seed=seed, validation_limit=validation_limit, resume=resume)
    return recommender_of(method, benchmark, record, encoder)


def evaluate(
    shop: Recommender,
    data: Any,
    items: Any = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    name: str | None = None,
    **reading: Any,
) -> list[Any]:
    """Scores of a recommender on all axes; the table is printed. Targets that were removed count as not found.

    Args:
        shop: the recommender.
        data: see `read_data`; its test split is used.
        items: see `read_data`.
        limit: maximum number of examples (or pairs) per axis.
        seed: chooses these examples.
        name: in the table; default: the preset.
        **reading: see `read_data`.

    Raises:
        ValueError: if the data has other items than the recommender, or see `read_data`.
    """
    from mender.evaluation import score_model
    from mender.report import print_table

    benchmark = read_data(data, items, **_reading(data, shop.processor.max_history, reading))
    if missing := [item_id for item_id in benchmark.items["item_id"][:] if item_id not in shop.processor]:
        raise ValueError(
            f"{benchmark.source} has {len(missing)} items that this recommender does not know, such as {missing[0]!r}; "
            "pass the data that it was trained on"
        )
    scores, _ = score_model(
        shop.model, shop.processor, benchmark, name or shop.settings.get("preset") or "model", limit, seed
    )
    print_table(scores, title=f"{benchmark.source}: {len(benchmark.items):,} items")
    return scores


def _reading(data: Any, max_history: int, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Options for `read_data`, with histories as long as a model reads, see `reading_for`."""
    if isinstance(data, BenchmarkData | Dataset | DatasetDict):
        return dict(reading)
    return reading_for(max_history, data if isinstance(data, str | os.PathLike) else None, reading)


def read_data(
    data: Any, items: Any = None, *, source: str | None = None, encoder: str | None = None, **reading: Any
) -> BenchmarkData:
    """A benchmark of what a person has.

    Args:
        data: a folder with `interactions` and `items` as `.csv`, `.jsonl` or `.parquet`; a folder with built
            benchmarks; the name of a recipe or source, or of a data set on the Hub; a data frame of interactions
            (pandas or polars); examples with the columns `preferences`, `history` and `target` as a `Dataset`, or as
            a `DatasetDict` with the splits train, validation and test; or what this function returned before.
        items: with a data frame or examples: `item_id`, `title` and, where you have them, `text` and `aspects`, as a
            data frame, a `Dataset` or a dictionary of columns.
        source: reader of raw files, or which of several built benchmarks; default: "table", or the only one.
        encoder: embeds preferences and items; default: all-MiniLM-L6-v2.
        **reading: fields of the recipe, such as `min_user` and `options`.

    Raises:
        FileNotFoundError: if there are no such files.
        ValueError: if the data cannot be used.
    """
    if isinstance(data, BenchmarkData):
        return data
    if isinstance(data, Dataset | DatasetDict):
        if items is None:
            raise ValueError("examples need the items that they name; pass items= with item_id and title of each")
        return _from_examples(data, _frame(items), encoder)
    if not isinstance(data, str | os.PathLike):
        if items is None:
            raise ValueError("a data frame of interactions needs one of items; pass both")
        return load_benchmark_data(source or "table", _as_folder(_frame(data), _frame(items)), encoder, **reading)
    if items is not None:
        raise ValueError(f"items are read from {data}; leave items= out")
    path = Path(data)
    if not path.exists():
        if str(data) in {*RECIPES, *SOURCES}:
            return load_benchmark_data(str(data), None, encoder, **reading)
        if str(data).count("/") != 1:
            known = ", ".join(sorted({*RECIPES, *SOURCES}))
            raise FileNotFoundError(f"there is no folder {str(data)!r}; pass one, or the name of a recipe: {known}")
        if source is None:
            raise ValueError(f"{data} may hold several benchmarks; pass source= with the name of one")
        return load_benchmark_data(source, str(data), encoder, **reading)
    built = names_in(path)
    if built and source is None and len(built) > 1:
        raise ValueError(f"{path} has the benchmarks {', '.join(built)}; pass source= with the name of one")
    return load_benchmark_data(source or (built[0] if built else "table"), path, encoder, **reading)


def _frame(table: Any) -> pl.DataFrame:
    """A table of any of the usual kinds."""
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if isinstance(table, Dataset):
        return pl.DataFrame(table.to_dict())
    if isinstance(table, Mapping):
        return pl.DataFrame(dict(table))
    if hasattr(table, "__dataframe__") or hasattr(table, "iloc"):
        return pl.from_pandas(table)
    raise ValueError(
        f"{type(table).__name__} is not a table; pass a data frame (pandas or polars), or a dictionary of lists"
    )


def _as_folder(interactions: pl.DataFrame, items: pl.DataFrame) -> Path:
    """A folder with two tables, named by what is in them."""
    digest = hashlib.sha256()
    for frame in (interactions, items):
        digest.update(str(frame.schema).encode())
        digest.update(frame.write_ipc(None, compat_level=pl.CompatLevel.oldest()).getvalue())
    folder = CACHE / f"frames-{digest.hexdigest()[:12]}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=CACHE))
        interactions.write_parquet(unfinished / "interactions.parquet")
        items.write_parquet(unfinished / "items.parquet")
        try:
            unfinished.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)
    return folder


def _from_examples(examples: Dataset | DatasetDict, items: pl.DataFrame, encoder: str | None) -> BenchmarkData:
    """Examples as they are, without building anything."""
    if missing := {"item_id", "title"} - {*items.columns}:
        raise ValueError(f"items lacks the column {min(missing)!r}; it has {', '.join(items.columns)}")
    if "text" not in items.columns:
        items = items.with_columns(text="title")
    if isinstance(examples, Dataset):
        parts = examples.train_test_split(test_size=HELD_OUT, seed=0) if len(examples) > 1 else {"train": examples}
        validation = parts.get("test", examples)
        examples = DatasetDict({"train": parts["train"], "validation": validation, "test": examples})
    splits = {"validation": examples["train"], "test": examples.get("validation", examples["train"])}
    examples = DatasetDict({**splits, **examples})
    for split, rows in examples.items():
        for name in (*DEFAULTS, "targets"):
            if name not in rows.column_names:
                values = example_column(rows, name)
                values = [f"{split}-{row}" for row in range(len(rows))] if name == "user_id" else map(_as_list, values)
                rows = rows.add_column(name, list(values))
        examples[split] = rows
    table = Dataset.from_dict(items.to_dict(as_series=False))
    digest = hashlib.sha256(str([table[name][:] for name in ("item_id", "title", "text")]).encode()).hexdigest()
    cache = CACHE / f"vectors-examples-{digest[:12]}-{encoder_identity(encoder)[1][:12].replace('/', '-')}"
    cache.mkdir(parents=True, exist_ok=True)
    return BenchmarkData(PLAIN, table, {"oracle": examples, "last": examples}, cache)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def embed(texts: list[str], encoder: Mapping[str, str] | None) -> Tensor:
    """Vectors of texts by the encoder that a model's semantic IDs were made with. Shape: (M, D).

    Args:
        texts: of items.
        encoder: name and identity of it, as the settings of a recommender have them.

    Raises:
        ValueError: if that encoder is not to be found.
    """
    encoder = encoder or {}
    name = encoder.get("name")
    if encoder.get("identity") not in (None, encoder_identity(name)[1]):
        raise ValueError(
            f"semantic IDs were made with the encoder {name or 'of a folder'}, which is not the one found here; pass "
            "its name on the Hub as encoder= in the training"
        )
    vectors = TextEmbedder(name, progress=False).encode(texts)
    return torch.from_numpy(vectors).half()


def push(shop: Recommender, repo_id: str, *, private: bool | None, token: str | None, **options: Any) -> str:
    """See `Recommender.push_to_hub`."""
    with tempfile.TemporaryDirectory() as place:
        write_with_card(shop, Path(place), **options)
        return upload(Path(place), shop.model, repo_id, private=private, token=token)


def write_with_card(shop: Recommender, folder: Path, **options: Any) -> None:
    """Write all files of a recommender, and the card and licence of the folder that it came from.

    Args:
        shop: the recommender.
        folder: an empty one.
        **options: as for `Recommender.save_pretrained`.
    """
    shop.write(folder, **options)
    if shop.folder is not None:
        for file in (*shop.folder.glob("README.md"), *shop.folder.glob("LICENSE*")):
            shutil.copy2(file, folder / file.name)


def upload(folder: Path, model: Any, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Upload a folder with a recommender to the Hub; its card then names the repository.

    Args:
        folder: of the recommender.
        model: its model.
        repo_id: "organisation/name"; created if it does not exist. What people edited in the card there stays.
        private: whether only you can see it.
        token: of the Hub; default: the one that you logged in with.

    Returns:
        Address of the commit.
    """
    from huggingface_hub import HfApi

    from mender.cards import encoder_name
    from modeling_mender.hub.card import keep_published_edits, write_card

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    write_card(folder, model, repo_id=repo_id, defaults={"base_model": encoder_name(model)})
    keep_published_edits(folder, repo_id)
    logger.info("uploading to %s", repo_id)
    # One commit: weights and items of two versions, or weights in other files of an earlier one, do not mix.
    return api.upload_folder(
        folder_path=folder, repo_id=repo_id, commit_message="Upload recommender", delete_patterns=WRITTEN
    ).commit_url
