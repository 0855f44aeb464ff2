"""A shop of random weights behind the application."""

from __future__ import annotations

import pytest
from small_shops import shop_of

from mender import Recommender

TOKEN = "s3cret"


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory) -> str:
    """Folder of a model with experts."""
    folder = tmp_path_factory.mktemp("served")
    shop_of("mender", tmp_path_factory.mktemp("encoder")).save_pretrained(folder / "model")
    return str(folder / "model")


@pytest.fixture
def shop(shop_folder) -> Recommender:
    """The recommender in it, to be edited."""
    return Recommender.from_pretrained(shop_folder, device="cpu")
