"""The encoder that looks histories up: same answers as encoding them, in every road through the library."""

from __future__ import annotations

import json

import pytest
import torch
from doubles import WORDS, encoder_folder, random_catalogue, shop_items, word_tokenizer
from transformers import AutoModel

from modeling_mender import MenderForGenerativeRetrieval, MenderProcessor, build_method, load_preset
from modeling_mender.configuration_mender import ItemStatesConfig
from modeling_mender.item_states import ItemStatesEncoder, encode_titles

SHAPE = {"num_layers": 2, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2}


@pytest.fixture(params=["mender-fid", "mender-emb"])
def method(request, tmp_path):
    catalogue = random_catalogue(len(WORDS), [3, 3, 3])
    preset = load_preset(request.param, decoder=SHAPE, codebook_embeddings=False)
    torch.manual_seed(0)
    built = build_method(preset, shop_items(), encoder=encoder_folder(tmp_path / "encoder"), catalogue=catalogue)
    built.model.encoder.order.weight.data.normal_()
    built.model.eval()
    return built


@pytest.fixture
def long_titles():
    items = {"item_id": ["a", "b", "c"], "title": ["green tea", "mint", ""]}
    return MenderProcessor(word_tokenizer(), items, history="states", title_length=3)


def test_states_of_titles_are_those_of_the_encoder_alone(long_titles, tmp_path):
    encoder = AutoModel.from_pretrained(encoder_folder(tmp_path))
    inputs = long_titles.title_inputs()
    states, first = encode_titles(encoder, inputs, pooled=False, inner=(1, 1), tokens_per_batch=5)
    assert first.tolist() == [True, False, True, True, *[False] * (len(states) - 4)]
    row = 0
    for ids in inputs:
        own = encoder(torch.tensor([ids])).last_hidden_state[0, 1:-1].detach()
        torch.testing.assert_close(states[row : row + len(own)].float(), own, atol=2e-3, rtol=2e-3)
        row += len(own)
    assert row == len(states)
    pooled, _ = encode_titles(encoder, inputs, pooled=True)
    torch.testing.assert_close(pooled.float().norm(dim=1), torch.ones(3), atol=1e-3, rtol=1e-3)


def test_inputs_name_the_rows_of_the_table(long_titles):
    base = len(word_tokenizer())
    inputs = long_titles(["find tea", ""], [["b", "a"], ["a"]], return_tensors=None)["input_ids"]
    assert [token - base for token in inputs[0] if token >= base] == [2, 0, 1]
    assert inputs[1] == [base, base + 1]
    assert long_titles.text_part(inputs[0]) == word_tokenizer()("find tea")["input_ids"]


def test_positions_count_from_the_latest_item(long_titles, tmp_path):
    encoder = AutoModel.from_pretrained(encoder_folder(tmp_path))
    states, first = encode_titles(encoder, long_titles.title_inputs(), pooled=False, inner=(1, 1))
    config = ItemStatesConfig(encoder.config, len(word_tokenizer()), len(states), max_history=2)
    subject = ItemStatesEncoder(config, encoder)
    subject.set_item_states(states, first)
    ids = long_titles("find", ["a", "a", "b"])["input_ids"]
    with torch.no_grad():
        items = subject(ids).last_hidden_state[0, -5:]
        rows = ids[0, -5:] - len(word_tokenizer())
        added = items - subject.item_states[rows].float()
        # Item "a" has two states and occurs twice; the older occurrence shares the last position with all older items.
        torch.testing.assert_close(added, subject.order(torch.tensor([1, 1, 1, 1, 0])))


