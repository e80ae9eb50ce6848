"""Protects the sample of an epoch's spans: unbiased, of bounded size, and the same whoever has the spans."""

import math
import random

import pytest
import torch
from reference import (
    reservoir_of,
)
from support.settings import settings
from support.spans import double
from support.threads import World
from torch import Tensor

from glode.denoising.datastore import Datastore
from glode.denoising.reservoir import bottom_k
from glode.randomness import uniform

SEEDS = range(10)


def numbered(number: int) -> Tensor:
    """Vectors that say which span they are."""
    return torch.stack([torch.arange(number, dtype=torch.float32), torch.ones(number)], dim=1)


def test_the_datastore_keeps_entities_and_a_share_of_the_rest():
    number, share = 20_000, 0.03
    rng = random.Random(0)
    types = torch.tensor([rng.choice([0, 0, 0, 1, 2]) for _ in range(number)])
    valid = torch.tensor([rng.random() < 0.9 for _ in range(number)])
    datastore = Datastore(3, 2, settings(datastore_outside_share=share, seed=1))
    datastore.reservoir.collect(numbered(number), types, valid, torch.arange(number), 5)
    assert len(datastore) == 0  # what is collected is stored at the next rebuild
    datastore.rebuild()
    kept = datastore.vectors[:, 0].long()
    assert torch.equal(datastore.types, types[kept])
    assert valid[kept].all()
    assert kept[datastore.types != 0].tolist() == (valid & (types != 0)).nonzero().flatten().tolist()
    outside = int((valid & (types == 0)).sum())
    assert abs(int((datastore.types == 0).sum()) - share * outside) < 4 * math.sqrt(share * (1 - share) * outside)

    def again(seed: int, step: int, order: Tensor) -> list[int]:
        other = Datastore(3, 2, settings(datastore_outside_share=share, seed=seed))
        for part in order.split(7001):  # as several processes would have them
            other.reservoir.collect(numbered(number)[part], types[part], valid[part], part, step)
        other.rebuild()
        return sorted(other.vectors[:, 0].long().tolist())

    order = torch.arange(number)
    assert again(1, 5, order) == again(1, 5, order.flip(0)) == kept.tolist()
    assert again(2, 5, order) != kept.tolist() != again(1, 6, order)


def test_the_datastore_is_rebuilt_from_the_last_epoch_alone():
    datastore = Datastore(2, 2, settings(datastore_outside_share=1.0))
    for epoch, number in enumerate((4, 3), start=1):
        datastore.reservoir.collect(
            numbered(number), torch.full((number,), epoch - 1), torch.ones(number, dtype=torch.bool), torch.arange(number), 0
        )
        datastore.rebuild()
        assert datastore.vectors[:, 0].tolist() == list(range(number))
        assert datastore.types.tolist() == [epoch - 1] * number


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reservoir_is_that_of_its_parts_in_any_order(seed: int):
    rng = random.Random(seed)
    number, capacity, least = rng.randint(1, 120), rng.randint(12, 60), rng.randint(0, 4)
    spans = [(rng.choice([0, 0, 0, 0, 1, 2]), rng.random()) for _ in range(number)]
    types, priority = torch.tensor([c for c, _ in spans]), double([u for _, u in spans])
    expected = reservoir_of(spans, capacity, least)
    assert bottom_k(types, priority, capacity, least).tolist() == expected
    for _ in range(3):  # parts of the spans, each with a reservoir of its own, joined at random
        kept = torch.empty(0, dtype=torch.long)
        for part in torch.tensor(rng.sample(range(number), number)).split(rng.randint(1, 50)):
            joined = torch.cat([kept, part[bottom_k(types[part], priority[part], capacity, least)]])
            kept = joined[bottom_k(types[joined], priority[joined], capacity, least)]
        assert sorted(kept.tolist()) == expected


def test_the_reservoir_is_unbiased_in_each_type_and_starves_none():
    """600 draws: every span of a type is kept equally often, types in proportion to their numbers, a rare one whole."""
    draws, capacity, least = 600, 90, 6
    types = torch.tensor([0] * 200 + [1] * 90 + [2] * 6 + [3] * 12)
    kept = torch.zeros(len(types))
    for seed in range(draws):
        kept[bottom_k(types, uniform(torch.arange(len(types)), seed, 1), capacity, least)] += 1
    assert kept.sum() == draws * capacity
    assert (kept[types == 2] == draws).all()
    rates = [float(kept[types == c].mean() / draws) for c in range(4)]
    assert abs(rates[0] - rates[1]) < 0.02 and rates[3] >= 0.5
    for c in range(4):
        mean, number = rates[c], int((types == c).sum())
        if mean < 1:  # chi-squared with at most `number` degrees of freedom; six standard deviations
            spread = ((kept[types == c] - draws * mean) ** 2 / (draws * mean * (1 - mean))).sum()
            assert spread < number + 6 * math.sqrt(2 * number), c


def test_the_datastore_has_a_capacity_that_holds_while_it_is_collected():
    """Whoever has the spans, in whatever order: the same sample."""
    number, capacity = 3000, 600
    types = (torch.arange(number) % 10 < 3).long() + (torch.arange(number) % 100 == 0).long()
    sizes = []

    def filled(processes: int, seed: int, backwards: bool = False) -> list[int]:
        world = World(processes)
        options = settings(num_neighbors=20, datastore_outside_share=0.5, datastore_size=capacity, seed=seed)
        stores = [Datastore(3, 2, options) for _ in range(processes)]
        steps = list(enumerate(torch.arange(number).split(300)))
        for step, rows in reversed(steps) if backwards else steps:
            for rank, store in enumerate(stores):
                mine = rows[rank::processes]
                store.reservoir.collect(numbered(number)[mine], types[mine], torch.ones_like(mine, dtype=torch.bool), mine, step)
                sizes.append(len(store.reservoir))
        world.run(*(lambda rank=rank: stores[rank].rebuild(world.gather(rank)) for rank in range(processes)))
        for store in stores:
            kept = store.vectors[:, 0].long()
            assert torch.equal(store.types, types[kept]) and len(store) == len(store.index) == len(set(kept.tolist()))
            assert torch.equal(store.vectors, stores[0].vectors)
        return kept.tolist()

    kept = filled(1, seed=0)
    assert len(kept) == capacity and max(sizes) <= 1.25 * capacity
    assert kept == filled(1, seed=0, backwards=True) == filled(3, seed=0) != filled(1, seed=1)
    found, offered = types[kept].bincount(), types.bincount() / double([2.0, 1.0, 1.0])
    assert found[2] >= 20
    assert abs(found[0] / found[1] - offered[0] / offered[1]) < 0.4  # in proportion


def test_the_datastore_joins_uneven_processes_in_an_order_of_its_own():
    """By step and span: which process had them does not matter."""
    world, stores = World(3), [Datastore(2, 2, settings()) for _ in range(3)]
    for step in (1, 0):
        for rank, keys in enumerate(([7, 2], [], [9, 0, 4])):
            vectors, ones = numbered(10)[keys] + 100 * step, torch.ones(len(keys), dtype=torch.long)
            stores[rank].reservoir.collect(vectors, ones, ones.bool(), torch.tensor(keys, dtype=torch.long), step)
    world.run(*(lambda rank=rank: stores[rank].rebuild(world.gather(rank)) for rank in range(3)))
    for store in stores:
        assert store.vectors[:, 0].tolist() == [0, 2, 4, 7, 9, 100, 102, 104, 107, 109]
