"""What became of every line that a source read: used, dropped for a reason, or malformed for a reason."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Counts", "ReadReport"]


@dataclass(frozen=True)
class Counts:
    """How many distinct users and items, and how many interactions, a table of interactions holds."""

    users: int = 0
    items: int = 0
    interactions: int = 0

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


@dataclass(frozen=True)
class ReadReport:
    """What was read, used and left out; `print` it.

    A report adds up: used + dropped + malformed = lines + added. One that does not means that a reader has lost
    lines, and is refused when it is made.

    Attributes:
        source: name of the source.
        files: the files that were read.
        lines: non-empty lines of these files, or rows of Parquet. A line that holds a whole history counts once for
            each of its interactions.
        added: items that no line describes, which are known from interactions alone.
        used: what became part of a table, by table: "interactions", "items", and what else a source uses.
        dropped: what was left out, by reason.
        malformed: what could not be read, by reason.
        examples: by reason or note, the first lines as "file:line", or the first items as "title (id)".
        notes: other things worth knowing, by what was counted.
        before: counts before the filters `min_user` and `min_item`.
        after: counts after them.
        advice: how to keep more, where most users were dropped.

    Raises:
        RuntimeError: if the report does not add up.
    """

    source: str = "table"
    files: tuple[str, ...] = ()
    lines: int = 0
    added: int = 0
    used: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    malformed: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    before: Counts = Counts()
    after: Counts = Counts()
    advice: str = ""

    def __post_init__(self) -> None:
        used, dropped, malformed = (sum(counts.values()) for counts in (self.used, self.dropped, self.malformed))
        if used + dropped + malformed != self.lines + self.added:
            raise RuntimeError(
                f"the reader of source {self.source!r} does not account for every line: {used:,} used + {dropped:,} "
                f"dropped + {malformed:,} malformed, of {self.lines:,} lines and {self.added:,} added items "
                f"({', '.join(self.files) or 'no files'}). This is a defect of the reader; please report it."
            )

    def __str__(self) -> str:
        rows = [f"source: {self.source}"]
        if self.files:
            rows.append(f"read: {self.lines:,} lines of {', '.join(self.files)}")
        rows += [f"malformed: {self._counted(count, reason)}" for reason, count in self.malformed.items() if count]
        rows += [f"dropped: {self._counted(count, reason)}" for reason, count in self.dropped.items() if count]
        rows += [f"note: {self._counted(count, what)}" for what, count in self.notes.items() if count]
        rows.append(f"before filters: {self.before}")
        rows.append(f"after filters: {self.after}")
        rows.append("used: " + ", ".join(f"{count:,} {table}" for table, count in self.used.items()))
        if self.advice:
            rows.append(self.advice)
        return "\n".join(rows)

    def _counted(self, count: int, reason: str) -> str:
        first = self.examples.get(reason, ())
        more = ", ..." if len(first) < count else ""
        return f"{count:,} {reason}" + (f" ({', '.join(first)}{more})" if first else "")
