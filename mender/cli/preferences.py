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
from mender.terminal import UserError, new_app, results, show_help, user_errors

if TYPE_CHECKING:
    from preference_benchmark.tables import Tables

__all__ = ["app"]

INTERRUPTED = 130
# Fields of the protocol that decide which users and steps there are.
SHAPING = ("min_user", "min_item", "max_history", "repeats", "user_stride")

app = new_app()


@app.callback(invoke_without_command=True)
def about(context: typer.Context) -> None:
    """Write preferences, and compare tables of them."""
    show_help(context)


@app.command()
@options.grouped
def write(
    tables: options.TableOptions,
    output: options.Output,
    source: options.Source = "corner-shop",
    changes: options.Set = None,
    approximator: Annotated[
        Literal["extractive", "transformers", "openai"],
        typer.Option(
            help="extractive: rules; transformers: a local model; openai: a server with an OpenAI-compatible API."
        ),
    ] = "extractive",
    limit: Annotated[int | None, typer.Option(min=1, help="Write about this many users only.")] = None,
    polarity: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Text classifier that decides which preferences are negative."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Hub name, folder, or the server's name of the model.")] = None,
    prompt: Annotated[str, typer.Option(help="instruct, or few-shot for small and base models.")] = "instruct",
    cache: Annotated[Path, typer.Option(help="Folder in which answers of a model are kept.")] = Path(
        "preference-answers"
    ),
    retries: Annotated[int, typer.Option(min=0, help="How often to ask again after an unusable answer.")] = 2,
    temperature: Annotated[float, typer.Option(min=0, help="Temperature of sampling.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Nucleus sampling: probability mass kept.")] = 0.9,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 512,
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    prompt_price: Annotated[float, typer.Option(min=0, help="Dollars per million tokens read.")] = 0.0,
    completion_price: Annotated[float, typer.Option(min=0, help="Dollars per million tokens written.")] = 0.0,
    batch_size: options.BatchSize = 8,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    base_url: Annotated[
        str | None,
        typer.Option(help="Server, as http://127.0.0.1:8000/v1.", show_default="OPENAI_BASE_URL, else OpenAI's"),
    ] = None,
    key_variable: Annotated[str, typer.Option(help="Environment variable with the server's key.")] = "OPENAI_API_KEY",
    response_format: Annotated[
        str, typer.Option(help="What the server is asked for: json_schema, json_object or text.")
    ] = "json_schema",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at the same time.")] = 16,
    tries: Annotated[int, typer.Option(min=1, help="How often a request is sent before it counts as lost.")] = 6,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for an answer of the server.")] = 120.0,
    requests_per_minute: Annotated[float | None, typer.Option(min=0, help="Rate limit of the server.")] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(min=0, help="Rate limit of the server.")] = None,
    as_json: options.Json = False,
) -> None:
    """Write a table of preferences: a Parquet file, and a JSON file that records how they were written.

    A run with a language model that was stopped or killed continues when the same command is given again. What is
    written fits a benchmark that is built with the same reading options (--option, --set, --min-user, ...), no other.

    mender preferences write --source corner-shop --output outputs/extractive.parquet
    """
    from preference_benchmark.preferences.files import write_preferences

    def engine() -> Any:
        from preference_benchmark.preferences.llm.engine import Sampling

        sampling = Sampling(temperature, top_p, max_tokens, seed)
        if approximator == "transformers":
            from preference_benchmark.preferences.llm.local_model import LocalModel

            return LocalModel(model, template, sampling=sampling, batch_size=batch_size, device=device, dtype=dtype)
        from preference_benchmark.preferences.llm.server import OpenAIServer

        return OpenAIServer(
            model,
            template,
            base_url=base_url,
            api_key=os.environ.get(key_variable),
            sampling=sampling,
            response_format=response_format,
            concurrency=concurrency,
            tries=tries,
            timeout=timeout,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )

    if output.suffix != ".parquet":
        raise UserError(f"--output {output} does not end in .parquet; preferences are written as Parquet")
    if approximator != "extractive" and not model:
        raise UserError(f"--approximator {approximator} needs a model; pass --model NAME")
    with results(as_json) as show, user_errors():
        read, reading = _read(source, tables, changes)
        if approximator == "extractive":
            classifier = _classifier(polarity, device) if polarity else None
            preferences, report = _extractive(read, limit, classifier)
        else:
            from preference_benchmark.preferences.llm.answers import Prices
            from preference_benchmark.preferences.llm.approximator import Interrupted, LlmApproximator
            from preference_benchmark.preferences.llm.prompts import prompt_named

            template = prompt_named(prompt)
            extra = {"polarity": _classifier(polarity, device)} if polarity else {}
            prices = Prices(prompt_price, completion_price)
            approximate = LlmApproximator(
                engine(), template, cache, retries=retries, limit=limit, prices=prices, **extra
            )
            if dry_run:
                print(approximate.estimate(read))
                return
            try:
                preferences = approximate(read)
            except Interrupted as stopped:
                print(f"{approximate.report}\n{stopped}", file=sys.stderr)
                raise typer.Exit(INTERRUPTED) from stopped
            print(approximate.report)
            report = approximate.report.as_dict()
        if preferences.is_empty():
            raise UserError(
                f"no preference was written, and {output} was not changed; see the lines above for the reason"
            )
        report |= {"source": source, "options": reading}
        report_path = write_preferences(preferences, output, report, read)
        print(f"{preferences.height:,} preferences in {output}, how they were written in {report_path}")
        show({"output": str(output), "preferences": preferences.height, **report})


@app.command()
@options.grouped
def compare(
    files: Annotated[
        list[Path], typer.Argument(help="Tables that `mender preferences write` wrote.", show_default=False)
    ],
    tables: options.TableOptions,
    source: options.Source = "corner-shop",
    changes: options.Set = None,
    targets: Annotated[
        Literal["held-out", "all"], typer.Option(help="Which next items are searched for.")
    ] = "held-out",
    encoder: options.Encoder = None,
    seed: options.Seed = 0,
    figure: Annotated[Path | None, typer.Option(help="Draw recall against k into this file.")] = None,
    as_json: options.Json = False,
) -> None:
    """Compare tables of preferences on the same users.

    Measures the rank of each user's next item when the catalogue is ordered by preferences, agreement of polarity with
    ratings, diversity, names of brands and products, length, and cost.

    mender preferences compare outputs/extractive.parquet outputs/llama.parquet --source corner-shop
    """
    from preference_benchmark.embedding import TextEmbedder
    from preference_benchmark.preferences.files import read_preferences, restrict_to_tables
    from preference_benchmark.preferences.quality import compare as compare_preferences

    with results(as_json) as show, user_errors():
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
        print(comparison)
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
