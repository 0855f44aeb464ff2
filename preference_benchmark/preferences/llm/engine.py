"""The interface between the writing of preferences and whatever runs the language model.

An engine takes batches of requests and delivers completions as they come, in any order. It must not lose a request:
each ends as a completion with a text, as one that the model refused, or as one that could not be delivered. The next
run repeats the last kind.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from preference_benchmark.preferences.llm.prompts import Prompt

__all__ = [
    "FINISHED",
    "LOST",
    "REFUSED",
    "Completion",
    "Deliver",
    "Engine",
    "Key",
    "Request",
    "Sampling",
    "token_count",
]

# How a request ended: with a text (whole or cut off), refused for good, or not at all.
FINISHED, REFUSED, LOST = ("stop", "length"), "refused", "lost"
_MOST_TOKENS = 1e12


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; the defaults are those of Paischer et al. 2025 (arXiv:2412.08604).

    Attributes:
        temperature: 0 takes the likeliest token every time.
        top_p: share of the probability mass to draw from.
        max_tokens: most tokens of an answer; None for the prompt's own limit.
        seed: of the draws; every attempt of a request has its own.

    Raises:
        ValueError: if a value lies outside its range.
    """

    temperature: float = 0.6
    top_p: float = 0.9
    max_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature={self.temperature} lies outside 0-2; pass 0 for the likeliest answer.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} lies outside (0, 1]; pass 1 to draw from all tokens.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} leaves no room for an answer; pass at least 1.")

    def as_dict(self) -> dict[str, float | None]:
        """The settings as plain values."""
        return asdict(self)


class Key(NamedTuple):
    """Which answer: of which user after which step, and at which attempt (0 is the first)."""

    user_id: str
    step: int
    attempt: int


@dataclass(frozen=True)
class Request:
    """One question to the model.

    Attributes:
        key: which user, step and attempt it is about.
        messages: chat messages with "role" and "content"; one of the role "user" where a text is to be continued.
        window: digest of what is asked; an answer is used only for a request with the same digest.
        seed: of the draw of this answer.
        opening: the word that the answer has to begin with; "" where it is free.
    """

    key: Key
    messages: tuple[dict[str, str], ...]
    window: str
    seed: int
    opening: str = ""

    @property
    def characters(self) -> int:
        """Length of all messages."""
        return sum(len(message["content"]) for message in self.messages)


@dataclass(frozen=True)
class Completion:
    """How a request ended.

    Attributes:
        request: the request.
        text: the answer as it came; empty if there is none.
        finish: "stop", "length" (cut off), "refused" (asking again would not help) or "lost" (it may).
        prompt_tokens: tokens read; None where the engine does not know.
        completion_tokens: tokens written; None where the engine does not know.
        error: why there is no answer.
    """

    request: Request
    text: str
    finish: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str = ""


def token_count(value: object) -> int | None:
    """A number of tokens as servers report it, in whatever type; None where there is none.

    >>> [token_count(value) for value in (12, 12.4, "12", None, "many", -1, float("nan"), True, [12])]
    [12, 12, 12, None, None, None, None, None, None]
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return round(number) if 0 <= number < _MOST_TOKENS else None


Deliver = Callable[[Sequence[Completion]], None]


class Engine(Protocol):
    """Anything that completes requests.

    Attributes:
        model: name of the model, part of the key of every answer: the one that the server reports, where it does.
        prompt: what is asked.
        sampling: how answers are drawn.
        batch_size: how many requests make up a batch.
        faults: what went wrong and was tried again, by cause.
    """

    model: str
    prompt: Prompt
    sampling: Sampling
    batch_size: int
    faults: Counter[str]

    def run(self, batches: Iterator[list[Request]], deliver: Deliver, stop: threading.Event) -> None:
        """Complete all requests; once `stop` is set, begin no new one and return when those begun are delivered."""
        ...

    def under_way(self) -> str:
        """What is under way and how long it may take, for people who stop a run."""
        ...
