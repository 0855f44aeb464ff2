"""What FLAN-T5 small to XXL cost as the encoder of `mender-tok`: parameters, memory and hours on one H100.

    python benchmarks/encoders_flan.py              # measures, then writes benchmarks/results/encoders_flan.*
    python benchmarks/encoders_flan.py --no-measure # computes the table again from what was measured

Parameters and memory are computed by formulas. Models of these shapes with random weights check them: parameters and
stored activations of all five (on torch's meta device, which holds no numbers), and of those named by --shapes the
memory of a training step and a request. Hours are estimates; nothing here has run on a GPU. Each measurement is a
process of its own, and those that are in the JSON file are not repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from measuring import PeakMemory
from random_models import mender, random_labels
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5Config, T5EncoderModel

from mender.terminal import run_script

RESULTS = Path(__file__).parent / "results" / "encoders_flan.json"
TRAININGS = ("frozen", "lora", "full")
RANK = 16
TOKENS, PADDED = 147, 512
"""Tokens of an input: the mean of `benchmarks/training.py`, and what the paper pads to."""
BATCH, STEPS, EXAMPLES, BEAMS = 64, 200_000, 241_438, 30
"""The paper's training on Beauty; its examples are those of the published benchmark."""
GPU_BYTES, GPU_FLOPS, GPU_BANDWIDTH = 80e9, 989e12, 3.35e12
"""Of an H100 SXM: memory, dense bfloat16 operations a second, and bytes a second from and to memory."""
WIDTH = 128
"""Of the decoder."""
USED_MEMORY, USED_FLOPS, SECONDS_PER_CALL = 0.9, 0.3, 10e-6
"""Assumptions: the share of memory that a step may fill, the share of peak speed that large matrices reach, and what
a call from Python to the GPU costs at least."""


@dataclass(frozen=True)
class Shape:
    """Of a FLAN-T5 encoder, as its config.json on the Hub gives it."""

    d_model: int
    d_kv: int
    num_heads: int
    d_ff: int
    num_layers: int
    vocab_size: int = 32_128

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.d_kv * self.num_heads

    @property
    def matrices(self) -> int:
        """Parameters that every token is multiplied with."""
        return self.num_layers * (4 * self.d_model * self.inner + 3 * self.d_model * self.d_ff)

    @property
    def parameters(self) -> int:
        """All parameters: matrices, norms, 32 relative positions a head, words."""
        norms = (2 * self.num_layers + 1) * self.d_model
        return self.matrices + norms + 32 * self.num_heads + self.vocab_size * self.d_model

    @property
    def adapters(self) -> int:
        """Parameters of LoRA on the four projections of attention."""
        return self.num_layers * 4 * RANK * (self.d_model + self.inner)

    def activations(self, training: str, tokens: int) -> int:
        """Bytes in float32 that all layers keep of one token of a text until the backward pass.

        Each layer keeps 8 vectors of the model's width (inputs and outputs of two norms, two dropouts), 4 of attention
        (queries, keys, values, their mean), 8 of the wide layer, and per head 3 numbers for each other token. Frozen
        matrices need no inputs for the backward pass, which leaves 5, 4, 7 and 3.
        """
        if training == "frozen":
            return 0
        wide, broad, extra = (32, 32, 8) if training == "full" else (20, 28, 8 + 16 * RANK)
        layer = wide * self.d_model + 16 * self.inner + broad * self.d_ff + 12 * self.num_heads * tokens + extra
        return self.num_layers * layer

    def operations(self, training: str, tokens: int) -> float:
        """Floating-point operations of the encoder for one text: forward, and backward through what is trained."""
        forward = 2 * self.matrices * tokens + 4 * self.num_layers * tokens**2 * self.inner
        return forward * {"frozen": 1, "lora": 2, "full": 3}[training]

    def config(self, layers: int | None = None) -> T5Config:
        """The configuration in transformers."""
        fields = {name: getattr(self, name) for name in ("d_model", "d_kv", "num_heads", "d_ff", "vocab_size")}
        own = {"feed_forward_proj": "gated-gelu", "is_encoder_decoder": False, "use_cache": False}
        return T5Config(num_layers=layers or self.num_layers, **fields, **own)


