"""Where the pseudo labels of a target text lie."""

import platform
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset
from transformers.utils import logging

from glode.denoising.pseudo_labels import PseudoLabels
from glode.features.columns import numbers
from glode.training.arguments import GlodeTrainingArguments
from modeling_glode import GlodeConfig

logger = logging.get_logger("glode")


def empty_pseudo_labels(
    windows: Dataset, config: GlodeConfig, arguments: GlodeTrainingArguments, wait_for_everyone: Callable[[], None]
) -> PseudoLabels:
    """Pseudo labels of target windows, all "O": in memory, or beyond `pseudo_labels_in_memory` in a file. It loses its name as
    soon as all processes have it open, so that nothing is left of it, whatever ends the run.

    Raises:
        OSError: the output directory cannot be written, or has no room for it.
    """
    words = numbers(windows, "own_end") - numbers(windows, "own_start")
    length, types, file = config.max_span_length, config.num_labels, None
    megabytes = 4 * int(words.sum()) * length * types / 2**20
    if megabytes > arguments.pseudo_labels_in_memory:
        file = Path(arguments.output_dir, f"_pseudo_labels-{platform.node()}.float16")
        file.parent.mkdir(parents=True, exist_ok=True)
        if arguments.should_log:
            logger.warning(f"Pseudo labels of {megabytes:,.0f} MB lie in a file in {file.parent}, in half precision.")
    labels = PseudoLabels(words, length, types, arguments.device, file)
    wait_for_everyone()
    if file is not None:
        file.unlink(missing_ok=True)
    return labels
