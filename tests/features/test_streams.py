"""Protects the two streams and their sampler: the same batches again, of similar lengths, in any number of processes."""

from collections import Counter

import numpy as np
import pytest
import torch

from glode.features.streams import TwoStreams, TwoStreamSampler, of_languages

pytestmark = pytest.mark.usefixtures("datasets_cache")


def lengths_of(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 200, number)


def test_two_streams(streams: TwoStreams):
    assert len(streams) == 35
    rows = streams.__getitems__([3, 20, 34])
    assert [row["index"] for row in rows] == [3, 20, 34] and [row["key"] for row in rows] == [-17, 0, 14]
    assert [row["is_target"] for row in rows] == [False, True, True] and [row["window"] for row in rows] == [3, 0, 14]
    later = streams.__getitems__([3 + 35, 20 + 70])
    assert [row["key"] for row in later] == [-17, 0] and [row["input_ids"] for row in later] == [r["input_ids"] for r in rows[:2]]
    assert rows[1]["input_ids"] == streams.target[0]["input_ids"] and rows[0]["input_ids"] == streams.source[3]["input_ids"]
    assert "types" in rows[0] and "types" not in rows[1]
    assert streams[34] == rows[2]
    assert len(TwoStreams(streams.source, None)) == 20


@pytest.mark.parametrize(("source", "target"), [(103, 40), (40, 103), (50, 50), (7, 1), (1, 7)])
@pytest.mark.parametrize(("source_batch", "target_batch"), [(4, 4), (3, 5), (8, 1)])
def test_sampler_batches(source: int, target: int, source_batch: int, target_batch: int):
    sampler = TwoStreamSampler(lengths_of(source, 0), lengths_of(target, 1), source_batch, target_batch, seed=3)
    steps = max(-(-source // source_batch), -(-target // target_batch))
    indices = list(sampler)
    assert len(indices) == len(sampler) == steps * (source_batch + target_batch)
    batches = np.array(indices).reshape(steps, -1)
    assert (batches[:, :source_batch] < source).all() and (batches[:, source_batch:] >= source).all()
    drawn = Counter(indices)
    assert set(drawn) == set(range(source + target))  # the shorter stream is covered all the more
    for part in (range(source), range(source, source + target)):
        assert max(drawn[i] for i in part) - min(drawn[i] for i in part) <= 1


def test_sampler_is_a_function_of_seed_and_epoch():
    def draw(seed: int, epoch: int) -> list[int]:
        sampler = TwoStreamSampler(lengths_of(60, 0), lengths_of(90, 1), 4, 4, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    np.random.seed(0)
    torch.manual_seed(0)
    first = draw(1, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert draw(1, 0) == first
    orders = [draw(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6
    sampler = TwoStreamSampler(lengths_of(60, 0), lengths_of(90, 1), 4, 4, 1)
    sampler.set_epoch(2)
    assert list(sampler) == orders[2] == list(sampler)
    assert {index // 150 for index in orders[2]} == {2}  # an index tells the epoch
    sampler.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one(processes: int):
    lengths = (lengths_of(50, 0), lengths_of(70, 1))
    one = np.array(list(TwoStreamSampler(*lengths, 2 * processes, 3 * processes, 1))).reshape(-1, 5 * processes)
    several = np.array(list(TwoStreamSampler(*lengths, 2, 3, 1, processes))).reshape(-1, processes, 5)
    assert len(one) == len(several)
    border = 2 * processes
    assert np.array_equal(one[:, :border].reshape(-1, processes, 2), several[..., :2])
    assert np.array_equal(one[:, border:].reshape(-1, processes, 3), several[..., 2:])


def test_sampler_of_the_source_alone():
    sampler = TwoStreamSampler(lengths_of(21, 0), lengths_of(500, 1), 4, 0, seed=0)
    assert len(sampler) == 24 and set(sampler) == set(range(21))


def test_similar_lengths_share_a_batch():
    lengths = [lengths_of(640, 0), lengths_of(640, 1)]
    batches = np.array(list(TwoStreamSampler(*lengths, 8, 8, seed=0))).reshape(-1, 16)
    together = np.concatenate(lengths)[batches]
    random_batches = np.random.default_rng(0).permutation(640).reshape(-1, 8)
    usual = np.ptp(lengths[0][random_batches], axis=1).mean()
    assert np.ptp(together[:, :8], axis=1).mean() < usual / 4
    assert np.ptp(together[:, 8:], axis=1).mean() < usual / 4
    assert np.ptp(together, axis=1).mean() < usual / 3  # both streams: they are padded to one width
    order = np.diff(together.mean(1)) > 0
    assert 0.25 < order.mean() < 0.75  # but the batches do not come in the order of their lengths


# ------------------------------------------------------------------------------------------------- several source languages

ENGLISH, SPANISH, GOLD = np.arange(90), np.arange(90, 100), np.arange(100, 106)  # the last are labelled target sentences


def drawn_in(epoch: int, languages: list[np.ndarray], processes: int = 1) -> list[int]:
    """The source windows of an epoch of 75 steps, in order."""
    sampler = TwoStreamSampler(lengths_of(106, 0), lengths_of(300, 1), 4 // processes, 4 // processes, 3, processes, languages)
    sampler.set_epoch(epoch)
    indices = list(sampler)
    assert len(indices) == len(sampler) == 600
    windows = np.array(indices).reshape(75, processes, 2, 4 // processes)[:, :, 0]
    return (windows % 406).ravel().tolist()


def test_the_order_of_one_source_is_what_it_was_before_there_were_several():
    for languages in ((), [np.arange(4)]):  # the fifth window is a labelled target sentence
        sampler = TwoStreamSampler(lengths_of(5, 0), lengths_of(3, 1), 2, 1, 7, 1, languages)
        sampler.set_epoch(1)
        assert list(sampler) == [10, 10, 14, 9, 8, 15, 11, 12, 13]


def test_source_languages_have_equal_shares_and_every_window_its_turn():
    total = Counter[int]()
    for epoch in range(4):
        drawn = Counter(drawn_in(epoch, [ENGLISH, SPANISH]))
        counts = [sum(drawn[window] for window in windows) for windows in (ENGLISH, SPANISH, GOLD)]
        assert abs(counts[0] - counts[1]) <= 1 and counts[2] == 17  # of 300 as of 106, which 6 are
        total += drawn
        for windows in (ENGLISH, SPANISH, GOLD):  # also over several epochs no window comes much oftener than another
            assert max(total[window] for window in windows) - min(total[window] for window in windows) <= 1
    sampler = TwoStreamSampler(lengths_of(106, 0), [], 4, 0, 3, 1, [ENGLISH, SPANISH])
    assert len(sampler) == 108  # an epoch is as long as without
    first = set(sampler) & set(ENGLISH.tolist())
    sampler.set_epoch(1)
    second = {index % 106 for index in sampler} & set(ENGLISH.tolist())
    assert len(first) == 51 and first | second == set(ENGLISH.tolist())  # of a large one each epoch has others


def test_shares_are_a_function_of_seed_and_epoch():
    orders = [drawn_in(epoch, [ENGLISH, SPANISH]) for epoch in (0, 1, 2)]
    assert drawn_in(2, [ENGLISH, SPANISH]) == orders[2] and len(set(map(tuple, orders))) == 3
    assert sorted(drawn_in(2, [ENGLISH, SPANISH], processes=2)) == sorted(orders[2])


def test_means_are_of_what_is_drawn():
    values = np.concatenate([np.full(90, 20.0), np.full(10, 60.0), np.full(6, 10.0)])
    sampler = TwoStreamSampler(lengths_of(106, 0), lengths_of(9, 1), 4, 4, 3, 1, [ENGLISH, SPANISH])
    assert sampler.source_mean(values) == pytest.approx((100 * 40 + 6 * 10) / 106)
    assert TwoStreamSampler(lengths_of(106, 0), [], 4, 0, 3).source_mean(values) == float(values.mean())


def test_the_windows_of_each_source_language():
    numbers = np.array([0, 0, 3, 1, 4, 3, 2])
    assert [windows.tolist() for windows in of_languages(numbers, targets=2)] == [[0, 1], [2, 5], [4]]
    assert [windows.tolist() for windows in of_languages(numbers[3:4], targets=2)] == []
