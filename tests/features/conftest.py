"""Corpora and streams of windows that several tests of features share."""

import random

import pytest
from datasets import Dataset
from support.sentences import make_corpus, random_entities, sentence

from glode.features.streams import TwoStreams
from glode.features.windows import build_features


@pytest.fixture(scope="module")
def long_corpus(corpus: Dataset) -> Dataset:
    """12 random sentences, most of them longer than a window of 30 tokens."""
    rng = random.Random(5)
    vocabulary = sorted({word for words in corpus["words"] for word in words})
    rows = []
    for number in [3, 8, *(rng.randint(20, 90) for _ in range(10))]:
        rows.append(sentence([rng.choice(vocabulary) for _ in range(number)], random_entities(rng, number)))
    return make_corpus(*rows)


@pytest.fixture(scope="module")
def streams(corpus: Dataset, tokenizer) -> TwoStreams:
    source = build_features(corpus, tokenizer, 64, 2, ["O", "LOC", "PER"])
    return TwoStreams(source, build_features(corpus.select(range(5, 20)), tokenizer, 64, 2))
