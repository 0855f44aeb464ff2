"""Requests that no model was fitted on, and figures of the fits that they get."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml

from modeling_mender.training.fit_probability import WISHES

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("fit_script", FOLDER / "fit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fitting_and_testing_share_no_template_and_no_thing(script):
    fitting, testing = (yaml.safe_load(path.read_text("utf-8")) for path in (WISHES, script.REQUESTS))
    assert not {*fitting["templates"]} & {*testing["templates"]}
    assert not {*fitting["things"]} & {*testing["things"]}
    assert not {*fitting["things"].values()} & {*testing["things"].values()}
    for word, phrase in testing["things"].items():
        assert word in phrase


def test_figures_are_what_their_definitions_say(script):
    fits = {
        "known": np.array([0.95, 0.95]),
        "things": np.array([0.05, 0.95]),
        "invented words": np.array([0.05]),
        "random keys": np.array([0.05]),
    }
    total, *groups = script.figures(fits)
    assert total["auc"] == pytest.approx(0.6 * 0.75 + 0.4) and total["auc/things"] == pytest.approx(0.75)
    # In the last bin are wishes of weight .5 and a thing of .15; all else is in the first.
    expected = abs(0.65 * 0.95 - 0.5) / 1 + 0.35 * 0.05
    assert total["calibration_error"] == pytest.approx(expected)
    assert [row["fit>=.5"] for row in groups] == [1.0, 0.5, 0.0, 0.0]