SHAPES = {
    "small": Shape(512, 64, 6, 1024, 8),
    "base": Shape(768, 64, 12, 2048, 12),
    "large": Shape(1024, 64, 16, 2816, 24),
    "xl": Shape(2048, 64, 32, 5120, 24),
    "xxl": Shape(4096, 64, 64, 10240, 24),
}


def main(
    shapes: Annotated[str, typer.Option(help="Shapes whose training steps and requests are measured.")] = "small,base",
    batch: Annotated[int, typer.Option(min=1, help="Texts of a measured step.")] = 4,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure what was not measured yet.")] = True,
    json_file: Annotated[Path, typer.Option("--json", help="Figures; the table lies beside them, as .md.")] = RESULTS,
    one: Annotated[str | None, typer.Option("--one", hidden=True)] = None,
) -> None:
    """Measure, compute, print and write the tables."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if one is not None:
        print(json.dumps(measured(*one.split(","), batch)))
        return
    record = json.loads(json_file.read_text("utf-8")) if json_file.exists() else {"measured": {}}
    names = [name for name in shapes.split(",") if name]
    if unknown := [name for name in names if name not in SHAPES]:
        raise ValueError(f"shape {unknown[0]!r} is not known; choose some of {', '.join(SHAPES)}")
    wanted = [f"{name},{training}" for name in names for training in TRAININGS] if measure else []
    for what in wanted:
        if what not in record["measured"]:
            command = [sys.executable, __file__, "--one", what, "--batch", str(batch)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            record["measured"][what] = json.loads(done.stdout.splitlines()[-1])
            _write(json_file, record)
    record["counted"] = {name: counted(shape) for name, shape in SHAPES.items()}
    record |= {"torch": torch.__version__, "command": "python benchmarks/encoders_flan.py"}
    _write(json_file, record)
    text = report(record)
    json_file.with_suffix(".md").write_text(text, "utf-8")
    print(text)


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    unfinished.replace(path)


def measured(name: str, training: str, batch: int) -> dict[str, float]:
    """Memory and time of two training steps and two requests of a model with random weights, in this process."""
    memory = PeakMemory()
    text = T5EncoderModel(SHAPES[name].config()).requires_grad_(training == "full")
    model = mender(training, text=text)
    inputs = {"attention_mask": torch.ones(batch, TOKENS, dtype=torch.long), "labels": random_labels(model, batch)}
    if training == "frozen":
        inputs["encoder_outputs"] = (torch.randn(batch, TOKENS, SHAPES[name].d_model),)
    else:
        inputs["input_ids"] = torch.randint(1, SHAPES[name].vocab_size, (batch, TOKENS))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found: dict[str, float] = {
        "batch": batch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained": sum(parameter.numel() for parameter in trained),
    }
    model.train()
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    for step in range(2):
        used = time.process_time()
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
        found["step_seconds"] = time.process_time() - used
        if step == 0:
            found["first_step_mb"] = memory.read()
    found["memory_mb"] = memory.read()
    optimizer.zero_grad()
    with stored_bytes(model) as kept, Calls() as calls:
        model(**inputs).loss.backward()
    found |= {"stored_mb": sum(kept.values()) / 2**20, "calls": calls.number}
    with stored_bytes(model) as kept, torch.autocast("cpu", torch.bfloat16):
        model(**inputs)
    found["stored_bfloat16_mb"] = sum(kept.values()) / 2**20
    model.eval()
    plain = getattr(model, "merge_and_unload", lambda: model)()
    asked = {"input_ids": torch.randint(1, SHAPES[name].vocab_size, (1, TOKENS))}
    asked["attention_mask"] = torch.ones_like(asked["input_ids"])
    for _ in range(2):
        used = time.process_time()
        items = plain.recommend(**asked, top_k=10, num_beams=BEAMS).item_indices
        found["request_seconds"] = time.process_time() - used
    found["items"] = len(set(items[0].tolist()))
    with torch.no_grad():
        used = time.process_time()
        plain.encoder(**asked)
    return found | {"request_encoder_seconds": time.process_time() - used}


@contextmanager
def stored_bytes(model: Any) -> Iterator[dict[int, int]]:
    """Bytes of every tensor that the forward pass keeps for the backward pass, parameters and their casts left out."""
    own = {each.untyped_storage()._cdata for each in [*model.parameters(), *model.buffers()]}
    shapes = {tuple(each.shape) for each in model.parameters() if each.dim() == 2}
    found: dict[int, int] = {}
    held = []  # as long as it lives, another tensor cannot have its address

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held.append(storage)
        is_cast = tuple(tensor.shape) in shapes or tuple(tensor.shape[::-1]) in shapes
        if storage._cdata not in own and not is_cast:
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


class Calls(TorchDispatchMode):
    """Counts calls of operations."""

    number = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        """Counts one and makes it."""
        self.number += 1
        return function(*arguments, **(named or {}))


def counted(shape: Shape) -> dict[str, int]:
    """Parameters, and bytes that a layer keeps of a token, of a model on the meta device."""
    found = {}
    with torch.device("meta"):
        found["parameters"] = sum(each.numel() for each in T5EncoderModel(shape.config()).parameters())
        inputs = torch.zeros(2, TOKENS, dtype=torch.long)
        kept = []
        for layers in (1, 2):
            model = T5EncoderModel(shape.config(layers)).train()
            with stored_bytes(model) as stored:
                model(input_ids=inputs)
            kept.append(sum(stored.values()))
    return found | {"layer_bytes_per_token": (kept[1] - kept[0]) // (2 * TOKENS)}


@dataclass(frozen=True)
class Rest:
    """What a model has beside its encoder, as measured: decoder, projection and head.

    Attributes:
        parameters: without the projection, all of them trained.
        stored: bytes that a text keeps until the backward pass.
        calls: of a training step, by training: of a step with an encoder without layers, and for each layer.
        share: bytes that activations take under bfloat16 autocast, as a share of those in float32.
    """

    parameters: int
    stored: float
    calls: dict[str, tuple[float, float]]
    share: float

    @classmethod
    def of(cls, found: dict[str, dict[str, float]]) -> Rest:
        """From measurements of small and base."""
        calls = {}
        for training in TRAININGS:
            few, many = (found[f"{name},{training}"]["calls"] for name in ("small", "base"))
            each = (many - few) / (SHAPES["base"].num_layers - SHAPES["small"].num_layers)
            calls[training] = (few - each * SHAPES["small"].num_layers, each)
        frozen = found["small,frozen"]
        return cls(
            int(frozen["trained"] - SHAPES["small"].d_model * WIDTH),
            max(found[f"{name},frozen"]["stored_mb"] for name in ("small", "base")) * 2**20 / frozen["batch"],
            calls,
            max(one["stored_bfloat16_mb"] / one["stored_mb"] for what, one in found.items() if what.endswith("full")),
        )


def trained(shape: Shape, training: str, rest: Rest) -> int:
    """Parameters that are trained."""
    own = {"frozen": 0, "lora": shape.adapters, "full": shape.parameters}[training]
    return own + rest.parameters + shape.d_model * WIDTH


def memory(shape: Shape, training: str, batch: int, tokens: int, rest: Rest, bfloat16: bool = True) -> float:
    """Bytes of a training step: weights, gradients, Adam's two moments, and activations.

    Under autocast, every matrix has a copy in bfloat16 until the backward pass is over.
    """
    new = trained(shape, training, rest)
    weights = shape.parameters + (new - shape.parameters if training == "full" else new)
    casts = 2 * shape.matrices if bfloat16 and training != "frozen" else 0
    kept = tokens * shape.activations(training, tokens) + rest.stored
    return 4 * weights + 12 * new + casts + batch * kept * (rest.share if bfloat16 else 1)


def seconds(shape: Shape, training: str, batch: int, tokens: int, rest: Rest) -> float:
    """Of a step of `BATCH` texts, `batch` at a time: what is more, computing or calling, and then the optimizer."""
    computing = 0.0 if training == "frozen" else BATCH * shape.operations(training, tokens) / (GPU_FLOPS * USED_FLOPS)
    first, each = rest.calls[training]
    calling = BATCH / batch * (first + each * shape.num_layers) * SECONDS_PER_CALL
    return max(computing, calling) + 28 * trained(shape, training, rest) / GPU_BANDWIDTH


def report(record: dict[str, Any]) -> str:
    """The page."""
    found = record["measured"]
    rest = Rest.of(found)
    checks = [
        ["", "parameters: formula", "counted", "activations, bytes a token and layer (full): formula", "counted"],
        *(
            [name, shape.parameters, record["counted"][name]["parameters"]]
            + [shape.activations("full", TOKENS) // shape.num_layers, record["counted"][name]["layer_bytes_per_token"]]
            for name, shape in SHAPES.items()
        ),
    ]
    steps = [["", "activations, MiB: formula", "measured", "memory, MiB: formula", "measured", "step, s", "request, s"]]
    steps[0] += ["of it the encoder, s"]
    for what, one in found.items():
        name, training = what.split(",")
        batch, shape = int(one["batch"]), SHAPES[name]
        kept = batch * (TOKENS * shape.activations(training, TOKENS) + rest.stored) / 2**20
        whole = memory(shape, training, batch, TOKENS, rest, bfloat16=False) / 2**20
        row = [what.replace(",", ", "), kept, one["stored_mb"], whole, one["memory_mb"]]
        times = (one[name] for name in ("step_seconds", "request_seconds", "request_encoder_seconds"))
        steps.append([*row, *(f"{each:.2f}" for each in times)])
    costs = [["", "trained", "texts at a time", "memory, GB", "hours, grouped", "hours, padded to 512", "states, GB"]]
    for name, shape in SHAPES.items():
        for training in TRAININGS:
            batch = fitting(shape, training, TOKENS, rest)
            row: list[Any] = [f"{name}, {training}", trained(shape, training, rest)]
            if batch == 0:
                costs.append([*row, "none", f"more than {GPU_BYTES / 1e9:.0f}", "", "", ""])
                continue
            hours = [f"{hours_of(shape, training, tokens, rest):.1f}" for tokens in (TOKENS, PADDED)]
            states = EXAMPLES * TOKENS * shape.d_model * 2 / 1e9 if training == "frozen" else ""
            costs.append([*row, batch, f"{memory(shape, training, batch, TOKENS, rest) / 1e9:.1f}", *hours, states])
    one = found["small,full"]
    return f"""# FLAN-T5 as the encoder of `mender-tok`

