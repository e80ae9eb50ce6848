"""Protects what is said of chance: the paired test equals full enumeration, the bootstrap equals drawing sentences, counts
give the F1 of `entity_scores`."""

import random
from itertools import product

import numpy as np
import pytest

from glode.evaluation.statistics import bootstrap, f1_of, interval, randomisation_test, sentence_counts
from glode.metrics import entity_scores


def test_randomisation_equals_enumeration():
    rng = random.Random(1)
    sides = []
    for _ in range(2):
        correct = np.array([rng.randint(0, 3) for _ in range(8)])
        sides.append(
            np.stack([correct + [rng.randint(0, 3) for _ in correct], correct + [rng.randint(0, 2) for _ in correct], correct], 1)
        )
    f1 = [200 * c / (g + p) for g, p, c in (side.sum(0) for side in sides)]
    assert f1_of(sides[0].sum(0)) == pytest.approx(f1[0])
    extreme = 0
    for swap in product((False, True), repeat=8):
        mixed = [sum(sides[k ^ s][i] for i, s in enumerate(swap)) for k in (0, 1)]
        extreme += abs(f1_of(mixed[0]) - f1_of(mixed[1])) >= abs(f1[0] - f1[1]) - 1e-9
    difference, p = randomisation_test(*sides, trials=20_000)
    assert difference == pytest.approx(f1[0] - f1[1])
    assert p == pytest.approx(extreme / 2**8, abs=0.015)
    assert randomisation_test(*sides) == randomisation_test(*sides)
    assert randomisation_test(sides[0], sides[0])[1] == 1


def test_counts_give_the_f1_of_the_scores():
    gold = [[(0, 1, "PER"), (2, 2, "LOC")], [], [(1, 1, "LOC")]]
    found = [[(0, 1, "PER"), (2, 1, "LOC")], [(0, 1, "PER")], [(1, 1, "LOC"), (3, 1, "DATE")]]
    counts = sentence_counts(gold, found)
    assert counts.tolist() == [[2, 2, 1], [0, 1, 0], [1, 1, 1]]  # nobody asked for dates
    found[2].pop()
    assert f1_of(counts.sum(0)) == pytest.approx(entity_scores(gold, found)["f1"])


def test_the_bootstrap_equals_drawing_sentences():
    rng = np.random.default_rng(3)
    correct = rng.integers(0, 3, (40, 2))
    counts = np.stack([correct + rng.integers(0, 2, (40, 2)), correct + rng.integers(0, 2, (40, 2)), correct], axis=-1)
    samples = bootstrap(counts, 4000, seed=1)
    drawn = f1_of(np.stack([counts[rng.integers(0, 40, 40)].sum(0) for _ in range(4000)]))
    assert samples.shape == drawn.shape == (4000, 2)
    for model in (0, 1):
        assert interval(samples[:, model]) == pytest.approx(interval(drawn[:, model]), abs=0.8)
    gaps = [samples[:, 0] - samples[:, 1], drawn[:, 0] - drawn[:, 1]]  # of one draw both models have the same sentences
    assert gaps[0].std() == pytest.approx(gaps[1].std(), rel=0.1)
    assert (bootstrap(counts, 9, seed=1) == bootstrap(counts, 9, seed=1)).all()
    assert (bootstrap(counts[:1], 5) == f1_of(counts[0])).all()
