"""The page: what a person writes on one side, what the model makes of it on the other.

Lists change while one types. Everything works from the keyboard: fields and buttons come in the order of reading, Enter
in a field ranks, Enter in the search field takes the first title found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any
from urllib.parse import parse_qs, urlencode

import gradio as gr
from lists import AGAINST, message, render
from recommender import Recommender
from showcase_file import Sentence, Shopper

__all__ = ["LOOK", "build_page"]

SEARCH_RESULTS, MOST_ITEMS, MOST_BEAMS = 6, 20, 200
LOOK = {
    # Fonts of the system: nothing is fetched from elsewhere.
    "theme": gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ),
    # In the head as it is: of a style sheet passed as css=, gradio would drop the container queries.
    "head": f"<style>{(Path(__file__).parent / 'style.css').read_text('utf-8')}</style>",
}
"""Theme and style sheet, as `launch` takes them."""
NOBODY = -1
TO_SEARCH = "() => document.querySelector('#search input, #search textarea')?.focus()"


class Actions:
    """What the page's events do, as functions of what its fields hold.

    Args:
        recommender: the model to show.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender

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
            answer = self.recommender.answer(history, wish, avoid, k=int(k), num_beams=int(beams))
        except ValueError as error:
            return message(str(error)), ""
        shown = render(
            answer,
            against=against,
            log_probabilities=self.recommender.scores_are_log_probabilities,
            link=f"?{urlencode({key: value for key, value in state.items() if value}, doseq=True)}",
        )
        return shown, answer.read

    def recommend(
        self, history: list[str], preference: str = "", avoid: str = "", k: int = 10
    ) -> list[dict[str, str | float]]:
        """Ranked items for programs: item_id, title and score, best first."""
        try:
            answer = self.recommender.answer(history, preference, avoid, k=k)
        except ValueError as error:
            raise gr.Error(str(error)) from error  # what programs get to read
        return [{"item_id": item.item_id, "title": item.title, "score": item.score} for item in answer.full]

    # The history

    def choose(self, shopper: int) -> tuple[list[str], Any]:
        """The history of a shopper, all of it ticked."""
        history = [] if shopper == NOBODY else list(self.recommender.shoppers[shopper].history)
        return history, self._history(history, history)

    def find(self, query: str, known: Sequence[str]) -> list[Any]:
        """Ids of titles that match, and the buttons that add them."""
        rows = self.recommender.titles.find(query, SEARCH_RESULTS, exclude=self.recommender.processor.rows(known))
        processor = self.recommender.processor
        buttons = [gr.Button(f"+ {processor.titles[row]}", visible=True) for row in rows]
        hidden = [gr.Button(visible=False)] * (SEARCH_RESULTS - len(rows))
        nothing = bool(query.strip()) and not rows
        note = gr.HTML(message("No other title has words that begin so."), visible=nothing)
        return [processor.ids(rows), note, *buttons, *hidden]

    def add(self, place: int, found: Sequence[str], known: Sequence[str], counted: Sequence[str]) -> tuple[Any, ...]:
        """The history with one found item more, and an empty search field."""
        if place < len(found) and found[place] not in known:
            known, counted = [*known, found[place]], [*counted, found[place]]
        return known, self._history(known, counted), ""

    def add_first(self, query: str, known: Sequence[str], counted: Sequence[str]) -> tuple[Any, ...]:
        """The history with the best match more: of what the field holds now, which the buttons may not show yet."""
        return self.add(0, self.find(query, known)[0], known, counted)

    def wish_of(self, shopper: int) -> str:
        """What this shopper wants next, as the benchmark has it."""
        return "" if shopper == NOBODY else self.recommender.shoppers[shopper].preference

    def _history(self, known: Sequence[str], counted: Sequence[str]) -> Any:
        choices = [(self.recommender.title(item), item) for item in known]
        return gr.CheckboxGroup(choices=choices, value=list(counted), visible=bool(known))

    # The first look

    def start(self, query: str) -> tuple[Any, ...]:
        """Shopper, history and fields as the address says; without one, a shopper with a wish of their own.

        Args:
            query: the part of the address behind the question mark.
        """
        given = parse_qs(query)
        recommender = self.recommender
        most = min(MOST_ITEMS, recommender.num_items)
        if not given:
            # Somebody from the middle, whose history is neither long nor short.
            shopper = len(recommender.shoppers) // 2 if recommender.shoppers else NOBODY
            known, history = self.choose(shopper)
            wish = self.wish_of(shopper) if recommender.reads_preference else ""
            return shopper, known, history, wish, "", min(10, most), 30
        items = set(recommender.processor.item_ids)
        known = [item for item in dict.fromkeys(given.get("item", [])) if item in items]
        shopper = next((n for n, one in enumerate(recommender.shoppers) if list(one.history) == known), NOBODY)
        wish, avoid = (given.get(name, [""])[-1] for name in ("wish", "avoid"))
        k, beams = _number(given, "k", min(10, most), most), _number(given, "beams", 30, MOST_BEAMS)
        return shopper, known, self._history(known, known), wish, avoid, k, beams


