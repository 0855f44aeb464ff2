"""The data card: what is in the repository, how it was made, how well, and on which terms.

The YAML at its head is what `load_dataset` reads; the rest is for people. It is made from the statistics of the data
sets alone, so that the same data sets make the same card.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Protocol as Shape

from huggingface_hub import DatasetCardData

from preference_benchmark.axes.protocol import PAPER, SPLITS, Protocol
from preference_benchmark.hub.plots import PLOTS
from preference_benchmark.recipes import RECIPES

__all__ = [
    "render",
    "table",
    "validation_section",
]


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_PARTS = {
    "oracle": "examples; the preference of the recommendation axis is the one closest to the target (the paper's)",
    "last": "examples; it is the one closest to the last item of the history, and never looks at the target",
    "items": "the catalogue; row number = item index",
}
_ABOUT = """\
# Preference discerning

Does a recommender listen? Every example shows what a user has met, says in plain language what is wanted, and names
the one item to be retrieved - or, where the sentiment is negative, to be kept out. The axes are those of *Preference
Discerning with LLM-Enhanced Generative Retrieval* (Paischer et al. 2025,
[arXiv:2412.08604](https://arxiv.org/abs/2412.08604)), and a sixth that its derivatives add.

| axis | asks |
|---|---|
| `recommendation` | history and one preference, to the next item |
| `fine_grained_steering` | away from the history's own next item, to a very similar one |
| `coarse_grained_steering` | away from the history's own next item, to one unlike it |
| `sentiment_following` | a preference and its opposite about one item, without a history: retrieve it, keep it out |
| `history_consolidation` | history and all five preferences of a step, to the next item |
| `sentiment_following_with_history` | the same pairs, after the history that led to the item |

"""
_COLUMNS = """\
| column | meaning |
|---|---|
| `axis` | class label, as above |
| `user_id` | whose history it is |
| `history` | item ids, oldest first, at most 20; empty where the axis has none |
| `preferences` | one text; five on `history_consolidation` |
| `sentiment` | `positive` / `negative`: what the preference says about the target |
| `target` | the item to retrieve, or to keep out where the sentiment is negative |
| `pair_id` | joins the two rows of a sentiment pair, with the same number on both sentiment axes; -1 elsewhere |

Splits are leave-last-two-out: of a user's items the last is the test target, the one before it the validation target.

## What to keep in mind

- Preferences are written by a machine, not by the users. Each section says by which.
- In the configs without `-last` the preference of the recommendation axis is chosen by looking at the target, as the
  paper does, in validation and test too. Report `-last` beside it.
- The negative preference of a sentiment pair was written after its item was met: it knows what it speaks of.
- One item counts as relevant. Others may fit a preference as well.
"""
_CITATION = """\
## Citation

```bibtex
@article{paischer2025preference,
  title={Preference Discerning with LLM-Enhanced Generative Retrieval},
  author={Paischer, Fabian and others},
  journal={Transactions on Machine Learning Research},
  year={2025},
  url={https://arxiv.org/abs/2412.08604}
}
```
"""


class DataSet(Shape):
    """A data set of the repository."""

    name: str
    place: str
    statistics: dict


def render(data_sets: Sequence[DataSet]) -> str:
    """The whole README.md of a repository with these data sets."""
    known = list(RECIPES)
    ordered = sorted(data_sets, key=lambda found: (known.index(found.name) if found.name in known else 99, found.name))
    text = f"---\n{_metadata(ordered).to_yaml()}\n---\n\n{_ABOUT}"
    text += "## Data sets\n\n" + table(
        ["data set", "items", "users", "interactions", *SPLITS],
        (
            [s["title"], s["items"], s["users"], s["interactions"], *(_examples(s, split) for split in SPLITS)]
            for s in (found.statistics for found in ordered)
        ),
    )
    text += "\n" + table(
        ["config", "holds"],
        (
            [f"`{name}`", f"{found.statistics['title']}: {_PARTS[config['part']]}"]
            for found in ordered
            for name, config in found.statistics["configs"].items()
        ),
    )
    items = next(name for name, config in ordered[0].statistics["configs"].items() if config["part"] == "items")
    text += f"""
```python
from datasets import load_dataset

examples = load_dataset("org/preference-discerning", "{next(iter(ordered[0].statistics["configs"]))}")
items = load_dataset("org/preference-discerning", "{items}", split="items")
```

{_COLUMNS}
"""
    text += "\n".join(_section(found) for found in ordered)
    return text + "\n" + _CITATION


def validation_section(statistics: dict) -> str:
    """What was measured about the benchmark itself, as Markdown."""
    parts = (_margins(statistics), _truth(statistics), _repeats(statistics), _leakage(statistics))
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers with thousands parted."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(_cell(value) for value in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value).replace("|", "\\|")


def _examples(statistics: dict, split: str) -> int:
    return sum(counts[split] for counts in statistics["examples"].values())


def _metadata(data_sets: Sequence[DataSet]) -> DatasetCardData:
    configs = [
        {
            "config_name": name,
            "data_files": [
                {"split": split, "path": f"{found.place}/{name}/{split}-*.parquet"} for split in config["splits"]
            ],
        }
        for found in data_sets
        for name, config in found.statistics["configs"].items()
    ]
    configs[0] = {"config_name": configs[0]["config_name"], "default": True, "data_files": configs[0]["data_files"]}
    total = sum(_examples(found.statistics, split) for found in data_sets for split in SPLITS)
    return DatasetCardData(
        pretty_name="Preference discerning",
        language="en",
        license="other",
        license_name="see-the-notices",
        annotations_creators="machine-generated",
        size_categories=next((name for most, name in _SIZES if total < most), "1M<n<10M"),
        tags=["recommendation", "sequential-recommendation", "generative-retrieval", "steerability", "preferences"],
        configs=configs,
    )


def _section(found: DataSet) -> str:
    """All about one data set."""
    s = found.statistics
    read, protocol = s["read"], s["protocol"]
    axes = [[f"`{axis}`", *(counts[split] for split in SPLITS)] for axis, counts in s["examples"].items()]
    dropped = [f"{count:,} {reason}" for reason, count in (read["dropped"] | read["notes"]).items() if count]
    if read["malformed"]:
        dropped.append(f"{read['malformed']:,} malformed lines")
    files = ", ".join(f"`{name}`" for name in read["files"]) or "no files: made by a program"
    origin = f" ([source]({s['homepage']}))" if s["homepage"] else ""
    core = ", ".join(f"{read['after'][what]:,} {what}" for what in ("users", "items", "interactions"))
    parts = [
        f"## {s['title']}",
        f"From {files}{origin}. After filtering to users of at least {protocol['min_user']} and items of at least "
        f"{protocol['min_item']} interactions: {core}; each user's latest {protocol['max_history']} are kept. "
        + (f"Left out or worth knowing: {'; '.join(dropped)}." if dropped else ""),
        f"Preferences by: {s['preferences_by']}; {s['preferences']['written']:,} written, "
        f"{s['preferences']['distinct']:,} distinct, {s['preferences']['negative']:,} negative. Compared by "
        f"{s['embedder']}.",
        f"**Terms.** {s['notice']}" + ("" if s["may_publish"] else " **Do not publish what is built from it.**"),
        table(["axis", *SPLITS], axes),
        *(f"![{s['title']}: {what}]({found.place}/{name})" for name, what in PLOTS.items()),
        "### How it was validated",
        validation_section(s),
        "### How it was made",
        _protocol(protocol),
    ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _margins(s: dict) -> str:
    rows = [
        [name, found["n"], found["target"], found["other"], found["margin"], f"{found['closer']:.1%}"]
        for name, found in s["validation"]["margins"].items()
    ]
    said = (
        "Cosine of the preference with its target and with another item: on the steering axes the one that the "
        "history itself goes on with, elsewhere one at random. Validation and test.\n\n"
    )
    return said + table(["axis", "n", "target", "other item", "margin", "target is closer"], rows)


def _truth(s: dict) -> str:
    if not s["validation"]["truth"]:
        return ""
    rows = [
        [question, found["n"], f"{found['rate']:.1%}", f"{found['chance']:.1%}", f"{found['named']:.1%}"]
        for question, found in s["validation"]["truth"].items()
    ]
    said = "What these customers like is known. Chance: the same question about another example's preference.\n\n"
    return said + table(["question", "n", "yes", "chance", "texts that name an aspect"], rows)


def _repeats(s: dict) -> str:
    found = s["validation"]["duplicates"]
    common, items = found["preferences"]["most_common"], found["items"]
    rows = [
        [name, axis["n"], axis["repeated"], axis["evaluated"], axis["trained_on"]]
        for name, axis in found["axes"].items()
    ]
    return (
        f'The commonest preference, "{common["text"]}", is {common["share"]:.2%} of all. Of {items["n"]:,} items '
        f"{items['with the title of another']:,} share their title with another and "
        f"{items['with the text of another']:,} their whole text.\n\n"
        + table(
            ["axis", "examples", "equal to another", "evaluated", "of these, preference and target in training"], rows
        )
    )


def _leakage(s: dict) -> str:
    leaks = [found for found in s["leakage"] if found["found"] and not found["by_design"]]
    known = [found for found in s["leakage"] if found["found"] and found["by_design"]]
    searched = f"Leakage: {len(s['leakage'])} searches"
    text = f"{searched}, nothing found." if not leaks else f"**{searched}, {len(leaks)} leaks found, and flagged:**"
    if leaks:
        text += "\n\n" + table(
            ["axis", "leak", "examples", "of"],
            ([found["axis"], found["rule"], found["found"], found["searched"]] for found in leaks),
        )
    if known:
        text += "\n\nBy design:\n\n" + table(
            ["axis", "what an example knows", "examples", "of"],
            ([found["axis"], found["rule"], found["found"], found["searched"]] for found in known),
        )
    return text


def _protocol(protocol: dict) -> str:
    """The choices beside the paper's, whose Steam and other special cases are at `Protocol`."""
    paper = asdict(PAPER)
    rows = [[f"`{name}`", _said(protocol[name]), _said(paper[name])] for name in asdict(Protocol())]
    return "Every choice, and the paper's (see `Protocol` for what each means):\n\n" + table(
        ["choice", "here", "paper"], rows
    )


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
