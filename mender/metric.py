"""Where the metric lies, for `evaluate.load`: beside the packages in a checkout, inside this one once installed."""

from __future__ import annotations

from pathlib import Path

__all__ = ["metric_folder"]

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
