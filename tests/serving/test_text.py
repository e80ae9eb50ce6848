"""Protects text of any kind: whatever characters come, the splitter, the pipeline, the handler and tag_text.py neither
fail nor lose or shift a word; sentences are split with care; tag_text.py gives what the pipeline gives, and goes on where it
was stopped."""

import bz2
import gzip
import json
import lzma
import os
import runpy
import subprocess
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glode.corpora.reading import read_corpus
from glode.corpora.sentences import split_sentences
from glode.errors import InputError
from glode.serving import tag as tag_text
from glode.serving.handler import EndpointHandler
from modeling_glode import GlodePipeline, split_words

PARTS = [
    *["Anna Berg", "New York", "Oslo", " ", "\n", "\t", "\u3000", ".", "!", "'", "-", "_", "12,5", "https://a.b/c?d=e"],
    *["在北京", "上海大学。", "東京タワー", "กรุงเทพ", "ភ្នំពេញ", "ວຽງຈັນ", "မြန်မာ", "서울", "وبالقاهرة", "ـــ", "हिन्दी", "क्\u200dष"],
    *["می\u200cخواهم", "👩🏽\u200d🚀", "🇩🇪", "❤\ufe0f", "e\u0301", "ﬁ", "Ⅳ", "ß", "İ", "\u00ad", "\u200b", "\ufeff", "\u202e"],
    *["\x00", "\x1c", "\x85", "\u2028", "\ud800", "\udfff", "\U000e0067", "\uffff", "<s>", "</s>", "[MASK]", "▁", "\u0301"],
]
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=6) | st.characters(categories=["Cs", "Co", "Mn", "Cf"])).map("".join)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def check(text: str, entities: list[dict], nested: bool = False) -> None:
    """What holds of all entities of any text."""
    spans = [(e["start"], e["end"]) for e in entities]
    assert all(0 <= a < b <= len(text) and text[a:b] == e["word"] for (a, b), e in zip(spans, entities, strict=True))
    assert spans == sorted(spans) if not nested else [a for a, _ in spans] == sorted(a for a, _ in spans)
    assert nested or all(b <= c for (_, b), (c, _) in pairwise(spans))


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_the_splitter_loses_nothing(text: str):
    spans = split_words(text)
    assert all(a < b for a, b in spans) and all(b <= c for (_, b), (c, _) in pairwise(spans))
    covered = {i for a, b in spans for i in range(a, b)}
    assert all(i in covered or c.isspace() or unicodedata.category(c) == "Cf" for i, c in enumerate(text))
    assert not any(text[i].isspace() for i in covered)


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_sentences_hold_all_but_white_space(text: str):
    spans = split_sentences(text)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
    assert "".join(text.split()) == "".join("".join(text[a:b].split()) for a, b in spans)


@FEW
@given(st.lists(TEXTS, max_size=3), st.booleans())
def test_pipeline_predict_and_handler_take_any_text(ner: GlodePipeline, handler: EndpointHandler, texts: list[str], nested: bool):
    found = ner(texts, nested=nested) if texts else []
    for text, entities in zip(texts, found, strict=True):
        check(text, entities, nested)
    predicted = ner.model.predict(texts, ner.tokenizer, nested=nested)
    handled = handler({"inputs": texts, "parameters": {"nested": nested}})
    assert [*map(places, predicted)] == [*map(places, handled)] == [*map(places, found)]
    json.dumps(found)


@pytest.fixture(scope="module")
def handler(directory: Path) -> EndpointHandler:
    return EndpointHandler(str(directory))


