from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from modeling_mender.semantic_ids.residual_kmeans import Quantizer, ResidualKMeans, choose_codes, reconstruction_error
from modeling_mender.semantic_ids.tie_breaking import CollapsedCodesError, report


def clustered(items: int = 400, width: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(10, width, generator=generator)
    picks = torch.randint(10, (items,), generator=generator)
    return centres[picks] + torch.randn(items, width, generator=generator) + 5


@pytest.fixture(scope="module")
def fitted() -> ResidualKMeans:
    return ResidualKMeans(levels=3, codes=16).fit(clustered())


def test_codes_are_in_range_and_follow_the_protocol(fitted):
    codes = fitted.encode(clustered())
    assert isinstance(fitted, Quantizer)
    assert codes.shape == (400, 3) and codes.dtype == torch.int64
    assert fitted.codebook_sizes == (16, 16, 16)
    assert 0 <= codes.min() and codes.max() < 16


def test_every_level_takes_the_nearest_centroid_of_what_is_left(fitted):
    x = clustered()
    residual = (x - x.mean(0)) / x.std(0, correction=0)
    for level, column in enumerate(fitted.encode(x).unbind(dim=1)):
        distances = torch.cdist(residual.double(), fitted.codebooks[level].double())
        assert torch.allclose(distances.gather(1, column[:, None])[:, 0], distances.min(dim=1).values)
        residual = residual - fitted.codebooks[level][column]


def test_levels_bring_the_reconstruction_closer():
    x = clustered()
    errors = [reconstruction_error(ResidualKMeans(levels=n, codes=16).fit(x), x) for n in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True) and errors[0] < 0.5 and errors[3] < 0.1


def test_one_code_per_item_loses_nothing():
    x = clustered(items=30)
    quantizer = ResidualKMeans(levels=1, codes=30).fit(x)
    assert report(quantizer.encode(x), quantizer.codebook_sizes).collision_rate == 0
    assert torch.allclose(quantizer.decode(quantizer.encode(x)), x, atol=1e-4)


def test_similar_items_share_their_first_code():
    generator = torch.Generator().manual_seed(0)
    centres = 50 * torch.randn(8, 12, generator=generator)
    picks = torch.arange(8).repeat_interleave(30)
    x = centres[picks] + torch.randn(240, 12, generator=generator)
    first = ResidualKMeans(levels=2, codes=32).fit(x).encode(x)[:, 0]
    together = first[:, None] == first[None]
    assert (picks[:, None] == picks[None])[together].all()
    assert together.sum() > 2 * len(x)


def test_same_seed_same_codes_and_units_do_not_matter():
    x = clustered()
    codes = ResidualKMeans(codes=16, seed=1).fit(x).encode(x)
    assert torch.equal(codes, ResidualKMeans(codes=16, seed=1).fit(x).encode(x))
    assert not torch.equal(codes, ResidualKMeans(codes=16, seed=2).fit(x).encode(x))
    # Powers of two rescale exactly, so standardised embeddings are equal to the last bit.
    assert torch.equal(codes, ResidualKMeans(codes=16, seed=1).fit(4 * x).encode(4 * x))


def test_encoding_items_one_by_one_gives_the_same_codes(fitted, monkeypatch):
    x = clustered(seed=5)
    together = fitted.encode(x)
    assert torch.equal(together, torch.cat([fitted.encode(row[None]) for row in x]))
    monkeypatch.setattr("modeling_mender.semantic_ids.residual_quantisation.ROWS_PER_CHUNK", 7)
    assert torch.equal(together, fitted.encode(x))
    assert torch.equal(together, fitted.encode(x.numpy().astype(np.float64)))
    assert fitted.encode(x[:0]).shape == (0, 3)


def test_save_and_load_keep_every_code(fitted, tmp_path):
    x = clustered(seed=7)
    for quantizer in (fitted, ResidualKMeans(codes=16, components=5).fit(clustered())):
        quantizer.save_pretrained(tmp_path / "quantizer")
        again = ResidualKMeans.from_pretrained(tmp_path / "quantizer")
        assert repr(again) == repr(quantizer)
        assert torch.equal(again.encode(x), quantizer.encode(x))
        assert torch.equal(again.decode(again.encode(x)), quantizer.decode(quantizer.encode(x)))
    names = {path.name for path in (tmp_path / "quantizer").iterdir()}
    assert names == {"quantizer.safetensors", "quantizer_config.json"}


def test_interrupted_save_keeps_the_old_files(fitted, tmp_path, monkeypatch):
    fitted.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def no_space(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("modeling_mender.semantic_ids.residual_kmeans.save_file", no_space)
    with pytest.raises(OSError, match="no space"):
        fitted.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_principal_components_keep_what_matters():
    generator = torch.Generator().manual_seed(0)
    flat = clustered(width=4) @ torch.randn(4, 40, generator=generator)
    narrow = ResidualKMeans(codes=16, components=4).fit(flat)
    wide = ResidualKMeans(codes=16, components=None).fit(flat)
    assert narrow.codebooks.shape == (3, 16, 4) and wide.codebooks.shape == (3, 16, 40)
    assert narrow.decode(narrow.encode(flat)).shape == flat.shape
    assert reconstruction_error(narrow, flat) == pytest.approx(reconstruction_error(wide, flat), rel=0.15)


def test_constant_dimensions_are_harmless():
    x = torch.cat([clustered(), torch.full((400, 2), 0.1)], dim=1)
    quantizer = ResidualKMeans(codes=16, components=None).fit(x)
    assert torch.allclose(quantizer.decode(quantizer.encode(x))[:, -2:], x[:, -2:], atol=1e-5)


@pytest.mark.parametrize("items", [2, 3, 10, 60, 147, 582, 900])
def test_small_catalogues_get_codes_that_branch(items):
    x = torch.randn(items, 8, generator=torch.Generator().manual_seed(items))
    quantizer = ResidualKMeans().fit(x)
    size = quantizer.codebook_sizes[0]
    assert size == choose_codes(items) and size & (size - 1) == 0
    measured = report(quantizer.encode(x), quantizer.codebook_sizes)
    assert measured.max_items_per_prefix[0] > 1 or items < 4


def test_chosen_codes_grow_with_the_catalogue():
    chosen = [choose_codes(n) for n in range(1, 30_000)]
    assert chosen == sorted(chosen)
    assert {choose_codes(n) for n in (11_924, 12_101, 18_357)} == {256}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 0}, "levels=0 is too small"),
        ({"codes": 1}, "codes=1 is too small"),
        ({"components": 0}, "components=0"),
        ({"iterations": 0}, "iterations=0"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        ResidualKMeans(**settings)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.zeros(5), r"shape \(items, width\), got \(5,\)"),
        (torch.zeros(0, 4), "zero variance"),
        (torch.ones(50, 4), "the 50 embeddings have zero variance"),
        (torch.randn(20, 4), "codes=64 needs at least 64 items, got 20"),
    ],
)
def test_embeddings_that_cannot_be_fitted_are_refused(embeddings, message):
    with pytest.raises(ValueError, match=message):
        ResidualKMeans(codes=64).fit(embeddings)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_rows_that_are_not_finite_are_named(fitted, value):
    x = clustered()
    x[17, 3] = value
    for call in (ResidualKMeans(codes=16).fit, fitted.encode):
        with pytest.raises(ValueError, match=f"{value} in row 17 .1 of 400"):
            call(x)


