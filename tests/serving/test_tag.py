"""Protects `glode tag`: it gives what the pipeline gives, from and to files of every packing, pipes and JSON lines; goes on where
it was stopped; loses no text and no field; and a mistake ends in one line."""

import bz2
import gzip
import json
import lzma
import os
import runpy
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from support.entities import check, places
from transformers.utils import logging

from glode.corpora.files import zstd
from glode.corpora.reading import read_corpus
from glode.errors import InputError
from glode.serving import tag as tag_file
from glode.serving.documents import read_documents
from glode.serving.tag import load_model
from modeling_glode import split_words

LINES = ["Anna Berg lives in New York .", "", "  在北京\u3000Oslo ", "Rome " * 60, "Otto von Hagen flew to Oslo, then to Kiel!"]


def tag(directory: Path, source: Path, target: Path, *more: str) -> None:
    tag_file.main(["--model", str(directory), "--input", str(source), "--output", str(target), "--device", "cpu", *more])


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "big.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return path


PACKINGS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress}
UNPACKINGS = {"": bytes, ".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress, ".zst": zstd.decompress}


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_file_gets_what_the_pipeline_gives(directory, ner, source, tmp_path, packing: str, monkeypatch):
    monkeypatch.setattr(tag_file, "BUFFER", 40)
    packed, target = tmp_path / f"packed.txt{packing}", tmp_path / f"out.jsonl{packing}"
    packed.write_bytes(PACKINGS[packing](source.read_bytes()))
    tag(directory, packed, target, "--threshold", "0.5", "--nested")
    content = UNPACKINGS[packing](target.read_bytes()).decode()
    found = [json.loads(line) for line in content.split("\n")[:-1]]
    assert [record["text"] for record in found] == LINES
    assert [places(r["entities"]) for r in found] == [places(ner(t, threshold=0.5, nested=True)) for t in LINES]
    assert any(record["entities"] for record in found)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("form", ["jsonl", "conll"])
def test_a_killed_run_goes_on_where_it_stopped(directory, source, tmp_path, form: str, packing: str, monkeypatch):
    monkeypatch.setattr(tag_file, "BUFFER", 40)  # three buffers, which packed are three members
    whole, target = tmp_path / f"whole.{form}{packing}", tmp_path / f"out.{form}{packing}"
    tag(directory, source, whole)
    content = whole.read_bytes()
    for size in (0, 1, len(content) // 3, len(content) // 2, len(content) - 1, len(content)):
        target.write_bytes(content[:size])
        tag(directory, source, target, "--resume")
        assert target.read_bytes() == content


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_tagged_file_is_a_corpus(directory, source, tmp_path, packing: str):
    target = tmp_path / f"out.conll{packing}"
    tag(directory, source, target)
    sentences = [sentence for sentence in read_corpus(str(target), labelled=True)]
    expected = [[line[a:b] for a, b in split_words(line)] for line in LINES]
    assert [sentence["words"] for sentence in sentences] == [words for words in expected if words]
    assert sum(len(sentence["types"]) for sentence in sentences) > 3


def test_a_packed_file_of_another_hand_is_gone_on_with_or_refused(directory, source, tmp_path):
    whole, target = tmp_path / "whole.jsonl", tmp_path / "out.jsonl.gz"
    tag(directory, source, whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    for content in (b"".join(lines[:3]), b"".join(lines[:3]) + lines[3][:20]):  # whole records, and half a one
        target.write_bytes(gzip.compress(content))
        tag(directory, source, target, "--resume")
        assert gzip.decompress(target.read_bytes()) == whole.read_bytes()
    target.write_bytes(b"no gzip at all")
    with pytest.raises(InputError, match="cannot be unpacked "):
        tag(directory, source, target, "--resume")
    assert target.read_bytes() == b"no gzip at all"


# ------------------------------------------------------------------------------------------------------------ pipes, JSON lines


@pytest.mark.parametrize("name", ["pipe", "pipe.txt.gz", "pipe.jsonl"])
def test_a_named_pipe_is_read(directory, source, tmp_path, name: str):
    content = source.read_bytes()
    if name.endswith(".gz"):
        content = gzip.compress(content)
    elif name.endswith(".jsonl"):
        content = "".join(json.dumps({"text": line}) + "\n" for line in LINES).encode()
    pipe, whole, target = tmp_path / name, tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    tag(directory, source, whole)
    os.mkfifo(pipe)
    for start in (b"", whole.read_bytes()[:200]):
        target.write_bytes(start)
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        tag(directory, pipe, target, "--resume")
        writer.join()
        assert target.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", ["posts.jsonl", "posts.ndjson", "posts.jsonl.gz", "posts"])
def test_json_lines_keep_their_fields(directory, ner, tmp_path, name: str, monkeypatch):
    monkeypatch.setattr(tag_file, "BUFFER", 40)
    posts = [{"id": n, "body": f"{line}\n{line}", "score": float("nan"), "text": None} for n, line in enumerate(LINES)]
    content = "".join(json.dumps(post) + "\n\n" * (n == 1) + "\n" for n, post in enumerate(posts)).encode()
    source, target, conll = tmp_path / name, tmp_path / "out.jsonl", tmp_path / "out.conll"
    source.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    tag(directory, source, target, "--text_field", "body")
    found = records(target)
    assert [places(record.pop("entities")) for record in found] == [places(ner(post["body"])) for post in posts]
    assert json.dumps(found) == json.dumps(posts)  # NaN is not NaN
    whole = target.read_bytes()
    target.write_bytes(whole[: len(whole) // 2])
    tag(directory, source, target, "--text_field", "body", "--resume")
    assert target.read_bytes() == whole
    tag(directory, source, conll, "--text_field", "body")
    assert conll.read_text(encoding="utf-8").startswith("Anna ")


def test_the_field_is_text_where_the_suffix_says_json_lines(directory, ner, tmp_path):
    source, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text('{"text": "Oslo"}\n{"text": ""}\n')
    tag(directory, source, target)
    assert [(r["text"], places(r["entities"])) for r in records(target)] == [("Oslo", places(ner("Oslo"))), ("", [])]


def test_half_a_character_of_json_is_replaced_only_where_asked_for(directory, tmp_path, capsys):
    source, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text('{"text": "Oslo \\ud83d Kiel \\ud83d\\ude00", "more": "\\udfff"}\n')
    with pytest.raises(InputError, match=", line 1: 1 halves of characters ") as refused:
        tag(directory, source, target)
    assert " halves of characters (" in str(refused.value)
    target.unlink()
    tag(directory, source, target, "--encoding_errors", "replace")
    (record,) = records(target)
    assert (record["text"], record["more"]) == ("Oslo \ufffd Kiel \U0001f600", "\udfff")
    assert "1 texts, " in (error := capsys.readouterr().err) and ", 1 characters made U+FFFD" in error


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Oslo", "). Each line is one object; lines of plain text belong into a .txt file."),
        ('["Oslo"]', "'text', found list. Name the text by --text_field."),
        ('{"id": 1, "body": "Oslo"}', "'text', found 'id', 'body'. Name the text by --text_field."),
        ('{"text": 3}', ": expected an object with a string "),
        ('{"text": "Oslo", "entities": []}', ": the object has 'entities' already, which would be lost. Rename that field"),
    ],
)
def test_a_line_that_is_not_the_json_it_should_be(directory, tmp_path, line: str, message: str):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "Kiel"}\n' + line + "\n")
    with pytest.raises(InputError) as error:
        tag(directory, source, tmp_path / "b.jsonl")
    assert str(error.value).startswith(f"{source}, line 2: ") and message in str(error.value)


@pytest.mark.parametrize("suffix", [".json", ".csv", ".tsv.gz", ".conll", ".PDF", ".zip"])
def test_what_is_no_text_is_not_taken_for_text(directory, tmp_path, suffix: str):
    source = tmp_path / f"corpus{suffix}"
    source.write_bytes(b"Oslo\n")
    with pytest.raises(InputError, match="is not tagged as it is"):
        tag(directory, source, tmp_path / "out.jsonl")


NO_TEXTS = {
    "JSON lines": (b'{"text": "Oslo"}\n{"text": "Kiel"}\n', "line 1: a JSON object is no text. Name the field that holds it"),
    "columns": (b"Anna B-PER\nBerg I-PER\nlives O\n\nOslo B-LOC\n", "nearly every line has a tag beside a word. Give texts"),
    "UTF-16": ("Oslo\n".encode("utf-16"), "the content is UTF-16"),
    "gzip": (gzip.compress(b"Oslo\n"), "the content is packed by gzip. Name it"),
    "zstd": (b"\x28\xb5\x2f\xfd....", "the content is packed by zstd. Name it"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "the content is a pointer of Git LFS"),
}


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_a_text_file_that_holds_something_else(tmp_path, kind: str):
    content, message = NO_TEXTS[kind]
    source = tmp_path / "a.txt"
    source.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read_documents(source, None))
    assert message in str(error.value) and str(source) in str(error.value)


