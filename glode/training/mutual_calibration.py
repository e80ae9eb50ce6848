"""Teachers that are calibrated on one another: a label is as sure as the other teachers agree with it. Needs no target label.

On text such as they have learnt from, two models that differ by their seeds alone disagree about as often as one of them is wrong
(Jiang et al., ICLR 2022, "Assessing Generalization of SGD via Disagreement"). On other text they can be wrong together, which no
agreement shows; but what one teacher alone takes for an entity is seldom one.
"""

from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.pseudo_labels import PseudoLabels
from glode.features.columns import grids
from glode.training.calibration import HIGHEST, Scaling

CERTAIN = 0.9999  # where all teachers say O with this probability, nothing is left to fit
ROWS = 2**14  # of the labels, that are read at a time


def calibrate_on_each_other(teachers: Sequence[PseudoLabels], windows: Dataset) -> list[Scaling]:
    """The scaling of each of several teachers, by which its labels say best what the others take for the most probable type.

    Args:
        teachers: the labels of each.
        windows: the target text.
    """
    soft = _doubtful(teachers, windows)
    votes = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
    others = (votes.sum(0) - votes) / (len(teachers) - 1)
    return [fit_scaling(*pair) for pair in zip(soft, others, strict=True)]


def fit_scaling(soft: Tensor, wanted: Tensor) -> Scaling:
    """The scaling of labels `soft` with the least cross-entropy to `wanted`, both [spans, types]. The loss is convex.

    The temperature is `HIGHEST` at most: labels that the others contradict become unsure, and are not turned round. Where there
    is nothing to fit they stay as they are.
    """
    if not len(soft):
        return Scaling()
    logits, outside = soft.double().clamp(min=1e-9).log(), F.one_hot(torch.tensor(0), soft.shape[-1]).to(soft.device)
    scale = torch.tensor([1.0, 0.0], dtype=torch.double, device=soft.device, requires_grad=True)  # 1 / temperature, outside
    optimizer = torch.optim.LBFGS([scale], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(scale[0] * logits + scale[1] * outside, wanted.double())
        value.backward()
        return value

    optimizer.step(loss)
    inverse, bias = scale.tolist()
    return Scaling(1 / max(inverse, 1 / HIGHEST), bias)


def mean_of(teachers: Sequence[PseudoLabels], scalings: Sequence[Scaling]) -> PseudoLabels:
    """The mean of the scaled labels, in the place of the first teacher's."""
    into = teachers[0].probabilities
    for at in range(0, len(into), ROWS):
        part = slice(at, at + ROWS)
        parts = (scaling.of(labels.probabilities[part].float()) for labels, scaling in zip(teachers, scalings, strict=True))
        into[part] = torch.stack(list(parts)).mean(0).to(into)
    return teachers[0]


def _doubtful(teachers: Sequence[PseudoLabels], windows: Dataset) -> Tensor:
    """The labels of the spans that some teacher is not certain of. [teachers, spans, types]"""
    length, found = teachers[0].probabilities.shape[1], []
    there = PseudoLabels(teachers[0].offsets.diff().tolist(), length, 1)  # 1 where a cell is a span
    for window, own_start, span_mask in grids(windows, length):
        there.write(window, own_start, span_mask[..., None].float())
    for at in range(0, len(there.probabilities), ROWS):
        part = slice(at, at + ROWS)
        soft = torch.stack([labels.probabilities[part].float() for labels in teachers])
        spans = (there.probabilities[part, :, 0] > 0).to(soft.device) & (soft[..., 0].amin(0) < CERTAIN)
        found.append(soft[:, spans])
    return torch.cat(found, dim=1)
