"""The text of a model card, section by section. What was not measured is said to be so, or left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .card_facts import facts, method_of
from .card_results import Evaluation
from .card_text import Section
from .pipeline_mender import TASK
from .private_paths import without_paths
from .steering_examples import SteeringExample

__all__ = ["CITATION", "EXAMPLE", "card_sections", "measured_sections"]

PAPER = "[arXiv:2412.08604](https://arxiv.org/abs/2412.08604)"
EXAMPLE = "Find something unlike what I usually choose"
CITATION = """\
## Citation

```bibtex
@article{paischer2025preference,
  title={Preference Discerning with LLM-Enhanced Generative Retrieval},
  author={Paischer, Fabian and others},
  journal={Transactions on Machine Learning Research},
  year={2025},
  url={https://arxiv.org/abs/2412.08604}
}
```"""
NOT_MEASURED = """\
## Results

Not measured yet, or not with these weights. `python examples/04_evaluate.py MODEL` of the project measures all axes and
writes them here."""


def card_sections(
    model: Any,
    name: str,
    place: str,
    base: str | None = None,
    evaluation: Evaluation | None = None,
    steering: Sequence[SteeringExample] = (),
    training: str | None = None,
    weights: str | None = None,
) -> list[Section]:
    """All sections, in order.

    Args:
        model: what the card describes.
        name: of the model, for the heading.
        place: name of its repository, or a placeholder, for the snippets.
        base: name on the Hub of what it was made from, where that is known.
        evaluation: what was measured.
        steering: lists to show.
        training: Markdown about the training, where the caller knows more than the evaluation says.
        weights: SHA-256 of the weights that were measured.
    """
    reads = model.config.model_type not in ("mender_sasrec", "mender_popularity")
    shown = "\n\n".join(example.markdown() for example in steering)
    if shown:
        shown = f"## Steering\n\nWhat this model returns for one history, once per preference:\n\n{shown}"
    results, speed, run = measured_sections(evaluation, training, weights)
    return [
        Section("about", _about(model, name, base)),
        Section("use", _use(place, reads)),
        results,
        Section("steering", shown, weights if shown else None),
        speed,
        run,
        Section("limits", _limits(reads, evaluation), weights if evaluation is not None else None),
        Section("citation", CITATION),
    ]


def measured_sections(
    evaluation: Evaluation | None, training: str | None, weights: str | None
) -> tuple[Section, Section, Section]:
    """Results, speed and training; what is not known of them is said, or left out."""
    results, speed, settings = NOT_MEASURED, "", {}
    if evaluation is not None:
        results, speed, settings = _results(evaluation, weights), _speed(evaluation.settings), evaluation.settings
    run = training or (_training(settings) if settings else "")
    return (
        Section("results", results, weights if evaluation is not None else None),
        Section("speed", speed, weights if speed else None),
        Section("training", run, weights if run else None),
    )


def _about(model: Any, name: str, base: str | None) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts(model, base).items())
    return f"""\
# {name}

A sequential recommender: from what a person met before and from what they ask for in plain language, it ranks the items
of a catalogue (*preference discerning*, Paischer et al. 2025, {PAPER}).

{method_of(model)}.

| | |
|---|---|
{rows}"""


def _use(place: str, reads: bool) -> str:
    request = f'"{EXAMPLE}"' if reads else '{"history": recommend.processor.item_ids[:3]}'
    return f"""\
## How to use

With the package (`modeling_mender`):

```python
import modeling_mender
from transformers import pipeline
recommend = pipeline("{TASK}", model="{place}")
```

Without it, with `transformers` and `torch` alone and the code of this repository; read it first:

```python
from transformers import pipeline
recommend = pipeline("{TASK}", model="{place}", trust_remote_code=True)
```

Then, for any text and the item ids that a person met, oldest first:

```python
for item in recommend({request}, top_k=5):
    print(item["score"], item["title"])
```

`recommend.processor` knows ids and titles of all items; a request may also name `history`, `allowed` and `exclude`."""


def _results(evaluation: Evaluation, weights: str | None) -> str:
    names = [control for control in evaluation.controls if "shuffled" in control]
    shuffled = "Shuffled: the same model on the same examples, with the preferences of other users.\n" if names else ""
    measured = f"\nMeasured with the weights of SHA-256 `{weights}`." if weights else ""
    return f"""\
