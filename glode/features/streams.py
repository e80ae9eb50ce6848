"""Two streams of windows, source and target, as one data set and one sampler."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler


class TwoStreams(torch.utils.data.Dataset):
    """Source windows, then target windows, as one map-style data set. An index beyond its end starts again: epoch after epoch.

    A row has the window's columns and: `is_target`, which stream it is of; `window`, its number in that stream; `key`, a number
    that no other window of either stream has; and `index`, which tells the epoch as well. What random numbers about a window
    follow from is one of the last two.
    """

    def __init__(self, source: Dataset, target: Dataset | None):
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source) + (len(self.target) if self.target is not None else 0)

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        total = len(self)
        places = [index % total for index in indices]
        return [self._row(place, index) for place, index in zip(places, indices, strict=True)]

    def _row(self, place: int, index: int) -> dict:
        border = len(self.source)
        is_target = place >= border
        window = place - border if is_target else place
        stream = self.source if self.target is None or not is_target else self.target
        return stream[window] | {"is_target": is_target, "window": window, "key": place - border, "index": index}

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]


class TwoStreamSampler(Sampler[int]):
    """Draws `source_batch` source and `target_batch` target windows, over and over: together one micro-batch.

    The order is a pure function of (seed, epoch). An epoch is one pass over the longer stream, the shorter one starts
    anew. Windows of similar length share a batch: within each run of batches both streams are sorted by length, and
    the batches are shuffled afterwards. Several processes, of which each takes every n-th micro-batch, get together what
    one process with n times the batch gets.

    Of several source languages each has the same share of an epoch's source windows, which are as many as without: the windows of
    a small one come again, of a large one each epoch has others, until all have come. Other source windows, which are labelled
    target sentences, come as often as without.

    Args:
        source_lengths, target_lengths: tokens of each window.
        source_batch, target_batch: windows of each stream a micro-batch; `target_batch` 0 leaves the target out.
        processes: how many processes share an epoch.
        languages: where there are several source languages, the windows of each.
    """

    run = 16

    def __init__(
        self,
        source_lengths: Sequence[int] | np.ndarray,
        target_lengths: Sequence[int] | np.ndarray,
        source_batch: int,
        target_batch: int,
        seed: int,
        processes: int = 1,
        languages: Sequence[np.ndarray] = (),
    ):
        self.streams = [(np.asarray(source_lengths), source_batch, 0)]
        if target_batch:
            self.streams.append((np.asarray(target_lengths), target_batch, len(source_lengths)))
        self.steps = max(-(-len(lengths) // (batch * processes)) for lengths, batch, _ in self.streams)
        self.seed, self.epoch, self.processes = seed, 0, processes
        self.groups = _with_the_rest(languages, len(source_lengths)) if len(languages) > 1 else []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.processes * sum(batch for _, batch, _ in self.streams)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        drawn = [self._draw(generator, *stream) for stream in self.streams]
        batches = np.concatenate([stream.reshape(self.steps, self.processes, -1) for stream in drawn], axis=2)
        total = sum(len(lengths) for lengths, *_ in self.streams)  # an index tells the epoch as well, see TwoStreams
        for step in generator.permutation(self.steps):
            yield from (batches[step].ravel() + self.epoch * total).tolist()

    def _draw(self, generator: np.random.Generator, lengths: np.ndarray, batch: int, shift: int) -> np.ndarray:
        """[steps, batch of all processes] indices, sorted by length inside each run of batches."""
        batch *= self.processes
        wanted = self.steps * batch
        if self.groups and not shift:
            order = generator.permutation(self._balanced(wanted))
        else:
            passes = [generator.permutation(len(lengths)) for _ in range(-(-wanted // len(lengths)))]
            order = np.concatenate(passes)[:wanted]
        for at in range(0, wanted, self.run * batch):
            run = order[at : at + self.run * batch]
            run[:] = run[np.argsort(lengths[run], kind="stable")]
        return order.reshape(self.steps, batch) + shift

    def source_mean(self, values: np.ndarray) -> float:
        """The mean of values [source windows] over the windows as often as they are drawn."""
        if not self.groups:
            return float(values.mean())
        return float(sum(share * values[windows].mean() for windows, share in self.groups))

    def _balanced(self, wanted: int) -> np.ndarray:
        """So many source windows of this epoch, of each group its share."""
        borders = np.rint(wanted * np.cumsum([0.0, *(share for _, share in self.groups)])).astype(np.int64)
        quotas = np.diff(borders).tolist()
        return np.concatenate([self._next(n, windows, quotas[n]) for n, (windows, _) in enumerate(self.groups)])

    def _next(self, group: int, windows: np.ndarray, quota: int) -> np.ndarray:
        """A group's windows of this epoch: permutation after permutation, from where the epoch before ended."""
        begin = self.epoch * quota
        first, last = begin // len(windows), -(-(begin + quota) // len(windows))
        passes = [np.random.default_rng([self.seed, number, 1 + group]).permutation(windows) for number in range(first, last)]
        return np.concatenate([windows[:0], *passes])[begin - first * len(windows) :][:quota]


def of_languages(languages: np.ndarray, targets: int) -> list[np.ndarray]:
    """The source windows of each source language.

    Args:
        languages: [source windows], numbered as `Denoiser` says; those from 1 to `targets` are labelled target sentences.
    """
    found = np.unique(languages)
    return [(languages == number).nonzero()[0] for number in found[(found == 0) | (found > targets)]]


def _with_the_rest(languages: Sequence[np.ndarray], windows: int) -> list[tuple[np.ndarray, float]]:
    """The windows of each language, and those of none, each with its share of an epoch."""
    rest = np.setdiff1d(np.arange(windows), np.concatenate(list(languages)))
    share = (windows - len(rest)) / len(languages) / windows
    return [*((own, share) for own in languages), *([(rest, len(rest) / windows)] if len(rest) else [])]
