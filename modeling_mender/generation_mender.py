"""`generate()` inside the catalogue: a logits processor, and the search of `recommend()` as a custom loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput

from .candidates import CatalogueFilter
from .catalogue import SemanticIdCatalogue
from .guide import Guide
from .item_filter import ItemSelection, allowed_mask

__all__ = [
    "SemanticIdLogitsProcessor",
    "catalogue_beam_search",
]


DEAD = -1e9
"""Score of the pad token in valid rows: it is chosen only if no valid continuation is left, as with too many beams."""


class SemanticIdLogitsProcessor(LogitsProcessor):
    """Allows only tokens that continue a semantic ID of the catalogue.

    Works row by row for greedy search, sampling and beam search of any width. If there are more beams than items, the
    surplus beams end in padding tokens with a score near `DEAD`; drop them. The same happens to a row whose prefix no
    item has: beam search with sampling keeps tokens of probability zero if too few others are left.

    With a guide, a step adds the guide of the child minus the guide of its parent, so that the sum over all steps is
    the experts' score of the item.

    Args:
        catalogue: the items that may be generated.
        allowed: items that may be generated, as in `recommend()`.
        exclude: items that may not be generated, as in `recommend()`.
        num_users: B, the number of users that `generate` is called for; needed for filters with one row per user.
        guide: scores of experts to add, which include the filters: leave `allowed` and `exclude` out.
        generator_weights: weights of the log-probabilities; default 1. Shape: (B, 1).
        normalise: whether to turn scores into log-probabilities first. Beam search has done so, sampling and greedy
            search have not, and logits cannot be added to scores of experts.

    Raises:
        ValueError: if a filter has the wrong shape or leaves a user without items; on call, if no row starts with a
            prefix of an item.
        IndexError: if a filter contains an item that is not in the catalogue.
    """

    def __init__(
        self,
        catalogue: SemanticIdCatalogue,
        *,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
        num_users: int = 1,
        guide: Guide | None = None,
        generator_weights: Tensor | None = None,
        normalise: bool = False,
    ) -> None:
        self.catalogue = catalogue
        self.num_users = num_users
        self._guide, self._generator_weights, self._normalise = guide, generator_weights, normalise
        sizes = torch.tensor([1, *catalogue.codebook_sizes])
        self._offsets = sizes.cumsum(0).tolist()
        mask = allowed_mask(allowed, exclude, catalogue.num_items, num_users, catalogue.device)
        self._filter = None if mask is None else CatalogueFilter(catalogue, num_users, mask)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores, with -inf for every token that does not continue a semantic ID.

        Args:
            input_ids: tokens so far; all rows of a user are adjacent. Shape: (rows, steps).
            scores: logits or log-probabilities of the next token. Shape: (rows, V).
        """
        catalogue = self.catalogue.to(scores.device)
        prefix = input_ids[:, 1:]  # without the start token
        level = prefix.shape[1]
        masked = torch.full_like(scores, -torch.inf)
        padded = (prefix == 0).any(dim=1)
        masked[:, 0] = torch.where(padded, 0.0, DEAD)
        if level >= catalogue.num_levels:
            return masked
        nodes = torch.zeros(len(prefix), dtype=torch.int64, device=scores.device)
        for depth in range(level):
            nodes = catalogue.descend(depth, nodes, prefix[:, depth] - self._offsets[depth])
        dead = nodes < 0
        if bool(dead.all() & ~padded.all()):
            row = int((~padded).nonzero()[0])
            raise ValueError(
                f"row {row} starts with the tokens {prefix[row].tolist()}, which are not a prefix of a semantic ID in "
                "the catalogue, and neither are those of the other rows; start from the start token and use this "
                "processor at every step"
            )
        first, end = catalogue.children(level, nodes.clamp(min=0))
        children = first[:, None] + torch.arange(catalogue.widest[level], device=scores.device)
        real = (children < end[:, None]) & ~dead[:, None]
        children = torch.where(real, children, first[:, None])
        if self._filter is not None:
            self._check_rows(len(prefix))
            real &= self._filter.allows_below(level + 1, children.to(self.catalogue.device)).to(real.device)
        added = None if self._guide is None else self._added(level, nodes.clamp(min=0), children)
        if added is not None:
            real &= added > -torch.inf
        parents = nodes.clamp(min=0)[:, None].expand_as(children)
        tokens = catalogue.codes_of(level + 1, children, parents) + self._offsets[level]
        tokens = torch.where(real, tokens, torch.zeros_like(tokens))
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        allowed.scatter_(1, tokens, True)
        allowed[:, 0] = False
        scores = self._weighted(scores)
        if added is not None:
            scores = scores.scatter_add(1, tokens, added.masked_fill(~real, 0.0))
        return torch.where(allowed, scores, masked)

    def _weighted(self, scores: Tensor) -> Tensor:
        """Log-probabilities times the generator's weight; what is impossible stays so. Shape: (rows, V)."""
        if self._normalise:
            scores = scores.log_softmax(-1)
        if self._generator_weights is None:
            return scores
        weights = self._generator_weights[self._users(len(scores))]
        return torch.where(scores == -torch.inf, scores, scores * weights)

    def _added(self, level: int, nodes: Tensor, children: Tensor) -> Tensor:
        """What the experts add for children (rows, M) of nodes (rows,); -inf where no item is allowed below."""
        users = self._users(len(nodes))
        added = self._guide.levels[level][users[:, None], children]
        return added if level == 0 else added - self._guide.levels[level - 1][users, nodes][:, None].clamp(min=DEAD)

    def _users(self, rows: int) -> Tensor:
        """The user of every row. Shape: (rows,)."""
        self._check_rows(rows)
        device = self.catalogue.device
        return torch.arange(self.num_users, device=device).repeat_interleave(rows // self.num_users)

    def _check_rows(self, rows: int) -> None:
        if rows % self.num_users:
            raise ValueError(
                f"{rows} rows cannot be divided among num_users={self.num_users}; "
                "pass the number of users that generate() is called for"
            )


if TYPE_CHECKING:
    from .modeling_mender import MenderForGenerativeRetrieval


def catalogue_beam_search(
    model: MenderForGenerativeRetrieval,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: Any = None,
    generation_config: GenerationConfig | None = None,
    num_return_sequences: int | None = None,
    num_beams: int | str | None = None,
    allowed: ItemSelection | None = None,
    exclude: ItemSelection | None = None,
    expert_input_ids: Tensor | None = None,
    avoid_input_ids: Tensor | None = None,
    prior: Tensor | Sequence[float] | Mapping[int, float] | None = None,
    weights: Mapping[str, float] | None = None,
    **model_kwargs: Any,
) -> Tensor | GenerateBeamEncoderDecoderOutput:
    """A `custom_generate` callable that returns the semantic IDs found by `recommend()`.

    Args:
        model: the model that `generate` is called on.
        input_ids: the start token of every row, as `generate` prepares them. Shape: (B * beams, 1).
        logits_processor: may only contain `SemanticIdLogitsProcessor`, which is implied.
        stopping_criteria: not used; all semantic IDs have the same length.
        generation_config: its `num_return_sequences` and `num_beams` are used if `generate` is called without them.
            For values of the config, `generate` copies its inputs once per beam; for its arguments it does not.
        num_return_sequences: items to return; default 1.
        num_beams: prefixes kept per level, as in `recommend()`.
        allowed: items that may be returned, as in `recommend()`.
        exclude: items that may not be returned, as in `recommend()`.
        expert_input_ids: inputs of the experts, as in `recommend()`; by default those of `generate`, if the experts
            can read them.
        avoid_input_ids: phrases to avoid, as in `recommend()`.
        prior: business priors, as in `recommend()`.
        weights: factors for weights of experts, as in `recommend()`.
        **model_kwargs: encoder outputs, attention mask and kinds of request, as `generate` prepares them.

    Returns:
        Start token and semantic-ID tokens of the best items of each user, best first; rows of 0 pad users with fewer
        items. Shape: (B * num_return_sequences, 1 + L), or fewer rows if fewer items are allowed.
        With `return_dict_in_generate`, an output that also has `sequences_scores`.

    Raises:
        ValueError: for sampling, other logits processors and decoder prefixes, which this search does not support.
    """
    config = generation_config or model.generation_config
    others = [type(item).__name__ for item in logits_processor or [] if not isinstance(item, SemanticIdLogitsProcessor)]
    if config.do_sample or others:
        what = "do_sample=True" if config.do_sample else ", ".join(others)
        raise ValueError(f"catalogue_beam_search does not support {what}; remove it, or call without custom_generate")
    for processor in logits_processor or []:
        if processor.catalogue is not model.catalogue and processor.catalogue != model.catalogue:
            raise ValueError(
                f"the logits processor has {processor.catalogue}, the model {model.catalogue}; "
                "pass allowed= or exclude= instead of a processor with another catalogue"
            )
    if input_ids.shape[1] != 1:
        raise ValueError(f"input_ids have {input_ids.shape[1]} tokens per row; pass only the start token")
    beams, returned = config.num_beams or 1, config.num_return_sequences or 1
    copies = max(beams, returned)
    states, mask, kind = (
        model_kwargs["encoder_outputs"][0][::copies],
        *map(model_kwargs.get, ("attention_mask", "kind")),
    )
    found = model.recommend(
        encoder_outputs=(states,),
        attention_mask=None if mask is None else mask[::copies],
        top_k=num_return_sequences or returned,
        num_beams=beams if num_beams is None and beams > 1 else num_beams,
        allowed=allowed,
        exclude=exclude,
        kind=None if kind is None else kind[::copies],
        expert_input_ids=expert_input_ids,
        avoid_input_ids=avoid_input_ids,
        prior=prior,
        weights=weights,
    )
    items = found.item_indices.flatten()
    start = torch.full_like(items, config.decoder_start_token_id or 0)[:, None]
    tokens = items.new_full((len(items), model.config.num_levels), config.pad_token_id or 0)
    tokens[items >= 0] = model.item_tokens(items[items >= 0])
    sequences = torch.cat([start, tokens], dim=1)
    if not config.return_dict_in_generate:
        return sequences
    return GenerateBeamEncoderDecoderOutput(sequences=sequences, sequences_scores=found.scores.flatten())
