"""A ready-made benchmark as a folder of ours, which `load_dataset`, training and evaluation read like a built one.

Nothing is written anew: the preferences, examples and items are those of the published data set, in our columns. The
folder has no statistics of a build and no validation, since nothing was built; its card says where all of it is from.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from huggingface_hub import DatasetCardData

from preference_benchmark.card import table
from preference_benchmark.features import EXAMPLE_FEATURES
from preference_benchmark.parquet import write_shards
from preference_benchmark.protocol import SPLITS
from preference_benchmark.ready_made import ReadyMade

__all__ = ["write_ready_made"]


def write_ready_made(found: ReadyMade, output: Path, *, name: str, origin: str, licence: str) -> Path:
    """Write the configs `name` and `name-items` as Parquet, and their card.

    The folder appears as a whole, or not at all.

    Args:
        found: of `load_ready_made`.
        output: a folder that does not exist yet.
        name: what its configs are called.
        origin: where it is from: name on the Hub, or a folder.
        licence: its licence, as the Hub names it, such as "mit".

    Returns:
        The folder.

    Raises:
        FileExistsError: if there is something already.
    """
    output = Path(output)
    if output.exists():
        raise FileExistsError(f"{output} exists; pass another folder as --output, or remove it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}-"))
    try:
        for config in (name, f"{name}-items"):
            (scratch / config).mkdir()
        for split in SPLITS:
            write_shards(found.examples[split].to_polars(), EXAMPLE_FEATURES, scratch / name, split)
        write_shards(found.items.to_polars(), found.items.features, scratch / f"{name}-items", "items")
        (scratch / "README.md").write_text(_card(found, name, origin, licence), encoding="utf-8")
        scratch.chmod(0o755)
        os.rename(scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def _card(found: ReadyMade, name: str, origin: str, licence: str) -> str:
    splits = {name: SPLITS, f"{name}-items": ("items",)}
    data = DatasetCardData(
        pretty_name=f"Preference discerning, after {origin}",
        license=licence,
        annotations_creators="machine-generated",
        tags=["recommendation", "sequential-recommendation", "generative-retrieval", "preferences"],
        configs=[
            {
                "config_name": config,
                "data_files": [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in of],
            }
            for config, of in splits.items()
        ],
    )
    names = EXAMPLE_FEATURES["axis"].names
    counts = {split: Counter(found.examples[split]["axis"]) for split in SPLITS}
    rows = [[f"`{ours}`", f"`{theirs}`", *(counts[split][names.index(ours)] for split in SPLITS)] for theirs, ours in
            sorted(found.axes.items(), key=lambda pair: names.index(pair[1]))]  # fmt: skip
    lost = ", ".join(f"{count:,} of {split}" for split, count in found.unpaired.items()) or "none"
    return f"""---
{data.to_yaml()}
---

# {name}

The examples, preferences and {len(found.items):,} items of `{origin}` in the columns of this benchmark. Nothing was
written or matched anew. Items carry the semantic IDs that were published with them.

{table(["axis", "there", *SPLITS], rows)}
Examples of sentiment axes left out because the text of opposite sentiment about their target is missing: {lost}.

```python
from datasets import load_dataset

examples = load_dataset("path/to/this/folder", "{name}")
items = load_dataset("path/to/this/folder", "{name}-items", split="items")
```
"""
