"""Fixtures shared by the whole suite: everything runs offline, on tiny doubles or on real files when they are there."""

from __future__ import annotations

import os
import ssl
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
# Tests import doubles and loopback servers by name, from whatever folder they are in.
sys.path += sorted({str(path.parent) for path in TESTS.rglob("*.py")})

# The profiles of tests/properties.py.
import_module("properties")
settings.load_profile("repeatable")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The tests' tables are tiny: on a busy machine polars' threads would only wait for each other.
os.environ.setdefault("POLARS_MAX_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `tests/torture`."""
    how = "of tests/torture, repeatable: a count such as kills=500, seed=7, or report=table.md"
    parser.addoption("--torture", action="append", default=[], metavar="NAME=VALUE", help=how)


@pytest.fixture(scope="session", autouse=True)
def certificates_are_read_once():
    """Every client of a server reads those of the machine, though servers here are on the loopback interface."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk():
    """No test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of public data files; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("MENDER_TEST_DATA", TESTS.parents[1] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MENDER_TEST_DATA to a folder that holds it")
    return folder
