"""Protects the formats that `glode tag` writes beside its own records: each is read back, by the format's own library or by our
readers, and holds every text, every entity and every offset; one that was not finished does not look whole."""

import csv
import gzip
import io
import json
import sys
from pathlib import Path

import pytest
import spacy
from spacy.tokens import DocBin
from support.entities import places

from glode.corpora.reading import read_corpus
from glode.errors import InputError
from glode.serving import tag as tag_file
from glode.serving.documents import Document
from glode.serving.formats import BratWriter, LabelStudioWriter, spacy_tokens

TEXTS = [
    "Anna Berg lives in New York .",
    "",
    'He said: "Otto von Hagen, Oslo"\nAnna\n Berg in\tNew\u2028York',
    "在北京 \U0001f600 Oslo\u200b  Kiel",
    "Rome " * 60,
]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    return path


def tag(directory: Path, source: Path, target: Path | str, *more: str) -> None:
    tag_file.main(["--model", str(directory), "--input", str(source), "--output", str(target), "--device", "cpu", *more])


@pytest.fixture(autouse=True)
def short_buffers(monkeypatch):
    monkeypatch.setattr(tag_file, "BUFFER", 60)


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
def test_csv_has_a_row_an_entity(directory, ner, source, tmp_path, name: str):
    tag(directory, source, tmp_path / name, "--nested")
    content = (tmp_path / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    found = ner(TEXTS, nested=True)
    assert [(int(r["text"]), r["type"], r["entity"], int(r["start"]), int(r["end"])) for r in rows] == [
        (number, *place) for number, entities in enumerate(found, 1) for place in places(entities)
    ]
    assert all(0 < float(row["score"]) <= 1 for row in rows)
    assert any("\n" in row["entity"] for row in rows)


@pytest.mark.parametrize("name", ["tasks.json", "tasks.json.gz"])
def test_label_studio_has_a_task_a_text(directory, ner, source, tmp_path, name: str):
    tag(directory, source, tmp_path / name, "--nested", "--format", "label-studio")
    content = (tmp_path / name).read_bytes()
    tasks = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)
    assert [task["data"] for task in tasks] == [{"id": n, "text": text} for n, text in enumerate(TEXTS)]
    for task, entities in zip(tasks, ner(TEXTS, nested=True), strict=True):
        (prediction,) = task["predictions"]
        values = [result["value"] for result in prediction["result"]]
        assert [(v["labels"][0], v["text"], v["start"], v["end"]) for v in values] == places(entities)
        assert {(r["from_name"], r["to_name"], r["type"]) for r in prediction["result"]} <= {("label", "text", "labels")}
        assert len({r["id"] for r in prediction["result"]}) == len(values)
        assert prediction["score"] == pytest.approx(min([e["score"] for e in entities], default=1), abs=1e-5)
        assert prediction["model_version"] == str(directory)


def test_accepted_predictions_of_label_studio_are_a_corpus(directory, ner, source, tmp_path):
    path = tmp_path / "tasks.json"
    tag(directory, source, path, "--format", "label-studio")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps([{"data": t["data"], "annotations": t["predictions"]} for t in tasks if t["data"]["text"]]))
    read = [sentence for sentence in read_corpus(str(path), labelled=True)]
    assert sum(len(s["types"]) for s in read) == sum(map(len, ner(TEXTS)))


def test_label_studio_without_a_text_is_an_empty_list(tmp_path):
    with open(tmp_path / "none.json", "wb") as stream, LabelStudioWriter(stream, "none.json", "m"):
        pass
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_half_a_character_beside_the_text_stays_json(tmp_path):
    with open(tmp_path / "a.json", "wb") as stream, LabelStudioWriter(stream, "a.json", "m") as writer:
        writer.write([Document("Oslo", {"text": "Oslo", "id": "\udfff"})], [[]])
    assert json.loads((tmp_path / "a.json").read_text())[0]["data"]["id"] == "\udfff"


def test_brat_has_two_files_a_text(directory, ner, source, tmp_path):
    target = tmp_path / "brat"
    tag(directory, source, target, "--nested", "--format", "brat")
    assert (target / "annotation.conf").read_text().splitlines()[:4] == ["[entities]", "PER", "LOC", "ORG"]
    assert len(list(target.iterdir())) == 2 * len(TEXTS) + 1
    in_two_lines = 0
    for number, (text, entities) in enumerate(zip(TEXTS, ner(TEXTS, nested=True), strict=True), 1):
        path = target / f"{number:08d}.txt"
        assert path.read_bytes().decode() == text
        lines = [line.split("\t") for line in path.with_suffix(".ann").read_text(encoding="utf-8").split("\n")[:-1]]
        found = []
        for name, where, surface in (line for line in lines if line[0][0] == "T"):
            kind, _, borders = where.partition(" ")
            parts = [tuple(map(int, part.split())) for part in borders.split(";")]
            assert " ".join(text[a:b] for a, b in parts) == surface and len((surface + ".").splitlines()) == 1
            in_two_lines += len(parts) > 1
            found.append((kind, text[parts[0][0] : parts[-1][1]], parts[0][0], parts[-1][1]))
            assert [f"#{name[1:]}", f"AnnotatorNotes {name}"] in [line[:2] for line in lines]
        assert found == places(entities)
    assert in_two_lines
    with pytest.raises(InputError, match="brat's files take a directory of their own"):
        tag(directory, source, target, "--format", "brat")


