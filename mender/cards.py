"""Cards of runs: what a run measured, and lists that its model gives to a test user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mender.data import BenchmarkData
from modeling_mender import MenderProcessor, pick_request, steer, write_card
from modeling_mender.card_facts import encoder_config
from modeling_mender.configuration_mender import public_name
from preference_benchmark.embedding import HUB_NAME, default_encoder

__all__ = ["encoder_name", "write_run_card"]


def write_run_card(
    folder: Path, model: Any, processor: MenderProcessor, data: BenchmarkData, record: Mapping[str, Any], **card: Any
) -> Path:
    """Write the card of a saved model that was measured on a benchmark.

    Args:
        folder: where the model is saved.
        model: any model with `recommend`.
        processor: its processor.
        data: the benchmark; a user of its test split is shown lists.
        record: what five_axes.json holds.
        **card: as for `write_card`.

    Returns:
        The card's path.
    """
    matching = "last" if "last" in data.examples else "oracle"
    history, preferences = pick_request(data.examples[matching]["test"])
    shown = [steer(model, processor, history, preferences)] if processor.preference == "text" else []
    defaults = {"base_model": encoder_name(model)}
    return write_card(folder, model, **{"results": record, "steering": shown, "defaults": defaults, **card})


def encoder_name(model: Any) -> str | None:
    """Name on the Hub of a model's encoder, also where its weights came with the `offline` extra; `None`: no name."""
    path = getattr(encoder_config(model), "_name_or_path", None)
    if not path:
        return None
    return public_name(path) or (HUB_NAME if Path(path) == Path(default_encoder().path) else None)
