"""`mender benchmark`: the benchmark's own command line."""

from __future__ import annotations

import typer

__all__ = ["benchmark"]


def benchmark(context: typer.Context) -> None:
    """Build, check and publish benchmarks."""
    from preference_benchmark.__main__ import main

    raise typer.Exit(main(context.args))
