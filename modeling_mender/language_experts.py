"""Experts that read: BM25 (Robertson & Zaragoza 2009) over tokens and whole words, and two trained on preferences.

`TermWeights` weighs the tokens of a request for BM25; `Reader` maps the vector of a preference to the items that are
meant. `training.reading` trains both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

from .module_weights import float_type
from .saved_weights import check_range

__all__ = ["K1", "TERM_UNITS", "UNKNOWN_WORD", "B", "Lexical", "Reader", "Role", "TermWeights", "keys_of_texts"]

K1, B = 1.5, 0.75
"""BM25's parameters for repeated words and for the length of texts."""
TERM_UNITS = 64
"""Hidden units of the network that weights tokens."""
TELLING, UNKNOWN_WORD = 0.1, 2**62
"""Share of the items up to which a word says what is wanted, and a number that is more than the key of any word."""

_POWERS = [pow(1_540_483_477, place, 2**31 - 1) for place in range(16)]
"""Factors of the pieces of a word in its key; from the 16th piece on, the last."""


class Role(IntEnum):
    """What a token is to the words of a text.

    BEGINS: a word, or its first piece; SHORT: the same, of few letters. CONTINUES: a further piece of the word before
    it. ENDING: the same, but at the end of a word only its plural: "##s". OTHER: signs, special tokens, scripts without
    blanks between words.
    """

    OTHER, BEGINS, CONTINUES, ENDING, SHORT = range(5)


def keys_of(tokens: Tensor, roles: Tensor | None) -> Tensor:
    """The keys by which BM25 looks up tokens.

    Tokenizers cut rare words into pieces: "infusions" into "in ##fusion ##s". Its first piece is not the word "in", so
    a hash of the whole word takes its place. The other pieces stay keys, and so do tokens that are whole words. The
    ending of the plural has no key: "mug ##s" is looked up as "mug".

    Args:
        tokens: token ids of texts, padded with -1. Shape: (..., T).
        roles: the `Role` of each token id; `None`: all tokens are their own keys. Shape: (V,).

    Returns:
        Token ids, V + hash for words of several pieces, and -1 for padding and endings. Shape: (..., T).
    """
    if roles is None:
        return tokens
    tokens = tokens.long()
    role = roles[tokens.clamp(min=0)].masked_fill(tokens < 0, Role.OTHER)
    begins = (role == Role.BEGINS) | (role == Role.SHORT)
    inner = (role > Role.OTHER) & ~begins & (functional.pad(role[..., :-1], (1, 0)) > Role.OTHER)
    followed = functional.pad(inner[..., 1:], (0, 1))
    ending = (role == Role.ENDING) & ~followed
    place = torch.arange(tokens.shape[-1], device=tokens.device).expand_as(tokens)
    begin = place.masked_fill(inner, 0).cummax(-1).values
    powers = torch.tensor(_POWERS, device=tokens.device)[(place - begin).clamp(max=len(_POWERS) - 1)]
    parts = ((tokens + 1) * powers).masked_fill(ending, 0)
    hashes = torch.zeros_like(tokens).scatter_add_(-1, begin, parts)
    first_of_several = followed & begins & ~functional.pad(ending[..., 1:], (0, 1))
    return torch.where(first_of_several, len(roles) + hashes, tokens).masked_fill(ending, -1)


def keys_of_texts(token_ids: Sequence[Sequence[int]], roles: Tensor | None) -> list[list[int]]:
    """Keys of each text, see `keys_of`; padding keeps texts apart."""
    tokens = torch.tensor([token for ids in token_ids for token in (*ids, -1)], dtype=torch.int64)
    keys = keys_of(tokens, None if roles is None else roles.cpu())
    return [own[own >= 0].tolist() for own in keys.split([len(ids) + 1 for ids in token_ids])]


