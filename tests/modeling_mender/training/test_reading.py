"""The experts "learned" and "terms": what they start from, what they are trained on, and what they then do."""

import datasets
import numpy as np
import pytest
import torch
from doubles import WORDS, encoder_folder, small_method

from modeling_mender.language_experts import Reader, TermWeights
from modeling_mender.training import reading, run
from modeling_mender.training.data import prepare_examples
from modeling_mender.training.encoder_states import EncoderStates
from modeling_mender.training.ranking import rank_examples
from modeling_mender.training.reading import fit_language

TEMPLATES = {
    "train": ("find {}", "{}", "{} find", "find {} find", "items {}"),
    "validation": ("find find {}",),
    "test": ("{} find find",),
}
MEANT = {word: [f"item-{WORDS[(place + step) % len(WORDS)]}" for step in (3, 5)] for place, word in enumerate(WORDS)}


def example(preferences: list[str], targets: list[str], avoid: list[str], avoided: list[str]) -> dict:
    return {
        "axis": "open_wishes",
        "kind": "stated",
        "preferences": preferences,
        "history": [],
        "targets": targets,
        "avoid": avoid,
        "avoided": avoided,
        "stratum": "known",
    }


def lessons() -> datasets.DatasetDict:
    """Words mean other items here than those whose texts say them."""
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list(
                [
                    example([template.format(word)], items, [], [])
                    for template in templates
                    for word, items in MEANT.items()
                ]
            )
            for split, templates in TEMPLATES.items()
        }
    )


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """There are fewer examples than a batch has by default."""
    monkeypatch.setattr(reading, "BATCH", 64)


@pytest.fixture
def few_steps(monkeypatch):
    """A training that changes the experts, and teaches them little."""
    monkeypatch.setattr(reading, "LEAST_STEPS", 50)


def found(method, examples: datasets.Dataset) -> float:
    """Share of the meant items among the first two."""
    ranked = rank_examples(method.model, method.processor, examples)[:, :2]
    meant = np.array([method.processor.item_indices(items) for items in examples["targets"][:]])
    return float((ranked[:, :, None] == meant[:, None]).any(1).mean())


def test_it_starts_as_the_cosine_of_the_encoder():
    vectors = torch.nn.functional.normalize(torch.randn(5, 8), dim=-1)
    assert torch.allclose(Reader(8, 16)(vectors), vectors, atol=1e-6)


@pytest.fixture
def method(tmp_path):
    return small_method("mender-lite", encoder_folder(tmp_path), experts=["dense", "learned"])


def test_it_learns_what_words_mean_and_looks_past_the_wording(method, monkeypatch):
    examples = lessons()
    monkeypatch.setattr(reading, "LEAST_STEPS", 150)
    method.model.experts.config.set_weights({"stated": {"dense": 0.0, "learned": 1.0}})
    before = found(method, examples["test"])
    record = fit_language(method.model.eval(), method.processor, examples)
    assert 4 * len(WORDS) < record["preferences"] <= 5 * len(WORDS) and record["steps"] > 0
    assert found(method, examples["test"]) > max(0.6, 2 * before)
    again = small_method("mender-lite", method.processor.tokenizer.name_or_path, experts=["dense", "learned"])
    fit_language(again.model.eval(), again.processor, examples)
    for name, value in method.model.experts.reader.state_dict().items():
        assert torch.equal(value, again.model.experts.reader.state_dict()[name])
    assert not any(parameter.requires_grad for parameter in method.model.parameters())


@pytest.mark.parametrize(
    "values, kept",
    [
        ([-3, -1, -1.02, -1.005, -1.02], 3),  # within 1% of the best, and later
        ([-3, -1, -2, -2, -0.9], 4),
        ([-0.5, -1, -1, -1, -1], 0),  # worse than before the training
    ],
)
def test_the_latest_weights_that_rank_about_best_are_kept(method, few_steps, monkeypatch, values, kept):
    states = []

    def value(trained, preferences):
        states.append({name: tensor.clone() for name, tensor in trained.reader.state_dict().items()})
        return values[len(states) - 1]

    monkeypatch.setattr(reading, "ROUNDS", len(values) - 1)
    monkeypatch.setattr(reading, "_value", value)
    record = fit_language(method.model.eval(), method.processor, lessons())
    assert (record["steps"] > 0) == (kept > 0)
    for name, tensor in method.model.experts.reader.state_dict().items():
        assert torch.equal(tensor, states[kept][name])


def test_the_seed_decides_what_is_drawn(tmp_path, few_steps, monkeypatch):
    learned = []
    monkeypatch.setattr(run, "fit_experts", lambda *_, seed, **__: {"seed": seed})  # it needs purchases
    for seed in (0, 0, 1):
        method = small_method("mender-lite", encoder_folder(tmp_path), experts=["dense", "learned"])
        assert run.fit_without_gradient(method, lessons(), seed=seed)["seed"] == seed
        learned.append(method.model.experts.reader.outer.weight)
    assert torch.equal(learned[0], learned[1]) and not torch.equal(learned[0], learned[2])


