"""Commands without the folders of the machine they ran on: where files lie is nobody's business."""

from __future__ import annotations

import re
import shlex

__all__ = ["without_paths"]

# A path from the root, from somebody's home, from a drive or a share of Windows, or a file's address. Two slashes after
# a colon begin the host of a web address.
START = r"(?!(?<=:)//)(?:file:/*)?(?:[A-Za-z]:[/\\]+(?=\S)|[/\\]+(?=\S)|~[\w.-]*(?=[/\\]|$))"
# It may follow the name of an option or of a value, and ends with the word or where another one begins.
PATH = re.compile(
    rf"(?P<before>^-\w|^|[\s=,;:@'\"(\[{{])(?P<path>{START}.*?)(?=$|[,;]\s*(?:[\w.-]+=)?{START}|[\s=:]{START})",
    re.DOTALL,
)
WINDOWS = re.compile(r"[A-Za-z]:\\|\\\\")


def without_paths(command: str) -> str:
    """A command line with every absolute path cut to its last part, quoted for a shell again.

    >>> without_paths("python train.py --data='/home/me/my shop' --set encoder=~/models/small --k 5")
    "python train.py '--data=my shop' --set encoder=small --k 5"
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    if WINDOWS.search(command):
        lexer.escape = ""
    try:
        words = list(lexer)
    except ValueError:  # a quotation mark without its counterpart: joined from words, not quoted
        words = command.split()
    return shlex.join(PATH.sub(lambda found: found["before"] + _last_part(found["path"]), word) for word in words)


def _last_part(path: str) -> str:
    if path.startswith("~") and not re.search(r"[/\\]", path):
        return "~"  # ~name is somebody's home
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
