"""Cards that a program writes and people edit: sections between marks, each with a digest of what was written.

A section whose text still has its digest is written anew; one that somebody edited is theirs and stays, one that they
deleted stays away. Marks are HTML comments, which no page shows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

__all__ = [
    "Section",
    "as_list",
    "is_generated",
    "is_template",
    "is_untouched",
    "merged_metadata",
    "merged_text",
    "recorded_weights",
    "split_card",
]

HINT = (
    "<!-- Sections between marks are written anew when the model is saved, as long as nobody edits them. "
    "What you edit, add or delete stays as you leave it. -->"
)
SECTION = re.compile(
    r"<!-- mender:(?P<name>[\w-]+) (?P<digest>[0-9a-f]{12})(?: weights=(?P<weights>[0-9a-f]{64}))? -->\n"
    r"(?P<text>.*?)<!-- /mender:(?P=name) -->",
    flags=re.DOTALL,
)
PEFT_LINE = re.compile(r"### Framework versions\s+- PEFT \S+\s*\Z")  # peft adds it to the form
YAML_BLOCK = re.compile(r"\A\s*---\r?\n(.*?)\r?\n?---[ \t]*(?:\r?\n|\Z)", flags=re.DOTALL)


@dataclass(frozen=True)
class Section:
    """A generated part of a card.

    Attributes:
        name: by which it is found again.
        text: Markdown; empty where there is nothing to say.
        weights: SHA-256 of the weights that the text speaks of; `None` where it holds for any.
    """

    name: str
    text: str
    weights: str | None = None

    def __str__(self) -> str:
        weights = f" weights={self.weights}" if self.weights else ""
        text = _normal(self.text)
        return f"<!-- mender:{self.name} {_digest(text)}{weights} -->\n{text}<!-- /mender:{self.name} -->"


def is_generated(text: str) -> bool:
    """Whether a card, or a part of it, was written here."""
    return SECTION.search(text) is not None


def is_untouched(text: str) -> bool:
    """Whether nobody has edited or added anything in a generated card's body."""
    found, metadata = list(SECTION.finditer(text)), YAML_BLOCK.match(text)
    between = SECTION.sub("", text[metadata.end() if metadata else 0 :]).replace(HINT, "").strip()
    return bool(found) and not between and all(_digest(part["text"]) == part["digest"] for part in found)


def is_template(text: str) -> bool:
    """Whether a card is the form that transformers and peft put where there is none, with nothing filled in."""
    form = ModelCard.from_template(ModelCardData(), model_description="\0").text
    before, after = form.split("\0")
    found = YAML_BLOCK.match(text)
    body = PEFT_LINE.sub("", text[found.end() if found else 0 :]).strip()
    before, after = before.strip(), after.strip()
    inner = body[len(before) : len(body) - len(after)]
    return body.startswith(before) and body.endswith(after) and "\n" not in inner.strip()


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Metadata and body of a card.

    Raises:
        ValueError: if the metadata is no YAML, or no mapping.
    """
    found = YAML_BLOCK.match(text)
    if not found:
        return {}, text
    try:
        metadata = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"the metadata of the card is no YAML: {error}") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"the metadata of the card is a {type(metadata).__name__}; expected 'name: value' lines")
    return metadata, text[found.end() :]


def merged_text(existing: str | None, sections: Sequence[Section], weights: str | None = None) -> str:
    """The body of a card with its generated sections brought up to date.

    Args:
        existing: the body so far; `None` for a new card.
        sections: what is to be written, in order.
        weights: SHA-256 of the present weights; a section that speaks of the same weights stays where there is nothing
            newer to say about them (its new version has no `weights`).

    Returns:
        The body, ending in a line break.
    """
    if existing is None:
        return "\n\n".join([HINT, *map(str, sections)]) + "\n"
    fresh = {section.name: section for section in sections}

    def renewed(found: re.Match) -> str:
        section = fresh.get(found["name"])
        if section is None or _digest(found["text"]) != found["digest"]:
            return found[0]
        measured = found["weights"] is not None
        return found[0] if measured and not section.weights and found["weights"] == weights else str(section)

    return SECTION.sub(renewed, existing).rstrip("\n") + "\n"


def recorded_weights(text: str) -> set[str]:
    """Digests of the weights that sections of a card speak of."""
    return {found["weights"] for found in SECTION.finditer(text) if found["weights"]}


def merged_metadata(existing: Mapping[str, Any], generated: Mapping[str, Any], given: Mapping[str, Any]) -> dict:
    """Metadata: what the caller gave, else what the card says, else what is generated; lists are joined.

    Args:
        existing: of the card so far.
        generated: what the model says about itself.
        given: what the caller wants to see there.
    """
    result = dict(existing)
    for name, value in generated.items():
        before = result.get(name)
        if isinstance(before, list) and isinstance(value, list):
            result[name] = [*before, *(entry for entry in value if entry not in before)]
        elif before is None:
            result[name] = value
    return result | {name: value for name, value in given.items() if value is not None}


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """Metadata of which there may be one, several or none."""
    return [value] if isinstance(value, str) else list(value or [])


def _normal(text: str) -> str:
    """The text with one line break at its end, or none where it is empty."""
    text = text.strip("\n")
    return f"{text}\n" if text else ""


def _digest(text: str) -> str:
    # Git and editors may change line ends and trailing blanks; that is no edit.
    lines = [line.rstrip() for line in text.splitlines()]
    return hashlib.sha256("\n".join(lines).strip("\n").encode()).hexdigest()[:12]
