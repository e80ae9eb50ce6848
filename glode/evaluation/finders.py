"""What finds entities in the words of a gold file: a model of ours, or a token classifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TokenClassificationPipeline,
)

from glode.corpora.schemes import PREFIXED
from glode.errors import InputError
from glode.metrics import Entity, entities_of
from glode.publishing.token_classifier import find_entities
from glode.serving.tag import load_model, move
from modeling_glode import GlodeModel

LONGEST_WINDOW = 256  # tokens; a token classifier that takes fewer gets as many as it takes
IOB2 = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}  # what the built-in pipeline does not know -> what it does


@dataclass(frozen=True)
class FinderSettings:
    """How entities are found.

    Attributes:
        batch_size: windows, or texts of a token classifier, at a time.
        threshold: the least score of an entity.
        nested: entities within entities too; of our models alone.
        aggregation_strategy: how a token classifier's pipeline makes entities of tokens.
        device, dtype: where and in which numbers.
    """

    batch_size: int = 32
    threshold: float = 0.0
    nested: bool = False
    aggregation_strategy: str = "simple"
    device: str | None = None
    dtype: str = "float32"


class SpanFinder:
    """A model of ours. `types` are those that it knows."""

    def __init__(self, name: str, settings: FinderSettings):
        self.model, self.tokenizer = load_model(name, settings.device, settings.dtype)
        self.settings, self.types = settings, list(self.model.config.id2label.values())[1:]

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[Entity]]:
        """(first word, length in words, type) of each sentence's entities."""
        how = (self.settings.batch_size, self.settings.threshold, self.settings.nested)
        found = cast(list[list[dict]], self.model.predict(sentences, self.tokenizer, *how))
        return entities_of(found)


class TokenFinder:
    """A token classifier, as its pipeline reads running text. `types` are those that it knows."""

    def __init__(self, name: str, settings: FinderSettings):
        if settings.nested:
            raise InputError(f"--nested: --model {name} is a token classifier, which finds no entities within entities.")
        model, tokenizer = load_token_classifier(name, settings.dtype)
        labels = {i: _as_iob2(label) for i, label in model.config.id2label.items()}
        model.config.id2label, self.settings = labels, settings
        positions = getattr(model.config, "max_position_embeddings", 0) or 0
        takes = [LONGEST_WINDOW, tokenizer.model_max_length, *([positions - 2] if positions > 2 else [])]
        tokenizer.model_max_length = min(takes)
        model = move(model, settings.device)
        strategy = settings.aggregation_strategy
        self.ner = TokenClassificationPipeline(
            model=model, tokenizer=tokenizer, aggregation_strategy=strategy, device=model.device
        )
        self.types = sorted({_type_of(label) for label in labels.values()} - {"O"})

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[Entity]]:
        """(first word, length in words, type) of each sentence's entities, see `find_entities` for those within words."""
        return find_entities(self.ner, sentences, self.settings.batch_size, self.settings.threshold)


Finder = SpanFinder | TokenFinder


def load_finder(name: str, settings: FinderSettings) -> Finder:
    """What finds entities under a name on disk or on the Hub.

    Raises:
        InputError: there is no such model, or one of another kind, or no such device.
    """
    try:
        config, reason = PretrainedConfig.get_config_dict(name)[0], "there is none."
    except OSError as error:
        config, reason = {}, " ".join(str(error).split())[:200]
    if not config:
        raise InputError(f"--model {name} has no config.json that can be read: {reason}")
    ours = config.get("model_type") == GlodeModel.config_class.model_type
    return (SpanFinder if ours else TokenFinder)(name, settings)


def load_token_classifier(name: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A built-in token classifier and its tokenizer.

    Raises:
        InputError: it is another kind of model, cannot be loaded, or its tokenizer does not say where a token stands in the text.
    """
    kinds = PretrainedConfig.get_config_dict(name)[0].get("architectures") or []
    if not any(kind.endswith("ForTokenClassification") for kind in kinds):
        raise InputError(
            f"--model {name} is neither a model of ours nor a token classifier, but {', '.join(kinds) or 'of no kind'}. Give one "
            "that finds entities."
        )
    try:
        model = AutoModelForTokenClassification.from_pretrained(name, dtype=getattr(torch, dtype)).eval()
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--model {name} does not load as a token classifier: {reason}") from error
    if not tokenizer.is_fast:
        raise InputError(f"--model {name}: its tokenizer does not tell where a token stands in the text. Save a fast one.")
    return model, tokenizer


def _as_iob2(label: str) -> str:
    match = PREFIXED.match(label)
    return f"{IOB2.get(match[1], match[1])}-{match[2]}" if match else label


def _type_of(label: str) -> str:
    match = PREFIXED.match(label)
    return match[2] if match else label
