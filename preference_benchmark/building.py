"""From a recipe to a finished benchmark on disk: Parquet files that `load_dataset` reads, statistics, plots, a card.

`build` is the only way to make one. Every stage is kept (`Stages`): a build that was stopped continues where it was,
and one with another seed repeats only what depends on the seed. The same recipe on the same files gives the same bytes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
from filelock import FileLock

from preference_benchmark.availability import ENCODER_REMEDY, check_classifier, check_model
from preference_benchmark.axes.build import BuiltExamples, Inputs, build_examples
from preference_benchmark.axes.examples import STORED_FEATURES, item_features, of_split, write_shards
from preference_benchmark.axes.protocol import AXES, SPLITS
from preference_benchmark.checks.leakage import LeakageReport, check_leakage
from preference_benchmark.checks.specificity import specificity
from preference_benchmark.checks.validation import margins, similarities, validate
from preference_benchmark.embedding import Embedder, TextEmbedder, encoder_identity
from preference_benchmark.embedding_over_ray import RayEmbedder
from preference_benchmark.hub import folder as hub_folder
from preference_benchmark.hub import plots
from preference_benchmark.preferences import Approximator, ExtractiveApproximator
from preference_benchmark.preferences.files import read_preferences, restrict_to_tables, written_by
from preference_benchmark.preferences.polarity import NEGATIVE
from preference_benchmark.recipes import Recipe
from preference_benchmark.sources import read_source
from preference_benchmark.sources.download import fetch
from preference_benchmark.stages import (
    Stages,
    digest_of,
    digest_of_code,
    digest_of_contents,
    digest_of_file,
    digest_of_inputs,
)
from preference_benchmark.tables import Tables

__all__ = ["build", "read_tables"]

logger = logging.getLogger(__name__)

# Source code that the finished files depend on, beyond what reads the tables.
CODE = ("axes", "building", "checks", "embedding", "hub", "preferences")


def build(
    recipe: Recipe,
    folder: str | Path,
    *,
    embedder: Embedder | None = None,
    ray: str | None = None,
    stages: str | Path | None = None,
    announce: Callable[[str, bool], None] | None = None,
    progress: bool = True,
) -> Path:
    """Build a benchmark into a folder, or find it built there.

    The folder is a data repository: it may hold several benchmarks, each of which `load` and `load_dataset` read by
    its name. An earlier build of the same name is replaced once the new one is complete.

    Args:
        recipe: what to build, see `recipes.recipe`.
        folder: where to build it.
        embedder: used instead of the recipe's. Two embedders are taken for the same if they are of one class and give
            one text the same vector.
        ray: address of a Ray cluster whose machines encode texts with the recipe's embedder, see `RayEmbedder`; the
            result is that of one process.
        stages: where finished stages are kept; default: in the folder, under `.stages`, which may be deleted.
        announce: called with the name of every stage and whether it was finished before.
        progress: whether to show progress bars.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if raw files are missing, or a model can neither be found nor downloaded; says what to do.
        ValueError: if the files or the folder cannot be used.
        LeakageError: if examples give away their targets and the protocol refuses that.
    """
    folder = Path(folder)
    # Whatever makes a build impossible is refused before anything is written.
    for path, what in ((recipe.data, "the raw files"), (recipe.preferences, "a Parquet file of preferences, or none")):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path} does not exist; pass {what}.")
    check_classifier(recipe.protocol.classifier)
    if embedder is None and recipe.embedder is not None:
        check_model("encoder", recipe.embedder, ENCODER_REMEDY)
    hub_folder.refuse_raw_files_inside(folder, recipe.name, recipe.data)
    hub_folder.contents(folder, without=recipe.name)
    store = Stages(folder / hub_folder.STAGES / recipe.name if stages is None else stages, announce)
    store.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(store.folder / ".lock"):  # a second process waits, and finds everything built
        _build(recipe, folder, store, embedder, ray, progress)
    return folder


def read_tables(recipe: Recipe) -> Tables:
    """The tables that a build of this recipe makes examples of, without any cache.

    Raises:
        FileNotFoundError: if raw files are missing; says which are expected where.
        ValueError: if they cannot be used.
    """
    logger.info("reading %s", recipe.source)
    tables = read_source(recipe.source, recipe.data, **recipe.reading)
    return every_nth_user(tables, recipe.protocol.user_stride)


def _build(
    recipe: Recipe, folder: Path, store: Stages, embedder: Embedder | None, ray: str | None, progress: bool
) -> None:
    path = _raw_files(recipe, store, progress)
    tables_key = _digest_of_raw_files(recipe, path, store)
    embedder_name, embedder_key = _identity(recipe, embedder)
    author, author_key, approximate = _approximator(recipe, progress)
    protocol = asdict(recipe.protocol)
    if recipe.protocol.classifier and Path(recipe.protocol.classifier).is_dir():
        protocol["classifier"], classifier_key = encoder_identity(recipe.protocol.classifier)
        author_key = digest_of(author_key, classifier_key)
    about = {
        "name": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "homepage": recipe.homepage,
        "notice": recipe.notice,
        "may_publish": recipe.may_publish,
        "preferences_by": author,
        "embedder": embedder_name,
        "protocol": protocol,
        "options": {name: str(value) for name, value in sorted(recipe.options.items())},
    }
    key = digest_of(tables_key, author_key, embedder_key, about, digest_of_code(*CODE))
    if hub_folder.holds(folder, recipe.name, key):
        store.announce("finished", True)
        return
    tables = _stored_tables(recipe, path, tables_key, store)
    built = build_examples(
        Inputs(
            every_nth_user(tables, recipe.protocol.user_stride),
            approximate,
            lambda: embedder or _text_embedder(recipe, ray),
            digest_of(tables_key, recipe.protocol.user_stride),
            author_key,
            embedder_key,
        ),
        recipe.protocol,
        store,
        device=recipe.device,
        progress=progress,
    )

    def write(target: Path) -> None:
        logger.info("benchmark: checking examples for leaks")
        leakage = check_leakage(built.tables, built.preferences, built.axes, recipe.protocol)
        leakage.enforce(recipe.protocol.leaks)
        configs = _write_configs(target, recipe, built)
        logger.info("benchmark: measuring how specific preferences are")
        statistics = about | _statistics(built, recipe, leakage) | {"configs": configs}
        logger.info("benchmark: drawing plots")
        plots.draw(built, margins(built, recipe.protocol), recipe.title, target)
        text = json.dumps(statistics, indent=1, ensure_ascii=False)
        (target / "statistics.json").write_text(text + "\n", encoding="utf-8")

    store.announce("finished", False)
    hub_folder.add(folder, recipe.name, key, write)
    store.prune()


def every_nth_user(tables: Tables, n: int) -> Tables:
    """The tables with every n-th user only, in the order of user ids; all items stay."""
    if n == 1:
        return tables
    users = tables.interactions["user_id"].unique().sort().gather_every(n)
    kept = tables.interactions.filter(pl.col("user_id").is_in(users.implode()))
    return replace(tables, interactions=kept)


def _raw_files(recipe: Recipe, stages: Stages, progress: bool) -> Path | None:
    """Where the raw files are; public ones are downloaded beside the stages, where no build removes them."""
    if recipe.data is not None or recipe.public is None:
        return recipe.data
    stages.used.add("raw")
    return fetch(recipe.public, stages.folder / "raw", progress=progress)


def _digest_of_raw_files(recipe: Recipe, path: Path | None, stages: Stages) -> str:
    """A digest of what the tables are made from: the contents of the files, the reader and its options.

    Contents are read again only where files look different; files that were merely moved or touched are the same.
    """
    given = (recipe.source, path, recipe.reading)

    def write(folder: Path) -> None:
        (folder / "digest").write_text(digest_of_contents(*given), encoding="utf-8")

    return (stages.path("inputs", digest_of_inputs(*given), write) / "digest").read_text("utf-8")


def _stored_tables(recipe: Recipe, path: Path | None, key: str, stages: Stages) -> Tables:
    """The recipe's tables, read once."""

    def write(folder: Path) -> None:
        read_source(recipe.source, path, **recipe.reading).write(folder)

    return Tables.read(stages.path("tables", key, write))