No GPU was available: hours are estimates, and no weights of FLAN-T5 were. What could be checked
with random weights of these shapes was checked below. The paper uses FLAN-T5 small with LoRA.

`python benchmarks/encoders_flan.py`; [encoders_flan.json](encoders_flan.json). Decoder of the paper
(6 layers, {rest.parameters:,} parameters), LoRA of rank {RANK} on the attention, texts of {TOKENS} tokens.

## On one H100 with 80 GB

{STEPS:,} steps of {BATCH} texts, as the paper trains on Beauty, under bfloat16 autocast with
float32 weights. "Texts at a time" is the largest power of two that leaves {1 - USED_MEMORY:.0%} of the memory free;
the rest of a batch is `gradient_accumulation_steps`. "Grouped" pads to the longest text of a batch,
as this library does; "padded to 512" is the paper's way. "States" are those of a frozen encoder on
disk in half precision, for the {EXAMPLES:,} training examples of the published Beauty benchmark.

{table(costs)}
Hours for frozen encoders include one pass over these examples. A frozen encoder trains at the speed
of the decoder, but its states need disk for every token of every text.

The formulas, with P parameters of the encoder, M of them in matrices, N trained ones, L layers,
d = d_model, a = heads x d_kv, f = d_ff, h heads, T tokens, B texts:

