from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference_benchmark import sentiment
from preference_benchmark.sentiment import compound_scores, invert, inverted, preference_polarity, review_polarity


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


def test_scores_are_those_of_vader_text_by_text(monkeypatch):
    texts = pl.Series(["I love it", "", None, "Horrible smell!", "I love it"])
    scored = []
    analyzer = sentiment._analyzer()

    class Counting:
        def polarity_scores(self, text):
            scored.append(text)
            return analyzer.polarity_scores(text)

    monkeypatch.setattr(sentiment, "_analyzer", Counting)
    expected = [analyzer.polarity_scores(text or "")["compound"] for text in texts]
    assert compound_scores(texts).to_list() == expected
    assert sorted(scored) == sorted(set(texts.drop_nulls()))


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