def build_page(recommender: Recommender) -> gr.Blocks:
    """The page for one model."""
    actions = Actions(recommender)
    reads = recommender.reads_preference
    with gr.Blocks(title="Mender: say what you want", analytics_enabled=False) as page:
        gr.HTML(_head(recommender))
        known, found = gr.State([]), gr.State([])
        with gr.Row(elem_classes="m-page"):
            with gr.Column(elem_classes="m-say"):
                wish = gr.Textbox(
                    label="What do you want?",
                    placeholder="Find tea with a malty brew",
                    info="In your own words; the lists change as you type.",
                    lines=1,
                    visible=reads,
                    elem_id="wish",
                )
                avoid = gr.Textbox(
                    label="What should stay out?",
                    placeholder="vanilla scent",
                    info="The model reads “Avoid vanilla scent”. Whether it obeys is for you to see.",
                    lines=1,
                    visible=reads,
                    elem_id="avoid",
                )
                tried = _sentence_buttons(recommender) if reads else []
            with gr.Column(elem_classes="m-see"):
                shown = gr.HTML(message("One moment."), elem_id="answer")
                against = gr.Radio(
                    list(AGAINST), value=AGAINST[0], label="Compare with", visible=reads, elem_id="against"
                )
                with gr.Row():
                    most = min(MOST_ITEMS, recommender.num_items)
                    k = gr.Slider(1, most, value=min(10, most), step=1, label="Items (k)", elem_id="k")
                    beams = gr.Slider(
                        1, MOST_BEAMS, value=30, step=1, label="Beams", visible=recommender.uses_beams, elem_id="beams"
                    )
                with gr.Accordion("What the model read", open=False):
                    read = gr.Textbox(label="Given to the model", lines=2, interactive=False, elem_id="read")
            with gr.Column(elem_classes="m-who", visible=recommender.reads_history):
                shopper = gr.Dropdown(
                    _shopper_choices(recommender),
                    label="Who is shopping?",
                    value=NOBODY,
                    info=None if recommender.shoppers_are_real else "Made up: what the model itself would buy next.",
                    elem_id="shopper",
                )
                own = gr.Button(
                    "Ask for what this shopper wanted next",
                    size="sm",
                    visible=reads and any(one.preference for one in recommender.shoppers),
                    elem_id="own",
                )
                search = gr.Textbox(
                    label="Add to the history",
                    placeholder=f"Search {recommender.num_items:,} titles",
                    info="Beginnings of words; Enter adds the first title found.",
                    lines=1,
                    elem_id="search",
                )
                nothing = gr.HTML(visible=False)
                results = [
                    gr.Button(visible=False, size="sm", elem_classes="m-found", elem_id=f"found-{place}")
                    for place in range(SEARCH_RESULTS)
                ]
                counted = gr.CheckboxGroup(
                    [], label="History, oldest first", info="Untick what should not count.", elem_id="history"
                )

        asked = [known, counted, wish, avoid, against, k, beams]
        ranking = {
            "fn": actions.rank,
            "inputs": asked,
            "outputs": [shown, read],
            "show_progress": "hidden",
            "concurrency_id": "model",
            "api_visibility": "private",
        }
        light = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        for field in (wish, avoid, counted, k, beams, against):
            field.input(**ranking, trigger_mode="always_last")
        for field in (wish, avoid):
            field.submit(**ranking)
        for button, sentence in tried:
            button.click(
                lambda sentence=sentence: (sentence.preference, sentence.avoid), None, [wish, avoid], **light
            ).then(**ranking)
        shopper.input(actions.choose, shopper, [known, counted], **light).then(**ranking)
        own.click(actions.wish_of, shopper, wish, **light).then(**ranking)
        matches = {"fn": actions.find, "inputs": [search, known], "outputs": [found, nothing, *results]}
        search.input(**matches, trigger_mode="always_last", **light)
        additions = [search.submit(actions.add_first, [search, known, counted], [known, counted, search], **light)]
        for place, button in enumerate(results):
            add = partial(actions.add, place)
            additions.append(button.click(add, [found, known, counted], [known, counted, search], **light))
        for addition in additions:
            addition.then(**matches, **light).then(**ranking).then(None, js=TO_SEARCH)

        def start(request: gr.Request) -> tuple[Any, ...]:
            return actions.start(str(request.query_params))

        page.load(start, None, [shopper, known, counted, wish, avoid, k, beams], **light).then(**ranking)
        gr.api(actions.recommend, api_name="recommend", concurrency_id="model")
    return page


