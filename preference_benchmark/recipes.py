"""Named recipes: which files, read how, become which benchmark, by which protocol.

A recipe holds everything that a build depends on. `RECIPES` has one for every data set of the paper (Paischer et al.
2025, arXiv:2412.08604), for every other source, for the corner shop, and `table` for your own tables. Recipes of public
data keep the 5-core of the literature; your own tables keep users with three interactions, the fewest that leave one
to learn from, and every item.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from preference_benchmark.axes.protocol import PROTOCOLS, Protocol
from preference_benchmark.sources import SOURCES
from preference_benchmark.sources.download import PUBLIC_FILES, PublicDataset

__all__ = ["RECIPES", "Recipe", "recipe"]

_NAME = r"[a-z0-9][a-z0-9_.-]*"
_ENDINGS = ("-items", "-last")


@dataclass(frozen=True)
class Recipe:
    """How a benchmark is made.

    Attributes:
        name: of its configs: "steam" has the configs "steam", "steam-last" and "steam-items".
        title: its name for people.
        source: the reader, one of `sources.SOURCES`.
        protocol: every choice of reading and of making examples.
        data: the folder that holds the raw files, or the file itself; None: public files are downloaded, and the
            corner shop is generated.
        options: of the reader, such as `num_users` of the corner shop.
        preferences: a Parquet file of preferences (user_id, step, item_id, rank, text, sentiment), as `mender
            preferences write` writes it; None: the extractive approximator writes them.
        embedder: a sentence-transformers model of the Hub or a folder; None: all-MiniLM-L6-v2.
        device: where models run; None: the accelerator if there is one.
        batch_size: texts per forward pass.
        dtype: "float32", "bfloat16" or "auto".
        public: the files to download where there is no `data`; None: there are none.
        homepage: where the data is described.
        notice: the terms of the data.
        may_publish: whether these terms allow a benchmark built from the data to be published.

    Raises:
        ValueError: if the name cannot name a config, the source is unknown, or an option belongs to the protocol.
    """

    name: str
    title: str
    source: str
    protocol: Protocol = field(default_factory=Protocol)
    data: Path | None = None
    options: dict[str, object] = field(default_factory=dict)
    preferences: Path | None = None
    embedder: str | None = None
    device: str | None = None
    batch_size: int = 64
    dtype: str = "float32"
    public: PublicDataset | None = None
    homepage: str = ""
    notice: str = ""
    may_publish: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.name) or self.name.endswith(_ENDINGS):
            raise ValueError(
                f"name={self.name!r} cannot name a config; use lower-case letters, digits, '-', '_' and '.', and "
                f"neither of the endings {list(_ENDINGS)}, which name parts of a benchmark."
            )
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} is not known; choose one of {sorted(SOURCES)}.")
        misplaced = sorted(_PROTOCOL_FIELDS & {*self.options})
        if misplaced:
            raise ValueError(
                f"options has {misplaced[0]!r}, which is a field of the protocol; set it there: "
                f"recipe({self.name!r}, {misplaced[0]}={self.options[misplaced[0]]!r})."
            )

    @property
    def reading(self) -> dict[str, object]:
        """All that the reader is called with, beside the path."""
        return self.protocol.reading | self.options

    def config_names(self) -> dict[str, str]:
        """The configs of the benchmark, and the matching mode of each, or "items".

        Mode "oracle" has the plain name.
        """
        modes = self.protocol.matching
        names = {self.name if mode == "oracle" else f"{self.name}-{mode}": mode for mode in modes}
        return names | {f"{self.name}-items": "items"}


_PROTOCOL_FIELDS = {field.name for field in dataclasses.fields(Protocol)}
_YELP_COLUMNS = ("title", "categories", "attributes")
_OWN = "Made from your own data: the terms of that data apply."
# What the paper does differently from data set to data set, and the title of each.
_PUBLIC = {
    "beauty": ("Amazon Beauty (2014)", {"described_by": ("title",)}),
    "sports": ("Amazon Sports and Outdoors (2014)", {"described_by": ("title",)}),
    "toys": ("Amazon Toys and Games (2014)", {"described_by": ("title",)}),
    "steam": ("Steam", {"described_by": ("title", "tags", "genres"), "candidates": "earlier_steps"}),
    "yelp": ("Yelp", {"described_by": _YELP_COLUMNS}),
    "movielens": ("MovieLens 1M", {}),
}
_NOT_TO_BE_PUBLISHED = ("yelp", "movielens")
# Public formats of many data sets: which one is in the files is not known here.
_FORMATS = {
    "amazon2014": "Amazon reviews (2014)",
    "amazon2018": "Amazon reviews (2018)",
    "amazon2023": "Amazon reviews (2023)",
    "sequences": "Purchase sequences",
    "steam-reviews": "Steam reviews",
}

RECIPES: dict[str, Recipe] = {
    **{
        name: Recipe(
            name=name,
            title=title,
            source=PUBLIC_FILES[name].source,
            protocol=Protocol(**choices),
            public=PUBLIC_FILES[name],
            homepage=PUBLIC_FILES[name].homepage,
            notice=PUBLIC_FILES[name].notice,
            may_publish=name not in _NOT_TO_BE_PUBLISHED,
        )
        for name, (title, choices) in _PUBLIC.items()
    },
    **{source: Recipe(name=source, title=title, source=source, notice=_OWN) for source, title in _FORMATS.items()},
    "corner-shop": Recipe(
        name="corner-shop",
        title="The corner shop",
        source="corner-shop",
        options={"num_users": 600, "num_items": 240},
        notice="Generated by a program, with no person's data in it; Apache-2.0.",
    ),
    "table": Recipe(
        name="table", title="Own tables", source="table", protocol=Protocol(min_user=3, min_item=1), notice=_OWN
    ),
}


def recipe(name: str, **changes: object) -> Recipe:
    """A recipe by its name, with some fields changed.

    Args:
        name: one of `RECIPES`, or any name of your own together with `source`: the recipe of that source is then the
            start.
        **changes: fields of `Recipe` and of its `Protocol`; `protocol` may also be "default" or "paper" (the published
            scripts to the letter). None changes nothing, and `options` are added to those of the recipe.

    Raises:
        ValueError: if the name is unknown and no source is given, or a change does not fit.

    >>> recipe("steam", data="raw/steam", seed=3).protocol.seed
    3
    >>> recipe("my-shop", source="table", data="shop").protocol.min_item
    1
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    source = changes.get("source")
    if name in RECIPES:
        start = RECIPES[name]
    elif source in RECIPES:
        start = replace(RECIPES[source], name=name, title=name)
    elif source is not None:
        raise ValueError(f"source {source!r} is not known; choose one of {sorted(SOURCES)}.")
    else:
        raise ValueError(
            f"recipe {name!r} is not known; choose one of {sorted(RECIPES)}, or pass a source for a name of your own, "
            'such as source="table".'
        )
    protocol = changes.pop("protocol", start.protocol)
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol={protocol!r} is not known; pass one of {list(PROTOCOLS)} or a Protocol.")
        # What the recipe does differently from other data sets it does under every protocol.
        own = {key: value for key, value in vars(start.protocol).items() if value != vars(Protocol())[key]}
        protocol = PROTOCOLS[protocol].replace(**own)
    protocol = protocol.replace(**{key: changes.pop(key) for key in list(changes) if key in _PROTOCOL_FIELDS})
    known = {field.name for field in dataclasses.fields(Recipe)}
    unknown = sorted(changes.keys() - known)
    if unknown:
        fields = sorted(known | _PROTOCOL_FIELDS)
        raise ValueError(f"a recipe has no field {unknown[0]!r}; fields of recipe and protocol are {fields}.")
    for key in ("data", "preferences"):
        if key in changes:
            changes[key] = Path(changes[key])
    options = start.options | dict(changes.pop("options", {}))
    return replace(start, protocol=protocol, options=options, **changes)
