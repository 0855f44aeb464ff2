"""`mender preferences`: write preferences by rules or with a language model, and compare tables of them."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mender.cli import options
from mender.terminal import UserError, new_app, results, say, show_help, user_errors

if TYPE_CHECKING:
    from preference_benchmark.tables import Tables

__all__ = ["app"]

INCOMPLETE, INTERRUPTED = 3, 130
# What `--local` writes about, and where, unless it is said.
LOCAL_USERS, LOCAL_OUTPUT = 50, Path("outputs/local-preferences.parquet")
# Fields of the protocol that decide which users and steps there are.
SHAPING = ("min_user", "min_item", "max_history", "repeats", "user_stride")

app = new_app(name="preferences")


@app.callback(invoke_without_command=True)
def about(context: typer.Context) -> None:
    """Write preferences, and compare tables of them."""
    show_help(context)


@app.command()
@options.grouped
def write(
    tables: options.TableOptions,
    output: options.Output = None,
    source: options.Source = "corner-shop",
    changes: options.Set = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="Start a small model on this machine, or the GGUF file given by --model, and write for 50 users.",
        ),
    ] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Replace --output even if answers are missing.")] = False,
    approximator: Annotated[
        Literal["extractive", "transformers", "openai"],
        typer.Option(
            help="extractive: rules; transformers: a local model; openai: a server with an OpenAI-compatible API."
        ),
    ] = "extractive",
    limit: Annotated[int | None, typer.Option(min=1, help="Write for about this many users only.")] = None,
    polarity: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Text classifier that decides which preferences are negative."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Hub name, folder, GGUF file, or the server's name of the model.")
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(
            help="instruct: five preferences at once; one-review: for small chat models; few-shot: for base models; "
            "auto: what fits the model."
        ),
    ] = "auto",
    cache: Annotated[Path, typer.Option(help="Folder in which answers of a model are kept.")] = Path(
        "preference-answers"
    ),
    retries: Annotated[int, typer.Option(min=0, help="How often to ask again after an unusable answer.")] = 2,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Nucleus sampling: probability mass kept.")] = 0.9,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of tokens per answer.", show_default="512, or 48 for one line"),
    ] = None,
    patience: Annotated[int, typer.Option(min=0, help="Stop after this many useless answers in a row; 0: never.")] = 30,
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    prompt_price: Annotated[float, typer.Option(min=0, help="Dollars per million tokens read.")] = 0.0,
    completion_price: Annotated[float, typer.Option(min=0, help="Dollars per million tokens written.")] = 0.0,
    batch_size: options.BatchSize = 8,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    base_url: options.BaseUrl = None,
    key_variable: Annotated[str, typer.Option(help="Environment variable with the server's key.")] = "OPENAI_API_KEY",
    response_format: Annotated[
        str, typer.Option(help="Form of the answers: json_schema, json_object, text, or auto.")
    ] = "auto",
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Requests to the server at the same time.", show_default="the server's slots, or 16"),
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="How often a request is sent before it counts as lost.")] = 6,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for an answer.")] = 120.0,
    requests_per_minute: Annotated[
        float | None, typer.Option(min=0, help="Maximum number of requests per minute.")
    ] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(min=0, help="Maximum number of tokens per minute.")] = None,
    encoder: options.Encoder = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write a table of preferences: a Parquet file, and a JSON file that records how they were written.

    Run the same command again to continue a run that was stopped; no answer of a language model is asked for twice. The
    file fits benchmarks that are built with the same reading options (--option, --set, --min-user, ...). Exit codes: 0
    every step has its answer, 3 some have none, 130 interrupted.

    mender preferences write --output outputs/extractive.parquet

    mender preferences write --local
    """
    if local:
        if approximator != "extractive" or base_url:
            raise UserError("--local starts its own server; leave out --approximator and --base-url")
        approximator, limit, output = "openai", limit or LOCAL_USERS, output or LOCAL_OUTPUT
    if output is None:
        raise UserError("no output; pass --output NAME.parquet")
    if output.suffix != ".parquet":
        raise UserError(f"--output {output} does not end in .parquet; preferences are written as Parquet")
    if approximator != "extractive" and not (model or local):
        raise UserError(f"--approximator {approximator} needs a model; pass --model NAME")

    def engine(address: str | None) -> Any:
        from preference_benchmark.preferences.llm.engine import Sampling
        from preference_benchmark.preferences.llm.prompts import prompt_named

        sampling = Sampling(temperature, top_p, max_tokens, seed)
        chosen, why = None if prompt == "auto" else prompt_named(prompt), ""
        if approximator == "transformers":
            from preference_benchmark.preferences.llm.local_model import LocalModel

            found = LocalModel(model, chosen, sampling=sampling, batch_size=batch_size, device=device, dtype=dtype)
            why = found.why
        else:
            from preference_benchmark.preferences.llm.server import OpenAIServer
            from preference_benchmark.preferences.llm.server_features import assumed_prompt, look_at, prompt_for

            where = {"model": model or "local", "base_url": address, "api_key": os.environ.get(key_variable)}
            features = look_at(**where)
            if chosen is None:
                ask = assumed_prompt if dry_run else prompt_for
                chosen, features, why = ask(features, **where)
            found = OpenAIServer(
                prompt=chosen,
                features=features,
                sampling=sampling,
                response_format=response_format,
                concurrency=concurrency,
                tries=tries,
                timeout=timeout,
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
                **where,
            )
            say(f"server: {features}")
        say(f"prompt: {found.prompt.name}" + (f" ({why})" if why else ""))
        return found

    def by_model(read: Tables, address: str | None) -> tuple[Any, dict[str, Any]]:
        from preference_benchmark.preferences.llm.answers import Prices
        from preference_benchmark.preferences.llm.approximator import Interrupted, LlmApproximator, Useless

        extra = {"polarity": _classifier(polarity, device)} if polarity else {}
        prices = Prices(prompt_price, completion_price)
        asked = engine(address)
        approximate = LlmApproximator(
            asked, asked.prompt, cache, retries=retries, limit=limit, prices=prices, patience=patience, **extra
        )
        if dry_run:
            print(approximate.estimate(read))
            raise typer.Exit
        try:
            preferences = approximate(read)
        except (Interrupted, Useless) as stopped:
            say(f"{approximate.report}\n{stopped}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED if isinstance(stopped, Interrupted) else INCOMPLETE) from stopped
        approximate.report.agreement = _agreement(preferences, read, encoder)
        say(approximate.report)
        return preferences, approximate.report.as_dict()

    with results(as_json, quiet) as show, user_errors():
        from preference_benchmark.availability import check_model

        if polarity is not None:
            remedy = (
                "Leave --polarity out for the rules, pass a folder with a copy of the model, or connect to the Hub."
            )
            check_model("classifier", polarity, remedy)

        from preference_benchmark.preferences.files import check_replaced, write_preferences

        read, reading = _read(source, tables, changes)
        if not (partial or dry_run):
            check_replaced(output, _chosen_users(read, limit))
        if approximator == "extractive":
            classifier = _classifier(polarity, device) if polarity else None
            preferences, report = _extractive(read, limit, classifier)
        elif local:
            from preference_benchmark.preferences.llm.local_engine import local_server, packaged_model

            with local_server(model or packaged_model()) as address:
                preferences, report = by_model(read, address)
        else:
            preferences, report = by_model(read, base_url)
        missing = report.get("steps", {}).get("unfinished", 0)
        if missing:
            print(f"{missing:,} steps have no answer; run the same command to ask for them again", file=sys.stderr)
        if preferences.is_empty():
            message = f"no preference was written, and {output} was not changed; see the lines above for the reason"
            if not missing:
                raise UserError(message)
            print(message, file=sys.stderr)
            raise typer.Exit(INCOMPLETE)
        if missing and output.exists() and not partial:
            print(f"{output} was not changed, since steps are missing; --partial writes over it", file=sys.stderr)
            raise typer.Exit(INCOMPLETE)
        report |= {"source": source, "options": reading}
        report_path = write_preferences(preferences, output, report, read)
        print(f"{preferences.height:,} preferences in {output}, how they were written in {report_path}")
        show({"output": str(output), "preferences": preferences.height, **report})
        if missing:
            raise typer.Exit(INCOMPLETE)


@app.command()
@options.grouped
def compare(
    files: Annotated[
        list[Path], typer.Argument(help="Tables that `mender preferences write` wrote.", show_default=False)
    ],
    tables: options.TableOptions,
    source: options.Source = "corner-shop",
    changes: options.Set = None,
    targets: Annotated[Literal["held-out", "all"], typer.Option(help="Which next items to search for.")] = "held-out",
    encoder: options.Encoder = None,
    seed: options.Seed = 0,
    figure: Annotated[Path | None, typer.Option(help="Draw recall against k into this file.")] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare tables of preferences on the same users.

    Measures the rank of each user's next item when the catalogue is ordered by preferences, agreement of polarity with
    ratings, diversity, names of brands and products, length, and cost.

    mender preferences compare outputs/extractive.parquet outputs/llama.parquet
    """
    with results(as_json, quiet) as show, user_errors():
        from preference_benchmark.embedding import TextEmbedder
        from preference_benchmark.preferences.files import read_preferences, restrict_to_tables
        from preference_benchmark.preferences.quality import compare as compare_preferences

        found = {}
        for path in files:
            name = path.stem if path.stem not in found else str(path)
            found[name] = path, *read_preferences(path)
        read, _ = _read(source, tables, changes)
        comparison = compare_preferences(
            {name: restrict_to_tables(preferences, read, path) for name, (path, preferences, _) in found.items()},
            read,
            TextEmbedder(encoder),
            reports={name: report for name, (_, _, report) in found.items()},
            targets=targets,
            seed=seed,
        )
        say(comparison)
        if figure:
            comparison.draw(figure)
        show(comparison.record())


def _read(source: str, given: options.TableOptions, changes: list[str] | None) -> tuple[Tables, dict[str, Any]]:
    """The tables that `mender benchmark build` makes with the same options, and these options."""
    from preference_benchmark import read_tables, recipe

    fields = options.assignments(changes or [], "--set")
    unused = [name for name in fields if name not in SHAPING]
    if unused:
        known = f"{', '.join(SHAPING[:-1])} or {SHAPING[-1]}"
        raise ValueError(f"--set {unused[0]} has no effect on preferences; set {known}")
    chosen = recipe(source, data=given.data, **given.changes)
    chosen = dataclasses.replace(chosen, protocol=chosen.protocol.replace(**fields))
    return read_tables(chosen), chosen.reading | {"user_stride": chosen.protocol.user_stride}


def _chosen_users(tables: Tables, limit: int | None) -> list[str]:
    from preference_benchmark.preferences.llm.approximator import first_users

    return first_users(tables, limit).interactions["user_id"].unique().to_list()


def _agreement(preferences: Any, tables: Tables, encoder: str | None) -> dict[str, Any]:
    """How preferences agree with ratings, as `compare` measures it; empty where there is no encoder."""
    from preference_benchmark.embedding import CachedEmbedder, TextEmbedder, Unavailable
    from preference_benchmark.preferences.quality import polarity_agreement

    if preferences.is_empty():
        return {}
    try:
        embedder = CachedEmbedder(TextEmbedder(encoder, progress=False))
        agrees, balanced, compared = polarity_agreement(preferences, tables, embedder)
    except Unavailable as error:
        say(f"agreement with ratings was not measured: {error}", file=sys.stderr)
        return {}
    known = balanced == balanced  # NaN where all ratings point the same way
    return {"agrees": agrees, "balanced": balanced if known else None, "compared": compared} if compared else {}


def _extractive(tables: Tables, limit: int | None, polarity: Callable | None) -> tuple[Any, dict[str, Any]]:
    """Preferences by rules; the vocabulary is that of the whole data set, the preferences those of the first users."""
    from preference_benchmark.preferences.extractive import ExtractiveApproximator
    from preference_benchmark.preferences.llm.approximator import first_users

    begin = time.monotonic()
    preferences = ExtractiveApproximator()(tables)
    seconds = time.monotonic() - begin
    users = tables.interactions["user_id"].n_unique()
    chosen = first_users(tables, limit).interactions.select("user_id").unique()
    preferences = preferences.join(chosen, on="user_id", how="semi", maintain_order="left")
    if polarity is not None:
        preferences = preferences.with_columns(sentiment=polarity(preferences["text"]))
    share = chosen.height / users
    return preferences, {"approximator": "extractive", "users": chosen.height, "cost": 0.0, "seconds": seconds * share}


def _classifier(name: str, device: str | None) -> Callable:
    from preference_benchmark.preferences.polarity import SentimentClassifier

    return SentimentClassifier(name, device).polarity
