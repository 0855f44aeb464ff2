"""Residual k-means: item embeddings become L codes, coarse to fine.

Each level clusters what the levels above left over, as in residual quantisation (Lee et al. 2022,
arXiv:2203.01941), but without an autoencoder to train. It is the default: as accurate for recommendation as
RQ-VAE codes, in seconds. `rq_vae` holds the paper's RQ-VAE behind the same protocol; `semantic_ids` adds the
tie-breaking level and the report.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import cached_file

from ..configuration_mender import atomic_write
from .residual_quantisation import assign, fit_codebooks, reconstruct, spread_last_level
from .tie_breaking import check_not_collapsed

__all__ = [
    "Quantizer",
    "ResidualKMeans",
    "as_embeddings",
    "choose_codes",
    "reconstruction_error",
    "standardisation",
]


CONFIG_FILE = "quantizer_config.json"
WEIGHTS_FILE = "quantizer.safetensors"


@runtime_checkable
class Quantizer(Protocol):
    """Converts item embeddings to codes. Fitted once; the same object encodes new items."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes at each of the L levels."""

    def fit(self, embeddings: Tensor) -> Quantizer:
        """Fit the codebooks to embeddings of shape (N, D); returns the quantizer."""

    def encode(self, embeddings: Tensor, *, spread: bool = False, taken: Tensor | None = None) -> Tensor:
        """Codes of embeddings of shape (N, D), coarse to fine. Shape: (N, L), int64.

        `spread` shares the last level's codes out among items that would collide, beside the `taken` ones.
        """

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstruct embeddings from codes. Shape: (N, L) -> (N, D), float32."""

    def save_pretrained(self, save_directory: str | Path) -> Any:
        """Save the quantizer to a folder."""


def choose_codes(items: int) -> int:
    """Codes per level for a catalogue of this size: the power of two nearest to 2 * sqrt(items).

    A first-level code then stands for about sqrt(items) / 2 items, so codes are reused and the trie of IDs
    branches at every level. The three catalogues of the paper (11,924 to 18,357 items) get its 256. Never
    above 2,048, nor above half the items.

    >>> [choose_codes(n) for n in (10, 150, 900, 12_000, 10_000_000)]
    [4, 32, 64, 256, 2048]
    """
    nearest = 2 ** round(1 + math.log2(max(items, 1)) / 2)
    at_most_half = 2 ** math.floor(math.log2(max(items // 2, 1)))
    return max(2, min(nearest, at_most_half, 2048))


def as_embeddings(embeddings: Tensor | np.ndarray, width: int | None = None) -> Tensor:
    """Check embeddings and convert them to a float32 tensor of shape (N, D).

    Raises:
        ValueError: if they are not a table, hold NaN or infinity, or are not `width` wide.
    """
    x = torch.as_tensor(embeddings).detach()
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"embeddings must have the shape (items, width), got {tuple(x.shape)}.")
    if width is not None and x.shape[1] != width:
        raise ValueError(
            f"embeddings are {x.shape[1]} wide but the quantizer was fitted on width {width}; "
            "embed new items with the encoder used for fitting."
        )
    x = x.to(torch.float32)
    bad = (~torch.isfinite(x).all(dim=1)).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        value = x[row][~torch.isfinite(x[row])][0].item()
        raise ValueError(
            f"embeddings hold {value} in row {row} ({len(bad)} of {len(x)} rows are not finite); "
            "embed these items again or leave them out."
        )
    return x


def standardisation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale of every dimension of x. Shapes: (D,), (D,).

    Raises:
        ValueError: if all rows are equal, so that there is nothing to tell apart.
    """
    if len(x) < 2 or bool((x == x[0]).all()):
        raise ValueError(
            f"the {len(x)} embeddings have zero variance; semantic IDs need items that differ: check the item texts."
        )
    scale = x.std(dim=0, correction=0)
    # A dimension that is constant up to rounding errors must not be scaled to unit variance.
    return x.mean(dim=0), torch.where(scale > 1e-5 * scale.max(), scale, 1.0)


def reconstruction_error(quantizer: Quantizer, embeddings: Tensor | np.ndarray) -> float:
    """Share of the variance of embeddings that is lost: 0 is perfect, 1 is no better than the mean."""
    x = as_embeddings(embeddings)
    lost = (x - quantizer.decode(quantizer.encode(x)).to(x.device)).double().square().sum()
    return float(lost / (x - x.mean(dim=0)).double().square().sum())


