"""Global-local denoising of soft pseudo labels (GLoDe, IJCAI 2024, eq. 5-11). Knows no Trainer.

Per step: the prototypes move (eq. 6), similarities to prototypes (eq. 7) and neighbours (eq. 9) become directions (eq. 8),
and the pseudo labels of the batch are refined (eq. 10, 11). Per epoch: thresholds are set and the datastore is rebuilt.

C types, type 0 is "O"; D is the size of the projection; spans lie in a grid [batch, words, length].
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_glode import InputError, select_spans
from random_glode import uniform

Gather = Callable[[Tensor], Tensor]
COLLECTED = ("vectors", "types", "when", "priority")  # the columns of what a datastore collects


def alone(tensor: Tensor) -> Tensor:
    """Gathering for one process: [...] -> [1, ...]."""
    return tensor[None]


# ------------------------------------------------------------------------------------------------------- pseudo labels


class PseudoLabels:
    """Soft labels of all spans of the target text: one flat array [owned words, length, types] and an offset per window.

    With `file` the array lies there in half precision, mapped into memory, and the processes of a machine share it. The file is
    scratch: what a stopped run goes on from is the copy in its checkpoint. Why float16: docs/scale.md.

    Args:
        words: how many words each window owns.
        length: L.
        types: C.
        device: where labels are read to; without `file` they also lie there.
        file: the labels' file, the same for all processes of a machine; made where it is not there.

    Raises:
        OSError: `file` cannot be made, or the disk has no room for it.
    """

    def __init__(
        self,
        words: Sequence[int],
        length: int,
        types: int,
        device: torch.device | str = "cpu",
        file: Path | None = None,
    ):
        counts = torch.as_tensor(words, dtype=torch.long)
        self.offsets = F.pad(counts.cumsum(0), (1, 0)).to(device)
        self.refined_in = torch.full((len(counts),), -1, dtype=torch.int16, device=device)
        shape = (int(counts.sum()), length, types)
        self.probabilities = torch.empty(shape, device=device) if file is None else _map_half(file, shape)
        self.probabilities[:] = F.one_hot(torch.tensor(0), types)

    def _rows(self, window: Tensor, own_start: Tensor, words: int) -> tuple[Tensor, Tensor]:
        """The flat row of each word [batch, words], and which words the window owns."""
        relative = torch.arange(words, device=window.device) - own_start[:, None]
        count = (self.offsets[window + 1] - self.offsets[window])[:, None]
        owned = (relative >= 0) & (relative < count)
        return self.offsets[window][:, None] + relative.clamp(min=0).minimum(count - 1), owned

    def read(self, window: Tensor, own_start: Tensor, words: int) -> Tensor:
        """[batch] windows -> [batch, words, length, types]; rows that a window does not own hold no label of its spans."""
        rows = self._rows(window, own_start, words)[0]
        labels = self.probabilities[rows.to(self.probabilities.device)]
        return labels.to(rows.device, torch.promote_types(labels.dtype, torch.float32))

    def write(
        self,
        window: Tensor,
        own_start: Tensor,
        values: Tensor,
        epoch: int = -1,
        written: Tensor | None = None,
        gather: Gather = alone,
    ) -> None:
        """Store the labels of a batch and the epoch in which this happened, together with what the other processes write: every
        process has to call it. Where a window is there more than once, the first of the lowest rank counts.

        Args:
            window, own_start: [batch].
            values: [batch, words, length, types], of which the owned words are stored.
            written: bool [batch], the windows that are stored; all by default.
        """
        rows, owned = self._rows(window, own_start, values.shape[1])
        if written is not None:
            owned &= written[:, None]
        rows, values = (_gather_uneven(tensor[owned], gather) for tensor in (rows, values))
        rows, order = rows.sort(stable=True)
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[1:] != rows[:-1]
        rows, values = rows[first], values[order[first]]
        # The processes that share a file all write the same into it, after a gather that ends the reading of all: whatever the
        # order in which they pass, each finds at its next read what it has written itself.
        self.probabilities[rows.to(self.probabilities.device)] = values.to(self.probabilities)
        self.refined_in[torch.searchsorted(self.offsets, rows, right=True) - 1] = epoch


def _map_half(file: Path, shape: tuple[int, ...]) -> Tensor:
    """A half-precision tensor of the given shape in a file, which grows to its size."""
    number = math.prod(shape)
    with open(file, "ab") as stream:
        os.posix_fallocate(stream.fileno(), 0, 2 * number)  # a full disk shows here, not as a signal at some later write
    return torch.from_file(str(file), shared=True, size=number, dtype=torch.float16).view(shape)


def prune_overlaps(probabilities: Tensor, span_mask: Tensor) -> Tensor:
    """Resolve overlapping entities: those that lose against a more probable one become "O". [batch, words, length, types]."""
    score, label = probabilities.max(-1)
    entity = span_mask & (label != 0)
    losers = entity & ~select_spans(score, entity)
    outside = F.one_hot(torch.zeros_like(label), probabilities.shape[-1]).to(probabilities.dtype)
    return torch.where(losers[..., None], outside, probabilities)


# ---------------------------------------------------------------------------------------------------------- prototypes


class Prototypes:
    """One unit vector a type, moving averages over the spans (eq. 6). `vectors` is [types, D]."""

    def __init__(self, types: int, size: int, decay: float = 0.99, device: torch.device | str = "cpu"):
        self.vectors = torch.zeros(types, size, device=device)
        self.decay = decay

    def update(self, vectors: Tensor, types: Tensor, valid: Tensor, gather: Gather = alone) -> None:
        """Take in the spans of a batch, in order, as if one after the other, then normalise.

        phi <- decay^n phi + (1 - decay) sum_i decay^(n - 1 - i) z_i, for the n spans z_i of a type; process by process.

        Args:
            vectors: [spans, D].
            types: [spans].
            valid: bool [spans]; other spans are passed over.
        """
        member = F.one_hot(types.clamp(min=0), len(self.vectors)) * valid[:, None]
        later = member.flip(0).cumsum(0).flip(0) - member
        weights = (1 - self.decay) * self.decay ** later.to(vectors.dtype) * member
        sums = torch.cat([weights.T @ vectors, member.sum(0)[:, None].to(vectors.dtype)], dim=1)
        for process in gather(sums):
            self.vectors = self.decay ** process[:, -1:] * self.vectors.to(sums.dtype) + process[:, :-1]
        self.vectors = F.normalize(self.vectors, dim=-1)

    def similarity(self, vectors: Tensor) -> Tensor:
        """Eq. 7: [..., D] -> [..., types]."""
        return vectors @ self.vectors.to(vectors.dtype).T


class Centers:
    """The center of each language's span vectors: the mean of its types' means, over the last batches.

    A random projection says first which language a span is in and how the encoder has moved lately, which all spans of a
    batch share; without the center it says what the span is. The datastore holds vectors of the last epoch: where the encoder
    learns fast, they can be compared only without. The mean over types, because the mean over spans is nearly that of "O",
    which leaves "O" without a direction. (Language means: Libovický et al., Findings of EMNLP 2020.)

    `sums` is [languages, types, D + 1], decayed sums of vectors and counts.
    """

    def __init__(self, languages: int, types: int, size: int, decay: float = 0.9, device: torch.device | str = "cpu"):
        self.sums = torch.zeros(languages, types, size + 1, device=device)
        self.decay = decay

    def update(self, vectors: Tensor, types: Tensor, language: Tensor, valid: Tensor, gather: Gather = alone) -> None:
        """Take in the rows of a batch.

        Args:
            vectors: [rows, words, length, D].
            types: [rows, words, length].
            language: [rows], indices into `sums`.
            valid: bool [rows, words, length]; other spans are passed over.
        """
        member = (F.one_hot(types.clamp(min=0), self.sums.shape[1]) * valid[..., None]).to(vectors.dtype).flatten(1, 2)
        of_rows = torch.cat([member.mT @ vectors.flatten(1, 2), member.sum(1)[..., None]], dim=2)
        new = F.one_hot(language, len(self.sums)).T.to(of_rows.dtype) @ of_rows.flatten(1)
        self.sums = self.decay * self.sums + gather(new.view_as(self.sums)).sum(0)

    def subtract(self, vectors: Tensor, language: Tensor) -> Tensor:
        """Unit vectors [rows, words, length, D] without the center of their row's language [rows], unit vectors again."""
        sums, counts = self.sums[..., :-1], self.sums[..., -1:]
        seen = counts > 0
        centers = torch.where(seen, sums / torch.where(seen, counts, 1), 0).sum(1) / seen.sum(1).clamp(min=1)
        return F.normalize(vectors - centers.to(vectors.dtype)[language, None, None], dim=-1)


