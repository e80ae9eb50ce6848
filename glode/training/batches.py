"""The collator that the arguments of training ask for, and what its batches hold on the mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from glode.features.collator import GlodeCollator
from glode.features.columns import list_lengths
from glode.training.arguments import GlodeTrainingArguments


def make_collator(
    tokenizer: PreTrainedTokenizerBase, arguments: GlodeTrainingArguments, max_span_length: int, masks: bool, **options: Any
) -> GlodeCollator:
    """A collator with the masks of the arguments, where a language model reads them; `options` are the collator's others."""
    return GlodeCollator(
        tokenizer,
        max_span_length,
        mlm_probability=arguments.mlm_probability if masks else 0.0,
        mlm_text=arguments.mlm_text,
        mlm_whole_words=arguments.mlm_whole_words,
        mlm_hide_masked=arguments.mlm_hide_masked,
        seed=arguments.seed,
        **options,
    )


def mean_masked(texts: Sequence[Dataset], tokenizer: PreTrainedTokenizerBase, arguments: GlodeTrainingArguments) -> float:
    """How many tokens of a batch are masked on the mean; the windows of `texts` are what the language model reads."""
    special = tokenizer.num_special_tokens_to_add()
    tokens = sum(np.mean(list_lengths(text, "input_ids")) - special for text in texts) if texts else 1.0
    return arguments.per_device_train_batch_size * tokens * arguments.mlm_probability