def _number(given: Mapping[str, Sequence[str]], name: str, default: int, most: int) -> int:
    """A number of the address, from 1 to `most`; the default where it is none."""
    text = given.get(name, [""])[-1]
    return min(max(int(text), 1), most) if text.isdecimal() else default


def _head(recommender: Recommender) -> str:
    kind = recommender.model.config.model_type.removeprefix("mender_").replace("_", " ")
    note = ""
    if not recommender.reads_preference:
        note = (
            "This model reads no preference, only what was bought: there is nothing to write. "
            "One that listens: <code>python examples/02_train.py --preset mender-tok</code>"
        )
    elif not recommender.reads_history:
        note = "This model reads no history, only what you write."
    note = f'<p class="m-note">{note}</p>' if note else ""
    path = Path(recommender.name)
    name = str(Path(*path.parts[-2:])) if path.is_absolute() else recommender.name
    title, promise = "What comes next", ""
    if recommender.reads_preference:
        title = "Say what you want, watch the list change"
        promise = " The same model answers with and without your words."
    model = f"<code>{escape(name)}</code> ({escape(kind)}) ranks {recommender.num_items:,} items."
    return f'<header class="m-head"><h1>{title}</h1><p>{model}{promise}</p>{note}</header>'


def _sentence_buttons(recommender: Recommender) -> list[tuple[gr.Button, Sentence]]:
    """One button per sentence to try."""
    with gr.Row(elem_classes="m-try"):
        return [
            (gr.Button(_label(sentence), size="sm", elem_id=f"try-{place}", min_width=80), sentence)
            for place, sentence in enumerate(recommender.showcase.sentences)
        ]


def _label(sentence: Sentence) -> str:
    return "Try: " + ". ".join(filter(None, (sentence.preference, sentence.avoid)))


def _shopper_choices(recommender: Recommender) -> list[tuple[str, int]]:
    def latest(shopper: Shopper) -> str:
        return shorten(recommender.title(shopper.history[-1]), 40, placeholder="…")

    choices = [
        (f"Shopper {place + 1}: {len(one.history)} items, lately {latest(one)}", place)
        for place, one in enumerate(recommender.shoppers)
    ]
    return [*choices, ("Someone new: start with an empty history", NOBODY)]
