"""Published numbers: TIGER on Beauty while it trains, what an epoch of it costs, and Office Products.

    python benchmarks/comparisons.py beauty --data path/to/data       # trains tiger-causal, or goes on with it
    python benchmarks/published.py --run outputs/comparisons/beauty/tiger-causal-seed0   # keeps its curve so far
    python benchmarks/published.py --model outputs/comparisons/beauty/tiger-causal-seed0/model --data path/to/beauty
    python benchmarks/published.py --cost path/to/beauty --rounds 12  # processor time of an epoch, before and after
    python benchmarks/published.py                                    # tables and picture of what is kept

The page is benchmarks/results/published.md; this writes results/beauty/tiger_*.json and tiger_curve.png, and prints the
tables. The curve is validation; --model asks all test users once, when training is over.

The extrapolation is a straight line of recall@10 over the logarithm of epochs, through the latest half of the curve.
How far it can be trusted is shown by the same lines with one of its points left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import evaluate
import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from transformers import T5Config, T5EncoderModel

from mender.data import load_benchmark_data
from mender.evaluation import metric_folder
from mender.recommender import Recommender
from mender.report import interval, number, save_figure
from mender.runs import provenance, read_run
from mender.terminal import UserError, run_script
from modeling_mender import MenderForGenerativeRetrieval, SemanticIdCatalogue, load_preset
from modeling_mender.left_to_right import LeftToRightEncoder
from modeling_mender.training.batches import length_grouped_order
from modeling_mender.training.data import first_targets, select_axes
from modeling_mender.training.ranking import rank_examples
from modeling_mender.training.trainer import STATE_FILE, last_checkpoint
from preference_benchmark import read_tables, recipe
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.stages import write_atomically

RESULTS = Path(__file__).parent / "results"
BEAUTY = RESULTS / "beauty"
PUBLISHED = {
    "TIGER paper": (0.0454, 0.0321, 0.0648, 0.0384),
    "TIGER, recipe of Mender's authors, in cornac": (0.0419, 0.0270, 0.0634, 0.0338),
    "the same, IDs by residual k-means": (0.0404, 0.0259, 0.0641, 0.0335),
    "SASRec, tuned, in cornac": (0.0508, 0.0348, 0.0740, 0.0423),
}
"""On Beauty: recall@5, NDCG@5, recall@10, NDCG@10."""
GOAL, SASREC = PUBLISHED["TIGER, recipe of Mender's authors, in cornac"][2], PUBLISHED["SASRec, tuned, in cornac"][2]
OFFICE = {"MiniOneRec": 0.163, "TIGER": 0.141, "SASRec": 0.112}
"""HR@10 on Office Products, as MiniOneRec's authors publish it."""
SIZES, SPECIAL = [256, 256, 256, 256], 3
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")

Batches = Iterator[tuple[dict[str, torch.Tensor], int]]


def main(
    run: Annotated[Path | None, typer.Option(help="Folder of a run on Beauty; its curve is kept.")] = None,
    model: Annotated[Path | None, typer.Option(help="Trained model to ask all test users.")] = None,
    data: Annotated[Path | None, typer.Option(help="Raw files of Beauty, for --model.")] = None,
    cost: Annotated[Path | None, typer.Option(help="Raw files of Beauty; measures the cost of an epoch.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each way to train.")] = 12,
) -> None:
    """Keep what is asked for, then write tables and picture of all that is kept."""
    torch.set_num_threads(1)
    if run is not None:
        keep("tiger_curve", {"run": run.name, "epochs": curve_of(run)})
    if cost is not None:
        keep("tiger_cost", measure_cost(cost, rounds))
    if model is not None:
        if data is None:
            raise UserError("--model asks test users; pass --data with the raw files of Beauty")
        keep("tiger_test", test_figures(model, data))
    curve = kept("tiger_curve").get("epochs", [])
    for title, table in (
        ("Beauty, test", beauty_table()),
        ("An epoch", cost_table(kept("tiger_cost"))),
        ("Validation", curve_table(curve)),
        ("Extrapolation", extrapolation_table(curve)),
        ("Office Products", office_table(RESULTS / "runs" / "office_products")),
    ):
        print(f"\n{title}\n\n{table}")
    if curve:
        draw(curve, sasrec_curve(), BEAUTY / "tiger_curve.png")


