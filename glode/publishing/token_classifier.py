"""A plain token classifier beside the span model: the hosted widget and ONNX Runtime know built-in architectures only.

It starts from the span model's encoder and learns the source labels and the refined pseudo labels of the target text, in running
text, as it will read it. `AutoModelForTokenClassification` and `pipeline` load it without any code of ours.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import Sequence as Steps
from tokenizers.pre_tokenizers import Split
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    TokenClassificationPipeline,
    Trainer,
    TrainingArguments,
    pipeline,
)

from glode.corpora.schemes import decode_tags
from glode.features.reach import gold_entities
from glode.metrics import entity_scores
from glode.training.adapters import adapt, merge_adapters
from glode.training.optimizer import give_head_its_rate
from glode.training.progress import watch
from modeling_glode import UNSPACED_CHARACTER, GlodeModel, join_unspaced

Entity = tuple[int, int, str]


_CLOSING, _OPENING = {"Pe", "Pf"}, {"Ps", "Pi"}


_ENDS_A_PHRASE = set(".,;:!?%…،؛؟।॥")
_LOW = {"“": "„", "‘": "‚"}  # what the low quotation mark began ends with one that begins elsewhere


def running_text(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join words as text is written: nothing before closing punctuation, after an opening bracket, within scripts without
    spaces and beside full-width punctuation; a space elsewhere.

    Returns:
        The text and each word's characters (start, end) in it.
    """
    text, offsets, starts_run, before = "", [], set(join_unspaced(words)[1]), ""
    for position, word in enumerate(words):
        ends = word in _LOW and text.count(_LOW[word]) > text.count(word)
        if text and position in starts_run and not (ends or _touch(before, word)):
            text += " "
        offsets.append((len(text), len(text) + len(word)))
        text += word
        before = "”" if ends else word[-1]
    return text, offsets


def _touch(before: str, word: str) -> bool:
    """Whether no space is written between a character and the word after it."""
    wide = any(unicodedata.category(c)[0] == "P" and unicodedata.east_asian_width(c) in "WF" for c in (before, word[0]))
    closes = unicodedata.category(word[0]) in _CLOSING or (len(word) == 1 and word in _ENDS_A_PHRASE)
    return wide or closes or unicodedata.category(before) in _OPENING


def tag_names(types: Sequence[str]) -> list[str]:
    """ "O" and the IOB2 tags of the types; `types` begins with "O"."""
    return ["O", *(f"{prefix}-{name}" for name in types[1:] for prefix in "BI")]


