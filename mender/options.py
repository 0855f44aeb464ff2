"""Options that several commands and examples share, as types of their parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Data",
    "Device",
    "Encoder",
    "EvalLimit",
    "Items",
    "Json",
    "Model",
    "Output",
    "Preset",
    "Seed",
    "Source",
    "Users",
]


def _presets(incomplete: str) -> list[str]:
    from modeling_mender.training.presets import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def _sources(incomplete: str) -> list[str]:
    from preference_benchmark.sources import SOURCES

    return [name for name in sorted(SOURCES) if name.startswith(incomplete)]


Preset = Annotated[
    str,
    typer.Option(
        autocompletion=_presets, help="The method: mender-fid, mender-tok, tiger, sasrec, ... or a YAML file of yours."
    ),
]
Source = Annotated[
    str,
    typer.Option(
        autocompletion=_sources, help="Format of the data: corner-shop, table (your own), steam, amazon2018, ..."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Raw files of the source, or a folder with a built benchmark; none for the corner shop."),
]
Model = Annotated[str, typer.Argument(help="Folder or Hub name of a saved model.", show_default=False)]
Device = Annotated[
    str | None, typer.Option(help="Where the model runs: cpu, cuda, ...", show_default="the accelerator if any")
]
Users = Annotated[int, typer.Option(min=1, help="Users of the corner shop.")]
Items = Annotated[int, typer.Option(min=1, help="Items of the corner shop.")]
Encoder = Annotated[str | None, typer.Option(help="Name or folder of a text encoder.", show_default="all-MiniLM-L6-v2")]
Seed = Annotated[int, typer.Option(help="Of every draw.")]
EvalLimit = Annotated[
    int | None, typer.Option(min=1, help="Examples (or pairs) of each axis at most, in evaluation.", show_default="all")
]
Output = Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="chosen by name")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON, and everything else on standard error.")]
