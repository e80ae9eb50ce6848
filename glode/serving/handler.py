"""Serves the model as an Inference Endpoint; travels with the model's repository."""

from typing import Any

import torch
from transformers import AutoTokenizer

from modeling_glode import GlodePipeline, load_glode

# What InferenceClient sends, and the two of our own.
PARAMETERS: dict[str, type] = {
    "aggregation_strategy": str,
    "ignore_labels": list,
    "stride": int,
    "threshold": float,
    "nested": bool,
}


class EndpointHandler:
    """`{"inputs": text or texts, "parameters": {"threshold": 0.5, "ignore_labels": ["MISC"]}}` -> entities.

    Args:
        path: the repository's directory.
    """

    def __init__(self, path: str = ""):
        device = 0 if torch.cuda.is_available() else -1
        model = load_glode(path)
        tokenizer = AutoTokenizer.from_pretrained(path, config=model.config)  # without it, asks to run the model's code
        self.pipeline = GlodePipeline(model=model, tokenizer=tokenizer, device=device)

    def __call__(self, data: dict[str, Any]) -> list:
        """One list of entities for a text, a list of them for several.

        Raises:
            ValueError: the payload is not as described; the endpoint answers 400 with the message.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError('expected {"inputs": text or list of texts, "parameters": {...}}')
        inputs, parameters = data["inputs"], checked(data.get("parameters"))
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('"inputs" must be a text or a list of texts')
        found = self.pipeline(texts, batch_size=min(len(texts), 32), **parameters) if texts else []
        return found[0] if isinstance(inputs, str) else found


def checked(parameters: Any) -> dict[str, Any]:
    """The parameters that are given; null is one left out.

    Raises:
        ValueError: there is no such parameter, or it is of another type.
    """
    if not isinstance(parameters, dict | None):
        raise ValueError('"parameters" must be an object')
    given = {name: value for name, value in (parameters or {}).items() if name not in PARAMETERS or value is not None}
    for name, value in given.items():
        if name not in PARAMETERS:
            raise ValueError(f"there is no parameter {name!r}; known: {', '.join(PARAMETERS)}")
        kind = PARAMETERS[name]
        if kind is list:
            fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        else:
            fits = isinstance(value, bool) == (kind is bool) and isinstance(value, (int, float) if kind is float else kind)
        if not fits:
            raise ValueError(f"parameter {name!r} must be of type {'list of strings' if kind is list else kind.__name__}")
    return given
