"""Span vectors of the last epoch, searched for neighbours (eq. 9)."""

import torch
from torch import Tensor

from glode.denoising.cell_index import CellIndex
from glode.denoising.exact_index import ExactIndex
from glode.denoising.gathering import Gather, alone
from glode.denoising.reservoir import Reservoir
from glode.denoising.settings import DenoisingSettings


class Datastore:
    """Span vectors of the last epoch with their types. While an epoch runs, a [`Reservoir`] collects those of the next.

    The search is exact up to `datastore_exact_size` vectors, and on a GPU. Beyond, a [`CellIndex`] settles most spans without a
    search, and searches the others where few cells hold their neighbours. Measured on a sample of stored vectors: `recall` is the
    share of the neighbours that a search finds, and `deviation` the mean error of all shares, at its worst: while thresholds are
    not known yet.

    Args:
        types: C.
        size: D.
        settings: see [`DenoisingSettings`].
        device: where the vectors lie.
    """

    sample_size = 512  # of stored vectors, on which the search is measured

    def __init__(self, types: int, size: int, settings: DenoisingSettings, device: torch.device | str = "cpu"):
        self.number_of_types, self.settings = types, settings
        self.reservoir = Reservoir(types, size, settings, device)
        self.store(torch.empty(0, size, device=device), torch.empty(0, dtype=torch.long, device=device))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def neighbors(self) -> int:
        """K for the present store: all of a small store would tell every span the same."""
        return max(1, min(self.settings.num_neighbors, int(self.settings.neighbor_share * len(self))))

    def rebuild(self, gather: Gather = alone) -> None:
        """Store what all processes have collected, and start to collect anew. Every process has to call it."""
        sample = self.reservoir.joined(gather)
        self.reservoir.clear()
        self.store(sample.vectors, sample.types)

    def store(self, vectors: Tensor, types: Tensor) -> None:
        """Index vectors [stored, D] (unit length) with their types [stored]."""
        self.vectors, self.types = vectors, types
        exact = ExactIndex(vectors)
        self.index: ExactIndex | CellIndex = exact  # what is searched
        self.cells: CellIndex | None = None  # what settles spans without a search
        self.recall, self.deviation = 1.0, 0.0
        if len(vectors) > self.settings.datastore_exact_size and vectors.device.type == "cpu":
            self._part_into_cells(exact)

    def _part_into_cells(self, exact: ExactIndex) -> None:
        """Make the index of cells, and measure on a sample of the stored vectors what it costs."""
        every = -(-len(self) // self.sample_size)
        sample, types = self.vectors[::every], self.types[::every]
        found = exact.search(sample, self.neighbors)
        cells = self.cells = CellIndex(self.vectors, self.types, self.number_of_types)
        searched = ~cells.settle(sample, self.neighbors)[1]
        recall = cells.choose_cells_to_search(sample[searched], found[searched])
        if recall is not None:
            self.index, self.recall = cells, recall
        shares = self.similarity(sample, types, sample.new_full((len(sample), self.number_of_types), torch.inf))
        self.deviation = float((shares - self._shares_of(found)).abs().mean())

    def similarity(self, vectors: Tensor, types: Tensor | None = None, thresholds: Tensor | None = None) -> Tensor:
        """Eq. 9: the share of each type among the nearest K stored vectors.

        Args:
            vectors: [spans, D].
            types: the spans' pseudo labels [spans]; with them, O spans whose only direction is O in any case are not searched.
                Their shares are those of more than K vectors then.
            thresholds: what a share has to exceed to be a direction (eq. 8) [spans, types].
        Returns:
            [spans, types]; zeros while nothing is stored.
        """
        if not len(self) or not len(vectors):
            return torch.zeros(len(vectors), self.number_of_types, dtype=vectors.dtype, device=vectors.device)
        if self.cells is None:
            return self._search(vectors)
        shares, settled = self.cells.settle(vectors, self.neighbors, types, thresholds)
        left = (~settled).nonzero().squeeze(1)
        return shares.to(vectors).index_copy_(0, left, self._search(vectors[left]))

    def _search(self, vectors: Tensor) -> Tensor:
        """The share of each type among the nearest neighbours that the index finds. [spans, D] -> [spans, types]"""
        return self._shares_of(self.index.search(vectors, self.neighbors)).to(vectors)

    def _shares_of(self, found: Tensor) -> Tensor:
        """The share of each type among stored vectors, by their numbers [queries, K]; below 0 there is none."""
        hit = (found >= 0).double()
        counts = hit.new_zeros(len(found), self.number_of_types)
        counts.scatter_add_(1, self.types[found.clamp(min=0)], hit)
        return counts / counts.sum(1, keepdim=True).clamp(min=1)
