"""Protects the thresholds of eq. 8: means of an epoch, which hold during the next, over all processes."""

import math
import random

import pytest
import torch
from support.spans import assert_near, double
from support.threads import World

from glode.denoising.thresholds import Thresholds

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_8_thresholds(seed: int):
    rng = random.Random(seed)
    types, languages = rng.randint(3, 6), rng.randint(1, 3)
    thresholds, expected = Thresholds(types, languages), [[math.inf] * types for _ in range(languages)]
    for epoch in range(3):
        seen = [[[] for _ in range(types)] for _ in range(languages)]
        # Type 1 never occurs; the last type occurs in the first epoch alone and keeps its threshold.
        present = [0, *range(2, types - (epoch > 0))]
        for _ in range(3):
            number = rng.randint(0, 20)
            similarity = [[rng.uniform(-1, 1) for _ in range(types)] for _ in range(number)]
            labels, language = [rng.choice(present) for _ in range(number)], [rng.randrange(languages) for _ in range(number)]
            thresholds.add(
                double(similarity).reshape(-1, types),
                torch.tensor(labels, dtype=torch.long),
                torch.tensor(language, dtype=torch.long),
            )
            for sims, label, of in zip(similarity, labels, language, strict=True):
                seen[of][label].append(sims[label])
        thresholds.set()
        expected = [
            [sum(values) / len(values) if values else old for values, old in zip(*rows, strict=True)]
            for rows in zip(seen, expected, strict=True)
        ]
        assert all(math.isinf(row[1]) for row in expected)
        assert_near(thresholds.values, expected)
        assert not thresholds.sums.any()


def test_eq_8_thresholds_hold_during_the_epoch():
    thresholds = Thresholds(2)
    thresholds.add(double([[0.25, 0.5]]), torch.tensor([1]), torch.tensor([0]))
    assert thresholds.values.tolist() == [[math.inf, math.inf]]
    thresholds.set()
    assert thresholds.values.tolist() == [[math.inf, 0.5]]


def test_eq_8_thresholds_over_processes_are_those_of_all_spans():
    rng = random.Random(0)
    world, processes, seen = World(2), [Thresholds(3), Thresholds(3)], [[], [], []]
    for rank, number in enumerate((7, 3)):
        similarity, labels = [[rng.random() for _ in range(3)] for _ in range(number)], [rng.randrange(2) for _ in range(number)]
        processes[rank].add(double(similarity), torch.tensor(labels), torch.zeros(number, dtype=torch.long))
        for sims, label in zip(similarity, labels, strict=True):
            seen[label].append(sims[label])
    world.run(*(lambda rank=rank: processes[rank].set(world.gather(rank)) for rank in range(2)))
    for thresholds in processes:
        assert_near(thresholds.values[0], [sum(seen[0]) / len(seen[0]), sum(seen[1]) / len(seen[1]), math.inf])
