"""How weights of experts should be chosen from few requests: by ranking, by likelihood, or by the mean of both.

    python benchmarks/weights.py outputs/steam/mender-lite-seed0/model --source steam --data path/to/steam

Training chooses the weights of every kind of request on about 1,000 validation examples. Here all validation examples
are scored once; then as many as training takes are drawn, weights are chosen on these by each rule, and measured on the
others. Rules are compared on the same draws. A fourth rule for inferred requests takes the mean of their weights and of
those of silent requests. No test example is read. --json writes the figures to a file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from mender import Recommender
from mender.cli import options
from mender.data import load_benchmark_data
from mender.terminal import run_script
from modeling_mender.training.weights import (
    SHARES,
    as_log_probabilities,
    axis_and_stratum,
    best_weights,
    between,
    candidate_scores,
    fit_weights,
    likely_weights,
    mean_log_ndcg,
    validation_by_kind,
)
from preference_benchmark.hub.card import markdown_table

Rule = Callable[..., dict[str, float]]
RULES: dict[str, Rule] = {
    "best ranking": best_weights,
    "likelihood": likely_weights,
    "mean of both": fit_weights,
}
BASE = "best ranking"
EVERYTHING = 10**6


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
    rows, rules = [], dict(RULES)
    for kind, examples_of in validation_by_kind(validation, limit, seed=0).items():
        with torch.no_grad():
            scored = candidate_scores(shop.model, shop.processor, examples_of, not data.repeats)
        groups = axis_and_stratum(examples_of)
        fitted = round(SHARES[kind] * examples)
        if 2 * fitted > len(groups):
            print(f"{kind}: only {len(groups)} validation examples, left out", file=sys.stderr)
            continue
        own = rules if kind == "inferred" else RULES
        rows += [{"kind": kind, "fitted": fitted, **row} for row in measured(*scored, groups, fitted, draws, own)]
        if kind == "silent":
            drawn = np.random.default_rng(0).choice(len(groups), fitted, replace=False)
            rules["mean with silent"] = halfway(*chosen(drawn, *scored, groups))
    header = ["kind", "chosen on", "rule", "mean log NDCG@10", f"over {BASE}", "standard error"]
    cells = [
        [row["kind"], str(row["fitted"]), row["rule"], *(f"{row[name]:+.3f}" for name in ("value", "gain", "error"))]
        for row in rows
    ]
    print(markdown_table(header, cells))
    if json_file is not None:
        record = {"source": source, "draws": draws, "figures": rows}
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def measured(
    scores: dict[str, torch.Tensor],
    targets: torch.Tensor,
    seen: torch.Tensor,
    groups: list[tuple[str, str]],
    fitted: int,
    draws: int,
    rules: Mapping[str, Rule],
) -> list[dict[str, Any]]:
    """For each rule the mean objective on requests that the weights were not chosen on, and the gain over `BASE`."""
    axis = np.array([name for name, _ in groups])
    names = np.unique(axis)
    reached: dict[str, list[float]] = {rule: [] for rule in rules}
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        orders = [generator.permutation(np.flatnonzero(axis == name)) for name in names]
        # Of a small axis, half are left to measure on.
        kept = np.concatenate([order[: min(fitted // len(names), len(order) // 2)] for order in orders])
        rest = np.setdiff1d(np.arange(len(axis)), kept)
        own, (others, *asked) = (chosen(part, scores, targets, seen, groups) for part in (np.sort(kept), rest))
        for rule, choose in rules.items():
            weights = choose(*own)
            reached[rule].append(mean_log_ndcg(sum(weights[name] * others[name] for name in others), *asked))
    gains = {rule: np.subtract(values, reached[BASE]) for rule, values in reached.items()}
    return [
        {
            "rule": rule,
            "value": round(float(np.mean(values)), 4),
            "gain": round(float(gains[rule].mean()), 4),
            "error": round(float(gains[rule].std(ddof=1) / np.sqrt(draws)), 4),
        }
        for rule, values in reached.items()
    ]


def chosen(rows: np.ndarray, scores: dict[str, torch.Tensor], *columns: Any) -> tuple[Any, ...]:
    """Some requests of scores, targets, items to leave out and groups."""
    *tensors, groups = columns
    picked = ({name: values[rows] for name, values in scores.items()}, *(part[rows] for part in tensors))
    return *picked, [groups[row] for row in rows]


def halfway(*silent: Any) -> Rule:
    """The rule that takes the mean of a request's weights and of those of silent requests."""
    own = as_log_probabilities(fit_weights(*silent), *silent)

    def choose(*asked: Any) -> dict[str, float]:
        return between(own, as_log_probabilities(fit_weights(*asked), *asked))

    return choose


if __name__ == "__main__":
    run_script(main, __doc__)
