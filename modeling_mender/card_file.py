"""README.md as a file that is opened, brought up to date and saved; what people wrote in it is respected."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from transformers.utils import logging

from .atomic_files import write_text
from .card_facts import CARD_FILE, weights_digest
from .card_text import Section, is_generated, is_template, merged_metadata, merged_text, recorded_weights, split_card
from .pipeline_mender import TASK

__all__ = ["CardFile"]

logger = logging.get_logger(__name__)


@dataclass
class CardFile:
    """The card in a folder.

    Attributes:
        path: of the file.
        metadata: what its head says now.
        body: its text now; `None` where a new card is to be written.
    """

    path: Path
    metadata: dict[str, Any]
    body: str | None

    @classmethod
    def open(cls, folder: str | os.PathLike, overwrite: bool = False) -> CardFile | None:
        """The card in a folder, or a new one; `None`, with a warning, where somebody wrote it by hand.

        Args:
            folder: where the weights are saved.
            overwrite: whether to begin anew whatever is there.
        """
        path = Path(folder) / CARD_FILE
        text = path.read_text("utf-8") if path.is_file() and not overwrite else ""
        if not text or is_template(text):
            return cls(path, {}, None)
        try:
            metadata, body = split_card(text)
            if not is_generated(body):
                raise ValueError("it is written by hand")
            ModelCardData(**metadata)
        except ValueError as error:
            logger.warning(f"{path} is left as it is ({error}); write the card with overwrite=True to replace it")
            return None
        return cls(path, metadata, body)

    def weights(self, measured: bool) -> str | None:
        """SHA-256 of the weights beside the card, where it matters: they were measured now, or had been before."""
        return weights_digest(self.path.parent) if measured or recorded_weights(self.body or "") else None

    def save(
        self,
        sections: Sequence[Section],
        weights: str | None,
        generated: Mapping[str, Any],
        given: Mapping[str, Any],
        results: Sequence[EvalResult] = (),
        name: str = "",
    ) -> Path:
        """Write the card.

        Args:
            sections: its generated parts, in order.
            weights: of `weights()`.
            generated: metadata that the model gives.
            given: metadata that the caller gives.
            results: figures for the `model-index`.
            name: of the model, there.

        Raises:
            ValueError: if a field of the metadata is not as the Hub wants it.
        """
        recorded = recorded_weights(self.body or "")
        stale = bool(results) or bool(recorded and weights not in recorded)
        before = _without_figures(self.metadata) if stale else self.metadata
        data = ModelCardData(**merged_metadata(before, generated, given))
        if results:
            data.model_name = data.model_name or name
            data.eval_results = [*results, *(data.eval_results or [])]
        write_text(self.path, f"---\n{data.to_yaml()}\n---\n\n{merged_text(self.body, sections, weights).lstrip()}")
        return self.path


def _without_figures(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without results that were written here: they speak of other weights."""
    kept = []
    for model in metadata.get("model-index") or []:
        results = [result for result in model["results"] if result["task"]["type"] != TASK]
        if results:
            kept.append({**model, "results": results})
    rest = {name: value for name, value in metadata.items() if name != "model-index"}
    return rest | ({"model-index": kept} if kept else {})