class Thresholds:
    """Per target language and type, the mean similarity of the spans whose pseudo label it is, gathered over an epoch (eq. 8).

    `values` is [languages, types]; infinite for a type of which no span has been seen.
    """

    def __init__(self, types: int, languages: int = 1, device: torch.device | str = "cpu"):
        self.values = torch.full((languages, types), torch.inf, dtype=torch.float64, device=device)
        self.sums = torch.zeros(2, languages, types, dtype=torch.float64, device=device)  # similarities, spans

    def add(self, similarity: Tensor, types: Tensor, language: Tensor) -> None:
        """similarity [spans, types], types [spans], language [spans]."""
        member = F.one_hot(language * self.values.shape[1] + types, self.values.numel())
        mine = similarity.gather(1, types[:, None])
        self.sums += torch.stack([(mine * member).sum(0, dtype=torch.float64), member.sum(0)]).view_as(self.sums)

    def set(self, gather: Gather = alone) -> None:
        """Take the means over all processes; a type without a span keeps its threshold."""
        similarity, spans = gather(self.sums).sum(0)
        self.values = torch.where(spans > 0, similarity / spans.clamp(min=1), self.values)
        self.sums = torch.zeros_like(self.sums)


# ----------------------------------------------------------------------------------------------------------- datastore


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
        types, priority = (_gather_uneven(mine[column], gather) for column in (1, 3))
        kept = self._reservoir(types, priority)
        # A process sends the vectors that all together keep: of each type those up to a certain priority.
        last = priority.new_full((self.number_of_types,), -1).scatter_reduce(0, types[kept], priority[kept], "amax")
        kept = mine[3] <= last[mine[1]]
        columns = [_gather_uneven(column[kept], gather) for column in mine]
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


