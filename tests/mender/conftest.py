"""Benchmarks of a few words and of a small shop, an encoder with random weights, and runs on them."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import pytest
import typer
from datasets import Dataset
from doubles import encoder_folder, shop_examples, shop_items

from mender.cli import main
from modeling_mender.training.ranking import request_speed
from preference_benchmark.axes.examples import STORED_FEATURES

CONFIG = "- config_name: {name}\n  data_files:\n"
SPLIT = "  - {{split: {split}, path: {name}/{split}.parquet}}\n"


@pytest.fixture(scope="module", autouse=True)
def short_fits():
    """Language experts and weights are fitted in a few steps, and requests timed once: no test here looks at that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling_mender.training.reading.LEAST_STEPS", 10)
        patch.setattr("modeling_mender.training.weights.LIKELIHOOD_STEPS", 10)
        patch.setattr("mender.evaluation.request_speed", partial(request_speed, repeats=1))
        yield


@pytest.fixture(scope="module", autouse=True)
def one_command_line():
    """The tree of commands is made once, rather than for every command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", cache(typer.main.get_command))
        yield


SHOP = ["--option", "num_users=60", "--option", "num_items=40"]


@pytest.fixture
def mender(capsys, monkeypatch):
    """Runs the command line in this process: exit code, standard output, standard error."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/mender"])
    monkeypatch.setattr("mender.progress.PATIENCE", float("inf"))  # what is printed must not depend on the machine

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> str:
    """Folder of a BERT of two narrow layers and its tokenizer."""
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


def with_item_indices(examples: Dataset) -> Dataset:
    """Examples as a built folder holds them."""
    index = {item_id: place for place, item_id in enumerate(shop_items()["item_id"])}
    rows = [{"stratum": "", "avoided": []} | row for row in examples.to_list()]
    for row in rows:
        row |= {name: [index[item] for item in row[name]] for name in ("history", "targets", "avoided")}
    return Dataset.from_list([{name: row[name] for name in STORED_FEATURES} for row in rows], features=STORED_FEATURES)


@pytest.fixture(scope="session")
def word_shop(tmp_path_factory) -> Path:
    """Folder of the benchmark "words", as `load_dataset` reads it."""
    folder = tmp_path_factory.mktemp("words")
    examples = shop_examples(users=12)
    stored = {split: with_item_indices(rows) for split, rows in examples.items()}
    parts = {"words": stored, "words-last": stored, "words-items": {"items": Dataset.from_dict(shop_items())}}
    readme = "---\nconfigs:\n"
    for name, splits in parts.items():
        readme += CONFIG.format(name=name)
        for split, rows in splits.items():
            (folder / name).mkdir(exist_ok=True)
            rows.to_parquet(folder / name / f"{split}.parquet")
            readme += SPLIT.format(name=name, split=split)
    (folder / "README.md").write_text(f"{readme}---\n")
    return folder


@pytest.fixture(scope="session")
def words(word_shop, tiny_encoder) -> list[str]:
    """The options that name it, and the encoder."""
    return ["--source", "words", "--data", str(word_shop), "--encoder", tiny_encoder]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, words) -> Path:
    """Folder with a run of mender-tok and one of popularity, trained by the command line."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["--validation-limit", "8", "--train", "num_train_epochs=1", "--set", "decoder={num_layers: 1, d_ff: 32}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for preset in ("mender-tok", "popularity"):
            assert main(["train", "--preset", preset, *words, *small]) == 0
    return folder / "outputs" / "words"


@pytest.fixture(scope="session")
def build_small_shop(tmp_path_factory, tiny_encoder) -> list[str]:
    """The command that builds a small corner shop."""
    folder = tmp_path_factory.mktemp("built")
    command = ["benchmark", "build", "corner-shop", "--quiet", "--encoder", tiny_encoder, *SHOP]
    return [*command, "--output", str(folder)]


@pytest.fixture(scope="session")
def small_shop(build_small_shop) -> Path:
    """Its folder."""
    assert main(build_small_shop) == 0
    return Path(build_small_shop[-1])
