"""What a model predicts for windows, on its way through the Trainer to the entities of sentences."""

from collections.abc import Iterable

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput

from glode.metrics import Entity
from modeling_glode import decode, in_words, resolve


def entities_by_word(logits: Tensor, span_mask: Tensor) -> Tensor:
    """The entity that starts at each word, or zeros: [batch, words, length, types] -> [batch, words, (type, length, score)]."""
    found = torch.zeros(*logits.shape[:2], 3, device=logits.device)
    row, begin, length, label, score = decode(logits, span_mask)
    found[row, begin] = torch.stack([label.float(), length.float(), score], dim=-1)
    return found


def by_window(prediction: EvalPrediction | PredictionOutput) -> np.ndarray:
    """What `prediction_step` gave for each window, in their order. [windows, words, (type, length, probability)]"""
    return prediction.predictions[prediction.label_ids.argsort()]


def merge_windows(
    predictions: Iterable[np.ndarray], windows: Dataset, sentences: int, names: dict[int, str]
) -> list[list[Entity]]:
    """Join the entities of each sentence's windows; where those of two windows overlap, the more probable one stays.

    Args:
        predictions: [windows, units, (type, length, probability)], at most one entity a first unit; type <= 0 is none. In blocks,
            one window after the other.
        sentences: how many sentences the corpus has.
        names: id2label.
    Returns:
        (first word, length, type) of each sentence's entities, in text order.
    """
    found: list[list[tuple]] = [[] for _ in range(sentences)]
    places, at = windows.select_columns(["sentence", "borders"]), 0
    for block in predictions:
        rows = places[at : at + len(block)]
        at += len(block)
        row, begin = np.nonzero(block[..., 0] > 0)
        for window, unit, (label, length, score) in zip(row.tolist(), begin.tolist(), block[row, begin].tolist(), strict=True):
            entity: tuple = in_words((unit, int(length), names[int(label)], score), rows["borders"][window])
            found[rows["sentence"][window]].append(entity)
    merged: list[list] = [[entity[:3] for entity in resolve(entities)] for entities in found]
    return merged
