"""The terminal belongs to the run: what libraries say there by themselves is shown with --log_level alone."""

import datasets
import huggingface_hub.utils
from transformers.utils import logging


def quieten(log_level: str) -> None:
    """Silence the libraries' warnings and bars, all but those of downloads; a --log_level shows them as they are.

    What they warn of is meant so here: a fresh head on a pretrained encoder, special tokens of the tokenizer's.
    """
    if log_level != "passive":
        logging.set_verbosity(logging.get_log_levels_dict()[log_level])
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    huggingface_hub.utils.enable_progress_bars()
