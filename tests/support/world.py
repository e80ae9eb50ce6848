"""Tiny encoders made from a configuration, a tokenizer trained on the spot, a small world of sentences."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedTokenizerFast

from glode.publishing.hub import copy_code
from modeling_glode import GlodeConfig, GlodeModel

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
}


ENCODERS = {
    "xlm-roberta": {"pad_token_id": 1},
    "bert": {},
    "modernbert": {"global_attn_every_n_layers": 1},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
}


PEOPLE = ["Anna Berg", "Karl Moor", "Ida", "Otto von Hagen", "Lea Stein"]


PLACES = ["Rome", "Oslo", "New York", "Kiel", "Bern"]


FRAMES = ["{p} lives in {l} .", "yesterday {p} flew to {l}", "in {l} it rains", "{p} met a friend", "nothing happened today ."]


def make_sentence(frame: str, person: str, place: str) -> dict:
    """A sentence in the columns of a corpus."""
    words, entities = [], []
    for part in frame.split():
        name = {"{p}": person, "{l}": place}.get(part)
        if name:
            entities.append((len(words), len(name.split()), "PER" if part == "{p}" else "LOC"))
        words += (name or part).split()
    begins, lengths, types = map(list, zip(*entities, strict=True)) if entities else ([], [], [])
    return {"words": words, "begins": begins, "lengths": lengths, "types": types}


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A small Unigram tokenizer with the outline of XLM-R's."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer goes through hash tables: order and last digits of what it finds are other ones in each process.
    pieces = [(piece, round(score, 1)) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    pieces[len(special) :] = sorted(pieces[len(special) :], key=lambda entry: (-entry[1], entry[0]))
    tokenizer.model = models.Unigram(pieces, unk_id=special.index("<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    names |= {"unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def tiny_encoder_config(kind: str, vocabulary: int, **options):
    """Configuration of a tiny encoder without dropout."""
    options = ENCODERS.get(kind, {}) | options
    config = AutoConfig.for_model(kind, **{**TINY, "vocab_size": vocabulary, "pad_token_id": 1, **options})
    for name in config.to_dict():
        if "drop" in name and isinstance(value := getattr(config, name), (int, float)) and not isinstance(value, bool):
            setattr(config, name, 0.0)
    return config


def save_random_model(directory: Path, tokenizer: PreTrainedTokenizerFast, **options) -> None:
    """A model with random weights that finds many entities, with its tokenizer and code."""
    torch.manual_seed(1)
    encoder = tiny_encoder_config("xlm-roberta", len(tokenizer))
    model = GlodeModel(GlodeConfig(encoder, max_span_length=3, max_tokens=32, **options))
    with torch.no_grad():
        model.classifier.linear.weight.mul_(20)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    copy_code(directory)
