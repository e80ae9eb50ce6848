"""The losses of spans, how they become one number, and what is logged of them."""

import math
from collections import defaultdict

import torch
from torch import Tensor

from glode.denoising.gathering import Gather, alone
from glode.errors import InputError
from glode.randomness import uniform


def nll(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """-log p of the gold types: [..., types], [...] -> [...]; cells below 0 hold no meaning (mask them)."""
    return -log_probabilities.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)


def soft_cross_entropy(log_probabilities: Tensor, soft: Tensor) -> Tensor:
    """Eq. 4 for each span: [..., types], [..., types] -> [...]."""
    return -(soft * log_probabilities).sum(-1)


def row_weights(windows: int, languages: Tensor | None, targets: int, weight: float) -> Tensor:
    """The weight of each source window in L_src, [windows]: `weight` for those of target languages, 1 for the others.

    Args:
        languages: [windows], 1 to `targets` for the target languages; None where there are none of these.
    """
    return torch.ones(windows) if languages is None else torch.where((languages > 0) & (languages <= targets), weight, 1.0)


def reduce_spans(losses: Tensor, span_mask: Tensor, loss_reduction: str, mean_spans: float) -> Tensor:
    """Losses [rows, words, length] of the spans in bool `span_mask` -> one number.

    Args:
        loss_reduction: "span" divides by the corpus' mean number of spans a row, so that a span's weight does not depend on its
            neighbours in the batch; "batch" averages over the batch's spans; "sentence" within each row first.
        mean_spans: that mean.
    """
    totals = (losses * span_mask).sum((1, 2))
    if loss_reduction == "span":
        return totals.mean() / mean_spans
    if loss_reduction == "batch":
        return totals.sum() / span_mask.sum().clamp(min=1)
    return (totals / span_mask.sum((1, 2)).clamp(min=1)).mean()


def contrastive(vectors: Tensor, types: Tensor, is_span: Tensor, outside_share: float, *salts: int) -> Tensor:
    """`supervised_contrastive` over the entity spans of a batch and a share of its O spans: [..., D], [...], bool [...]. A GPU
    has to be waited for once, to know how many these are."""
    vectors, types, is_span = vectors.flatten(0, -2), types.flatten(), is_span.flatten()
    lucky = uniform(is_span.cumsum(0) - 1, *salts) < outside_share
    kept = (is_span & ((types != 0) | lucky)).nonzero().squeeze(1)
    return supervised_contrastive(vectors[kept], types[kept])


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


def finite(means: dict[str, float], step: int, output_dir: str) -> dict[str, float]:
    """The parts of the loss as they are. Raises InputError where one is not a number any more."""
    if lost := [name for name, value in means.items() if not math.isfinite(value)]:
        raise InputError(
            f"{lost[0]} is {means[lost[0]]} at step {step}. Lower --learning_rate or train in full precision; the checkpoints "
            f"in {output_dir} are from before."
        )
    return means


class LossMeans:
    """The parts of the loss since they were last taken, for the log.

    Args:
        gather: [...] -> [processes, ...].
    """

    def __init__(self, gather: Gather = alone):
        self._gather = gather
        self._values: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self._values[name].append(value.detach())

    def take(self) -> dict[str, float]:
        """The mean of each part over the steps and all processes; every process has to call it."""
        if not self._values:
            return {}
        own = torch.stack([torch.stack(values).mean().double() for values in self._values.values()])
        means = dict(zip(self._values, self._gather(own).mean(0).tolist(), strict=True))
        self._values.clear()
        return means
