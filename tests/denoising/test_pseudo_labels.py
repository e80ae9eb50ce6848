"""Protects the store of pseudo labels, in memory and in a file, by one process and by several, and the pruning of overlaps."""

import random
from pathlib import Path

import pytest
import torch
from reference import largest
from support.spans import random_soft, random_windows
from support.threads import World

from glode.denoising.pseudo_labels import PseudoLabels, harden_outside, prune_overlaps

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_pseudo_labels_are_read_as_written(seed: int):
    rng = random.Random(seed)
    owned, own_start, words = random_windows(rng, 6)
    store, width = PseudoLabels(owned, 2, 3), max(words) + 1
    assert store.probabilities.shape == (sum(owned), 2, 3)
    expected = {(w, i): [[1.0, 0.0, 0.0]] * 2 for w in range(6) for i in range(owned[w])}  # before anything is written: O
    for epoch in range(4):
        chosen = rng.sample(range(6), 3)
        values = torch.rand(3, width, 2, 3, generator=torch.Generator().manual_seed(10 * seed + epoch))
        store.write(torch.tensor(chosen), torch.tensor([own_start[w] for w in chosen]), values, epoch)
        for row, w in enumerate(chosen):
            for i in range(owned[w]):
                expected[w, i] = values[row, own_start[w] + i].tolist()
        assert all(store.refined_in[w] == epoch for w in chosen)
        order = rng.sample(range(6), 6)  # all others are as before
        read = store.read(torch.tensor(order), torch.tensor([own_start[w] for w in order]), width)
        assert read.shape == (6, width, 2, 3)
        for row, w in enumerate(order):
            assert read[row, own_start[w] : own_start[w] + owned[w]].tolist() == [expected[w, i] for i in range(owned[w])]


def test_reading_gives_a_copy():
    store = PseudoLabels([2, 3], 2, 3)
    before = store.probabilities.clone()
    store.read(torch.tensor([0, 1]), torch.tensor([0, 0]), 3).zero_()
    assert torch.equal(store.probabilities, before)


@pytest.mark.parametrize("mapped", [False, True])
def test_processes_share_what_they_write_and_the_lowest_rank_wins(mapped: bool, tmp_path: Path):
    file = tmp_path / "labels" if mapped else None
    world, stores = World(2), [PseudoLabels([2, 1, 3, 1], 1, 2, file=file) for _ in range(2)]
    untouched = stores[0].probabilities.clone()
    windows = [torch.tensor([0, 2]), torch.tensor([3, 2])]
    written = [torch.tensor([True, True]), torch.tensor([False, True])]

    def write(rank: int) -> None:
        start = torch.tensor([0, 1])  # the second window owns its words from the second on
        values = torch.full((2, 4 + rank, 1, 2), 10.0 + rank)
        stores[rank].write(windows[rank], start, values, 4, written[rank], world.gather(rank))

    world.run(*(lambda rank=rank: write(rank) for rank in range(2)))
    for store in stores:
        assert store.probabilities[:, 0, 0].tolist() == [10, 10, untouched[2, 0, 0], 10, 10, 10, untouched[6, 0, 0]]
        assert store.refined_in.tolist() == [4, -1, 4, -1]


def test_of_a_window_that_is_twice_in_a_batch_the_first_counts():
    store = PseudoLabels([2, 1], 1, 2)
    values = torch.arange(12.0).reshape(3, 2, 1, 2)
    store.write(torch.tensor([0, 1, 0]), torch.zeros(3, dtype=torch.long), values)
    assert store.probabilities[:, 0, 0].tolist() == [0, 2, 4]


def test_pseudo_labels_in_a_file_are_read_as_written_to_half_precision(tmp_path: Path):
    stores = [PseudoLabels([3, 2, 4], 2, 3, file=tmp_path / "labels") for _ in range(2)]  # two views of one file
    in_memory = PseudoLabels([3, 2, 4], 2, 3)
    assert (tmp_path / "labels").stat().st_size == 9 * 2 * 3 * 2
    window, start = torch.tensor([2, 0]), torch.tensor([1, 0])
    for store in (stores[0], in_memory):
        store.write(window, start, torch.rand(2, 6, 2, 3, generator=torch.Generator().manual_seed(0)).softmax(-1))
    (tmp_path / "labels").unlink()  # what is mapped lives on
    everything = (torch.arange(3), torch.zeros(3, dtype=torch.long), 4)
    read = stores[1].read(*everything)
    assert read.dtype == torch.float32 and torch.equal(read, stores[0].read(*everything))
    assert (read - in_memory.read(*everything)).abs().max() <= 2**-12  # half a unit in the last place of [0.5, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_prune_overlaps(seed: int):
    rng = random.Random(seed)
    rows, words, length, types = 3, 6, 3, 3
    soft, mask = torch.zeros(rows, words, length, types), torch.zeros(rows, words, length, dtype=torch.bool)
    expected_losers = set()
    for row in range(rows):
        number, entities = rng.randint(1, words), []
        for b in range(words):
            for k in range(length):
                values = rng.choice([random_soft(rng, types), [0.2, 0.7, 0.1], [0.2, 0.1, 0.7]])  # with ties
                soft[row, b, k] = torch.tensor(values)
                mask[row, b, k] = b + k + 1 <= number
                if mask[row, b, k] and largest(soft[row, b, k].tolist()) != 0:
                    entities.append((-max(soft[row, b, k].tolist()), b, k))
        taken = set()
        for _, b, k in sorted(entities):
            covered = set(range(b, b + k + 1))
            if covered & taken:
                expected_losers.add((row, b, k))
            else:
                taken |= covered
    before = soft.clone()
    pruned = prune_overlaps(soft, mask)
    assert torch.equal(soft, before)
    assert expected_losers
    for row in range(rows):
        for b in range(words):
            for k in range(length):
                wanted = [1.0, 0.0, 0.0] if (row, b, k) in expected_losers else before[row, b, k].tolist()
                assert pruned[row, b, k].tolist() == wanted


@pytest.mark.parametrize("seed", SEEDS)
def test_only_entities_that_are_kept_stay_soft(seed: int):
    torch.manual_seed(seed)
    soft, mask = torch.rand(2, 5, 2, 3).softmax(-1), torch.ones(2, 5, 2, dtype=torch.bool)
    mask[:, -1, 1] = False
    hardened, kept = harden_outside(soft, mask), prune_overlaps(soft, mask).argmax(-1) != 0
    assert torch.equal(hardened[kept], soft[kept]) and 0 < kept.sum() < (soft.argmax(-1) != 0).sum()
    assert (hardened[~kept] == torch.tensor([1.0, 0.0, 0.0])).all()
