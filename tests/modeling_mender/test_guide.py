"""The search over the sum of generator and experts keeps its promises, by brute force over random models."""

from __future__ import annotations

import pytest
import torch
from doubles import VOCABULARY, brute_force_scores, random_catalogue, tiny_encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_mender import MenderForGenerativeRetrieval, SemanticIdCatalogue
from modeling_mender.configuration_mender import EXPERTS, KINDS, ExpertSumConfig, ItemStatesConfig
from modeling_mender.generation_mender import SemanticIdLogitsProcessor, catalogue_beam_search
from modeling_mender.guide import PathGuide, additive_centroids
from modeling_mender.item_evidence import ItemEvidence
from modeling_mender.item_states import ItemStatesEncoder
from modeling_mender.retrieval import expand
from modeling_mender.training.closed_form import bm25_index, fill_lexical

many = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def model_with_experts(catalogue: SemanticIdCatalogue, seed: int = 0, kinds: bool = True, experts: bool = True):
    """A generator over item vectors with random weights, and all experts, with random contents and weights."""
    torch.manual_seed(seed)
    items = catalogue.num_items
    shape = ItemStatesConfig(tiny_encoder(), VOCABULARY, items, pooled=True, max_history=4)
    encoder = ItemStatesEncoder(shape)
    vectors = torch.nn.functional.normalize(torch.randn(items, shape.hidden_size), dim=-1)
    encoder.set_item_states(vectors, torch.ones(items, dtype=torch.bool))
    decoder = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 3}
    model = MenderForGenerativeRetrieval.from_encoder(encoder, catalogue, decoder=decoder, kinds=kinds)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.eval()
    if not experts:
        return model
    texts = [torch.randint(5, VOCABULARY, (6,)).tolist() for _ in range(items)]
    index = bm25_index(texts, VOCABULARY)
    weights = {kind: {name: float(torch.rand(()) * 2) for name in (*EXPERTS, "generator")} for kind in KINDS}
    config = ExpertSumConfig(
        items, EXPERTS, 5, len(index[1]), VOCABULARY, generator=True, weights=weights, avoid=float(torch.rand(()))
    )
    model.set_experts(config)
    for parameter in model.experts.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    fill_lexical(model.experts.lexical, index)
    model.experts.popularity.counts.copy_(torch.randint(0, 9, (items,)))
    model.experts.co_purchase.set_matrix(torch.randn(items, items))
    model.experts.transitions.set_matrix(torch.rand(items, items))
    return model


