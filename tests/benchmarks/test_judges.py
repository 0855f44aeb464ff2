"""A judge that reads: cached prefixes change nothing, mixtures are what they say, halves choose for each other."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).parents[2] / "benchmarks"
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant]"
TITLES = ["green tea", "a", "black coffee, 200 g"]


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("judges_script", FOLDER / "judges.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[TEMPLATE, None], ids=["chat", "plain"])
def reader(request, tmp_path_factory):
    """A random model with one token per character."""
    folder = tmp_path_factory.mktemp("reader")
    characters = ["<pad>", "<s>", "</s>", "<unk>", "\n", *map(chr, range(32, 127))]
    inner = Tokenizer(models.WordLevel({name: row for row, name in enumerate(characters)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    words.chat_template = request.param
    words.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"vocab_size": len(characters), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=1, pad_token_id=0)
    config.initializer_range = 0.5
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def log_probs(judge, text: str) -> torch.Tensor:
    """Of every token after the one before it, and of what comes next, read in one go."""
    ids = torch.tensor([[judge.tokenizer.bos_token_id, *judge._ids(text)]])
    with torch.inference_mode():
        return ids[0], judge.network(input_ids=ids).logits[0].log_softmax(-1)


def likelihood(judge, text: str, part: str) -> float:
    """Mean log-likelihood per token of a part of a text, which it holds once."""
    ids, scores = log_probs(judge, text)
    begin = text.index(part)  # one token a character, one more for the start
    places = torch.arange(begin, begin + len(part))
    return float(scores[places, ids[places + 1]].mean())


@pytest.mark.parametrize("at_once", [1, 2, 50])
def test_readings_are_those_of_whole_prompts(script, reader, monkeypatch, at_once):
    monkeypatch.setattr(script, "TITLES_AT_ONCE", at_once)
    judge = script.Judge(reader)
    yes, title = judge.titles("tea, please", TITLES)
    wish = judge.wishes("tea, please", TITLES)
    before, after = judge._prompt(judge.QUESTION.format(wish="tea, please"))
    assert after.endswith("[assistant]" if judge.tokenizer.chat_template else "Answer:")
    for row, name in enumerate(TITLES):
        _, scores = log_probs(judge, f"{before} {name}{after}")
        answers = scores[-1, judge.answers]
        assert float(yes[row]) == pytest.approx(float(answers[0] - answers[1]), abs=1e-4)
        assert float(title[row]) == pytest.approx(likelihood(judge, f"{before} {name}{after}", f" {name}"), abs=1e-4)
        whole = f"Product: {name}\nA customer who wants this product asks for: tea, please"
        assert float(wish[row]) == pytest.approx(likelihood(judge, whole, " tea, please"), abs=1e-4)


def test_long_titles_are_cut(script, reader, monkeypatch):
    monkeypatch.setattr(script, "TITLE_TOKENS", 4)
    judge = script.Judge(reader)
    yes, title = judge.titles("tea", ["abcdef", "abc"])
    assert float(yes[0]) == float(yes[1]) and float(title[0]) == float(title[1])


def case(count: int = 8):
    """Wishes of which one half has its answer first, and readings that know it."""
    wishes, first, lines = [], {}, {}
    for number in range(count):
        name, items = f"w{number}", [f"{number}-{place}" for place in range(4)]
        grades = {items[2]: 3, items[0]: 0, items[1]: 0}
        wishes.append({"id": name, "text": "tea", "avoid": [], "tags": [], "grades": grades, "avoided": []})
        first[name] = {"items": items, "scores": [4.0, 3.0, 2.0, 1.0], "processor_seconds": 0.01}
        lines[name] = {"readings": {"yes": [-1.0, -1.0, 1.0, -1.0]}, "processor_seconds": 2.0}
    return wishes, first, lines


def test_a_mixture_lies_between_both_orders(script):
    wishes, first, lines = case(1)
    assert script.mixed(wishes, first, lines, "yes", 0.0)["w0"] == first["w0"]["items"]
    assert script.mixed(wishes, first, lines, "yes", 1.0)["w0"] == ["0-2", "0-0", "0-1", "0-3"]  # ties keep the order
    assert script.standardised([2.0, 2.0]).tolist() == [0.0, 0.0]


def test_every_half_takes_the_weight_of_the_other(script):
    wishes, first, lines = case()
    half = np.random.default_rng(0).permutation(len(wishes)) % 2
    for wish, side in zip(wishes, half, strict=True):
        if side:  # here the judge is wrong
            lines[wish["id"]] = {"readings": {"yes": [-1.0, -1.0, -2.0, 3.0]}, "processor_seconds": 2.0}
    rankings, weights = script.cross_fitted(wishes, first, lines, "yes")
    assert weights[0] == 0.0 < weights[1]
    for wish, side in zip(wishes, half, strict=True):
        expected = script.mixed([wish], first, lines, "yes", weights[side])
        assert rankings[wish["id"]] == expected[wish["id"]]


def test_a_table_says_what_reranking_is_worth_and_costs(script):
    text = script.comparison(*case())
    rows = {line.split("|")[1].strip(): line for line in text.splitlines()[2:]}
    assert list(rows) == ["no reranking", "yes alone", "yes, mixed", "best order there is", "random order"]
    assert ".500" in rows["no reranking"] and "| 10 |" in rows["no reranking"]
    assert "1.000" in rows["yes alone"] and "2.00 (2.00-2.00)" in rows["yes alone"] and "2,010" in rows["yes alone"]
    assert ".250" in rows["no reranking"]  # one item of four has no grade


def test_pairs_in_order(script):
    wishes, _, _ = case(1)
    shares = [
        script.pairs_in_order({"w0": [f"0-{place}" for place in order]}, wishes)
        for order in ([2, 0, 1, 3], [0, 1, 3, 2], [0, 2, 1, 3], [0, 1])
    ]
    assert shares[:3] == pytest.approx([1, 0, 2 / 3]) and np.isnan(shares[3])


def test_an_item_without_a_grade_can_be_left_out(script):
    wishes, first, _ = case(1)
    assert script.graded_only({"w0": first["w0"]["items"]}, wishes) == {"w0": ["0-0", "0-1", "0-2"]}


def test_lines_cut_short_are_not_read(script, tmp_path):
    path = tmp_path / "folder" / "lines.jsonl"
    script.append(path, {"wish": "a"})
    script.append(path, {"wish": "b"})
    path.write_text(path.read_text("utf-8") + '{"wish": "c', "utf-8")
    assert [line["wish"] for line in script.kept(path)] == ["a", "b"]
    script.append(path, {"wish": "d"})
    assert [json.loads(line)["wish"] for line in path.read_text("utf-8").splitlines()] == ["a", "b", "d"]
