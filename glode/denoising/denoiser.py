"""Global-local denoising of soft pseudo labels (GLoDe, IJCAI 2024, eq. 5-11). Knows no Trainer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from glode.denoising.centers import Centers
from glode.denoising.datastore import COLLECTED, Datastore
from glode.denoising.gathering import Gather, alone
from glode.denoising.prototypes import Prototypes
from glode.denoising.pseudo_labels import PseudoLabels
from glode.denoising.refinement import directions, refine
from glode.denoising.thresholds import Thresholds
from glode.errors import InputError


class Denoiser:
    """The state of global-local denoising: pseudo labels, prototypes, thresholds, datastore, and the centers where asked for.

    Args:
        pseudo_labels: the labels to refine.
        size: D.
        denoising: "both", "global", "local" or "none".
        directions: "multiple" or "single" (eq. 8).
        neighbors, neighbor_share: K (eq. 9), see [`Datastore`].
        local_threshold_scale: factor on the local thresholds.
        normalize_directions: give the global and the local direction equal weight before they are added.
        center: compare vectors without their language's center.
        languages: the target language of each window, from 0; one for all by default. Thresholds and centers are of a language.
        gather: [...] -> [processes, ...], by rank.
        rank: this process.
    """

    def __init__(
        self,
        pseudo_labels: PseudoLabels,
        size: int,
        denoising: str = "both",
        directions: str = "multiple",
        neighbors: int = 300,
        neighbor_share: float = 1.0,
        decay: float = 0.99,
        local_threshold_scale: float = 0.9,
        normalize_directions: bool = False,
        center: bool = False,
        outside_share: float = 0.03,
        capacity: int = 200_000,
        exact_size: int = 4_000,
        seed: int = 0,
        languages: Sequence[int] | None = None,
        gather: Gather = alone,
        rank: int = 0,
    ):
        device, types = pseudo_labels.offsets.device, pseudo_labels.probabilities.shape[-1]
        self.pseudo_labels = pseudo_labels
        windows = len(pseudo_labels.refined_in)
        self.languages = torch.as_tensor(languages if languages is not None else [0] * windows, device=device)
        number = 1 + int(self.languages.max())
        self.centers = Centers(1 + number, types, size, device=device) if center else None
        self.prototypes = Prototypes(types, size, decay, device)
        self.datastore = Datastore(types, size, neighbors, neighbor_share, outside_share, capacity, exact_size, seed, device)
        self.thresholds = {side: Thresholds(types, number, device) for side in ("global", "local")}
        self.sides = {"both": ("global", "local"), "none": ()}.get(denoising, (denoising,))
        self.multiple = directions == "multiple"
        self.local_threshold_scale, self.normalize_directions = local_threshold_scale, normalize_directions
        self.gather, self.rank = gather, rank
        self.epoch = 0

    def step(
        self,
        projection: Tensor,
        labels: Tensor,
        window: Tensor,
        own_start: Tensor,
        span_mask: Tensor,
        step: int,
        beta: float | None,
    ) -> Tensor:
        """Take in a batch and give the soft labels of its target spans, refined where `beta` is given.

        Args:
            projection: [batch, words, length, D], unit vectors.
            labels: [batch, words, length], gold types of the source rows.
            window: [batch]; below 0 for source rows.
            own_start: [batch].
            span_mask: bool [batch, words, length].
            step: the number of the step, for the sampling of the datastore.
            beta: the weight of the old label (eq. 11), or None before refinement starts.
        Returns:
            [target rows, words, length, types].
        """
        source, target = window < 0, window >= 0
        cells = torch.arange(span_mask[0].numel(), device=window.device).view(span_mask.shape[1:])
        keys = window[:, None, None] * 2**20 + cells - own_start[:, None, None] * span_mask.shape[2]
        language = torch.where(target, 1 + self.languages[window.clamp(min=0)], 0)  # 0 is the source
        window, own_start, valid = window[target], own_start[target], span_mask[target]
        soft = self.pseudo_labels.read(window, own_start, span_mask.shape[1])
        if not self.sides:
            return soft
        types = labels.masked_scatter(target[:, None, None], soft.argmax(-1))
        if self.centers is not None:
            self.centers.update(projection, types, language, span_mask, self.gather)
            projection = self.centered(projection, language)
        vectors, pseudo, valid_flat = projection[target].flatten(0, 2), types[target].flatten(), valid.flatten()
        gold = (projection[source].flatten(0, 2), labels[source].flatten(), span_mask[source].flatten())
        self.prototypes.update(*gold, self.gather)
        self.prototypes.update(vectors, pseudo, valid_flat, self.gather)

        queries, types = vectors[valid_flat], pseudo[valid_flat]
        language = (language[target] - 1)[:, None, None].expand_as(valid)[valid]
        towards = torch.zeros(len(types), soft.shape[-1], dtype=soft.dtype, device=soft.device)
        for side in self.sides:
            thresholds = self.thresholds[side].values[language]
            if side == "global":
                similarity = self.prototypes.similarity(queries)
            else:
                if not len(self.datastore):
                    continue
                thresholds = self.local_threshold_scale * thresholds
                similarity = self.neighbour_shares(queries, types, thresholds)
            self.thresholds[side].add(similarity, types, language)
            side_towards = self.choose_directions(similarity, thresholds, types)
            if self.normalize_directions:
                side_towards = side_towards / side_towards.sum(-1, keepdim=True).clamp(min=1)
            towards += side_towards
        if beta is not None:
            # Once an epoch, also where the sampler shows a sentence more often.
            due = self.pseudo_labels.refined_in[window] != self.epoch
            moves = due[:, None, None].expand_as(valid)[valid]
            soft[valid] = torch.where(moves[:, None], refine(soft[valid], towards, beta), soft[valid])
            self.pseudo_labels.write(window, own_start, soft, self.epoch, due, self.gather)
        if "local" in self.sides:
            self.datastore.collect(*gold, keys[source].flatten(), step)
            self.datastore.collect(vectors, soft.argmax(-1).flatten(), valid_flat, keys[target].flatten(), step)
        return soft

    def neighbour_shares(self, vectors: Tensor, types: Tensor, thresholds: Tensor) -> Tensor:
        """Eq. 9 for spans with the pseudo labels `types`, as exactly as `choose_directions` has to know it: vectors [spans, D],
        types [spans], thresholds [spans, types] -> [spans, types]."""
        return self.datastore.similarity(vectors, types, thresholds)

    def choose_directions(self, similarity: Tensor, thresholds: Tensor, types: Tensor) -> Tensor:
        """Where spans with the pseudo labels `types` [spans] move: similarity and thresholds [spans, types] -> [spans, types]
        (eq. 8)."""
        return directions(similarity, thresholds, self.multiple)

    def loss_targets(self, soft: Tensor, valid: Tensor) -> Tensor:
        """What L_tgt (eq. 4) asks for: soft labels [rows, words, length, types] of the batch where bool `valid` is set, as they
        are. A baseline hardens them, or scales a span's by the weight that it has in the loss."""
        return soft

    def centered(self, vectors: Tensor, language: Tensor) -> Tensor:
        """Span vectors [rows, words, length, D] as they are compared; language [rows], 0 for the source, then the targets."""
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
        collected = store.joined(self.gather)
        state = {
            "epoch": torch.tensor(self.epoch),
            "pseudo_labels.offsets": labels.offsets,
            "pseudo_labels.probabilities": labels.probabilities,
            "pseudo_labels.refined_in": labels.refined_in,
            "prototypes.vectors": self.prototypes.vectors,
            "datastore.vectors": store.vectors,
            "datastore.types": store.types,
            **dict(zip((f"collected.{name}" for name in COLLECTED), collected, strict=True)),
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
        processes = len(self.gather(self.thresholds["global"].sums))
        self.epoch = int(state["epoch"])
        labels.probabilities.copy_(probabilities)
        labels.refined_in = state["pseudo_labels.refined_in"]
        self.prototypes.vectors = state["prototypes.vectors"]
        if self.centers is not None:
            self.centers.sums = state["centers.sums"]
        for side, thresholds in self.thresholds.items():
            thresholds.values = state[f"thresholds.{side}.values"]
            thresholds.sums = state[f"thresholds.{side}.sums"][self.rank :: processes].sum(0)
        self.datastore.store(state["datastore.vectors"], state["datastore.types"])
        self.datastore.collected = [tuple(state[f"collected.{name}"][self.rank :: processes] for name in COLLECTED)]
