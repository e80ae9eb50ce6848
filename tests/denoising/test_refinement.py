"""Protects directions and refinement: eq. 8, 10 and 11 equal a reference over plain lists."""

import math
import random
from pathlib import Path

import pytest
import torch
from reference import (
    Vector,
    chosen_directions,
    refined,
)
from support.spans import assert_near, double, random_soft
from torch.nn import functional as F

from glode.denoising.refinement import directions, refine

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_8_directions(seed: int):
    rng = random.Random(seed)
    types = rng.randint(2, 5)
    values = [i / 4 for i in range(-4, 5)]  # few values: ties among the types and with the thresholds
    similarity = [[rng.choice(values) for _ in range(types)] for _ in range(100)]
    thresholds = [rng.choice([*values, math.inf]) for _ in range(types)]
    assert_near(directions(double(similarity), double(thresholds)), [chosen_directions(s, thresholds) for s in similarity])
    single = directions(double(similarity), double(thresholds), multiple=False)
    for towards, sims in zip(single.tolist(), similarity, strict=True):
        assert sorted(towards) == [0.0] * (types - 1) + [1.0]
        assert sims[towards.index(1.0)] == max(sims)


@pytest.mark.parametrize(
    ("similarity", "thresholds", "expected"),
    [
        ([0.5, 0.5, 0.1], [math.inf] * 3, [1, 0, 0]),  # O ties for the highest: no similarity is higher
        ([0.4, 0.5, 0.1], [math.inf] * 3, [0, 0, 0]),  # no direction at all
        ([0.4, 0.5, 0.1], [0.4, 0.5, 0.1], [0, 0, 0]),  # equal does not exceed
        ([0.4, 0.5, 0.1], [0.3, 0.4, 0.0], [1, 1, 1]),
        ([0.9, 0.5, 0.1], [1.0, 0.4, 1.0], [1, 1, 0]),
        ([0.0, 0.0, 0.0], [math.inf] * 3, [1, 0, 0]),
    ],
)
def test_eq_8_directions_by_hand(similarity: Vector, thresholds: Vector, expected: Vector):
    assert directions(double(similarity), double(thresholds)).tolist() == expected


def test_eq_8_leaves_the_similarities_as_they_are():
    similarity = double([[0.4, 0.5], [0.9, 0.5]])
    directions(similarity, double([0.1, 0.1]))
    assert similarity.tolist() == [[0.4, 0.5], [0.9, 0.5]]


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_10_and_11_refine(seed: int):
    rng = random.Random(seed)
    types, beta = rng.randint(2, 6), rng.uniform(0, 1)
    soft = [random_soft(rng, types) for _ in range(50)]
    towards = [[float(rng.choice([0, 0, 0, 1, 2])) for _ in range(types)] for _ in range(50)]
    towards[0] = [0.0] * types
    result = refine(double(soft), double(towards), beta)
    assert_near(result, [refined(p, d, beta) for p, d in zip(soft, towards, strict=True)])
    assert_near(result.sum(-1), [1.0] * 50)
    untouched = [i for i, d in enumerate(towards) if not any(d)]
    assert torch.equal(result[untouched], double(soft)[untouched])


def test_no_direction_leaves_a_label_exactly():
    soft = torch.tensor([[0.1, 0.2, 0.4]])  # float32, and not even of sum 1
    assert torch.equal(refine(soft, torch.zeros(1, 3), 0.8), soft)
    assert not torch.equal(refine(soft, torch.tensor([[0.0, 1.0, 0.0]]), 0.8), soft)


def test_refining_in_half_precision_stays_near(tmp_path: Path):
    """Hundreds of small steps towards random directions: the error stays within half a unit in the last place over 1 - beta."""
    generator, soft = torch.Generator().manual_seed(0), torch.rand(500, 4, generator=torch.Generator().manual_seed(1)).softmax(-1)
    exact, half = soft.double(), soft.half()
    for step in range(200):
        towards = (torch.rand(500, 4, generator=generator) < 0.3).double() if step < 100 else F.one_hot(exact.argmax(-1), 4)
        exact = refine(exact, towards.double(), 0.95)
        half = refine(half.float(), towards.float(), 0.95).half()
        assert (exact - half.double()).abs().max() <= 2**-12 / 0.05
