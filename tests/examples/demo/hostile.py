"""Text that tries to be more than text: markup for pages, and the project's collection of tricks."""

from __future__ import annotations

import json
from pathlib import Path

MARKUP = (
    "<img src=x onerror=window.hit=1>",
    '"><script>window.hit=1</script>',
    "'onmouseover='window.hit=1' x='",
    "</textarea></title></style><svg/onload=window.hit=1>",
    "[click](javascript:window.hit=1) **bold** `code`",
    '![x](x" onerror="window.hit=1)',
    "${window.hit=1} {{constructor.constructor('window.hit=1')()}} {#if 1}",
    "&lt;img src=x onerror=window.hit=1&gt; &amp; &#60;b&#62;",
    "| a | b |\n|---|---|\n| <b>x</b> | $\\href{javascript:window.hit=1}{x}$ |",
)
LINES = (Path(__file__).parents[2] / "hostile_text.jsonl").read_text("utf-8").splitlines()
TRICKS = tuple(json.loads(line)["text"] for line in LINES)
