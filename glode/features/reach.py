"""Which entities a window's grid can hold, and how long its spans have to be for that."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from glode.metrics import Entity
from modeling_glode import in_words


def choose_span_length(corpus: Dataset, cover: float = 0.995) -> int:
    """The smallest L, in words, that covers the share `cover` of the corpus' entities."""
    lengths = np.sort([n for row in corpus["lengths"] for n in row])
    return int(lengths[int(np.ceil(cover * len(lengths))) - 1])


def gold_entities(corpus: Dataset) -> list[list[Entity]]:
    """(first word, length, type) of each sentence's gold entities."""
    return [list(zip(*row, strict=True)) for row in zip(corpus["begins"], corpus["lengths"], corpus["types"], strict=True)]


def in_units(
    entities: Iterable[tuple[int, int, Any]], borders: Sequence[int], own_start: int, own_end: int, max_span_length: int
) -> list[tuple[int, int, Any]]:
    """The entities (first word, length in words, type) that a window's grid holds, as (first unit, length in units, type): they
    begin at an owned unit, end where a unit ends, and have at most L units. The type may be anything."""
    unit = {word: i for i, word in enumerate(borders)}
    found = []
    for begin, length, name in entities:
        first, end = unit.get(begin, -1), unit.get(begin + length, -1)
        if own_start <= first < own_end and 0 < end - first <= max_span_length:
            found.append((first, end - first, name))
    return found


def reachable_entities(corpus: Dataset, windows: Dataset, max_span_length: int) -> list[list[Entity]]:
    """The gold entities of each sentence that its windows' grids hold; the others cannot be found, whatever the model."""
    gold = gold_entities(corpus)
    reachable: list[list[Entity]] = [[] for _ in gold]
    columns = (windows[name] for name in ("sentence", "borders", "own_start", "own_end"))
    for sentence, borders, own_start, own_end in zip(*columns, strict=True):
        held = in_units(gold[sentence], borders, own_start, own_end, max_span_length)
        reachable[sentence] += [in_words(entity, borders) for entity in held]
    return reachable


def unreachable_share(corpus: Dataset, windows: Dataset, max_span_length: int) -> float:
    """The share of the corpus' entities that the grid cannot hold: longer than L, or with a border within a unit."""
    total = sum(map(len, corpus["types"]))
    return 1 - sum(map(len, reachable_entities(corpus, windows, max_span_length))) / total if total else 0.0
