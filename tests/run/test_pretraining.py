"""Protects the pretraining of a run: the stages start from the encoder and the head that come of it; it is trained once, goes on
where it was stopped, and ends in the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import ROOT
from support.command import Command
from support.world import tiny_encoder_config
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

import run_crossner
from glode.training.pretraining import LanguageModelTrainer
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("datasets_cache", "one_thread")
RUN = (
    "--target_lang de,es --max_source_samples 24 --max_target_samples 12 --per_device_train_batch_size 6 --use_cpu true "
    "--disable_tqdm true --bf16 false --report_to none --config small --pretrain_epochs 3 --learning_rate 3e-3 "
    "--freeze_embeddings false --num_train_epochs 1 --source_num_train_epochs 1 --save_strategy steps --save_steps 5 "
    "--eval_strategy steps --eval_steps 5 --dropout 0.1"
)


class Killed(Exception):
    """Stands for a run's end at any moment."""


def train(backbone: Path, output: Path, *more: str) -> dict:
    """Run with the demo's corpora; what metrics.json holds."""
    run_crossner.main([*RUN.split(), "--model_name_or_path", str(backbone), "--output_dir", str(output), *more])
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def kill_in(monkeypatch, trainer: type, step: int) -> None:
    """Let a run end in a step of a trainer, counted from 1."""
    steps = []

    def training_step(*args, **kwargs):
        steps.append(1)
        if len(steps) == step:
            raise Killed
        return before(*args, **kwargs)

    before = trainer.training_step
    monkeypatch.setattr(trainer, "training_step", training_step)


@pytest.fixture(scope="module")
def language_model(tokenizer, tmp_path_factory) -> Path:
    """A tiny XLM-R that comes with the head of its language model."""
    directory = tmp_path_factory.mktemp("language_model")
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(tiny_encoder_config("xlm-roberta", len(tokenizer))).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("has_head", [True, False])
def test_the_stages_start_from_it(has_head: bool, language_model, backbone, tmp_path, monkeypatch, capsys):
    starts = []

    def note_start(trainer, **kwargs):
        starts.append({name: weights.clone() for name, weights in trainer.model.state_dict().items()})
        return before(trainer, **kwargs)

    before = GlodeTrainer.train
    monkeypatch.setattr(GlodeTrainer, "train", note_start)
    more = ("--mlm_weight", "0.01", "--source_mlm", "on", "--mlm_head_warmup_steps", "7")
    metrics = train(language_model if has_head else backbone, tmp_path / "out", *more)
    pretrained = tmp_path / "out" / "pretrained"
    head = AutoModelForMaskedLM.from_pretrained(pretrained).lm_head
    assert len(starts) == 2
    for start in starts:
        for name, weights in AutoModel.from_pretrained(pretrained, add_pooling_layer=False).state_dict().items():
            assert torch.equal(start[f"encoder.{name}"], weights), name
        assert torch.equal(start["mlm_head.dense.weight"], head.dense.weight)
        assert torch.equal(start["mlm_head.bias"], head.decoder.bias)
    assert not torch.equal(starts[0]["encoder.encoder.layer.0.output.dense.weight"], encoder_weight(backbone))
    assert AutoTokenizer.from_pretrained(pretrained).mask_token == "<mask>"
    facts, out = metrics["pretraining"], " ".join(capsys.readouterr().out.split())
    assert facts["loss_after"] < facts["loss_before"] and metrics["epochs"]["pretraining"] == facts["epochs"] == 3
    assert metrics["cost"]["pretraining"]["seconds"] > 0
    assert out.count("a fresh head is fitted for 7 steps: loss") == out.count("a fresh one is learnt") == (0 if has_head else 1)
    assert "3 epochs of pretraining, then 1 + 1 epochs" in out and "pretraining: epoch 3 of 3, step" in out
    assert f"loss on held-out text {facts['loss_before']:.2f} before and {facts['loss_after']:.2f} after; the stages" in out
    assert "It first read both texts as a masked language model, 3 epochs" in (tmp_path / "out" / "README.md").read_text()
    assert not list(tmp_path.glob("out/*_checkpoints"))
    if has_head:
        again = train(language_model, tmp_path / "out", *more, "--resume_from_checkpoint", "auto")
        assert again["pretraining"] == facts and again["cost"] == metrics["cost"] and len(starts) == 2


def encoder_weight(directory: Path) -> torch.Tensor:
    return AutoModel.from_pretrained(directory).encoder.layer[0].output.dense.weight