def _identity(recipe: Recipe, embedder: Embedder | None) -> tuple[str, str]:
    """The embedder's name for people, and its digest."""
    if embedder is not None:
        name = type(embedder).__name__
        return name, digest_of(name, embedder.encode(["Find something new"]).round(3).tolist())
    name, weights = encoder_identity(recipe.embedder)
    return name, digest_of(weights, recipe.dtype, recipe.batch_size)


def _text_embedder(recipe: Recipe, ray: str | None) -> Embedder:
    """The recipe's encoder, here or on a cluster; the store of its vectors shows the progress."""
    settings = {"batch_size": recipe.batch_size, "dtype": recipe.dtype}
    if ray is not None:
        return RayEmbedder(ray, recipe.embedder, recipe.device, **settings)
    return TextEmbedder(recipe.embedder, recipe.device, **settings, progress=False)


def _approximator(recipe: Recipe, progress: bool) -> tuple[str, str, Approximator]:
    """What writes the preferences: for people, as a digest, and as a function of the tables."""
    if recipe.preferences is None:
        return "ExtractiveApproximator (rules, no language model)", "extractive", ExtractiveApproximator(progress)
    path = recipe.preferences

    def read(tables: Tables) -> pl.DataFrame:
        return restrict_to_tables(read_preferences(path)[0], tables, path)

    return written_by(path.name, read_preferences(path)[1]), digest_of_file(path), read


