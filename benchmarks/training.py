"""The cost of a training step by method, compared to the reference recipe that pads to 512 tokens.

    python benchmarks/training.py                 # samples/s and peak memory
    python benchmarks/training.py --padding       # how much of a batch is padding, by the way it is made up

Texts have realistic lengths (log-normal, 147 tokens on average); a history of cached states is 20 items with titles of
12 tokens, and one of codes is 1 to 20 items, 9 on average, of 4 tokens, behind a preference where the method reads one.
Alternatives run in turn within one process and medians over the rounds are compared, so that a busy machine slows
all of them alike. Where little goes through an encoder, a step takes eight times the batch, as presets do, unless
--equal-batches says otherwise. "T5's order" is what `modeling_mender.decoder` replaces. Memory is the growth
of a process of its own per alternative. One thread, or --threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from random_models import (
    CODES,
    HISTORY,
    ITEMS,
    PREFERENCE,
    item_state_inputs,
    mender,
    random_labels,
    with_item_states,
)
from rich.console import Console
from rich.table import Table

from modeling_mender import SasRecForSequentialRecommendation
from modeling_mender.decoder import AbsorbedCrossAttention
from modeling_mender.modeling_sasrec import SasRecConfig
from modeling_mender.training.batches import length_grouped_order

PADDED = 512
"""Tokens that the reference recipe pads every input to."""

Step = Callable[[], None]
Lengths = Callable[[int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Alternative:
    """One way to train.

    Attributes:
        padded: name of the alternative that does the same padded to 512.
        make: gives a step to be timed; a step trains on `batch` samples.
        large: whether so little goes through the encoder that a step affords the batch which presets train with.
    """

    padded: str
    make: Callable[[int, np.random.Generator], Step]
    large: bool = False

    def batch(self, size: int, equal: bool) -> int:
        """Samples of a step."""
        return 8 * size if self.large and not equal else size


def token_lengths(count: int, generator: np.random.Generator) -> np.ndarray:
    """Log-normal lengths with a mean of 147, at most 512. Shape: (count,)."""
    return generator.lognormal(4.84, 0.55, count).astype(int).clip(8, PADDED)


def code_lengths(count: int, generator: np.random.Generator) -> np.ndarray:
    """Tokens of histories of 1 to 20 items, log-normal with a mean of 9, a token per level. Shape: (count,)."""
    return len(CODES) * generator.lognormal(2.14, 0.55, count).astype(int).clip(1, HISTORY)


def preference_and_code_lengths(count: int, generator: np.random.Generator) -> np.ndarray:
    """Tokens of a preference and such a history. Shape: (count,)."""
    return PREFERENCE + code_lengths(count, generator)


def training_step(model: Any, batches: Iterator[dict[str, torch.Tensor]]) -> Step:
    """Forward, backward and AdamW on the next batch; the optimizer is fused, as the Trainer's is."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        model(**next(batches)).loss.backward()
        optimizer.step()

    return step


def text_batches(
    model: Any, batch: int, generator: np.random.Generator, padded: bool, cached: bool, lengths_of: Lengths
) -> Iterator[dict]:
    """Batches of texts: padded to 512 and shuffled, or grouped by length; as token ids or as cached states."""
    lengths = lengths_of(50 * batch, generator)
    order = generator.permutation(len(lengths)) if padded else length_grouped_order(lengths, batch, 0, 0)
    width = model.config.encoder.hidden_size
    # Half-precision states on disk, as EncoderStates keeps them: reading and widening them belongs to the step.
    states = generator.standard_normal((PADDED, width)).astype(np.float16) if cached else None
    for rows in cycle(order.reshape(-1, batch)):
        length = torch.from_numpy(lengths[rows])
        longest = PADDED if padded else int(length.max())
        mask = (torch.arange(longest) < length[:, None]).long()
        batch_of = {"attention_mask": mask, "labels": random_labels(model, batch)}
        if cached:
            found = [torch.from_numpy(states[:size].astype(np.float32)) for size in length.tolist()]
            batch_of["encoder_outputs"] = (torch.nn.utils.rnn.pad_sequence(found, batch_first=True),)
        else:
            batch_of["input_ids"] = torch.randint(1, model.config.encoder.vocab_size, mask.shape) * mask
        yield batch_of


