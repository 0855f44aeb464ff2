"""Packages that may not import one another name axes, sentiments and kinds alike."""

from __future__ import annotations

from mender.evaluation import metric_module
from mender.report import AXIS_NAMES
from modeling_mender.configuration_mender import KINDS
from modeling_mender.training import data as training
from preference_benchmark.axes import protocol
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE


def test_axes_have_the_same_names_in_the_same_order():
    metric = metric_module()
    assert protocol.AXES == training.AXES
    assert {*metric.AXES} == {*protocol.AXES} == {*AXIS_NAMES}
    assert {*metric.CHOSEN_AXES} == {*protocol.STEERING_AXES, *protocol.SENTIMENT_AXES, *protocol.WISH_AXES}


def test_sentiments_and_kinds_have_the_same_names():
    assert {*metric_module().SENTIMENTS} == {POSITIVE, NEGATIVE}
    assert protocol.KINDS == KINDS and {*metric_module().KINDS} == {*KINDS}
    assert training.DEFAULTS["sentiment"] == POSITIVE and training.DEFAULTS["kind"] in KINDS
