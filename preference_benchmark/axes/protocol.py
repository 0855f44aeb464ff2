"""Every choice that makes a benchmark, each with the paper's value; and the names of axes, splits, modes and kinds.

A `Protocol` says how tables are read, how preferences are matched to steps and how examples are drawn, as in
Preference Discerning (Paischer et al. 2025, arXiv:2412.08604, and its published scripts). Its defaults are the
paper's, except where the paper's value lets an example give its target away, or needs a model of more than a gigabyte;
`PAPER` takes the paper's values there too, so leaks are flagged there instead of refused.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass

from preference_benchmark import availability
from preference_benchmark.preferences.polarity import RULES
from preference_benchmark.tables.prepare import check_time_quantiles

__all__ = [
    "AXES",
    "KINDS",
    "MODES",
    "PAPER",
    "PROTOCOLS",
    "Protocol",
    "SENTIMENT_AXES",
    "SPLITS",
    "STEERING_AXES",
    "WISH_AXES",
]


# The five axes of the paper, then the one that its derivatives add, then what customers ask for.
AXES = (
    "recommendation",
    "fine_grained_steering",
    "coarse_grained_steering",
    "sentiment_following",
    "history_consolidation",
    "sentiment_following_with_history",
    "open_wishes",
    "wish_and_avoid",
)
STEERING_AXES = ("fine_grained_steering", "coarse_grained_steering")
SENTIMENT_AXES = ("sentiment_following", "sentiment_following_with_history")
WISH_AXES = ("open_wishes", "wish_and_avoid")
SPLITS = ("train", "validation", "test")
MODES = ("oracle", "last")
# Where a preference comes from: somebody typed it, it was approximated from earlier reviews, or there is none.
KINDS = ("stated", "inferred", "silent")

_CHOICES = {
    "split": ("leave_last_two", "time"),
    "repeats": ("drop", "keep"),
    "candidates": ("previous_step", "earlier_steps"),
    "pool": ("training", "all"),
    "draw": ("unknowing", "any"),
    "sentiment_window": ("split", "later"),
    "distinct_pairs": ("overall", "per_split"),
    "inversion": RULES,
    "leaks": ("error", "flag"),
}


_WHOLE_NUMBERS = (
    "seed",
    "min_user",
    "min_item",
    "max_history",
    "user_stride",
    "partner_of",
    "train_wishes",
    "evaluation_wishes",
    "attribute_items",
)


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is made from raw tables and preferences.

    Attributes:
        axes: which axes are built.
        matching: which modes of the recommendation axis. "oracle": the preference closest to the target itself, the
            paper's choice. "last": the one closest to the last item of the history; never looks at the target.
        seed: of every random draw. The paper's scripts use 101.
        min_user: fewest interactions of a user (k-core). Paper: 5.
        min_item: fewest interactions of an item (k-core). Paper: 5.
        max_history: latest interactions kept of each user. Paper: 20.
        repeats: where a user bought an item more than once: "drop" all but the first purchase (paper), or "keep" them,
            so that a target may be in its own history.
        split: what is held out. "leave_last_two" (paper): the last interaction of every user is the test target, the
            one before it the validation target. "time": two points in time, the same for all, begin the validation and
            the test period; a user's first interaction in each is a target, and training knows nothing that came after
            the first point.
        time_quantiles: shares of the interactions that lie before these points.
        user_stride: only every n-th user gets examples, in the order of user ids; the catalogue keeps the items of
            all. Paper: 1, on Steam 7, to save calls of the language model.
        candidates: whose preferences may condition a step: those written at the "previous_step" (paper), or at all
            "earlier_steps" (paper, on Steam).
        described_by: columns of the items table that describe an item when it is compared with a preference.
            ("text",): all that is known. Paper: the title on Amazon; title, tags and genres on Steam; name,
            categories and attributes on Yelp.
        train_ranks: for steering examples of the training split, which of the preferences nearest to an item asks for
            the item s, and which for its partner t. Where both are the same text, t takes the next. Paper: (1, 1).
        evaluation_ranks: the same for validation and test. Paper: (2, 3), so that training pairs do not reappear.
        pool: where steering preferences come from: the distinct positive ones written in the "training" period, or
            "all" distinct ones, which include those written about the very items asked for. Paper: "all".
        draw: whose history a steering example shows, among the users that share a target: "any" (paper), or only
            "unknowing" ones: the item asked for is neither in the history nor among the held-out items of this user,
            and the user did not first write the preference at or after this step.
        partner_of: of how many items one item may be the coarse-grained partner t, at least 2. An outlier is farthest
            from many: without a limit few items are most of the targets. 0 (paper): any number.
        sentiment_window: which negative preferences may describe a disliked item: those from its step to the end of
            its "split", or all "later" ones (paper), among them those written about items to be predicted.
        distinct_pairs: whether a negative text makes one pair "overall", so that no evaluated text was trained on,
            or one "per_split" (paper).
        inversion: how a negative preference is turned into its opposite: by the "paper" rules, which know avoid,
            exclude and no as a first word, or the "extended" ones, which know other ways to say no.
        train_wishes: open wishes of the training split at most; half as many with something to avoid. Never more than
            four for each training target.
        evaluation_wishes: open wishes of validation and of test at most; half as many with something to avoid.
        attribute_items: fewest items that have an attribute which a wish names.
        attribute_share: largest share of the catalogue that has it; five items are never too many.
        withheld: share of the attributes that no training wish names.
        classifier: a text classification model with the labels POSITIVE and NEGATIVE, for the sentiment of reviews and
            preferences: a folder, or a name on the Hub. None or "rules": ratings and VADER decide for reviews, the
            first word for preferences. Paper: "siebert/sentiment-roberta-large-english" (1.4 GB).
        leaks: "error": a leak that `check_leakage` finds stops the build; "flag": the build is finished, and
            statistics and card report the leak.
    """

    axes: tuple[str, ...] = AXES
    matching: tuple[str, ...] = MODES
    seed: int = 101
    min_user: int = 5
    min_item: int = 5
    max_history: int = 20
    repeats: str = "drop"
    split: str = "leave_last_two"
    time_quantiles: tuple[float, float] = (0.8, 0.9)
    user_stride: int = 1
    candidates: str = "previous_step"
    described_by: tuple[str, ...] = ("text",)
    train_ranks: tuple[int, int] = (1, 1)
    evaluation_ranks: tuple[int, int] = (2, 3)
    pool: str = "training"
    draw: str = "unknowing"
    partner_of: int = 3
    sentiment_window: str = "split"
    distinct_pairs: str = "overall"
    inversion: str = "paper"
    train_wishes: int = 20_000
    evaluation_wishes: int = 1_000
    attribute_items: int = 3
    attribute_share: float = 0.1
    withheld: float = 0.3
    classifier: str | None = None
    leaks: str = "error"

    def __post_init__(self) -> None:
        for name in _WHOLE_NUMBERS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name}={value!r} is not a whole number.")
        for name, known in (("axes", AXES), ("matching", MODES)):
            given = getattr(self, name)
            unknown = [value for value in given if value not in known] if isinstance(given, list | tuple) else [given]
            if unknown or not given:
                raise ValueError(
                    f"{name}: {unknown[0] if unknown else given!r} is not known; pass some of {list(known)}."
                )
            # In the order above, each once.
            object.__setattr__(self, name, tuple(value for value in known if value in given))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known; choose one of {list(choices)}.")
        for name in ("min_user", "min_item", "user_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not positive; pass at least 1.")
        if self.partner_of < 0 or self.partner_of == 1:
            raise ValueError(f"partner_of={self.partner_of} must be 0 (no limit) or at least 2.")
        for name in ("train_wishes", "evaluation_wishes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative; pass 0 or more.")
        if self.attribute_items < 1:
            raise ValueError(f"attribute_items={self.attribute_items} is not positive; pass at least 1.")
        for name, most in (("attribute_share", 1.0), ("withheld", 0.9)):
            share = getattr(self, name)
            if not isinstance(share, int | float) or not 0 <= share <= most:
                raise ValueError(f"{name}={share!r} is not a share; pass a number from 0 to {most}.")
        if not isinstance(self.classifier, str | None):
            raise ValueError(f"classifier={self.classifier!r} is not a model; pass a folder, a Hub name or 'rules'.")
        if self.classifier == availability.RULES:
            object.__setattr__(self, "classifier", None)
        check_time_quantiles(self.time_quantiles)
        object.__setattr__(self, "time_quantiles", tuple(self.time_quantiles))
        for name in ("train_ranks", "evaluation_ranks"):
            ranks = getattr(self, name)
            whole = isinstance(ranks, list | tuple) and all(isinstance(rank, int) and rank >= 1 for rank in ranks)
            if not whole or len(ranks) != 2:
                raise ValueError(f"{name}={ranks} must be two ranks of 1 (the nearest) or more, such as (2, 3).")
            object.__setattr__(self, name, tuple(ranks))
        if not self.described_by or not isinstance(self.described_by, list | tuple):
            raise ValueError(f"described_by={self.described_by!r} must name columns of the items, such as ('text',).")
        object.__setattr__(self, "described_by", tuple(self.described_by))

    @property
    def reading(self) -> dict[str, object]:
        """The fields that the reader of raw files takes."""
        names = ["min_user", "min_item", "max_history", "repeats"]
        names += ["split", "time_quantiles"] if self.split == "time" else []
        return {name: getattr(self, name) for name in names}

    @property
    def deepest_rank(self) -> int:
        """How many of the preferences nearest to an item are needed at most."""
        return max(*self.train_ranks, self.train_ranks[1] + 1, *self.evaluation_ranks)

    def replace(self, **changes: object) -> Protocol:
        """This protocol with other values of some fields.

        Raises:
            ValueError: if there is no such field, or a value does not fit.
        """
        self._known(changes)
        return dataclasses.replace(self, **changes)

    @staticmethod
    def _known(changes: typing.Iterable[str]) -> None:
        names = [field.name for field in dataclasses.fields(Protocol)]
        for name in changes:
            if name not in names:
                raise ValueError(f"a protocol has no field {name!r}; its fields are {names}.")


# What the published scripts do, with their leaks.
PAPER = Protocol(
    axes=AXES[:6],
    matching=("oracle",),
    pool="all",
    draw="any",
    partner_of=0,
    sentiment_window="later",
    distinct_pairs="per_split",
    classifier=availability.PAPER_CLASSIFIER,
    leaks="flag",
)
PROTOCOLS = {"default": Protocol(), "paper": PAPER}
