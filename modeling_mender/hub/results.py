"""What an evaluation measured, for a card: a table for people, and results that the Hub indexes.

The evaluation is the JSON file that `mender evaluate` writes: `{"settings": {...}, "scores": [{"axis", "matching",
"stratum", "method", "n", "recall@10", "recall@10/low", ...}]}`, one score per axis, matching mode, stratum and method.
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from markupsafe import Markup

from ..pipeline_mender import TASK

__all__ = ["Evaluation", "SteeringExample", "code_span", "markdown_table", "plain", "without_paths"]


def plain(value: Any) -> Markup:
    r"""Text that shows as it is in Markdown and HTML: in a sentence, a heading or a cell of a table.

    >>> str(plain("<!-- a | b -->"))
    '&lt;!-- a \\| b --&gt;'
    """
    if isinstance(value, Markup):
        return value
    # Line breaks, escape sequences, direction marks and the like become blanks.
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return Markup(re.sub(r"[\\`*_\[\]|~$]", r"\\\g<0>", html.escape(" ".join(text.split()), quote=False)))


def code_span(text: str) -> Markup:
    """Code within a cell of a table."""
    return Markup("`{}`".format(" ".join(text.replace("`", "'").replace("|", "\\|").split())))


def markdown_table(rows: Sequence[Sequence[Any]], right: int | None = None) -> Markup:
    """A table in Markdown; all cells are escaped.

    Args:
        rows: the header first.
        right: columns from this one on are aligned to the right.
    """
    width = len(rows[0])
    line = ["---" if right is None or column < right else "---:" for column in range(width)]
    lines = [rows[0], [Markup(mark) for mark in line], *rows[1:]]
    return Markup("\n".join("| " + " | ".join(map(plain, cells)) + " |" for cells in lines))


# A path from the root, a home folder, a drive or a share of Windows, or the address of a file. Two slashes after a
# colon start the host of a web address.
START = r"(?!(?<=:)//)(?:file:/*)?(?:[A-Za-z]:[/\\]+(?=\S)|[/\\]+(?=\S)|~[\w.-]*(?=[/\\]|$))"
# It may follow the name of an option or a value, and ends with the word or where another path starts.
PATH = re.compile(
    rf"(?P<before>^-\w|^|[\s=,;:@'\"(\[{{])(?P<path>{START}.*?)(?=$|[,;]\s*(?:[\w.-]+=)?{START}|[\s=:]{START})",
    re.DOTALL,
)


def without_paths(command: str) -> str:
    """A command line with every absolute path cut to its last part, quoted for a shell again.

    >>> without_paths("python train.py --data='/home/me/my shop' --set encoder=~/models/small --k 5")
    "python train.py '--data=my shop' --set encoder=small --k 5"
    """

    def shortened(found: re.Match) -> str:
        path = found["path"]
        home = path.startswith("~") and not re.search(r"[/\\]", path)  # ~name
        return found["before"] + ("~" if home else re.split(r"[/\\]", path.rstrip("/\\"))[-1])

    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    if re.search(r"[A-Za-z]:\\|\\\\", command):
        lexer.escape = ""
    try:
        words = list(lexer)
    except ValueError:  # an unbalanced quote: the words were joined without quoting
        words = command.split()
    return shlex.join(PATH.sub(shortened, word) for word in words)


TEXTS = ("axis", "method", "matching", "stratum")
SETTINGS = {"source": str, "method": str, "split": str, "repeats": str, "command": str, "training": Mapping}
SETTINGS |= {"request_ms": int | float, "users_per_second": int | float}
PRESET = {"axes": Mapping, "matching": Mapping}


def _wrong_type(settings: Any, scores: Sequence[Mapping[str, Any]]) -> str | None:
    """The first value with another type than `mender evaluate` gives it, of those that a card computes with."""
    given = [("settings", settings, Mapping)]
    given += [(name, value, str if name in TEXTS else int | float) for score in scores for name, value in score.items()]
    if isinstance(settings, Mapping):
        given += [(name, settings.get(name), kind) for name, kind in SETTINGS.items()]
        preset, training = settings.get("preset"), settings.get("training")
        given += [(name, preset.get(name), kind) for name, kind in PRESET.items() if isinstance(preset, Mapping)]
        curve = training.get("curve") if isinstance(training, Mapping) else None
        given += [("curve", curve, list)]
        entries = curve if isinstance(curve, list) else []
        given += [("curve", entry, Mapping) for entry in entries]
        given += [("epoch", entry.get("epoch"), int | float) for entry in entries if isinstance(entry, Mapping)]
    wrong = ((name, value) for name, value, kind in given if value is not None and not isinstance(value, kind))
    return next((f"{name}={value!r}"[:200] for name, value in wrong), None)


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one method, and of others on the same examples.

    Attributes:
        settings: of the run: source, seed, commit, command, training, speed.
        scores: one per axis, matching mode and stratum, `{"axis", "matching", "stratum", "n", "recall@10",
            "recall@10/low", ...}`.
        controls: by name, scores of other methods in the order of `scores`.
    """

    settings: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]
    controls: Mapping[str, Sequence[Mapping[str, Any]]]

    @classmethod
    def read(cls, results: str | os.PathLike | Mapping[str, Any], method: str | None = None) -> Evaluation:
        """An evaluation from the JSON file that `mender evaluate` writes, or from its content.

        Args:
            results: the path of `five_axes.json`, or its content.
            method: which method of the results the model is; default: the one that the settings name, else the first.

        Raises:
            ValueError: if these are not results of the test split, or have no such method.
            FileNotFoundError: if there is no such file.
        """
        name, hint = "the results", "pass the five_axes.json of an evaluation"
        if isinstance(results, str | os.PathLike):
            name = Path(results).name
            if Path(results).exists() and not Path(results).is_file():
                raise ValueError(f"{name} is not a file; {hint}")
            try:
                results = json.loads(Path(results).read_text("utf-8"))
            except ValueError as error:
                raise ValueError(f"{name} is not valid JSON ({error}); {hint}") from error
        scores = results.get("scores") if isinstance(results, Mapping) else None
        if not isinstance(scores, list | tuple) or not all(isinstance(one, Mapping) for one in scores):
            scores = []
        # What was not measured may also be null.
        scores = [{figure: value for figure, value in one.items() if value is not None} for one in scores]
        if not scores or not all({"axis", "method", "n"} <= set(one) for one in scores):
            raise ValueError(f'{name} has no "scores" with axis, method and n; {hint}')
        settings = results.get("settings") or {}
        if wrong := _wrong_type(settings, scores):
            raise ValueError(f"{name} has {wrong}, of another type than an evaluation writes; {hint}")
        bought_again = settings.get("repeats") == "keep"
        if settings.get("split", "test") != "test" or settings.get("exclude_seen", True) == bought_again:
            raise ValueError(
                f"{name} was measured with --validation or --keep-seen; a card shows the test split without items of "
                "the history, unless things are bought again: pass the results of an evaluation without these two "
                "options"
            )
        methods = list(dict.fromkeys(score["method"] for score in scores))
        method = method or (settings["method"] if settings.get("method") in methods else methods[0])
        if method not in methods:
            raise ValueError(f"{name} has no method {method!r}; it has {', '.join(map(repr, methods))}")
        own = [score for score in scores if score["method"] == method]
        for score in own:
            if f"recall@{_largest_k(own[0])}" not in score:
                raise ValueError(f"{name} has no recall@{_largest_k(own[0]) or 'k'} on {score['axis']}; {hint}")
        at = {(score["method"], _axis_label(score)): score for score in scores}
        controls = {
            other.removeprefix(f"{method}, "): [at.get((other, _axis_label(score)), {}) for score in own]
            for other in methods
            if other != method
        }
        return cls(settings, own, controls)

    @property
    def source(self) -> str:
        """Name of the benchmark."""
        return str(self.settings.get("source", "unknown"))

    @property
    def k(self) -> int:
        """The largest cut-off that was measured."""
        return _largest_k(self.scores[0])

    def table(self) -> Markup:
        """All axes: n, the main figure with its interval, NDCG, and the main figure of every control."""

        def figure(score: Mapping[str, Any], name: str, form: str = "{:.3f}") -> str:
            ends = [score.get(f"{name}/{end}") for end in ("low", "high")]
            interval = "" if None in ends else " ({:.3f}-{:.3f})".format(*ends)
            return form.format(score[name]) + interval if name in score else ""

        k = self.k
        rows = [["axis", "n", f"Recall@{k}, m@{k} or P@{k} (95%)", f"NDCG@{k}", *self.controls]]
        for position, score in enumerate(self.scores):
            paired = f"m@{k}" in score
            main = f"{_main_figure(score, k)}@{k}"
            ndcg = "" if paired or f"ndcg@{k}" not in score else f"{score[f'ndcg@{k}']:.3f}"
            others = [figure(scores[position], main) for scores in self.controls.values()]
            count = f"{score['n']:,}{' pairs' if paired else ''}"
            sign = {"m": "m ", "r_precision": "P "}.get(_main_figure(score, k), "")
            own = Markup(sign + figure(score, main, "**{:.3f}**"))
            rows.append([_axis_label(score), count, own, ndcg, *others])
        return markdown_table(rows, right=1)

    @property
    def preset(self) -> Mapping[str, Any]:
        """Fields of the preset that was trained; of some runs, its name alone is known."""
        preset = self.settings.get("preset") or {}
        return preset if isinstance(preset, Mapping) else {"name": preset}

    def run_table(self) -> Markup | None:
        """What is known of the training run, its command without paths of the machine."""
        settings, preset = self.settings, self.preset
        run = settings.get("training") or {}
        axes = [axis.replace("_", " ") for axis, share in (preset.get("axes") or {}).items() if share]
        modes = [mode for mode, share in (preset.get("matching") or {}).items() if share]
        best = next((name for name in run if name.startswith("best_")), "best_ndcg@10")
        command = without_paths(settings["command"]) if settings.get("command") else None
        facts = {
            "benchmark": settings.get("source"),
            "preset": preset.get("name"),
            "axes trained on": ", ".join(axes),
            "matching of preferences": ", ".join(modes) if preset.get("preference") != "none" else None,
            "encoder": preset.get("encoder_training") if preset.get("encoder") != "none" else None,
            "negative preferences": preset.get("negatives"),
            "epochs": run.get("epochs", settings.get("epochs")),
            "steps": run.get("steps"),
            f"best validation {best.removeprefix('best_').replace('ndcg', 'NDCG')}": run.get(best),
            "training samples per second": run.get("samples_per_second"),
            "trained parameters": settings.get("trained"),
            "seconds": settings.get("seconds"),
            "seed": settings.get("seed"),
            "commit": settings.get("commit"),
            "command": command and code_span(command),
        }
        rows = [[name, _figure(value)] for name, value in facts.items() if value not in (None, "")]
        return markdown_table([["", ""], *rows]) if self.settings else None

    def losses(self) -> Markup | None:
        """Losses and validation figures by epoch, from the log of the Trainer."""
        epochs: dict[float, dict[str, Any]] = {}
        for entry in (self.settings.get("training") or {}).get("curve") or []:
            epochs.setdefault(entry.get("epoch"), {}).update(entry)
        names = {"epoch": "epoch", "loss": "training loss", "eval_loss": "validation loss"}
        for name in dict.fromkeys(name for entry in epochs.values() for name in entry):
            if name.startswith(("eval_ndcg@", "eval_recall@")):
                names[name] = name.removeprefix("eval_").replace("ndcg", "NDCG").replace("recall", "Recall")
        rows = [[_figure(entry.get(name, "")) for name in names] for entry in epochs.values()]
        return markdown_table([[*names.values()], *rows], right=0) if rows else None

    def eval_results(self, dataset: str | None = None) -> list[EvalResult]:
        """Every figure at every cut-off, for the `model-index`; intervals are among the arguments of a metric.

        Args:
            dataset: name of the benchmark on the Hub; default: its own name.
        """
        results = []
        for score in self.scores:
            names = [name for name in score if "@" in name and "/" not in name]
            main = _main_figure(score, self.k)
            wanted = {"m": ("m", "avoid", "recall"), "r_precision": ("r_precision", "ndcg", "avoided")}
            wanted = wanted.get(main, ("recall", "ndcg"))
            for name in (name for name in names if name.partition("@")[0] in wanted):
                arguments = {"axis": score["axis"], "n": score["n"]}
                arguments |= {name: score[name] for name in ("matching", "stratum") if score.get(name)}
                if f"{name}/low" in score and f"{name}/high" in score:
                    low, high = (round(float(score[f"{name}/{end}"]), 4) for end in ("low", "high"))
                    arguments |= {"confidence": 0.95, "low": low, "high": high}
                results.append(
                    EvalResult(
                        task_type=TASK,
                        task_name="Generative retrieval",
                        dataset_type=dataset or self.source,
                        dataset_name=f"Preference discerning, {self.source}",
                        dataset_config=self.source,
                        dataset_split="test",
                        metric_type=name,
                        metric_name=f"{_axis_label(score)}: {name}",
                        metric_value=round(float(score[name]), 4),
                        metric_args=arguments,
                    )
                )
        return results


def _figure(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else value


def _axis_label(score: Mapping[str, Any]) -> str:
    label = score["axis"].replace("_grained", "").replace("_", " ")
    return ", ".join([label, *(score[name] for name in ("matching", "stratum") if score.get(name))])


def _main_figure(score: Mapping[str, Any], k: int) -> str:
    """M for sentiment pairs, r_precision where strata of wishes have several targets, recall elsewhere."""
    return "m" if f"m@{k}" in score else "r_precision" if score.get("stratum") else "recall"


def _largest_k(score: Mapping[str, Any]) -> int:
    return max((int(name[7:]) for name in score if re.fullmatch(r"recall@\d+", name)), default=0)


@dataclass(frozen=True)
class SteeringExample:
    """What one model recommends for one history, once per preference.

    Attributes:
        history: titles of the history, oldest first.
        lists: recommended titles, best first, by preference.
    """

    history: Sequence[str]
    lists: dict[str, list[str]]

    def table(self) -> Markup:
        """One column per preference."""
        rows = enumerate(zip(*self.lists.values(), strict=False), 1)
        return markdown_table(
            [["", *(f'"{preference}"' for preference in self.lists)], *([place, *titles] for place, titles in rows)]
        )
