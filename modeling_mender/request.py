"""A request for recommendations: what a person wants, what they bought, and rules of the shop, in one dataclass.

Python, the pipeline, the command line, pages and servers all parse what they get into a `Request`, so that a field has
one meaning and one set of checks everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real
from typing import Any

__all__ = ["Request", "batch_of_requests"]

Texts = str | Sequence[str] | Mapping[str, float]
"""A text, several texts of one person, or texts with weights."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, checked.

    Args:
        preference: what somebody typed: a text, several texts, or texts with weights. The texts of a list are read
            together; texts with weights are read one by one, and their scores are added in proportion to the weights.
        inferred: a preference that nobody typed, such as one written from earlier reviews, in the same forms. A request
            has either this or `preference`.
        history: ids of the items that the person bought, oldest first; the person need not be known.
        avoid: what is not wanted: a text or several. Items that match it are ranked lower.
        strict: whether items whose title, aspects or text name a phrase of `avoid` are left out.
        exclude: items that must not be returned: ids, item indices, or a boolean mask over all items.
        allowed: the only items that may be returned, in the same forms.
        prior: added to the scores: numbers by item id or item index, or one number for every item.
        weights: factors for the weights of experts, such as `{"language": 0}`.
        dial: how far the preference moves the result from that of the history alone: 0 ignores the preference, 1 is
            the model's own answer, 2 moves it twice as far. Without a history it has no effect.
        top_k: items to return.
        why: whether to say what each part of the model contributed to every score.
        fit: whether to say how probable it is that anything in the catalogue fits.

    Raises:
        TypeError: if a field has a value of the wrong kind.
        ValueError: if a value is out of range, or fields contradict each other.

    >>> Request(preference={"crime novels": 2, "nordic": 1}).shares
    (0.6666666666666666, 0.3333333333333333)
    """

    preference: Texts | None = None
    inferred: Texts | None = None
    history: Sequence[str] = ()
    avoid: str | Sequence[str] | None = None
    strict: bool = False
    exclude: Any = None
    allowed: Any = None
    prior: Any = None
    weights: Mapping[str, float] | None = None
    dial: float | None = None
    top_k: int = 10
    why: bool = False
    fit: bool = False

    def __post_init__(self) -> None:
        for name in ("preference", "inferred"):
            self._set(name, _texts(getattr(self, name), name))
        if isinstance(self.avoid, Mapping):
            raise TypeError(f"avoid={dict(self.avoid)!r}: phrases to avoid have no weights; pass a list of texts")
        self._set("avoid", tuple(_texts(self.avoid, "avoid") or ()))
        if self.preference and self.inferred:
            raise ValueError("the request has a preference and an inferred one; pass one of the two")
        if isinstance(self.history, str):
            raise ValueError(f"history={self.history!r} is a single text; pass a list of item ids, oldest first")
        if not _listable(self.history):
            raise TypeError(f"history={self.history!r}; pass a list of item ids, oldest first")
        self._set("history", tuple(self.history or ()))
        for name in ("strict", "why", "fit"):
            if not isinstance(getattr(self, name), bool | Integral):
                raise TypeError(f"{name}={getattr(self, name)!r}; pass True or False")
        for name in ("exclude", "allowed"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}={getattr(self, name)!r} is a single text; pass a list of item ids")
        if self.weights is not None and not isinstance(self.weights, Mapping):
            raise TypeError(f"weights={self.weights!r}; pass factors by expert, such as {{'language': 0}}")
        if self.dial is not None:
            if not _is_number(self.dial):
                raise TypeError(f"dial={self.dial!r}; pass a number, 1 for the model's own answer")
            if not isfinite(self.dial):
                raise ValueError(f"dial={self.dial!r}; pass a finite number, 1 for the model's own answer")
        if not isinstance(self.top_k, Integral) or isinstance(self.top_k, bool):
            raise TypeError(f"top_k={self.top_k!r}; pass a whole number")
        if self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}; pass at least 1")
        self._set("top_k", int(self.top_k))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, given: Any, **defaults: Any) -> Request:
        """A request from what a person or a program passes.

        Args:
            given: a `Request`; a text, which is the preference; or a mapping with fields of a request, in which `None`
                means that a field is left out.
            **defaults: values of fields that `given` lacks.

        Raises:
            TypeError: if it is none of these, or see `Request`.
            ValueError: if a field is unknown, or see `Request`.

        >>> Request.parse({"preference": "find tea", "top_k": 3}).top_k
        3
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            given = {"preference": given}
        if not isinstance(given, Mapping):
            raise TypeError(f"a request must be a text or a dictionary, got {type(given).__name__}")
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                close = get_close_matches(str(name), names, n=1)
                hint = f", did you mean {close[0]!r}" if close else ""
                raise ValueError(f"a request has no field {name!r}{hint}; its fields are {', '.join(names)}")
        return cls(**{**defaults, **{name: value for name, value in given.items() if value is not None}})

    @property
    def texts(self) -> list[str]:
        """What is wanted, typed or inferred."""
        return list(self.preference or self.inferred or ())

    @property
    def shares(self) -> tuple[float, ...] | None:
        """The weights of `texts`, with a sum of 1; `None` if the texts are read together."""
        given = self.preference or self.inferred
        if not isinstance(given, Mapping) or len(given) < 2:
            return None
        total = sum(given.values())
        return tuple(weight / total for weight in given.values())


