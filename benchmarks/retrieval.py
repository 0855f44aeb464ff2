"""What a recommendation request costs: `recommend()` against `generate()`, the reference recipe, and the encoder alone.

    python benchmarks/retrieval.py --quick               # batch 8, 150 tokens and batch 32, 256 tokens
    python benchmarks/retrieval.py --json retrieval.json
    python benchmarks/retrieval.py --presets             # mender-tok, mender-fid and mender-emb, side by side
    python benchmarks/retrieval.py --experts             # what experts and further conditions cost beside a generator
    python benchmarks/retrieval.py --dtypes bfloat16 --batches 1 8 64 --lengths 150 --compile reduce-overhead

All methods run in one process on the same random weights and inputs, interleaved round by round; a row gives the median
and the lowest and highest of `n` rounds in milliseconds. The decoder is the paper's (6 layers, width 128), 4 levels of
256 codes, 12,000 items. "official_recipe" re-expresses what the paper's released code does at decoding: every input
padded to 512 tokens, unconstrained beams, answers that are not items dropped afterwards; it is timed at 150 tokens, and
costs the same at every length. --presets times 254 tokens of preference and history, from input ids to ten items, with
the paper's decoder and with the smaller one of the presets. --experts times mender-emb at equal beams: alone, with
language and behaviour in the search, with a phrase to avoid, and under two conditions (a strength). Weights are random:
no time here depends on their values.
--compile adds the encoder through torch.compile, alone and with `recommend()` behind it (reduce-overhead: as CUDA
graphs); the search, whose shapes depend on the catalogue, stays as it is. `peak_mb` is the memory a call needs on top
of what the process holds already.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import PeakMemory, synchronise, write_rows
from random_models import HISTORY, ITEMS, PREFERENCE, TITLE, item_state_inputs, mender, with_experts, with_item_states
from rich.console import Console
from rich.table import Table
from transformers import BertConfig, T5Config

from modeling_mender import MenderConfig, MenderForGenerativeRetrieval, SemanticIdCatalogue, load_preset

BEAMS, SIZES = 30, (256, 256, 256, 256)
ENCODERS = {
    "minilm": BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    "flan-t5-small": T5Config(
        vocab_size=32128,
        d_model=512,
        d_ff=1024,
        d_kv=64,
        num_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    ),
}
PADDED, RECIPE_LENGTH = 512, 150
MOST_TOKENS = 8 * 512
"""Beyond this, `generate` copies the encoder's states to so many beams that memory, not time, is what it measures."""


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 150, 256, 512])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--compile", action="append", choices=["default", "reduce-overhead"], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="only MiniLM at batch 8 x 150 and batch 32 x 256")
    parser.add_argument("--presets", action="store_true", help="only the three Menders, with either decoder")
    parser.add_argument("--experts", action="store_true", help="only generator and experts, with either decoder")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()

    if arguments.presets or arguments.experts:
        compared = measure_presets if arguments.presets else measure_experts
        dtype = getattr(torch, arguments.dtypes[0])
        rows = compared(arguments.batches, arguments.rounds, arguments.device, dtype)
        print_compared(rows)
        write_rows(rows, arguments.json)
        return
    shapes = [(batch, length) for batch in arguments.batches for length in arguments.lengths]
    if arguments.quick:
        arguments.encoders, shapes = ["minilm"], [(8, 150), (32, 256)]
    rows = []
    for encoder in arguments.encoders:
        for dtype in arguments.dtypes:
            model = random_model(encoder).to(arguments.device, getattr(torch, dtype))
            compiled = {mode: torch.compile(model.encoder, mode=mode, dynamic=False) for mode in arguments.compile}
            for batch, length in shapes:
                for row in measure(model, batch, length, arguments.rounds, arguments.device, compiled):
                    rows.append({"encoder": encoder, "dtype": dtype, **row})
                    print(json.dumps(rows[-1]), flush=True)
    print_table(rows)
    write_rows(rows, arguments.json)


def random_model(encoder: str) -> MenderForGenerativeRetrieval:
    """A model of the paper's shape with random weights over a random catalogue."""
    torch.manual_seed(0)
    codes = torch.randint(0, 256, (2 * ITEMS, 4)).unique(dim=0)
    codes = codes[torch.randperm(len(codes))[:ITEMS]]
    catalogue = SemanticIdCatalogue(codes, SIZES)
    config = MenderConfig(encoder=ENCODERS[encoder], codebook_sizes=SIZES, num_items=ITEMS)
    model = MenderForGenerativeRetrieval(config).eval()
    model.set_catalogue(catalogue)
    return model


