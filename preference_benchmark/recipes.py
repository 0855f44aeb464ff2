"""Named recipes: which files, read how, make which data set, by which protocol.

A recipe holds what a build depends on and nothing else; `RECIPES` has one per data set of the paper, the corner shop,
MovieLens, and `custom` for everybody's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from preference_benchmark.axes.protocol import Protocol
from preference_benchmark.sources import SOURCES
from preference_benchmark.sources.download import PUBLIC_FILES

__all__ = ["RECIPES", "Recipe", "recipe"]

_NAME = r"[a-z0-9][a-z0-9_.-]*"
_PARTS = ("-items", "-last")


@dataclass(frozen=True)
class Recipe:
    """How a data set of the benchmark is made.

    Attributes:
        name: what its configs are called: "steam" gives "steam", "steam-last" and "steam-items".
        title: its name for people.
        source: which reader of `sources.SOURCES`.
        protocol: the choices.
        data_dir: the folder that holds the public files, or the file itself; None: they are downloaded, or, for the
            corner shop, made.
        options: passed on to the reader.
        preferences: a Parquet file of preferences (user_id, step, item_id, rank, text, sentiment) that somebody has
            written; None: the extractive approximator writes them.
        embedder: a sentence-transformers model of the Hub or a folder; None: all-MiniLM-L6-v2.
        device: where models run; None: the accelerator if there is one.
        batch_size: texts per forward pass.
        dtype: "float32", "bfloat16" or "auto".
        homepage: where the data is described.
        notice: the terms on which the data is given.
        may_publish: whether these terms let a benchmark built from it be passed on.
    """

    name: str
    title: str
    source: str
    protocol: Protocol = field(default_factory=Protocol)
    data_dir: Path | None = None
    options: dict[str, object] = field(default_factory=dict)
    preferences: Path | None = None
    embedder: str | None = None
    device: str | None = None
    batch_size: int = 64
    dtype: str = "float32"
    homepage: str = ""
    notice: str = ""
    may_publish: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.name) or self.name.endswith(_PARTS):
            raise ValueError(
                f"name={self.name!r} cannot name a config; use lower-case letters, digits, '-', '_' and '.', with none "
                f"of the endings {list(_PARTS)}, which name a data set's parts."
            )
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} is not known; choose one of {sorted(SOURCES)}.")

    def config_names(self) -> dict[str, str]:
        """The configs that the data set is published as, and what of it each holds.

        The first matching mode has the plain name, unless it is "last".
        """
        modes = self.protocol.matching
        names = {self.name if mode == "oracle" else f"{self.name}-{mode}": mode for mode in modes}
        return names | {f"{self.name}-items": "items"}


_YELP_COLUMNS = ("title", "categories", "attributes")
_OWN = "Made from data of whoever built it: the terms of that data apply, and whoever built it has to know them."
# What the paper does differently from data set to data set, and what each is called.
_TITLES = {
    "beauty": ("Amazon Beauty (2014)", {"described_by": ("title",)}),
    "sports": ("Amazon Sports and Outdoors (2014)", {"described_by": ("title",)}),
    "toys": ("Amazon Toys and Games (2014)", {"described_by": ("title",)}),
    "steam": ("Steam", {"described_by": ("title", "tags", "genres"), "candidates": "earlier_steps"}),
    "yelp": ("Yelp", {"described_by": _YELP_COLUMNS}),
    "movielens": ("MovieLens 1M", {}),
}
_NOT_TO_BE_PUBLISHED = ("yelp", "movielens")

RECIPES: dict[str, Recipe] = {
    **{
        name: Recipe(
            name=name,
            title=title,
            source=PUBLIC_FILES[name].source,
            protocol=Protocol(**choices),
            homepage=PUBLIC_FILES[name].homepage,
            notice=PUBLIC_FILES[name].notice,
            may_publish=name not in _NOT_TO_BE_PUBLISHED,
        )
        for name, (title, choices) in _TITLES.items()
    },
    "corner-shop": Recipe(
        name="corner-shop",
        title="The corner shop",
        source="corner-shop",
        notice="Made by a program, with no person's data in it; Apache-2.0.",
    ),
    "custom": Recipe(name="custom", title="Custom", source="table", notice=_OWN),
}


def recipe(name: str, **changes: object) -> Recipe:
    """A recipe by its name, with some of its fields changed.

    A data set of another name is a custom one, and needs `source` and `data_dir`. Where the source of a named one is
    changed, its notice and protocol stay, since the data is the same.

    Raises:
        ValueError: if the name is unknown and no source is given, or a change does not fit.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    if name in RECIPES:
        return replace(RECIPES[name], **changes)
    if "source" not in changes:
        raise ValueError(f"data set {name!r} is not known; choose one of {list(RECIPES)}, or pass a source for it.")
    return replace(RECIPES["custom"], **{"name": name, "title": name, **changes})