def test_names_that_brat_does_not_take(tmp_path):
    writer = BratWriter(tmp_path / "a", ["work of art", "Ort"])
    entity = {"entity_group": "work of art", "score": 0.5, "word": "Faust", "start": 0, "end": 5}
    with writer:
        writer.write([Document("Faust")], [[entity]])
    assert (tmp_path / "a/00000001.ann").read_text() == "T1\twork_of_art 0 5\tFaust\n#1\tAnnotatorNotes T1\tscore 0.5000\n"
    with pytest.raises(InputError, match=" two are one name to brat"):
        BratWriter(tmp_path / "b", ["a b", "a.b"])
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("nested", [False, True])
def test_spacy_reads_its_docs(directory, ner, source, tmp_path, nested: bool):
    path = tmp_path / "out.spacy"
    tag(directory, source, path, *["--nested"] * nested)
    docs = list(DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab))
    assert [doc.text for doc in docs] == TEXTS
    for doc, entities in zip(docs, ner(TEXTS, nested=nested), strict=True):
        spans = [(span.label_, span.text, span.start_char, span.end_char) for span in doc.spans["sc"]]
        assert spans == places(entities)
        assert doc.spans["sc"].attrs["scores"] == pytest.approx([entity["score"] for entity in entities], abs=1e-5)
        ents = [(span.label_, span.text, span.start_char, span.end_char) for span in doc.ents]
        assert set(ents) <= set(spans) and (nested or ents == spans)
        assert doc.has_annotation("ENT_IOB") or not len(doc)
    read = [sentence for sentence in read_corpus(str(path), labelled=True)]
    assert sum(len(s["types"]) for s in read) == sum(len(doc.ents) for doc in docs) > 10


@pytest.mark.parametrize(
    "text", ["", " ", "  a", "a ", "a  b\n\nc", "a\u200bb c\ufeff d", "x\u00ad y\u200e. z", "\u200b", "\u3000在\t"]
)
def test_the_tokens_of_spacy_are_the_text(text: str):
    words, spaces = spacy_tokens(text)
    assert "".join(word + " " * space for word, space in zip(words, spaces, strict=True)) == text
    assert all(words)


@pytest.mark.parametrize(("name", "form"), [("a.json", "label-studio"), ("a.spacy", "spacy")])
def test_what_was_not_finished_does_not_look_whole(directory, source, tmp_path, monkeypatch, name: str, form: str):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm.update", stop)
    with pytest.raises(KeyboardInterrupt):
        tag(directory, source, tmp_path / name, "--format", form)
    content = (tmp_path / name).read_bytes()
    assert not content.endswith(b"]\n") if form == "label-studio" else not content


def test_the_name_of_the_output_says_the_format_or_is_refused():
    for name, form in (
        ("-", "jsonl"),
        ("/dev/null", "jsonl"),
        ("a.ndjson.zst", "jsonl"),
        ("a.CSV", "csv"),
        ("a.conll.gz", "conll"),
        ("tasks.json.gz", "label-studio"),
    ):
        assert tag_file.find_format("auto", name) == form
    assert tag_file.find_format("jsonl", "a.txt") == "jsonl"
    with pytest.raises(InputError, match=" says no format"):
        tag_file.find_format("auto", "out.xml")


def test_mistakes_of_formats_end_in_one_line(directory, source, tmp_path, monkeypatch, capsys):
    def refused(*more: str) -> str:
        capsys.readouterr()
        assert tag_file.run(["--model", str(directory), "--input", str(source), "--device", "cpu", *more]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ")
        return error

    (tmp_path / "a.csv").write_text("there")
    assert "makes files of its own, which are not packed" in refused("--format", "brat")
    assert "makes files of its own, which are not packed" in refused("--output", str(tmp_path / "a.spacy.gz"))
    assert ", not with csv. Start anew." in (error := refused("--output", str(tmp_path / "a.csv"), "--resume"))
    assert "--resume goes on with " in error
    assert refused("--output", str(tmp_path / "a.csv")).endswith(" is there already. Take it away.")
    monkeypatch.setitem(sys.modules, "spacy", None)
    assert "spaCy is not installed: pip install spacy." in refused("--output", str(tmp_path / "b.spacy"))


def test_only_what_can_be_gone_on_with_advises_to_go_on(directory, source, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling_glode.GlodeModel.predict", stop)
    for output, advice in (("a.jsonl.gz", True), ("a.csv", False), ("-", False)):
        name = output if output == "-" else str(tmp_path / output)
        assert tag_file.run(["--model", str(directory), "--input", str(source), "--output", name]) == 130
        assert ("--resume" in capsys.readouterr().err.splitlines()[-1]) == advice
