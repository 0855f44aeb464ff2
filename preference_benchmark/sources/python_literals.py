"""Lines of Python dict literals rewritten as JSON, without evaluating anything.

Some releases were written with `repr`. `ast.literal_eval` takes tens of microseconds for such a line. Respelling
quotes, escapes and names for a whole block at once, and letting polars parse the JSON, takes a fraction of that. What
the respelling does not cover comes out as something that is no JSON either, and is left to `ast.literal_eval` by the
caller.
"""

from __future__ import annotations

import re

__all__ = ["as_json"]

# Bytes that `repr` never writes stand for a backslash, a quote of either kind, and the seam between two pieces.
_BACKSLASH, _SINGLE, _DOUBLE, _SEAM = b"\x01", b"\x02", b"\x03", b"\x04"
_MARKS = (_BACKSLASH, _SINGLE, _DOUBLE, _SEAM)
# Patterns begin with a fixed byte and look back from there: so the search can skip to that byte.
_STRING = re.compile(rb"""('[^'\n]*'|"[^"\n]*")""")
_BEFORE_STRING = (b" ", b"{", b"[")  # what can stand before the u of a string
_INNER_QUOTE = re.compile(rb'"(?<!\x04")(?!\x04)')
_NAMES = (
    (re.compile(rb"True\b(?<!\wTrue)"), b"true"),
    (re.compile(rb"False\b(?<!\wFalse)"), b"false"),
    (re.compile(rb"None\b(?<!\wNone)"), b"null"),
)
_LONG_ESCAPE = re.compile(rb"\\U(000[0-9a-fA-F]{5}|0010[0-9a-fA-F]{4})")


def as_json(block: bytes) -> bytes:
    """The block with the strings and names of Python literals spelled as in JSON, line by line.

    >>> as_json(b"{u'name': u'Tea', 'new': True, 'old': None}")
    b'{"name": "Tea", "new": true, "old": null}'
    """
    if any(mark in block for mark in _MARKS):
        return block
    # Escaped characters are set aside, so that every quote left over begins or ends a string.
    block = block.replace(b"\\\\", _BACKSLASH).replace(b"\\'", _SINGLE).replace(b'\\"', _DOUBLE)
    pieces = _STRING.split(block)
    between, strings = _SEAM.join(pieces[0::2]), _SEAM + _SEAM.join(pieces[1::2]) + _SEAM
    for before in _BEFORE_STRING:
        between = between.replace(before + b"u" + _SEAM, before + _SEAM)
    for name, spelled in _NAMES:
        between = name.sub(spelled, between)
    strings = _INNER_QUOTE.sub(rb'\\"', strings)
    strings = strings.replace(_SEAM + b"'", _SEAM + b'"').replace(b"'" + _SEAM, b'"' + _SEAM)
    pieces[0::2], pieces[1::2] = between.split(_SEAM), strings.split(_SEAM)[1:-1] if len(pieces) > 1 else []
    block = b"".join(pieces)
    # JSON knows neither \x.. nor \U........, and reads \/ otherwise than Python does.
    block = block.replace(b"\\x", b"\\u00").replace(b"\\/", b"\\!")
    block = _LONG_ESCAPE.sub(lambda found: chr(int(found[1], 16)).encode("utf-8", "replace"), block)
    return block.replace(_DOUBLE, b'\\"').replace(_SINGLE, b"'").replace(_BACKSLASH, b"\\\\")
