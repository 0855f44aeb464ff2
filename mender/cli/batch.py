"""`mender batch`: recommendations for a table of requests."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from mender.cli import options
from mender.terminal import UserError, results, say, user_errors

__all__ = ["batch"]


def batch(
    model: options.Model,
    requests: Annotated[str, typer.Argument(help="A Parquet file, or a folder of them.")],
    answers: Annotated[str, typer.Argument(help="Folder for the answers.")],
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Items to return.")] = 10,
    batch_size: options.BatchSize = 64,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows per file of answers.")] = 10_000,
    unknown_items: options.UnknownItems = "error",
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    ray: options.Ray = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Maximum number of workers on the Ray cluster.")] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Answer every row of a table, and write the answers as Parquet files.

    Columns named like fields of a request are read (preference, history, avoid, ...), all others are copied. Run the
    same command again to continue after a stop. For instance:

    mender batch MODEL requests.parquet answers/ --top-k 20
    """
    settings = {"top_k": top_k, "batch_size": batch_size, "shard_rows": shard_rows, "unknown_items": unknown_items}
    kind = None if dtype == "auto" else dtype
    if workers is not None and ray is None:
        raise UserError(f"--workers {workers} needs --ray")
    with results(as_json, quiet) as show, user_errors():
        from mender.batch import over_ray
        from mender.recommender import Recommender

        if ray is not None:
            gpus = 1.0 if (device or "").startswith("cuda") else 0.0
            report = over_ray(model, requests, answers, address=ray, workers=workers, gpus=gpus, dtype=kind, **settings)
        else:
            shop = Recommender.from_pretrained(model, device=device, dtype=kind)
            report = shop.recommend_parquet(requests, answers, **settings)
        show(asdict(report))
    if not as_json:
        done = report.answered + report.refused
        speed = f", {done / report.seconds:,.0f} a second" if done and report.seconds else ""
        print(
            f"{report.answered:,} requests answered, {report.refused:,} refused, {report.resumed:,} done before{speed}"
        )
        if report.first_error:
            say(f"The first that was refused: {report.first_error}")
