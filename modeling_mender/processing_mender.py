"""Renders a preference and a history as text for the encoder, and item rows back into ids and titles.

The processor owns what people read (item ids, titles) as the model owns the codes: one JSON file beside the tokenizer.
The prompt is that of Mender-Tok (arXiv:2412.08604): the preference first, then the titles, oldest first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.utils import cached_file

__all__ = ["MenderProcessor"]

ITEMS_FILE = "items.json"


class MenderProcessor(ProcessorMixin):
    """Turns (preference, history) into model inputs, and item rows into items.

    Args:
        tokenizer: tokenizer of the model's encoder.
        items: what people call the items: `{"item_id": [...], "title": [...]}`; the position is the model's item row.
        max_length: tokens of an input. Where a history is longer, its oldest titles are left out; a preference longer
            than the input is cut at its end.

    Raises:
        ValueError: if ids and titles differ in number, or an id stands twice.

    Call it with `preference=` (a text, or several to be joined) and `history=` (item ids, oldest first), or with lists
    of them for a batch.
    """

    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        items: Mapping[str, Sequence[str]] | None = None,
        max_length: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer)
        self.max_length = max_length
        self.set_items(items or {"item_id": [], "title": []})
        self._pieces: dict[str, list[int]] = {}

    # Items

    def set_items(self, items: Mapping[str, Sequence[str]]) -> None:
        """Replace the items: `{"item_id": [...], "title": [...]}`, one entry per item row."""
        ids, titles = list(items["item_id"]), list(items["title"])
        if len(ids) != len(titles):
            raise ValueError(f"{len(ids)} item ids but {len(titles)} titles; every item needs both")
        self._row_of = {item_id: row for row, item_id in enumerate(ids)}
        if len(self._row_of) != len(ids):
            twice = next(item_id for row, item_id in enumerate(ids) if self._row_of[item_id] != row)
            raise ValueError(f"item id {twice!r} stands more than once; ids must be unique")
        self.item_ids, self.titles = ids, titles

    def rows(self, item_ids: Sequence[str]) -> list[int]:
        """Item rows of ids.

        Raises:
            ValueError: if an id is unknown.
        """
        try:
            return [self._row_of[item_id] for item_id in item_ids]
        except KeyError as missing:
            raise ValueError(
                f"item {missing.args[0]!r} is not among the {len(self.item_ids)} items of this processor; "
                'leave it out, pass unknown_items="skip", or add it with set_items and model.set_catalogue'
            ) from None

    def ids(self, rows: Tensor | Sequence[int]) -> list[str]:
        """Item ids of rows; padding rows (-1) are left out."""
        return [self.item_ids[row] for row in _as_list(rows) if row >= 0]

    def decode_items(self, rows: Tensor | Sequence[int]) -> list[dict[str, str]]:
        """Ids and titles of rows, in order; padding rows (-1) are left out."""
        found = [row for row in _as_list(rows) if row >= 0]
        return [{"item_id": self.item_ids[row], "title": self.titles[row]} for row in found]

    # Inputs

    def __call__(
        self,
        preference: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        history: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        unknown_items: str = "error",
        return_tensors: str | None = "pt",
        pad_to_multiple_of: int | None = None,
    ) -> BatchFeature:
        """Model inputs for one user or a batch of users.

        Args:
            preference: a text for one user; for a batch, one text or list of texts per user. Several texts of a user
                are joined. Empty or `None`: the history alone speaks.
            history: item ids of one user, oldest first; for a batch, one list per user. Empty or `None`: the
                preference alone speaks.
            unknown_items: "error", or "skip" to leave out history items that the catalogue lacks.
            return_tensors: "pt", "np", or `None` for unpadded lists.
            pad_to_multiple_of: round the padded length up to a multiple.

        Returns:
            `input_ids` and `attention_mask`. Shape: (B, T).

        Raises:
            ValueError: if a user has neither preference nor history, or a history item is unknown.
        """
        if unknown_items not in ("error", "skip"):
            raise ValueError(f'unknown_items={unknown_items!r}; pass "error" or "skip"')
        preferences, histories = _as_batch(preference, history)
        input_ids = [
            self.render(text, titles, user)
            for user, (text, titles) in enumerate(zip(preferences, histories, strict=True))
            for titles in [self._titles(titles, unknown_items)]
        ]
        if return_tensors is None:
            return BatchFeature({"input_ids": input_ids, "attention_mask": [[1] * len(ids) for ids in input_ids]})
        padded = self.tokenizer.pad(
            {"input_ids": input_ids}, return_tensors=return_tensors, pad_to_multiple_of=pad_to_multiple_of
        )
        return BatchFeature({"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]})

    def render(self, preference: str, titles: Sequence[str], user: int = 0) -> list[int]:
        """Token ids of one input: "Instructions: ... Items: ..." with as many of the latest titles as fit."""
        preference = preference.strip()
        if not preference and not titles:
            raise ValueError(
                f"user {user} has neither a preference nor a history; pass a preference text, history items, or both"
            )
        before, after = self._special_tokens()
        room = self.max_length - len(before) - len(after)
        instruction = self._piece(f"Instructions: {preference}.") if preference else []
        instruction = instruction[:room]
        heading = self._piece("Items:") if titles else []
        pieces = [self._piece(title if last else f"{title},") for title, last in _mark_last(titles)]
        room -= len(instruction) + len(heading)
        while pieces and sum(map(len, pieces)) > room:
            pieces.pop(0)
        body = (
            [*instruction, *heading, *chain.from_iterable(pieces)]
            if pieces
            else instruction or self._last_title(titles)
        )
        return [*before, *body, *after]

    def _last_title(self, titles: Sequence[str]) -> list[int]:
        """A history whose very latest title is too long: its beginning."""
        before, after = self._special_tokens()
        return self._piece(f"Items: {titles[-1]}")[: self.max_length - len(before) - len(after)]

    def _titles(self, item_ids: Sequence[str], unknown_items: str) -> list[str]:
        if unknown_items == "skip":
            item_ids = [item_id for item_id in item_ids if item_id in self._row_of]
        return [self.titles[row] for row in self.rows(item_ids)]

    def _piece(self, text: str) -> list[int]:
        """Token ids of a text without special tokens; titles recur, so each distinct text is tokenised once."""
        if text not in self._pieces:
            if len(self._pieces) > 200_000:
                self._pieces.clear()
            self._pieces[text] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return self._pieces[text]

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """Special tokens that the tokenizer puts before and after a text."""
        whole = self.tokenizer("a")["input_ids"]
        inner = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
        return whole[:start], whole[start + len(inner) :]

    # Saving

    @property
    def model_input_names(self) -> list[str]:
        """What a call returns."""
        return ["input_ids", "attention_mask"]

    def to_dict(self) -> dict[str, Any]:
        """Settings for `processor_config.json`; the items have a file of their own."""
        settings = super().to_dict()
        for name in ("item_ids", "titles", "_row_of", "_pieces", "items"):
            settings.pop(name, None)
        return settings

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write the tokenizer, the settings and the items to a folder; with `push_to_hub`, upload the folder."""
        saved = super().save_pretrained(save_directory, push_to_hub=False, **kwargs)
        target = Path(save_directory) / ITEMS_FILE
        temporary = target.with_suffix(".tmp")
        temporary.write_text(json.dumps({"item_id": self.item_ids, "title": self.titles}, ensure_ascii=False), "utf-8")
        temporary.replace(target)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return [*(saved or []), str(target)]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> MenderProcessor:
        """Load a processor that `save_pretrained` wrote, from a folder or the Hub.

        Raises:
            OSError: if the items file is missing.
        """
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        path = cached_file(pretrained_model_name_or_path, ITEMS_FILE, **hub)
        processor.set_items(json.loads(Path(path).read_text("utf-8")))
        return processor

    @classmethod
    def from_encoder_pretrained(
        cls, name_or_path: str, items: Mapping[str, Sequence[str]], max_length: int = 256, **kwargs: Any
    ) -> MenderProcessor:
        """A processor with the tokenizer of a pretrained encoder."""
        return cls(AutoTokenizer.from_pretrained(name_or_path, **kwargs), items, max_length)


HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def _as_batch(preference: Any, history: Any) -> tuple[list[str], list[Sequence[str]]]:
    """One preference text and one list of item ids per user."""
    single = preference is None or isinstance(preference, str)
    nested = history is not None and len(history) > 0 and not isinstance(history[0], str)
    if single and not nested:
        return [preference or ""], [list(history or [])]
    if not single and history is not None and not nested and len(history) > 0:
        # Several preferences for one history.
        return [_join(preference)], [list(history)]
    users = len(history) if nested else len(preference)
    preferences = [preference or ""] * users if single else [_join(texts) for texts in preference]
    histories = [list(items) for items in history] if nested else [[] for _ in range(users)]
    if len(preferences) != len(histories):
        raise ValueError(f"{len(preferences)} preferences but {len(histories)} histories; pass one of each per user")
    return preferences, histories


def _join(texts: str | Sequence[str] | None) -> str:
    if texts is None or isinstance(texts, str):
        return texts or ""
    return ". ".join(text.strip().rstrip(".") for text in texts)


def _mark_last(titles: Sequence[str]) -> list[tuple[str, bool]]:
    return [(title, position == len(titles) - 1) for position, title in enumerate(titles)]


def _as_list(rows: Tensor | Sequence[int]) -> list[int]:
    return rows.tolist() if isinstance(rows, torch.Tensor) else [int(row) for row in rows]
