"""Stored vectors, parted into cells of near ones, of which a search sees a few."""

from typing import cast

import faiss
import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.exact_index import on_host


class CellIndex:
    """An inverted-file FAISS index on the CPU (vectors in half precision), and how many vectors of each type its cells hold.

    Most spans are answered by the types in the cells nearest to them alone, see `settle`. The others are compared with the
    vectors of `cells_to_search` cells, see `choose_cells_to_search`.

    Args:
        vectors: [stored, D].
        types: their types [stored].
        number_of_types: C.
    """

    nearest_cells = (4, 16)  # the fewest and the most that may settle a span unsearched
    settling_share = 0.99  # of one type in them
    least_recall = 0.95  # of a search in cells
    largest_part = 8  # a search in more than an eighth of the cells is no faster than one in all vectors

    def __init__(self, vectors: Tensor, types: Tensor, number_of_types: int):
        stored, number = on_host(vectors), int(len(vectors) ** 0.5)
        ivf = faiss.index_factory(vectors.shape[1], f"IVF{number},SQfp16", faiss.METRIC_INNER_PRODUCT)
        self._index = cast(faiss.IndexIVF, ivf)
        self._index.train(stored[:: max(1, len(stored) // (50 * number))])
        self._index.add(stored)
        self._index.make_direct_map()
        self.cell_of = torch.from_numpy(faiss.vector_to_array(self._index.direct_map.array) >> 32)  # below: the place in the cell
        counts = (self.cell_of * number_of_types + types).bincount(minlength=number * number_of_types)
        self.counts = counts.view(number, -1).to(vectors.device, torch.double)  # [cells, types]
        self.centroids = torch.from_numpy(self._index.quantizer.reconstruct_n(0, number)).to(vectors)  # [cells, D]
        self.cells_to_search = 0

    def __len__(self) -> int:
        return self._index.ntotal

    def choose_cells_to_search(self, queries: Tensor, found: Tensor) -> float | None:
        """Look into as many cells as hold 95 % of the neighbours that an exact search has `found`.

        Args:
            queries: [queries, D].
            found: their neighbours' numbers [queries, K], on the CPU.
        Returns:
            The share of the neighbours in these cells; None where that takes more than an eighth of all cells.
        """
        number = len(self.centroids)
        order = (queries @ self.centroids.T).argsort(dim=1, descending=True)  # of the cells, from near to far
        places = order.argsort(dim=1).gather(1, self.cell_of[found]).flatten()  # of the neighbours' cells in that order
        holding = places.bincount(minlength=number).cumsum(0)[: number // self.largest_part] / max(1, len(places))
        enough = holding >= self.least_recall
        if not enough.any():
            return None
        self.cells_to_search = 1 + int(enough.int().argmax())
        return float(holding[self.cells_to_search - 1])

    def search(self, queries: Tensor, neighbors: int) -> Tensor:
        """The numbers of the nearest vectors of the cells that are looked into: [queries, D] -> [queries, neighbors], on the CPU;
        -1 where these cells hold fewer."""
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = self.cells_to_search
        return torch.from_numpy(self._index.search(on_host(queries), neighbors, params=parameters)[1])

    def settle(
        self, vectors: Tensor, neighbors: int, types: Tensor | None = None, thresholds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the nearest cells that hold 3 K vectors together say of some spans.

        Args:
            vectors: [spans, D].
            neighbors: K.
            types, thresholds: see `Datastore.similarity`.
        Returns:
            The shares of the types in these cells [spans, types], and whether they are the answer [spans]: for an O span where
            its only direction is O whichever of them are its neighbours (eq. 8), for any other where they are of one type but
            for one in a hundred.
        """
        counts, enough = self._nearest_counts(vectors, 3 * neighbors)
        shares = F.normalize(counts, p=1, dim=1)
        certain = shares.amax(1) >= self.settling_share
        if types is not None and thresholds is not None:
            # What an entity type's share is if all its vectors of these cells are among the neighbours; the rest is O.
            upper = F.pad(counts[:, 1:] / neighbors, (1, 0))
            outside = (upper <= thresholds).all(1) & (1 - upper.sum(1) >= upper.amax(1))
            certain = torch.where(types == 0, outside, certain)
        return shares, certain & enough

    def _nearest_counts(self, vectors: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
        """How many vectors of each type the nearest cells hold, as many cells as hold `wanted` vectors [spans, types], and
        whether the most cells that may be taken hold so many [spans]."""
        fewest, most = self.nearest_cells
        nearest = (vectors.float() @ self.centroids.T).topk(min(most, len(self.centroids))).indices
        counts = self.counts[nearest].cumsum(1)
        enough = counts.sum(-1) >= wanted
        enough[:, : fewest - 1] = False
        return counts.take_along_dim(enough.int().argmax(1)[:, None, None], dim=1).squeeze(1), enough[:, -1]