def test_codes_and_widths_of_others_are_refused(fitted):
    with pytest.raises(ValueError, match="9 wide but the quantizer was fitted on width 12"):
        fitted.encode(torch.zeros(3, 9))
    with pytest.raises(ValueError, match=r"shape \(items, 3\), got \(1, 2\)"):
        fitted.decode(torch.zeros(1, 2, dtype=torch.int64))
    for code in (-1, 16):
        with pytest.raises(ValueError, match="expected 0 to 15"):
            fitted.decode(torch.tensor([[0, code, 0]]))


def test_unfitted_quantizer_says_so(tmp_path):
    for call in (lambda q: q.encode(clustered()), lambda q: q.save_pretrained(tmp_path), lambda q: q.codebook_sizes):
        with pytest.raises(ValueError, match="not fitted"):
            call(ResidualKMeans())
    assert not list(tmp_path.iterdir())


def test_few_distinct_rows_are_coded_and_a_collapse_is_refused():
    copies = clustered(items=20)[torch.arange(20).repeat(30)]
    assert len(ResidualKMeans(codes=16).fit(copies).encode(copies).unique(dim=0)) == 20
    # One far-away item takes all the variance: everything else lands on one code.
    outlier = torch.cat([1e-4 * clustered(), torch.full((1, 12), 1e6)])
    with pytest.raises(CollapsedCodesError, match="first-level codes in use.*fuller texts"):
        ResidualKMeans(codes=16).fit(outlier)


def test_files_that_do_not_fit_are_refused(fitted, tmp_path):
    with pytest.raises(OSError):
        ResidualKMeans.from_pretrained(tmp_path)
    fitted.save_pretrained(tmp_path)
    path = tmp_path / "quantizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"levels": 2}))
    with pytest.raises(ValueError, match="the weights have the shapes"):
        ResidualKMeans.from_pretrained(tmp_path)
    path.write_text(json.dumps(config | {"quantizer_type": "rq_vae"}))
    with pytest.raises(ValueError, match="holds no ResidualKMeans"):
        ResidualKMeans.from_pretrained(tmp_path)
