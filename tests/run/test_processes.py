"""Protects training in several processes: with the same global batch, one, two and three end in the same pseudo labels,
prototypes, thresholds and scores; every rank has the same state; uneven and tiny corpora, and a type without entities, neither
hang nor crash; a checkpoint of two processes is taken up by one and three.

`python -m pytest -n 0 -s tests/test_processes.py -k agree` prints by how much they differ."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import ROOT

pytestmark = pytest.mark.slow


def train(
    backbone: Path,
    output: Path,
    processes: int,
    batch: int,
    source: int,
    target: int,
    *checkpoint: Path,
    labels: str = "memory",
    head_scale: float = 1.0,
    refine: str = "step",
) -> dict:
    """The denoising state at the end, as each rank has it; the same on all ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", "29531"]
    command += [str(ROOT / "tests" / "support" / "process_worker.py"), str(backbone), str(output), str(batch // processes)]
    command += [str(source), str(target), labels, str(head_scale), refine, *map(str, checkpoint)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    states = [load_file(output / f"rank{rank}.safetensors") for rank in range(processes)]
    for state in states[1:]:
        assert all(torch.equal(state[name], tensor) for name, tensor in states[0].items())
    return states[0]


def difference(first: dict, second: dict, name: str) -> float:
    """The largest difference of a tensor's finite numbers."""
    return float((first[name] - second[name])[first[name].isfinite()].abs().max())


def assert_near(first: dict, second: dict) -> None:
    for name in ("pseudo_labels.probabilities", "prototypes.vectors", "datastore.vectors", "centers.sums"):
        assert torch.allclose(first[name], second[name], rtol=1e-5, atol=1e-5), name
    for side in ("global", "local"):
        one, other = (state[f"thresholds.{side}.values"] for state in (first, second))
        assert torch.equal(one.isinf(), other.isinf()) and (one - other)[one.isfinite()].abs().max() < 1e-5
    for name in ("datastore.types", "pseudo_labels.refined_in", "epoch"):
        assert torch.equal(first[name], second[name]), name


def test_one_two_and_three_processes_agree(backbone, tmp_path):
    states, scores = {}, {}
    for processes in (1, 2, 3):
        states[processes] = train(backbone, tmp_path / str(processes), processes, 12, 50, 40, head_scale=50.0)
        scores[processes] = json.loads((tmp_path / str(processes) / "scores.json").read_text())
    assert scores[1]["changed"] > 0.01 and states[1]["pseudo_labels.refined_in"].min() == 3
    assert scores[1]["eval_f1"] > 10.0
    for processes in (2, 3):
        assert_near(states[1], states[processes])
        for name in ("eval_precision", "eval_recall", "eval_f1"):
            assert scores[1][name] == pytest.approx(scores[processes][name], abs=0.1)
        logged = [torch.tensor(scores[number]["losses"]) for number in (1, processes)]  # those of all processes
        assert len(logged[0]) > 3
        torch.testing.assert_close(*logged, rtol=1e-4, atol=1e-6)
    checkpoint = sorted((tmp_path / "2").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[0]
    names = ("pseudo_labels.probabilities", "prototypes.vectors", "thresholds.local.values", "datastore.vectors")
    print(f"\n| processes | {' | '.join(names)} | F1 |\n|---|---|---|---|---|---|")
    for processes, state in states.items():
        row = " | ".join(f"{difference(states[1], state, name):.1e}" for name in names)
        print(f"| {processes} | {row} | {scores[processes]['eval_f1']:.2f} |")
    for processes in (1, 3):
        resumed = train(backbone, tmp_path / f"resumed{processes}", processes, 12, 50, 40, checkpoint, head_scale=50.0)
        assert_near(states[2], resumed)


def test_one_and_two_processes_agree_where_labels_are_refined_at_once(backbone, tmp_path):
    options = {"head_scale": 50.0, "refine": "epoch"}
    states = [train(backbone, tmp_path / str(processes), processes, 12, 50, 40, **options) for processes in (1, 2)]
    name = "pseudo_labels.probabilities"
    assert torch.allclose(states[0][name], states[1][name], rtol=1e-4, atol=1e-4)
    assert set(states[0]["pseudo_labels.refined_in"].tolist()) == {3}
    assert json.loads((tmp_path / "1" / "scores.json").read_text())["changed"] > 0.01


def test_processes_share_the_file_of_pseudo_labels(backbone, tmp_path):
    """Two processes over one file: as in memory, to half precision."""
    mapped, in_memory = (train(backbone, tmp_path / where, 2, 6, 12, 11, labels=where) for where in ("mapped", "memory"))
    labels = [state["pseudo_labels.probabilities"] for state in (mapped, in_memory)]
    assert [tensor.dtype for tensor in labels] == [torch.float16, torch.float32]
    assert (labels[0].float() - labels[1]).abs().max() < 2**-12 / 0.05
    assert torch.equal(mapped["pseudo_labels.refined_in"], in_memory["pseudo_labels.refined_in"])


def test_fewer_sentences_than_processes(backbone, tmp_path):
    state = train(backbone, tmp_path / "few", 3, 3, 2, 2)
    assert set(state["pseudo_labels.refined_in"].tolist()) == {3}
