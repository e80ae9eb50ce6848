"""What a run that is resumed takes up from the run before it."""

import os
from collections.abc import Sequence
from pathlib import Path

from glode.errors import InputError
from glode.training.arguments import GlodeTrainingArguments
from glode.training.checkpoints import damage, newest_checkpoint
from modeling_glode import GlodeConfig
from trainer_glode import DENOISING_STATE


def finished_part(training: GlodeTrainingArguments, name: str) -> Path | None:
    """What a run that is resumed has finished already: `source_model` or `pseudo_labels.safetensors`, which are renamed into
    place when they are whole."""
    path = Path(training.output_dir, name)
    return path if training.resume_from_checkpoint and path.exists() else None


def checkpoint_of(training: GlodeTrainingArguments, stage: str, length: int, labels: Sequence[str]) -> Path | None:
    """Where a stage goes on with --resume_from_checkpoint; None begins it.

    Args:
        stage: "source" or "target".
        length, labels: L and the types of this run.
    Raises:
        InputError: the given checkpoint is not there or is damaged, or it is a model of other types or another span length.
    """
    wanted = training.resume_from_checkpoint
    if not wanted:
        return None
    required = (DENOISING_STATE,) if stage == "target" else ()
    if wanted == "auto":
        found = newest_checkpoint(Path(training.output_dir, f"{stage}_checkpoints"), required)
    else:
        found = Path(wanted) if Path(wanted).resolve().parent.name == f"{stage}_checkpoints" else None
        if found and (fault := damage(found, required)):
            raise InputError(f"--resume_from_checkpoint {wanted}: {fault}. Give another checkpoint, or auto for the newest.")
    if not found:
        return None
    saved = GlodeConfig.from_pretrained(found)
    its_length, its_types = saved.max_span_length, list(saved.id2label.values())
    if (its_length, its_types) != (length, list(labels)):
        raise InputError(
            f"--resume_from_checkpoint: {found} has L = {its_length} and types {its_types}; this run has L = {length} and "
            f"{list(labels)}. Give the data of the run that saved it, or another --output_dir."
        )
    return found


def check_writable(directory: Path) -> None:
    """Make the output directory.

    Raises:
        InputError: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--output_dir {directory} cannot be written ({error.strerror}). Choose another directory.") from error