class Lexical(nn.Module):
    """BM25 of texts over terms, an inverted index: terms are tokens, numbered as they are, and the catalogue's words.

    Args:
        vocabulary: V, the number of tokens.
        num_items: N.
        num_postings: P, the number of entries in all posting lists.
        num_words: W, the words of several pieces in the catalogue, and one for all others; 0: terms are tokens.

    Attributes:
        starts: start of each term's posting list. Shape: (V + W + 1,), int64.
        items: item indices of all posting lists, one after the other. Shape: (P,), int32.
        gains: what each posting adds to BM25. Shape: (P,).
        mean_length: mean number of terms of a text.
        roles: the `Role` of each token; `None` where terms are tokens. Shape: (V,), uint8.
        words: keys of the words, see `keys_of`, in order, `UNKNOWN_WORD` last; `None` as above. Shape: (W,), int64.
    """

    def __init__(self, vocabulary: int, num_items: int, num_postings: int, num_words: int = 0) -> None:
        super().__init__()
        self.num_items = num_items
        roles = torch.zeros(vocabulary, dtype=torch.uint8) if num_words else None
        self.register_buffer("roles", roles, persistent=True)
        self.register_buffer("words", torch.full((num_words,), UNKNOWN_WORD) if num_words else None, persistent=True)
        self.register_buffer("starts", torch.zeros(vocabulary + num_words + 1, dtype=torch.int64), persistent=True)
        self.register_buffer("items", torch.zeros(num_postings, dtype=torch.int32), persistent=True)
        self.register_buffer("gains", torch.zeros(num_postings), persistent=True)
        self.register_buffer("mean_length", torch.ones(()), persistent=True)

    def terms(self, tokens: Tensor) -> Tensor:
        """Terms of queries; of a query without a telling word, the first pieces of words that no item has.

        "Roguelikes" then finds "rogue-like", but "a flatmate who loves coffee" not "lay-flat", nor "infusions" the word
        "in". Telling is what few items have; pieces and words of less than four letters are not. Shape: (B, T).
        """
        terms = self.numbered(keys_of(tokens, self.roles))
        if self.roles is None:
            return terms
        long = self.roles[tokens.long().clamp(min=0)] == Role.BEGINS
        having = self.starts[terms + 1] - self.starts[terms]
        telling = long & (having > 0) & (having <= TELLING * self.num_items)
        absent = (terms == len(self.starts) - 2) & long & ~telling.any(-1, keepdim=True)
        return torch.where(absent, tokens.long(), terms)

    def numbered(self, keys: Tensor) -> Tensor:
        """Terms of keys, see `keys_of`: token ids, V + place of the word, and -1. Any shape."""
        if self.words is None:
            return keys
        place = torch.searchsorted(self.words, keys)
        place = place.masked_fill(self.words[place] != keys, len(self.words) - 1)
        return torch.where(keys < len(self.roles), keys, len(self.roles) + place)

    def _add_words(self, keys: Tensor) -> None:
        """Make terms of the words among some keys."""
        size = len(self.roles)
        words = torch.cat([self.words, keys[keys >= size]]).unique()
        having = torch.zeros(size + len(words), dtype=torch.int64, device=keys.device)
        having[:size] = self.starts.diff()[:size]
        having[size + torch.searchsorted(words, self.words)] = self.starts.diff()[size:]
        self.words, self.starts = words, functional.pad(having.cumsum(0), (1, 0))

    def put(self, item_indices: Tensor, token_ids: Sequence[Sequence[int]]) -> None:
        """Add or replace the postings of items; document frequencies and the mean length stay as they are.

        Args:
            item_indices: items of the catalogue, or new ones behind them, each once. Shape: (M,), int64.
            token_ids: tokens of each item's text, without special tokens.
        """
        device = self.items.device
        item_indices = item_indices.to(device)
        keys = keys_of_texts(token_ids, self.roles)
        lengths = torch.tensor(list(map(len, keys)), device=device)
        flat = torch.tensor([key for own in keys for key in own], dtype=torch.int64, device=device)
        if self.words is not None:
            self._add_words(flat)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
        pairs, count = torch.stack([self.numbered(flat), owner]).unique(dim=1, return_counts=True)
        token, row = pairs
        having = (self.starts.diff()[token]).float()
        rarity = torch.log1p((self.num_items - having + 0.5) / (having + 0.5))
        norm = K1 * (1 - B + B * lengths[row] / self.mean_length)
        tokens = torch.repeat_interleave(torch.arange(len(self.starts) - 1, device=device), self.starts.diff())
        kept = torch.isin(self.items, item_indices, invert=True)
        tokens = torch.cat([tokens[kept], token])
        items = torch.cat([self.items[kept].long(), item_indices[row]])
        self.num_items = max(self.num_items, int(item_indices.max()) + 1)
        order = (tokens * self.num_items + items).argsort()
        self.starts = functional.pad(torch.bincount(tokens, minlength=len(self.starts) - 1).cumsum(0), (1, 0))
        self.items = items[order].to(self.items.dtype)
        self.gains = torch.cat([self.gains[kept], (rarity * count / (count + norm)).to(self.gains.dtype)])[order]

    def check_values(self) -> None:
        """Check loaded tables.

        Raises:
            ValueError: if a posting is not of an item, or the posting lists do not follow each other.
        """
        check_range("items", self.items, 0, self.num_items)
        if self.starts.device.type == "meta":
            return
        if int(self.starts[0]) or int(self.starts[-1]) != len(self.items) or bool((self.starts.diff() < 0).any()):
            raise ValueError("starts of posting lists in the saved weights are out of order; save the model again")
        if self.words is not None and (int(self.words[-1]) != UNKNOWN_WORD or bool((self.words.diff() <= 0).any())):
            raise ValueError("words in the saved weights are out of order; save the model again")

    def forward(self, terms: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scores of all items for queries; of repeated terms of a query, the first counts.

        Args:
            terms: of the queries, see `terms`, padded with -1. Shape: (B, T).
            weights: weight of each term; default 1. Shape: (B, T).

        Returns:
            Shape: (B, N).
        """
        scores = torch.zeros(len(terms), self.num_items, device=terms.device)
        self.add_to(scores, terms, weights)
        return scores

    def add_to(self, scores: Tensor, terms: Tensor, weights: Tensor | None = None) -> None:
        """Add what `forward` returns to scores, in place.

        Args:
            scores: of at least as many items as there are texts. Shape: (B, >= N).
            terms: see `forward`. Shape: (B, T).
            weights: see `forward`. Shape: (B, T).
        """
        user, item, gains = self.postings(*self.distinct(terms, weights))
        scores.view(-1).index_add_(0, user * scores.shape[1] + item, gains)

    def at(self, item_indices: Tensor, terms: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scores of some items, which are looked up in the posting lists.

        Args:
            item_indices: Shape: (B, M).
            terms: see `forward`. Shape: (B, T).
            weights: see `forward`. Shape: (B, T).

        Returns:
            Shape: (B, M).
        """
        scores = self.gains.new_zeros(item_indices.shape, dtype=torch.float32)
        user, term, weights = self.distinct(terms, weights)
        low, end = self.starts[term], self.starts[term + 1]
        longest = int((end - low).max()) if len(term) else 0
        if not longest:
            return scores
        wanted, last = item_indices[user], len(self.items) - 1
        low, high = low[:, None].expand_as(wanted), end[:, None].expand_as(wanted)
        for _ in range(longest.bit_length()):
            middle = (low + high) // 2
            before = (middle < high) & (self.items[middle.clamp(max=last)] < wanted)
            low, high = torch.where(before, middle + 1, low), torch.where(before, high, middle)
        place = low.clamp(max=last)
        found = (low < end[:, None]) & (self.items[place] == wanted)
        return scores.index_add_(0, user, self.gains[place].float() * found * weights[:, None])

    def rare(self, terms: Tensor, weights: Tensor | None, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """The postings of terms that at most `most` items have.

        Args:
            terms: see `forward`. Shape: (B, T).
            weights: see `forward`. Shape: (B, T).
            most: items of a term.

        Returns:
            Items, padded with -1, and scores, both of shape (B, E); and the other terms, padded with -1, of shape
            (B, T), to be looked up by `at`.
        """
        user, term, weight = self.distinct(terms, weights)
        having = self.starts.diff()
        few = having[term] <= most
        common = torch.where(having[terms.clamp(min=0)] > most, terms, -1)
        user, item, gains = self.postings(user[few], term[few], weight[few])
        count = torch.bincount(user, minlength=len(terms))
        place = torch.arange(len(user), device=user.device) - (count.cumsum(0) - count)[user]
        shape = len(terms), int(count.max()) if len(terms) else 0
        items, scores = user.new_full(shape, -1), gains.new_zeros(shape)
        items[user, place], scores[user, place] = item, gains
        return items, scores, common

    @staticmethod
    def distinct(terms: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Query, term and weight of each term that counts, for what `forward` takes. Shape of each: (terms,)."""
        ordered, order = terms.sort(dim=1, stable=True)
        distinct = ordered >= 0
        distinct[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
        weight = torch.ones(terms.shape, device=terms.device) if weights is None else weights.gather(1, order)
        return distinct.nonzero()[:, 0], ordered[distinct], weight[distinct]

    def postings(self, user: Tensor, term: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, item and score of all postings of what `distinct` returns, in order. Shape of each: (postings,)."""
        first = self.starts[term]
        lengths = self.starts[term + 1] - first
        ends = lengths.cumsum(0)
        place = torch.arange(int(ends[-1]) if len(ends) else 0, device=term.device)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=term.device), lengths)
        posting = first[owner] + place - (ends - lengths)[owner]
        return user[owner], self.items[posting].long(), self.gains[posting].float() * weights[owner]


class TermWeights(nn.Module):
    """How much each token of a preference counts: a small network on the states of the frozen encoder.

    In "my sister loves noir things" only "noir" says what is meant. The states tell the place of a token in its
    sentence, so words that training never saw get a weight as well. All weights are 1 before training.

    Args:
        width: of the states, D.
        hidden: hidden units.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, 1)
        self.reset()
        # As for `Reader`.
        self.requires_grad_(False)

    @torch.no_grad()
    def reset(self) -> None:
        """Start again with equal weights."""
        self.inner.reset_parameters()
        self.outer.weight.zero_()
        self.outer.bias.fill_(math.log(math.e - 1))

    def forward(self, states: Tensor) -> Tensor:
        """Weights of tokens, more than 0.

        Args:
            states: Shape: (B, T, D).

        Returns:
            Shape: (B, T).
        """
        hidden = functional.gelu(self.inner(states.to(float_type(self))))
        return functional.softplus(self.outer(hidden).squeeze(-1)).float()


class Reader(nn.Module):
    """Where items that fit a preference lie: a residual map from the preference's vector, trained on wishes.

    A frozen encoder gives every word of "my sister loves noir things" a say. The map learns which of them matter and
    what they mean in this catalogue; items keep the encoder's vectors, so that new ones are found at once. It starts as
    the encoder's own cosine.

    Args:
        width: of the vectors, D.
        hidden: hidden units.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer, self.certainty = (
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
            nn.Linear(hidden, 1),
        )
        self.reset()
        # A Trainer must not train it with the generator: `fit_language` does so afterwards.
        self.requires_grad_(False)

    @torch.no_grad()
    def reset(self) -> None:
        """Start again from the encoder's cosine."""
        self.inner.reset_parameters()
        for layer in (self.outer, self.certainty):
            layer.weight.zero_()
            layer.bias.zero_()

    def forward(self, vectors: Tensor, dropout: float = 0.0) -> Tensor:
        """The vectors to compare with items', longer where more is certain.

        Args:
            vectors: of preferences, of unit length. Shape: (B, D).
            dropout: of hidden units, in training.

        Returns:
            Shape: (B, D).
        """
        vectors = vectors.to(float_type(self))
        hidden = functional.dropout(functional.gelu(self.inner(vectors)), dropout, training=dropout > 0)
        return functional.normalize(vectors + self.outer(hidden), dim=-1) * self.certainty(hidden).exp()
