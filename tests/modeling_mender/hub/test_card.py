"""Cards: what a model says about itself, what an evaluation adds, what people change, and what stays of each."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml
from doubles import encoder_folder, measured, random_catalogue, shop_items, tiny_model
from hostile_text import hostile_text
from huggingface_hub import ModelCard, ModelCardData
from transformers import AutoModel

from modeling_mender import ExpertsRecommender, MenderForGenerativeRetrieval
from modeling_mender.configuration_mender import public_name
from modeling_mender.hub.card import push_card, write_card
from modeling_mender.hub.results import SteeringExample
from modeling_mender.modeling_experts import ExpertsConfig

COUNT = len(shop_items()["item_id"])
FORM = str(ModelCard.from_template(ModelCardData(tags=["t"]), model_description="Uploaded by a library."))


@pytest.fixture
def model():
    return tiny_model(random_catalogue(COUNT, [5, 5]))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shop" / "model"


def text_of(folder) -> str:
    return (folder / "README.md").read_text("utf-8")


def edit(folder, old: str, new: str) -> None:
    assert old in text_of(folder)
    (folder / "README.md").write_text(text_of(folder).replace(old, new), "utf-8")


def test_a_card_says_what_the_model_knows_and_invents_nothing(folder, model):
    write_card(folder, model)
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "generative-retrieval"
    assert card.data.license is None and card.data.base_model is None and card.data.eval_results is None
    assert "# shop" in card.text and f"{COUNT} items" in card.text and "Not measured yet" in card.text
    assert "## Speed" not in card.text and "## Steering" not in card.text and "## Training" not in card.text


def test_models_without_text_have_a_card_too(tmp_path):
    write_card(tmp_path, ExpertsRecommender(ExpertsConfig(4, ["popularity", "co_purchase"])))
    text = text_of(tmp_path)
    assert "sum of experts" in text and "4 items" in text and "| experts | popularity, co purchase |" in text
    assert "item_ids[:3]" in text and "avoid" not in text


def test_a_model_that_is_saved_writes_no_card(tmp_path, model):
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_figures_speed_run_and_lists_are_shown(folder, model):
    run = {"training": {"epochs": 2, "best_ndcg@10": 0.25, "curve": [{"epoch": 1.0, "loss": 3.5}]}, "preset": "mine"}
    example = SteeringExample(list("abcdefg"), {"find tea": ["x"], "find soap": ["y"]})
    write_card(
        folder, model, results=measured(request_ms=3.0, users_per_second=90.0, seed=3, **run), steering=[example]
    )
    text = text_of(folder)
    assert "| recommendation, oracle | 20 | **0.500** (0.450-0.550) | 0.500 | 0.100 (0.050-0.150) |" in text
    assert "Shuffled: the same model" in text and "3.0 ms" in text and "90.0 users per second (cpu;" in text
    assert "| preset | mine |" in text and "| best validation NDCG@10 | 0.25 |" in text and "| 1 | 3.5 |" in text
    assert (
        "c; d; e; f; g (and 2 earlier)" in text
        and '|  | "find tea" | "find soap" |' in text
        and "| 1 | x | y |" in text
    )
    assert "50% of the texts that ask for an item" in text and "*Oracle* matching picks" in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    names = ["How to use", "Results", "Steering", "Speed", "Training run", "Limits", "Citation"]
    assert headings == [f"## {name}" for name in names]


def test_a_data_set_without_ratings_has_wishes_to_avoid_and_no_pairs(folder, model):
    results = measured(k=10)
    results["scores"] = [score for score in results["scores"] if score["axis"] == "recommendation"]
    wish = {"axis": "wish_and_avoid", "matching": "", "stratum": "known", "method": "mine", "n": 20, "recall@10": 0.5}
    results["scores"].append(wish | {"recall@10/low": 0.4, "recall@10/high": 0.6, "avoid@10": 0.2, "avoided@10": 1.5})
    write_card(folder, model, results=results)
    assert "test pairs" not in (folder / "README.md").read_text("utf-8")


def test_figures_stay_until_the_weights_are_new(folder, model):
    """Precision of the weights does not matter: state tables are saved in half precision and loaded in full."""
    model.half().save_pretrained(folder)
    write_card(folder, model, results=measured(request_ms=3.0, users_per_second=90.0), license="mit", language="en")
    loaded = AutoModel.from_pretrained(folder)
    write_card(folder, loaded, model_name="Teas", steering=[SteeringExample([], {"find tea": ["x"]})])
    card = ModelCard.load(folder / "README.md")
    assert "**0.500**" in card.text and "3.0 ms" in card.text and "# Teas" in card.text
    assert (card.data.license, card.data.language, len(card.data.eval_results)) == ("mit", "en", 7)
    edit(folder, "## Citation", "## Thanks\n\nTo the shop.\n\n## Citation")
    write_card(folder, model, new_weights=True)
    card = ModelCard.load(folder / "README.md")
    assert "Not measured yet" in card.text and "To the shop." in card.text and card.data.license == "mit"
    assert not any(gone in card.text for gone in ("**0.500**", "3.0 ms", "Steering")) and not card.data.eval_results
    write_card(folder, model, results=measured(request_ms=4.0, users_per_second=90.0))
    assert "4.0 ms" in text_of(folder)


def test_what_people_edit_add_and_remove_stays(folder, model):
    write_card(folder, model)
    edit(folder, "One item counts as right", "Only one item counts as right")
    edit(folder, "library_name: transformers", "library_name: transformers\nlicense: mit\nthumbnail: shop.png")
    text = text_of(folder)
    citation, record = text.index("## Citation"), text.index("<!-- Written by")
    text = f"{text[:citation]}## Thanks\n\nTo the shop.\n\n{text[record:]}\n## Twice\n\n1\n\n## Twice\n\n2\n"
    (folder / "README.md").write_text(text.replace("\n", "\r\n"), "utf-8", newline="")
    for _ in range(2):
        write_card(folder, model, results=measured())
    after = text_of(folder)
    assert "Only one item counts" in after and "To the shop." in after and "@article" not in after
    assert "**0.500**" in after and "Not measured" not in after and after.count("## Twice") == 2
    data = ModelCard.load(folder / "README.md").data.to_dict()
    assert data["license"] == "mit" and data["thumbnail"] == "shop.png"
    write_card(folder, model, license="apache-2.0", tags="tea")
    write_card(folder, model)
    data = ModelCard.load(folder / "README.md").data
    assert data.license == "apache-2.0" and {"tea", "mender"} <= set(data.tags)


@pytest.mark.parametrize("text", ["# My model\n\nWritten by me.\n", "---\nlicense: [\n---\n# Broken\n"])
def test_a_card_written_by_hand_is_left_alone_unless_asked(text, folder, model):
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(text, "utf-8")
    write_card(folder, model, results=measured())
    assert text_of(folder) == text
    write_card(folder, model, results=measured(), overwrite=True)
    assert "Written by me" not in text_of(folder) and "**0.500**" in text_of(folder)


def test_metadata_that_the_hub_would_refuse_is_left_alone(folder, model, caplog):
    write_card(folder, model)
    edit(folder, "library_name:", "model-index: none\nlibrary_name:")
    broken = text_of(folder)
    write_card(folder, model, results=measured())
    assert text_of(folder) == broken


def test_an_empty_form_is_replaced_and_a_filled_one_is_not(folder, model):
    folder.mkdir(parents=True)
    for text, replaced in ((FORM, True), (FORM.replace("[More Information Needed]", "Me", 1), False)):
        (folder / "README.md").write_text(text, "utf-8")
        write_card(folder, model)
        assert ("# shop" in text_of(folder)) == replaced


def test_results_of_others_in_the_metadata_stay(folder, model):
    write_card(folder, model, results=measured())
    card = ModelCard.load(folder / "README.md")
    metadata = yaml.safe_load(card.data.to_yaml())
    foreign = {
        "task": {"type": "text-ranking"},
        "dataset": {"name": "Another", "type": "another"},
        "metrics": [{"type": "mrr", "value": 0.25}],
    }
    metadata["model-index"][0]["results"].append(foreign)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(metadata)}---\n{card.text}", "utf-8")
    write_card(folder, model, results=measured())
    write_card(folder, model, new_weights=True)
    left = ModelCard.load(folder / "README.md").data.eval_results
    assert [result.dataset_type for result in left] == ["another"]


def test_licence_and_name_of_the_base_encoder_are_read_where_they_are_known(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    snapshot = cache / "models--org--encoder" / "snapshots" / "0123"
    encoder_folder(snapshot)
    (snapshot / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n# Encoder\n")
    (cache / "models--org--encoder" / "refs").mkdir()
    (cache / "models--org--encoder" / "refs" / "main").write_text("0123")
    encoder = AutoModel.from_pretrained(snapshot)
    model = MenderForGenerativeRetrieval.from_encoder(encoder, random_catalogue(COUNT, [5, 5]))
    write_card(tmp_path / "model", model)
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert (card.data.license, card.data.base_model) == ("bsd-3-clause", "org/encoder")
    assert "| base model | [org/encoder](https://huggingface.co/org/encoder) |" in card.text
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(cache)
    write_card(tmp_path / "model", AutoModel.from_pretrained(tmp_path / "model"))
    assert ModelCard.load(tmp_path / "model" / "README.md").data.license == "bsd-3-clause"


def test_metadata_of_callers_wins_over_people_and_people_over_the_model(tmp_path, model):
    def base():
        return ModelCard.load(tmp_path / "README.md").data.base_model

    model.config.encoder._name_or_path = "org/encoder"
    write_card(tmp_path, model, defaults={"base_model": None})
    assert base() == "org/encoder"
    write_card(tmp_path, model, defaults={"base_model": "org/better"})
    assert base() == "org/better" and "huggingface.co/org/better" in text_of(tmp_path)
    model.config.encoder._name_or_path = ""  # as in a model that was saved with an encoder from a folder
    write_card(tmp_path, model)
    assert base() == "org/better"
    edit(tmp_path, "base_model: org/better", "base_model: org/by-hand")
    write_card(tmp_path, model, defaults={"base_model": "org/better"})
    assert base() == "org/by-hand" and "huggingface.co/org/by-hand" in text_of(tmp_path)
    write_card(tmp_path, model, base_model="org/given")
    write_card(tmp_path, model)
    assert base() == "org/given"


def test_nothing_saved_names_a_folder_of_this_machine(tmp_path):
    encoder = AutoModel.from_pretrained(encoder_folder(tmp_path / "encoder"))
    model = MenderForGenerativeRetrieval.from_encoder(encoder, random_catalogue(COUNT, [5, 5]))
    model.save_pretrained(tmp_path / "model")
    command = f"python examples/02_train.py --data {tmp_path}/steam --seed 1"
    write_card(tmp_path / "model", model, results=measured(command=command))
    assert "--data steam --seed 1" in text_of(tmp_path / "model")
    for path in (tmp_path / "model").glob("*.*"):
        if path.suffix in (".json", ".md"):
            assert str(tmp_path) not in path.read_text("utf-8"), path.name


def test_figures_that_are_missing_leave_their_sentence_out(folder, model):
    results = measured(0.75, request_ms=3.0)
    write_card(folder, model, results=results)
    assert "On 20 test pairs" in text_of(folder)
    for score in results["scores"]:
        score.pop("avoid@10", None)
    write_card(folder, model, results=results)
    assert "test pairs" not in text_of(folder) and "## Speed" not in text_of(folder)


@pytest.mark.parametrize("text", hostile_text("shown", "markup"))
def test_text_from_data_is_shown_as_it_is_and_nothing_more(text, folder, model):
    example = SteeringExample([text], {text: [text], "find tea": ["tea"]})
    results = measured(source=text)
    for _ in range(2):
        write_card(folder, model, results=results, steering=[example], model_name=text)
    card = ModelCard.load(folder / "README.md").text
    lines = card.splitlines()
    assert lines.count("## Results") == lines.count("## Steering") == card.count("<!--") == 1
    assert not re.search(r"<[a-z/|]", card)
    assert not re.search(r"(?<!\\)\]\((?:http://|https://example|javascript)|!\[", card)
    assert not {one for one in card if not one.isprintable()} - {"\n"}
    row = next(line for line in lines if line.startswith("| 1 |"))
    assert row.replace("\\|", "").count("|") == 4
    edit(folder, "## Limits", "## Limits\n\nMine.")  # and the card can still be read
    write_card(folder, model, results=results)
    assert "Mine." in text_of(folder)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A repository whose card is a file."""
    online = tmp_path / "online" / "README.md"
    online.parent.mkdir()

    class Api:
        def upload_file(self, path_or_fileobj, path_in_repo, repo_id, commit_message):
            shutil.copy(path_or_fileobj, online)
            return type("Commit", (), {"commit_url": f"https://huggingface.co/{repo_id}/commit/0"})

    monkeypatch.setattr("modeling_mender.hub.card.HfApi", Api)
    monkeypatch.setattr(
        "modeling_mender.hub.card._published_card",
        lambda name, online: (
            ModelCard.load(tmp_path / "online" / "README.md")
            if name == "org/tea-shop" and (tmp_path / "online" / "README.md").is_file()
            else None
        ),
    )
    return online.parent


