"""Write preferences with a language model or without, and compare tables of them.

  write    one table of preferences, by rules (extractive), a local model (transformers) or a server (openai)
  compare  how good tables are, on the same users: retrieval of the next item, polarity, diversity, names, cost

A run with a model that was stopped or killed continues when the same command is given again. What is written with
--option and --set fits a benchmark that is built with the same ones, and no other.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from preference_benchmark.tables import Tables

__all__ = ["add_arguments", "run"]

APPROXIMATORS = ("extractive", "transformers", "openai")
_INTERRUPTED = 130
# Fields of the protocol that say which steps there are and who is asked.
_SHAPING = ("min_user", "min_item", "max_history", "user_stride")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the two actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    write = actions.add_parser("write", help="write a table of preferences")
    _add_data(write)
    write.add_argument("--output", type=Path, required=True, help="the table, a .parquet file")
    write.add_argument("--approximator", choices=APPROXIMATORS, default="extractive")
    write.add_argument("--limit", type=int, help="write about so many users only")
    write.add_argument("--polarity", metavar="MODEL", help="text-classification model that says which are negative")
    model = write.add_argument_group("with a language model")
    model.add_argument("--model", help="Hub name, folder, or the server's name of the model")
    model.add_argument("--prompt", default="instruct", help="instruct (default), or few-shot for small or base models")
    model.add_argument("--cache", type=Path, default=Path("preference-answers"), help="folder of answers")
    model.add_argument("--retries", type=int, default=2, help="how often an unusable answer is asked for again")
    model.add_argument("--temperature", type=float, default=0.6)
    model.add_argument("--top-p", type=float, default=0.9)
    model.add_argument("--max-tokens", type=int, default=512)
    model.add_argument("--seed", type=int, default=0)
    model.add_argument("--dry-run", action="store_true", help="estimate requests, tokens and cost; send nothing")
    model.add_argument("--prompt-price", type=float, default=0.0, help="dollars per million tokens read")
    model.add_argument("--completion-price", type=float, default=0.0, help="dollars per million tokens written")
    local = write.add_argument_group("transformers")
    local.add_argument("--batch-size", type=int, default=8)
    local.add_argument("--device", help="as torch names it; default: the accelerator if there is one")
    local.add_argument("--dtype", default="auto")
    server = write.add_argument_group("openai")
    server.add_argument("--base-url", help="such as http://127.0.0.1:8000/v1; default: OPENAI_BASE_URL, else OpenAI's")
    server.add_argument("--key-variable", default="OPENAI_API_KEY", help="environment variable that holds the key")
    server.add_argument("--response-format", default="json_schema", help="json_schema, json_object or text")
    server.add_argument("--concurrency", type=int, default=16, help="requests under way at the same time")
    server.add_argument("--tries", type=int, default=6, help="how often a request is sent before it counts as lost")
    server.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for an answer")
    server.add_argument("--requests-per-minute", type=float)
    server.add_argument("--tokens-per-minute", type=float)
    write.set_defaults(action=_write)

    compare = actions.add_parser("compare", help="compare tables of preferences on the same users")
    _add_data(compare)
    compare.add_argument("preferences", nargs="+", type=Path, help="tables that `write` wrote")
    compare.add_argument("--targets", choices=("held-out", "all"), default="held-out", help="which next items to seek")
    compare.add_argument("--encoder", help="sentence-transformers model; default: all-MiniLM-L6-v2")
    compare.add_argument("--seed", type=int, default=0)
    compare.add_argument("--json", type=Path, help="write the numbers to this file as well")
    compare.add_argument("--figure", type=Path, help="draw recall against k into this file as well")
    compare.set_defaults(action=_compare)


def run(arguments: argparse.Namespace) -> int:
    """Write or compare."""
    return arguments.action(arguments)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="format of the data set, such as amazon2014 or corner-shop")
    parser.add_argument("--data", type=Path, help="folder of the data set; none for corner-shop")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the reader")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help=f"a field of the protocol: {_listed()}"
    )


def _listed() -> str:
    return f"{', '.join(_SHAPING[:-1])} or {_SHAPING[-1]}"


def _read(arguments: argparse.Namespace) -> tuple[Tables, dict[str, object]]:
    """The tables that `build` makes with the same options, and these options."""
    from preference_benchmark.assemble import ask_every
    from preference_benchmark.axes.protocol import Protocol
    from preference_benchmark.commands.build import assigned
    from preference_benchmark.sources import read_source

    protocol = Protocol().parsed(arguments.set)
    idle = [text for text in arguments.set if text.partition("=")[0] not in _SHAPING]
    if idle:
        raise ValueError(f"--set {idle[0]!r} changes nothing that preferences are written from; set {_listed()}.")
    options = protocol.reading | dict(assigned(text) for text in arguments.option)
    tables = read_source(arguments.source, arguments.data, **options)
    return ask_every(tables, protocol.user_stride), options | {"user_stride": protocol.user_stride}


def _write(arguments: argparse.Namespace) -> int:
    from preference_benchmark.preferences.files import write_preferences
    from preference_benchmark.preferences.llm.approximator import Interrupted

    if arguments.output.suffix != ".parquet":
        raise ValueError(f"--output {arguments.output} does not end in .parquet; preferences are written as Parquet.")
    if arguments.approximator != "extractive" and not arguments.model:
        raise ValueError(f"--approximator {arguments.approximator} needs a model; pass --model NAME.")
    tables, options = _read(arguments)
    if arguments.approximator == "extractive":
        preferences, report = _extractive(arguments, tables)
    else:
        approximator = _llm(arguments)
        if arguments.dry_run:
            print(approximator.estimate(tables))
            return 0
        try:
            preferences = approximator(tables)
        except Interrupted as stopped:
            print(f"{approximator.report}\n{stopped}", file=sys.stderr)
            return _INTERRUPTED
        print(approximator.report)
        report = approximator.report.as_dict()
    report |= {"source": arguments.source, "options": options}
    beside = write_preferences(preferences, arguments.output, report, tables)
    print(f"{preferences.height:,} preferences in {arguments.output}, how they came to be in {beside}")
    return 0


def _extractive(arguments: argparse.Namespace, tables: Tables) -> tuple[object, dict[str, object]]:
    from preference_benchmark.preferences.extractive import ExtractiveApproximator
    from preference_benchmark.preferences.llm.approximator import first_users

    # The vocabulary belongs to the whole data set, the preferences to the users asked for.
    begin = time.monotonic()
    preferences = ExtractiveApproximator()(tables)
    seconds = time.monotonic() - begin
    users = tables.interactions["user_id"].n_unique()
    wanted = first_users(tables, arguments.limit).interactions.select("user_id").unique()
    preferences = preferences.join(wanted, on="user_id", how="semi", maintain_order="left")
    if arguments.polarity:
        preferences = preferences.with_columns(sentiment=_polarity(arguments)(preferences["text"]))
    share = wanted.height / users
    return preferences, {"approximator": "extractive", "users": wanted.height, "cost": 0.0, "seconds": seconds * share}


def _llm(arguments: argparse.Namespace) -> Callable:
    from preference_benchmark.preferences.llm.answers import Prices
    from preference_benchmark.preferences.llm.approximator import LlmApproximator
    from preference_benchmark.preferences.llm.engine import Sampling
    from preference_benchmark.preferences.llm.prompts import prompt_named

    prompt = prompt_named(arguments.prompt)
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_tokens, arguments.seed)
    if arguments.approximator == "openai":
        from preference_benchmark.preferences.llm.server import OpenAIServer

        engine = OpenAIServer(
            arguments.model,
            prompt,
            base_url=arguments.base_url,
            api_key=os.environ.get(arguments.key_variable),
            sampling=sampling,
            response_format=arguments.response_format,
            concurrency=arguments.concurrency,
            tries=arguments.tries,
            timeout=arguments.timeout,
            requests_per_minute=arguments.requests_per_minute,
            tokens_per_minute=arguments.tokens_per_minute,
        )
    else:
        from preference_benchmark.preferences.llm.local_model import LocalModel

        engine = LocalModel(
            arguments.model,
            prompt,
            sampling=sampling,
            batch_size=arguments.batch_size,
            device=arguments.device,
            dtype=arguments.dtype,
        )
    options = {"polarity": _polarity(arguments)} if arguments.polarity else {}
    prices = Prices(arguments.prompt_price, arguments.completion_price)
    return LlmApproximator(
        engine, prompt, arguments.cache, retries=arguments.retries, limit=arguments.limit, prices=prices, **options
    )


def _polarity(arguments: argparse.Namespace) -> Callable:
    from preference_benchmark.preferences.polarity import SentimentClassifier

    return SentimentClassifier(arguments.polarity, arguments.device).polarity


def _compare(arguments: argparse.Namespace) -> int:
    from preference_benchmark.embedding import TextEmbedder
    from preference_benchmark.preferences.files import belonging, read_preferences
    from preference_benchmark.preferences.quality import compare

    found = {}
    for path in arguments.preferences:
        name = path.stem if path.stem not in found else str(path)
        found[name] = path, *read_preferences(path)
    tables, _ = _read(arguments)
    comparison = compare(
        {name: belonging(preferences, tables, path) for name, (path, preferences, _) in found.items()},
        tables,
        TextEmbedder(arguments.encoder),
        reports={name: report for name, (_, _, report) in found.items()},
        targets=arguments.targets,
        seed=arguments.seed,
    )
    print(comparison)
    if arguments.json:
        comparison.write_json(arguments.json)
    if arguments.figure:
        comparison.draw(arguments.figure)
    return 0
