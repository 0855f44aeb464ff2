"""Answers that were paid for, kept in append-only shards of JSON lines.

Every process appends to a shard of its own, each batch with one system call, so that writers cannot tear each
other's lines and a killed process loses at most what had not come back yet. Raw answers are kept, not what was made
of them: parser and rules can improve without paying again. An answer is found by model, prompt version, user, step
and attempt, and only while what was asked is still the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from preference_benchmark.preferences.llm.engine import Completion, Key

__all__ = ["Answer", "AnswerCache"]

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
        """Whom and when it is about, and the attempt."""
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
        about: kept beside the answers as JSON, for people.

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
        """Read everything again: what is found then depends on the files alone, not on who wrote when."""
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
