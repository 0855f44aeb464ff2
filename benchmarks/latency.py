"""Where the time of one request goes: the whole, its parts, and the encoder alone, which no request can be faster than.

    python benchmarks/latency.py outputs/quickstart/model --json benchmarks/results/latency.json

All alternatives are run in turn in one process, with the weights that the model has for its experts and with the
generator alone. Medians and minima over all rounds, by the clock and in seconds of the processor, which a busy machine
disturbs less.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import Pipeline

from mender import Recommender, Request
from mender.terminal import run_script

BEFORE = "generator alone, through the loader of transformers"
"""How every request was answered before lists got a path of their own and searches were left out that count nothing."""

GARBAGE = "a full garbage collection, which stops all requests"


def main(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    rounds: Annotated[int, typer.Option(min=3, help="Times that each alternative runs.")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    parts = alternatives(model)
    clock: dict[str, list[float]] = {name: [] for name in parts}
    processor: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(3):
        for part in parts.values():
            part()
    load = os.getloadavg()
    for _ in range(rounds):
        for name, part in parts.items():
            used, start = time.process_time(), time.perf_counter()
            part()
            clock[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    for _ in range(5):  # not in turn with the others, which it would slow down
        used, start = time.process_time(), time.perf_counter()
        gc.collect()
        clock.setdefault(GARBAGE, []).append(time.perf_counter() - start)
        processor.setdefault(GARBAGE, []).append(time.process_time() - used)
    before = statistics.median(clock[BEFORE])
    figures = {}
    for name, own in clock.items():
        figures[name] = {
            "median_ms": round(statistics.median(own) * 1e3, 2),
            "min_ms": round(min(own) * 1e3, 2),
            "processor_ms": round(statistics.median(processor[name]) * 1e3, 2),
            "of_before": round(statistics.median(own) / before, 2),
        }
        print(f"{name:52}", *(f"{value:8.2f}" for value in figures[name].values()))
    if json_file is not None:
        record = {"command": " ".join(["python", *sys.argv]), "torch": torch.__version__, "threads": threads}
        record |= {"load_average": [load, os.getloadavg()], "rounds": rounds, "milliseconds": figures}
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def alternatives(model: str) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    shop, alone = (Recommender.from_pretrained(model, device="cpu") for _ in range(2))
    for own in alone.model.config.experts.weights.values():
        own.update({name: float(name == "generator") for name in own})
    history = [item["item_id"] for item in shop.items[:5]]
    wish = {"preference": "tea with a malty brew", "history": history, "exclude": history}
    silent = {"history": history, "exclude": history}
    encoder, texts = shop.model.encoder, shop.processor.text_inputs([wish["preference"]])
    encoder, text = getattr(encoder, "text_encoder", encoder), torch.tensor(texts)

    @torch.no_grad()
    def encode() -> Any:
        return encoder(input_ids=text, attention_mask=torch.ones_like(text))

    found: dict[str, Callable[[], Any]] = {}
    for name, asked in (("generator alone", alone), ("own weights", shop)):
        inputs = asked.processor(wish["preference"], history)
        excluded = asked.processor.item_indices(history)
        found |= {
            f"{name}, through the loader of transformers": lambda asked=asked: Pipeline.__call__(
                asked._version.pipeline, [Request(**wish)], batch_size=32
            ),
            f"{name}, Recommender.recommend": lambda asked=asked: asked.recommend(**wish),
            f"{name}, model.recommend": lambda asked=asked, inputs=inputs, excluded=excluded: asked.model.recommend(
                **inputs, exclude=excluded
            ),
        }
    return {
        **found,
        "own weights, a history without a wish": lambda: shop.recommend(**silent),
        "the text encoder alone, the floor": encode,
    }


if __name__ == "__main__":
    run_script(main, __doc__)
