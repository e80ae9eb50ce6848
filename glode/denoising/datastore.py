"""Span vectors of the last epoch, searched for neighbours (eq. 9)."""

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.gathering import Gather, alone, gather_uneven
from glode.randomness import uniform

COLLECTED = ("vectors", "types", "when", "priority")  # the columns of what a datastore collects


def reservoir(types: Tensor, priority: Tensor, capacity: int, least: int) -> Tensor:
    """What a sample of at most `capacity` spans keeps: of each type the `least` spans of the lowest priorities, then the lowest
    of all types ("bottom-k").

    Where priorities are independent and uniform on [0, 1), the spans that are kept of a type are a uniform sample of them. The
    sample of a whole is the sample of its parts' samples, however it is parted.

    Args:
        types, priority: [spans]; `least` times the number of types must not exceed the capacity.
    Returns:
        Indices [kept], ascending.
    """
    if len(types) <= capacity:
        return torch.arange(len(types), device=types.device)
    order = priority.argsort(stable=True)
    order = order[types[order].argsort(stable=True)]
    counts = types.bincount()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[types[order]]
    return (priority - (rank < least).double()).argsort(stable=True)[:capacity].sort().values


class Datastore:
    """Span vectors of the last epoch with their types, searched by FAISS (eq. 9).

    While an epoch runs, every entity span and a share of the O spans are collected, in a `reservoir` where they are more than the
    capacity; `rebuild` makes the index of them.

    The search is exact up to `exact_size` vectors, and on a GPU. Beyond, an inverted-file index parts the vectors (in half
    precision) into cells, and most spans are answered by the types in the cells nearest to them, of 3 K vectors together: an O
    span where its only direction is O whichever of them are its neighbours (eq. 8), any other where they are of one type but
    for one in a hundred. The rest is compared with the vectors of more cells: as many as hold 95 % of the neighbours, or with
    all vectors where that takes more than an eighth of the cells. Measured on a sample of stored vectors: `recall` is the share
    of the neighbours that a search finds, and `deviation` the mean error of all shares, at its worst: while thresholds are not
    known yet.

    Args:
        neighbors: K.
        neighbor_share: the most neighbours as a share of the store: all of a small store would tell every span the same.
        outside_share: the share of O spans that is kept.
        capacity: the most vectors that are collected and stored. Up to it nothing is dropped. Beyond, a type keeps K of its
            vectors, if it has them, so that a rare one can still fill a neighbourhood; what room is left is shared out in
            proportion to what the epoch brought, so that the shares of eq. 9 keep their meaning.
        exact_size: up to so many vectors, every span is compared with all of them.
    """

    nearest_cells = (4, 16)  # the fewest and the most that may settle a span unsearched
    settling_share = 0.99  # of one type in them
    least_recall = 0.95  # of a search in cells
    sample_size = 512  # of stored vectors, on which the search is measured

    def __init__(
        self,
        types: int,
        size: int,
        neighbors: int = 300,
        neighbor_share: float = 1.0,
        outside_share: float = 0.03,
        capacity: int = 200_000,
        exact_size: int = 4_000,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.number_of_types, self.size, self.most_neighbors, self.neighbor_share = types, size, neighbors, neighbor_share
        self.outside_share, self.capacity, self.exact_size, self.seed = outside_share, capacity, exact_size, seed
        self.vectors, self.types = torch.empty(0, size, device=device), torch.empty(0, dtype=torch.long, device=device)
        self.host_types = self.types.cpu()
        self.collected: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.index, self.cells = None, 0
        self.centroids, self.cell_types = None, None  # of the cells [cells, D], [cells, types]
        self.recall, self.deviation = 1.0, 0.0

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def neighbors(self) -> int:
        """K for the present store."""
        return max(1, min(self.most_neighbors, int(self.neighbor_share * len(self))))

    def collect(self, vectors: Tensor, types: Tensor, valid: Tensor, keys: Tensor, step: int) -> None:
        """Keep a sample of a batch: vectors [spans, D], types [spans], valid bool [spans].

        Which spans are kept follows from the seed, the step and the spans' `keys` [spans], whatever process has them.
        """
        # Uniform on [0, 1) for the spans that are kept: every entity span and the share of the O spans.
        priority = uniform(keys, self.seed, step) / torch.where(types == 0, self.outside_share, 1.0)
        kept = valid & (priority < 1)
        when = torch.stack([torch.full_like(keys, step), keys], dim=1)
        self.collected.append((vectors[kept].float(), types[kept], when[kept], priority[kept]))
        if sum(len(types) for _, types, *_ in self.collected) > 1.25 * self.capacity:
            self._compact()

    def _compact(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Join what this process has collected, at most the capacity: vectors, types, (step, key), priorities."""
        nothing = (self.vectors[:0], self.types[:0], self.types.new_empty(0, 2), self.types.new_empty(0, dtype=torch.float64))
        columns = [torch.cat(parts) for parts in zip(nothing, *self.collected, strict=True)]
        kept = self._reservoir(columns[1], columns[3])
        self.collected = [tuple(column[kept] for column in columns)]
        return self.collected[0]

    def _reservoir(self, types: Tensor, priority: Tensor) -> Tensor:
        return reservoir(types, priority, self.capacity, min(self.most_neighbors, self.capacity // self.number_of_types))

    def joined(self, gather: Gather) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What all processes have collected, at most the capacity: vectors [spans, D], types [spans], (step, key) [spans, 2] and
        priorities [spans], in the order of (step, key), which does not depend on the number of processes."""
        mine = self._compact()
        types, priority = (gather_uneven(mine[column], gather) for column in (1, 3))
        kept = self._reservoir(types, priority)
        # A process sends the vectors that all together keep: of each type those up to a certain priority.
        last = priority.new_full((self.number_of_types,), -1).scatter_reduce(0, types[kept], priority[kept], "amax")
        kept = mine[3] <= last[mine[1]]
        columns = [gather_uneven(column[kept], gather) for column in mine]
        step, key = columns[2].T
        order = key.argsort(stable=True)
        order = order[step[order].argsort(stable=True)]
        return tuple(column[order] for column in columns)

    def rebuild(self, gather: Gather = alone) -> None:
        """Index what all processes have collected, and start to collect anew."""
        vectors, types, *_ = self.joined(gather)
        self.collected = []
        self.store(vectors, types)

    def store(self, vectors: Tensor, types: Tensor) -> None:
        """Index vectors [stored, D] (unit length) with their types [stored]."""
        self.vectors, self.types, self.host_types = vectors, types, types.cpu()  # FAISS answers on the host
        stored = np.ascontiguousarray(vectors.numpy(force=True))
        self.index, self.cells, self.centroids = _on_device(faiss.IndexFlatIP(self.size)), 0, None
        self.recall, self.deviation = 1.0, 0.0
        self.index.add(stored)
        if len(stored) > self.exact_size and isinstance(self.index, faiss.IndexFlat):
            self._approximate(stored)

    def _approximate(self, stored: np.ndarray) -> None:
        """Part the vectors into cells, and find in how many of them a search has to look."""
        number = int(len(stored) ** 0.5)
        ivf = faiss.index_factory(self.size, f"IVF{number},SQfp16", faiss.METRIC_INNER_PRODUCT)
        ivf.train(stored[:: max(1, len(stored) // (50 * number))])
        ivf.add(stored)
        ivf.make_direct_map()
        cell = torch.from_numpy(faiss.vector_to_array(ivf.direct_map.array) >> 32)  # below it, the place in the cell
        counts = (cell * self.number_of_types + self.host_types).bincount(minlength=number * self.number_of_types)
        self.cell_types = counts.view(number, -1).to(self.vectors.device, torch.double)
        self.centroids = torch.from_numpy(ivf.quantizer.reconstruct_n(0, number)).to(self.vectors)
        every = -(-len(stored) // self.sample_size)
        sample, types = self.vectors[::every], self.types[::every]
        found = torch.from_numpy(self.index.search(stored[::every], self.neighbors)[1])
        exact_shares = self._shares_of(found)
        mixed = ~self._settled(sample)[1]
        order = (sample[mixed] @ self.centroids.T).argsort(dim=1, descending=True).cpu()  # of the cells, from near to far
        mixed = mixed.cpu()
        places = order.argsort(dim=1).gather(1, cell[found[mixed]]).flatten()  # of the neighbours' cells in that order
        holding = places.bincount(minlength=number).cumsum(0)[: number // 8] / max(1, len(places))
        enough = holding >= self.least_recall
        if enough.any():
            self.index, self.cells = ivf, 1 + int(enough.int().argmax())
            self.recall = float(holding[self.cells - 1])
        shares = self.similarity(sample, types, sample.new_full((len(sample), self.number_of_types), torch.inf))
        self.deviation = float((shares.cpu() - exact_shares).abs().mean())

    def _settled(self, vectors: Tensor, types: Tensor | None = None, thresholds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The shares of the types in the nearest cells that hold 3 K vectors [spans, types], and whether they are the answer
        [spans]; arguments as of `similarity`."""
        fewest, most = self.nearest_cells
        nearest = (vectors.float() @ self.centroids.T).topk(min(most, len(self.centroids))).indices
        counts = self.cell_types[nearest].cumsum(1)
        enough = counts.sum(-1) >= 3 * self.neighbors
        enough[:, : fewest - 1] = False
        counts = counts.take_along_dim(enough.int().argmax(1)[:, None, None], dim=1).squeeze(1)
        shares = F.normalize(counts, p=1, dim=1)
        certain = shares.amax(1) >= self.settling_share
        if types is not None:
            # What an entity type's share is if all its vectors of these cells are among the neighbours; the rest is O.
            upper = F.pad(counts[:, 1:] / self.neighbors, (1, 0))
            outside = (upper <= thresholds).all(1) & (1 - upper.sum(1) >= upper.amax(1))
            certain = torch.where(types == 0, outside, certain)
        return shares, certain & enough[:, -1]

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
        if self.centroids is None:
            return self._shares(vectors)
        shares, settled = self._settled(vectors, types, thresholds)
        left = (~settled).nonzero().squeeze(1)
        return shares.to(vectors).index_copy_(0, left, self._shares(vectors[left]))

    def _shares(self, vectors: Tensor) -> Tensor:
        """The share of each type among the nearest neighbours that the index finds. [spans, D] -> [spans, types]"""
        queries = np.ascontiguousarray(vectors.float().numpy(force=True))
        parameters = faiss.SearchParametersIVF(nprobe=self.cells) if self.cells else None
        return self._shares_of(torch.from_numpy(self.index.search(queries, self.neighbors, params=parameters)[1])).to(vectors)

    def _shares_of(self, found: Tensor) -> Tensor:
        """The share of each type among stored vectors, by their numbers [queries, K]; below 0 there is none."""
        hit = (found >= 0).double()  # the cells that were looked into may hold fewer than K
        counts = torch.zeros(len(found), self.number_of_types, dtype=hit.dtype)
        counts.scatter_add_(1, self.host_types[found.clamp(min=0)], hit)
        return counts / counts.sum(1, keepdim=True).clamp(min=1)


def _on_device(index: faiss.Index) -> faiss.Index:
    """The index on this process' GPU, where FAISS has been built for one."""
    if torch.cuda.is_available() and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), torch.cuda.current_device(), index)
    return index