def _write_configs(folder: Path, recipe: Recipe, built: BuiltExamples) -> dict[str, dict]:
    """Write the Parquet files of every config.

    Returns:
        By config: "part", what it holds, and "splits", the result of `write_shards` for each that is not empty.
    """
    configs = {}
    for name, part in recipe.config_names().items():
        target = folder / name
        target.mkdir()
        if part == "items":
            splits = {"items": write_shards(built.tables.items, item_features(built.tables.items), target, "items")}
        else:
            examples = pl.concat(built.axes[part].values())
            splits = {
                split: write_shards(of_split(examples, split), STORED_FEATURES, target, split) for split in SPLITS
            }
        configs[name] = {"part": part, "splits": {split: found for split, found in splits.items() if found["rows"]}}
    return configs


def _statistics(built: BuiltExamples, recipe: Recipe, leakage: LeakageReport) -> dict:
    tables, preferences = built.tables, built.preferences
    read = asdict(tables.report)
    # Places of malformed lines help people who have the files, not readers of the card; their number is there.
    del read["examples"]
    counts = {
        axis: {split: frame.filter(pl.col("split") == split).height for split in SPLITS}
        for axis, frame in built.axes[recipe.protocol.matching[0]].items()
    }
    strata = (
        pl.concat(built.axes[recipe.protocol.matching[0]].values())
        .filter(pl.col("stratum") != "")
        .group_by("axis", "stratum", maintain_order=True)
        .agg((pl.col("split") == split).sum().alias(split) for split in SPLITS)
    )
    return {
        "read": read,
        "items": tables.items.height,
        "users": tables.interactions["user_id"].n_unique(),
        "interactions": tables.interactions.height,
        "preferences": {
            "written": preferences.height,
            "distinct": preferences["text"].n_unique(),
            "negative": preferences.filter(pl.col("sentiment") == NEGATIVE).height,
        },
        "examples": counts,
        "strata": strata.sort(pl.col("axis").cast(pl.Enum(AXES)), "test", descending=[False, True]).to_dicts(),
        "similarity": similarities(built, recipe.protocol),
        "specificity": specificity(built, recipe.protocol),
        "leakage": leakage.records(),
        "validation": validate(built, recipe.protocol),
    }
