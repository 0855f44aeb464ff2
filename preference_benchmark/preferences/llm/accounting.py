"""What writing costs: estimates before, an account after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from preference_benchmark.preferences.llm.answers import Answer

__all__ = ["Estimate", "Prices", "WritingReport", "estimate"]

_MILLION = 1_000_000
# English prose in the vocabularies of today's models; measured answers replace both guesses.
_CHARACTERS_PER_TOKEN = 4.0
_TOKENS_PER_ENTRY, _TOKENS_AROUND = 14, 12


@dataclass(frozen=True)
class Prices:
    """What a server charges, in US dollars per million tokens; 0 for one's own.

    Raises:
        ValueError: if a price is negative.
    """

    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self) -> None:
        if self.prompt < 0 or self.completion < 0:
            raise ValueError(f"prices {self.prompt}, {self.completion} are negative; pass dollars per million tokens.")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / _MILLION


@dataclass(frozen=True)
class Estimate:
    """What a run would take; `print` it.

    Attributes:
        users: users of whom preferences are wanted.
        steps: steps that are asked about.
        answered: of these, steps whose first answer is there already.
        requests: first answers that are missing; repetitions of unusable answers come on top.
        prompt_tokens: tokens that these requests hold.
        completion_tokens: tokens of their answers.
        cost: dollars.
        measured_on: earlier answers that the token counts are scaled by; 0 if they follow rules of thumb.
        seconds: time at the pace of earlier answers; None if there are none.
    """

    users: int
    steps: int
    answered: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    measured_on: int
    seconds: float | None

    def __str__(self) -> str:
        basis = f"measured on {self.measured_on:,} answers" if self.measured_on else "by rule of thumb"
        rows = [
            f"{self.steps:,} steps of {self.users:,} users: {self.answered:,} answered, {self.requests:,} to ask",
            f"about {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens ({basis})",
            f"about ${self.cost:,.2f} at the given prices; repetitions of unusable answers come on top",
        ]
        if self.seconds is not None:
            rows.append(f"about {self.seconds / 60:,.1f} minutes at the pace of the earlier answers")
        return "\n".join(rows)


def estimate(
    lengths: Sequence[int], answers: Mapping[int, Answer], users: int, entries: int, prices: Prices
) -> Estimate:
    """What the unanswered among the first requests would take.

    Args:
        lengths: characters in the messages of every first request.
        answers: known answers by position of their request.
        users: number of users.
        entries: entries of an answer.
        prices: of tokens.
    """
    counted = [
        (lengths[place], answer)
        for place, answer in answers.items()
        if answer.prompt_tokens and answer.completion_tokens
    ]
    per_token, written = _CHARACTERS_PER_TOKEN, float(entries * _TOKENS_PER_ENTRY + _TOKENS_AROUND)
    seconds = None
    missing = [characters for place, characters in enumerate(lengths) if place not in answers]
    if counted:
        per_token = sum(characters for characters, _ in counted) / sum(answer.prompt_tokens for _, answer in counted)
        written = sum(answer.completion_tokens for _, answer in counted) / len(counted)
        seconds = sum(answer.seconds for _, answer in counted) / len(counted) * len(missing)
    prompt_tokens, completion_tokens = round(sum(missing) / per_token), round(len(missing) * written)
    cost = prices.cost(prompt_tokens, completion_tokens)
    return Estimate(
        users, len(lengths), len(answers), len(missing), prompt_tokens, completion_tokens, cost, len(counted), seconds
    )


@dataclass
class WritingReport:
    """How the preferences of a table came to be; `print` it, `as_dict` goes beside the table.

    Attributes:
        approximator: which kind wrote them.
        model: name of the model, None without one.
        prompt: version of the prompt.
        users: users who were asked about.
        steps: steps that have preferences, and why others have none: "written", "failed", "nothing to ask about",
            "unfinished" (no answer yet: the run was stopped, or the server did not answer).
        answers: what the answers were: "usable", "unusable", "cut off", "refused", "sent in this run".
        rejected: entries that broke a rule, by rule.
        faults: what went wrong on the way and was tried again, by cause; this run.
        lost: requests without an answer, by cause; this run.
        reviews: reviews that were "shortened" or "cleaned" before the model read them.
        prompt_tokens: of all answers.
        completion_tokens: of all answers.
        uncounted: answers whose engine did not count tokens.
        cost: dollars, of all answers.
        seconds: wall time of all runs that answers came from.
        damaged: lines of the cache that could not be read.
    """

    approximator: str
    model: str | None = None
    prompt: str | None = None
    users: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    reviews: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    damaged: int = 0

    def count_tokens(self, answers: Iterable[Answer], prices: Prices) -> None:
        """Add up tokens, cost and time of answers."""
        for answer in answers:
            self.prompt_tokens += answer.prompt_tokens or 0
            self.completion_tokens += answer.completion_tokens or 0
            self.uncounted += answer.prompt_tokens is None
            self.seconds += answer.seconds
        self.cost = prices.cost(self.prompt_tokens, self.completion_tokens)

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [f"{self.approximator}" + (f", {self.model}, prompt {self.prompt}" if self.model else "")]
        rows.append(f"users: {self.users:,}; steps: {_listed(self.steps)}")
        for name in ("answers", "rejected", "faults", "lost", "reviews"):
            counts = getattr(self, name)
            if any(counts.values()):
                rows.append(f"{name}: {_listed(counts)}")
        if self.model:
            uncounted = f" ({self.uncounted:,} answers uncounted)" if self.uncounted else ""
            rows.append(
                f"tokens: {self.prompt_tokens:,} read, {self.completion_tokens:,} written{uncounted}; "
                f"${self.cost:,.4f}; {self.seconds:,.1f} s"
            )
        if self.damaged:
            rows.append(f"cache: {self.damaged:,} damaged lines left out")
        return "\n".join(rows)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in Counter(counts).most_common() if count) or "none"
