"""Protects the built-in token classifier: running text as it is written, a tag for each token, and (slow) a run with
`--export_token_classifier` whose model loads without our code, has its own repository and card, and equals its ONNX export."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from support import ROOT
from support.hub_server import HubServer
from support.world import FRAMES
from transformers import pipeline

from glode.errors import InputError
from glode.features.reach import gold_entities
from glode.publishing.token_classifier import running_text, tag_names, token_features
from publishing.test_publishing import TOKEN, commits, content, corpora, environment, train  # noqa: F401 (corpora is a fixture)

TAGS = tag_names(["O", "LOC", "PER"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["Anna", "(", "42", ")", "lives", "in", "Rome", ",", "Italy", "."], "Anna (42) lives in Rome, Italy."),
        (list("王丽在北京。"), "王丽在北京。"),
        (["他", "说", "：", "「", "你", "好", "」", "，", "然", "后", "去", "了"], "他说：「你好」，然后去了"),
        (["私", "は", "Anna", "です"], "私は Anna です"),
        (["서울", "에", "갔다", "."], "서울 에 갔다."),
        (["ذهب", "إلى", "باريس", "،", "أمس"], "ذهب إلى باريس، أمس"),
        (["„", "Ja", "“", ",", "sagte", "er", "„", "nein", "“", "nicht", "."], "„Ja“, sagte er „nein“ nicht."),
        (["“", "Yes", "”", ",", "he", "said", "“", "no", "”", "."], "“Yes”, he said “no”."),
        (["one"], "one"),
    ],
)
def test_running_text(words: list[str], text: str):
    joined, offsets = running_text(words)
    assert joined == text
    assert [joined[a:b] for a, b in offsets] == words


def sentence(words: list[str], *entities: tuple[int, int, str]) -> dict:
    begins, lengths, types = map(list, zip(*entities, strict=True)) if entities else ([], [], [])
    return {"words": words, "begins": begins, "lengths": lengths, "types": types}


def test_every_token_of_an_entity_is_tagged(tokenizer):
    corpus = Dataset.from_list(
        [sentence(["Anna", "Berg", "lives", "in", "New", "York", "."], (0, 2, "PER"), (4, 2, "LOC")), sentence(["no", "one"])]
    )
    features = token_features(corpus, gold_entities(corpus), tokenizer, TAGS, 64)
    tags = [TAGS[i] for i in features[0]["labels"] if i != -100]
    assert tags.count("B-PER") == 1 and tags.count("B-LOC") == 1 and tags[-1] == "O"
    assert tags[0] == "B-PER" and set(tags[: tags.index("O")]) == {"B-PER", "I-PER"}
    assert features[0]["labels"][0] == features[0]["labels"][-1] == -100
    assert set(features[1]["labels"]) == {-100, 0}


def test_long_sentences_become_windows_without_a_lost_or_doubled_beginning(tokenizer):
    words = ["Rome", "and"] * 60
    corpus = Dataset.from_list([sentence(words, *((i, 1, "LOC") for i in range(0, 120, 2)))])
    features = token_features(corpus, gold_entities(corpus), tokenizer, TAGS, 32)
    assert len(features) > 1 and all(len(ids) <= 32 for ids in features["input_ids"])
    begins = sum(row.count(TAGS.index("B-LOC")) for row in features["labels"])
    assert begins >= 60


PIPELINE = """
import json, sys
from transformers import pipeline
ner = pipeline("token-classification", model="user/glode-de-tokens", aggregation_strategy="simple")
print(json.dumps([type(ner.model).__name__, [{k: str(v) for k, v in e.items()} for e in ner(sys.argv[1])]]))
"""


@pytest.mark.slow
def test_the_exported_model_is_a_built_in_one(corpora, backbone, tmp_path: Path):  # noqa: F811
    with HubServer(str(tmp_path / "hub")) as hub:
        output = tmp_path / "run" / "model"
        more = {"export_token_classifier": "true", "token_classifier_epochs": "40", "num_train_epochs": "40", "warmup_steps": "5"}
        options = [part for name, value in (more | {"denoising": "none"}).items() for part in (f"--{name}", value)]
        done = train(corpora, backbone, output, hub.url, *options)
        assert done.returncode == 0, done.stderr[-3000:]
        assert TOKEN not in done.stdout + done.stderr
        metrics = json.loads((output / "metrics.json").read_text())
        assert metrics["token_classifier"]["test"]["strict"]["f1"] > 90
        assert "token classifier" in done.stdout
        head = commits(hub, "user/glode-de-tokens")[0]["tree"]
        assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= set(head)
        assert not any(name.endswith(".py") for name in head)
        card = content(hub, commits(hub, "user/glode-de-tokens")[0], "README.md")
        assert "custom_code" not in card and "trust_remote_code" not in card and "user/glode-de" in card
        assert "user/glode-de-tokens" in content(hub, commits(hub)[0], "README.md")
        assert not any(name.startswith("token_classifier") for name in commits(hub)[0]["tree"])
        text = running_text(FRAMES[0].format(p="Anna Berg", l="New York").split())[0]
        loaded = subprocess.run(
            [sys.executable, "-c", PIPELINE, text],
            cwd=tmp_path,
            env=environment(tmp_path, hub.url),
            capture_output=True,
            text=True,
        )
        assert loaded.returncode == 0, loaded.stderr[-3000:]
        name, entities = json.loads(loaded.stdout.splitlines()[-1])
        assert name == "XLMRobertaForTokenClassification"
        local = pipeline("token-classification", model=str(output / "token_classifier"), aggregation_strategy="simple")
        kept = ("entity_group", "word", "start", "end")
        assert entities and [[e[k] for k in kept] for e in entities] == [[str(e[k]) for k in kept] for e in local(text)]
    command = [sys.executable, "-m", "glode", "export", "--model", output / "token_classifier", "--output", tmp_path / "onnx"]
    exported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert exported.returncode == 0, exported.stderr[-3000:]
    assert "differ from PyTorch's by at most" in exported.stdout and (tmp_path / "onnx" / "model.onnx").is_file()


def test_a_model_that_cannot_be_exported_ends_in_one_line(tmp_path: Path, monkeypatch):
    export_onnx = pytest.importorskip("glode.serving.onnx")
    argv = ["--model", str(tmp_path), "--output", str(tmp_path / "onnx")]
    with pytest.raises(InputError, match=f"{tmp_path}: no token classifier") as error:
        export_onnx.main(argv)
    assert "Train one with --export_token_classifier" in str(error.value)
    monkeypatch.setattr("glode.serving.onnx_tokens.export", lambda *_: 0.5)
    with pytest.raises(InputError, match="the exported model differs by more"):
        export_onnx.main(argv)
