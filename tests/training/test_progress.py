"""Protects what a stage shows while it trains: one bar, or a line an evaluation; loss and development F1; no dictionaries."""

import io
import sys

import pytest
from datasets import Dataset
from torch import nn, tensor
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments

from glode.training import progress
from glode.training.progress import StageProgress, watch


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(tensor([1.0]))

    def forward(self, x, labels=None):
        return {"loss": (self.weight * x).mean(), "logits": x}


def trainer(directory, **options) -> Trainer:
    data = Dataset.from_dict({"x": [[1.0], [2.0]] * 4, "labels": [0] * 8})
    arguments = TrainingArguments(
        str(directory), num_train_epochs=2, eval_strategy="epoch", logging_steps=1, report_to="none", use_cpu=True, **options
    )
    return Trainer(Tiny(), arguments, train_dataset=data, eval_dataset=data, compute_metrics=lambda prediction: {"f1": 12.345})


def test_lines_where_there_is_no_terminal(tmp_path, capsys):
    watched = trainer(tmp_path)
    watch(watched, "source model")
    watched.train()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(", loss", 1)[0] for line in lines] == [
        "source model: epoch 1 of 2, step 1 of 2",
        "source model: epoch 2 of 2, step 2 of 2",
    ]
    assert lines[0].endswith("loss 1.5, dev F1 12.3")


def test_without_scores_the_loss_on_held_out_text(tmp_path, capsys):
    watched = trainer(tmp_path)
    watched.compute_metrics = None
    watch(watched, "pretraining")
    watched.train()
    assert capsys.readouterr().out.splitlines()[0] == "pretraining: epoch 1 of 2, step 1 of 2, loss 1.5, held-out loss 1.5"


def test_every_value_with_a_log_level(tmp_path, capsys):
    watched = trainer(tmp_path, log_level="info")
    watch(watched, "source model")
    watched.train()
    text = capsys.readouterr().out
    assert "source model, step 1: loss 1.5, grad_norm 1.5, learning_rate 5e-05" in text and "eval_f1 12.3" in text
    assert "{" not in text and "'" not in text


def test_one_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    terminal.isatty = lambda: True
    watched = trainer(tmp_path)
    watch(watched, "source model")
    watched.train()
    shown = [part for part in terminal.getvalue().replace("\n", "\r").split("\r") if part.strip()]
    assert all(part.startswith("source model: ") for part in shown)
    assert "2/2" in shown[-1] and "dev F1 12.3" in shown[-1] and "loss " in shown[-1]
    assert capsys.readouterr().out == ""


def test_the_trainers_own_bars_and_dictionaries_are_gone(tmp_path):
    for options in ({"disable_tqdm": True}, {"disable_tqdm": False}):
        watched = trainer(tmp_path, **options)
        watch(watched, "source model")
        kinds = [type(callback) for callback in watched.callback_handler.callbacks]
        assert PrinterCallback not in kinds and ProgressCallback not in kinds and kinds.count(StageProgress) == 1


@pytest.mark.parametrize("method", ["on_log", "on_evaluate"])
def test_other_processes_are_silent(method: str, capsys, tmp_path):
    state = TrainerState(is_world_process_zero=False)
    shown = StageProgress("source model", bar=False, verbose=True)
    getattr(shown, method)(trainer(tmp_path).args, state, TrainerControl(), logs={"loss": 1.0}, metrics={"eval_f1": 1.0})
    assert capsys.readouterr().out == ""


def test_numbers_are_short():
    assert progress._number(0.123456) == "0.1235" and progress._number(12) == "12"
