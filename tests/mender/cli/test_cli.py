"""The command line: from training to recommendations, for people and for machines; mistakes end in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from doubles import WORDS

from mender import __version__
from mender.cli import main

SMALL = ["--option", "num_users=80", "--option", "num_items=60"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, word_shop, tiny_encoder):
    """Folder with a run of mender-tok and one of popularity, trained by the command line."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for preset in ("mender-tok", "popularity"):
            options = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--validation-limit", "8"]
            options += ["--train", "num_train_epochs=1", "--set", "decoder={num_layers: 1, d_ff: 32}"]
            assert main(["train", "--preset", preset, *map(str, options)]) == 0
    return folder / "outputs" / "words"


def test_a_run_leaves_model_figures_and_provenance(trained):
    run = trained / "mender-tok-seed0"
    assert {path.name for path in run.iterdir()} >= {"model", "five_axes.json", "five_axes.png", "ranks.parquet"}
    settings = json.loads((run / "five_axes.json").read_text())["settings"]
    assert settings["training"]["steps"] > 0 and settings["preset"]["decoder"]["num_layers"] == 1
    assert settings["request_ms"] > 0 and settings["commit"]


def test_adapters_count_among_trained_parameters(mender, word_shop, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--validation-limit", "4"]
    options += ["--train", "max_steps=1", "--set", "decoder={num_layers: 1, d_ff: 32}", "--eval-limit", "4", "--json"]
    code, out, err = mender("train", "--preset", "vocabext-lm", *options)
    counted = json.loads(out)["settings"]["trained"]
    assert code == 0 and f" parameters, {counted:,} trained" in err


def test_a_record_names_the_length_of_its_lists(mender, word_shop, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--validation-limit", "4"]
    options += ["--train", "num_train_epochs=1", "--train", "top_k=5", "--eval-limit", "4", "--json"]
    code, out, err = mender("train", "--preset", "sasrec", *options)
    found = json.loads(out)
    training = found["settings"]["training"]
    assert code == 0, err
    assert training["best_ndcg@5"] == max(entry.get("eval_ndcg@5", 0) for entry in training["curve"]) > 0
    assert "best validation NDCG@5" in Path(found["output"], "model", "README.md").read_text()


def test_evaluation_repeats_what_training_measured(mender, trained, word_shop, tiny_encoder, tmp_path):
    run, output = trained / "mender-tok-seed0", tmp_path / "again"
    arguments = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--output", output, "--json"]
    code, out, err = mender("evaluate", run / "model", *arguments)
    assert code == 0 and "recommendation (oracle)" in err
    before, after = json.loads((run / "five_axes.json").read_text()), json.loads(out)
    figures = [[score["recall@10"] for score in record["scores"]] for record in (before, after)]
    assert figures[0] == figures[1] and after["settings"]["command"].startswith("mender")
    assert (output / "ranks.parquet").read_bytes() == (run / "ranks.parquet").read_bytes()


def test_evaluation_leaves_the_run_as_it_is_and_keeps_what_it_knows(
    mender, trained, word_shop, tiny_encoder, tmp_path, monkeypatch
):
    run = trained / "mender-tok-seed0"
    monkeypatch.chdir(tmp_path)
    before = {name: (run / name).read_bytes() for name in ("five_axes.json", "ranks.parquet")}
    arguments = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--eval-limit", "2", "--json"]
    code, out, _ = mender("evaluate", run / "model", *arguments)
    found = json.loads(out)
    assert code == 0 and found["output"] == "outputs/evaluation/mender-tok-seed0"
    assert found["settings"]["method"] == "mender-tok" and found["settings"]["training"]["steps"] > 0
    training = json.loads(before["five_axes.json"])["settings"]
    assert found["settings"]["trained_by_command"] == training["command"] != found["settings"]["command"]
    assert before == {name: (run / name).read_bytes() for name in before}


def test_seen_items_are_ranked_where_that_is_asked_for(mender, trained, word_shop, tiny_encoder, tmp_path, monkeypatch):
    run = trained / "popularity-seed0"
    monkeypatch.chdir(tmp_path)
    arguments = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--json"]
    found, cards = [], []
    for more in ((), ("--keep-seen",)):
        found.append(json.loads(mender("evaluate", run / "model", *arguments, *more)[1]))
        cards.append((run / "model" / "README.md").read_bytes())
    assert [each["settings"]["exclude_seen"] for each in found] == [True, False]
    assert found[1]["output"] == "outputs/evaluation/popularity-seed0-keep-seen"
    without, with_seen = ([score["ndcg@10"] for score in each["scores"]] for each in found)
    assert without != with_seen and sum(without) > sum(with_seen)  # nobody buys twice here
    assert cards[0] == cards[1]


def test_validation_examples_are_asked_to_choose_between_models(
    mender, trained, word_shop, tiny_encoder, tmp_path, monkeypatch
):
    run = trained / "popularity-seed0"
    monkeypatch.chdir(tmp_path)
    card = (run / "model" / "README.md").read_bytes()
    arguments = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--validation", "--json"]
    found = json.loads(mender("evaluate", run / "model", *arguments)[1])
    assert found["settings"]["split"] == "validation"
    asked = pl.read_parquet(f"{found['output']}/ranks.parquet").filter(condition="", matching="oracle")
    expected = pl.read_parquet(word_shop / "words" / "validation.parquet").filter(axis="recommendation")
    item_ids = pl.read_parquet(word_shop / "words-items" / "items.parquet")["item_id"]
    expected = expected.with_columns(target=item_ids.gather(expected["targets"].list.first()))
    columns = ["user_id", "target"]
    assert found["output"] == "outputs/evaluation/popularity-seed0-validation"
    assert asked.select(columns).sort(columns).equals(expected.select(columns).sort(columns))
    assert (run / "model" / "README.md").read_bytes() == card


def test_runs_are_compared(mender, trained, tmp_path):
    runs = [trained / "mender-tok-seed0", trained / "popularity-seed0"]
    code, out, err = mender("compare", *runs, "--reference", "popularity", "--output", tmp_path, "--json")
    found = json.loads(out)
    assert code == 0 and found["reference"] == "popularity" and "mender-tok" in err
    assert found == json.loads((tmp_path / "comparison.json").read_text())
    code, out, err = mender("compare", *runs, "--output", tmp_path)
    assert code == 0 and "mender-tok" in out and (tmp_path / "stars.png").stat().st_size > 10_000


def test_recommendations_for_machines(mender, trained):
    model = trained / "mender-tok-seed0" / "model"
    request = ["--history", "item-tea", "--history", " MUG", "--preference", "find soap", "--avoid", "blue glass"]
    code, out, _ = mender("recommend", model, *request, "-k", "5", "--json")
    found = json.loads(out)
    assert code == 0 and found["preference"] == ["find soap"] and found["avoid"] == ["blue glass"]
    assert found["history"] == [{"item_id": "item-tea", "title": "tea"}, {"item_id": "item-mug", "title": "mug"}]
    titles = [item["title"] for item in found["items"]]
    assert len(set(titles)) == 5 and set(titles) <= set(WORDS) - {"tea", "mug"}
    scores = [item["score"] for item in found["items"]]
    assert scores == sorted(scores, reverse=True)
    code, out, _ = mender("recommend", model, *request, "-k", "5", "--beams", "exact", "--json")
    assert code == 0 and len(json.loads(out)["items"]) == 5


def test_recommendations_for_people(mender, trained):
    code, out, err = mender("recommend", trained / "mender-tok-seed0" / "model", "--preference", "find tea", "-k", "3")
    assert code == 0 and not err
    assert "preference: find tea" in out and "item-" in out and out.count("│") == 3 * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "train"),
        (["train", "--min-user", "some"], "see `mender train --help`"),
        (["train", "--preset", "mender-tick"], "no preset 'mender-tick'; pass one of "),
        (["train", "--set", "histroy=codes"], "'histroy' is no field of a preset"),
        (
            ["train", "--set", "axes=!!python/name:os.system"],
            "--set 'axes=!!python/name:os.system': the value is not plain",
        ),
        (["train", "--set", "axes={a: 1"], "--set 'axes={a: 1': the value is not plain YAML; write a number, a word"),
        (["train", "--train", "learning_rate"], "--train 'learning_rate' is not an assignment"),
        (
            ["train", "--train", "learning_rat=1"],
            "unknown training argument 'learning_rat', did you mean learning_rate",
        ),
        (["train", "--train", "save_strategy=some"], "some is not a valid SaveStrategy"),
        (["train", "--train", "learning_rate=fast"], "learning_rate='fast' is not a number"),
        (["train", "--train", "output_dir=here"], "pass --output"),
        (["train", "--train", "seed=1"], "pass --seed"),
        (["train", "--train", "save_strategy=steps"], "save_strategy='steps' beside eval_strategy='epoch'"),
        (["train", "--train", "label_smoothing_factor=10"], "label_smoothing_factor=10; pass a share"),
        (
            ["train", "--preset", "sasrec", "--train", "label_smoothing_factor=0.1"],
            "whose labels are no codes; leave it out",
        ),
        (["train", "--set", "axes=recommendation"], "axes='recommendation' is not a mapping"),
        (["train", "--conditioning", "some"], "conditioning='some' is unknown; pass one of none, preference"),
        (["train", "--report-to", "paper"], "report_to='paper' is unknown; pass one of azure_ml"),
        (["train", "--source", "steam", "--data", "no/such/folder"], "no/such/folder"),
        (["evaluate", "no/such/model"], "no folder 'no/such/model'"),
        (["recommend", "."], "holds no saved model"),
        (["recommend", "here/there", "--beams", "many"], "--beams 'many'; pass a whole number or exact"),
        (["compare", "here"], "five_axes.json is missing"),
        (["benchmark", "build", "nothing", "--output", "here"], "nothing"),
    ],
)
def test_mistakes_end_in_one_line(mender, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = mender(*arguments)
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("error: ") and message in line and "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("preset", "request_", "message"),
    [
        ("mender-tok", ["--history", "teal"], "no item has the id or title 'teal'; did you mean 'tea' (item-tea)"),
        ("mender-tok", ["--history", "xyz"], "no item has the id or title 'xyz'; pass ids or titles"),
        ("mender-tok", [], "the request is empty"),
        ("mender-tok", ["--preference", "tea", "-k", "5", "--beams", "2"], "num_beams=2 cannot return top_k=5"),
        ("popularity", ["--preference", "tea"], "this model reads no preferences"),
    ],
)
def test_requests_that_cannot_be_answered(mender, trained, preset, request_, message):
    code, out, err = mender("recommend", trained / f"{preset}-seed0" / "model", *request_)
    assert code == 2 and not out and err.count("\n") == 1 and message in err


