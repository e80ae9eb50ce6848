"""How certain a model is of each sentence, and how far it is from the pseudo labels of before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from glode.denoising.pseudo_labels import PseudoLabels
from glode.features.collator import GlodeCollator
from glode.features.columns import list_lengths
from glode.features.streams import TwoStreams
from glode.training.reading import batches_of
from modeling_glode import GlodeModel, decode, in_words, resolve
from trainer_glode import PREDICTION_COLUMNS

Doubt = tuple[int, int, list[tuple[str, float]]]  # first word, length in words, the two likeliest types with probabilities


@dataclass
class Reviewed:
    """What a model says of a sentence.

    Attributes:
        entities: (first word, length in words, type, probability), in text order.
        before: those of the first pseudo labels; None where nobody asks for them.
        certainty: the probability of the likeliest type of that span of which the model is least certain.
        doubt: that span.
        change: over all spans, how far the model's probabilities lie from those of the first pseudo labels (total variation).
    """

    entities: list[tuple] = field(default_factory=list)
    before: list[tuple] | None = None
    certainty: float = 1.0
    doubt: Doubt | None = None
    change: float = 0.0


def review(
    model: GlodeModel,
    tokenizer: PreTrainedTokenizerBase,
    windows: Dataset,
    sentences: int,
    first: PseudoLabels | None = None,
    batch_size: int = 32,
) -> list[Reviewed]:
    """What a model says of each sentence.

    Args:
        windows: of the sentences, see `build_features`.
        first: the pseudo labels from which the run began, of the same windows.
    """
    names = model.config.id2label
    rows = [Reviewed(before=None if first is None else []) for _ in range(sentences)]
    places = windows.select_columns(["sentence", "borders"])
    for batch, probabilities in batches(model, tokenizer, windows, batch_size):
        found = places[batch["window"].tolist()]
        mine, borders = [rows[sentence] for sentence in found["sentence"]], found["borders"]
        for row, entity in decoded(probabilities, batch["span_mask"], names):
            mine[row].entities.append(in_words(entity, borders[row]))
        for row, (first_unit, length, likely) in enumerate(doubts(probabilities, batch["span_mask"], names)):
            if likely[0][1] < mine[row].certainty:
                begin, words = in_words((first_unit, length), borders[row])
                mine[row].certainty, mine[row].doubt = likely[0][1], (begin, words, likely)
        if first is None:
            continue
        before = first.read(batch["window"], batch["own_start"], probabilities.shape[1])
        moved = ((probabilities - before).abs().sum(-1) / 2 * batch["span_mask"]).sum((1, 2))
        for row, change in enumerate(moved.tolist()):
            mine[row].change += change
        for row, entity in decoded(before, batch["span_mask"], names):
            mine[row].before.append(in_words(entity, borders[row]))
    for entities in (entities for reviewed in rows for entities in (reviewed.entities, reviewed.before) if entities):
        entities[:] = resolve(entities)
    return rows


def batches(
    model: GlodeModel, tokenizer: PreTrainedTokenizerBase, windows: Dataset, batch_size: int
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Batches of windows of similar length, and the probabilities of all their spans: [rows, words, length, types]."""

    collator, streams = GlodeCollator(tokenizer, model.config.max_span_length), TwoStreams(windows, None)
    with tqdm(total=len(windows), desc="reading", unit=" windows", disable=None) as progress, torch.inference_mode():
        for chosen, _ in batches_of(list_lengths(windows, "input_ids"), batch_size):
            batch = {name: tensor.to(model.device) for name, tensor in collator(streams.__getitems__(chosen.tolist())).items()}
            logits = model(**{name: batch[name] for name in PREDICTION_COLUMNS if name in batch}).logits
            yield {name: tensor.cpu() for name, tensor in batch.items()}, logits.float().softmax(-1).cpu()
            progress.update(len(chosen))


def decoded(probabilities: Tensor, span_mask: Tensor, names: dict[int, str]) -> Iterator[tuple[int, tuple]]:
    """The row and the entity, in units, of all entities of a batch."""
    columns = (column.tolist() for column in decode(probabilities.log(), span_mask))
    for row, begin, length, label, score in zip(*columns, strict=True):
        yield row, (begin, length, names[label], score)


def doubts(probabilities: Tensor, span_mask: Tensor, names: dict[int, str]) -> Iterator[Doubt]:
    """Of each row the span of which the model is least certain: first unit, length in units, its two likeliest types."""
    score, label = probabilities.topk(2, dim=-1)
    least = score[..., 0].masked_fill(~span_mask, 2.0).flatten(1).argmin(1)
    for row, cell in enumerate(least.tolist()):
        begin, more = divmod(cell, span_mask.shape[2])
        pairs = zip(label[row, begin, more].tolist(), score[row, begin, more].tolist(), strict=True)
        yield begin, more + 1, [(names[kind], value) for kind, value in pairs]


def choose(rows: Sequence[Reviewed], order: str, number: int) -> list[int]:
    """The sentences to look at, the first one first."""
    key = (lambda i: rows[i].certainty) if order == "uncertain" else (lambda i: -rows[i].change)
    return sorted(range(len(rows)), key=key)[:number]
