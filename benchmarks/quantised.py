"""What 8-bit weights change on a CPU: time of a request and the items it gives, for a saved model.

Dynamic int8 (`torch.ao.quantization.quantize_dynamic`) of the encoder and of the whole model, and bfloat16, beside
float32. All forms answer the same requests in turn; times are processor time of the process, relative to float32.

    python benchmarks/quantised.py outputs/quickstart/model
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from pathlib import Path

import torch
from measuring import write_rows
from torch import nn
from transformers import AutoModel, AutoProcessor

import modeling_mender  # noqa: F401  registers the classes

WISHES = ("tea with a malty brew", "a gift for someone who writes letters", "something soft for a baby's room")


def quantised(part: nn.Module) -> nn.Module:
    """A copy with linear layers in int8, activations quantised on the fly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(part), {nn.Linear}, torch.qint8)


def forms_of(model: nn.Module) -> dict[str, nn.Module]:
    """The model in each form."""
    encoder = copy.deepcopy(model)
    if getattr(model.encoder, "text_encoder", None) is not None:
        encoder.encoder.text_encoder = quantised(model.encoder.text_encoder)
    else:
        encoder.encoder = quantised(model.encoder)
    forms = {"float32": model, "int8 encoder": encoder, "int8": quantised(model)}
    forms["bfloat16"] = copy.deepcopy(model).bfloat16()
    return forms


def main() -> None:
    """Print one row for each form and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model with a generator")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    model, processor = AutoModel.from_pretrained(arguments.model), AutoProcessor.from_pretrained(arguments.model)
    forms, rows = forms_of(model.eval()), []
    titles = processor.titles
    wishes = [f"{WISHES[index % len(WISHES)]} like {titles[index % len(titles)]}" for index in range(256)]
    for batch in arguments.batches:
        histories = [processor.item_ids[index % 7 : index % 7 + 5] for index in range(batch)]
        inputs = processor(wishes[:batch], histories)
        times: dict[str, list[float]] = {name: [] for name in forms}
        for form in forms.values():
            form.recommend(**inputs)
        for _ in range(arguments.rounds):
            for name, form in forms.items():
                start = time.process_time()
                form.recommend(**inputs)
                times[name].append(time.process_time() - start)
        for name in forms:
            ratios = [one / other for one, other in zip(times[name], times["float32"], strict=True)]
            rows.append({"batch": batch, "form": name, "ms": 1e3 * statistics.median(times[name])})
            rows[-1]["ratio"] = statistics.median(ratios)
    histories = [processor.item_ids[index % 7 : index % 7 + 5] for index in range(len(wishes))]
    found = {}
    for name, form in forms.items():
        batches = (slice(low, low + 32) for low in range(0, len(wishes), 32))
        parts = [form.recommend(**processor(wishes[some], histories[some])).item_indices for some in batches]
        found[name] = torch.cat(parts)
    for row in rows:
        items, expected = found[row["form"]], found["float32"]
        row["overlap@10"] = (items[:, :, None] == expected[:, None]).any(-1).float().mean().item()
        row["same first"] = (items[:, 0] == expected[:, 0]).float().mean().item()
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    write_rows(rows, arguments.json)


if __name__ == "__main__":
    main()