def test_a_card_gets_figures_lists_and_metadata(mender, trained):
    model = trained / "mender-tok-seed0" / "model"
    shown = ["--history", "tea", "--preference", "find soap", "--preference", "find lamp", "--license", "mit"]
    code, out, err = mender("card", model, *shown, "--dataset", "org/words", "--name", "Words", "--json")
    assert code == 0, err
    assert json.loads(out) == {"card": str(model / "README.md"), "results": str(model.parent / "five_axes.json")}
    text = (model / "README.md").read_text()
    assert "license: mit" in text and "- org/words" in text and "# Words" in text and "recall@10" in text
    assert '"find soap" | "find lamp"' in text
    code, _, err = mender("card", model, "--results", model / "config.json")
    assert code == 2 and 'config.json has no "scores"' in err
    code, _, err = mender("card", "org/name")
    assert code == 2 and "no folder 'org/name'" in err
    code, _, err = mender("card", model, "--push")
    assert code == 2 and "--push needs the name of the repository" in err


def test_the_base_model_written_by_hand_stays(mender, trained, word_shop, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("mender.cards.encoder_name", lambda model: "org/encoder")
    model = Path(shutil.copytree(trained / "mender-tok-seed0", tmp_path / "run")) / "model"
    readme = model / "README.md"
    assert mender("card", model)[0] == 0 and "base_model: org/encoder" in readme.read_text()
    readme.write_text(readme.read_text().replace("base_model: org/encoder", "base_model: org/by-hand"))
    assert mender("card", model)[0] == 0 and "base_model: org/by-hand" in readme.read_text()
    shop = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--output", tmp_path / "again"]
    assert mender("evaluate", model, *shop)[0] == 0
    shown, record = readme.read_text().split("<!-- ")
    assert "base_model: org/by-hand" in shown and "org/encoder" not in shown
    assert str(word_shop) not in shown + record


def test_a_run_is_told_from_its_model(mender, trained, word_shop, tiny_encoder):
    run = trained / "mender-tok-seed0"
    code, _, err = mender("recommend", run, "--preference", "tea")
    assert code == 2 and f"is a run; pass its model, {run / 'model'}" in err
    code, _, err = mender("evaluate", run / "model", "--encoder", tiny_encoder, *SMALL)
    assert code == 2 and "other items" in err


def test_resuming_needs_a_checkpoint(mender, word_shop, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--preset", "sasrec", "--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--resume"]
    code, _, err = mender("train", *options)
    assert code == 2 and "no finished checkpoint" in err.splitlines()[-1]


def test_a_missing_tracker_is_named(mender, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    code, _, err = mender("train", "--report-to", "wandb")
    assert code == 2 and "pip install wandb" in err


def test_training_logs_to_tensorboard(mender, word_shop, tiny_encoder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    options = ["--source", "words", "--data", word_shop, "--encoder", tiny_encoder, "--train", "num_train_epochs=1"]
    code, _, err = mender("train", "--preset", "sasrec", *options, "--report-to", "tensorboard", "--eval-limit", "4")
    assert code == 0, err
    assert list((tmp_path / "outputs/words/sasrec-seed0/checkpoints/runs").rglob("events.*"))


def test_help_version_and_completion(mender, monkeypatch, capsys):
    assert mender("--version") == (0, f"mender {__version__}\n", "")
    code, out, _ = mender()
    assert code == 2 and all(f"\n  {name} " in out for name in ("train", "evaluate", "recommend", "compare", "card"))
    capsys.readouterr()
    monkeypatch.setenv("COMP_WORDS", "mender train --preset mender-")
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setenv("_MENDER_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == ["mender-emb", "mender-fid", "mender-tok"]
