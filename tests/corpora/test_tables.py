"""Protects tables and binary corpora: classes get their names, what is not labelled stays so."""

import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Sequence as SequenceFeature
from support.corpora import TWO, entities_of, message_of, notes_of

from glode.corpora.reading import read_corpus
from glode.corpora.schemes import encode_tags
from glode.errors import InputError

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.mark.parametrize("kind", ["parquet", "classes", "directory"])
def test_tables(tmp_path: Path, kind: str):
    rows = [{"tokens": words, "ner_tags": encode_tags(len(words), entities)} for words, entities in TWO]
    table = Dataset.from_list(rows)
    if kind != "parquet":
        names = ["O", "B-PER", "I-PER", "B-LOC"]
        rows = [row | {"ner_tags": [names.index(tag) for tag in row["ner_tags"]]} for row in rows]
        tags = SequenceFeature(ClassLabel(names=names))
        table = Dataset.from_list(rows, features=Features({"tokens": SequenceFeature(Value("string")), "ner_tags": tags}))
    path = tmp_path / ("saved" if kind == "directory" else "corpus.parquet")
    table.save_to_disk(path) if kind == "directory" else table.to_parquet(path)
    assert entities_of(path) == TWO
    DatasetDict({"train": table}).save_to_disk(tmp_path / "parts")
    assert f"Name one of them: {tmp_path / 'parts' / 'train'}" in (message := message_of(tmp_path / "parts"))
    assert " has the parts " in message


@pytest.mark.parametrize("kind", ["a.parquet", "saved"])
def test_classes_beyond_the_names_and_not_labelled(tmp_path: Path, kind: str):
    features = Features({"tokens": SequenceFeature(Value("string")), "ner_tags": SequenceFeature(ClassLabel(names=["O", "B-X"]))})
    path = tmp_path / kind

    def stored(*rows: tuple[list[str], list[int]]) -> Path:
        plain = Dataset.from_list([{"tokens": words, "ner_tags": tags} for words, tags in rows]).with_format("arrow")[:]
        table = Dataset(plain.cast(features.arrow_schema).replace_schema_metadata(features.arrow_schema.metadata))
        shutil.rmtree(path, ignore_errors=True)
        table.save_to_disk(path) if kind == "saved" else table.to_parquet(path)
        return path

    message = message_of(stored((["a"], [0]), (["b"], [2])))
    assert "row 2: class 2 of `ner_tags`" in message and "Give it one, or store tags as names" in message
    assert entities_of(stored((["a"], [1]), (["b", "c"], [-1, 0]), (["d"], [-100]))) == [(["a"], [(0, 1, "X")])]
    assert notes_of(path) == {"sentences left out in which words are not labelled": 2}
    assert entities_of(path, labelled=False) == [(["a"], [(0, 1, "X")]), (["b", "c"], []), (["d"], [])]
    assert "every sentence has words that are not labelled (class -1" in message_of(stored((["a", "b"], [-100, 1])))


def test_docbin(tmp_path: Path, monkeypatch):
    """With a stand-in for spaCy, which is no requirement: white space is no word, a file that spaCy refuses has a message."""
    path = tmp_path / "a.spacy"
    path.write_bytes(b"\0")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(InputError, match="is not here: pip install spacy"):
        list(read_corpus(str(path), True))

    class Document(list):
        ents = (SimpleNamespace(start=0, end=3, label_="PER"), SimpleNamespace(start=4, end=5, label_="LOC"))

        def has_annotation(self, name: str) -> bool:
            return True

    class DocBin:
        def from_disk(self, path: Path) -> "DocBin":
            if not path.read_bytes():
                raise ValueError("E1014")
            return self

        def get_docs(self, vocab: None) -> list[Document]:
            return [Document(SimpleNamespace(text=text, is_space=text == " ") for text in ["Anna", " ", "Berg", " ", "Oslo"])]

    spacy = ModuleType("spacy")
    spacy.blank = lambda language: SimpleNamespace(vocab=None)
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    monkeypatch.setitem(sys.modules, "spacy.tokens", SimpleNamespace(DocBin=DocBin))
    row = next(read_corpus(str(path), True))
    assert row["words"] == ["Anna", "Berg", "Oslo"]
    assert (row["begins"], row["lengths"], row["types"]) == ([0, 2], [2, 1], ["PER", "LOC"])
    path.write_bytes(b"")
    with pytest.raises(InputError, match="E1014"):
        list(read_corpus(str(path), True))
