"""Saved models that are installed with this package: something to ask before anything is trained.

corner-shop   the model that `make demo` trains, over the goods of an invented shop

Weights are stored in half precision, the text encoder by reference; the code that a saved model carries is left out,
because it is installed. `make packaged` writes them (`mender/packaged/__main__.py`).
"""

from __future__ import annotations

from pathlib import Path

from mender.model_folder import recover

__all__ = ["model_place", "packaged_model", "packaged_models"]

FOLDER = Path(__file__).parent


def packaged_models() -> list[str]:
    """Names of the models that are installed with this package."""
    return sorted(path.parent.name for path in FOLDER.glob("[!.]*/config.json"))


def packaged_model(name: str) -> Path:
    """The folder of a packaged model, for all that takes a folder, such as `AutoModel.from_pretrained`.

    Raises:
        ValueError: if there is none of that name.

    >>> AutoModel.from_pretrained(packaged_model("corner-shop"))  # doctest: +SKIP
    """
    if name not in packaged_models():
        raise ValueError(f"no packaged model {name!r}; there is {', '.join(packaged_models())}")
    return FOLDER / name


def model_place(name: str | Path) -> str | Path:
    """Where a saved model is: the folder of a packaged one, any other name as it came.

    A folder of that name in the working directory comes first, as it does before names on the Hub.

    Args:
        name: a folder, a name on the Hub, or that of a packaged model.

    >>> model_place("org/mender-small")
    'org/mender-small'
    """
    if not isinstance(name, str) or name not in packaged_models():
        return name
    recover(name)  # a folder that is being replaced may have no name for a moment
    return name if Path(name).is_dir() else packaged_model(name)
