"""How far `fit` can be trusted: the probability that a model gives to wishes that some item fulfils, or none.

    python benchmarks/fit.py --model outputs/steam/mender-lite-seed0/model --source steam --data path/to/steam
    python benchmarks/fit.py --model outputs/office/mender-lite-seed0/model --source table --data path/to/office \
        --min-user 3 --min-item 1 --json benchmarks/results/fit/office.json

Fulfilled are the open wishes of the test split, whose wordings are new to the model. Not fulfilled are everyday things
that no item mentions, in new wordings, invented words and keys pressed at random (fit_requests.yaml); nothing of these
was used to fit the probability. Half of the weight is on fulfilled wishes, .3 on things, .1 on each kind of nonsense.

AUC is the probability that a fulfilled wish has a higher fit than one that is not. The calibration error is the mean
distance between fit and share of fulfilled wishes, over ten bins of equal width.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from measuring import write_rows
from rich.console import Console
from rich.table import Table

REQUESTS = Path(__file__).with_name("fit_requests.yaml")
SHARES = {"things": 0.6, "invented words": 0.2, "random keys": 0.2}
"""Weight of each kind among the requests that nothing fits."""
NONSENSE = 200
BATCH, BINS, SHOWN = 32, 10, 8


def main() -> None:
    """Ask a model for its fit, print figures and the worst mistakes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a saved model")
    parser.add_argument("--source", required=True)
    parser.add_argument("--data", type=Path, help="raw files, or a folder with built benchmarks")
    parser.add_argument("--min-user", type=int)
    parser.add_argument("--min-item", type=int)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    from mender.data import load_benchmark_data
    from mender.saved_models import load_saved

    changes = {name: getattr(arguments, name) for name in ("min_user", "min_item")}
    changes = {name: value for name, value in changes.items() if value is not None}
    data = load_benchmark_data(arguments.source, arguments.data, **changes)
    model, processor = load_saved(arguments.model)
    groups = fulfilled_wishes(data) | other_requests(model, processor)
    fits = {name: fit_of(model, processor, texts) for name, texts in groups.items()}
    rows = figures(fits)
    console = Console(width=110)
    console.print(table_of(rows))
    print_mistakes(console, groups, fits)
    write_rows(rows, arguments.json)


def fulfilled_wishes(data: Any) -> dict[str, list[str]]:
    """Open wishes of the test split by stratum."""
    examples = next(iter(data.examples.values()))["test"]
    examples = examples.select(np.flatnonzero(np.array(examples["axis"][:]) == "open_wishes"))
    found: dict[str, list[str]] = {}
    for stratum, texts in zip(examples["stratum"][:], examples["preferences"][:], strict=True):
        found.setdefault(stratum, []).append(" ".join(texts))
    return dict(sorted(found.items()))


def other_requests(model: Any, processor: Any, seed: int = 0) -> dict[str, list[str]]:
    """Requests that nothing in the catalogue fits, by kind: every thing in every wording, and nonsense."""
    from modeling_mender.training.fit_probability import absent_things

    settings = yaml.safe_load(REQUESTS.read_text("utf-8"))
    generator = np.random.default_rng(seed)
    things = absent_things(model, processor, settings["things"])

    def joined(parts: list[str], fewest: int, most: int) -> str:
        return "".join(generator.choice(parts, generator.integers(fewest, most)))

    words = [
        " ".join(joined(settings["syllables"], 2, 4) for _ in range(generator.integers(1, 6))) for _ in range(NONSENSE)
    ]
    return {
        "things": [template.format(thing) for template in settings["templates"] for thing in things],
        "invented words": words,
        "random keys": [joined(settings["keys"], 1, 4) for _ in range(NONSENSE)],
    }


@torch.no_grad()
def fit_of(model: Any, processor: Any, texts: list[str]) -> np.ndarray:
    """The fit of preferences without a history."""
    parts = []
    for start in range(0, len(texts), BATCH):
        inputs = processor([[text] for text in texts[start : start + BATCH]]).to(model.device)
        parts.append(model.recommend(**inputs, top_k=1, fit=True).fit.cpu())
    return torch.cat(parts).numpy()


def figures(fits: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row for all requests, and one per group with its mean fit and the share of fits of at least .5.

    Args:
        fits: fits by group; groups in `SHARES` are not fulfilled, all others are.
    """
    others = {name: fits[name] for name in SHARES}
    wishes = np.concatenate([values for name, values in fits.items() if name not in SHARES])
    values = np.concatenate([wishes, *others.values()])
    labels = np.concatenate([np.ones(len(wishes)), np.zeros(len(values) - len(wishes))])
    weights = [np.full(len(wishes), 1 / len(wishes))]
    weights += [np.full(len(own), SHARES[name] / len(own)) for name, own in others.items()]
    total = {
        "group": "all",
        "requests": len(values),
        "auc": sum(SHARES[name] * auc(wishes, own) for name, own in others.items()),
        "auc/things": auc(wishes, others["things"]),
        "calibration_error": calibration_error(values, labels, np.concatenate(weights)),
    }
    rows = [
        {"group": name, "requests": len(own), "mean_fit": float(own.mean()), "fit>=.5": float((own >= 0.5).mean())}
        for name, own in fits.items()
    ]
    return [total, *rows]


def auc(higher: np.ndarray, lower: np.ndarray) -> float:
    """Share of pairs in which the first value is higher; equal values count half.

    >>> auc(np.array([0.9, 0.5]), np.array([0.1, 0.5]))
    0.875
    """
    lower = np.sort(lower)
    places = np.searchsorted(lower, higher, "left") + np.searchsorted(lower, higher, "right")
    return float(places.mean() / (2 * len(lower)))


def calibration_error(fits: np.ndarray, labels: np.ndarray, weights: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Naeini et al. 2015) with weights.

    >>> round(calibration_error(np.array([0.7, 0.7, 0.2]), np.array([1, 0, 0]), np.ones(3)), 3)
    0.2
    """
    weights = weights / weights.sum()
    place = np.minimum((fits * bins).astype(int), bins - 1)
    expected, found = (np.bincount(place, weights * values, minlength=bins) for values in (fits, labels))
    return float(np.abs(expected - found).sum())


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Figures of all requests in the title, groups in rows."""
    total, *groups = rows
    shown = {"AUC": "auc", "of things": "auc/things", "calibration error": "calibration_error"}
    table = Table(title=", ".join(f"{label} {total[name]:.3f}" for label, name in shown.items()))
    for name in groups[0]:
        table.add_column(name, justify="left" if name == "group" else "right")
    for row in groups:
        table.add_row(row["group"], str(row["requests"]), f"{row['mean_fit']:.2f}", f"{row['fit>=.5']:.2f}")
    return table


def print_mistakes(console: Console, groups: dict[str, list[str]], fits: dict[str, np.ndarray]) -> None:
    """Wishes with the lowest fit, and things with the highest."""
    flat = [(fit, text) for name in groups for fit, text in zip(fits[name], groups[name], strict=True)]
    wishes = flat[: sum(len(texts) for name, texts in groups.items() if name not in SHARES)]
    things = list(zip(fits["things"], groups["things"], strict=True))
    for label, worst in (
        ("fulfilled, lowest fit", sorted(wishes)[:SHOWN]),
        ("absent, highest fit", sorted(things, reverse=True)[:SHOWN]),
    ):
        console.print(f"\n{label}", style="bold")
        for fit, text in worst:
            console.print(f"  {fit:.2f}  {text}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