def _gather_uneven(tensor: Tensor, gather: Gather) -> Tensor:
    """Join [n, ...] tensors of different n, by rank."""
    counts = gather(torch.tensor(len(tensor), device=tensor.device)).flatten().tolist()
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    return torch.cat([part[:n] for part, n in zip(gather(padded), counts, strict=True)])


# ---------------------------------------------------------------------------------------------------------- refinement


def directions(similarity: Tensor, thresholds: Tensor, multiple: bool = True) -> Tensor:
    """Eq. 8: the types towards which a span's label moves.

    A type is a direction where its similarity exceeds its threshold; "O" also where no similarity is higher.

    Args:
        similarity: [..., types].
        thresholds: [..., types].
        multiple: False takes the most similar type alone.
    Returns:
        [..., types], ones and zeros.
    """
    if not multiple:
        return F.one_hot(similarity.argmax(-1), similarity.shape[-1]).to(similarity.dtype)
    chosen = similarity > thresholds
    chosen[..., 0] |= similarity[..., 0] >= similarity.amax(-1)
    return chosen.to(similarity.dtype)


def refine(probabilities: Tensor, towards: Tensor, beta: float) -> Tensor:
    """Eq. 10, 11: p <- L1(beta p + (1 - beta) L1(towards)); no direction at all leaves p as it is. All [..., types]."""
    total = towards.sum(-1, keepdim=True)
    moved = beta * probabilities + (1 - beta) * towards / total.clamp(min=torch.finfo(towards.dtype).tiny)
    return torch.where(total > 0, moved / moved.sum(-1, keepdim=True), probabilities)


