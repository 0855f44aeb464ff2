"""Whatever JSON says becomes requests within limits, or one sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mender.serving.bodies import Limits, Refused, items_of, json_of, purchases_of, queries_of

FIELDS = ["preference", "inferred", "history", "avoid", "strict", "exclude", "allowed", "prior", "weights", "dial"]
FIELDS += ["top_k", "why", "fit", "unknown_items", "num_beams", "other"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
LIKELY = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4)
LIMITS = Limits(text=6, texts=2, top_k=5, history=2, ids=2, num_beams=40, requests=3, edits=3)


@given(LIKELY | st.lists(LIKELY | VALUES, max_size=4) | VALUES)
def test_any_body_is_read_or_refused_in_one_sentence(value):
    for read in (queries_of, items_of, purchases_of):
        try:
            read(value, LIMITS)
        except Refused as refused:
            assert 400 <= refused.status < 500
            assert 0 < len(str(refused)) <= 330 and "\n" not in str(refused)


@given(LIKELY)
def test_what_is_read_keeps_the_limits(value):
    try:
        (query,), many = queries_of(value, LIMITS)
    except Refused:
        return
    request = query.request
    assert not many and request.top_k <= 5 and len(request.history) <= 2 and len(request.avoid) <= 2
    assert all(len(text) <= 6 for text in (*request.texts, *request.avoid))
    assert query.num_beams is None or 1 <= query.num_beams <= 40


@given(st.binary(max_size=40))
def test_any_bytes_are_json_or_refused(body):
    try:
        json_of(body)
    except Refused as refused:
        assert refused.status == 400


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"dial": NaN}', b"[Infinity]", b"\xff", b"", b"1" * 5000])
def test_what_is_almost_json_is_refused(body):
    with pytest.raises(Refused, match="JSON|nested"):
        json_of(body)


@pytest.mark.parametrize("body", [b'{"dial": 1, "top_k": 1, "dial": 2}', b'[{"prior": {"dial": 1, "dial": 1}}]'])
def test_a_field_that_comes_twice_is_refused(body):
    with pytest.raises(Refused, match="'dial' twice"):
        json_of(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"preferance": "tea"}, "did you mean 'preference'"),
        ({"preference": "tea", "top_k": 6}, "top_k=6; send at most 5"),
        ({"preference": "a long text"}, "11 characters; send at most 6"),
        ({"history": ["a", "b", "c"]}, "history has 3 items; send at most 2"),
        ({"history": [1]}, "history has 1, which is not an item id"),
        ({"history": "mug"}, 'history="mug"; send a list'),
        ({"prior": {"a": "x"}}, r'prior\["a"\]="x"; send a number'),
        ({"prior": {"a": 1e300}}, "between"),
        ({"prior": 3}, "prior=3; send an object"),
        ({"dial": 10**400}, "too large"),
        ({"why": 1}, "why=1; send true or false"),
        ({"num_beams": 41}, "num_beams=41; send at most 40"),
        ({"num_beams": "exact"}, "whole number"),
        ({"unknown_items": "ignore"}, 'send "error" or "skip"'),
        (["a"] * 4, "4 requests; send at most 3"),
        (["a", {"top_k": 0}], "request 1: top_k=0"),
        ([], "at least one"),
        (3, "3 is not a request"),
    ],
)
def test_refusals_name_the_value_and_the_remedy(body, words):
    with pytest.raises(Refused, match=words):
        queries_of(json_of(json.dumps(body).encode()), LIMITS)


@pytest.mark.parametrize("name", ["preference", "inferred", "avoid"])
def test_a_list_of_nothing_is_no_text(name):
    with pytest.raises(Refused, match="None is not text"):
        queries_of({name: [None]}, LIMITS)
