"""How pseudo labels are denoised, as one object."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DenoisingSettings:
    """The settings of denoising, under the names of the command line; its help says what they mean. Defaults are the same."""

    denoising: str = "both"
    directions: str = "multiple"
    normalize_directions: bool = False
    center_vectors: bool = False
    prototype_decay: float = 0.99
    num_neighbors: int = 300
    neighbor_share: float = 0.05
    local_threshold_scale: float = 0.9
    refine_start_epoch: int = 3
    beta_start: float = 0.95
    beta_end: float = 0.80
    datastore_outside_share: float = 0.03
    datastore_size: int = 200_000
    datastore_exact_size: int = 4_000
    confidence_threshold: float = 0.9
    seed: int = 42

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that give directions: "global" (prototypes), "local" (neighbours), both or none."""
        return {"both": ("global", "local"), "none": ()}.get(self.denoising, (self.denoising,))

    def beta(self, epoch: int, done: float) -> float | None:
        """The weight of the old label (eq. 11), None before refinement starts.

        Args:
            epoch: from 0.
            done: the share of the training that is done.
        """
        if epoch + 1 < self.refine_start_epoch:
            return None
        return self.beta_start + (self.beta_end - self.beta_start) * done
