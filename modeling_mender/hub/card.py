"""The card of a saved model or adapter: README.md, with metadata that the Hub reads and text for people.

card_template.md holds the text. `write_card` fills it with what a model says about itself and what an evaluation
measured. A comment at the end of a card records what was written, section by section and field by field, so that
whatever a person edits, adds or removes is left alone when the card is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import yaml
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from markupsafe import Markup
from transformers.utils import cached_file, logging

from ..configuration_mender import atomic_write, public_name
from ..pipeline_mender import TASK
from .results import Evaluation, SteeringExample, markdown_table, plain

__all__ = [
    "CARD_FILE",
    "TAGS",
    "as_list",
    "card_name",
    "keep_published_edits",
    "push_card",
    "text_encoder_of",
    "update_card",
    "write_card",
]

logger = logging.get_logger(__name__)

CARD_FILE = "README.md"
TAGS = ["mender", TASK, "sequential-recommendation", "recommender-systems", "preference-discerning"]
METHODS = {
    "mender": (
        "Mender: a language encoder reads a preference and a history, a small T5 decoder generates the semantic ID of "
        "the next item, and a prefix tree guarantees that every result is in the catalogue"
    ),
    "mender_sasrec": "SASRec: self-attention over the items of a history; it does not read preferences",
    "mender_experts": (
        "A weighted sum of experts without a trained network: counts of what was bought and bought together, and text "
        "search"
    ),
}
HINT = "Written by modeling_mender. Sections and metadata that you edit, add or remove stay that way."
RECORD = re.compile(rf"^<!-- {re.escape(HINT)} (\{{.*\}}) -->\s*$", re.MULTILINE)
ENVIRONMENT = jinja2.Environment(finalize=plain, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters["percent"] = "{:.0%}".format
TEMPLATE = ENVIRONMENT.from_string((Path(__file__).parent / "card_template.md").read_text("utf-8"))


def write_card(
    folder: str | os.PathLike,
    model: Any,
    *,
    results: str | os.PathLike | Mapping[str, Any] | Evaluation | None = None,
    method: str | None = None,
    steering: Sequence[SteeringExample] = (),
    training: str | None = None,
    model_name: str | None = None,
    repo_id: str | None = None,
    new_weights: bool = False,
    overwrite: bool = False,
    defaults: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> Path:
    """Write or update the card of a saved model.

    Args:
        folder: where the model is saved.
        model: the model.
        results: what was measured: `five_axes.json`, or its content. Without it, figures in the card stay.
        method: which method of the results the model is; default: the one that they name, else the first.
        steering: lists to show.
        training: Markdown about the training, where the caller knows more than the results say.
        model_name: for the heading; default: the repository's name, else the folder's.
        repo_id: name of the repository on the Hub, for the snippets.
        new_weights: whether the model was trained since the card was written; its figures and lists are dropped.
        overwrite: whether to replace a card that was written by hand, and all edits.
        defaults: metadata that the caller knows better than the model, such as `base_model`.
        **metadata: fields of `huggingface_hub.ModelCardData`, such as `license`, `base_model`, `datasets`, `language`.
            They take precedence over edits in the card, and edits over `defaults` and what the model says; `tags`
            are added.

    Returns:
        The path of the card. A card that was written by hand stays as it is, with a warning.

    Raises:
        ValueError: if the results cannot be read, or a field of the metadata is not as the Hub expects it.
    """
    encoder = public_name(getattr(text_encoder_of(model), "_name_or_path", None))
    base_card = _published_card(encoder, online=repo_id is not None)
    license_ = None if base_card is None else base_card.data.license
    generated = {
        "license": license_ if isinstance(license_, str) else None,
        "library_name": "transformers",
        "pipeline_tag": TASK,
        "base_model": encoder,
        "tags": TAGS,
    }
    content = {
        "name": model_name or card_name(folder, repo_id),
        "place": repo_id or "path/to/this/folder",
        "facts": _facts(model),
        "method": METHODS.get(model.config.model_type, type(model).__name__),
        "reads_preferences": text_encoder_of(model) is not None,
        "penalises": getattr(model, "experts", None) is not None and model.experts.avoids,
        "steering": steering,
    }
    return update_card(
        folder,
        content,
        results=results,
        method=method,
        training=training,
        new_weights=new_weights,
        overwrite=overwrite,
        generated={**generated, **{name: value for name, value in (defaults or {}).items() if value is not None}},
        given=metadata,
    )


def update_card(
    folder: str | os.PathLike,
    content: Mapping[str, Any],
    *,
    generated: Mapping[str, Any],
    given: Mapping[str, Any],
    results: str | os.PathLike | Mapping[str, Any] | Evaluation | None = None,
    method: str | None = None,
    training: str | None = None,
    new_weights: bool = False,
    overwrite: bool = False,
) -> Path:
    """Fill the template and write it; for the other arguments, see `write_card`.

    Args:
        folder: where the card is.
        content: what the template shows of a model or an adapter.
        generated: metadata that the model says.
        given: metadata that the caller gives.
        results: as for `write_card`.
        method: as for `write_card`.
        training: as for `write_card`.
        new_weights: as for `write_card`.
        overwrite: as for `write_card`.
    """
    if results is not None and not isinstance(results, Evaluation):
        results = Evaluation.read(results, method)
    path = Path(folder) / CARD_FILE
    text = path.read_text("utf-8") if path.is_file() and not overwrite else ""
    try:
        card = _Card.parse(text) if text and not _is_form(text) else _Card(ModelCardData(), [], {}, {}, {})
    except ValueError as error:
        logger.warning(f"{path} is left as it is ({error}); write the card with overwrite=True to replace it")
        return path
    figures = [] if results is None else results.eval_results(next(iter(as_list(given.get("datasets"))), None))
    card.data.model_name = card.data.model_name or content["name"]
    card.update_metadata(generated, given, figures, drop=results is not None or new_weights)
    base = next(iter(as_list(card.data.base_model)), None)
    facts = dict(content["facts"])
    if base:
        link = Markup(f"[{plain(base)}](https://huggingface.co/{quote(base)})")
        facts = {"base model": link, **{name: value for name, value in facts.items() if name != "base model"}}
    filled = TEMPLATE.render(
        **{**content, "facts": markdown_table([["", ""], *facts.items()])},
        base=base,
        evaluation=results,
        training=Markup(training or ""),
    )
    sections = _sections(filled)
    if results is None and not new_weights:  # earlier results are still valid
        before = set(map(_heading, card.sections))
        sections = [one for one in sections if _heading(one) not in before & {"Results", "Limits"}]
    card.update_sections(sections, new_weights)
    _write(path, card)
    return path


def push_card(folder: str | os.PathLike, repo_id: str) -> str:
    """Upload the card of a folder to the repository of its model; edits of the card on the Hub are kept.

    Args:
        folder: of the model or adapter; write its card with the same `repo_id` first.
        repo_id: name of the repository on the Hub.

    Returns:
        The address of the repository's commit.
    """
    path = keep_published_edits(folder, repo_id)
    return (
        HfApi()
        .upload_file(path_or_fileobj=path, path_in_repo=CARD_FILE, repo_id=repo_id, commit_message="Upload card")
        .commit_url
    )


def keep_published_edits(folder: str | os.PathLike, repo_id: str) -> Path:
    """Take what people edited in the card on the Hub into the card of a folder; returns its path.

    Args:
        folder: of the model or adapter, with a card.
        repo_id: name of the repository on the Hub; it need not exist.

    Raises:
        ValueError: if the two cards cannot be merged.
    """
    path = Path(folder) / CARD_FILE
    online = _published_card(repo_id, online=True)
    if online is not None and not _is_form(online.content):
        try:
            card = _Card.parse(path.read_text("utf-8"))
            card.keep_edits(_Card.parse(online.content))
        except ValueError as error:
            raise ValueError(
                f"the card of {repo_id} is not replaced by {path}: in one of them {error}; "
                "delete the one on the Hub, or merge the two by hand"
            ) from error
        _write(path, card)
    return path


def card_name(folder: str | os.PathLike, repo_id: str | None = None) -> str:
    """The name of a model: that of its repository, or of its folder (the parent of a folder called "model")."""
    if repo_id:
        return repo_id.rpartition("/")[2]
    folder = Path(folder).resolve()
    return folder.parent.name if folder.name in ("model", "adapter") else folder.name


def text_encoder_of(model: Any) -> Any | None:
    """Configuration of the language encoder of a model; `None` without one."""
    encoder = getattr(model.config, "encoder", None)
    return getattr(encoder, "text_encoder", encoder)


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """Metadata that may be one value, a list, or missing, as a list."""
    return [value] if isinstance(value, str) else list(value or [])


def _write(path: Path, card: _Card) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(str(card), "utf-8")


# What a card says


def _facts(model: Any) -> dict[str, str]:
    config, encoder, facts = model.config, text_encoder_of(model), {}
    if encoder is not None:
        facts["encoder"] = f"{encoder.model_type}, {encoder.num_hidden_layers} layers, width {encoder.hidden_size}"
    if decoder := getattr(config, "decoder", None):
        facts["decoder"] = f"T5, {decoder.num_layers} layers, width {decoder.d_model}"
    if sizes := getattr(config, "codebook_sizes", None):
        facts["semantic IDs"] = f"{len(sizes)} levels of {', '.join(map(str, sizes))} codes"
    if (experts := getattr(model, "experts", None)) is not None:
        facts["experts"] = ", ".join(experts.config.experts).replace("_", " ")
        for kind, weights in experts.config.weights.items():
            said = [f"{name.replace('_', ' ')} {weight:.3g}" for name, weight in weights.items() if weight]
            facts[f"weights, {kind}"] = ", ".join(said)
        if experts.config.fit:
            said = [f"{name} {value:.3g}" for name, value in experts.config.fit.items()]
            facts["fit of a request, logistic"] = ", ".join(said)
    if items := getattr(config, "num_items", None):
        facts["catalogue"] = f"{items:,} items"
    return {**facts, "parameters": f"{model.num_parameters():,}"}


def _published_card(name_or_path: str | None, online: bool) -> ModelCard | None:
    """The card in a folder or of a repository; `None` without one. Offline, the cache of the Hub is used."""
    quiet = {f"_raise_exceptions_for_{kind}": False for kind in ("gated_repo", "missing_entries", "connection_errors")}
    try:
        found = cached_file(name_or_path, CARD_FILE, local_files_only=not online, **quiet) if name_or_path else None
        return ModelCard.load(found) if found else None
    except (OSError, ValueError, yaml.YAMLError):  # no such repository, or its metadata is broken
        return None


# A card that is read, brought up to date and written again


@dataclass
class _Card:
    """A card that this library wrote, and the edits that were made since.

    Attributes:
        data: its metadata.
        sections: its text, split before each "## " heading.
        digests: by heading, of the sections as they were written.
        generated: metadata as it was written, where the model says it.
        given: the same, where callers gave it.
    """

    data: ModelCardData
    sections: list[str]
    digests: dict[str, str]
    generated: dict[str, Any]
    given: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> _Card:
        """The card in a text.

        Raises:
            ValueError: if it was written by hand, or its metadata is not valid.
        """
        try:
            card = ModelCard(text)
        except yaml.YAMLError as error:
            raise ValueError(f"its metadata is not valid YAML: {error}") from error
        record = RECORD.search(card.text)
        if record is None:
            raise ValueError("it was not written by this library")
        return cls(card.data, _sections(RECORD.sub("", card.text)), **json.loads(record[1]))

    def is_edited(self, section: str) -> bool:
        """Whether a section was edited since it was written."""
        return self.digests.get(_heading(section)) != _digest(section)

    def edited_fields(self) -> dict[str, Any]:
        """Metadata that was added or changed since the card was written."""
        written = {**self.generated, **self.given}
        return {name: value for name, value in _fields(self.data).items() if written.get(name) != value}

    def update_metadata(
        self, generated: Mapping[str, Any], given: Mapping[str, Any], figures: Sequence[EvalResult], drop: bool
    ) -> None:
        """Update the metadata.

        Args:
            generated: what the model says; edits and earlier callers take precedence.
            given: what the caller gives; it takes precedence over edits.
            figures: results to add.
            drop: whether figures that were written here before have to go.
        """
        edited, given = self.edited_fields(), {name: value for name, value in given.items() if value}
        tags = [*(self.data.tags or []), *generated["tags"], *as_list(given.pop("tags", None))]
        self.generated |= {name: value for name, value in generated.items() if value and name != "tags"}
        results = [one for one in self.data.eval_results or [] if one.task_type != TASK or not drop]
        self._set_metadata({**self.generated, **self.given, **edited, **given, "tags": tags}, [*figures, *results])
        self.given |= given

    def update_sections(self, sections: Sequence[str], new_weights: bool) -> None:
        """Update sections that were neither edited nor removed, and insert new ones in order.

        Args:
            sections: what there is to say, in order.
            new_weights: whether sections that are not among them describe other weights and have to go.
        """
        fresh, result = {_heading(section): section for section in sections}, []
        for section in self.sections:
            heading = _heading(section)
            if self.is_edited(section) or not (heading in fresh or new_weights):
                result.append(section)
            elif heading in fresh:
                result.append(fresh[heading])
                self.digests[heading] = _digest(fresh[heading])
            else:
                del self.digests[heading]
        position = 0
        for heading, section in fresh.items():
            headings = list(map(_heading, result))
            if heading in headings:
                position = headings.index(heading) + 1
            elif heading not in self.digests:
                result.insert(position, section)
                self.digests[heading] = _digest(section)
                position += 1
        self.sections = result

    def keep_edits(self, online: _Card) -> None:
        """Merge what was edited, added or removed in the version on the Hub, unless it was also edited here.

        Args:
            online: that version.
        """
        edited = [section for section in online.sections if online.is_edited(section)]
        removed = online.digests.keys() - set(map(_heading, online.sections))
        known, result = set(map(_heading, self.sections)), []
        for section in self.sections:
            theirs = [other for other in edited if _heading(other) == _heading(section)]
            if self.is_edited(section):
                result.append(section)
            elif _heading(section) not in removed:
                result += theirs or [section]
        self.sections = [*result, *(section for section in edited if _heading(section) not in known)]
        fields = {**_fields(self.data), **online.edited_fields(), **self.edited_fields()}
        fields["tags"] = [*(self.data.tags or []), *(online.data.tags or [])]
        foreign = [one for one in online.data.eval_results or [] if one.task_type != TASK]
        own = [one for one in self.data.eval_results or [] if one not in foreign]
        self._set_metadata(fields, [*own, *foreign])

    def _set_metadata(self, fields: Mapping[str, Any], results: Sequence[EvalResult]) -> None:
        named = {"model_name": self.data.model_name, "eval_results": list(results)} if results else {}
        self.data = ModelCardData(**fields, **named)

    def __str__(self) -> str:
        record = {"digests": self.digests, "generated": self.generated, "given": self.given}
        # No "--" within a comment.
        hidden = json.dumps(record, default=str).replace("--", "-\\u002d")
        text = "\n\n".join(section.strip("\n") for section in self.sections)
        return f"---\n{self.data.to_yaml()}\n---\n\n{text}\n\n<!-- {HINT} {hidden} -->\n"


def _fields(data: ModelCardData) -> dict[str, Any]:
    """Metadata without results and tags."""
    return {name: value for name, value in data.to_dict().items() if name not in ("model-index", "model_name", "tags")}


def _sections(text: str) -> list[str]:
    return [section for section in re.split(r"^(?=## )", text, flags=re.MULTILINE) if section.strip()]


def _heading(section: str) -> str:
    first = section.strip().partition("\n")[0].rstrip()
    return first.removeprefix("## ") if first.startswith("## ") else ""


def _digest(section: str) -> str:
    # Git and editors may change line endings and trailing spaces, which does not count as an edit.
    lines = [line.rstrip() for line in section.strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _is_form(text: str) -> bool:
    """Whether a card is the empty form that transformers uploads for models without a card."""
    form = ModelCard.from_template(ModelCardData(), model_description="\0").text
    start, end = (part.strip() for part in form.split("\0"))
    _, found, rest = text.partition(start)
    return bool(found) and rest.rstrip().endswith(end) and "\n" not in rest.rstrip().removesuffix(end).strip()
