"""What the page's events do, as functions of what its fields hold: ranking, adding items, choosing, searching.

What a visitor adds is kept as data in the visitor's own fields, and passed to every function that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any
from urllib.parse import parse_qs, urlencode

import gradio as gr
from page_model import LONGEST_TEXT, OwnItem, PageModel
from results import message, render

__all__ = ["MOST_ITEMS", "MOST_WEIGHT", "NOBODY", "SEARCH_RESULTS", "Actions"]

NOBODY = -1
"""Stands for a new shopper, whose history is empty."""
SEARCH_RESULTS, FEW_ITEMS, MOST_ITEMS, MOST_WEIGHT = 6, 6, 20, 3.0


class Actions:
    """What the page's events do, as functions of what its fields hold.

    Args:
        model: the model to show.
    """

    def __init__(self, model: PageModel) -> None:
        self.model = model
        self.most = min(MOST_ITEMS, model.num_items)

    # The list

    def rank(
        self,
        own: Sequence[OwnItem],
        known: Sequence[str],
        counted: Sequence[str],
        wish: str,
        avoid: str,
        strict: bool,
        k: int,
        dial: float,
        *weights: float,
    ) -> str:
        """The list as HTML, or a line that says why there is none.

        Args:
            own: items that the visitor added.
            known: items of the history, oldest first.
            counted: those that are ticked.
            wish: what is wanted.
            avoid: what is not.
            strict: whether items that name what is to be avoided are left out.
            k: items of the list.
            dial: how far the wish moves the list.
            *weights: factors, in the order of `PageModel.parts`.
        """
        history = [item for item in known if item in set(counted)]
        factors = dict(zip(self.model.parts, weights, strict=True))
        k = min(max(int(k), 1), self.most)
        state = {"item": history, "wish": wish, "avoid": avoid, "strict": int(strict), "k": k}
        state |= {name: value for name, value in {"dial": dial, **factors}.items() if value != 1}
        asked = {"strict": strict, "dial": dial, "weights": factors, "k": k}
        try:
            model = self.model.with_items(tuple(own))
            answer = model.answer(history, wish[:LONGEST_TEXT], avoid[:LONGEST_TEXT], **asked)
        except ValueError as error:
            return message(str(error))
        link = urlencode({key: value for key, value in state.items() if value not in ("", [])}, doseq=True)
        return render(answer, model.num_items, link=f"?{link}", added=bool(own))

    def recommend(
        self, history: list[str], preference: str = "", avoid: str = "", k: int = 10
    ) -> list[dict[str, str | float]]:
        """Ranked items for programs: item_id, title and score, best first."""
        try:
            asked = self.model.request(history, preference[:LONGEST_TEXT], avoid[:LONGEST_TEXT])
            return self.model.shop.recommend_batch([asked], top_k=min(max(int(k), 1), self.most))[0]
        except ValueError as error:
            raise gr.Error(str(error)) from error  # what programs get to read

    def add_item(self, own: Sequence[OwnItem], title: str, text: str) -> tuple[Any, str]:
        """The visitor's items with one more, and a line that says so, or why there is none."""
        more = (*own, OwnItem(title.strip(), text.strip()))
        try:
            self.model.with_items(more)
        except ValueError as error:
            return own, message(str(error))
        return more, message(f"“{title.strip()}” is in the catalogue that you see; nobody else sees it.")

    # The history

    def choose(self, shopper: int) -> tuple[list[str], Any]:
        """The history of a shopper, all of it ticked."""
        history = [] if shopper == NOBODY else list(self.model.shoppers[shopper].history)
        return history, self._history(history, history)

    def find(self, query: str, known: Sequence[str]) -> list[Any]:
        """Ids of items whose titles match, and the buttons that add them."""
        processor = self.model.shop.processor
        found = self.model.titles.find(query, SEARCH_RESULTS, exclude=processor.item_indices(known))
        buttons = [gr.Button(f"+ {processor.titles[index]}", visible=True) for index in found]
        hidden = [gr.Button(visible=False)] * (SEARCH_RESULTS - len(found))
        nothing = bool(query.strip()) and not found
        note = gr.HTML(message("No other title has words that begin so."), visible=nothing)
        return [processor.ids(found), note, *buttons, *hidden]

    def add(self, place: int, found: Sequence[str], known: Sequence[str], counted: Sequence[str]) -> tuple[Any, ...]:
        """The history with one of the items found added, and an empty search field."""
        if place < len(found) and found[place] not in known:
            known, counted = [*known, found[place]], [*counted, found[place]]
        return known, self._history(known, counted), ""

    def add_first(self, query: str, known: Sequence[str], counted: Sequence[str]) -> tuple[Any, ...]:
        """The history with the best match added: of what the field holds now, which the buttons may not show yet."""
        return self.add(0, self.find(query, known)[0], known, counted)

    def wish_of(self, shopper: int) -> str:
        """What this shopper wants next, according to the benchmark."""
        return "" if shopper == NOBODY else self.model.shoppers[shopper].preference

    def _history(self, known: Sequence[str], counted: Sequence[str]) -> Any:
        choices = [(self.model.title(item), item) for item in known]
        return gr.CheckboxGroup(choices=choices, value=list(counted), visible=bool(known))

    # The first look

    def start(self, query: str) -> tuple[Any, ...]:
        """Shopper, history and all fields from the address; without one, a wish to begin with.

        Args:
            query: the part of the address behind the question mark.

        Returns:
            Shopper, history, check boxes, wish, avoid, strict, k, dial, and the weights.
        """
        model = self.model
        ours = {"item", "wish", "avoid", "strict", "k", "dial", *model.parts}  # gradio and Spaces have parameters too
        given = {name: values for name, values in parse_qs(query).items() if name in ours}
        few = min(FEW_ITEMS, self.most)
        if not given:
            first = model.sentences[0] if model.sentences else None
            # Without a wish, a shopper from the middle, where histories are neither long nor short.
            shopper = len(model.shoppers) // 2 if model.shoppers and first is None else NOBODY
            words = (first.preference, first.avoid) if first else ("", "")
            return shopper, *self.choose(shopper), *words, False, few, 1.0, *(1.0 for _ in model.parts)
        known = [item for item in dict.fromkeys(given.get("item", [])) if item in model.shop]
        shopper = next((n for n, one in enumerate(model.shoppers) if list(one.history) == known), NOBODY)
        wish, avoid = (given.get(name, [""])[-1] for name in ("wish", "avoid"))
        strict = given.get("strict", ["0"])[-1] == "1"
        k = int(_number(given, "k", few, 1, self.most))
        dial, *weights = (_number(given, name, 1.0, 0.0, MOST_WEIGHT) for name in ("dial", *model.parts))
        return shopper, known, self._history(known, known), wish, avoid, strict, k, dial, *weights


def _number(given: Mapping[str, Sequence[str]], name: str, default: float, least: float, most: float) -> float:
    """A number of the address, in its range; the default where there is none."""
    try:
        value = float(given.get(name, [""])[-1])
    except ValueError:
        return default
    return min(max(value, least), most) if isfinite(value) else default
