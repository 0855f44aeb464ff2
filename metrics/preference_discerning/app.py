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
    "kind": "kinds",
    "sentiment": "sentiments",
    "pair_id": "pair_ids",
    "avoided": "avoided",
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
WISHES_EXAMPLE = """\
{"prediction": ["lamp", "mug", "tea"], "reference": {"lamp": 3, "tea": 1}, "avoided": ["mug"]}
{"prediction": ["tea", "pot", "mug"], "reference": {"tea": 2, "pot": 2, "honey": 1}, "avoided": ["lamp"]}
{"prediction": ["lamp", "tea", "pot"], "reference": {"pot": 1}}"""


def read_examples(text: str) -> dict[str, list[Any]]:
    """Columns of examples, as the metric takes them.

    Args:
        text: JSON lines, one example each; a JSON list of examples, or a JSON object of columns; or CSV with a header,
            items of a list separated by "|". Names are singular or plural (`prediction` or `predictions`). Only
            prediction and reference are required; what an example leaves out is `None`.

    Raises:
        ValueError: naming the line that cannot be read, or the column that is missing or unknown.
    """
    text = text.strip().lstrip("\ufeff")
    if not text:
        raise ValueError("there is nothing to score; paste one example per line, or upload a file")
    rows = _from_json(text) if text[0] in "[{" else _from_csv(text)
    examples = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise ValueError(f"example {number} is {row!r}; expected an object with {', '.join(COLUMNS)}")
        example = {COLUMNS.get(name, name): value for name, value in row.items()}
        if unknown := sorted(set(example) - set(COLUMNS.values())):
            raise ValueError(f"example {number} has {unknown[0]!r}; known are {', '.join(COLUMNS)}")
        for name in ("predictions", "references"):
            if name not in example:
                raise ValueError(f"example {number} has no {name.removesuffix('s')}; every example needs one")
        examples.append(example)
    names = [name for name in COLUMNS.values() if any(name in example for example in examples)]
    return {name: [example.get(name) for example in examples] for name in names}


