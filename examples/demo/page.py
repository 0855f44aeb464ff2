"""The page: what a person writes on one side, what the model makes of it on the other.

Lists change while one types. Everything works from the keyboard: fields and buttons come in the order of reading, Enter
in a field ranks, Enter in the search field takes the first title found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

import gradio as gr
from actions import MOST_BEAMS, MOST_ITEMS, NOBODY, SEARCH_RESULTS, Actions
from lists import AGAINST, message
from page_model import PageModel
from showcase_file import Sentence, Shopper

__all__ = ["LOOK", "build_page"]

LOOK = {
    # Fonts of the system: nothing is fetched from elsewhere.
    "theme": gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ),
    # In the head as it is: of a style sheet passed as css=, gradio would drop the container queries.
    "head": f"<style>{(Path(__file__).parent / 'style.css').read_text('utf-8')}</style>",
}
"""Theme and style sheet, as `launch` takes them."""
TO_SEARCH = "() => document.querySelector('#search input, #search textarea')?.focus()"


@dataclass(frozen=True)
class _Fields:
    """Parts of the page that events read or write.

    Attributes:
        known: items of the history, oldest first, ticked or not.
        counted: the check boxes of the items that count.
        found: ids of the titles found.
        results: buttons that add them.
        nothing: message if no title is found.
        tried: a button for every sentence to try.
        own: the button that asks for what the shopper wanted.
        shown: the answer.
        read: what the model read.
    """

    known: gr.State
    counted: gr.CheckboxGroup
    wish: gr.Textbox
    avoid: gr.Textbox
    against: gr.Radio
    k: gr.Slider
    beams: gr.Slider
    shopper: gr.Dropdown
    own: gr.Button
    search: gr.Textbox
    found: gr.State
    results: list[gr.Button]
    nothing: gr.HTML
    tried: list[tuple[gr.Button, Sentence]]
    shown: gr.HTML
    read: gr.Textbox


def build_page(model: PageModel) -> gr.Blocks:
    """The page for one model."""
    with gr.Blocks(title="Mender: say what you want", analytics_enabled=False) as page:
        _connect(page, _lay_out(model), Actions(model))
    return page


def _lay_out(model: PageModel) -> _Fields:
    """What there is to see, in the order of reading."""
    reads = model.reads_preference
    gr.HTML(_head(model))
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
                info=f"Nothing is filtered: {model.on_avoid}. The counts show how far that goes.",
                lines=1,
                visible=reads,
                elem_id="avoid",
            )
            tried = _sentence_buttons(model) if reads else []
        with gr.Column(elem_classes="m-see"):
            shown = gr.HTML(message("One moment."), elem_id="answer")
            against = gr.Radio(list(AGAINST), value=AGAINST[0], label="Compare with", visible=reads, elem_id="against")
            with gr.Row():
                most = min(MOST_ITEMS, model.num_items)
                k = gr.Slider(1, most, value=min(10, most), step=1, label="Items (k)", elem_id="k")
                beams = gr.Slider(
                    1, MOST_BEAMS, value=30, step=1, label="Beams", visible=model.uses_beams, elem_id="beams"
                )
            with gr.Accordion("What the model read", open=False):
                read = gr.Textbox(label="Given to the model", lines=2, interactive=False, elem_id="read")
        with gr.Column(elem_classes="m-who", visible=model.reads_history):
            shopper = gr.Dropdown(
                _shopper_choices(model),
                label="Who is shopping?",
                value=NOBODY,
                info=None if model.shoppers_are_real else "Made up: what the model itself would buy next.",
                elem_id="shopper",
            )
            own = gr.Button(
                "Ask for what this shopper wanted next",
                size="sm",
                visible=reads and any(one.preference for one in model.shoppers),
                elem_id="own",
            )
            search = gr.Textbox(
                label="Add to the history",
                placeholder=f"Search {model.num_items:,} titles",
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
    return _Fields(
        known=known,
        counted=counted,
        wish=wish,
        avoid=avoid,
        against=against,
        k=k,
        beams=beams,
        shopper=shopper,
        own=own,
        search=search,
        found=found,
        results=results,
        nothing=nothing,
        tried=tried,
        shown=shown,
        read=read,
    )


def _connect(page: gr.Blocks, on: _Fields, actions: Actions) -> None:
    """What happens when something on the page is touched."""
    fields = [on.known, on.counted, on.wish, on.avoid, on.against, on.k, on.beams]
    ranking = {
        "fn": actions.rank,
        "inputs": fields,
        "outputs": [on.shown, on.read],
        "show_progress": "hidden",
        "concurrency_id": "model",
        "api_visibility": "private",
    }
    light = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    for field in (on.wish, on.avoid, on.counted, on.k, on.beams, on.against):
        field.input(**ranking, trigger_mode="always_last")
    for field in (on.wish, on.avoid):
        field.submit(**ranking)
    for button, sentence in on.tried:
        button.click(
            lambda sentence=sentence: (sentence.preference, sentence.avoid), None, [on.wish, on.avoid], **light
        ).then(**ranking)
    on.shopper.input(actions.choose, on.shopper, [on.known, on.counted], **light).then(**ranking)
    on.own.click(actions.wish_of, on.shopper, on.wish, **light).then(**ranking)
    matches = {"fn": actions.find, "inputs": [on.search, on.known], "outputs": [on.found, on.nothing, *on.results]}
    on.search.input(**matches, trigger_mode="always_last", **light)
    additions = [
        on.search.submit(
            actions.add_first, [on.search, on.known, on.counted], [on.known, on.counted, on.search], **light
        )
    ]
    for place, button in enumerate(on.results):
        add = partial(actions.add, place)
        additions.append(
            button.click(add, [on.found, on.known, on.counted], [on.known, on.counted, on.search], **light)
        )
    for addition in additions:
        addition.then(**matches, **light).then(**ranking).then(None, js=TO_SEARCH)

    def start(request: gr.Request) -> tuple[Any, ...]:
        return actions.start(str(request.query_params))

    page.load(start, None, [on.shopper, on.known, on.counted, on.wish, on.avoid, on.k, on.beams], **light).then(
        **ranking
    )
    gr.api(actions.recommend, api_name="recommend", concurrency_id="model")


def _head(model: PageModel) -> str:
    note = ""
    if not model.reads_preference:
        note = (
            "This model reads no preference, only what was bought: there is nothing to write. "
            "One that reads preferences: <code>mender train --preset mender</code>"
        )
    elif not model.reads_history:
        note = "This model reads no history, only what you write."
    note = f'<p class="m-note">{note}</p>' if note else ""
    path = Path(model.name)
    name = str(Path(*path.parts[-2:])) if path.is_absolute() else model.name
    title, promise = "What comes next", ""
    if model.reads_preference:
        title = "Say what you want, watch the list change"
        promise = " The same model answers with and without your words."
    ranks = f"<code>{escape(name)}</code> ({escape(model.kind)}) ranks {model.num_items:,} items."
    return f'<header class="m-head"><h1>{title}</h1><p>{ranks}{promise}</p>{note}</header>'


def _sentence_buttons(model: PageModel) -> list[tuple[gr.Button, Sentence]]:
    """One button per sentence to try."""
    with gr.Row(elem_classes="m-try"):
        return [
            (gr.Button(_label(sentence), size="sm", elem_id=f"try-{place}", min_width=80), sentence)
            for place, sentence in enumerate(model.showcase.sentences)
        ]


def _label(sentence: Sentence) -> str:
    return "Try: " + ". ".join(filter(None, (sentence.preference, sentence.avoid)))


def _shopper_choices(model: PageModel) -> list[tuple[str, int]]:
    def latest(shopper: Shopper) -> str:
        return shorten(model.title(shopper.history[-1]), 40, placeholder="…")

    choices = [
        (f"Shopper {place + 1}: {len(one.history)} items, lately {latest(one)}", place)
        for place, one in enumerate(model.shoppers)
    ]
    return [*choices, ("Someone new: start with an empty history", NOBODY)]
