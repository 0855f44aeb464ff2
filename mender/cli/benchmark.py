"""`mender benchmark`: build, inspect, check and publish benchmarks, or convert ready-made ones."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mender.cli import options
from mender.terminal import UserError, new_app, new_console, results, show_help, user_errors

__all__ = ["app"]

app = new_app(name="benchmark")


@app.callback(invoke_without_command=True)
def about(context: typer.Context) -> None:
    """Build, inspect, check and publish benchmarks."""
    show_help(context)


@app.command()
@options.grouped
def build(
    name: Annotated[
        str,
        typer.Argument(
            help="A recipe (beauty, sports, toys, steam, yelp, movielens, corner-shop), or a name of your own.",
            show_default=False,
        ),
    ],
    tables: options.TableOptions,
    output: options.Output,
    source: options.Source = None,
    title: Annotated[str | None, typer.Option(help="Title of the data set.", show_default="of the recipe")] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(help="Parquet file of preferences.", show_default="written by rules from reviews and items"),
    ] = None,
    encoder: options.Encoder = None,
    device: options.Device = None,
    batch_size: options.BatchSize = 64,
    dtype: options.Dtype = "float32",
    ray: options.Ray = None,
    seed: options.Seed = None,
    protocol: Annotated[
        Literal["default", "paper"],
        typer.Option(help="paper: as in the paper's scripts, with their leaks, which the card counts."),
    ] = "default",
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Decides the sentiment of reviews and preferences: rules, a folder, or a name on the Hub.",
            show_default="rules, or of the paper",
        ),
    ] = None,
    changes: options.Set = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Build a benchmark into a folder that is ready for the Hub.

    Public files are downloaded if --data is left out. Run the same command again to continue a build that was stopped;
    its stages are in OUTPUT/.stages and may be deleted. Several benchmarks may share a folder. With --ray, texts are
    encoded on a cluster, or on all GPUs of this machine.

    mender benchmark build steam --data raw/steam --output benchmark

    mender benchmark build corner-shop --option num_users=300 --output benchmark

    mender benchmark build my-shop --source table --data mine --output benchmark

    mender benchmark build steam --protocol paper --classifier rules --output benchmark
    """
    started, stages = time.perf_counter(), {}
    with results(as_json, quiet) as show, user_errors():
        from preference_benchmark import availability

        fields = options.assignments(changes or [], "--set")
        # The imports below take seconds; what is missing is said before them.
        default = availability.PAPER_CLASSIFIER if protocol == "paper" else None
        availability.check_classifier(str(fields.get("classifier", classifier or default) or availability.RULES))
        if encoder is not None:
            availability.check_model("encoder", encoder, availability.ENCODER_REMEDY)

        from preference_benchmark import build as build_benchmark
        from preference_benchmark import load
        from preference_benchmark import recipe as named_recipe

        chosen = named_recipe(
            name,
            source=source,
            title=title,
            data=tables.data,
            preferences=preferences,
            embedder=encoder,
            device=device,
            batch_size=batch_size,
            dtype=dtype,
            protocol=protocol,
            classifier=classifier,
            seed=seed,
            **tables.changes,
        )
        chosen = dataclasses.replace(chosen, protocol=chosen.protocol.replace(**fields))
        folder = build_benchmark(chosen, output, ray=ray, announce=stages.__setitem__)
        statistics = load(folder, chosen.name).statistics
        _print_statistics(statistics)
        seconds, before = time.perf_counter() - started, sum(stages.values())
        note = f" ({before} of {len(stages)} stages were finished before)" if before else ""
        done = "Found" if stages.get("finished") else f"Built in {seconds:.0f} s{note}"
        print(f"\n{done}: {', '.join(statistics['configs'])} in {folder}")
        show(statistics)


@app.command()
def stats(folder: options.Folder, quiet: options.Quiet = False, as_json: options.Json = False) -> None:
    """Show what a built folder holds: counts, examples per axis, preferences, files."""
    with results(as_json, quiet) as show:
        from preference_benchmark.hub.folder import contents, reading

        with user_errors(), reading(folder):
            found = contents(folder)
            if not found:
                raise UserError(f"{folder} holds no benchmark; build one into it with `mender benchmark build`")
            for data_set in found:
                _print_statistics(data_set.statistics)
        show({data_set.name: data_set.statistics for data_set in found})


