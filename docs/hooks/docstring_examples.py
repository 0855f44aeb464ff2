"""Examples in docstrings as code: lines from `>>>` to the next empty line, which Markdown would take for quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", flags=re.MULTILINE)
DIRECTIVE = re.compile(r"  # doctest: .*")


class DocstringExamples(griffe.Extension):
    """Puts a fence around every example, and leaves out what only the test runner reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object with all that it holds."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(
                lambda example: f"```pycon\n{DIRECTIVE.sub('', example[0])}\n```", obj.docstring.value
            )
