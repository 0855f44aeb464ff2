"""Results of an evaluation for a card, and what is made harmless on the way."""

from __future__ import annotations

import json
import shlex

import pytest
from doubles import measured
from huggingface_hub import EvalResult

from modeling_mender.hub.results import Evaluation, code_span, without_paths


def test_every_figure_is_a_result_for_the_hub_as_it_was_measured():
    found = Evaluation.read(measured()).eval_results("org/preference-discerning")
    assert all(isinstance(result, EvalResult) for result in found)
    by_name = {(result.metric_name, result.metric_type): result for result in found}
    one = by_name["recommendation, oracle: recall@10", "recall@10"]
    assert one.metric_value == 0.5 and one.dataset_type == "org/preference-discerning"
    assert one.metric_args == {
        "axis": "recommendation",
        "matching": "oracle",
        "n": 20,
        "confidence": 0.95,
        "low": 0.45,
        "high": 0.55,
    }
    assert {metric for _, metric in by_name} == {"recall@10", "ndcg@10", "m@10", "avoid@10"}


def test_strata_of_wishes_are_rows_of_their_own_and_shown_by_precision():
    record = measured()
    for stratum, precision in (("known", 0.625), ("withheld", 0.25)):
        for method in ("mine", "mine, shuffled preferences"):
            own = {"axis": "open_wishes", "matching": "", "stratum": stratum, "method": method, "n": 7}
            value = precision if method == "mine" else precision / 2
            record["scores"].append(own | {"recall@10": 0.01, "ndcg@10": 0.02, "r_precision@10": value})
    evaluation = Evaluation.read(record, "mine")
    rows = {line.split(" | ")[0]: line for line in str(evaluation.table()).splitlines()}
    assert "P **0.625**" in rows["| open wishes, known"] and rows["| open wishes, known"].endswith("| 0.312 |")
    assert "P **0.250**" in rows["| open wishes, withheld"] and rows["| open wishes, withheld"].endswith("| 0.125 |")
    found = {result.metric_name: result for result in evaluation.eval_results()}
    one = found["open wishes, withheld: r_precision@10"]
    assert one.metric_value == 0.25 and one.metric_args["stratum"] == "withheld"
    assert "open wishes, withheld: recall@10" not in found


def test_where_things_are_bought_again_a_card_shows_lists_with_items_of_the_history():
    again = {"repeats": "keep"}
    assert Evaluation.read(measured(**again, exclude_seen=False)).scores
    with pytest.raises(ValueError, match="unless things are bought again"):
        Evaluation.read(measured(**again, exclude_seen=True))


def test_methods_are_found_by_name(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(measured(method="mine, shuffled preferences")))
    assert Evaluation.read(tmp_path / "r.json").scores[0]["recall@10"] == 0.1
    assert Evaluation.read(tmp_path / "r.json", "mine").scores[0]["recall@10"] == 0.5
    with pytest.raises(ValueError, match="no method 'yours'; it has 'mine'"):
        Evaluation.read(measured(), "yours")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", 'has no "scores"'),
        ('{"scores": [{"axis": "recommendation"}]}', 'has no "scores" with axis, method and n'),
        ('{"scores": [{"axis": "recommendation", "method": "m", "n": 3}]}', "has no recall@k on recommendation"),
        ('{"scores": [{"axis": "recommendation", "method": 5, "n": 3}]}', "has method=5, of another type"),
        ('{"scores": [{"axis": "a", "method": "m", "n": 3, "recall@10": "x"}]}', "has recall@10='x', of another type"),
        ('{"scores": [{"axis": "a", "method": "m", "n": 3}], "settings": [1]}', r"has settings=\[1\], of another type"),
    ],
)
def test_files_without_results_are_refused(content, message, tmp_path):
    (tmp_path / "five_axes.json").write_text(content)
    with pytest.raises(ValueError, match=f"five_axes.json {message}"):
        Evaluation.read(tmp_path / "five_axes.json")


def test_what_was_not_measured_may_be_missing_or_null():
    results = measured(0.75, request_ms=None, training={"curve": [{"loss": None}, {"epoch": None}]})
    first = results["scores"][0]
    first |= {"ndcg@10": None, "recall@10/low": None}
    del results["scores"][2]["recall@10/high"]
    found = Evaluation.read(results)
    assert "| 0.750 |" not in (row := found.table().splitlines()[2]) and "**0.750** |" in row
    ends = [one.metric_args for one in found.eval_results() if one.metric_type == "recall@10"]
    assert [{"low", "high"} <= set(arguments) for arguments in ends] == [False, False, True]
    first["n"] = None
    with pytest.raises(ValueError, match="axis, method and n"):
        Evaluation.read(results)


@pytest.mark.parametrize("settings", [{"request_ms": "x"}, {"training": {"curve": [{"epoch": []}]}}])
def test_settings_of_another_type_are_refused(settings):
    with pytest.raises(ValueError, match="of another type than an evaluation writes"):
        Evaluation.read(measured(**settings))


def test_a_device_is_not_read(tmp_path):
    (tmp_path / "five_axes.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="five_axes.json is not a file"):
        Evaluation.read(tmp_path / "five_axes.json")


@pytest.mark.parametrize("settings", [{"split": "validation"}, {"exclude_seen": False}])
def test_figures_of_another_kind_do_not_get_into_a_card(settings):
    with pytest.raises(ValueError, match="measured with --validation or --keep-seen"):
        Evaluation.read(measured(**settings))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("mender train --data /home/anna/shop --seed 1", "mender train --data shop --seed 1"),
        ("train --data=/home/anna/shop", "train --data=shop"),
        ("train --data '/home/anna/my shop'", "train --data 'my shop'"),
        ("train '--data=/home/anna/my shop/'", "train '--data=my shop'"),
        (r"train --data /home/anna/my\ shop", "train --data 'my shop'"),
        ("train --set encoder=/home/anna/enc", "train --set encoder=enc"),
        ("train --set a=/home/anna/x,b=/home/anna/y,c=3", "train --set a=x,b=y,c=3"),
        ("train --paths /home/anna/x:/home/anna/y", "train --paths x:y"),
        ("/home/anna/.venv/bin/python /home/anna/train.py", "python train.py"),
        ("train --data ~/shop --out=~anna/run --home ~anna", "train --data shop --out=run --home '~'"),
        ("train -d/home/anna/shop", "train -dshop"),
        (r"train --data C:\Users\anna\shop", "train --data shop"),
        (r"train --data='C:\Users\anna\my shop'", "train '--data=my shop'"),
        ("train --data=d:/anna/shop", "train --data=shop"),
        (r"train --data \\server\anna\shop", "train --data shop"),
        ("train --data file:///home/anna/shop", "train --data shop"),
        ("sh -c 'train --data /home/anna/shop'", "sh -c 'train --data shop'"),
        ("train --data /home/anna's/shop", "train --data shop"),
    ],
)
def test_paths_are_cut_to_their_last_part(command, expected):
    assert without_paths(command) == expected
    assert "anna" not in without_paths(command)


@pytest.mark.parametrize(
    "words",
    [
        ["python", "examples/02_train.py", "--data", "data/shop", "--k", "5"],
        ["train", "--url", "https://example.org/a/b", "--from", "hf://datasets/org/shop", "--set", "encoder=org/small"],
        ["recommend", "--preference", "it's and/or a # tea | cup, 3 / 4", ""],
    ],
)
def test_everything_else_stays_word_for_word(words):
    assert shlex.split(without_paths(shlex.join(words))) == words


def test_code_stays_within_its_cell():
    assert code_span("a | `b`\nc") == "`a \\| 'b' c`"