def test_padding_and_the_rest_of_the_batch_change_nothing(method):
    users = [("find soap", ["item-tea", "item-mug"]), ("", ["item-rose"]), ("avoid strong tea", [])]
    together = method.processor([text for text, _ in users], [history for _, history in users])
    longer = 16 - together["input_ids"].shape[1]
    padded = {name: torch.nn.functional.pad(together[name], (0, longer)) for name in ("input_ids", "attention_mask")}
    together = {**together, **padded}
    both = method.model.recommend(**together, top_k=5)
    for user, (text, history) in enumerate(users):
        alone = method.model.recommend(**method.processor(text, history), top_k=5)
        assert torch.equal(alone.item_indices[0], both.item_indices[user])
        torch.testing.assert_close(alone.scores[0], both.scores[user], atol=1e-5, rtol=1e-5)


def test_a_large_batch_is_answered_like_one_user_at_a_time(method, monkeypatch):
    """On a CPU encoders read large batches in groups; states that are looked up must come through that unchanged."""
    monkeypatch.setattr("modeling_mender.item_states.TOKENS_AT_ONCE", 12)
    wishes = ["find green tea", "mint", "avoid strong green tea", "find mint tea", "green", "find black tea"]
    histories = [["i0", "i1"], ["i2"], [], ["i1", "i0", "i2"], ["i0"], []]
    histories = [[method.processor.item_ids[int(name[1:])] for name in history] for history in histories]
    together = method.model.recommend(**method.processor(wishes, histories), top_k=5)
    for row, (wish, history) in enumerate(zip(wishes, histories, strict=True)):
        alone = method.model.recommend(**method.processor(wish, history), top_k=5)
        assert torch.equal(together.item_indices[row : row + 1], alone.item_indices)
        torch.testing.assert_close(together.scores[row : row + 1], alone.scores, rtol=1e-4, atol=1e-4)


def test_a_wish_of_many_users_is_encoded_once(method):
    encoded = []
    method.model.encoder.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: encoded.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    histories = [["item-tea"], ["item-mug", "item-rose"], [], ["item-rose"]]
    found = method.model.recommend(
        **method.processor(["find soap", "find soap", "mint", "find soap"], histories), top_k=5
    )
    assert sum(encoded) == 2
    alone = method.model.recommend(**method.processor("find soap", histories[3]), top_k=5)
    assert torch.equal(found.item_indices[3:], alone.item_indices)


def test_order_matters_and_generate_agrees(method):
    one, other = ["item-tea", "item-mug"], ["item-mug", "item-tea"]
    found = [method.model.recommend(**method.processor("find soap", history), top_k=8) for history in (one, other)]
    assert not torch.allclose(found[0].scores, found[1].scores)
    inputs = method.processor("find soap", one)
    written = method.model.generate(**inputs, num_beams=15, num_return_sequences=5)
    assert method.model.item_indices(written[:, 1:]).tolist() == found[0].item_indices[0, :5].tolist()


def test_cached_text_states_give_the_same_logits(method):
    inputs = method.processor(["find soap", "avoid tea"], [["item-tea"], []])
    labels = method.model.item_tokens(torch.tensor([3, 4]))
    text = [method.processor.text_part(ids) for ids in inputs["input_ids"][inputs["input_ids"] != 0].split([5, 4])]
    states = torch.nn.utils.rnn.pad_sequence(
        [method.model.encoder.text_encoder(torch.tensor([ids])).last_hidden_state[0] for ids in text], batch_first=True
    )
    plain = method.model(**inputs, labels=labels).logits
    torch.testing.assert_close(method.model(**inputs, labels=labels, text_states=states).logits, plain)


def test_saved_model_answers_the_same(method, tmp_path):
    inputs = method.processor("find soap", ["item-tea", "item-mug"])
    expected = method.model.recommend(**inputs, top_k=6)
    method.model.save_pretrained(tmp_path / "model")
    method.processor.save_pretrained(tmp_path / "model")
    loaded = AutoModel.from_pretrained(tmp_path / "model")
    processor = MenderProcessor.from_pretrained(tmp_path / "model")
    assert isinstance(loaded, MenderForGenerativeRetrieval)
    assert processor.history == method.processor.history
    again = processor("find soap", ["item-tea", "item-mug"])
    assert torch.equal(again["input_ids"], inputs["input_ids"])
    assert torch.equal(again["attention_mask"], inputs["attention_mask"])
    found = loaded.recommend(**again, top_k=6)
    assert torch.equal(found.item_indices, expected.item_indices)


