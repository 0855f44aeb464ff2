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
    as_json: options.Json = False,
) -> None:
    """Compare runs example by example.

    Writes one table and the paper's star plot. Runs of one method with several seeds become one column. A difference
    to the reference is marked + or - where its 95% interval, resampled pair by pair, excludes zero.
    """
    from mender.comparison import compare as compare_runs
    from mender.comparison import draw_stars, print_comparison, save_comparison
    from mender.runs import read_run

    with results(as_json) as show:
        with user_errors():
            comparison = compare_runs({run: read_run(run) for run in runs}, reference, resamples, metric)
        print_comparison(comparison)
        output.mkdir(parents=True, exist_ok=True)
        draw_stars(comparison, output / "stars.png")
        show(save_comparison(comparison, output))
        print(f"Saved under {output}/: stars.png, comparison.json, comparison.md")
