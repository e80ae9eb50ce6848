"""Agreement: what the labels say of the same string elsewhere in the target text."""

import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.pseudo_labels import PseudoLabels


class Agreement:
    """What the soft labels say of each string, as they are now.

    A span has a say where it stands by itself: its label is an entity, or it overlaps none. "Berlin" within "University of
    Berlin" says nothing of "Berlin", and is not told anything.

    Args:
        pseudo_labels: the labels.
        strings: [words, length], the number of each span's string; -1 where it is the only one, -2 where there is no span; see
            `glode.features.strings`.
    """

    block = 2**16  # words whose labels are read at once

    def __init__(self, pseudo_labels: PseudoLabels, strings: Tensor):
        labels, device = pseudo_labels.probabilities, pseudo_labels.offsets.device
        strings, number = strings.to(device), 1 + max(int(strings.max()), -1)
        blocks = range(0, len(strings), self.block)
        entity = torch.cat([labels[at : at + self.block].argmax(-1).to(device) != 0 for at in blocks]) & (strings > -2)
        self.strings = strings.masked_fill(~_stands_alone(entity), -1)
        self.sums = torch.zeros(number, labels.shape[-1], dtype=torch.float64, device=device)
        self.counts = torch.zeros(number, dtype=torch.long, device=device)
        for at in blocks:
            rows = self.strings[at : at + self.block]
            speaks = rows >= 0
            soft = labels[at : at + self.block].to(device, torch.float64)
            self.sums.index_add_(0, rows[speaks].long(), soft[speaks])
            self.counts += rows[speaks].bincount(minlength=number)

    def of_others(self, cells: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
        """The mean soft label of the other spans of the same string.

        Args:
            cells: [...], see `PseudoLabels.cells`.
            soft: [..., types], the spans' own labels.
        Returns:
            [..., types], zeros where there are no others, and whether there are, bool [...].
        """
        if not len(self.counts):
            return torch.zeros_like(soft), torch.zeros_like(cells, dtype=torch.bool)
        string = self.strings.view(-1)[cells]
        others = self.counts[string.clamp(min=0)] - 1
        there = (string >= 0) & (others > 0)
        mean = (self.sums[string.clamp(min=0)] - soft) / others.clamp(min=1)[..., None]
        return mean.masked_fill(~there[..., None], 0).clamp(min=0).to(soft.dtype), there


def _stands_alone(entity: Tensor) -> Tensor:
    """Which spans are entities or overlap none: bool [words, length] -> the same. Rows of a sentence follow each other, and no
    entity reaches beyond its sentence."""
    words, length = entity.shape
    reach = torch.arange(1, length + 1, device=entity.device)
    first, more = entity.nonzero(as_tuple=True)
    edges = torch.zeros(words + length + 1, dtype=torch.long, device=entity.device)
    edges.index_add_(0, first, torch.ones_like(first)).index_add_(0, first + more + 1, -torch.ones_like(first))
    covered = F.pad((edges.cumsum(0) > 0).long().cumsum(0), (1, 0))  # words up to each that are in some entity
    begin = torch.arange(words, device=entity.device)[:, None]
    return entity | (covered[begin + reach] == covered[begin])