class ResidualKMeans:
    """k-means on embeddings, then on the residuals, level by level.

    Embeddings are standardised per dimension first, as in the paper; mean and scale belong to the fitted
    quantizer, so that new items are treated in the same way. The same seed and number of threads give the same codes.

    Args:
        levels: number of levels L.
        codes: codes per level K; None chooses from the number of items (see `choose_codes`).
        components: cluster in the space of at most this many principal components: several times faster on
            wide embeddings and fewer collisions, for a little more reconstruction error. None keeps all.
        iterations: k-means iterations per level.
        seed: seed of the k-means starts.

    >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> ResidualKMeans(levels=2, codes=4).fit(x).encode(x).shape
    torch.Size([100, 2])
    """

    SETTINGS = ("levels", "codes", "components", "iterations", "seed")

    def __init__(
        self,
        levels: int = 3,
        codes: int | None = None,
        *,
        components: int | None = 128,
        iterations: int = 25,
        seed: int = 0,
    ):
        for name, value, least in (
            ("levels", levels, 1),
            ("codes", codes, 2),
            ("components", components, 1),
            ("iterations", iterations, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name}={value} is too small; pass {name} >= {least}.")
        self.levels, self.codes, self.components = levels, codes, components
        self.iterations, self.seed = iterations, seed
        self._codebooks: Tensor | None = None  # (L, K, C), in the standardised, projected space
        self._mean = self._scale = self._basis = torch.empty(0)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in self.SETTINGS)
        return f"ResidualKMeans({settings})"

    @property
    def codebooks(self) -> Tensor:
        """Centroids of every level in the standardised space. Shape: (L, K, min(D, components))."""
        if self._codebooks is None:
            raise ValueError("the quantizer is not fitted; call fit or from_pretrained first.")
        return self._codebooks

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes at each of the L levels."""
        return (self.codebooks.shape[1],) * self.codebooks.shape[0]

    def fit(self, embeddings: Tensor | np.ndarray) -> ResidualKMeans:
        """Learn the codebooks.

        Args:
            embeddings: one vector per item. Shape: (N, D).

        Returns:
            The quantizer itself.

        Raises:
            ValueError: if embeddings are malformed or all equal, or fewer than `codes`.
            CollapsedCodesError: if the codes do not tell the items apart.
        """
        x = as_embeddings(embeddings).cpu()
        mean_and_scale = standardisation(x)
        codes = choose_codes(len(x)) if self.codes is None else self.codes
        if codes > len(x):
            raise ValueError(
                f"codes={codes} needs at least {codes} items, got {len(x)}; pass fewer codes, or codes=None "
                "to choose them from the number of items."
            )
        self._mean, self._scale = mean_and_scale
        self._basis = torch.empty(0)
        if self.components is not None and self.components < x.shape[1]:
            standard = ((x - self._mean) / self._scale).double()
            self._basis = torch.linalg.eigh(standard.T @ standard).eigenvectors[:, -self.components :].float()
        self._codebooks = fit_codebooks(
            self._standardise(x), self.levels, codes, iterations=self.iterations, seed=self.seed
        )
        check_not_collapsed(
            self.encode(x),
            self.codebook_sizes,
            x,
            "give items fuller texts or another encoder, pass more levels or fewer codes.",
        )
        return self

    def encode(self, embeddings: Tensor | np.ndarray, *, spread: bool = False, taken: Tensor | None = None) -> Tensor:
        """Codes of item embeddings, coarse to fine; also for new items.

        Args:
            embeddings: one vector per item. Shape: (N, D).
            spread: share the last level's codes out among items that would collide (see `sinkhorn`).
            taken: with `spread`, codes of existing items, which keep theirs. Shape: (M, L) or (M, L + 1).

        Returns:
            Codes in [0, K). Shape: (N, L), int64, on the CPU.

        Raises:
            ValueError: if the quantizer is not fitted, or D differs from the width it was fitted on.
        """
        books = self.codebooks
        standard = self._standardise(as_embeddings(embeddings, width=len(self._mean)).cpu())
        codes = assign(standard, books)
        return spread_last_level(standard, codes, books, taken=taken) if spread else codes

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstructed embeddings: the sum of the centroids, in the units of the input.

        Args:
            codes: output of `encode`. Shape: (N, L).

        Returns:
            Embeddings. Shape: (N, D), float32.

        Raises:
            ValueError: if the number of levels is wrong or a code is outside [0, K).
        """
        standard = reconstruct(codes, self.codebooks)
        if self._basis.numel():
            standard = standard @ self._basis.T
        return standard * self._scale + self._mean

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `quantizer_config.json` and `quantizer.safetensors` to a folder, atomically."""
        tensors = {
            "codebooks": self.codebooks,
            "mean": self._mean,
            "scale": self._scale,
            "basis": self._basis,
        }
        config = {"quantizer_type": "residual_kmeans"} | {name: getattr(self, name) for name in self.SETTINGS}
        folder = Path(save_directory)
        with atomic_write(folder / CONFIG_FILE) as config_file, atomic_write(folder / WEIGHTS_FILE) as weights_file:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights_file)
            config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> ResidualKMeans:
        """Read a fitted quantizer from a folder or a Hub repository.

        Args:
            pretrained_model_name_or_path: folder, or `org/name` on the Hub.
            **kwargs: passed to `transformers.utils.cached_file`: `revision`, `token`, `subfolder`, ...

        Raises:
            OSError: if the files are not there.
            ValueError: if they describe another quantizer, or do not fit together.
        """
        source = str(pretrained_model_name_or_path)
        config = json.loads(Path(cached_file(source, CONFIG_FILE, **kwargs)).read_text(encoding="utf-8"))
        if config.pop("quantizer_type", None) != "residual_kmeans":
            raise ValueError(f"{source} holds no ResidualKMeans; load it with the class that saved it.")
        tensors = load_file(cached_file(source, WEIGHTS_FILE, **kwargs))
        quantizer = cls(**config)
        books, basis, width = tensors["codebooks"], tensors["basis"], len(tensors["mean"])
        fits = books.ndim == 3 and len(books) == quantizer.levels and tensors["scale"].shape == (width,)
        if not fits or books.shape[2] != (basis.shape[1] if basis.numel() else width):
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            raise ValueError(
                f"{source}: {CONFIG_FILE} says {config} but the weights have the shapes {shapes}; save again."
            )
        quantizer._codebooks, quantizer._basis = books, basis
        quantizer._mean, quantizer._scale = tensors["mean"], tensors["scale"]
        return quantizer

    def _standardise(self, x: Tensor) -> Tensor:
        standard = (x - self._mean) / self._scale
        return standard @ self._basis if self._basis.numel() else standard
