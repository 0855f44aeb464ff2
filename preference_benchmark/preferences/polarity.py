"""Polarity of reviews and preferences, and the inversion of a preference.

Preference Discerning (Paischer et al. 2025, arXiv:2412.08604) classifies reviews with a model
(siebert/sentiment-roberta-large-english, 1.4 GB), takes the polarity of a preference from its first word, and inverts
it by three rules: "avoid" becomes "Find", "exclude" and "no" become "Search for". Here the rating of a review decides
where it is clear, and VADER (Hutto & Gilbert 2014) where it is not; `SentimentClassifier` does as the paper does. Rules
come in two modes: "paper", exactly these three words, and "extended", which knows other ways to say no.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from tqdm.auto import tqdm

from preference_benchmark.embedding import loading
from preference_benchmark.preferences.vader import compound

__all__ = [
    "NEGATIVE",
    "POSITIVE",
    "RULES",
    "SentimentClassifier",
    "compound_scores",
    "invert",
    "inverted",
    "preference_polarity",
    "review_polarity",
]


POSITIVE, NEGATIVE = "positive", "negative"

# VADER's own threshold between neutral and polar text.
_POLAR = 0.05
_PAPER = {"avoid": "Find", "exclude": "Search for", "no": "Search for"}
# Openings that say no, with what says yes instead; where several match, the longest counts.
_EXTENDED = _PAPER | {
    "avoids": "Find",
    "avoiding": "Find",
    "excludes": "Search for",
    "excluding": "Search for",
    "without": "Search for",
    "never": "Find",
    "nothing with": "Find something with",
    "nothing": "Find something",
    "none of": "Search for",
    "no more": "Search for more",
    "skip": "Find",
    "skips": "Find",
    "stay away from": "Find",
    "stays away from": "Find",
    "keep away from": "Find",
    "steer clear of": "Find",
    "refrain from": "Find",
    "leave out": "Search for",
    "hide": "Search for",
    "not interested in": "Search for",
    "dislike": "Find",
    "dislikes": "Find",
    "hate": "Find",
    "hates": "Find",
    "less": "Search for more",
    "not": "Find",
}
# Before a verb of asking or having, these negate the verb: "do not show me X" is "show me X".
_REFUSALS = r"(?:please )?(?:do not|don['’]?t|never|can ?not|can['’]?t|does not|doesn['’]?t|did not|didn['’]?t)"
_ASKING = (
    r"(?:show|recommend|suggest|give|offer|buy|get|find|search for|look for|wants?|needs?|likes?|love|include"
    r"|choose|pick|stand|care for)"
)
_SUBJECT = r"(?:i(?: really| also| absolutely)?|the user|the customer|user|customer|they|she|he|we)"
RULES = ("paper", "extended")


def compound_scores(texts: pl.Series) -> pl.Series:
    """VADER's compound score of every text, each distinct text scored once.

    Args:
        texts: any strings; null and empty text scores 0.

    Returns:
        float64 in [-1, 1]: below -0.05 negative, above 0.05 positive.

    >>> compound_scores(pl.Series(["I love it!", "It is a cup.", "Awful smell."])).round(1).to_list()
    [0.7, 0.0, -0.5]
    """
    distinct = texts.drop_nulls().unique(maintain_order=True).rename("text")
    scores = distinct.to_frame().with_columns(score=compound(distinct))
    joined = texts.to_frame("text").join(scores, on="text", how="left", maintain_order="left")
    return joined["score"].fill_null(0.0).rename(texts.name)


def review_polarity(interactions: pl.DataFrame) -> pl.Series:
    """Whether each interaction is positive or negative about its item.

    Ratings of 4 and above are positive, of 2 and below negative. Between them, and where the rating is unknown,
    the review's text decides: negative if VADER finds it negative, else positive. No evidence counts as
    positive: the user chose the item.

    Args:
        interactions: the columns rating (1-5 or null) and review.

    Returns:
        "positive" or "negative" per row.
    """
    unclear = pl.col("rating").is_null() | pl.col("rating").is_between(2, 4, closed="none")
    text = interactions.select(pl.when(unclear).then("review").otherwise(pl.lit("")))["review"]
    ill = pl.when(unclear).then(pl.lit(compound_scores(text)) < -_POLAR).otherwise(pl.col("rating") <= 2)
    return interactions.select(polarity=pl.when(ill).then(pl.lit(NEGATIVE)).otherwise(pl.lit(POSITIVE))).to_series()


def preference_polarity(texts: pl.Series, rules: str = "paper") -> pl.Series:
    """Polarity of preferences: negative where the first words say no.

    Args:
        texts: preferences.
        rules: "paper": where the first word is avoid, exclude or no, in any case. "extended": where the first words
            say no in another way too.

    Raises:
        ValueError: if the rules are unknown.

    >>> texts = pl.Series(["Find a mug", "avoid glass", "I don't like tea", "Notebooks with lines"])
    >>> preference_polarity(texts).to_list()
    ['positive', 'negative', 'positive', 'positive']
    >>> preference_polarity(texts, rules="extended").to_list()
    ['positive', 'negative', 'negative', 'positive']
    """
    negative = _split_opening(texts, rules)["opposite"].is_not_null()
    return pl.select(
        pl.when(negative).then(pl.lit(NEGATIVE)).otherwise(pl.lit(POSITIVE)).alias("sentiment")
    ).to_series()


def inverted(texts: pl.Series, rules: str = "paper") -> pl.Series:
    """The positive opposite of every negative preference; null where there is none.

    Args:
        texts: preferences.
        rules: see `preference_polarity`.

    Raises:
        ValueError: if the rules are unknown.

    >>> inverted(pl.Series(["Avoid strong smells", "NO horror games", "Find tea"])).to_list()
    ['Find strong smells', 'Search for horror games', None]
    >>> inverted(pl.Series(["Please do not show me loud toys", "Stay away from wool"]), rules="extended").to_list()
    ['Show me loud toys', 'Find wool']
    """
    parts = _split_opening(texts, rules)
    usable = pl.col("opposite").is_not_null() & (pl.col("rest") != "")
    joined = pl.concat_str(["opposite", "rest"], separator=" ")
    return parts.select(pl.when(usable).then(joined).alias(texts.name)).to_series()


def invert(preference: str, rules: str = "paper") -> str | None:
    """The positive opposite of a negative preference, or None where the rules know none.

    >>> invert("Exclude products with alcohol")
    'Search for products with alcohol'
    """
    return inverted(pl.Series([preference], dtype=pl.String), rules)[0]


def _split_opening(texts: pl.Series, rules: str) -> pl.DataFrame:
    """The positive opening in place of a negative one (null if the text has none), and the rest of the text."""
    if rules not in RULES:
        raise ValueError(f"rules={rules!r} are not known; pass one of {RULES}.")
    frame = texts.cast(pl.String).to_frame("text")
    if rules == "paper":
        return frame.select(*_opening("text", _PAPER))
    # The subject does not matter: "The user hates X" says what "Hate X" says.
    frame = frame.with_columns(text=pl.col("text").str.replace(rf"(?i)^\s*{_SUBJECT}\s+", ""))
    refusal = rf"(?i)^\s*{_REFUSALS}\s+(?:ever )?({_ASKING})\b\s+(.+)$"
    asked = pl.col("text").str.extract(refusal, 1)
    # "Don't like X" wants the opposite of X found, "don't show X" wants X shown.
    liking = asked.str.to_lowercase().str.contains(r"^(?:want|need|like|love|stand|care for)")
    verb = asked.str.slice(0, 1).str.to_uppercase() + asked.str.slice(1)
    opposite, rest = _opening("text", _EXTENDED)
    return frame.select(
        opposite=pl.when(asked.is_null()).then(opposite).when(liking).then(pl.lit("Find")).otherwise(verb),
        rest=pl.when(asked.is_null()).then(rest).otherwise(pl.col("text").str.extract(refusal, 2).str.strip_chars()),
    )


def _opening(column: str, inversions: Mapping[str, str]) -> tuple[pl.Expr, pl.Expr]:
    """The opposite of an opening among the keys (null if there is none), and what follows it."""
    longest_first = sorted(inversions, key=len, reverse=True)
    pattern = rf"(?i)^\s*({'|'.join(longest_first)})\s+"
    opening = pl.col(column).str.extract(pattern).str.to_lowercase()
    opposite = opening.replace_strict(inversions, default=None, return_dtype=pl.String)
    return opposite.alias("opposite"), pl.col(column).str.replace(pattern, "").str.strip_chars().alias("rest")


class SentimentClassifier:
    """Classifies texts with a model of the Hub, each distinct text once.

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

        with loading("classifier", name_or_path):
            self.pipeline = pipeline("text-classification", model=name_or_path, device=device, trust_remote_code=False)
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
        for start in tqdm(starts, desc="Classifying sentiment", disable=not self.progress or len(starts) < 8):
            batch = new.slice(start, self.batch_size).to_list()
            found = self.pipeline(batch, batch_size=len(batch), truncation=True)
            answers += [answer["label"].lower() for answer in found]
        answered = pl.DataFrame({"text": new, "polarity": answers}, schema=self._known.schema)
        self._known = pl.concat([self._known, answered])
        joined = asked.join(self._known, on="text", how="left", maintain_order="left")
        return joined["polarity"].fill_null(POSITIVE)

    def review_polarity(self, interactions: pl.DataFrame) -> pl.Series:
        """Polarity of each interaction: that of its review, or of its rating where there is no review."""
        by_rating = review_polarity(interactions.with_columns(review=pl.lit("")))
        by_review = self.polarity(interactions["review"])
        written = interactions.select(written=pl.col("review").fill_null("") != "").to_series()
        return pl.select(polarity=pl.when(written).then(by_review).otherwise(by_rating)).to_series()
