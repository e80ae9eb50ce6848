"""The state of denoising in a checkpoint: the denoiser's tensors and the history of the pseudo labels, in one file."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from glode.errors import InputError
from glode.files import write_whole

DENOISING_STATE = "denoising_state.safetensors"
_HISTORY = "pseudo_label_history"


def save_denoising(path: Path, state: dict[str, Tensor], history: list[dict]) -> None:
    """Write both, whole or not at all."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in state.items()}
    with write_whole(path) as partial:
        save_file(tensors, partial, metadata={_HISTORY: json.dumps(history)})


def load_denoising(path: Path) -> tuple[dict[str, Tensor], list[dict]]:
    """What `save_denoising` wrote.

    Raises:
        InputError: another version of the program wrote it.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if _HISTORY not in metadata:
        raise InputError(
            f"{path} lacks the history of the pseudo labels: an older version wrote it. Begin in another --output_dir."
        )
    return load_file(path), json.loads(metadata[_HISTORY])
