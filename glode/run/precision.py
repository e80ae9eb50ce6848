"""The precision of a run: the one that is asked for, that the run began with, or that is clearly faster here."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from transformers.utils import is_torch_bf16_gpu_available

from glode.run.arguments import ModelArguments, RunArguments
from glode.run.fingerprint import read_fingerprint
from glode.run.resuming import parts_in
from glode.training.arguments import GlodeTrainingArguments

CLEARLY = 1.3  # times as fast; below that fp32, which is exact, is worth more


class Choice(NamedTuple):
    """Whether bf16 is taken, how many times as fast it is where that was measured, and what the terminal tells of it."""

    bf16: bool
    factor: float | None = None
    told: str | None = None


def choose_precision(
    training: GlodeTrainingArguments, options: RunArguments, model: ModelArguments, measure: Callable[[], float]
) -> tuple[GlodeTrainingArguments, Choice]:
    """The arguments with bf16 or without it. Where they leave it open the first process decides, for all.

    Args:
        measure: how many times as fast a step is in bf16 as in fp32.
    """
    choice = Choice(training.mixed_precision == "bf16")
    if _is_open(training, options):
        decided: list[Any] = [_decide(training, options, model, measure) if training.process_index == 0 else None]
        choice = (broadcast_object_list(decided) if training.world_size > 1 else decided)[0]
    if training.bf16 is None:
        training = dataclasses.replace(training, bf16=choice.bf16)
    return training, choice


def _is_open(training: GlodeTrainingArguments, options: RunArguments) -> bool:
    """Whether the arguments, and those of `accelerate launch`, leave the precision to the run, and something is trained. A model
    that is spread over devices cannot be measured on one of them."""
    spread = (
        training.fsdp
        or training.deepspeed
        or any(parse_flag_from_env(f"ACCELERATE_USE_{kind}") for kind in ("FSDP", "DEEPSPEED"))
    )
    asked = training.bf16 is not None or training.mixed_precision != "no" or training.tf32 is not None
    only_scores = options.stage == "source" and options.teachers
    return not (asked or spread or only_scores)


def _decide(
    training: GlodeTrainingArguments, options: RunArguments, model: ModelArguments, measure: Callable[[], float]
) -> Choice:
    """The precision of a resumed run, the only one that the attention has, or the one that is clearly faster here."""
    if training.resume_from_checkpoint and (before := _precision_before(training, options)) is not None:
        return Choice(before, told=f"{_name(before)}, with which this run began")
    if (attention := model.attn_implementation).startswith("flash"):
        return Choice(True, told=f"bf16, as {attention} has no fp32")
    if training.device.type != "cpu" and not is_torch_bf16_gpu_available():
        return Choice(False)
    try:
        factor = round(measure(), 2)
    except torch.OutOfMemoryError:  # training may need less, with activation checkpointing
        return Choice(True, told="bf16, as the measurement in fp32 takes more memory than the device has")
    except RuntimeError:  # of one of its layers, as with DeBERTa and X-MOD
        return Choice(False, told="fp32, as this encoder does not compute in bf16")
    name = _name(bf16 := factor >= CLEARLY)
    told = f"{name}: a step in bf16 is {factor:g} times as fast as in fp32 here (--bf16 true|false overrides)"
    return Choice(bf16, factor, told)


def _precision_before(training: GlodeTrainingArguments, options: RunArguments) -> bool | None:
    """Whether the run that is resumed is in bf16, as its parts say; None where there are none. Its results would be others."""
    for directory in parts_in(Path(training.output_dir), options).values():
        fingerprint = read_fingerprint(directory)
        if fingerprint and isinstance(bf16 := fingerprint.values.get("bf16"), bool):
            return bf16
    return None


def _name(bf16: bool) -> str:
    return "bf16" if bf16 else "fp32"
