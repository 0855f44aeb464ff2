"""Polarity of reviews and preferences by a classifier, as the paper has it.

Preference Discerning (Paischer et al. 2025, arXiv:2412.08604) asks siebert/sentiment-roberta-large-english, a model
of 1.4 GB, about every review and every preference. Any binary model with the labels POSITIVE and NEGATIVE will do.
"""

from __future__ import annotations

import polars as pl
from tqdm.auto import tqdm

from preference_benchmark.sentiment import NEGATIVE, POSITIVE, review_polarity

__all__ = ["SentimentClassifier"]


class SentimentClassifier:
    """Judges texts with a model of the Hub; every distinct text is asked about once.

    Args:
        name_or_path: a text classification model with the labels POSITIVE and NEGATIVE, in any case.
        device: where to run, as torch names it; default: the accelerator if there is one.
        batch_size: texts per forward pass. Batches hold texts of similar length.
        progress: whether to show a bar.
    """

    def __init__(
        self, name_or_path: str, device: str | None = None, batch_size: int = 32, *, progress: bool = True
    ) -> None:
        from transformers import pipeline

        self.pipeline = pipeline("text-classification", model=name_or_path, device=device)
        self.batch_size, self.progress = batch_size, progress
        labels = {label.lower() for label in self.pipeline.model.config.label2id}
        if labels != {POSITIVE, NEGATIVE}:
            raise ValueError(
                f"{name_or_path} has the labels {sorted(labels)}; expected POSITIVE and NEGATIVE. Choose a binary "
                "sentiment model, such as siebert/sentiment-roberta-large-english."
            )
        self._known = pl.DataFrame(schema={"text": pl.String, "polarity": pl.String})

    def polarity(self, texts: pl.Series) -> pl.Series:
        """One of "positive" and "negative" per text; empty text is positive."""
        asked = texts.to_frame("text").with_columns(pl.col("text").fill_null(""))
        new = asked.unique().join(self._known, on="text", how="anti").filter(pl.col("text") != "")
        new = new.sort(pl.col("text").str.len_chars(), "text")["text"]
        answers = []
        starts = range(0, len(new), self.batch_size)
        for start in tqdm(starts, desc="Judging sentiment", disable=not self.progress or len(starts) < 8):
            batch = new.slice(start, self.batch_size).to_list()
            found = self.pipeline(batch, batch_size=len(batch), truncation=True)
            answers += [answer["label"].lower() for answer in found]
        judged = pl.DataFrame({"text": new, "polarity": answers}, schema=self._known.schema)
        self._known = pl.concat([self._known, judged])
        joined = asked.join(self._known, on="text", how="left", maintain_order="left")
        return joined["polarity"].fill_null(POSITIVE)

    def judge(self, interactions: pl.DataFrame) -> pl.Series:
        """Whether each interaction speaks well or ill of its item: its review says it, or its rating where none is."""
        by_rating = review_polarity(interactions.with_columns(review=pl.lit("")))
        by_review = self.polarity(interactions["review"])
        written = interactions.select(written=pl.col("review").fill_null("") != "").to_series()
        return pl.select(polarity=pl.when(written).then(by_review).otherwise(by_rating)).to_series()
