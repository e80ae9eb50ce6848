"""Where the pseudo labels of a target text lie, and how several teachers write them."""

import platform
from collections.abc import Callable, Iterable
from pathlib import Path

from datasets import Dataset
from torch import Tensor
from transformers.utils import logging

from glode.denoising.gathering import Gather
from glode.denoising.pseudo_labels import PseudoLabels, harden_outside
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


def write_soft_labels(
    labels: PseudoLabels,
    batches: Iterable[tuple[dict[str, Tensor], Tensor]],
    temperature: float,
    hard_outside: bool,
    others: int,
    gather: Gather,
) -> PseudoLabels:
    """Store what a teacher says; where `others` have written before, their mean becomes the mean with this one's.

    Args:
        batches: of the target windows, each with its logits [batch, words, length, types], which are divided by `temperature`.
        hard_outside: whether what the teacher takes for no entity becomes a hard "O", see `harden_outside`.
    """
    for inputs, logits in batches:
        window, own_start, soft = inputs["window"], inputs["own_start"], (logits / temperature).softmax(-1)
        soft = harden_outside(soft, inputs["span_mask"]) if hard_outside else soft
        if not others:
            labels.write(window, own_start, soft, gather=gather)
            continue
        new = labels.refined_in[window] < others  # a window that fills up the last batch of several processes counts once
        before = labels.read(window, own_start, soft.shape[1])
        labels.write(window, own_start, before + (soft - before) / (others + 1), epoch=others, written=new, gather=gather)
    labels.refined_in.fill_(-1)  # which told the windows that this teacher has been at
    return labels
