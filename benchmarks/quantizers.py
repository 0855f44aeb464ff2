"""Semantic-ID quantizers: how long until how good?

Residual k-means (at three widths), the RQ-VAE, and the RQ-VAE recipe of the literature (random start, gradients only),
interleaved over seeds in one process; collisions, reconstruction error, and the time each needs to reach what the
default, `ResidualKMeans()`, gives. Without `--data` the embeddings are synthetic.

    python benchmarks/quantizers.py --data FOLDER --source sequences --json quantizers.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.utils import logging

from modeling_mender.semantic_ids.residual_kmeans import Quantizer, ResidualKMeans, choose_codes, reconstruction_error
from modeling_mender.semantic_ids.residual_quantisation import assign, fit_codebooks
from modeling_mender.semantic_ids.rq_vae import RqVae
from modeling_mender.semantic_ids.tie_breaking import report
from preference_benchmark.embedding import TextEmbedder
from preference_benchmark.sources import SOURCES, read_source

DEFAULT = "residual_kmeans"
BAR_SECONDS = 120.0
COLUMNS = (
    ("method", "method", "{:<24}"),
    ("fit_s", "fit s", "{:>18}"),
    ("variance_lost", "variance lost %", "{:>18}"),
    ("collision_rate", "collisions %", "{:>18}"),
    ("spread_collision_rate", "spread %", "{:>18}"),
    ("first_level_used", "1st codes", "{:>10}"),
    ("seconds_to_default_collisions", "s to its collisions", "{:>20}"),
    ("seconds_to_default_error", "s to its error", "{:>15}"),
)


def main() -> None:
    """Run every method on the same embeddings and print the table."""
    arguments = _arguments()
    embeddings, source = _embeddings(arguments)
    items, width = embeddings.shape
    print(f"{items:,} embeddings of width {width} from {source}; {torch.get_num_threads()} threads\n")
    methods = _methods(embeddings, arguments)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    logging.disable_progress_bar()
    with tqdm(total=len(methods) * arguments.seeds, desc="quantizers", unit="fit", leave=False) as bar:
        for seed in range(arguments.seeds):
            for name, method in methods.items():
                bar.set_postfix_str(name)
                runs[name].append(method(seed))
                bar.update()
    rows = [_row(name, runs[name], runs[DEFAULT]) for name in methods]
    facts = {"items": items, "width": width, "data": source, "threads": torch.get_num_threads()}
    for row in rows:
        row |= facts
    print(_table(rows))
    print(_verdict(rows))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of a public data set; its item texts are embedded with MiniLM")
    parser.add_argument("--source", default="sequences", choices=sorted(set(SOURCES) - {"corner-shop"}))
    parser.add_argument("--items", type=int, default=12_000, help="items, at most (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of the literature's recipe (default: 60)")
    parser.add_argument("--quick", action="store_true", help="only residual_kmeans and rq_vae")
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    arguments = parser.parse_args()
    if arguments.items < 100 or arguments.seeds < 1:
        parser.error("--items must be >= 100 and --seeds >= 1")
    return arguments


def _embeddings(arguments: argparse.Namespace) -> tuple[Tensor, str]:
    """The embeddings, and in words where they are from."""
    if not arguments.data:
        return synthetic_embeddings(arguments.items), "synthetic clusters"
    texts = read_source(arguments.source, arguments.data).items["text"].head(arguments.items).to_list()
    return torch.from_numpy(TextEmbedder().encode(texts)), f"MiniLM on {arguments.source} item texts"


def synthetic_embeddings(items: int, width: int = 384, seed: int = 0) -> Tensor:
    """Unit vectors of a catalogue: a tree of categories of very different sizes, with a falling spectrum.

    Shape: (items, width).
    """
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, width + 1).float().pow(-0.4)
    vectors, node = torch.zeros(items, width), torch.zeros(items, dtype=torch.int64)
    for children, weight in ((40, 1.0), (20, 0.8), (10, 0.6)):
        popularity = torch.arange(1, children + 1).float().pow(-0.5)
        node = node * children + torch.multinomial(popularity, items, replacement=True, generator=generator)
        distinct, place = node.unique(return_inverse=True)
        vectors += weight * (torch.randn(len(distinct), width, generator=generator) * spectrum)[place]
    return F.normalize(vectors + 0.8 * torch.randn(items, width, generator=generator) * spectrum)


def _methods(embeddings: Tensor, arguments: argparse.Namespace) -> dict[str, Callable[[int], dict[str, float]]]:
    """Every method as a function from a seed to its figures."""
    codes = choose_codes(len(embeddings))

    def k_means(components: int | None) -> Callable[[int], dict[str, float]]:
        def run(seed: int) -> dict[str, float]:
            start = time.perf_counter()
            fitted = ResidualKMeans(codes=codes, components=components, seed=seed).fit(embeddings)
            return _final_figures(fitted, embeddings, time.perf_counter() - start)

        return run

    def rq_vae(latent_width: int) -> Callable[[int], dict[str, float]]:
        def run(seed: int) -> dict[str, float]:
            torch.manual_seed(seed)
            model, watch = RqVae.for_embeddings(embeddings, codes=codes, latent_width=latent_width), _Watch(embeddings)
            model.fit(embeddings, seed=seed, on_epoch=lambda model, _: watch.look(model))
            return _final_figures(model, embeddings, watch.seconds()) | {"looks": watch.looks}

        return run

    methods = {DEFAULT: k_means(128), "rq_vae": rq_vae(64)}
    if not arguments.quick:
        methods |= {
            "residual_kmeans_full": k_means(None),
            "residual_kmeans_64": k_means(64),
            "rq_vae_128": rq_vae(128),
            "rq_vae_literature": lambda seed: _literature(embeddings, codes, seed, arguments.budget),
        }
    return methods


class _Watch:
    """A stopwatch that stands still while the quantizer is measured."""

    def __init__(self, embeddings: Tensor):
        self.embeddings, self.looks = embeddings, []
        self.start, self.paused = time.perf_counter(), 0.0

    def seconds(self) -> float:
        return time.perf_counter() - self.start - self.paused

    def look(self, quantizer: Quantizer) -> None:
        began, seconds = time.perf_counter(), self.seconds()
        self.looks.append(_figures(quantizer, self.embeddings, seconds))
        self.paused += time.perf_counter() - began


def _figures(quantizer: Quantizer, embeddings: Tensor, seconds: float) -> dict[str, Any]:
    measured = report(quantizer.encode(embeddings), quantizer.codebook_sizes)
    return {
        "fit_s": seconds,
        "variance_lost": 100 * reconstruction_error(quantizer, embeddings),
        "collision_rate": 100 * measured.collision_rate,
        "first_level_used": measured.codes_used[0],
        "largest_tie": measured.largest_tie,
    }


def _final_figures(quantizer: Quantizer, embeddings: Tensor, seconds: float) -> dict[str, Any]:
    spread = report(quantizer.encode(embeddings, spread=True), quantizer.codebook_sizes)
    return _figures(quantizer, embeddings, seconds) | {"spread_collision_rate": 100 * spread.collision_rate}


def _literature(embeddings: Tensor, codes: int, seed: int, budget: float) -> dict[str, float]:
    """The usual recipe: random networks, k-means on their first latents, everything by gradients.

    MLP 512-256 with layer norm and dropout, latent 128, 3 levels, beta 0.25, AdamW with learning rate 1e-3 and weight
    decay 0.1, batches of 2048 (Paischer et al. 2025, arXiv:2412.08604).
    """
    torch.manual_seed(seed)
    standard = (embeddings - embeddings.mean(0)) / embeddings.std(0).clamp(min=1e-5)

    def network(*widths: int) -> nn.Sequential:
        hidden = [
            layer
            for before, after in zip(widths[:-2], widths[1:-1], strict=True)
            for layer in (nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU(), nn.Dropout(0.1))
        ]
        return nn.Sequential(*hidden, nn.Linear(widths[-2], widths[-1]))

    width, start = embeddings.shape[1], time.perf_counter()
    encoder, decoder = network(width, 512, 256, 128), network(128, 256, 512, width)
    with torch.no_grad():
        books = nn.Parameter(fit_codebooks(encoder.eval()(standard), 3, codes, seed=seed))
    parameters = [*encoder.parameters(), *decoder.parameters(), books]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1)
    encoder.train()
    while time.perf_counter() - start < budget:
        for batch in standard[torch.randperm(len(standard))].split(2048):
            latent = encoder(batch)
            picked = assign(latent.detach(), books.detach())
            residual, chosen, loss = latent, torch.zeros_like(latent), 0.0
            for book, code in zip(books, picked.unbind(dim=1), strict=True):
                centroid = book[code]
                loss = loss + F.mse_loss(centroid, residual.detach()) + 0.25 * F.mse_loss(residual, centroid.detach())
                residual, chosen = residual - centroid.detach(), chosen + centroid
            loss = loss + F.mse_loss(decoder(latent + (chosen - latent).detach()), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        picked = assign(encoder.eval()(standard), books)
        output = decoder.eval()(sum(book[code] for book, code in zip(books, picked.unbind(dim=1), strict=True)))
    measured, scale = report(picked, [codes] * 3), embeddings.std(0).clamp(min=1e-5)
    lost = ((output - standard) * scale).square().sum() / ((embeddings - embeddings.mean(0)).square().sum())
    return {
        "fit_s": seconds,
        "variance_lost": 100 * float(lost),
        "collision_rate": 100 * measured.collision_rate,
        "first_level_used": measured.codes_used[0],
        "largest_tie": measured.largest_tie,
    }


def _row(name: str, runs: list[dict[str, Any]], default: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, lowest and highest of every figure, and the time to equal the default at the same seed."""
    row: dict[str, Any] = {"method": name, "n": len(runs)}
    for figure in (
        "fit_s",
        "variance_lost",
        "collision_rate",
        "spread_collision_rate",
        "first_level_used",
        "largest_tie",
    ):
        values = [run[figure] for run in runs if figure in run]
        if values:
            row |= {figure: float(np.median(values)), f"{figure}_low": min(values), f"{figure}_high": max(values)}
    goals = {
        "seconds_to_default_collisions": "collision_rate",
        "seconds_to_default_error": "variance_lost",
    }
    for key, figure in goals.items():
        waits = [
            next((look["fit_s"] for look in run.get("looks", [run]) if look[figure] <= goal[figure]), float("inf"))
            for run, goal in zip(runs, default, strict=True)
        ]
        median = float(np.median(waits))
        row[key] = median if np.isfinite(median) else None
    return row


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["".join(shape.format(title) for _, title, shape in COLUMNS)]
    for row in rows:
        cells = []
        for key, _, shape in COLUMNS:
            value = row.get(key)
            text = "-" if value is None else value if isinstance(value, str) else f"{value:.1f}"
            if f"{key}_low" in row and row["n"] > 1:
                text += f" ({row[f'{key}_low']:.1f}-{row[f'{key}_high']:.1f})"
            cells.append(shape.format(text if key != "first_level_used" else text.split(".")[0]))
        lines.append("".join(cells))
    return "\n".join(lines)


def _verdict(rows: list[dict[str, Any]]) -> str:
    by_name = {row["method"]: row for row in rows}
    k_means, rq_vae = by_name[DEFAULT], by_name["rq_vae"]
    wait = rq_vae["seconds_to_default_collisions"]
    reached = wait is not None and wait <= BAR_SECONDS
    found = f"after {wait:.1f} s" if reached else f"not within {BAR_SECONDS:.0f} s"
    return (
        f"\nrq_vae reaches the collision rate of {DEFAULT} ({k_means['collision_rate']:.1f} %) {found}. "
        f"{DEFAULT} stays the default: it is fitted in {k_means['fit_s']:.1f} s against {rq_vae['fit_s']:.1f} s; "
        f"rq_vae loses {rq_vae['variance_lost']:.1f} % of the variance against {k_means['variance_lost']:.1f} %."
    )


if __name__ == "__main__":
    main()
