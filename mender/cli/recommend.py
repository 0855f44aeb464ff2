"""`mender recommend`: the best items of a saved model for one request."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mender.cli import options
from mender.terminal import UserError, new_console, results, user_errors

__all__ = ["recommend"]


def recommend(
    model: options.Model,
    history: options.History = None,
    preference: options.Preferences = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What is not wanted: items that match rank lower; repeatable."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Leave out items that name a phrase of --avoid.")] = False,
    dial: Annotated[
        float | None,
        typer.Option(help="How far preferences move the result: 0 not at all, 2 twice as far.", show_default="1"),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPERT=FACTOR",
            help="Multiply the weight of an expert, or of language, behaviour or generator; repeatable.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Items to return.")] = 10,
    beams: Annotated[
        str | None,
        typer.Option(
            metavar="N|exact",
            help="Prefixes kept per level, or exact to score every item.",
            show_default="30, or 2 k if more",
        ),
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Show what language, behaviour and generator contributed to each score.")
    ] = False,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Print the best items for a preference, a history, or both.

    Items of the history are not recommended again. For instance:

    mender recommend MODEL --preference "Find tea with a malty brew" --avoid "loose leaves" -k 5
    """
    width = _beams(beams)
    factors = options.assignments(weight or [], "--weight")

    from mender.item_names import find_items
    from mender.recommender import Recommender

    with results(as_json) as show:
        with user_errors():
            shop = Recommender.from_pretrained(model, device=device)
            processor, items = shop.processor, find_items(shop.processor, history or [])
            texts = {
                name: [text.strip() for text in given or [] if text.strip()]
                for name, given in (("preference", preference), ("avoid", avoid))
            }
            experts = getattr(shop.model, "experts", None)
            found = shop.recommend(
                texts["preference"],
                history=items,
                avoid=texts["avoid"],
                strict=strict,
                exclude=items,
                weights=factors or None,
                dial=dial,
                top_k=top_k,
                why=why,
                fit=experts is not None and experts.config.fit is not None,
                num_beams=width,
            )
        fit = [item.pop("fit", None) for item in found][0]
        bought = processor.decode_items(processor.item_indices(items))
        read = {text: processor.corrected(text) for typed in texts.values() for text in typed}
        corrected = {text: correction for text, correction in read.items() if text != correction}
        show({"model": model, **texts, "corrected": corrected, "history": bought, "fit": fit, "items": found})
        if not as_json:
            _print({**texts, "history": [item["title"] for item in bought]}, corrected, found, fit)


def _beams(text: str | None) -> int | str | None:
    if text is None or text == "exact":
        return text
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--beams {text!r}; pass a whole number or exact") from None


def _print(
    request: dict[str, list[str]], corrected: dict[str, str], items: list[dict[str, Any]], fit: float | None
) -> None:
    from rich.table import Table

    why = [_grouped(item.get("why", {})) for item in items]
    console = new_console(width=120) if any(why) else new_console()
    for heading, lines in request.items():
        if lines:
            console.print(f"{heading}: {'; '.join(' '.join(line.split()) for line in lines)}")
    for text, correction in corrected.items():
        console.print(f'Read "{text}" as "{correction}"')
    if fit is not None and fit < 0.5:
        shown = f"{fit:.2f}".removeprefix("0")
        console.print(f"Nothing in this catalogue may fit this request (fit {shown}); the closest are:")
    table = Table()
    for name, justify in (("", "right"), ("item", "left"), ("title", "left"), ("score", "right")):
        table.add_column(name, justify=justify, overflow="fold")
    for name in why[0] if why else ():
        table.add_column(name, justify="right")
    for rank, (item, reasons) in enumerate(zip(items, why, strict=True), 1):
        shown = [f"{value:+.2f}" for value in reasons.values()]
        table.add_row(str(rank), item["item_id"], item["title"], f"{item['score']:.2f}", *shown)
    console.print(table)
    if any(why):
        console.print("The right columns add up to the score minus the mean score of this list.")


def _grouped(contributions: dict[str, float]) -> dict[str, float]:
    """Contributions of language, behaviour, the generator and what is avoided: those that the model has."""
    from modeling_mender.configuration_mender import BEHAVIOUR, LANGUAGE

    names = {**dict.fromkeys(LANGUAGE, "language"), **dict.fromkeys(BEHAVIOUR, "behaviour"), "avoid": "avoided"}
    found: dict[str, float] = {}
    for name, value in contributions.items():
        group = names.get(name, name)
        found[group] = found.get(group, 0.0) + value
    return found
