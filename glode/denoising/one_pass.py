"""Refinement of all labels at once, from one pass of one model over both corpora (`--refine epoch`). Knows no Trainer."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.agreement import Agreement
from glode.denoising.datastore import Datastore
from glode.denoising.gathering import Gather, alone
from glode.denoising.prototypes import Prototypes
from glode.denoising.pseudo_labels import PseudoLabels
from glode.denoising.refinement import directions, refine
from glode.denoising.reservoir import Reservoir, Sample, span_keys
from glode.denoising.settings import DenoisingSettings
from glode.denoising.thresholds import Thresholds


class ReadWindows(NamedTuple):
    """What a model says of some windows of one stream.

    Attributes:
        states: [2, rows, words, H], of each word's first and last sub-token.
        probabilities: [rows, words, length, types], its own prediction.
        span_mask: bool [rows, words, length]; all False where the windows were in another batch.
        labels: [rows, words, length], gold types of source windows; None of target windows.
        window, key, own_start: [rows], as in `Denoiser.step`.
    """

    states: Tensor
    probabilities: Tensor
    span_mask: Tensor
    labels: Tensor | None
    window: Tensor
    key: Tensor
    own_start: Tensor


class TargetSpans(NamedTuple):
    """Target spans that may move: vectors [spans, 2 H], soft labels, the model's prediction and the mean label of the same string
    elsewhere [spans, types], zeros where there is none, target language and cell [spans]."""

    vectors: Tensor
    soft: Tensor
    predicted: Tensor
    others: Tensor
    language: Tensor
    cells: Tensor


class OnePass:
    """Prototypes, thresholds, datastore and refinement of one pass.

    A span's vector is the states of its first and last word, without the center of its language, which is the mean of its types'
    means, as a unit vector. Centers, prototypes (class means over both corpora), thresholds and datastore are of one sample, that
    of a [`Reservoir`]: every entity span and a share of the O spans, at most `datastore_size`. A span of the sample is one of its
    own neighbours.

    A target span stays as it is where its label, the model and the same string elsewhere all say O with at least the probability
    `certain`. The vectors of the others are held in memory while they are at most `datastore_size`; beyond, the corpora are read
    a second time. So memory is bounded, whatever the size of the corpora.

    Args:
        pseudo_labels: the labels to refine.
        settings: see [`DenoisingSettings`].
        languages: [windows], the target language of each, from 0.
        strings: see [`Agreement`]; needed with `agreement`.
        gather: [...] -> [processes, ...], by rank.
        source_languages: [source windows], see [`Denoiser`].
    """

    certain = 0.99
    holds = 1.0  # times `datastore_size`

    def __init__(
        self,
        pseudo_labels: PseudoLabels,
        settings: DenoisingSettings,
        languages: Tensor,
        strings: Tensor | None = None,
        gather: Gather = alone,
        source_languages: Tensor | None = None,
    ):
        self.pseudo_labels, self.settings, self.gather = pseudo_labels, settings, gather
        self.languages, self.source_languages = languages, source_languages
        self.types = pseudo_labels.probabilities.shape[-1]
        self.target_languages = 1 + int(languages.max())
        self.all_languages = count_languages(self.target_languages, source_languages)
        self.agreement: Agreement | None = None
        if settings.agreement:
            if strings is None:
                raise ValueError("agreement needs the strings of the target's spans, see glode.features.strings.")
            self.agreement = Agreement(pseudo_labels, strings)
        device = pseudo_labels.offsets.device
        self.thresholds = {side: Thresholds(self.types, self.target_languages, device) for side in settings.sides}

    def refine(self, batches: Callable[[], Iterable[ReadWindows]], epoch: int, beta: float) -> dict[str, float]:
        """Refine all labels (eq. 7-11). Every process has to call it, with as many batches.

        Args:
            batches: reads the corpora, each window once, in some process.
            epoch: is noted with the labels.
            beta: the weight of the old label (eq. 11).
        Returns:
            Sizes of the datastore and what its search costs, and how many spans have another type than before.
        """
        sample, kept = self._read(batches())
        self._settle(sample)
        changed = torch.zeros((), dtype=torch.long, device=self.languages.device)
        for spans in self._read_again(batches) if kept is None else kept:
            refined = refine(spans.soft, self._towards(spans), beta)
            changed += (refined.argmax(-1) != spans.soft.argmax(-1)).sum()
            self.pseudo_labels.write_cells(spans.cells, refined, self.gather)
        self.pseudo_labels.refined_in.fill_(epoch)
        store = self.datastore
        return {
            "datastore_size": len(store) if store is not None else 0,
            "datastore_recall": store.recall if store is not None else 1.0,
            "datastore_deviation": store.deviation if store is not None else 0.0,
            "pseudo_labels_changed": int(self.gather(changed).sum()),
        }

    # ------------------------------------------------------------------------------------------------------------- reading

    def _read(self, batches: Iterable[ReadWindows]) -> tuple[Sample, list[TargetSpans] | None]:
        """The sample of all processes, and the target spans of this one that may move; None where they are too many."""
        reservoir: Reservoir | None = None
        kept: list[TargetSpans] = []
        held, full = 0, False
        for batch in batches:
            if reservoir is None:
                size = 2 * batch.states.shape[-1]
                reservoir = Reservoir(self.types, size, self.settings, self.pseudo_labels.offsets.device)
            if batch.labels is not None:
                language = self._source_language(batch.window)
                numbers = range(1 if self.source_languages is None else self.all_languages)
                self._collect(reservoir, batch, batch.labels, language, numbers)
                continue
            spans, soft = self._target_spans(batch)
            numbers = range(1, 1 + self.target_languages)
            self._collect(reservoir, batch, soft.argmax(-1), 1 + self.languages[batch.window], numbers)
            held += len(spans.cells)
            full = full or held > self.holds * self.settings.datastore_size
            kept = [] if full else [*kept, spans]
        assert reservoir is not None, "there are no windows"
        sample = reservoir.joined(self.gather)  # all have read when this is through: labels may be written
        return sample, None if bool(self.gather(torch.tensor(full, device=sample.types.device)).any()) else kept

    def _source_language(self, window: Tensor) -> Tensor:
        """The language of source windows [rows], 0 but for labelled sentences in a target language or in a further source."""
        return torch.zeros_like(window) if self.source_languages is None else self.source_languages[window]

    def _read_again(self, batches: Callable[[], Iterable[ReadWindows]]) -> Iterator[TargetSpans]:
        for batch in batches():
            if batch.labels is None:
                yield self._target_spans(batch)[0]

    def _collect(self, reservoir: Reservoir, batch: ReadWindows, types: Tensor, language: Tensor, numbers: range) -> None:
        """Put the spans of a batch, with types [rows, words, length] and language [rows], see `Denoiser`, into the sample; all
        languages are among the `numbers`."""
        keys = span_keys(batch.key, batch.own_start, batch.span_mask)
        for number in numbers:
            mine = batch.span_mask & (language == number)[:, None, None]
            kept = reservoir.kept(types, mine, keys, number)
            vectors = _vectors(batch.states, kept, mine.shape)
            reservoir.add(vectors, types.flatten()[kept], keys.flatten()[kept], number)

    def _target_spans(self, batch: ReadWindows) -> tuple[TargetSpans, Tensor]:
        """The spans of target windows that may move, and the soft labels of all, [rows, words, length, types]."""
        words = batch.span_mask.shape[1]
        soft = self.pseudo_labels.read(batch.window, batch.own_start, words)
        cells = self.pseudo_labels.cells(batch.window, batch.own_start, words)
        predicted = batch.probabilities.to(soft.dtype)
        others, has_others = self._others(cells, soft)
        surely = torch.minimum(soft[..., 0], predicted[..., 0])
        surely = torch.where(has_others, torch.minimum(surely, others[..., 0]), surely)
        moves = batch.span_mask & (surely < self.certain)
        language = self.languages[batch.window][:, None, None].expand_as(moves)
        places = moves.flatten().nonzero().squeeze(1)
        grids = (grid.flatten(0, 2)[places] for grid in (soft, predicted, others, language, cells))
        return TargetSpans(_vectors(batch.states, places, moves.shape), *grids), soft

    def _others(self, cells: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
        if self.agreement is None:
            return torch.zeros_like(soft), torch.zeros_like(cells, dtype=torch.bool)
        return self.agreement.of_others(cells, soft)

    # ------------------------------------------------------------------------------------------------- what the sample says

    def _settle(self, sample: Sample) -> None:
        """Centers, prototypes, datastore and thresholds. The sample is the same in all processes, and so are they."""
        language, types = sample.when[:, 0], sample.types
        self.centers = self._language_centers(sample.vectors, types, language)
        vectors = sample.vectors
        for part in _parts(len(vectors)):  # in place: a large encoder's are gigabytes
            vectors[part] = self._compared(vectors[part], language[part])
        self.prototypes = Prototypes(self.types, vectors.shape[1], device=vectors.device)
        self.prototypes.vectors = F.normalize(_means(vectors, types, self.types)[0], dim=-1)
        self.datastore: Datastore | None = None
        if "local" in self.settings.sides:
            self.datastore = Datastore(self.types, vectors.shape[1], self.settings, vectors.device)
            self.datastore.store(vectors, types)
        target = ((language > 0) & (language <= self.target_languages)).nonzero().squeeze(1)
        for side in self.settings.sides:
            similarity = self._similarity(side, vectors[target], None, None)
            self.thresholds[side].add(similarity, types[target], language[target] - 1)
            self.thresholds[side].set()

    def _language_centers(self, vectors: Tensor, types: Tensor, language: Tensor) -> Tensor:
        """The mean over the types that a language has of their means. [languages, 2 H]"""
        means, counts = _means(vectors, language * self.types + types, self.all_languages * self.types)
        there = (counts > 0).view(-1, self.types)
        return means.view(*there.shape, -1).sum(1) / there.sum(1, keepdim=True).clamp(min=1)

    # ---------------------------------------------------------------------------------------------------------- directions

    def _towards(self, spans: TargetSpans) -> Tensor:
        """The sum of all directions (eq. 10). [spans, types]"""
        vectors = self._compared(spans.vectors, 1 + spans.language)
        total, types = torch.zeros_like(spans.soft), spans.soft.argmax(-1)
        for side in self.settings.sides:
            thresholds = self.thresholds[side].values[spans.language]
            if side == "local":
                thresholds = self.settings.local_threshold_scale * thresholds
            total += self._directions(self._similarity(side, vectors, types, thresholds), thresholds)
        total += spans.others
        return total + spans.predicted if self.settings.self_direction else total

    def _compared(self, vectors: Tensor, language: Tensor) -> Tensor:
        """Vectors [spans, 2 H] without their languages' centers, as unit vectors; language [spans], see `Denoiser`."""
        return F.normalize(vectors - self.centers[language], dim=-1)

    def _similarity(self, side: str, vectors: Tensor, types: Tensor | None, thresholds: Tensor | None) -> Tensor:
        """Eq. 7 or 9. [spans, types]"""
        if side == "global" or self.datastore is None:
            return self.prototypes.similarity(vectors)
        return self.datastore.similarity(vectors, types, thresholds)

    def _directions(self, similarity: Tensor, thresholds: Tensor) -> Tensor:
        """Eq. 8. [spans, types]"""
        chosen = directions(similarity, thresholds, self.settings.directions == "multiple")
        return chosen / chosen.sum(-1, keepdim=True).clamp(min=1) if self.settings.normalize_directions else chosen


def count_languages(targets: int, source_languages: Tensor | None) -> int:
    """All languages of both sides, see `source_languages` of [`Denoiser`]; `targets` are target languages."""
    return 1 + (targets if source_languages is None else max(targets, int(source_languages.max())))


def _vectors(states: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """The states of first and last word of some spans: [2, rows, words, H], [spans] places in a flat grid of the shape [rows,
    words, length] -> [spans, 2 H]."""
    first, last = states.flatten(1, 2)
    word = places // shape[2]
    return torch.cat([first[word], last[word + places % shape[2]]], dim=-1)


def _parts(number: int, size: int = 2**14) -> Iterator[slice]:
    """A number of rows, so many at a time."""
    return (slice(at, at + size) for at in range(0, number, size))


def _means(vectors: Tensor, groups: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Of each group the mean of its vectors, zeros where there are none, and how many there are. [groups, D], [groups]"""
    sums = vectors.new_zeros(number, vectors.shape[1], dtype=torch.float64)
    for part in _parts(len(vectors)):
        sums.index_add_(0, groups[part], vectors[part].double())
    counts = groups.bincount(minlength=number)
    return (sums / counts.clamp(min=1)[:, None]).to(vectors.dtype), counts
