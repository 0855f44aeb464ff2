"""How weights of experts should be chosen from few requests: by ranking, by likelihood, or by a mean of both.

    python benchmarks/weights.py outputs/steam/mender-lite-seed0/model --source steam --data path/to/steam

Training chooses the weights of every kind of request on about 1,000 validation examples. Here all validation examples
are scored once. For each draw, weights are chosen by each rule on as many requests of half of the users as training
takes, and measured on the requests of the other half. Rules are compared on the same draws. One more rule for inferred
requests takes the mean of their weights and of those of silent requests. No test example is read. --json writes the
figures to a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from mender import Recommender
from mender.cli import options
from mender.data import load_benchmark_data
from mender.terminal import run_script
from modeling_mender.training.scored_requests import SHARES, ScoredRequests, score_requests, validation_by_kind
from modeling_mender.training.weights import (
    as_log_probabilities,
    best_weights,
    fit_weights,
    likely_weights,
    mean_with_silent,
)
from preference_benchmark.hub.card import markdown_table

SAMPLES = 5


def of_samples(requests: ScoredRequests) -> dict[str, float]:
    """Like `fit_weights`, with the mean of the best rankings of several samples of the requests, with replacement."""
    generator, likely = np.random.default_rng(0), likely_weights(requests)
    count = len(requests.targets)
    samples = [requests.rows(np.sort(generator.integers(0, count, count))) for _ in range(SAMPLES)]
    found = [(likely, 1.0), *((best_weights(sample, [likely]), 1 / SAMPLES) for sample in samples)]
    mean = dict.fromkeys(likely, 0.0)
    for weights, share in found:
        whole = sum(weights[name] * requests.spread[name] for name in weights)
        mean = {name: value + share * weights[name] / whole for name, value in mean.items()}
    return mean


RULES: dict[str, Callable[[ScoredRequests], dict[str, float]]] = {
    "best ranking": best_weights,
    "likelihood": likely_weights,
    "mean of both": fit_weights,
    "mean, five samples": of_samples,
}
BASE, TODAY = "best ranking", "mean of both"
EVERYTHING = 10**6


@dataclass(frozen=True)
class Asked:
    """Requests of a kind, and the user of each.

    Attributes:
        requests: M of them.
        users: Shape: (M,).
    """

    requests: ScoredRequests
    users: np.ndarray

    def sample(self, rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        """About `count` of some requests, as many of each axis as of any other."""
        axis = np.array([axis for axis, _ in self.requests.groups])[rows]
        names = np.unique(axis)
        parts = [generator.permutation(rows[axis == name])[: max(1, count // len(names))] for name in names]
        return np.sort(np.concatenate(parts))


@options.grouped
def main(
    model: Annotated[str, typer.Argument(help="Folder of a saved model that has experts.")],
    tables: options.TableOptions,
    source: options.Source = "corner-shop",
    encoder: options.Encoder = None,
    examples: Annotated[int, typer.Option(min=10, help="Validation examples that the weights are chosen on.")] = 1000,
    draws: Annotated[int, typer.Option(min=2, help="Times that they are drawn.")] = 10,
    limit: Annotated[int, typer.Option(min=10, help="Validation examples to score, at most.")] = EVERYTHING,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
) -> None:
    """Choose, measure and print."""
    shop = Recommender.from_pretrained(model)
    data = load_benchmark_data(source, tables.data, encoder, **tables.changes)
    validation = data.matched({"oracle": 1.0, "last": 1.0})["validation"]
    by_kind = {}
    for kind, asked in validation_by_kind(validation, limit, seed=0).items():
        with torch.no_grad():
            scored = score_requests(shop.model, shop.processor, asked, not data.repeats)
        by_kind[kind] = Asked(scored, np.array(asked["user_id"]))
    rows = measured(by_kind, examples, draws)
    header = ["kind", "chosen on", "rule", "mean log NDCG@10", f"over {BASE}", "standard error"]
    cells = [
        [row["kind"], str(row["fitted"]), row["rule"], *(f"{row[name]:+.3f}" for name in ("value", "gain", "error"))]
        for row in rows
    ]
    print(markdown_table(header, cells))
    if json_file is not None:
        record = {"source": source, "draws": draws, "figures": rows}
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def measured(by_kind: Mapping[str, Asked], examples: int, draws: int) -> list[dict[str, Any]]:
    """For each kind and rule the mean objective on users that the weights were not chosen on, and the gain over `BASE`.

    Args:
        by_kind: "silent" before "inferred".
        examples: requests of all kinds that weights are chosen on.
        draws: times that the users are divided.
    """
    users = np.unique(np.concatenate([own.users for own in by_kind.values()]))
    reached: dict[tuple[str, str], list[float]] = {}
    fitted = {}
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        half = generator.choice(users, len(users) // 2, replace=False)
        silent = {}
        for kind, own in by_kind.items():
            mine = np.isin(own.users, half)
            kept = own.sample(np.flatnonzero(mine), round(SHARES[kind] * examples), generator)
            fitted[kind] = len(kept)
            shown, others = own.requests.rows(kept), own.requests.rows(np.flatnonzero(~mine))
            found = {rule: choose(shown) for rule, choose in RULES.items()}
            weights = as_log_probabilities(found[TODAY], shown)
            if kind == "silent":
                silent = weights
            if kind == "inferred":
                found["mean with silent"] = mean_with_silent(silent, weights)
            for rule, weights in found.items():
                reached.setdefault((kind, rule), []).append(others.reached(weights))
    rows = []
    for (kind, rule), values in reached.items():
        gains = np.subtract(values, reached[kind, BASE])
        figures = {"value": np.mean(values), "gain": gains.mean(), "error": gains.std(ddof=1) / np.sqrt(draws)}
        rounded = {name: round(float(value), 4) for name, value in figures.items()}
        rows.append({"kind": kind, "fitted": fitted[kind], "rule": rule, **rounded})
    return rows


if __name__ == "__main__":
    run_script(main, __doc__)
