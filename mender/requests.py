"""What a person asks for on a command line, as a request of the pipeline: item names, wishes, and what to avoid.

Saved models, from a folder or the Hub, with the processor that was saved beside them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor
from transformers.utils import logging

import modeling_mender  # noqa: F401 - registers the classes
from mender.terminal import UserError
from modeling_mender import MenderProcessor
from preference_benchmark.preferences.polarity import invert

__all__ = [
    "find_items",
    "load_saved",
    "make_request",
]


def load_saved(name: str | Path, device: str | None = None) -> tuple[Any, Any]:
    """A model with `recommend`, and its processor.

    Args:
        name: folder that `save_pretrained` wrote, or name on the Hub.
        device: as torch names it; default: the accelerator if there is one.

    Raises:
        UserError: if there is no such model, or it is no recommender of this library.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            if (folder / "model" / "config.json").is_file():
                raise UserError(f"{name} is a run, its model is {folder / 'model'}; pass that")
            if (folder / "adapter_config.json").is_file():
                raise UserError(f"{name} holds an adapter alone; merge it with merge_and_unload() and save the model")
            raise UserError(f"{name} holds no saved model (config.json is missing); train one with `mender train`")
    elif str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise UserError(f"there is no folder {str(name)!r}; pass a folder that `mender train` wrote or a Hub name")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of weights read from a disk; downloads show their own
    try:
        model = AutoModel.from_pretrained(name)
        processor = AutoProcessor.from_pretrained(name)
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot load {name}: {' '.join(str(error).split())}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if not hasattr(model, "recommend") or not hasattr(processor, "decode_items"):
        raise UserError(f"{name} holds a {type(model).__name__}, which cannot recommend; train one with `mender train`")
    return model, processor


ALIKE = 0.4
"""Share of a name's letter triples that a title must have to be worth proposing."""


def make_request(
    processor: MenderProcessor, history: Sequence[str] = (), wishes: Sequence[str] = (), avoid: Sequence[str] = ()
) -> dict[str, Any]:
    """A request for `pipeline("generative-retrieval")`; items of the history are not recommended again.

    Args:
        processor: knows the items, and what the model reads.
        history: ids or titles of items, oldest first.
        wishes: what is wanted.
        avoid: what is to be kept out; becomes a sentence that says so, as models are trained on.

    Raises:
        UserError: if there is nothing to go by, an item is unknown, or the model does not read what was passed.
    """
    preferences = [text.strip() for text in wishes if text.strip()]
    preferences += [refusal(text) for text in avoid if text.strip()]
    reads_history = processor.history != "none"
    reads_preference = processor.preference == "text" and processor.history != "indices"
    if preferences and not reads_preference:
        raise UserError("this model reads no preferences; leave --preference and --avoid out, or take another model")
    if history and not reads_history:
        raise UserError("this model reads no history; leave --history out, or take another model")
    if not preferences and not history and (reads_history or reads_preference):
        raise UserError("nothing to go by; pass --preference, --history or both")
    items = find_items(processor, history)
    return {"preference": preferences, "history": items, "exclude": items}


def refusal(text: str) -> str:
    """The sentence that says what is to be avoided.

    >>> refusal("strong smells"), refusal("No strong smells"), refusal("please don't show me wool")
    ('Avoid strong smells', 'No strong smells', "please don't show me wool")
    """
    text = " ".join(text.split())
    return text if invert(text, rules="extended") else f"Avoid {text}"


def find_items(processor: MenderProcessor, names: Sequence[str]) -> list[str]:
    """Item ids of ids or titles; of titles, case and spaces do not matter.

    Raises:
        UserError: if a name is neither, with the titles that are most like it, or several items bear a title.
    """
    known = set(processor.item_ids)
    by_title: dict[str, list[str]] = {}
    if not known.issuperset(names):
        for item_id, title in zip(processor.item_ids, processor.titles, strict=True):
            by_title.setdefault(_plain(title), []).append(item_id)
    found = []
    for name in names:
        ids = [name] if name in known else by_title.get(_plain(name), [])
        if len(ids) > 1:
            raise UserError(f"{len(ids)} items are titled {name!r}; pass an id: {', '.join(ids[:10])}")
        if not ids:
            close = _most_alike(name, processor)
            hint = f"did you mean {'; '.join(close)}?" if close else "pass ids or titles of its items.json"
            raise UserError(f"no item has the id or title {name!r}; {hint}")
        found += ids
    return found


def _plain(title: str) -> str:
    return " ".join(title.casefold().split())


def _most_alike(name: str, processor: MenderProcessor, count: int = 5) -> list[str]:
    """Titles with their ids that share most letter triples with a name, shorter ones first where they share as many."""
    wanted = _triples(name)
    if not wanted:
        return []

    def likeness(row: int) -> tuple[float, int]:
        title = processor.titles[row]
        return len(wanted & _triples(title)) / len(wanted), -len(title)

    rows = heapq.nlargest(count, range(len(processor.titles)), key=likeness)
    return [f"{processor.titles[row]!r} ({processor.item_ids[row]})" for row in rows if likeness(row)[0] >= ALIKE]


def _triples(text: str) -> set[str]:
    padded = f" {_plain(text)} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}
