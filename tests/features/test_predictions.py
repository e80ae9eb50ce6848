"""Protects the way from predictions of windows to the entities of sentences."""

import numpy as np
import pytest
from datasets import Dataset
from support.sentences import LABELS

from glode.features.predictions import merge_windows
from glode.features.reach import gold_entities
from glode.features.windows import build_features

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_merge_windows_joins_offsets_and_overlaps():
    windows = Dataset.from_dict({"sentence": [0, 0, 2], "borders": [list(range(20)), list(range(4, 24)), list(range(20))]})
    predictions = np.zeros((3, 8, 3), dtype=np.float32)
    predictions[..., 0] = -1
    predictions[0, 1] = (1, 2, 0.7)
    predictions[0, 5] = (1, 2, 0.6)  # words 5 and 6; the next window is surer of word 6
    predictions[1, 2] = (2, 1, 0.9)
    predictions[1, 3] = (2, 3, 0.5)  # words 7 to 9, which touch but do not overlap
    predictions[2, 0] = (0, 1, 0.99)  # "O" is no entity
    predictions[2, 4] = (2, 2, 0.4)
    assert merge_windows([predictions[:1], predictions[1:]], windows, 4, {0: "O", 1: "PER", 2: "LOC"}) == [
        [(1, 2, "PER"), (6, 1, "LOC"), (7, 3, "LOC")],
        [],
        [(4, 2, "LOC")],
        [],
    ]


def test_merge_windows_gives_back_what_the_windows_hold(long_corpus: Dataset, tokenizer):
    features = build_features(long_corpus, tokenizer, 30, 3, LABELS)
    predictions = np.zeros((len(features), max(map(len, features["first_token"])), 3))
    for i, row in enumerate(features):
        for begin, length, label in zip(row["begins"], row["lengths"], row["types"], strict=True):
            predictions[i, begin] = (label, length, 0.5)
    blocks = predictions[:1], predictions[1:]
    assert merge_windows(blocks, features, len(long_corpus), dict(enumerate(LABELS))) == gold_entities(long_corpus)
