from __future__ import annotations

import pytest
import torch

from modeling_mender.semantic_ids.residual_kmeans import Quantizer, ResidualKMeans, reconstruction_error
from modeling_mender.semantic_ids.rq_vae import RqVae, RqVaeConfig, RqVaeTraining, _MovingCodebooks
from modeling_mender.semantic_ids.tie_breaking import CollapsedCodesError, report

SMALL = {"codes": 16, "latent_width": 4, "hidden_widths": [16]}


def bent(items: int = 400, width: int = 12, seed: int = 0) -> torch.Tensor:
    """Embeddings on a curved surface of four dimensions, which no linear projection captures."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randn(items, 4, generator=generator)
    layers = torch.Generator().manual_seed(99)
    wide = torch.tanh(inner @ torch.randn(4, 24, generator=layers)) @ torch.randn(24, width, generator=layers)
    return wide + 0.05 * torch.randn(items, width, generator=generator) + 3


@pytest.fixture(scope="module")
def fitted() -> RqVae:
    return RqVae.for_embeddings(bent(), **SMALL).fit(bent(), epochs=5)


def test_codes_are_in_range_and_follow_the_protocol(fitted):
    codes = fitted.encode(bent())
    assert isinstance(fitted, Quantizer)
    assert codes.shape == (400, 3) and codes.dtype == torch.int64
    assert fitted.codebook_sizes == (16, 16, 16)
    assert 0 <= codes.min() and codes.max() < 16
    assert fitted.decode(codes).shape == (400, 12)


def test_training_beats_k_means_in_as_many_components():
    torch.manual_seed(0)  # weights start at random: the collision rate is .13-.165, whatever ran before
    x, errors = bent(items=1500), []
    rq_vae = RqVae.for_embeddings(x, codes=32, latent_width=4, hidden_widths=[32])
    rq_vae.fit(x, epochs=30, warm_up_epochs=10, batch_size=128, on_epoch=lambda _, error: errors.append(error))
    linear = ResidualKMeans(codes=32, components=4).fit(x)
    assert errors[0] > min(errors)
    assert reconstruction_error(rq_vae, x) < 0.92 * reconstruction_error(linear, x)
    collisions = [report(q.encode(x), q.codebook_sizes).collision_rate for q in (rq_vae, linear)]
    assert collisions[0] <= collisions[1] + 0.03


def test_new_items_are_reconstructed_as_well(fitted):
    assert reconstruction_error(fitted, bent(seed=8)) < 0.5


def test_without_training_it_is_k_means_on_principal_components():
    x = bent()
    rq_vae = RqVae.for_embeddings(x, **SMALL).fit(x, epochs=0, warm_up_epochs=0, validation=0)
    linear = ResidualKMeans(codes=16, components=4).fit(x)
    assert reconstruction_error(rq_vae, x) == pytest.approx(reconstruction_error(linear, x), rel=0.1)


def test_same_seed_same_codes_and_the_callers_random_state_is_left_alone():
    x = bent()
    model = RqVae.for_embeddings(x, **SMALL)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.random.get_rng_state()
    first = model.fit(x, epochs=2).encode(x)
    assert torch.equal(before, torch.random.get_rng_state())
    model.load_state_dict(state)
    torch.manual_seed(123)
    assert torch.equal(first, model.fit(x, epochs=2).encode(x))
    model.load_state_dict(state)
    assert not torch.equal(first, model.fit(x, epochs=2, seed=1).encode(x))


def test_save_and_load_keep_every_code(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    again, x = RqVae.from_pretrained(tmp_path), bent(seed=7)
    assert torch.equal(again.encode(x), fitted.encode(x))
    assert torch.equal(again.decode(again.encode(x)), fitted.decode(fitted.encode(x)))
    assert again.config.hidden_widths == [16] and again.config.commitment == 0.25


def test_encoding_items_one_by_one_gives_the_same_codes_in_any_mode(fitted):
    x = bent(seed=5)[:50]
    together = fitted.encode(x)
    fitted.train()
    assert torch.equal(together, torch.cat([fitted.encode(row[None]) for row in x]))
    assert fitted.training
    fitted.eval()
    assert torch.equal(together, fitted.encode(x.numpy()))


def test_forward_lets_gradients_pass_the_quantisation(fitted):
    model = RqVae(fitted.config)
    model.load_state_dict(fitted.state_dict())
    output = model.eval()(bent())
    assert torch.equal(output.codes, fitted.encode(bent()))
    assert torch.allclose(output.reconstruction, fitted.decode(output.codes), atol=1e-4)
    output.reconstruction.sum().backward()
    assert model.projection.weight.grad.abs().sum() > 0
    assert model.codebooks.grad is None


def test_training_stops_when_held_out_items_no_longer_improve():
    x, errors = bent(), []
    RqVae.for_embeddings(x, **SMALL).fit(
        x, epochs=200, patience=2, learning_rate=0.02, on_epoch=lambda _, error: errors.append(error)
    )
    assert len(errors) < 201
    assert len(errors) - 1 - errors.index(min(errors)) == 2


def test_the_best_epoch_is_kept():
    x, states, errors = bent(), [], []

    def remember(model: RqVae, error: float) -> None:
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        errors.append(error)

    model = RqVae.for_embeddings(x, **SMALL)
    model.fit(x, epochs=12, patience=3, learning_rate=0.05, on_epoch=remember)
    best = states[errors.index(min(errors))]
    assert all(torch.equal(tensor, best[name]) for name, tensor in model.state_dict().items())


def test_codebooks_are_the_means_of_what_they_serve():
    generator = torch.Generator().manual_seed(0)
    books = torch.randn(2, 4, 3, generator=generator)
    latent = torch.randn(200, 3, generator=generator)
    codes = torch.randint(4, (200, 2), generator=generator)
    before = books.clone()
    _MovingCodebooks(books, torch.ones(2, 4), decay=0, revive_below=0, seed=0).update(latent, codes)
    second = latent - before[0][codes[:, 0]]
    for code in range(4):
        assert torch.allclose(books[0, code], latent[codes[:, 0] == code].mean(dim=0), atol=1e-5)
        assert torch.allclose(books[1, code], second[codes[:, 1] == code].mean(dim=0), atol=1e-5)


def test_dead_codes_move_onto_items():
    books = torch.tensor([[[0.0], [1e3]]])
    latent, codes = torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3, 1, dtype=torch.int64)
    averages = _MovingCodebooks(books, torch.tensor([[3.0, 0.01]]), decay=0.9, revive_below=0.1, seed=0)
    averages.update(latent, codes)
    assert books[0, 1, 0] in latent
    assert 0 < books[0, 0, 0] < 1


def test_spread_leaves_no_collision(fitted):
    x = bent()
    sizes = fitted.codebook_sizes
    assert report(fitted.encode(x, spread=True), sizes).collision_rate == 0
    taken = fitted.encode(x[:300], spread=True)
    arriving = fitted.encode(x[300:], spread=True, taken=taken)
    assert report(torch.cat([taken, arriving]), sizes).collision_rate == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width=0 is too small"),
        ({"codes": 1}, "codes=1 is too small"),
        ({"levels": 0}, "levels=0"),
        ({"width": 8, "latent_width": 9}, "latent_width=9 exceeds width=8"),
        ({"hidden_widths": [4, 0]}, r"hidden_widths=\[4, 0\]"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"commitment": -1.0}, "commitment=-1.0"),
    ],
)
def test_shapes_are_checked_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        RqVaeConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "epochs=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"validation": 1.0}, "validation=1.0"),
        ({"decay": -0.1}, "decay=-0.1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        RqVaeTraining(**settings)


def test_input_that_cannot_be_used_is_refused(fitted):
    unfitted = RqVae(RqVaeConfig(width=12, **SMALL))
    with pytest.raises(ValueError, match="not fitted"):
        unfitted.encode(bent())
    with pytest.raises(ValueError, match="not fitted"):
        unfitted.decode(torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="codes=16 needs at least 16 training items, got 10"):
        unfitted.fit(bent(items=10))
    with pytest.raises(ValueError, match="zero variance"):
        unfitted.fit(torch.ones(50, 12))
    with pytest.raises(ValueError, match="5 wide but the quantizer was fitted on width 12"):
        unfitted.fit(torch.randn(50, 5))
    with pytest.raises(ValueError, match="expected 0 to 15"):
        fitted.decode(torch.full((1, 3), 16))
    x = bent()
    x[3, 1] = float("nan")
    with pytest.raises(ValueError, match="nan in row 3"):
        fitted.encode(x)


def test_collapse_is_refused_with_the_remedy():
    outlier = torch.cat([1e-6 * bent(), torch.full((1, 12), 1e6)])
    with pytest.raises(CollapsedCodesError, match="first-level codes in use.*use ResidualKMeans"):
        RqVae.for_embeddings(outlier, **SMALL).fit(outlier, epochs=1)


def test_divergence_is_refused():
    with pytest.raises(ValueError, match="warm-up diverged; lower learning_rate=1e\\+30"):
        RqVae.for_embeddings(bent(), **SMALL).fit(bent(), learning_rate=1e30)


@pytest.mark.gpu
def test_trains_and_encodes_on_cuda(tmp_path):
    x = bent()
    model = RqVae.for_embeddings(x, **SMALL).cuda().fit(x, epochs=5)
    codes = model.encode(x)
    assert codes.device.type == "cpu" and model.codebooks.is_cuda
    model.save_pretrained(tmp_path)
    assert (RqVae.from_pretrained(tmp_path).encode(x) == codes).float().mean() > 0.99
    assert report(model.encode(x, spread=True), model.codebook_sizes).collision_rate == 0
