"""Scores of the source development set, which choose the checkpoint."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasets import Dataset
from transformers import EvalPrediction

from glode.features.predictions import by_window, merge_windows
from glode.metrics import Entity, entity_scores


@dataclass(frozen=True)
class DevScores:
    """Strict precision, recall and F1 of what the Trainer predicts for `windows`, as its `compute_metrics`.

    Args:
        windows: of the development set.
        references: its gold entities, one list of (first word, length, type) a sentence.
        names: id2label.
    """

    windows: Dataset
    references: Sequence[Iterable[Entity]]
    names: dict[int, str]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        found = merge_windows([by_window(prediction)], self.windows, len(self.references), self.names)
        scores = entity_scores(self.references, found)
        return {name: scores[name] for name in ("precision", "recall", "f1")}
