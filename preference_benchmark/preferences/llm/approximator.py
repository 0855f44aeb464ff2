"""Preferences written by a language model: ask, keep the answers, check their entries, ask again, count.

As in Preference Discerning (Paischer et al. 2025, arXiv:2412.08604) the model is asked once per user and step, and a
step counts only with enough usable entries. The model is asked again where its answer is unusable; steps whose answers
stay unusable are counted and left out. Raw answers are kept, so a run that was killed continues where it ended, and the
first interrupt lets requests that are under way finish: their answers are paid for. A run whose answers are useless, or
stay out, one after the other, ends early and shows them.
"""

from __future__ import annotations

import hashlib
import math
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import polars as pl
from tqdm.auto import tqdm

from preference_benchmark.preferences.llm.answers import Answer, AnswerCache, Estimate, Prices, WritingReport, estimate
from preference_benchmark.preferences.llm.engine import FINISHED, LOST, REFUSED, Completion, Engine, Key, Request
from preference_benchmark.preferences.llm.meaning import judged_entries
from preference_benchmark.preferences.llm.parsing import checked_entries, entries
from preference_benchmark.preferences.llm.patience import SHOWN, Patience, one_line
from preference_benchmark.preferences.llm.prompts import Prompt, Windows, at_the_limit, windows
from preference_benchmark.preferences.names import Names
from preference_benchmark.preferences.polarity import preference_polarity
from preference_benchmark.tables import Tables

