"""The model that is installed with the package: found by its name, whole, today's, and right about what people type.

Where a test says that it is not today's, make it again: rm -r outputs/quickstart; make packaged
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml
from transformers import AutoModel, AutoProcessor

from mender import Recommender
from mender.model_folder import read_record
from mender.packaged import model_place, packaged_model, packaged_models
from mender.packaged.__main__ import NAME, data_of_today
from mender.runs import read_run
from mender.saved_models import load_saved
from mender.showcase import TYPED
from mender.terminal import UserError
from mender.training import choose_preset
from preference_benchmark.embedding import packaged_encoder
from preference_benchmark.stages import digest_of_file

ROOT = Path(__file__).parents[2]
FOLDER = packaged_model(NAME)
MOST_BYTES = 6_000_000
AGAIN = "it is not made from what the library trains today; rm -r outputs/quickstart; make packaged"
# What is typed, what is to be avoided, and how many of the first five items must have what in their aspects or title.
WISHES = [
    ("tea with a malty brew", None, 4, "malty brew"),
    ("candels with a vanila scent", None, 4, "vanilla scent"),  # two candles; then soaps or other candles
    ("herbal infusions", "mint", 4, "Herbal Infusion"),
    ("candles that smell of lavender", None, 5, "lavender scent"),
    ("a dotted notebook", None, 3, "dotted paper"),
    ("a game for two players", None, 4, "two-player mode"),
    ("board game about space", None, 4, "space theme"),
    ("dark chocolate", None, 5, "dark chocolate flavour"),
    ("a sugar-free snack", None, 5, "sugar-free recipe"),
    ("merino wool blanket", None, 3, "merino wool"),
    ("skin care without fragrance", None, 4, "fragrance-free formula"),
    ("eucalyptus", "candles", 4, "eucalyptus scent"),
    ("decaf coffee", None, 3, "decaf brew"),
]
needs_encoder = pytest.mark.skipif(packaged_encoder() is None, reason="needs the extra offline")


@pytest.fixture(scope="module")
def shop() -> Recommender:
    return Recommender.from_pretrained(NAME, device="cpu")


def same(value: object) -> object:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


def test_it_is_small_and_whole():
    recorded = read_record(FOLDER)["origin"]["sha256"]
    files = {file.name: file for file in FOLDER.iterdir() if file.name != "recommender.json"}
    assert {name: digest_of_file(file) for name, file in files.items()} == recorded
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < MOST_BYTES
    assert {"config.json", "items.json", "model.safetensors", "showcase.json", "README.md"} <= files.keys()
    assert not list(FOLDER.glob("*.py"))  # it is installed
    text = "".join(file.read_text("utf-8") for name, file in files.items() if name != "model.safetensors")
    assert "/home/" not in text and "/tmp/" not in text and str(ROOT) not in text


def test_it_is_what_the_demo_trains_today():
    origin = read_record(FOLDER)["origin"]
    spec = spec_from_file_location("quickstart", ROOT / "examples" / "01_quickstart.py")
    quickstart = module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    today = asdict(choose_preset("mender", training={"num_train_epochs": quickstart.EPOCHS}))
    for told in ("summary", "cost", "source"):  # say nothing about what is trained
        assert today.pop(told) and origin["preset"].pop(told)
    assert origin["preset"] == same(today), AGAIN
    assert origin["data"] == same(data_of_today()), AGAIN
    assert json.loads((FOLDER / "showcase.json").read_text("utf-8"))["sentences"] == list(TYPED[NAME]), AGAIN
    assert origin["seed"] == 0 and origin["command"] == "python examples/01_quickstart.py"


@needs_encoder
def test_it_answers_without_any_network(shop, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("something wants to connect")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # nobody told it to stay offline
    again = Recommender.from_pretrained(NAME, device="cpu")
    request = {"preference": "tea with a malty brew", "history": [item["item_id"] for item in shop.items[:3]]}
    assert again.recommend(**request) == shop.recommend(**request)
    again.add_items([{"item_id": "new-1", "title": "Assam", "text": "Assam. Black tea with a malty brew."}])
    assert "new-1" in [item["item_id"] for item in again.recommend("tea with a malty brew", top_k=3)]


@needs_encoder
@pytest.mark.parametrize(("wish", "avoided", "least", "wanted"), WISHES, ids=[wish for wish, *_ in WISHES])
def test_wishes_are_answered(wish, avoided, least, wanted, shop):
    known = {item["item_id"]: " | ".join([item["title"], *item["aspects"]]) for item in shop.items}
    found = [known[item["item_id"]] for item in shop.recommend(wish, avoid=avoided, top_k=5)]
    assert sum(wanted in text for text in found) >= least, found
    if avoided:
        assert not any(avoided.rstrip("s") in text.lower() for text in found), found


@needs_encoder
def test_both_vanilla_candles_come_first(shop):
    found = [item["title"] for item in shop.recommend("candels with a vanila scent", top_k=2)]
    assert sorted(found) == ["Soy Wax Tea Light: Amber Glass and Vanilla Scent", "Vanilla Olive Wax Pillar Candle"]


@needs_encoder
def test_transformers_loads_its_folder(shop):
    model, processor = AutoModel.from_pretrained(FOLDER).eval(), AutoProcessor.from_pretrained(FOLDER)
    rows = model.recommend(**processor("dark chocolate"), top_k=5).item_indices[0]
    assert processor.decode_items(rows) == [
        {name: item[name] for name in ("item_id", "title")} for item in shop.recommend("dark chocolate", top_k=5)
    ]


@needs_encoder
def test_a_copy_is_a_model_like_any_other(shop, tmp_path):
    shop.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "modeling_mender.py").is_file() and (tmp_path / "copy" / "handler.py").is_file()
    again = Recommender.from_pretrained(tmp_path / "copy", device="cpu")
    found, expected = again.recommend("dark chocolate"), shop.recommend("dark chocolate")
    # Where the weights lie in memory decides in which order a processor adds.
    own, copied = shop.model.state_dict(), again.model.state_dict()
    assert own.keys() == copied.keys() and all(own[name].equal(copied[name]) for name in own)
    scores = [item.pop("score") for item in expected]
    assert [item.pop("score") for item in found] == pytest.approx(scores, rel=1e-5) and found == expected
    assert digest_of_file(FOLDER / "config.json") == read_record(FOLDER)["origin"]["sha256"]["config.json"]


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_place(NAME) == FOLDER and model_place("org/name") == "org/name" and model_place("other") == "other"
    assert model_place(Path(NAME)) == Path(NAME)  # a path names a folder, and nothing else
    Path(NAME).touch()
    assert model_place(NAME) == FOLDER
    Path(NAME).unlink()
    Path(NAME).mkdir()
    assert model_place(NAME) == NAME
    with pytest.raises(UserError, match=f"{NAME} holds no saved model .*elsewhere for the packaged {NAME}"):
        Recommender.from_pretrained(NAME)


def test_unknown_names_are_told_which_there_are():
    for load in (load_saved, Recommender.from_pretrained):
        with pytest.raises(UserError, match=f"there is no folder 'corner-store'.*packaged models: {NAME}$"):
            load("corner-store")
    with pytest.raises(ValueError, match=f"'corner-store'; there is {NAME}$"):
        packaged_model("corner-store")
    assert packaged_models() == [NAME]


def test_its_card_is_not_written_to(monkeypatch, tmp_path):
    from mender.terminal import run

    monkeypatch.chdir(tmp_path)
    from mender.cli import app

    assert run(app, ["card", NAME, "--name", "Mine"]) == 2
    assert digest_of_file(FOLDER / "README.md") == read_record(FOLDER)["origin"]["sha256"]["README.md"]


@pytest.mark.slow
@needs_encoder
def test_measured_again_it_has_the_figures_of_its_card(tmp_path):
    """And the command leaves the packaged files as they are."""
    command = [sys.executable, "-m", "mender", "evaluate", NAME, "--output", str(tmp_path / "measured")]
    run(command, tmp_path)
    card = yaml.safe_load((FOLDER / "README.md").read_text("utf-8").split("---")[1])
    (results,) = card["model-index"][0]["results"]
    told = {}
    for metric in results["metrics"]:
        arguments = metric["args"]
        key = (arguments["axis"], arguments.get("matching", ""), arguments.get("stratum", ""), metric["type"])
        told[key] = metric["value"]
    found = {
        (row["axis"], row["matching"], row["stratum"], figure): value
        for row in read_run(tmp_path / "measured")["scores"]
        if row["method"] == NAME
        for figure, value in row.items()
        if (row["axis"], row["matching"], row["stratum"], figure) in told
    }
    assert found.keys() == told.keys() and len(told) > 30
    assert found == pytest.approx(told, abs=1e-3)  # cards round to four digits
    test_it_is_small_and_whole()


@pytest.mark.slow
@needs_encoder
def test_trained_again_it_answers_alike(shop, tmp_path):
    """Machines add up in other orders, so that weights differ a little; answers hardly."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    command = [sys.executable, "examples/01_quickstart.py", "--eval-limit", "10", "--output", str(tmp_path / "run")]
    run(command, tmp_path)
    again = Recommender.from_pretrained(tmp_path / "run" / "model", device="cpu")
    assert [item["item_id"] for item in again.items] == [item["item_id"] for item in shop.items]
    common = 0
    for wish, avoided, *_ in WISHES:
        lists = [one.recommend(wish, avoid=avoided, top_k=5) for one in (again, shop)]
        common += len(set.intersection(*({item["item_id"] for item in items} for items in lists)))
    assert common >= 0.9 * 5 * len(WISHES)


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_encoder
def test_removed_items_neither_fit_a_request_nor_say_what_is_common(shop):
    less = copy.copy(shop)
    own = {item["item_id"]: item["title"] for item in shop.items}
    less.remove_items([item for item, title in own.items() if "Candle" not in title])
    assert shop.recommend("malty tea", fit=True)[0]["fit"] > 0.9 > 0.5 > less.recommend("malty tea", fit=True)[0]["fit"]
    inputs = less.processor(["candles"], avoid=["vanilla"])["avoid_input_ids"]
    live = less.model.catalogue.live_items()
    evidence = less.model.penalty(inputs)[0, live] > 0
    assert len(live) == sum("Candle" in title for title in own.values())
    assert 1 <= int(evidence.sum()) <= len(live) * 0.2  # two experts, a tenth of the items each
