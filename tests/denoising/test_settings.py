"""Protects the settings of denoising: those of the command line, with the same defaults, and the weight of the old label."""

import dataclasses

import pytest

from glode.denoising.settings import DenoisingSettings
from glode.training.arguments import GlodeTrainingArguments


def test_the_settings_are_those_of_the_command_line(tmp_path):
    defaults = GlodeTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert defaults.denoising_settings == DenoisingSettings()
    given = {"denoising": "local", "num_neighbors": 7, "prototype_decay": 0.5, "datastore_size": 9, "seed": 3}
    arguments = GlodeTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **given)
    assert arguments.denoising_settings == dataclasses.replace(DenoisingSettings(), **given)


@pytest.mark.parametrize(
    ("denoising", "sides"), [("both", ("global", "local")), ("global", ("global",)), ("local", ("local",)), ("none", ())]
)
def test_sides(denoising: str, sides: tuple[str, ...]):
    assert DenoisingSettings(denoising=denoising).sides == sides


def test_beta_falls_linearly_from_the_epoch_that_refines():
    settings = DenoisingSettings(refine_start_epoch=3, beta_start=0.9, beta_end=0.5)
    assert settings.beta(0, 0.0) is None and settings.beta(1, 0.49) is None
    assert [settings.beta(epoch, done) for epoch, done in ((2, 0.5), (3, 0.75), (3, 1.0))] == pytest.approx([0.7, 0.6, 0.5])
