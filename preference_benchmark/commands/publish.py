"""Upload a built folder to the Hub, in one commit.

    python -m preference_benchmark publish benchmark org/preference-discerning --dry-run
    python -m preference_benchmark publish benchmark org/preference-discerning

Afterwards `load_dataset("org/preference-discerning", "steam")` works everywhere. The terms of the data are shown; data
whose terms forbid it is not uploaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("output", type=Path, help="the folder that was built")
    parser.add_argument("repo", help="organisation/name")
    parser.add_argument("--dry-run", action="store_true", help="list what would be uploaded, and ask nobody")
    parser.add_argument("--private", action="store_true", help="make a new repository a private one")
    parser.add_argument("--replace", action="store_true", help="remove data sets that the folder lacks")
    parser.add_argument("--permitted", action="store_true", help="the owners of restricted data have given permission")
    parser.add_argument("--message", default="Publish the benchmark", help="of the commit")


def run(arguments: argparse.Namespace) -> int:
    """Upload, or list."""
    from preference_benchmark.hub.publish import plan, publish

    what = plan(arguments.output, arguments.repo)
    print(what)
    if arguments.dry_run:
        if what.forbidden:
            print(f"Would be refused without --permitted: {', '.join(what.forbidden)}")
        return 0
    address = publish(
        arguments.output,
        arguments.repo,
        private=arguments.private,
        replace=arguments.replace,
        permitted=arguments.permitted,
        message=arguments.message,
    )
    print(f"Published: {address}")
    return 0