def batch_of_requests(
    preference: Any = None,
    history: Any = None,
    *,
    inferred: Any = None,
    avoid: Any = None,
    dial: float | None = None,
) -> list[Request]:
    """Requests from columns, as a processor takes them.

    Args:
        preference: texts of one user, see `Request`; for a batch, one entry per user.
        history: item ids of one user; for a batch, one list per user. With the history of one user (which may be
            empty), a list of texts belongs to this user; without a history, every text is a user of a batch.
        inferred: in the forms of `preference`.
        avoid: in the forms of `preference`.
        dial: for all users.

    Raises:
        ValueError: if the numbers of users differ, or see `Request`.
    """
    columns = {"preference": preference, "inferred": inferred, "avoid": avoid}
    nested = history is not None and len(history) > 0 and not isinstance(history[0], str)
    if history is None:
        one = all(_is_one(given) for given in (preference, inferred))
    else:
        one = not nested and all(
            _is_one(given) or all(isinstance(part, str) for part in given) for given in columns.values()
        )
    if one:
        return [Request(**columns, history=history or (), dial=dial)]
    lists = [given for given in columns.values() if not _is_one(given)]
    if history is not None and len(history) and not nested:
        raise ValueError(
            f"got {len(lists[0])} preferences but one history of {len(history)} items; pass a list of histories, "
            "one per user"
        )
    users = len(history) if nested else len(lists[0])
    called = {"preference": "preferences", "inferred": "inferred preferences", "avoid": "texts to avoid"}
    for name, given in columns.items():
        if not _is_one(given) and len(given) != users:
            histories = "" if history is None else f" but {users} histories"
            raise ValueError(
                f"{len(given)} {called[name]}{histories or f' for {users} users'}; pass one of each per user"
            )
    requests = []
    for user in range(users):
        own = {name: given if _is_one(given) else given[user] for name, given in columns.items()}
        requests.append(Request(**own, history=history[user] if nested else (), dial=dial))
    return requests


def _is_one(given: Any) -> bool:
    """Whether texts belong to one user whatever the history."""
    return given is None or isinstance(given, str | Mapping)


def _texts(given: Any, name: str) -> tuple[str, ...] | dict[str, float] | None:
    """Texts that are not empty; `None` without one.

    Raises:
        TypeError: if something is not text.
        ValueError: if a weight is not finite, or weights do not add up to more than 0.
    """
    if given is None:
        return None
    listed = (given,) if isinstance(given, str) else tuple(given) if _listable(given) else None
    wrong = [given] if listed is None else [text for text in listed if not isinstance(text, str)]
    if wrong:
        raise TypeError(f"{name}: {wrong[0]!r} is not text; pass a text, or a list of texts")
    kept = tuple(text for text in listed if text.strip())
    if not isinstance(given, Mapping):
        return kept or None
    weights = {text: given[text] for text in kept}
    if not all(map(_is_number, weights.values())):
        raise TypeError(f"{name}={weights!r}; pass a number as the weight of each text")
    total = sum(weights.values())
    if kept and not (isfinite(total) and total > 0):
        raise ValueError(f"{name}={weights!r}; pass finite weights whose sum is above 0")
    return {text: float(weight) for text, weight in weights.items()} or None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _listable(value: Any) -> bool:
    return value is None or (isinstance(value, Iterable) and not isinstance(value, str | bytes))
