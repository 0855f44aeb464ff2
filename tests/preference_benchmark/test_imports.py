"""Which part of the package may import which: arrows point one way, so that each part can be read on its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import preference_benchmark

PACKAGE = Path(preference_benchmark.__file__).parent
MAY_IMPORT = {
    "tables": {"tables"},
    "sources": {"sources", "tables"},
    "stages": {"stages"},
    "embedding": {"embedding", "tables", "stages"},
    "preferences": {"preferences", "embedding", "tables", "stages"},
    "axes": {"axes", "preferences", "embedding", "tables", "stages"},
    "checks": {"checks", "axes", "preferences", "embedding", "tables", "stages"},
    "hub": {"hub", "axes", "preferences", "embedding", "tables", "stages"},
    "recipes": {"recipes", "axes", "sources"},
}


def imported(file: Path) -> set[str]:
    """Parts of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("preference_benchmark.")}
    return found


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_a_part_imports_only_what_lies_below_it(part):
    folder = PACKAGE / part
    for file in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
        beyond = imported(file) - MAY_IMPORT[part]
        assert not beyond, f"{file.relative_to(PACKAGE)} imports {sorted(beyond)}"
