"""A saved model with its items, and what it answers: items, the reasons for each, and what avoiding kept out.

Works with any model of the library, from a folder or the Hub. What visitors add is theirs alone: `with_items` gives a
model of its own with a copy of the catalogue, which shares all that it does not change.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from showcase_file import SHOWCASE_FILE, Sentence, Showcase, derived_sentences, draw_shoppers, read_showcase
from title_search import TitleSearch
from transformers.utils import cached_file

from mender import Recommender
from modeling_mender.request import Request

__all__ = ["AVOID", "PARTS", "Answer", "ModelError", "OwnItem", "PageModel", "RankedItem", "load_model"]

OWN = "added-on-this-page-"
"""Ids of items that a visitor adds begin so."""
BETWEEN = ". "
"""Between the title and the text of such an item, which are embedded together."""
MOST_OWN, LONGEST_TITLE, LONGEST_TEXT = 5, 120, 500
"""Items that a visitor may add, and characters of their titles and texts."""
MOST_EDITED = 20_000
"""In larger catalogues nothing is added on the page: every visitor who does has a copy of the tables that change."""
KEPT_VERSIONS = 16
"""Catalogues with items of visitors that are kept; others are made again when they are asked for."""
MOST_ATTRIBUTES = 6
"""Attributes of an item that are shown."""
TYPICAL = 50
"""Items of the fixed sample with which the parts of a score are compared."""


class ModelError(ValueError):
    """A model that the page cannot show; the message says why and what to do, in one line."""


PARTS = {
    "words": ("lexical", "terms"),
    "meaning": ("dense", "learned"),
    "history": ("co_purchase", "transitions", "history_text"),
    "popularity": ("popularity",),
    "generator": ("generator",),
    "model": ("model",),
}
"""Parts of a score and the experts that they add up, in the order in which they are shown."""
AVOID = "avoid"
"""Name of what phrases to avoid take away, among the parts."""
KINDS_HERE = ("stated", "silent")
"""Kinds of request that can be made on the page: with words, and with a history alone."""
PART_OF = {expert: name for name, experts in PARTS.items() for expert in experts}


@dataclass(frozen=True)
class OwnItem:
    """An item that a visitor added."""

    title: str
    text: str = ""


@dataclass(frozen=True)
class RankedItem:
    """One line of a list.

    Attributes:
        item_id: the source's own id.
        title: its title.
        attributes: short phrases, perhaps none.
        parts: what each part of the score adds, compared with a typical item, and what is to be avoided takes away.
        rank: place in its list, from 1.
        own: whether the visitor added it.
        named: whether it names what is to be avoided.
    """

    item_id: str
    title: str
    attributes: tuple[str, ...]
    parts: Mapping[str, float]
    rank: int
    own: bool = False
    named: bool = False


@dataclass(frozen=True)
class Answer:
    """The list for one request, best item first.

    Attributes:
        items: the list.
        removed: items that would be in it if nothing had to be avoided, with their ranks in that list.
        wish: what the model read as the wish, with its spelling corrected.
        avoided: phrases that it read as to be avoided, also in the wish.
        fit: probability that anything in the catalogue fits the wish; `None` if the model does not say.
    """

    items: list[RankedItem]
    removed: list[RankedItem]
    wish: str
    avoided: list[str]
    fit: float | None


class PageModel:
    """A model with its items and what is known of them and of shoppers.

    Args:
        name: name of the model to show.
        shop: its recommender.
        showcase: attributes, shoppers and sentences; what it lacks is made from the catalogue.
    """

    def __init__(self, name: str, shop: Recommender, showcase: Showcase) -> None:
        self.name, self.shop, self.showcase = name, shop, showcase
        known = shop.processor
        self.reads_preference, self.reads_history = known.reads_preference, known.reads_history
        self.titles = TitleSearch(known.titles)
        self.typical = random.Random(0).sample(known.item_ids, min(TYPICAL, len(known.item_ids)))
        self.sentences: tuple[Sentence, ...] = ()
        if self.reads_preference:
            phrases = [self.attributes(index) or (title,) for index, title in enumerate(known.titles)]
            self.sentences = showcase.sentences or derived_sentences(phrases)
        self.shoppers = showcase.shoppers
        self.shoppers_are_real = bool(self.shoppers)
        if not self.shoppers and self.reads_history:
            self.shoppers = draw_shoppers(self._next_items, known.item_ids, count=6, length=6)
        self.with_items = lru_cache(KEPT_VERSIONS)(self._with_items)

    @property
    def num_items(self) -> int:
        """Items that can be recommended."""
        return len(self.shop)

    @property
    def kind(self) -> str:
        """What kind of model it is, in a word or two."""
        return self.shop.settings.get("preset") or self.shop.model.config.model_type

    @property
    def experts(self) -> Any:
        """The configuration of its experts, or `None`."""
        experts = getattr(self.shop.model, "experts", None)
        return None if experts is None else experts.config

    @property
    def parts(self) -> dict[str, list[str]]:
        """Parts whose weights a visitor may change, with those of their experts that have any."""
        if self.experts is None:
            return {}
        counted = [name for name in self.experts.weighted if any(self._weight(kind, name) for kind in KINDS_HERE)]
        found = {name: [one for one in counted if PART_OF.get(one) == name] for name in PARTS}
        return {name: own for name, own in found.items() if own} if len(counted) > 1 else {}

    def counts(self, part: str, kind: str) -> bool:
        """Whether a part counts in requests of a kind, by the weights that were fitted."""
        return any(self._weight(kind, one) for one in self.parts[part])

    def _weight(self, kind: str, expert: str) -> float:
        return self.experts.weights[kind][expert]

    @property
    def has_dial(self) -> bool:
        """Whether a preference can be made to count more than by itself."""
        return self.reads_preference and self.reads_history

    @property
    def takes_items(self) -> bool:
        """Whether items can be added without training, and few enough to do it for every visitor."""
        learns = self.experts is not None or hasattr(self.shop.model, "set_catalogue")
        return learns and self.reads_preference and self.num_items <= MOST_EDITED

    def attributes(self, index: int) -> tuple[str, ...]:
        """Phrases about an item, perhaps none."""
        known = self.shop.processor
        if known.item_ids[index].startswith(OWN):
            said = known.texts[index].removeprefix(known.titles[index]).removeprefix(BETWEEN)
            return (said,) if said else ()
        own = tuple(known.aspects[index][:MOST_ATTRIBUTES]) if known.aspects else ()
        return self.showcase.attributes.get(known.item_ids[index], own)

    def title(self, item_id: str) -> str:
        """Title of an item id."""
        return self.shop.processor.titles[self.shop.processor.item_indices([item_id])[0]]

    def _with_items(self, items: tuple[OwnItem, ...]) -> PageModel:
        """This model with items of a visitor, which nobody else sees.

        Raises:
            ValueError: if there are too many, one is too long or has no title, or the model cannot add any.
        """
        if not items:
            return self
        if len(items) > MOST_OWN:
            raise ValueError(f"You added {MOST_OWN} items, as many as this page takes. Reload it to start again.")
        for item in items:
            if not item.title.strip():
                raise ValueError("The new item has no title. Write one.")
            if len(item.title) > LONGEST_TITLE or len(item.text) > LONGEST_TEXT:
                raise ValueError(
                    f"The title has {len(item.title)} characters and the text {len(item.text)}. Write at most "
                    f"{LONGEST_TITLE} and {LONGEST_TEXT}."
                )
        if not self.takes_items:
            raise ValueError("Nothing can be added to this model on the page.")
        other = copy.copy(self)
        other.shop = copy.copy(self.shop)
        added = []
        for place, item in enumerate(items, 1):
            title, text = item.title.strip(), item.text.strip()
            added.append(
                {"item_id": f"{OWN}{place}", "title": title, "text": BETWEEN.join(filter(None, (title, text)))}
            )
        other.shop.add_items(added)
        return other

    def request(
        self,
        history: Sequence[str],
        wish: str = "",
        avoid: str = "",
        *,
        strict: bool = False,
        dial: float = 1.0,
        weights: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """A request for the recommender; items of the history are left out of its results.

        Args:
            history: item ids, oldest first.
            wish: what is wanted.
            avoid: what is not.
            strict: whether items that name what is to be avoided are left out.
            dial: how far the wish moves the list.
            weights: factors by name of a part.

        Raises:
            ValueError: if there is nothing that the model reads.
        """
        wish, avoid = (text.strip() if self.reads_preference else "" for text in (wish, avoid))
        history = list(history) if self.reads_history else []
        if not (wish or avoid or history):
            needed = "Write what you want." if self.reads_preference else "Choose a shopper, or add items."
            raise ValueError(f"There is nothing to go by. {needed}")
        asked: dict[str, Any] = {"preference": wish, "avoid": avoid, "history": history, "exclude": history}
        factors = {one: (weights or {}).get(name, 1) for name, own in self.parts.items() for one in own}
        if any(factor != 1 for factor in factors.values()):
            asked["weights"] = factors
        if dial != 1 and self.has_dial and wish:
            asked["dial"] = dial
        return asked | {"strict": strict}

    def answer(self, history: Sequence[str], wish: str = "", avoid: str = "", *, k: int = 10, **options: Any) -> Answer:
        """Ranked items, the reasons for each, and what would be among them if nothing had to be avoided.

        Args:
            history: see `request`.
            wish: see `request`.
            avoid: see `request`.
            k: items of the list.
            **options: see `request`.

        Raises:
            ValueError: see `request`, or if the same is wanted and to be avoided.
        """
        asked = self.request(history, wish, avoid, **options)
        known = self.shop.processor
        read = known.understood(Request.parse(asked))  # "tea without mint" avoids mint
        phrases, requests = known.avoided(read), [asked]
        if read.avoid and (read.texts or read.history):
            requests.append(asked | {"preference": read.texts, "avoid": "", "strict": False})
        fit = self.experts is not None and self.experts.fit is not None
        found, *others = self.shop.recommend_batch(requests, top_k=k, fit=fit)
        listed = {item["item_id"] for item in found}
        wished = [(rank, item) for other in others for rank, item in enumerate(other, 1)]
        wished = [(rank, item) for rank, item in wished if item["item_id"] not in listed]
        parts = self._parts(asked, [*listed, *(item["item_id"] for _, item in wished)])
        named = {known.item_ids[index] for index in known.items_naming(phrases)} if phrases else set()

        def shown(rank: int, item: Mapping[str, Any]) -> RankedItem:
            item_id = item["item_id"]
            return RankedItem(
                item_id=item_id,
                title=item["title"],
                attributes=self.attributes(known.item_indices([item_id])[0]),
                parts=parts.get(item_id, {}),
                rank=rank,
                own=item_id.startswith(OWN),
                named=item_id in named,
            )

        return Answer(
            items=[shown(rank, item) for rank, item in enumerate(found, 1)],
            removed=[shown(rank, item) for rank, item in wished],
            wish=" ".join(map(known.corrected, read.texts)),
            avoided=phrases,
            fit=found[0].get("fit") if found else None,
        )

    def _parts(self, asked: Mapping[str, Any], item_ids: Sequence[str]) -> dict[str, dict[str, float]]:
        """What each part of the score adds for some items, compared with the mean of typical ones.

        The recommender compares with the mean of the list it returns, in which all items may have what was asked for:
        so the items are ranked once more among typical ones.
        """
        allowed = [*dict.fromkeys([*item_ids, *self.typical])]
        asked = dict(asked) | {"strict": False, "allowed": allowed, "top_k": len(allowed), "why": True}
        (found,) = self.shop.recommend_batch([asked])
        added = {item["item_id"]: _by_part(item["why"]) for item in found}
        typical = [added[item_id] for item_id in self.typical if item_id in added] or list(added.values())
        common = {}
        for name in next(iter(added.values())):
            values = [one[name] for one in typical]
            # Most items match nothing that is to be avoided, and lose nothing.
            common[name] = max(values) if name == AVOID else sum(values) / len(values)
        return {
            item_id: {name: added[item_id][name] - value for name, value in common.items()}
            for item_id in item_ids
            if item_id in added
        }

    def _next_items(self, histories: list[list[str]]) -> list[list[str]]:
        if len(histories[0]) >= self.num_items:
            return [[] for _ in histories]
        requests = [{"history": history, "exclude": history} for history in histories]
        found = self.shop.recommend_batch(requests, top_k=3)
        return [[item["item_id"] for item in items] for items in found]


def _by_part(why: Mapping[str, float]) -> dict[str, float]:
    """Contributions of experts, added up by part.

    >>> _by_part({"dense": 1.0, "learned": 0.5, "avoid": -2.0})
    {'meaning': 1.5, 'avoid': -2.0}
    """
    found: dict[str, float] = {}
    for expert, value in why.items():
        name = PART_OF.get(expert, expert)
        found[name] = found.get(name, 0.0) + value
    return found


def load_model(name: str) -> PageModel:
    """A saved model, from a folder or the Hub. Code from a repository is never run.

    Args:
        name: folder, or Hub id.

    Raises:
        ModelError: if there is no such model, or it is not a recommender.
    """
    try:
        shop = Recommender.from_pretrained(name)
        path = cached_file(shop.folder or name, SHOWCASE_FILE, _raise_exceptions_for_missing_entries=False)
        showcase = read_showcase(path, shop.processor.item_ids)
    except (ValueError, OSError) as error:
        raise ModelError(" ".join(str(error).split())) from error
    return PageModel(name, shop, showcase)
