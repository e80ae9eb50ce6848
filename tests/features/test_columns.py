"""Protects what is counted over windows without reading their tokens."""

import pytest
from datasets import Dataset

from glode.features.columns import span_counts, token_set
from glode.features.windows import build_features
from modeling_glode import collate_windows, span_grid

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_span_counts_are_the_sums_of_the_grid(long_corpus: Dataset, tokenizer):
    for max_tokens, length in ((30, 1), (30, 3), (100, 7)):
        features = build_features(long_corpus, tokenizer, max_tokens, length)
        assert len(features) > len(long_corpus)
        batch = collate_windows(features.to_list(), tokenizer.pad_token_id)
        own = [batch[name] for name in ("number_of_words", "own_start", "own_end")]
        grid = span_grid(*own, batch["first_token"].shape[1], length)
        assert span_counts(features, length).tolist() == grid.sum((1, 2)).tolist()
        whole = sum(max(len(words) - k, 0) for words in long_corpus["words"] for k in range(length))
        assert span_counts(features, length).sum() == whole  # every span of the corpus is in exactly one window


def test_token_set_of_some_windows():
    windows = Dataset.from_dict({"input_ids": [[7, 2], [2, 9, 7], [3]]})
    assert token_set(windows).tolist() == [2, 3, 7, 9]
    assert token_set(windows.select([2, 0])).tolist() == [2, 3, 7]
