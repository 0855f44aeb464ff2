"""`mender recommend`: the best items of a saved model for one request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mender.cli import options
from mender.terminal import UserError, new_console, results, user_errors

__all__ = ["print_answer", "read_ids", "recommend"]

UNDECIDED = 0.5
"""The fit below which nothing in the catalogue is likely to fit."""
LEAST_SHOWN = 0.005
"""What rounds to less than .01 is not shown."""


def recommend(
    model: options.Model,
    history: options.History = None,
    preference: options.Preferences = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What is not wanted: items that match rank lower; repeatable."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Leave out items that name a phrase of --avoid.")] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="ITEM", help="Id or title of an item that must not be recommended; repeatable."),
    ] = None,
    allowed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recommend only the items of this file: an id a line."),
    ] = None,
    unknown_items: options.UnknownItems = "error",
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
    device: options.Device = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Recommend items for a preference, a history, or both.

    Items of the history are not recommended again. The columns right of the score say how much each part of the model
    moves an item within the list. For instance:

    mender recommend MODEL --preference "tea with a malty brew" --avoid mint

    mender recommend MODEL --history "Assam tea" --allowed in-stock.txt -k 5
    """
    width = _beams(beams)
    with results(as_json, quiet) as show:
        with user_errors():
            factors = options.assignments(weight or [], "--weight")
            stocked = None if allowed is None else read_ids(allowed)

        from mender.item_names import find_items
        from mender.recommender import Recommender
        from modeling_mender.request import Request

        with user_errors():
            shop = Recommender.from_pretrained(model, device=device)
            processor = shop.processor
            items, left_out = (find_items(processor, names or [], unknown_items) for names in (history, exclude))
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
                exclude=[*items, *left_out],
                allowed=stocked,
                weights=factors or None,
                dial=dial,
                top_k=top_k,
                why=True,
                fit=experts is not None and experts.config.fit is not None,
                unknown_items=unknown_items,
                num_beams=width,
            )
        fit = [item.pop("fit", None) for item in found][0]
        bought, gone = (processor.decode_items(processor.item_indices(ids)) for ids in (items, left_out))
        understood = processor.understood(Request(**texts))
        read = {"preference": understood.texts, "avoid": [*understood.avoid]}
        corrections = {text: processor.corrected(text) for typed in read.values() for text in typed}
        corrected = {text: correction for text, correction in corrections.items() if text != correction}
        named = {"history": bought, "exclude": gone}
        show({"model": model, **texts, "read": read, "corrected": corrected, **named, "fit": fit, "items": found})
        if not as_json:
            titles = {name: [item["title"] for item in listed] for name, listed in named.items()}
            told = {**texts, **({"read as": [_in_words(read)]} if read != texts else {}), **titles}
            print_answer(told, corrected, found, fit)


def _in_words(read: dict[str, list[str]]) -> str:
    """What is wanted, and what is to be avoided."""
    return "; ".join(read["preference"]) + (f", avoiding {', '.join(read['avoid'])}" if read["avoid"] else "")


def read_ids(path: Path) -> list[str]:
    """Item ids of a text file, one a line.

    Empty lines are left out, and so is the heading "item_id", with which a table of one column starts.

    Raises:
        ValueError: if there is no such file, it is not text, or it has no id.
    """
    try:
        ids = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise ValueError(
            f"--allowed {path} cannot be read: {error.strerror}; pass a file with an item id a line"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--allowed {path} is not text; pass a file with an item id a line") from error
    ids = ids[1:] if ids[:1] == ["item_id"] else ids
    if not ids:
        raise ValueError(f"--allowed {path} names no item; write an item id a line")
    return ids


def _beams(text: str | None) -> int | str | None:
    if text is None or text == "exact":
        return text
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--beams {text!r}; pass a whole number or exact") from None


def print_answer(
    request: dict[str, list[str]], corrected: dict[str, str], items: list[dict[str, Any]], fit: float | None
) -> None:
    """Print what was asked for and a table of items, with what moved each of them.

    Args:
        request: texts and titles, by what they are.
        corrected: texts as they were read, by how they were typed.
        items: as `Recommender.recommend(why=True)` returns them.
        fit: how probable it is that anything fits; `None` if the model does not say.
    """
    from rich.table import Table

    console = new_console()
    asked = {heading: [" ".join(line.split()) for line in lines] for heading, lines in request.items() if lines}
    sentences = [f"{heading}: {'; '.join(lines)}" for heading, lines in asked.items()]
    sentences += [f'Read "{text}" as "{correction}"' for text, correction in corrected.items()]
    if fit is not None:
        shown = f"{fit:.2f}".removeprefix("0")
        sentences.append(
            f"fit: {shown} (the probability that something in this catalogue fits)"
            if fit >= UNDECIDED
            else f"Probably nothing in this catalogue fits this request (fit {shown}). The nearest items are:"
        )
    for sentence in sentences:
        console.print(sentence, soft_wrap=not console.is_terminal)
    why = [_grouped(item["why"]) for item in items]
    moving = [name for name in why[0] if any(abs(reasons[name]) >= LEAST_SHOWN for reasons in why)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", justify="right")
    table.add_column("title", min_width=16)
    table.add_column("item", overflow="fold")
    for name in ("score", *moving):
        table.add_column(name, justify="right", no_wrap=True)
    for rank, (item, reasons) in enumerate(zip(items, why, strict=True), 1):
        shown = [f"{reasons[name]:+.2f}" for name in moving]
        table.add_row(str(rank), " ".join(item["title"].split()), item["item_id"], f"{item['score']:.2f}", *shown)
    if not console.is_terminal:  # a line an item, for programs that read lines
        wide = console.options.update(width=10_000)
        console = new_console(width=console.measure(table, options=wide).maximum)
    console.print(table)


def _grouped(contributions: dict[str, float]) -> dict[str, float]:
    """Contributions of language, behaviour, the generator and what is avoided: those that the model has."""
    from modeling_mender.configuration_mender import BEHAVIOUR, LANGUAGE

    names = {**dict.fromkeys(LANGUAGE, "language"), **dict.fromkeys(BEHAVIOUR, "behaviour"), "avoid": "avoided"}
    found: dict[str, float] = {}
    for name, value in contributions.items():
        group = names.get(name, name)
        found[group] = found.get(group, 0.0) + value
    return found
