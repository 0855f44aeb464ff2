"""A benchmark of recommenders that are steered by preferences in plain language, on eight axes.

Raw public files, or your own tables, become examples of preference-conditioned recommendation, as in Preference
Discerning (Paischer et al. 2025, arXiv:2412.08604). The package knows nothing of the models that are tested:

    folder = build(recipe("steam", data="raw/steam"), "benchmark")
    benchmark = load(folder)
    benchmark.examples["oracle"]["test"], benchmark.items
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preference_benchmark.axes.protocol import Protocol
    from preference_benchmark.building import build, read_tables
    from preference_benchmark.hub.folder import Benchmark, load
    from preference_benchmark.recipes import RECIPES, Recipe, recipe
    from preference_benchmark.sources import read_source
    from preference_benchmark.tables import ReadReport, Tables, prepare

__all__ = [
    "RECIPES",
    "Benchmark",
    "Protocol",
    "ReadReport",
    "Recipe",
    "Tables",
    "build",
    "load",
    "prepare",
    "read_source",
    "read_tables",
    "recipe",
]

_MODULES = {
    "Benchmark": "hub.folder",
    "Protocol": "axes.protocol",
    "RECIPES": "recipes",
    "ReadReport": "tables",
    "Recipe": "recipes",
    "Tables": "tables",
    "build": "building",
    "load": "hub.folder",
    "prepare": "tables",
    "read_source": "sources",
    "read_tables": "building",
    "recipe": "recipes",
}


def __getattr__(name: str) -> Any:
    """Imports a name on first use, so that what a command line checks first takes no seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