def by_character(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer that reads each character of a script without spaces as a word, in any text. The class is the generic one:
    those of some models forget such a step when they are loaded again."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    split = Split(Regex(f" ?{UNSPACED_CHARACTER}"), "isolated")  # with the space, which is the mark of a word for some
    backend.pre_tokenizer = Steps([split, backend.pre_tokenizer]) if backend.pre_tokenizer else split
    kept = {name: getattr(tokenizer, name) for name in ("model_max_length", "model_input_names")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **kept, **tokenizer.special_tokens_map)


def token_features(
    corpus: Dataset,
    entities: Sequence[Sequence[Entity]],
    tokenizer: PreTrainedTokenizerBase,
    tags: Sequence[str],
    max_tokens: int,
) -> Dataset:
    """Running text with a tag for each token; longer texts become windows that overlap by a quarter.

    Args:
        corpus: sentences, of which only the words are read.
        entities: (first word, length in words, type) of each sentence.
        tags: see `tag_names`.
    Returns:
        `input_ids`, `attention_mask` and `labels` (-100 at special tokens), one row a window.
    """
    ids, rows = {name: i for i, name in enumerate(tags)}, []
    for words, found in zip(corpus["words"], entities, strict=True):
        text, offsets = running_text(words)
        encoded = tokenizer(
            text,
            truncation=True,
            max_length=max_tokens,
            stride=max_tokens // 4,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        spans = [(offsets[begin][0], offsets[begin + length - 1][1], name) for begin, length, name in found]
        for window, (places, special) in enumerate(zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)):
            labels = np.where(special, -100, 0)
            middle = np.array([(start + end) / 2 for start, end in places])
            for start, end, name in spans:
                inside = np.flatnonzero((middle > start) & (middle < end) & (labels != -100))
                if len(inside):
                    labels[inside] = ids[f"I-{name}"]
                    if places[inside[0]][0] <= start:  # else the entity began in the window before
                        labels[inside[0]] = ids[f"B-{name}"]
            rows.append(
                {
                    "input_ids": encoded["input_ids"][window],
                    "attention_mask": encoded["attention_mask"][window],
                    "labels": labels.tolist(),
                }
            )
    return Dataset.from_list(rows)


class TokenClassifierTrainer(Trainer):
    """An ordinary Trainer whose classifier learns at `head_learning_rate`, as the span model's does."""

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        return give_head_its_rate(super().create_optimizer(model), self.model.base_model, self.args.head_learning_rate)

    def create_model_card(self, *args, **kwargs) -> None:
        """The card belongs to the run."""


def train_token_classifier(
    backbone: str,
    model: GlodeModel,
    tokenizer: PreTrainedTokenizerBase,
    arguments: TrainingArguments,
    source: Dataset,
    dev: Dataset,
    target: Dataset,
    target_entities: Sequence[Sequence[Entity]],
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
) -> TokenClassifierTrainer:
    """Train on source labels and pseudo labels; the checkpoint is the one of the best source development F1.

    Args:
        backbone: the encoder's path, for its configuration.
        model: the trained span model, whose encoder is the start.
        source, dev: labelled sentences.
        target: target sentences, of which only the words are read.
        target_entities: their refined pseudo labels.
        lora_rank, lora_alpha: of adapters, which alone learn in the encoder; see `adapt`. They are merged at the end.
    """
    config, tags = model.config, tag_names(list(model.config.id2label.values()))
    tokenizer = by_character(tokenizer) if config.units == "character" else tokenizer
    names = {"id2label": dict(enumerate(tags)), "label2id": {tag: i for i, tag in enumerate(tags)}}
    fresh = AutoModelForTokenClassification.from_config(AutoConfig.from_pretrained(backbone, **names))
    weights = {name: value for name, value in model.encoder.state_dict().items() if "pooler" not in name}
    fresh.base_model.load_state_dict(weights)
    if lora_rank:
        adapt(fresh.base_model, lora_rank, lora_alpha)
    parts = ((source, gold_entities(source)), (target, target_entities))
    train = concatenate_datasets([token_features(*part, tokenizer, tags, config.max_tokens) for part in parts])

    def scores(prediction) -> dict[str, float]:
        gold, found = (_entities_of(rows, prediction.label_ids, tags) for rows in (prediction.label_ids, prediction.predictions))
        return {name: value for name, value in entity_scores(gold, found).items() if name in ("precision", "recall", "f1")}

    trainer = TokenClassifierTrainer(
        model=fresh,
        args=arguments,
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        train_dataset=train,
        eval_dataset=token_features(dev, gold_entities(dev), tokenizer, tags, config.max_tokens),
        compute_metrics=scores,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    watch(trainer, "token classifier")
    trainer.train()
    if lora_rank:
        merge_adapters(fresh.base_model)
    return trainer


def _entities_of(rows: np.ndarray, labels: np.ndarray, tags: Sequence[str]) -> list[list[Entity]]:
    """The entities, in tokens, of [sentences, tokens] tag numbers where `labels` are not -100."""
    return [decode_tags([tags[i] for i in row[known]], "IOB") for row, known in zip(rows, labels != -100, strict=True)]


def predict_entities(directory: Path, corpus: Dataset, max_tokens: int, device: torch.device) -> list[list[Entity]]:
    """What the built-in pipeline finds in a corpus' sentences, see `find_entities`."""
    ner = pipeline("token-classification", model=str(directory), aggregation_strategy="simple", device=device)
    ner.tokenizer.model_max_length = max_tokens
    return find_entities(ner, corpus["words"])


def find_entities(
    ner: TokenClassificationPipeline, sentences: Iterable[Sequence[str]], batch_size: int = 32, threshold: float = 0.0
) -> list[list[Entity]]:
    """What a built-in pipeline finds in sentences, written as running text; its windows overlap by a quarter.

    Args:
        batch_size: texts at a time.
        threshold: the least score of an entity.
    Returns:
        (first word, length in words, type). The length of an entity whose borders are no words' borders is negative, that of
        the words that it touches: no gold entity has it.
    """
    texts, offsets = zip(*(running_text(words) for words in sentences), strict=True)
    stride = ner.tokenizer.model_max_length // 4
    found = []
    for text, spans, entities in zip(texts, offsets, ner(list(texts), batch_size=batch_size, stride=stride), strict=True):
        starts, ends = zip(*spans, strict=True)
        words = []
        for entity in entities:
            start, end = entity["start"], entity["end"]
            start += len(text[start:end]) - len(text[start:end].lstrip())
            first, after = bisect_right(ends, start), bisect_left(starts, end)
            if first < after and entity["score"] >= threshold:  # white space alone is nothing that anybody sees
                whole = (starts[first], ends[after - 1]) == (start, end)
                words.append((first, after - first if whole else first - after, entity["entity_group"]))
        found.append(words)
    return found
