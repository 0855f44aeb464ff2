"""Where the time of one request goes: the whole, its parts, and the encoder alone, which no request can be faster than.

    python benchmarks/latency.py outputs/quickstart/model --json benchmarks/results/latency.json

All alternatives are run in turn in one process. Seconds are those of the processor, which a busy machine disturbs less
than the clock does; medians and minima over all rounds.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import Pipeline

from mender import Recommender, Request
from mender.terminal import run_script


def main(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    rounds: Annotated[int, typer.Option(min=3, help="Times that each alternative runs.")] = 60,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    shop = Recommender.from_pretrained(model, device="cpu")
    history = [item["item_id"] for item in shop.items[:5]]
    request = {"preference": "tea with a malty brew", "history": history, "exclude": history}
    parts = alternatives(shop, request)
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for part in parts.values():
        part()
    for _ in range(rounds):
        for name, part in parts.items():
            start = time.process_time()
            part()
            seconds[name].append(time.process_time() - start)
    whole = statistics.median(seconds["through the loader of transformers"]) * 1e3
    figures = {}
    for name, own in seconds.items():
        median, least = statistics.median(own) * 1e3, min(own) * 1e3
        figures[name] = {
            "median_ms": round(median, 2),
            "min_ms": round(least, 2),
            "of_before": round(median / whole, 2),
        }
        print(f"{name:36} {median:8.2f} {least:8.2f} {figures[name]['of_before']:6.2f}")
    if json_file is not None:
        record = {"torch": torch.__version__, "items": len(shop), "rounds": rounds, "milliseconds": figures}
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def alternatives(shop: Recommender, request: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    model, processor, pipeline = shop.model, shop.processor, shop._version.pipeline
    parsed = Request(**request)
    inputs = processor(request["preference"], request["history"])
    excluded = processor.item_indices(request["exclude"])
    encoder = getattr(model.encoder, "text_encoder", model.encoder)
    text = inputs["input_ids"][:, : len(processor(request["preference"])["input_ids"][0])]
    text = text[text < encoder.config.vocab_size][None]

    @torch.no_grad()
    def encode() -> Any:
        return encoder(input_ids=text, attention_mask=torch.ones_like(text))

    @torch.no_grad()
    def read() -> Any:
        return model.states_for_retrieval(inputs["input_ids"], inputs["attention_mask"])

    return {
        # How requests were answered before lists got a path of their own.
        "through the loader of transformers": lambda: Pipeline.__call__(pipeline, [parsed], batch_size=32),
        "Recommender.recommend": lambda: shop.recommend(**request),
        "model.recommend": lambda: model.recommend(**inputs, exclude=excluded),
        "states of the request": read,
        "text encoder alone": encode,
    }


if __name__ == "__main__":
    run_script(main, __doc__)
