"""Writes the map of the house in CONTRIBUTING.md: every file with the first line of its docstring (`make map`)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {
    "mender": "Wiring and command line; the only package that imports the other three.",
    "modeling_mender": "The recommender. Knows nothing of the benchmark; flat, as its files travel with saved models.",
    "preference_benchmark": "The benchmark. Knows nothing of any model under test.",
    "metrics": "The `evaluate` module, one file that stands alone.",
    "examples": "Numbered scripts to read top to bottom, and the demo page.",
    "benchmarks": "Measurements of speed and quality, each one command that prints a table.",
}
MARKS = "<!-- map -->", "<!-- end of map -->"


def house_map() -> str:
    """The map as Markdown."""
    parts = []
    for place, purpose in PLACES.items():
        lines = [f"### {place}\n\n{purpose}\n", "| file | |", "|---|---|"]
        for path in sorted((ROOT / place).rglob("*.py")):
            opening = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0]
            opening = " ".join(opening.split()).replace("|", "\\|")
            lines.append(f"| [{path.relative_to(ROOT / place)}]({path.relative_to(ROOT)}) | {opening} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def with_map(text: str) -> str:
    """A text with the map between the marks."""
    begin, end = MARKS
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", flags=re.DOTALL)
    return pattern.sub(lambda found: f"{begin}\n\n{house_map()}\n\n{end}", text)


if __name__ == "__main__":
    page = ROOT / "CONTRIBUTING.md"
    page.write_text(with_map(page.read_text("utf-8")), "utf-8")