__all__ = [
    "Interrupted",
    "LlmApproximator",
    "Useless",
    "first_users",
    "stop_on_signals",
]


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals(under_way: Callable[[], str] | None = None) -> Iterator[threading.Event]:
    """An event that is set by the first interrupt (Ctrl-C) or termination signal; the second one ends the process.

    Outside the main thread, where signals cannot be caught, the event is never set.

    Args:
        under_way: what the stop waits for, printed on standard error.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def begin_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        for known, handler in before.items():
            signal.signal(known, handler)
        if under_way is not None:
            print(f"\nstopping: {under_way()}. The same signal again ends at once.", file=sys.stderr, flush=True)

    for number in _SIGNALS:
        signal.signal(number, begin_to_stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


PREFERENCES = 5
_REFRESH_SECONDS = 2.0
_ENTRY = {"user_id": pl.String, "step": pl.Int64, "attempt": pl.Int64, "text": pl.String, "cut": pl.Boolean}


class Interrupted(RuntimeError):
    """The run was stopped; the answers so far are kept, and the next run continues."""


class Useless(RuntimeError):
    """One useless answer came after the other, or none at all; the answers so far are kept."""


class LlmApproximator:
    """Up to five preferences per user and step, from a language model.

    Args:
        engine: runs the model: `OpenAIServer` or `LocalModel`.
        prompt: what is asked; the engine's own.
        cache: folder of the answers.
        retries: how often an unusable answer is asked for again.
        limit: how many users to write about: those that `first_users` gives; None for all.
        prices: of tokens.
        patience: how many useless answers, or requests without an answer, in a row end the run; 0 for no end.
        polarity: classifies texts as "positive" or "negative"; default: the paper's rule.
        progress: whether to show progress bars.

    Attributes:
        report: of the last call.

    Raises:
        ValueError: if `retries` or `patience` is negative or `limit` is not positive.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        cache: str | Path,
        *,
        retries: int = 2,
        limit: int | None = None,
        prices: Prices | None = None,
        patience: int = 30,
        polarity: Callable[[pl.Series], pl.Series] = preference_polarity,
        progress: bool = True,
    ) -> None:
        if retries < 0:
            raise ValueError(f"retries={retries} is negative; pass 0 to ask once.")
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit} leaves no user; pass at least 1, or None for all.")
        if patience < 0:
            raise ValueError(f"patience={patience} is negative; pass 0 to go on whatever comes.")
        self.engine, self.prompt, self.folder, self.patience = engine, prompt, Path(cache), patience
        self.retries, self.limit, self.prices = retries, limit, prices or Prices()
        self.polarity, self.progress = polarity, progress
        self.version = prompt.version(engine.sampling)
        self.report: WritingReport | None = None

    def __call__(self, tables: Tables) -> pl.DataFrame:
        """Preferences after every step of every user, where the model gave usable ones.

        Returns:
            user_id, step, rank (0 to 4, positive ones first), text (distinct within user and step), sentiment;
            sorted by user_id, step, rank. Steps without enough usable entries are absent and counted in `report`.

        Raises:
            Interrupted: if the run was stopped by a signal before everything was asked.
            Useless: if as many answers in a row as `patience` says were useless, or did not come.
            Unavailable: if the server cannot be used at all.
        """
        # A few users would not show which words are names.
        names = Names.of(tables)
        population = tables.interactions["user_id"].n_unique()
        tables = first_users(tables, self.limit)
        asked = windows(tables, self.prompt)
        run = _Run(self, asked, names)
        with self._cache() as cache, stop_on_signals(self.engine.under_way) as stop:
            for attempt in range(self.retries + 1):
                due = run.due(cache, attempt)
                if due.is_empty() or stop.is_set():
                    break
                run.ask(cache, due, attempt, stop)
            cache.reload()
            found = run.checked(cache, self.retries + 1)
            self.report = run.account(cache, found, population)
            if run.patience.trouble:
                raise Useless(f"{run.patience.trouble} {len(cache):,} answers are kept in {cache.folder}.")
            if stop.is_set():
                raise Interrupted(
                    f"stopped with {len(cache):,} answers kept in {cache.folder}; run the same command to continue."
                )
            return self._table(run.usable(found), tables)

    def estimate(self, tables: Tables) -> Estimate:
        """What a call would take; nothing is sent."""
        names = Names.of(tables)
        tables = first_users(tables, self.limit)
        run = _Run(self, windows(tables, self.prompt), names)
        with self._cache() as cache:
            open_requests = [run.missing(cache, attempt) for attempt in range(self.retries + 1)]
            answers = run.answers(cache, self.retries + 1)
            enough = len(run.enough(run.checked(cache, self.retries + 1)))
        questions = run.questions
        lengths = {
            (user, step): self.prompt.characters(length, opening)
            for user, step, length, opening in questions.select("user_id", "step", "length", "opening").iter_rows()
        }
        return estimate(
            lengths,
            answers,
            missing=[list(frame.select("user_id", "step").iter_rows()) for frame in open_requests],
            enough=enough,
            entries=self.prompt.entries,
            prices=self.prices,
        )

    def entries(self, tables: Tables) -> pl.DataFrame:
        """Every entry of the answers in the cache, for people who want to see what a model writes; nothing is sent.

        Returns:
            user_id, step, attempt, text, rejected (the rule that it breaks, or null), answer (as it came), window (what
            was asked about).
        """
        names = Names.of(tables)
        run = _Run(self, windows(first_users(tables, self.limit), self.prompt), names)
        with self._cache() as cache:
            answers = run.answers(cache, self.retries + 1)
            found = run.checked(cache, self.retries + 1)
        rows = [(*answer.key, answer.text) for answer in answers]
        schema = {name: kind for name, kind in _ENTRY.items() if name not in ("text", "cut")} | {"answer": pl.String}
        raw = pl.DataFrame(rows, schema=schema, orient="row")
        found = found.join(raw, on=["user_id", "step", "attempt"], how="left", maintain_order="left")
        asked = run.asked.frame.select("user_id", "step", "window")
        return found.join(asked, on=["user_id", "step"], how="left", maintain_order="left")

    def _cache(self) -> AnswerCache:
        shown = {"system": self.prompt.system, "template": self.prompt.template, "examples": self.prompt.examples}
        about = {"prompt": shown, "sampling": self.engine.sampling.as_dict()}
        return AnswerCache(self.folder, self.engine.model, self.version, about)

    def _request(self, key: Key, window: str, opening: str, digest: str) -> Request:
        # A seed of its own for every question and attempt, below 2^31 as some servers want it.
        drawn = hashlib.sha256(f"{self.engine.sampling.seed}/{digest}/{key}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big") >> 1
        return Request(key, self.prompt.messages(window, opening), digest, seed, opening)

    def _table(self, usable: pl.DataFrame, tables: Tables) -> pl.DataFrame:
        """Usable entries as preferences: user_id, step, rank, text, sentiment."""
        steps = tables.interactions.select("user_id", "step")
        reach = pl.int_ranges(0, self.prompt.carried)
        carried = usable.with_columns(age=reach).explode("age").with_columns(pl.col("step") + pl.col("age"))
        carried = carried.join(steps, on=["user_id", "step"], how="semi")
        carried = carried.sort("user_id", "step", "age", "place").unique(
            ["user_id", "step", "form"], keep="first", maintain_order=True
        )
        carried = carried.with_columns(sentiment=self.polarity(carried["text"]))
        kept = carried.filter(pl.int_range(pl.len()).over("user_id", "step") < PREFERENCES)
        kept = kept.sort("user_id", "step", "sentiment", "age", "place", descending=[False, False, True, False, False])
        rank = pl.int_range(pl.len()).over("user_id", "step")
        return kept.select("user_id", "step", rank.alias("rank"), "text", "sentiment")


