"""A saved model with its items; one batch ranks them with everything a person wrote, and with parts of it.

Works with any model of the library, from a folder or the Hub. If the package is installed, its own code runs; without
it, as in a Space, the code in the model's repository, if that is trusted.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comparison import RankedItem
from showcase_file import SHOWCASE_FILE, Showcase, draw_shoppers, read_showcase
from title_search import TitleSearch, words_of
from transformers import AutoModel, AutoProcessor
from transformers.utils import cached_file

try:
    import modeling_mender
except ModuleNotFoundError as missing:
    if missing.name != "modeling_mender":
        raise
    modeling_mender = None

__all__ = ["Answer", "ModelError", "Recommender", "load_recommender"]

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


class Recommender:
    """Model, processor and what is known of items and shoppers.

    Args:
        name: name of the model to show.
        model: with `recommend`.
        processor: the one saved with it.
        showcase: attributes, shoppers and sentences; without shoppers, the model makes some up.

    Raises:
        ModelError: if model and processor do not fit together or cannot recommend.
    """

    def __init__(self, name: str, model: Any, processor: Any, showcase: Showcase) -> None:
        for part, value, method in (("model", model, "recommend"), ("processor", processor, "decode_items")):
            if not hasattr(value, method):
                raise ModelError(f"{name} is not a recommender: its {part} is a {type(value).__name__}; {TRAIN}")
        count = len(processor.item_ids)
        known = getattr(getattr(model, "item_codes", None), "shape", [count])[0]
        if not count or known != count:
            raise ModelError(
                f"{name} has {known} items in its model and {count} in items.json; save model and processor together"
            )
        self.name, self.model, self.processor, self.showcase = name, model.eval(), processor, showcase
        self.titles = TitleSearch(processor.titles)
        texts = [" ".join((title, *self.attributes(index))) for index, title in enumerate(processor.titles)]
        self._texts = [f" {' '.join(words_of(text))} " for text in texts]
        self._words = Counter(word for text in self._texts for word in set(text.split()))
        self._phrases = {" ".join(words_of(phrase)) for phrases in showcase.attributes.values() for phrase in phrases}
        self.shoppers = showcase.shoppers
        self.shoppers_are_real = bool(self.shoppers)
        if not self.shoppers and self.reads_history:
            self.shoppers = draw_shoppers(self._next_items, processor.item_ids, count=6, length=6)
        # A function of the processor's module, wherever that comes from: the package, or the model's repository.
        self._avoid_sentence = sys.modules[type(processor).__module__].avoid_sentence

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.processor.item_ids)

    @property
    def reads_preference(self) -> bool:
        """Whether the model reads preferences."""
        return self.processor.preference == "text" and self.processor.history != "indices"

    @property
    def reads_history(self) -> bool:
        """Whether the history reaches the model."""
        return self.processor.history != "none"

    @property
    def uses_beams(self) -> bool:
        """Whether items are found by beam search; other models score every item."""
        return hasattr(self.model, "catalogue")

    @property
    def scores_are_log_probabilities(self) -> bool:
        """Whether scores are log-probabilities; text retrieval's are scaled cosines."""
        return self.model.config.model_type != "mender_text_retrieval"

    def attributes(self, index: int) -> tuple[str, ...]:
        """Phrases about an item, perhaps none."""
        return self.showcase.attributes.get(self.processor.item_ids[index], ())

    def title(self, item_id: str) -> str:
        """Title of an item id."""
        return self.processor.titles[self.processor.item_indices([item_id])[0]]

    def answer(
        self, history: Sequence[str], wish: str = "", avoid: str = "", *, k: int = 10, num_beams: int = 30
    ) -> Answer:
        """Ranked items with and without what was written; items of the history are left out.

        All lists come from one batch, so that they differ in nothing but the text.

        Args:
            history: item ids, oldest first.
            wish: preferences, one per line.
            avoid: what to leave out; becomes a sentence after the wish, as models are trained on.
            k: items per list.
            num_beams: prefixes kept per level; raised to k where it is less.

        Raises:
            ValueError: if there is neither a history nor a text.
        """
        wishes = [line.strip() for line in wish.splitlines() if line.strip()] if self.reads_preference else []
        avoided = self._avoid_sentence(avoid) if self.reads_preference else ""
        full = [*wishes, *filter(None, [avoided])]
        has_history = bool(history) and self.reads_history
        if not full and not has_history:
            needed = "choose a shopper or add items" if not self.reads_preference else "write what you want"
            raise ValueError(f"The request is empty: {needed}.")
        requests = {"full": full}
        if full and has_history:
            requests["alone"] = []
        if avoided and wishes:
            requests["wished"] = wishes
        beams = max(num_beams, k) if self.uses_beams else None
        started = time.perf_counter()
        ranked = self._rank(list(requests.values()), history, k, beams)
        seconds = time.perf_counter() - started
        words = words_to_find(avoided, self._phrases, self._words.__getitem__, self.num_items)
        lists = {name: self._items(*one, words) for name, one in zip(requests, ranked, strict=True)}
        return Answer(
            alone=lists.get("alone"),
            wished=lists.get("wished"),
            full=lists["full"],
            words=words,
            read=self._read(full, history),
            num_beams=beams,
            seconds=seconds,
        )

    def _rank(
        self, texts: Sequence[Sequence[str]], history: Sequence[str], k: int, beams: int | None
    ) -> list[tuple[list[int], list[float]]]:
        """Item indices and scores for one history and several texts."""
        inputs = self.processor(list(texts), [list(history)] * len(texts)).to(self.model.device)
        found = self.model.recommend(**inputs, top_k=k, num_beams=beams, exclude=self.processor.item_indices(history))
        kept = found.item_indices >= 0
        return [
            (indices[there].tolist(), scores[there].tolist())
            for indices, scores, there in zip(found.item_indices, found.scores, kept, strict=True)
        ]

    def _items(self, indices: Sequence[int], scores: Sequence[float], words: Sequence[str]) -> list[RankedItem]:
        return [
            RankedItem(
                index=index,
                item_id=self.processor.item_ids[index],
                title=self.processor.titles[index],
                attributes=self.attributes(index),
                score=score,
                mentions=tuple(word for word in words if f" {word} " in self._texts[index]),
            )
            for index, score in zip(indices, scores, strict=True)
        ]

    def _next_items(self, histories: list[list[str]]) -> list[list[str]]:
        texts = [[] for _ in histories]
        inputs = self.processor(texts, histories).to(self.model.device)
        seen = [self.processor.item_indices(history) for history in histories]
        if len(seen[0]) >= self.num_items:
            return [[] for _ in histories]
        found = self.model.recommend(**inputs, top_k=min(3, self.num_items - len(seen[0])), exclude=seen)
        return [self.processor.ids(indices) for indices in found.item_indices]

    def _read(self, sentences: Sequence[str], history: Sequence[str]) -> str:
        """What reached the model: the sentences, and as much of the history as fits."""
        parts = [f"“{sentence}”" for sentence in sentences]
        if self.reads_history and history:
            items = self.processor.item_indices(history)
            whole = self.processor.render(sentences, items)
            # The oldest items are left out where the input is full: the fewest latest ones that give the same input.
            count = next(n for n in range(len(items) + 1) if self._renders(sentences, items[len(items) - n :], whole))
            form = {"titles": "titles", "codes": "semantic IDs", "indices": "item numbers"}
            form = form.get(self.processor.history, "cached vectors of their titles")
            latest = "all" if count == len(items) else f"the latest {count} of"
            parts.append(f"{latest} {len(items)} items of the history, as {form}")
        return "; ".join(parts)

    def _renders(self, sentences: Sequence[str], items: Sequence[int], whole: Sequence[int]) -> bool:
        if not sentences and not items and self.reads_preference:
            return False  # an empty request cannot be rendered
        return self.processor.render(sentences, items) == whole


