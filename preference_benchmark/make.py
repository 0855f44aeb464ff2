"""From a recipe to a finished data set on disk: Parquet, statistics, plots.

Every stage is kept (`Stages`): a build that was killed goes on where it stood, and one with another seed makes anew
only what depends on the seed. The same recipe on the same files gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from preference_benchmark.assemble import Parts, assemble
from preference_benchmark.axes.examples import STORED_FEATURES, item_features, of_split, write_shards
from preference_benchmark.axes.protocol import SPLITS
from preference_benchmark.builder import report_on
from preference_benchmark.checks.leakage import LeakageReport, check_leakage
from preference_benchmark.checks.validation import margins, validate
from preference_benchmark.embedding import Embedder, TextEmbedder, encoder_identity
from preference_benchmark.hub import plots
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.files import belonging, read_preferences
from preference_benchmark.recipes import Recipe
from preference_benchmark.sources import read_source
from preference_benchmark.sources.corner_shop import corner_shop
from preference_benchmark.sources.download import PUBLIC_FILES, fetch
from preference_benchmark.stages import (
    Stages,
    digest_of,
    digest_of_code,
    digest_of_contents,
    digest_of_file,
    digest_of_inputs,
)
from preference_benchmark.tables import Counts, ReadReport, Tables

__all__ = ["Made", "make", "read_tables"]

_OUTPUT_CODE = ("make", "hub", "checks", "builder")


@dataclass(frozen=True)
class Made:
    """A finished data set.

    Attributes:
        folder: a folder per config with its Parquet files, `statistics.json`, and the plots.
        statistics: the content of `statistics.json`.
        key: digest of all that it depends on.
    """

    folder: Path
    statistics: dict
    key: str


def make(
    recipe: Recipe,
    work: Path,
    *,
    embedder: Embedder | None = None,
    announce: Callable[[str, bool], None] | None = None,
    progress: bool = True,
) -> Made:
    """Build a data set, or find it built.

    Args:
        recipe: what is built.
        work: where finished stages are kept.
        embedder: used instead of the recipe's; its class and width tell it from others.
        announce: called with the name of every stage and whether it was finished before.
        progress: whether to show progress bars.

    Raises:
        FileNotFoundError: if raw files are missing; says which are expected where.
        ValueError: if they cannot be used.
        LeakageError: if examples give away what they ask for and the protocol refuses that.
    """
    stages = Stages(Path(work), announce)
    tables, truth, tables_key = read_tables(recipe, stages, progress=progress)
    encoder, encoder_key = _encoder(recipe, embedder)
    author, author_key, approximate = _author(recipe, progress)
    parts = assemble(
        tables,
        lambda: (
            embedder
            or TextEmbedder(recipe.embedder, recipe.device, recipe.batch_size, dtype=recipe.dtype, progress=progress)
        ),
        recipe.protocol,
        approximate,
        stages,
        tables_key=tables_key,
        embedder_key=encoder_key,
        approximator_key=author_key,
        device=recipe.device,
        progress=progress,
    )
    described = {
        "name": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "homepage": recipe.homepage,
        "notice": recipe.notice,
        "may_publish": recipe.may_publish,
        "preferences_by": author,
        "embedder": encoder,
        "protocol": asdict(recipe.protocol),
        "options": {name: str(value) for name, value in sorted(recipe.options.items())},
    }
    key = digest_of(parts.key, described, digest_of_code(*_OUTPUT_CODE))

    def finish(folder: Path) -> None:
        leakage = check_leakage(parts.tables, parts.preferences, parts.axes, recipe.protocol)
        leakage.enforce(recipe.protocol.leaks)
        configs = _write_configs(folder, recipe, parts)
        statistics = described | _statistics(parts, recipe, leakage, truth) | {"configs": configs}
        plots.draw(parts, margins(parts, recipe.protocol), recipe.title, folder)
        text = json.dumps(statistics, indent=1, ensure_ascii=False)
        (folder / "statistics.json").write_text(text + "\n", encoding="utf-8")

    folder = stages.path("finished", key, finish)
    stages.prune()
    return Made(folder, json.loads((folder / "statistics.json").read_text("utf-8")), key)


def read_tables(recipe: Recipe, stages: Stages, *, progress: bool = True) -> tuple[Tables, pl.DataFrame | None, str]:
    """The recipe's tables, the truth where it is known, and a digest of what they were made from."""
    path = recipe.data_dir
    if path is None and recipe.source != "corner-shop":
        if recipe.name not in PUBLIC_FILES:
            raise ValueError(f"data set {recipe.name!r} has no public files; pass the folder that holds yours.")
        # Raw files are nobody's stage: they are kept whatever happens to the build.
        path = fetch(PUBLIC_FILES[recipe.name], stages.folder / "raw", progress=progress)
        stages.used.add("raw")
    options = recipe.protocol.reading | dict(recipe.options)
    given = (recipe.source, path, options)

    def note(folder: Path) -> None:
        (folder / "digest").write_text(digest_of_contents(*given), encoding="utf-8")

    # Contents are read again only where files look different; what was merely moved or touched is the same data set.
    key = (stages.path("inputs", digest_of_inputs(*given), note) / "digest").read_text("utf-8")

    def write(folder: Path) -> None:
        truth = None
        if recipe.source == "corner-shop":
            shop = corner_shop(**options)
            tables, truth = shop.tables, shop.truth
        else:
            tables = read_source(recipe.source, path, **options)
        tables.items.write_parquet(folder / "items.parquet")
        tables.interactions.write_parquet(folder / "interactions.parquet")
        if truth is not None:
            truth.write_parquet(folder / "truth.parquet")
        (folder / "report.json").write_text(json.dumps(asdict(tables.report)), encoding="utf-8")

    folder = stages.path("tables", key, write)
    tables = Tables(
        pl.read_parquet(folder / "items.parquet"),
        pl.read_parquet(folder / "interactions.parquet"),
        _report(json.loads((folder / "report.json").read_text("utf-8"))),
    )
    truth = folder / "truth.parquet"
    return tables, pl.read_parquet(truth) if truth.is_file() else None, key


