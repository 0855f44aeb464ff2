"""Cards of runs: what a run measured, and lists that show how preferences steer its model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from mender.data import BenchmarkData
from modeling_mender.configuration_mender import public_name
from modeling_mender.hub.card import text_encoder_of, write_card
from modeling_mender.hub.results import SteeringExample
from preference_benchmark.embedding import HUB_NAME, default_encoder

if TYPE_CHECKING:
    from mender.recommender import Recommender

__all__ = ["encoder_name", "pick_request", "steer", "write_run_card"]

HISTORY_SHOWN = 5


def write_run_card(
    folder: Path, shop: Recommender, data: BenchmarkData, record: Mapping[str, Any], **card: Any
) -> Path:
    """Write the card of a saved recommender that was measured on a benchmark.

    Args:
        folder: where it is saved.
        shop: the recommender.
        data: the benchmark.
        record: what five_axes.json holds.
        **card: as for `write_card`.

    Returns:
        The card's path.
    """
    history, preferences = pick_request(data.examples["last" if "last" in data.examples else "oracle"]["test"])
    shown = [steer(shop, history, preferences)] if shop.processor.reads_preference else []
    defaults = {"base_model": encoder_name(shop.model)}
    return write_card(folder, shop.model, **{"results": record, "steering": shown, "defaults": defaults, **card})


def encoder_name(model: Any) -> str | None:
    """Name on the Hub of a model's encoder, also if its weights came with the `offline` extra; `None`: no name."""
    path = getattr(text_encoder_of(model), "_name_or_path", None)
    if not path:
        return None
    return public_name(path) or (HUB_NAME if Path(path) == Path(default_encoder().path) else None)


def pick_request(examples: datasets.Dataset, preferences: int = 2) -> tuple[list[str], list[str]]:
    """A history and preferences to show, chosen by rule.

    The history consists of the items in most histories, so that it is not one customer's. Preferences are evenly spread
    over those of coarse steering, or over all where there are none.

    Args:
        examples: a split of the benchmark with the columns `axis`, `history` and `preferences`.
        preferences: how many different ones.

    Returns:
        Item ids and preference texts; fewer where the examples have fewer.

    Raises:
        ValueError: if no example has a preference.
    """
    counts = Counter(chain.from_iterable(examples["history"][:]))
    columns = zip(examples["preferences"][:], examples["axis"][:], strict=True)
    texts = [(texts[0], axis) for texts, axis in columns if texts]
    if not texts:
        raise ValueError("no example has a preference to show; pass the test split of a benchmark")
    steering = [text for text, axis in texts if axis == "coarse_grained_steering"]
    distinct = list(dict.fromkeys(steering or [text for text, _ in texts]))
    step = max(1, len(distinct) // preferences)
    return [item for item, _ in counts.most_common(HISTORY_SHOWN)], distinct[::step][:preferences]


def steer(shop: Recommender, history: Sequence[str], preferences: Sequence[str], top_k: int = 5) -> SteeringExample:
    """What a recommender answers to one history, once per preference.

    Args:
        shop: the recommender.
        history: item ids, oldest first; they are not recommended again. A card shows the last of them.
        preferences: at least one text.
        top_k: items per list.

    Raises:
        ValueError: if there is no preference, an item is unknown, or the model reads no preferences.
    """
    if not preferences:
        raise ValueError("no preference to steer by; pass at least one text")
    read = list(history) if shop.processor.reads_history else []
    found = shop.recommend_batch(preferences, history=read, exclude=list(history), top_k=top_k)
    lists = [[item["title"] for item in items] for items in found]
    titles = [item["title"] for item in shop.processor.decode_items(shop.processor.item_indices(history))]
    return SteeringExample(titles, dict(zip(preferences, lists, strict=True)))
