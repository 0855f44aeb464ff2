"""A page for the metric: paste ranked lists or upload a file, see every figure with its interval.

    python app.py            # here
    push the folder as a Space whose SDK is gradio, and the Hub runs it

The widget that `evaluate` brings (`evaluate.utils.launch_gradio_widget`) asks for an interface that gradio removed in
version 4, and takes no lists of texts; this page replaces it.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import evaluate
import gradio as gr

__all__ = ["demo", "read_examples", "score", "table"]

METRIC = str(Path(__file__).with_name("preference_discerning.py"))
COLUMNS = {
    "prediction": "predictions",
    "reference": "references",
    "axis": "axes",
    "sentiment": "sentiments",
    "pair_id": "pair_ids",
}
AXES_EXAMPLE = """\
{"prediction": ["i7", "i2", "i9"], "reference": "i2", "axis": "recommendation"}
{"prediction": ["i3", "i8", "i1"], "reference": "i5", "axis": "recommendation"}
{"prediction": ["i6", "i1", "i4"], "reference": "i6", "axis": "fine_grained_steering"}
{"prediction": ["i4", "i1", "i3"], "reference": "i4", "axis": "sentiment_following", "pair_id": 0}
{"prediction": ["i5", "i8"], "reference": "i4", "axis": "sentiment_following", "sentiment": "negative", "pair_id": 0}"""
LISTS_EXAMPLE = """\
{"prediction": ["a", "b", "c"], "reference": "b"}
{"prediction": ["c", "d", "a"], "reference": "x"}
{"prediction": ["d", "a", "b"], "reference": "d"}"""


def read_examples(text: str) -> dict[str, list[Any]]:
    """Columns of examples, as the metric takes them.

    Args:
        text: JSON lines, one example each; a JSON list of examples, or a JSON object of columns; or CSV with a header,
            items of a list parted by "|". Names are singular or plural (`prediction` or `predictions`). Without an axis
            the lists are scored as plain rankings; with one, sentiment and pair id may be left out: positive, -1.

    Raises:
        ValueError: naming the line that cannot be read, or the column that is missing or unknown.
    """
    text = text.strip().lstrip("\ufeff")
    if not text:
        raise ValueError("there is nothing to score; paste one example per line, or upload a file")
    rows = _from_json(text) if text[0] in "[{" else _from_csv(text)
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise ValueError(f"example {number} is {row!r}; expected an object with {', '.join(COLUMNS)}")
        named = {COLUMNS.get(name, name): value for name, value in row.items()}
        if unknown := sorted(set(named) - set(COLUMNS.values())):
            raise ValueError(f"example {number} has {unknown[0]!r}; known are {', '.join(COLUMNS)}")
        if "axes" in named:
            named = {"sentiments": "positive", "pair_ids": -1, **named}
        if columns and set(named) != set(columns):
            differing = sorted(set(named) ^ set(columns))[0]
            raise ValueError(f"example {number} and those before it differ in {differing!r}; give it to all or to none")
        for name, value in named.items():
            columns.setdefault(name, []).append(value)
    return columns


def score(
    columns: Mapping[str, Sequence[Any]],
    ks: str = "5, 10",
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, float], list[str]]:
    """Figures of the metric, and its warnings.

    Args:
        columns: of `read_examples`.
        ks: cut-offs, parted by commas.
        confidence: of the intervals.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: what is wrong with the examples or the settings.
    """
    try:
        cutoffs = [int(k) for k in ks.split(",")]
    except ValueError:
        raise ValueError(f"k is {ks!r}; expected whole numbers parted by commas, such as 5, 10") from None
    configuration = "default" if "axes" in columns else "ranking"
    metric = evaluate.load(METRIC, configuration, keep_in_memory=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = metric.compute(
            **columns, ks=cutoffs, confidence=confidence, n_resamples=int(n_resamples), seed=int(seed)
        )
    own = [str(warning.message) for warning in caught if "ranked lists" in str(warning.message)]
    return result, own


def table(result: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows: one row per axis and figure, one column per cut-off, each with its interval."""
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for name, value in result.items():
        axis, _, figure = name.rpartition("/")
        kind, at, k = figure.partition("@")
        if at:
            ends = [result.get(f"{name}/{end}") for end in ("low", "high")]
            interval = "" if None in ends else f" ({ends[0]:.3f}-{ends[1]:.3f})"
            cells.setdefault((axis, kind), {})[int(k)] = f"{value:.3f}{interval}"
    ks = sorted({k for row in cells.values() for k in row})
    rows = [
        [axis.replace("_", " ") or "all", result[f"{axis}/n" if axis else "n"], kind, *(row[k] for k in ks)]
        for (axis, kind), row in cells.items()
    ]
    return ["axis", "n", "figure", *(f"@{k}" for k in ks)], rows


