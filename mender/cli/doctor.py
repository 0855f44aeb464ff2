"""`mender doctor`: what is installed, what is missing, and what can be reached."""

from __future__ import annotations

from textwrap import wrap
from typing import Annotated, Any

import typer

from mender.cli import options
from mender.terminal import new_console, results, user_errors

__all__ = ["doctor"]


def doctor(
    model: Annotated[str | None, typer.Argument(help="A saved model to check too.", show_default="none")] = None,
    base_url: options.BaseUrl = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Say what is installed, what is missing, and what can be reached.

    Looks at packages, at the weights of the default encoder, the Hub, accelerators, a server with a language model, and
    at free memory and space. Nothing is downloaded, and no token is shown or sent. The exit code is 1 if something does
    not work that training and asking a model need.
    """
    with results(as_json, quiet) as show, user_errors():
        from mender.doctor import checks, summary

        found = list(checks(model, base_url))
        record = summary(found)
        show(record)
        if not as_json:
            _print(record)
    if not record["ok"]:
        raise typer.Exit(1)


def _print(record: dict[str, Any]) -> None:
    console = new_console()
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    plain = not console.is_terminal
    console.print(f"{versions}; Python {record['python']}, {record['platform']}\n", soft_wrap=plain)
    width = max(len(one["name"]) for one in record["checks"])
    for one in record["checks"]:
        start = f"{one['state']:<8} {one['name']:<{width}}  "
        room = 10_000 if plain else max(30, console.width - len(start))
        lines = wrap(one["found"], room, break_long_words=False, break_on_hyphens=False)
        console.print(start + f"\n{' ' * len(start)}".join(lines), soft_wrap=True)
        if one["remedy"]:  # on a line of its own, to be copied
            console.print(f"{' ' * len(start)}-> {one['remedy']}", soft_wrap=True)
    wrong = [one["name"] for one in record["checks"] if one["needed"] and one["state"] not in ("ok", "off")]
    sentence = f"These do not work and are needed: {', '.join(wrong)}." if wrong else "Everything that is needed works."
    console.print(f"\n{sentence}")