def state_batches(model: Any, batch: int) -> Iterator[dict]:
    """Batches of a preference and 20 items as rows of the state table, the preference's states from a cache."""
    while True:
        yield item_state_inputs(model, batch) | {"labels": random_labels(model, batch)}


def sequence_batches(model: Any, batch: int) -> Iterator[dict]:
    """Batches of whole sequences for SASRec: 20 targets in each."""
    while True:
        rows = torch.randint(1, ITEMS + 1, (batch, HISTORY))
        yield {"input_ids": rows, "labels": (rows - 1).roll(-1, 1)}


def text_alternative(
    training: str,
    padded: bool = False,
    cached: bool = False,
    lengths: Lengths = token_lengths,
) -> Callable[..., Step]:
    """A step over texts, or over codes where the lengths are theirs."""

    def make(batch: int, generator: np.random.Generator) -> Step:
        model = mender(training, new_tokens=lengths is preference_and_code_lengths)
        return training_step(model, text_batches(model, batch, generator, padded, cached, lengths))

    return make


def state_alternative(pooled: bool) -> Callable[..., Step]:
    """A step over cached item states."""

    def make(batch: int, generator: np.random.Generator) -> Step:
        model = with_item_states(pooled)
        return training_step(model, state_batches(model, batch))

    return make


def sasrec(batch: int, generator: np.random.Generator) -> Step:
    """A SASRec step."""
    model = SasRecForSequentialRecommendation(SasRecConfig(ITEMS))
    return training_step(model, sequence_batches(model, batch))


def in_t5s_order(make: Callable[..., Step]) -> Callable[..., Step]:
    """The same step with cross-attention that projects every state it attends to, as T5's does."""

    def make_slow(batch: int, generator: np.random.Generator) -> Step:
        step = make(batch, generator)

        def slow() -> None:
            with patch.object(AbsorbedCrossAttention, "_worthwhile", lambda *_: False):
                step()

        return slow

    return make_slow


FULL, LORA, FROZEN = "full, padded to 512", "LoRA, padded to 512", "frozen, padded to 512"
TIGER, VOCABEXT = "tiger, padded to 512", "vocabext-rnd, padded to 512"
RECIPE = LORA
"""What the paper does: FLAN-T5 with adapters, every input padded to 512."""

TOK, FID, EMB = "mender-tok: frozen, cached states", "mender-fid: cached title states", "mender-emb: cached vectors"
CACHED = {
    TOK: text_alternative("frozen", cached=True),
    FID: state_alternative(pooled=False),
    EMB: state_alternative(pooled=True),
}
ALTERNATIVES = {
    FULL: Alternative(FULL, text_alternative("full", padded=True)),
    "full, grouped by length": Alternative(FULL, text_alternative("full")),
    LORA: Alternative(LORA, text_alternative("lora", padded=True)),
    "LoRA, grouped by length": Alternative(LORA, text_alternative("lora")),
    FROZEN: Alternative(FROZEN, text_alternative("frozen", padded=True)),
    "frozen, grouped by length": Alternative(FROZEN, text_alternative("frozen")),
    **{name: Alternative(FROZEN, make, large=True) for name, make in CACHED.items()},
    **{f"{name}, T5's order": Alternative(FROZEN, in_t5s_order(make), large=True) for name, make in CACHED.items()},
    "vocabext-lm: LoRA over codes, grouped by length": Alternative(
        LORA, text_alternative("lora", lengths=preference_and_code_lengths), large=True
    ),
    VOCABEXT: Alternative(VOCABEXT, text_alternative("scratch", padded=True, lengths=preference_and_code_lengths)),
    "vocabext-rnd: grouped by length": Alternative(
        VOCABEXT, text_alternative("scratch", lengths=preference_and_code_lengths), large=True
    ),
    TIGER: Alternative(TIGER, text_alternative("scratch", padded=True, lengths=code_lengths)),
    "tiger: grouped by length": Alternative(TIGER, text_alternative("scratch", lengths=code_lengths), large=True),
    "sasrec (20 targets a sample)": Alternative(FROZEN, sasrec, large=True),
}


