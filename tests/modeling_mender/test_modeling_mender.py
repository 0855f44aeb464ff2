"""The model as a Hugging Face citizen: loss, generation, saving, Auto classes, LoRA."""

from __future__ import annotations

import pytest
import torch
from doubles import brute_force_scores, random_catalogue, random_inputs, tiny_encoder, tiny_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertModel,
    PreTrainedConfig,
    T5EncoderModel,
)

from modeling_mender import MenderConfig, MenderForGenerativeRetrieval, SemanticIdCatalogue, SemanticIdLogitsProcessor
from modeling_mender.configuration_mender import ItemStatesConfig
from modeling_mender.item_states import text_encoder_class

ENCODERS = {"bert": BertModel, "t5": T5EncoderModel}


@pytest.fixture
def model():
    return tiny_model(random_catalogue(30, [4, 4, 4]))


@pytest.fixture(params=ENCODERS)
def encoder_folder(request, tmp_path):
    torch.manual_seed(0)
    ENCODERS[request.param](tiny_encoder(request.param)).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_loss_is_the_mean_over_labels(model):
    inputs = random_inputs(4, 6)
    labels = model.item_tokens(torch.tensor([0, 5, 9, 29]))
    output = model(**inputs, labels=labels)
    expected = -brute_force_scores(model, inputs)[torch.arange(4), torch.tensor([0, 5, 9, 29])].mean() / 3
    torch.testing.assert_close(output.loss, expected)
    halves = [
        model(**{name: value[part] for name, value in inputs.items()}, labels=labels[part], num_items_in_batch=12).loss
        for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(halves), output.loss)


def test_tokens_and_rows_are_inverse(model):
    rows = torch.arange(30).view(5, 6)
    assert torch.equal(model.item_indices(model.item_tokens(rows)), rows)
    assert model.item_indices(torch.zeros(1, 3, dtype=torch.long)).tolist() == [-1]
    with pytest.raises(IndexError, match="item index 30 is not in the catalogue of 30 items"):
        model.item_tokens(torch.tensor([30]))
    model.set_catalogue(model.catalogue.remove([4]))
    with pytest.raises(IndexError, match="item index 4"):
        model.item_tokens(torch.tensor([3, 4]))


def test_a_new_catalogue_keeps_its_tree(model, monkeypatch):
    catalogue = model.catalogue.remove([4])
    inputs = random_inputs(2, 5)
    with monkeypatch.context() as patched:
        patched.setattr(SemanticIdCatalogue, "_build", None)
        model.set_catalogue(catalogue)
        found = model.recommend(**inputs, top_k=29).item_indices
        assert sorted(found[0].tolist()) == [item for item in range(30) if item != 4]
        assert model.catalogue == catalogue
        assert model.catalogue.codes.data_ptr() == model.item_codes.data_ptr() != catalogue.codes.data_ptr()
    # The tree follows the table; other catalogues with the same tree do not.
    codes = catalogue.codes.clone()
    model.item_codes[7] = -1
    assert sorted(model.recommend(**inputs, top_k=28).item_indices[0].tolist()) == [
        item for item in range(30) if item not in (4, 7)
    ]
    assert torch.equal(catalogue.codes, codes)
    half = model.to(torch.bfloat16)
    assert half.item_codes.dtype == torch.int32 and len(half.catalogue) == 28


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSeq2SeqLM, MenderForGenerativeRetrieval])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saved_model_recommends_the_same(model, tmp_path, auto, dtype):
    inputs = random_inputs(3, 6)
    model = model.to(dtype)
    expected = model.recommend(**inputs, top_k=7)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = auto.from_pretrained(tmp_path, dtype=dtype).eval()
    assert loaded.item_codes.dtype == torch.int32
    assert loaded.catalogue == model.catalogue
    found = loaded.recommend(**inputs, top_k=7)
    assert torch.equal(found.item_indices, expected.item_indices)
    assert torch.equal(found.scores, expected.scores)
    assert loaded.generation_config.eos_token_id is None


def test_config_round_trip(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path).to_dict()
    saved = model.config.to_dict()
    for config in (loaded, saved):
        config.pop("_name_or_path", None)
    assert {name: value for name, value in loaded.items() if name != "architectures"} == {
        name: value for name, value in saved.items() if name != "architectures"
    }


