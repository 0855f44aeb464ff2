"""Mender: generative retrieval steered by preferences in natural language.

Importing this package registers its classes, so that `AutoConfig`, `AutoModel` and `AutoProcessor` load saved models
and `pipeline("generative-retrieval")` serves them. A saved model includes the code that it needs, so it can also be
loaded without this package. Quantizers, training and cards are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .catalogue import SemanticIdCatalogue
from .configuration_mender import ItemStatesConfig, MenderConfig
from .generation_mender import SemanticIdLogitsProcessor
from .item_filter import Recommendations
from .item_states import ItemStatesEncoder
from .modeling_experts import ExpertsConfig, ExpertsRecommender
from .modeling_mender import MenderForGenerativeRetrieval
from .modeling_sasrec import SasRecConfig, SasRecForSequentialRecommendation
from .pipeline_mender import TASK, GenerativeRetrievalPipeline
from .processing_mender import MenderProcessor

if TYPE_CHECKING:
    from .hub.card import write_card
    from .semantic_ids.residual_kmeans import ResidualKMeans
    from .semantic_ids.rq_vae import RqVae
    from .training.lora import add_lora
    from .training.methods import build_method
    from .training.presets import Preset, load_preset
    from .training.run import make_trainer
    from .training.trainer import MenderTrainer, MenderTrainingArguments

for _config, _model in (
    (MenderConfig, MenderForGenerativeRetrieval),
    (ItemStatesConfig, ItemStatesEncoder),
    (SasRecConfig, SasRecForSequentialRecommendation),
    (ExpertsConfig, ExpertsRecommender),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoProcessor.register(_config, MenderProcessor, exist_ok=True)
    _config.register_for_auto_class()
    _model.register_for_auto_class()
AutoModelForSeq2SeqLM.register(MenderConfig, MenderForGenerativeRetrieval, exist_ok=True)
MenderProcessor.register_for_auto_class()
PIPELINE_REGISTRY.register_pipeline(TASK, GenerativeRetrievalPipeline, pt_model=AutoModel)

__all__ = [
    "ExpertsRecommender",
    "GenerativeRetrievalPipeline",
    "MenderConfig",
    "MenderForGenerativeRetrieval",
    "MenderProcessor",
    "MenderTrainer",
    "MenderTrainingArguments",
    "Preset",
    "Recommendations",
    "ResidualKMeans",
    "RqVae",
    "SasRecForSequentialRecommendation",
    "SemanticIdCatalogue",
    "SemanticIdLogitsProcessor",
    "add_lora",
    "build_method",
    "load_preset",
    "make_trainer",
    "write_card",
]

_MODULES = {
    "MenderTrainer": "training.trainer",
    "MenderTrainingArguments": "training.trainer",
    "Preset": "training.presets",
    "ResidualKMeans": "semantic_ids.residual_kmeans",
    "RqVae": "semantic_ids.rq_vae",
    "add_lora": "training.lora",
    "build_method": "training.methods",
    "load_preset": "training.presets",
    "make_trainer": "training.run",
    "write_card": "hub.card",
}


def __getattr__(name: str) -> Any:
    """Imports a name of a subpackage on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
