"""The loss of batches with wanted and unwanted items.

The target of an example with a negative preference must *not* be recommended. The paper subtracts its cross-entropy
(arXiv:2412.08604, section on data augmentation), which has no lower bound: the model can gain without end by making one
code impossible. The unlikelihood term -log(1 - p) (Welleck et al. 2019, arXiv:1908.04319) has the same goal and is
satisfied once p is small, so it is the default.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "NEGATIVE_LOSSES",
    "code_loss",
    "text_loss",
]


NEGATIVE_LOSSES = ("unlikelihood", "subtracted")
IGNORED = -100


def code_loss(
    logits: Tensor,
    labels: Tensor,
    negative: Tensor,
    *,
    form: str = "unlikelihood",
    weight: float = 1.0,
    label_smoothing: float = 0.0,
    num_items_in_batch: int | Tensor | None = None,
) -> Tensor:
    """Cross-entropy of wanted items and a term against unwanted ones, per label token.

    Args:
        logits: Shape: (B, L, V).
        labels: tokens of the items, -100 where there is none. Shape: (B, L).
        negative: whether the item must not be recommended. Shape: (B,), bool.
        form: "unlikelihood", or "subtracted" for the paper's.
        weight: of the term against unwanted items.
        label_smoothing: share of a wanted label's weight that goes to all tokens alike, as in torch's `cross_entropy`.
        num_items_in_batch: labels in the whole batch, where it is accumulated over several forward passes.

    Raises:
        ValueError: if `form` is neither of the two.

    >>> logits = torch.tensor([[[0.0, 2.0]], [[0.0, 2.0]]])
    >>> code_loss(logits, torch.tensor([[1], [1]]), torch.tensor([False, True]))
    tensor(1.1269)
    """
    if form not in NEGATIVE_LOSSES:
        raise ValueError(f"negative_loss={form!r}; pass one of {', '.join(NEGATIVE_LOSSES)}")
    real = labels != IGNORED
    log_probs = logits.float().log_softmax(-1)
    chosen = log_probs.gather(2, labels.clamp(min=0)[..., None]).squeeze(-1)
    if form == "unlikelihood":
        # log(1 - p) by expm1 keeps its digits for small p; p = 1 would give an infinite loss.
        against = -torch.log((-torch.expm1(chosen)).clamp(min=1e-6))
    else:
        against = chosen
    wanted = -chosen
    if label_smoothing:
        wanted = (1 - label_smoothing) * wanted - label_smoothing * log_probs.mean(-1)
    per_label = torch.where(negative[:, None], weight * against, wanted) * real
    count = real.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
    # Of a batch that asks for text alone, the Trainer counts no label at all.
    return per_label.sum() / count.clamp(min=1)


def text_loss(states: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of masked text tokens, predicted from encoder states by the encoder's own word embeddings.

    Args:
        states: Shape: (B, T, D).
        embeddings: Shape: (text vocabulary, D).
        labels: token ids at masked positions, -100 elsewhere. Shape: (B, T).
    """
    masked = labels != IGNORED
    if not bool(masked.any()):
        return states.sum() * 0.0
    logits = states[masked].float() @ embeddings.float().T / embeddings.shape[1] ** 0.5
    return functional.cross_entropy(logits, labels[masked])
