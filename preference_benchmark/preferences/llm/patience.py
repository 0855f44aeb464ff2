"""When a run gives up: one useless answer after the other, or none at all.

A model that does not follow its prompt, and a server that is gone, would otherwise be asked about every user. Only
first attempts are judged: what is asked again are the hard questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import polars as pl

from preference_benchmark.preferences.llm.answers import Answer
from preference_benchmark.preferences.llm.engine import LOST, REFUSED, Completion, Key

__all__ = ["SHOWN", "Patience", "one_line"]

SHOWN, _SHOWN_CHARACTERS = 3, 160
# A server that has lost so many requests before its first answer is not there.
_FIRST_LOST = 5


class Patience:
    """Counts useless answers and requests without an answer in a row.

    Args:
        most: how many in a row are too many; 0 for any number.
        least: fewest usable entries of an answer that is not useless.
        judged: entries of answers, with the rule that each breaks in the column `rejected`.
        answered: whether the model has answered before.

    Attributes:
        trouble: why the run should end; "" as long as it should not.
    """

    def __init__(
        self, most: int, least: int, judged: Callable[[Sequence[Answer]], pl.DataFrame], answered: bool = False
    ) -> None:
        self.most, self.least, self.judged, self.answered = most, least, judged, answered
        self.trouble = ""
        self._unread: list[Answer] = []
        self._useless = 0
        self._lost: Counter[str] = Counter()

    def see(self, completions: Sequence[Completion], kept: Sequence[Answer]) -> bool:
        """Take in what came, with the answers among it; whether the run should end."""
        if not self.most or self.trouble:
            return bool(self.trouble)
        if kept:
            self.answered = True
            self._lost.clear()
        self._lost.update(completion.error for completion in completions if completion.finish == LOST)
        if self._lost.total() >= (self.most if self.answered else min(self.most, _FIRST_LOST)):
            ((reason, _),) = self._lost.most_common(1)
            self.trouble = (
                f"{self._lost.total()} requests in a row got no answer ({reason}); see to the server, or pass "
                "--patience 0 to go on whatever comes."
            )
        self._unread += [answer for answer in kept if not answer.attempt]
        # Answers are judged together: one by one would cost more than some servers take to write them.
        if not self.trouble and self._useless + len(self._unread) >= self.most:
            self._judge()
        return bool(self.trouble)

    def _judge(self) -> None:
        rows = self.judged(self._unread).select("user_id", "step", "attempt", "rejected").rows()
        usable = Counter(Key(*key) for *key, rule in rows if rule is None)
        answers, self._unread = self._unread, []
        for answer in answers:
            self._useless = 0 if usable[answer.key] >= self.least else self._useless + 1
        if self._useless < self.most:
            return
        rules = {Key(*key): rule for *key, rule in rows}
        shown = [
            f"  {one_line(answer.text)!r}: "
            + ("refused" if answer.finish == REFUSED else rules.get(answer.key) or "no preference in it")
            for answer in answers[-SHOWN:]
        ]
        self.trouble = (
            f"{self._useless} useless answers in a row, such as\n" + "\n".join(shown) + "\nAnother prompt "
            "(--prompt) or a larger model may do better; --patience 0 goes on whatever comes."
        )


def one_line(text: str) -> str:
    """A raw answer to be shown.

    >>> one_line("Find   a mug")
    'Find a mug'
    """
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + " ..."
