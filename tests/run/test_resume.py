"""Protects a run that is stopped: killed at any moment and resumed, it ends as the run that was never stopped, bit by bit; a
damaged checkpoint is named and passed over; a finished stage is not trained again.

`GLODE_KILLS=20 python -m pytest -n 0 -s tests/test_resume.py -k killed` kills as often as it says and prints a table."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import ROOT

from glode.training.checkpoints import damage, newest_checkpoint

KILLS = int(os.environ.get("GLODE_KILLS", "3"))
MOMENTS = {  # where a kill strikes: the function, and at most which call of it
    "in the refresh": ("glode.denoising.denoiser.Denoiser.begin_epoch", 3),
    "in a save": ("trainer_glode.GlodeTrainer._save_optimizer_and_scheduler", 4),
    "at any time": (None, 0),
    "in a step": ("trainer_glode.GlodeTrainer.compute_loss", 20),
    "between the stages": ("trainer_glode.GlodeTrainer.assign_pseudo_labels", 1),
}


def whole_checkpoint(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "trainer_state.json").write_text("{}")
    save_file({"x": torch.arange(1000.0)}, directory / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"x": torch.arange(1000.0)}, directory / name)
    return directory


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("trainer_state.json", Path.unlink, "trainer_state.json is missing"),
        ("model.safetensors", Path.unlink, "weights are missing"),
        ("model.safetensors", cut, "model.safetensors"),
        ("optimizer.pt", Path.unlink, "the optimizer's state is missing; --save_only_model leaves it out"),
        ("scheduler.pt", Path.unlink, "the schedule's state is missing"),
        ("rng_state.pth", Path.unlink, "the random state is missing"),
        ("optimizer.pt", cut, "optimizer.pt"),
        ("optimizer.pt", flip, "optimizer.pt"),
        ("trainer_state.json", cut, "trainer_state.json"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, caplog, name, spoil, message):
    older, newer = whole_checkpoint(tmp_path / "checkpoint-9"), whole_checkpoint(tmp_path / "checkpoint-10")
    assert newest_checkpoint(tmp_path) == newer and damage(newer) is None
    spoil(newer / name)
    assert message in damage(newer)
    assert newest_checkpoint(tmp_path) == older
    assert f"{newer} is damaged (" in caplog.text and "); the one before it is taken." in caplog.text
    assert newest_checkpoint(tmp_path, required=["denoising_state.safetensors"]) is None
    assert newest_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("gone", "there"),
    [
        (["optimizer.pt"], ["optimizer.bin"]),
        (["optimizer.pt"], ["optimizer_0"]),
        (["optimizer.pt", "scheduler.pt"], ["global_step9"]),
        (["rng_state.pth"], ["rng_state_0.pth", "rng_state_1.pth"]),
    ],
)
def test_sharded_checkpoints_are_whole(tmp_path, gone, there):
    checkpoint = whole_checkpoint(tmp_path / "checkpoint-9")
    for name in there:
        if Path(name).suffix:
            (checkpoint / name).write_bytes((checkpoint / gone[0]).read_bytes())
        else:
            (checkpoint / name).mkdir()
    for name in gone:
        (checkpoint / name).unlink()
    assert damage(checkpoint) is None


def start(backbone: Path, output: Path, *more: str, program: tuple[str, ...] = ("run_crossner.py",)) -> subprocess.Popen:
    command = [
        sys.executable,
        "-u",
        *program,
        "--config",
        "glode/run/recipes/demo.yaml",
        "--target_lang",
        "de",
        "--use_cpu",
        "true",
    ]
    command += ["--model_name_or_path", str(backbone), "--output_dir", str(output), "--max_source_samples", "40"]
    command += ["--max_target_samples", "40", "--per_device_train_batch_size", "8", "--max_span_length", "3", "--dropout", "0.2"]
    command += ["--num_train_epochs", "4", "--source_num_train_epochs", "2", "--learning_rate", "3e-3", "--disable_tqdm", "true"]
    command += ["--auxiliary_task", "mlm", "--denoising", "both", "--refine", "step", "--self_direction", "false"]
    command += [
        "--save_strategy",
        "steps",
        "--save_steps",
        "3",
        "--keep_checkpoints",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "3",
        *more,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def result(output: Path) -> dict:
    """What must not depend on having been stopped."""
    metrics = json.loads((output / "metrics.json").read_text())
    kept = {name: metrics[name] for name in ("source_model", "target_model", "pseudo_labels", "unreachable")}
    last = max(output.glob("target_checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[-1]))
    files = [output / "source_model/model.safetensors", output / "model.safetensors", output / "pseudo_labels.safetensors"]
    tensors = {path.name + path.parent.name * (path.parent != output): load_file(path) for path in files}
    return {"metrics": kept, "tensors": tensors | {"denoising": load_file(last / "denoising_state.safetensors")}}


def assert_same(first: dict, second: dict) -> None:
    assert first["metrics"] == second["metrics"]
    assert first["tensors"].keys() == second["tensors"].keys()
    for file, tensors in first["tensors"].items():
        assert all(torch.equal(value, second["tensors"][file][name]) for name, value in tensors.items()), file


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_the_same(backbone, tmp_path):
    """With pseudo labels in a file, of which nothing is left."""
    mapped = ("--pseudo_labels_in_memory", "0")
    process = start(backbone, tmp_path / "whole", *mapped)
    text = process.communicate()[0]
    assert process.returncode == 0, text[-3000:]
    whole, rng, table, ended = result(tmp_path / "whole"), random.Random(0), [], 0
    while len(table) < KILLS or table[-1][0] == ended:
        output = tmp_path / f"run{ended}"
        moment, program = "none", ("run_crossner.py",)
        if len(table) < KILLS:
            moment = list(MOMENTS)[len(table) % len(MOMENTS)]
            place, most = MOMENTS[moment]
            if place:
                program = ("tests/support/killed_run.py", place, str(rng.randint(1, most)))
        process = start(backbone, output, *mapped, "--resume_from_checkpoint", "auto", program=program)
        lines = []
        for line in process.stdout:  # the moment that the stages begin
            lines.append(line)
            if line.startswith("spans"):
                break
        if moment == "at any time":
            wait = rng.uniform(0.2, 4.0)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        if process.returncode == -signal.SIGKILL:
            came = [Path(line.split()[-1]) for line in lines if line.startswith("goes on from")]
            left = sorted(output.glob("*_checkpoints/checkpoint-*"), key=lambda path: (path.parent, path.stat().st_mtime))
            names = ["/".join(paths[-1].parts[-2:]) if paths else "nothing" for paths in (came, left)]
            struck = f"{moment}, after {wait:.2f} s" if moment == "at any time" else f"{moment}, call {program[2]}"
            table.append((ended, struck, *names))
        else:
            assert process.returncode == 0, "".join(lines)[-3000:]
        if (output / "metrics.json").exists():  # else it goes on
            assert_same(whole, result(output))
            ended += 1
    print("\n| kill | run | struck | had gone on from | left behind | the run's end |\n|---|---|---|---|---|---|")
    for number, (run, *row) in enumerate(table, 1):
        print(f"| {number} | {run} | {' | '.join(row)} | identical |")
    assert len(table) == KILLS and not list(tmp_path.rglob("_pseudo_labels*"))


@pytest.mark.slow
def test_a_finished_run_that_is_resumed_trains_nothing(backbone, tmp_path):
    outputs = []
    for more in ([], ["--resume_from_checkpoint", "auto"]):
        process = start(backbone, tmp_path / "model", *more)
        outputs.append(process.communicate()[0])
        assert process.returncode == 0, outputs[-1][-3000:]
    assert "stage 1:" in outputs[0] and "stage 2:" in outputs[0]
    assert "stage 1:" not in outputs[1] and "stage 2:" not in outputs[1] and "nothing is left to train" in outputs[1]


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(backbone, tmp_path):
    process = start(
        backbone, tmp_path / "model", "--save_strategy", "epoch", "--eval_strategy", "epoch", "--num_train_epochs", "400"
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "stage 2" in line:
            break
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    lines += process.stdout.readlines()
    assert process.wait() == 130, "".join(lines)[-3000:]
    assert "Traceback" not in "".join(lines)
    assert "stopped. The same command with --resume_from_checkpoint auto goes on" in lines[-1]
    assert newest_checkpoint(tmp_path / "model" / "target_checkpoints", ["denoising_state.safetensors"])


@pytest.mark.slow
def test_a_full_disk_ends_in_one_message(backbone, tmp_path):
    """A limit on the size of files stands for it: the model does not fit."""
    limit = "import resource, signal, sys, runpy; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); sys.argv = sys.argv[1:]\n"
    limit += "sys.path.insert(0, '.'); runpy.run_path(sys.argv[0], run_name='__main__')"
    process = start(backbone, tmp_path / "model")
    arguments = process.args
    process.kill()
    process.communicate()
    command = [sys.executable, "-c", limit, *arguments[2:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert (line := done.stderr.strip().splitlines()[-1]).startswith("error: ")
    assert "Mend it and go on with --resume_from_checkpoint auto" in line
