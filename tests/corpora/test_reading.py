"""Protects the path from a corpus file to labelled words: what is written is read, and a mistake in a file is an InputError that
names file and line."""

import contextlib
import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.corpora import COLUMNS, entities_of, message_of

from glode.corpora import reading
from glode.corpora.options import ReadingOptions
from glode.corpora.reading import load_corpus, read_corpus
from glode.corpora.rows import is_mark
from glode.corpora.schemes import encode_tags
from glode.errors import InputError
from modeling_glode import split_words

pytestmark = pytest.mark.usefixtures("datasets_cache")


BROKEN = {
    "no tag, spaces": ("a.iob2", "Anna B-PER\nsings\n", "line 2", "has no tag. Each line is"),
    "no tag, tab": ("a.iob2", "Anna\tB-PER\n\nsings\t\n", "line 3", "has no tag. Each line is"),
    "unknown prefix": ("a.iob2", "Anna B-PER\nsings O\nOslo X-LOC\n", "line 3", "fits no label scheme together with"),
    "bare and prefixed": ("a.iob2", "Anna B-PER\nsings O\n\nOslo LOC\n", "line 4", "'LOC'"),
    "two schemes": ("a.iob2", "Anna B-PER\nBerg E-PER\nsings O\nOslo U-LOC\n", "line 4", "fit no label scheme together. Known"),
    "unequal lists": (
        "a.jsonl",
        '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n',
        "line 2",
        "expected lists of equal length",
    ),
    "numbers for tags": ("a.jsonl", '{"tokens": ["a"], "tags": [0]}\n', "line 1", "tags"),
    "no labels": (
        "a.jsonl",
        '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a"]}\n',
        "line 2",
        "no labels. In a",
    ),
    "text without labels": ("a.jsonl", '\n{"text": "a"}\n', "line 2", "no labels. In a"),
    "no tokens": ("a.jsonl", '{"sentence": "a"}\n', "line 1", "tokens"),
    "a list": ("a.jsonl", '["a"]\n', "line 1", "tokens"),
    "JSON lines cut off": (
        "a.jsonl",
        '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a"\n',
        "line 2",
        "Correct it; in JSON lines",
    ),
    "JSON lines, unknown prefix": (
        "a.jsonl",
        '{"tokens": ["a"], "tags": ["B-PER"]}\n{"tokens": ["a"], "tags": ["Q-PER"]}\n',
        "line 2",
        "'Q-PER'",
    ),
    "JSON cut off": ("a.json", '[{"context": "a b",\n"span_posLabel": {]', "line 2", "not JSON"),
    "span beyond the text": (
        "a.json",
        '[{"context": "a"}, {"context": "a b", "span_posLabel": {"1;2": "PER"}}]',
        "record 2",
        "with positions inside the text",
    ),
    "span backwards": ("a.json", '[{"context": "a b", "span_posLabel": {"1;0": "PER"}}]', "record 1", "inside"),
    "span of one number": ("a.json", '[{"context": "a b", "span_posLabel": {"1": "PER"}}]', "record 1", "first;last"),
    "context of another kind": ("a.json", '[{"context": ["a"]}]', "record 1", "context"),
    "record of another kind": ("a.json", "[3]", "record 1", "tokens"),
    "a space in a word": ("a.iob2", "Anna B-PER\nNew York B-LOC\n", "line 2", "columns, the first word of the file"),
    "half a surrogate pair": ("a.jsonl", '{"text": "a\\ud800", "entities": []}\n', "line 1", "surrogate"),
    "lists in lists in lists": ("a.json", "[" * 100_000, "line 1", "not JSON"),
    "a number of too many digits": ("a.jsonl", '{"text": ' + "1" * 5000 + "}", "line 1", "not JSON"),
    "offsets beyond the text": (
        "a.jsonl",
        '{"text": "a", "entities": [[0, 2, "X"]]}',
        "line 1",
        "is no start, end",
    ),
    "offsets backwards": ("a.jsonl", '{"text": "ab", "entities": [[2, 1, "X"]]}', "line 1", "is no start, end and type inside"),
    "offsets of another kind": ("a.jsonl", '{"text": "ab", "entities": [["0", "1", "X"]]}', "line 1", "span"),
    "a span without a type": ("a.jsonl", '{"text": "ab", "spans": [{"start": 0, "end": 1}]}', "line 1", "span"),
    "a span of other words": (
        "a.jsonl",
        '{"text": "in Oslo", "label": [{"start": 0, "end": 4, "text": "Oslo", "labels": ["LOC"]}]}',
        "line 1",
        "Correct the offsets.",
    ),
    "a type that is none": ("a.jsonl", '{"text": "Oslo", "entities": [[0, 4, "O"]]}', "line 1", "which stands for no entity"),
    "a task without annotation": ("a.json", '[{"data": {"text": "a"}, "annotations": []}]', "record 1", "no labels"),
    "no table": ("a.parquet", "PAR1 and no more", "", "and of the format that its name says"),
    "empty": ("a.iob2", "", "", "no sentence in it. Expected one word"),
    "blank lines alone": ("a.iob2", "\n\n", "", "no sentence in it. Expected one word"),
    "empty JSON lines": ("a.jsonl", "", "", "no sentence in it. Expected one word"),
    "empty JSON list": ("a.json", "[]", "", "no sentence in it. Expected one word"),
    "empty JSON": ("a.json", "", "line 1", "not JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path: Path, case: str):
    name, text, place, words = BROKEN[case]
    path = tmp_path / name
    path.write_text(text)
    if words == "no sentence in it. Expected one word":  # what an empty file lacks shows only when all of it is read
        with pytest.raises(InputError) as error:
            load_corpus(str(path), labelled=True)
        message = str(error.value)
        assert str(path) in message
    else:
        message = message_of(path)
    assert words in message
    assert f"{place}:" in message or not place


@pytest.mark.parametrize("suffix", [".iob2", ".jsonl", ".json", ".txt", ".iob2.gz"])
def test_missing_file(tmp_path: Path, suffix: str):
    assert "no such file" in message_of(tmp_path / f"missing{suffix}", labelled=suffix != ".txt")


def test_a_directory_is_no_corpus(tmp_path: Path):
    with pytest.raises(InputError, match=str(tmp_path)):
        load_corpus(str(tmp_path), labelled=True)


def test_corpora_are_cached_until_they_change(tmp_path: Path, monkeypatch):
    path = tmp_path / "corpus.iob2"
    path.write_text(COLUMNS["tabs"])
    first = load_corpus(str(path), labelled=True)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "read_corpus", lambda *_: pytest.fail("read again"))
        assert load_corpus(str(path), labelled=True).to_list() == first.to_list()
    path.write_text(COLUMNS["tabs"].replace("Oslo", "Bern"))  # the same size
    assert load_corpus(str(path), labelled=True)[1]["words"] == ["Bern"]
    assert load_corpus(str(path), labelled=True)[0]["words"] == first[0]["words"]


def test_plain_text(tmp_path: Path):
    path = tmp_path / "target.txt"
    path.write_text("\ufeffMr. O'Neil, 42!\r\n\r\n  \r\n北京2号线。", encoding="utf-8")
    assert entities_of(path, labelled=False) == [
        (["Mr", ".", "O", "'", "Neil", ",", "42", "!"], []),
        (["北", "京", "2", "号", "线", "。"], []),
    ]


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8).filter(
    lambda text: text.strip() == text and " " not in text and not text.startswith(("#", "\ufeff")) and ":" not in text
)


