"""Protects `glode export`: an exported span model computes and finds what it did before, whatever loads it, and a mistake ends in
one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.entities import places
from support.world import tiny_encoder_config
from transformers import AutoModel, AutoTokenizer

import modeling_glode
from glode.errors import InputError
from glode.serving import onnx as export_file
from glode.serving import onnx_spans
from glode.serving.handler import EndpointHandler
from glode.serving.tag import load_model
from glode.serving.tag import main as tag
from modeling_glode import GlodeConfig, GlodeModel, GlodeOnnxModel, GlodePipeline, load_glode

TEXTS = ["Anna Berg lives in New York .", "", "  在北京\u3000Oslo ", "Rome " * 60, "Otto von Hagen flew to Oslo, then to Kiel!"]
GOLD = "Anna B-PER\nBerg I-PER\nlives O\nin O\nRome B-LOC\n\nIda B-PER\nmet O\na O\nfriend O\n"


@pytest.fixture(scope="module")
def gold(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gold") / "gold.conll"
    path.write_text(GOLD, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def exported(directory, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("export") / "onnx"
    export_file.main(["--model", str(directory), "--output", str(output)])
    return output


@pytest.fixture(scope="module")
def int8(directory, exported, tmp_path_factory, gold) -> Path:
    """Into the place that is the default, from the graph that is there already: torch's exporter takes its time."""
    model = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(directory, model)
    (model / "README.md").write_text("---\nlanguage: de\ntags: [glode]\n---\n# My model\n\nIts own text.\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(onnx_spans.SpanExport, "_write_graph", lambda self: shutil.copy(exported / "model.onnx", self.path))
        export_file.main(["--model", str(model), "--format", "onnx", "--int8", "--gold", str(gold)])
    return model / "onnx-int8"


def test_it_finds_what_the_model_finds(directory, exported, ner):
    tokenizer = AutoTokenizer.from_pretrained(exported, trust_remote_code=True)
    model = load_glode(str(exported))
    assert isinstance(model, GlodeOnnxModel) and type(load_glode(str(directory))) is GlodeModel
    assert not (exported / "model.safetensors").exists() and not model.training
    for options in ({}, {"threshold": 0.5, "nested": True}):
        before, after = (
            [places(row) for row in ner.model.predict(TEXTS, tokenizer, **options)],
            [places(row) for row in model.predict(TEXTS, tokenizer, **options)],
        )
        assert any(before) and after == before
        pipeline = GlodePipeline(model=model, tokenizer=tokenizer)
        assert [places(row) for row in pipeline(TEXTS, **options)] == before
    words = [text.split() for text in TEXTS if text]
    assert model.predict(words, tokenizer, batch_size=1)[0][0].keys() == ner(TEXTS[0])[0].keys()
    assert places(EndpointHandler(str(exported))({"inputs": TEXTS[0]})) == places(ner(TEXTS[0]))


def test_it_cuts_scripts_without_spaces_as_the_model_does(directory, exported, ner, tmp_path, monkeypatch):
    model = shutil.copytree(directory, tmp_path / "model")
    values = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(values | {"units": "character"}), encoding="utf-8")
    monkeypatch.setattr(onnx_spans.SpanExport, "_write_graph", lambda self: shutil.copy(exported / "model.onnx", self.path))
    export_file.main(["--model", str(model), "--output", str(tmp_path / "onnx")])
    before, after = (places(load_glode(str(path)).predict(TEXTS[2], ner.tokenizer)) for path in (model, tmp_path / "onnx"))
    assert after == before != places(ner(TEXTS[2]))


