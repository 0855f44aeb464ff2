"""Options that several commands and examples share: one name, one type and one help text for each.

`TableOptions` groups what every command that reads tables takes; `grouped` turns such a group, a dataclass in a
command's signature, into its options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer
import yaml

__all__ = [
    "BaseUrl",
    "BatchSize",
    "Device",
    "DryRun",
    "Dtype",
    "Encoder",
    "EvalLimit",
    "Folder",
    "History",
    "Json",
    "License",
    "Model",
    "Name",
    "Output",
    "Preferences",
    "Preset",
    "Quiet",
    "Ray",
    "Seed",
    "Set",
    "Source",
    "TableOptions",
    "Train",
    "UnknownItems",
    "assignments",
    "grouped",
]


def _presets(incomplete: str) -> list[str]:
    from modeling_mender.training.presets import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def _sources(incomplete: str) -> list[str]:
    from preference_benchmark.recipes import RECIPES
    from preference_benchmark.sources import SOURCES

    return [name for name in sorted({*RECIPES, *SOURCES}) if name.startswith(incomplete)]


def _packaged(incomplete: str) -> list[str]:
    from mender.packaged import packaged_models

    return [name for name in packaged_models() if name.startswith(incomplete)]


def _device(name: str | None) -> str | None:
    """A device that torch can use."""
    if name in (None, "cpu"):
        return name
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise typer.BadParameter(f"torch cannot use {name!r} here; pass cpu, or leave it out") from error
    return name


def _writable(path: Path | None) -> Path | None:
    """A folder or a .parquet file to write to; refuses a file where a folder is needed, and the reverse."""
    if path is None:
        return None
    is_file = path.suffix == ".parquet"
    taken = next((place for place in (path, *path.parents) if place.exists()), Path())
    if is_file and path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; pass a file")
    if not taken.is_dir() and not (is_file and taken == path):
        raise typer.BadParameter(f"{taken} is a file; pass a folder")
    return path


Preset = Annotated[
    str,
    typer.Option(
        autocompletion=_presets,
        help="The method: mender, mender-lite, mender-tok, tiger, sasrec, ... or your own YAML file.",
    ),
]
Source = Annotated[
    str | None,
    typer.Option(autocompletion=_sources, help="What to read: corner-shop, table (your own), steam, amazon2018, ..."),
]
Train = Annotated[
    list[str] | None,
    typer.Option("--train", metavar="NAME=VALUE", help="Change an argument of the Trainer; repeatable."),
]
Model = Annotated[
    str,
    typer.Argument(
        autocompletion=_packaged,
        help="A saved model: its folder, its name on the Hub, or corner-shop, which is installed.",
        show_default=False,
    ),
]
Folder = Annotated[Path, typer.Argument(help="Folder with built benchmarks.", show_default=False)]
Name = Annotated[str | None, typer.Option(help="Name in tables and on the card.", show_default="chosen by the run")]
Device = Annotated[
    str | None,
    typer.Option(callback=_device, help="Where models run: cpu, cuda, ...", show_default="the accelerator if any"),
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "auto"], typer.Option(help="Precision of the weights; auto: as they were saved.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts per forward pass.")]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="Hub name or folder of a text encoder, such as a multilingual one; the default reads English.",
        show_default="all-MiniLM-L6-v2",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Random seed.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the preset (train) or of the protocol (benchmark, preferences); repeatable.",
    ),
]
EvalLimit = Annotated[int | None, typer.Option(min=1, help="Evaluate at most this many examples (or pairs) per axis.")]
Output = Annotated[
    Path | None,
    typer.Option(callback=_writable, help="Folder to write to; for preferences, a .parquet file."),
]
License = Annotated[
    str | None, typer.Option("--license", help="Licence, as the Hub names it.", show_default="that of its origin")
]
History = Annotated[
    list[str] | None, typer.Option(metavar="ITEM", help="Id or title of an item, oldest first; repeatable.")
]
Preferences = Annotated[
    list[str] | None,
    typer.Option("--preference", metavar="TEXT", help="What is wanted, in a language of the encoder; repeatable."),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Use the machines of a Ray cluster: its address, auto, or local."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="Server, such as http://127.0.0.1:8000/v1.", show_default="OPENAI_BASE_URL, else OpenAI's"),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="No progress, but one line every half minute, so that a log shows life.")
]
UnknownItems = Annotated[
    Literal["error", "skip"],
    typer.Option(help="Refuse requests with items that the catalogue lacks, or leave these items out."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON, and everything else on standard error.")]


@dataclass(frozen=True)
class TableOptions:
    """Where tables are and how they are read; options that are left out keep the value of the recipe."""

    data: Annotated[
        Path | None,
        typer.Option(help="Raw files, or a folder with built benchmarks.", show_default="downloaded or generated"),
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the source's reader, such as num_users=300; repeatable."),
    ] = None
    min_user: Annotated[
        int | None,
        typer.Option(min=1, help="Drop users with fewer interactions than this.", show_default="of the recipe"),
    ] = None
    min_item: Annotated[
        int | None,
        typer.Option(min=1, help="Drop items with fewer interactions than this.", show_default="of the recipe"),
    ] = None
    repeats: Annotated[
        Literal["drop", "keep"] | None,
        typer.Option(help="Whether a history keeps repeated purchases of an item.", show_default="of the recipe"),
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(metavar="OURS=THEIRS,...", help="Columns of your tables, such as user_id=customer,item_id=sku."),
    ] = None

    @property
    def changes(self) -> dict[str, Any]:
        """What was given, as fields of a recipe and its protocol."""
        options = assignments(self.option or [], "--option")
        if self.columns:
            options["columns"] = _pairs(self.columns, "--columns")
        given = {"options": options or None, "min_user": self.min_user, "min_item": self.min_item}
        given["repeats"] = self.repeats
        return {name: value for name, value in given.items() if value is not None}


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose parameters of a dataclass type become the options that the dataclass names."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(field.name, kind, default=default, annotation=types[field.name]))

    @wraps(command)
    def run(**values: Any) -> Any:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        return command(**values)

    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__  # its annotations are not those of the options
    return run


def _pairs(text: str, option: str) -> dict[str, str]:
    """Names of columns of `OURS=THEIRS,OURS=THEIRS`."""
    pairs = [[name.strip() for name in pair.split("=", 1)] for pair in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError(f"{option} {text!r} names no columns; write user_id=customer,item_id=sku")
    return dict(pairs)


def assignments(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """Names and values of `NAME=VALUE` words; values are YAML.

    Args:
        pairs: the words.
        option: the option that they belong to, for errors.

    Raises:
        ValueError: if a word has no "=", or its value is not plain YAML.

    >>> assignments(["num_users=300", "axes={recommendation: 1.0}", "learning_rate=3e-4"], "--set")
    {'num_users': 300, 'axes': {'recommendation': 1.0}, 'learning_rate': 0.0003}
    """
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{option} {pair!r} is not an assignment; write NAME=VALUE")
        try:
            found[name.strip()] = _value_of(text)
        except (yaml.YAMLError, ValueError) as error:  # such as a date with a thirteenth month
            raise ValueError(
                f"{option} {pair!r}: the value is not plain YAML; write a number, a word, [a, b] or {{name: value}}"
            ) from error
    return found


def _value_of(text: str) -> Any:
    """A value as YAML writes it, with the exceptions that people expect.

    3e-4 is a number (YAML: a word), "no" is a word (YAML: false), and so are formats of dates and separators, some of
    which YAML keeps for itself.

    >>> [_value_of(text) for text in ("3e-4", "no", "%d.%m.%Y", ",", "|", "[1, 2]", "~")]
    [0.0003, 'no', '%d.%m.%Y', ',', '|', [1, 2], None]
    """
    mark = text != "~" and text[:1] not in ("'", '"', "[", "{") and not any(map(str.isalnum, text))
    if text.lower() in ("no", "yes", "off", "on") or (text and mark) or text.startswith("%"):
        return text
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
