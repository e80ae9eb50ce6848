"""Global-local denoising of soft pseudo labels (GLoDe, IJCAI 2024, eq. 5-11). Knows no Trainer."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from glode.denoising.centers import Centers
from glode.denoising.datastore import Datastore
from glode.denoising.gathering import Gather, alone
from glode.denoising.one_pass import OnePass, ReadWindows, count_languages
from glode.denoising.prototypes import Prototypes
from glode.denoising.pseudo_labels import PseudoLabels
from glode.denoising.refinement import directions, refine
from glode.denoising.reservoir import Sample, span_keys
from glode.denoising.settings import DenoisingSettings
from glode.denoising.thresholds import Thresholds
from glode.errors import InputError


class Denoiser:
    """The state of global-local denoising: pseudo labels, prototypes, thresholds, datastore, and the centers where asked for.

    A baseline overrides `own_settings`, `refines_labels` and the methods from `counted` to `loss_targets`.

    Args:
        pseudo_labels: the labels to refine.
        settings: see [`DenoisingSettings`].
        size: D.
        languages: the target language of each window, from 0; one for all by default. Thresholds and centers are of a language.
        gather: [...] -> [processes, ...], by rank.
        rank: this process.
        strings: for `agreement`, which spans are the same string, see [`Agreement`].
        source_languages: the language of each source window: 0 the source's, then the targets' from 1 on, of labelled sentences
            in a target language, then those of further source languages. All are the source's by default.
    """

    own_settings: ClassVar[dict[str, Any]] = {}  # in the place of the given ones
    refines_labels = True

    def __init__(
        self,
        pseudo_labels: PseudoLabels,
        settings: DenoisingSettings,
        size: int,
        languages: Sequence[int] | Tensor | None = None,
        gather: Gather = alone,
        rank: int = 0,
        strings: Tensor | None = None,
        source_languages: Tensor | None = None,
    ):
        self.pseudo_labels, self.strings = pseudo_labels, strings
        self.settings = settings = dataclasses.replace(settings, **self.own_settings)
        device, types = pseudo_labels.offsets.device, pseudo_labels.probabilities.shape[-1]
        if languages is None:
            languages = torch.zeros(len(pseudo_labels.refined_in), dtype=torch.long)
        self.languages = torch.as_tensor(languages, device=device)
        self.source_languages = None if source_languages is None else source_languages.to(device)
        number = 1 + int(self.languages.max())
        centers = count_languages(number, source_languages)
        self.centers = Centers(centers, types, size, device=device) if settings.center_vectors else None
        self.prototypes = Prototypes(types, size, settings.prototype_decay, device)
        self.datastore = Datastore(types, size, settings, device)
        self.thresholds = {side: Thresholds(types, number, device) for side in ("global", "local")}
        self.gather, self.rank = gather, rank
        self.epoch = 0

    @property
    def sides(self) -> tuple[str, ...]:
        return self.settings.sides

    @property
    def reads_vectors(self) -> bool:
        """Whether a step takes in vectors; else it gives the labels as they are."""
        return bool(self.sides) and self.settings.refine == "step"

    # --------------------------------------------------------------------------------------------------------------- a step

    def step(
        self,
        projection: Tensor | None,
        labels: Tensor,
        is_target: Tensor,
        window: Tensor,
        key: Tensor,
        own_start: Tensor,
        span_mask: Tensor,
        step: int,
        beta: float | None,
        source_rows: int | None = None,
        target_spans: Tensor | None = None,
    ) -> Tensor:
        """Take in a batch and give the soft labels of its target spans, refined where `beta` is given.

        What is given last is known from the others, but a GPU would have to be asked for it.

        Args:
            projection: [batch, words, length, D], unit vectors; None where `reads_vectors` is not.
            labels: [batch, words, length], gold types of the source rows.
            is_target: bool [batch], False for the source rows, which come first.
            window: [batch], the number of the row in its own stream.
            key: [batch], a number that no other window of either stream has, for random numbers.
            own_start: [batch].
            span_mask: bool [batch, words, length].
            step: the number of the step, for the sampling of the datastore.
            beta: the weight of the old label (eq. 11), or None before refinement starts.
            source_rows: how many rows are source rows.
            target_spans: [spans], the cells of the target rows' grids that are spans.
        Returns:
            [target rows, words, length, types].
        """
        rows = int((~is_target).sum()) if source_rows is None else source_rows
        target_window, target_start = window[rows:], own_start[rows:]
        soft = self.pseudo_labels.read(target_window, target_start, span_mask.shape[1])
        if projection is None or not self.reads_vectors:
            return soft
        cells = span_mask[rows:].flatten().nonzero().squeeze(1) if target_spans is None else target_spans
        types = torch.cat([labels[:rows], soft.argmax(-1)])
        counted = self.counted(span_mask, is_target)
        vectors = self._compared(projection, types, is_target, window, counted)
        for part in (slice(rows), slice(rows, None)):
            spans = (vectors[part].flatten(0, 2), types[part].flatten(), counted[part].flatten())
            self.prototypes.update(*spans, self.gather)
        row = cells // span_mask[0].numel()
        old = soft.flatten(0, 2)[cells]
        towards = self.towards(vectors[rows:].flatten(0, 2)[cells], old, self.languages[target_window][row])
        if beta is not None and self.refines_labels:
            due = self._due(target_window)
            new = torch.where(due[row, None], refine(old, towards, beta), old)
            soft = soft.flatten(0, 2).index_copy(0, cells, new).view_as(soft)
            self.pseudo_labels.write(target_window, target_start, soft, self.epoch, due, self.gather)
        if "local" in self.sides:
            types = torch.cat([labels[:rows], soft.argmax(-1)])
            keys = span_keys(key, own_start, span_mask).flatten()
            self.datastore.reservoir.collect(vectors.flatten(0, 2), types.flatten(), counted.flatten(), keys, step)
        return soft

    def _compared(self, projection: Tensor, types: Tensor, is_target: Tensor, window: Tensor, counted: Tensor) -> Tensor:
        """The vectors of a batch as they are compared, after their languages' centers have moved. [batch, words, length, D]"""
        if self.centers is None:
            return projection
        language = self.language_of(window, is_target)
        self.centers.update(projection, types, language, counted, self.gather)
        return self.centered(projection, language)

    def _due(self, window: Tensor) -> Tensor:
        """Whether a window's labels are refined now: bool [rows]. Once an epoch, also where the sampler shows it more often,
        unless `refine_every_visit` is set."""
        return (self.pseudo_labels.refined_in[window] != self.epoch) | self.settings.refine_every_visit

    def refine_all(self, batches: Callable[[], Iterable[ReadWindows]], epoch: int, beta: float) -> dict[str, float]:
        """Refine all labels at once, from one pass of a model over both corpora, see [`OnePass`]; does nothing where that is done
        already. Every process has to call it.

        Args:
            batches: reads the corpora; every process has to bring as many batches.
            epoch: that begins, from 0.
            beta: the weight of the old label.
        Returns:
            What is logged; nothing where nothing is done.
        """
        refines = self.refines_labels and bool(self.sides)
        if not refines or bool((self.pseudo_labels.refined_in >= epoch).all()):
            return {}
        state = (self.pseudo_labels, self.settings, self.languages, self.strings, self.gather, self.source_languages)
        return OnePass(*state).refine(batches, epoch, beta)

    # -------------------------------------------------------------------------------------------------- what baselines change

    def counted(self, span_mask: Tensor, is_target: Tensor) -> Tensor:
        """The spans that prototypes, centers and datastore take in: bool [batch, words, length], [batch] -> the same."""
        return span_mask

    def towards(self, vectors: Tensor, soft: Tensor, language: Tensor) -> Tensor:
        """The sum of the directions of both sides (eq. 10); their similarities count for the next thresholds.

        Args:
            vectors: [spans, D], of target spans.
            soft: [spans, types], their pseudo labels.
            language: [spans], from 0.
        Returns:
            [spans, types].
        """
        total, types = torch.zeros_like(soft), soft.argmax(-1)
        for side in self.sides:
            if side == "global" or len(self.datastore):
                total += self._side_towards(side, vectors, types, language)
        return total

    def _side_towards(self, side: str, vectors: Tensor, types: Tensor, language: Tensor) -> Tensor:
        thresholds = self.thresholds[side].values[language]
        if side == "global":
            similarity = self.prototypes.similarity(vectors)
        else:
            thresholds = self.settings.local_threshold_scale * thresholds
            similarity = self.neighbor_shares(vectors, types, thresholds)
        self.thresholds[side].add(similarity, types, language)
        chosen = self.choose_directions(similarity, thresholds, types)
        return chosen / chosen.sum(-1, keepdim=True).clamp(min=1) if self.settings.normalize_directions else chosen

    def neighbor_shares(self, vectors: Tensor, types: Tensor, thresholds: Tensor) -> Tensor:
        """Eq. 9 for spans with the pseudo labels `types`, as exactly as `choose_directions` has to know it: vectors [spans, D],
        types [spans], thresholds [spans, types] -> [spans, types]."""
        return self.datastore.similarity(vectors, types, thresholds)

    def choose_directions(self, similarity: Tensor, thresholds: Tensor, types: Tensor) -> Tensor:
        """Where spans with the pseudo labels `types` [spans] move: similarity and thresholds [spans, types] -> [spans, types]
        (eq. 8)."""
        return directions(similarity, thresholds, self.settings.directions == "multiple")

    def loss_targets(self, soft: Tensor, valid: Tensor) -> Tensor:
        """What L_tgt (eq. 4) asks for: soft labels [rows, words, length, types] of the batch where bool `valid` is set, as they
        are. A baseline hardens them, or scales a span's by the weight that it has in the loss."""
        return soft

    # -------------------------------------------------------------------------------------------------------------- elsewhere

    def language_of(self, window: Tensor, is_target: Tensor) -> Tensor:
        """The language of some rows, see `source_languages`, from 1 on of target rows: window, is_target [rows] -> [rows]."""
        source = torch.zeros_like(window) if self.source_languages is None else self.source_languages[window * ~is_target]
        return torch.where(is_target, 1 + self.languages[window * is_target], source)

    def centered(self, vectors: Tensor, language: Tensor) -> Tensor:
        """Span vectors [rows, words, length, D] as they are compared; language [rows], see `language_of`."""
        return vectors if self.centers is None else self.centers.subtract(vectors, language)

    def begin_epoch(self, epoch: int) -> None:
        """Set the thresholds and rebuild the datastore from the epoch that ended; does nothing where that is done already."""
        if epoch <= self.epoch:
            return
        for thresholds in self.thresholds.values():
            thresholds.set(self.gather)
        if "local" in self.sides:
            self.datastore.rebuild(self.gather)
        self.epoch = epoch

    def state_dict(self) -> dict[str, Tensor]:
        """All state of all processes as named tensors; every process has to call it. The sums of the thresholds come
        apart for each process, so that their order is kept."""
        labels, store = self.pseudo_labels, self.datastore
        collected = store.reservoir.joined(self.gather)
        state = {
            "epoch": torch.tensor(self.epoch),
            "pseudo_labels.offsets": labels.offsets,
            "pseudo_labels.probabilities": labels.probabilities,
            "pseudo_labels.refined_in": labels.refined_in,
            "prototypes.vectors": self.prototypes.vectors,
            "datastore.vectors": store.vectors,
            "datastore.types": store.types,
            **{f"collected.{name}": column for name, column in collected._asdict().items()},
        }
        if self.centers is not None:
            state["centers.sums"] = self.centers.sums
        for side, thresholds in self.thresholds.items():
            state |= {f"thresholds.{side}.values": thresholds.values, f"thresholds.{side}.sums": self.gather(thresholds.sums)}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave, in any number of processes.

        Raises:
            InputError: the state belongs to another corpus or other types.
        """
        labels, device = self.pseudo_labels, self.pseudo_labels.offsets.device
        probabilities = state["pseudo_labels.probabilities"]  # may be larger than memory
        # Copies, because a tensor of a safetensors file keeps the whole file on the disk.
        state = {name: tensor.to(device, copy=True) for name, tensor in state.items() if tensor is not probabilities}
        if not torch.equal(state["pseudo_labels.offsets"], labels.offsets) or probabilities.shape != labels.probabilities.shape:
            raise InputError(
                "the checkpoint's denoising state is of another target text, span length or set of types. Give the corpora and "
                "arguments of the run that saved it, or another --output_dir."
            )
        mine = slice(self.rank, None, len(self.gather(self.thresholds["global"].sums)))  # a share of what was of all processes
        self.epoch = int(state["epoch"])
        labels.probabilities.copy_(probabilities)
        labels.refined_in = state["pseudo_labels.refined_in"]
        self.prototypes.vectors = state["prototypes.vectors"]
        if self.centers is not None:
            self.centers.sums = state["centers.sums"]
        for side, thresholds in self.thresholds.items():
            thresholds.values = state[f"thresholds.{side}.values"]
            thresholds.sums = state[f"thresholds.{side}.sums"][mine].sum(0)
        self.datastore.store(state["datastore.vectors"], state["datastore.types"])
        self.datastore.reservoir.parts = [Sample(*(state[f"collected.{name}"][mine] for name in Sample._fields))]