def score(
    columns: Mapping[str, Sequence[Any]],
    ks: str = "5, 10",
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    catalogue: int | None = None,
) -> tuple[dict[str, float], list[str]]:
    """Figures of the metric, and its warnings.

    Args:
        columns: of `read_examples`.
        ks: cut-offs, separated by commas.
        confidence: of the intervals.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.
        catalogue: number of items that can be recommended, if it is known.

    Raises:
        ValueError: what is wrong with the examples or the settings.
    """
    try:
        cutoffs = [int(k) for k in ks.split(",")]
    except ValueError:
        raise ValueError(f"k is {ks!r}; expected integers separated by commas, such as 5, 10") from None
    metric = evaluate.load(METRIC, keep_in_memory=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = metric.compute(
            **columns,
            ks=cutoffs,
            confidence=confidence,
            n_resamples=int(n_resamples),
            seed=int(seed),
            catalogue=catalogue,
        )
    own = [str(warning.message) for warning in caught if "ranked lists" in str(warning.message)]
    return result, own


def table(result: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows: one row per group and figure, one column per cut-off, with intervals where there are some."""
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for name, value in result.items():
        prefix, _, figure = name.rpartition("/")
        kind, at, k = figure.partition("@")
        if at:
            ends = [result.get(f"{name}/{end}") for end in ("low", "high")]
            interval = "" if None in ends else f" ({ends[0]:.3f}-{ends[1]:.3f})"
            text = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
            cells.setdefault((f"{prefix}/" if prefix else "", kind), {})[int(k)] = text + interval
    ks = sorted({k for row in cells.values() for k in row})
    rows = []
    for (prefix, kind), row in cells.items():
        of_avoided = kind in ("avoid", "avoided") and f"{prefix}n_avoided" in result
        group = prefix.rstrip("/").replace("_", " ").replace("/", ", ") or "all"
        count = result[f"{prefix}n_avoided" if of_avoided else f"{prefix}n"]
        rows.append([group, count, kind.replace("_", " "), *(row[k] for k in ks)])
    return ["group", "n", "figure", *(f"@{k}" for k in ks)], rows


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
        raise ValueError(f"line {number} is not JSON: {error}") from error


def _from_csv(text: str) -> list[dict[str, Any]]:
    rows = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        if None in row or None in row.values():
            raise ValueError(f"line {number} and the header differ in the number of fields")
        example = {name: value.strip() or None for name, value in row.items()}
        for name, value in example.items():
            if name.startswith("prediction"):
                example[name] = [item.strip() for item in (value or "").split("|") if item.strip()]
            elif name in ("reference", "references", "avoided") and value and "|" in value:
                example[name] = [item.strip() for item in value.split("|") if item.strip()]
            elif name.startswith("pair_id") and value == "-1":
                example[name] = None
        rows.append(example)
    return rows


def _on_click(text: str, file: str | None, ks: str, items: float | None, confidence: float, resamples: float) -> tuple:
    """Figures as a table and as JSON, and a line about them; errors are shown with their message."""
    try:
        columns = read_examples(Path(file).read_text("utf-8") if file else text)
        result, caught = score(columns, ks, confidence, int(resamples), catalogue=int(items) if items else None)
    except UnicodeDecodeError as error:
        raise gr.Error(
            "the file is not text; upload JSON lines, JSON or CSV in UTF-8", print_exception=False
        ) from error
    except (ValueError, TypeError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    count = len(next(iter(columns.values())))
    lines = [f"**{count:,} examples scored**, {confidence:.0%} intervals.", *(f"Note: {note}" for note in caught)]
    headers, rows = table(result)
    return {"headers": headers, "data": rows}, result, "\n\n".join(lines)


def _card() -> str:
    """The metric's card without its metadata."""
    text = Path(__file__).with_name("README.md").read_text("utf-8")
    return text.split("---\n", 2)[2]


with gr.Blocks(title="Preference Discerning") as demo:
    gr.Markdown(
        "# Preference Discerning\nDoes a recommender follow requests? Paste ranked lists, one example per line, or "
        "upload a file (JSON lines, JSON or CSV). Every example needs a prediction and a reference; with an axis or a "
        "kind, figures are given for each of them."
    )
    with gr.Row():
        with gr.Column(scale=3):
            examples = gr.Textbox(AXES_EXAMPLE, label="Examples", lines=8, max_lines=16, elem_id="examples")
            upload = gr.File(label="or a file", file_types=[".jsonl", ".json", ".csv"], height=150)
        with gr.Column(scale=1, min_width=220):
            cutoffs = gr.Textbox("1, 3", label="k", info="cut-offs, separated by commas")
            items = gr.Number(
                label="Items in the catalogue", info="optional; for coverage, Gini index and skewness", precision=0
            )
            level = gr.Slider(0.5, 0.99, 0.95, step=0.01, label="Confidence of the intervals")
            draws = gr.Slider(0, 5000, 1000, step=100, label="Bootstrap resamples", info="0 turns intervals off")
            button = gr.Button("Score", variant="primary", elem_id="score")
    gr.Examples(
        [[AXES_EXAMPLE, "1, 3", None], [LISTS_EXAMPLE, "1, 2", 4], [WISHES_EXAMPLE, "1, 3", 6]],
        [examples, cutoffs, items],
        label="To start from",
        example_labels=[
            "axes, with a sentiment pair",
            "plain ranked lists",
            "several relevant items, and avoided ones",
        ],
    )
    note = gr.Markdown()
    figures = gr.Dataframe(headers=["group", "n", "figure"], label="Figures", interactive=False, wrap=True)
    with gr.Accordion("As JSON", open=False):
        raw = gr.JSON(label="what compute() returns")
    with gr.Accordion("The metric's card", open=False):
        gr.Markdown(_card())
    button.click(_on_click, [examples, upload, cutoffs, items, level, draws], [figures, raw, note], api_name="score")

if __name__ == "__main__":
    demo.launch()