def test_stopped_and_resumed_it_ends_the_same(backbone, tmp_path, monkeypatch, capsys):
    """Stopped in the middle of an epoch, and in the stage after it."""
    only_source = ("--stage", "source", "--mlm_head_warmup_steps", "3", "--max_steps", "4")
    whole = train(backbone, tmp_path / "whole", *only_source)
    for trainer, step in ((LanguageModelTrainer, 8), (GlodeTrainer, 2)):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            kill_in(patched, trainer, step)
            train(backbone, tmp_path / "stopped", *only_source, "--resume_from_checkpoint", "auto")
    metrics = train(backbone, tmp_path / "stopped", *only_source, "--resume_from_checkpoint", "auto")
    out = " ".join(capsys.readouterr().out.split())
    assert f"goes on from {tmp_path}/stopped/pretraining_checkpoints/checkpoint-5" in out
    assert out.count("stopped/pretrained is there already, and is not trained again") == 1
    assert metrics["pretraining"] == whole["pretraining"] and metrics["source_model"] == whole["source_model"]
    assert whole["pretraining"]["epochs"] == 3  # --max_steps is of the stages
    for part in ("pretrained", "source_model"):
        one, two = (load_file(tmp_path / name / part / "model.safetensors") for name in ("whole", "stopped"))
        assert one.keys() == two.keys() and all(torch.equal(weights, two[name]) for name, weights in one.items()), part


@pytest.mark.slow
def test_two_processes_end_as_one(backbone, tmp_path):
    """With the same global batch, but for the order of sums."""
    options = [*RUN.split(), "--model_name_or_path", str(backbone), "--stage", "source", "--dropout", "0"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29571"]
    command += ["run_crossner.py", *options, "--output_dir", str(tmp_path / "two"), "--per_device_train_batch_size", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    train(backbone, tmp_path / "one", *options)
    one, two = (load_file(tmp_path / name / "pretrained" / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(weights, two[name], atol=1e-5) for name, weights in one.items())


def test_a_used_directory_is_refused(command: Command):
    checkpoint = command.directory / "output" / "pretraining_checkpoints" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    assert "has pretraining_checkpoints of another run (there is no" in command.error()
    more = {"pretrain_epochs": 1, "stage": "target", "pseudo_labels": "labels.safetensors"}
    assert "has pretraining_checkpoints of another run" in command.error(**more)
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(overwrite="true"))
    assert not checkpoint.exists()


def test_what_it_depends_on_is_known(command: Command, monkeypatch):
    monkeypatch.setattr("glode.training.pretraining.LanguageModelTrainer.train", GlodeTrainer.train)
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(pretrain_epochs=1))
    fingerprint = json.loads((command.directory / "output" / "fingerprint.json").read_text())
    assert fingerprint["pretrain_epochs"] == 1 and "units" not in fingerprint  # a run from before this choice goes on
    (command.directory / "output" / "pretraining_checkpoints" / "checkpoint-3").mkdir()
    message = command.error(pretrain_epochs=2, resume_from_checkpoint="auto")
    assert "pretraining_checkpoints is of another run (pretrain_epochs 1.0, now 2.0)" in message
    assert "(pretrain_epochs 1.0, now null)" in command.error(resume_from_checkpoint="auto")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pretrain_epochs": -1.0}, "--pretrain_epochs -1.0 is out of range: expected a number from 0 on."),
        ({"pretrain_epochs": 1, "mlm_probability": 0}, "learns to fill in masked words, and --mlm_probability 0 masks none"),
        ({"pretrain_epochs": 1, "stage": "source", "teachers": "t"}, "--stage source with --teachers scores models, and trains"),
        (
            {"pretrain_epochs": 1, "lora_rank": 2, "save_adapter": "true"},
            "an adapter fits the encoder of --pretrain_epochs alone",
        ),
    ],
)
def test_what_cannot_be_pretrained(command: Command, options: dict, told: str):
    assert told in command.error(**options)


def test_an_encoder_without_a_language_model_is_refused(command: Command, tokenizer):
    directory = command.directory / "decoder"
    tiny_encoder_config("gpt2", len(tokenizer)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    message = command.error(pretrain_epochs=1, model_name_or_path=directory, source_train="nothing.iob2")
    assert "--pretrain_epochs: transformers has no masked language model of backbone" in message
    assert f"'{directory}' (gpt2). Leave it out, or use" in message


def test_a_backbone_in_the_directory_is_not_deleted_unread(command: Command):
    inside = command.directory / "output" / "pretrained"
    inside.mkdir(parents=True)
    message = command.error(model_name_or_path=inside, overwrite="true")
    assert f"--overwrite would delete --model_name_or_path {inside}. Give another --output_dir, or move it." in message
    for options in ({"stage": "target", "teachers": "t"}, {"model_name_or_path": inside.parent / "encoder"}):
        (inside.parent / "encoder").mkdir(exist_ok=True)
        assert "--overwrite would" not in command.error(**{"model_name_or_path": inside, "overwrite": "true"} | options)
