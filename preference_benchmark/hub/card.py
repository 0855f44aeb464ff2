"""The data card: what is in a repository, how it was made, how good it is, and on which terms.

The YAML at its head is what `load_dataset` reads; the rest is `card_template.md`, filled from the statistics of the
benchmarks alone, so that the same benchmarks make the same card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from typing import Protocol as Shape
from urllib.parse import quote

import jinja2
from huggingface_hub import DatasetCardData

from preference_benchmark.axes.protocol import PAPER, SPLITS, Protocol
from preference_benchmark.hub.plots import PLOTS

__all__ = ["SPECIFICITY", "benchmark_configs", "markdown_table", "render", "specificity_warnings", "validation_section"]

SPECIFICITY = {
    "fit (cosine)": "fit_by_cosine",
    "fit (aspects)": "fit_by_aspects",
    "alone (cosine)": "by_cosine",
    "alone (aspects)": "by_aspects",
    "popular items": "popularity",
    "in titles": "in_titles",
}
"""Headers of the table of specificity, and the figure of `checks.specificity` below each."""

_TEMPLATE = Path(__file__).parent / "card_template.md"
# A name that the template gets no value for is an error, not an empty text.
_ENVIRONMENT = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
_OF_ADDRESSES = "/:?#@&=+,;%~"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SPLITS = {
    "leave_last_two": "Of a user's items the last is the test target, the one before it the validation target.",
    "time": "Two points in time, before which {0:.0%} and {1:.0%} of the interactions lie, begin the validation and "
    "the test period; a user's first item in each is a target.",
}
_PARTS = {
    "oracle": "examples; the preference of the recommendation axis is the one closest to the target (the paper's)",
    "last": "examples; it is the one closest to the last item of the history, and never looks at the target",
    "items": "the catalogue; row number = item index",
}


class Listed(Shape):
    """A benchmark of the repository."""

    name: str
    place: str
    statistics: dict


def render(benchmarks: Sequence[Listed]) -> str:
    """The whole README.md of a repository with these benchmarks."""
    ordered = sorted(benchmarks, key=lambda found: found.name)
    statistics = [found.statistics for found in ordered]
    configs = {
        name: (config, found.statistics["title"])
        for found in ordered
        for name, config in found.statistics["configs"].items()
    }
    parts = {config["part"]: name for name, (config, _) in reversed(configs.items())}
    counted = ("items", "users", "interactions")
    rows = (
        [s["title"], *(s[name] for name in counted), *(_examples(s, split) for split in SPLITS)] for s in statistics
    )
    held = ([f"`{name}`", f"{title}: {_PARTS[config['part']]}"] for name, (config, title) in configs.items())
    return _ENVIRONMENT.from_string(_TEMPLATE.read_text("utf-8")).render(
        card_data=_metadata(ordered).to_yaml(),
        benchmarks_table=markdown_table(["data set", *counted, *SPLITS], rows),
        configs_table=markdown_table(["config", "holds"], held),
        example_config=next(iter(configs)),
        items_config=parts["items"],
        sections=[_section(found) for found in ordered],
    )


def benchmark_configs(splits: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Configs as the head of a card names them; the first is the default.

    Args:
        splits: by config the patterns of its files, by split: {"steam": {"test": "steam/test-*.parquet"}}.
    """
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in files.items()]}
        for name, files in splits.items()
    ]
    listed[0] = {"config_name": listed[0]["config_name"], "default": True, "data_files": listed[0]["data_files"]}
    return listed


def validation_section(statistics: dict) -> str:
    """What was measured about the benchmark itself, as Markdown."""
    parts = (
        _specificity(statistics),
        _margins(statistics),
        _truth(statistics),
        _repeats(statistics),
        _leakage(statistics),
    )
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; whole numbers with thousands separators, others with three decimals."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(_cell(value) for value in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _inert(value).replace("|", "\\|")


def _inert(value: object) -> str:
    r"""Text of others on one line, which neither HTML nor a link or an image comes of.

    >>> _inert("Shop <!-- x --> ![](y)")
    'Shop &lt;!-- x --> !\\[]\\(y)'
    """
    shown = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return re.sub(r"\](?=\(|\[)|!(?=\[)", r"\g<0>\\", " ".join(shown.split()).replace("<", "&lt;"))


def _examples(statistics: dict, split: str) -> int:
    return sum(counts[split] for counts in statistics["examples"].values())


def _metadata(benchmarks: Sequence[Listed]) -> DatasetCardData:
    total = sum(_examples(found.statistics, split) for found in benchmarks for split in SPLITS)
    configs = {
        name: {split: f"{found.place}/{name}/{split}-*.parquet" for split in config["splits"]}
        for found in benchmarks
        for name, config in found.statistics["configs"].items()
    }
    return DatasetCardData(
        pretty_name="Preference discerning",
        language="en",
        license="other",
        license_name="see-the-notices",
        annotations_creators="machine-generated",
        size_categories=next((name for most, name in _SIZES if total < most), "1M<n<10M"),
        tags=["recommendation", "sequential-recommendation", "generative-retrieval", "steerability", "preferences"],
        configs=benchmark_configs(configs),
    )


