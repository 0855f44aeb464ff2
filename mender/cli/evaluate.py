"""`mender evaluate`: a saved model, measured on all axes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mender.cli import options
from mender.terminal import results, user_errors

__all__ = ["evaluate"]


@options.grouped
def evaluate(
    model: options.Model,
    tables: options.TableOptions,
    source: options.Source = None,
    encoder: options.Encoder = None,
    output: options.Output = None,
    name: options.Name = None,
    eval_limit: options.EvalLimit = None,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Also rank items of the history, as some papers do.")
    ] = False,
    validation: Annotated[
        bool, typer.Option("--validation", help="Use the validation split, to choose between models.")
    ] = False,
    device: options.Device = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Evaluate a saved model on all axes.

    Ranks with each user's own preferences, with those of other users, and from the history alone (silent). Items of the
    history are left out, unless the benchmark has repeated purchases. Writes five_axes.png, five_axes.json and, for
    `mender compare`, ranks.parquet.

    Without --source and --data, a model in the folder of its run is asked about the data that it was trained on, read
    in the same way, and any other model about the corner shop.
    """
    with results(as_json, quiet) as show:
        from mender.cards import write_run_card
        from mender.data import load_benchmark_data
        from mender.evaluation import check_items, evaluate_saved
        from mender.recommender import Recommender
        from mender.runs import read_from, training_of
        from modeling_mender.hub.card import card_name

        with user_errors():
            shop = Recommender.from_pretrained(model, device=device)
            trained = read_from(model) if source is None and tables.data is None else {}
            benchmark = load_benchmark_data(
                source or trained.get("source", "corner-shop"),
                tables.data or trained.get("data"),
                encoder or trained.get("encoder"),
                **{**trained.get("changes", {}), **tables.changes},
            )
            check_items(shop.processor, benchmark, model)
            run = training_of(model)
        # Never into the folder of the run: its figures stay those that training measured.
        called = card_name(model) if Path(model).is_dir() else Path(model).name
        kind = f"{'-keep-seen' if keep_seen else ''}{'-validation' if validation else ''}"
        output = output or Path("outputs/evaluation") / f"{called}{kind}"
        name = name or run.get("method") or called
        split = "validation" if validation else "test"
        record = evaluate_saved(shop, benchmark, output, name, eval_limit, run, False if keep_seen else None, split)
        print(f"Saved under {output}/: five_axes.png, five_axes.json, ranks.parquet")
        if Path(model).is_dir() and not kind:  # a card's figures are of the test split, without what users have bought
            print(f"and in the model's card, {write_run_card(Path(model), shop, benchmark, record)}")
        show({"output": str(output), **record})
