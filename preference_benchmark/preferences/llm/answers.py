"""The cache of a language model's answers, in append-only shards of JSON lines, and the costs of a run.

Every process appends to a shard of its own, each batch with one system call, so that writers cannot tear each
other's lines and a killed process loses at most what had not come back yet. Raw answers are kept, not what was made
of them: parser and rules can improve without paying again. An answer is found by model, prompt version, user, step
and attempt, and only while what was asked is still the same. Costs are estimated before a run and counted after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from preference_benchmark.preferences.files import agreement_in_words
from preference_benchmark.preferences.llm.engine import Completion, Key, token_count

__all__ = [
    "Answer",
    "AnswerCache",
    "Estimate",
    "Prices",
    "WritingReport",
    "estimate",
]


_ABOUT = "about.json"


@dataclass(frozen=True)
class Answer:
    """One stored answer; the fields of `Completion` and the time it took (its share of the run's wall time)."""

    user_id: str
    step: int
    attempt: int
    window: str
    text: str
    finish: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float

    @classmethod
    def of(cls, completion: Completion, seconds: float) -> Answer:
        """The answer that a completion brought."""
        return cls(
            *completion.request.key,
            completion.request.window,
            completion.text,
            completion.finish,
            completion.prompt_tokens,
            completion.completion_tokens,
            round(seconds, 4),
        )

    @property
    def key(self) -> Key:
        """Which user, step and attempt it is about."""
        return Key(self.user_id, self.step, self.attempt)


_FIELDS = {
    "user_id": str,
    "step": int,
    "attempt": int,
    "window": str,
    "text": str,
    "finish": str,
    "prompt_tokens": int | None,
    "completion_tokens": int | None,
    "seconds": float | int,
}


class AnswerCache:
    """The answers of one model to one version of a prompt.

    Args:
        folder: where the answers of all models and prompts are.
        model: name of the model.
        version: of the prompt, see `Prompt.version`.
        about: the prompt and sampling, kept beside the answers as JSON for people to read.

    Attributes:
        damaged: lines that could not be read, such as one that a killed process left unfinished.
    """

    def __init__(self, folder: str | Path, model: str, version: str, about: dict[str, object] | None = None) -> None:
        self.folder = Path(folder) / _folder_name(model) / version
        self.damaged = 0
        self._about = {"model": model, "version": version} | (about or {})
        self._answers: dict[tuple[Key, str], Answer] = {}
        self._read_up_to: dict[str, int] = {}
        self._shard: int | None = None
        self._shard_name = ""
        self.refresh()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, key: Key, window: str) -> Answer | None:
        """The answer of a key, if what was asked has the digest `window`."""
        return self._answers.get((key, window))

    def add(self, answers: Sequence[Answer]) -> None:
        """Append answers; when this returns they outlive the process.

        Raises:
            OSError: if the shard cannot be written.
        """
        if not answers:
            return
        if self._shard is None:
            self._open()
        lines = "".join(json.dumps(asdict(answer), ensure_ascii=True) + "\n" for answer in answers).encode()
        written = os.write(self._shard, lines)
        while written < len(lines):  # a nearly full disk takes a part
            written += os.write(self._shard, lines[written:])
        self._read_up_to[self._shard_name] += len(lines)
        for answer in answers:
            self._answers.setdefault((answer.key, answer.window), answer)

    def refresh(self) -> None:
        """Read what other writers have appended since."""
        for shard in sorted(self.folder.glob("*.jsonl")):
            start = self._read_up_to.get(shard.name, 0)
            if shard.stat().st_size <= start:
                continue
            with shard.open("rb") as file:
                file.seek(start)
                content = file.read()
            # A line without its end is still being written, or never will be: it is looked at again next time.
            whole = content.rfind(b"\n") + 1
            self._read_up_to[shard.name] = start + whole
            for line in content[:whole].splitlines():
                self._remember(line)

    def reload(self) -> None:
        """Read everything again: the result depends on the files alone, not on the order of writing."""
        self._answers, self._read_up_to, self.damaged = {}, {}, 0
        self.refresh()

    def close(self) -> None:
        """Force the shard to disk and close it."""
        if self._shard is not None:
            os.fsync(self._shard)
            os.close(self._shard)
            self._shard = None

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / _ABOUT
        if not about.exists():
            temporary = about.with_suffix(f".{uuid.uuid4().hex}.tmp")
            temporary.write_text(json.dumps(self._about, indent=2) + "\n", encoding="utf-8")
            temporary.replace(about)
        self._shard_name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._shard = os.open(self.folder / self._shard_name, flags, 0o644)
        self._read_up_to[self._shard_name] = 0

    def _remember(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            self.damaged += 1
            return
        if not isinstance(record, dict) or record.keys() != _FIELDS.keys():
            self.damaged += 1
            return
        # An earlier version wrote counts and texts as servers sent them.
        counts = {name: token_count(record[name]) for name in ("prompt_tokens", "completion_tokens")}
        record |= counts | {"text": str(record["text"]).encode("utf-8", "replace").decode()}
        if not all(isinstance(record[name], kind) for name, kind in _FIELDS.items()):
            self.damaged += 1
            return
        answer = Answer(**record)
        # Two writers may have paid for the same answer: that of the oldest shard counts.
        self._answers.setdefault((answer.key, answer.window), answer)


def _folder_name(model: str) -> str:
    """A folder name for a model: readable, and distinct for distinct names."""
    readable = re.sub(r"[^\w.-]+", "-", model.rstrip("/").split("/")[-1])[:60].strip(".-")
    return f"{readable or 'model'}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


_MILLION = 1_000_000
# English prose in the vocabularies of today's models; measured answers replace both guesses.
_CHARACTERS_PER_TOKEN = 4.0
_TOKENS_PER_ENTRY, _TOKENS_AROUND = 14, 12


@dataclass(frozen=True)
class Prices:
    """What a server charges, in US dollars per million tokens; 0 for your own server.

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
    """How much a run would take; `print` it.

    Attributes:
        users: users of whom preferences are wanted.
        steps: steps that are asked about.
        answered: of these, steps whose first answer is there already.
        requests: first answers that are missing.
        again: repetitions of unusable answers that are due now.
        expected_again: further repetitions, if as many answers are unusable as so far; None without answers.
        prompt_tokens: tokens that `requests` and `again` hold.
        completion_tokens: tokens of their answers.
        cost: dollars.
        measured_on: earlier answers that the token counts are scaled by; 0 if they follow rules of thumb.
        seconds: time at the pace of earlier answers; None if there are none.
    """

    users: int
    steps: int
    answered: int
    requests: int
    again: int
    expected_again: int | None
    prompt_tokens: int
    completion_tokens: int
    cost: float
    measured_on: int
    seconds: float | None

    def __str__(self) -> str:
        basis = f"measured on {self.measured_on:,} answers" if self.measured_on else "by rule of thumb"
        more = (
            "repetitions of unusable answers come on top"
            if self.expected_again is None
            else f"about {self.expected_again:,} more repetitions if as many answers are unusable as so far"
        )
        rows = [
            f"{self.steps:,} steps of {self.users:,} users: {self.answered:,} answered, {self.requests:,} to ask, "
            f"{self.again:,} to ask again",
            f"about {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens ({basis})",
            f"about ${self.cost:,.2f} at the given prices; {more}",
        ]
        if self.seconds is not None:
            rows.append(f"about {self.seconds / 60:,.1f} minutes at the pace of the earlier answers")
        return "\n".join(rows)


def estimate(
    lengths: Mapping[tuple[str, int], int],
    answers: Sequence[Answer],
    *,
    missing: Sequence[Sequence[tuple[str, int]]],
    enough: int,
    entries: int,
    prices: Prices,
) -> Estimate:
    """How much the requests without an answer would take.

    Args:
        lengths: characters in the messages, by user and step.
        answers: known answers.
        missing: user and step of requests without an answer that are due now, by attempt.
        enough: steps with enough usable entries.
        entries: entries of an answer.
        prices: of tokens.
    """
    counted = [answer for answer in answers if answer.prompt_tokens and answer.completion_tokens]
    per_token, written = _CHARACTERS_PER_TOKEN, float(entries * _TOKENS_PER_ENTRY + _TOKENS_AROUND)
    seconds = None
    due = [lengths[key] for keys in missing for key in keys]
    if counted:
        characters = sum(lengths[answer.user_id, answer.step] for answer in counted)
        per_token = characters / sum(answer.prompt_tokens for answer in counted)
        written = sum(answer.completion_tokens for answer in counted) / len(counted)
        seconds = sum(answer.seconds for answer in counted) / len(counted) * len(due)
    requests = len(missing[0])
    answered = len(lengths) - requests
    again = len(due) - requests
    # With a share u of unusable answers, each request brings u repetitions, each of these u more, and so on.
    unusable = 1 - enough / len(answers) if answers else 0.0
    tries = len(missing) - 1
    expected = requests * sum(unusable**attempt for attempt in range(1, tries + 1))
    expected += sum(
        len(keys) * sum(unusable**more for more in range(1, tries - attempt + 1))
        for attempt, keys in enumerate(missing)
        if attempt
    )
    prompt_tokens, completion_tokens = round(sum(due) / per_token), round(len(due) * written)
    return Estimate(
        users=len({user for user, _ in lengths}),
        steps=len(lengths),
        answered=answered,
        requests=requests,
        again=again,
        expected_again=round(expected) if answers else None,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost=prices.cost(prompt_tokens, completion_tokens),
        measured_on=len(counted),
        seconds=seconds,
    )


@dataclass
class WritingReport:
    """How a table of preferences was written; `print` it, `as_dict` goes beside the table.

    Attributes:
        approximator: which approximator wrote them.
        model: name of the model, None without one.
        prompt: version of the prompt.
        users: how many users the model was asked about.
        population: users of the data set.
        written_on: date of the last run.
        steps: steps that have preferences, and why others have none: "written", "failed", "nothing to ask about",
            "unfinished" (no answer yet: the run was stopped, or the server did not answer).
        answers: what the answers were: "usable", "unusable", "cut off", "refused", "sent in this run".
        rejected: entries that broke a rule, by rule.
        rejected_answers: three raw answers by rule.
        agreement: how preferences agree with ratings, as `mender preferences compare` measures it: "agrees",
            "balanced", "compared"; empty if it was not measured.
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
    population: int = 0
    written_on: str = field(default_factory=lambda: date.today().isoformat())
    steps: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    rejected_answers: dict[str, list[str]] = field(default_factory=dict)
    agreement: dict[str, float | None] = field(default_factory=dict)
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
        of = f" of {self.population:,}" if self.population else ""
        rows.append(f"users: {self.users:,}{of}; steps: {_listed(self.steps)}")
        for name in ("answers", "faults", "lost", "reviews"):
            counts = getattr(self, name)
            if any(counts.values()):
                rows.append(f"{name}: {_listed(counts)}")
        if self.rejected:
            rows.append(f"rejected: {sum(self.rejected.values()):,} entries, with the answers they stood in")
        for rule, count in Counter(self.rejected).most_common():
            rows.append(f"  {count:,} {rule}: " + "; ".join(map(repr, self.rejected_answers.get(rule, []))))
        if self.agreement:
            rows.append(agreement_in_words(self.agreement))
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
