"""What a text says not to want: negations in people's own words, and the wordings that models were trained on.

Sentence encoders hardly notice negation, so what is to be avoided is read as the positive phrase for it.
"""

from __future__ import annotations

import re

__all__ = ["avoid_sentence", "avoided_phrase", "is_negation"]

TRAINED_NEGATION = re.compile(r"(?i)(?:avoid|exclude|no)\b")
"""How negative preferences begin in the paper's data."""
NEGATION = re.compile(
    r"""(?ix) ^ (?:please\s+)?
    (?:(?:i|we|they|she|he|(?:the\s+)?(?:user|customer)) (?:['’]m|\s+am|\s+are|\s+is)?
        (?:\s+(?:really|also|absolutely))?\s+)?
    (?: (?:do\s+not|don['’]?t|does\s+not|doesn['’]?t|did\s+not|didn['’]?t|can\s?not|can['’]?t|never) \s+ (?:ever\s+)?
          (?:wants?|needs?|likes?|love|stand|care\s+for|show|recommend|suggest|give|offer|buy|get|find|search\s+for
             |look\s+for|include|choose|pick) (?:\s+to\s+(?:see|get|have|buy))? (?:\s+(?:me|us))?
      | avoids | avoiding | excludes | excluding | without | never | nothing\s+with | nothing | none\s+of | skips?
      | (?:stays?|keep)\s+away\s+from | steer\s+clear\s+of | refrain\s+from | leave\s+out | hide
      | not\s+interested\s+in | not | dislikes? | hates? | less
    ) \s+ (?=\S)"""
)
"""Other negations, up to the thing that is not wanted."""

TYPED_NEGATION = re.compile(
    r"""(?ix) ^ (?:please\s+)? (?:
        avoid\s+\S | exclude\s+\S | no\s+(?!idea|matter|doubt|problem|preference|rush|worries)\S
      | (?:(?:i|we)\s+)? (?:do\s+not|don['’]?t) \s+ (?:want|like|show|recommend|suggest|give) \b
    )"""
)
"""How a preference begins that says what is not wanted. Fewer forms than above: "not sure, maybe tea" asks for tea."""


def is_negation(text: str) -> bool:
    """Whether a preference says what is not wanted.

    >>> is_negation("No wool please"), is_negation("not sure, maybe tea")
    (True, False)
    """
    return TYPED_NEGATION.match(text.strip()) is not None


def avoid_sentence(text: str) -> str:
    """A sentence for something that a user wants to avoid, in the wording that models are trained on.

    A plain phrase becomes "Avoid ...", and other negations are replaced by it. An empty text stays empty.

    >>> avoid_sentence("strong smells"), avoid_sentence("No strong smells"), avoid_sentence("please don't show me wool")
    ('Avoid strong smells', 'No strong smells', 'Avoid wool')
    """
    text = " ".join(text.split())
    if not text or TRAINED_NEGATION.match(text):
        return text
    return f"Avoid {NEGATION.sub('', text)}"


def avoided_phrase(text: str) -> str:
    """The positive phrase for what a person wants to avoid.

    >>> avoided_phrase("Avoid strong smells."), avoided_phrase("no wool"), avoided_phrase("please don't show me wool")
    ('strong smells', 'wool', 'wool')
    """
    text = " ".join(text.split()).rstrip(".")
    return NEGATION.sub("", re.sub(rf"{TRAINED_NEGATION.pattern}\s*", "", text, count=1))
