"""Mender: a language encoder and a small T5 decoder that generates the semantic ID of the next item.

Preference discerning as generative retrieval (Paischer et al. 2024, arXiv:2412.08604): the encoder reads a preference
and a history, the decoder attends to its states and generates one code per level. The item table is saved with the
weights, so a loaded model always retrieves from the catalogue it was saved with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GenerationConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5Stack

from .catalogue import REMOVED, SemanticIdCatalogue, token_offsets, tokens_of_items
from .configuration_mender import (
    GENERATOR,
    KINDS,
    LANGUAGE,
    ExpertSumConfig,
    ItemStatesConfig,
    MenderConfig,
    reads_left_to_right,
)
from .decoder import CalledDecoder, FoldedDecoder, absorb_cross_attention, search_decoder
from .experts import Encoded, ExpertSum, default_kind, scores_every_item
from .generation_mender import CatalogueGenerationMixin
from .guide import path_guide
from .item_filter import ItemSelection, Recommendations, relative_to_mean
from .item_states import ItemStatesEncoder, encode_in_groups, text_encoder_class, version_of
from .left_to_right import LeftToRightEncoder, additive, before_targets, last_tokens, within_targets
from .module_weights import check_tables, check_whole, evaluating
from .request_fit import check_fitted, fit_features
from .request_scores import RequestScores
from .retrieval import Generator, item_scores, search
from .saved_weights import ChecksWeights

__all__ = ["MenderForGenerativeRetrieval"]


class MenderForGenerativeRetrieval(ChecksWeights, PreTrainedModel, CatalogueGenerationMixin):
    """Encoder, optional projection, T5 decoder and an untied head over the semantic-ID vocabulary.

    Token 0 is padding and the start token, followed by the codes of each level in turn. There is no end token.

    Args:
        config: the configuration.
        encoder: a loaded encoder; by default one is created from `config.encoder`.
    """

    config_class = MenderConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["T5Block"]

    def __init__(self, config: MenderConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if encoder is None:
            encoder = _new_encoder(config.encoder)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # not used here, and distributed training fails on parameters without gradients
        self.encoder = encoder
        width = config.encoder.hidden_size
        same = width == config.decoder.d_model
        self.encoder_proj = nn.Identity() if same else nn.Linear(width, config.decoder.d_model, bias=False)
        self.decoder = T5Stack(config.decoder)
        absorb_cross_attention(self.decoder)
        self.lm_head = nn.Linear(config.decoder.d_model, config.decoder.vocab_size, bias=False)
        self.kind_states = nn.Embedding(len(KINDS), config.decoder.d_model) if config.kinds else None
        # Cross-attention does not know positions: the state of the latest token gets a projection of its own.
        wide = config.decoder.d_model
        self.latest_proj = nn.Linear(wide, wide, bias=False) if config.left_to_right else None
        self.experts = None if config.experts is None else ExpertSum(config.experts)
        self._check_experts()
        table = torch.full((config.num_items, config.num_levels), REMOVED, dtype=torch.int32)
        self.register_buffer("item_codes", table, persistent=True)
        self._catalogue: tuple[Any, SemanticIdCatalogue] | None = None
        self._folded: tuple[Tensor | None, FoldedDecoder | CalledDecoder] | None = None
        self.post_init()
        # T5Stack keeps modules that match "wo" in float32, which would include BERT's "word_embeddings".
        self._keep_in_fp32_modules = {"DenseReluDense.wo"}
        self.generation_config = GenerationConfig(
            max_new_tokens=config.num_levels,
            pad_token_id=0,
            eos_token_id=None,
            decoder_start_token_id=0,
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            # The scales of T5: embeddings and initial logits of unit variance.
            init.normal_(self.decoder.embed_tokens.weight, std=1.0)
            init.normal_(self.lm_head.weight, std=self.config.decoder.d_model**-0.5)
            if isinstance(self.encoder_proj, nn.Linear):
                init.normal_(self.encoder_proj.weight, std=self.config.encoder.hidden_size**-0.5)
            if self.kind_states is not None:
                init.normal_(self.kind_states.weight, std=self.config.decoder.d_model**-0.5)
            if self.latest_proj is not None:
                init.normal_(self.latest_proj.weight, std=self.config.decoder.d_model**-0.5)

    @classmethod
    def from_encoder(
        cls,
        encoder: PreTrainedModel,
        catalogue: SemanticIdCatalogue,
        *,
        decoder: dict[str, Any] | None = None,
        kinds: bool = False,
    ) -> MenderForGenerativeRetrieval:
        """A model with a given encoder and a new decoder.

        Args:
            encoder: a text encoder or an `ItemStatesEncoder`; its weights are kept.
            catalogue: the items to retrieve.
            decoder: fields of the configuration in which the decoder differs from the paper's.
            kinds: whether the decoder reads the kind of a request.

        Raises:
            ValueError: if transformers does not have the encoder; the model could be trained, but not loaded.
        """
        config = cls.config_class(
            encoder=encoder.config,
            decoder=decoder,
            codebook_sizes=catalogue.codebook_sizes,
            num_items=catalogue.num_items,
            kinds=kinds,
        )
        model = cls(config, encoder=encoder)
        model.set_catalogue(catalogue)
        return model

    # Experts beside the generator

    @property
    def reads_kind(self) -> bool:
        """Whether results depend on the kind of a request."""
        return self.kind_states is not None or self.experts is not None

    @property
    def shares_vectors(self) -> bool:
        """Whether experts can use the encoder's inputs and vectors, because it has one vector for each item."""
        encoder = self.config.encoder
        return encoder.model_type == ItemStatesConfig.model_type and encoder.pooled

    @property
    def _experts_read_inputs(self) -> bool:
        """Whether the experts can read `input_ids`."""
        return self.experts is not None and self.shares_vectors

    def set_experts(self, config: ExpertSumConfig | None, encoder: ItemStatesEncoder | None = None) -> None:
        """Add experts, whose scores `recommend()` adds to those of the generator, or remove them with `None`.

        Args:
            config: the experts and their weights, with `generator=True`.
            encoder: item vectors for experts that read text, if the encoder of this model has none.

        Raises:
            ValueError: if an expert reads text and there are no item vectors.
        """
        if config is not None and encoder is None and self.shares_vectors:
            config.width = self.config.encoder.hidden_size
        self.config.experts = config
        self.experts = None if config is None else ExpertSum(config, encoder).to(self.device)
        self._check_experts()

    def _check_experts(self) -> None:
        if self.experts is None or self.experts.vectors is not None or self.shares_vectors:
            return
        reading = [name for name in self.experts.config.experts if name in LANGUAGE]
        if reading:
            raise ValueError(
                f"expert {reading[0]!r} reads text, and this model's encoder has no vectors of items; pass an encoder "
                "with pooled=True for the experts"
            )

    # The item table

    @property
    def catalogue(self) -> SemanticIdCatalogue:
        """The items that this model retrieves; built from the item table on first use."""
        key = self._item_table_key()
        if self._catalogue is None or self._catalogue[0] != key:
            self._catalogue = (key, SemanticIdCatalogue(self.item_codes, self.config.codebook_sizes))
        return self._catalogue[1]

    def check_values(self) -> None:
        """Check the item table that was loaded; one without a single item has not been set yet.

        Raises:
            ValueError: if a code is outside its codebook, or two items have the same semantic ID.
        """
        if self.item_codes.device.type != "meta" and bool((self.item_codes != REMOVED).any()):
            _ = self.catalogue

    def _item_table_key(self) -> tuple[Any, ...]:
        """Identifies an item table; its address is not reused while a catalogue refers to it."""
        table = self.item_codes
        return table.data_ptr(), version_of(table), table.shape, table.device

    def set_catalogue(self, catalogue: SemanticIdCatalogue) -> None:
        """Replace the item table, for instance by `model.catalogue.add(...)` or `.remove(...)`.

        Raises:
            ValueError: if the codebook sizes of the catalogue differ from those of the decoder.
        """
        sizes = list(catalogue.codebook_sizes)
        if sizes != list(self.config.codebook_sizes):
            raise ValueError(
                f"the catalogue has codebook_sizes={sizes}, the decoder {list(self.config.codebook_sizes)}; "
                "encode the items with the quantizer the model was trained with"
            )
        with torch.inference_mode(False):
            self.item_codes = catalogue.codes.to(self.item_codes.device, torch.int32).clone()
        self._catalogue = (self._item_table_key(), catalogue.around(self.item_codes))
        self.config.num_items = catalogue.num_items

    def live_items(self) -> Tensor | None:
        """Indices of the items that were not removed, ascending, int64; `None` if none was."""
        return self.catalogue.live_items()

    def item_tokens(self, item_indices: Tensor) -> Tensor:
        """Decoder tokens of items, as `labels` expects them.

        Args:
            item_indices: Shape: (...).

        Returns:
            Shape: (..., L), int64.

        Raises:
            IndexError: if an item is not in the catalogue.
        """
        item_indices = torch.as_tensor(item_indices, device=self.item_codes.device)
        return tokens_of_items(item_indices, self.item_codes, self.config.codebook_sizes)

    def item_indices(self, tokens: Tensor) -> Tensor:
        """Item indices of decoder tokens, the inverse of `item_tokens`; -1 for tokens that no item has.

        Args:
            tokens: Shape: (..., L).

        Returns:
            Shape: (...), int64.
        """
        codes = tokens.to(self.item_codes.device) - token_offsets(self.config.codebook_sizes, self.item_codes.device)
        return self.catalogue.item_indices(codes.reshape(-1, self.config.num_levels)).view(tokens.shape[:-1])

    # Methods that transformers calls

    def get_input_embeddings(self) -> nn.Module:
        """Word embeddings of the encoder."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings of the encoder."""
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The head over the semantic-ID vocabulary."""
        return self.lm_head

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize the word embeddings of the encoder; the head has codes of items, and keeps its size.

        Args:
            new_num_tokens: tokens of the encoder's vocabulary.
            *args: passed on to the encoder's method.
            **kwargs: passed on to the encoder's method.

        Raises:
            ValueError: if the model reads items as token ids, and new tokens would have the same ids.
        """
        readers = (self.config.encoder, self.config.experts)
        vocabularies = [getattr(config, "text_vocabulary", None) for config in readers]
        vocabulary = next((size for size in vocabularies if size is not None), None)
        if vocabulary is not None and new_num_tokens not in (None, vocabulary):
            raise ValueError(
                f"new_num_tokens={new_num_tokens}: token ids from {vocabulary} on are items for this model; add tokens "
                "to the tokenizer and the encoder before you build the model with them"
            )
        encoder = getattr(self.encoder, "text_encoder", self.encoder)
        resized = encoder.resize_token_embeddings(new_num_tokens, *args, **kwargs)
        self.encoder.config.vocab_size = encoder.config.vocab_size
        for config in (self.config.encoder, getattr(self.config.encoder, "text_encoder", None)):
            if hasattr(config, "vocab_size"):
                config.vocab_size = encoder.config.vocab_size
        return resized

    def train(self, mode: bool = True) -> MenderForGenerativeRetrieval:
        """Set training mode; a frozen encoder stays in evaluation mode, so that its states do not change."""
        super().train(mode)
        if mode and not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        encoder_outputs: BaseModelOutput | Sequence[Tensor] | None = None,
        text_states: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        target_positions: Tensor | None = None,
        kind: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple[Tensor, ...]:
        """Logits of the next code, and the cross-entropy of `labels`.

        Args:
            input_ids: text tokens. Shape: (B, T).
            attention_mask: 1 for tokens, 0 for padding. Shape: (B, T).
            encoder_outputs: states of the encoder, instead of `input_ids`. First entry of shape (B, T, encoder width).
            text_states: cached states of the text encoder of an `ItemStatesEncoder`, in addition to `input_ids`.
            decoder_input_ids: tokens generated so far, including the start token. Shape: (B, steps).
            labels: tokens of the targets (`item_tokens`); -100 is ignored. Shape: (B, L), or (B, S, L) with
                `target_positions`.
            target_positions: number of input tokens that come before each of the S targets of a user, for an encoder
                that reads from left to right: a target attends to these alone, as if they were the whole input. Inputs
                are padded on the right. Shape: (B, S).
            kind: index in `KINDS` of each request, for models that read it. Default: silent for an `ItemStatesEncoder`
                without text, otherwise stated. Shape: (B,).
            past_key_values: cache of earlier steps.
            use_cache: whether to return the cache.
            num_items_in_batch: number of labels in the whole batch, with gradient accumulation.
            return_dict: whether to return a tuple (`False`) or a `Seq2SeqLMOutput`.
            **kwargs: passed on to the decoder.

        Returns:
            Logits of shape (B, L, V), or (B, S, L, V) with `target_positions`.

        Raises:
            ValueError: if neither labels nor decoder inputs are given, or `target_positions` although the encoder reads
                in both directions.
        """
        if target_positions is not None and not self.config.left_to_right:
            raise ValueError(
                "target_positions needs an encoder that reads from left to right: this one's states of a history also "
                "know what comes after; pass one target for each row"
            )
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError(
                    "pass labels (for training) or decoder_input_ids (for decoding); to retrieve items, use recommend()"
                )
            decoder_input_ids = self._shift_right(labels)
        if encoder_outputs is None:
            encoder_outputs = self._encoder_states(input_ids, attention_mask, text_states)
        states = encoder_outputs[0]
        kind = self._kind(kind, input_ids, states)
        memory, memory_mask = self._memory(states, attention_mask, kind, target_positions)
        own_mask = None
        if target_positions is not None:  # the decoder gets all targets of a user as one row
            targets, levels = decoder_input_ids.shape[1:]
            own_mask = additive(within_targets(targets, levels, memory.device), memory.dtype)
            memory_mask = additive(memory_mask.repeat_interleave(levels, dim=1), memory.dtype)
        decoded = self.decoder(
            input_ids=decoder_input_ids.flatten(1),
            attention_mask=own_mask,
            encoder_hidden_states=memory,
            encoder_attention_mask=memory_mask,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
            **{name: value for name, value in kwargs.items() if name in ("output_attentions", "output_hidden_states")},
        )
        logits = self.lm_head(decoded.last_hidden_state).unflatten(1, decoder_input_ids.shape[1:])
        loss = None if labels is None else _cross_entropy(logits, labels, num_items_in_batch)
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.get("hidden_states"),
            decoder_attentions=decoded.get("attentions"),
            cross_attentions=decoded.get("cross_attentions"),
            encoder_last_hidden_state=states,
        )
        return output.to_tuple() if return_dict is False else output

    # Retrieval

    @torch.no_grad()
    def recommend(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        encoder_outputs: BaseModelOutput | Sequence[Tensor] | None = None,
        top_k: int = 10,
        num_beams: int | str | None = None,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
        kind: Tensor | None = None,
        condition_weights: Tensor | None = None,
        expert_input_ids: Tensor | None = None,
        avoid_input_ids: Tensor | None = None,
        prior: Tensor | Sequence[float] | Mapping[int, float] | None = None,
        weights: Mapping[str, float] | None = None,
        why: bool = False,
        fit: bool = False,
        **ignored: Any,
    ) -> Recommendations:
        """The `top_k` best items of every user.

        Scores are log-probabilities of semantic IDs; with experts, the weighted sum of log-probability and expert
        scores. The result is deterministic; sampling and penalties in the generation config are ignored.

        Args:
            input_ids: text tokens, possibly of several conditions whose scores are added with `condition_weights`.
                Shape: (B, T) or (B, C, T).
            attention_mask: 1 for tokens, 0 for padding. Shape: that of `input_ids`.
            encoder_outputs: states of the encoder, instead of `input_ids`.
            top_k: items to return; fewer are returned if the catalogue has fewer.
            num_beams: prefixes kept per level; `None` keeps max(30, 2 * top_k), "exact" scores every item.
            allowed: items that may be returned (indices or a boolean mask; shared or per user).
            exclude: items that may not be returned, in the same forms.
            kind: index in `KINDS` of each request, see `forward`; weights of experts are those of the first condition.
                Shape: (B,) or (B, C).
            condition_weights: weights of each user's conditions, usually with a sum of 1. Default: equal weights.
                Shape: (B, C).
            expert_input_ids: inputs of the experts, if they differ from `input_ids`. Shape: that of `input_ids`.
            avoid_input_ids: text tokens of the phrases to avoid, see `ExpertSum.penalty`. Shape: (B, A, T').
            prior: business priors to add to the scores, see `prior_scores`.
            weights: factors for fitted weights, by expert ("generator" included) or group ("language", "behaviour").
            why: whether to add what the generator, each expert, `avoid_input_ids` and `prior` contributed to each
                score, see `Recommendations`; the returned items are scored once more for it.
            fit: whether to add the probability that anything in the catalogue fits each request, see `Recommendations`.
            **ignored: other outputs of a tokenizer, such as `token_type_ids`.

        Returns:
            Item indices and scores of shape (B, top_k), best first.

        Raises:
            ValueError: for top_k < 1, num_beams < top_k, a filter that has the wrong shape or leaves a user without
                items, invalid weights, kinds or priors, missing inputs of experts, or if a fit is asked of a model
                without one.
            IndexError: if a filter or prior contains an item that is not in the catalogue.
        """
        if set(ignored) - {"token_type_ids", "labels", "position_ids"}:
            raise TypeError(f"recommend() got unexpected arguments {sorted(ignored)}")
        if fit:
            check_fitted(None if self.experts is None else self.experts.config)
            if not scores_every_item(self.config.num_items):
                raise ValueError(f"`fit` scores every item, and {self.config.num_items:,} are too many; leave it out")
        check_tables(self)
        for module in (self.get_input_embeddings(), self.lm_head):  # a shard cannot hold the first and the last of all
            if isinstance(module.weight, Tensor):
                check_whole(module.weight)
        encoder_outputs, attention_mask, request = self._read(
            input_ids,
            attention_mask,
            encoder_outputs,
            kind=kind,
            expert_input_ids=expert_input_ids,
            condition_weights=condition_weights,
            avoid_input_ids=avoid_input_ids,
            prior=prior,
            weights=weights,
        )
        states = encoder_outputs[0]
        # Autocast is for the encoder only; the search chooses its own precision.
        with torch.autocast(states.device.type, enabled=False):
            mix, evidence = request.mix_and_evidence()
            memory, memory_mask = self._memory(states, attention_mask, request.kind)
            counts = mix is None or bool(mix.any())
            decoder = self._search_decoder(memory) if counts else None
            found = search(
                decoder,
                self.catalogue,
                memory,
                memory_mask,
                top_k=top_k,
                num_beams=num_beams,
                allowed=allowed,
                exclude=exclude,
                mix=mix,
                evidence=evidence,
            )
            if fit:
                found = replace(found, fit=request.fit())
            if not why:
                return found
            items = found.item_indices.clamp(min=0)
            parts = {GENERATOR: torch.zeros_like(found.scores)}
            if decoder is not None:
                generator = Generator(decoder, memory, memory_mask, mix)
                parts = {GENERATOR: item_scores(generator, self.catalogue, items)}
            parts |= request.contributions(items)
            return replace(found, contributions=relative_to_mean(parts, found.item_indices))

    def _read(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        encoder_outputs: BaseModelOutput | Sequence[Tensor] | None,
        *,
        kind: Tensor | None,
        expert_input_ids: Tensor | None,
        **terms: Any,
    ) -> tuple[BaseModelOutput | Sequence[Tensor], Tensor | None, RequestScores]:
        """Encoder outputs and mask of all conditions (B * C, ...), and the request, from arguments of `recommend()`."""
        conditions = 1 if input_ids is None or input_ids.dim() == 2 else input_ids.shape[1]
        flat = (None if part is None else part.view(-1, part.shape[-1]) for part in (input_ids, attention_mask))
        input_ids, attention_mask = flat
        if encoder_outputs is None:
            with evaluating(self.encoder):
                encoder_outputs = self.states_for_retrieval(input_ids, attention_mask)
        states, encoded = encoder_outputs[0], None
        if expert_input_ids is None and self.shares_vectors and input_ids is not None:
            expert_input_ids, encoded = input_ids, self._encoded(encoder_outputs)
        users = len(states) // conditions
        request = RequestScores(
            experts=self.experts,
            num_items=self.config.num_items,
            users=users,
            conditions=conditions,
            device=states.device,
            kind=self._kind(kind, input_ids, states, conditions),
            input_ids=expert_input_ids,
            encoder=self._vectors(),
            encoded=encoded,
            live=self.live_items(),
            guide=partial(path_guide, self.catalogue, users),
            **terms,
        )
        return encoder_outputs, attention_mask, request

    def _encoded(self, encoder_outputs: BaseModelOutput | Sequence[Tensor] | None) -> Encoded | None:
        """The texts as experts read them, from the states that the decoder reads: the same input is encoded only once.

        The first state of a text is its vector. States that somebody passes may lack those of the tokens.
        """
        if encoder_outputs is None or len(encoder_outputs) < 2:
            return None
        return Encoded(encoder_outputs[0][:, 0], encoder_outputs[1])

    @torch.no_grad()
    def log_probabilities(
        self,
        item_indices: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        kind: Tensor | None = None,
        encoder_outputs: BaseModelOutput | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Log-probabilities of the semantic IDs of items, by the generator alone.

        Args:
            item_indices: of each user. Shape: (B, M).
            input_ids: Shape: (B, T).
            attention_mask: 1 for tokens, 0 for padding. Shape: (B, T).
            kind: index in `KINDS` of each request, see `forward`. Shape: (B,).
            encoder_outputs: of `input_ids`, if they have been encoded.

        Returns:
            -inf for items that were removed. Shape: (B, M), float32.
        """
        states = (encoder_outputs or self.states_for_retrieval(input_ids, attention_mask))[0]
        memory, memory_mask = self._memory(states, attention_mask, self._kind(kind, input_ids, states))
        generator = Generator(self._search_decoder(memory), memory, memory_mask, None)
        return item_scores(generator, self.catalogue, item_indices.to(states.device))

    def expert_scores(
        self,
        input_ids: Tensor,
        expert_input_ids: Tensor | None = None,
        encoder_outputs: BaseModelOutput | Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Scores of all items by each expert, without the generator.

        Args:
            input_ids: Shape: (B, T).
            expert_input_ids: inputs of the experts, if they differ from `input_ids`. Shape: (B, T').
            encoder_outputs: of `input_ids`, if they have been encoded.

        Returns:
            Scores by name of the expert. Shape of each: (B, N).
        """
        read = input_ids if expert_input_ids is None else expert_input_ids
        encoded = self._encoded(encoder_outputs) if expert_input_ids is None and self.shares_vectors else None
        return self.experts(read, self.config.num_items, encoder=self._vectors(), encoded=encoded)

    def penalty(self, avoid_input_ids: Tensor) -> Tensor:
        """Penalties of all items for phrases to avoid, see `ExpertSum.penalty`. Shape: (B, N)."""
        shared = {"encoder": self._vectors(), "live": self.live_items()}
        return self.experts.penalty(avoid_input_ids, self.config.num_items, **shared)

    def fit_features(self, input_ids: Tensor, expert_input_ids: Tensor | None = None) -> Tensor:
        """Features of requests, see `request_fit.fit_features`. Shape: (B, F)."""
        read = input_ids if expert_input_ids is None else expert_input_ids
        shared = {"encoder": self._vectors(), "live": self.live_items()}
        return fit_features(self.experts, read, self.config.num_items, **shared)

    def _vectors(self) -> ItemStatesEncoder | None:
        """This model's encoder, if the experts use its item vectors."""
        shared = self.experts is not None and self.experts.vectors is None and self.shares_vectors
        return self.encoder if shared else None

    def _kind(
        self, kind: Tensor | None, input_ids: Tensor | None, states: Tensor, conditions: int = 1
    ) -> Tensor | None:
        """The kind of every row of `states`; `None` if the model does not read it. Shape: (B * C,)."""
        if not self.reads_kind:
            return None
        if kind is None:
            config = self.config.encoder
            if input_ids is not None and config.model_type == ItemStatesConfig.model_type:
                is_text = (input_ids < config.text_vocabulary) & (input_ids != config.text_encoder.pad_token_id)
                return default_kind(torch.where(is_text, input_ids, -1))
            return torch.full((len(states),), KINDS.index("stated"), device=states.device)
        kind = torch.as_tensor(kind, device=states.device)
        if kind.numel() and not 0 <= int(kind.min()) <= int(kind.max()) < len(KINDS):
            raise ValueError(f"kind={kind.flatten().tolist()}; pass indices of {', '.join(KINDS)}")
        return kind.reshape(-1) if kind.dim() == 2 else kind.repeat_interleave(conditions)

    def _memory(
        self,
        states: Tensor,
        attention_mask: Tensor | None,
        kind: Tensor | None,
        target_positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The states that the decoder attends to, and their mask.

        The encoder's, after one for the kind of request and, if the encoder reads from left to right, one for the
        latest token (of each target). With `target_positions` the mask has shape (B, S, states), and is of type bool.
        """
        memory, mask = self.encoder_proj(states.to(self.decoder.final_layer_norm.weight.dtype)), attention_mask
        if self.latest_proj is not None:
            if target_positions is None:
                last = last_tokens(mask, memory)[:, None]
                mask = None if mask is None else functional.pad(mask, (1, 0), value=1)
            else:
                last = (target_positions - 1).clamp(min=0)
                own = torch.eye(last.shape[1], dtype=torch.bool, device=last.device).expand(len(last), -1, -1)
                mask = torch.cat([own, before_targets(target_positions, memory.shape[1])], dim=2)
            latest = memory.gather(1, last[..., None].expand(-1, -1, memory.shape[2]))
            memory = torch.cat([self.latest_proj(latest), memory], dim=1)
        if self.kind_states is not None:
            memory = torch.cat([self.kind_states(kind)[:, None].to(memory.dtype), memory], dim=1)
            mask = None if mask is None else functional.pad(mask, (1, 0), value=1)
        return memory, mask

    def _search_decoder(self, memory: Tensor) -> FoldedDecoder | CalledDecoder:
        """The decoder in the form that the search uses; a folded one is kept until a weight has another value."""
        known = search_decoder(self.decoder, self.lm_head, memory.device, self._folded)
        self._folded = None if known[0] is None else known
        return known[1]

    def states_for_retrieval(
        self, input_ids: Tensor | None, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Encoder outputs of inputs, for several calls of `recommend`, `log_probabilities` or `expert_scores`.

        Args:
            input_ids: Shape: (B, T).
            attention_mask: 1 for tokens, 0 for padding. Shape: (B, T).

        Returns:
            States of shape (B, T, encoder width), and those of the texts' tokens if the encoder has them.
        """
        if input_ids is None:
            return self._encoder_states(None, attention_mask)
        if self.encoder.config.model_type == ItemStatesConfig.model_type:  # it encodes in groups by itself
            return self._encoder_states(input_ids, attention_mask)
        return encode_in_groups(lambda *group: self._encoder_states(*group)[0], input_ids, attention_mask), None

    def _encoder_states(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, text_states: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """States of the encoder, and those of the texts' tokens if it is an `ItemStatesEncoder`."""
        if input_ids is None:
            raise ValueError("pass input_ids (from the processor) or encoder_outputs")
        cached = {} if text_states is None else {"text_states": text_states}
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **cached)
        return output.last_hidden_state, output.get("text_states")

    def _shift_right(self, labels: Tensor) -> Tensor:
        shifted = functional.pad(labels[..., :-1], (1, 0), value=self.config.decoder_start_token_id)
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)


def _new_encoder(config: Any) -> PreTrainedModel:
    # Compared by name, because code loaded from a folder has its own copy of the configuration class.
    if config.model_type == ItemStatesConfig.model_type:
        return ItemStatesEncoder(config)
    if reads_left_to_right(config):
        return LeftToRightEncoder(config)
    return text_encoder_class(config).from_config(config)


def _cross_entropy(logits: Tensor, labels: Tensor, num_items_in_batch: int | Tensor | None) -> Tensor:
    """Mean cross-entropy over the labels, or over all labels of an accumulated batch."""
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = functional.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), reduction=reduction)
    return loss if num_items_in_batch is None else loss / num_items_in_batch
