"""Protects the main job: one command trains both stages and leaves a model directory, metrics.json and pseudo labels that
say what really happened; stages can be run alone; several processes work; the default command works as documented."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support import ROOT
from transformers import AutoTokenizer

import run_crossner
from modeling_glode import GlodeModel

SMALL = (
    "--max_source_samples 60 --max_target_samples 40 --num_train_epochs 4 --per_device_train_batch_size 10 --max_span_length 4"
)
COMMON = f"--config glode/run/recipes/demo.yaml --target_lang de --disable_tqdm true --use_cpu true {SMALL}".split()


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "HF_HOME": str(directory / "hf"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def finished(backbone, tmp_path_factory) -> Path:
    """A whole run on a tiny encoder, in a process of its own."""
    output = tmp_path_factory.mktemp("run") / "model"
    command = [sys.executable, "run_crossner.py", *COMMON, "--model_name_or_path", str(backbone), "--output_dir", str(output)]
    command += ["--learning_rate", "3e-3", "--source_num_train_epochs", "12", "--report_to", "tensorboard"]
    done = subprocess.run(command, cwd=ROOT, env=environment(output.parent), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (output / "stdout.txt").write_text(done.stdout)
    (output / "stderr.txt").write_text(done.stderr)
    return output


def test_metrics_file(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    for model in ("source_model", "target_model"):
        for part in ("dev", "test"):
            for protocol in ("strict", "paper"):
                scores = metrics[model][part][protocol]
                assert {"precision", "recall", "f1", "per_type"} <= scores.keys()
                assert set(scores["per_type"]) <= {"PER", "LOC", "ORG"}
        gold = (ROOT / "glode/run/demo" / "de" / "test.iob2").read_text().count("\tB-")
        assert metrics[model]["test"]["strict"]["gold"] == gold
    assert metrics["source_model"]["dev"]["strict"]["f1"] > 0
    assert [entry["epoch"] for entry in metrics["pseudo_labels"]] == [0, 1, 2, 3, 4]
    assert "f1" not in metrics["pseudo_labels"][0]  # plain text has no gold
    assert sum(metrics["pseudo_labels"][0]["spans"].values()) == sum(metrics["pseudo_labels"][-1]["spans"].values()) > 0
    assert metrics["pseudo_labels"][0]["confidence"] != metrics["pseudo_labels"][-1]["confidence"]
    assert metrics["cost"].keys() == {"source_stage", "pseudo_labels", "target_stage"}
    assert all(cost["seconds"] >= 0 and cost["peak_memory_mb"] > 100 for cost in metrics["cost"].values())


def test_first_lines_and_table(finished: Path):
    text = (finished / "stdout.txt").read_text()
    assert "embedded demo" in text and "--source_train" in text and "--model_name_or_path" in text
    assert "out of reach" in text and "entity scores, en -> de" in text and "pseudo labels by epoch" in text


def test_the_terminal_is_quiet(finished: Path):
    """What libraries say by themselves, bars of a moment, and dictionaries of quoted numbers are not for a person."""
    text = (finished / "stdout.txt").read_text()
    lines = (finished / "stderr.txt").read_text().splitlines()  # a run as short as this one may learn nothing, which is said
    assert all(line.startswith("the target model finds no entity") for line in lines)
    for alarm in ("LOAD REPORT", "MISSING", "new PAD/BOS/EOS", "Writing model shards", "{'", "it/s"):
        assert alarm not in text, alarm
    lines = [line for line in text.splitlines() if line.startswith(("source model: epoch", "target model: epoch"))]
    assert len(lines) == 16 and all("dev F1" in line for line in lines)
    assert text.rstrip().splitlines()[-1].split() == ["results", str(finished / "metrics.json")]


def test_nothing_is_left_that_neither_use_nor_resuming_needs(finished: Path):
    assert not list(finished.rglob("checkpoint-*")) and not list(finished.rglob("optimizer.pt"))
    assert not [path for path in finished.iterdir() if path.name.startswith(".")]


def test_a_finished_model_is_scored(finished: Path, backbone, tmp_path: Path, capsys):
    output = tmp_path / "scored"
    options = f"--model_name_or_path {backbone} --output_dir {output} --stage source --report_to none".split()
    assert run_crossner.run([*COMMON, *options, "--source_model", str(finished)]) == 0
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (finished, output))
    assert second["source_model"] == first["target_model"] and "target_model" not in second
    assert [path.name for path in output.iterdir()] == ["metrics.json"]
    before = (finished / "metrics.json").read_bytes()
    options = f"--model_name_or_path {backbone} --output_dir {finished} --stage source --report_to none".split()
    assert run_crossner.run([*COMMON, *options, "--source_model", str(finished / "source_model")]) == 0
    assert (finished / "metrics.json").read_bytes() == before and (finished / "scores.json").is_file()
    assert "entity scores, en -> de" in capsys.readouterr().out


def test_a_finished_run_is_resumed_without_training(finished: Path, backbone, capsys, monkeypatch):
    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", lambda *_, **__: pytest.fail("trained again"))
    before = json.loads((finished / "metrics.json").read_text())
    options = ["--model_name_or_path", str(backbone), "--output_dir", str(finished), "--learning_rate", "3e-3", "--report_to"]
    options += ["tensorboard", "--source_num_train_epochs", "12", "--resume_from_checkpoint", "auto"]
    assert run_crossner.run([*COMMON, *options]) == 0
    after = json.loads((finished / "metrics.json").read_text())
    same = ("source_model", "target_model", "pseudo_labels", "epochs", "cost", "unreachable")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert "nothing is left to train" in capsys.readouterr().out


def test_model_directory_predicts_in_a_fresh_process(finished: Path, tmp_path: Path):
    sentence = "Gestern traf Marta Lind in Hamburg ein."
    here = GlodeModel.from_pretrained(finished).predict(sentence, AutoTokenizer.from_pretrained(finished))
    code = (
        "import sys, json; from transformers import AutoModel, AutoTokenizer; d = sys.argv[1]\n"
        "m = AutoModel.from_pretrained(d, trust_remote_code=True); t = AutoTokenizer.from_pretrained(d, trust_remote_code=True)\n"
        "print('RESULT' + json.dumps(m.predict(sys.argv[2], t)))"
    )
    env = {k: v for k, v in environment(tmp_path).items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished), sentence], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    there = json.loads(done.stdout.split("RESULT")[1])
    assert there == pytest.approx(here) if not here else [e["word"] for e in there] == [e["word"] for e in here]
    assert all(sentence[e["start"] : e["end"]] == e["word"] for e in there)


def test_pseudo_labels_file_and_tensorboard(finished: Path):
    state = load_file(finished / "pseudo_labels.safetensors")
    assert state["probabilities"].shape[0] == state["offsets"][-1]
    assert state["probabilities"].sum(-1).allclose(state["probabilities"].new_ones(()))
    assert list(finished.rglob("events.out.tfevents*"))


def test_target_stage_alone_repeats_the_run(finished: Path, backbone, tmp_path: Path, capsys):
    """The same source model and pseudo labels give the same target model."""
    output = tmp_path / "again"
    options = (
        f"--output_dir {output} --model_name_or_path {backbone} --learning_rate 3e-3 --report_to none --stage target".split()
    )
    options += ["--source_model", str(finished / "source_model"), "--pseudo_labels", str(finished / "pseudo_labels.safetensors")]
    run_crossner.main([*COMMON, *options])
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (finished, output))
    assert first["target_model"] == second["target_model"]
    assert first["pseudo_labels"] == second["pseudo_labels"]


@pytest.mark.slow
def test_two_processes_run_the_whole_command(backbone, tmp_path: Path):
    """That they agree to the last digits is the business of test_processes.py."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29517",
        "run_crossner.py",
    ]
    command += [*COMMON, "--model_name_or_path", str(backbone), "--output_dir", str(tmp_path), "--learning_rate", "3e-3"]
    command += ["--source_num_train_epochs", "12", "--per_device_train_batch_size", "5"]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["source_model"]["dev"]["strict"]["f1"] > 0 and len(metrics["pseudo_labels"]) == 5
    assert done.stdout.count("entity scores, en -> de") == 1


@pytest.mark.slow
def test_the_default_command(tmp_path: Path):
    """`accelerate launch run_crossner.py --target_lang zh`, on the embedded encoder, shortened."""
    output = tmp_path / "model"
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "run_crossner.py", "--target_lang", "zh"]
    command += [
        "--output_dir",
        str(output),
        "--max_source_samples",
        "160",
        "--max_target_samples",
        "48",
        "--disable_tqdm",
        "true",
    ]
    command += ["--num_train_epochs", "1", "--source_num_train_epochs", "4", "--model_cache", str(tmp_path / "cache")]
    env = {**environment(tmp_path), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["max_span_length"] >= 8  # pieces of running text
    assert metrics["source_model"]["dev"]["strict"]["f1"] > 20
    model, tokenizer = GlodeModel.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    text = "昨天王晓明在上海见到了老朋友。"
    assert all(text[e["start"] : e["end"]] == e["word"] for e in model.predict(text, tokenizer))
