"""Adapters: saved with a card, loaded onto their base model in every way, merged, trained on; the answers stay."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from doubles import encoder_folder, random_catalogue, shop_items, tiny_model, word_tokenizer
from huggingface_hub import ModelCard, RepoUrl
from packaging import version
from peft import (
    AutoPeftModel,
    AutoPeftModelForSeq2SeqLM,
    IA3Config,
    LoHaConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoModel, AutoModelForSeq2SeqLM, pipeline

from modeling_mender import MenderForGenerativeRetrieval, MenderProcessor, add_lora
from modeling_mender.hub.adapters import save_adapter, write_adapter_card

COUNT = len(shop_items()["item_id"])


@pytest.fixture(scope="module", params=["bert", "t5"])
def shop(request, tmp_path_factory):
    """Folders of a base model and of its adapter, inputs, and what the adapted model answers."""
    root = tmp_path_factory.mktemp(request.param)
    processor = MenderProcessor(word_tokenizer(), shop_items())
    tiny_model(random_catalogue(COUNT, [5, 5]), request.param).save_pretrained(root / "base")
    processor.save_pretrained(root / "base")
    adapted = add_lora(AutoModel.from_pretrained(root / "base"), rank=2)
    train(adapted, processor, steps=3)
    save_adapter(adapted, root / "adapter")
    inputs = processor(["find tea", "avoid lamp"], [["item-mug"], []])
    return root, inputs, adapted.eval().recommend(**inputs, top_k=COUNT, num_beams="exact")


def train(adapted, processor, steps: int) -> None:
    model = adapted.get_base_model()
    batch = processor(["find tea", "find lamp"], [[], ["item-rose"]])
    labels = model.item_tokens(torch.tensor(processor.item_indices(["item-tea", "item-lamp"])))
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.3)
    for _ in range(steps):
        adapted.train()(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def same(found, expected, tolerance: float = 1e-4) -> bool:
    # Exhaustive lists, so that near ties that trade places cannot drop an item.
    a, b = (answer.scores.gather(1, answer.item_indices.argsort(1)) for answer in (found, expected))
    return torch.allclose(a, b, atol=tolerance)


def loaders():
    """Every way to load an adapter."""
    whole = pytest.mark.skipif(
        version.parse(transformers.__version__) < version.parse("5.23"),
        reason="seen with transformers 5.0: AutoModel leaves out what an adapter saved whole",
    )
    return [
        pytest.param(
            lambda root: PeftModel.from_pretrained(AutoModel.from_pretrained(root / "base"), root / "adapter")
        ),
        pytest.param(lambda root: AutoPeftModelForSeq2SeqLM.from_pretrained(str(root / "adapter"))),
        pytest.param(lambda root: AutoModel.from_pretrained(root / "adapter"), marks=whole),
        pytest.param(lambda root: AutoModelForSeq2SeqLM.from_pretrained(root / "adapter"), marks=whole),
    ]


@pytest.mark.parametrize(
    "load", loaders(), ids=["PeftModel", "AutoPeftModelForSeq2SeqLM", "AutoModel", "AutoModelForSeq2SeqLM"]
)
def test_every_way_of_loading_gives_the_same_answers(load, shop):
    root, inputs, expected = shop
    assert same(load(root).eval().recommend(**inputs, top_k=COUNT, num_beams="exact"), expected)


def test_the_way_that_peft_refuses_is_refused_with_the_reason(shop):
    with pytest.raises(ValueError, match="use a specific class for your task type"):
        AutoPeftModel.from_pretrained(str(shop[0] / "adapter"))


def test_adapters_switch_off_and_on(shop):
    root, inputs, expected = shop
    base = AutoModel.from_pretrained(root / "base")
    before = base.recommend(**inputs, top_k=COUNT, num_beams="exact")
    adapted = PeftModel.from_pretrained(base, root / "adapter").eval()
    assert same(adapted.recommend(**inputs, top_k=COUNT, num_beams="exact"), expected)
    with adapted.disable_adapter():
        assert same(adapted.recommend(**inputs, top_k=COUNT, num_beams="exact"), before)
    assert same(adapted.recommend(**inputs, top_k=COUNT, num_beams="exact"), expected)
    assert not same(before, expected)
    adapted.load_adapter(str(root / "adapter"), "second")
    adapted.get_base_model().lm_head.modules_to_save["second"].weight.data.neg_()
    adapted.set_adapter("second")
    assert not same(adapted.recommend(**inputs, top_k=COUNT, num_beams="exact"), expected)


def test_merged_it_is_a_plain_model_with_the_same_answers(shop, tmp_path):
    root, inputs, expected = shop
    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(root / "base"), root / "adapter")
    merged = adapted.merge_and_unload().eval()
    merged.save_pretrained(tmp_path)
    MenderProcessor(word_tokenizer(), shop_items()).save_pretrained(tmp_path)
    assert same(AutoModel.from_pretrained(tmp_path).recommend(**inputs, top_k=COUNT, num_beams="exact"), expected)
    assert len(pipeline("generative-retrieval", model=str(tmp_path), device="cpu")("find tea", top_k=3)) == 3


def test_training_goes_on_where_it_stopped(shop, tmp_path):
    root, inputs, _ = shop
    processor = MenderProcessor(word_tokenizer(), shop_items())
    kept = add_lora(AutoModel.from_pretrained(root / "base"), rank=2)
    train(kept, processor, steps=1)
    save_adapter(kept, tmp_path)
    before = kept.eval().recommend(**inputs, top_k=COUNT, num_beams="exact")
    loaded = PeftModel.from_pretrained(AutoModel.from_pretrained(root / "base"), tmp_path, is_trainable=True)
    answers = []
    for adapted in (kept, loaded):
        torch.manual_seed(0)
        train(adapted, processor, steps=2)
        answers.append(adapted.eval().recommend(**inputs, top_k=COUNT, num_beams="exact"))
    assert same(*answers) and not same(answers[0], before)


def test_the_card_says_what_it_belongs_to_and_names_no_folder_of_this_machine(shop):
    root = shop[0]
    card = ModelCard.load(root / "adapter" / "README.md")
    assert card.data.library_name == "peft" and {"lora", "mender"} <= set(card.data.tags)
    assert card.data.base_model is None and "| base model | base |" in card.text and "rank 2" in card.text
    assert str(root) not in card.content
    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(root / "base"), root / "adapter")
    (root / "adapter" / "README.md").write_text(card.content + "\n## Thanks\n", "utf-8")
    save_adapter(adapted, root / "adapter")
    write_adapter_card(root / "adapter", adapted, base_model="org/mender-small", license="apache-2.0", tags="tea")
    save_adapter(adapted, root / "adapter")
    again = ModelCard.load(root / "adapter" / "README.md")
    assert again.data.base_model == "org/mender-small" and again.data.license == "apache-2.0"
    assert "## Thanks" in again.text and 'AutoModel.from_pretrained("org/mender-small")' in again.text
    assert "Framework versions" not in again.text and "tea" in again.data.tags


def test_an_encoder_from_the_hub_takes_adapters_from_the_start(tmp_path):
    encoder = AutoModel.from_pretrained(encoder_folder(tmp_path / "encoder")).requires_grad_(False)
    model = MenderForGenerativeRetrieval.from_encoder(encoder, random_catalogue(COUNT, [5, 5]))
    save_adapter(add_lora(model), tmp_path / "adapter")
    assert "| base model | unknown |" in (tmp_path / "adapter" / "README.md").read_text("utf-8")


def recorded(folder) -> str | None:
    return json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]


def local_adapter(root, names=("default",)):
    adapted = add_lora(AutoModel.from_pretrained(root / "base"), rank=2)
    for name in names[1:]:
        adapted.add_adapter(name, adapted.peft_config["default"])
    return adapted


def test_a_local_path_gives_way_to_the_name_of_the_base_model_as_soon_as_it_is_known(shop, tmp_path):
    adapted = local_adapter(shop[0], ["default", "second"])
    save_adapter(adapted, tmp_path)
    assert recorded(tmp_path) == str(shop[0] / "base")  # there is no better name, and the folder can be loaded here
    save_adapter(adapted, tmp_path, base_model="org/shop")
    assert recorded(tmp_path) == recorded(tmp_path / "second") == "org/shop"
    save_adapter(adapted, tmp_path)  # the card says so now
    assert recorded(tmp_path) == "org/shop"
    card = (tmp_path / "README.md").read_text("utf-8").replace("base_model: org/shop", "base_model: org/edited")
    (tmp_path / "README.md").write_text(card, "utf-8")
    save_adapter(adapted, tmp_path)
    assert recorded(tmp_path) == "org/edited"
    assert ModelCard.load(tmp_path / "README.md").data.base_model == "org/edited"
    assert adapted.peft_config["default"].base_model_name_or_path == str(shop[0] / "base")


def test_a_base_model_from_the_cache_of_the_hub_is_named_as_on_the_hub(shop, tmp_path):
    adapted = local_adapter(shop[0])
    adapted.peft_config["default"].base_model_name_or_path = "/anna/hub/models--org--shop/snapshots/0123"
    save_adapter(adapted, tmp_path)
    assert recorded(tmp_path) == "org/shop"


@pytest.fixture
def uploads(monkeypatch):
    """What would go to the Hub: names of repositories made, and the recorded base model of folders uploaded."""
    seen = []

    class Api:
        def create_repo(self, repo_id, exist_ok):
            seen.append(repo_id)
            return RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, folder_path, **kwargs):
            seen.append(recorded(folder_path))

        def upload_file(self, path_in_repo, repo_id, **kwargs):
            seen.append(path_in_repo)
            return SimpleNamespace(commit_url=repo_id)

    monkeypatch.setattr("modeling_mender.hub.adapters.HfApi", Api)
    monkeypatch.setattr("modeling_mender.hub.card.HfApi", Api)
    return seen


def test_no_upload_names_a_folder_of_this_machine(shop, tmp_path, uploads):
    adapted = local_adapter(shop[0])
    with pytest.raises(ValueError, match=r"was loaded from '.*base', where others cannot load it.*pass base_model="):
        save_adapter(adapted, tmp_path, push_to_hub=True, repo_id="org/lora")
    with pytest.raises(ValueError, match="Repo id must"):
        save_adapter(adapted, tmp_path, push_to_hub=True, repo_id="org/lora", base_model=str(shop[0] / "base"))
    assert not uploads and not list(tmp_path.iterdir())
    save_adapter(adapted, tmp_path, push_to_hub=True, repo_id="org/lora", base_model="org/shop")
    save_adapter(adapted, tmp_path, push_to_hub=True, repo_id="org/lora")
    assert uploads == ["org/lora", "org/shop", "README.md"] * 2


@pytest.mark.parametrize(
    ("config", "kind", "modules"),
    [
        (IA3Config(target_modules=["key", "value"], feedforward_modules=[]), "IA3", True),
        (LoHaConfig(r=2, target_modules=["query"]), "LOHA, rank 2, alpha 8", True),
        (
            PromptTuningConfig(
                task_type="FEATURE_EXTRACTION",
                num_virtual_tokens=3,
                num_transformer_submodules=1,
                num_layers=1,
                num_attention_heads=1,
                token_dim=8,
            ),
            r"PROMPT\_TUNING, virtual tokens 3",
            False,
        ),
    ],
    ids=["ia3", "loha", "prompt"],
)
def test_adapters_of_other_kinds_leave_out_what_they_have_not(config, kind, modules, tmp_path):
    adapted = get_peft_model(tiny_model(random_catalogue(COUNT, [5, 5])), config)
    save_adapter(adapted, tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert f"| kind | {kind} |" in text and "None" not in text.split("## How to use")[0]
    assert ("| adapted modules |" in text) == modules
