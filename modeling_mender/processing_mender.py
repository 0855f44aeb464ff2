"""Renders a preference and a history as input ids, and item indices back into ids and titles.

The processor owns what people read (item ids, titles) as the model owns the codes: one JSON file beside the tokenizer.
The methods of the paper (arXiv:2412.08604) differ here in how a history is written: as titles, as codes, as rows of a
table of precomputed states, or as item numbers. The preference stands first, then the items, oldest first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.utils import cached_file

from .code_tokens import first_code_token
from .configuration_mender import atomic_write

__all__ = ["MenderProcessor"]

ITEMS_FILE = "items.json"
KEPT_TITLES = 200_000  # tokens of more are forgotten, some 0.1 GB
HISTORIES = ("titles", "codes", "states", "vectors", "indices", "none")
PREFERENCES = ("text", "none")


class MenderProcessor(ProcessorMixin):
    """Turns (preference, history) into model inputs, and item indices into items.

    Args:
        tokenizer: tokenizer of the model's encoder.
        items: what people call the items: `{"item_id": [...], "title": [...]}`; the position is the model's item index.
            With `history="codes"` also `"codes"`, one list of codes per item.
        max_length: tokens of an input. Where a history is longer, its oldest items are left out; a preference longer
            than the input is cut at its end.
        history: how items of the history are written. "titles": their text; "codes": their semantic IDs, as tokens
            that `add_code_tokens` gave the tokenizer; "states" and "vectors": rows of an `ItemStatesEncoder`'s table,
            several or one per item; "indices": item indices alone, for models without a text encoder; "none": not at
            all.
        preference: "text", or "none" for methods that do not read it.
        max_history: items of the history that are written, the latest of them.
        title_length: tokens of a title at most, for "states" and "vectors".
        codebook_sizes: codes per level, for "codes".

    Raises:
        ValueError: if ids and titles differ in number, an id stands twice, a mode is unknown, or codes are missing.

    Call it with `preference=` (a text, or several to be joined) and `history=` (item ids, oldest first), or with lists
    of them for a batch.
    """

    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        items: Mapping[str, Sequence[str]] | None = None,
        max_length: int = 256,
        history: str = "titles",
        preference: str = "text",
        max_history: int = 20,
        title_length: int = 32,
        codebook_sizes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer)
        if history not in HISTORIES or preference not in PREFERENCES:
            raise ValueError(
                f"history={history!r}, preference={preference!r}; pass one of {HISTORIES} and one of {PREFERENCES}"
            )
        if history == "codes" and not codebook_sizes:
            raise ValueError('history="codes" needs codebook_sizes, those of the catalogue')
        self.max_length = max_length
        self.history, self.preference = history, preference
        self.max_history, self.title_length = max_history, title_length
        self.codebook_sizes = None if codebook_sizes is None else [int(size) for size in codebook_sizes]
        self.item_ids: list[str] = []
        self.titles: list[str] = []
        self._state_counts: list[int] | None = None
        self.set_items(items or {"item_id": [], "title": []})

    # Items

    def set_items(self, items: Mapping[str, Sequence[Any]], *, new_states: bool = False) -> None:
        """Replace the items.

        Args:
            items: `{"item_id": [...], "title": [...]}`, one entry per item index; perhaps `"codes"`, and with
                `history="states"` perhaps `"states"`, how many rows of the encoder's table each item has (default: as
                before, and for new titles as many as they make).
            new_states: with `history="states"`, whether the encoder gets a table of these titles afterwards.

        Raises:
            ValueError: if ids and titles differ in number, an id stands twice, codes are missing, or an item would have
                another number of states than before.
        """
        ids, titles = list(items["item_id"]), list(items["title"])
        if len(ids) != len(titles):
            raise ValueError(f"{len(ids)} item ids but {len(titles)} titles; every item needs both")
        row_of = {item_id: row for row, item_id in enumerate(ids)}
        if len(row_of) != len(ids):
            twice = next(item_id for row, item_id in enumerate(ids) if row_of[item_id] != row)
            raise ValueError(f"item id {twice!r} stands more than once; ids must be unique")
        codes = [list(map(int, code)) for code in items.get("codes") or []]
        if self.history == "codes" and len(codes) != len(ids):
            raise ValueError(f'history="codes" needs the codes of all {len(ids)} items, got {len(codes)}')
        if self.history == "states":
            known = self.state_counts if self.item_ids and not new_states else []
            self._state_counts = self._counts_beside(known, ids, titles, items.get("states"))
        self.item_ids, self.titles, self.codes, self._index_of = ids, titles, codes, row_of
        self._item_pieces: list[list[int]] | None = None
        self._title_tokens: dict[str, list[int]] = {}

    @property
    def state_counts(self) -> list[int]:
        """How many rows of an `ItemStatesEncoder`'s table each item has."""
        if self.history == "vectors":
            return [1] * len(self.item_ids)
        if self._state_counts is None:
            self._state_counts = self._count_states(self.item_ids, self.titles)
        return list(self._state_counts)

    def _counts_beside(
        self, known: Sequence[int], ids: Sequence[str], titles: Sequence[str], given: Sequence[int] | None
    ) -> list[int] | None:
        """States per item, those given or what titles make; `None`, to be counted when needed, where none are known."""
        if given is not None and len(given) != len(ids):
            raise ValueError(f'{len(given)} entries of "states" but {len(ids)} items; pass one per item, or none')
        if given is None and not known:
            return None
        if given is None:
            old = zip(self.item_ids, self.titles, strict=True)
            same = [now == before for now, before in zip_longest(zip(ids, titles, strict=True), old)][: len(ids)]
            other = [row for row, kept in enumerate(same) if not kept]
            made = iter(self._count_states([ids[row] for row in other], [titles[row] for row in other]))
            given = [known[row] if kept else next(made) for row, kept in enumerate(same)]
        for row, (before, now) in enumerate(zip(known, given, strict=False)):
            if before != now:
                raise ValueError(
                    f"item {ids[row]!r} (row {row}) has {before} states in the encoder's table but {now} with the "
                    f"title {titles[row]!r}, and items behind it would be given others' states; pass new_states=True "
                    "and make the table anew (encode_titles, model.encoder.set_item_states), or keep the states of the "
                    'old title: "states": processor.state_counts among the items'
                )
        return [int(count) for count in given]

    def _count_states(self, ids: Sequence[str], titles: Sequence[str]) -> list[int]:
        special = sum(map(len, self.margins)) if ids else 0
        return [len(tokens) - special for tokens in self._tokens_of_titles(ids, titles)]

    def item_indices(self, item_ids: Sequence[str], *, unknown_items: str = "error") -> list[int]:
        """Item indices of ids.

        Args:
            item_ids: ids, in any order.
            unknown_items: "error", or "skip" to leave out ids that the catalogue lacks.

        Raises:
            ValueError: if an id is unknown.
        """
        if unknown_items == "skip":
            return [self._index_of[item_id] for item_id in item_ids if item_id in self._index_of]
        if unknown_items != "error":
            raise ValueError(f'unknown_items={unknown_items!r}; pass "error" or "skip"')
        try:
            return [self._index_of[item_id] for item_id in item_ids]
        except KeyError as missing:
            raise ValueError(
                f"item {missing.args[0]!r} is not among the {len(self.item_ids)} items of this processor; "
                'leave it out, pass unknown_items="skip", or add it with set_items and model.set_catalogue'
            ) from None

    def ids(self, item_indices: Tensor | Sequence[int]) -> list[str]:
        """Ids of items, in order; padding (-1) is left out."""
        return [self.item_ids[index] for index in self._known(item_indices)]

    def decode_items(self, item_indices: Tensor | Sequence[int]) -> list[dict[str, str]]:
        """Ids and titles of items, in order; padding (-1) is left out."""
        return [{"item_id": self.item_ids[index], "title": self.titles[index]} for index in self._known(item_indices)]

    def _known(self, item_indices: Tensor | Sequence[int]) -> list[int]:
        """Item indices without padding.

        Raises:
            IndexError: if an index has no item.
        """
        found = [index for index in _as_list(item_indices) if index >= 0]
        if found and max(found) >= len(self.item_ids):
            raise IndexError(
                f"item index {max(found)} has no item, this processor knows {len(self.item_ids)}; "
                "after model.set_catalogue(catalogue.add(...)), call set_items with all items"
            )
        return found

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
                preference alone speaks. Beside one user's history, even an empty one, a list of texts is that
                user's; without a history, each text is a user's own.
            unknown_items: "error", or "skip" to leave out history items that the catalogue lacks.
            return_tensors: "pt", "np", or `None` for unpadded lists.
            pad_to_multiple_of: round the padded length up to a multiple.

        Returns:
            `input_ids` and `attention_mask`. Shape: (B, T).

        Raises:
            ValueError: if a user has neither preference nor history, or a history item is unknown.
        """
        preferences, histories = _as_batch(preference, history)
        input_ids = [
            self.render(text, self.item_indices(items, unknown_items=unknown_items), user)
            for user, (text, items) in enumerate(zip(preferences, histories, strict=True))
        ]
        if return_tensors is None:
            masks = self.memory_mask(input_ids).tolist()
            masks = [mask[: len(ids)] for mask, ids in zip(masks, input_ids, strict=True)]
            return BatchFeature({"input_ids": input_ids, "attention_mask": masks})
        padded = {
            "input_ids": self.pad(input_ids, pad_to_multiple_of),
            "attention_mask": self.memory_mask(input_ids, pad_to_multiple_of),
        }
        return BatchFeature(padded, tensor_type=return_tensors)

    def pad(self, input_ids: Sequence[Sequence[int]], multiple_of: int | None = None) -> Tensor:
        """Inputs as one tensor, padded on the right. Shape: (B, T)."""
        width, padding = _padded_width(input_ids, multiple_of), self.tokenizer.pad_token_id
        return torch.tensor([[*ids, *[padding] * (width - len(ids))] for ids in input_ids])

    def memory_mask(self, input_ids: Sequence[Sequence[int]], multiple_of: int | None = None) -> Tensor:
        """1 for the states that the decoder may attend to. Shape: (B, T), int64.

        All but padding; with `history="vectors"` a preference is one vector, at its first token, so that its other
        tokens are left out as well.
        """
        position = torch.arange(_padded_width(input_ids, multiple_of))
        mask = position < torch.tensor([len(ids) for ids in input_ids])[:, None]
        if self.history == "vectors":
            texts = torch.tensor([sum(token < len(self.tokenizer) for token in ids) for ids in input_ids])
            mask &= (position == 0) | (position >= texts[:, None])
        return mask.long()

    def render(self, preference: str, rows: Sequence[int], user: int = 0) -> list[int]:
        """Input ids of one user: the preference, then as many of the latest items as fit.

        With titles or codes: "Instructions: ... Items: ..."; with states, vectors or rows, items are numbers beyond
        the text vocabulary.

        Args:
            preference: a text, perhaps empty.
            rows: item indices, oldest first.
            user: position in the batch, for the error message.

        Raises:
            ValueError: if there is neither a preference nor a history, though the method reads both.
        """
        preference = preference.strip()
        if not preference and not len(rows) and "none" not in (self.preference, self.history):
            raise ValueError(
                f"user {user} has neither a preference nor a history; pass a preference text, history items, or both"
            )
        preference = preference if self.preference == "text" else ""
        rows = [] if self.history == "none" else list(rows)[-self.max_history :]
        if self.history == "indices":
            # 0 is padding; a start token, numbered after the last item, stands first, so that no input is empty.
            return [len(self.item_ids) + 1, *(row + 1 for row in rows)]
        if self.history in ("states", "vectors"):
            return self._render_states(preference, rows)
        before, after = self.margins
        room = self.max_length - len(before) - len(after)
        instruction = self._tokens(f"Instructions: {preference}.")[:room] if preference else []
        heading = self._kept_tokens("Items:") if rows and (self.history, self.preference) != ("codes", "none") else []
        pieces = self.code_pieces(rows) if self.history == "codes" else self._title_pieces(rows)
        left = room - len(instruction) - len(heading)
        while pieces and sum(map(len, pieces)) > left:
            pieces.pop(0)
        if pieces:
            body = [*instruction, *heading, *chain.from_iterable(pieces)]
        elif instruction or not rows:
            body = instruction
        else:  # the very latest item alone is too long: its beginning
            last = self.code_pieces(rows[-1:]) if self.history == "codes" else self._title_pieces(rows[-1:])
            body = [*heading, *last[0]][:room]
        return [*before, *body, *after]

    def _render_states(self, preference: str, rows: Sequence[int]) -> list[int]:
        before, after = self.margins
        text: list[int] = []
        if preference or not rows:
            text = [*before, *self._tokens(preference)[: self.max_length - len(before) - len(after)], *after]
        if self._item_pieces is None:
            sizes = self.state_counts
            ends = accumulate(sizes, initial=len(self.tokenizer))
            self._item_pieces = [list(range(start, start + size)) for start, size in zip(ends, sizes, strict=False)]
        return [*text, *chain.from_iterable(self._item_pieces[row] for row in rows)]

    def text_part(self, input_ids: Sequence[int]) -> list[int]:
        """The text tokens of an input, without rows of a state table."""
        return [token for token in input_ids if token < len(self.tokenizer)]

    def title_inputs(self) -> list[list[int]]:
        """Token ids of every item's title, special tokens included, as `encode_titles` takes them."""
        return self._tokens_of_titles(self.item_ids, self.titles)

    def _tokens_of_titles(self, ids: Sequence[str], titles: Sequence[str]) -> list[list[int]]:
        before, after = self.margins
        titles = [title.strip() or item_id for title, item_id in zip(titles, ids, strict=True)]
        tokens = self.tokenizer(titles, add_special_tokens=False, verbose=False)["input_ids"] if titles else []
        return [[*before, *(ids or [self.tokenizer.unk_token_id])[: self.title_length], *after] for ids in tokens]

    def _title_pieces(self, rows: Sequence[int]) -> list[list[int]]:
        titles = [f"{self.titles[row]}," for row in rows[:-1]] + [self.titles[row] for row in rows[-1:]]
        return [self._kept_tokens(title) for title in titles]

    def code_pieces(self, rows: Sequence[int]) -> list[list[int]]:
        """Code tokens of items, with `history="codes"`."""
        if self._item_pieces is None:
            first = first_code_token(self.tokenizer, self.codebook_sizes)
            offsets = list(accumulate(self.codebook_sizes[:-1], initial=first))
            self._item_pieces = [
                [offset + code for offset, code in zip(offsets, codes, strict=True)] for codes in self.codes
            ]
        return [self._item_pieces[row] for row in rows]

    def _tokens(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def _kept_tokens(self, title: str) -> list[int]:
        """The same of a title, tokenised once: titles recur."""
        kept = self._title_tokens
        tokens = kept.get(title)
        if tokens is None:
            if len(kept) >= KEPT_TITLES:
                kept = self._title_tokens = {}
            tokens = kept[title] = self._tokens(title)
        return tokens

    @cached_property
    def margins(self) -> tuple[list[int], list[int]]:
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
        derived = {"item_ids", "titles", "codes", "items", "margins"}
        return {name: value for name, value in settings.items() if name not in derived and not name.startswith("_")}

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write the tokenizer, the settings and the items to a folder; with `push_to_hub`, upload the folder."""
        saved = super().save_pretrained(save_directory, push_to_hub=False, **kwargs)
        target = Path(save_directory) / ITEMS_FILE
        items: dict[str, Sequence[Any]] = {"item_id": self.item_ids, "title": self.titles}
        items |= {"codes": self.codes} if self.codes else {}
        items |= {"states": self.state_counts} if self.history == "states" else {}
        with atomic_write(target) as unfinished:
            unfinished.write_text(json.dumps(items, ensure_ascii=False), "utf-8")
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
        """A processor with the tokenizer of a pretrained encoder, for titles and preferences as text."""
        return cls(AutoTokenizer.from_pretrained(name_or_path, **kwargs), items, max_length)


HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def _as_batch(preference: Any, history: Any) -> tuple[list[str], list[Sequence[str]]]:
    """One preference text and one list of item ids per user."""
    single = preference is None or isinstance(preference, str)
    nested = history is not None and len(history) > 0 and not isinstance(history[0], str)
    if single and not nested:
        return [preference or ""], [list(history or [])]
    if history is not None and not nested:
        if all(isinstance(text, str) for text in preference):
            # Several preferences for one history, be it empty; a batch of users has a list of them, or None.
            return [_join(preference)], [list(history)]
        if len(history):
            raise ValueError(
                f"{len(preference)} preferences but one history of {len(history)} items; pass a list of histories, "
                "one per user"
            )
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


def _padded_width(input_ids: Sequence[Sequence[int]], multiple_of: int | None) -> int:
    longest = max(map(len, input_ids))
    return longest if multiple_of is None else -(-longest // multiple_of) * multiple_of


def _as_list(indices: Tensor | Sequence[int]) -> list[int]:
    return indices.tolist() if isinstance(indices, torch.Tensor) else [int(index) for index in indices]
