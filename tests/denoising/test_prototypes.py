"""Protects the prototypes: eq. 6 and 7 equal a reference over plain lists, in one process and in several."""

import random

import pytest
from reference import (
    dot,
    moving_average,
    unit,
)
from support.spans import assert_near, double, random_batch, random_unit, tensors_of, valid_spans
from support.threads import World

from glode.denoising.prototypes import Prototypes

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_6_is_the_sequential_moving_average(seed: int):
    rng = random.Random(seed)
    types, size, decay = rng.randint(2, 6), rng.randint(2, 7), rng.choice([0.5, 0.9, 0.99])
    prototypes, expected = Prototypes(types, size, decay), [[0.0] * size for _ in range(types)]
    for _ in range(4):
        batch = random_batch(rng, types, size)
        prototypes.update(*tensors_of(batch, size))
        expected = [unit(vector) for vector in moving_average(expected, valid_spans(batch), decay)]
        assert_near(prototypes.vectors, expected)
    if types >= 3:
        assert prototypes.vectors[1].tolist() == [0.0] * size  # a type without a span


@pytest.mark.parametrize("seed", range(5))
def test_eq_6_over_processes_is_one_after_the_other_by_rank(seed: int):
    rng = random.Random(seed)
    types, size, decay, number = 4, 3, 0.9, 3
    world = World(number)
    processes = [Prototypes(types, size, decay) for _ in range(number)]
    expected = [[0.0] * size for _ in range(types)]
    for _ in range(3):
        batches = [random_batch(rng, types, size) for _ in range(number)]
        world.run(
            *(
                lambda rank=rank: processes[rank].update(*tensors_of(batches[rank], size), world.gather(rank))  # noqa: B023
                for rank in range(number)
            )
        )
        spans = [span for batch in batches for span in valid_spans(batch)]
        expected = [unit(vector) for vector in moving_average(expected, spans, decay)]
        for prototypes in processes:
            assert_near(prototypes.vectors, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_7_similarity(seed: int):
    rng = random.Random(seed)
    types, size, words, length = (rng.randint(2, 5) for _ in range(4))
    prototypes = Prototypes(types, size)
    vectors = [random_unit(rng, size) for _ in range(types)]
    prototypes.vectors = double(vectors)
    queries = [[random_unit(rng, size) for _ in range(length)] for _ in range(words)]
    expected = [[[dot(q, phi) for phi in vectors] for q in row] for row in queries]
    assert_near(prototypes.similarity(double(queries)), expected)