def requests(users: int, items: int, seed: int = 0, avoided: int = 0) -> dict[str, torch.Tensor]:
    """Preferences and histories of several lengths, the last user silent, with the mask a processor makes."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for user in range(users):
        text = torch.randint(5, VOCABULARY, (int(torch.randint(1, 5, (), generator=generator)),), generator=generator)
        history = VOCABULARY + torch.randint(items, (user % 4,), generator=generator)
        silent = user == users - 1 and len(history)
        rows.append(torch.cat([text[:0] if silent else text, history]))
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    is_text = (input_ids > 0) & (input_ids < VOCABULARY)
    found = {"input_ids": input_ids, "attention_mask": ((input_ids > 0) & ~is_text).long()}
    found["attention_mask"][:, 0] = 1
    if avoided:
        found["avoid_input_ids"] = torch.randint(5, VOCABULARY, (users, avoided, 3), generator=generator)
    return found


def brute_force(model, inputs, kind, weights=None) -> torch.Tensor:
    """The sum of generator and experts for every item, -inf for removed ones. Shape: (B, N)."""
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    live = model.item_codes[:, 0] >= 0
    total = torch.full((len(inputs["input_ids"]), len(live)), -torch.inf)
    parts = model.experts(inputs["input_ids"], len(live), encoder=model.encoder)
    parts["generator"] = torch.zeros(total.shape)
    for user in range(len(total)):
        one = {name: value[user : user + 1] for name, value in plain.items()}
        parts["generator"][user, live] = brute_force_scores(model, one, kind=kind[user : user + 1])[0]
    own = model.config.experts.weights
    for user, index in enumerate(kind.tolist()):
        factors = {name: weight * (weights or {}).get(name, 1.0) for name, weight in own[KINDS[index]].items()}
        total[user, live] = sum(factors[name] * parts[name][user, live] for name in factors)
    if "avoid_input_ids" in inputs:
        shared = {"encoder": model.encoder, "live": live.nonzero().squeeze(1)}
        total -= model.experts.penalty(inputs["avoid_input_ids"], len(live), **shared)
    return total


@st.composite
def cases(draw):
    """Codebook sizes (tie-breaking levels of one code among them), items, users, top_k, beams, avoided, seed."""
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    items = draw(st.integers(1, min(int(torch.tensor(sizes).prod()), 50)))
    top_k = draw(st.integers(1, items + 3))
    width = draw(st.integers(min(top_k, items), items + 5))
    return sizes, items, draw(st.integers(1, 4)), top_k, width, draw(st.integers(0, 2)), draw(st.integers(0, 99))


@pytest.fixture(params=["padded", "ragged"])
def layout(request, monkeypatch):
    """Both layouts of children must give the same answers."""
    monkeypatch.setattr(SemanticIdCatalogue, "is_ragged", lambda self, level: request.param == "ragged")
    monkeypatch.setattr("modeling_mender.candidates.RAGGED_COST", 0 if request.param == "ragged" else 3)


@pytest.fixture(params=["few items", "very many items"])
def scale(request, monkeypatch):
    """A small catalogue, or one that is treated as if it had too many items to score each."""
    if request.param != "few items":
        monkeypatch.setattr("modeling_mender.experts.SCORED_ITEMS", 0)
        monkeypatch.setattr("modeling_mender.experts.RARE", 2)
        monkeypatch.setattr("modeling_mender.guide.CORRECTED", 1)
        monkeypatch.setattr("modeling_mender.guide.LEADING", 3)
    return request.param


@many
@given(cases(), st.data())
def test_exact_and_covering_beams_equal_brute_force_over_the_sum(layout, scale, case, data):
    sizes, items, users, top_k, width, avoided, seed = case
    model = model_with_experts(random_catalogue(items, sizes, seed, skewed=data.draw(st.booleans())), seed)
    generator = torch.Generator().manual_seed(seed)
    if items > 1 and data.draw(st.booleans()):
        gone = torch.randperm(items, generator=generator)[: items // 2]
        model.set_catalogue(model.catalogue.remove(gone))
    inputs = requests(users, items, seed, avoided)
    kind = torch.randint(len(KINDS), (users,), generator=generator)
    expected = brute_force(model, inputs, kind)
    filters = {}
    if data.draw(st.booleans()):
        filters["allowed"] = torch.rand((users, items), generator=generator) < 0.6
        expected = expected.masked_fill(~filters["allowed"], -torch.inf)
    if data.draw(st.booleans()):
        filters["exclude"] = torch.randint(-1, items, (users, 3), generator=generator)
        for user, rows in enumerate(filters["exclude"].tolist()):
            expected[user, [row for row in rows if row >= 0]] = -torch.inf
    if bool((expected == -torch.inf).all(1).any()):
        with pytest.raises(ValueError, match="no item is left"):
            model.recommend(**inputs, kind=kind, top_k=top_k, **filters)
        return
    best = expected.sort(dim=1, descending=True).values[:, :top_k]
    best = best[:, : int((expected > -torch.inf).sum(1).max())]
    for beams in ("exact", len(model.catalogue)):
        found = model.recommend(
            **inputs, kind=kind, top_k=top_k, num_beams=max(beams, top_k) if beams != "exact" else beams, **filters
        )
        torch.testing.assert_close(found.scores, best, rtol=1e-4, atol=1e-4)
        real = found.item_indices >= 0
        own = expected.gather(1, found.item_indices.clamp(min=0))
        torch.testing.assert_close(own[real], found.scores[real], rtol=1e-4, atol=1e-4)
        assert torch.equal(real, found.scores > -torch.inf)
    narrow = model.recommend(**inputs, kind=kind, top_k=top_k, num_beams=max(width, top_k), **filters)
    real = narrow.item_indices >= 0
    # Whatever a narrow beam finds is scored exactly, allowed, and there once; and as much is found as there is.
    torch.testing.assert_close(
        narrow.scores[real], expected.gather(1, narrow.item_indices.clamp(min=0))[real], rtol=1e-4, atol=1e-4
    )
    assert torch.equal(real.sum(1), (expected > -torch.inf).sum(1).clamp(max=real.shape[1]))
    assert all(
        len({*row}) == len(row) for row in ([item for item in own if item >= 0] for own in narrow.item_indices.tolist())
    )


def test_with_the_other_weights_at_zero_the_generator_answers_alone():
    catalogue = random_catalogue(40, [4, 4, 5])
    model, alone = model_with_experts(catalogue), model_with_experts(catalogue, experts=False)
    inputs, kind = requests(4, 40), torch.tensor([0, 1, 2, 0])
    expected = alone.recommend(**inputs, kind=kind)
    model.config.experts.set_weights({own: {**dict.fromkeys(EXPERTS, 0.0), "generator": 1.0} for own in KINDS}, 0.0)
    for factors in (None, {"language": 3.0}):
        found = model.recommend(**inputs, kind=kind, weights=factors, avoid_input_ids=inputs["input_ids"][:, None])
        assert torch.equal(found.item_indices, expected.item_indices) and torch.equal(found.scores, expected.scores)


@many
@given(st.integers(0, 99), st.integers(1, 3))
def test_without_the_generator_a_beam_finds_what_the_experts_put_first(seed, top_k):
    model = model_with_experts(random_catalogue(45, [4, 4, 4], seed), seed)
    inputs, kind = requests(3, 45, seed), torch.tensor([0, 1, 2])
    found = model.recommend(**inputs, kind=kind, top_k=top_k, num_beams=3, weights={"generator": 0})
    expected = brute_force(model, inputs, kind, {"generator": 0.0})
    torch.testing.assert_close(
        found.scores, expected.sort(dim=1, descending=True).values[:, :top_k], rtol=1e-4, atol=1e-4
    )


@many
@given(st.integers(0, 99), st.floats(-1, 3), st.floats(0.1, 2))
def test_conditions_are_added_with_their_weights(scale, seed, strength, generator_weight):
    model = model_with_experts(random_catalogue(30, [4, 4, 4], seed), seed)
    first, second = requests(2, 30, seed), requests(2, 30, seed + 1)
    width = max(part["input_ids"].shape[1] for part in (first, second))
    padded = [
        {name: torch.nn.functional.pad(value, (0, width - value.shape[1])) for name, value in part.items()}
        for part in (first, second)
    ]
    inputs = {name: torch.stack([part[name] for part in padded], dim=1) for name in first}
    weights = torch.tensor([[strength, 1 - strength]] * 2)
    factors = {"generator": generator_weight, "behaviour": 0.0}
    found = model.recommend(
        **inputs, kind=torch.zeros(2).long(), condition_weights=weights, num_beams="exact", top_k=30, weights=factors
    )
    given = {**dict.fromkeys(EXPERTS[:3], 0.0), "generator": generator_weight}
    kind = torch.zeros(2, dtype=torch.int64)
    expected = strength * brute_force(model, first, kind, given) + (1 - strength) * brute_force(
        model, second, kind, given
    )
    expected = expected.sort(dim=1, descending=True).values
    torch.testing.assert_close(found.scores, expected, rtol=1e-3, atol=1e-3)


def test_items_added_after_training_are_found_by_what_is_said_of_them(scale):
    items, model = 40, model_with_experts(random_catalogue(40, [5, 5, 5]))
    free = [
        code for code in torch.cartesian_prod(*[torch.arange(5)] * 3).tolist() if tuple(code) not in model.catalogue
    ]
    model.set_catalogue(model.catalogue.add(torch.tensor(free[:3])))
    vectors = torch.cat([model.encoder.item_states, torch.nn.functional.normalize(torch.randn(3, 24), dim=-1)])
    with pytest.raises(ValueError, match="vectors of 40"):
        model.recommend(**requests(1, items), kind=torch.tensor([0]))
    model.encoder.set_item_states(vectors, torch.ones(43, dtype=torch.bool))
    model.experts.add_items([[7, 8, 9], [7, 10], [11, 11]])
    inputs, kind = requests(2, 43, seed=3), torch.tensor([0, 2])
    expected = brute_force(model, inputs, kind)
    found = model.recommend(**inputs, kind=kind, top_k=43, num_beams="exact")
    torch.testing.assert_close(found.scores, expected.sort(dim=1, descending=True).values, rtol=1e-4, atol=1e-4)
    # Nothing but the words: the added item that has them comes first, though the generator hardly knows it.
    asked = {"input_ids": torch.tensor([[11]]), "attention_mask": torch.ones(1, 1, dtype=torch.int64)}
    words = {"lexical": 1e3, "dense": 0.0, "behaviour": 0.0}
    assert model.recommend(**asked, kind=kind[:1], top_k=1, num_beams=2, weights=words).item_indices.tolist() == [[42]]


def test_priors_move_items_and_say_what_is_wrong_with_them(scale):
    model = model_with_experts(random_catalogue(40, [4, 4, 5]), experts=False)
    inputs = requests(2, 40)
    plain = model.recommend(**inputs, top_k=40, num_beams="exact")
    last = int(plain.item_indices[0, -1])
    assert int(model.recommend(**inputs, prior={last: 1e3}, num_beams=10).item_indices[0, 0]) == last
    values = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    found = model.recommend(**inputs, prior=values, top_k=40, num_beams="exact")
    moved = torch.zeros(2, 40).scatter_(1, plain.item_indices, plain.scores) + values
    torch.testing.assert_close(found.scores, moved.sort(dim=1, descending=True).values, rtol=1e-4, atol=1e-4)
    for prior, message in (
        (torch.zeros(39), r"shape \(39,\)"),
        ({40: 1.0}, "item index 40"),
        ([torch.nan] * 40, "finite"),
    ):
        with pytest.raises((ValueError, IndexError), match=message):
            model.recommend(**inputs, prior=prior)


@pytest.mark.parametrize(
    "given_, message",
    [
        ({"kind": torch.tensor([0, 3])}, "stated, inferred, silent"),
        ({"weights": {"magic": 1}}, "no expert 'magic'"),
        ({"weights": {"language": float("nan")}}, "finite"),
        ({"condition_weights": torch.ones(2, 3)}, "condition_weights"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(given_, message):
    model = model_with_experts(random_catalogue(20, [4, 5]))
    with pytest.raises(ValueError, match=message):
        model.recommend(**requests(2, 20), **given_)


def test_a_model_with_experts_is_saved_and_loaded(tmp_path):
    model = model_with_experts(random_catalogue(40, [4, 4, 5]))
    model.save_pretrained(tmp_path)
    loaded = MenderForGenerativeRetrieval.from_pretrained(tmp_path)
    inputs, kind = requests(4, 40, avoided=1), torch.tensor([0, 1, 2, 0])
    found, expected = loaded.recommend(**inputs, kind=kind), model.recommend(**inputs, kind=kind)
    assert torch.equal(found.item_indices, expected.item_indices)
    torch.testing.assert_close(found.scores, expected.scores)
    # The vectors are those of the encoder, once.
    assert sum(tensor.shape == model.encoder.item_states.shape for tensor in loaded.state_dict().values()) == 1


@many
@given(cases(), st.sampled_from([0.0, 1.0, 0.4, 3.0]), st.data())
def test_generate_ranks_by_the_same_sum_as_recommend(case, generator_weight, data):
    sizes, items, users, top_k, width, avoided, seed = case
    model = model_with_experts(random_catalogue(items, sizes, seed), seed, kinds=data.draw(st.booleans()))
    generator = torch.Generator().manual_seed(seed)
    if items > 1 and data.draw(st.booleans()):
        model.set_catalogue(model.catalogue.remove(torch.randperm(items, generator=generator)[: items // 2]))
    options = requests(users, items, seed, avoided)
    options["weights"] = {"generator": generator_weight}
    if data.draw(st.booleans()):
        options["kind"] = torch.randint(len(KINDS), (users,), generator=generator)
    if data.draw(st.booleans()):
        options["expert_input_ids"] = options["input_ids"].roll(1, 0)
    if data.draw(st.booleans()):
        options["prior"] = torch.randn(items, generator=generator)
    allowed = torch.ones(users, items, dtype=torch.bool)
    if data.draw(st.booleans()):
        allowed = torch.rand((users, items), generator=generator) < 0.6
        allowed[:, model.catalogue.items_of_leaves(torch.zeros(1, dtype=torch.int64))] = True
        options["allowed"] = allowed
    # Plain beam search needs as many beams as items, or it fills up with padding.
    least = int(allowed[:, model.item_codes[:, 0] >= 0].sum(1).min())
    beams = min(width, least)
    wanted = min(top_k, beams)
    found = model.recommend(**options, num_beams=beams, top_k=wanted)
    if beams == 1:
        rows = model.item_indices(model.generate(**options)[:, 1:])[:, None]
        best = model.recommend(**options, num_beams=1, top_k=1)
        total = brute_force_of(model, options)
        torch.testing.assert_close(total.gather(1, rows), best.scores, rtol=1e-3, atol=1e-3)
        return
    ask = {"num_return_sequences": wanted, "return_dict_in_generate": True, "output_scores": True}
    written = model.generate(**options, num_beams=beams, **ask)
    torch.testing.assert_close(written.sequences_scores.view(users, -1), found.scores, rtol=1e-3, atol=1e-3)
    rows = model.item_indices(written.sequences[:, 1:]).view(found.item_indices.shape)
    distinct = (found.scores.diff(dim=1).abs() > 1e-2).all(dim=1)
    assert torch.equal(rows[distinct], found.item_indices[distinct])
    fast = model.generate(**options, num_beams=beams, **ask, custom_generate=catalogue_beam_search, do_sample=False)
    assert torch.equal(model.item_indices(fast.sequences[:, 1:]).view(rows.shape), found.item_indices)
    torch.testing.assert_close(fast.sequences_scores.view(users, -1), found.scores)


def brute_force_of(model, options) -> torch.Tensor:
    """The sum for every item under the options of a request, in which `recommend` may choose. Shape: (B, N)."""
    exact = {name: value for name, value in options.items() if name != "allowed"}
    found = model.recommend(**exact, num_beams="exact", top_k=len(model.item_codes))
    total = torch.full((len(found), len(model.item_codes)), -torch.inf)
    return total.scatter_(1, found.item_indices, found.scores)


def test_sampling_draws_codes_by_the_weighted_sum():
    model = model_with_experts(random_catalogue(6, [6]))
    one = requests(2, 6)
    options = {name: value[:1] for name, value in one.items()}
    found = model.recommend(**options, num_beams="exact", top_k=6)
    torch.manual_seed(0)
    drawn = model.generate(**options, do_sample=True, num_return_sequences=4000)
    share = torch.bincount(model.item_indices(drawn[:, 1:]), minlength=6) / 4000
    expected = torch.zeros(6).scatter_(0, found.item_indices[0], found.scores[0].softmax(0))
    torch.testing.assert_close(share, expected, rtol=0, atol=0.04)


def test_generate_says_when_experts_have_no_say():
    model = model_with_experts(random_catalogue(30, [4, 4, 4]))
    inputs = requests(3, 30)
    alone = {"weights": {"language": 0, "behaviour": 0}}
    expected = model.recommend(**inputs, top_k=4, num_beams=8, **alone, kind=torch.tensor([0, 0, 2])).item_indices
    weights = {own: {**model.config.experts.weights[own], "generator": 1.0} for own in KINDS}
    model.config.experts.set_weights(weights)
    ask = {"num_beams": 8, "num_return_sequences": 4, "kind": torch.tensor([0, 0, 2])}
    written = model.generate(**inputs, **ask, logits_processor=[SemanticIdLogitsProcessor(model.catalogue)])
    assert torch.equal(model.item_indices(written[:, 1:]).view(3, 4), expected)
    for given_ in ({"constrained": False}, {"logits_processor": [SemanticIdLogitsProcessor(model.catalogue)]}):
        with pytest.raises(ValueError, match="avoid_input_ids and prior would not be applied"):
            model.generate(**inputs, avoid_input_ids=inputs["input_ids"][:, None], prior={3: 1.0}, **given_)
    both = {name: torch.stack([value, value], dim=1) for name, value in inputs.items()}
    with pytest.raises(ValueError, match="several conditions for each user; .* recommend"):
        model.generate(**both)


@pytest.mark.parametrize("experts", [False, True])
def test_generate_reads_the_kind(experts):
    model = model_with_experts(random_catalogue(30, [4, 4, 4]), experts=experts)
    inputs = requests(3, 30)  # the last is silent
    for kind in ({}, {"kind": torch.tensor([0, 1, 2])}, {"kind": torch.tensor([2, 2, 0])}):
        expected = model.recommend(**inputs, **kind, top_k=4, num_beams=8).item_indices
        plain = model.generate(**inputs, **kind, num_beams=8, num_return_sequences=4)
        assert torch.equal(model.item_indices(plain[:, 1:]).view(3, 4), expected)
        own = {**inputs, **kind, "custom_generate": catalogue_beam_search}
        fast = model.generate(**own, num_return_sequences=4, num_beams=8)
        assert torch.equal(model.item_indices(fast[:, 1:]).view(3, 4), expected)
    silent = model.recommend(**inputs, top_k=4, num_beams=8).scores[2]
    stated = model.recommend(**inputs, kind=torch.zeros(3).long(), top_k=4, num_beams=8).scores[2]
    assert not torch.allclose(silent, stated)


def in_two_conditions(inputs: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Two requests of every user as the conditions of one."""
    width = max(part["input_ids"].shape[1] for part in (inputs, other))
    names = ("input_ids", "attention_mask")
    parts = [
        {name: torch.nn.functional.pad(part[name], (0, width - part[name].shape[1])) for name in names}
        for part in (inputs, other)
    ]
    return inputs | {name: torch.stack([part[name] for part in parts], dim=1) for name in names}


