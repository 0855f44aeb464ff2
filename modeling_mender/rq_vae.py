"""RQ-VAE: an autoencoder whose latent is quantised, coarse to fine, into semantic IDs.

The learned quantizer of the field (Lee et al. 2022, arXiv:2203.01941; Rajput et al. 2023, arXiv:2305.05065),
behind the same protocol as `ResidualKMeans`. Encoder and decoder are a linear map plus a small network; the
linear part starts from the principal components and the network from zero, so training starts where residual
k-means ends instead of from noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .quantizers import as_embeddings, choose_codes
from .residual_quantisation import assign, reconstruct
from .rq_vae_training import RqVaeTraining, train_rq_vae
from .sinkhorn import spread_last_level

__all__ = ["RqVae", "RqVaeConfig", "RqVaeOutput"]

ROWS_PER_BATCH = 8_192


class RqVaeConfig(PreTrainedConfig):
    """Shape of an RQ-VAE.

    Args:
        width: width D of the embeddings.
        levels: number of levels L.
        codes: codes per level K; `choose_codes(number of items)` gives a fitting one.
        latent_width: width of the quantised latent. Narrower: fewer collisions, more reconstruction error.
        hidden_widths: hidden layers of the encoder; the decoder mirrors them.
        dropout: dropout in the hidden layers.
        commitment: weight of the loss that keeps the latent near its centroids (beta of the paper).
    """

    model_type = "rq_vae"

    def __init__(
        self,
        width: int = 384,
        levels: int = 3,
        codes: int = 256,
        latent_width: int = 64,
        hidden_widths: Sequence[int] = (512, 256),
        dropout: float = 0.1,
        commitment: float = 0.25,
        **kwargs: Any,
    ):
        least = {"width": (width, 1), "levels": (levels, 1), "codes": (codes, 2), "latent_width": (latent_width, 1)}
        for name, (value, low) in least.items():
            if value < low:
                raise ValueError(f"{name}={value} is too small; pass {name} >= {low}.")
        if latent_width > width:
            raise ValueError(f"latent_width={latent_width} exceeds width={width}; pass latent_width <= width.")
        if any(hidden < 1 for hidden in hidden_widths):
            raise ValueError(f"hidden_widths={list(hidden_widths)} must be positive.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must lie in [0, 1).")
        if commitment < 0:
            raise ValueError(f"commitment={commitment} must be >= 0.")
        self.width, self.levels, self.codes, self.latent_width = width, levels, codes, latent_width
        self.hidden_widths, self.dropout, self.commitment = list(hidden_widths), dropout, commitment
        super().__init__(**kwargs)


@dataclass
class RqVaeOutput(ModelOutput):
    """What `RqVae.forward` gives.

    Attributes:
        loss: reconstruction loss plus commitment loss; a scalar.
        reconstruction: decoded embeddings. Shape: (N, D).
        latent: encoder output before quantisation. Shape: (N, C).
        codes: semantic-ID codes. Shape: (N, L), int64.
    """

    loss: Tensor | None = None
    reconstruction: Tensor | None = None
    latent: Tensor | None = None
    codes: Tensor | None = None


class RqVae(PreTrainedModel):
    """Autoencoder with a residual-quantised latent.

    >>> x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    >>> rq_vae = RqVae.for_embeddings(x, latent_width=8, hidden_widths=(16,)).fit(x, epochs=2, warm_up_epochs=1)
    >>> rq_vae.encode(x).shape, rq_vae.codebook_sizes
    (torch.Size([200, 3]), (32, 32, 32))
    """

    config_class = RqVaeConfig
    base_model_prefix = "rq_vae"
    main_input_name = "embeddings"

    def __init__(self, config: RqVaeConfig):
        super().__init__(config)
        width, latent = config.width, config.latent_width
        self.projection = nn.Linear(width, latent, bias=False)
        self.expansion = nn.Linear(latent, width, bias=False)
        self.encoder = _network([width, *config.hidden_widths, latent], config.dropout)
        self.decoder = _network([latent, *reversed(config.hidden_widths), width], config.dropout)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        # Moved by averages during training, not by gradients; all zero until then.
        self.register_buffer("codebooks", torch.zeros(config.levels, config.codes, latent))
        self.post_init()

    @classmethod
    def for_embeddings(cls, embeddings: Tensor | np.ndarray, **settings: Any) -> RqVae:
        """An unfitted RQ-VAE whose width and codes suit these embeddings.

        Args:
            embeddings: one vector per item. Shape: (N, D).
            **settings: of `RqVaeConfig`; `codes` defaults to `choose_codes(N)`, `latent_width` to at most 64.
        """
        items, width = as_embeddings(embeddings).shape
        defaults = {"width": width, "codes": choose_codes(items), "latent_width": min(64, width)}
        return cls(RqVaeConfig(**defaults | settings))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes available at each of the L levels."""
        return (self.config.codes,) * self.config.levels

    def forward(self, embeddings: Tensor) -> RqVaeOutput:
        """Encode, quantise and decode.

        Gradients pass the quantisation unchanged (straight-through estimator).

        Args:
            embeddings: one vector per item. Shape: (N, D).
        """
        standard = self._standardise(embeddings)
        latent = self.latent_of(standard)
        codes = assign(latent.detach(), self.codebooks)
        quantised = reconstruct(codes, self.codebooks)
        output = self.standard_of(latent + (quantised - latent).detach())
        loss = F.mse_loss(output, standard) + self.config.commitment * F.mse_loss(latent, quantised)
        return RqVaeOutput(loss, output * self.scale + self.mean, latent, codes)

    def latent_of(self, standard: Tensor) -> Tensor:
        """Latents of standardised embeddings. Shape: (N, C)."""
        return self.projection(standard) + self.encoder(standard)

    def standard_of(self, latent: Tensor) -> Tensor:
        """Standardised embeddings of latents. Shape: (N, D)."""
        return self.expansion(latent) + self.decoder(latent)

    def fit(self, embeddings: Tensor | np.ndarray, **settings: Any) -> RqVae:
        """Train on item embeddings: autoencoder alone, k-means on its latents, then both together.

        Runs on the device the model is on, and stops when held-out items no longer improve.

        Args:
            embeddings: one vector per item. Shape: (N, D).
            **settings: of `RqVaeTraining`: `epochs`, `warm_up_epochs`, `batch_size`, `learning_rate`, `patience`, ...

        Returns:
            The quantizer itself, in evaluation mode.

        Raises:
            ValueError: if embeddings are malformed, all equal, or fewer than `codes` allow.
            CollapsedCodesError: if the codes do not tell the items apart.
        """
        train_rq_vae(self, as_embeddings(embeddings, width=self.config.width), RqVaeTraining(**settings))
        return self

    @torch.no_grad()
    def encode(self, embeddings: Tensor | np.ndarray, *, spread: bool = False, taken: Tensor | None = None) -> Tensor:
        """Codes of item embeddings, coarse to fine; of new items as well.

        Args:
            embeddings: one vector per item. Shape: (N, D).
            spread: share the last level's codes out among items that would collide (see `sinkhorn`).
            taken: with `spread`, codes of existing items, which keep theirs. Shape: (M, L) or (M, L + 1).

        Returns:
            Codes in [0, K). Shape: (N, L), int64, on the CPU.

        Raises:
            ValueError: if the quantizer is not fitted, or D differs from `config.width`.
        """
        self._check_fitted()
        training = self.training
        self.eval()
        batches = as_embeddings(embeddings, width=self.config.width).split(ROWS_PER_BATCH)
        latent = torch.cat([self.latent_of(self._standardise(batch.to(self.device))) for batch in batches])
        self.train(training)
        codes = assign(latent, self.codebooks)
        return (spread_last_level(latent, codes, self.codebooks, taken=taken) if spread else codes).cpu()

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Embeddings that codes stand for, in the units of the input.

        Args:
            codes: output of `encode`. Shape: (N, L).

        Returns:
            Embeddings. Shape: (N, D), float32, on the CPU.

        Raises:
            ValueError: if the quantizer is not fitted, the number of levels is wrong, or a code is outside [0, K).
        """
        self._check_fitted()
        training = self.training
        self.eval()
        batches = reconstruct(codes, self.codebooks).split(ROWS_PER_BATCH)
        standard = torch.cat([self.standard_of(batch) for batch in batches])
        self.train(training)
        return (standard * self.scale + self.mean).cpu()

    def _standardise(self, embeddings: Tensor) -> Tensor:
        return (embeddings - self.mean) / self.scale

    def _check_fitted(self) -> None:
        if not self.codebooks.any():
            raise ValueError("the quantizer is not fitted; call fit or from_pretrained first.")


def _network(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers with layer norm, GELU and dropout between them."""
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-2], widths[1:-1], strict=True):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))
