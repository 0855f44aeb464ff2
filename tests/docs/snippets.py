"""The snippets of a page, and the commands in it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """Texts of the fenced blocks of a language, in order."""
    return [text for name, text in BLOCK.findall((ROOT / page).read_text("utf-8")) if name == language]


def commands(page: str) -> list[list[str]]:
    """The words of every command in the page's shell blocks; comments and environment settings are left out."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                found.append(words)
    return found
