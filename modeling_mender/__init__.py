"""Mender: generative retrieval steered by preferences in natural language.

Importing this package registers its classes, so that `AutoConfig`, `AutoModel` and `AutoProcessor` load saved models.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor

from .catalogue import SemanticIdCatalogue
from .configuration_mender import MenderConfig
from .custom_generation import catalogue_beam_search
from .encoder_states import EncoderStates
from .logits_process import SemanticIdLogitsProcessor
from .lora import add_lora, lora_config
from .modeling_mender import MenderForGenerativeRetrieval
from .processing_mender import MenderProcessor
from .quantizers import ResidualKMeans
from .retrieval import Recommendations
from .rq_vae import RqVae, RqVaeConfig
from .semantic_ids import SemanticIdReport, break_ties
from .trainer import MenderCollator, MenderTrainer, MenderTrainingArguments, prepare_examples

AutoConfig.register(MenderConfig.model_type, MenderConfig, exist_ok=True)
AutoModel.register(MenderConfig, MenderForGenerativeRetrieval, exist_ok=True)
AutoModelForSeq2SeqLM.register(MenderConfig, MenderForGenerativeRetrieval, exist_ok=True)
AutoProcessor.register(MenderConfig, MenderProcessor, exist_ok=True)

__all__ = [
    "EncoderStates",
    "MenderCollator",
    "MenderTrainer",
    "MenderTrainingArguments",
    "prepare_examples",
    "MenderConfig",
    "MenderForGenerativeRetrieval",
    "MenderProcessor",
    "Recommendations",
    "ResidualKMeans",
    "RqVae",
    "RqVaeConfig",
    "SemanticIdCatalogue",
    "SemanticIdLogitsProcessor",
    "SemanticIdReport",
    "catalogue_beam_search",
    "add_lora",
    "break_ties",
    "lora_config",
]
