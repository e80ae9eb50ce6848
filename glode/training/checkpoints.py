"""From where a stopped run goes on: the newest checkpoint that is whole."""

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import logging

logger = logging.get_logger("glode")

# What training goes on with, beside the weights, as one process, FSDP and DeepSpeed write it.
_STATE = {
    "the optimizer's state": ("optimizer.pt", "optimizer.bin", "optimizer_*", "global_step*"),
    "the schedule's state": ("scheduler.pt", "global_step*"),
    "the random state": ("rng_state*.pth",),
}


def newest_checkpoint(directory: Path, required: Sequence[str] = ()) -> Path | None:
    """The `checkpoint-STEP` of the most steps that is not damaged; a damaged one is named. None where there is none.

    Args:
        directory: where a stage keeps its checkpoints.
        required: files that a checkpoint of this stage must have, beside weights and the Trainer's state.
    """
    found = [(int(match[1]), path) for path in directory.glob("checkpoint-*") if (match := re.search(r"-(\d+)$", path.name))]
    for _, path in sorted(found, reverse=True):
        fault = damage(path, required)
        if fault is None:
            return path
        logger.warning(f"{path} is damaged ({fault}); the one before it is taken.")
    return None


def damage(checkpoint: Path, required: Sequence[str] = ()) -> str | None:
    """What is wrong with a checkpoint; None where nothing is. Reads checksums and headers, unpickles nothing.

    A checkpoint without the state of optimizer, schedule or random numbers would begin these anew, and end as another run.
    """
    if missing := [name for name in ("trainer_state.json", *required) if not (checkpoint / name).is_file()]:
        return f"{missing[0]} is missing"
    if not list(checkpoint.glob("*.safetensors")):
        return "the weights are missing"
    for what, patterns in _STATE.items():
        if not any(path for pattern in patterns for path in checkpoint.glob(pattern)):
            return f"{what} is missing; --save_only_model leaves it out"
    for path in sorted(checkpoint.iterdir()):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):  # the header has to fit the file's size
                    pass
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix in (".pt", ".pth"):
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:
                        return f"{path.name} has a wrong checksum"
        except (SafetensorError, ValueError, OSError, zipfile.BadZipFile) as error:
            return f"{path.name}: {str(error).splitlines()[0]}"
    return None
