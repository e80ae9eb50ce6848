"""Thresholds: what a similarity has to exceed to be a direction (eq. 8)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.gathering import Gather, alone


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