def _section(found: Listed) -> dict[str, Any]:
    """What the template says about one benchmark."""
    s = found.statistics
    read, written = s["read"], s["preferences"]
    dropped = [f"{count:,} {_inert(reason)}" for reason, count in (read["dropped"] | read["notes"]).items() if count]
    dropped += [f"{count:,} malformed {_inert(reason)}" for reason, count in read["malformed"].items()]
    names = (_inert(name).replace("`", "'") for name in read["files"])
    files = ", ".join(f"`{name}`" for name in names) or "no files: generated by a program"
    if s["homepage"].startswith("http"):
        files += f" ([source]({quote(s['homepage'], safe=_OF_ADDRESSES)}))"
    axes = []
    for axis, counts in s["examples"].items():
        axes.append([f"`{axis}`", *(counts[split] for split in SPLITS)])
        own = [found for found in s["strata"] if found["axis"] == axis]
        axes += [[f"- {found['stratum']}", *(found[split] for split in SPLITS)] for found in own]
    return {
        **{name: _inert(s[name]) for name in ("title", "preferences_by", "embedder", "notice")},
        "protocol": s["protocol"],
        "restriction": "" if s["may_publish"] else " **Do not publish what is built from it.**",
        "place": found.place,
        "origin": files,
        "after": ", ".join(f"{read['after'][what]:,} {what}" for what in ("users", "items", "interactions")),
        "dropped": f" Left out or worth knowing: {'; '.join(dropped)}." if dropped else "",
        "split": _SPLITS[s["protocol"]["split"]].format(*s["protocol"]["time_quantiles"]),
        "preferences": ", ".join(f"{written[what]:,} {what}" for what in ("written", "distinct", "negative")),
        "axes": markdown_table(["axis", *SPLITS], axes),
        "plots": list(PLOTS.items()),
        "validation": validation_section(s),
        "choices": _choices(s["protocol"]),
    }


def _specificity(s: dict) -> str:
    header = ["axis", "n", *SPECIFICITY]
    rows = [
        [name, found["n"], *("" if found[figure] is None else found[figure] for figure in SPECIFICITY.values())]
        for name, found in s["specificity"].items()
    ]
    text = (
        "How specific preferences are, on the test split. Fit: how many items fit a preference as well as the target "
        "does, with the target (median), by cosine and by the aspects that it names; on wishes, how many are relevant. "
        "Alone: recall@10 of a ranking by the preference alone; on wishes, precision among the first min(10, "
        "all relevant). A model that also uses the history can reach more. Popular items: the same of the most popular "
        "ones, whatever the preference says. In titles: share of the relevant items, or of those to avoid, whose "
        "titles name the attribute.\n\n" + markdown_table(header, rows)
    )
    return "\n\n".join([text.rstrip(), *(f"**{_inert(warning)}**" for warning in specificity_warnings(s))])


def specificity_warnings(statistics: dict) -> list[str]:
    """One sentence for each axis that cannot tell models apart."""
    return [
        f"{name} cannot tell whether a model uses preferences: what a preference alone reaches "
        f"({max(found['by_cosine'], found['by_aspects']):.3f}) is too close to what popularity reaches "
        f"({found['popularity']:.3f}), with n = {found['n']:,}."
        for name, found in statistics["specificity"].items()
        if not found["tells_apart"]
    ]


def _margins(s: dict) -> str:
    rows = (
        [name, found["n"], found["target"], found["other"], found["margin"], f"{found['closer']:.1%}"]
        for name, found in s["validation"]["margins"].items()
    )
    return (
        "Cosine of the preference with its target and with another item: on the steering axes the one that the "
        "history itself continues with, elsewhere a random one. Validation and test.\n\n"
        + markdown_table(["axis", "n", "target", "other item", "margin", "target is closer"], rows)
    )


def _truth(s: dict) -> str:
    if not s["validation"]["truth"]:
        return ""
    rows = (
        [question, found["n"], f"{found['rate']:.1%}", f"{found['chance']:.1%}", f"{found['named']:.1%}"]
        for question, found in s["validation"]["truth"].items()
    )
    return (
        "The true tastes of these customers are known. Chance: the same question about another example's preference."
        "\n\n" + markdown_table(["question", "n", "yes", "chance", "texts that name an aspect"], rows)
    )


def _repeats(s: dict) -> str:
    found = s["validation"]["duplicates"]
    common, items = found["preferences"]["most_common"], found["items"]
    rows = (
        [name, axis["n"], axis["repeated"], axis["evaluated"], axis["trained_on"]]
        for name, axis in found["axes"].items()
    )
    header = ["axis", "examples", "equal to another", "evaluated", "of these, preference and target in training"]
    return (
        f'The commonest preference, "{_inert(common["text"])}", is {common["share"]:.2%} of all. Of {items["n"]:,} '
        f"items {items['with the title of another']:,} share their title with another and "
        f"{items['with the text of another']:,} their whole text.\n\n" + markdown_table(header, rows)
    )


def _leakage(s: dict) -> str:
    def listed(header: str, findings: list[dict]) -> str:
        rows = ([found["axis"], found["rule"], found["found"], found["searched"]] for found in findings)
        return "\n\n" + markdown_table(["axis", header, "examples", "of"], rows)

    leaks = [found for found in s["leakage"] if found["found"] and not found["by_design"]]
    known = [found for found in s["leakage"] if found["found"] and found["by_design"]]
    searched = f"Leakage: {len(s['leakage'])} searches"
    text = f"{searched}, nothing found." if not leaks else f"**{searched}, {len(leaks)} leaks found, and flagged:**"
    if leaks:
        text += listed("leak", leaks)
    if known:
        text += "\n\nBy design:" + listed("what an example knows", known)
    return text


def _choices(protocol: dict) -> str:
    """The choices beside the paper's; what it does differently on single data sets is at `Protocol`."""
    paper = asdict(PAPER)
    rows = ([f"`{name}`", _listed(protocol[name]), _listed(paper[name])] for name in asdict(Protocol()))
    return markdown_table(["choice", "here", "paper"], rows)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
