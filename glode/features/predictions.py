"""What a model predicts for a window, as it passes through the Trainer."""

import numpy as np
import torch
from torch import Tensor
from transformers import (
    EvalPrediction,
)
from transformers.trainer_utils import PredictionOutput

from modeling_glode import decode


def entities_by_word(logits: Tensor, span_mask: Tensor) -> Tensor:
    """The entity that starts at each word, or zeros: [batch, words, length, types] -> [batch, words, (type, length, score)]."""
    found = torch.zeros(*logits.shape[:2], 3, device=logits.device)
    row, begin, length, label, score = decode(logits, span_mask)
    found[row, begin] = torch.stack([label.float(), length.float(), score], dim=-1)
    return found


def by_window(prediction: EvalPrediction | PredictionOutput) -> np.ndarray:
    """What `prediction_step` gave for each window, in their order. [windows, words, (type, length, probability)]"""
    return prediction.predictions[prediction.label_ids.argsort()]
