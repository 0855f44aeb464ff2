"""Renders a preference and a history as input ids, and converts item indices to item ids and titles.

The processor holds item ids and titles, in one JSON file next to the tokenizer; the model holds the codes. The methods
of the paper (arXiv:2412.08604) differ in how a history is rendered: as titles, as codes, as rows of a table of
precomputed states, or as item indices. The preference comes first, then the items, oldest first.

Codes are additional tokens of the encoder, one per code (as in TIGER, arXiv:2305.05065, and LC-Rec, arXiv:2311.09049).
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import accumulate, chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.utils import cached_file

from .configuration_mender import KINDS, atomic_write, check_whole_numbers
from .items_file import read_items
from .request import Request, Texts, batch_of_requests
from .spelling import Speller, common_words, count_words, is_token, most_similar, singular
from .wording import avoid_sentence, avoided_phrase, is_negation, split_exclusions

__all__ = ["MenderProcessor", "add_code_tokens", "first_code_token", "vocabulary_of"]

ITEMS_FILE = "items.json"
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
CACHED_TITLES = 200_000
"""Titles whose tokens are cached, about 0.1 GB; the cache is cleared when it is full."""
MOST_SEARCHED = 100_000
"""Items up to which words of a request are looked for in the texts of items, see `understood`."""
HISTORIES = ("titles", "codes", "states", "vectors", "indices", "none")
PREFERENCES = ("text", "none")
WORD = re.compile(r"\w+")


def code_token(level: int, code: int) -> str:
    """The token of a code.

    >>> code_token(0, 12), code_token(3, 0)
    ('<a_12>', '<d_0>')
    """
    return f"<{chr(ord('a') + level)}_{code}>"


def add_code_tokens(tokenizer: Any, codebook_sizes: Sequence[int], encoder: PreTrainedModel | None = None) -> None:
    """Add one token per code to a tokenizer, level by level, and embeddings for them to its encoder.

    The new embeddings are random and must be trained; adapters that do not train embeddings leave them random.

    Args:
        tokenizer: modified in place.
        codebook_sizes: codes per level.
        encoder: resized to the tokenizer. New embeddings are initialised as the encoder's class does it; unused rows of
            its embedding table are used first, as they are.

    Raises:
        ValueError: if the tokenizer already has some of these tokens.
    """
    names = [code_token(level, code) for level, size in enumerate(codebook_sizes) for code in range(size)]
    # As special tokens they are not recognised in texts: "<a_1>" in a preference does not become a code.
    added = tokenizer.add_tokens(names, special_tokens=True)
    if added != len(names):
        raise ValueError(f"the tokenizer already has {len(names) - added} of the {len(names)} code tokens")
    if encoder is not None:
        # With mean_resizing, transformers would draw the new rows around the mean of the old ones with at most 3e-5 of
        # their spread. All codes would start with almost the same vector, which costs many epochs of training.
        encoder.resize_token_embeddings(vocabulary_of(tokenizer), mean_resizing=False)


def vocabulary_of(tokenizer: Any) -> int:
    """One more than the highest token id; the ids of some tokenizers have gaps, so they may have fewer tokens."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def first_code_token(tokenizer: Any, codebook_sizes: Sequence[int]) -> int:
    """Token id of code 0 of the first level; the ids of all other codes follow it.

    Raises:
        ValueError: if the tokenizer does not have the code tokens.
    """
    first = tokenizer.convert_tokens_to_ids(code_token(0, 0))
    last = tokenizer.convert_tokens_to_ids(code_token(len(codebook_sizes) - 1, codebook_sizes[-1] - 1))
    if first is None or last is None or last - first != sum(codebook_sizes) - 1:
        raise ValueError(
            f"the tokenizer has no tokens for codebook_sizes={list(codebook_sizes)}; call add_code_tokens first"
        )
    return first


