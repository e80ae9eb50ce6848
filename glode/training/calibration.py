"""How sure a model may be: the temperature of its confidence (Guo et al., 2017)."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.gathering import Gather
from glode.denoising.pseudo_labels import PseudoLabels
from glode.features.columns import numbers

LOWEST, HIGHEST = 0.1, 10.0
STEPS = 30  # of the search, each of which leaves 0.62 of the range of the logarithm


class Scaling(NamedTuple):
    """How sure labels become: p -> softmax(log p / temperature + outside at "O")."""

    temperature: float = 1.0
    outside: float = 0.0

    @property
    def told(self) -> str:
        return f"temperature {self.temperature:.2f}" + (f", O {self.outside:+.2f}" if self.outside else "")

    def of(self, soft: Tensor) -> Tensor:
        """Labels [..., types], scaled."""
        logits = soft.clamp(min=1e-9).log() / self.temperature
        return (logits + self.outside * F.one_hot(torch.tensor(0), soft.shape[-1]).to(soft)).softmax(-1)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number from `LOWEST` to `HIGHEST` by which logits are divided for the least mean negative log-likelihood, by
    golden-section search: the likelihood has one minimum.

    Args:
        logits: [spans, types].
        labels: [spans], the gold types.
    """
    logits = logits.double()

    def loss(logarithm: float) -> float:
        return F.cross_entropy(logits / math.exp(logarithm), labels).item()

    share = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOWEST), math.log(HIGHEST)
    left, right = high - share * (high - low), low + share * (high - low)
    left_loss, right_loss = loss(left), loss(right)
    for _ in range(STEPS):
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - share * (high - low)
            left_loss = loss(left)
        else:
            low, left, left_loss = left, right, right_loss
            right = low + share * (high - low)
            right_loss = loss(right)
    return math.exp((low + high) / 2)


def gold_logits(batches: Iterable[tuple[dict[str, Tensor], Tensor]], windows: Dataset, gather: Gather) -> tuple[Tensor, Tensor]:
    """The logits [spans, types] and the gold types [spans] of all spans of labelled windows, each span once, whatever process
    has seen it.

    Args:
        batches: of the windows, each with its logits [batch, words, length, types].
    """
    cells = None
    for inputs, logits in batches:
        if cells is None:
            words = numbers(windows, "own_end") - numbers(windows, "own_start")
            cells = PseudoLabels(words, logits.shape[2], logits.shape[3] + 1, logits.device)
        values = torch.cat([logits.float(), inputs["labels"][..., None].float()], dim=-1)
        cells.write(inputs["window"], inputs["own_start"], values, gather=gather)
    if cells is None:
        raise ValueError("there is no labelled window to fit a temperature on")
    spans = cells.probabilities[cells.probabilities[..., -1] >= 0]
    return spans[:, :-1], spans[:, -1].long()
