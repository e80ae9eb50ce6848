"""Protects the reading of a corpus by several processes: each window counts once, and all processes read as many batches."""

import numpy as np
import pytest

from glode.training.reading import batches_of


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("windows", [1, 4, 21])
def test_each_window_counts_once_and_all_read_as_often(windows: int, processes: int):
    lengths = np.random.default_rng(0).integers(1, 9, windows)
    parts = [list(batches_of(lengths, 4, rank, processes)) for rank in range(processes)]
    assert len({len(part) for part in parts}) == 1
    assert all(len(batch) for part in parts for batch, _ in part)
    counted = [number for part in parts for batch, counts in part if counts for number in batch.tolist()]
    assert sorted(counted) == list(range(windows))
    alone = [batch.tolist() for batch, _ in batches_of(lengths, 4)]
    assert [parts[at % processes][at // processes][0].tolist() for at in range(len(alone))] == alone
    assert (np.diff(lengths[np.concatenate(alone)]) <= 0).all()
