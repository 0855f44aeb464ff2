"""What the corner shop's customers write: reviews that say what they liked and disliked, and how much.

A review opens with a verdict that follows the rating, names the attributes the writer likes or dislikes, may
add a remark that says nothing about taste, and may close. Sentences are chosen and filled for all reviews
at once; the loops here run over templates' positions, never over reviews.
"""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["write_reviews"]

_OPENINGS: dict[int, tuple[str, ...]] = {
    1: (
        "What a disappointment this {kind} turned out to be.",
        "I regret buying this {kind}.",
        "This {kind} was awful, I am sorry to say.",
        "Terrible choice on my part.",
        "I wanted to send this {kind} straight back.",
        "Not what I hoped for at all, and I won't buy it again.",
        "The worst {kind} I have had in years.",
        "Horrible. I gave this {kind} away within a day.",
    ),
    2: (
        "Not a good {kind} for me.",
        "I was let down by this {kind}.",
        "This {kind} is rather poor, sadly.",
        "I didn't get on with this {kind}.",
        "Hardly worth it, and a bit of a letdown.",
        "I expected better from this {kind}.",
        "Never again, I think, though it was not a complete disaster.",
        "Weak effort, and I was annoyed to have chosen it.",
    ),
    3: (
        "This {kind} does the job.",
        "An ordinary {kind}, neither here nor there.",
        "I have mixed feelings about this {kind}.",
        "Middling, I would say.",
        "It is a {kind} like many others.",
        "Some of it works and some of it does not.",
        "I can live with this {kind}.",
        "Average, all things considered.",
    ),
    4: (
        "A good {kind}.",
        "I am happy with this {kind}.",
        "Really nice {kind}, with a small reservation or two.",
        "This {kind} is better than I expected.",
        "Pleased with my choice.",
        "No complaints, a solid and likeable {kind}.",
        "I enjoy this {kind} more than the last one.",
        "Not bad at all, in fact quite lovely.",
    ),
    5: (
        "I love this {kind}!",
        "The best {kind} I have found so far.",
        "This {kind} is wonderful.",
        "Absolutely delighted.",
        "Perfect. I could not ask for a better {kind}.",
        "What a treat this {kind} is.",
        "Excellent from the first day.",
        "I can't recommend this {kind} enough, it is fantastic.",
    ),
}

_LIKED: tuple[str, ...] = (
    "I love the {aspect}.",
    "The {aspect} is exactly what I look for.",
    "The {aspect} is a delight.",
    "The {aspect} won me over at once.",
    "I always enjoy a good {aspect}.",
    "For me the {aspect} makes it special.",
    "I am so glad it comes with the {aspect}.",
    "The {aspect} is beautiful, and I want more of it.",
    "You can't go wrong with the {aspect}, it is great.",
    "The {aspect} never disappoints me.",
    "Nothing wrong with the {aspect}, it is just how I like it.",
    "What I like best is the {aspect}.",
    "Thanks to the {aspect} I am a happy customer.",
    "The {aspect} is the reason I bought it, and it is superb.",
    "I picked it for the {aspect} and was not disappointed.",
    "The {aspect} is lovely and easy to enjoy.",
)

_DISLIKED: tuple[str, ...] = (
    "I can't stand the {aspect}.",
    "The {aspect} ruined it for me.",
    "I really dislike the {aspect}.",
    "The {aspect} is not for me.",
    "Sadly the {aspect} is a deal-breaker.",
    "I don't like the {aspect} at all.",
    "The {aspect} is unpleasant, and I would rather do without it.",
    "If only it came without the {aspect}, which I hate.",
    "I will avoid anything with the {aspect} from now on.",
    "The {aspect} was a bad surprise.",
    "I have never liked the {aspect}, and this did not change my mind.",
    "The {aspect} annoyed me every single time.",
    "I was unhappy about the {aspect}.",
    "No more of the {aspect} for me, please, it is awful.",
    "The {aspect} is the problem here.",
    "I could not get past the {aspect}, which is horrid.",
)

_NOTICED: tuple[str, ...] = (
    "It has the {aspect} that the label mentions.",
    "The {aspect} is as described.",
    "I did not pay much attention to the {aspect}.",
    "About the {aspect} I have no opinion.",
    "The {aspect} is there, for those who ask.",
    "As to the {aspect}, I hardly notice it.",
)

