"""A file of items that is not what a processor writes is refused with the first thing that is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_mender.items_file import read_items

GOOD = {
    "item_id": ["a", "b"],
    "title": ["tea", ""],
    "codes": [[0, 1], [-1, -1]],
    "states": [1, 0],
    "words": {"tea": 2},
}


@pytest.fixture
def written(tmp_path):
    """Writes a file and reads it."""

    def read(content, **arguments):
        path = tmp_path / "items.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return read_items(path, **arguments)

    return read


def test_a_good_file_is_read_as_it_is(written):
    assert written(GOOD, num_items=2, codebook_sizes=[1, 2]) == GOOD
    assert written({"item_id": [], "title": []}) == {"item_id": [], "title": []}


BAD = [
    ("", "Expecting value"),
    ("{", "not a file of items"),
    ('{"item_id": ["a"], "title": ["b"]} x', "Extra data"),
    ("[]", "holds a list"),
    ("null", "holds a NoneType"),
    ("[" * 10**5, "nested too deeply"),
    ('{"item_id": ' + "[" * 10**5 + "]" * 10**5 + "}", "nested too deeply"),
    ('{"item_id": ["a"], "item_id": ["b"], "title": ["x"]}', "'item_id' is there twice"),
    ('{"item_id": ["a"], "title": ["x"], "words": {"a": 1, "a": 2}}', "'a' is there twice"),
    ('{"item_id": ["a"], "title": [NaN]}', "NaN is not a number"),
    ({"title": ["a"]}, '"item_id" is missing'),
    ({"item_id": ["a"]}, '"title" is missing'),
    (GOOD | {"item_id": "ab"}, '"item_id" is missing or not a list'),
    (GOOD | {"item_id": {"a": 1, "b": 2}}, '"item_id" is missing or not a list'),
    (GOOD | {"item_id": [1, 2]}, "\"item_id\" should have text, and entry 0 is '1'"),
    (GOOD | {"title": ["a", None]}, "\"title\" should have text, and entry 1 is 'None'"),
    (GOOD | {"title": [["a"], "b"]}, '"title" should have text'),
    (GOOD | {"title": ["a"]}, "2 ids and 1 titles"),
    (GOOD | {"title": ["a", "\ud800"]}, "lone surrogate"),
    (GOOD | {"states": [1]}, "1 numbers of states for 2 items"),
    (GOOD | {"states": [1, -1]}, "or one below 0"),
    (GOOD | {"states": [1, 1.5]}, '"states" should have whole numbers'),
    (GOOD | {"states": [True, 1]}, '"states" should have whole numbers'),
    (GOOD | {"states": None}, '"states" is missing or not a list'),
    (GOOD | {"codes": [[0, 1]]}, '"codes" has 1 entries for 2 items'),
    (GOOD | {"codes": [[0, 1], [0]]}, "2 whole numbers each, and entry 1"),
    (GOOD | {"codes": [[0, 1], [0, "1"]]}, "2 whole numbers each, and entry 1"),
    (GOOD | {"codes": [[0, 1], [0, 2]]}, "entry 1 has 2 at level 1"),
    (GOOD | {"codes": [[0, 1], [0, -1]]}, "entry 1 has -1 at level 1"),
    (GOOD | {"codes": [0, 1]}, '"codes" should have lists'),
    (GOOD | {"words": ["tea"]}, '"words" is not an object'),
    (GOOD | {"words": {"tea": 0}}, '"words" is not an object'),
    (GOOD | {"words": {"tea": "many"}}, '"words" is not an object'),
    (GOOD | {"item_id": ["a", "b", "c"], "title": ["", "", ""]}, "it has 3 items, and the model in config.json has 2"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_other_files_are_refused_in_one_line(written, content, message):
    with pytest.raises(ValueError) as raised:
        written(content, num_items=2, codebook_sizes=[1, 2])
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "items.json").write_bytes(b'{"item_id": ["\xff"]}')
    with pytest.raises(ValueError, match="not a file of items"):
        read_items(tmp_path / "items.json")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), anything).map(lambda changes: GOOD | changes))
def test_whatever_is_read_is_consistent(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "items.json"
    path.write_text(json.dumps(content), "utf-8")
    try:
        items = read_items(path, num_items=2, codebook_sizes=[1, 2])
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert len(items["item_id"]) == len(items["title"]) == len(items["codes"]) == len(items["states"]) == 2
