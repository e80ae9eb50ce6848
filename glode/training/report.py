"""What the pseudo labels of the target text are like. For people to read: nothing is trained on it."""

from collections.abc import Iterator, Sequence

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.denoiser import Denoiser
from glode.features.columns import grids
from glode.features.predictions import entities_by_word, merge_windows
from glode.metrics import Entity, entity_scores, of_known_types
from modeling_glode import GlodeConfig


class PseudoLabelReport:
    """Reads the labels of a denoiser.

    Args:
        denoiser: whose labels.
        windows: the target text.
        config: the model's, for L and the names of the types.
        languages: where the target text is of several languages, the sentences of each, one language after the other.
        references: gold entities of each target sentence, where there are any.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        windows: Dataset,
        config: GlodeConfig,
        languages: dict[str, range] | None = None,
        references: Sequence | None = None,
    ):
        self.denoiser, self.windows, self.languages, self.references = denoiser, windows, languages or {}, references
        self.names, self.length = config.id2label, config.max_span_length

    def entities(self, sentences: int) -> list[list[Entity]]:
        """The entities (first word, length, type) that the labels of each of the target's `sentences` say."""
        found = (entities_by_word(soft.log(), span_mask).numpy(force=True) for soft, span_mask in self._batches())
        return merge_windows(found, self.windows, sentences, self.names)

    def summary(self) -> dict:
        """`confidence` (mean), `spans` (number per type) and, where there are gold entities, `precision`, `recall` and `f1`; the
        same of each language, where there are several, under `languages`."""
        totals = self._totals()
        found = self.entities(len(self.references)) if self.references is not None else None
        summary = self._summarize(totals.sum(0), found, slice(None))
        rows = zip(totals, self.languages.items(), strict=False)
        single = {name: self._summarize(row, found, slice(part.start, part.stop)) for row, (name, part) in rows}
        return summary | ({"languages": single} if single else {})

    def _summarize(self, totals: Tensor, found: list[list[Entity]] | None, part: slice) -> dict:
        *spans, confidence = totals.tolist()
        summary = {"confidence": confidence / sum(spans)}
        if self.references is not None and found is not None:
            gold = self.references[part]
            scores = entity_scores(gold, of_known_types(gold, found[part]))
            summary |= {name: scores[name] for name in ("precision", "recall", "f1")}
        return summary | {"spans": {self.names[i]: int(number) for i, number in enumerate(spans)}}

    def _totals(self) -> Tensor:
        """Spans per type, and the sum of their confidence, of each language: [languages, types + 1]."""
        types, number = len(self.names), max(len(self.languages), 1)
        totals, at = torch.zeros(number, types + 1, dtype=torch.float64), 0
        for soft, span_mask in self._batches():
            score, label = soft.max(-1)
            language = self.denoiser.languages[at : at + len(soft)]
            at += len(soft)
            spans = (F.one_hot(label, types) * span_mask[..., None]).sum((1, 2))
            of_windows = torch.cat([spans, (score * span_mask).sum((1, 2), dtype=torch.float64)[:, None]], dim=1)
            totals += (F.one_hot(language, number).T.double() @ of_windows).cpu()
        return totals

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The labels [rows, words, length, types] and the grid [rows, words, length] of all target windows, in order."""
        labels = self.denoiser.pseudo_labels
        for batch in grids(self.windows, self.length):
            window, own_start, span_mask = (tensor.to(labels.offsets.device) for tensor in batch)
            yield labels.read(window, own_start, span_mask.shape[1]), span_mask
