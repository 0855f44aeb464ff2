"""The commands of `python -m preference_benchmark`, one module each.

A command is a module whose docstring is its help, with `add_arguments(parser)`, which declares its arguments, and
`run(arguments) -> int`, which does the work and returns the exit status. What is slow to import belongs in `run`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["COMMANDS", "commands"]

# In the order of the help.
COMMANDS: tuple[str, ...] = ("build", "validate", "stats", "publish", "preferences", "adopt")


def commands() -> dict[str, ModuleType]:
    """Every command's module by the command's name."""
    return {name: import_module(f"{__name__}.{name}") for name in COMMANDS}
