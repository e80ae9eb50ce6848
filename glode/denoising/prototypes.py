"""Prototypes: one unit vector a type (eq. 6, 7)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.gathering import Gather, alone


class Prototypes:
    """One unit vector a type, moving averages over the spans (eq. 6). `vectors` is [types, D]."""

    def __init__(self, types: int, size: int, prototype_decay: float = 0.99, device: torch.device | str = "cpu"):
        self.vectors = torch.zeros(types, size, device=device)
        self.prototype_decay = prototype_decay

    def update(self, vectors: Tensor, types: Tensor, valid: Tensor, gather: Gather = alone) -> None:
        """Take in the spans of a batch, in order, as if one after the other, then normalise.

        phi <- a^n phi + (1 - a) sum_i a^(n - 1 - i) z_i, for the n spans z_i of a type, a = prototype_decay; process by process.

        Args:
            vectors: [spans, D].
            types: [spans].
            valid: bool [spans]; other spans are passed over.
        """
        member = F.one_hot(types.clamp(min=0), len(self.vectors)) * valid[:, None]
        later = member.flip(0).cumsum(0).flip(0) - member
        weights = (1 - self.prototype_decay) * self.prototype_decay ** later.to(vectors.dtype) * member
        sums = torch.cat([weights.T @ vectors, member.sum(0)[:, None].to(vectors.dtype)], dim=1)
        for process in gather(sums):
            self.vectors = self.prototype_decay ** process[:, -1:] * self.vectors.to(sums.dtype) + process[:, :-1]
        self.vectors = F.normalize(self.vectors, dim=-1)

    def similarity(self, vectors: Tensor) -> Tensor:
        """Eq. 7: [..., D] -> [..., types]."""
        return vectors @ self.vectors.to(vectors.dtype).T
