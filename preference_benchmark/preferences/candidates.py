"""The preferences that may condition a target: those that its user wrote before it.

The axes choose among them, and the comparison of preferences ranks items by them. Inside, users, texts and items are
numbers in the order of their names: joins, sorts and look-ups of millions of rows then cost a fraction of what they
cost on strings.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from preference_benchmark.preferences.files import check_preferences
from preference_benchmark.preferences.polarity import NEGATIVE, inverted
from preference_benchmark.tables import Tables

__all__ = ["Candidates"]


@dataclass(frozen=True)
class Candidates:
    """The candidates of every target, as numbers.

    Attributes:
        rows: user, step (of the target), text, written (the step at which it was), rank, item (the target), previous
            (the item before it).
        users: user ids, sorted.
        texts: preferences and inversions, sorted.
    """

    rows: pl.DataFrame
    users: pl.Series
    texts: pl.Series

    @classmethod
    def of(
        cls, preferences: pl.DataFrame, tables: Tables, *, all_earlier_steps: bool = False, inversion: str = "paper"
    ) -> Candidates:
        """The preferences that may condition each target, all of them written before it.

        They are the positive ones; where a step has none, the rule inversions of its negative ones; where none can
        be inverted, all as they are.

        Args:
            preferences: as an approximator gives them.
            tables: the data set.
            all_earlier_steps: whether preferences of all earlier steps are candidates, not only those written at the
                step before.
            inversion: which rules turn negative preferences into their opposites; see `polarity.inverted`.

        Raises:
            ValueError: if preferences lack columns.
        """
        check_preferences(preferences)
        users = tables.interactions["user_id"].unique().sort()
        written_texts = preferences["text"].unique()
        opposites = inverted(written_texts, inversion)
        texts = pl.concat([written_texts, opposites.drop_nulls()]).unique().sort()
        numbers = texts.to_frame("text").with_row_index("number")
        inverses = pl.DataFrame({"text": written_texts, "inverse": opposites})
        coded = inverses.join(numbers.rename({"number": "own"}), on="text")
        coded = coded.join(numbers.rename({"text": "inverse", "number": "opposite"}), on="inverse", how="left")
        people = users.to_frame("user_id").with_row_index("user").lazy()
        items = tables.items.select("item_id").with_row_index("item").lazy()
        steps = (
            tables.interactions.lazy()
            .select("user_id", "item_id", "step")
            .join(people, on="user_id")
            .join(items, on="item_id")
            .select("user", pl.col("step").cast(pl.Int32), "item")
            .sort("user", "step")
            .with_columns(previous=pl.col("item").shift(1))
            .filter(pl.col("step") >= 1)
        )
        written = (
            preferences.lazy()
            .select("user_id", "text", "rank", "sentiment", written="step")
            .join(people, on="user_id")
            .join(coded.lazy().select("text", "own", "opposite"), on="text")
            .select(
                "user",
                "own",
                "opposite",
                pl.col("written", "rank").cast(pl.Int32),
                negative=pl.col("sentiment") == NEGATIVE,
            )
        )
        if all_earlier_steps:
            options = steps.join(written, on="user").filter(pl.col("written") < pl.col("step"))
        else:
            options = steps.with_columns(written=pl.col("step") - 1).join(written, on=["user", "written"])
        # 2: a positive one; 1: one that can be turned round; 0: neither. The best kind that a step has is kept.
        kind = pl.when(~pl.col("negative")).then(2).when(pl.col("opposite").is_not_null()).then(1).otherwise(0)
        options = (
            options.with_columns(kind=kind.cast(pl.Int8))
            .filter(pl.col("kind") == pl.col("kind").max().over("user", "step"))
            .with_columns(text=pl.when(pl.col("kind") == 1).then("opposite").otherwise("own"))
            .select("user", "step", "text", "written", "rank", "item", "previous")
        )
        return cls(options.collect(), users, texts)

    def named(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with ids and texts in place of numbers."""
        return rows.with_columns(user_id=self.users.gather(rows["user"]), text=self.texts.gather(rows["text"]))

    def distinct(self) -> pl.DataFrame:
        """Each text once per user and step, as it was written last.

        Returns:
            user_id, step (of the target), text, written, rank.
        """
        once = self.rows.sort(
            ["user", "step", "text", "written", "rank"], descending=[False, False, False, True, False]
        ).unique(["user", "step", "text"], keep="first", maintain_order=True)
        return self.named(once).select("user_id", "step", "text", "written", "rank")
