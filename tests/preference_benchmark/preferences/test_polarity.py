from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from preference_benchmark.preferences.polarity import (
    compound_scores,
    invert,
    inverted,
    preference_polarity,
    review_polarity,
)


@pytest.mark.parametrize(
    ("rating", "review", "expected"),
    [
        (5.0, "I hate it, horrible.", "positive"),
        (4.0, "", "positive"),
        (2.0, "I love it!", "negative"),
        (1.0, "", "negative"),
        (3.0, "I hate it, horrible.", "negative"),
        (3.0, "I love it!", "positive"),
        (3.0, "", "positive"),
        (None, "I hate it, horrible.", "negative"),
        (None, "It is a cup.", "positive"),
        (None, "", "positive"),
    ],
)
def test_rating_decides_where_it_is_clear_and_text_where_not(rating, review, expected):
    row = pl.DataFrame({"rating": [rating], "review": [review]}, schema={"rating": pl.Float64, "review": pl.String})
    assert review_polarity(row).to_list() == [expected]


def test_scores_stand_at_their_texts():
    texts = pl.Series("review", ["I love it", "", None, "Horrible smell!", "I love it"])
    vader = SentimentIntensityAnalyzer()
    expected = [vader.polarity_scores(text or "")["compound"] for text in texts]
    assert compound_scores(texts).to_list() == expected and expected[0] == expected[4] > 0 > expected[3]


@given(st.sampled_from(["avoid", "AVOID", "No", "exclude", "Exclude"]), st.text("abc xyz-", min_size=1))
def test_inversion_turns_negative_into_positive_and_keeps_the_rest(opening, rest):
    text = f"{opening} {rest}"
    opposite = invert(text)
    if not rest.strip():
        assert opposite is None
        return
    assert preference_polarity(pl.Series([text, opposite])).to_list() == ["negative", "positive"]
    assert opposite.endswith(rest.strip())
    assert opposite.startswith("Find " if opening.lower() == "avoid" else "Search for ")
    assert invert(opposite) is None


@pytest.mark.parametrize("text", ["Find tea", "Notebooks with lines", "Avoidance", "Nothing", "", "no", "I avoid nuts"])
def test_other_openings_are_positive_and_have_no_inversion(text):
    assert preference_polarity(pl.Series([text])).to_list() == ["positive"]
    assert inverted(pl.Series([text])).to_list() == [None]


EXTENDED = {
    "Stay away from loud toys": "Find loud toys",
    "don't show me horror games": "Show me horror games",
    "Please do not recommend sweet drinks": "Recommend sweet drinks",
    "The user dislikes wool": "Find wool",
    "I really don't like thin strings": "Find thin strings",
    "I don't want glass jars": "Find glass jars",
    "Nothing with nuts": "Find something with nuts",
    "no more pop songs": "Search for more pop songs",
    "Avoids noisy fans": "Find noisy fans",
    "Without sugar": "Search for sugar",
    "Avoid nuts": "Find nuts",
}


@pytest.mark.parametrize(("text", "opposite"), EXTENDED.items())
def test_extended_rules_know_other_ways_to_say_no(text, opposite):
    assert invert(text, "extended") == opposite
    assert preference_polarity(pl.Series([text, opposite]), "extended").to_list() == ["negative", "positive"]


@pytest.mark.parametrize(
    "text", ["Find tea", "Notebooks", "Nothingness", "I like tea", "Show me lamps", "", "Skipping ropes"]
)
def test_extended_rules_leave_the_rest_alone(text):
    assert invert(text, "extended") is None
    assert preference_polarity(pl.Series([text]), "extended").to_list() == ["positive"]


@given(st.lists(st.text(max_size=20)))
def test_extended_rules_agree_with_the_papers_where_these_apply(texts):
    series = pl.Series(["Avoid " + text for text in texts] + texts, dtype=pl.String)
    paper, extended = inverted(series), inverted(series, "extended")
    mine = preference_polarity(series) == "negative"
    plain_openings = series.str.contains(r"(?i)^\s*(?:avoid|exclude)\s")
    assert paper.filter(mine & plain_openings).equals(extended.filter(mine & plain_openings))


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="extended"):
        inverted(pl.Series(["Avoid nuts"]), "loose")
