"""Protects the settings of denoising: those of the command line, with the same defaults, and the weight of the old label."""

import dataclasses
import math

import pytest

from glode.denoising.settings import DenoisingSettings
from glode.errors import InputError
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
    """Eq. 11, exactly: a run of as many epochs as the two weights are meant for."""
    settings = DenoisingSettings(refine_start=0.5, beta_start=0.9, beta_end=0.5, beta_epochs=4)
    assert settings.beta(0, 4, 0.0) is None and settings.beta(1, 4, 0.49) is None
    assert [settings.beta(epoch, 4, done) for epoch, done in ((2, 0.5), (3, 0.75), (3, 1.0))] == [
        0.9 + (0.5 - 0.9) * done for done in (0.5, 0.75, 1.0)
    ]


def test_the_paper_refines_from_the_third_of_eight_epochs():
    settings = DenoisingSettings()
    first = {epochs: next(iter(settings.refining_epochs(epochs)), None) for epochs in (1, 2, 3, 4, 6, 8, 20)}
    assert first == {1: None, 2: 1, 3: 1, 4: 1, 6: 2, 8: 2, 20: 5}
    assert [settings.beta(epoch, 1, 0.5) for epoch in (0, 1)] == [None, None]
    assert list(DenoisingSettings(refine_start=0.0).refining_epochs(3)) == [0, 1, 2]
    assert not DenoisingSettings(refine_start=1.0).refining_epochs(3)
    assert DenoisingSettings(refine_start=0.3).refining_epochs(10).start == 3


def test_a_weight_may_stay_for_an_epoch():
    """(e - 1) / (E - 1) for epochs from 1, whatever part of the epoch is done."""
    settings = DenoisingSettings(beta_schedule="epoch")
    for epoch in range(2, 8):
        for done in (epoch / 8, (epoch + 0.9) / 8):
            assert settings.beta(epoch, 8, done) == pytest.approx(0.95 - 0.15 * epoch / 7)
    papers = math.prod(0.95 - 0.15 * epoch / 7 for epoch in range(2, 8))
    assert [left_of_a_first_label(settings, epochs) for epochs in (2, 8, 20)] == pytest.approx([papers] * 3)
    assert DenoisingSettings(beta_schedule="epoch", refine_start=0.0, beta_epochs=1).beta(0, 1, 0.5) == 0.95


def left_of_a_first_label(settings: DenoisingSettings, epochs: int) -> float:
    """The product of the weights with which a label is kept that is refined in the middle of each epoch."""
    betas = [settings.beta(epoch, epochs, (epoch + 0.5) / epochs) for epoch in range(epochs)]
    return math.prod(beta for beta in betas if beta is not None)


@pytest.mark.parametrize("epochs", [2, 3, 4, 8, 20])
def test_what_refinement_does_over_a_run_is_the_papers_at_any_length(epochs: int):
    papers = math.prod(0.95 - 0.15 * (epoch + 0.5) / 8 for epoch in range(2, 8))
    assert left_of_a_first_label(DenoisingSettings(), epochs) == pytest.approx(papers)
    steeper = DenoisingSettings(beta_start=0.9, beta_end=0.5, refine_start=0.5)
    assert left_of_a_first_label(steeper, epochs) == pytest.approx(left_of_a_first_label(steeper, 8))


def test_weights_that_keep_all_of_a_label_keep_it_at_any_length():
    assert left_of_a_first_label(DenoisingSettings(beta_start=1.0, beta_end=1.0), 3) == 1.0


def test_a_weight_of_nothing_keeps_nothing():
    settings = DenoisingSettings(beta_start=0.0, beta_end=0.0)
    assert settings.beta(2, 3, 0.9) == 0 and left_of_a_first_label(settings, 20) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agreement": True}, "--agreement and --self_direction judge all labels at once: they need --refine epoch"),
        ({"self_direction": True}, "--agreement and --self_direction judge all labels at once: they need --refine epoch"),
        ({"refine": "epoch", "train_projection": True}, "--train_projection trains the vectors of --refine step"),
        ({"denoising": "none", "train_projection": True}, "trains the vectors that the sides of denoising compare, and "),
        ({"denoising": "confidence", "train_projection": True}, "sides of denoising compare, and --denoising confidence has"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options: dict, message: str, tmp_path):
    with pytest.raises(InputError, match=message):
        GlodeTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
