"""Protects brat's standoff annotations: each entity is where its offsets say, in one sentence."""

from pathlib import Path

import pytest
from support.corpora import entities_of, message_of, notes_of, written

pytestmark = pytest.mark.usefixtures("datasets_cache")

TEXT = "Lena Ott lebt in\nNew York. Dr. A. Moor auch.\n"
ANN = """T1\tPER 0 8\tLena Ott
T2\tLOC 17 25\tNew York
R1\tlives_in Arg1:T1 Arg2:T2
T3\tPER 31 38\tA. Moor
#1\tAnnotatorNotes T3\tsure
A1\tSure T3
*\tEquiv T1 T3
"""
SENTENCES = [
    (["Lena", "Ott", "lebt", "in"], [(0, 2, "PER")]),
    (["New", "York", "."], [(0, 2, "LOC")]),
    (["Dr", ".", "A", ".", "Moor", "auch", "."], [(2, 3, "PER")]),
]


def document(directory: Path, text: str | bytes = TEXT, ann: str = ANN, name: str = "a") -> Path:
    written(directory / f"{name}.ann", ann)
    return written(directory / f"{name}.txt", text)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("part", [".txt", ".ann"])
def test_a_document(tmp_path: Path, part: str, labelled: bool):
    assert entities_of(document(tmp_path).with_suffix(part), labelled) == SENTENCES


def test_a_directory(tmp_path: Path):
    document(tmp_path / "set")
    document(tmp_path / "set" / "more", "nichts\n", "", "b")
    assert entities_of(tmp_path / "set") == [*SENTENCES, (["nichts"], [])]


@pytest.mark.parametrize("counted", [2, 1])
def test_line_ends_of_two_characters(tmp_path: Path, counted: int):
    """Counted as two, as the file has them, or as one, as an editor shows them."""
    ann = ANN if counted == 1 else ANN.replace("17 25", "18 26").replace("31 38", "32 39")
    assert entities_of(document(tmp_path, TEXT.replace("\n", "\r\n"), ann)) == SENTENCES


def test_parts_of_entities(tmp_path: Path):
    ann = "T1\tPER 0 4;5 8\tLena Ott\nT2\tX 0 4;9 13\tLena lebt\nT3\tLOC 14 16;17 20\tin New\n"
    path = document(tmp_path, ann=ann)
    first = ["Lena", "Ott", "lebt", "in", "New", "York", "."]
    assert entities_of(path) == [(first, [(0, 2, "PER"), (3, 2, "LOC")]), (SENTENCES[2][0], [])]
    assert notes_of(path) == {"entities with gaps left out": 1}


def test_a_changed_annotation_is_read_anew(tmp_path: Path):
    path = document(tmp_path)
    assert entities_of(path) == SENTENCES
    written(path.with_suffix(".ann"), ANN.replace("PER 0", "ORG 0"))
    assert entities_of(path)[0][1] == [(0, 2, "ORG")]


@pytest.mark.parametrize(
    ("ann", "message"),
    [
        ("T1\tPER 0 4\tOtt\n", "a.ann, line 1: at 0 4 the text has 'Lena', the annotation says 'Ott'"),
        ("T1\tPER 0 4\tLena\nT2\tPER 40 99\tx\n", "a.ann, line 2: at 40 99 the text has"),
        ("T1 PER 0 4 Lena\n", "'T1 PER 0 4 Lena' is no annotation. Expected T1"),
    ],
)
def test_annotations_that_do_not_fit(tmp_path: Path, ann: str, message: str):
    path = document(tmp_path, ann=ann)
    text = message_of(path.with_suffix(".ann"))
    assert message in text and ("is no annotation. Expected T1" in text or "Is the .txt the one that was annotated" in text)


def test_annotations_without_their_text(tmp_path: Path):
    path = written(tmp_path / "a.ann", ANN)
    assert "brat's annotations need their text beside them" in message_of(path)
    written(tmp_path / "set" / "a.ann", ANN)
    assert "cannot be read (" in (message := message_of(tmp_path / "set")) and "Does it exist, and is it whole?" in message


def test_bytes_that_are_no_text(tmp_path: Path):
    path = document(tmp_path, "Müller\n".encode("latin-1"), "T1\tPER 0 6\tMüller\n")
    assert "line 1: at byte 1 of the file byte 0xfc" in message_of(path)
    assert entities_of(document(tmp_path, "Müller lebt\n".encode(), "T1\tPER 0 6\tMüller\n")) == [
        (["Müller", "lebt"], [(0, 1, "PER")])
    ]
