"""A tiny saved model with its showcase, and the page's modules to import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS, ROOT = HERE.parents[1], HERE.parents[2]
sys.path += map(str, (HERE, ROOT / "examples" / "demo", TESTS / "modeling_mender", TESTS / "hub"))


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """A folder with a random Mender over sixteen items."""
    from saved_models import SHOWCASE, save_model

    return save_model(tmp_path_factory.mktemp("saved") / "model", SHOWCASE)


@pytest.fixture(scope="session")
def recommender(saved):
    """That model, loaded."""
    from page_model import load_model

    return load_model(str(saved))