def _from_json(text: str) -> list[Any]:
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return [_line(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if isinstance(whole, list):
        return whole
    if all(isinstance(column, list) for column in whole.values()) and "prediction" not in whole:
        lengths = {name: len(column) for name, column in whole.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns differ in length: {lengths}; give one value per example to each")
        return [dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)]
    return [whole]


def _line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from error


def _from_csv(text: str) -> list[dict[str, Any]]:
    rows = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        if None in row or None in row.values():
            raise ValueError(f"line {number} has another number of fields than the header")
        for name in ("prediction", "predictions"):
            if name in row:
                row[name] = [item.strip() for item in row[name].split("|") if item.strip()]
        for name in ("pair_id", "pair_ids"):
            if name in row:
                try:
                    row[name] = int(row[name] or -1)
                except ValueError:
                    raise ValueError(f"line {number} has {name}={row[name]!r}; expected a whole number") from None
        rows.append(row)
    return rows


def _on_click(text: str, file: str | None, ks: str, confidence: float, resamples: float) -> tuple:
    """What the button does: figures as a table and as JSON, and a line about them; mistakes are shown as they are."""
    try:
        columns = read_examples(Path(file).read_text("utf-8") if file else text)
        result, caught = score(columns, ks, confidence, int(resamples))
    except UnicodeDecodeError as error:
        raise gr.Error("the file is no text; upload JSON lines, JSON or CSV in UTF-8", print_exception=False) from error
    except (ValueError, TypeError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    count = len(next(iter(columns.values())))
    lines = [f"**{count:,} examples scored**, {confidence:.0%} intervals.", *(f"Note: {note}" for note in caught)]
    headers, rows = table(result)
    return {"headers": headers, "data": rows}, result, "\n\n".join(lines)


def _card() -> str:
    """The metric's card without its head."""
    text = Path(__file__).with_name("README.md").read_text("utf-8")
    return text.split("---\n", 2)[2]


with gr.Blocks(title="Preference Discerning") as demo:
    gr.Markdown(
        "# Preference Discerning\nDoes a recommender listen? Paste ranked lists, one example per line, or upload a "
        "file (JSON lines, JSON or CSV). With an axis per example every axis is scored, without one the lists as they "
        "are."
    )
    with gr.Row():
        with gr.Column(scale=3):
            examples = gr.Textbox(AXES_EXAMPLE, label="Examples", lines=8, max_lines=16, elem_id="examples")
            upload = gr.File(label="or a file", file_types=[".jsonl", ".json", ".csv"], height=150)
        with gr.Column(scale=1, min_width=220):
            cutoffs = gr.Textbox("1, 3", label="k", info="cut-offs, parted by commas")
            level = gr.Slider(0.5, 0.99, 0.95, step=0.01, label="Confidence of the intervals")
            draws = gr.Slider(0, 5000, 1000, step=100, label="Bootstrap resamples", info="0: no intervals")
            button = gr.Button("Score", variant="primary", elem_id="score")
    gr.Examples(
        [[AXES_EXAMPLE, "1, 3"], [LISTS_EXAMPLE, "1, 2"]],
        [examples, cutoffs],
        label="To start from",
        example_labels=["axes, with a sentiment pair", "plain ranked lists"],
    )
    note = gr.Markdown()
    figures = gr.Dataframe(headers=["axis", "n", "figure"], label="Figures", interactive=False, wrap=True)
    with gr.Accordion("As JSON", open=False):
        raw = gr.JSON(label="what compute() returns")
    with gr.Accordion("The metric's card", open=False):
        gr.Markdown(_card())
    button.click(_on_click, [examples, upload, cutoffs, level, draws], [figures, raw, note], api_name="score")

if __name__ == "__main__":
    demo.launch()
