"""Mender: generative retrieval steered by preferences in natural language.

Importing this package registers its classes, so that `AutoConfig`, `AutoModel` and `AutoProcessor` load saved models
and `pipeline("generative-retrieval")` serves them. What is saved carries its code, for those who lack the package.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .adapter_card import save_adapter, write_adapter_card
from .catalogue import SemanticIdCatalogue
from .code_tokens import add_code_tokens
from .configuration_mender import ItemStatesConfig, MenderConfig
from .generation_mender import SemanticIdLogitsProcessor, catalogue_beam_search
from .item_states import ItemStatesEncoder, encode_titles
from .model_card import write_card
from .modeling_baselines import PopularityConfig, PopularityRecommender, TextRetrievalConfig, TextRetrievalRecommender
from .modeling_experts import ExpertsConfig, ExpertsRecommender
from .modeling_mender import MenderForGenerativeRetrieval
from .modeling_sasrec import SasRecConfig, SasRecForSequentialRecommendation
from .pipeline_mender import TASK, GenerativeRetrievalPipeline
from .processing_mender import MenderProcessor
from .retrieval import Recommendations
from .semantic_ids.residual_kmeans import ResidualKMeans
from .semantic_ids.rq_vae import RqVae, RqVaeConfig
from .semantic_ids.tie_breaking import SemanticIdReport, break_ties
from .steering_examples import SteeringExample, pick_request, steer
from .training.data import select_axes
from .training.encoder_states import EncoderStates
from .training.lora import add_lora, lora_config
from .training.methods import Method, build_method, init_from_codebooks
from .training.presets import Preset, load_preset, preset_names
from .training.run import fit_without_gradient, make_trainer
from .training.trainer import MenderCollator, MenderTrainer, MenderTrainingArguments, prepare_examples, ranking_metrics

for _config, _model in (
    (MenderConfig, MenderForGenerativeRetrieval),
    (ItemStatesConfig, ItemStatesEncoder),
    (SasRecConfig, SasRecForSequentialRecommendation),
    (PopularityConfig, PopularityRecommender),
    (TextRetrievalConfig, TextRetrievalRecommender),
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
    "EncoderStates",
    "ExpertsConfig",
    "ExpertsRecommender",
    "GenerativeRetrievalPipeline",
    "ItemStatesConfig",
    "ItemStatesEncoder",
    "MenderCollator",
    "MenderConfig",
    "MenderForGenerativeRetrieval",
    "MenderProcessor",
    "MenderTrainer",
    "MenderTrainingArguments",
    "Method",
    "PopularityConfig",
    "PopularityRecommender",
    "Preset",
    "Recommendations",
    "ResidualKMeans",
    "RqVae",
    "RqVaeConfig",
    "SasRecConfig",
    "SasRecForSequentialRecommendation",
    "SemanticIdCatalogue",
    "SemanticIdLogitsProcessor",
    "SemanticIdReport",
    "SteeringExample",
    "TextRetrievalConfig",
    "TextRetrievalRecommender",
    "add_code_tokens",
    "add_lora",
    "break_ties",
    "build_method",
    "catalogue_beam_search",
    "encode_titles",
    "fit_without_gradient",
    "init_from_codebooks",
    "load_preset",
    "lora_config",
    "make_trainer",
    "pick_request",
    "prepare_examples",
    "preset_names",
    "ranking_metrics",
    "save_adapter",
    "select_axes",
    "steer",
    "write_adapter_card",
    "write_card",
]