class MenderProcessor(ProcessorMixin):
    """Converts preferences and histories to model inputs, and item indices to item ids and titles.

    Args:
        tokenizer: tokenizer of the model's encoder.
        items: ids and titles, `{"item_id": [...], "title": [...]}`, in the order of item indices, and optionally
            `"text"`, see `set_items`. With `history="codes"` also `"codes"`, one list of codes per item.
        max_length: maximum number of tokens of an input; with states, vectors or indices of items, of its text alone.
            The oldest items of a long history are left out, and a preference that is longer than the input is
            truncated.
        history: how to render items of the history. "titles": their text; "codes": their semantic IDs, as tokens that
            `add_code_tokens` added to the tokenizer; "states" and "vectors": rows of the table of an
            `ItemStatesEncoder`, several or one per item; "indices": item indices, for models without a text encoder;
            "none": the history is ignored.
        preference: "text", or "none" for methods that ignore it.
        max_history: maximum number of items to render, counted from the latest.
        title_length: maximum number of tokens of a title, for "states" and "vectors".
        codebook_sizes: codes per level, for "codes".
        kinds: whether the model reads the kind of every request.
        experts: whether the model has experts; phrases to avoid are then not part of the preference's text.
        correct_spelling: whether misspelt words of requests are replaced by words of titles and texts, see `corrected`.

    Raises:
        ValueError: if the numbers of ids and titles differ, an id occurs twice, a mode is unknown, or codes are
            missing.

    Call it with `preference=` (a text, or a list of texts to join) and `history=` (item ids, oldest first), or with
    lists of these for a batch.
    """

    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        items: Mapping[str, Sequence[str]] | None = None,
        max_length: int = 256,
        history: str = "titles",
        preference: str = "text",
        max_history: int = 20,
        title_length: int = 32,
        codebook_sizes: Sequence[int] | None = None,
        kinds: bool = False,
        experts: bool = False,
        correct_spelling: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer)
        if history not in HISTORIES or preference not in PREFERENCES:
            raise ValueError(
                f"history={history!r}, preference={preference!r}; pass one of {HISTORIES} and one of {PREFERENCES}"
            )
        if history == "codes" and not codebook_sizes:
            raise ValueError('history="codes" needs the codebook_sizes of the catalogue')
        self.max_length = max_length
        self.history, self.preference = history, preference
        self.max_history, self.title_length = max_history, title_length
        self.kinds, self.experts = kinds, experts
        self.correct_spelling = correct_spelling
        self.codebook_sizes = None if codebook_sizes is None else [int(size) for size in codebook_sizes]
        self._vocabulary: tuple[int, int] | None = None
        self.item_ids: list[str] = []
        self.titles: list[str] = []
        self._state_counts: list[int] | None = None
        self._words: Counter[str] = Counter()
        self._speller: Speller | None = None
        self.texts: list[str] | None = None
        self.aspects: list[list[str]] | None = None
        self.set_items(items or {"item_id": [], "title": []})

    # Items

    def set_items(self, items: Mapping[str, Sequence[Any]], *, new_states: bool = False) -> None:
        """Replace the items.

        Args:
            items: `{"item_id": [...], "title": [...]}`, in the order of item indices; optionally `"text"` and
                `"aspects"` (lists of phrases), which `items_naming` searches and whose words misspelt words are
                corrected to, besides words of titles; optionally `"codes"`; with `history="states"` optionally
                `"states"`, the number of rows of each item in the encoder's table (default: unchanged for known titles,
                the number of tokens for new titles).
            new_states: with `history="states"`, whether you will give the encoder a new table for these titles.

        Raises:
            ValueError: if numbers of ids, titles, texts or aspects differ, an id occurs twice, codes are missing, or
                the number of states of an item would change.
        """
        ids, titles = list(items["item_id"]), list(items["title"])
        if len(ids) != len(titles):
            raise ValueError(f"{len(ids)} item ids but {len(titles)} titles; every item needs both")
        described = {name: list(items[name]) if items.get(name) else None for name in ("text", "aspects")}
        for name, values in described.items():
            if values is not None and len(values) != len(ids):
                raise ValueError(f'{len(ids)} items but {len(values)} entries of "{name}"; pass one per item, or none')
        index_of = {item_id: index for index, item_id in enumerate(ids)}
        if len(index_of) != len(ids):
            repeated = next(item_id for index, item_id in enumerate(ids) if index_of[item_id] != index)
            raise ValueError(f"item id {repeated!r} occurs more than once; ids must be unique")
        codes = [list(map(int, code)) for code in items.get("codes") or []]
        if self.history == "codes" and len(codes) != len(ids):
            raise ValueError(f'history="codes" needs the codes of all {len(ids)} items, got {len(codes)}')
        if self.history == "states":
            known = self.state_counts if self.item_ids and not new_states else []
            self._state_counts = self._new_state_counts(known, ids, titles, items.get("states"))
        # Words of earlier items stay known, as a request may name what was sold out.
        changes = _changed(self.titles, titles), _changed(self.texts or (), described["text"] or ())
        gone, came = (count_words(chain(*texts)) for texts in zip(*changes, strict=True))
        self._words = self._words + Counter(items.get("words") or {}) + gone
        speller = None if items.get("words") else self._speller
        self._speller = None if speller is None else speller.extended(came)
        self.item_ids, self.titles, self.codes, self._index_of = ids, titles, codes, index_of
        self.texts, self.aspects = described["text"], described["aspects"]
        self._mentions: list[str] | None = None
        self._item_pieces: list[list[int]] | None = None
        self._title_tokens: dict[str, list[int]] = {}

    @property
    def state_counts(self) -> list[int]:
        """Number of rows of each item in the table of an `ItemStatesEncoder`."""
        if self.history == "vectors":
            return [1] * len(self.item_ids)
        if self._state_counts is None:
            self._state_counts = self._count_states(self.item_ids, self.titles)
        return list(self._state_counts)

    def _new_state_counts(
        self, known: Sequence[int], ids: Sequence[str], titles: Sequence[str], given: Sequence[int] | None
    ) -> list[int] | None:
        """States per item, given or counted from titles; `None` (count them when needed) if none are known."""
        if given is not None and len(given) != len(ids):
            raise ValueError(
                f'"states" has {len(given)} entries for {len(ids)} items; pass one per item, or leave it out'
            )
        if given is None and not known:
            return None
        if given is None:
            old = zip(self.item_ids, self.titles, strict=True)
            same = [now == before for now, before in zip_longest(zip(ids, titles, strict=True), old)][: len(ids)]
            changed = [index for index, kept in enumerate(same) if not kept]
            counts = iter(self._count_states([ids[index] for index in changed], [titles[index] for index in changed]))
            given = [known[index] if kept else next(counts) for index, kept in enumerate(same)]
        for index, (before, now) in enumerate(zip(known, given, strict=False)):
            if before != now:
                raise ValueError(
                    f"item {ids[index]!r} (index {index}) has {before} states in the encoder's table but would have "
                    f"{now} with the title {titles[index]!r}, which shifts the states of all items after it; pass "
                    "new_states=True and make a new table (encode_titles, model.encoder.set_item_states), or keep the "
                    'states of the old title by passing "states": processor.state_counts'
                )
        return [int(count) for count in given]

    def _count_states(self, ids: Sequence[str], titles: Sequence[str]) -> list[int]:
        special = sum(map(len, self.margins)) if ids else 0
        return [len(tokens) - special for tokens in self._tokens_of_titles(ids, titles)]

    def __contains__(self, item_id: object) -> bool:
        """Whether there is an item with this id."""
        return item_id in self._index_of

    def item_indices(self, item_ids: Sequence[str], *, unknown_items: str = "error") -> list[int]:
        """Item indices of ids.

        Args:
            item_ids: ids, in any order.
            unknown_items: "error", or "skip" to ignore ids that are not in the catalogue.

        Raises:
            ValueError: if an id is unknown.
        """
        if unknown_items == "skip":
            return [self._index_of[item_id] for item_id in item_ids if item_id in self._index_of]
        if unknown_items != "error":
            raise ValueError(f'unknown_items={unknown_items!r}; pass "error" or "skip"')
        try:
            return [self._index_of[item_id] for item_id in item_ids]
        except KeyError as missing:
            similar = most_similar(str(missing.args[0]), self.item_ids)
            nearest = f"the nearest known ids are {', '.join(map(repr, similar))}; " if similar else ""
            raise ValueError(
                f"item {missing.args[0]!r} is not among the {len(self.item_ids)} items; {nearest}"
                'pass ids of the catalogue, or unknown_items="skip" to leave others out'
            ) from None

    def ids(self, item_indices: Tensor | Sequence[int]) -> list[str]:
        """Ids of items, in order, without padding (-1)."""
        return [self.item_ids[index] for index in self._known(item_indices)]

    def decode_items(self, item_indices: Tensor | Sequence[int]) -> list[dict[str, str]]:
        """Ids and titles of items, in order, without padding (-1)."""
        return [{"item_id": self.item_ids[index], "title": self.titles[index]} for index in self._known(item_indices)]

    def _known(self, item_indices: Tensor | Sequence[int]) -> list[int]:
        """Item indices without padding.

        Raises:
            IndexError: if an index has no item.
        """
        indices = [index for index in _as_list(item_indices) if index >= 0]
        if indices and max(indices) >= len(self.item_ids):
            raise IndexError(
                f"item index {max(indices)} is out of range: this processor has {len(self.item_ids)} items; "
                "after model.set_catalogue(catalogue.add(...)), call set_items with all items"
            )
        return indices

    # Inputs

    def __call__(
        self,
        preference: Texts | Sequence[Texts | None] | None = None,
        history: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        inferred: Texts | Sequence[Texts | None] | None = None,
        avoid: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        dial: float | None = None,
        unknown_items: str = "error",
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Model inputs for one user or a batch of users.

        Args:
            preference: a text for one user, several texts that are read together, or texts with weights; for a batch,
                one of these per user. If empty or `None`, only the history is used.
            history: item ids of one user, oldest first; for a batch, one list per user. If empty or `None`, only the
                preference is used. With the history of one user (which may be empty), a list of texts belongs to this
                user; without a history, every text is a user of a batch.
            inferred: a preference that the user did not type, in the same forms. A user has either this or
                `preference`.
            avoid: what users do not want, in the same forms as the preference, without weights. Models with experts
                read each phrase by itself, others read it after the preference, see `avoid_sentence`.
            dial: see `Request`, also for the other arguments.
            unknown_items: "error", or "skip" to ignore history items that are not in the catalogue.
            return_tensors: "pt", "np", or `None` for lists without padding.

        Returns:
            Arguments of `recommend()`: `input_ids` and `attention_mask` of shape (B, T), or of shape (B, C, T) together
            with `condition_weights` (B, C) if a dial or weights lead to several conditions; `kind` (B,) or (B, C)
            for models that read it; for experts `avoid_input_ids` (B, A, T'), and `expert_input_ids` if their inputs
            differ from `input_ids`.

        Raises:
            ValueError: if a user has neither a preference nor a history, an item of a history is unknown, a text cannot
                be encoded, a user wants and wants to avoid the same, or see `Request`.
        """
        requests = batch_of_requests(preference, history, inferred=inferred, avoid=avoid, dial=dial)
        if not requests:
            raise ValueError("the batch is empty; pass at least one request")
        rendered = [
            self.features(request, user=user, unknown_items=unknown_items) for user, request in enumerate(requests)
        ]
        if return_tensors is not None:
            return BatchFeature(self.collate(rendered), tensor_type=return_tensors)
        names = dict.fromkeys(chain.from_iterable(rendered))
        found = {name: [request.get(name) for request in rendered] for name in names}
        if not any(_is_nested(ids) for ids in found["input_ids"]):
            masks = self.memory_mask(found["input_ids"]).tolist()
            found["attention_mask"] = [mask[: len(ids)] for mask, ids in zip(masks, found["input_ids"], strict=True)]
        return BatchFeature(found)

    def features(self, request: Request, *, user: int = 0, unknown_items: str = "error") -> dict[str, Any]:
        """Features of one request without padding, for `collate`.

        Args:
            request: what is wanted, bought and to be avoided; its other fields do not matter.
            user: position in the batch, for error messages.
            unknown_items: see `__call__`.

        Returns:
            See `__call__`; with several conditions, `input_ids` is a list of lists.
        """
        request = self.understood(request)
        item_indices = self.item_indices(request.history, unknown_items=unknown_items)
        if self.experts and not request.texts and not item_indices:
            # The generator has to read something: what is to be avoided is then a preference that says so.
            request = replace(request, preference=[f"Avoid {phrase}" for phrase in self._phrases(request)], avoid=())
        texts, shares, dial = request.texts, request.shares, request.dial
        kind = KINDS.index("inferred" if request.inferred else "stated")
        # Language experts do not understand negation, so negated sentences become phrases to avoid.
        reads = self.preference == "text"
        negative = self._negative(request)
        avoided = self._phrases(request)
        same = set(map(str.casefold, avoided)) & {self.corrected(text.strip(". ")).casefold() for text in texts}
        if self.experts and same:
            raise ValueError(f"user {user} wants {min(same)!r} and wants to avoid it; leave one of the two out")
        # Other models were trained on what to avoid as sentences after the preference.
        sentences = [] if self.experts else list(map(avoid_sentence, request.avoid))
        wanted, silent = [*texts, *sentences], KINDS.index("silent")
        conditions = [(wanted, kind if wanted else silent, 1.0)]
        if reads and shares is not None:
            conditions = [([text, *sentences], kind, share) for text, share in zip(texts, shares, strict=True)]
        if reads and dial is not None and wanted and item_indices:
            conditions = [(text, own, weight * dial) for text, own, weight in conditions]
            conditions.append(([], silent, 1.0 - dial))
        inputs = [self.render(text, item_indices, user) for text, _, _ in conditions]
        several = len(conditions) > 1
        found: dict[str, Any] = {"input_ids": inputs if several else inputs[0]}
        if several:
            found["condition_weights"] = [weight for _, _, weight in conditions]
        if self.kinds or self.experts:
            found["kind"] = [own for _, own, _ in conditions] if several else conditions[0][1]
        if self.experts:
            found["avoid_input_ids"] = self.text_inputs(avoided)
            if self.history not in ("vectors", "indices") or negative:
                own = [[text for text in texts if text not in negative] for texts, _, _ in conditions]
                own = [self._render_vectors(self.corrected(_joined(text)), item_indices) for text in own]
                found["expert_input_ids"] = own if several else own[0]
        return found

    def understood(self, request: Request) -> Request:
        """The request with what its texts exclude moved to `avoid`; models without experts read texts as they are.

        "Herbal infusions without mint" asks for herbal infusions and avoids mint, unless items are described in these
        words, see `split_exclusions`.
        """
        texts = request.texts if self.experts and self.preference == "text" else []
        read = {text: split_exclusions(text, self._describes) for text in texts}
        if all(wish == text for text, (wish, _) in read.items()):
            return request
        name = "preference" if request.preference else "inferred"
        given, wishes = getattr(request, name), [wish for wish, _ in read.values()]
        if isinstance(given, Mapping):
            wishes = {wish: sum(given[text] for text in given if read[text][0] == wish) for wish in wishes}
        phrases = chain.from_iterable(phrases for _, phrases in read.values())
        avoid = [*request.avoid, *(phrase for phrase in phrases if phrase not in wishes)]
        return replace(request, **{name: wishes}, avoid=list(dict.fromkeys(avoid)))

    def _describes(self, words: str) -> bool:
        """Whether an item's title, aspects or text contain some words; not known of large catalogues."""
        return len(self.titles) <= MOST_SEARCHED and bool(self.items_naming([words]))

    def _negative(self, request: Request) -> list[str]:
        """Preferences that say what is not wanted, which experts read as phrases to avoid."""
        return [text for text in request.texts if self.preference == "text" and self.experts and is_negation(text)]

    def avoided(self, request: Request) -> list[str]:
        """The positive phrases for what a request wants to avoid, with misspelt words replaced."""
        return self._phrases(self.understood(request))

    def _phrases(self, request: Request) -> list[str]:
        """`avoided` of a request that has been understood."""
        phrases = map(avoided_phrase, (*request.avoid, *self._negative(request)))
        return [self.corrected(phrase) for phrase in phrases if phrase]

    def items_naming(self, phrases: Sequence[str]) -> list[int]:
        """Indices of the items whose title, aspects or text contain a phrase, in singular or plural.

        >>> from transformers import BertTokenizer
        >>> titles = {"item_id": ["a", "b"], "title": ["Two short stories", "A long story"]}
        >>> MenderProcessor(BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1}), titles).items_naming(["Short story"])
        [0]
        """
        if self._mentions is None:
            texts, aspects = self.texts or [""] * len(self.titles), self.aspects or [[]] * len(self.titles)
            self._mentions = [
                " | ".join(map(_plain_words, (title, *own, text)))
                for title, own, text in zip(self.titles, aspects, texts, strict=True)
            ]
        sought = [plain for plain in map(_plain_words, phrases) if plain.strip()]
        return [index for index, text in enumerate(self._mentions) if any(plain in text for plain in sought)]

    def corrected(self, text: str) -> str:
        """A text of a request as the model reads it: with misspelt words replaced, see `Speller`.

        Words that the tokenizer has as one token are not taken for misspelt, nor words of titles and texts of items.
        Other long words with a plain slip are corrected to a token, if no item has a word that is near.
        """
        if not text or not self.correct_spelling or self.preference != "text":
            return text
        if self._speller is None:
            # Words are counted when a text is read, so that processors are loaded as fast as without.
            words = count_words(chain(self.titles, self.texts or ())) + self._words
            self._speller = Speller(words, partial(is_token, self.tokenizer), partial(common_words, self.tokenizer))
        return self._speller.correct(text)

    def collate(self, requests: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pad the features of a batch of requests.

        Args:
            requests: features of each request, as a call with `return_tensors=None` returns them; only `input_ids` is
                required.

        Returns:
            See `__call__`.
        """
        conditions = [ids if _is_nested(ids) else [ids] for ids in (request["input_ids"] for request in requests)]
        count = max(map(len, conditions))

        def stacked(name: str, default: str = "") -> list[Any]:
            """One entry for each condition of each request; requests with fewer conditions repeat the first."""
            own = [request.get(name) or request[default] if default else request[name] for request in requests]
            own = [value if len(ids) > 1 else [value] for value, ids in zip(own, conditions, strict=True)]
            return [part for value in own for part in (*value, *value[:1] * (count - len(value)))]

        inputs = stacked("input_ids")
        found = {"input_ids": self.pad(inputs), "attention_mask": self.memory_mask(inputs)}
        if self.experts and any(request.get("expert_input_ids") for request in requests):
            # With `history="vectors"`, only requests with negated sentences have inputs for experts.
            found["expert_input_ids"] = self.pad(stacked("expert_input_ids", "input_ids"))
        if "kind" in requests[0] and (self.kinds or self.experts):
            found["kind"] = torch.tensor(stacked("kind"))
        if count > 1:
            found = {name: value.unflatten(0, (len(requests), count)) for name, value in found.items()}
            weights = [request.get("condition_weights", [1.0]) for request in requests]
            found["condition_weights"] = torch.tensor([[*own, *[0.0] * (count - len(own))] for own in weights])
        most = max(len(request.get("avoid_input_ids") or []) for request in requests) if self.experts else 0
        if most:
            nothing = [self.tokenizer.pad_token_id]
            phrases = [list(request["avoid_input_ids"]) for request in requests]
            flat = [ids for own in phrases for ids in (*own, *[nothing] * (most - len(own)))]
            found["avoid_input_ids"] = self.pad(flat).unflatten(0, (len(requests), most))
        return found

    def pad(self, input_ids: Sequence[Sequence[int]]) -> Tensor:
        """Inputs as one tensor, padded on the right. Shape: (B, T)."""
        width, padding = max(map(len, input_ids)), self.tokenizer.pad_token_id
        return torch.tensor([[*ids, *[padding] * (width - len(ids))] for ids in input_ids])

    def memory_mask(self, input_ids: Sequence[Sequence[int]]) -> Tensor:
        """1 for states that the decoder may attend to, 0 for others. Shape: (B, T), int64.

        Padding is masked. With `history="vectors"` a preference is one vector, at its first token; its other tokens are
        masked as well.
        """
        position = torch.arange(max(map(len, input_ids)))
        mask = position < torch.tensor([len(ids) for ids in input_ids])[:, None]
        if self.history == "vectors":
            words = self.text_vocabulary
            texts = torch.tensor([sum(token < words for token in ids) for ids in input_ids])
            mask &= (position == 0) | (position >= texts[:, None])
        return mask.long()

    def render(
        self,
        preference: str | Sequence[str],
        item_indices: Sequence[int],
        user: int = 0,
        *,
        history: str | None = None,
    ) -> list[int]:
        """Input ids of one user: the preference, followed by as many of the latest items as fit.

        Titles and codes are rendered as "Instructions: ... Items: ...". States and vectors are numbers above the text
        vocabulary.

        Args:
            preference: a text or a list of texts, possibly empty.
            item_indices: the history, oldest first.
            user: position in the batch, for the error message.
            history: how to render the items; default: the mode of this processor. A processor for codes also supports
                "titles".

        Raises:
            ValueError: if there is neither a preference nor a history, and the method reads both.
        """
        preference, mode = _joined(preference), history or self.history
        if not preference and not len(item_indices) and "none" not in (self.preference, mode):
            raise ValueError(
                f"user {user} has neither a preference nor a history; pass a preference text, history items, or both"
            )
        preference = self.corrected(preference) if self.preference == "text" else ""
        items = [] if mode == "none" else self._latest(item_indices)
        if mode == "indices":
            # 0 is padding, N + 1 the start token, which ensures that no input is empty.
            return [len(self.item_ids) + 1, *(index + 1 for index in items)]
        if mode in ("states", "vectors"):
            return self._render_states(preference, items)
        before, after = self.margins
        room = max(0, self.max_length - len(before) - len(after))
        instruction = self._tokens(f"Instructions: {preference}.")[:room] if preference else []
        heading = self._cached_tokens("Items:") if items and (mode, self.preference) != ("codes", "none") else []
        pieces = self.code_pieces(items) if mode == "codes" else self._title_pieces(items)
        left = room - len(instruction) - len(heading)
        while pieces and sum(map(len, pieces)) > left:
            pieces.pop(0)
        if pieces:
            body = [*instruction, *heading, *chain.from_iterable(pieces)]
        elif instruction or not items:
            body = instruction
        else:  # even the latest item is too long: use its first tokens
            last = self.code_pieces(items[-1:]) if mode == "codes" else self._title_pieces(items[-1:])
            body = [*heading, *last[0]][:room]
        return [*before, *body, *after]

    def _latest(self, item_indices: Sequence[int]) -> list[int]:
        """The items of a history that are read."""
        return list(item_indices)[max(0, len(item_indices) - self.max_history) :]

    def _render_states(self, preference: str, item_indices: Sequence[int]) -> list[int]:
        text = self.text_inputs([preference])[0] if preference or not item_indices else []
        if self._item_pieces is None:
            sizes = self.state_counts
            ends = accumulate(sizes, initial=self.text_vocabulary)
            self._item_pieces = [list(range(start, start + size)) for start, size in zip(ends, sizes, strict=False)]
        return [*text, *chain.from_iterable(self._item_pieces[index] for index in item_indices)]

    def _render_vectors(self, preference: str, item_indices: Sequence[int]) -> list[int]:
        """Inputs of experts: text tokens, then one id for each item; one padding token if there is neither."""
        text = self.text_inputs([preference])[0] if preference else []
        items = [self.text_vocabulary + index for index in self._latest(item_indices)]
        return [*text, *items] or [self.tokenizer.pad_token_id]

    def text_inputs(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Token ids of texts, special tokens included.

        Args:
            texts: rendered texts.
            max_length: maximum number of tokens of a text; default: that of an input.
        """
        before, after = self.margins
        room = max(0, (max_length or self.max_length) - len(before) - len(after))
        return [[*before, *tokens[:room], *after] for tokens in self.text_tokens(texts)]

    @property
    def text_vocabulary(self) -> int:
        """Token ids below this are text; the others are items or rows of a state table."""
        known, size = self._vocabulary, len(self.tokenizer)
        if known is None or known[0] != size:
            known = self._vocabulary = size, vocabulary_of(self.tokenizer)
        return known[1]

    def text_part(self, input_ids: Sequence[int]) -> list[int]:
        """The text tokens of an input, without the rows of a state table."""
        words = self.text_vocabulary
        return [token for token in input_ids if token < words]

    def title_inputs(self, items: Mapping[str, Sequence[str]] | None = None) -> list[list[int]]:
        """Token ids of titles, special tokens included, for `encode_titles`.

        Args:
            items: `{"item_id": [...], "title": [...]}`; default: all items of this processor.
        """
        ids, titles = (self.item_ids, self.titles) if items is None else (items["item_id"], items["title"])
        return self._tokens_of_titles(ids, titles)

    def _tokens_of_titles(self, ids: Sequence[str], titles: Sequence[str]) -> list[list[int]]:
        before, after = self.margins
        texts = self.text_tokens([title.strip() or item_id for title, item_id in zip(titles, ids, strict=True)])
        return [[*before, *(text or [self.tokenizer.unk_token_id])[: self.title_length], *after] for text in texts]

    def _title_pieces(self, item_indices: Sequence[int]) -> list[list[int]]:
        titles = [self.titles[index] for index in item_indices]
        return [self._cached_tokens(title) for title in (*(f"{title}," for title in titles[:-1]), *titles[-1:])]

    def code_pieces(self, item_indices: Sequence[int]) -> list[list[int]]:
        """Code tokens of items, with `history="codes"`."""
        if self._item_pieces is None:
            first = first_code_token(self.tokenizer, self.codebook_sizes)
            offsets = list(accumulate(self.codebook_sizes[:-1], initial=first))
            self._item_pieces = [
                [offset + code for offset, code in zip(offsets, codes, strict=True)] for codes in self.codes
            ]
        return [self._item_pieces[index] for index in item_indices]

    def _tokens(self, text: str) -> list[int]:
        return self.text_tokens([text])[0]

    def text_tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts without special tokens. The name of a special token in a text ("[PAD]") is plain text.

        Raises:
            ValueError: if a text contains a lone surrogate, which is half a character.
        """
        if not len(texts):
            return []
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{text[:60]!r} contains the lone surrogate {text[error.start]!r} at position {error.start}; "
                    "remove it, or read the text with the encoding it was written in"
                ) from None
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        return encoded["input_ids"]

    def _cached_tokens(self, title: str) -> list[int]:
        """Token ids of a title, from a cache, because titles recur in many histories."""
        cache = self._title_tokens
        tokens = cache.get(title)
        if tokens is None:
            if len(cache) >= CACHED_TITLES:
                cache = self._title_tokens = {}
            tokens = cache[title] = self._tokens(title)
        return tokens

    @cached_property
    def margins(self) -> tuple[list[int], list[int]]:
        """Special tokens that the tokenizer adds before and after a text."""
        # `split_special_tokens` as in every call: a tokenizer keeps it, and threads share the tokenizer.
        whole = self.tokenizer("a", split_special_tokens=True)["input_ids"]
        inner = self.tokenizer("a", add_special_tokens=False, split_special_tokens=True)["input_ids"]
        start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
        return whole[:start], whole[start + len(inner) :]

    # Saving

    @property
    def reads_preference(self) -> bool:
        """Whether preferences, and what is to be avoided, reach the model."""
        return self.preference == "text" and self.history != "indices"

    @property
    def reads_history(self) -> bool:
        """Whether histories reach the model."""
        return self.history != "none"

    @property
    def columns(self) -> dict[str, Sequence[Any]]:
        """Ids and titles of all items, and texts and aspects if they are known, named as in `set_items`."""
        columns = {"item_id": self.item_ids, "title": self.titles, "text": self.texts, "aspects": self.aspects}
        return {name: values for name, values in columns.items() if values or name in ("item_id", "title")}

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that a call returns for any request."""
        return ["input_ids", "attention_mask"]

    def to_dict(self) -> dict[str, Any]:
        """Settings for `processor_config.json`; the items are saved in a separate file."""
        settings = super().to_dict()
        derived = {"item_ids", "titles", "texts", "aspects", "codes", "columns", "items", "margins"}
        return {name: value for name, value in settings.items() if name not in derived and not name.startswith("_")}

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Save the tokenizer, the settings and the items to a folder; with `push_to_hub`, upload the folder."""
        saved = super().save_pretrained(save_directory, push_to_hub=False, **kwargs)
        self._remove_processor_class(Path(save_directory))
        target = Path(save_directory) / ITEMS_FILE
        items = self.columns | ({"codes": self.codes} if self.codes else {})
        items |= {"words": dict(sorted(self._words.items()))} if self._words else {}
        items |= {"states": self.state_counts} if self.history == "states" else {}
        with atomic_write(target) as unfinished:
            unfinished.write_text(json.dumps(items, ensure_ascii=False), "utf-8")
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return [*(saved or []), str(target)]

    def _remove_processor_class(self, folder: Path) -> None:
        """Remove the name of this class from the tokenizer, which could otherwise not be loaded with the encoder."""
        self.tokenizer._set_processor_class(None)
        config = folder / "tokenizer_config.json"
        settings = json.loads(config.read_text("utf-8"))
        with atomic_write(config) as unfinished:
            kept = {name: value for name, value in settings.items() if name not in ("processor_class", "auto_map")}
            unfinished.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> MenderProcessor:
        """Load a processor that `save_pretrained` wrote, from a folder or the Hub.

        Raises:
            OSError: if the items file is missing.
            ValueError: if a file is malformed, or its items are not those of the model beside it.
        """
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        try:
            processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
            check_whole_numbers(0, max_history=processor.max_history)
            check_whole_numbers(max_length=processor.max_length, title_length=processor.title_length)
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"processor_config.json or the tokenizer of {pretrained_model_name_or_path} is malformed "
                f"({' '.join(str(error).split())}); save the processor again"
            ) from error
        path = cached_file(pretrained_model_name_or_path, ITEMS_FILE, **hub)
        # A processor can also be saved without a model.
        optional = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        model = cached_file(pretrained_model_name_or_path, "config.json", **optional, **hub)
        settings = {} if model is None else json.loads(Path(model).read_text("utf-8"))
        num_items = settings.get("num_items") if isinstance(settings, dict) else None
        processor.set_items(read_items(path, num_items, processor.codebook_sizes))
        return processor


def _changed(before: Sequence[str], after: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts that a list had and does not have any more, and those that came, each as often as that.

    >>> _changed(["tea", "soap", "tea"], ["tea", "mug", "soap", "book"])
    (['tea'], ['mug', 'book'])
    """
    pairs = [(old, new) for old, new in zip_longest(before, after) if old != new]
    had, has = Counter(old for old, _ in pairs if old is not None), Counter(new for _, new in pairs if new is not None)
    return list((had - has).elements()), list((has - had).elements())


def _is_nested(input_ids: Sequence[Any]) -> bool:
    """Whether a request has several conditions, each a list of token ids."""
    return len(input_ids) > 0 and isinstance(input_ids[0], Sequence)


def _plain_words(text: str) -> str:
    """The words of a text in lower case and singular, each between spaces.

    >>> _plain_words("Short stories, glasses")
    ' short story glass '
    """
    text = text.casefold()
    if not text.isascii():  # signs above, below or behind a letter belong to its word
        text = unicodedata.normalize("NFC", text)
        text = "".join(letter if letter.isalnum() or unicodedata.category(letter)[0] == "M" else " " for letter in text)
        return "".join(f" {singular(word)}" for word in text.split()) + " "
    return "".join(f" {singular(word)}" for word in WORD.findall(text)) + " "


def _joined(preference: str | Sequence[str]) -> str:
    """The preferences of a user as one text, without a full stop at the end."""
    texts = [preference] if isinstance(preference, str) else preference
    sentences = (text.strip().rstrip(".") for text in texts)
    return ". ".join(sentence for sentence in sentences if sentence)


def _as_list(indices: Tensor | Sequence[int]) -> list[int]:
    return indices.tolist() if isinstance(indices, torch.Tensor) else [int(index) for index in indices]
