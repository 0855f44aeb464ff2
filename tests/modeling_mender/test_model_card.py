"""Cards: what a save writes, what an evaluation adds, what people change, and what happens to each afterwards."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from doubles import encoder_folder, random_catalogue, shop_examples, shop_items, tiny_model, word_tokenizer
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import AutoModel

from modeling_mender import (
    MenderForGenerativeRetrieval,
    MenderProcessor,
    PopularityConfig,
    PopularityRecommender,
    SteeringExample,
    pick_request,
    steer,
    write_card,
)
from modeling_mender.card_results import Evaluation
from modeling_mender.card_text import (
    Section,
    is_template,
    is_untouched,
    merged_metadata,
    merged_text,
    recorded_weights,
    split_card,
)
from modeling_mender.configuration_mender import public_name

COUNT = len(shop_items()["item_id"])


def score(axis: str, method: str, value: float, matching: str = "") -> dict:
    names = ["recall", "ndcg", *(["m", "avoid"] if axis.startswith("sentiment") else [])]
    found = {"axis": axis, "matching": matching, "method": method, "n": 20}
    for name in names:
        found |= {f"{name}@10": value, f"{name}@10/low": value - 0.05, f"{name}@10/high": value + 0.05}
    return found


def results(**settings) -> dict:
    axes = [("recommendation", "oracle"), ("recommendation", "last"), ("sentiment_following", "")]
    methods = [("mine", 0.5), ("mine, shuffled preferences", 0.1)]
    scores = [score(axis, method, value, matching) for axis, matching in axes for method, value in methods]
    return {"settings": {"source": "corner-shop", "seed": 3, **settings}, "scores": scores}


@pytest.fixture
def model():
    # transformers 5.0 renames weights of BERT when it saves them again, and other names are other weights.
    return tiny_model(random_catalogue(COUNT, [5, 5]), "t5")


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "shop" / "model")
    return tmp_path / "shop" / "model"


def text_of(folder) -> str:
    return (folder / "README.md").read_text("utf-8")


def test_a_save_says_what_the_model_knows_and_invents_nothing(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "generative-retrieval"
    assert card.data.license is None and card.data.base_model is None and card.data.eval_results is None
    assert "# shop" in card.text and f"{COUNT} items" in card.text and "Not measured yet" in card.text
    assert "## Speed" not in card.text and "## Steering" not in card.text


def test_every_figure_comes_back_from_the_metadata_as_it_was_measured(folder, model):
    write_card(folder, model, results=results(), datasets="org/preference-discerning")
    card = ModelCard.load(folder / "README.md")
    found = {(result.metric_name, result.metric_type): result for result in card.data.eval_results}
    assert all(isinstance(result, EvalResult) for result in found.values())
    one = found["recommendation, oracle: recall@10", "recall@10"]
    assert one.metric_value == 0.5 and one.dataset_type == "org/preference-discerning"
    assert one.metric_args == {
        "axis": "recommendation",
        "matching": "oracle",
        "n": 20,
        "confidence": 0.95,
        "low": 0.45,
        "high": 0.55,
    }
    assert {metric for _, metric in found} == {"recall@10", "ndcg@10", "m@10", "avoid@10"}
    assert card.data.model_name == "shop"
    assert "| recommendation, oracle | 20 | **0.500** (0.450-0.550) | 0.500 | 0.100 (0.050-0.150) |" in card.text


def test_figures_stay_with_their_weights_and_leave_with_others(folder, model, tmp_path):
    write_card(folder, model, results=results(request_ms=3.0, users_per_second=90.0))
    measured = text_of(folder)
    model.save_pretrained(folder)
    assert text_of(folder) == measured
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    copy = text_of(tmp_path / "copy")
    assert "**0.500**" in copy and "# copy" in copy and "3.0 ms" in copy
    changed = AutoModel.from_pretrained(folder)
    changed.lm_head.weight.data += 1
    for place in (folder, tmp_path / "elsewhere"):
        changed.save_pretrained(place)
        assert "Not measured" in text_of(place) and "**0.500**" not in text_of(place) and "3.0 ms" not in text_of(place)
        assert "model-index" not in text_of(place)


def test_what_people_edit_add_and_delete_stays(folder, model):
    text = text_of(folder)
    text = text.replace("One item counts as right", "Only one item counts as right").replace(
        "library_name: transformers", "library_name: transformers\nlicense: mit\nthumbnail: shop.png"
    )
    citation = text.index("<!-- mender:citation")
    text = text[:citation].replace("# shop\n", "# shop\n") + "## Thanks\n\nTo the shop.\n"
    (folder / "README.md").write_text(text, "utf-8")
    write_card(folder, model, results=results())
    model.save_pretrained(folder)
    after = text_of(folder)
    assert "Only one item counts" in after and "To the shop." in after and "@article" not in after
    assert "**0.500**" in after
    metadata = split_card(after)[0]
    assert metadata["license"] == "mit" and metadata["thumbnail"] == "shop.png"
    write_card(folder, model, license="apache-2.0")
    assert split_card(text_of(folder))[0]["license"] == "apache-2.0"


@pytest.mark.parametrize(
    "text",
    [
        "# My model\n\nWritten by me.\n",
        "---\nlicense: [\n---\n# Broken\n",
        f"---\nmodel-index: none\n---\n{Section('about', 'Broken')}\n",
    ],
)
def test_a_card_written_by_hand_is_left_alone_unless_asked(text, folder, model):
    (folder / "README.md").write_text(text, "utf-8")
    model.save_pretrained(folder)
    write_card(folder, model, results=results())
    assert text_of(folder) == text
    write_card(folder, model, results=results(), overwrite=True)
    assert "Written by me" not in text_of(folder) and "**0.500**" in text_of(folder)


def test_results_of_others_in_the_metadata_stay(folder, model):
    write_card(folder, model, results=results())
    metadata, body = split_card(text_of(folder))
    foreign = {
        "task": {"type": "text-ranking"},
        "dataset": {"name": "Another", "type": "another"},
        "metrics": [{"type": "mrr", "value": 0.25}],
    }
    metadata["model-index"][0]["results"].append(foreign)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(metadata)}---\n{body}", "utf-8")
    write_card(folder, model, results=results())
    model.lm_head.weight.data += 1
    model.save_pretrained(folder)
    left = ModelCard.load(folder / "README.md").data.eval_results
    assert [result.dataset_type for result in left] == ["another"]


def test_licence_and_name_of_the_base_encoder_are_read_where_they_are_known(tmp_path):
    snapshot = tmp_path / "models--org--encoder" / "snapshots" / "0123"
    encoder_folder(snapshot)
    (snapshot / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n# Encoder\n")
    model = MenderForGenerativeRetrieval.from_encoder_pretrained(
        str(snapshot), random_catalogue(COUNT, [5, 5]), decoder={"num_layers": 1}
    )
    model.save_pretrained(tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert (card.data.license, card.data.base_model) == ("bsd-3-clause", "org/encoder")
    assert "| base model | [org/encoder](https://huggingface.co/org/encoder) |" in card.text
    shutil.rmtree(snapshot)
    again = AutoModel.from_pretrained(tmp_path / "model")
    again.save_pretrained(tmp_path / "again")
    assert ModelCard.load(tmp_path / "again" / "README.md").data.base_model == "org/encoder"


def test_what_callers_know_better_replaces_what_a_save_wrote_and_not_what_people_wrote(tmp_path):
    model = tiny_model(random_catalogue(COUNT, [5, 5]), "t5")
    model.config.encoder._name_or_path = "org/encoder"
    model.save_pretrained(tmp_path)

    def base():
        return ModelCard.load(tmp_path / "README.md").data.base_model

    assert base() == "org/encoder"
    write_card(tmp_path, model, defaults={"base_model": None})
    assert base() == "org/encoder"
    write_card(tmp_path, model, defaults={"base_model": "org/better"})
    assert base() == "org/better" and "huggingface.co/org/better" in text_of(tmp_path)
    (tmp_path / "README.md").write_text(text_of(tmp_path).replace("_model: org/better", "_model: org/by-hand"), "utf-8")
    write_card(tmp_path, model, defaults={"base_model": "org/better"})
    assert base() == "org/by-hand" and "huggingface.co/org/by-hand" in text_of(tmp_path)
    write_card(tmp_path, model, defaults={"base_model": "org/better"}, base_model="org/given")
    assert base() == "org/given"


def test_nothing_saved_names_a_folder_of_this_machine(tmp_path):
    encoder = encoder_folder(tmp_path / "encoder")
    model = MenderForGenerativeRetrieval.from_encoder_pretrained(encoder, random_catalogue(COUNT, [5, 5]))
    model.save_pretrained(tmp_path / "model")
    command = f"python examples/02_train.py --data {tmp_path}/steam --seed 1"
    write_card(tmp_path / "model", model, results=results(command=command))
    assert "--data steam --seed 1" in text_of(tmp_path / "model")
    for path in (tmp_path / "model").glob("*.*"):
        if path.suffix in (".json", ".md"):
            assert str(tmp_path) not in path.read_text("utf-8"), path.name


def test_models_without_text_have_a_card_too(tmp_path):
    PopularityRecommender(PopularityConfig(4)).save_pretrained(tmp_path)
    text = text_of(tmp_path)
    assert "does not" not in text.split("## How to use")[1].split("## Results")[0]
    assert "Popularity" in text and "4 items" in text and "avoid" not in text


def test_lists_shown_are_what_the_model_recommends(folder, model):
    processor = MenderProcessor(word_tokenizer(), shop_items())
    examples = shop_examples(6)["test"]
    history, preferences = pick_request(examples, preferences=3)
    assert len(history) == 5 and len(set(preferences)) == 3
    shown = steer(model, processor, history, preferences, top_k=4)
    for preference, titles in shown.lists.items():
        found = model.recommend(**processor(preference, history), top_k=4, exclude=processor.item_indices(history))
        assert titles == [item["title"] for item in processor.decode_items(found.item_indices[0])]
    write_card(folder, model, steering=[shown])
    assert f'"{preferences[1]}"' in text_of(folder) and "## Steering" in text_of(folder)
    # One after the other, figures and lists of the same weights stand side by side.
    write_card(folder, model, results=results())
    model.save_pretrained(folder)
    assert f'"{preferences[1]}"' in text_of(folder) and "**0.500**" in text_of(folder)
    with pytest.raises(ValueError, match="no preference to steer by"):
        steer(model, processor, history, [])
    with pytest.raises(ValueError, match="no recommendation example"):
        pick_request(examples.filter(lambda axis: axis == "sentiment_following", input_columns="axis"))


def test_bars_and_line_breaks_in_titles_do_not_break_the_table():
    table = SteeringExample(["a | b"], {"find | this": ["c\n| d"]}).markdown().splitlines()[-1]
    assert table == "| 1 | c \\| d |"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("{}", 'holds no "scores"'),
        ('{"scores": [{"axis": "recommendation"}]}', 'holds no "scores" with axis, method and n'),
        ('{"scores": [{"axis": "recommendation", "method": "m", "n": 3}]}', "has no recall@k on recommendation"),
    ],
)
def test_files_that_are_no_results_are_refused(content, message, tmp_path):
    (tmp_path / "five_axes.json").write_text(content)
    with pytest.raises(ValueError, match=f"five_axes.json {message}"):
        Evaluation.read(tmp_path / "five_axes.json")


@pytest.mark.parametrize("settings", [{"split": "validation"}, {"exclude_seen": False}])
def test_figures_of_another_kind_do_not_get_into_a_card(settings):
    other = results()
    other["settings"] |= settings
    with pytest.raises(ValueError, match="measured with --validation or --keep-seen"):
        Evaluation.read(other)


def test_methods_are_found_by_name(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(results(method="mine, shuffled preferences")))
    assert Evaluation.read(tmp_path / "r.json").scores[0]["recall@10"] == 0.1
    assert Evaluation.read(tmp_path / "r.json", "mine").scores[0]["recall@10"] == 0.5
    with pytest.raises(ValueError, match="no method 'yours'; it knows 'mine'"):
        Evaluation.read(results(), "yours")


def test_sections_are_renewed_until_somebody_touches_them():
    first = merged_text(None, [Section("a", "one"), Section("b", "two", "0" * 64), Section("c", "")])
    assert is_untouched(first) and recorded_weights(first) == {"0" * 64}
    fresh = [Section("a", "ONE"), Section("b", "nothing"), Section("c", "three")]
    same, other = (merged_text(first, fresh, digit * 64) for digit in "01")
    assert "ONE" in same and "three" in same and "two" in same and "nothing" not in same
    assert "nothing" in other and "two" not in other
    edited = first.replace("one", "mine")
    assert not is_untouched(edited) and "mine" in merged_text(edited, fresh) and "ONE" not in merged_text(edited, fresh)
    assert not is_untouched(first + "more") and merged_text(first + "more", fresh).endswith("more\n")
    assert "ONE" not in merged_text(first.replace(str(Section("a", "one")), ""), fresh)
    windows = first.replace("\n", "\r\n").replace("-->\r\n", "-->\n")
    assert "ONE" in merged_text(windows, fresh)


def test_metadata_given_wins_over_the_card_and_the_card_over_what_is_generated():
    merged = merged_metadata({"a": 1, "tags": ["x"]}, {"a": 2, "b": 3, "tags": ["y", "x"]}, {"b": 4, "c": None})
    assert merged == {"a": 1, "b": 4, "tags": ["x", "y"]}


def test_the_empty_form_is_told_from_a_filled_one():
    form = ModelCard.from_template(ModelCardData(tags=["t"]), model_description="Uploaded by a library.")
    assert is_template(str(form))
    assert not is_template(str(form).replace("[More Information Needed]", "Me", 1))
    assert not is_template("# Mine\n")


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


def uploaded(monkeypatch, model, folder, online: str | None) -> str:
    """The card that an upload would carry, with this one on the Hub."""
    from transformers.utils.hub import PushToHubMixin

    monkeypatch.setattr(PushToHubMixin, "_upload_modified_files", lambda self, folder, *_, **__: text_of(folder))
    (folder / "README.md").unlink(missing_ok=True)
    model.save_pretrained(folder)
    if online is not None:
        (folder / "README.md").write_text(online, "utf-8")
    return model._upload_modified_files(folder, "org/tea-shop")


def test_an_upload_replaces_the_empty_form_and_respects_what_is_written_on_the_hub(model, tmp_path, monkeypatch):
    form = str(ModelCard.from_template(ModelCardData(tags=["t"]), model_description="Uploaded by a library."))
    for online in (None, form):
        card = uploaded(monkeypatch, model, tmp_path, online)
        assert "# tea-shop" in card and 'model="org/tea-shop"' in card
    edited = uploaded(monkeypatch, model, tmp_path, card.replace("One item counts", "Only one item counts"))
    assert "Only one item counts" in edited
    assert uploaded(monkeypatch, model, tmp_path, "# By hand\n") == "# By hand\n"
