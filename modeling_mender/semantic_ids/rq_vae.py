"""RQ-VAE: an autoencoder whose latent is quantised, coarse to fine, into semantic IDs.

The learned quantizer of the field (Lee et al. 2022, arXiv:2203.01941; Rajput et al. 2023, arXiv:2305.05065),
behind the same protocol as `ResidualKMeans`. Encoder and decoder are a linear map plus a small network; the
linear part starts from the principal components and the network from zero, so training starts where residual
k-means ends instead of from noise.

Training of the RQ-VAE without collapse, in a minute instead of thousands of epochs.

Codebooks that are placed before the latents have settled end up unused. So: (1) start from the principal
components, (2) train the autoencoder alone, (3) place the codebooks by residual k-means on its latents, (4) train
both, the codebooks as moving averages (van den Oord et al. 2017, arXiv:1711.00937), dead codes moving onto items.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput, logging

from .residual_kmeans import as_embeddings, choose_codes, standardisation
from .residual_quantisation import assign, fit_codebooks, reconstruct, spread_last_level
from .tie_breaking import check_not_collapsed

__all__ = [
    "RqVae",
    "RqVaeConfig",
    "RqVaeOutput",
    "RqVaeTraining",
    "train_rq_vae",
]


ROWS_PER_BATCH = 8_192


class RqVaeConfig(PreTrainedConfig):
    """Sizes of an RQ-VAE.

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
    """Output of `RqVae.forward`.

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
        # Updated by moving averages during training, not by gradients; zero until then.
        self.register_buffer("codebooks", torch.zeros(config.levels, config.codes, latent))
        self.post_init()

    @classmethod
    def for_embeddings(cls, embeddings: Tensor | np.ndarray, **settings: Any) -> RqVae:
        """An RQ-VAE that is not fitted yet, with sizes for these embeddings.

        Args:
            embeddings: one vector per item. Shape: (N, D).
            **settings: of `RqVaeConfig`; `codes` defaults to `choose_codes(N)`, `latent_width` to at most 64.
        """
        items, width = as_embeddings(embeddings).shape
        defaults = {"width": width, "codes": choose_codes(items), "latent_width": min(64, width)}
        return cls(RqVaeConfig(**defaults | settings))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes at each of the L levels."""
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
        """Train on item embeddings: first the autoencoder, then k-means on its latents, then both together.

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
        """Codes of item embeddings, coarse to fine; also for new items.

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
        """Reconstructed embeddings, in the units of the input.

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


@dataclass(frozen=True)
class RqVaeTraining:
    """Settings of `RqVae.fit`.

    Args:
        epochs: epochs with quantisation, at most.
        warm_up_epochs: epochs of the autoencoder before the codebooks are initialised.
        batch_size: items per step; small catalogues take smaller batches, ten an epoch.
        learning_rate: of AdamW, with cosine decay.
        weight_decay: of AdamW.
        validation: share of items held out to decide when to stop; 0 decides on the training items.
        patience: epochs without improvement after which training stops.
        decay: of the moving averages that are the codebooks.
        revive_below: a code used less than this share of the average is moved onto a random item of the batch.
        seed: of the split, the batches and k-means.
        on_epoch: called after every epoch with the model and the validation error, for logging; epoch 0 is k-means.
    """

    epochs: int = 30
    warm_up_epochs: int = 5
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    validation: float = 0.05
    patience: int = 5
    decay: float = 0.99
    revive_below: float = 0.05
    seed: int = 0
    on_epoch: Callable[[RqVae, float], None] | None = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("warm_up_epochs", 0), ("batch_size", 1), ("patience", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} is too small; pass {name} >= {least}.")
        for name in ("validation", "decay", "revive_below"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1).")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be > 0 and weight_decay={self.weight_decay} >= 0."
            )


def train_rq_vae(model: RqVae, embeddings: Tensor, settings: RqVaeTraining) -> None:
    """Fit `model` in place; it keeps the weights of its best epoch.

    Args:
        model: an RQ-VAE on the device to train on.
        embeddings: one vector per item. Shape: (N, D).
        settings: how to train.

    Raises:
        ValueError: if embeddings are all equal, or too few for the codes.
        CollapsedCodesError: if the codes do not tell the items apart.
    """
    config, generator = model.config, torch.Generator().manual_seed(settings.seed)
    mean, scale = standardisation(embeddings.cpu())
    order = torch.randperm(len(embeddings), generator=generator)
    held_out = int(settings.validation * len(embeddings))
    if config.codes > len(embeddings) - held_out:
        raise ValueError(
            f"codes={config.codes} needs at least {config.codes} training items, got {len(embeddings) - held_out}; "
            "pass a config with fewer codes, for example RqVae.for_embeddings(embeddings)."
        )
    model.mean.copy_(mean)
    model.scale.copy_(scale)
    standard = ((embeddings.cpu() - mean) / scale).to(model.device)
    train = standard[order[held_out:]]
    validation = standard[order[:held_out]] if held_out else train
    _start_from_principal_components(model, train)
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        _train(model, train, validation, settings, generator)
    model.eval()
    check_not_collapsed(
        model.encode(embeddings),
        model.codebook_sizes,
        embeddings,
        "train more warm_up_epochs, lower the learning_rate or latent_width, or use ResidualKMeans.",
    )


def _train(
    model: RqVae, train: Tensor, validation: Tensor, settings: RqVaeTraining, generator: torch.Generator
) -> None:
    """Train the autoencoder, initialise the codebooks, train both, and keep the best epoch."""
    batch_size = min(settings.batch_size, max(1, len(train) // 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * math.ceil(len(train) / batch_size)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / max(1, steps)))
    )
    bar = logging.tqdm(total=settings.warm_up_epochs + settings.epochs, desc="RQ-VAE", unit="epoch", leave=False)
    model.train()
    for _ in range(settings.warm_up_epochs):
        for rows in torch.randperm(len(train), generator=generator).split(batch_size):
            batch = train[rows]
            _step(optimizer, F.mse_loss(model.standard_of(model.latent_of(batch)), batch))
        bar.update()
    averages = _place_codebooks(model, train, batch_size, settings)
    best_error, best_state, waited = math.inf, None, 0
    for epoch in range(settings.epochs + 1):
        if epoch:
            for rows in torch.randperm(len(train), generator=generator).split(batch_size):
                output = model(train[rows] * model.scale + model.mean)
                _step(optimizer, output.loss)
                decay.step()
                averages.update(output.latent.detach(), output.codes)
            bar.update()
        error = _quantised_error(model, validation)
        bar.set_postfix(validation=f"{error:.4f}")
        if settings.on_epoch is not None:
            settings.on_epoch(model, error)
        if error < best_error:
            best_error, best_state, waited = error, copy.deepcopy(model.state_dict()), 0
        else:
            waited += 1
            if waited >= settings.patience:
                break
    bar.close()
    if best_state is None:
        raise ValueError(f"training diverged: validation error {error}; lower learning_rate={settings.learning_rate}.")
    model.load_state_dict(best_state)


class _MovingCodebooks:
    """Codebooks as moving averages of the residuals assigned to them.

    Args:
        codebooks: the model's buffer, updated in place. Shape: (L, K, C).
        counts: residuals served per step, on average. Shape: (L, K).
        decay: of the averages.
        revive_below: least use of a code, as a share of the average use.
        seed: of the items that dead codes move onto.
    """

    def __init__(self, codebooks: Tensor, counts: Tensor, decay: float, revive_below: float, seed: int):
        self.codebooks, self.counts, self.sums = codebooks, counts, codebooks * counts[:, :, None]
        self.decay, self.revive_below = decay, revive_below
        self.generator = torch.Generator().manual_seed(seed)

    def update(self, latent: Tensor, codes: Tensor) -> None:
        """Update from a batch: latents of shape (B, C) and their codes of shape (B, L)."""
        residual, usual = latent, len(latent) / self.codebooks.shape[1]
        for level, (book, code) in enumerate(zip(self.codebooks, codes.unbind(dim=1), strict=True)):
            served = torch.bincount(code, minlength=len(book)).to(book.dtype)
            self.counts[level].lerp_(served, 1 - self.decay)
            self.sums[level].lerp_(torch.zeros_like(book).index_add_(0, code, residual), 1 - self.decay)
            after = residual - book[code]
            dead = (self.counts[level] < self.revive_below * usual).nonzero().flatten()
            items = torch.randint(len(latent), (len(dead),), generator=self.generator).to(latent.device)
            self.counts[level, dead] = usual
            self.sums[level, dead] = usual * residual[items]
            book.copy_(self.sums[level] / self.counts[level][:, None])
            residual = after


@torch.no_grad()
def _start_from_principal_components(model: RqVae, standard: Tensor) -> None:
    """Initialise the linear maps with the principal components, and the networks with zero output."""
    double = standard.double()
    basis = torch.linalg.eigh(double.T @ double).eigenvectors[:, -model.config.latent_width :].to(standard.dtype)
    model.projection.weight.copy_(basis.T)
    model.expansion.weight.copy_(basis)
    for last in (model.encoder[-1], model.decoder[-1]):
        last.weight.zero_()
        last.bias.zero_()


@torch.no_grad()
def _place_codebooks(model: RqVae, train: Tensor, batch_size: int, settings: RqVaeTraining) -> _MovingCodebooks:
    """Residual k-means on the latents of the trained autoencoder."""
    model.eval()
    latent = torch.cat([model.latent_of(batch) for batch in train.split(batch_size)])
    model.train()
    if not torch.isfinite(latent).all():
        raise ValueError(f"the warm-up diverged; lower learning_rate={settings.learning_rate}.")
    levels, size = model.config.levels, model.config.codes
    model.codebooks.copy_(fit_codebooks(latent, levels, size, seed=settings.seed))
    codes = assign(latent, model.codebooks)
    counts = torch.stack([torch.bincount(column, minlength=size) for column in codes.unbind(dim=1)])
    # A small minimum count, so that an empty cluster is a dead code and not a division by zero.
    per_step = (counts * (batch_size / len(train))).clamp(min=1e-6)
    return _MovingCodebooks(
        model.codebooks, per_step.to(latent.dtype), settings.decay, settings.revive_below, settings.seed
    )


@torch.no_grad()
def _quantised_error(model: RqVae, standard: Tensor) -> float:
    """Mean squared error of standardised embeddings after encoding, quantising and decoding."""
    model.eval()
    total = 0.0
    for batch in standard.split(8_192):
        codes = assign(model.latent_of(batch), model.codebooks)
        output = model.standard_of(reconstruct(codes, model.codebooks))
        total += float((output - batch).square().mean(dim=1).sum())
    model.train()
    return total / len(standard)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
