"""Reads the JSON bodies of HTTP requests under limits: into `Request`, items and purchases.

What is refused is refused in one sentence that names the value and the remedy. `Request` does the checks that hold
everywhere; here are those that JSON and strangers need: kinds of values, and sizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

from modeling_mender.request import Request

__all__ = ["Limits", "Query", "Refused", "items_of", "json_of", "purchases_of", "queries_of"]

SHOWN = 300
"""Characters of a message that a client is shown."""
OWN = ("unknown_items", "num_beams")
"""Arguments of `Recommender.recommend` that are not fields of a `Request`."""


class Refused(Exception):
    """What a client is told.

    Args:
        status: of the HTTP answer.
        sentence: what was wrong and what to do.
        **headers: of the HTTP answer, with underscores for hyphens.
    """

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        sentence = " ".join(sentence.split())
        super().__init__(sentence if len(sentence) <= SHOWN else f"{sentence[: SHOWN - 1]}…")
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one HTTP request may ask for.

    Args:
        body: bytes of a body.
        requests: requests in a list.
        top_k: items to return.
        text: characters of a text.
        texts: texts of `preference`, `inferred` or `avoid`.
        history: items of a history.
        ids: items of `exclude`, `allowed` or `prior`.
        num_beams: prefixes kept per level.
        edits: items or purchases in an edit.
        timeout: seconds until an answer, and until a body has arrived.

    Raises:
        ValueError: if a limit is not above 0.
    """

    body: int = 1_000_000
    requests: int = 64
    top_k: int = 100
    text: int = 2_000
    texts: int = 16
    history: int = 1_000
    ids: int = 10_000
    num_beams: int = 200
    edits: int = 1_000
    timeout: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name}={getattr(self, field.name)}; pass a limit above 0")


@dataclass(frozen=True)
class Query:
    """A request, and how it is to be answered."""

    request: Request
    unknown_items: str = "error"
    num_beams: int | None = None

    @property
    def length(self) -> int:
        """Characters and items that the model reads: what similar requests have in common."""
        return sum(map(len, self.request.texts)) + 20 * len(self.request.history)


def json_of(body: bytes) -> Any:
    """The value of a JSON document.

    Raises:
        Refused: if it is none.

    >>> json_of(b'{"preference": "tea"}')
    {'preference': 'tea'}
    """

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not a valid JSON number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for place, name in enumerate(names) if name in names[:place])
            raise Refused(400, f"the body has {repeated[:60]!r} twice in one object; send it once")
        return found

    try:
        return json.loads(body, parse_constant=constant, object_pairs_hook=unique)
    except RecursionError:
        raise Refused(400, "the body is nested too deeply; send an object with fields of a request") from None
    except ValueError as error:
        raise Refused(400, f"the body is not JSON ({error}); send an object with fields of a request") from None


def queries_of(given: Any, limits: Limits) -> tuple[list[Query], bool]:
    """Requests of a body, and whether it is a list.

    Args:
        given: a request or a list of them; a request is a text, or an object with arguments of `Recommender.recommend`.
        limits: what they may ask for.

    Raises:
        Refused: if something is not a request, or asks for too much.

    >>> queries_of(["tea", {"history": ["mug"], "top_k": 3}], Limits())[0][1].request.top_k
    3
    """
    if not isinstance(given, list):
        return [_query(given, limits)], False
    if not given:
        raise Refused(400, "the list has no request; send at least one")
    if len(given) > limits.requests:
        raise Refused(413, f"the list has {len(given):,} requests; send at most {limits.requests:,} at once")
    queries = []
    for place, one in enumerate(given):
        try:
            queries.append(_query(one, limits))
        except Refused as refused:
            raise Refused(refused.status, f"request {place}: {refused}") from None
    return queries, True


def items_of(given: Any, limits: Limits) -> list[dict[str, Any]]:
    """Items of a body: one or a list; `Recommender.add_items` checks their fields.

    Raises:
        Refused: if an entry is not an item, or there are too many.
    """
    items = given if isinstance(given, list) else [given]
    for item in items:
        if not isinstance(item, dict):
            raise Refused(400, f"{_shown(item)} is not an item; send objects with item_id and title")
        aspects = item.get("aspects") or []
        texts = [item.get("item_id"), item.get("title"), item.get("text")]
        for text in [*texts, *(aspects if isinstance(aspects, list) else [aspects])]:
            if isinstance(text, str):
                _check_text("item", text, 10 * limits.text)
            elif text is not None:
                raise Refused(400, f"an item has the value {_shown(text)} where a text belongs; send a text")
    _check_size("the list", "items", items, limits.edits)
    return items


