"""Protects the choice of a precision: what is asked for wins, bf16 is taken where it is clearly faster, by the first process for
all, and a run keeps the one with which it began."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import ROOT
from support.command import Command
from support.world import tiny_encoder_config

import run_crossner
from glode.fast import precision
from glode.fast.precision import speedup_of_bf16
from glode.run.parsing import parse_arguments
from glode.run.precision import Choice
from glode.training.arguments import GlodeTrainingArguments
from modeling_glode import GlodeConfig, GlodeModel

pytestmark = pytest.mark.usefixtures("datasets_cache", "one_thread")


class Measured:
    """In the place of the measurement, which it counts."""

    def __init__(self, factor: float):
        self.factor, self.times = factor, 0

    def __call__(self, model: GlodeModel, rows: int, length: int, device: torch.device) -> float:
        assert isinstance(model, GlodeModel) and rows == 32 and 4 <= length < 16 and device.type == "cpu"
        self.times += 1
        return self.factor


@pytest.fixture
def begin(command: Command, monkeypatch):
    """Begins a run that measures what it is told, and stops at training: bf16 as its fingerprint has it, and the measurement."""

    def begun(factor: float, **changes) -> tuple[bool, Measured]:
        measured = Measured(factor)
        monkeypatch.setattr("glode.run.preparation.speedup_of_bf16", measured)
        with pytest.raises(AssertionError, match="as far as training"):
            run_crossner.main(command.arguments(**{"bf16": None, "use_cpu": "true"} | changes))
        return json.loads((command.directory / "output/fingerprint.json").read_text())["bf16"], measured

    return begun


@pytest.mark.parametrize(("factor", "bf16"), [(1.3, True), (1.294, False), (0.4, False)])
def test_bf16_is_taken_where_it_is_clearly_faster(begin, capsys, factor: float, bf16: bool):
    assert begin(factor)[0] is bf16
    said = " ".join(capsys.readouterr().out.split())
    name = "bf16" if bf16 else "fp32"
    told = f"precision {name}: a step in bf16 is {round(factor, 2):g} times as fast as in fp32 here (--bf16 true|false overrides)"
    assert said.count(told) == 1


@pytest.mark.parametrize(
    ("asked", "bf16"),
    [({"bf16": "true"}, True), ({"bf16": "false"}, False), ({"tf32": "false"}, False), ({"fp16": "true"}, False)],
)
def test_what_is_asked_for_wins(begin, capsys, asked: dict, bf16: bool):
    chosen, measured = begin(9.0, **asked)
    assert chosen is bf16 and not measured.times
    assert "precision" not in capsys.readouterr().out


@pytest.mark.parametrize(("variable", "value", "bf16"), [("MIXED_PRECISION", "bf16", True), ("USE_FSDP", "true", False)])
def test_what_accelerate_is_told_wins(begin, monkeypatch, variable: str, value: str, bf16: bool):
    """A model that is spread over devices is not measured on one of them."""
    monkeypatch.setenv(f"ACCELERATE_{variable}", value)
    monkeypatch.setattr("trainer_glode.GlodeTrainer.__init__", raise_as_training)
    chosen, measured = begin(9.0)
    assert chosen is bf16 and not measured.times


def test_an_attention_without_fp32_is_not_measured(begin, command: Command, monkeypatch, capsys):
    monkeypatch.setattr("trainer_glode.GlodeTrainer.__init__", raise_as_training)
    monkeypatch.setattr("glode.run.models.fresh_model", lambda *_: None)
    monkeypatch.setattr("glode.run.models.needs_warmup", lambda *_: False)
    chosen, measured = begin(9.0, attn_implementation="flash_attention_2")
    assert chosen is True and not measured.times
    assert "bf16, as flash_attention_2 has no fp32" in capsys.readouterr().out
    error = command.error(attn_implementation="flash_attention_2", bf16="false", overwrite="true")
    assert "computes in bf16 or fp16 alone. Leave --bf16 out" in error


@pytest.mark.parametrize(
    ("error", "bf16", "told"),
    [
        (torch.OutOfMemoryError, True, "bf16, as the measurement in fp32 takes more memory than the device has"),
        (RuntimeError, False, "fp32, as this encoder does not compute in bf16"),
    ],
)
def test_where_a_step_cannot_be_measured(begin, monkeypatch, capsys, error: type, bf16: bool, told: str):
    def fails(*_) -> float:
        raise error

    monkeypatch.setattr(Measured, "__call__", fails)
    assert begin(0.5)[0] is bf16
    assert told in capsys.readouterr().out


def test_what_an_encoder_without_bf16_raises():
    model = GlodeModel(GlodeConfig(tiny_encoder_config("deberta", 60, relative_attention=True, pos_att_type=["p2c", "c2p"])))
    with pytest.raises(RuntimeError, match="BFloat16"):
        speedup_of_bf16(model, 4, 16, torch.device("cpu"))


def raise_as_training(*_, **__):
    raise AssertionError("as far as training")


def test_a_run_keeps_its_precision(begin, command: Command, capsys):
    """On whichever machine it is resumed."""
    assert begin(2.0)[0] is True
    (command.directory / "output/source_checkpoints/checkpoint-3").mkdir()
    chosen, measured = begin(0.5, resume_from_checkpoint="auto")
    assert chosen is True and not measured.times
    assert "precision bf16, with which this run began" in " ".join(capsys.readouterr().out.split())
    assert "bf16 true, now false" in command.error(resume_from_checkpoint="auto", bf16="false")
    assert begin(0.5, overwrite="true")[0] is False
    assert begin(2.0, resume_from_checkpoint="auto")[0] is True  # of what was overwritten, and of nothing since, there is no part


@pytest.mark.parametrize("kind", ["xlm-roberta", "deberta-v2"])
def test_a_step_is_measured(kind: str, monkeypatch):
    """With packed rows and with padded ones, both precisions in turn."""
    model = GlodeModel(GlodeConfig(tiny_encoder_config(kind, 60), max_span_length=3))
    precisions, seconds = [], precision._seconds

    def spy(model, batch, mixed, device) -> float:
        precisions.append(mixed)
        assert ("token_places" in batch) == (kind == "xlm-roberta") and batch["first_token"].shape == (16, 30)
        assert seconds(model, batch, mixed, device) > 0
        return 1.0 if mixed else 2.0

    monkeypatch.setattr(precision, "_seconds", spy)
    monkeypatch.setattr(precision, "SECONDS", 0.0)
    assert speedup_of_bf16(model, 20, 32, torch.device("cpu")) == 2
    assert precisions == [False, True, False, True]


def test_what_a_trainer_takes_on_a_cpu(tmp_path: Path):
    """The Trainer wants --use_cpu with bf16 and with several processes; its AdamW is the fused one; workers would take cores."""
    given = GlodeTrainingArguments(str(tmp_path), bf16=True)
    assert given.use_cpu and given.mixed_precision == "bf16" and given.optim == "adamw_torch_fused"
    assert not given.dataloader_num_workers and not given.dataloader_pin_memory
    assert GlodeTrainingArguments(str(tmp_path)).mixed_precision == "no"
    line = ["--target_lang", "de"]
    assert parse_arguments([*line, "--bf16"])[2].bf16 is True and parse_arguments(line)[2].bf16 is False  # the demo's recipe


WORKER = """
import os, sys
from glode.run.arguments import ModelArguments, RunArguments
from glode.run.precision import choose_precision
from glode.training.arguments import GlodeTrainingArguments
rank = int(os.environ["RANK"])
training = GlodeTrainingArguments(sys.argv[1])
def measure():
    assert rank == 0, "the others wait"
    return 1.5
training, choice = choose_precision(training, RunArguments(), ModelArguments(), measure)
print(rank, training.bf16, choice, training.world_size, flush=True)
training.distributed_state.destroy_process_group()
"""


@pytest.mark.slow  # two processes
def test_the_first_process_decides_for_all(tmp_path: Path):
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29571"]
    done = subprocess.run([*command, tmp_path / "worker.py", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    told = "bf16: a step in bf16 is 1.5 times as fast as in fp32 here (--bf16 true|false overrides)"
    assert sorted(done.stdout.splitlines()) == [f"{rank} True {Choice(True, 1.5, told)} 2" for rank in (0, 1)], done.stderr[
        -3000:
    ]