def words_to_find(
    avoided: str, phrases: Container[str], mentioned_by: Callable[[str], int], items: int, longest: int = 6
) -> list[str]:
    """Words to look for in ranked items, to check that they do not have what to avoid. The model does not see them.

    Attribute phrases that are in the sentence; if there are none, its words that some items have, but not every tenth.

    Args:
        avoided: the sentence about what to avoid.
        phrases: attributes of the catalogue, as `words_of` joined by spaces.
        mentioned_by: how many items have a word.
        items: number of items.
        longest: words of a phrase at most.

    >>> words_to_find("Avoid tea with an oil-free formula", {"oil free formula"}, lambda word: 1, 100)
    ['oil free formula']
    >>> words_to_find("Avoid tea", (), lambda word: 3, 100)
    ['tea']
    """
    words = words_of(avoided)
    runs = [" ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, start + 1 + longest)]
    found = [run for run in dict.fromkeys(runs) if run in phrases]
    if found:
        return [
            phrase for phrase in found if not any(f" {phrase} " in f" {other} " for other in found if other != phrase)
        ]
    words = [word for word in dict.fromkeys(words) if word not in STOP_WORDS and len(word) > 2]
    return [word for word in words if 0 < mentioned_by(word) <= max(1, COMMON * items)]


def load_recommender(name: str, *, trust_remote_code: bool = False) -> Recommender:
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
    if modeling_mender is None and not trust_remote_code:
        raise ModelError(
            f"the package modeling_mender is not installed; install it, or set {TRUST}=1 to run the code "
            f"that {name} carries, once you have read it"
        )
    settings = {"trust_remote_code": modeling_mender is None}
    try:
        model = AutoModel.from_pretrained(name, **settings)
        processor = AutoProcessor.from_pretrained(name, **settings)
        path = cached_file(name, SHOWCASE_FILE, _raise_exceptions_for_missing_entries=False)
        showcase = read_showcase(path, getattr(processor, "item_ids", ()))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 200 else f"{reason[:200]}..."
        where = "" if folder.is_dir() else "neither a folder here nor loadable from the Hub: "
        raise ModelError(f"cannot load {name}: {where}{reason.rstrip('.')}; {TRAIN}") from error
    if torch.cuda.is_available():
        model = model.to("cuda")
    return Recommender(name, model, processor, showcase)