def purchases_of(given: Any, limits: Limits) -> list[tuple[str, str]]:
    """Pairs of user and item of a body: a list of objects with user_id and item_id.

    Raises:
        Refused: if something is not a purchase, or there are too many.

    >>> purchases_of([{"user_id": "ada", "item_id": "mug"}], Limits())
    [('ada', 'mug')]
    """
    purchases = given if isinstance(given, list) else [given]
    for one in purchases:
        if not (isinstance(one, dict) and {*one} == {"user_id", "item_id"}):
            raise Refused(400, f"{_shown(one)} is not a purchase; send objects with user_id and item_id")
        for name, value in one.items():
            if not isinstance(value, str) or not value:
                raise Refused(400, f"{name}={_shown(value)} is not an id; send a text")
            _check_text(name, value, limits.text)
    _check_size("the list", "purchases", purchases, limits.edits)
    return [(one["user_id"], one["item_id"]) for one in purchases]


def _query(given: Any, limits: Limits) -> Query:
    if not isinstance(given, str | dict):
        raise Refused(400, f"{_shown(given)} is not a request; send a text or an object with fields of a request")
    own = {}
    if isinstance(given, dict):
        own = {name: given[name] for name in OWN if given.get(name) is not None}
        given = {name: value for name, value in given.items() if name not in OWN}
        for name in ("strict", "why", "fit"):
            if not isinstance(given.get(name, False), bool | None):
                raise Refused(400, f"{name}={_shown(given[name])}; send true or false")
        for name in ("history", "exclude", "allowed"):
            _check_ids(name, given.get(name), limits.history if name == "history" else limits.ids)
        for name in ("prior", "weights"):
            _check_numbers(name, given.get(name), limits.ids)
    beams, unknown = own.get("num_beams"), own.get("unknown_items", "error")
    if beams is not None and (not isinstance(beams, int) or isinstance(beams, bool) or beams < 1):
        raise Refused(400, f"num_beams={_shown(beams)}; send a whole number, at least 1")
    if beams is not None and beams > limits.num_beams:
        raise Refused(400, f"num_beams={_shown(beams)}; send at most {limits.num_beams}")
    if unknown not in ("error", "skip"):
        raise Refused(400, f'unknown_items={_shown(unknown)}; send "error" or "skip"')
    try:
        request = Request.parse(given, top_k=min(10, limits.top_k))
    except OverflowError:
        raise Refused(400, "a number of the request is too large; send one that fits 64 bits") from None
    except (TypeError, ValueError) as error:
        raise Refused(400, str(error)) from None
    if request.top_k > limits.top_k:
        raise Refused(400, f"top_k={_shown(request.top_k)}; send at most {limits.top_k}")
    for name in ("preference", "inferred", "avoid"):
        texts = getattr(request, name) or ()
        _check_size(name, "texts", texts, limits.texts)
        for text in texts:
            _check_text(name, text, limits.text)
    return Query(request, unknown, beams)


def _check_ids(name: str, given: Any, most: int) -> None:
    if given is None:
        return
    if not isinstance(given, list):
        raise Refused(400, f"{name}={_shown(given)}; send a list of item ids")
    _check_size(name, "items", given, most)
    if wrong := [item for item in given if not isinstance(item, str)]:
        raise Refused(400, f"{name} has {_shown(wrong[0])}, which is not an item id; send ids as strings")


def _check_numbers(name: str, given: Any, most: int) -> None:
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise Refused(400, f"{name}={_shown(given)}; send an object of names and numbers")
    _check_size(name, "entries", given, most)
    for key, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Refused(400, f"{name}[{_shown(key)}]={_shown(value)}; send a number")
        if abs(value) > 1e9 or not isfinite(value):
            raise Refused(400, f"{name}[{_shown(key)}]={_shown(value)}; send a number between -1e9 and 1e9")


def _check_size(name: str, what: str, given: Sequence[Any] | Mapping[str, Any], most: int) -> None:
    if len(given) > most:
        raise Refused(413, f"{name} has {len(given):,} {what}; send at most {most:,}")


def _check_text(name: str, text: str, most: int) -> None:
    if len(text) > most:
        raise Refused(413, f"{name} has a text of {len(text):,} characters; send at most {most:,}")


def _shown(value: Any) -> str:
    text = "a number of hundreds of digits" if isinstance(value, int) and abs(value) >= 10**100 else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
