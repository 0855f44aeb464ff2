"""What a Trainer saves can be served, and its card says how the training went."""

from __future__ import annotations

import pytest
from doubles import random_catalogue, shop_examples, shop_items, tiny_model, word_tokenizer
from huggingface_hub import ModelCard
from transformers import AutoModel, pipeline

from modeling_mender import (
    MenderCollator,
    MenderProcessor,
    MenderTrainer,
    MenderTrainingArguments,
    add_lora,
    prepare_examples,
    ranking_metrics,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A saved model and the features of a few examples."""
    folder = tmp_path_factory.mktemp("base") / "tea-shop"
    processor = MenderProcessor(word_tokenizer(), shop_items(), max_length=24)
    tiny_model(random_catalogue(len(processor.item_ids), [3, 3, 3])).save_pretrained(folder)
    return folder, processor, prepare_examples(shop_examples(3)["train"].select(range(8)), processor)


def trained(base, output, adapted: bool):
    folder, processor, features = base
    model = AutoModel.from_pretrained(folder)
    collator = MenderCollator(processor, model)
    arguments = MenderTrainingArguments(
        output_dir=str(output),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
    )
    trainer = MenderTrainer(
        model=add_lora(model, rank=2) if adapted else model,
        args=arguments,
        data_collator=collator,
        train_dataset=features,
        eval_dataset=features,
        compute_metrics=ranking_metrics,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("adapted", [False, True])
def test_the_card_tells_of_the_training_and_keeps_what_people_add(adapted, base, tmp_path):
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
            pipeline("generative-retrieval", model=str(folder), device="cpu")("find tea", k=3)
            for folder in (tmp_path / "run", checkpoint)
        ]
        assert answers[0] == answers[1] and len(answers[0]) == 3
