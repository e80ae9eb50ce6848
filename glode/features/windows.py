"""Labelled words -> word-aligned features -> batches.

Features are the windows of `encode_words`; a batch is a dictionary of named tensors.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from modeling_glode import encode_words, in_words, resolve, span_grid

_VERSION = 4  # of the features in the cache of `datasets`, which does not notice when the code here changes


def choose_span_length(corpus: Dataset, cover: float = 0.995) -> int:
    """The smallest L, in words, that covers the share `cover` of the corpus' entities."""
    lengths = np.sort([n for row in corpus["lengths"] for n in row])
    return int(lengths[int(np.ceil(cover * len(lengths))) - 1])


def unreachable_share(corpus: Dataset, windows: Dataset, max_span_length: int) -> float:
    """The share of the corpus' entities that the grid cannot hold: longer than L, or with a border within a unit."""
    total = sum(map(len, corpus["types"]))
    return 1 - sum(map(len, reachable_entities(corpus, windows, max_span_length))) / total if total else 0.0


def build_features(
    corpus: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    max_span_length: int,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """Tokenise a corpus into windows, see `encode_words`. Batched, and cached by `datasets`.

    Args:
        labels: the types, "O" first; None leaves the corpus' entities unread.
    Returns:
        One row a window: `encode_words`' columns (`sentence` is the row in `corpus`) and, with `labels`, the entities of at
        most L units that the window owns: `begins` (in the window), `lengths` and `types` (indices into `labels`).
    """
    if labels is None:
        corpus = corpus.select_columns(["words"])
    options = {"tokenizer": tokenizer, "max_tokens": max_tokens, "max_span_length": max_span_length, "version": _VERSION}
    options["label_ids"] = {name: i for i, name in enumerate(labels)} if labels is not None else None
    return corpus.map(
        _features, batched=True, with_indices=True, remove_columns=corpus.column_names, fn_kwargs=options, desc="Tokenising"
    )


def _features(
    batch: dict, indices: list[int], tokenizer, max_tokens: int, max_span_length: int, label_ids: dict | None, version: int
) -> dict:
    columns = encode_words(batch["words"], tokenizer, max_tokens, max_span_length)
    if label_ids is not None:
        columns |= {"begins": [], "lengths": [], "types": []}
        for sentence, *window in zip(*(columns[name] for name in ("sentence", "borders", "own_start", "own_end")), strict=True):
            entities = zip(*(batch[name][sentence] for name in ("begins", "lengths", "types")), strict=True)
            mine = [(begin, n, label_ids[name]) for begin, n, name in in_units(entities, *window, max_span_length)]
            for name, values in zip(
                ("begins", "lengths", "types"), zip(*mine, strict=True) if mine else ([], [], []), strict=True
            ):
                columns[name].append(list(values))
    columns["sentence"] = [indices[i] for i in columns["sentence"]]
    return columns


def in_units(
    entities: Iterable[tuple[int, int, str]], borders: Sequence[int], own_start: int, own_end: int, max_span_length: int
) -> list[tuple[int, int, str]]:
    """The entities (first word, length in words, type) that a window's grid holds, as (first unit, length in units, type): they
    begin at an owned unit, end where a unit ends, and have at most L units."""
    unit = {word: i for i, word in enumerate(borders)}
    found = []
    for begin, length, name in entities:
        first, end = unit.get(begin, -1), unit.get(begin + length, -1)
        if own_start <= first < own_end and 0 < end - first <= max_span_length:
            found.append((first, end - first, name))
    return found


def reachable_entities(corpus: Dataset, windows: Dataset, max_span_length: int) -> list[list[tuple[int, int, str]]]:
    """The gold entities of each sentence that its windows' grids hold; the others cannot be found, whatever the model."""
    gold = gold_entities(corpus)
    reachable = [[] for _ in gold]
    columns = (windows[name] for name in ("sentence", "borders", "own_start", "own_end"))
    for sentence, borders, *own in zip(*columns, strict=True):
        reachable[sentence] += [in_words(e, borders) for e in in_units(gold[sentence], borders, *own, max_span_length)]
    return reachable


def span_counts(features: Dataset, max_span_length: int) -> np.ndarray:
    """How many cells of its grid each window has. [windows]"""
    words, start, end = list_lengths(features, "first_token"), numbers(features, "own_start"), numbers(features, "own_end")
    return sum(np.maximum(np.minimum(end, words - length) - start, 0) for length in range(max_span_length))


def list_lengths(dataset: Dataset, column: str) -> np.ndarray:
    """How many elements each row's list has, from Arrow's offsets: the elements are not read. [rows]"""
    blocks = dataset.select_columns([column]).with_format("arrow").iter(10_000)
    return np.concatenate([np.empty(0, np.int32), *(pc.list_value_length(block[column]).to_numpy() for block in blocks)])


def numbers(dataset: Dataset, column: str) -> np.ndarray:
    """A column of numbers. [rows]"""
    return np.asarray(dataset.with_format("numpy")[column][:])


def grids(windows: Dataset, max_span_length: int, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Row [batch], first owned word [batch] and span grid [batch, words, length] of all windows, in order; no token is read."""
    borders = windows.select_columns(["first_token", "own_start", "own_end"]).with_format("arrow")
    for at, block in enumerate(borders.iter(batch_size)):
        columns = (pc.list_value_length(block["first_token"]), block["own_start"], block["own_end"])
        words, start, end = (torch.tensor(column.to_numpy(), dtype=torch.long) for column in columns)
        yield at * batch_size + torch.arange(len(words)), start, span_grid(words, start, end, int(words.max()), max_span_length)


def merge_windows(
    predictions: Iterable[np.ndarray], windows: Dataset, sentences: int, names: dict[int, str]
) -> list[list[tuple[int, int, str]]]:
    """Join the entities of each sentence's windows; where those of two windows overlap, the more probable one stays.

    Args:
        predictions: [windows, units, (type, length, probability)], at most one entity a first unit; type <= 0 is none. In blocks,
            one window after the other.
        sentences: how many sentences the corpus has.
        names: id2label.
    Returns:
        (first word, length, type) of each sentence's entities, in text order.
    """
    found = [[] for _ in range(sentences)]
    windows, at = windows.select_columns(["sentence", "borders"]), 0
    for block in predictions:
        rows = windows[at : at + len(block)]
        at += len(block)
        row, begin = np.nonzero(block[..., 0] > 0)
        for window, unit, (label, length, score) in zip(row.tolist(), begin.tolist(), block[row, begin].tolist(), strict=True):
            entity = in_words((unit, int(length), names[int(label)], score), rows["borders"][window])
            found[rows["sentence"][window]].append(entity)
    return [[entity[:3] for entity in resolve(entities)] for entities in found]


def gold_entities(corpus: Dataset) -> list[list[tuple[int, int, str]]]:
    """(first word, length, type) of each sentence's gold entities."""
    return [list(zip(*row, strict=True)) for row in zip(corpus["begins"], corpus["lengths"], corpus["types"], strict=True)]


def token_set(windows: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """[tokens], in rising order: the tokens that the windows have."""
    chunks = windows.with_format("arrow")[:]["input_ids"]
    return torch.tensor(sorted(pc.unique(pc.list_flatten(chunks)).to_pylist()), device=device)
