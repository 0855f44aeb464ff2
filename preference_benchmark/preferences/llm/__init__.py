"""Preferences written by a language model: prompts, engines that run the model, and the cache of answers."""

from __future__ import annotations

from preference_benchmark.preferences.llm.answers import Estimate, Prices, WritingReport
from preference_benchmark.preferences.llm.approximator import Interrupted, LlmApproximator, Useless, first_users
from preference_benchmark.preferences.llm.engine import Completion, Engine, Key, Request, Sampling
from preference_benchmark.preferences.llm.local_model import LocalModel
from preference_benchmark.preferences.llm.prompts import PROMPTS, Prompt, prompt_named
from preference_benchmark.preferences.llm.server import OpenAIServer
from preference_benchmark.preferences.llm.server_features import ServerFeatures, look_at, prompt_for

__all__ = [
    "PROMPTS",
    "Completion",
    "Engine",
    "Estimate",
    "Interrupted",
    "Key",
    "LlmApproximator",
    "LocalModel",
    "OpenAIServer",
    "Prices",
    "Prompt",
    "Request",
    "Sampling",
    "ServerFeatures",
    "WritingReport",
    "Useless",
    "first_users",
    "look_at",
    "prompt_for",
    "prompt_named",
]