def test_new_items_of_a_history_have_states_or_are_refused(method):
    model, processor, encoder = method.model, method.processor, method.model.encoder
    model.set_catalogue(model.catalogue.add(torch.tensor([free_code(model.catalogue)])))
    titles = [*processor.titles, "blue glass lamp"]
    processor.set_items({"item_id": [*processor.item_ids, "item-new"], "title": titles})
    inputs = processor("find soap", ["item-new", "item-tea"])
    for call in (model.recommend, lambda **inputs: model(**inputs, labels=model.item_tokens(torch.tensor([2])))):
        last = len(encoder.item_states) + (0 if encoder.config.pooled else 2)
        with pytest.raises(ValueError, match=f"row {last} of the state table, which has .*set_item_states"):
            call(**inputs)
    new = processor.title_inputs()[-1:]
    states, first = encode_titles(encoder.text_encoder, new, pooled=encoder.config.pooled, inner=(1, 1))
    encoder.set_item_states(torch.cat([encoder.item_states, states]), torch.cat([encoder.first_state, first]))
    assert model.recommend(**inputs, top_k=5).item_indices.shape == (1, 5)
    looked_up = encoder(inputs["input_ids"]).last_hidden_state - encoder.order(torch.tensor(1))
    torch.testing.assert_close(looked_up[0, -len(states) - 1 : -1], states.float())


def free_code(catalogue):
    """A semantic ID that no item has."""
    codes = torch.cartesian_prod(*map(torch.arange, catalogue.codebook_sizes)).tolist()
    return next(code for code in codes if code not in catalogue)


def test_compiled_forward_equals_eager(method):
    encoder = method.model.encoder
    inputs = method.processor("find soap", ["item-tea", "item-mug"])["input_ids"]
    compiled = torch.compile(encoder, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(inputs).last_hidden_state, encoder(inputs).last_hidden_state)
        with pytest.raises(ValueError, match="set_item_states"):
            compiled(inputs + len(encoder.item_states))


def table_rows(processor, history):
    base = len(processor.tokenizer)
    ids = processor("", history, return_tensors=None)["input_ids"][0]
    return [token - base for token in ids if token >= base]


def test_titles_do_not_move_the_states_of_others(long_titles):
    ids = long_titles.item_ids
    expected = table_rows(long_titles, ["b", "a", "c"])
    for title, count in (("tea", 1), ("green mint tea", 3)):
        message = (
            rf"item 'a' \(index 0\) has 2 states .* but would have {count} with the title '{title}'.*set_item_states"
        )
        with pytest.raises(ValueError, match=message):
            long_titles.set_items({"item_id": [*ids, "d"], "title": [title, "mint", "", "lamp"]})
        assert (
            long_titles.titles == ["green tea", "mint", ""]
            and long_titles.item_indices(["d"], unknown_items="skip") == []
        )
        assert table_rows(long_titles, ["b", "a", "c"]) == expected
    # As many tokens, and new items behind the others: the same rows.
    long_titles.set_items({"item_id": [*ids, "d"], "title": ["black tea", "rose", "", "blue mug"]})
    assert table_rows(long_titles, ["b", "a", "c", "d"]) == [*expected, 4, 5]
    # States of the old title are kept on request, and a table of the new titles is followed.
    changed = {"item_id": [*ids, "d"], "title": ["tea", "rose", "", "blue mug"]}
    with pytest.raises(ValueError, match='"states" has 3 entries for 4 items'):
        long_titles.set_items({**changed, "states": [2, 1, 1]})
    with pytest.raises(ValueError, match=r"item 'b' \(index 1\) has 1 states in .* but would have 2"):
        long_titles.set_items({**changed, "states": [2, 2, 1, 2]})
    long_titles.set_items({**changed, "states": long_titles.state_counts})
    assert table_rows(long_titles, ["b", "a", "c", "d"]) == [*expected, 4, 5]
    long_titles.set_items(changed, new_states=True)
    assert table_rows(long_titles, ["b", "a", "c", "d"]) == [1, 0, 2, 3, 4]


