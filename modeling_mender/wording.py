"""What a text says not to want: negations in people's own words, and the wordings that models were trained on.

Sentence encoders hardly notice negation, so what is to be avoided is read as the positive phrase for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["avoid_sentence", "avoided_phrase", "is_negation", "split_exclusions"]

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
      | (?:(?:i|we)\s+)? (?:really\s+)? (?:do\s+not|don['’]?t) \s+ (?:want|like|show|recommend|suggest|give) \b
    )"""
)
"""How a preference begins that says what is not wanted. Fewer forms than above: "not sure, maybe tea" asks for tea."""

EXCLUSION = re.compile(
    r"""(?ix) (?<=[\w!?.)'’"]) (?:
        (?:[,;:]\s+ | \s+[-–—]+\s+ | \s+(?=(?:but|and|with)\s+no\b)) (?:(?:but|and|with|please)\s+){0,3}
            (?P<lacks>no)
      | (?:[,;:]|\s[-–—]+)?\s+ (?:(?:but|and|please)\s+){0,3} (?:
            (?P<without>without)
          | not\s+(?:with|in|too|very|made\s+of|containing) | (?:(?<=but\s)|(?<=[-–—,;:]\s)|(?<=,\sand\s))not
              (?!\s+(?:necessarily|really|yet|quite|exactly|even|because|that|to|a\s+(?:must|problem))\b)
          | nothing\s+(?:with|in|too|made\s+of|containing)
          | (?:that|which)\s*(?:(?:is|are)\s+not|isn['’]t|aren['’]t)(?:\s+(?:too|very|so|in|made\s+of))?
          | except(?:\s+for)? | excluding | avoid(?:ing)? | other\s+than | rather\s+than | instead\s+of
        )
    ) \s+ (?:any\s+)?
    (?! (?:longer|matter|doubt|problem|idea|more|less|only|sure|just|limits?|ends?|need|fuss|nonsense)\b )
    (?P<phrase>[^\s,.;:!?()][^,.;:!?()]*)"""
)
"""The part of a wish that excludes something, up to the next punctuation mark. A bare "no" has to follow a comma or
dash, "but", "and" or "with"."""

SENTENCE = re.compile(
    r"""(?ix) (?<=\w{3}[.!?]) \s+ | (?<=[.!?]{2}) \s+
    | (?:[,;]\s+(?:(?:but|and)\s+)? | \s+(?:but|and)\s+)
        (?= (?:(?:i|we|please)\s+)? (?:really\s+)? (?:do\s+not|don['’]?t) \s+
            (?:want|like|show|recommend|suggest|give)\b )"""
)
"""Where a sentence ends; abbreviations such as "Dr." end none."""
LATER_NEGATION = re.compile(
    r"(?i)(?:please\s+)?(?:but\s+)?(?:not|without|except|nothing\s+with)\s+(?!sure\b|only\b|just\b)\S"
)
"""How a second sentence begins that says what is not wanted, where a first one said what is."""


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


def split_exclusions(text: str, described: Callable[[str], bool] = lambda words: False) -> tuple[str, list[str]]:
    """What a text asks for, and the phrases for what it excludes.

    A text that only excludes stays as it is, and so does one that asks for what it excludes.

    Args:
        text: a wish, such as "herbal infusions without mint".
        described: whether items are described with some words. "Dress without sleeves" is one wish where items are,
            and where soaps are called fragrance-free, "soap without fragrance" asks for these.

    >>> split_exclusions("herbal infusions, but no mint or chilli, for the evening")
    ('herbal infusions, for the evening', ['mint', 'chilli'])
    >>> split_exclusions("Coffee that is not too strong"), split_exclusions("Tea, please. I don't like mint.")
    (('Coffee', ['strong']), ('Tea, please', ['mint']))
    >>> split_exclusions("coffee, not decaf"), split_exclusions("a glass mug rather than stoneware")
    (('coffee', ['decaf']), ('a glass mug', ['stoneware']))
    >>> split_exclusions("soap without fragrance", lambda words: words == "fragrance-free")
    ('soap, fragrance-free', [])
    """
    # Patterns try every blank of a run of blanks.
    first, *others = SENTENCE.split(" ".join(text.split()))
    if is_negation(first):
        return text, []
    negative = [sentence for sentence in others if is_negation(sentence) or LATER_NEGATION.match(sentence)]
    sentences = [first, *(sentence for sentence in others if sentence not in negative)]
    phrases: list[str] = []

    def excluded(found: re.Match[str]) -> str:
        kept = ""
        said = re.sub(r"(?i)\s+please$", "", found["phrase"].strip())
        for phrase in re.split(r"\s+(?:or|nor)\s+(?:any\s+)?", said):
            word = found["lacks"] or found["without"]
            if word and described(f"{phrase}-free"):
                kept += f", {phrase}-free"
            elif word and described(f"{word} {phrase}"):
                kept += f" {word} {phrase}"
            else:
                phrases.append(phrase)
        return kept

    wanted = [EXCLUSION.sub(excluded, sentence) for sentence in sentences]
    if not negative and wanted == sentences:
        return text, []
    phrases += [re.sub(r"(?i),?\s+please$", "", avoided_phrase(sentence.rstrip("!?."))) for sentence in negative]
    wish = " ".join(wanted).strip(" ,;.")
    if wish.casefold() in map(str.casefold, phrases):
        return text, []
    return wish, phrases
