"""The search behind `recommend()`, for people who call `generate()`.

`model.generate(**inputs, custom_generate=catalogue_beam_search, k=10, beam_width=30)` returns what beam search with 30
beams and a `SemanticIdLogitsProcessor` returns, without copying the encoder's states to every beam.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput

from .catalogue_filter import ItemSelection
from .logits_process import SemanticIdLogitsProcessor

if TYPE_CHECKING:
    from .modeling_mender import MenderForGenerativeRetrieval

__all__ = ["catalogue_beam_search"]


def catalogue_beam_search(
    model: MenderForGenerativeRetrieval,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: Any = None,
    generation_config: GenerationConfig | None = None,
    k: int | None = None,
    beam_width: int | str | None = None,
    allowed: ItemSelection | None = None,
    exclude: ItemSelection | None = None,
    **model_kwargs: Any,
) -> Tensor | GenerateBeamEncoderDecoderOutput:
    """A `custom_generate` callable: the best semantic IDs of every user by `recommend()`.

    Args:
        model: the model whose `generate` calls.
        input_ids: the start token of every row, as `generate` prepares them. Shape: (B * beams, 1).
        logits_processor: nothing but `SemanticIdLogitsProcessor`, which is implied.
        stopping_criteria: not consulted; every semantic ID is as long as the catalogue has levels.
        generation_config: `num_return_sequences` and `num_beams` stand for `k` and `beam_width` where those are absent.
        k: items to return. `generate` copies its inputs for every beam it knows of; `k` and `beam_width` pass it by.
        beam_width: prefixes kept per level, as `num_beams` of `recommend()`.
        allowed: items that may be returned, as in `recommend()`.
        exclude: items that may not be returned, as in `recommend()`.
        **model_kwargs: encoder outputs and attention mask, as `generate` prepares them.

    Returns:
        Start token and semantic-ID tokens of the best items, best first, of every user in turn; 0 throughout where a
        user may receive fewer items. Shape: (B * k, 1 + L), with k at most the number of items that may be returned.
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
    states, mask = model_kwargs["encoder_outputs"][0][::copies], model_kwargs.get("attention_mask")
    found = model.recommend(
        encoder_outputs=(states,),
        attention_mask=None if mask is None else mask[::copies],
        k=returned if k is None else k,
        num_beams=beams if beam_width is None and beams > 1 else beam_width,
        allowed=allowed,
        exclude=exclude,
    )
    rows = found.rows.flatten()
    start = torch.full_like(rows, config.decoder_start_token_id or 0)[:, None]
    tokens = rows.new_full((len(rows), model.config.num_levels), config.pad_token_id or 0)
    tokens[rows >= 0] = model.item_tokens(rows[rows >= 0])
    sequences = torch.cat([start, tokens], dim=1)
    if not config.return_dict_in_generate:
        return sequences
    return GenerateBeamEncoderDecoderOutput(sequences=sequences, sequences_scores=found.scores.flatten())
