"""The center of each language's span vectors."""

import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.gathering import Gather, alone


class Centers:
    """The center of each language's span vectors: the mean of its types' means, over the last batches.

    A random projection says first which language a span is in and how the encoder has moved lately, which all spans of a
    batch share; without the center it says what the span is. The datastore holds vectors of the last epoch: where the encoder
    learns fast, they can be compared only without. The mean over types, because the mean over spans is nearly that of "O",
    which leaves "O" without a direction. (Language means: Libovický et al., Findings of EMNLP 2020.)

    `sums` is [languages, types, D + 1], decayed sums of vectors and counts.
    """

    def __init__(self, languages: int, types: int, size: int, decay: float = 0.9, device: torch.device | str = "cpu"):
        self.sums = torch.zeros(languages, types, size + 1, device=device)
        self.decay = decay

    def update(self, vectors: Tensor, types: Tensor, language: Tensor, valid: Tensor, gather: Gather = alone) -> None:
        """Take in the rows of a batch.

        Args:
            vectors: [rows, words, length, D].
            types: [rows, words, length].
            language: [rows], indices into `sums`.
            valid: bool [rows, words, length]; other spans are passed over.
        """
        member = (F.one_hot(types.clamp(min=0), self.sums.shape[1]) * valid[..., None]).to(vectors.dtype).flatten(1, 2)
        of_rows = torch.cat([member.mT @ vectors.flatten(1, 2), member.sum(1)[..., None]], dim=2)
        new = F.one_hot(language, len(self.sums)).T.to(of_rows.dtype) @ of_rows.flatten(1)
        self.sums = self.decay * self.sums + gather(new.view_as(self.sums)).sum(0)

    def subtract(self, vectors: Tensor, language: Tensor) -> Tensor:
        """Unit vectors [rows, words, length, D] without the center of their row's language [rows], unit vectors again."""
        sums, counts = self.sums[..., :-1], self.sums[..., -1:]
        seen = counts > 0
        centers = torch.where(seen, sums / torch.where(seen, counts, 1), 0).sum(1) / seen.sum(1).clamp(min=1)
        return F.normalize(vectors - centers.to(vectors.dtype)[language, None, None], dim=-1)
