"""The collator that the arguments of training ask for."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from glode.features.collator import GlodeCollator
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
