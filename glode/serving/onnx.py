"""Exports a model to ONNX, in numbers of 32 or (--int8) of 8 bits, and checks ONNX Runtime's output against PyTorch's.

    pip install "glode[onnx]"
    glode export --model glode-demo --format onnx --int8 --gold gold.conll
    glode tag --model glode-demo/onnx-int8 --input big.txt --output big.jsonl

The model is a span model or a token classifier (`--export_token_classifier`). The directory that is written is used as the
model's own is. With --gold F1 and words a second are printed, beside PyTorch's, and written to its README.md.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glode.errors import InputError, run_command
from glode.parser import parse

TOLERANCE = 1e-5  # of the largest logit, and at least of 1: fp32 has seven digits
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of which torch's exporter asks for the first two


@dataclass
class ExportArguments:
    """What is exported, and how."""

    model: str = field(metadata={"help": "Directory of a span model or a token classifier, or its repository on the Hub."})
    output: str | None = field(
        default=None, metadata={"help": "Directory to write. Default: onnx, or onnx-int8, in the model's directory."}
    )
    format: str = field(default="onnx", metadata={"help": "What is written.", "choices": ["onnx"]})
    int8: bool = field(
        default=False, metadata={"help": "The encoder of a span model in numbers of 8 bits: several times faster on a CPU."}
    )
    gold: str | None = field(
        default=None, metadata={"help": "Labelled file: F1 and words a second of a span model, before and after."}
    )
    batch_size: int = field(default=32, metadata={"help": "Windows at a time, with --gold."})

    def __post_init__(self):
        if self.batch_size < 1:
            raise InputError(f"--batch_size {self.batch_size}: give at least 1 window.")
        if self.output is None and not Path(self.model).is_dir():
            raise InputError(f"--model {self.model} is no directory here to write the export into: give --output.")
        if self.directory.resolve() == Path(self.model).resolve():
            raise InputError("--output is the directory of the model itself. Name another one.")

    @property
    def directory(self) -> Path:
        return Path(self.output or Path(self.model) / ("onnx-int8" if self.int8 else "onnx"))


def check_packages() -> None:
    """Whether all is there that an export takes.

    Raises:
        InputError: a package is missing.
    """
    for name in PACKAGES:
        try:
            __import__(name)
        except ImportError as error:  # not among what training needs
            raise InputError(f'{name} is not installed, which the export takes: pip install "glode[onnx]".') from error


def check_difference(worst: float) -> None:
    """Whether the largest difference of the logits, a share of the largest one, is what rounding brings.

    Raises:
        InputError: the exported model computes something else.
    """
    if not worst <= TOLERANCE:
        raise InputError(f"the exported model differs by more than {TOLERANCE}; do not use it. Reinstall the extra onnx.")


def check_directory(directory: Path) -> None:
    """Whether all that an export would write over in a directory is an earlier export.

    Raises:
        InputError: there is something else.
    """
    there = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    if there and not (directory / "model.onnx").is_file():
        raise InputError(f"--output {directory} has files that are no export, and some would be written over. Name a new one.")


def main(argv: Sequence[str]) -> None:
    """Export what the arguments name."""
    arguments = parse(ExportArguments, argv, prog="glode export", description=__doc__.split("\n\n")[0])
    check_packages()
    from transformers import PretrainedConfig

    from modeling_glode import GlodeConfig

    try:
        config, reason = PretrainedConfig.get_config_dict(arguments.model)[0], "it lacks config.json."
    except OSError as error:
        config, reason = {}, " ".join(str(error).split())[:200]
    if not config and (arguments.int8 or arguments.gold):
        raise InputError(f"--model {arguments.model} is no model that can be exported: {reason}")
    logging.disable(logging.WARNING)  # exporter and quantiser tell of packages and steps that nobody has asked for
    try:
        _export(arguments, config.get("model_type") == GlodeConfig.model_type)
    finally:
        logging.disable(logging.NOTSET)


def _export(arguments: ExportArguments, has_spans: bool) -> None:
    from glode.serving import onnx_spans, onnx_tokens

    directory = arguments.directory
    check_directory(directory)
    if has_spans:
        export = onnx_spans.SpanExport(arguments.model, directory)
        if arguments.gold:
            export.read_gold(arguments.gold)
        worst = export.write()
    elif arguments.int8 or arguments.gold:
        raise InputError(f"--int8 and --gold are for span models, and {arguments.model} is none. Leave them out.")
    else:
        worst = onnx_tokens.export(arguments.model, directory)
    print(f"{directory / 'model.onnx'}: logits in 32 bits differ from PyTorch's by at most {worst:.1e}")
    check_difference(worst)
    if arguments.int8:
        export.quantize()
    if arguments.gold:
        export.compare(arguments.batch_size)


def run(argv: Sequence[str]) -> int:
    """The command: `main`, with its exit code."""
    return run_command(main, argv, resume="")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
