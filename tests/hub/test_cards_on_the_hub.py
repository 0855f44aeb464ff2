"""Cards, adapters and trained models on a Hub: what each way of uploading puts there, what stays of people's edits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub

ROOT = Path(__file__).parents[2]

START = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import evaluate, torch
from doubles import measured, random_catalogue, shop_examples, shop_items, tiny_model, word_tokenizer
from huggingface_hub import HfApi, ModelCard
from peft import AutoPeftModelForSeq2SeqLM, PeftModel
from transformers import AutoModel, AutoProcessor, pipeline
from modeling_mender import MenderProcessor, MenderTrainer, MenderTrainingArguments, add_lora, write_card
from modeling_mender.hub.adapters import save_adapter
from modeling_mender.hub.card import push_card
from modeling_mender.training.batches import MenderCollator
from modeling_mender.training.data import prepare_examples
work = Path(sys.argv[2])
items = shop_items()
processor = MenderProcessor(word_tokenizer(), items, max_length=24)
"""
PUBLISH = (
    START
    + """
folder = work / "model"
model = tiny_model(random_catalogue(len(items["item_id"]), [5, 5]))
model.save_pretrained(folder)
processor.save_pretrained(folder)
write_card(folder, model, results=measured(0.75), license="mit")

# Uploads of transformers put an empty form there, which the folder's card replaces.
pipeline("generative-retrieval", model=str(folder), device="cpu").push_to_hub("org/shop")
write_card(folder, model, repo_id="org/shop")
push_card(folder, "org/shop")
# Somebody edits it there; the model is pushed again, and its card as well.
api = HfApi()
edited = ModelCard.load("org/shop").content.replace("One item counts", "Only one item counts") + "\\n## Thanks\\n"
api.upload_file(path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id="org/shop")
model = AutoModel.from_pretrained("org/shop")
model.push_to_hub("org/shop", commit_message="again")
push_card(folder, "org/shop")
api.create_repo("org/shop", repo_type="dataset")
evaluate.push_to_hub(
    "org/shop", task_type="other", dataset_type="org/shop", dataset_name="Shop", metric_type="recall@10",
    metric_name="Recall", metric_value=0.5
)

# An adapter, of a model that is loaded from a folder here and has a name there.
adapted = add_lora(AutoModel.from_pretrained(folder), rank=2)
adapted.get_base_model().lm_head.modules_to_save["default"].weight.data.neg_()
save_adapter(adapted, work / "adapter", push_to_hub=True, repo_id="org/shop-lora", base_model="org/shop")
inputs = processor("find tea", ["item-mug"])
answer = adapted.eval().recommend(**inputs, top_k=5).item_indices.tolist()

# A training that ends on the Hub.
features = prepare_examples(shop_examples(2)["train"].select(range(4)), processor)
trained = AutoModel.from_pretrained("org/shop")
trainer = MenderTrainer(
    model=trained,
    args=MenderTrainingArguments(
        output_dir=str(work / "run"), hub_model_id="org/trained", report_to="none", use_cpu=True, max_steps=1
    ),
    data_collator=MenderCollator(processor, trained),
    train_dataset=features,
)
trainer.train()
trainer.push_to_hub(language="en")
# The same with an adapter whose base model is named at the end.
adapter_trainer = MenderTrainer(
    model=add_lora(AutoModel.from_pretrained(folder), rank=2),
    args=MenderTrainingArguments(
        output_dir=str(work / "adapter-run"), hub_model_id="org/lora", report_to="none", use_cpu=True, max_steps=1
    ),
    data_collator=MenderCollator(processor, trained),
    train_dataset=features,
)
adapter_trainer.train()
adapter_trainer.push_to_hub(finetuned_from="org/shop")
print(json.dumps(answer))
"""
)
LOAD = (
    START
    + """
inputs = processor("find tea", ["item-mug"])
base = AutoModel.from_pretrained("org/shop")
one = PeftModel.from_pretrained(base, "org/shop-lora").eval()
two = AutoPeftModelForSeq2SeqLM.from_pretrained("org/shop-lora").eval()
answers = [model.recommend(**inputs, top_k=5).item_indices.tolist() for model in (one, two)]
trained = pipeline("generative-retrieval", model="org/trained", device="cpu")("find tea", top_k=2)
print(json.dumps([*answers, len(trained)]))
"""
)


def run(code: str, work: Path, **environment: str):
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tests" / "modeling_mender"), str(work)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_upload_carries_its_card(tmp_path):
    with LoopbackHub(tmp_path / "hub") as hub:
        answer = run(PUBLISH, tmp_path, **hub.environment(tmp_path / "publisher"))
        cards = {
            name: ModelCard.load(hub.files("models", f"org/{name}")["README.md"])
            for name in ("shop", "shop-lora", "trained")
        }
        for name in ("shop-lora", "lora"):
            config = hub.files("models", f"org/{name}")["adapter_config.json"].read_text("utf-8")
            assert json.loads(config)["base_model_name_or_path"] == "org/shop" and str(tmp_path) not in config
        environment = hub.environment(tmp_path / "stranger")
        assert run(LOAD, tmp_path, **environment) == [answer, answer, 2]
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    assert run(LOAD, tmp_path, **offline) == [answer, answer, 2]

    shop, lora, trained = cards.values()
    assert "Only one item counts" in shop.text and "## Thanks" in shop.text and shop.data.license == "mit"
    assert 'model="org/shop"' in shop.text and "**0.750**" in shop.text
    results = {(result.metric_value, result.task_type) for result in shop.data.eval_results}
    assert results == {(0.75, "generative-retrieval"), (0.5, "other")}
    assert lora.data.library_name == "peft" and lora.data.base_model == "org/shop"
    assert 'PeftModel.from_pretrained(base, "org/shop-lora")' in lora.text
    assert "## Training procedure" in trained.text and "**0.750**" not in trained.text
    assert trained.data.base_model == "org/shop" and trained.data.language == ["en"]
