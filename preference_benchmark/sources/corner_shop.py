"""The corner shop: an embedded data set whose customers' true tastes are known.

Every item has four typed attributes. Every customer likes five attributes and dislikes four, keeps to a few
departments, and slowly changes their mind; what they buy follows from that, from what is popular, from what
they bought last, and from chance. Because the tastes are known, a benchmark built on this data set can be
checked against the truth. Needs no network and no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from preference_benchmark.sources.corner_shop_goods import BRANDS, DEPARTMENTS, FACETS
from preference_benchmark.sources.corner_shop_reviews import write_reviews
from preference_benchmark.tables import ReadReport, Tables, prepare

__all__ = ["CornerShop", "corner_shop"]

_LIKES, _DISLIKES, _MAX_CHANGES = 5, 4, 8
# Weights of a purchase's log-odds. Likes dominate; popularity and habit are there to be learned as well. What
# people dislike they mostly find out at home, or there would be no bad reviews.
_LIKE, _DISLIKE = 3.0, -0.2
# Stars: an item with neither gets about three; a like adds less than a dislike takes away.
_INDIFFERENT, _PRAISE, _BLAME = 3.2, 0.8, 1.6
_NEXT_KIND, _SAME_KIND, _SAME_DEPARTMENT = 1.5, -1.0, 0.4
_POPULARITY = 0.9
_DEPARTMENT_ODDS = (0.0, -0.5, -1.0)  # favourite, second, third; all others far behind
_OTHER_DEPARTMENTS = -3.5
_IMPULSE, _CHANGE_OF_MIND = 0.1, 0.06
# Customers look at every item of a small shop, but only at a shelf of a big one, drawn by popularity.
_SMALL_SHOP, _SHELF = 512, 128
_FIRST_DAY, _DAY = 1_640_995_200, 86_400  # 2022-01-01
_SHORTEST, _LONGEST, _GO_ON = 6, 20, 0.82


@dataclass(frozen=True)
class CornerShop:
    """The data set and what is true of its customers.

    Attributes:
        tables: items and interactions, like those of any source.
        truth: user_id, step, likes, dislikes (lists of aspects): the tastes in force when the user chose the
            item of that step. One row per interaction, in the same order.
    """

    tables: Tables
    truth: pl.DataFrame


@dataclass(frozen=True)
class _Goods:
    """The catalogue as arrays, N items; A aspects over all facets, M kinds over all departments."""

    aspects: np.ndarray  # (N, 4) int32
    kind: np.ndarray  # (N,) int32
    department: np.ndarray  # (N,) int32
    popularity: np.ndarray  # (N,) float32, log-odds
    by_popularity: np.ndarray  # int32, items repeated in proportion to their popularity
    home: np.ndarray  # (M,) the department of a kind
    next_kind: np.ndarray  # (M,)
    names: list[str]  # A aspects in words
    stocked: np.ndarray  # (departments, A): whether the department has such goods


def corner_shop(
    num_users: int = 1_500,
    num_items: int = 400,
    seed: int = 0,
    *,
    min_user: int = 5,
    min_item: int = 5,
    max_history: int = 20,
    repeats: str = "drop",
    split: str = "leave_last_two",
    time_quantiles: tuple[float, float] = (0.8, 0.9),
) -> CornerShop:
    """A shop of this size; the same seed gives the same shop.

    Args:
        num_users: customers, before filtering.
        num_items: items, before filtering.
        seed: where all chance comes from.
        min_user: fewest interactions of a user, as in `prepare`.
        min_item: fewest interactions of an item, as in `prepare`.
        max_history: interactions kept per user, as in `prepare`.
        repeats: as in `prepare`; no customer here buys an item twice.
        split: as in `prepare`.
        time_quantiles: as in `prepare`.

    Raises:
        ValueError: if the sizes are too small for anything to be left after filtering.

    >>> shop = corner_shop(num_users=200, num_items=50)
    >>> shop.tables.items["title"][0]
    'Eucalyptus Alcohol-Free Window Cleaner'
    >>> shop.tables.items["aspects"][0].to_list()
    ['eucalyptus scent', 'alcohol-free formula', 'soft wipe', 'refillable pouch']
    >>> len(shop.truth) == len(shop.tables.interactions)
    True
    """
    sizes = {"num_users": (num_users, 1), "num_items": (num_items, 2 * _SHORTEST)}
    for name, (size, least) in sizes.items():
        if not isinstance(size, int) or size < least:
            raise ValueError(f"{name}={size!r}: pass a whole number, at least {least}.")
    rng = np.random.default_rng(seed)
    goods = _stock(num_items, rng)
    items = _describe(goods, rng)
    # Groups of users whose tables stay within the processor's cache.
    group = max(1, min(1_024, 20_000_000 // num_items))
    visits = [_visit(goods, min(group, num_users - start), start, rng) for start in range(0, num_users, group)]
    user, item, likes, dislikes = (np.concatenate(column) for column in zip(*visits, strict=True))
    attitude = _attitude(goods.aspects[item], likes, dislikes)
    liked, disliked = (attitude > 0).sum(1), (attitude < 0).sum(1)
    verdict = _INDIFFERENT + _PRAISE * liked - _BLAME * disliked + rng.normal(0, 0.4, len(user))
    ratings = np.clip(np.rint(verdict), 1, 5)
    kinds = items["kind"].gather(item)
    rows = pl.DataFrame(
        {
            "user_id": _ids("user", user),
            "item_id": _ids("item", item),
            "timestamp": _times(user, rng),
            "rating": ratings,
            "review": write_reviews(ratings, kinds, goods.aspects[item], attitude, goods.names, rng),
        }
    )
    tables = prepare(
        items,
        rows,
        min_user=min_user,
        min_item=min_item,
        max_history=max_history,
        repeats=repeats,
        split=split,
        time_quantiles=time_quantiles,
        report=ReadReport(source="corner-shop"),
    )
    tastes = rows.select(
        "user_id",
        "item_id",
        likes=_in_words(likes, goods.names),
        dislikes=_in_words(dislikes, goods.names),
    )
    kept = tables.interactions.select("user_id", "step", "item_id")
    truth = kept.join(tastes, on=["user_id", "item_id"], how="left", maintain_order="left").drop("item_id")
    return CornerShop(tables, truth)


def _stock(num_items: int, rng: np.random.Generator) -> _Goods:
    """Draw the catalogue: departments in turn, kinds and attributes by chance."""
    first = dict(zip(FACETS, np.cumsum([0] + [len(facet.aspects) for facet in FACETS.values()]), strict=False))
    names = [aspect for facet in FACETS.values() for aspect in facet.aspects]
    departments = list(DEPARTMENTS.values())
    department = rng.permutation(np.arange(num_items) % len(departments))
    sizes = np.array([[len(FACETS[name].aspects) for name in d.facets] for d in departments])
    offsets = np.array([[first[name] for name in d.facets] for d in departments])
    # The exponent makes some values of a facet commoner than others.
    aspects = offsets[department] + np.floor(rng.random((num_items, 4)) ** 1.3 * sizes[department]).astype(int)
    # An aspect named by two facets (a ceramic pot for plants and for candles) is one aspect.
    canonical = np.array([names.index(name) for name in names])
    counts = np.array([len(d.kinds) for d in departments])
    first_kind = np.cumsum(counts) - counts
    kind = first_kind[department] + rng.integers(counts[department])
    next_kind = np.concatenate([f + (np.arange(n) + 1) % n for f, n in zip(first_kind, counts, strict=True)])
    stocked = np.zeros((len(departments), len(names)), dtype=bool)
    for row, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        stocked[row, canonical[np.concatenate([o + np.arange(s) for o, s in zip(offset, size, strict=True)])]] = 1
    popularity = rng.normal(0, _POPULARITY, num_items).astype(np.float32)
    share = np.exp(popularity).cumsum(dtype=np.float64)
    slots = (np.arange(64 * num_items) + 0.5) * (share[-1] / (64 * num_items))
    return _Goods(
        canonical[aspects].astype(np.int32),
        kind.astype(np.int32),
        department.astype(np.int32),
        popularity,
        np.searchsorted(share, slots).astype(np.int32),
        np.repeat(np.arange(len(departments)), counts),
        next_kind,
        names,
        stocked,
    )


def _describe(goods: _Goods, rng: np.random.Generator) -> pl.DataFrame:
    """The items table: titles that name two or three of the four attributes, prices, sizes, makers."""
    rows = len(goods.kind)
    names = pl.Series(goods.names)
    short = pl.Series([value for facet in FACETS.values() for value in facet.before_noun])
    sizes = np.array([department.sizes for department in DEPARTMENTS.values()])
    typical = np.array([department.price for department in DEPARTMENTS.values()])[goods.department]
    size = rng.integers(sizes.shape[1], size=rows)
    price = np.rint(typical * (0.6 + 0.5 * size) * rng.lognormal(0, 0.25, rows) * 2) / 2
    mentioned = np.where(rng.random(rows) < 0.5, goods.aspects[:, 2], goods.aspects[:, 3])
    frame = pl.DataFrame(
        {
            "item_id": _ids("item", np.arange(rows)),
            "aspects": _in_words(goods.aspects, goods.names),
            "kind": pl.Series([k for d in DEPARTMENTS.values() for k in d.kinds]).gather(goods.kind),
            "department": pl.Series(list(DEPARTMENTS)).gather(goods.department),
            "brand": pl.Series(BRANDS).gather(rng.integers(len(BRANDS), size=rows)),
            "size": sizes[goods.department, size],
            "price": np.maximum(price, 1.0),
            "pattern": rng.integers(4, size=rows),
            "first": short.gather(goods.aspects[:, 0]),
            "first_aspect": names.gather(goods.aspects[:, 0]),
            "second": short.gather(goods.aspects[:, 1]),
            "extra": names.gather(mentioned),
        }
    )
    first, first_aspect, second, kind, extra = (
        pl.col(name).str.to_titlecase() for name in ("first", "first_aspect", "second", "kind", "extra")
    )
    title = (
        pl.when(pl.col("pattern") == 0)
        .then(pl.format("{} {} {} with {}", first, second, kind, extra))
        .when(pl.col("pattern") == 1)
        .then(pl.format("{} {}: {} and {}", second, kind, extra, first_aspect))
        .when(pl.col("pattern") == 2)
        .then(pl.format("{} {} with {} and {}", second, kind, first_aspect, extra))
        .otherwise(pl.format("{} {} {}", first, second, kind))
    )
    # Items that would have the same title are distinguished by a number.
    again = pl.int_range(pl.len()).over("title")
    title_once = pl.when(again > 0).then(pl.format("{}, No. {}", "title", again + 1)).otherwise("title")
    frame = frame.with_columns(title=title).with_columns(title=title_once)
    text = pl.format(
        "{}. Price: ${}.{}. Brand: {}. Category: {}, {}. Size: {}. Comes with {}.",
        "title",
        pl.col("price").cast(pl.Int64),
        (pl.col("price") % 1 * 100).cast(pl.Int64).cast(pl.String).str.zfill(2),
        "brand",
        "department",
        "kind",
        "size",
        pl.col("aspects").list.join(", "),
    )
    columns = ["item_id", "title", "text", "aspects", "department", "kind", "brand", "size", "price"]
    return frame.with_columns(text=text).select(columns)


def _visit(
    goods: _Goods, users: int, start: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a group of customers buys, visit by visit.

    Returns:
        User index, item index, likes and dislikes (as aspect indices) of every purchase, by user, then time.
        Shapes: (R,), (R,), (R, 5), (R, 4).
    """
    num_items = len(goods.kind)
    department = _favourite_departments(users, goods, rng)
    queue = _tastes(department, goods, rng)
    slots = np.tile(np.arange(_LIKES + _DISLIKES), (users, 1))
    upcoming = np.full(users, _LIKES + _DISLIKES)
    lengths = np.minimum(_SHORTEST - 1 + rng.geometric(1 - _GO_ON, users), min(_LONGEST, num_items // 2))
    lengths = -np.sort(-lengths)  # so that those who still come are always the first rows
    seen = np.zeros((users, num_items), dtype=bool)
    last = None
    bought = []
    for step in range(lengths[0]):
        present = np.arange(np.count_nonzero(lengths > step))
        if step:
            changed = present[rng.random(len(present)) < _CHANGE_OF_MIND]
            changed = changed[upcoming[changed] < queue.shape[1]]
            slots[changed, rng.integers(slots.shape[1], size=len(changed))] = upcoming[changed]
            upcoming[changed] += 1
        held = np.take_along_axis(queue, slots, axis=1)[present]
        taste = np.zeros((len(present), len(goods.names)), dtype=np.float32)
        np.put_along_axis(taste, held[:, :_LIKES], _LIKE, axis=1)
        np.put_along_axis(taste, held[:, _LIKES:], _DISLIKE, axis=1)
        taste[rng.random(len(present)) < _IMPULSE] = 0
        shelf, odds = _shelf(goods, len(present), rng)
        for facet in goods.aspects.T:
            odds = odds + _pick(taste, facet[shelf])
        odds += _pick(department, goods.department[shelf])
        if last is not None:
            odds += _pick(_habit(goods, last[present]), goods.kind[shelf])
        odds -= np.log(rng.standard_exponential(odds.shape, dtype=np.float32) + 1e-30)
        odds[_pick(seen, shelf)] = -np.inf
        last = _pick(shelf, odds.argmax(1)[:, None])[:, 0]
        seen[present, last] = True
        bought.append((present, last, held))
    user, item, held = (np.concatenate(column) for column in zip(*bought, strict=True))
    user = rng.permutation(users)[user]  # a user's number says nothing about the length of their history
    order = np.argsort(user, kind="stable")
    return start + user[order], item[order], held[order, :_LIKES], held[order, _LIKES:]


def _pick(table: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """table[row, columns[row]] of the first rows; much faster than numpy's own `take_along_axis`."""
    starts = np.arange(len(columns), dtype=np.int32) * np.int32(table.shape[1])
    return table.ravel().take(starts[:, None] + columns)


def _habit(goods: _Goods, last: np.ndarray) -> np.ndarray:
    """Log-odds of every kind of goods after the last purchase. Shape: (users, kinds)."""
    kind = goods.kind[last]
    odds = _SAME_DEPARTMENT * (goods.home[kind][:, None] == goods.home).astype(np.float32)
    odds[np.arange(len(last)), goods.next_kind[kind]] += _NEXT_KIND
    odds[np.arange(len(last)), kind] += _SAME_KIND
    return odds


def _favourite_departments(users: int, goods: _Goods, rng: np.random.Generator) -> np.ndarray:
    """Log-odds of every department for every user. Shape: (users, departments)."""
    ranked = rng.random((users, goods.stocked.shape[0])).argsort(axis=1)
    odds = np.full(ranked.shape, _OTHER_DEPARTMENTS, dtype=np.float32)
    np.put_along_axis(odds, ranked[:, : len(_DEPARTMENT_ODDS)], np.float32([_DEPARTMENT_ODDS]), axis=1)
    return odds


def _tastes(department: np.ndarray, goods: _Goods, rng: np.random.Generator) -> np.ndarray:
    """Aspects each user cares about, all different: likes, dislikes, then those taken up later.

    They are drawn without replacement from what the user's favourite departments stock (Gumbel top-k).
    """
    weight = np.log(np.exp(department) @ goods.stocked + 1e-6)
    keys = weight + rng.gumbel(size=weight.shape)
    return np.argsort(-keys, axis=1)[:, : _LIKES + _DISLIKES + _MAX_CHANGES]


def _shelf(goods: _Goods, users: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The items each user looks at, and how much their popularity still speaks for them.

    Returns:
        Item indices, shape (users, C), and log-odds that broadcast to it. An item drawn onto the shelf by its
        popularity has no further advantage from it.
    """
    num_items = len(goods.kind)
    if num_items <= _SMALL_SHOP:
        everything = np.arange(num_items, dtype=np.int32)
        return np.broadcast_to(everything, (users, num_items)), goods.popularity[None]
    drawn = rng.integers(len(goods.by_popularity), size=(users, _SHELF), dtype=np.int32)
    return goods.by_popularity[drawn], np.zeros((1, 1), dtype=np.float32)


def _attitude(aspects: np.ndarray, likes: np.ndarray, dislikes: np.ndarray) -> np.ndarray:
    """+1 where the buyer likes the item's attribute, -1 where they dislike it, else 0. Shape: (R, 4)."""
    liked = (aspects[:, :, None] == likes[:, None]).any(2)
    disliked = (aspects[:, :, None] == dislikes[:, None]).any(2)
    return liked.astype(np.int64) - disliked


def _times(user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unix seconds of every purchase, increasing within a user; rows are sorted by user."""
    gaps = 3_600 + (rng.exponential(21 * _DAY, len(user))).astype(np.int64)
    first = np.flatnonzero(np.diff(user, prepend=-1))
    joined = rng.integers(500 * _DAY, size=len(first)) + _FIRST_DAY
    elapsed = gaps.cumsum()
    return elapsed - np.repeat(elapsed[first] - joined, np.diff(first, append=len(user)))


def _ids(prefix: str, numbers: np.ndarray) -> pl.Series:
    return pl.select(pl.lit(prefix + "-") + pl.Series(numbers).cast(pl.String).str.zfill(6)).to_series()


def _in_words(aspects: np.ndarray, names: list[str]) -> pl.Series:
    """Rows of aspect indices as lists of strings."""
    return pl.Series(names).gather(aspects.ravel()).reshape(aspects.shape).arr.to_list()
