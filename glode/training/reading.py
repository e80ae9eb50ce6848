"""What the present model says of both corpora, read by all processes together."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from glode.denoising.one_pass import ReadWindows
from glode.features.collator import GlodeCollator
from glode.features.columns import list_lengths
from glode.features.streams import TwoStreams
from modeling_glode import GlodeModel


def batches_of(lengths: np.ndarray, batch_size: int, rank: int = 0, processes: int = 1) -> Iterator[tuple[np.ndarray, bool]]:
    """Batches of windows of similar length, the longest first, for one of several processes; all get as many.

    Args:
        lengths: tokens of each window. [windows]
    Yields:
        The windows' numbers, and whether they count: not where a process has nothing left to read, while others have.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    for at in range(0, len(batches), processes):
        counts = at + rank < len(batches)
        yield batches[at + rank if counts else at], counts


class CorpusReader:
    """Reads source, then target windows with a model, without dropout. It draws no random number, and puts nothing into the place
    of the Trainer's loaders.

    Args:
        model: as it is when `read` is called.
        streams: both corpora.
        collator: makes a batch; masks nothing.
        predict: a model and a batch -> the batch on the model's device, and what the model says of it.
        batch_size: windows a batch.
        rank, processes: this one, and how many share the work.
    """

    def __init__(
        self,
        model: GlodeModel,
        streams: TwoStreams,
        collator: GlodeCollator,
        predict: Callable[..., tuple[dict[str, Tensor], Any]],
        batch_size: int,
        rank: int = 0,
        processes: int = 1,
    ):
        self.model, self.streams, self.collator, self.predict = model, streams, collator, predict
        self.place = (batch_size, rank, processes)

    def read(self) -> Iterator[ReadWindows]:
        training = self.model.training
        self.model.eval()
        shift = 0
        for stream in filter(None, (self.streams.source, self.streams.target)):
            for windows, counts in batches_of(list_lengths(stream, "input_ids"), *self.place):
                batch = self.collator(self.streams.__getitems__((shift + windows).tolist()))
                inputs, outputs = self.predict(self.model, batch, return_states=True)
                labels = inputs["labels"] if stream is self.streams.source else None
                own = (inputs[name] for name in ("window", "key", "own_start"))
                yield ReadWindows(outputs.states, outputs.logits.softmax(-1), inputs["span_mask"] & counts, labels, *own)
            shift += len(stream)
        self.model.train(training)
