"""Random spans, and how numbers are compared."""

import math
import random
from collections.abc import Sequence

import torch
from reference import (
    Vector,
    unit,
)
from torch import Tensor


def double(values: Sequence) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_near(actual: Tensor, expected: Sequence) -> None:
    """To 1e-9, and really in double precision."""
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, double(expected).reshape(actual.shape), rtol=0, atol=1e-9)


def random_unit(rng: random.Random, size: int) -> Vector:
    return unit([rng.gauss(0, 1) for _ in range(size)])


def random_soft(rng: random.Random, types: int) -> Vector:
    values = [math.exp(rng.gauss(0, 2)) for _ in range(types)]
    return [value / sum(values) for value in values]


def random_batch(rng: random.Random, types: int, size: int, number: int | None = None) -> tuple:
    """Spans, of which some are not valid (type -100 or not); type 1 has none, where there are three types or more."""
    number = rng.randint(0, 30) if number is None else number
    labels = [rng.choice([c for c in range(types) if types < 3 or c != 1]) for _ in range(number)]
    valid = [rng.random() < 0.7 for _ in range(number)]
    labels = [c if ok or rng.random() < 0.5 else -100 for c, ok in zip(labels, valid, strict=True)]
    return [random_unit(rng, size) for _ in range(number)], labels, valid


def tensors_of(batch: tuple, size: int) -> tuple[Tensor, Tensor, Tensor]:
    vectors, labels, valid = batch
    return double(vectors).reshape(-1, size), torch.tensor(labels, dtype=torch.long), torch.tensor(valid, dtype=torch.bool)


def valid_spans(batch: tuple) -> list[tuple[Vector, int]]:
    return [(vector, label) for vector, label, ok in zip(*batch, strict=True) if ok]


def random_windows(rng: random.Random, number: int) -> tuple[list[int], list[int], list[int]]:
    """Owned words, first owned word and all words of some windows."""
    owned, own_start = [rng.randint(1, 4) for _ in range(number)], [rng.randint(0, 2) for _ in range(number)]
    return owned, own_start, [a + b + rng.randint(0, 2) for a, b in zip(owned, own_start, strict=True)]
