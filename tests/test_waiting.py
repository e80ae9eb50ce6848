"""Protects what a GPU would cost where none is at hand: how often a step and a refresh wait for the device, that tensors of the
host and of the device do not meet, and that the device finds what the CPU finds."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from support.pretended_device import DEVICE, PretendedDevice, trained_on
from test_trainer import LABELS, arguments, fresh_model
from torch.nn import functional as F
from transformers import TrainerCallback

from glode.denoising.exact_index import ExactIndex
from glode.features.strings import string_ids
from glode.features.windows import build_features
from modeling_glode import select_spans
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


class Waits(TrainerCallback):
    """The waits of each step and of each refresh, with what the loader does before."""

    def __init__(self, device: PretendedDevice):
        self.counter, self.steps, self.refreshes = device.waits, [], []

    def on_epoch_begin(self, *args, **kwargs) -> None:
        self.refreshes.append(Counter(self.counter))
        self.counter.clear()

    def on_step_end(self, *args, **kwargs) -> None:
        self.steps.append(Counter(self.counter))
        self.counter.clear()


def both_stages(backbone: Path, tokenizer, corpus: Dataset, directory: Path, device: PretendedDevice | None, **options):
    """A source and a target stage; the waits of both, and the trainer of the target stage."""
    streams = {"source": build_features(corpus, tokenizer, 64, 3, LABELS), "target": build_features(corpus, tokenizer, 64, 3)}
    kept = {"accelerator_config": {"non_blocking": True}, "optim": "adamw_torch", "logging_steps": 1000} | options
    args = arguments(directory, num_train_epochs=3, refine_start=0.6, **kept)
    waits = []

    def trained(**more) -> GlodeTrainer:
        trainer = GlodeTrainer(fresh_model(backbone), args, tokenizer, **streams, **more)
        if device is not None:
            waits.append(Waits(device))
            trainer.callback_handler.callbacks.append(waits[-1])  # after the refresh of the epoch
        trainer.train()
        return trainer

    if device is None:
        trainer = trained()
        return [], trained(pseudo_labels=trainer.assign_pseudo_labels(streams["target"]))
    with trained_on(args) as device:
        trainer = trained()
