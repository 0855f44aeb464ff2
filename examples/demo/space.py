"""Puts the page and the packages that it needs into a folder that is a Space.

python examples/demo/space.py dist/space     # then upload the folder: see README.md
"""

from __future__ import annotations

import argparse
import configparser
import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("mender", "modeling_mender", "preference_benchmark")
NEEDLESS = shutil.ignore_patterns("__pycache__", "outputs", Path(__file__).name)


def write_space(folder: Path) -> None:
    """Write the Space; what is in the folder already stays where a file of the Space does not replace it.

    Args:
        folder: created if it does not exist.
    """
    shutil.copytree(HERE, folder, ignore=NEEDLESS, dirs_exist_ok=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=NEEDLESS, dirs_exist_ok=True)
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    # The Space's SDK brings gradio.
    needed = settings["options"]["install_requires"].split()
    (folder / "requirements.txt").write_text("\n".join(needed) + "\n", encoding="utf-8")


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write the Space")
    folder = parser.parse_args().folder
    write_space(folder)
    print(f"{folder}: {sum(file.is_file() for file in folder.rglob('*'))} files. Next: README.md, As a Space")


if __name__ == "__main__":
    main()