def _report(record: dict) -> ReadReport:
    """A ReadReport from what `asdict` made of it."""
    counts = {name: Counts(**record[name]) for name in ("before", "after")}
    lists = {name: tuple(record[name]) for name in ("files", "malformed_lines")}
    return ReadReport(**record | counts | lists)


def _encoder(recipe: Recipe, embedder: Embedder | None) -> tuple[str, str]:
    """What embeds: for people, and as a digest."""
    if embedder is not None:
        name = type(embedder).__name__
        return name, digest_of(name, embedder.encode(["width"]).shape[1])
    name, weights = encoder_identity(recipe.embedder)
    return name, digest_of(weights, recipe.dtype, recipe.batch_size)


def _author(recipe: Recipe, progress: bool) -> tuple[str, str, Callable[[Tables], pl.DataFrame]]:
    """Who writes the preferences: for people, as a digest, and as an approximator."""
    if recipe.preferences is None:
        return "ExtractiveApproximator (rules, no language model)", "extractive", ExtractiveApproximator(progress)
    path = Path(recipe.preferences)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; pass a Parquet file of preferences, or none.")

    def read(tables: Tables) -> pl.DataFrame:
        return belonging(read_preferences(path)[0], tables, path)

    return f"the file {path.name}", digest_of_file(path), read


def _write_configs(folder: Path, recipe: Recipe, parts: Parts) -> dict[str, dict]:
    """The Parquet files of every config; says of each what it holds and in which files."""
    configs = {}
    for name, part in recipe.config_names().items():
        target = folder / name
        target.mkdir()
        if part == "items":
            splits = {"items": write_shards(parts.tables.items, item_features(parts.tables.items), target, "items")}
        else:
            examples = pl.concat(parts.axes[part].values())
            splits = {
                split: write_shards(of_split(examples, split), STORED_FEATURES, target, split) for split in SPLITS
            }
        configs[name] = {"part": part, "splits": {split: found for split, found in splits.items() if found["rows"]}}
    return configs


def _statistics(parts: Parts, recipe: Recipe, leakage: LeakageReport, truth: pl.DataFrame | None) -> dict:
    report = report_on(parts, recipe.protocol)
    read = asdict(parts.tables.report)
    # Where lines are malformed is for whoever reads the files, and their number is a row of its own.
    del read["malformed_lines"]
    return {
        "read": read,
        "items": report.items,
        "users": report.users,
        "interactions": parts.tables.interactions.height,
        "preferences": report.preferences,
        "examples": report.examples,
        "similarity": {name: round(value, 4) for name, value in report.similarity.items()},
        "leakage": leakage.records(),
        "validation": validate(parts, recipe.protocol, truth),
    }
