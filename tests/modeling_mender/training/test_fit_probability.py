"""The fitted probability tells what the shop has from what it has not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from doubles import WORDS, encoder_folder, shop_examples, small_method

from modeling_mender.training.fit_probability import (
    WISHES,
    absent_things,
    fit_fit_probability,
    logistic_regression,
)


def test_the_regression_finds_the_coefficients():
    generator = np.random.default_rng(0)
    features = generator.normal(3, [1.0, 5.0, 0.0], (20_000, 3))
    truth = 1 / (1 + np.exp(-(features @ [1.0, -0.4, 0.0] - 1.0)))
    labels = (generator.random(len(features)) < truth).astype(float)
    constant, own = logistic_regression(features, labels, np.ones(len(features)), ridge=1e-6)
    assert own == pytest.approx([1.0, -0.4, 0.0], abs=0.1) and constant == pytest.approx(-1.0, abs=0.3)


def test_weights_count_as_repetitions_and_separable_classes_stay_finite():
    generator = np.random.default_rng(1)
    features, labels = generator.normal(size=(60, 2)), generator.integers(0, 2, 60).astype(float)
    times = generator.integers(1, 5, 60)
    weighted = logistic_regression(features, labels, times)
    repeated = logistic_regression(features.repeat(times, 0), labels.repeat(times), np.ones(times.sum()))
    assert weighted[0] == pytest.approx(repeated[0]) and weighted[1] == pytest.approx(repeated[1])
    constant, own = logistic_regression(features, (features[:, 0] > 0).astype(float), np.ones(60))
    assert own[0] > 1 and np.isfinite([constant, *own]).all()


@pytest.fixture
def method(tmp_path):
    found = small_method("mender-lite", encoder_folder(tmp_path))
    found.model.eval()
    return found


def wishes():
    """The validation split with its steering examples as wishes."""
    examples = shop_examples()["validation"]
    return examples.map(lambda row: {"axis": row["axis"].replace("fine_grained_steering", "open_wishes")})


def test_what_the_shop_has_fits_and_nonsense_does_not(method):
    record = fit_fit_probability(method.model, method.processor, wishes())
    assert record["wishes"] == 30 and record["coefficients"] == method.model.config.fit
    there, absent = (
        method.model.recommend(**method.processor(texts), top_k=1, fit=True).fit
        for texts in ([f"find {word}" for word in WORDS[4:]], ["a violin", "qkjzx wpft", "seven bridges under oxygen"])
    )
    assert there.median() > 0.5 > absent.max()


def test_the_same_seed_gives_the_same_coefficients(method):
    first, again = (fit_fit_probability(method.model, method.processor, wishes(), seed=3) for _ in range(2))
    assert first == again


def test_without_wishes_there_are_no_coefficients(method):
    method.model.config.fit = {"constant": 1.0}
    assert fit_fit_probability(method.model, method.processor, shop_examples()["validation"]) is None
    assert method.model.config.fit is None


def test_things_that_items_mention_are_not_absent(method):
    things = {"tea": "a strong tea", "violin": "a violin", "blue glass": "a mirror of blue glass", "rose tea": "roses"}
    # The item "blue" has the text "blue cotton", the item "glass" another; no item has both words of "rose tea".
    assert absent_things(method.model, method.processor, things) == ["a violin", "a mirror of blue glass", "roses"]
    lexical = method.model.experts.lexical
    token = method.processor.text_tokens(["violin"])[0]
    assert int(lexical.starts[token[0]]) == int(lexical.starts[token[0] + 1])


def test_lists_are_whole():
    settings = yaml.safe_load(WISHES.read_text("utf-8"))
    assert all("{}" in template for template in settings["templates"]) and len(settings["things"]) >= 90
    for word, phrase in settings["things"].items():
        assert word in phrase
    assert torch.tensor([len(settings[name]) for name in ("qualities", "templates")]).min() > 5
