"""Serves the model as an Inference Endpoint; travels with the model's repository."""

from typing import Any

import torch
from transformers import AutoTokenizer

from modeling_glode import GlodeModel, GlodePipeline

PARAMETERS = {"threshold": float, "nested": bool, "aggregation_strategy": str}


class EndpointHandler:
    """`{"inputs": text or texts, "parameters": {"threshold": 0.5, "nested": false}}` -> entities.

    Args:
        path: the repository's directory.
    """

    def __init__(self, path: str = ""):
        device = 0 if torch.cuda.is_available() else -1
        model, tokenizer = GlodeModel.from_pretrained(path), AutoTokenizer.from_pretrained(path, trust_remote_code=True)
        self.pipeline = GlodePipeline(model=model, tokenizer=tokenizer, device=device)

    def __call__(self, data: dict[str, Any]) -> list:
        """One list of entities for a text, a list of them for several.

        Raises:
            ValueError: the payload is not as described; the endpoint answers 400 with the message.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError('expected {"inputs": text or list of texts, "parameters": {...}}')
        inputs, parameters = data["inputs"], data.get("parameters") or {}
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('"inputs" must be a text or a list of texts')
        if not isinstance(parameters, dict):
            raise ValueError('"parameters" must be an object')
        for name, value in parameters.items():
            if name not in PARAMETERS:
                raise ValueError(f"there is no parameter {name!r}; known: {', '.join(PARAMETERS)}")
            kind = PARAMETERS[name]
            if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
                raise ValueError(f"parameter {name!r} must be of type {kind.__name__}")
        found = self.pipeline(texts, batch_size=min(len(texts), 32), **parameters) if texts else []
        return found[0] if isinstance(inputs, str) else found
