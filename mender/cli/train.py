"""`mender train`: any method on any benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mender.cli import options
from mender.terminal import results, user_errors

__all__ = ["train"]


@options.grouped
def train(
    tables: options.TableOptions,
    preset: options.Preset = "mender",
    source: options.Source = "corner-shop",
    encoder: options.Encoder = None,
    seed: options.Seed = 0,
    output: options.Output = None,
    name: options.Name = None,
    conditioning: Annotated[
        str, typer.Option(help="What the model may read: none, preference, history, both or all.")
    ] = "both",
    changes: options.Set = None,
    arguments: options.Train = None,
    report_to: Annotated[
        list[str] | None,
        typer.Option(help="Where to log: tensorboard, trackio, wandb, ...; repeatable."),
    ] = None,
    eval_limit: options.EvalLimit = None,
    validation_limit: Annotated[
        int, typer.Option(min=1, help="Validation examples per axis that early stopping uses.")
    ] = 400,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    showcase_histories: Annotated[
        bool,
        typer.Option(
            "--showcase-histories",
            help="Write histories of twelve customers to model/showcase.json, even if they are real.",
        ),
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train a model and evaluate it on all axes.

    Keeps the weights with the best NDCG@10 on validation examples of all trained axes. Writes model/, five_axes.png,
    five_axes.json and ranks.parquet to --output, by default outputs/SOURCE/NAME-seedSEED.

    Values of --set and --train are YAML:

    mender train --preset mender-tok --set "axes={recommendation: 1.0}"

    mender train --preset mender-tok --train learning_rate=3e-4 --train bf16=true

    Several processes: torchrun --nproc_per_node 2 -m mender train ...
    """
    with results(as_json, quiet) as show:
        from mender.data import benchmark_name, encoder_path, load_benchmark_data, reading_for
        from mender.runs import READ_FROM, provenance
        from mender.training import (
            check_report_to,
            choose_preset,
            fit,
            joined_processes,
            new_method,
            recommender_of,
            save_and_measure,
        )
        from modeling_mender.training.data import select_axes
        from modeling_mender.training.trainer import last_checkpoint

        origin = provenance(seed)
        with user_errors():
            chosen = choose_preset(
                preset,
                conditioning,
                options.assignments(changes or [], "--set"),
                options.assignments(arguments or [], "--train"),
            )
            check_report_to(report_to or [])
            reading = reading_for(chosen.max_history, tables.data, tables.changes)
            read = {"source": source, "data": _place(tables.data), "encoder": encoder, "changes": reading}
            name = name or (chosen.name if conditioning == "both" else f"{chosen.name}-{conditioning}")
            output = (
                output or Path("outputs") / benchmark_name(source, tables.data) / f"{name.replace('/', '-')}-seed{seed}"
            )
            if resume:
                last_checkpoint(output / "checkpoints")
            with joined_processes().main_process_first():  # under torchrun, one process builds and the others read
                benchmark = load_benchmark_data(source, tables.data, encoder, **reading)
            encoder = encoder_path(encoder)
            # A missing matching mode or axis is refused before anything is computed.
            examples = benchmark.matched(chosen.matching)
            if chosen.trained:
                select_axes(examples["train"], chosen.axes)
        print(f"{chosen.name}: {chosen.summary}\n{' ' * len(chosen.name)}  {chosen.cost}")
        method = new_method(chosen, benchmark, encoder, seed)
        logging = {"report_to": report_to, "run_name": f"{benchmark.source}/{output.name}"} if report_to else {}
        training = fit(
            method,
            benchmark,
            output / "checkpoints",
            seed=seed,
            validation_limit=validation_limit,
            resume=resume,
            **logging,
        )
        if joined_processes().is_main_process:
            record = save_and_measure(
                recommender_of(method, benchmark, training, encoder),
                benchmark,
                output,
                name,
                origin=origin | {READ_FROM: read},
                limit=eval_limit,
                showcase_histories=showcase_histories,
            )
            show({"output": str(output), **record})
            print(f"Saved under {output}/: model/, five_axes.png, five_axes.json, ranks.parquet")


def _place(data: Path | None) -> str | None:
    """Where data are, from any folder; names on the Hub stay."""
    if data is None:
        return None
    return str(data.resolve() if data.exists() else data)
