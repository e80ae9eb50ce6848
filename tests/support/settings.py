"""Settings of the denoiser for tests."""

from glode.denoising.settings import DenoisingSettings


def settings(**options) -> DenoisingSettings:
    """The defaults, but that small stores have as many neighbours as are asked for."""
    return DenoisingSettings(**{"neighbor_share": 1.0, "seed": 0, **options})
