"""Soft labels of all spans of the target text (eq. 5)."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.gathering import Gather, alone, gather_uneven
from modeling_glode import select_spans


class PseudoLabels:
    """Soft labels of all spans of the target text: one flat array [owned words, length, types] and an offset per window.

    With `file` the array lies there in half precision, mapped into memory, and the processes of a machine share it. The file is
    scratch: what a stopped run goes on from is the copy in its checkpoint. Why float16: docs/scaling.md.

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
        self.probabilities.zero_()[..., 0] = 1

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

    def cells(self, window: Tensor, own_start: Tensor, words: int) -> Tensor:
        """The number of each span's label, for `write_cells`: [batch, words, length]; none of its own where a window does not own
        the word."""
        length = self.probabilities.shape[1]
        rows = self._rows(window, own_start, words)[0]
        return rows[..., None] * length + torch.arange(length, device=rows.device)

    def write_cells(self, cells: Tensor, values: Tensor, gather: Gather = alone) -> None:
        """Store the labels [spans, types] of some cells [spans], together with what the other processes write: every process has
        to call it. No cell is there twice."""
        cells, values = (gather_uneven(tensor, gather) for tensor in (cells, values))
        labels = self.probabilities.view(-1, self.probabilities.shape[-1])
        labels[cells.to(labels.device)] = values.to(labels)

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
        if written is None:
            written = torch.ones_like(window, dtype=torch.bool)
        columns = (rows.clamp(min=0), owned & written[:, None], values)
        rows, kept, values = (gather_uneven(column.flatten(0, 1), gather) for column in columns)
        window, written = (gather_uneven(column, gather) for column in (window, written))
        # A word that is not stored, or not first, writes what the first of its row does, or else what is there: so that all words
        # are written, and nobody has to be asked how many.
        in_order, order = (2 * rows + ~kept).sort(stable=True)
        rows, first = in_order // 2, torch.arange(len(rows), device=rows.device)
        first = order[torch.where(rows == rows.roll(1), 0, first).cummax(0).values]
        there = self.probabilities[rows.to(self.probabilities.device)].to(values)
        values = torch.where(kept[first, None, None], values[first], there)
        # The processes that share a file all write the same into it, after a gather that ends the reading of all: whatever the
        # order in which they pass, each finds at its next read what it has written itself.
        self.probabilities[rows.to(self.probabilities.device)] = values.to(self.probabilities)
        self.refined_in[window] = torch.where(written, epoch, self.refined_in[window])


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
    return _outside_where(losers, probabilities)


def harden_outside(probabilities: Tensor, span_mask: Tensor) -> Tensor:
    """Only entities that are kept stay soft: "O" without doubt where it is the most probable type, and where an entity loses
    against an overlapping one. [batch, words, length, types]."""
    pruned = prune_overlaps(probabilities, span_mask)
    return _outside_where(pruned.argmax(-1) == 0, pruned)


def _outside_where(places: Tensor, probabilities: Tensor) -> Tensor:
    """A one-hot "O" in bool `places` [...] of probabilities [..., types]."""
    outside = F.one_hot(torch.zeros_like(places, dtype=torch.long), probabilities.shape[-1]).to(probabilities.dtype)
    return torch.where(places[..., None], outside, probabilities)
