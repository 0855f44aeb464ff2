from __future__ import annotations

import polars as pl
import pytest

# Loaded here, since the library loads what it is asked for late, and over what a test has put in its place.
from transformers import pipeline as loaded  # noqa: F401

from preference_benchmark.preferences import polarity as classifier
from preference_benchmark.preferences.polarity import SentimentClassifier


class Pipeline:
    """Says NEGATIVE of whatever holds "bad"; remembers what it is asked."""

    def __init__(self, labels=("NEGATIVE", "POSITIVE")) -> None:
        config = type("Config", (), {"label2id": {label: number for number, label in enumerate(labels)}})
        self.model, self.asked = type("Model", (), {"config": config})(), []

    def __call__(self, texts, **options):
        self.asked += texts
        return [{"label": "NEGATIVE" if "bad" in text else "POSITIVE", "score": 1.0} for text in texts]


@pytest.fixture
def judging(monkeypatch):
    pipeline = Pipeline()
    monkeypatch.setattr("transformers.pipeline", lambda *arguments, **options: pipeline)
    return SentimentClassifier("any", progress=False, batch_size=2), pipeline


def test_every_distinct_text_is_asked_about_once(judging):
    judge, pipeline = judging
    texts = pl.Series(["bad", "fine", "", "bad", None, "good"])
    for _ in range(2):
        assert judge.polarity(texts).to_list() == [
            "negative",
            "positive",
            "positive",
            "negative",
            "positive",
            "positive",
        ]
    assert sorted(pipeline.asked) == ["bad", "fine", "good"]


def test_ratings_speak_where_no_review_does(judging):
    rows = pl.DataFrame({"rating": [1.0, 1.0, 5.0, None], "review": ["", "lovely", "bad", ""]})
    assert judging[0].review_polarity(rows).to_list() == ["negative", "positive", "negative", "positive"]


def test_other_labels_are_refused(monkeypatch):
    monkeypatch.setattr("transformers.pipeline", lambda *arguments, **options: Pipeline(("LABEL_0", "LABEL_1")))
    with pytest.raises(ValueError, match=r"labels \['label_0', 'label_1'\]; expected POSITIVE and NEGATIVE"):
        classifier.SentimentClassifier("any")
