"""The page: what a person writes on one side, what the model makes of it on the other.

It opens with a wish and its answer, and the list changes while one types. Everything works from the keyboard: fields
and buttons come in the order of reading, Enter in a field ranks, Enter in the search field takes the first title found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

import gradio as gr
from actions import MOST_WEIGHT, NOBODY, SEARCH_RESULTS, Actions
from page_model import LONGEST_TEXT, LONGEST_TITLE, PageModel
from showcase_file import Sentence, Shopper

from preference_benchmark.embedding import HUB_NAME

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
TO_OWN = "() => document.querySelector('.m-mine')?.scrollIntoView({block: 'nearest'})"
TO_SEARCH = "() => document.querySelector('#search input, #search textarea')?.focus()"
# Says the answer once it has stood still for a while, and not at every letter that is typed.
ANNOUNCE = """
const region = document.createElement('div');
region.id = 'announced'; region.className = 'm-heard'; region.setAttribute('role', 'status');
element.after(region);
let waiting;
new MutationObserver(() => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const said = ['.m-summary', '.m-removed h3', '.m-title'].map((one) => element.querySelector(one)?.innerText);
    region.textContent = said.filter(Boolean).join(' ');
  }, 700);
}).observe(element, {childList: true, subtree: true, characterData: true});
"""
SAY_AT_ONCE = "element.setAttribute('role', 'status')"


@dataclass(frozen=True)
class _Fields:
    """Parts of the page that events read or write.

    Attributes:
        own: items that the visitor added.
        known: items of the history, oldest first, ticked or not.
        counted: the check boxes of the items that count.
        weights: a slider for every part of the score.
        title: of an item to add.
        text: of an item to add.
        plus: the button that adds it.
        added: what came of it.
        next_wish: the button that asks for what the shopper wanted.
        found: ids of the titles found.
        results: buttons that add them.
        nothing: message if no title is found.
        tried: a button for every wish to try.
        shown: the answer.
    """

    own: gr.State
    known: gr.State
    counted: gr.CheckboxGroup
    wish: gr.Textbox
    avoid: gr.Textbox
    strict: gr.Checkbox
    k: gr.Slider
    dial: gr.Slider
    weights: list[gr.Slider]
    title: gr.Textbox
    text: gr.Textbox
    plus: gr.Button
    added: gr.HTML
    shopper: gr.Dropdown
    next_wish: gr.Button
    search: gr.Textbox
    found: gr.State
    results: list[gr.Button]
    nothing: gr.HTML
    tried: list[tuple[gr.Button, Sentence]]
    shown: gr.HTML

    @property
    def asked(self) -> list[Any]:
        """What a list depends on, in the order of `Actions.rank`."""
        words = [self.wish, self.avoid, self.strict]
        return [self.own, self.known, self.counted, *words, self.k, self.dial, *self.weights]


def build_page(model: PageModel) -> gr.Blocks:
    """The page for one model."""
    actions = Actions(model)
    with gr.Blocks(title="Mender: say what you want", analytics_enabled=False) as page:
        _connect(page, _lay_out(model, actions), actions)
    return page


def _lay_out(model: PageModel, actions: Actions) -> _Fields:
    """What there is to see, in the order of reading, with the first answer in it."""
    reads = model.reads_preference
    shopper_now, known_now, boxes, wish_now, avoid_now, strict_now, k_now, dial_now, *weights_now = actions.start("")
    first = actions.rank((), known_now, known_now, wish_now, avoid_now, strict_now, k_now, dial_now, *weights_now)
    gr.HTML(_head(model))
    own, known, found = gr.State(()), gr.State(known_now), gr.State([])
    with gr.Row(elem_classes="m-page"):
        with gr.Column(elem_classes="m-say", visible=reads):
            wish = gr.Textbox(
                wish_now, label="What do you want?", info=_languages(model), max_length=LONGEST_TEXT, elem_id="wish"
            )
            avoid = gr.Textbox(avoid_now, label="What should stay out?", max_length=LONGEST_TEXT, elem_id="avoid")
            strict = gr.Checkbox(strict_now, label="Leave out every item that names it", elem_id="strict")
            tried = _sentence_buttons(model)
        with gr.Column(elem_classes="m-see"):
            shown = gr.HTML(first, elem_id="answer", js_on_load=ANNOUNCE)
        with gr.Column(elem_classes="m-set"):
            gr.HTML("<h2>What counts, and how much</h2>")
            weights = [
                gr.Slider(
                    0,
                    MOST_WEIGHT,
                    value=1,
                    step=0.1,
                    label=_weight_label(model, name),
                    elem_id=f"weight-{name}",
                    elem_classes=f"m-weight m-{name}",
                )
                for name in model.parts
            ]
            dial = gr.Slider(
                0,
                MOST_WEIGHT,
                value=1,
                step=0.1,
                label="Dial, with a history",
                visible=model.has_dial,
                elem_id="dial",
                elem_classes="m-weight",
            )
            k = gr.Slider(
                1, actions.most, value=k_now, step=1, label="Items shown", elem_id="k", elem_classes="m-weight"
            )
        with gr.Column(elem_classes="m-add", visible=model.takes_items):
            gr.HTML("<h2>Add an item, and find it at once</h2>")
            title = gr.Textbox("My own find", label="Title", max_length=LONGEST_TITLE, elem_id="own-title")
            text = gr.Textbox(wish_now, label="What it is like", max_length=LONGEST_TEXT, elem_id="own-text")
            plus = gr.Button("Add it", elem_id="own-add")
            added = gr.HTML("", elem_id="added", js_on_load=SAY_AT_ONCE)
        with gr.Column(elem_classes="m-who", visible=model.reads_history):
            gr.HTML("<h2>Who is shopping?</h2>")
            shopper = gr.Dropdown(
                _shopper_choices(model),
                label="Shopper",
                value=shopper_now,
                info=None if model.shoppers_are_real else "Made up: what the model itself would buy next.",
                elem_id="shopper",
            )
            next_wish = gr.Button(
                "Ask for what this shopper wanted next",
                size="sm",
                visible=reads and any(one.preference for one in model.shoppers),
                elem_id="next-wish",
            )
            search = gr.Textbox(
                label="Add to the history",
                placeholder=f"Search {model.num_items:,} titles",
                info="Beginnings of words; Enter adds the first title found.",
                elem_id="search",
            )
            nothing = gr.HTML(visible=False, js_on_load=SAY_AT_ONCE)
            results = [
                gr.Button(visible=False, size="sm", elem_classes="m-found", elem_id=f"found-{place}")
                for place in range(SEARCH_RESULTS)
            ]
            counted = gr.CheckboxGroup(
                boxes.choices,
                value=boxes.value,
                visible=boxes.visible,
                label="History, oldest first",
                info="Untick what should not count.",
                elem_id="history",
            )
    return _Fields(
        own=own,
        known=known,
        counted=counted,
        wish=wish,
        avoid=avoid,
        strict=strict,
        k=k,
        dial=dial,
        weights=weights,
        title=title,
        text=text,
        plus=plus,
        added=added,
        shopper=shopper,
        next_wish=next_wish,
        search=search,
        found=found,
        results=results,
        nothing=nothing,
        tried=tried,
        shown=shown,
    )


def _connect(page: gr.Blocks, on: _Fields, actions: Actions) -> None:
    """What happens when something on the page is touched."""
    ranking = {
        "fn": actions.rank,
        "inputs": on.asked,
        "outputs": on.shown,
        "show_progress": "hidden",
        "concurrency_id": "model",
        "api_visibility": "private",
    }
    light = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    for field in (on.wish, on.avoid, on.strict, on.counted, on.k, on.dial, *on.weights):
        field.input(**ranking, trigger_mode="always_last")
    for field in (on.wish, on.avoid):
        field.submit(**ranking)
    for button, sentence in on.tried:
        button.click(
            lambda sentence=sentence: (sentence.preference, sentence.avoid), None, [on.wish, on.avoid], **light
        ).then(**ranking)
    adding = {
        "fn": actions.add_item,
        "inputs": [on.own, on.title, on.text],
        "outputs": [on.own, on.added],
        "show_progress": "hidden",
        "concurrency_id": "model",
        "api_visibility": "private",
    }
    for event in (on.plus.click, on.title.submit, on.text.submit):
        event(**adding).then(**ranking).then(None, js=TO_OWN)
    on.shopper.input(actions.choose, on.shopper, [on.known, on.counted], **light).then(**ranking)
    on.next_wish.click(actions.wish_of, on.shopper, on.wish, **light).then(**ranking)
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

    page.load(start, None, [on.shopper, *on.asked[1:]], **light).then(**ranking)
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
    title, does = "What comes next", "by what was bought, and says why"
    if model.reads_preference:
        title, does = "Say what you want", "by your words, keeps out what you avoid, and says why"
    says = f"<code>{escape(name)}</code> ({escape(model.kind)}) ranks {model.num_items:,} items {does}."
    return f'<header class="m-head"><h1>{title}</h1><p>{says}</p>{note}</header>'


def _languages(model: PageModel) -> str:
    """Which languages wishes may be in."""
    name = (model.shop.settings.get("encoder") or {}).get("name")
    if name not in (None, HUB_NAME):
        return "In your own words, in a language that the model's encoder reads."
    return (
        "In your own words. The default encoder, MiniLM, reads English; train with another one for other languages "
        "(`mender train --encoder NAME`)."
    )


def _weight_label(model: PageModel, part: str) -> str:
    only = "" if model.counts(part, "stated") or not model.reads_preference else ", without a wish"
    return f"{part.capitalize()}{only}"


def _sentence_buttons(model: PageModel) -> list[tuple[gr.Button, Sentence]]:
    """One button per wish to try."""
    with gr.Row(elem_classes="m-try"):
        return [
            (gr.Button(_label(sentence), size="sm", elem_id=f"try-{place}", min_width=80), sentence)
            for place, sentence in enumerate(model.sentences)
        ]


def _label(sentence: Sentence) -> str:
    return sentence.preference + (f", without: {sentence.avoid}" if sentence.avoid else "")


def _shopper_choices(model: PageModel) -> list[tuple[str, int]]:
    def latest(shopper: Shopper) -> str:
        return shorten(model.title(shopper.history[-1]), 40, placeholder="…")

    choices = [
        (f"Shopper {place + 1}: {len(one.history)} items, lately {latest(one)}", place)
        for place, one in enumerate(model.shoppers)
    ]
    return [("Someone new: start with an empty history", NOBODY), *choices]
