"""Directions (eq. 8) and the refinement of labels (eq. 10, 11)."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
