"""Answers requests on Hugging Face Inference Endpoints; `Recommender` saves this file with every model.

An endpoint loads the class `EndpointHandler` from the repository and hands it the JSON body of each request. It needs
what `requirements.txt` beside it names, and runs the modelling code of the repository.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import pipeline

__all__ = ["EndpointHandler"]

BATCH_SIZE = 32


class EndpointHandler:
    """Recommends items for what people want and what they bought.

    Args:
        path: folder of the repository.
    """

    def __init__(self, path: str = "") -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.recommend = pipeline("generative-retrieval", model=path or ".", trust_remote_code=True, device=device)
        # Requests come from several threads, and a tokenizer changes its state at the first call.
        self.recommend.processor.margins  # noqa: B018

    def __call__(self, data: dict[str, Any]) -> list[Any]:
        """The best items of every request.

        Args:
            data: `inputs`, a request or a list of them: a text, or an object with `preference`, `history`, `avoid`,
                `exclude`, `top_k`, ...; and `parameters` for all of them, such as `{"top_k": 5}`.

        Returns:
            For one request, `[{"item_id", "title", "score"}, ...]`; for a list, a list of such lists.

        Raises:
            ValueError: if a request cannot be answered. The endpoint answers 400 with the sentence.
        """
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise ValueError(f"parameters={parameters!r}; send an object, such as {{'top_k': 5}}")
        inputs = data["inputs"] if "inputs" in data else {name: data[name] for name in data if name != "parameters"}
        try:
            return self.recommend(inputs, **{"batch_size": BATCH_SIZE, **parameters})
        except TypeError as error:
            raise ValueError(str(error)) from error
