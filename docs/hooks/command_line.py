"""The reference of the command line, made from the application: all commands, where a page has `<!-- commands -->`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

MARK = "<!-- commands -->"
EXAMPLE = re.compile(r"^(\w+=\S+ )?(mender|torchrun) .+$")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts all commands where the mark is."""
    if MARK not in markdown:
        return markdown
    from mender.cli import app

    return markdown.replace(MARK, "\n".join(_lines(typer.main.get_command(app), "mender", None)))


def _lines(command: Any, name: str, parent: Any) -> Iterator[str]:
    """A command, and then the commands below it."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    if parent is not None:
        yield f"{'##' if parent.parent is None else '###'} {context.command_path}\n"
    yield f"{_prose(command.help)}\n"
    groups = getattr(command, "commands", {})
    if not groups:
        yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
        yield "| option | meaning |\n|---|---|"
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None:
                names, text = (" ".join(part.split()) for part in record)
                yield f"| `{names}` | {text.replace('|', '&#124;').replace('<', '&lt;')} |"
        yield ""
    for below, one in groups.items():
        yield from _lines(one, below, context)


def _prose(text: str) -> str:
    """Help as Markdown: examples, which are paragraphs of their own, as code."""
    parts = text.replace("\b\n", "").split("\n\n")
    return "\n\n".join(EXAMPLE.sub(r"```bash\n\g<0>\n```", part.strip()) for part in parts)
