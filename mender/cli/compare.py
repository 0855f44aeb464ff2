"""`mender compare`: several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mender.cli import options
from mender.terminal import results, user_errors

__all__ = ["compare"]


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders that train or evaluate wrote.")],
    reference: Annotated[
        str | None, typer.Option(help="Method that the others are compared with.", show_default="that of the first run")
    ] = None,
    output: options.Output = Path("outputs/comparison"),
    metric: Annotated[str, typer.Option(help="recall@5, recall@10, ndcg@5 or ndcg@10.")] = "recall@10",
    resamples: Annotated[int, typer.Option(min=1, help="Resamples of the bootstrap.")] = 2000,
    margin: Annotated[
        float,
        typer.Option(help="How much worse than the reference, as a share, a method may be and still be marked ~."),
    ] = 0.05,
    p_values: Annotated[bool, typer.Option("--p-values", help="Show p-values after Holm's correction.")] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare runs example by example.

    Writes one table and the paper's star plot. Runs of one method with several seeds become one column, with their
    standard deviation. A difference to the reference is marked + or - where a paired randomisation test finds it
    with p < .05 after Holm's correction over the whole table, and ~ where the method is not inferior: the lower 95%
    bound of its value is above (1 - margin) of the reference's.
    """
    with results(as_json, quiet) as show:
        from mender.comparison import compare as compare_runs
        from mender.comparison import draw_stars, print_comparison, save_comparison
        from mender.runs import read_run

        with user_errors():
            comparison = compare_runs({run: read_run(run) for run in runs}, reference, resamples, metric, margin)
        print_comparison(comparison, p_values)
        output.mkdir(parents=True, exist_ok=True)
        draw_stars(comparison, output / "stars.png")
        show(save_comparison(comparison, output, p_values))
        print(f"Saved under {output}/: stars.png, comparison.json, comparison.md")
