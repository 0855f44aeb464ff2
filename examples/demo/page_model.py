"""A saved model with its items, and the lists that it gives with everything a person wrote and with parts of it.

Works with any model of the library, from a folder or the Hub, through its pipeline. If the package is installed, its
own code runs; without it, as in a Space, the code in the model's repository, if that is trusted.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comparison import RankedItem
from showcase_file import SHOWCASE_FILE, Showcase, draw_shoppers, read_showcase
from title_search import TitleSearch, words_of
from transformers import pipeline
from transformers.utils import cached_file

try:
    from mender import saved_models as installed  # registers the classes, and the encoder that may lie beside them
except ModuleNotFoundError as missing:
    if missing.name != "mender":
        raise
    installed = None

__all__ = ["Answer", "ModelError", "PageModel", "load_model"]

TASK = "generative-retrieval"
TRAIN = "train one with `make demo`, or pass --model with a folder that save_pretrained wrote or a Hub id"
TRUST = "MENDER_TRUST_REMOTE_CODE"
# Words of what to avoid that are not worth looking for in items.
STOP_WORDS = frozenset(
    "a about an and any anything are as at avoid by exclude for from in is it more no not of on or other please some"
    " something that the things this to too very with without".split()
)
COMMON = 0.1
"""Words of more than this share of the items do not describe the few that are ranked."""


class ModelError(ValueError):
    """A model that the page cannot show; the message says why and what to do, in one line."""


@dataclass(frozen=True)
class Answer:
    """Lists for one request, best item first.

    Attributes:
        alone: by the history alone; `None` without a history, or where nothing was written.
        wished: with the wish, but nothing to avoid; `None` where that is one of the other two.
        full: with everything that was written.
        words: what to avoid, as words that some items, but not too many, mention.
        read: what the model was given, as text.
        num_beams: prefixes kept per level; `None` for models that score every item.
        seconds: for all lists together.
    """

    alone: list[RankedItem] | None
    wished: list[RankedItem] | None
    full: list[RankedItem]
    words: list[str]
    read: str
    num_beams: int | None
    seconds: float


class PageModel:
    """A model with its items and what is known of them and of shoppers.

    Args:
        name: name of the model to show.
        recommend: its pipeline.
        showcase: attributes, shoppers and sentences; without shoppers, the model makes some up.
    """

    def __init__(self, name: str, recommend: Any, showcase: Showcase) -> None:
        self.name, self.recommend, self.showcase = name, recommend, showcase
        self.model, self.processor = recommend.model, recommend.processor
        self.reads_preference, self.reads_history = self.processor.reads_preference, self.processor.reads_history
        self.titles = TitleSearch(self.processor.titles)
        texts = [" ".join((title, *self.attributes(index))) for index, title in enumerate(self.processor.titles)]
        self._texts = [f" {' '.join(words_of(text))} " for text in texts]
        self._words = Counter(word for text in self._texts for word in set(text.split()))
        self._phrases = {" ".join(words_of(phrase)) for phrases in showcase.attributes.values() for phrase in phrases}
        self.shoppers = showcase.shoppers
        self.shoppers_are_real = bool(self.shoppers)
        if not self.shoppers and self.reads_history:
            self.shoppers = draw_shoppers(self._next_items, self.processor.item_ids, count=6, length=6)

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.processor.item_ids)

    @property
    def uses_beams(self) -> bool:
        """Whether items are found by beam search; other models score every item."""
        return hasattr(self.model, "catalogue")

    @property
    def kind(self) -> str:
        """What kind of model it is, in a word or two."""
        return self.model.config.model_type.removeprefix("mender_").replace("_", " ")

    @property
    def unit(self) -> str:
        """What a score is."""
        return "log-probability" if getattr(self.model, "experts", None) is None else "weighted sum of experts"

    @property
    def on_avoid(self) -> str:
        """What the model does with what should stay out."""
        return "items that match are ranked lower" if self.processor.experts else "the model reads “Avoid ...”"

    def attributes(self, index: int) -> tuple[str, ...]:
        """Phrases about an item, perhaps none."""
        return self.showcase.attributes.get(self.processor.item_ids[index], ())

    def title(self, item_id: str) -> str:
        """Title of an item id."""
        return self.processor.titles[self.processor.item_indices([item_id])[0]]

    def request(self, history: Sequence[str], wish: str = "", avoid: str = "") -> dict[str, Any]:
        """A request for the pipeline; items of the history are left out of its results.

        Args:
            history: item ids, oldest first.
            wish: preferences, one per line.
            avoid: what is not wanted, one phrase per line.

        Raises:
            ValueError: if there is nothing that the model reads.
        """
        wishes, avoided = (_lines(text) if self.reads_preference else [] for text in (wish, avoid))
        if not wishes and not avoided and not (history and self.reads_history):
            needed = "choose a shopper or add items" if not self.reads_preference else "write what you want"
            raise ValueError(f"The request is empty: {needed}.")
        return {"preference": wishes, "avoid": avoided, "history": list(history), "exclude": list(history)}

    def answer(
        self, history: Sequence[str], wish: str = "", avoid: str = "", *, k: int = 10, num_beams: int = 30
    ) -> Answer:
        """Ranked items with and without what was written.

        All lists come from one batch, so that they differ in nothing but the text.

        Args:
            history: see `request`.
            wish: see `request`.
            avoid: see `request`.
            k: items per list.
            num_beams: prefixes kept per level; raised to k where it is less.

        Raises:
            ValueError: see `request`, or if the same is wanted and to be avoided.
        """
        full = self.request(history, wish, avoid)
        requests = {"full": full}
        if history and self.reads_history and (full["preference"] or full["avoid"]):
            requests["alone"] = full | {"preference": [], "avoid": []}
        if full["preference"] and full["avoid"]:
            requests["wished"] = full | {"avoid": []}
        beams = max(num_beams, k) if self.uses_beams else None
        started = time.perf_counter()
        ranked = self.recommend(list(requests.values()), top_k=k, num_beams=beams, batch_size=len(requests))
        seconds = time.perf_counter() - started
        parsed = self.recommend.preprocess(full)["requests"][0].request
        phrases = self.processor.avoided(parsed)
        words = words_to_find(phrases, self._phrases, self._words.__getitem__, self.num_items)
        lists = {name: self._items(items, words) for name, items in zip(requests, ranked, strict=True)}
        return Answer(
            alone=lists.get("alone"),
            wished=lists.get("wished"),
            full=lists["full"],
            words=words,
            read=self._read(parsed, phrases),
            num_beams=beams,
            seconds=seconds,
        )

    def _items(self, items: Sequence[dict[str, Any]], words: Sequence[str]) -> list[RankedItem]:
        indices = self.processor.item_indices([item["item_id"] for item in items])
        return [
            RankedItem(
                index=index,
                **item,
                attributes=self.attributes(index),
                mentions=tuple(word for word in words if f" {word} " in self._texts[index]),
            )
            for index, item in zip(indices, items, strict=True)
        ]

    def _next_items(self, histories: list[list[str]]) -> list[list[str]]:
        if len(histories[0]) >= self.num_items:
            return [[] for _ in histories]
        requests = [{"history": history, "exclude": history} for history in histories]
        found = self.recommend(requests, top_k=3, batch_size=len(requests))
        return [[item["item_id"] for item in items] for items in found]

    def _read(self, request: Any, phrases: Sequence[str]) -> str:
        """What reached the model: wishes in the spelling that it read, and as much of the history as fits.

        Args:
            request: a `Request`.
            phrases: what to avoid.
        """
        parts = [f"“{self.processor.corrected(text)}”" for text in request.texts]
        if phrases:
            how = "to avoid" if self.processor.experts else "to avoid, in a sentence"
            parts.append(f"{how}: {', '.join(f'“{phrase}”' for phrase in phrases)}")
        items = request.history
        if self.reads_history and items:
            whole = self.processor.features(request)["input_ids"]
            # The oldest items are left out where the input is full: the fewest latest ones that give the same input.
            fewest = 0 if request.texts or (request.avoid and not self.processor.experts) else 1
            counts = range(fewest, len(items) + 1)
            shorter = (replace(request, history=items[len(items) - count :]) for count in counts)
            same = (self.processor.features(one)["input_ids"] == whole for one in shorter)
            count = next(count for count, equal in zip(counts, same, strict=True) if equal)
            form = {"titles": "titles", "codes": "semantic IDs", "indices": "item numbers"}
            form = form.get(self.processor.history, "cached vectors of their titles")
            latest = "all" if count == len(items) else f"the latest {count} of"
            parts.append(f"{latest} {len(items)} items of the history, as {form}")
        return "; ".join(parts)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def words_to_find(
    avoided: Iterable[str],
    phrases: Container[str],
    mentioned_by: Callable[[str], int],
    items: int,
    longest: int = 6,
) -> list[str]:
    """Words to look for in ranked items, to check that they do not have what to avoid. The model does not see them.

    Attribute phrases that are in the texts; if there are none, their words that some items have, but not every tenth.

    Args:
        avoided: texts about what to avoid.
        phrases: attributes of the catalogue, as `words_of` joined by spaces.
        mentioned_by: how many items have a word.
        items: number of items.
        longest: words of a phrase at most.

    >>> words_to_find(["tea with an oil-free formula"], {"oil free formula"}, lambda word: 1, 100)
    ['oil free formula']
    >>> words_to_find(["any tea"], (), lambda word: 3, 100)
    ['tea']
    """
    words = words_of(" ".join(avoided))
    runs = [" ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, start + 1 + longest)]
    found = [run for run in dict.fromkeys(runs) if run in phrases]
    if found:
        return [
            phrase for phrase in found if not any(f" {phrase} " in f" {other} " for other in found if other != phrase)
        ]
    words = [word for word in dict.fromkeys(words) if word not in STOP_WORDS and len(word) > 2]
    return [word for word in words if 0 < mentioned_by(word) <= max(1, COMMON * items)]


def load_model(name: str, *, trust_remote_code: bool = False) -> PageModel:
    """A saved model, from a folder or the Hub.

    Args:
        name: folder, or Hub id.
        trust_remote_code: whether the code in its repository may run where the package is not installed.

    Raises:
        ModelError: if there is no such model, it is not a recommender, or its code is not trusted.
    """
    folder = Path(name)
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            raise ModelError(
                f"{name} holds an adapter alone; merge it with merge_and_unload() and save the whole model"
            )
        lacking = [file for file in ("config.json", "items.json") if not (folder / file).is_file()]
        if lacking:
            raise ModelError(f"no saved model in {name}: {lacking[0]} is missing; {TRAIN}")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ModelError(f"there is no folder {name!r}; {TRAIN}")
    if installed is None and not trust_remote_code:
        raise ModelError(
            f"the package mender is not installed; install it, or set {TRUST}=1 to run the code "
            f"that {name} carries, once you have read it"
        )
    try:
        recommend = pipeline(TASK, model=name, trust_remote_code=installed is None)
        path = cached_file(name, SHOWCASE_FILE, _raise_exceptions_for_missing_entries=False)
        showcase = read_showcase(path, recommend.processor.item_ids)
    # Damaged files raise whatever the libraries that read them raise; each of them means the same here.
    except Exception as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 200 else f"{reason[:200]}..."
        where = "" if folder.is_dir() else "neither a folder here nor loadable from the Hub: "
        raise ModelError(f"cannot load {name}: {where}{reason.rstrip('.')}; {TRAIN}") from error
    return PageModel(name, recommend, showcase)
