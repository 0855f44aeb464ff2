"""Where the metric lies, for `evaluate.load`: beside the packages in a checkout, inside this one once installed."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

__all__ = ["metric_folder", "metric_module"]

INSTALLED = Path(__file__).parent / "metrics" / "preference_discerning"
IN_CHECKOUT = Path(__file__).parents[1] / "metrics" / "preference_discerning"


def metric_folder() -> str:
    """Folder of the metric `preference_discerning`.

    Raises:
        FileNotFoundError: if it is in neither place.

    >>> import evaluate
    >>> evaluate.load(metric_folder(), "ranking").name
    'preference_discerning'
    """
    for folder in (INSTALLED, IN_CHECKOUT):
        if (folder / "preference_discerning.py").is_file():
            return str(folder)
    raise FileNotFoundError(f"the metric is neither in {INSTALLED} nor in {IN_CHECKOUT}; install mender anew")


@cache
def metric_module() -> ModuleType:
    """The metric's file as a module, for the functions in it; `evaluate.load` gives the metric alone.

    Raises:
        FileNotFoundError: if it is not there.

    >>> metric_module().target_ranks([["a", "b"]], ["b"]).tolist()
    [2]
    """
    file = Path(metric_folder()) / "preference_discerning.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
