"""Protects what a GPU would cost, where none is at hand: how often steps and refreshes wait for the device, that tensors of the
host and of the device do not meet, and that the device finds what the CPU finds."""

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from datasets import Dataset
from support.pretended_device import DEVICE, PretendedDevice, trained_on
from test_trainer import LABELS, arguments, fresh_model, soft_labels
from torch.nn import functional as F
from transformers import TrainerCallback

from glode.denoising.exact_index import ExactIndex
from glode.features.strings import string_ids
from glode.features.windows import build_features
from modeling_glode import select_spans
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


class Waits(TrainerCallback):
    """The waits of each refresh, and of each step with its batch's way to the device."""

    def __init__(self, device: PretendedDevice):
        self.counter = device.waits
        self.refreshes: list[Counter] = []
        self.steps: list[Counter] = []

    def on_epoch_begin(self, *args, **kwargs) -> None:
        self._take(self.refreshes)

    def on_step_end(self, *args, **kwargs) -> None:
        self._take(self.steps)

    def _take(self, taken: list[Counter]) -> None:
        taken.append(Counter(self.counter))
        self.counter.clear()


@pytest.fixture
def train(backbone, corpus: Dataset, tokenizer, tmp_path):
    """Trains both stages, on the pretended device or on the CPU: the target stage's trainer, and the waits of both stages."""
    source, target = build_features(corpus, tokenizer, 64, 3, LABELS), build_features(corpus, tokenizer, 64, 3)

    def both_stages(pretended: bool = True, **options) -> tuple[GlodeTrainer, list[Waits]]:
        asked = {"accelerator_config": {"non_blocking": True}, "optim": "adamw_torch", "logging_steps": 1000} | options
        asked |= {"num_train_epochs": 2, "per_device_eval_batch_size": 4, "learning_rate": 1e-2}
        given, waits = arguments(tmp_path, **asked), []

        def trained(device: PretendedDevice | None, **more) -> GlodeTrainer:
            trainer = GlodeTrainer(fresh_model(backbone), given, tokenizer, source=source, target=target, **more)
            if device is not None:
                device.waits.clear()
                waits.append(Waits(device))
                trainer.callback_handler.callbacks.append(waits[-1])  # after what refreshes
            trainer.train()
            return trainer

        with trained_on(given) if pretended else nullcontext() as device:
            labels = trained(device).assign_pseudo_labels(target)
            labels.probabilities.copy_(soft_labels(target, corpus).probabilities)  # what a better model had said
            strings = string_ids(corpus, target, 3) if given.agreement else None
            return trained(device, pseudo_labels=labels, target_strings=strings), waits

    return both_stages


def most(counters: list[Counter]) -> Counter:
    return max(counters, key=Counter.total)


@pytest.mark.parametrize("options", [{}, {"denoising": "colada"}, {"denoising": "contproto"}, {"center_vectors": True}])
def test_a_step_waits_three_times_at_most(train, options: dict):
    _, (source, target) = train(**options)
    assert len(source.steps) == len(target.steps) == 8
    assert most(source.steps).total() == 0, source.steps
    assert most(target.steps).total() <= 3, most(target.steps)
    assert most(target.refreshes).total() <= 6, most(target.refreshes)


def test_a_refresh_waits_for_its_batches(train):
    """Beside a few times in all: once for each batch of source windows, twice for each of target windows; 5 batches of each."""
    _, (_, target) = train(refine="epoch", agreement=True, self_direction=True)
    assert most(target.steps).total() <= 1, most(target.steps)
    places = Counter()
    for (_, place), number in most(target.refreshes).items():
        places[place.partition(":")[0]] += number
    assert places["glode/denoising/one_pass.py"] + places["glode/denoising/reservoir.py"] <= 5 + 2 * 5 + 10, places
    assert places.total() <= 5 + 2 * 5 + 20, places


def test_the_device_computes_what_the_cpu_does(train):
    there, _ = train()
    here, _ = train(pretended=False)
    with PretendedDevice():
        found = {name: tensor.cpu() for name, tensor in there.denoiser.state_dict().items()}
    expected = here.denoiser.state_dict()
    assert found.keys() == expected.keys()
    assert len(found["datastore.vectors"]) and (found["pseudo_labels.refined_in"] == 1).all()
    for name in ("pseudo_labels.probabilities", "pseudo_labels.refined_in", "prototypes.vectors", "datastore.vectors"):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-3)


def test_neighbours_are_searched_where_the_vectors_lie(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    stored, queries = (F.normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in (500, 70))
    expected = ExactIndex(stored).search(queries, 20)
    monkeypatch.setattr(ExactIndex, "products", 500 * 32)  # three parts
    with PretendedDevice() as device:
        vectors, asked = stored.to(DEVICE), queries.to(DEVICE)
        device.waits.clear()
        found = ExactIndex(vectors).search(asked, 20)
        assert found.device == DEVICE and not device.waits
        assert found.cpu().sort().values.equal(expected.sort().values)


@pytest.mark.parametrize("words", [3, 60])
def test_overlaps_are_resolved_with_few_questions(words: int):
    """Scores that fall from word to word take a round for each second span: the device is asked after each eighth."""
    scores = torch.linspace(1, 0.5, words)[None, :, None] + torch.tensor([0.0, 1e-4])
    candidates = torch.ones_like(scores, dtype=torch.bool)
    expected = select_spans(scores, candidates)
    with PretendedDevice() as device:
        asked = scores.to(DEVICE), candidates.to(DEVICE)
        device.waits.clear()
        chosen = select_spans(*asked)
        assert device.waits.total() <= 1 + words // 16
        assert chosen.cpu().equal(expected)


def test_tensors_of_host_and_device_do_not_meet():
    """What the counter itself is good for."""
    with PretendedDevice() as device:
        x = torch.arange(4.0).to(DEVICE, non_blocking=True)
        assert not device.waits and x.sum().cpu() == 6 and device.waits.total() == 1
        for places in (x > 1, torch.tensor([2, 3])):  # a mask, and places that the device is told
            assert x[places].shape == (2,)
        x[x > 1] = 0  # fills, and needs no shape
        assert bool(x.any()) and x.tolist() == [0, 1, 0, 0] and x.numpy()[1] == 1
        assert device.waits.total() == 6
        with pytest.raises(AssertionError, match="tensors of the host and of the device"):
            x + torch.arange(4.0)
        with pytest.raises(AssertionError, match="with indices of the device"):
            torch.arange(4.0)[x.long()]
