"""How pseudo labels are denoised, as one object."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DenoisingSettings:
    """The settings of denoising, under the names of the command line; its help says what they mean. Defaults are the same."""

    denoising: str = "both"
    refine: str = "step"
    agreement: bool = False
    self_direction: bool = False
    directions: str = "multiple"
    normalize_directions: bool = False
    center_vectors: bool = False
    prototype_decay: float = 0.99
    num_neighbors: int = 300
    neighbor_share: float = 0.05
    local_threshold_scale: float = 0.9
    refine_start: float = 0.25
    beta_start: float = 0.95
    beta_end: float = 0.80
    beta_epochs: int = 8
    beta_schedule: str = "step"
    refine_every_visit: bool = False
    datastore_outside_share: float = 0.03
    datastore_size: int = 200_000
    datastore_exact_size: int = 4_000
    confidence_threshold: float = 0.9
    seed: int = 42

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that give directions: "global" (prototypes), "local" (neighbours), both or none."""
        return {"both": ("global", "local"), "none": ()}.get(self.denoising, (self.denoising,))

    def refining_epochs(self, epochs: int) -> range:
        """The epochs, from 0, of a run of `epochs` that refine: those that begin when the share `refine_start` of the training is
        done. Empty where a run is too short for that."""
        return range(math.ceil(self.refine_start * epochs - 1e-9), epochs)

    def beta(self, epoch: int, epochs: int, done: float) -> float | None:
        """The weight of the old label (eq. 11), None before refinement starts.

        It falls linearly from `beta_start` to `beta_end`, to the power that leaves as much of a first label as a run of
        `beta_epochs` epochs does: 1 for such a run, more for a shorter one.

        Args:
            epoch: from 0.
            epochs: of the run.
            done: the share of the training that is done; with the schedule "epoch" it is that of the epochs before this one.
        """
        refining = self.refining_epochs(epochs)
        if not refining or epoch < refining[0]:
            return None
        return self._plain_beta(self._done(epoch, epochs, done)) ** self._exponent(epochs)

    def _done(self, epoch: int, epochs: int, done: float) -> float:
        return epoch / max(epochs - 1, 1) if self.beta_schedule == "epoch" else done

    def _plain_beta(self, done: float) -> float:
        return self.beta_start + (self.beta_end - self.beta_start) * done

    def _exponent(self, epochs: int) -> float:
        wanted, plain = self._log_kept(self.beta_epochs), self._log_kept(epochs)
        return wanted / plain if plain else 1.0

    def _log_kept(self, epochs: int) -> float:
        """The logarithm of what plain betas leave of a label that is refined in the middle of each epoch from the start on, at
        least in the last one."""
        first = min(self.refining_epochs(epochs).start, epochs - 1)
        betas = (self._plain_beta(self._done(epoch, epochs, (epoch + 0.5) / epochs)) for epoch in range(first, epochs))
        return sum(math.log(max(beta, 1e-9)) for beta in betas)  # a weight of 0 keeps nothing, whatever its power