# ---------------------------------------------------------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["Anna met Dr. Karl J. Moor in the U.S. Senate.", "He left!", "“Why?”", "Nobody knew."],
        ["Am 3. Oktober kam z. B. Otto.", "Es war 1990.", "Schluss …", "„Gut.“"],
        ["他来了。", "你呢？！", "“我写了两年。”约翰说。"],
        ["وصل القطار.", "هل وصل؟", "نعم."],
        ["यह एक वाक्य है।", "दूसरा भी।"],
        ["¿Qué pasó?", "¡Nada!", "El Sr. Pérez vive en la Av. Central."],
        ["Version 2.0 of example.org costs $3.50 and isn't out yet... or is it"],
        ["ไปกรุงเทพ เมื่อวาน"],
        ['Er sagte: " Komm mit! "'],
    ],
)
def test_sentences_are_split_with_care(sentences: list[str]):
    text = "".join(s if unicodedata.east_asian_width(s[0]) == "W" or "“我" in s else f" {s}" for s in sentences)
    assert [text[a:b] for a, b in split_sentences(text)] == sentences


def test_plain_target_text_may_hold_paragraphs(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text("Anna lacht. Otto weint.\nEin Satz\n", encoding="utf-8")
    words = [sentence["words"] for sentence in read_corpus(str(path), labelled=False)]
    assert words == [["Anna", "lacht", "."], ["Otto", "weint", "."], ["Ein", "Satz"]]


# ----------------------------------------------------------------------------------------------------------------- tag_text

LINES = ["Anna Berg lives in New York .", "", "  在北京\u3000Oslo ", "Rome " * 60, "Otto von Hagen flew to Oslo, then to Kiel!"]


def tag(directory: Path, source: Path, target: Path, *more: str) -> None:
    tag_text.main(["--model", str(directory), "--input", str(source), "--output", str(target), "--device", "cpu", *more])


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def places(entities: list[dict]) -> list[tuple]:
    return [(e["entity_group"], e["word"], e["start"], e["end"]) for e in entities]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "big.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return path


@pytest.mark.parametrize("packing", ["", ".gz", ".bz2", ".xz"])
def test_a_file_gets_what_the_pipeline_gives(directory, ner, source, tmp_path, packing: str, monkeypatch):
    monkeypatch.setattr(tag_text, "BUFFER", 40)
    packed, target = tmp_path / f"packed.txt{packing}", tmp_path / "out.jsonl"
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[packing]
    packed.write_bytes(pack(source.read_bytes()))
    tag(directory, packed, target, "--threshold", "0.5", "--nested")
    found = records(target)
    assert [record["text"] for record in found] == LINES
    assert [places(r["entities"]) for r in found] == [places(ner(t, threshold=0.5, nested=True)) for t in LINES]
    assert any(record["entities"] for record in found)


@pytest.mark.parametrize("form", ["jsonl", "conll"])
def test_a_killed_run_goes_on_where_it_stopped(directory, source, tmp_path, form: str):
    whole, target = tmp_path / f"whole.{form}", tmp_path / f"out.{form}"
    tag(directory, source, whole)
    content = whole.read_bytes()
    for size in (0, 1, len(content) // 3, len(content) // 2, len(content) - 1, len(content)):
        target.write_bytes(content[:size])
        tag(directory, source, target, "--resume")
        assert target.read_bytes() == content
    if form == "conll":
        sentences = [sentence for sentence in read_corpus(str(whole), labelled=True)]
        expected = [[line[a:b] for a, b in split_words(line)] for line in LINES]
        assert [sentence["words"] for sentence in sentences] == [words for words in expected if words]
        assert sum(len(sentence["types"]) for sentence in sentences) > 3


def test_mistakes_end_in_one_line(directory, source, tmp_path):
    target, missing = tmp_path / "out.jsonl", tmp_path / "missing"

    def message(*arguments: str | Path) -> str:
        with pytest.raises(InputError) as error:
            tag_text.main([str(part) for part in arguments])
        assert "\n" not in str(error.value)
        return str(error.value)

    usual = ("--model", directory, "--input", source, "--output", target)
    assert f"--input {missing} is no file" in message("--model", directory, "--input", missing)
    assert f"--model {missing} cannot be loaded" in message("--model", missing, "--input", source)
    assert "--device nonsense cannot be used (" in (error := message(*usual, "--device", "nonsense"))
    assert "Give cpu, or cuda:0 where there is a GPU." in error
    assert "a .conll file has one tag a word" in message("--model", directory, "--output", "a.conll", "--nested")
    assert "expected at least 1 window at a time" in message(*usual, "--batch_size", "0")
    assert "--resume needs a file: give --output" in message("--model", directory, "--resume")
    assert "--encoding needs a file: give --input" in message("--model", directory, "--encoding", "latin-1")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    assert "is of the type 'bert'" in (error := message("--model", tmp_path / "bert", "--input", source))
    assert "Give a model that run_crossner.py has trained" in error
    target.write_text('{"text": "another", "entities": []}\n')
    assert f"--output {target} is there already. Go on" in message(*usual)
    assert f"--resume: record 1 of {target} is not that of line 1 of {source}. Take it away." == message(*usual, "--resume")
    assert "is the input. Name another file" in message("--model", directory, "--input", source, "--output", source, "--resume")
    assert target.read_text().startswith('{"text": "another"')
    source.write_bytes(b"Oslo\nBern \xff\xfe Kiel\n")
    target.unlink()
    error = message(*usual)
    assert f"{source}, line 2: at byte 10 of the file" in error and "or give --encoding_errors replace" in error


def test_broken_characters_are_counted(directory, source, tmp_path, capsys):
    source.write_bytes(b"Oslo\nBern \xff Kiel\0\n")
    tag(directory, source, tmp_path / "out.jsonl", "--encoding_errors", "replace")
    assert records(tmp_path / "out.jsonl")[1]["text"] == "Bern \ufffd Kiel\ufffd"
    assert "2 texts, " in (error := capsys.readouterr().err) and ", 2 characters made U+FFFD" in error
    assert " characters made U+FFFD" in error


def test_a_long_line_and_no_line(directory, ner, source, tmp_path):
    text = "Anna Berg lives in New York . " * 100 + "x" * 200_000
    source.write_text(text, encoding="utf-8")
    tag(directory, source, tmp_path / "out.jsonl")
    (record,) = records(tmp_path / "out.jsonl")
    assert record["text"] == text and len(record["entities"]) > 100
    check(text, record["entities"])
    source.write_bytes(b"")
    tag(directory, source, tmp_path / "none.jsonl")
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_standard_input_and_output(directory, source):
    command = [sys.executable, "-m", "glode", "tag", "--model", str(directory), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input=source.read_bytes(), capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line)["text"] for line in done.stdout.decode().split("\n")[:-1]] == LINES


def test_a_reader_that_goes_away_is_no_mistake(directory, source):
    command = [
        sys.executable,
        "-m",
        "glode",
        "tag",
        "--model",
        str(directory),
        "--device",
        "cpu",
        "--input",
        str(source),
    ]
    gone, written = os.pipe()
    os.close(gone)  # as `head` does when it has seen enough
    done = subprocess.run(
        command, stdout=written, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, check=False
    )
    os.close(written)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "rror" not in done.stderr


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (InputError("what is wrong"), 2, "what is wrong"),
        (torch.OutOfMemoryError("CUDA"), 2, "the GPU's memory is full. Give a smaller batch. Mend it and go on with --resume."),
        (OSError(28, "No space left on device"), 2, "[Errno 28] No space left on device. Mend it and go on with --resume."),
        (KeyboardInterrupt(), 130, "stopped. The same command with --resume goes on."),
    ],
)
def test_what_ends_a_command_is_one_line(directory, source, tmp_path, monkeypatch, capsys, fault, status: int, message: str):
    def predict(*_):
        raise fault

    monkeypatch.setattr("modeling_glode.GlodeModel.predict", predict)
    arguments = {"model": directory, "input": source, "output": tmp_path / "out.jsonl", "device": "cpu"}
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["tag_text.py", *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("glode.serving.tag", run_name="__main__", alter_sys=False)
    assert stopped.value.code == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.removeprefix("error: ") == message
    assert "Mend it and go on with --resume." in error or type(fault) is not OSError
