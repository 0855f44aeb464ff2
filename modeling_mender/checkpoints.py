"""Checkpoints of a run that may have been killed while it wrote one.

The Trainer writes a checkpoint file by file and its own state last. A folder without a readable state is therefore
unfinished, and the one before it is the last good one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

__all__ = ["last_checkpoint"]

STATE_FILE = "trainer_state.json"


def last_checkpoint(folder: str | os.PathLike) -> Path:
    """The newest finished checkpoint in a folder.

    Args:
        folder: the run's `output_dir`.

    Raises:
        ValueError: if there is none.
    """
    steps = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdecimal() and _is_finished(path):
            steps[int(step)] = path
    if not steps:
        raise ValueError(f"there is no finished checkpoint in {folder} to go on from; start afresh, without resuming")
    return steps[max(steps)]


def _is_finished(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True
