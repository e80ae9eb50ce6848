"""Fixtures that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import torch
from datasets import Dataset
from support.world import FRAMES, PEOPLE, PLACES, make_sentence, make_tokenizer, save_random_model, tiny_encoder_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from glode.corpora.schema import SENTENCE
from glode.teachers.gliner import FILE
from modeling_glode import GlodeModel, GlodePipeline


@pytest.fixture(scope="session")
def corpus() -> Dataset:
    """20 labelled sentences."""
    rows = [make_sentence(FRAMES[i % 5], PEOPLE[(i // 5 + i) % 5], PLACES[(i // 5 + 2 * i) % 5]) for i in range(20)]
    return Dataset.from_list(rows, features=SENTENCE)


@pytest.fixture(scope="session")
def tokenizer(corpus: Dataset) -> PreTrainedTokenizerFast:
    return make_tokenizer([" ".join(words) for words in corpus["words"]])


@pytest.fixture(scope="session")
def pieces() -> PreTrainedTokenizerFast:
    """A Unigram tokenizer that knows some Chinese pieces."""
    names = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        "▁",
        "在",
        "北",
        "京",
        "上海",
        "黑龙江",
        "大",
        "学",
        "的",
        "▁Anna",
        "A",
        "大学的",
    ]
    scores = [0.0, 0.0, 0.0, 0.0, 0.0, -3.0, *[-5.0] * 11]
    tokenizer = Tokenizer(models.Unigram(list(zip(names, scores, strict=True)), unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), names, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)


@pytest.fixture(scope="session")
def directory(tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "glode-tiny"
    save_random_model(path, tokenizer)
    return path


@pytest.fixture(scope="session")
def ner(directory) -> GlodePipeline:
    return GlodePipeline(model=GlodeModel.from_pretrained(directory), tokenizer=AutoTokenizer.from_pretrained(directory))


@pytest.fixture(scope="session")
def backbone(tokenizer, tmp_path_factory) -> Path:
    """A tiny XLM-R with its tokenizer, saved as any checkpoint is."""
    directory = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    AutoModel.from_config(tiny_encoder_config("xlm-roberta", len(tokenizer))).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def gliner_directory(tmp_path) -> Path:
    """What is known as a GLiNER model."""
    (tmp_path / FILE).write_text("{}")
    return tmp_path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads cost more than they save where all tensors are tiny, many times more on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def datasets_cache(tmp_path, monkeypatch) -> Path:
    """A cache of `datasets` for this test alone."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "datasets"