- P = M + (2 L + 1) d + 32 h + 32,128 d, where M = L (4 d a + 3 d f).
- Memory = 4 P + 4 N (what is not the encoder, and adapters) + 12 N (gradients, Adam) + 2 M (copies
  in bfloat16, not for frozen) + B T L A s. Fully trained, P is not counted a second time.
- A = 32 d + 16 a + 32 f + 12 h T + 8 bytes (full), or 20 d + 16 a + 28 f + 12 h T + {8 + 16 * RANK} (LoRA).
- s = {rest.share:.2f}, the measured share of float32's bytes that autocast keeps (on a CPU).
- A step = the larger of B (2 M T + 4 L T^2 a) x 2 (LoRA) or 3 (full) / ({USED_FLOPS} x 989e12 a second)
  and the number of calls x {SECONDS_PER_CALL * 1e6:.0f} microseconds; and 28 N bytes / 3.35e12 a second for the
  optimizer. A step of small, full makes {one["calls"]:,.0f} calls (counted). {USED_FLOPS} and
  {SECONDS_PER_CALL * 1e6:.0f} microseconds
  are assumptions; twice or half is possible.

Gradient checkpointing (`--train gradient_checkpointing=true`) replaces L A by A and about 4 L d, for a
third more computing. Rows without a batch need it, 8-bit Adam, or more than one GPU.

