from __future__ import annotations

import polars as pl
import pytest

from preference_benchmark.preferences.llm.meaning import MEANING_RULES, judged_entries
from preference_benchmark.preferences.llm.prompts import PROMPTS

EXAMPLES = [answer for *_, answer in PROMPTS["one-review"].examples]
WINDOW = (
    "Product: Nickel strings, acoustic guitar\nRating: {} of 5\n"
    "Review: The strings last for ages, stay in tune and sound bright, but they squeak. No instructions came with them."
)
SCHEMA = {"user_id": pl.String, "step": pl.Int64, "text": pl.String, "rejected": pl.String, "cut": pl.Boolean}


def rejected(text: str, opening: str = "", before: str | None = None, cut: bool = False) -> str | None:
    entries = pl.DataFrame([("u", 0, text, before, cut)], schema=SCHEMA, orient="row")
    window = WINDOW.format(5)
    windows = pl.DataFrame({"user_id": ["u"], "step": [0], "window": [window], "opening": [opening]})
    windows = windows.with_columns(review=pl.lit(window.split("Review: ")[1] if opening else ""))
    return judged_entries(entries, windows, EXAMPLES)["rejected"][0]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Find strings that stay in tune", None),
        ("Find guitar strings with a bright sound", None),
        ("Search for durable acoustic guitar strings", None),
        ("Avoid strings that squeak", None),
        ("Avoid strings without instructions", None),
        ("No squeaking strings", None),
        ("No review found", "no answer"),
        ("No clear preference can be inferred from these reviews", "no answer"),
        ("No specific dislikes were mentioned", "no answer"),
        ("I need more information about the customer", "no answer"),
        ("Find strings that match the customer's preferences", "no answer"),
        ("Find out what strings they like", "no answer"),
        ("Find strings with a bright", None),
        ("Find strings with a bright sound and the", "unfinished"),
        ("Find the best product", "says nothing"),
        ("Find pans with a coating that peels", "close to an example"),
        ("Find strings with a cushioned sole", "close to an example"),
        ("Find a pick with a coating that comes off", "close to an example"),
        ("Avoid a leather sofa with brass feet", "not in review or item"),
    ],
)
def test_what_means_what(text, rule):
    assert rejected(text) == rule
    assert rule is None or rule in MEANING_RULES


@pytest.mark.parametrize(
    ("text", "opening", "rule"),
    [
        ("Avoid strings that squeak", "Find", "contradicts the rating"),
        ("Stay away from strings that squeak", "Find", "contradicts the rating"),
        ("Find strings that squeak", "Avoid", "contradicts the rating"),
        ("Find strings that stay in tune", "Find", None),
        ("Find an acoustic guitar", "Find", "nothing of the review"),
        ("Find an acoustic guitar", "", None),
        ("Avoid strings that squeak", "Avoid", None),
    ],
)
def test_wishes_follow_the_rating_where_one_review_is_asked_about(text, opening, rule):
    assert rejected(text, opening) == rule


def test_what_broke_a_rule_of_form_keeps_its_name():
    assert rejected("No review found", before="single word") == "single word"


def test_no_entries_give_none():
    windows = pl.DataFrame(
        schema={"user_id": pl.String, "step": pl.Int64, "window": pl.String, "opening": pl.String, "review": pl.String}
    )
    assert judged_entries(pl.DataFrame(schema=SCHEMA), windows).is_empty()


def test_lines_that_had_to_end_are_unfinished():
    text = "Find strings that stay in tune and sound bright so you can carry"
    assert rejected(text, "Find") is None and rejected(text, "Find", cut=True) == "unfinished"
