"""`generate()` inside the catalogue: a logits processor, and the search of `recommend()` as a custom loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput

from .candidates import CatalogueFilter
from .catalogue import SemanticIdCatalogue
from .item_filter import ItemSelection, allowed_mask

__all__ = [
    "SemanticIdLogitsProcessor",
    "catalogue_beam_search",
]


DEAD = -1e9
"""Score of the pad token on live rows: chosen only when valid continuations run out, as when beams outnumber items."""


class SemanticIdLogitsProcessor(LogitsProcessor):
    """Allows only tokens that continue a semantic ID of the catalogue.

    Works row by row for greedy search, sampling and beam search of any width. Where beams outnumber items, the beams
    left over end in padding tokens with a score near `DEAD`; drop them. So does a row with a prefix that no item has:
    beam search by sampling keeps tokens without any probability where too few have one.

    Args:
        catalogue: the items that may be generated.
        allowed: items that may be generated, as in `recommend()`.
        exclude: items that may not be generated, as in `recommend()`.
        num_users: users that `generate` is called for, B; needed for filters of one row per user.

    Raises:
        ValueError: if a filter has the wrong shape or leaves a user without items; on call, if no row holds a prefix
            that an item has.
        IndexError: if a filter names an item that is not in the catalogue.
    """

    def __init__(
        self,
        catalogue: SemanticIdCatalogue,
        *,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
        num_users: int = 1,
    ) -> None:
        self.catalogue = catalogue
        sizes = torch.tensor([1, *catalogue.codebook_sizes])
        self._offsets = sizes.cumsum(0).tolist()
        mask = allowed_mask(allowed, exclude, catalogue.num_items, num_users, catalogue.device)
        self._filter = None if mask is None else CatalogueFilter(catalogue, num_users, mask)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores with every token that leaves the catalogue at -inf.

        Args:
            input_ids: tokens so far; the rows of a user stand together. Shape: (rows, steps).
            scores: logits or log-probabilities of the next token. Shape: (rows, V).
        """
        catalogue = self.catalogue.to(scores.device)
        written = input_ids[:, 1:]  # the start token stands first
        level = written.shape[1]
        masked = torch.full_like(scores, -torch.inf)
        padded = (written == 0).any(dim=1)
        masked[:, 0] = torch.where(padded, 0.0, DEAD)
        if level >= catalogue.num_levels:
            return masked
        nodes = torch.zeros(len(written), dtype=torch.int64, device=scores.device)
        for depth in range(level):
            nodes = catalogue.descend(depth, nodes, written[:, depth] - self._offsets[depth])
        dead = nodes < 0
        if bool(dead.all() & ~padded.all()):
            row = int((~padded).nonzero()[0])
            raise ValueError(
                f"row {row} holds the tokens {written[row].tolist()}, which begin no semantic ID of the catalogue, "
                "and no other row does; start from the start token and let this processor choose every token"
            )
        first, end = catalogue.children(level, nodes.clamp(min=0))
        children = first[:, None] + torch.arange(catalogue.widest[level], device=scores.device)
        real = (children < end[:, None]) & ~dead[:, None]
        children = torch.where(real, children, first[:, None])
        if self._filter is not None:
            if len(written) % self._filter.num_users:
                raise ValueError(
                    f"{len(written)} rows for num_users={self._filter.num_users}; every user has as many rows"
                )
            real &= self._filter.allows_below(level + 1, children.to(self.catalogue.device)).to(real.device)
        parents = nodes.clamp(min=0)[:, None].expand_as(children)
        tokens = catalogue.codes_of(level + 1, children, parents) + self._offsets[level]
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        allowed.scatter_(1, torch.where(real, tokens, torch.zeros_like(tokens)), True)
        allowed[:, 0] = False
        return torch.where(allowed, scores, masked)


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
    **model_kwargs: Any,
) -> Tensor | GenerateBeamEncoderDecoderOutput:
    """A `custom_generate` callable: the best semantic IDs of every user by `recommend()`.

    Args:
        model: the model whose `generate` calls.
        input_ids: the start token of every row, as `generate` prepares them. Shape: (B * beams, 1).
        logits_processor: nothing but `SemanticIdLogitsProcessor`, which is implied.
        stopping_criteria: not consulted; every semantic ID is as long as the catalogue has levels.
        generation_config: its `num_return_sequences` and `num_beams` hold where the arguments of `generate` name none.
            For these, `generate` copies its inputs once per beam; for its arguments it does not.
        num_return_sequences: items to return; default 1.
        num_beams: prefixes kept per level, as in `recommend()`.
        allowed: items that may be returned, as in `recommend()`.
        exclude: items that may not be returned, as in `recommend()`.
        expert_input_ids: what the experts of a model read; without it, the generator decides alone.
        **model_kwargs: encoder outputs, attention mask and kinds of request, as `generate` prepares them.

    Returns:
        Start token and semantic-ID tokens of the best items, best first, of every user in turn; 0 throughout where a
        user may receive fewer items. Shape: (B * num_return_sequences, 1 + L), or fewer where fewer items are allowed.
        With `return_dict_in_generate`, an output with `sequences_scores` beside them.

    Raises:
        ValueError: for what this search cannot do: sampling, other logits processors, a decoder prefix.
    """
    config = generation_config or model.generation_config
    others = [type(item).__name__ for item in logits_processor or [] if not isinstance(item, SemanticIdLogitsProcessor)]
    if config.do_sample or others:
        what = "do_sample=True" if config.do_sample else ", ".join(others)
        raise ValueError(f"catalogue_beam_search cannot apply {what}; leave it out, or leave custom_generate out")
    for processor in logits_processor or []:
        if processor.catalogue is not model.catalogue and processor.catalogue != model.catalogue:
            raise ValueError(
                f"the logits processor has {processor.catalogue}, the model {model.catalogue}; "
                "pass allowed= or exclude= instead of a processor of another catalogue"
            )
    if input_ids.shape[1] != 1:
        raise ValueError(f"input_ids hold {input_ids.shape[1]} tokens a row; start from the start token alone")
    beams, returned = config.num_beams or 1, config.num_return_sequences or 1
    copies = max(beams, returned)
    states, mask, kind = (
        model_kwargs["encoder_outputs"][0][::copies],
        *map(model_kwargs.get, ("attention_mask", "kind")),
    )
    summed = {"expert_input_ids": expert_input_ids}
    if model.experts is not None and expert_input_ids is None:
        summed = {"weights": {"behaviour": 0.0, "language": 0.0}}
    found = model.recommend(
        encoder_outputs=(states,),
        attention_mask=None if mask is None else mask[::copies],
        top_k=num_return_sequences or returned,
        num_beams=beams if num_beams is None and beams > 1 else num_beams,
        allowed=allowed,
        exclude=exclude,
        kind=None if kind is None else kind[::copies],
        **summed,
    )
    items = found.item_indices.flatten()
    start = torch.full_like(items, config.decoder_start_token_id or 0)[:, None]
    tokens = items.new_full((len(items), model.config.num_levels), config.pad_token_id or 0)
    tokens[items >= 0] = model.item_tokens(items[items >= 0])
    sequences = torch.cat([start, tokens], dim=1)
    if not config.return_dict_in_generate:
        return sequences
    return GenerateBeamEncoderDecoderOutput(sequences=sequences, sequences_scores=found.scores.flatten())
