"""Protects the demo page: what is highlighted is the text itself, nested entities stay in the table, right-to-left languages read
right, the report shows what metrics.json says, and a wrong model ends in one message."""

import ast
import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from support.world import tiny_encoder_config

from glode.publishing.hub import copy_code
from glode.serving import app, handler
from modeling_glode import GlodeConfig, GlodeModel

TEXT = "Anna Berg lives in New York , Otto von Hagen flew to Oslo ."


@pytest.fixture(scope="module")
def directory(tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("app") / "model"
    torch.manual_seed(1)
    model = GlodeModel(GlodeConfig(tiny_encoder_config("xlm-roberta", len(tokenizer)), max_span_length=3, max_tokens=32))
    with torch.no_grad():
        model.classifier.linear.weight.mul_(20)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    copy_code(path)
    per_type = {"PER": {"precision": 50.0, "recall": 25.0, "f1": 33.333, "gold": 4}}
    epochs = [{"epoch": n, "confidence": 0.9, "spans": {"O": 90, "PER": 10 + n}} for n in range(3)]
    metrics = {"target_model": {"test": {"strict": {"per_type": per_type}}}, "pseudo_labels": epochs}
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "README.md").write_text("---\nlanguage: [ar, en]\nwidget:\n- text: تعمل ليلى في القاهرة.\n---\n# A model\n")
    return path


@pytest.fixture(scope="module")
def ner(directory):
    return app.load(str(directory))[0]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("text", [TEXT, "", "  \n", "no"])
def test_the_pieces_are_the_text(ner, text: str, nested: bool):
    pieces, rows = app.tag(ner, text, 0.0, nested)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(text[start:end] == word for _, word, _, start, end in rows)
    labelled = [piece for piece, label in pieces if label]
    assert set(labelled) <= {row[1] for row in rows}
    if not nested:
        assert len(labelled) == len(rows)


def test_the_threshold_drops_entities(ner):
    assert len(app.tag(ner, TEXT, 0.0, False)[1]) > 0
    assert app.tag(ner, TEXT, 1.0, False) == ([(TEXT, None)], [])


def test_a_type_has_one_color():
    pieces = [("a", "PER 0.91"), ("b", None), ("c", "PER 0.50"), ("d", "LOC 0.70")]
    colors = app.colored(pieces, ["LOC", "PER"])
    assert colors["PER 0.91"] == colors["PER 0.50"] != colors["LOC 0.70"]


def test_markup_in_the_names_of_types_is_shown_and_not_run(ner, tmp_path, monkeypatch):
    monkeypatch.setattr(ner.model.config, "id2label", {0: "O", 1: "<img src=x onerror=alert(1)>"})
    title = components(app.build(ner, tmp_path))["title"].value
    assert "<img" not in title and "&lt;img src=x onerror=alert(1)&gt;" in title
    assert app.colored([("a", "a [b] 0.91")], ["a [b]"]) == {"a [b] 0.91": app.COLORS[0]}


def components(page) -> dict:
    return {(block.get_config().get("elem_id") or block.get_config().get("label")): block for block in page.blocks.values()}


def test_the_page_knows_language_examples_and_report(ner, directory):
    found = components(app.build(ner, directory))
    assert found["text"].rtl and found["entities"].rtl
    assert found["text"].value == "تعمل ليلى في القاهرة."
    assert found["Strict scores by type"].value["data"] == [["PER", 50.0, 25.0, 33.3, 4]]
    assert found["Spans of each type in the pseudo labels"].value["data"][-1] == [2, 0.9, 90, 12]


def test_a_model_without_card_and_report_has_a_page_as_well(ner, directory, tmp_path):
    found = components(app.build(ner, tmp_path))
    assert not found["text"].rtl and "Strict scores by type" not in found
    assert app.read_report(tmp_path) == ([], [], [])


def test_a_model_that_was_cut_off_ends_in_a_message(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "model")
    os.truncate(tmp_path / "model" / "model.safetensors", 1000)
    with pytest.raises(ValueError, match="cannot be loaded: "):
        app.load(str(tmp_path / "model"))


def test_a_wrong_model_ends_in_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py", "--model", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(app.__file__, run_name="__main__")
    assert stopped.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: model '{tmp_path / 'nothing'}' cannot be loaded: ")
    assert "Give a directory or a repository with --model" in error


def test_a_port_that_is_taken_ends_in_one_message(monkeypatch, capsys):
    def launch(argv):
        raise OSError("Cannot find empty port in range: 7860-7860")

    monkeypatch.setattr(app, "main", launch)
    assert app.run([]) == 2 and capsys.readouterr().err == "error: Cannot find empty port in range: 7860-7860\n"


@pytest.mark.parametrize("module", [app, handler])
def test_what_travels_to_the_hub_needs_modeling_glode_alone(module):
    nodes = ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8")))
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes if hasattr(node, "names")]
    assert "modeling_glode" in names and not {name for name in names if name.split(".")[0] in ("glode", "trainer_glode")}