@st.composite
def labelled_sentences(draw) -> list[tuple[list[str], list[tuple[int, int, str]]]]:
    """One to four sentences with flat entities, some of which touch."""
    corpus = []
    for _ in range(draw(st.integers(1, 4))):
        words = draw(st.lists(TEXTS.filter(lambda word: not is_mark([word])), min_size=1, max_size=6))
        entities, at = [], 0
        while at < len(words):
            length = draw(st.integers(1, len(words) - at))
            if name := draw(st.sampled_from(["", "PER", "LOC", "work_of-art"])):
                entities.append((at, length, name))
            at += length
        corpus.append((words, entities))
    assume(not all(word.isdecimal() for words, _ in corpus for word in words))
    return corpus


def written(corpus: list, scheme: str, kind: str) -> str:
    """The corpus as the content of a file."""
    blocks = []
    for words, entities in corpus:
        tags = encode_tags(len(words), entities, "BIOES" if scheme == "BILOU" else scheme)
        if scheme == "BILOU":
            tags = [re.sub("^E-", "L-", re.sub("^S-", "U-", tag)) for tag in tags]
        if kind == "jsonl":
            blocks.append(json.dumps({"tokens": words, "tags": tags}, ensure_ascii=len(words) % 2 == 0))
            continue
        middle = {"tabs": "\t", "blanks": "  ", "index": "\tx\t", "CRLF": "\t"}[kind]
        index = [f"{n}\t" if kind == "index" else "" for n in range(1, len(words) + 1)]
        blocks.append("".join(f"{i}{w}{middle}{t}\n" for i, w, t in zip(index, words, tags, strict=True)))
    text = "\n".join(blocks)
    return text.replace("\n", "\r\n") if kind == "CRLF" else text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labelled_sentences(), st.sampled_from(["IOB1", "IOB2", "BIOES", "BILOU"]), st.data())
