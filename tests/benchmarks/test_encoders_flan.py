"""The formulas for FLAN-T5 as an encoder agree with models of its form, and the page is made of them."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def flan():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield import_module("encoders_flan")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_parameters_and_activations_are_those_of_a_model(flan):
    shape = flan.Shape(d_model=24, d_kv=4, num_heads=3, d_ff=40, num_layers=5, vocab_size=50)
    found = flan.counted(shape)
    assert found["parameters"] == shape.parameters
    assert found["layer_bytes_per_token"] * shape.num_layers == shape.activations("full", flan.TOKENS)
    assert shape.activations("frozen", 9) == 0 < shape.activations("lora", 9)


def test_published_sizes(flan):
    millions = {name: round(shape.parameters / 1e6) for name, shape in flan.SHAPES.items()}
    assert millions == {"small": 35, "base": 110, "large": 341, "xl": 1224, "xxl": 4762}


def test_the_page_says_what_fits(flan):
    one = {"batch": 4, "stored_mb": 40.0, "stored_bfloat16_mb": 24.0, "memory_mb": 200.0, "calls": 3000}
    one |= {"step_seconds": 1.0, "request_seconds": 0.2, "request_encoder_seconds": 0.1, "trained": 5_000_000}
    names = [f"{name},{training}" for name in ("small", "base") for training in flan.TRAININGS]
    measured = {name: one | {"calls": 3000 + 1000 * (name.startswith("base"))} for name in names}
    counted = {name: {"parameters": 1, "layer_bytes_per_token": 1} for name in flan.SHAPES}
    text = flan.report({"measured": measured, "counted": counted})
    assert text.count("\n| xxl, ") == 3 and "| xxl, full | " in text and "| none | more than 80 |" in text
    rest = flan.Rest.of(measured)
    for training in flan.TRAININGS:
        sizes = [flan.fitting(shape, training, flan.TOKENS, rest) for shape in flan.SHAPES.values()]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] == flan.BATCH
