from __future__ import annotations

import json
import re
import threading
from importlib.util import find_spec

import pytest
import torch
from benchmark_doubles import random_tables
from llm_loopback import good_answer
from polars.testing import assert_frame_equal
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from preference_benchmark.preferences.llm import LlmApproximator, LocalModel, Sampling, prompt_named
from preference_benchmark.preferences.llm.engine import Key, Request

INSTRUCT, FEW_SHOT = prompt_named("instruct"), prompt_named("few-shot")
SHORT = Sampling(temperature=1.0, top_p=1.0, max_tokens=6)
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant]"


def tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """One token per printable character."""
    characters = ["<pad>", "<eos>", "<unk>", "\n", *map(chr, range(32, 127))]
    inner = Tokenizer(models.WordLevel({name: row for row, name in enumerate(characters)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    found = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    found.chat_template = TEMPLATE if chat else None
    return found


def save(folder, chat: bool = True, positions: int = 8_000):
    torch.manual_seed(0)
    words = tokenizer(chat)
    config = GPT2Config(
        **{"vocab_size": len(words), "n_positions": positions, "n_embd": 8, "n_layer": 1, "n_head": 1},
        **{"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0},
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("chat"))


def requests(count: int, prompt=INSTRUCT) -> list[Request]:
    return [Request(Key("u", step, 0), prompt.messages("x" * (1 + step)), str(step), 3) for step in range(count)]


def completed(model: LocalModel, batches) -> list:
    done = []
    model.run(iter(batches), done.extend, threading.Event())
    return done


def test_a_batch_is_answered_in_order_and_again_alike(chat_model):
    model = LocalModel(chat_model, INSTRUCT, sampling=SHORT, batch_size=3, constrained=False)
    batch = requests(3)
    first, again = completed(model, [batch]), completed(model, [batch])
    assert [found.request.key.step for found in first] == [0, 1, 2]
    assert [found.text for found in first] == [found.text for found in again]
    assert len({found.text for found in first}) > 1
    lengths = [len(model._text(request)) for request in batch]
    assert [found.prompt_tokens for found in first] == lengths
    assert all(
        found.finish == "length" and found.completion_tokens == 6 for found in first if "<eos>" not in found.text
    )


def test_the_chat_template_is_the_models_own(chat_model):
    model = LocalModel(chat_model, INSTRUCT, sampling=SHORT, constrained=False)
    text = model._text(requests(1)[0])
    assert text.startswith("[system] You infer") and text.endswith("[assistant]")


def test_what_does_not_fit_is_refused(tmp_path):
    model = LocalModel(save(tmp_path, positions=1_400), INSTRUCT, sampling=SHORT, constrained=False)
    long = Request(Key("u", 9, 0), INSTRUCT.messages("y" * 3_000), "9", 3)
    short = Request(Key("u", 0, 0), ({"role": "user", "content": "hello"},), "0", 3)
    found = completed(model, [[long, short]])
    assert [one.finish for one in found] == ["refused", "length"] and "tokens" in found[0].error


def test_a_base_model_needs_examples(tmp_path):
    folder = save(tmp_path, chat=False)
    with pytest.raises(ValueError, match="few-shot"):
        LocalModel(folder, INSTRUCT)
    model = LocalModel(folder, FEW_SHOT, sampling=SHORT, constrained=False)
    (found,) = completed(model, [requests(1, FEW_SHOT)])
    assert model._text(found.request) == found.request.messages[0]["content"]
    assert not model.constrained


def test_stopping_begins_no_new_batch(chat_model):
    model = LocalModel(chat_model, INSTRUCT, sampling=SHORT, constrained=False)
    stop, done = threading.Event(), []

    def deliver(completions) -> None:
        done.extend(completions)
        stop.set()

    model.run(iter([requests(2), requests(3)]), deliver, stop)
    assert len(done) == 2


def test_preferences_through_a_local_model(chat_model, tmp_path, monkeypatch):
    """The whole road; a random model writes no sense, so its text is put into its mouth."""
    monkeypatch.setattr(
        LocalModel,
        "_generate",
        lambda self, texts, seed: [(good_answer(text), "stop", 60) for text in texts],
    )
    tables = random_tables(0, users=5, rows=60)
    model = LocalModel(chat_model, INSTRUCT, sampling=SHORT, batch_size=4, constrained=False)
    write = LlmApproximator(model, INSTRUCT, tmp_path, progress=False)
    found = write(tables)
    assert found.select("user_id", "step").n_unique() == tables.interactions.height
    assert write.report.completion_tokens == 60 * tables.interactions.height
    assert_frame_equal(found, LlmApproximator(model, INSTRUCT, tmp_path, progress=False)(tables))


@pytest.mark.skipif(find_spec("xgrammar") is None, reason="xgrammar is not installed")
def test_constrained_answers_begin_as_the_schema_says(chat_model):
    model = LocalModel(chat_model, INSTRUCT, sampling=Sampling(max_tokens=60))
    assert model.constrained
    for found in completed(model, [requests(3)]):
        text = found.text if found.finish == "length" else json.dumps(json.loads(found.text))
        assert "".join(text.split()).startswith('{"preferences":["')


def test_constraint_without_the_library_is_refused(chat_model):
    if find_spec("xgrammar") is not None:
        pytest.skip("xgrammar is installed")
    with pytest.raises(ImportError, match="constrained=True.*pip install xgrammar"):
        LocalModel(chat_model, INSTRUCT, constrained=True)


def test_the_prompt_fits_the_model(chat_model, tmp_path):
    small = LocalModel(chat_model, constrained=False)
    assert small.prompt.name == "one-review" and "chat model" in small.why and small.sampling.max_tokens == 48
    base = LocalModel(save(tmp_path, chat=False))
    assert base.prompt.name == "few-shot" and "no chat template" in base.why


def test_the_opening_is_given_to_the_model(chat_model):
    model = LocalModel(chat_model, sampling=SHORT, batch_size=2, constrained=False)
    asked = [
        Request(Key("u", step, 0), model.prompt.messages("x", word), str(step), 3, word)
        for step, word in enumerate(("Find", "Avoid"))
    ]
    assert model._text(asked[1]).endswith("[assistant]Avoid")
    assert [found.text[:4] for found in completed(model, [asked])] == ["Find", "Avoi"]


@pytest.mark.skipif(find_spec("xgrammar") is None, reason="xgrammar is not installed")
def test_constrained_lines_are_words(chat_model):
    model = LocalModel(chat_model, sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=40), batch_size=2)
    request = Request(Key("u", 0, 0), model.prompt.messages("x", "Find"), "w", 3, "Find")
    (found,) = completed(model, [[request]])
    assert re.fullmatch(r"Find(,? [a-zA-Z0-9'-]*)+[.]?\n?", found.text)


def test_gguf_files_need_their_package(tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr("preference_benchmark.preferences.llm.local_model.find_spec", lambda name: None)
    for place in (path, tmp_path):
        with pytest.raises(ImportError, match="tiny.gguf is a GGUF file.*pip install gguf"):
            LocalModel(place)
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="holds 2 GGUF files; pass one"):
        LocalModel(tmp_path)
