"""A sample of an epoch's spans, of bounded size, that does not depend on who has the spans or in which order."""

from typing import NamedTuple

import torch
from torch import Tensor

from glode.denoising.gathering import Gather, gather_uneven
from glode.denoising.settings import DenoisingSettings
from glode.randomness import uniform


class Sample(NamedTuple):
    """Sampled spans: unit vectors [spans, D], types [spans], when each was seen as (step, key) [spans, 2], priorities [spans]."""

    vectors: Tensor
    types: Tensor
    when: Tensor
    priority: Tensor

    def select(self, rows: Tensor) -> "Sample":
        """The spans at these places."""
        return Sample(*(column[rows] for column in self))


def span_keys(key: Tensor, own_start: Tensor, span_mask: Tensor) -> Tensor:
    """A number for each span that no other span of the corpora has, whatever its batch is padded to. [batch, words, length]

    Args:
        key: [batch], a number that no other window has.
        own_start: [batch].
        span_mask: [batch, words, length].
    """
    words, length = span_mask.shape[1:]
    cells = torch.arange(words * length, device=key.device).view(words, length)
    return key[:, None, None] * 2**20 + cells - own_start[:, None, None] * length


def bottom_k(types: Tensor, priority: Tensor, size: int, least: int) -> Tensor:
    """What a sample of at most `size` spans keeps: of each type the `least` spans of the lowest priorities, then the lowest of
    all types ("bottom-k").

    Where priorities are independent and uniform on [0, 1), the spans that are kept of a type are a uniform sample of them. The
    sample of a whole is the sample of its parts' samples, however it is parted.

    Args:
        types, priority: [spans]; `least` times the number of types must not exceed the size.
    Returns:
        Indices [kept], ascending.
    """
    if len(types) <= size:
        return torch.arange(len(types), device=types.device)
    order = priority.argsort(stable=True)
    by_type = order[types[order].argsort(stable=True)]
    counts = types.bincount()
    rank = torch.empty_like(by_type)
    rank[by_type] = torch.arange(len(by_type), device=by_type.device) - (counts.cumsum(0) - counts)[types[by_type]]
    return (priority - (rank < least).double()).argsort(stable=True)[:size].sort().values


class Reservoir:
    """Every entity span of an epoch and the share `datastore_outside_share` of its O spans, at most `datastore_size`.

    Up to that size nothing is dropped. Beyond, a type keeps `num_neighbors` of its spans, if it has them, so that a rare one can
    still fill a neighbourhood; what room is left is shared out in proportion to what the epoch brought, so that the shares of
    eq. 9 keep their meaning.

    Args:
        types: C.
        size: D.
        settings: see [`DenoisingSettings`].
        device: where the spans lie.
    """

    def __init__(self, types: int, size: int, settings: DenoisingSettings, device: torch.device | str = "cpu"):
        self.number_of_types, self.settings = types, settings
        self._nothing = Sample(
            torch.empty(0, size, device=device),
            torch.empty(0, dtype=torch.long, device=device),
            torch.empty(0, 2, dtype=torch.long, device=device),
            torch.empty(0, dtype=torch.float64, device=device),
        )
        self.parts: list[Sample] = []

    def __len__(self) -> int:
        return sum(len(part.types) for part in self.parts)

    def collect(self, vectors: Tensor, types: Tensor, valid: Tensor, keys: Tensor, step: int) -> None:
        """Keep a sample of a batch: vectors [spans, D], types [spans], valid bool [spans].

        Which spans are kept follows from the seed, the step and the spans' `keys` [spans], whatever process has them.
        """
        kept = self.kept(types, valid, keys, step)
        self.add(vectors[kept], types[kept], keys[kept], step)

    def kept(self, types: Tensor, valid: Tensor, keys: Tensor, step: int) -> Tensor:
        """The places, flat, of the valid spans of a batch that belong to the sample: types, valid and keys [...] -> [kept]. A GPU
        has to be waited for here."""
        return (valid & (self.priority(types, keys, step) < 1)).flatten().nonzero().squeeze(1)

    def add(self, vectors: Tensor, types: Tensor, keys: Tensor, step: int) -> None:
        """Put spans that are kept into the sample: [kept, D], [kept], [kept]."""
        when = torch.stack([torch.full_like(keys, step), keys], dim=1)
        self.parts.append(Sample(vectors.float(), types, when, self.priority(types, keys, step)))
        if len(self) > 1.25 * self.settings.datastore_size:
            self._compact()

    def priority(self, types: Tensor, keys: Tensor, step: int) -> Tensor:
        """Below 1 for the spans that are kept, every entity span and the share of the O spans, and uniform there. [...]"""
        share = torch.where(types == 0, self.settings.datastore_outside_share, 1.0)
        return uniform(keys, self.settings.seed, step) / share

    def clear(self) -> None:
        self.parts = []

    def joined(self, gather: Gather) -> Sample:
        """What all processes have collected, at most the size, in the order of (step, key), which does not depend on the number
        of processes. Every process has to call it."""
        mine = self._compact()
        types, priority = gather_uneven(mine.types, gather), gather_uneven(mine.priority, gather)
        kept = self._lowest(types, priority)
        # A process sends the vectors that all together keep: of each type those up to a certain priority.
        last = priority.new_full((self.number_of_types,), -1).scatter_reduce(0, types[kept], priority[kept], "amax")
        sent = mine.select((mine.priority <= last[mine.types]).nonzero().squeeze(1))
        sample = Sample(*(gather_uneven(column, gather) for column in sent))
        step, key = sample.when.T
        by_key = key.argsort(stable=True)
        return sample.select(by_key[step[by_key].argsort(stable=True)])

    def _compact(self) -> Sample:
        """Join what this process has collected, at most the size."""
        whole = Sample(*(torch.cat(columns) for columns in zip(self._nothing, *self.parts, strict=True)))
        self.parts = [whole.select(self._lowest(whole.types, whole.priority))]
        return self.parts[0]

    def _lowest(self, types: Tensor, priority: Tensor) -> Tensor:
        size = self.settings.datastore_size
        return bottom_k(types, priority, size, min(self.settings.num_neighbors, size // self.number_of_types))
