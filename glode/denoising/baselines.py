"""What others do with pseudo labels, behind the Denoiser's interface; docs/baselines.md says what each leaves out.

Self-training with hard labels, with a confidence threshold; ContProto (Zhou et al., ACL 2023); CoLaDa (Ma et al., ACL 2023).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.denoiser import Denoiser
from glode.denoising.refinement import directions


def harden(soft: Tensor) -> Tensor:
    """The most probable type as a label without doubt. [..., types] -> [..., types]."""
    return F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)


class SelfTraining(Denoiser):
    """The source model's labels, hard, as they are."""

    own_settings: ClassVar[dict[str, Any]] = {"denoising": "none"}
    refines_labels = False

    def loss_targets(self, soft: Tensor, valid: Tensor) -> Tensor:
        return harden(soft)


class ConfidentSelfTraining(SelfTraining):
    """The same, of the spans alone whose most probable type has at least the probability `confidence_threshold`."""

    def loss_targets(self, soft: Tensor, valid: Tensor) -> Tensor:
        return harden(soft) * (soft.amax(-1, keepdim=True) >= self.settings.confidence_threshold)


class NearestPrototype(Denoiser):
    """ContProto's refinement: a label moves towards the nearest prototype alone, an entity's only within the margin of its type,
    which is the mean similarity of the spans with this pseudo label. The Trainer adds the contrastive loss."""

    own_settings: ClassVar[dict[str, Any]] = {"denoising": "global", "refine": "step"}

    def choose_directions(self, similarity: Tensor, thresholds: Tensor, types: Tensor) -> Tensor:
        return directions(similarity, thresholds, multiple=False) * directions(similarity, thresholds)


class NeighborConsistency(Denoiser):
    """CoLaDa's re-weighting: hard labels that are never refined, but weigh the more in the loss the more of a span's nearest
    target spans have the same label, see `consistency_weight`."""

    own_settings: ClassVar[dict[str, Any]] = {"denoising": "local", "refine": "step", "local_threshold_scale": 1.0}
    refines_labels = False
    weights: Tensor | None = None  # of the batch's target spans; None while nothing is stored

    def counted(self, span_mask: Tensor, is_target: Tensor) -> Tensor:
        return span_mask & is_target[:, None, None]

    def towards(self, vectors: Tensor, soft: Tensor, language: Tensor) -> Tensor:
        self.weights = None
        return super().towards(vectors, soft, language)

    def neighbor_shares(self, vectors: Tensor, types: Tensor, thresholds: Tensor) -> Tensor:
        return self.datastore.similarity(vectors)  # an O span's share of O is its weight

    def choose_directions(self, similarity: Tensor, thresholds: Tensor, types: Tensor) -> Tensor:
        consistency = similarity.gather(1, types[:, None]).squeeze(1)
        self.weights = consistency_weight(consistency, thresholds.gather(1, types[:, None]).squeeze(1))
        return torch.zeros_like(similarity)

    def loss_targets(self, soft: Tensor, valid: Tensor) -> Tensor:
        hard = harden(soft)
        if self.weights is not None:
            of_cells = torch.ones(valid.shape, dtype=hard.dtype, device=hard.device)
            hard = hard * of_cells.masked_scatter(valid, self.weights.to(hard.dtype))[..., None]
        return hard


def consistency_weight(consistency: Tensor, mean: Tensor, sharpness: float = 6.0) -> Tensor:
    """sigmoid(a (C - mu)) / sigmoid(a (1 - mu)): 1 where all neighbours agree.

    Args:
        consistency: C [spans], the share of a span's neighbours that have its label.
        mean: mu [spans], the mean of C over the spans with this label; infinite where it is not known, which gives 1.
        sharpness: a.
    """
    weight = torch.sigmoid(sharpness * (consistency - mean)) / torch.sigmoid(sharpness * (1 - mean))
    return torch.where(mean.isfinite(), weight, 1.0)


BASELINES: dict[str, type[Denoiser]] = {
    "self-training": SelfTraining,
    "confidence": ConfidentSelfTraining,
    "contproto": NearestPrototype,
    "colada": NeighborConsistency,
}


def denoiser_class(denoising: str) -> type[Denoiser]:
    """What stands behind a name of `--denoising`."""
    return BASELINES.get(denoising, Denoiser)
