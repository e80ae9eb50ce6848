"""What a run finds in its output directory, and what it takes up from there."""

import json
import os
import re
from pathlib import Path

from transformers.utils import logging

from glode.errors import InputError
from glode.files import remove
from glode.run.arguments import RunArguments
from glode.run.fingerprint import Fingerprint, check_parts
from glode.run.parts import checkpoints
from glode.training.arguments import GlodeTrainingArguments
from glode.training.checkpoints import damage, newest_checkpoint
from trainer_glode import DENOISING_STATE

LABELS = "pseudo_labels.safetensors"  # of the first round
PRETRAINED = "pretrained"  # the backbone of --pretrain_epochs

logger = logging.get_logger("glode")


def claim_output(training: GlodeTrainingArguments, run: RunArguments, fingerprint: Fingerprint) -> None:
    """Take the output directory for this run: what another one has left is refused or, with --overwrite, deleted.

    Raises:
        InputError: it holds parts of another run; or of the same one, and this run does not go on with it.
    """
    output, processes = Path(training.output_dir), training.distributed_state
    parts = parts_in(output, run)
    if not run.overwrite:
        check_parts(output, parts, fingerprint, resuming=bool(training.resume_from_checkpoint))
    processes.wait_for_everyone()  # all have looked before anything is changed
    if processes.is_main_process:
        if run.overwrite:
            for name in [*parts, *(("metrics.json", "README.md", "pseudo_labels.png") if parts else ())]:
                remove(output / name)
        if run.stage != "source":
            fingerprint.write(output)
    processes.wait_for_everyone()


def parts_in(output: Path, run: RunArguments) -> dict[str, Path]:
    """What this run would write or take up and is there already, of any number of teachers and rounds: name -> the directory
    where its fingerprint stands. What the arguments name is none of it."""
    parts: dict[str, Path] = {}
    begins = run.stage != "target" and not run.teachers
    if begins or run.pretrain_epochs:
        parts |= {name: output / name for name in (checkpoints("pretraining", 1), PRETRAINED)}
    if begins:
        parts |= {name: output / name for name in (*_found(output, "source_model"), *_found(output, "source", "_checkpoints"))}
    if run.stage != "source":
        labels = _found(output, "pseudo_labels", ".safetensors")
        parts |= {name: output for name in labels if not run.pseudo_labels or name != LABELS}
        parts |= dict.fromkeys(_found(output, "teacher_labels", ".jsonl"), output)
        parts |= {name: output / name for name in (*_found(output, "target", "_checkpoints"), *_found(output, "target_model"))}
        parts |= dict.fromkeys(("model.safetensors", "model.safetensors.index.json", "token_classifier", "adapter"), output)
    named = {Path(path).resolve() for path in (*(run.teachers or ()), run.pseudo_labels) if path}
    return {name: where for name, where in parts.items() if _is_there(output / name) and (output / name).resolve() not in named}


def _found(output: Path, name: str, suffix: str = "") -> list[str]:
    """The parts of several teachers or rounds, see `numbered`."""
    names = (path.name for path in output.iterdir()) if output.is_dir() else ()
    return sorted(found for found in names if re.fullmatch(rf"{name}(_\d+)?{re.escape(suffix)}", found))


def _is_there(part: Path) -> bool:
    return any(part.glob("checkpoint-*")) if part.name.endswith("_checkpoints") else part.exists()


def finished_part(training: GlodeTrainingArguments, name: str) -> Path | None:
    """What a run that is resumed has finished already: `pretrained`, `source_model`, `pseudo_labels.safetensors` or
    `target_model`, and those of further teachers and rounds, which are renamed into place when they are whole."""
    path = Path(training.output_dir, name)
    return path if training.resume_from_checkpoint and path.exists() else None


def finished_run(training: GlodeTrainingArguments, run: RunArguments) -> dict | None:
    """The metrics.json of a run that has trained all that the arguments ask for, and that is resumed; else None.

    Raises:
        InputError: it has ended, and lacks the token classifier, for which its refined pseudo labels are gone.
    """
    output = Path(training.output_dir)
    if training.resume_from_checkpoint != "auto" or run.stage == "source" or not list(output.glob("model*.safetensors")):
        return None
    try:
        metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if "target_model" not in metrics:
        return None
    if run.export_token_classifier and "token_classifier" not in metrics:
        if _is_there(output / "target_checkpoints"):
            return None
        raise InputError(
            f"--export_token_classifier: the run in {output} has ended without one, and the labels that it would learn are gone. "
            "Give --overwrite in place of --resume_from_checkpoint."
        )
    return metrics


def checkpoint_of(training: GlodeTrainingArguments, stage: str, number: int = 1) -> Path | None:
    """Where a stage goes on with --resume_from_checkpoint; None begins it.

    Args:
        stage: "pretraining", "source" or "target".
        number: which teacher or round, from 1 on.
    Raises:
        InputError: the given checkpoint is damaged.
    """
    wanted = training.resume_from_checkpoint
    if not wanted:
        return None
    if training.save_only_model:
        logger.warning("--save_only_model: checkpoints hold no state to go on from; the stage begins anew.")
        return None
    required = (DENOISING_STATE,) if stage == "target" else ()
    if wanted == "auto":
        return newest_checkpoint(Path(training.output_dir, checkpoints(stage, number)), required)
    if Path(wanted).resolve().parent.name != checkpoints(stage, number):
        return None
    if fault := damage(Path(wanted), required):
        raise InputError(f"--resume_from_checkpoint {wanted}: {fault}. Give another checkpoint, or auto for the newest.")
    return Path(wanted)


def remove_checkpoints(output: Path) -> None:
    """Delete what nothing needs once a run has ended: all of the stages' directories but the logs of trackers."""
    for directory in output.glob("*_checkpoints"):
        for path in directory.iterdir():
            if path.name != "runs":
                remove(path)
        if not any(directory.iterdir()):
            directory.rmdir()


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