def test_texts_with_cached_states_are_not_encoded_again(tmp_path, monkeypatch):
    examples, folder, learned = lessons(), encoder_folder(tmp_path), []
    monkeypatch.setattr(reading, "LEAST_STEPS", 50)
    for cached in (False, True):
        method = small_method("mender", folder, experts=["dense", "learned", "terms"])
        model, processor = method.model.eval(), method.processor
        model.encoder.requires_grad_(False)
        texts = map(processor.text_part, prepare_examples(examples["train"], processor)["input_ids"])
        states = EncoderStates.build(model, texts, tmp_path / "states") if cached else None
        seen, forward = [], type(model.encoder)._encode_texts

        def noted(encoder, input_ids, seen=seen, forward=forward):
            seen.append(len(input_ids))
            return forward(encoder, input_ids)

        with monkeypatch.context() as patch:
            patch.setattr(type(model.encoder), "_encode_texts", noted)
            fit_language(model, processor, examples, states=states)
        learned.append((sum(seen), model.experts.reader.state_dict()))
    (all_of_them, plain), (others, from_cache) = learned
    assert others < all_of_them / 2
    for name, value in plain.items():
        assert torch.allclose(value, from_cache[name], atol=0.02)


def test_what_is_to_be_avoided_is_a_lesson_about_the_items_that_have_it(method):
    examples = lessons()
    examples["train"] = datasets.Dataset.from_list(
        [
            example(["nothing"], ["item-mug"], [template.format(word)], items)
            for template in TEMPLATES["train"]
            for word, items in MEANT.items()
        ]
    )
    record = fit_language(method.model.eval(), method.processor, examples)
    method.model.experts.config.set_weights({"stated": record["weights"]})
    assert found(method, examples["test"]) > 0.5


def test_it_can_go_on_from_what_it_has_learned(method, few_steps):
    examples = lessons()
    fit_language(method.model.eval(), method.processor, examples)
    learned = {name: value.clone() for name, value in method.model.experts.reader.state_dict().items()}
    nothing = examples.map(lambda row: {"kind": "inferred"})
    fit_language(method.model, method.processor, nothing, fresh=False)
    for name, value in method.model.experts.reader.state_dict().items():
        assert torch.equal(value, learned[name])
    fit_language(method.model, method.processor, nothing)
    assert not torch.equal(method.model.experts.reader.outer.weight, learned["outer.weight"])


def test_without_stated_preferences_it_stays_the_cosine(method):
    examples = lessons().map(lambda row: {"kind": "inferred"})
    assert fit_language(method.model.eval(), method.processor, examples) == {"preferences": 0, "steps": 0}
    vectors = torch.nn.functional.normalize(torch.randn(3, method.model.experts.config.width), dim=-1)
    assert torch.allclose(method.model.experts.reader(vectors), vectors, atol=1e-6)


def test_all_words_count_alike_before_training():
    assert torch.allclose(TermWeights(8, 16)(torch.randn(2, 5, 8)), torch.ones(2, 5), atol=1e-6)


def test_words_that_only_belong_to_the_wording_lose_their_weight(tmp_path):
    """Three items say "find" in their titles, which every wish says as well."""
    folder = encoder_folder(tmp_path)
    method = small_method("mender-lite", folder, experts=["terms"])
    model, processor = method.model.eval(), method.processor
    said = {word: [f"item-{word}"] for word in WORDS}
    examples = datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list(
                [
                    example([template.format(word)], items, [], [])
                    for template in templates
                    for word, items in said.items()
                ]
            )
            for split, templates in TEMPLATES.items()
        }
    )
    record = fit_language(model, processor, examples)
    assert record["weights"].keys() == {"terms"}
    tokens = processor.text_tokens([f"find {word}" for word in WORDS])
    states = model.experts.vectors(torch.tensor(tokens)).text_states
    weights = model.experts.term_weights(states)
    assert (weights[:, 1] > weights[:, 0]).float().mean() > 0.9


def test_what_was_trained_before_is_measured_without_dropout(tmp_path, few_steps, monkeypatch):
    method, examples = small_method("mender-lite", encoder_folder(tmp_path)), lessons()
    fit_language(method.model, method.processor, examples)
    with torch.no_grad():  # far from the encoder's cosine, where dropout is without effect
        method.model.experts.reader.outer.weight.normal_()
    values, measure = [], reading._value
    monkeypatch.setattr(reading, "_value", lambda *asked: values.append(measure(*asked)) or values[-1])
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = {name: value.clone() for name, value in method.model.state_dict().items()}
        fit_language(method.model, method.processor, examples, fresh=False)
        states.append(values[0])
        values.clear()
        method.model.load_state_dict(state)
    assert states[0] == states[1]


def test_a_sample_of_a_large_catalogue_teaches_as_well(tmp_path, monkeypatch):
    method, examples = small_method("mender-lite", encoder_folder(tmp_path)), lessons()
    monkeypatch.setattr(reading, "ITEMS_AT_ONCE", 4)
    monkeypatch.setattr(reading, "RELEVANT_AT_ONCE", 1)
    monkeypatch.setattr(reading, "LEAST_STEPS", 200)
    monkeypatch.setattr(reading, "BATCH", 256)
    before = found(method, examples["test"])
    method.model.experts.config.set_weights(
        {"stated": {name: float(name in ("learned", "terms")) for name in method.model.experts.config.weighted}}
    )
    fit_language(method.model, method.processor, examples)
    assert found(method, examples["test"]) > max(0.7, before)