class _Run:
    """One call: which questions are open, and how they ended."""

    def __init__(self, approximator: LlmApproximator, asked: Windows, names: Names) -> None:
        self.approximator, self.asked, self.names = approximator, asked, names
        self.questions = _questions(asked.frame)
        self.sent = 0
        self.lost: Counter[str] = Counter()
        self._last = time.monotonic()
        # Fewest usable entries with which an answer and its repetitions can be enough.
        least = math.ceil(approximator.prompt.entries / (approximator.retries + 1))
        self.patience = Patience(approximator.patience, least, self._judged)

    def due(self, cache: AnswerCache, attempt: int) -> pl.DataFrame:
        """The questions of this attempt: all at first, then those whose answers so far are not enough.

        A question that got no answer at the attempt before is left for the next run.
        """
        if attempt == 0:
            return self.questions
        again = []
        enough = self.enough(self.checked(cache, attempt))
        for user, step, digest in _named(self.questions):
            before = cache.find(Key(user, step, attempt - 1), digest)
            again.append(before is not None and before.finish != REFUSED and (user, step) not in enough)
        return self.questions.filter(pl.Series(again, dtype=pl.Boolean))

    def missing(self, cache: AnswerCache, attempt: int) -> pl.DataFrame:
        """The questions of this attempt that have no answer yet."""
        due = self.due(cache, attempt)
        absent = [cache.find(Key(user, step, attempt), digest) is None for user, step, digest in _named(due)]
        return due.filter(pl.Series(absent, dtype=pl.Boolean))

    def ask(self, cache: AnswerCache, due: pl.DataFrame, attempt: int, stop: threading.Event) -> None:
        """Send what has no answer yet, in the batches that an uninterrupted run would make.

        Messages are written batch by batch: those of all questions would take gigabytes.
        """
        approximator, texts = self.approximator, self.asked.frame["window"]
        self.patience.answered |= len(cache) > 0
        words = "Asking the model" if attempt == 0 else f"Asking again ({attempt})"
        with tqdm(total=due.height, desc=words, unit="request", disable=not approximator.progress) as bar:

            def deliver(completions: Sequence[Completion]) -> None:
                now = time.monotonic()
                seconds, self._last = (now - self._last) / len(completions), now
                kept = [Answer.of(completion, seconds) for completion in completions if completion.finish != LOST]
                cache.add(kept)
                self.sent += len(kept)
                self.lost.update(completion.error for completion in completions if completion.finish == LOST)
                bar.update(len(completions))
                if self.patience.see(completions, kept):
                    stop.set()

            def batches() -> Iterator[list[Request]]:
                looked = time.monotonic()
                for batch in due.iter_slices(approximator.engine.batch_size):
                    if time.monotonic() - looked > _REFRESH_SECONDS:
                        cache.refresh()
                        looked = time.monotonic()
                    missing = [
                        approximator._request(Key(user, step, attempt), texts[row], opening, digest)
                        for user, step, digest, opening, _, row in batch.iter_rows()
                        if cache.find(Key(user, step, attempt), digest) is None
                    ]
                    bar.update(batch.height - len(missing))
                    if missing:
                        yield missing

            self._last = time.monotonic()
            approximator.engine.run(batches(), deliver, stop)

    def usable(self, found: pl.DataFrame) -> pl.DataFrame:
        """Usable entries of the steps that have enough: user_id, step, place, text, form."""
        kept = found.filter(pl.col("rejected").is_null())
        kept = kept.with_columns(place=pl.int_range(pl.len()).over("user_id", "step"))
        kept = kept.filter(pl.len().over("user_id", "step") >= self.approximator.prompt.entries)
        kept = kept.filter(pl.col("place") < self.approximator.prompt.entries)
        return kept.select("user_id", "step", "place", "text", form=pl.col("text").str.to_lowercase())

    def account(self, cache: AnswerCache, found: pl.DataFrame, population: int) -> WritingReport:
        """How all steps, answers and entries ended; `population` is the number of users of the data set."""
        approximator, asked = self.approximator, self.asked
        answers = self.answers(cache, approximator.retries + 1)
        enough = self.enough(found)
        steps: Counter[str] = Counter({"nothing to ask about": asked.unasked})
        for user, step, digest in _named(self.questions):
            if (user, step) in enough:
                steps["written"] += 1
            else:
                steps["failed" if self._settled(cache, user, step, digest) else "unfinished"] += 1
        yielding = set(found.filter(pl.col("rejected").is_null()).select("user_id", "step", "attempt").rows())
        kinds: Counter[str] = Counter({"sent in this run": self.sent})
        for answer in answers:
            usable = tuple(answer.key) in yielding
            kinds["refused" if answer.finish == REFUSED else "usable" if usable else "unusable"] += 1
            kinds["cut off"] += answer.finish == "length"
        report = WritingReport(
            approximator="llm",
            model=approximator.engine.model,
            prompt=approximator.version,
            users=self.questions["user_id"].n_unique(),
            population=population,
            steps=dict(steps),
            answers=dict(kinds),
            rejected=dict(found["rejected"].drop_nulls().value_counts(sort=True).iter_rows()),
            rejected_answers=self._examples(found, {answer.key: answer.text for answer in answers}),
            faults=dict(approximator.engine.faults),
            lost=dict(self.lost),
            reviews={"shortened": asked.shortened, "cleaned": asked.cleaned},
            damaged=cache.damaged,
        )
        report.count_tokens(answers, approximator.prices)
        return report

    @staticmethod
    def _examples(found: pl.DataFrame, texts: Mapping[Key, str]) -> dict[str, list[str]]:
        """Three raw answers for every rule that entries broke."""
        broken = found.drop_nulls("rejected").unique(["rejected", "text"], keep="first", maintain_order=True)
        broken = broken.unique(["rejected", "user_id", "step", "attempt"], keep="first", maintain_order=True)
        keys = broken.group_by("rejected", maintain_order=True).head(SHOWN)
        shown: dict[str, list[str]] = {}
        for rule, *key in keys.select("rejected", "user_id", "step", "attempt").iter_rows():
            shown.setdefault(rule, []).append(one_line(texts[Key(*key)]))
        return shown

    def _settled(self, cache: AnswerCache, user: str, step: int, digest: str) -> bool:
        """Whether no further attempt would be made."""
        if cache.find(Key(user, step, self.approximator.retries), digest) is not None:
            return True
        first = cache.find(Key(user, step, 0), digest)
        return first is not None and self._answers_of(cache, user, step, digest)[-1].finish == REFUSED

    def _answers_of(self, cache: AnswerCache, user: str, step: int, digest: str) -> list[Answer]:
        keys = (Key(user, step, attempt) for attempt in range(self.approximator.retries + 1))
        return [answer for key in keys if (answer := cache.find(key, digest)) is not None]

    def answers(self, cache: AnswerCache, attempts: int) -> list[Answer]:
        """Known answers of the first attempts, in order of user, step and attempt."""
        found = [answer for named in _named(self.questions) for answer in self._answers_of(cache, *named)]
        return sorted((answer for answer in found if answer.attempt < attempts), key=lambda answer: answer.key)

    def checked(self, cache: AnswerCache, attempts: int) -> pl.DataFrame:
        """Entries of the first attempts' answers, checked: user_id, step, attempt, text, rejected."""
        return self._judged(self.answers(cache, attempts))

    def _judged(self, answers: Sequence[Answer]) -> pl.DataFrame:
        prompt = self.approximator.prompt
        rows = [
            (answer.user_id, answer.step, answer.attempt, text, not prompt.json_answer and at_the_limit(text))
            for answer in answers
            if answer.finish in FINISHED
            for text in (entries(answer.text) if prompt.json_answer else _first_line(answer))
        ]
        found = pl.DataFrame(rows, schema=_ENTRY, orient="row")
        examples = [answer for *_, answer in prompt.examples]
        checked = checked_entries(found, self.asked.frame, self.names, examples)
        return judged_entries(checked, self.asked.frame, examples).drop("cut")

    def enough(self, found: pl.DataFrame) -> set[tuple[str, int]]:
        """User and step of those with enough usable entries."""
        counts = found.filter(pl.col("rejected").is_null()).group_by("user_id", "step").len()
        return set(
            counts.filter(pl.col("len") >= self.approximator.prompt.entries).select("user_id", "step").iter_rows()
        )