## Results

Benchmark: {evaluation.source}, test split. Recall@k: share of examples whose one target is among the first k; m@k:
share of pairs whose item is found when asked for *and* kept out when it is to be avoided. In brackets, percentile
bootstrap intervals over examples. *Oracle* matching chooses the preference by looking at the target, *last* does not.
{shuffled}
{evaluation.table()}
{measured}"""


def _speed(settings: Mapping[str, Any]) -> str:
    if "request_ms" not in settings:
        return ""
    device = settings.get("device", "cpu")
    threads = f", {settings['threads']} thread(s)" if device == "cpu" and "threads" in settings else ""
    return f"""\
## Speed

One request, from text to ten ranked items: {settings["request_ms"]:.1f} ms; in batches of 32:
{settings["users_per_second"]:.1f} users per second ({device}{threads}; wall time, median of five rounds)."""


def _training(settings: Mapping[str, Any]) -> str:
    preset, run = _preset(settings), settings.get("training") or {}
    axes = [axis.replace("_", " ") for axis, share in (preset.get("axes") or {}).items() if share]
    modes = [mode for mode, share in (preset.get("matching") or {}).items() if share]
    encoder = preset.get("encoder_training") if preset.get("encoder") != "none" else None
    best = next((name for name in run if name.startswith("best_")), "best_ndcg@10")
    known = {
        "benchmark": settings.get("source"),
        "preset": preset.get("name"),
        "axes trained on": ", ".join(axes),
        "matching of preferences": ", ".join(modes) if preset.get("preference") != "none" else None,
        "encoder": encoder,
        "negative preferences": preset.get("negatives"),
        "epochs": run.get("epochs", settings.get("epochs")),
        "steps": run.get("steps"),
        f"best validation {best.removeprefix('best_').replace('ndcg', 'NDCG')}": run.get(best),
        "training samples per second": run.get("samples_per_second"),
        "trained parameters": settings.get("trained"),
        "seconds": settings.get("seconds"),
        "seed": settings.get("seed"),
        "commit": settings.get("commit"),
        "command": f"`{without_paths(settings['command'])}`" if settings.get("command") else None,
    }
    lines = [f"| {name} | {_cell(value)} |" for name, value in known.items() if value not in (None, "")]
    return "\n".join(["## The run behind it", "", "| | |", "|---|---|", *lines])


def _limits(reads: bool, evaluation: Evaluation | None) -> str:
    points = []
    if evaluation is not None and any(score.get("matching") == "oracle" for score in evaluation.scores):
        points.append(
            "*Oracle* matching picks the preference closest to the target, at test time too: its figures say what a "
            "fitting preference is worth, not how well the next item is foreseen. *Last* matching never looks at it."
        )
    if reads:
        points.append(
            "The benchmark's preferences are written by a machine from reviews, ratings and item attributes, not by "
            "the people themselves; what people type may differ."
        )
        points.append(_negative(evaluation))
    points.append("One item counts as right per example, although others may fit as well.")
    points.append("It knows the items of its catalogue and no others; its tastes are those of the training data.")
    return "## Limits\n\n" + "\n".join(f"- {point}" for point in points)


def _negative(evaluation: Evaluation | None) -> str:
    said = "What to avoid is read as text like everything else and is no filter"
    if evaluation is None:
        return f"{said}; whether it is heeded has to be measured (sentiment following)."
    trained = _preset(evaluation.settings).get("negatives")
    if trained == "none":
        said += "; this model was not trained on what to keep out"
    elif trained:
        said += f"; this model was trained on what to keep out ({trained} loss)"
    score = next((score for score in evaluation.scores if f"avoid@{evaluation.k}" in score), None)
    if score is None:
        return f"{said}."
    k = evaluation.k
    return (
        f"{said}. On {score['n']} test pairs, {score[f'recall@{k}']:.0%} of the texts that ask for an item find it "
        f"among the first {k}, {score[f'avoid@{k}']:.0%} of those that avoid it keep it out, and "
        f"{score[f'm@{k}']:.0%} of the pairs do both. To be sure, pass `exclude`."
    )


def _preset(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields of the preset of a run, of which some name nothing but the name."""
    preset = settings.get("preset") or {}
    return preset if isinstance(preset, Mapping) else {"name": preset}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
