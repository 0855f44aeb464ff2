"""Training of the RQ-VAE without collapse, in a minute instead of thousands of epochs.

Codebooks that are placed before the latents have settled end up unused. So: (1) start from the principal
components, (2) train the autoencoder alone, (3) place the codebooks by residual k-means on its latents, (4) train
both, the codebooks as moving averages (van den Oord et al. 2017, arXiv:1711.00937), dead codes moving onto items.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import logging

from .quantizers import standardisation
from .residual_quantisation import assign, fit_codebooks, reconstruct
from .semantic_ids import check_not_collapsed

if TYPE_CHECKING:
    from .rq_vae import RqVae

__all__ = ["RqVaeTraining", "train_rq_vae"]


@dataclass(frozen=True)
class RqVaeTraining:
    """Settings of `RqVae.fit`.

    Args:
        epochs: epochs with quantisation, at most.
        warm_up_epochs: epochs of the autoencoder alone, before the codebooks are placed.
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
    """Warm up, place the codebooks, train with them, and keep the best epoch."""
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
    """Codebooks as moving averages of the residuals they serve.

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
        """Take in one batch: latents of shape (B, C) and the codes they got, of shape (B, L)."""
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
    """Let the linear maps be the principal components and the networks contribute nothing yet."""
    double = standard.double()
    basis = torch.linalg.eigh(double.T @ double).eigenvectors[:, -model.config.latent_width :].to(standard.dtype)
    model.projection.weight.copy_(basis.T)
    model.expansion.weight.copy_(basis)
    for last in (model.encoder[-1], model.decoder[-1]):
        last.weight.zero_()
        last.bias.zero_()


@torch.no_grad()
def _place_codebooks(model: RqVae, train: Tensor, batch_size: int, settings: RqVaeTraining) -> _MovingCodebooks:
    """Residual k-means on the latents of the warm autoencoder."""
    model.eval()
    latent = torch.cat([model.latent_of(batch) for batch in train.split(batch_size)])
    model.train()
    if not torch.isfinite(latent).all():
        raise ValueError(f"the warm-up diverged; lower learning_rate={settings.learning_rate}.")
    levels, size = model.config.levels, model.config.codes
    model.codebooks.copy_(fit_codebooks(latent, levels, size, seed=settings.seed))
    codes = assign(latent, model.codebooks)
    counts = torch.stack([torch.bincount(column, minlength=size) for column in codes.unbind(dim=1)])
    # At least a trace of use, so that an empty cluster is a dead code rather than a division by zero.
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
