"""Protects the numbers of strings: two spans have the same one exactly where their words are the same."""

import random

import pytest
import torch
from datasets import Dataset

from glode.features.strings import string_ids
from glode.features.windows import build_features
from modeling_glode import in_words


@pytest.mark.parametrize("seed", range(3))
def test_the_same_words_have_the_same_number(seed: int, tokenizer):
    """Sentences that are cut into several windows, among them; words of few letters, so that much is repeated."""
    rng, length = random.Random(seed), 3
    sentences = [[rng.choice(["Anna", "Berg", "in", "Rome", "東京", "京"]) for _ in range(rng.randint(1, 40))] for _ in range(8)]
    corpus = Dataset.from_dict({"words": sentences})
    windows = build_features(corpus, tokenizer, 24, length)
    assert len(windows) > len(corpus)
    found = string_ids(corpus, windows, length)
    expected = []
    for window in windows:
        borders, words = window["borders"], sentences[window["sentence"]]
        for unit in range(window["own_start"], window["own_end"]):
            for more in range(1, length + 1):
                if unit + more < len(borders):
                    begin, number = in_words((unit, more), borders)
                    expected.append(tuple(words[begin : begin + number]))
                else:
                    expected.append(None)
    assert found.dtype == torch.int32 and found.shape == (len(expected) // length, length)
    numbers = found.flatten().tolist()
    assert all((number == -2) == (string is None) for number, string in zip(numbers, expected, strict=True))
    repeated = {string for string in expected if string is not None and expected.count(string) > 1}
    assert all((number >= 0) == (string in repeated) for number, string in zip(numbers, expected, strict=True))
    pairs = {(number, string) for number, string in zip(numbers, expected, strict=True) if number >= 0}
    assert len(pairs) == len(repeated) == 1 + max(numbers)
    assert 0 < len(repeated) < len(set(expected))


def test_a_corpus_in_which_nothing_is_repeated(tokenizer):
    corpus = Dataset.from_dict({"words": [["Anna"], ["Berg", "lives"]]})
    ids = string_ids(corpus, build_features(corpus, tokenizer, 24, 2), 2)
    assert ids.tolist() == [[-1, -2], [-1, -1], [-1, -2]]
