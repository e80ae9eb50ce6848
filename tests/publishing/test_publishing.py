"""Protects publishing: what is pushed to a (local) Hub loads with `AutoModel` and `pipeline` in a fresh process, also in the
middle of training; the card is ours, valid and true; no token is written anywhere; a Hub that is down or refuses is harmless."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub.utils import filter_repo_objects
from support import ROOT
from support.hub_server import HubServer
from support.world import FRAMES, PEOPLE, PLACES

from glode.publishing.card import verbatim
from glode.publishing.hub import PUBLISHED, UNPUBLISHED

TOKEN = "hf_SecretOfTheTests"

pytestmark = pytest.mark.slow


def environment(directory: Path, url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "PYTHONPATH", "HF_TOKEN")}
    hub = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(directory / "hf")}
    return kept | hub | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """A labelled corpus and a plain one."""
    directory = tmp_path_factory.mktemp("corpora")
    labelled, plain = [], []
    for i, (person, place) in enumerate((p, q) for p in PEOPLE for q in PLACES):
        frame = FRAMES[i % 5]
        tagged = [
            (word, ("B-" if n == 0 else "I-") + kind if kind else "O")
            for part in frame.split()
            for kind, name in [{"{p}": ("PER", person), "{l}": ("LOC", place)}.get(part, (None, part))]
            for n, word in enumerate(name.split())
        ]
        labelled.append("".join(f"{word}\t{tag}\n" for word, tag in tagged))
        plain.append(" ".join(word for word, _ in tagged))
    (directory / "en.iob2").write_text("\n".join(labelled))
    (directory / "de.iob2").write_text("\n".join(labelled[::-1]))
    (directory / "de.txt").write_text("\n".join(plain) + "\n")
    return directory


def train(corpora: Path, backbone: Path, output: Path, url: str, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "run_crossner.py", "--config", "paper", "--target_lang", "de"]
    command += ["--source_train", str(corpora / "en.iob2")]
    command += ["--source_dev", str(corpora / "en.iob2"), "--target_unlabeled", str(corpora / "de.txt"), "--use_cpu", "true"]
    command += ["--target_test", str(corpora / "de.iob2"), "--model_name_or_path", str(backbone), "--output_dir", str(output)]
    command += ["--num_train_epochs", "3", "--per_device_train_batch_size", "8", "--learning_rate", "3e-3", "--seed", "1"]
    command += ["--bf16", "false"]
    command += ["--disable_tqdm", "true", "--push_to_hub", "true", "--hub_model_id", "user/glode-de", "--hub_token", TOKEN, *more]
    return subprocess.run(command, cwd=ROOT, env=environment(output.parent, url), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pushed(corpora, backbone, tmp_path_factory):
    """A finished run that pushed every checkpoint; the Hub goes on running."""
    directory = tmp_path_factory.mktemp("push")
    with HubServer(str(directory / "hub")) as hub:
        done = train(corpora, backbone, directory / "model", hub.url, "--hub_strategy", "every_save", "--license", "mit")
        assert done.returncode == 0, done.stderr[-3000:]
        (directory / "output.txt").write_text(done.stdout + done.stderr)
        yield hub, directory


def commits(hub: HubServer, name: str = "user/glode-de") -> list[dict]:
    repository, found = hub.store.repos[f"model/{name}"], []
    at = repository["refs"]["main"]
    while at:
        found.append(repository["commits"][at] | {"id": at})
        at = found[-1]["parent"]
    return found


def content(hub: HubServer, commit: dict, name: str) -> str:
    return Path(hub.store.blob_path(commit["tree"][name]["sha256"])).read_text(encoding="utf-8")


LOAD = """
import json, sys
from transformers import AutoModel, AutoTokenizer, pipeline
options = {"trust_remote_code": True, "revision": sys.argv[1]}
ner = pipeline("token-classification", model="user/glode-de", **options)
model = AutoModel.from_pretrained("user/glode-de", **options)
tokenizer = AutoTokenizer.from_pretrained("user/glode-de", **options)
text = "Anna Berg lives in New York ."
print(json.dumps([ner(text), model.predict(text, tokenizer)]))
"""


def test_every_push_loads_in_a_fresh_process(pushed, tmp_path):
    hub, _ = pushed
    history = commits(hub)
    assert any("in progress" in commit["title"] for commit in history) and history[0]["title"] == "End of training"
    for commit in [c for c in history if c["title"] != "initial commit"][::2]:
        command = [sys.executable, "-c", LOAD, commit["id"]]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(tmp_path, hub.url), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (commit["title"], done.stderr[-3000:])
        by_pipeline, by_model = json.loads(done.stdout.splitlines()[-1])
        assert [e["word"] for e in by_pipeline] == [e["word"] for e in by_model]


def test_the_repository_holds_what_it_should(pushed):
    hub, _ = pushed
    tree = set(commits(hub)[0]["tree"])
    assert {"README.md", "config.json", "model.safetensors", "modeling_glode.py", "handler.py", "tokenizer.json"} <= tree
    assert {"pseudo_labels.png", "metrics.json"} <= tree
    assert not any("checkpoint" in name or "source_model" in name or name == "pseudo_labels.safetensors" for name in tree)


def test_no_other_model_is_published():
    parts = (
        "pretrained",
        "source_model",
        "source_model_2",
        "target_model",
        "token_classifier",
        "target_checkpoints/checkpoint-3",
    )
    files = [f"{part}/model.safetensors" for part in parts] + ["pseudo_labels.safetensors", "model.safetensors", "config.json"]
    found = filter_repo_objects(files, allow_patterns=list(PUBLISHED), ignore_patterns=list(UNPUBLISHED))
    assert list(found) == ["model.safetensors", "config.json"]


def test_the_card_is_ours_and_true(pushed):
    hub, directory = pushed
    metrics = json.loads((directory / "model" / "metrics.json").read_text())
    for commit in commits(hub):
        if "README.md" in commit["tree"]:
            card = content(hub, commit, "README.md")
            assert "GLoDe" in card and "generated automatically" not in card and "More information needed" not in card
    data = yaml.safe_load(card_of(hub).split("---")[1])
    assert data["language"] == ["de", "en"] and data["pipeline_tag"] == "token-classification" and data["license"] == "mit"
    assert data["library_name"] == "transformers" and len(data["widget"]) >= 2
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"]["name"] == "de.iob2 (de test)"
    assert "| de test | " in card_of(hub) and "| de test, source model | " in card_of(hub)
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["f1"] == pytest.approx(metrics["target_model"]["test"]["strict"]["f1"])
    assert "Training" in card_of(hub) and "{{" not in card_of(hub) and "{%" not in card_of(hub)


def card_of(hub: HubServer) -> str:
    return content(hub, commits(hub)[0], "README.md")


def test_the_snippets_of_the_card_run(pushed, tmp_path):
    hub, _ = pushed
    snippets = re.findall(r"```python\n(.*?)```", card_of(hub), re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:
        assert '"Petra Lindner arbeitet seit März bei Siemens in München."' in snippet
        command = [sys.executable, "-c", snippet]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(tmp_path, hub.url), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and done.stdout.strip(), done.stderr[-3000:]


def test_the_token_is_nowhere(pushed):
    _, directory = pushed
    for path in directory.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_a_hub_that_refuses_or_is_down_costs_nothing(corpora, backbone, tmp_path):
    with HubServer(str(tmp_path / "hub")) as hub:
        hub.refuse = True
        refused = train(corpora, backbone, tmp_path / "refused" / "model", hub.url)
    down = train(corpora, backbone, tmp_path / "down" / "model", hub.url)  # its port is closed by now
    for name, done in (("refused", refused), ("down", down)):
        assert done.returncode == 2, done.stderr[-3000:]
        assert "Traceback" not in done.stderr and TOKEN not in done.stderr + done.stdout
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: 'user/glode-de' could not be pushed") and "HF_TOKEN" in last
        assert " could not be pushed to the Hub: " in last
        assert "Training goes on without pushing; the end of the run tries again" in done.stderr
        output = tmp_path / name / "model"
        assert all((output / file).is_file() for file in ("model.safetensors", "metrics.json", "README.md", "handler.py"))


def test_markup_in_the_names_of_types_is_shown_and_not_run():
    assert verbatim("PER") == "PER" and verbatim("work_of_art") == r"work\_of\_art"
    assert verbatim("<b>|[x](y)\n`") == r"\<b\>\|\[x\](y) \`"
    assert verbatim("de[x](y)|.txt") == r"de\[x\](y)\|.txt"