_REMARKS: tuple[str, ...] = (
    "It arrived on a Tuesday.",
    "My sister has the same one.",
    "I keep it on the shelf by the window.",
    "I bought it on my way home from work.",
    "It took two days to arrive.",
    "I have had it for about a month.",
    "My neighbour asked me where it came from.",
    "This is my second one from this shop.",
    "It was on the lower shelf, next to the till.",
    "I got it for a rainy weekend.",
    "We use it in the mornings mostly.",
    "The bag it came in is now full of pegs.",
)

_CLOSINGS: dict[int, tuple[str, ...]] = {
    1: ("Avoid.", "Do not bother.", "A waste of money.", "I feel cheated."),
    2: ("I would not choose it again.", "Think twice.", "Next time something else.", "A pity."),
    3: ("Make of that what you will.", "We shall see.", "It is what it is.", "That is about all."),
    4: ("I would buy it again.", "Recommended.", "Well worth a try.", "I will happily come back for it."),
    5: ("Highly recommended!", "I will be back for more.", "A new favourite.", "Ten out of ten."),
}


def write_reviews(
    ratings: np.ndarray,
    kinds: pl.Series,
    aspects: np.ndarray,
    attitude: np.ndarray,
    names: list[str],
    rng: np.random.Generator,
) -> pl.Series:
    """One review per row.

    Args:
        ratings: 1 to 5. Shape: (R,).
        kinds: what kind of goods was bought. Length R.
        aspects: the item's attributes as positions in `names`. Shape: (R, F).
        attitude: above 0 where the writer likes the attribute, below 0 where they dislike it, else 0.
            Shape: (R, F).
        names: the attributes in words.
        rng: where the choices of words come from.
    """
    rows = len(ratings)
    frame = pl.DataFrame({"kind": kinds})
    frame = frame.with_columns(opening=_by_rating(_OPENINGS, ratings, rng))
    parts = ["opening"]
    # At most two likes, two dislikes and one attribute that leaves the writer cold, in random order.
    order = rng.random(aspects.shape)
    for which, templates, most, share in (
        (attitude > 0, _LIKED, 2, 0.95),
        (attitude < 0, _DISLIKED, 2, 0.95),
        (attitude == 0, _NOTICED, 1, 0.2),
    ):
        chosen = np.argsort(np.where(which, order, 2.0), axis=1)[:, :most]
        mentioned = np.take_along_axis(which, chosen, axis=1) & (rng.random(chosen.shape) < share)
        for place in range(chosen.shape[1]):
            position = np.take_along_axis(aspects, chosen[:, place : place + 1], axis=1)[:, 0]
            aspect = pl.Series(names).gather(position)
            parts.append(name := f"part{len(parts)}")
            frame = frame.with_columns(aspect=aspect, sentence=_choose(templates, rows, rng))
            sentence = pl.col("sentence").str.replace("{aspect}", pl.col("aspect"), literal=True)
            frame = frame.with_columns(pl.when(pl.Series(mentioned[:, place])).then(sentence).alias(name))
    frame = frame.with_columns(
        remark=pl.when(pl.Series(rng.random(rows) < 0.35)).then(_choose(_REMARKS, rows, rng)),
        closing=pl.when(pl.Series(rng.random(rows) < 0.4)).then(_by_rating(_CLOSINGS, ratings, rng)),
    )
    review = pl.concat_str([*parts, "remark", "closing"], separator=" ", ignore_nulls=True)
    return frame.select(review=review.str.replace("{kind}", pl.col("kind"), literal=True))["review"]


def _choose(templates: tuple[str, ...], rows: int, rng: np.random.Generator) -> pl.Series:
    return pl.Series(templates).gather(rng.integers(len(templates), size=rows))


def _by_rating(templates: dict[int, tuple[str, ...]], ratings: np.ndarray, rng: np.random.Generator) -> pl.Series:
    """A sentence per row from the list that belongs to its rating; all lists are equally long."""
    flat = pl.Series([sentence for rating in sorted(templates) for sentence in templates[rating]])
    each = len(templates[1])
    return flat.gather((ratings.astype(np.int64) - 1) * each + rng.integers(each, size=len(ratings)))
