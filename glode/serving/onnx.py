"""Exports a token classifier (`--export_token_classifier`) to ONNX, and checks ONNX Runtime's output against PyTorch's.

    pip install "glode[onnx]"
    glode export --model glode-demo/token_classifier --output glode-demo/onnx

torch's exporter does it: optimum-onnx 0.1 asks for transformers < 4.58.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from glode.errors import InputError, run_command

TEXTS = ["Maria Keller works for Siemens in Munich.", "王丽在北京的中国银行工作。", "ok"]


TOLERANCE = 1e-4


def export(model_directory: str, output: Path) -> float:
    """Write `model.onnx` beside the tokenizer's files.

    Returns:
        The largest difference of the logits, ONNX Runtime against PyTorch, over a padded batch and single texts.
    Raises:
        InputError: there is no token classifier in the directory, or a package is missing.
    """
    import numpy as np
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    try:
        import onnx  # noqa: F401  torch's exporter asks for these two
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:  # not among what training needs
        raise InputError(f'{error.name} is not installed, which the export takes: pip install "glode[onnx]".') from error
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
    shutil.copy(Path(model_directory) / "config.json", output / "config.json")
    session = onnxruntime.InferenceSession(output / "model.onnx", providers=["CPUExecutionProvider"])
    worst = 0.0
    for texts in (TEXTS, *([text] for text in TEXTS)):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        found = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})[0]
        real = inputs["attention_mask"].bool().numpy()
        worst = max(worst, float(np.abs(expected - found)[real].max()))
    return worst


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="glode export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="directory or Hub name of the token classifier")
    parser.add_argument("--output", type=Path, required=True, help="directory for model.onnx and the tokenizer")
    options = parser.parse_args(argv)
    worst = export(options.model, options.output)
    print(f"{options.output / 'model.onnx'}: logits differ from PyTorch's by at most {worst:.1e}")
    if worst > TOLERANCE:
        raise InputError(f"the exported model differs by more than {TOLERANCE}; do not use it. Reinstall the extra onnx.")


def run(argv: Sequence[str]) -> int:
    """The command: `main`, with its exit code."""
    return run_command(main, argv, resume="")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
