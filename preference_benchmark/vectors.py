"""Vectors of distinct texts on disk: each text is embedded once, in chunks that survive being stopped.

A chunk is two files, the texts and their vectors; the texts are written last, so that a chunk without them is one
that was interrupted and is made again. Vectors are memory-mapped, a chunk at a time: what is not asked for stays on
disk, and the number of chunks is not bounded by how many files a process may hold open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl
from tqdm.auto import tqdm

from preference_benchmark.embedding import Embedder, positions

__all__ = ["VectorStore"]

_CHUNK = 2_048


class VectorStore:
    """An embedder that remembers on disk.

    Args:
        folder: where chunks are kept; made by the same embedder and for the same texts, or empty.
        load: gives the embedder; called only when a text is asked for that the folder does not know.
        chunk: texts per chunk. What a kill can cost.
        progress: whether to show a bar.
    """

    def __init__(
        self, folder: Path, load: Callable[[], Embedder], *, chunk: int = _CHUNK, progress: bool = True
    ) -> None:
        self.folder, self.load, self.chunk, self.progress = Path(folder), load, chunk, progress
        self._embedder: Embedder | None = None
        self._texts: list[pl.Series] = []
        self._width = 0
        for number, path in enumerate(sorted(self.folder.glob("*.parquet"))):
            if path.stem != _name(number):
                raise ValueError(f"{self.folder} lacks chunk {_name(number)}; remove the folder and build again.")
            self._open(path)

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """One L2-normalised vector per text, in the order given. Shape: (N, D)."""
        column = pl.Series("text", list(texts) if not isinstance(texts, pl.Series) else texts, dtype=pl.String)
        distinct = column.unique().sort()
        new = distinct.filter(~distinct.is_in(self._known().implode()))
        if len(new) or not self._texts:
            self._add(new)
        rows = positions(column, self._known())
        found = np.empty((len(rows), self._width), dtype=np.float32)
        start = 0
        for number, known in enumerate(self._texts):
            here = np.flatnonzero((rows >= start) & (rows < start + len(known)))
            if len(here):
                found[here] = self._vectors(number)[rows[here] - start]
            start += len(known)
        return found

    def _vectors(self, number: int) -> np.ndarray:
        """Vectors of a chunk; the file is open for as long as they are held."""
        return np.load(self.folder / f"{_name(number)}.npy", mmap_mode="r")

    def _known(self) -> pl.Series:
        return pl.concat(self._texts) if self._texts else pl.Series("text", [], dtype=pl.String)

    def _add(self, new: pl.Series) -> None:
        self._embedder = self._embedder or self.load()
        starts = range(0, max(len(new), 1), self.chunk)
        for start in tqdm(starts, desc="Embedding texts", disable=not self.progress or len(starts) < 2):
            texts = new.slice(start, self.chunk)
            vectors = np.asarray(self._embedder.encode(texts.to_list()), dtype=np.float32)
            path = self.folder / f"{_name(len(self._texts))}.parquet"
            # A file handle keeps numpy from adding an ending to the temporary name.
            with (path.with_suffix(".part")).open("wb") as file:
                np.save(file, vectors)
            os.replace(path.with_suffix(".part"), path.with_suffix(".npy"))
            texts.to_frame("text").write_parquet(path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
            self._open(path)

    def _open(self, path: Path) -> None:
        self._texts.append(pl.read_parquet(path)["text"])
        self._width = self._vectors(len(self._texts) - 1).shape[1]


def _name(number: int) -> str:
    return f"{number:06d}"
