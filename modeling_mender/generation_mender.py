"""`generate()` inside the catalogue: a logits processor, and the search of `recommend()` as a custom loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput
from transformers.modeling_outputs import BaseModelOutput

from .candidates import CatalogueFilter
from .catalogue import SemanticIdCatalogue
from .guide import Guide, PathGuide
from .item_filter import ItemSelection, allowed_mask

__all__ = [
    "CatalogueGenerationMixin",
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


class CatalogueGenerationMixin(GenerationMixin):
    """Adds `generate` to a model that has a catalogue, and `recommend`."""

    @torch.no_grad()
    def generate(
        self,
        *args: Any,
        constrained: bool = True,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
        expert_input_ids: Tensor | None = None,
        avoid_input_ids: Tensor | None = None,
        prior: Tensor | Sequence[float] | Mapping[int, float] | None = None,
        weights: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> Any:
        """`GenerationMixin.generate`, restricted to semantic IDs of the catalogue and ranked as in `recommend()`.

        `recommend()` gives the same results several times faster. With experts or a prior, greedy search and sampling
        choose each code by its log-probability times the generator's weight, plus the experts' score of the best item
        that begins with it.

        Args:
            *args: passed on to `GenerationMixin.generate`.
            constrained: whether to add a `SemanticIdLogitsProcessor` if none is given. With `False`, or with a
                `SemanticIdLogitsProcessor` of your own, the generator alone chooses, without experts.
            allowed: items that may be generated, as in `recommend()`.
            exclude: items that may not be generated, as in `recommend()`.
            expert_input_ids: inputs of the experts, as in `recommend()`.
            avoid_input_ids: phrases to avoid, as in `recommend()`.
            prior: business priors, as in `recommend()`.
            weights: factors for weights of experts, as in `recommend()`.
            **kwargs: passed on to `GenerationMixin.generate`.

        Raises:
            ValueError: if filters, phrases to avoid, a prior or weights are combined with `constrained=False` or a
                `SemanticIdLogitsProcessor`, for several conditions per user, or for the reasons given in `recommend()`.
            IndexError: if a filter or prior contains an item that is not in the catalogue.
        """
        processors = LogitsProcessorList(kwargs.pop("logits_processor", None) or [])
        given = any(isinstance(item, SemanticIdLogitsProcessor) for item in processors)
        custom = kwargs.get("custom_generate")
        filters = {"allowed": allowed, "exclude": exclude}
        terms = {"avoid_input_ids": avoid_input_ids, "prior": prior, "weights": weights}
        asked = {name: value for name, value in (filters | terms).items() if value is not None}
        if asked and custom is None and (given or not constrained):
            raise ValueError(
                f"{' and '.join(asked)} would not be applied; pass filters to the SemanticIdLogitsProcessor, or call "
                "generate without a processor and with constrained=True"
            )
        inputs = (*args[:1], kwargs.get("inputs"), kwargs.get("input_ids"))
        input_ids = next((ids for ids in inputs if ids is not None), None)
        if input_ids is not None and input_ids.dim() > 2:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}, several conditions for each user; generate() takes one "
                "of shape (B, T), recommend() takes several"
            )
        if self.reads_kind and kwargs.get("kind") is None and input_ids is not None:
            # The steps of the decoder do not have the inputs from which the kind is read.
            kwargs["kind"] = self._kind(None, input_ids, input_ids)
        if custom is not None:
            if custom is catalogue_beam_search and expert_input_ids is None and self._experts_read_inputs:
                expert_input_ids = input_ids
            # The callable applies them.
            kwargs |= asked if expert_input_ids is None else {**asked, "expert_input_ids": expert_input_ids}
        settings = kwargs.get("generation_config") or self.generation_config
        beams = kwargs.get("num_beams") or settings.num_beams or 1
        if constrained and not given:
            own = {} if custom is not None else filters
            if custom is None and (self.experts is not None or prior is not None):
                own = self._summing(input_ids, kwargs, expert_input_ids, **filters, **terms)
                own["normalise"] = beams == 1
            users = _num_users(input_ids, kwargs) if any(value is not None for value in own.values()) else 1
            processors.append(SemanticIdLogitsProcessor(self.catalogue, num_users=users, **own))
        if beams > 1:
            # All semantic IDs have the same length, so scores are plain log-probabilities.
            kwargs.setdefault("length_penalty", 0.0)
        return super().generate(*args, logits_processor=processors, **kwargs)

    def _summing(
        self,
        input_ids: Tensor | None,
        kwargs: dict[str, Any],
        expert_input_ids: Tensor | None,
        allowed: ItemSelection | None,
        exclude: ItemSelection | None,
        **terms: Any,
    ) -> dict[str, Any]:
        """Arguments of a `SemanticIdLogitsProcessor` that adds the experts; encodes the inputs among `kwargs`."""
        encoder_outputs, _, request = self._read(
            input_ids,
            kwargs.get("attention_mask"),
            kwargs.get("encoder_outputs"),
            kind=kwargs.get("kind"),
            expert_input_ids=expert_input_ids,
            **terms,
        )
        if kwargs.get("encoder_outputs") is None:
            kwargs["encoder_outputs"] = BaseModelOutput(encoder_outputs[0])
        mix, evidence = request.mix_and_evidence()
        if isinstance(evidence, PathGuide):
            raise ValueError(
                f"generate() cannot add experts or priors for {self.config.num_items:,} items; call recommend(), or "
                "generate with custom_generate=catalogue_beam_search"
            )
        if evidence is None:
            return {"allowed": allowed, "exclude": exclude, "generator_weights": mix}
        return {"guide": Guide.over(self.catalogue, evidence, allowed, exclude), "generator_weights": mix}


def _num_users(input_ids: Tensor | None, inputs: Mapping[str, Any]) -> int:
    """The number of users that `generate` is called for."""
    return len(input_ids) if input_ids is not None else len(inputs["encoder_outputs"][0])
