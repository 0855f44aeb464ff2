"""Writes the packaged model anew, from the run that `make demo` saved.

    python -m mender.packaged outputs/quickstart      # `make packaged` trains it first if it is not there

1. Take the trained model, with its encoder by reference.   2. Halve its weights, and leave out what is installed.
3. Measure what is left on the whole test split, as `mender evaluate corner-shop` does, and write that into its card.
4. Record what it was made from, by which tests tell whether it is still today's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file, save_file

from mender.cards import write_run_card
from mender.data import load_benchmark_data
from mender.evaluation import check_items, evaluate_saved
from mender.learning import train
from mender.model_folder import RECORD_FILE, replace_folder, write_record
from mender.packaged import FOLDER
from mender.recommender import Recommender
from mender.runs import training_of
from mender.showcase import save_showcase
from mender.terminal import UserError, run_script, user_errors
from preference_benchmark import RECIPES, read_tables
from preference_benchmark.stages import digest_of, digest_of_file

NAME = "corner-shop"
HUB_NAME = "mender-small"
SEED = 0
MEASURED = Path("outputs/evaluation") / NAME
INSTALLED = ("*.py", "requirements.txt")
"""Files of a saved model that this package has anyway."""


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a run of the quickstart.")] = Path("outputs/quickstart"),
) -> None:
    """The four steps."""
    with user_errors():
        trained = training_of(run / "model")
        if trained.get("seed") != SEED:
            raise UserError(f"{run} is not a run of the quickstart with seed {SEED}; run `make demo` first")
        data = load_benchmark_data(NAME)
        shop = Recommender.from_pretrained(run / "model")
        check_items(shop.processor, data, str(run / "model"))
        with replace_folder(FOLDER / NAME) as folder:
            write_small(shop, folder)
            small = Recommender.from_pretrained(folder)
            popularity = {"popularity": train(data, preset="popularity", seed=SEED)}
            known = {**trained, "command": trained["trained_by_command"], "commit": trained["trained_by_commit"]}
            record = evaluate_saved(small, data, MEASURED, "Mender", run=known, baselines=popularity)
            described = {"model_name": HUB_NAME, "license": "apache-2.0", "language": "en"}
            write_run_card(folder, small, data, record, **described)
            save_showcase(folder, data.items, data.examples["last"]["test"], source=NAME, histories=True)
            write_record(folder, small.model, small.processor, settings=small.settings, origin=origin(folder, trained))
    size = sum(file.stat().st_size for file in (FOLDER / NAME).iterdir())
    print(f"Wrote {FOLDER / NAME}: {size:,} bytes")


def write_small(shop: Recommender, folder: Path) -> None:
    """Write a recommender with as few bytes as it needs where this package is installed.

    Args:
        shop: the recommender.
        folder: an empty one.
    """
    shop.write(folder, encoder="reference")
    weights, trained = load_file(folder / "model.safetensors"), dict(shop.model.named_parameters())
    # config.json still says float32, so that they are computed with in single precision. Tables keep their types.
    small = {name: tensor.to(torch.float16) if name in trained else tensor for name, tensor in weights.items()}
    save_file(small, folder / "model.safetensors", metadata={"format": "pt"})
    for pattern in INSTALLED:
        for file in folder.glob(pattern):
            file.unlink()


def origin(folder: Path, trained: Mapping[str, Any]) -> dict[str, Any]:
    """What a packaged model was made from, and what its files are.

    Args:
        folder: of the model.
        trained: what `training_of` says.
    """
    files = [file for file in sorted(folder.iterdir()) if file.name != RECORD_FILE]
    return {
        "command": trained["trained_by_command"],
        "commit": trained["trained_by_commit"],
        "seed": trained["seed"],
        "preset": trained["preset"],
        "data": data_of_today(),
        "sha256": {file.name: digest_of_file(file) for file in files},
    }


def data_of_today() -> dict[str, Any]:
    """What the model is trained on, as this version makes it: the protocol, and a digest of the tables."""
    recipe = RECIPES[NAME]
    tables = read_tables(recipe)
    return {
        "protocol": asdict(recipe.protocol),
        "tables": digest_of(tables.items.rows(), tables.interactions.rows()),
    }


if __name__ == "__main__":
    run_script(main, __doc__)
