"""What the page's events do, as functions of what its fields hold: ranking, choosing, searching, and the first look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

import gradio as gr
from lists import message, render
from page_model import PageModel

__all__ = ["MOST_BEAMS", "MOST_ITEMS", "NOBODY", "SEARCH_RESULTS", "Actions"]

NOBODY = -1
"""Stands for a new shopper, whose history is empty."""
SEARCH_RESULTS, MOST_ITEMS, MOST_BEAMS = 6, 20, 200


class Actions:
    """What the page's events do, as functions of what its fields hold.

    Args:
        model: the model to show.
    """

    def __init__(self, model: PageModel) -> None:
        self.model = model

    # The lists

    def rank(
        self, known: Sequence[str], counted: Sequence[str], wish: str, avoid: str, against: str, k: int, beams: int
    ) -> tuple[str, str]:
        """Lists as HTML, and what the model read.

        Args:
            known: items of the history, oldest first.
            counted: those that are ticked.
            wish: what is wanted.
            avoid: what is not.
            against: one of `AGAINST`.
            k: items per list.
            beams: prefixes kept per level.
        """
        history = [item for item in known if item in set(counted)]
        state = {"item": history, "wish": wish, "avoid": avoid, "k": int(k), "beams": int(beams)}
        try:
            answer = self.model.answer(history, wish, avoid, k=int(k), num_beams=int(beams))
        except ValueError as error:
            return message(str(error)), ""
        shown = render(
            answer,
            against=against,
            unit=self.model.unit,
            link=f"?{urlencode({key: value for key, value in state.items() if value}, doseq=True)}",
        )
        return shown, answer.read

    def recommend(
        self, history: list[str], preference: str = "", avoid: str = "", k: int = 10
    ) -> list[dict[str, str | float]]:
        """Ranked items for programs: item_id, title and score, best first."""
        try:
            return self.model.recommend(self.model.request(history, preference, avoid), top_k=k)
        except ValueError as error:
            raise gr.Error(str(error)) from error  # what programs get to read

    # The history

    def choose(self, shopper: int) -> tuple[list[str], Any]:
        """The history of a shopper, all of it ticked."""
        history = [] if shopper == NOBODY else list(self.model.shoppers[shopper].history)
        return history, self._history(history, history)

    def find(self, query: str, known: Sequence[str]) -> list[Any]:
        """Ids of items whose titles match, and the buttons that add them."""
        processor = self.model.processor
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
        """Shopper, history and fields from the address; without one, a shopper with a wish of their own.

        Args:
            query: the part of the address behind the question mark.
        """
        given = parse_qs(query)
        model = self.model
        most = min(MOST_ITEMS, model.num_items)
        if not given:
            # From the middle, where histories are neither long nor short.
            shopper = len(model.shoppers) // 2 if model.shoppers else NOBODY
            known, history = self.choose(shopper)
            wish = self.wish_of(shopper) if model.reads_preference else ""
            return shopper, known, history, wish, "", min(10, most), 30
        items = set(model.processor.item_ids)
        known = [item for item in dict.fromkeys(given.get("item", [])) if item in items]
        shopper = next((n for n, one in enumerate(model.shoppers) if list(one.history) == known), NOBODY)
        wish, avoid = (given.get(name, [""])[-1] for name in ("wish", "avoid"))
        k, beams = _number(given, "k", min(10, most), most), _number(given, "beams", 30, MOST_BEAMS)
        return shopper, known, self._history(known, known), wish, avoid, k, beams


def _number(given: Mapping[str, Sequence[str]], name: str, default: int, most: int) -> int:
    """A number of the address, from 1 to `most`; the default where there is none."""
    text = given.get(name, [""])[-1]
    return min(max(int(text), 1), most) if text.isdecimal() else default
