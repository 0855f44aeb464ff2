"""Benchmarks as modules."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script(request):
    """The benchmark that a test module names in `SCRIPT`."""
    sys.path.insert(0, str(FOLDER))  # it imports others
    name = request.module.SCRIPT
    spec = importlib.util.spec_from_file_location(f"{name}_script", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    sys.path.remove(str(FOLDER))
