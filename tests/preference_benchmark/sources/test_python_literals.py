"""What is rewritten as JSON means what the Python literal meant, or is not valid JSON at all."""

from __future__ import annotations

import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference_benchmark.sources.raw_lines import as_json

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text("'\"\\u\nn/x4Ub {}:,", max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(texts, values, max_size=4), min_size=1, max_size=4))
def test_what_repr_writes_is_read_as_it_was(records):
    block = "\n".join(repr(record) for record in records).encode()
    assert [json.loads(line) for line in as_json(block).split(b"\n")] == records


@given(texts)
def test_escapes_of_python_two_are_read_as_python_reads_them(text):
    escaped = text.encode("unicode_escape").decode().replace("'", "\\'")
    line = f"{{u'a': u'{escaped}', 'b': [None, True]}}"
    assert json.loads(as_json(line.encode())) == ast.literal_eval(line) == {"a": text, "b": [None, True]}


@pytest.mark.parametrize(
    "line",
    [
        r"""{'a': '\/'}""",
        r"""{'a': '\a \0 \v'}""",
        r"""{'a': '\N{BULLET}'}""",
        """{'a': b'bytes'}""",
        """{'a': r'raw'}""",
        """{'a': 'one' 'two'}""",
        """{'a': 'one''two'}""",
        """{'a': '''three'''}""",
        """{'a': (1, 2)}""",
        """{'a': 1,}""",
        """{'a': __import__('os')}""",
        """{'a': Trueish}""",
        """{'a': 'open}""",
        """{'a': "open'}""",
    ],
)
def test_what_is_not_covered_is_not_json_either(line):
    with pytest.raises(ValueError, match=r".+"):
        json.loads(as_json(line.encode()))


def test_bytes_that_repr_never_writes_leave_the_block_alone():
    assert as_json(b"{'a': '\x03'}") == b"{'a': '\x03'}"