def test_state_counts_are_saved(long_titles, tmp_path):
    long_titles.save_pretrained(tmp_path)
    expected = table_rows(long_titles, ["b", "a", "c"])
    items = json.loads((tmp_path / "items.json").read_text("utf-8"))
    assert items["states"] == [2, 1, 1]
    # Titles that somebody corrected in the file move nothing; folders of before know their counts by the titles.
    (tmp_path / "items.json").write_text(json.dumps({**items, "title": ["tea", "green mint", "x y"]}), "utf-8")
    assert table_rows(MenderProcessor.from_pretrained(tmp_path), ["b", "a", "c"]) == expected
    (tmp_path / "items.json").write_text(json.dumps({name: items[name] for name in ("item_id", "title")}), "utf-8")
    assert table_rows(MenderProcessor.from_pretrained(tmp_path), ["b", "a", "c"]) == expected


def test_only_the_order_is_trained_in_a_frozen_encoder(method):
    trained = {name for name, parameter in method.model.encoder.named_parameters() if parameter.requires_grad}
    assert trained == {"order.weight"}
    method.model.train()
    assert method.model.encoder.training and not method.model.encoder.text_encoder.training


def test_a_copy_without_parameters_gives_the_same(method):
    """What `nn.DataParallel` makes of a model on each device: weights are plain tensors there."""

    def replica(module):
        copy = module._replicate_for_data_parallel()
        for name, child in module._modules.items():
            copy._modules[name] = None if child is None else replica(child)
        for name, weight in module._parameters.items():
            setattr(copy, name, None if weight is None else weight.detach().clone())
        return copy

    inputs = method.processor(["find soap", "avoid tea"], [["item-tea"], []])
    labels = method.model.item_tokens(torch.tensor([3, 4]))
    model = replica(method.model)
    assert not list(model.parameters())
    torch.testing.assert_close(model(**inputs, labels=labels).logits, method.model(**inputs, labels=labels).logits)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="num_states=0"):
        ItemStatesConfig(num_states=0)
    encoder = ItemStatesEncoder(ItemStatesConfig({"model_type": "bert", "hidden_size": 24, "num_hidden_layers": 1}))
    with pytest.raises(ValueError, match=r"expected states of shape \(3, 24\)"):
        encoder.set_item_states(torch.zeros(3, 5), torch.ones(3))


def test_cached_states_cover_the_text_or_are_refused(method):
    encoder, processor = method.model.encoder, method.processor
    requests = ["find soap", ""], [["item-tea"], ["item-tea", "item-mug"]]
    inputs = processor(*requests)["input_ids"]
    text = processor.text_part(processor(*requests, return_tensors=None)["input_ids"][0])
    own = encoder.text_encoder(torch.tensor([text])).last_hidden_state
    cached = torch.cat([own, torch.zeros_like(own)])
    wider = torch.nn.functional.pad(cached, (0, 0, 0, 5))  # what lies behind the longest text does not matter
    expected = encoder(inputs).last_hidden_state
    for states in (cached, wider):
        torch.testing.assert_close(encoder(inputs, text_states=states).last_hidden_state, expected)
    message = (
        f"text_states has {len(text) - 1} states per text, but the longest text in input_ids has {len(text)} tokens"
    )
    with pytest.raises(ValueError, match=message):
        encoder(inputs, text_states=cached[:, :-1])