def keep(name: str, record: dict[str, Any]) -> None:
    """Write a record of results/beauty, with where it comes from."""
    text = json.dumps({**provenance(0), **record}, indent=1) + "\n"
    write_atomically(BEAUTY / f"{name}.json", text.encode())


def kept(name: str) -> dict[str, Any]:
    """A record of results/beauty; empty if it is not there yet."""
    file = BEAUTY / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


# The curve


def curve_of(run: Path) -> list[dict[str, float]]:
    """Validation of every finished epoch of a run, from its results or else its newest checkpoint.

    Raises:
        ValueError: if it has no finished epoch.
    """
    if (run / "five_axes.json").exists():
        history = read_run(run)["settings"]["training"]["curve"]
    else:
        history = json.loads((last_checkpoint(run / "checkpoints") / STATE_FILE).read_text("utf-8"))["log_history"]
    return by_epoch(history)


def by_epoch(history: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Losses and validation of every epoch from the Trainer's log.

    >>> by_epoch([{"epoch": 1.0, "loss": 3.0}, {"epoch": 1.0, "eval_recall@10": 0.1, "eval_loss": 2.0}])
    [{'epoch': 1.0, 'loss': 3.0, 'eval_recall@10': 0.1, 'eval_loss': 2.0}]
    """
    epochs: dict[float, dict[str, float]] = {}
    for entry in history:
        names = ("loss", "eval_loss", "eval_recall@10", "eval_ndcg@10", "eval_n")
        epochs.setdefault(entry["epoch"], {"epoch": entry["epoch"]}).update(
            {name: value for name, value in entry.items() if name in names}
        )
    return [epoch for epoch in epochs.values() if "eval_recall@10" in epoch]


def sasrec_curve() -> list[dict[str, float]]:
    """The curve of the project's SASRec on Beauty."""
    return by_epoch(kept("sasrec")["settings"]["training"]["curve"])


def line(epochs: Sequence[float], recalls: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of recall over the logarithm of epochs, by least squares.

    >>> [round(value, 3) for value in line([1, np.e, np.e**2], [0.01, 0.02, 0.03])]
    [0.01, 0.01]
    """
    slope, start = np.polyfit(np.log(epochs), recalls, 1)
    return float(slope), float(start)


def latest_half(curve: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The epochs that the extrapolation is fitted to, at least three."""
    return list(curve[-max(3, -(-len(curve) // 2)) :])


def epochs_until(goal: float, points: Sequence[dict[str, float]]) -> float:
    """Epochs after which the line through these points reaches a recall; infinite if it does not rise.

    >>> points = [{"epoch": 1.0, "eval_recall@10": 0.01}, {"epoch": 10.0, "eval_recall@10": 0.02}]
    >>> round(epochs_until(0.03, points))
    100
    """
    slope, start = line([point["epoch"] for point in points], [point["eval_recall@10"] for point in points])
    return float(np.exp((goal - start) / slope)) if slope > 0 else float("inf")


def spread(goal: float, points: Sequence[dict[str, float]]) -> list[float]:
    """Epochs until a recall by the lines that leave one point out, in ascending order."""
    return sorted(epochs_until(goal, [*points[:left], *points[left + 1 :]]) for left in range(len(points)))


# The cost of an epoch


def measure_cost(folder: Path, rounds: int) -> dict[str, Any]:
    """Processor time of an epoch on Beauty by way to train, from steps of each in turn.

    A round of a way are steps with 250 targets together or more, forward, backward, clipping and AdamW, in batches of
    the lengths that Beauty has.
    """
    purchases = read_tables(recipe("sequences", data=folder)).interactions.group_by("user_id").len()["len"].to_numpy()
    # The last two items of a user are kept for validation and test, and the first is no target.
    trained = np.minimum(purchases.astype(np.int64), load_preset("tiger").max_history) - 2
    ways = {
        "tiger, 64 examples (the preset)": (training_step("tiger"), examples_of(trained, 64)),
        "tiger, 256 examples": (training_step("tiger"), examples_of(trained, 256)),
        "tiger-causal, 16 users (the preset)": (training_step("tiger-causal"), users_of(trained, 16)),
        "tiger-causal, 32 users": (training_step("tiger-causal"), users_of(trained, 32)),
        "tiger-causal, 32 users, no dropout": (training_step("tiger-causal", 0.0), users_of(trained, 32)),
    }
    targets, seconds = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
    for turn in range(rounds + 1):  # the first warms up
        for name, (step, batches) in ways.items():
            start, done = time.process_time(), 0
            while done < 250:
                batch, count = next(batches)
                step(batch)
                done += count
            if turn:
                targets[name] += done
                seconds[name] += time.process_time() - start
    all_targets = int((trained - 1).sum())
    return {
        "targets": all_targets,
        "users": len(trained),
        "rounds": rounds,
        "parts": share_of_parts(examples_of(trained, 64), 3 * rounds),
        "ways": {
            name: {
                "targets_per_second": targets[name] / seconds[name],
                "epoch_seconds": all_targets * seconds[name] / targets[name],
            }
            for name in ways
        },
    }


def with_random_weights(
    name: str, dropout: float | None = None
) -> tuple[MenderForGenerativeRetrieval, torch.optim.Optimizer]:
    """A model of a preset's shape for random items, and its optimizer."""
    preset, changed = load_preset(name), {} if dropout is None else {"dropout_rate": dropout}
    codes = torch.cartesian_prod(torch.arange(24), torch.arange(24), torch.arange(24), torch.arange(1))
    shape = {**preset.encoder_shape, **changed, "is_encoder_decoder": False, "eos_token_id": None}
    config = T5Config(**shape, vocab_size=SPECIAL + sum(SIZES), pad_token_id=0)
    torch.manual_seed(0)
    encoder = (LeftToRightEncoder if preset.left_to_right else T5EncoderModel)(config)
    catalogue = SemanticIdCatalogue(codes.int(), SIZES)
    model = MenderForGenerativeRetrieval.from_encoder(encoder, catalogue, decoder={**preset.decoder, **changed}).train()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def random_labels(model: MenderForGenerativeRetrieval, real: torch.Tensor) -> torch.Tensor:
    """Labels of random items; -100 where there is no target. Shape: that of `real`, and levels."""
    return model.item_tokens(torch.randint(0, model.config.num_items, real.shape)).masked_fill(~real[..., None], -100)


def training_step(name: str, dropout: float | None = None) -> Callable[[dict[str, torch.Tensor]], None]:
    """A training step of a preset's shape, with random weights and random items."""
    model, optimizer = with_random_weights(name, dropout)

    def step(batch: dict[str, torch.Tensor]) -> None:
        labels = random_labels(model, batch.pop("real"))
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def share_of_parts(batches: Batches, steps: int) -> dict[str, float]:
    """Which part of a step of preset tiger takes what share of its processor time."""
    model, optimizer = with_random_weights("tiger")
    seconds = dict.fromkeys(("encoder", "decoder, head and loss", "clipping and AdamW"), 0.0)

    def timed(part: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        done = work()
        seconds[part] += time.process_time() - start
        return done

    for turn in range(steps + 1):
        if turn == 1:  # the first warms up
            seconds = dict.fromkeys(seconds, 0.0)
        batch, _ = next(batches)
        labels, mask = random_labels(model, batch.pop("real")), batch["attention_mask"]
        optimizer.zero_grad()
        states = timed("encoder", partial(model.encoder, **batch)).last_hidden_state
        read = states.detach().requires_grad_()
        decode = partial(model, encoder_outputs=(read,), attention_mask=mask, labels=labels)
        loss = timed("decoder, head and loss", decode).loss
        timed("decoder, head and loss", loss.backward)
        timed("encoder", partial(states.backward, read.grad))
        timed("clipping and AdamW", partial(torch.nn.utils.clip_grad_norm_, model.parameters(), 1.0))
        timed("clipping and AdamW", optimizer.step)
    return {part: spent / sum(seconds.values()) for part, spent in seconds.items()}


def examples_of(trained: np.ndarray, size: int) -> Batches:
    """Batches of examples: every item after the first, with a history of all items before it."""
    items = np.concatenate([np.arange(1, count) for count in trained])
    while True:
        for rows in batches_by_length(items, size):
            inputs, _ = inputs_of(items[rows])
            yield {**inputs, "real": torch.ones(size, dtype=torch.bool)}, size


def users_of(trained: np.ndarray, size: int) -> Batches:
    """Batches of users, each with all items after the first."""
    items = trained[trained > 1] - 1
    while True:
        for rows in batches_by_length(items, size):
            inputs, most = inputs_of(items[rows])
            positions = 1 + len(SIZES) * torch.arange(1, most + 1).expand(size, -1)
            real = torch.arange(most) < torch.from_numpy(items[rows])[:, None]
            yield {**inputs, "target_positions": positions, "real": real}, int(real.sum())


def batches_by_length(items: np.ndarray, size: int) -> np.ndarray:
    """Rows of whole batches of similar length."""
    return length_grouped_order(items, size, 0, 0)[: len(items) // size * size].reshape(-1, size)


def inputs_of(items: np.ndarray) -> tuple[dict[str, torch.Tensor], int]:
    """Random codes of histories with so many items and a special token; and the longest of them."""
    lengths = torch.from_numpy(len(SIZES) * items + 1)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    tokens = torch.randint(SPECIAL, SPECIAL + sum(SIZES), mask.shape) * mask
    return {"input_ids": tokens, "attention_mask": mask}, int(items.max())


# Test figures


def test_figures(model: Path, data: Path) -> dict[str, Any]:
    """Figures of all test users, with bought items left out and with all items ranked."""
    shop, benchmark = Recommender.from_pretrained(model), load_benchmark_data("sequences", data)
    examples = select_axes(benchmark.examples["oracle"]["test"], {"recommendation": 1.0})
    targets, metric = first_targets(examples), evaluate.load(metric_folder())
    found = {}
    for name, exclude_seen in (("bought items left out", True), ("bought items ranked as well", False)):
        ranked = rank_examples(shop.model, shop.processor, examples, exclude_seen=exclude_seen)
        items = [shop.processor.ids(row[row >= 0]) for row in ranked]
        found[name] = metric.compute(predictions=items, references=targets, ks=[5, 10])
    return {"n": len(examples), "figures": found}


# Tables and the picture


def beauty_table() -> str:
    """Published figures and ours on the test split."""
    rows = [[name, *(number(value, 4) for value in values), ""] for name, values in PUBLISHED.items()]
    for name, file in (("SASRec, here", "sasrec"), ("SASRec, here, bought items ranked as well", "sasrec-keep-seen")):
        score = next(row for row in kept(file)["scores"] if row["axis"] == "recommendation")
        rows.append(_row(name, score))
    for name, score in kept("tiger_test").get("figures", {}).items():
        rows.append(_row(f"tiger-causal, here, {name}", score))
    return markdown_table(["", *METRICS, "recall@10, 95%"], rows)


def _row(name: str, score: dict[str, Any]) -> list[str]:
    ends = interval(score["recall@10/low"], score["recall@10/high"]) if "recall@10/low" in score else ""
    return [name, *(number(score[metric], 4) for metric in METRICS), ends]


def cost_table(record: dict[str, Any]) -> str:
    """Targets per second and seconds of an epoch."""
    ways = record.get("ways", {})
    first = next(iter(ways.values()), {}).get("targets_per_second")
    rows = [
        [
            name,
            f"{way['targets_per_second']:.0f}",
            f"{way['targets_per_second'] / first:.2f}",
            f"{way['epoch_seconds']:.0f}",
        ]
        for name, way in ways.items()
    ]
    return markdown_table(["", "targets/s", "times the preset tiger", "an epoch, s"], rows)


def curve_table(curve: Sequence[dict[str, float]]) -> str:
    """Every epoch's validation."""
    rows = [
        [f"{row['epoch']:g}", f"{row['loss']:.3f}", f"{row['eval_loss']:.3f}", number(row["eval_recall@10"], 4)]
        + [number(row["eval_ndcg@10"], 4)]
        for row in curve
    ]
    return markdown_table(["epoch", "training loss", "validation loss", "recall@10", "NDCG@10"], rows)


def extrapolation_table(curve: Sequence[dict[str, float]]) -> str:
    """Epochs until the goals, if recall goes on as in the latest half of the curve."""
    if len(curve) < 4:
        return "fewer than four epochs: nothing to extrapolate"
    points, rows = latest_half(curve), []
    for name, goal in (("TIGER in cornac", GOAL), ("SASRec in cornac", SASREC)):
        lines = [shown_epochs(value) for value in (spread(goal, points)[0], spread(goal, points)[-1])]
        rows.append([f"{name}, {number(goal, 4)}", shown_epochs(epochs_until(goal, points)), " to ".join(lines)])
    return markdown_table(["validation recall@10 of", "epochs", "one point left out"], rows)


def shown_epochs(epochs: float) -> str:
    """A number of epochs.

    >>> shown_epochs(12.3), shown_epochs(4_321.0), shown_epochs(float("inf"))
    ('12', '4,321', 'never')
    """
    return f"{epochs:,.0f}" if epochs < 1e6 else "never"


def office_table(runs: Path) -> str:
    """Our figures on the ends of the sequences of Office Products, beside those on the whole ones."""
    rows = [
        [f"{name}, published", number(value), "", "whole sequences, the authors' split"]
        for name, value in OFFICE.items()
    ]
    for folder in sorted(runs.glob("*-seed0")):
        record = json.loads((folder / "five_axes.json").read_text("utf-8"))
        scores = {
            score["matching"]: score
            for score in record["scores"]
            if score["axis"] == "recommendation" and "shuffled" not in score["method"]
        }
        score = scores["silent"]
        ends = interval(score["recall@10/low"], score["recall@10/high"])
        rows.append(
            [f"{score['method']}, here", number(score["recall@10"]), ends, f"ends of sequences, n = {score['n']}"]
        )
    return markdown_table(["", "recall@10 from the history alone", "95%", "data"], rows)


def draw(curve: Sequence[dict[str, float]], sasrec: Sequence[dict[str, float]], path: Path) -> None:
    """Validation recall@10 over epochs, its extrapolation, and the published test figures as lines."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    epochs, recalls = ([row[name] for row in curve] for name in ("epoch", "eval_recall@10"))
    axes.plot(epochs, recalls, "o-", color="tab:blue", markersize=4, label="tiger-causal here, validation")
    axes.plot(
        [row["epoch"] for row in sasrec],
        [row["eval_recall@10"] for row in sasrec],
        "s-",
        color="0.6",
        markersize=3,
        label="SASRec here, validation",
    )
    if len(curve) >= 4:
        points = latest_half(curve)
        slope, start = line([row["epoch"] for row in points], [row["eval_recall@10"] for row in points])
        ahead = np.geomspace(points[0]["epoch"], 400)
        axes.plot(ahead, start + slope * np.log(ahead), ":", color="tab:blue", label="line through its latest half")
    for name, value, colour in (
        ("TIGER in cornac, test", GOAL, "tab:red"),
        ("SASRec in cornac, test", SASREC, "tab:green"),
    ):
        axes.axhline(value, color=colour, linewidth=1, linestyle="--", label=f"{name}: {number(value, 4)}")
    axes.set(xscale="log", xlabel="epochs (logarithmic)", ylabel="recall@10", ylim=(0, None))
    axes.set_title("Beauty: TIGER in one pass per user, one CPU thread", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main, __doc__)