## Commands

Build a benchmark first ([reproduce](../../docs/reproduce.md)). `ENCODER` is google/flan-t5-small, -base,
-large, -xl or -xxl; B and 64/B are the texts at a time and the accumulation of the table:

```text
mender train --preset mender-tok --source beauty --data benchmark --encoder ENCODER \\
    --set encoder_training=frozen|lora|full --set max_length=256 --set patience=15 \\
    --set "decoder={{num_layers: 6, num_heads: 6, d_kv: 64, d_ff: 1024}}" \\
    --train max_steps=200000 --train learning_rate=3e-4 --train warmup_steps=10000 --train bf16=true \\
    --train per_device_train_batch_size=B --train gradient_accumulation_steps=64/B \\
    --train eval_strategy=steps --train eval_steps=2000 --train save_strategy=steps --train save_steps=2000
```

## Checked with random weights

{table(checks)}
Training steps and requests on one CPU thread in float32, {int(one["batch"])} texts a step, {BEAMS} beams;
processor time. "Memory" is the growth of the process's resident memory, model included. Activations are counted
where autograd stores them. All requests gave ten distinct items. The formula for memory leaves out
what a process needs besides: temporary results and libraries. With LoRA the difference is larger (a
quarter of the whole), of which the copy of the decoder that PEFT keeps explains 16 MiB; the rest is
not explained, so leave room.

The first command of [reproduce](../../docs/reproduce.md#4-train-and-compare) also ran from `mender train` to
its evaluation with a random encoder of the small shape, in the corner shop, for two steps.

{table(steps)}"""


def fitting(shape: Shape, training: str, tokens: int, rest: Rest) -> int:
    """The largest power of two, at most `BATCH`, of texts whose step fits into the GPU; 0 if none does."""
    sizes = [2**power for power in range(BATCH.bit_length())]
    fits = [size for size in sizes if memory(shape, training, size, tokens, rest) <= GPU_BYTES * USED_MEMORY]
    return max(fits, default=0)


def hours_of(shape: Shape, training: str, tokens: int, rest: Rest) -> float:
    """Of the whole training."""
    found = STEPS * seconds(shape, training, max(fitting(shape, training, tokens, rest), 1), tokens, rest)
    if training == "frozen":
        found += EXAMPLES * shape.operations("frozen", tokens) / (GPU_FLOPS * USED_FLOPS)
    return found / 3600


def table(rows: list[list[Any]]) -> str:
    """A Markdown table, the first row its head."""
    shown = [[cell if isinstance(cell, str) else f"{cell:,.0f}" for cell in row] for row in rows]
    shown.insert(1, ["---"] * len(shown[0]))
    return "".join("| " + " | ".join(row) + " |\n" for row in shown)


if __name__ == "__main__":
    run_script(main, __doc__)
