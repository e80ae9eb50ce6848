"""A token classifier as an ONNX file. torch's exporter writes it: optimum-onnx 0.1 asks for transformers < 4.58."""

import shutil
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer
from transformers.utils import cached_file

from glode.errors import InputError

TEXTS = ["Maria Keller works for Siemens in Munich.", "王丽在北京的中国银行工作。", "ok"]


def export(model_directory: str, output: Path) -> float:
    """Write `model.onnx` beside the tokenizer's files.

    Returns:
        The largest difference of the logits, ONNX Runtime against PyTorch, over a padded batch and single texts, as a share of
        the largest logit where that is over 1.
    Raises:
        InputError: there is no token classifier of that name.
    """
    try:
        model = AutoModelForTokenClassification.from_pretrained(model_directory, attn_implementation="eager").eval()
        tokenizer = AutoTokenizer.from_pretrained(model_directory)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{model_directory}: no token classifier ({str(error).splitlines()[0]}). Train one with --export_token_classifier."
        ) from error
    output.mkdir(parents=True, exist_ok=True)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    rows, tokens = torch.export.Dim("batch", min=1, max=1024), torch.export.Dim("tokens", min=2, max=512)
    torch.onnx.export(
        model,
        kwargs=inputs,
        f=str(output / "model.onnx"),
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_shapes={name: {0: rows, 1: tokens} for name in inputs},
        dynamo=True,
        external_data=False,
    )
    tokenizer.save_pretrained(output)
    shutil.copy(cast(str, cached_file(model_directory, "config.json")), output / "config.json")
    session = onnxruntime.InferenceSession(output / "model.onnx", providers=["CPUExecutionProvider"])
    worst = 0.0
    for texts in (TEXTS, *([text] for text in TEXTS)):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        found = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})[0]
        real = inputs["attention_mask"].bool().numpy()
        worst = max(worst, float(np.abs(expected - found)[real].max()) / max(1.0, float(np.abs(expected[real]).max())))
    return worst
