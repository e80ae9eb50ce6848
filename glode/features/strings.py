"""Which spans of a corpus are the same string."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor

from glode.features.columns import list_lengths, numbers

_BASE = 0x9E3779B97F4A7C15  # odd: it has an inverse
_INVERSE = pow(_BASE, -1, 2**64)


def string_ids(corpus: Dataset, windows: Dataset, max_span_length: int) -> Tensor:
    """The number of each span's string of words, the same for the same words wherever they stand.

    Strings are compared by 64-bit hashes of their words' numbers.

    Args:
        corpus: with the words.
        windows: its windows, see `build_features`.
        max_span_length: L.
    Returns:
        int32 [owned words of all windows, L], from 0; -1 where a string occurs once, -2 where there is no span.
    """
    hashes, powers = _prefixes(_word_numbers(corpus))
    begins = np.concatenate([[0], np.cumsum(list_lengths(corpus, "words"), dtype=np.int64)])[numbers(windows, "sentence")]
    lengths = list_lengths(windows, "borders").astype(np.int64)
    borders = _flat(windows, "borders") + np.repeat(begins, lengths)  # of the units of each window, in words of the corpus
    own_start, own_end = numbers(windows, "own_start"), numbers(windows, "own_end")
    owned = own_end - own_start
    within = np.arange(owned.sum()) - np.repeat(np.cumsum(owned) - owned, owned)
    first = np.repeat(np.cumsum(lengths) - lengths + own_start, owned) + within  # each owned unit's place in `borders`
    last = np.repeat(np.cumsum(lengths) - 1, owned)
    ends = first[:, None] + np.arange(1, max_span_length + 1)
    is_span = ends <= last[:, None]
    start = borders[first][:, None]
    found = (hashes[borders[np.minimum(ends, last[:, None])]] - hashes[start]) * powers[start]
    ids = np.full(found.shape, -2, np.int32)
    _, string, count = np.unique(found[is_span], return_inverse=True, return_counts=True)
    ids[is_span] = np.where(count > 1, np.cumsum(count > 1) - 1, -1)[string]
    return torch.from_numpy(ids)


def _word_numbers(corpus: Dataset) -> np.ndarray:
    """A number for each word of the corpus, by its letters. [words]"""
    words = pc.list_flatten(corpus.select_columns(["words"]).with_format("arrow")[:]["words"])
    chunks = words.chunks if isinstance(words, pa.ChunkedArray) else [words]
    encoded = pa.chunked_array(chunks, words.type).dictionary_encode().unify_dictionaries()
    return np.concatenate([np.empty(0, np.int64), *(chunk.indices.to_numpy() for chunk in encoded.chunks)]).astype(np.uint64)


def _flat(dataset: Dataset, column: str) -> np.ndarray:
    """All elements of a column of lists, one row after the other."""
    blocks = dataset.select_columns([column]).with_format("arrow").iter(10_000)
    return np.concatenate([np.empty(0, np.int64), *(pc.list_flatten(block[column]).to_numpy() for block in blocks)])


def _prefixes(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For word numbers [n] what gives each stretch its hash: (sums[end] - sums[begin]) * powers[begin], modulo 2^64. [n + 1]"""
    mixed = (words + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(32)
    shifted = mixed * _geometric(_BASE, len(words))
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(shifted, dtype=np.uint64)]), _geometric(_INVERSE, len(words) + 1)


def _geometric(base: int, number: int) -> np.ndarray:
    """1, base, base^2, ..., modulo 2^64. [number]"""
    factors = np.full(number, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)