def measure(
    model: MenderForGenerativeRetrieval,
    batch: int,
    length: int,
    rounds: int,
    device: str,
    compiled: dict[str, Callable[..., Any]],
) -> list[dict[str, Any]]:
    """One row per method for one batch size and input length."""
    generator = torch.Generator().manual_seed(batch * length)
    input_ids = torch.randint(1000, 20_000, (batch, length), generator=generator).to(device)
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    methods: dict[str, Callable[[], Any]] = {
        "encoder": lambda: model.encoder(**inputs).last_hidden_state,
        "recommend": lambda: model.recommend(**inputs, top_k=10, num_beams=BEAMS),
    }
    for mode, encoder in compiled.items():
        methods |= {
            f"encoder, {mode}": partial(encoder, **inputs),
            f"recommend, {mode}": partial(recommend_behind, model, encoder, inputs),
        }
    beams = {"num_beams": BEAMS, "num_return_sequences": 10}
    if batch * length <= MOST_TOKENS:
        methods |= {
            "generate_processor": lambda: model.generate(**inputs, **beams),
            "generate_prefix_fn": lambda: model.generate(
                **inputs, **beams, constrained=False, prefix_allowed_tokens_fn=prefix_function(model)
            ),
        }
    # Padded to the same length whatever comes in, the recipe costs the same at every length: once is enough.
    if batch * PADDED <= MOST_TOKENS and length == RECIPE_LENGTH:
        padded = {name: torch.nn.functional.pad(value, (0, PADDED - length)) for name, value in inputs.items()}
        methods["official_recipe"] = lambda: drop_invalid(model, model.generate(**padded, **beams, constrained=False))
    place = {"batch": batch, "length": length, "beams": BEAMS}
    return [{"method": name, **place, **figures} for name, figures in timed(methods, rounds, device).items()]


def recommend_behind(model: Any, encoder: Callable[..., Any], inputs: dict[str, torch.Tensor]) -> Any:
    """A request whose encoder is another callable."""
    states = encoder(**inputs).last_hidden_state
    return model.recommend(
        encoder_outputs=(states,), attention_mask=inputs["attention_mask"], top_k=10, num_beams=BEAMS
    )


