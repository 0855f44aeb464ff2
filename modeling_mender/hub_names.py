"""What something that was loaded is called on the Hub, if it has a name there; local paths are nobody's business."""

from __future__ import annotations

import os
import re

__all__ = ["public_name"]

CACHED = re.compile(r"models--(.+?)[/\\]snapshots[/\\]")
NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")


def public_name(name_or_path: str | os.PathLike | None) -> str | None:
    """The name on the Hub of a model that was loaded by it, also from its folder in a cache; `None` for other folders.

    >>> public_name("org/encoder"), public_name("/home/me/.cache/models--org--encoder/snapshots/0123")
    ('org/encoder', 'org/encoder')
    >>> public_name("/home/me/encoder") is None
    True
    """
    text = os.fspath(name_or_path or "")
    if cached := CACHED.search(text):
        return cached[1].replace("--", "/", 1)
    return text if NAME.fullmatch(text) and not os.path.exists(text) else None
