"""What a Trainer saves can be served, and its card says how the training went."""

from __future__ import annotations

import json

import pytest
from doubles import measured, random_catalogue, shop_examples, shop_items, tiny_model, word_tokenizer
from huggingface_hub import ModelCard
from peft import IA3Config, get_peft_model
from transformers import AutoModel, pipeline

from modeling_mender import MenderProcessor, MenderTrainer, MenderTrainingArguments, add_lora
from modeling_mender.hub.adapters import write_adapter_card
from modeling_mender.hub.card import write_card
from modeling_mender.training.batches import MenderCollator
from modeling_mender.training.data import prepare_examples
from modeling_mender.training.ranking import ranking_metrics


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A saved model and the features of a few examples."""
    folder = tmp_path_factory.mktemp("base") / "tea-shop"
    processor = MenderProcessor(word_tokenizer(), shop_items(), max_length=24)
    tiny_model(random_catalogue(len(processor.item_ids), [3, 3, 3])).save_pretrained(folder)
    return folder, processor, prepare_examples(shop_examples(3)["train"].select(range(8)), processor)


def trainer_of(base, output, model, **settings):
    _, processor, features = base
    collator = MenderCollator(processor, model.get_base_model() if hasattr(model, "get_base_model") else model)
    arguments = MenderTrainingArguments(
        output_dir=str(output),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_total_limit=1,
        **settings,
    )
    return MenderTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=features,
        eval_dataset=features,
        compute_metrics=ranking_metrics,
    )


def trained(base, output, adapted: bool):
    model = AutoModel.from_pretrained(base[0])
    settings = {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}
    trainer = trainer_of(base, output, add_lora(model, rank=2) if adapted else model, **settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize("adapted", [False, True])
def test_the_card_describes_the_training_and_keeps_edits(adapted, base, tmp_path):
    trainer = trained(base, tmp_path / "run", adapted)
    trainer.save_model()
    readme = tmp_path / "run" / "README.md"
    readme.write_text(readme.read_text("utf-8") + "\n## Thanks\n\nTo the shop.\n", "utf-8")
    trainer.create_model_card(language="en", tags="tea", dataset_tags="org/shop", finetuned_from="org/tea-shop")
    trainer.save_model()
    card = ModelCard.load(readme)
    assert card.data.library_name == ("peft" if adapted else "transformers")
    assert (card.data.language, card.data.datasets, card.data.base_model) == (["en"], ["org/shop"], "org/tea-shop")
    assert {"mender", "tea", "generated_from_trainer"} <= set(card.data.tags)
    assert "num_epochs: 2" in card.text and "Recall@10" in card.text and "To the shop." in card.text
    assert card.text.count("## Training procedure") == 1
    for written in tmp_path.rglob("README.md"):
        assert str(tmp_path) not in written.read_text("utf-8") and str(base[0]) not in written.read_text("utf-8")
    if adapted:
        assert 'PeftModel.from_pretrained(base, "path/to/this/folder")' in card.text and "rank 2" in card.text
        assert not (tmp_path / "run" / "items.json").exists()
    else:
        (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
        answers = [
            pipeline("generative-retrieval", model=str(folder), device="cpu")("find tea", top_k=3)
            for folder in (tmp_path / "run", checkpoint)
        ]
        assert answers[0] == answers[1] and len(answers[0]) == 3


def test_figures_of_earlier_weights_go_and_those_of_the_present_ones_stay(base, tmp_path):
    trainer = trainer_of(base, tmp_path, AutoModel.from_pretrained(base[0]), max_steps=1)
    write_card(tmp_path, trainer.model, results=measured())
    trainer.save_model()  # nothing was trained
    assert "**0.500**" in (tmp_path / "README.md").read_text("utf-8")
    trainer.train()
    trainer.save_model()
    assert "**0.500**" not in (tmp_path / "README.md").read_text("utf-8")
    write_card(tmp_path, trainer.model, results=measured(0.7))
    trainer.save_model()
    trainer.create_model_card()
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "**0.700**" in text and "## Training procedure" in text


def recorded(folder) -> str:
    return json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]


def test_checkpoints_of_an_adapter_name_the_base_model_that_the_card_of_the_run_names(base, tmp_path):
    config = IA3Config(target_modules=["key", "value"], feedforward_modules=[])  # an adapter without rank
    model = get_peft_model(AutoModel.from_pretrained(base[0]), config)
    trainer = trainer_of(base, tmp_path, model, max_steps=1, save_steps=1)
    trainer.train()
    assert recorded(tmp_path / "checkpoint-1") == str(base[0])
    trainer.save_model()
    trainer.create_model_card(finetuned_from="org/tea-shop")
    trainer.save_model(str(tmp_path / "checkpoint-1"))
    assert recorded(tmp_path) == recorded(tmp_path / "checkpoint-1") == "org/tea-shop"


def test_an_adapter_of_a_local_base_model_is_not_uploaded(base, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("transformers.Trainer.init_hf_repo", lambda trainer, *_: made.append("repository"))
    monkeypatch.setattr("transformers.Trainer.push_to_hub", lambda trainer, **given: made.append(given))
    model = add_lora(AutoModel.from_pretrained(base[0]), rank=2)
    with pytest.raises(ValueError, match="where others cannot load it"):
        trainer_of(base, tmp_path, model, push_to_hub=True)
    trainer = trainer_of(base, tmp_path, model)
    with pytest.raises(ValueError, match='finetuned_from="org/name"'):
        trainer.push_to_hub()
    assert not made
    trainer.push_to_hub(finetuned_from="org/tea-shop")
    write_adapter_card(tmp_path, model, base_model="org/tea-shop")
    trainer_of(base, tmp_path, model, push_to_hub=True)
    assert made == [{"finetuned_from": "org/tea-shop"}, "repository"]


def test_the_base_model_that_people_write_in_a_card_stays(base, tmp_path):
    model = AutoModel.from_pretrained(base[0])
    model.config._name_or_path = "org/loaded-by"
    trainer = trainer_of(base, tmp_path, model, max_steps=1)
    readme = tmp_path / "README.md"
    trainer.save_model()
    trainer.create_model_card()
    assert ModelCard.load(readme).data.base_model == "org/loaded-by"
    readme.write_text(
        readme.read_text("utf-8").replace("base_model: org/loaded-by", "base_model: org/by-hand"), "utf-8"
    )
    trainer.create_model_card()
    assert ModelCard.load(readme).data.base_model == "org/by-hand"
    trainer.create_model_card(finetuned_from="org/said")
    assert ModelCard.load(readme).data.base_model == "org/said"