def test_an_upload_keeps_what_people_changed_on_the_hub(folder, model, hub):
    (hub / "README.md").write_text(FORM, "utf-8")
    timed = {"request_ms": 3.0, "users_per_second": 9.0}
    write_card(folder, model, results=measured(**timed), repo_id="org/tea-shop", license="mit")
    assert push_card(folder, "org/tea-shop").endswith("commit/0")
    assert "# tea-shop" in text_of(hub) and 'model="org/tea-shop"' in text_of(hub) and "**0.500**" in text_of(hub)
    edit(hub, "One item counts", "Only one item counts")
    edit(hub, "license: mit", "license: bsd")
    edit(hub, "## Citation", "## Thanks\n\n## Citation")
    edit(folder, "How to use\n", "How to use\n\nWith care.\n")
    (hub / "README.md").write_text(re.sub("## (Speed|How to use).*?(?=\n## )", "", text_of(hub), flags=re.DOTALL))
    write_card(folder, model, results=measured(value=0.7, **timed), repo_id="org/tea-shop")
    for _ in range(2):
        push_card(folder, "org/tea-shop")
        for text in (text_of(hub), text_of(folder)):
            assert "Only one item counts" in text and "license: bsd" in text and text.count("## Thanks") == 1
            assert "**0.700**" in text and "**0.500**" not in text and "With care." in text
            assert "3.0 ms" not in text
    (hub / "README.md").write_text("# By hand\n")
    with pytest.raises(ValueError, match="the card of org/tea-shop is not replaced.*not written by this library"):
        push_card(folder, "org/tea-shop")
    assert text_of(hub) == "# By hand\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/encoder", "org/encoder"),
        ("t5-small", "t5-small"),
        ("/x/models--org--my--encoder/snapshots/ab/", "org/my--encoder"),
        ("/usr/share/encoder", None),
        ("./encoder", None),
        ("", None),
        (None, None),
    ],
)
def test_only_names_on_the_hub_are_public(name, expected):
    assert public_name(name) == expected
