"""Figures for a card: one model's scores on all axes, as a table for people and as results that the Hub indexes.

They are read from the JSON that an evaluation writes: `{"settings": {...}, "scores": [{"axis", "matching", "method",
"n", "recall@10", "recall@10/low", ...}]}`, one score per axis, matching mode and method.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from .pipeline_mender import TASK

__all__ = ["Evaluation"]

LABELS = {
    "recommendation": "recommendation",
    "fine_grained_steering": "fine steering",
    "coarse_grained_steering": "coarse steering",
    "sentiment_following": "sentiment following",
    "history_consolidation": "history consolidation",
    "sentiment_following_with_history": "sentiment following with history",
}
PAIR_FIGURES = ("m", "avoid", "recall")
FIGURES = ("recall", "ndcg")


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one method, and of its controls on the same examples.

    Attributes:
        settings: of the run: source, seed, commit, command, training, speed.
        method: the name that the model has in the scores.
        scores: of the model, one per axis and matching mode.
        controls: by name, scores of other methods, in the order of `scores`.
    """

    settings: Mapping[str, Any]
    method: str
    scores: Sequence[Mapping[str, Any]]
    controls: Mapping[str, Sequence[Mapping[str, Any] | None]] = field(default_factory=dict)

    @classmethod
    def read(cls, results: str | os.PathLike | Mapping[str, Any], method: str | None = None) -> Evaluation:
        """An evaluation from its JSON file, or from what the file holds.

        Args:
            results: the path of `five_axes.json`, or its content.
            method: which method is the model; default: the one the settings name, else the first.

        Raises:
            ValueError: if it is no evaluation, or knows no such method.
            FileNotFoundError: if the file is not there.
        """
        name = "the results"
        if isinstance(results, str | os.PathLike):
            name = Path(results).name
            try:
                results = json.loads(Path(results).read_text("utf-8"))
            except json.JSONDecodeError as error:
                raise ValueError(f"{name} is no JSON ({error}); pass the five_axes.json of an evaluation") from error
        scores = results.get("scores") if isinstance(results, Mapping) else None
        if not scores or not all(
            isinstance(score, Mapping) and {"axis", "method", "n"} <= set(score) for score in scores
        ):
            raise ValueError(
                f'{name} holds no "scores" with axis, method and n; pass the five_axes.json of an evaluation'
            )
        settings = results.get("settings") or {}
        if settings.get("split", "test") != "test" or not settings.get("exclude_seen", True):
            raise ValueError(
                f"{name} was measured with --validation or --keep-seen; the figures of a card are of the test split, "
                "without items of the history: pass those of an evaluation without the two"
            )
        methods = list(dict.fromkeys(score["method"] for score in scores))
        method = method or (settings["method"] if settings.get("method") in methods else methods[0])
        if method not in methods:
            raise ValueError(f"{name} has no method {method!r}; it knows {', '.join(map(repr, methods))}")
        own = [score for score in scores if score["method"] == method]
        k = _largest_k(own[0])
        if without := [score["axis"] for score in own if f"recall@{k}" not in score]:
            raise ValueError(
                f"{name} has no recall@{k or 'k'} on {without[0]}; pass the five_axes.json of an evaluation"
            )
        of = {(score["method"], score["axis"], score.get("matching", "")): score for score in scores}
        controls = {
            other: [of.get((other, score["axis"], score.get("matching", ""))) for score in own]
            for other in methods
            if other != method
        }
        return cls(settings, method, own, controls)

    @property
    def k(self) -> int:
        """The largest cut-off that was measured."""
        return _largest_k(self.scores[0])

    @property
    def source(self) -> str:
        """The benchmark's name."""
        return str(self.settings.get("source", "unknown"))

    def table(self) -> str:
        """All axes as Markdown: n, the headline with its interval, NDCG, and the headline of every control."""
        k = self.k
        names = [_short(name, self.method) for name in self.controls]
        lines = [
            ["axis", "n", f"Recall@{k} or m@{k} (95%)", f"NDCG@{k}", *names],
            ["---", *["---:"] * (3 + len(names))],
        ]
        for row, score in enumerate(self.scores):
            paired = f"m@{k}" in score
            headline = f"m@{k}" if paired else f"recall@{k}"
            others = [scores[row] for scores in self.controls.values()]
            lines.append(
                [
                    axis_label(score),
                    f"{score['n']:,} pairs" if paired else f"{score['n']:,}",
                    ("m " if paired else "") + f"**{score[headline]:.3f}**{_interval(score, headline)}",
                    "" if paired else f"{score[f'ndcg@{k}']:.3f}" if f"ndcg@{k}" in score else "",
                    *(
                        f"{other[headline]:.3f}{_interval(other, headline)}" if other and headline in other else ""
                        for other in others
                    ),
                ]
            )
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def eval_results(self, dataset: str | None = None) -> list[EvalResult]:
        """Every figure at every cut-off, for the `model-index` of a card; intervals are among a metric's arguments.

        Args:
            dataset: name of the benchmark on the Hub; default: its own name.
        """
        results = []
        for score in self.scores:
            names = [name for name in score if "@" in name and "/" not in name]
            wanted = PAIR_FIGURES if any(name.startswith("m@") for name in names) else FIGURES
            for name in (name for name in names if name.partition("@")[0] in wanted):
                arguments = {"axis": score["axis"], "n": score["n"]}
                if score.get("matching"):
                    arguments["matching"] = score["matching"]
                if f"{name}/low" in score:
                    ends = [round(float(score[f"{name}/{end}"]), 4) for end in ("low", "high")]
                    arguments |= {"confidence": 0.95, "low": ends[0], "high": ends[1]}
                results.append(
                    EvalResult(
                        task_type=TASK,
                        task_name="Generative retrieval",
                        dataset_type=dataset or self.source,
                        dataset_name=f"Preference discerning, {self.source}",
                        dataset_config=self.source,
                        dataset_split="test",
                        metric_type=name,
                        metric_name=f"{axis_label(score)}: {name}",
                        metric_value=round(float(score[name]), 4),
                        metric_args=arguments,
                    )
                )
        return results


def axis_label(score: Mapping[str, Any]) -> str:
    """Name of a score's axis for people."""
    axis, matching = score["axis"], score.get("matching")
    return LABELS.get(axis, axis.replace("_", " ")) + (f", {matching}" if matching else "")


def _largest_k(score: Mapping[str, Any]) -> int:
    return max((int(name[7:]) for name in score if re.fullmatch(r"recall@\d+", name)), default=0)


def _interval(score: Mapping[str, Any], name: str) -> str:
    return f" ({score[f'{name}/low']:.3f}-{score[f'{name}/high']:.3f})" if f"{name}/low" in score else ""


def _short(control: str, method: str) -> str:
    """A control's name without the method it is a variant of."""
    return control.removeprefix(f"{method}, ")
