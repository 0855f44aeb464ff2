"""Text of strangers that tries to be more: the lines of hostile_text.jsonl, each with a use, a kind and the text.

"preference" must break a rule; "addressing" must not reach a model; "markup" must leave nothing of itself there.
"plain preference" and "plain review" must pass as they are. "shown", and "markup" too, must show in cards and at the
terminal as nothing but text. A new trick is a line there.
"""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["LINES", "hostile_text"]

LINES = [json.loads(line) for line in Path(__file__).with_suffix(".jsonl").read_text("utf-8").splitlines()]


def hostile_text(*uses: str) -> list[str]:
    """Texts with any of these uses; all texts if none is given."""
    return [line["text"] for line in LINES if not uses or line["as"] in uses]