def frozen(encoder_folder):
    """A model with a pretrained encoder that is not trained."""
    encoder = text_encoder_class(AutoConfig.from_pretrained(encoder_folder)).from_pretrained(encoder_folder)
    encoder.requires_grad_(False)
    return MenderForGenerativeRetrieval.from_encoder(encoder, random_catalogue(5, [4, 4]), decoder={"num_layers": 1})


def test_pretrained_encoder_keeps_its_weights(encoder_folder):
    model = frozen(encoder_folder)
    saved = type(model.encoder).from_pretrained(encoder_folder).state_dict()
    own = model.encoder.state_dict()
    assert all(torch.equal(saved[name], own[name]) for name in saved if not name.startswith("pooler"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("decoder.") for name in trained) and "lm_head.weight" in trained
    assert not any(name.startswith("encoder.") for name in trained)


def test_encoders_that_transformers_lacks_are_refused_before_training():
    """Their code came with `trust_remote_code=True`; a saved model does not carry it."""

    class OddConfig(BertConfig):
        model_type = "odd"

    class OtherBertConfig(PreTrainedConfig):
        model_type = "bert"

    for config, kind in ((OddConfig(hidden_size=24), "odd"), (OtherBertConfig(hidden_size=24), "bert")):
        message = f"transformers has no such encoder of model_type '{kind}'"
        encoder = BertModel(tiny_encoder())
        encoder.config = config
        with pytest.raises(ValueError, match=message):
            MenderForGenerativeRetrieval.from_encoder(encoder, random_catalogue(5, [4, 4]))
        with pytest.raises(ValueError, match=message):
            ItemStatesConfig(config)
    # A model that was saved with one nevertheless says the same.
    for saved in (MenderConfig, ItemStatesConfig):
        field = "encoder" if saved is MenderConfig else "text_encoder"
        with pytest.raises(ValueError, match="of model_type 'odd'.*AutoConfig.register, AutoModel.register"):
            saved.from_dict({field: {"model_type": "odd"}})


def test_frozen_encoder_stays_in_evaluation_mode(encoder_folder):
    model = frozen(encoder_folder)
    model.train()
    assert model.decoder.training and not model.encoder.training


def test_recommendations_follow_a_fused_optimizer():
    model = tiny_model(random_catalogue(20, [4, 6]))
    inputs = random_inputs(2, 5)
    model.recommend(**inputs, top_k=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model.train()
    model(**inputs, labels=model.item_tokens(torch.tensor([3, 7]))).loss.backward()
    optimizer.step()
    model.eval()
    found = model.recommend(**inputs, top_k=20, num_beams="exact")
    expected = brute_force_scores(model, inputs).sort(dim=1, descending=True)
    torch.testing.assert_close(found.scores, expected.values, rtol=1e-4, atol=1e-4)


def test_inference_mode_leaves_a_model_that_recommends(model, tmp_path):
    inputs = random_inputs(2, 5)
    model.save_pretrained(tmp_path)
    expected = model.recommend(**inputs, top_k=6)
    with torch.inference_mode():
        loaded = AutoModel.from_pretrained(tmp_path)
        model.to(torch.float64).to(torch.float32)
        model.set_catalogue(model.catalogue.remove([int(expected.item_indices[0, 0])]))
        inside = model.recommend(**inputs, top_k=5)
    assert torch.equal(loaded.recommend(**inputs, top_k=6).item_indices, expected.item_indices)
    outside = model.recommend(**inputs, top_k=5)
    assert torch.equal(outside.item_indices, inside.item_indices)
    assert outside.item_indices[0].tolist() == expected.item_indices[0, 1:].tolist()
    model.set_catalogue(model.catalogue.add(loaded.item_codes[expected.item_indices[0, :1]]))
    assert model.recommend(**inputs, top_k=6).item_indices[0, 0] == 30
    assert model.item_indices(model.generate(**inputs)[:, 1:])[0] in (30, *expected.item_indices[0].tolist())


def test_pretrained_encoder_reads_the_padding_mask(encoder_folder):
    model = frozen(encoder_folder)
    ids = torch.tensor([[7, 8, 9]])
    padded = torch.nn.functional.pad(ids, (0, 4))
    alone = model.encoder(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    together = model.encoder(padded, attention_mask=(padded != 0).long()).last_hidden_state
    torch.testing.assert_close(together[:, :3], alone)


def test_generation_never_leaves_the_catalogue(model):
    inputs = random_inputs(3, 5)
    for settings in (
        {"do_sample": True, "temperature": 5.0},
        {"num_beams": 8},
        {"do_sample": True, "num_beams": 4},
        {},
    ):
        torch.manual_seed(0)
        written = model.generate(**inputs, **settings)[:, 1:]
        assert (model.item_indices(written) >= 0).all()


def test_more_beams_than_items_end_in_padding():
    model = tiny_model(random_catalogue(5, [2, 2, 2]))
    inputs = random_inputs(2, 4)
    written = model.generate(
        **inputs, num_beams=8, num_return_sequences=8, return_dict_in_generate=True, output_scores=True
    )
    rows = model.item_indices(written.sequences[:, 1:]).view(2, 8)
    real = written.sequences_scores.view(2, 8) > -1e6
    for user in range(2):
        assert sorted(rows[user][real[user]].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
@pytest.mark.parametrize(("items", "sizes"), [(400, [32, 20, 20]), (300, [8, 40])])
def test_sampling_with_more_beams_than_first_codes_gives_items(items, sizes, temperature):
    # transformers draws 80 tokens without replacement where 32 or 8 have a probability.
    model = tiny_model(random_catalogue(items, sizes))
    inputs = random_inputs(3, 5)
    for seed in range(5):
        torch.manual_seed(seed)
        written = model.generate(
            **inputs, do_sample=True, num_beams=40, num_return_sequences=40, temperature=temperature
        )
        rows = model.item_indices(written[:, 1:]).view(3, 40)
        assert (rows >= 0).all()
        assert all(len(set(user)) == 40 for user in rows.tolist())


def test_sampling_with_more_beams_than_items_ends_in_padding():
    model = tiny_model(random_catalogue(5, [2, 2, 2]))
    torch.manual_seed(0)
    written = model.generate(
        **random_inputs(2, 4),
        do_sample=True,
        num_beams=8,
        num_return_sequences=8,
        return_dict_in_generate=True,
        output_scores=True,
    )
    rows = model.item_indices(written.sequences[:, 1:]).view(2, 8)
    real = written.sequences_scores.view(2, 8) > -1e6
    for user in range(2):
        assert sorted(rows[user][real[user]].tolist()) == [0, 1, 2, 3, 4]


def test_wrong_prefixes_raise():
    model = tiny_model(random_catalogue(3, [1, 2, 2]))
    processor = SemanticIdLogitsProcessor(model.catalogue)
    (missing,) = {(0, a, b) for a in range(2) for b in range(2)} - set(model.catalogue)
    tokens = torch.tensor([missing]) + torch.tensor([1, 2, 4])
    later = torch.cat([torch.zeros(1, 1, dtype=torch.long), tokens], dim=1)
    scores = torch.zeros(1, model.config.decoder.vocab_size)
    assert torch.isinf(processor(later[:, :3], scores)[0, later[0, 3]])
    with pytest.raises(ValueError, match="not a prefix of a semantic ID in the catalogue"):
        processor(torch.tensor([[0, 5]]), scores)
    # Beam search may keep tokens of no probability: beside a row that goes on, such a one is padded.
    beside = processor(torch.tensor([[0, 5], [0, 1]]), scores.expand(2, -1))
    assert beside[0].argmax() == 0 and torch.isinf(beside[0, 1:]).all()
    assert torch.equal(beside[1], processor(torch.tensor([[0, 1]]), scores)[0])


def test_a_catalogue_of_other_codebooks_is_refused(model):
    with pytest.raises(ValueError, match=r"codebook_sizes=\[4, 5, 4\]"):
        model.set_catalogue(random_catalogue(10, [4, 5, 4]))
    with pytest.raises(ValueError, match="pass labels"):
        model(**random_inputs(1, 3))


def test_configs_are_checked():
    with pytest.raises(ValueError, match=r"codebook_sizes=\[4, 0\]"):
        MenderConfig(codebook_sizes=[4, 0])
    with pytest.raises(ValueError, match="num_items=0"):
        MenderConfig(num_items=0)