@app.command()
def validate(
    folder: options.Folder,
    name: Annotated[str | None, typer.Argument(help="Only this benchmark.", show_default="all")] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Check a built folder and show how good the benchmark in it is.

    Checks that every file is the one that was built, and that no example gives its target away. Shows what the build
    measured: similarity margins, repetitions, and the truth where it is known. The exit code is 1 if anything is wrong.
    """
    with results(as_json, quiet) as show, user_errors():
        from rich.markdown import Markdown

        from preference_benchmark.checks.published import recheck
        from preference_benchmark.hub.card import validation_section
        from preference_benchmark.hub.folder import contents, problems, reading

        console = new_console(width=120)
        with reading(folder):
            found = contents(folder)
            chosen = [data_set for data_set in found if name in (None, data_set.name)]
            if not chosen:
                there = ", ".join(data_set.name for data_set in found) or "nothing"
                raise UserError(f"{folder} has no benchmark {name or ''}: it holds {there}".replace(" :", ":"))
            wrong = problems(folder)
            for data_set in () if wrong else chosen:
                console.rule(data_set.statistics["title"], align="left")
                console.print(Markdown(validation_section(data_set.statistics)))
                wrong += recheck(folder, data_set)
        for problem in wrong:
            console.print(f"WRONG: {problem}", style="bold red", highlight=False, soft_wrap=True)
        if not wrong:
            console.print("Every file is the one that was built, and every example was checked.")
        show({"problems": wrong, "data_sets": [data_set.name for data_set in chosen]})
    if wrong:
        raise typer.Exit(1)


@app.command()
def publish(
    folder: options.Folder,
    repository: Annotated[str, typer.Argument(help="organisation/name on the Hub.", show_default=False)],
    dry_run: options.DryRun = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove benchmarks from the repository that the folder lacks.")
    ] = False,
    permitted: Annotated[
        bool, typer.Option("--permitted", help="Confirm that the owners of restricted data have given permission.")
    ] = False,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Publish the benchmark",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Upload a built folder to the Hub, in one commit.

    Afterwards `load_dataset("org/preference-discerning", "steam")` works everywhere. The terms of the data are shown;
    data whose terms forbid it is not uploaded.
    """
    with results(as_json, quiet) as show, user_errors():
        from preference_benchmark.hub import publish as hub
        from preference_benchmark.hub.folder import reading

        with reading(folder):
            planned = hub.plan(folder, repository)
        print(planned)
        record: dict[str, Any] = {"repository": repository, "files": planned.files, "forbidden": planned.forbidden}
        if dry_run:
            if planned.forbidden:
                print(f"Would be refused without --permitted: {', '.join(planned.forbidden)}")
        else:
            record["address"] = hub.publish(
                folder, repository, private=private, replace=replace, permitted=permitted, message=message
            )
            print(f"Published: {record['address']}")
        show(record)


@app.command()
def adopt(
    path: Annotated[str, typer.Argument(help="A data set on the Hub, or a folder with a copy.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Its name here.", show_default=False)],
    output: options.Output,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    license_: options.License = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="THEIRS=OURS", help="Rename one of its axes; repeatable."),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Convert a ready-made benchmark, such as the paper's own LLM-written preferences, to the columns used here.

    `load_dataset(OUTPUT, NAME)`, training and evaluation read the result like a benchmark built here.

    mender benchmark adopt xiaoleichu/amazon-beauty-steerable-gr beauty-llm --output beauty-llm
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{name!r} cannot name a config; use letters, digits, '-', '_' and '.'")
    with results(as_json, quiet) as show, user_errors():
        from preference_benchmark.hub.ready_made import read_ready_made, write_ready_made

        if output.exists():
            raise UserError(f"{output} exists; pass another folder as --output, or remove it")
        found = read_ready_made(path, revision=revision, axes=options.assignments(axis or [], "--axis"))
        origin = Path(path).resolve().name if Path(path).is_dir() else path
        folder = write_ready_made(found, output, name=name, origin=origin, licence=license_)
        counts = dict(found.examples["split"].value_counts().sort("split").iter_rows())
        print(f"{len(found.items):,} items; examples: {', '.join(f'{n:,} {split}' for split, n in counts.items())}")
        for split, count in found.unpaired.items():
            print(f"left out of {split}: {count:,} halves of sentiment pairs without the other half")
        print(f"Written: {folder} (configs {name}, {name}-items)")
        show({"output": str(folder), "items": len(found.items), "examples": counts, "unpaired": found.unpaired})


def _print_statistics(statistics: dict[str, Any]) -> None:
    """One data set's statistics as tables."""
    from rich.table import Table

    from preference_benchmark.axes.protocol import SPLITS
    from preference_benchmark.hub.card import SPECIFICITY, specificity_warnings

    console = new_console(width=120)
    read, written = statistics["read"], statistics["preferences"]
    console.rule(f"{statistics['title']} ({statistics['name']})", align="left")
    counted = {"before filters": read["before"], "after filters": read["after"], "kept": statistics}
    for when, counts in counted.items():
        users, items, interactions = (f"{counts[name]:,} {name}" for name in ("users", "items", "interactions"))
        console.print(f"{when:<14} {users}, {items}, {interactions}")
    if read["advice"]:
        console.print(read["advice"])
    kinds = ", ".join(f"{written[kind]:,} {kind}" for kind in ("written", "distinct", "negative"))
    console.print(f"{'preferences':<14} {kinds}; by {statistics['preferences_by']}")
    means = ", ".join(f"{name} {value:.3f}" for name, value in statistics["similarity"].items())
    console.print(f"{'cosines':<14} {means} ({statistics['embedder']})")
    table = Table("axis", *SPLITS)
    for axis, counts in statistics["examples"].items():
        table.add_row(axis, *(f"{counts[split]:,}" for split in SPLITS))
        for found in statistics["strata"]:
            if found["axis"] == axis:
                table.add_row(f"- {found['stratum']}", *(f"{found[split]:,}" for split in SPLITS))
    console.print(table)
    table = Table("axis (test)", "n", *SPECIFICITY, title="specificity", title_justify="left")
    table.columns[0].no_wrap = True
    for axis, found in statistics["specificity"].items():
        figures = (found[name] for name in SPECIFICITY.values())
        table.add_row(axis, f"{found['n']:,}", *("" if figure is None else f"{figure:,.4g}" for figure in figures))
    console.print(table)
    for warning in specificity_warnings(statistics):
        console.print(f"warning: {warning}", style="yellow")
    size = sum(split["bytes"] for config in statistics["configs"].values() for split in config["splits"].values())
    console.print(f"{'configs':<14} {', '.join(statistics['configs'])}: {size / 1e6:,.1f} MB")
