"""The weighted sum of experts, modules that score every item of the catalogue.

Behaviour experts use purchases (`purchase_experts`), language experts use text: cosine similarity of sentence
embeddings, computed here, and those of `language_experts`. Scores are not normalised per request, so an expert has one
scale for all requests, and its weight means the same everywhere. By itself, `ExpertSum` is an `ExpertsRecommender`;
beside a generator it is part of a Mender.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .configuration_mender import BEHAVIOUR, KINDS, LANGUAGE, ExpertSumConfig
from .item_evidence import Avoided, ItemEvidence, added_up
from .item_states import ItemStatesEncoder, version_of
from .language_experts import TERM_UNITS, Lexical, Reader, TermWeights
from .purchase_experts import ItemItem, Popularity, recency
from .request_fit import common_score

__all__ = ["Encoded", "ExpertSum", "default_kind", "sample_items", "scores_every_item"]

TEMPERATURE = 0.05
"""Divides cosine similarities, so that they have about the scale of log-probabilities."""
AVOIDING = ("dense", "learned", "lexical", "terms")
"""Experts that find what matches a phrase to avoid."""
GROUPS = {"behaviour": BEHAVIOUR, "language": LANGUAGE}
"""Groups of experts that the weights of a request can name."""
COMPARING = ("dense", "learned", "history_text")
"""Experts that compare a vector of the request with those of the items."""
ENCODING = ("dense", "learned", "terms")
"""Experts that need the text of a request encoded."""
KEPT_VECTORS = 2**17
"""Largest number of item vectors of which a single-precision copy is kept between requests."""
SCORED_ITEMS = 2**20
"""Up to this many items, a request scores every item; beyond, those that the search reaches (`guide.PathGuide`)."""
RARE = 2**12
"""Beyond `SCORED_ITEMS`, words of more items than this do not guide the search; they count at the leaves."""
COMPARED_ITEMS = 2**12
"""Beyond `SCORED_ITEMS`, items of the fixed sample that tells what is common among scores."""


@dataclass(frozen=True)
class Encoded:
    """Encoded texts of requests.

    Attributes:
        vectors: of the texts, of unit length. Shape: (B, D).
        states: of their tokens; `None` if no request has a text. Shape: (B, T', D).
    """

    vectors: Tensor
    states: Tensor | None


@dataclass(frozen=True)
class _Parts:
    """Weighted experts of B requests.

    Attributes:
        queries: to be compared with the vectors of items. Shape: (B, D).
        popularity: its weight. Shape: (B, 1).
        entries: of item-item rows: items, padded with -1, and values, each of shape (B, E).
        words: terms to look up, padded with -1, and their weights, each of shape (B, T).
    """

    queries: Tensor | None
    popularity: Tensor | None
    entries: list[tuple[Tensor, Tensor]]
    words: tuple[Tensor, Tensor] | None


class ExpertSum(nn.Module):
    """The weighted sum of experts, with weights for every kind of request.

    Args:
        config: the experts and their weights.
        encoder: item vectors and the text encoder that made them; by default created from `config.encoder`. Without
            both, `forward` needs the encoder of the model that the experts belong to.
    """

    def __init__(self, config: ExpertSumConfig, encoder: ItemStatesEncoder | None = None) -> None:
        super().__init__()
        self.config = config
        names, items = config.experts, config.num_items
        neighbours = min(config.num_neighbours, items)
        self.popularity = Popularity(items) if "popularity" in names else None
        self.co_purchase = ItemItem(items, neighbours) if "co_purchase" in names else None
        self.transitions = ItemItem(items, neighbours) if "transitions" in names else None
        sizes = config.text_vocabulary, items, config.num_postings, config.num_words
        self.lexical = Lexical(*sizes) if "lexical" in names or "terms" in names else None
        self.reader = Reader(config.width, config.reader_width) if "learned" in names else None
        self.term_weights = TermWeights(config.width, TERM_UNITS) if "terms" in names else None
        # Not named `encoder`: the Trainer would pass the states of an attribute `encoder` instead of the input.
        self.vectors = encoder
        if encoder is None and config.encoder is not None:
            self.vectors = ItemStatesEncoder(config.encoder)
        self._kept: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def forward(
        self,
        input_ids: Tensor,
        num_items: int,
        *,
        encoder: ItemStatesEncoder | None = None,
        encoded: Encoded | None = None,
        only: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """Scores of each expert by name, in the order of `config.experts`.

        Args:
            input_ids: text tokens, then `config.text_vocabulary` + item index for the history. Shape: (B, T).
            num_items: N. Items that an expert does not know have score 0.
            encoder: encoder with the item vectors, if this module has none.
            encoded: the texts, if they have been encoded.
            only: names of the experts to use; default: all.

        Returns:
            Shape of each: (B, N).

        Raises:
            ValueError: if an expert needs item vectors, and there are not N of them.
        """
        texts, history = self.split(input_ids)
        asked = [name for name in self.config.experts if only is None or name in only]
        if any(name in ENCODING for name in asked):
            encoded = self._encoded(encoded, texts, encoder)
        found = {}
        for name in asked:
            if name in COMPARING:
                query = self._queries(name, history, encoder, encoded)
                found[name] = query @ self._columns(encoder, num_items) / TEMPERATURE
            else:
                found[name] = self._counted(name, texts, history, num_items, encoded)
        return found

    def total(
        self,
        input_ids: Tensor,
        num_items: int,
        weights: Tensor,
        *,
        encoder: ItemStatesEncoder | None = None,
        encoded: Encoded | None = None,
    ) -> Tensor:
        """The weighted sum of the scores of `forward`, with one matrix product for all experts that compare vectors.

        Args:
            input_ids: see `forward`.
            num_items: see `forward`.
            weights: weights of the experts in the order of `config.experts`. Shape: (B, experts).
            encoder: see `forward`.
            encoded: see `forward`.

        Returns:
            Shape: (B, N).
        """
        parts = self._parts(input_ids, weights, encoder, encoded)
        total = torch.zeros(len(input_ids), num_items, device=input_ids.device)
        if parts.popularity is not None:
            counts = self.popularity.counts
            total[:, : len(counts)].addcmul_(parts.popularity, counts.float().log1p())
        for items, values in parts.entries:
            total.scatter_add_(1, items.clamp(min=0), values.masked_fill(items < 0, 0.0))
        if parts.words is not None:
            self.lexical.add_to(total, *parts.words)
        if parts.queries is not None:
            total.addmm_(parts.queries, self._columns(encoder, num_items))
        return total

    def contributions(
        self,
        item_indices: Tensor,
        input_ids: Tensor,
        num_items: int,
        weights: Tensor,
        *,
        encoder: ItemStatesEncoder | None = None,
        encoded: Encoded | None = None,
    ) -> dict[str, Tensor]:
        """What each expert adds to `total` for some items of B users with C conditions each; 0 without a weight.

        Args:
            item_indices: of each user. Shape: (B, M).
            input_ids: see `forward`; the conditions of a user follow each other. Shape: (B * C, T).
            num_items: see `forward`.
            weights: see `total`. Shape: (B * C, experts).
            encoder: see `forward`.
            encoded: see `forward`. Shape: (B * C, D).

        Returns:
            By name of the expert. Shape of each: (B, M).
        """
        found = dict.fromkeys(self.config.experts, torch.zeros(item_indices.shape, device=item_indices.device))
        used = [name for name, own in zip(self.config.experts, weights.T, strict=True) if bool(own.any())]
        if not scores_every_item(num_items):
            for name in used:
                alone = weights * torch.tensor([name == other for other in self.config.experts], device=weights.device)
                shared = {"encoder": encoder, "encoded": encoded}
                found[name] = self.evidence(input_ids, num_items, alone, len(item_indices), **shared).at(item_indices)
            return found
        weights = dict(zip(self.config.experts, weights.T[..., None], strict=True))
        scores = self.forward(input_ids, num_items, encoder=encoder, encoded=encoded, only=used)
        users, conditions = len(item_indices), len(input_ids) // len(item_indices)
        gathered = item_indices.repeat_interleave(conditions, 0)
        for name, values in scores.items():
            found[name] = (weights[name] * values.gather(1, gathered)).view(users, conditions, -1).sum(1)
        return found

    def evidence(
        self,
        input_ids: Tensor,
        num_items: int,
        weights: Tensor,
        users: int,
        *,
        encoder: ItemStatesEncoder | None = None,
        encoded: Encoded | None = None,
    ) -> ItemEvidence:
        """What `total` would add up, in parts; the scores are those of `total`.

        Args:
            input_ids: see `forward`; the conditions of a user follow each other. Shape: (B * C, T).
            num_items: see `forward`.
            weights: see `total`. Shape: (B * C, experts).
            users: B.
            encoder: see `forward`.
            encoded: see `forward`.
        """
        own = self._parts(input_ids, weights, encoder, encoded)
        parts: dict[str, Any] = {}
        if own.queries is not None:
            parts["queries"] = own.queries.view(users, -1, own.queries.shape[1]).sum(1)
            parts["vectors"] = self.item_vectors(encoder, num_items)
        if own.popularity is not None:
            parts["counts"] = self.popularity.counts
            parts["popularity"] = own.popularity.view(users, -1).sum(1, keepdim=True)
        entries = own.entries
        if own.words is not None:
            terms, term_weights = own.words
            items, values, common = self.lexical.rare(terms, term_weights, RARE)
            entries = [*entries, (items, values)]
            if bool((common >= 0).any()):
                parts["words"] = _word_scores(self.lexical, common, term_weights, users)
        if entries:
            entries = [[part.view(users, -1) for part in side] for side in zip(*entries, strict=True)]
            parts["items"], parts["values"] = added_up(*(torch.cat(side, 1) for side in entries), num_items)
        return ItemEvidence(num_items, **parts)

    def _parts(
        self, input_ids: Tensor, weights: Tensor, encoder: ItemStatesEncoder | None, encoded: Encoded | None
    ) -> _Parts:
        """The weighted experts of rows of inputs; arguments as in `total`."""
        texts, history = self.split(input_ids)
        used = dict(zip(self.config.experts, weights.T[..., None], strict=True))
        used = {name: weight for name, weight in used.items() if bool(weight.any())}
        if any(name in ENCODING for name in used):
            encoded = self._encoded(encoded, texts, encoder)
        queries, entries, words = [], [], None
        for name, weight in used.items():
            if name in COMPARING:
                queries.append(weight * self._queries(name, history, encoder, encoded))
            elif name == "co_purchase":
                items, values = self.co_purchase.entries(history)
                entries.append((items, values * weight))
            elif name == "transitions":
                items, values = self.transitions.entries(history, recency(history))
                entries.append((items, values * weight))
            elif name != "popularity":  # BM25, of the same tokens for both experts
                if words is None:
                    words = self.lexical.terms(texts), torch.zeros(texts.shape, device=texts.device)
                terms, own = self._weighted_terms(name, words[0], encoded)
                words[1][:, : terms.shape[1]] += weight if own is None else weight * own
        return _Parts(sum(queries) / TEMPERATURE if queries else None, used.get("popularity"), entries, words)

    def avoided(
        self,
        avoid_input_ids: Tensor,
        num_items: int,
        *,
        encoder: ItemStatesEncoder | None = None,
        live: Tensor | None = None,
    ) -> Avoided | None:
        """What `penalty` would take off, in parts; `None` if that is nothing.

        What is common, see `common_score`, is measured on a fixed random sample of items.

        Args:
            avoid_input_ids: see `penalty`. Shape: (B, A, T').
            num_items: N.
            encoder: see `forward`.
            live: see `penalty`.
        """
        if not self.avoids:
            return None
        users, phrases = avoid_input_ids.shape[:2]
        texts, history = self.split(avoid_input_ids.flatten(0, 1))
        weights = self._avoiding()
        encoded = self._encoded(None, texts, encoder) if any(name in ENCODING for name in weights) else None
        sample = sample_items(num_items if live is None else len(live), COMPARED_ITEMS, texts.device)
        sample = sample if live is None else live[sample]
        queries, thresholds, own, words = [], [], [], []
        for name, weight in weights.items():
            if name in COMPARING:
                query = self._queries(name, history, encoder, encoded) / TEMPERATURE
                scores = query @ self.item_vectors(encoder, num_items)[sample].float().T
                queries.append(query.view(users, phrases, -1))
                thresholds.append(common_score(scores).view(users, phrases))
                own += [weight] * phrases
            else:
                terms, term_weights = self._weighted_terms(name, self.lexical.terms(texts), encoded)
                score = _word_scores(self.lexical, terms, term_weights, len(texts))
                scores = score(sample.expand(len(texts), -1))
                words.append((_by_phrase(score, phrases), common_score(scores), weight))
        compared = {"vectors": None, "queries": None, "common": None, "weights": None}
        if queries:
            compared = {
                "vectors": self.item_vectors(encoder, num_items),
                "queries": torch.cat(queries, 1),
                "common": torch.cat(thresholds, 1),
                "weights": torch.tensor(own, device=texts.device),
            }
        return Avoided(**compared, words=words, scale=self.config.avoid)

    def keep(self, name: str, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` returned for this key before, as long as the key consists of the same objects and versions.

        Args:
            name: name of what is made.
            key: what it is made of: objects, which are compared by identity, and version numbers.
            make: called where it has not been made, or of other objects.
        """
        known = self._kept.get(name)
        pairs = () if known is None else zip(known[0], key, strict=True)
        if known is None or any(old != new if isinstance(old, int) else old is not new for old, new in pairs):
            known = self._kept[name] = key, make()
        return known[1]

    @property
    def avoids(self) -> bool:
        """Whether `penalty` can be more than 0."""
        return self.config.avoid > 0 and any(name in self.config.experts for name in AVOIDING)

    def penalty(
        self,
        avoid_input_ids: Tensor,
        num_items: int,
        *,
        encoder: ItemStatesEncoder | None = None,
        live: Tensor | None = None,
    ) -> Tensor:
        """The penalty of every item for phrases to avoid: the evidence that it matches them, times `config.avoid`.

        Encoders hardly notice negation, so each phrase is scored in its positive form. Evidence is the score of the
        language experts, with their weights for stated requests (1 if all of these are 0), above `common_score`: only
        items that match a phrase better than most have a penalty.

        Args:
            avoid_input_ids: text tokens of the phrases, padded with `config.padding`. Shape: (B, A, T').
            num_items: N.
            encoder: see `forward`.
            live: indices of the items that tell what is common, those that were not removed; default: all.

        Returns:
            Shape: (B, N), at least 0.
        """
        users, phrases = avoid_input_ids.shape[:2]
        flat = avoid_input_ids.flatten(0, 1)
        evidence = torch.zeros(len(flat), num_items, device=flat.device)
        weights = self._avoiding()
        for name, scores in self.forward(flat, num_items, encoder=encoder, only=list(weights)).items():
            common = common_score(scores if live is None else scores[:, live])
            evidence.add_((scores - common).relu_(), alpha=weights[name])
        return self.config.avoid * evidence.view(users, phrases, num_items).sum(1)

    def _avoiding(self) -> dict[str, float]:
        """Weights of the experts that find what matches a phrase to avoid."""
        weights = {name: self.config.weights["stated"][name] for name in AVOIDING if name in self.config.experts}
        return {name: weight for name, weight in weights.items() if weight} or dict.fromkeys(weights, 1.0)

    def weights(self, kind: Tensor, factors: Mapping[str, float] | None = None) -> Tensor:
        """The weights of requests, by their kind.

        Args:
            kind: index in `KINDS`. Shape: (B,).
            factors: factors of the weights, by expert or group ("language", "behaviour").

        Returns:
            Weights in the order of `config.weighted`, W of them. Shape: (B, W).

        Raises:
            ValueError: if a name is unknown, or a factor is not a finite number.
        """
        names = self.config.weighted
        factors = expanded(factors or {}, names)
        table = [[self.config.weights[own][name] * factors.get(name, 1.0) for name in names] for own in KINDS]
        return torch.tensor(table, device=kind.device)[kind]

    def split(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens and item indices of inputs, -1 at all other positions. Shape of each: (B, T)."""
        vocabulary = self.config.text_vocabulary
        is_text = (input_ids < vocabulary) & (input_ids != self.config.padding)
        history = torch.where(input_ids >= vocabulary, input_ids - vocabulary, -1)
        return torch.where(is_text, input_ids, -1), history

    def add_items(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Add new items after the others, without purchases.

        Their vectors are added by `set_item_states` of the encoder.

        Args:
            token_ids: tokens of each new item's text, without special tokens.
        """
        first, count = self.config.num_items, len(token_ids)
        # In a small catalogue, rows are no longer than there are items; a loaded model has room for all of them.
        neighbours = min(self.config.num_neighbours, first + count)
        if self.popularity is not None:
            self.popularity.add_items(count)
        for part in (self.co_purchase, self.transitions):
            if part is not None:
                part.add_items(count, neighbours)
        self.config.num_items += count
        self.put_texts(torch.arange(first, first + count), token_ids)

    def put_texts(self, item_indices: Tensor, token_ids: Sequence[Sequence[int]]) -> None:
        """Add or replace the words of items, see `Lexical.put`."""
        if self.lexical is not None:
            self.lexical.put(item_indices, token_ids)
            self.config.num_postings = len(self.lexical.items)
            self.config.num_words = 0 if self.lexical.words is None else len(self.lexical.words)

    def _counted(self, name: str, texts: Tensor, history: Tensor, num_items: int, encoded: Encoded | None) -> Tensor:
        """Scores of an expert that compares no vectors. Shape: (B, N)."""
        if name == "popularity":
            found = self.popularity(len(texts))
        elif name == "co_purchase":
            found = self.co_purchase(history)
        elif name == "transitions":
            found = self.transitions(history, recency(history))
        else:
            found = self.lexical(*self._weighted_terms(name, self.lexical.terms(texts), encoded))
        missing = num_items - found.shape[1]
        return found if not missing else functional.pad(found, (0, missing))[:, :num_items]

    def _weighted_terms(self, name: str, terms: Tensor, encoded: Encoded | None) -> tuple[Tensor, Tensor | None]:
        """Terms that the experts "lexical" and "terms" look up, and their weights. Shape of each: (B, T')."""
        if name == "lexical" or encoded.states is None:
            return terms, None
        return terms[:, : encoded.states.shape[1]], self.term_weights(encoded.states)

    def _encoded(self, known: Encoded | None, texts: Tensor, encoder: ItemStatesEncoder | None) -> Encoded:
        """Encoded texts; vectors are 0 where there is no text."""
        if known is None:
            encoder = self.vectors if self.vectors is not None else encoder
            output = encoder(texts.masked_fill(texts < 0, self.config.padding))
            known = Encoded(output.last_hidden_state[:, 0], output.text_states)
        return Encoded(known.vectors.float() * (texts >= 0).any(1, keepdim=True), known.states)

    def _queries(
        self, name: str, history: Tensor, encoder: ItemStatesEncoder | None, encoded: Encoded | None
    ) -> Tensor:
        """The vectors that an expert compares with those of items; 0 without a text or history. Shape: (B, D)."""
        if name == "history_text":
            encoder = self.vectors if self.vectors is not None else encoder
            present = (history >= 0).float()[..., None]
            return functional.normalize((encoder.item_states[history.clamp(min=0)].float() * present).sum(1), dim=-1)
        if name == "dense":
            return encoded.vectors
        return self.reader(encoded.vectors).float() * encoded.vectors.any(1, keepdim=True)

    def _columns(self, encoder: ItemStatesEncoder | None, num_items: int) -> Tensor:
        """Vectors of all items in single precision, one in a column. Shape: (D, N)."""
        table = self.item_vectors(encoder, num_items)
        if num_items > KEPT_VECTORS:
            return table.float().T
        # In this layout, the product with a few queries takes half the time.
        return self.keep("columns", (table, version_of(table)), lambda: table.float().T.contiguous())

    def item_vectors(self, encoder: ItemStatesEncoder | None, num_items: int) -> Tensor:
        """Vectors of all items. Shape: (N, D)."""
        table = (self.vectors if self.vectors is not None else encoder).item_states
        if len(table) != num_items:
            raise ValueError(
                f"the catalogue has {num_items} items but the encoder vectors of {len(table)}; make the vectors of all "
                "items with encode_titles and pass them to set_item_states (docs/serving.md)"
            )
        return table


def scores_every_item(num_items: int) -> bool:
    """Whether a request scores every item of a catalogue of this size."""
    return num_items <= SCORED_ITEMS


def sample_items(num_items: int, count: int, device: torch.device) -> Tensor:
    """A fixed random sample of items, all of them if they are few.

    Args:
        num_items: N.
        count: size of the sample.
        device: device of the result.

    Returns:
        Item indices. Shape: (<= count,), int64.
    """
    if num_items <= count:
        return torch.arange(num_items, device=device)
    return torch.randint(num_items, (count,), generator=torch.Generator().manual_seed(0)).to(device)


def _word_scores(lexical: Lexical, tokens: Tensor, weights: Tensor | None, users: int) -> Callable[[Tensor], Tensor]:
    """Scores of items (B, M) by the tokens of B users with C conditions each (B * C, T)."""

    def look_up(item_indices: Tensor) -> Tensor:
        conditions = len(tokens) // users
        found = lexical.at(item_indices.repeat_interleave(conditions, 0), tokens, weights)
        return found.view(users, conditions, -1).sum(1)

    return look_up


def _by_phrase(score: Callable[[Tensor], Tensor], phrases: int) -> Callable[[Tensor], Tensor]:
    """Scores of items (B, M) by each phrase of their user. Shape: (B * A, M)."""
    return lambda item_indices: score(item_indices.repeat_interleave(phrases, 0))


def default_kind(texts: Tensor) -> Tensor:
    """The kind of requests by their text: stated with text, silent without, as indices in `KINDS`.

    Args:
        texts: text tokens, padded with -1. Shape: (B, T).

    Returns:
        Shape: (B,), int64.
    """
    return torch.where((texts >= 0).any(1), KINDS.index("stated"), KINDS.index("silent"))


def expanded(factors: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Factors by expert; the factor of a group applies to each of its members.

    Raises:
        ValueError: if a name is unknown, or a factor is not a finite number.

    >>> expanded({"behaviour": 0, "dense": 2}, ["popularity", "dense", "generator"])
    {'popularity': 0.0, 'dense': 2.0}
    """
    found: dict[str, float] = {}
    for name, value in factors.items():
        own = [member for member in GROUPS.get(name, (name,)) if member in names]
        if name not in names and name not in GROUPS:
            raise ValueError(f"weights: there is no expert {name!r}; this model has {', '.join([*names, *GROUPS])}")
        if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) < float("inf"):
            raise ValueError(f"weights[{name!r}]={value!r}; pass a finite number")
        found |= {member: found.get(member, 1.0) * float(value) for member in own}
    return found