@pytest.mark.parametrize("kind", ["deberta-v2"])
def test_another_encoder_with_its_weights_in_a_file_of_their_own(tokenizer, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(onnx_spans, "LARGEST_FILE", 0)
    torch.manual_seed(0)
    config = GlodeConfig(tiny_encoder_config(kind, len(tokenizer)), max_span_length=3, max_tokens=32)
    GlodeModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    export_file.main(["--model", str(tmp_path / "model"), "--output", str(tmp_path / "onnx"), "--int8"])
    assert (tmp_path / "onnx" / "model.onnx.data").stat().st_size > (tmp_path / "onnx" / "model.onnx").stat().st_size / 10
    load_glode(str(tmp_path / "onnx")).predict(TEXTS, tokenizer)


LOADING = """
import json, sys
from transformers import AutoModel, AutoTokenizer, pipeline

name, text = sys.argv[1:]
model = AutoModel.from_pretrained(name, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
ner = pipeline("token-classification", model=name, trust_remote_code=True)
print(json.dumps([type(model).__name__, model.predict(text, tokenizer), ner(text)]))
"""


def test_transformers_loads_it_without_the_package(exported, ner, tmp_path):
    command = [sys.executable, "-c", LOADING, exported, TEXTS[0]]
    environment = {"PATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    loaded = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    kind, found, piped = json.loads(loaded.stdout.splitlines()[-1])
    assert kind == "GlodeOnnxModel" and found == piped and places(found) == places(ner(TEXTS[0]))


def test_int8_of_the_encoder_alone(int8, exported):
    graph = onnx.load(int8 / "model.onnx").graph
    exact = onnx.load(exported / "model.onnx").graph
    matrices = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(matrices) == 2 * 6  # layers; query, key, value, output and the two of the feed-forward
    scales = [c.dims[0] for c in graph.initializer if c.name.endswith("_scale") and c.dims]
    assert max(scales) == 64  # one of each column
    head = [node for node in graph.node if any("classifier" in name for name in node.input)]
    assert head and len(head) == len([node for node in exact.node if any("classifier" in name for name in node.input)])
    assert {c.data_type for c in graph.initializer if "classifier" in c.name} == {onnx.TensorProto.FLOAT}
    models = [load_glode(str(path)) for path in (exported, int8)]
    tokenizer = AutoTokenizer.from_pretrained(int8, trust_remote_code=True)
    scores = [{e["start"]: e["score"] for e in model.predict(TEXTS[0], tokenizer)} for model in models]
    shared = scores[0].keys() & scores[1].keys()
    assert shared and np.mean([abs(scores[0][at] - scores[1][at]) for at in shared]) < 0.05


def test_the_card_has_what_was_measured(int8, exported, gold, capsys):
    card = (int8 / "README.md").read_text(encoding="utf-8")
    assert "- onnx" in card and "- glode" in card and "Its own text." in card and card.count("## ONNX Runtime, int8") == 1
    assert "2 sentences of gold.conll" in card and "| PyTorch | " in card and "| ONNX Runtime, int8 | " in card
    assert "Its weights have 32 bits." in (exported / "README.md").read_text(encoding="utf-8")


def test_nothing_of_this_machine_is_in_the_file(exported, int8):
    for path in (exported, int8):
        content = (path / "model.onnx").read_bytes()
        assert str(Path(modeling_glode.__file__).parent).encode() not in content


def test_glode_tag_takes_it_by_itself(exported, directory, tmp_path, capfd):
    source = tmp_path / "in.txt"
    source.write_text(TEXTS[0] + "\n", encoding="utf-8")
    for name, model in {"onnx": exported, "torch": directory}.items():
        tag(["--model", str(model), "--input", str(source), "--output", str(tmp_path / f"{name}.jsonl")])
    first, second = (json.loads((tmp_path / f"{name}.jsonl").read_text()) for name in ("onnx", "torch"))
    assert places(first["entities"]) == places(second["entities"]) != []
    for options in ({"device": "cuda:0"}, {"dtype": "bfloat16"}):
        with pytest.raises(InputError, match="is an export to ONNX, which runs on the CPU"):
            load_model(str(exported), **options)


def test_an_export_needs_onnxruntime(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="an exported model runs on ONNX Runtime: pip install onnxruntime"):
        load_model(str(exported))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch_size", "0"], "give at least 1 window."),
        (["--model", "user/model"], "is no directory here to write the export into"),
        (["--output", "."], "--output is the directory of the model itself"),
    ],
)
def test_mistakes_of_the_arguments(directory, monkeypatch, options, message):
    monkeypatch.chdir(directory)
    with pytest.raises(InputError, match=message):
        export_file.main(["--model", str(directory), *options])


def test_nothing_is_written_over_but_an_export(directory, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "onnx").mkdir()
    for output in (tmp_path, tmp_path / "README.md"):
        with pytest.raises(InputError, match="has files that are no export, and some would be written over"):
            export_file.main(["--model", str(directory), "--output", str(output)])
    assert (tmp_path / "README.md").read_text() == "mine"
    for name in ("new", "onnx"):
        export_file.check_directory(tmp_path / name)
    (tmp_path / "model.onnx").touch()
    export_file.check_directory(tmp_path)


def test_a_gold_file_is_read_before_anything_is_exported(directory, tmp_path):
    (tmp_path / "gold.conll").write_text("Anna B-NAME\nlives O\nin O\nRome B-TOWN\n")
    argv = ["--model", str(directory), "--output", str(tmp_path / "onnx"), "--gold", str(tmp_path / "gold.conll")]
    with pytest.raises(InputError, match="has the types NAME, TOWN") as error:
        export_file.main(argv)
    assert ", and none is one of the model's " in str(error.value)
    assert not (tmp_path / "onnx").exists()


def test_what_cannot_be_exported(exported, directory, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"is an export already. Give the model that it was made of"):
        export_file.main(["--model", str(exported), "--output", str(tmp_path)])
    (tmp_path / "empty").mkdir()
    for name in ("user/model", str(tmp_path / "empty")):
        with pytest.raises(InputError, match=f"--model {name} is no model that can be exported: "):
            export_file.main(["--model", name, "--int8", "--output", str(tmp_path / "out")])
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="--int8 and --gold are for span models"):
        export_file.main(["--model", str(tmp_path / "bert"), "--int8", "--output", str(tmp_path / "out")])

    def refuse(*_, **__):
        raise torch.onnx.errors.OnnxExporterError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(InputError, match="XLMRobertaModel does: no such operator") as error:
        onnx_spans.SpanExport(str(directory), tmp_path / "onnx").write()
    assert "torch's exporter does not know all that" in str(error.value)


def test_auto_model_knows_the_class(exported):
    model = AutoModel.from_pretrained(exported, trust_remote_code=True)
    assert type(model).__name__ == "GlodeOnnxModel" and str(model.device) == "cpu" and model.dtype == torch.float32
