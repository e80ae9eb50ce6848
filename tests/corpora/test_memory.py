"""Protects corpora from Python objects: they are what files of the same content are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Sequence as SequenceFeature
from support import ROOT
from support.corpora import TWO, as_sentences, written

from glode.corpora.memory import from_memory
from glode.corpora.options import ReadingOptions
from glode.corpora.reading import load_corpus
from glode.corpora.schema import CORPUS
from glode.corpora.schemes import encode_tags
from glode.errors import InputError

pytestmark = pytest.mark.usefixtures("datasets_cache")

RECORDS = [{"tokens": words, "ner_tags": encode_tags(len(words), entities)} for words, entities in TWO]


def test_records_are_what_the_same_file_is(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, RECORDS)))
    for data in (RECORDS, Dataset.from_list(RECORDS), [{k: tuple(v) for k, v in record.items()} for record in RECORDS]):
        corpus = from_memory(data, labelled=True)
        assert corpus.features == CORPUS
        assert as_sentences(corpus) == as_sentences(load_corpus(str(path), True)) == TWO
    assert from_memory(corpus, labelled=True) is corpus


def test_classes_have_the_names_of_their_feature():
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    features = Features({"tokens": SequenceFeature(Value("string")), "ner_tags": SequenceFeature(ClassLabel(names=names))})
    rows = [{"tokens": r["tokens"], "ner_tags": [names.index(tag) for tag in r["ner_tags"]]} for r in RECORDS]
    data = Dataset.from_list(rows, features=features)
    assert as_sentences(from_memory(data, labelled=True)) == TWO
    assert as_sentences(from_memory(data.with_format("numpy"), labelled=True)) == TWO


def test_texts_are_what_the_same_text_file_is(tmp_path: Path):
    texts = ["Anna Berg sings. She rests!", "Oslo\nBergen", "北京2号线。"]
    path = written(tmp_path / "a.txt", "\n".join(texts))
    assert as_sentences(from_memory(texts, labelled=False)) == as_sentences(load_corpus(str(path), False))


def test_words_without_labels_and_records_with_offsets():
    assert as_sentences(from_memory([["Anna", "sings"], ("Oslo",)], labelled=False)) == [(["Anna", "sings"], []), (["Oslo"], [])]
    pair = ("Anna sings", {"entities": [[0, 4, "PER"]]})
    for record in (pair, {"text": pair[0], **pair[1]}):
        assert as_sentences(from_memory([record], labelled=True)) == [(["Anna", "sings"], [(0, 1, "PER")])]


def test_options_hold_here_too():
    rows = [{"wort": ["Anna"], "art": ["PER-B"]}]
    options = ReadingOptions(token_column="wort", tag_column="art", scheme="IO")
    assert as_sentences(from_memory(rows, True, options)) == [(["Anna"], [(0, 1, "PER-B")])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["Anna sings"], "row 1: no labels. In a"),
        ([*RECORDS, {"tokens": ["a"], "ner_tags": ["O", "O"]}], "row 3: 1 words and 2 tags, but expected"),
        ([{"tokens": ["a"], "ner_tags": "O"}], "row 1: one tag ('O') for a sentence of 1 words"),
        ([{"tokens": ["a"], "ner_tags": [1]}], "row 1: the tags are numbers without names. Give names"),
        ([3], "expected a record, a text or a list of words, not"),
        ("train.conll", "expected a Dataset or a list of sentences, not"),
        ([], "there is no sentence in it. Give records"),
        ([{"tokens": ["a"], "ner_tags": [None]}], "every sentence has words that are not labelled"),
    ],
)
def test_what_is_no_corpus(data: object, message: str):
    with pytest.raises(InputError) as error:
        from_memory(data, labelled=True, name="train")
    assert str(error.value).startswith("train") and message in str(error.value)


def test_labelled_corpora_are_read_without_torch(tmp_path: Path):
    path = written(tmp_path / "a.conll", "Anna B-PER\n")
    modules = sorted(f"glode.corpora.{file.stem}" for file in (ROOT / "glode" / "corpora").glob("[!_]*.py"))
    assert len(modules) > 10
    code = f"""
import importlib, sys
for name in {modules}: importlib.import_module(name)
assert next(sys.modules["glode.corpora.reading"].read_corpus({str(path)!r}, True))["types"] == ["PER"]
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