def measure_presets(batches: list[int], rounds: int, device: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    """One row per Mender, decoder and batch size, at 254 tokens of preference and history."""
    rows = []
    length = PREFERENCE + HISTORY * TITLE
    for decoder in ("paper", "preset"):
        shape = load_preset("mender-tok").decoder if decoder == "preset" else None
        models = {
            "mender-tok": mender("frozen", shape),
            "mender-fid": with_item_states(False, shape),
            "mender-emb": with_item_states(True, shape),
        }
        for batch in batches:
            methods = {}
            for name, model in models.items():
                model.eval().to(device, dtype)
                if name == "mender-tok":
                    text = torch.randint(1000, 30_000, (batch, length))
                    inputs = {"input_ids": text, "attention_mask": torch.ones_like(text)}
                else:
                    inputs = item_state_inputs(model, batch, cached=False)
                inputs = {key: value.to(device) for key, value in inputs.items()}
                methods[name] = partial(model.recommend, **inputs, top_k=10, num_beams=BEAMS)
            place = {"decoder": decoder, "batch": batch, "length": length, "beams": BEAMS}
            found = timed(methods, rounds, device)
            rows += [{"method": name, **place, **figures} for name, figures in found.items()]
    return rows


def measure_experts(batches: list[int], rounds: int, device: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    """One row per sum of experts, decoder and batch size: 14 tokens of preference and 20 items of history."""
    rows = []
    for decoder in ("paper", "preset"):
        shape = load_preset("mender").decoder if decoder == "preset" else None
        alone = with_item_states(True, shape).eval().to(device, dtype)
        summed = with_experts(with_item_states(True, shape)).eval().to(device, dtype)
        for batch in batches:
            inputs = {key: value.to(device) for key, value in item_state_inputs(alone, batch, cached=False).items()}
            ask = {"top_k": 10, "num_beams": BEAMS}
            two = {key: torch.stack([value, value], dim=1) for key, value in inputs.items()}
            two["condition_weights"] = torch.tensor([[1.5, -0.5]] * batch)
            avoid = torch.randint(1000, 30_000, (batch, 1, 5)).to(device)
            methods = {
                "generator": partial(alone.recommend, **inputs, **ask),
                "+ behaviour": partial(summed.recommend, **inputs, **ask, weights={"language": 0}),
                "+ language": partial(summed.recommend, **inputs, **ask, weights={"behaviour": 0}),
                "+ behaviour + language": partial(summed.recommend, **inputs, **ask),
                "... + 1 to avoid": partial(summed.recommend, **inputs, **ask, avoid_input_ids=avoid),
                "generator, 2 conditions": partial(alone.recommend, **two, **ask),
            }
            place = {"decoder": decoder, "batch": batch, "length": PREFERENCE + HISTORY, "beams": BEAMS}
            found = timed(methods, rounds, device)
            rows += [{"method": name, **place, **figures} for name, figures in found.items()]
    return rows


def timed(methods: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Milliseconds of methods that take turns, and the memory each needs."""
    elapsed: dict[str, list[float]] = {name: [] for name in methods}
    peaks: dict[str, float] = {}
    with torch.no_grad():
        for current in range(rounds + 1):
            for name, method in methods.items():
                memory = PeakMemory(device)
                synchronise(device)
                started = time.perf_counter()
                method()
                synchronise(device)
                if current:  # the first round warms up
                    elapsed[name].append(1000 * (time.perf_counter() - started))
                    peaks[name] = max(peaks.get(name, 0.0), memory.read())
    return {
        name: {
            "median_ms": round(float(np.median(times)), 2),
            "low_ms": round(min(times), 2),
            "high_ms": round(max(times), 2),
            "n": len(times),
            "peak_mb": round(peaks[name], 1),
        }
        for name, times in elapsed.items()
    }


def prefix_function(model: MenderForGenerativeRetrieval) -> Callable[[int, torch.Tensor], list[int]]:
    """The tokens allowed after a prefix, from a dictionary of all prefixes, as usually written by hand."""
    if not hasattr(model, "_prefixes"):
        prefixes: dict[tuple[int, ...], set[int]] = {}
        for tokens in model.item_tokens(torch.arange(len(model.item_codes), device=model.device)).tolist():
            for level, token in enumerate(tokens):
                prefixes.setdefault(tuple(tokens[:level]), set()).add(token)
        model._prefixes = {prefix: sorted(tokens) for prefix, tokens in prefixes.items()}
    return lambda _, written: model._prefixes.get(tuple(written.tolist()[1:]), [0])


def drop_invalid(model: MenderForGenerativeRetrieval, sequences: torch.Tensor) -> torch.Tensor:
    """Item indices of generated sequences; -1 for those that are not items."""
    return model.item_indices(sequences[:, 1:].clamp(min=1))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Milliseconds, and how many times `recommend()` and the encoder alone go into each method."""
    table = Table(title=f"one request, {BEAMS} beams, {ITEMS:,} items; {torch.get_num_threads()} threads")
    titles = ("encoder", "dtype", "batch", "length", "method", "median ms", "low-high", "peak MB")
    for name in (*titles, "x recommend", "x encoder"):
        table.add_column(name, justify="right")
    key = ("encoder", "dtype", "batch", "length")
    medians = {(*[row[name] for name in key], row["method"]): row["median_ms"] for row in rows}
    for row in rows:
        place = [row[name] for name in key]
        ratios = [f"{row['median_ms'] / medians[(*place, method)]:.2f}" for method in ("recommend", "encoder")]
        spread = f"{row['low_ms']:.1f}-{row['high_ms']:.1f}"
        figures = f"{row['median_ms']:.1f}", spread, f"{row['peak_mb']:.0f}"
        table.add_row(*map(str, place), row["method"], *figures, *ratios)
    Console(width=130).print(table)


def print_compared(rows: list[dict[str, Any]]) -> None:
    """Milliseconds, and how many times as long as the first method of its decoder and batch each takes."""
    first = rows[0]["method"]
    table = Table("decoder", "batch", "method", "median ms", "low-high", f"times {first}")
    table.title = f"{rows[0]['length']} tokens, {BEAMS} beams, {ITEMS:,} items; {torch.get_num_threads()} threads"
    for row in rows:
        if row["method"] == first:
            reference = row["median_ms"]
        spread = f"{row['low_ms']:.1f}-{row['high_ms']:.1f}"
        figures = f"{row['median_ms']:.1f}", spread, f"{row['median_ms'] / reference:.2f}"
        table.add_row(row["decoder"], str(row["batch"]), row["method"], *figures)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