def test_texts_that_look_a_little_like_something_else(tmp_path):
    lines = ["{Oslo}", "vitamin B-6", "the letter O"]
    source = tmp_path / "a.txt"
    source.write_text("\n".join(lines))
    assert [document.text for document in read_documents(source, None)] == lines


# --------------------------------------------------------------------------------------------------------------------- the rest


def test_mistakes_end_in_one_line(directory, source, tmp_path):
    target, missing = tmp_path / "out.jsonl", tmp_path / "missing"

    def message(*arguments: str | Path) -> str:
        with pytest.raises(InputError) as error:
            tag_file.main([str(part) for part in arguments])
        assert "\n" not in str(error.value)
        return str(error.value)

    usual = ("--model", directory, "--input", source, "--output", target)
    assert f"--input {missing} is no file" in message("--model", directory, "--input", missing)
    for name in (missing, "nomodel"):
        assert f"--model {name}: there is no such directory, and a repository" in message("--model", name, "--input", source)
    name = "no/model"
    assert f"--model {name} cannot be loaded: " in message("--model", name, "--input", source)
    assert "--device nonsense cannot be used (" in (error := message(*usual, "--device", "nonsense"))
    assert "Give cpu, or cuda:0 where there is a GPU." in error
    assert "a .conll file has one tag a word" in message("--model", directory, "--output", "a.conll", "--nested")
    assert "expected at least 1 window at a time" in message(*usual, "--batch_size", "0")
    assert "--resume needs a file: give --output" in message("--model", directory, "--resume")
    assert "--encoding needs a file: give --input" in message("--model", directory, "--encoding", "latin-1")
    assert " would not be packed. Name it" in message("--model", directory, "--input", source, "--output", "out.zip")
    for number in ("nan", "50.0"):
        error = message(*usual, "--threshold", number)
        assert f"--threshold {number}: the least score of an entity is a number between" in error
    assert f"--input {tmp_path} is no file" in message("--model", directory, "--input", tmp_path)
    assert f": there is no directory {missing}. Make it" in message(*usual[:4], "--output", missing / "out.jsonl")
    assert "is a directory without a model: config.json is not in it" in message("--model", tmp_path, "--input", source)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    assert "is of the type 'bert'" in (error := message("--model", tmp_path / "bert", "--input", source))
    assert "Give a model that run_crossner.py has trained" in error
    target.write_text('{"text": "another", "entities": []}\n')
    assert " is there already. " in (error := message(*usual))
    assert error.endswith("Go on with it by --resume, or take it away.")
    error = message(*usual, "--resume")
    assert error == f"--resume: record 1 of {target} is not that of text 1 of {source}. Take it away."
    assert " is not that of text " in error
    same = ("--input", source, "--output", source, "--format", "jsonl", "--resume")
    assert "is the input. Name another file" in message("--model", directory, *same)
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
    source.write_text("Oslo\n")
    tag(directory, source, tmp_path / "whole.jsonl")
    texts, found = 1, len(records(tmp_path / "whole.jsonl")[0]["entities"])
    error = capsys.readouterr().err
    assert f"{texts} texts, {found} entities" in error and error.endswith(" entities\n")


def test_the_code_beside_a_model_is_not_run(directory, tmp_path):
    """`glode tag` loads with its own code: a repository of others can do no harm."""
    strange = shutil.copytree(directory, tmp_path / "strange")
    for path in strange.glob("*.py"):
        path.write_text("raise RuntimeError('code of the model was run')\n")
    assert (strange / "modeling_glode.py").exists()
    model, tokenizer = load_model(str(strange), "cpu")
    assert model.predict(["Anna Berg lives here ."], tokenizer) is not None


def test_loading_shows_no_bar_and_leaves_the_setting(directory, capsys):
    logging.enable_progress_bar()  # an earlier command in this process may have silenced it
    assert logging.is_progress_bar_enabled()
    tag_file.load_model(str(directory), "cpu")
    assert logging.is_progress_bar_enabled() and capsys.readouterr().err == ""


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
        (torch.OutOfMemoryError("CUDA"), 2, "the GPU's memory is full. Give a smaller batch and go on with --resume."),
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
    monkeypatch.setattr(sys, "argv", ["tag_file.py", *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("glode.serving.tag", run_name="__main__", alter_sys=False)
    assert stopped.value.code == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.removeprefix("error: ") == message
    assert "Mend it and go on with --resume." in error or type(fault) is not OSError