def measure_training(batch: int, rounds: int, equal: bool) -> dict[str, dict[str, float]]:
    """Samples per second of every alternative, medians over interleaved rounds."""
    batches = {name: each.batch(batch, equal) for name, each in ALTERNATIVES.items()}
    steps = {name: each.make(batches[name], np.random.default_rng(0)) for name, each in ALTERNATIVES.items()}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            repeats = 1 if ALTERNATIVES[name].padded == name else 2
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            seconds[name].append((time.perf_counter() - start) / repeats)
    return {
        name: {
            "samples_per_second": batches[name] / float(np.median(values)),
            "batch": batches[name],
            "seconds": values,
        }
        for name, values in seconds.items()
    }


def memory_of(name: str, batch: int, equal: bool) -> float:
    """Growth of a fresh process's peak memory over two steps, in MiB, its model included."""
    command = [sys.executable, __file__, "--memory-of", name, "--batch-size", str(batch)]
    command += ["--equal-batches"] * equal
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def own_memory(name: str, batch: int, equal: bool) -> float:
    """What `memory_of` reads in the process it starts."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = ALTERNATIVES[name].make(ALTERNATIVES[name].batch(batch, equal), np.random.default_rng(0))
    step()
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def padding_shares(examples: int = 20_000) -> dict[str, dict[str, float]]:
    """Share of padding among the tokens of an epoch, by batch size and way to make batches up.

    The share left by grouping is also the most that packing several texts into one row could still save.
    """
    generator = np.random.default_rng(0)
    lengths = token_lengths(examples, generator)
    shares = {}
    for batch in (8, 64, 128):
        orders = {
            "padded to 512": None,
            "padded to the longest, shuffled": generator.permutation(examples),
            "padded to the longest, grouped by length": length_grouped_order(lengths, batch, 0, 0),
        }
        shares[str(batch)] = {}
        for name, order in orders.items():
            tokens = PADDED * examples
            if order is not None:
                starts = np.arange(0, examples, batch)
                sizes = np.diff([*starts, examples])
                tokens = int((np.maximum.reduceat(lengths[order], starts) * sizes).sum())
            shares[str(batch)][name] = 1 - lengths.sum() / tokens
    return shares


def show_padding(shares: dict[str, dict[str, float]]) -> None:
    """Print the table of paddings."""
    table = Table("batch", *next(iter(shares.values())), title="Padding among all tokens")
    for batch, found in shares.items():
        table.add_row(batch, *(f"{share:.1%}" for share in found.values()))
    Console(width=120).print(table)


def show_training(found: dict[str, dict[str, float]], memory: dict[str, float]) -> None:
    """Print the training table."""
    table = Table(title="Training, MiniLM and the paper's decoder")
    for name in (
        "step",
        "batch",
        "samples/s",
        "times the same, padded",
        "times the paper's recipe",
        "peak memory, MiB",
    ):
        table.add_column(name, justify="left" if name == "step" else "right")
    for name, values in found.items():
        rate = values["samples_per_second"]
        padded, recipe = (found[base]["samples_per_second"] for base in (ALTERNATIVES[name].padded, RECIPE))
        peak = f"{memory[name]:,.0f}" if name in memory else ""
        row = f"{rate:.2f}", f"{rate / padded:.1f}x", f"{rate / recipe:.1f}x", peak
        table.add_row(name, str(values["batch"]), *row)
    Console(width=120).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8, help="samples of a step; eight times it where cached")
    parser.add_argument("--equal-batches", action="store_true", help="as many samples where cached as elsewhere")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--padding", action="store_true", help="measure padding instead of training")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory column out")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--memory-of", choices=list(ALTERNATIVES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.memory_of:
        print(own_memory(arguments.memory_of, arguments.batch_size, arguments.equal_batches))
        return
    if arguments.padding:
        found = padding_shares()
        show_padding(found)
    else:
        # Memory first: a process starts with the peak of the one that starts it, and timing needs much.
        names = [] if arguments.no_memory else list(ALTERNATIVES)
        memory = {name: memory_of(name, arguments.batch_size, arguments.equal_batches) for name in names}
        found = measure_training(arguments.batch_size, arguments.rounds, arguments.equal_batches)
        show_training(found, memory)
        for name, value in memory.items():
            found[name]["peak_mib"] = value
    if arguments.output:
        unfinished = arguments.output.with_name(arguments.output.name + ".tmp")
        unfinished.write_text(json.dumps(found, indent=1), "utf-8")
        unfinished.replace(arguments.output)


if __name__ == "__main__":
    main()
