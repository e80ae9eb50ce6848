"""What can be told to be wrong from the arguments of a run alone."""

import math
import re
from collections.abc import Callable
from pathlib import Path

from glode.errors import InputError
from glode.run.arguments import DataArguments, ModelArguments, RunArguments
from glode.run.parts import checkpoints
from glode.run.resuming import parts_in
from glode.training.adapters import check_peft
from glode.training.arguments import GlodeTrainingArguments

_RANGES: dict[str, tuple[tuple[str, ...], Callable[[float], bool]]] = {
    "from 1 on": (
        (
            *("max_source_samples", "max_target_samples", "max_span_length", "projection_size", "num_neighbors"),
            *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "beta_epochs"),
            *("datastore_size", "num_teachers", "teacher_requests", "rounds", "lora_rank"),
        ),
        lambda value: value >= 1,
    ),
    "from 8 on": (("max_tokens",), lambda value: value >= 8),
    "above 0": (
        (
            *("num_train_epochs", "source_num_train_epochs", "token_classifier_epochs", "learning_rate", "head_learning_rate"),
            *("target_train_weight", "lora_alpha"),
        ),
        lambda value: 0 < value < math.inf,
    ),
    "from 0 to 1": (
        (
            *("neighbor_share", "prototype_decay", "beta_start", "beta_end", "datastore_outside_share", "mlm_probability"),
            *("confidence_threshold", "dropout", "refine_start"),
        ),
        lambda value: 0 <= value <= 1,
    ),
    "from 0 on": (
        (
            *("mlm_weight", "contrastive_weight", "local_threshold_scale", "weight_decay", "pseudo_labels_in_memory"),
            *("mlm_head_warmup_steps", "pretrain_epochs"),
        ),
        lambda value: 0 <= value < math.inf,
    ),
}


def check_arguments(data: DataArguments, model: ModelArguments, training: GlodeTrainingArguments, run: RunArguments) -> None:
    """What can be told from the arguments alone.

    Raises:
        InputError: a number is out of range, or arguments contradict each other.
    """
    values = {name: value for arguments in (data, model, training, run) for name, value in vars(arguments).items()}
    for told, (names, fits) in _RANGES.items():
        for name in names:
            if (value := values.get(name)) is not None and not fits(value):
                raise InputError(f"--{name} {value} is out of range: expected a number {told}.")
    if (wanted := training.resume_from_checkpoint) and wanted != "auto":
        stage = Path(wanted).resolve().parent
        if not (Path(wanted).is_dir() and stage.name in _stages(run) and stage.parent == Path(training.output_dir).resolve()):
            raise InputError(
                f"--resume_from_checkpoint {wanted}: no checkpoint of --output_dir {training.output_dir}. Give auto."
            )
    if training.resume_from_checkpoint and run.overwrite:
        raise InputError("--overwrite deletes what --resume_from_checkpoint goes on with. Give one of them.")
    if training.push_to_hub and run.stage == "source" and run.teachers:
        raise InputError("--push_to_hub: --stage source with --teachers trains nothing that could be pushed.")
    if run.export_token_classifier and run.stage == "source":
        raise InputError("--export_token_classifier learns the pseudo labels of the target stage: give --stage all or target.")
    if data.target_train and run.stage == "source":
        raise InputError("--target_train joins the target stage, which --stage source leaves out. Give --stage all or target.")
    if model.attn_implementation.startswith("flash") and training.bf16 is False and not training.fp16:
        raise InputError(
            f"--attn_implementation {model.attn_implementation} computes in bf16 or fp16 alone. Leave --bf16 out, or take sdpa."
        )
    _check_adapters(model, run)
    _check_pretraining(model, training, run)
    _check_teachers(run)


def _check_adapters(model: ModelArguments, run: RunArguments) -> None:
    """Whether adapters can be had, and what is said of them means something.

    Raises:
        InputError: they cannot, or it does not.
    """
    if model.lora_rank is None:
        if model.lora_alpha is not None or run.save_adapter:
            raise InputError("--lora_alpha and --save_adapter say something of adapters. Give --lora_rank 16, or leave them out.")
        return
    check_peft()


def _check_pretraining(model: ModelArguments, training: GlodeTrainingArguments, run: RunArguments) -> None:
    """Whether there is something to pretrain, and a later run does not delete it unread.

    Raises:
        InputError: there is not, or it does.
    """
    backbone, output = Path(model.model_name_or_path).resolve(), Path(training.output_dir).resolve()
    deleted = {output / name for name in parts_in(output, run)} if run.overwrite else set()
    if deleted.intersection((backbone, *backbone.parents)):
        raise InputError(
            f"--overwrite would delete --model_name_or_path {model.model_name_or_path}. Give another --output_dir, or move it."
        )
    if run.pretrain_epochs and training.mlm_probability == 0:
        raise InputError("--pretrain_epochs learns to fill in masked words, and --mlm_probability 0 masks none. Leave one out.")
    if run.pretrain_epochs and run.save_adapter:
        raise InputError(
            "--save_adapter: an adapter fits the encoder of --pretrain_epochs alone. Pretrain in a run of its own, and give its "
            "pretrained/ as --model_name_or_path here."
        )
    if run.pretrain_epochs and run.stage == "source" and run.teachers:
        raise InputError("--pretrain_epochs: --stage source with --teachers scores models, and trains none. Leave it out.")


def _check_teachers(run: RunArguments) -> None:
    """Whether what is said of teachers and rounds can be done.

    Raises:
        InputError: it cannot, or would do nothing.
    """
    if run.num_teachers > 1 and (run.teachers or run.pseudo_labels or run.stage == "target"):
        raise InputError(
            "--num_teachers says how many source models are trained; --teachers, --pseudo_labels and --stage target train none. "
            "Leave it out."
        )
    if twice := [name for number, name in enumerate(run.teachers or ()) if name in (run.teachers or ())[:number]]:
        raise InputError(f"--teachers names {twice[0]} twice, and it would count once. Leave one of them out.")
    if run.rounds > 1 and run.stage == "source":
        raise InputError("--rounds repeats the target stage, which --stage source leaves out. Give --stage all.")
    one_by_one = run.rounds == 1 or run.calibrate == "teachers"  # later rounds have one teacher each
    if run.calibrate != "none" and (run.stage == "source" or (run.pseudo_labels and one_by_one)):
        raise InputError("--calibrate: no model labels the target text in this run. Leave it out.")
    if run.calibrate == "teachers" and max(run.num_teachers, len(run.teachers or ())) < 2:
        raise InputError(
            "--calibrate teachers asks how far several teachers agree: give --num_teachers 3, or several --teachers."
        )
    if run.teacher_price is not None:
        parse_price(run.teacher_price)


def parse_price(text: str) -> tuple[float, float]:
    """What a million tokens cost that are read, and that are written, of a --teacher_price.

    Raises:
        InputError: it is not two numbers.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(re.fullmatch(r"\d+(\.\d+)?", part.strip()) for part in parts):
        raise InputError(f"--teacher_price {text}: expected two numbers, READ,WRITTEN, such as 0.15,0.60.")
    return float(parts[0]), float(parts[1])


def _stages(run: RunArguments) -> set[str]:
    """The directories of the checkpoints that a run makes."""
    stages = {"pretraining": 1, "source": run.num_teachers, "target": run.rounds}
    return {checkpoints(stage, number) for stage, most in stages.items() for number in range(1, most + 1)}