def test_what_is_written_is_read(tmp_path: Path, corpus: list, scheme: str, data: st.DataObject):
    kind = data.draw(st.sampled_from(["tabs", "blanks", "index", "CRLF", "jsonl"]))
    path = tmp_path / ("a.jsonl" if kind == "jsonl" else "a.conll")
    path.write_text(written(corpus, scheme, kind), encoding="utf-8", newline="")
    rows = list(read_corpus(str(path), True))
    assert [(row["words"], list(zip(row["begins"], row["lengths"], row["types"], strict=True))) for row in rows] == corpus
    assert not any(row["notes"] for row in rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(max_codepoint=0xD7FF), max_size=30),  # beyond, offsets may be those of UTF-16
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=4),
)
def test_entities_with_offsets_keep_their_text(tmp_path: Path, text: str, borders: list):
    spans = sorted({(min(pair), max(pair)) for pair in borders if max(pair) <= len(text) and pair[0] != pair[1]})
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": text, "entities": [[*span, "X"] for span in spans]}))
    rows = list(read_corpus(str(path), True))
    visible = [text[a:b] for a, b in split_words(text)]
    assert "".join(word for row in rows for word in row["words"]) == "".join(visible)
    found = {"".join(row["words"][b : b + n]) for row in rows for b, n in zip(row["begins"], row["lengths"], strict=True)}
    for start, end in spans:
        inside = "".join(text[max(a, start) : min(b, end)] for a, b in split_words(text) if a < end and b > start)
        assert inside in found or not inside


SUFFIXES = [".conll", ".jsonl", ".json", ".txt", ".parquet", ".spacy", ".conll.gz", ".jsonl.bz2", ".json.xz", ".txt.zst"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(SUFFIXES), st.booleans(), st.sampled_from(["strict", "replace"]))
def test_arbitrary_bytes_end_in_sentences_or_a_message(tmp_path: Path, data: bytes, suffix: str, labelled: bool, errors: str):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        for row in read_corpus(str(path), labelled, ReadingOptions(encoding_errors=errors)):
            assert row["words"] and all(row["words"])
            json.dumps(row, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.ann", "brat's annotations need their text"),
        ("a.docx", "documents of a word processor are not read"),
        ("a.pdf", "PDF is not read. Rename or convert it"),
        ("a.xml", "XML is not read. Rename or convert it"),
        ("a.html", "HTML is not read. Rename"),
        ("a.xlsx", "spreadsheets are not read, save"),
        ("a.zip", "an archive is no corpus, unpack"),
        ("a.tar.gz", "an archive is no corpus, unpack"),
        ("a.en", "the format follows from the name, and this one names none"),
        ("a.pkl", "the format follows from the name"),
    ],
)
@pytest.mark.parametrize("labelled", [False, True])
def test_names_that_say_no_format(tmp_path: Path, name: str, advice: str, labelled: bool):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"Anna B-PER\n") if name.endswith(".gz") else b"Anna B-PER\n")
    message = message_of(path, labelled)
    assert advice in message and "Rename or convert it: .conll, .tsv, .csv" in message