@many
@given(cases(), st.data())
def test_differences_between_contributions_are_differences_between_scores(scale, case, data):
    sizes, items, users, top_k, width, avoided, seed = case
    model = model_with_experts(random_catalogue(items, sizes, seed), seed, experts=data.draw(st.booleans()))
    has_experts = model.experts is not None
    generator = torch.Generator().manual_seed(seed)
    if items > 1 and data.draw(st.booleans()):
        model.set_catalogue(model.catalogue.remove(torch.randperm(items, generator=generator)[: items // 2]))
    options = requests(users, items, seed, avoided if has_experts else 0)
    if data.draw(st.booleans()):
        options = in_two_conditions(options, requests(users, items, seed + 1))
        options["condition_weights"] = torch.tensor([[1.5, -0.5]] * users)
    if data.draw(st.booleans()):
        options["prior"] = torch.randn(users, items, generator=generator)
    if has_experts and data.draw(st.booleans()):
        names = [*EXPERTS, "generator", "language", "behaviour"]
        options["weights"] = data.draw(st.dictionaries(st.sampled_from(names), st.floats(-2, 2)))
    # Every user keeps an item; some keep fewer than others, so that results are padded.
    allowed = torch.rand((users, items), generator=generator) < 0.5
    allowed[:, model.catalogue.items_of_leaves(torch.zeros(1, dtype=torch.int64))] = True
    options |= {
        "kind": torch.randint(len(KINDS), (users,), generator=generator),
        "top_k": top_k,
        "num_beams": data.draw(st.sampled_from(["exact", max(width, top_k)])),
        "allowed": allowed,
    }
    found, plain = model.recommend(**options, why=True), model.recommend(**options)
    assert torch.equal(found.item_indices, plain.item_indices) and plain.contributions is None
    names = {"generator", *(EXPERTS if has_experts else ())}
    names |= {"avoid"} if "avoid_input_ids" in options else set()
    names |= {"prior"} if "prior" in options else set()
    assert set(found.contributions) == names
    real = found.item_indices >= 0
    total = sum(found.contributions.values())
    scores = found.scores.masked_fill(~real, 0.0)
    expected = (scores - scores.sum(1, keepdim=True) / real.sum(1, keepdim=True)).masked_fill(~real, 0.0)
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=2e-3)


def test_each_contribution_is_that_of_its_own_part(scale):
    model = model_with_experts(random_catalogue(30, [4, 4, 4]))
    inputs, kind = requests(3, 30, avoided=1), torch.tensor([0, 1, 2])
    values = torch.randn(30)
    found = model.recommend(**inputs, kind=kind, top_k=8, prior=values, why=True)
    parts = model.experts(inputs["input_ids"], 30, encoder=model.encoder)
    table = model.experts.weights(kind)
    expected = {name: table[:, [place]] * parts[name] for place, name in enumerate(EXPERTS)}
    expected |= {"avoid": -model.penalty(inputs["avoid_input_ids"]), "prior": values.expand(3, -1)}
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected["generator"] = brute_force(model, plain, kind, dict.fromkeys(EXPERTS, 0.0))
    for name, scores in expected.items():
        own = scores.gather(1, found.item_indices)
        own = own - own.mean(1, keepdim=True)
        torch.testing.assert_close(found.contributions[name], own, rtol=1e-3, atol=1e-3)


def test_given_states_give_the_same_items_as_the_inputs_that_they_are_of():
    model = model_with_experts(random_catalogue(20, [4, 4, 2], 3, skewed=False))
    inputs = requests(3, 20)
    expected = model.recommend(**inputs, top_k=5)
    states = model.encoder(inputs["input_ids"], inputs["attention_mask"])
    for passed in (states, (states.last_hidden_state,)):
        found = model.recommend(**inputs, encoder_outputs=passed, top_k=5)
        assert torch.equal(found.item_indices, expected.item_indices)
        torch.testing.assert_close(found.scores, expected.scores)


@many
@given(st.integers(0, 99), st.integers(1, 3), st.integers(0, 2))
def test_a_search_of_very_many_items_is_led_by_centroids(seed, levels, ties):
    """Vectors that are sums of their codes' centroids: the estimates are exact, so a narrow beam finds the best."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [4] * levels
    books = torch.randn(sum(sizes), 8, generator=generator)
    codes = torch.cartesian_prod(*[torch.arange(4)] * levels).view(-1, levels)
    vectors = sum(books[4 * level + codes[:, level]] for level in range(levels))
    if ties:  # a tie-breaking level, whose codes say nothing
        codes = torch.cat([codes.repeat(ties, 1), torch.arange(ties).repeat_interleave(len(codes))[:, None]], 1)
        vectors, sizes = vectors.repeat(ties, 1), [*sizes, ties]
    order = torch.randperm(len(codes), generator=generator)
    catalogue = SemanticIdCatalogue(codes[order], sizes).remove([0, 1])
    vectors = vectors[order]
    copies = torch.randint(2, len(codes), (100 * len(codes),), generator=generator)
    found = additive_centroids(catalogue.codes[copies], vectors[copies], sizes, sweeps=40)
    assert found.shape == (sum(sizes), 8) and bool(found.isfinite().all())
    users = 3
    queries = torch.randn(users, 8, generator=generator)
    guide = PathGuide(catalogue, ItemEvidence(len(codes), vectors=vectors, queries=queries), found)
    state = guide.start()
    nodes, scores = torch.zeros(users, 1, dtype=torch.int64), torch.zeros(users, 1)
    for level, size in enumerate(sizes):
        none = torch.zeros(users, nodes.shape[1], size)
        nodes, _, _, scores = expand(catalogue, level, nodes, scores, none, 0, 6, None, state)
    exact = (queries @ vectors.T).masked_fill(catalogue.codes[:, 0] < 0, -torch.inf)
    torch.testing.assert_close(scores[:, 0], exact.amax(1))
    torch.testing.assert_close(scores, exact.gather(1, catalogue.items_of_leaves(nodes)))


def test_what_scores_every_item_is_refused_for_very_many(monkeypatch):
    monkeypatch.setattr("modeling_mender.experts.SCORED_ITEMS", 0)
    model = model_with_experts(random_catalogue(30, [4, 4, 4]))
    model.config.experts.fit = {}
    with pytest.raises(ValueError, match="30 are too many; leave it out"):
        model.recommend(**requests(2, 30), fit=True)
    with pytest.raises(ValueError, match="for 30 items; call recommend"):
        model.generate(**requests(2, 30), num_beams=4)
    expected = model.recommend(**requests(2, 30), num_beams=4, top_k=2)
    ask = {"num_beams": 4, "num_return_sequences": 2, "custom_generate": catalogue_beam_search}
    written = model.generate(**requests(2, 30), **ask)
    assert torch.equal(model.item_indices(written[:, 1:]).view(2, 2), expected.item_indices)


def test_tables_of_very_many_items_follow_what_they_are_made_of(monkeypatch):
    monkeypatch.setattr("modeling_mender.experts.SCORED_ITEMS", 0)
    model = model_with_experts(random_catalogue(40, [4, 4, 5]))
    inputs, ask = requests(3, 40), {"top_k": 40, "num_beams": 40}
    for change in (
        lambda: model.experts.popularity.counts.mul_(5),
        lambda: model.encoder.item_states.mul_(-1),
        lambda: model.encoder.set_item_states(model.encoder.item_states * 2, model.encoder.first_state),
        lambda: model.set_catalogue(model.catalogue.remove([3, 8])),
    ):
        model.recommend(**inputs, **ask)
        change()
        found = model.recommend(**inputs, **ask)
        exact = brute_force(model, inputs, torch.tensor([0, 0, 2]))
        torch.testing.assert_close(
            found.scores, exact.sort(dim=1, descending=True).values[:, : found.scores.shape[1]], rtol=1e-4, atol=1e-4
        )
        guide = model.experts._kept["popularity"][1]
        counts = model.experts.popularity.counts[model.catalogue.codes[:, 0] >= 0]
        assert float(guide[0].max()) == float(counts.log1p().max().half())
