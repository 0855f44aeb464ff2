"""Adapters saved with a card: which base model they belong to, what they hold, how they are loaded, merged, trained on.

An adapter of a Mender is small and holds no item table: base model and processor stay where they are, or are saved
first. What peft would write as a card is an empty form and the base model's local path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from peft import get_peft_model_state_dict

from .adapter_base import base_name, loaded_by, record_base, required_base
from .atomic_files import write_text
from .card_facts import CARD_FILE
from .card_file import CardFile
from .card_results import Evaluation
from .card_sections import CITATION, EXAMPLE, measured_sections
from .card_text import Section, as_list
from .model_card import TAGS, card_name

__all__ = ["keeping_card", "save_adapter", "write_adapter_card"]


def save_adapter(
    model: Any, folder: str | os.PathLike, *, push_to_hub: bool = False, repo_id: str | None = None, **card: Any
) -> Path:
    """Save the adapter of a Mender and its card.

    Args:
        model: what `add_lora` or `PeftModel.from_pretrained` gave.
        folder: where to; made where it does not exist.
        push_to_hub: whether to upload the folder as well; peft's own `push_to_hub` would upload an empty card and the
            local path of the base model.
        repo_id: name of the repository; default: the folder's.
        **card: as for `write_adapter_card`.

    Returns:
        The folder.

    Raises:
        ValueError: if it is to be uploaded and nothing says what the base model is called on the Hub.
    """
    folder = Path(folder)
    if push_to_hub:
        asked = () if card.get("overwrite") else (folder,)
        required_base(model, card.get("base_model"), *asked)
        repo_id = HfApi().create_repo(repo_id or folder.resolve().name, exist_ok=True).repo_id
    with keeping_card(folder):
        model.save_pretrained(str(folder))
    write_adapter_card(folder, model, repo_id=repo_id, **card)
    if push_to_hub:
        HfApi().upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message="Upload adapter",
            allow_patterns=["adapter_*", CARD_FILE],
        )
    return folder


@contextmanager
def keeping_card(folder: str | os.PathLike) -> Iterator[None]:
    """Undo what peft does to the card of a folder: an empty form, or its metadata and local paths in a card of ours."""
    path = Path(folder) / CARD_FILE
    before = path.read_text("utf-8") if path.is_file() else None
    yield
    if before is None:
        path.unlink(missing_ok=True)
    else:
        write_text(path, before)


def write_adapter_card(
    folder: str | os.PathLike,
    model: Any,
    *,
    results: str | os.PathLike | Mapping[str, Any] | Evaluation | None = None,
    method: str | None = None,
    training: str | None = None,
    base_model: str | None = None,
    model_name: str | None = None,
    repo_id: str | None = None,
    overwrite: bool = False,
    **metadata: Any,
) -> Path:
    """Write or update the card of a saved adapter.

    Where the name of the base model on the Hub is known, it takes the place of a local path in the adapter's
    configuration too; where it is not, the path stays, and the adapter loads on this machine.

    Args:
        folder: where the adapter is saved.
        model: the adapted model.
        results: what was measured with this adapter: `five_axes.json`, or its content.
        method: which method of the results it is; default: the one they name, else the first.
        training: Markdown about the training, where the caller knows more than the results say.
        base_model: name of the base model on the Hub; default: what the card says, else the name it was loaded by,
            where that is no folder.
        model_name: for the heading; default: the repository's, else the folder's.
        repo_id: name of the adapter's repository, for the snippets.
        overwrite: whether to replace a card that somebody wrote by hand, or sections of it that somebody edited.
        **metadata: fields of `huggingface_hub.ModelCardData`; `tags` are added.

    Returns:
        The path of the card. A card that somebody wrote by hand stays as it is, with a warning.
    """
    if results is not None and not isinstance(results, Evaluation):
        results = Evaluation.read(results, method)
    base = base_model or base_name(model, *(() if overwrite else (folder,)))
    if base:
        record_base(folder, model, base)
    card = CardFile.open(folder, overwrite)
    if card is None:
        return Path(folder) / CARD_FILE
    adapter, origin = model.peft_config[model.active_adapter], loaded_by(model)
    name, weights = model_name or card_name(folder, repo_id), card.weights(bool(results or training))
    sections = [
        Section("about", _about(name, model, adapter, base or (card_name(origin) if origin else "unknown"))),
        Section("use", _use(base or "path/to/the/base/model", repo_id or "path/to/this/folder")),
        *measured_sections(results, training, weights),
        Section("citation", CITATION),
    ]
    generated = {
        "library_name": "peft",
        **({"base_model": base} if base else {}),
        "tags": [*TAGS, adapter.peft_type.value.lower(), *as_list(metadata.pop("tags", None))],
    }
    said = as_list(card.metadata.get("base_model"))  # perhaps several, of which the name is one
    given = {**metadata, "base_model": None if base_model in said else base_model}
    dataset = next(iter(as_list(metadata.get("datasets"))), None)
    figures = [] if results is None else results.eval_results(dataset)
    return card.save(sections, weights, generated, given, figures, name)


def _about(name: str, model: Any, adapter: Any, base: str) -> str:
    size = sum(value.numel() for value in get_peft_model_state_dict(model).values())
    rows = {"base model": base, "kind": _kind(adapter)}
    # Which of these there are is different for every kind of adapter.
    if targets := getattr(adapter, "target_modules", None):
        targets = targets if isinstance(targets, str) else ", ".join(sorted(targets))
        rows["adapted modules"] = "`{}`".format(targets.replace("|", "\\|"))
    if hasattr(adapter, "modules_to_save"):
        rows["saved whole"] = ", ".join(f"`{part}`" for part in adapter.modules_to_save or []) or "none"
    rows["size"] = f"{size:,} parameters"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""\
# {name}

An adapter for a recommender, its base model. It holds what differs from that model and no item table: item codes, ids
and titles come from the base model and its processor.

| | |
|---|---|
{table}"""


def _kind(adapter: Any) -> str:
    """Kind of an adapter and its settings, as far as that kind has them."""
    settings = {
        "rank": getattr(adapter, "r", None),
        "alpha": getattr(adapter, "lora_alpha", getattr(adapter, "alpha", None)),
        "dropout": getattr(adapter, "lora_dropout", None),
        "virtual tokens": getattr(adapter, "num_virtual_tokens", None),
    }
    known = (f"{name} {value}" for name, value in settings.items() if value is not None)
    return ", ".join([adapter.peft_type.value, *known])


def _use(base: str, place: str) -> str:
    return f"""\
## How to use

```python
import modeling_mender
from peft import PeftModel
from transformers import AutoModel, AutoProcessor

base = AutoModel.from_pretrained("{base}")
processor = AutoProcessor.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{place}").eval()
found = model.recommend(**processor("{EXAMPLE}"), top_k=5)
print(processor.decode_items(found.item_indices[0]))
```

- In one step: `peft.AutoPeftModelForSeq2SeqLM.from_pretrained("{place}")` loads the base model as well, by the name
  or path that it had when the adapter was trained.
- To train on: `PeftModel.from_pretrained(base, "{place}", is_trainable=True)`.
- To serve or share a whole model: `model.merge_and_unload().save_pretrained(...)`, and the processor beside it."""
