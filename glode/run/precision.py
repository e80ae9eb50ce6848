"""The precision of a run: the one that is asked for, that the run began with, or that is clearly faster here."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers.utils import is_torch_bf16_gpu_available

from glode.run.arguments import RunArguments
from glode.run.fingerprint import read_fingerprint
from glode.run.resuming import parts_in
from glode.training.arguments import GlodeTrainingArguments

CLEARLY = 1.3  # times as fast; below that fp32, which is exact, is worth more


def choose_precision(
    training: GlodeTrainingArguments, options: RunArguments, measure: Callable[[], float]
) -> tuple[GlodeTrainingArguments, dict[str, Any], str | None]:
    """The arguments with bf16 or without it. Where they leave it open the first process decides, for all.

    Args:
        measure: how many times as fast a step is in bf16 as in fp32.
    Returns:
        The arguments; what is told in metrics.json; and on the terminal, None where nothing was chosen.
    """
    if is_open(training, options):
        decided: list[Any] = [_decide(training, options, measure) if training.process_index == 0 else None]
        bf16, factor, told = (broadcast_object_list(decided) if training.world_size > 1 else decided)[0]
    else:
        bf16, factor, told = training.mixed_precision == "bf16", None, None
    if training.bf16 is None:
        training = dataclasses.replace(training, bf16=bf16)
    return training, {"mixed_precision": training.mixed_precision, "bf16_speedup": factor}, told


def is_open(training: GlodeTrainingArguments, options: RunArguments) -> bool:
    """Whether the arguments, and those of `accelerate launch`, leave the precision to the run, and something is trained. A model
    that is spread over devices cannot be measured on one of them."""
    spread = training.fsdp or training.deepspeed or any(f"ACCELERATE_USE_{kind}" in os.environ for kind in ("FSDP", "DEEPSPEED"))
    asked = training.bf16 is not None or training.mixed_precision != "no" or training.tf32 is not None
    only_scores = options.stage == "source" and options.teachers
    return not (asked or spread or only_scores)


def _decide(
    training: GlodeTrainingArguments, options: RunArguments, measure: Callable[[], float]
) -> tuple[bool, float | None, str | None]:
    """Whether bf16 is taken, how many times as fast it is, and what is told of it."""
    if training.resume_from_checkpoint and (before := precision_before(training, options)) is not None:
        return before, None, f"{_name(before)}, with which this run began"
    if training.device.type != "cpu" and not is_torch_bf16_gpu_available():
        return False, None, None
    factor = round(measure(), 2)
    bf16 = factor >= CLEARLY
    return (
        bf16,
        factor,
        f"{_name(bf16)}: a step in bf16 is {factor:g} times as fast as in fp32 here (--bf16 true|false overrides)",
    )


def precision_before(training: GlodeTrainingArguments, options: RunArguments) -> bool | None:
    """Whether the run that is resumed is in bf16, as its parts say; None where there are none. Its results would be others."""
    for directory in parts_in(Path(training.output_dir), options).values():
        fingerprint = read_fingerprint(directory)
        if fingerprint and isinstance(bf16 := fingerprint.values.get("bf16"), bool):
            return bf16
    return None


def _name(bf16: bool) -> str:
    return "bf16" if bf16 else "fp32"
