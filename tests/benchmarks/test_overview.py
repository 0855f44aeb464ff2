"""The tables over all data sets, written into pages."""

import json

import pytest

from mender.terminal import UserError

SCRIPT = "overview"


def cells(**values):
    return {method: {"value": value, "low": value - 0.1, "high": value + 0.1} for method, value in values.items()}


@pytest.fixture
def data_set(script):
    return script.DataSet(
        "small_shop",
        {
            "recommendation (oracle)": cells(mender=0.5, hybrid=0.4),
            "recommendation (silent)": cells(mender=0.2, hybrid=0.2),
            "wish and avoid (known)": cells(mender=0.9, hybrid=0.7),
        },
        {"hybrid": 1, "mender": 3},
        {"mender": {"known": 0.25}, "hybrid": {"known": 4.0}},
    )


def test_a_line_has_the_values_of_a_method_and_marks_the_best(script, data_set):
    lines = script.table([data_set], data_set.methods).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| `hybrid`", "| `mender`"]
    assert lines[3].split(" | ")[1] == "**.500** / **.200**"
    assert lines[3].endswith("| **.900** (0.2) | 3 |") and ".700 (4.0)" in lines[2]
    over_all = script.table([data_set, data_set], ["mender", "not measured"]).splitlines()
    assert len(over_all) == 4 and over_all[2].startswith("| small shop | `mender` |")


def test_a_page_keeps_what_is_around_its_table(script, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    for _ in range(2):
        script.write_table(page, "| new |\n")
        assert page.read_text() == f"before\n{script.BEGIN}\n\n| new |\n\n{script.END}\nafter\n"
    page.write_text("no place")
    with pytest.raises(UserError, match="needs the comments"):
        script.write_table(page, "| new |\n")
    assert page.read_text() == "no place"


def test_avoided_items_are_the_mean_over_seeds_without_shuffled_preferences(script, tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder, count in zip(folders, (1.0, 2.0), strict=True):
        folder.mkdir()
        score = {"method": "mender", "stratum": "known", "avoided@10": count}
        others = [{**score, "method": "mender, shuffled preferences", "avoided@10": 9.0}, {"method": "mender"}]
        (folder / "five_axes.json").write_text(json.dumps({"scores": [score, *others]}))
    assert script.mean_avoided(folders) == {"known": 1.5}


def test_the_picture_is_drawn_of_what_is_there(script, data_set, tmp_path):
    script.draw([data_set], tmp_path / "overview.png")
    assert (tmp_path / "overview.png").stat().st_size > 10_000


def test_every_page_has_a_place_for_its_table(script):
    for page in (script.RESULTS, *(script.RESULTS / name for name in script.DATA_SETS)):
        text = (page / "README.md").read_text("utf-8")
        assert text.count(script.BEGIN) == text.count(script.END) == 1
