"""Supervised contrastive learning on span vectors: the auxiliary task that may stand in the place of the language model."""

import torch
from torch import Tensor


def supervised_contrastive(vectors: Tensor, types: Tensor, temperature: float = 0.07) -> Tensor:
    """L_out of Khosla et al. (NeurIPS 2020, eq. 2): spans of one type attract, all others repel.

    The mean over the spans i that share their type with others P(i) of
    -1 / |P(i)| sum_{p in P(i)} log (exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t)); 0 where no two spans share a type.

    Args:
        vectors: [spans, D], unit vectors.
        types: [spans].
        temperature: t.
    """
    itself = torch.eye(len(types), dtype=torch.bool, device=types.device)
    similarity = (vectors @ vectors.T / temperature).masked_fill(itself, torch.finfo(vectors.dtype).min)
    positive = (types[:, None] == types) & ~itself
    shared = positive.sum(1)
    total = similarity.log_softmax(-1).masked_fill(~positive, 0).sum(1)
    return -(total / shared.clamp(min=1)).sum() / (shared > 0).sum().clamp(min=1)


def nll(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """-log p of the gold types: [..., types], [...] -> [...]; cells below 0 hold no meaning (mask them)."""
    return -log_probabilities.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)


def soft_cross_entropy(log_probabilities: Tensor, soft: Tensor) -> Tensor:
    """Eq. 4 for each span: [..., types], [..., types] -> [...]."""
    return -(soft * log_probabilities).sum(-1)
