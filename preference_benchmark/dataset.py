"""The benchmark as a `datasets` builder: from raw files to `DatasetDict` in one call, cached by what it is made from.

    builder = PreferenceDiscerning(config_name="steam", data_dir="raw/steam")
    builder.download_and_prepare()
    examples = builder.as_dataset()

`datasets` runs no code from the Hub any more: what is published is Parquet (`publish`), and this is for whoever builds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from preference_benchmark.assemble import EXAMPLES_CODE
from preference_benchmark.axes.examples import STORED_FEATURES
from preference_benchmark.axes.protocol import Protocol
from preference_benchmark.make import make
from preference_benchmark.recipes import RECIPES, Recipe, recipe
from preference_benchmark.stages import digest_of, digest_of_code, digest_of_inputs, stamps

__all__ = ["PreferenceDiscerning", "PreferenceDiscerningConfig"]

_PARTS = ("last", "items")


@dataclass
class PreferenceDiscerningConfig(datasets.BuilderConfig):
    """A data set and which part of it; every field left out is the recipe's (`recipes.RECIPES`).

    Attributes:
        name: "steam" (examples), "steam-last" (examples, matched without looking at the target), "steam-items".
        source: the reader, where it is not the data set's own; "custom" needs one.
        options: passed on to the reader.
        protocol: the choices.
        preferences: a Parquet file of preferences that somebody has written.
        embedder: a sentence-transformers model of the Hub or a folder.
        device: where models run.
        batch_size: texts per forward pass.
        dtype: "float32", "bfloat16" or "auto".
    """

    source: str | None = None
    options: dict = field(default_factory=dict)
    protocol: Protocol | None = None
    preferences: str | None = None
    embedder: str | None = None
    device: str | None = None
    batch_size: int = 64
    dtype: str = "float32"

    def recipe(self) -> Recipe:
        """The recipe of the data set."""
        return recipe(
            split_name(self.name)[0],
            source=self.source,
            data_dir=None if self.data_dir is None else Path(self.data_dir),
            options=self.options or None,
            protocol=self.protocol,
            preferences=None if self.preferences is None else Path(self.preferences),
            embedder=self.embedder,
            device=self.device,
            batch_size=self.batch_size,
            dtype=self.dtype,
        )


class PreferenceDiscerning(datasets.GeneratorBasedBuilder):
    """Builds a data set of the benchmark, or one part of it.

    Stages are shared between the parts of a data set and kept in the cache, so that "steam-items" costs nothing after
    "steam". Changed raw files, settings or code make a new entry in the cache.
    """

    BUILDER_CONFIG_CLASS = PreferenceDiscerningConfig
    BUILDER_CONFIGS = [
        PreferenceDiscerningConfig(name=f"{name}{ending}", description=f"{found.title}: {what}")
        for name, found in RECIPES.items()
        for ending, what in (("", "examples"), ("-last", "examples, target-blind"), ("-items", "items"))
    ]
    DEFAULT_CONFIG_NAME = "corner-shop"

    def __init__(self, *args: object, hash: str | None = None, **options: object) -> None:
        if hash is None:
            name = split_name(options.get("config_name") or self.DEFAULT_CONFIG_NAME)[0]
            source = options.get("source") or RECIPES.get(name, RECIPES["custom"]).source
            inputs = digest_of_inputs(source, options.get("data_dir"), options.get("options") or {})
            preferences = [Path(path) for path in [options.get("preferences")] if path and Path(path).is_file()]
            hash = digest_of(inputs, stamps(preferences), digest_of_code(*EXAMPLES_CODE, "make"))
        # Named after the class: the default, the file's name, would say nothing.
        options.setdefault("dataset_name", "preference_discerning")
        super().__init__(*args, hash=hash, **options)

    def _info(self) -> datasets.DatasetInfo:
        part = split_name(self.config.name)[1]
        return datasets.DatasetInfo(
            description=self.config.description,
            # What columns items have the source knows, once it has been read.
            features=None if part == "items" else STORED_FEATURES,
            homepage="https://arxiv.org/abs/2412.08604",
            license=self.config.recipe().notice,
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        found = self.config.recipe()
        name, part = split_name(self.config.name)
        work = Path(self._cache_dir_root) / "preference_benchmark_stages" / f"{name}-{digest_of(str(found.data_dir))}"
        made = make(found, work, progress=not datasets.utils.are_progress_bars_disabled())
        wanted = {"": "oracle"}.get(part, part)
        config = next((key for key, value in made.statistics["configs"].items() if value["part"] == wanted), None)
        if config is None:
            raise ValueError(
                f"config {self.config.name!r} needs the matching mode {wanted!r}; the protocol has "
                f"{list(found.protocol.matching)}."
            )
        splits = made.statistics["configs"][config]["splits"]
        folder = made.folder / config
        if part == "items":
            self.info.features = datasets.Features.from_arrow_schema(pq.read_schema(next(folder.glob("*.parquet"))))
        return [
            datasets.SplitGenerator(
                name=split,
                # Row groups are what processes share among them.
                gen_kwargs={
                    "pieces": [
                        (str(folder / file), group)
                        for file in content["files"]
                        for group in range(pq.ParquetFile(folder / file).num_row_groups)
                    ]
                },
            )
            for split, content in splits.items()
        ]

    def _generate_examples(self, pieces: list[tuple[str, int]]) -> Iterator[tuple[str, dict]]:
        for path, group in pieces:
            rows = pq.ParquetFile(path).read_row_group(group).to_pylist()
            for number, row in enumerate(rows):
                yield f"{Path(path).stem}-{group}-{number}", row


def split_name(config_name: str) -> tuple[str, str]:
    """The data set and the part that a config's name means: "steam-items" is ("steam", "items"), "steam" ("steam", "").

    >>> split_name("corner-shop-last")
    ('corner-shop', 'last')
    """
    for part in _PARTS:
        if config_name.endswith(f"-{part}"):
            return config_name.removesuffix(f"-{part}"), part
    return config_name, ""
