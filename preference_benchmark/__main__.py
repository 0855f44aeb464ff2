"""`python -m preference_benchmark COMMAND`: every command is a module of `preference_benchmark.commands`."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence

from preference_benchmark.commands import commands

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the words after the program's name; default: those of the process.

    Returns:
        The exit status: 0 on success, 1 where a command found something wrong, 2 where it was used wrongly or lacks
        something, 130 where it was interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m preference_benchmark", description="Build and check benchmarks.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in commands().items():
        description = inspect.getdoc(command) or ""
        subparser = subparsers.add_parser(
            name,
            help=description.splitlines()[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    chosen = parser.parse_args(arguments)
    try:
        return chosen.run(chosen)
    except (ValueError, OSError) as error:  # what came, what was expected, what to do: no traceback needed
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if error.name is not None:  # not one of ours, which say what to install
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
