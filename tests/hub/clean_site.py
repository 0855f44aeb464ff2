"""An interpreter that sees a few distributions and what they require, and nothing else that is installed here.

    run_clean(site(folder, "torch", "transformers"), code, HF_HOME=...)

is what a stranger's process does who has never heard of this project.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def site(folder: Path, *roots: str) -> Path:
    """A folder of links to the distributions and, recursively, their requirements; extras are left out."""
    folder.mkdir(parents=True)
    waiting, known = list(roots), set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in known:
            continue
        known.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, found.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    return folder


def run_clean(site: Path, code: str, *arguments: object, **environment: str) -> str:
    """Standard output of the code, run without site packages, the working folder or `PYTHONPATH`."""
    start = f"import sys; sys.path.append({str(site)!r})\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