class Denoiser:
    """The state of global-local denoising: pseudo labels, prototypes, thresholds, datastore, and the centers where asked for.

    Args:
        pseudo_labels: the labels to refine.
        size: D.
        denoising: "both", "global", "local" or "none".
        directions: "multiple" or "single" (eq. 8).
        neighbors, neighbor_share: K (eq. 9), see [`Datastore`].
        local_threshold_scale: factor on the local thresholds.
        normalize_directions: give the global and the local direction equal weight before they are added.
        center: compare vectors without their language's center.
        languages: the target language of each window, from 0; one for all by default. Thresholds and centers are of a language.
        gather: [...] -> [processes, ...], by rank.
        rank: this process.
    """

    def __init__(
        self,
        pseudo_labels: PseudoLabels,
        size: int,
        denoising: str = "both",
        directions: str = "multiple",
        neighbors: int = 300,
        neighbor_share: float = 1.0,
        decay: float = 0.99,
        local_threshold_scale: float = 0.9,
        normalize_directions: bool = False,
        center: bool = False,
        outside_share: float = 0.03,
        capacity: int = 200_000,
        exact_size: int = 4_000,
        seed: int = 0,
        languages: Sequence[int] | None = None,
        gather: Gather = alone,
        rank: int = 0,
    ):
        device, types = pseudo_labels.offsets.device, pseudo_labels.probabilities.shape[-1]
        self.pseudo_labels = pseudo_labels
        windows = len(pseudo_labels.refined_in)
        self.languages = torch.as_tensor(languages if languages is not None else [0] * windows, device=device)
        number = 1 + int(self.languages.max())
        self.centers = Centers(1 + number, types, size, device=device) if center else None
        self.prototypes = Prototypes(types, size, decay, device)
        self.datastore = Datastore(types, size, neighbors, neighbor_share, outside_share, capacity, exact_size, seed, device)
        self.thresholds = {side: Thresholds(types, number, device) for side in ("global", "local")}
        self.sides = {"both": ("global", "local"), "none": ()}.get(denoising, (denoising,))
        self.multiple = directions == "multiple"
        self.local_threshold_scale, self.normalize_directions = local_threshold_scale, normalize_directions
        self.gather, self.rank = gather, rank
        self.epoch = 0

    def step(
        self,
        projection: Tensor,
        labels: Tensor,
        window: Tensor,
        own_start: Tensor,
        span_mask: Tensor,
        step: int,
        beta: float | None,
    ) -> Tensor:
        """Take in a batch and give the soft labels of its target spans, refined where `beta` is given.

        Args:
            projection: [batch, words, length, D], unit vectors.
            labels: [batch, words, length], gold types of the source rows.
            window: [batch]; below 0 for source rows.
            own_start: [batch].
            span_mask: bool [batch, words, length].
            step: the number of the step, for the sampling of the datastore.
            beta: the weight of the old label (eq. 11), or None before refinement starts.
        Returns:
            [target rows, words, length, types].
        """
        source, target = window < 0, window >= 0
        cells = torch.arange(span_mask[0].numel(), device=window.device).view(span_mask.shape[1:])
        keys = window[:, None, None] * 2**20 + cells - own_start[:, None, None] * span_mask.shape[2]
        language = torch.where(target, 1 + self.languages[window.clamp(min=0)], 0)  # 0 is the source
        window, own_start, valid = window[target], own_start[target], span_mask[target]
        soft = self.pseudo_labels.read(window, own_start, span_mask.shape[1])
        if not self.sides:
            return soft
        types = labels.masked_scatter(target[:, None, None], soft.argmax(-1))
        if self.centers is not None:
            self.centers.update(projection, types, language, span_mask, self.gather)
            projection = self.centered(projection, language)
        vectors, pseudo, valid_flat = projection[target].flatten(0, 2), types[target].flatten(), valid.flatten()
        gold = (projection[source].flatten(0, 2), labels[source].flatten(), span_mask[source].flatten())
        self.prototypes.update(*gold, self.gather)
        self.prototypes.update(vectors, pseudo, valid_flat, self.gather)

        queries, types = vectors[valid_flat], pseudo[valid_flat]
        language = (language[target] - 1)[:, None, None].expand_as(valid)[valid]
        towards = torch.zeros(len(types), soft.shape[-1], dtype=soft.dtype, device=soft.device)
        for side in self.sides:
            thresholds = self.thresholds[side].values[language]
            if side == "global":
                similarity = self.prototypes.similarity(queries)
            else:
                if not len(self.datastore):
                    continue
                thresholds = self.local_threshold_scale * thresholds
                similarity = self.neighbour_shares(queries, types, thresholds)
            self.thresholds[side].add(similarity, types, language)
            side_towards = self.choose_directions(similarity, thresholds, types)
            if self.normalize_directions:
                side_towards = side_towards / side_towards.sum(-1, keepdim=True).clamp(min=1)
            towards += side_towards
        if beta is not None:
            # Once an epoch, also where the sampler shows a sentence more often.
            due = self.pseudo_labels.refined_in[window] != self.epoch
            moves = due[:, None, None].expand_as(valid)[valid]
            soft[valid] = torch.where(moves[:, None], refine(soft[valid], towards, beta), soft[valid])
            self.pseudo_labels.write(window, own_start, soft, self.epoch, due, self.gather)
        if "local" in self.sides:
            self.datastore.collect(*gold, keys[source].flatten(), step)
            self.datastore.collect(vectors, soft.argmax(-1).flatten(), valid_flat, keys[target].flatten(), step)
        return soft

    def neighbour_shares(self, vectors: Tensor, types: Tensor, thresholds: Tensor) -> Tensor:
        """Eq. 9 for spans with the pseudo labels `types`, as exactly as `choose_directions` has to know it: vectors [spans, D],
        types [spans], thresholds [spans, types] -> [spans, types]."""
        return self.datastore.similarity(vectors, types, thresholds)

    def choose_directions(self, similarity: Tensor, thresholds: Tensor, types: Tensor) -> Tensor:
        """Where spans with the pseudo labels `types` [spans] move: similarity and thresholds [spans, types] -> [spans, types]
        (eq. 8)."""
        return directions(similarity, thresholds, self.multiple)

    def loss_targets(self, soft: Tensor, valid: Tensor) -> Tensor:
        """What L_tgt (eq. 4) asks for: soft labels [rows, words, length, types] of the batch where bool `valid` is set, as they
        are. A baseline hardens them, or scales a span's by the weight that it has in the loss."""
        return soft

    def centered(self, vectors: Tensor, language: Tensor) -> Tensor:
        """Span vectors [rows, words, length, D] as they are compared; language [rows], 0 for the source, then the targets."""
        return vectors if self.centers is None else self.centers.subtract(vectors, language)

    def begin_epoch(self, epoch: int) -> None:
        """Set the thresholds and rebuild the datastore from the epoch that ended; does nothing where that is done already."""
        if epoch <= self.epoch:
            return
        for thresholds in self.thresholds.values():
            thresholds.set(self.gather)
        if "local" in self.sides:
            self.datastore.rebuild(self.gather)
        self.epoch = epoch

    def state_dict(self) -> dict[str, Tensor]:
        """All state of all processes as named tensors; every process has to call it. The sums of the thresholds come
        apart for each process, so that their order is kept."""
        labels, store = self.pseudo_labels, self.datastore
        collected = store.joined(self.gather)
        state = {
            "epoch": torch.tensor(self.epoch),
            "pseudo_labels.offsets": labels.offsets,
            "pseudo_labels.probabilities": labels.probabilities,
            "pseudo_labels.refined_in": labels.refined_in,
            "prototypes.vectors": self.prototypes.vectors,
            "datastore.vectors": store.vectors,
            "datastore.types": store.types,
            **dict(zip((f"collected.{name}" for name in COLLECTED), collected, strict=True)),
        }
        if self.centers is not None:
            state["centers.sums"] = self.centers.sums
        for side, thresholds in self.thresholds.items():
            state |= {f"thresholds.{side}.values": thresholds.values, f"thresholds.{side}.sums": self.gather(thresholds.sums)}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave, in any number of processes.

        Raises:
            InputError: the state belongs to another corpus or other types.
        """
        labels, device = self.pseudo_labels, self.pseudo_labels.offsets.device
        probabilities = state["pseudo_labels.probabilities"]  # may be larger than memory
        # Copies, because a tensor of a safetensors file keeps the whole file on the disk.
        state = {name: tensor.to(device, copy=True) for name, tensor in state.items() if tensor is not probabilities}
        if not torch.equal(state["pseudo_labels.offsets"], labels.offsets) or probabilities.shape != labels.probabilities.shape:
            raise InputError(
                "the checkpoint's denoising state is of another target text, span length or set of types. Give the corpora and "
                "arguments of the run that saved it, or another --output_dir."
            )
        processes = len(self.gather(self.thresholds["global"].sums))
        self.epoch = int(state["epoch"])
        labels.probabilities.copy_(probabilities)
        labels.refined_in = state["pseudo_labels.refined_in"]
        self.prototypes.vectors = state["prototypes.vectors"]
        if self.centers is not None:
            self.centers.sums = state["centers.sums"]
        for side, thresholds in self.thresholds.items():
            thresholds.values = state[f"thresholds.{side}.values"]
            thresholds.sums = state[f"thresholds.{side}.sums"][self.rank :: processes].sum(0)
        self.datastore.store(state["datastore.vectors"], state["datastore.types"])
        self.datastore.collected = [tuple(state[f"collected.{name}"][self.rank :: processes] for name in COLLECTED)]
