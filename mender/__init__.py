"""Recommends items to people by what they bought and what they say.

>>> from mender import Recommender
>>> shop = Recommender.from_pretrained("org/mender-books")  # doctest: +SKIP
>>> shop.recommend("something cosy for a rainy evening", history=["b-07"], top_k=5)  # doctest: +SKIP

This is the only package that imports `modeling_mender`, `preference_benchmark` and the metric, which are independent of
each other. The command `mender` and the examples use it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from modeling_mender.request import Request

    from .recommender import Recommender

__all__ = ["Recommender", "Request", "__version__"]

_MODULES = {"Recommender": "mender.recommender", "Request": "modeling_mender.request"}


def __getattr__(name: str) -> Any:
    """Imports a name on first use, so that the command line starts quickly."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