def _questions(asked: pl.DataFrame) -> pl.DataFrame:
    """What identifies the questions about windows: user_id, step, digest, opening, length, row (of the window).

    They stand in the order in which they are asked, so that texts of similar length share a batch.
    """
    length, row = pl.col("window").str.len_chars().alias("length"), pl.int_range(pl.len()).alias("row")
    return asked.select("user_id", "step", "digest", "opening", length, row).sort("length", "user_id", "step")


def _named(questions: pl.DataFrame) -> Iterator[tuple[str, int, str]]:
    """User, step and digest of every question."""
    return questions.select("user_id", "step", "digest").iter_rows()


def first_users(tables: Tables, limit: int | None) -> Tables:
    """The tables with the interactions of so many users.

    Which ones depends on nothing but their ids, and a larger limit keeps those of a smaller one.
    """
    if limit is None:
        return tables
    users = tables.interactions["user_id"].unique().to_list()
    chosen = sorted(users, key=lambda user: hashlib.sha256(user.encode()).digest())[:limit]
    kept = tables.interactions.filter(pl.col("user_id").is_in(chosen))
    return replace(tables, interactions=kept)


def _first_line(answer: Answer) -> list[str]:
    """The line that an answer is; none if it was cut off, since half a preference may be its opposite."""
    lines = answer.text.strip().splitlines()
    if not lines or (answer.finish == "length" and len(lines) == 1):
        return []
    return lines[:1]
