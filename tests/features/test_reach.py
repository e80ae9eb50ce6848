"""Protects what a grid can hold: the choice of L, and the share of entities that no choice reaches."""

import random

import pytest
from support.sentences import make_corpus, sentence

from glode.features.reach import choose_span_length, unreachable_share
from glode.features.windows import build_features

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_choose_span_length_is_the_smallest_that_covers():
    rng = random.Random(3)
    for number in [1, 2, 199, 200, 201, 399, 400, *(rng.randint(1, 3000) for _ in range(60))]:
        lengths = [min(int(rng.expovariate(0.7)) + 1, 15) for _ in range(number)]
        data = make_corpus({"words": [], "begins": [0] * number, "lengths": lengths, "types": ["PER"] * number})
        smallest = next(n for n in range(1, 16) if 1000 * sum(x <= n for x in lengths) >= 995 * number)
        assert choose_span_length(data) == smallest, number


def test_unreachable_share(tokenizer):
    data = make_corpus(sentence(["w"] * 9, [(0, 1, "PER"), (1, 4, "PER")]), sentence(["w"] * 9, [(0, 5, "PER"), (5, 2, "LOC")]))
    for length, share in enumerate([0.75, 0.5, 0.5, 0.25, 0.0], 1):
        assert unreachable_share(data, build_features(data, tokenizer, 128, length), length) == share
    empty = make_corpus(sentence(["w"], []))
    assert unreachable_share(empty, build_features(empty, tokenizer, 128, 4), 4) == 0.0
