"""Protects runs over several processes as they are launched: the recipes are what Accelerate reads, a model sharded by FSDP 2 is
the whole model, two machines find each other, and a process that dies ends the run with an error and not with a hang."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from support import ROOT

RECIPES = sorted((ROOT / "glode/run/recipes" / "accelerate").glob("*.yaml"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_what_accelerate_reads(recipe: Path):
    wanted, config = yaml.safe_load(recipe.read_text()), load_config_from_file(str(recipe)).to_dict()
    assert {name: config[name] for name in wanted} == wanted
    page = (ROOT / "glode/run/recipes/accelerate/README.md").read_text()
    assert f"`{recipe.name}`" in page or f"/{recipe.name} " in page
    assert recipe.name in recipe.read_text()


@pytest.mark.slow
def test_a_sharded_model_is_the_whole_model():
    command = [
        *TORCHRUN,
        "--nproc_per_node",
        "2",
        "--master_port",
        "29541",
        str(ROOT / "tests/support/sharded_worker.py"),
    ]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_machines_train_together(backbone, tmp_path):
    """Two launches on one machine."""
    command = [*TORCHRUN, "--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", "29551"]
    work = [
        str(ROOT / "tests" / "support" / "process_worker.py"),
        str(backbone),
        str(tmp_path),
        "3",
        "13",
        "11",
        "memory",
        "1",
        "step",
    ]
    machines = [
        subprocess.Popen([*command, "--node_rank", str(rank), *work], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    errors = [machine.communicate(timeout=240)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors[0][-3000:]
    assert (tmp_path / "rank0.safetensors").read_bytes() == (tmp_path / "rank1.safetensors").read_bytes()


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(backbone, tmp_path):
    command = [*TORCHRUN, "--nproc_per_node", "2", "--master_port", "29561", "run_crossner.py", "--target_lang", "de"]
    command += ["--use_cpu", "true", "--model_name_or_path", str(backbone), "--output_dir", str(tmp_path / "model")]
    command += [
        "--max_span_length",
        "3",
        "--num_train_epochs",
        "200",
        "--disable_tqdm",
        "true",
        "--logging_steps",
        "5",
        "--log_level",
        "info",
    ]
    log = tmp_path / "log.txt"
    with open(log, "w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT)
    while process.poll() is None and "source_loss" not in log.read_text():
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    assert process.wait(timeout=120) != 0, log.read_text()[-3000:]
    assert "SIGKILL" in log.read_text() or "exitcode  : -9" in log.read_text()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
