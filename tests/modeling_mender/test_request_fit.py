"""The probability that anything fits: the same in any batch, for preferences only, and only where it was fitted."""

from __future__ import annotations

import pytest
import torch
from doubles import encoder_folder, small_method

from modeling_mender import ExpertsRecommender, pipeline_mender
from modeling_mender.request_fit import fit_names


@pytest.fixture(scope="module", params=["mender", "mender-lite", "mender-tok", "text-search"])
def method(request, tmp_path_factory):
    """A model with random coefficients of the features of its experts."""
    changes = {"experts": ["dense", "lexical", "popularity"]} if request.param == "mender-tok" else {}
    found = small_method(request.param, encoder_folder(tmp_path_factory.mktemp("encoder")), **changes)
    config = found.model.eval().experts.config
    values = torch.randn(1 + len(fit_names(config.experts)), generator=torch.Generator().manual_seed(0))
    config.fit = dict(zip(["constant", *fit_names(config.experts)], values.tolist(), strict=True))
    return found


def fits(method, preferences, histories=None, **options) -> torch.Tensor:
    return method.model.recommend(**method.processor(preferences, histories, **options), fit=True).fit


def test_neither_batch_nor_history_matters(method):
    texts = ["find tea", "gentle blue soap", "lamp", "xyz"]
    together = fits(method, texts)
    assert together.shape == (4,) and len(set(together.tolist())) == 4
    assert bool(((together >= 0) & (together <= 1)).all())
    for place, text in enumerate(texts):
        torch.testing.assert_close(fits(method, text)[0], together[place])
    if method.preset.name != "text-search":  # it reads no history
        torch.testing.assert_close(fits(method, texts, [["item-mug"]] * 4), together)
        torch.testing.assert_close(fits(method, texts, [["item-mug"]] * 4, dial=2.0), together)


def test_what_is_avoided_and_weights_do_not_change_it(method):
    inputs = method.processor(["find tea"], avoid=["soap"])
    found = method.model.recommend(**inputs, weights={"language": 0.5}, fit=True, why=True)
    torch.testing.assert_close(found.fit, fits(method, "find tea"))
    assert found.contributions is not None
    assert method.model.recommend(**inputs).fit is None


def test_of_several_preferences_the_least_counts(method):
    alone = fits(method, ["find tea", "lamp"])
    both = fits(method, {"find tea": 0.7, "lamp": 0.3}, [])
    torch.testing.assert_close(both, alone.min()[None])


def test_there_is_none_without_a_preference(method):
    if method.preset.name == "text-search":
        return
    found = fits(method, ["find tea", ""], [[], ["item-mug"]])
    assert not found[0].isnan() and found[1].isnan()
    serve = pipeline_mender.GenerativeRetrievalPipeline(model=method.model, processor=method.processor, device="cpu")
    answers = serve([{"history": ["item-mug"]}, "find tea"], fit=True, batch_size=2)
    assert answers[0][0]["fit"] is None and answers[1][0]["fit"] == pytest.approx(float(found[0]), abs=1e-5)
    assert "fit" not in serve("find tea")[0]


def test_it_is_saved_with_the_model(method, tmp_path):
    method.model.save_pretrained(tmp_path)
    loaded = type(method.model).from_pretrained(tmp_path)
    inputs = method.processor(["find tea"])
    torch.testing.assert_close(loaded.recommend(**inputs, fit=True).fit, fits(method, "find tea"))


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("mender-lite", {}, "has no coefficients"),
        ("mender-tok", {}, "preset mender or mender-lite"),
        ("popularity", {}, "preset mender or mender-lite"),
        ("sasrec", {}, "does not read preferences"),
    ],
)
def test_models_without_it_say_what_to_do(preset, changes, message, tmp_path):
    method = small_method(preset, encoder_folder(tmp_path), **changes)
    inputs = method.processor(["find tea"], [["item-mug"]])
    with pytest.raises(ValueError, match=message):
        method.model.recommend(**inputs, fit=True)


def test_a_coefficient_is_a_finite_number():
    with pytest.raises(ValueError, match=r"fit\['constant'\]=nan"):
        ExpertsRecommender.config_class(4, fit={"constant": float("nan")})
