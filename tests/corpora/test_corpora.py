"""Protects the path from a corpus file to labelled words: every entity of every label scheme and file format arrives where it
belongs, and a mistake in a file is an InputError that names file and line."""

import bz2
import contextlib
import gzip
import json
import lzma
import random
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Sequence as SequenceFeature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glode.corpora import columns, files, hub, reading, records
from glode.corpora.files import zstd
from glode.corpora.hub import load_hub_corpus
from glode.corpora.labels import count_repeated, map_types, summarize
from glode.corpora.options import ReadingOptions
from glode.corpora.reading import load_corpus, read_corpus
from glode.corpora.schema import CORPUS
from glode.corpora.schemes import decode_tags, detect_scheme, encode_tags
from glode.errors import InputError
from glode.features.windows import gold_entities
from modeling_glode import split_words

pytestmark = pytest.mark.usefixtures("datasets_cache")

TYPES = ["PER", "LOC", "ORG"]


def random_entities(rng: random.Random, number: int, apart: bool = False) -> list[tuple[int, int, str]]:
    """Flat entities; they often touch, also those of the same type, unless they shall be `apart`."""
    entities, at = [], 0
    while at < number:
        length = min(rng.choice([1, 1, 2, 3]), number - at)
        if rng.random() < 0.6:
            entities.append((at, length, rng.choice(TYPES)))
            length += apart
        at += length
    return entities


def entities_of(path: Path, labelled: bool = True) -> list[tuple[list[str], list[tuple[int, int, str]]]]:
    """Words and entities, read without and with the cache, which must agree."""
    rows = list(read_corpus(str(path), labelled))
    assert load_corpus(str(path), labelled).to_list() == rows
    return [(row["words"], list(zip(row["begins"], row["lengths"], row["types"], strict=True))) for row in rows]


def message_of(path: Path, labelled: bool = True) -> str:
    """The InputError of a broken file, which both ways of reading it raise."""
    with pytest.raises(InputError) as plain:
        list(read_corpus(str(path), labelled))
    with pytest.raises(InputError) as cached:
        load_corpus(str(path), labelled)
    assert str(plain.value) == str(cached.value)
    assert str(path) in str(plain.value)
    return str(plain.value)


# ------------------------------------------------------------------------------------------------------------- schemes


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BIOES", "IO"])
def test_round_trip(scheme: str):
    rng = random.Random(scheme)
    touching = 0
    for _ in range(200):
        number = rng.randint(1, 12)
        entities = random_entities(rng, number, apart=scheme == "IO")
        touching += any(a[0] + a[1] == b[0] and a[2] == b[2] for a, b in pairwise(entities))
        tags = encode_tags(number, entities, scheme)
        assert len(tags) == number
        if entities:
            assert detect_scheme(tags) in {"IOB1": {"IOB"}, "IOB2": {"IOB"}, "BIOES": {"IOB", "BIOES"}, "IO": {"IO"}}[scheme]
        assert decode_tags(tags, {"IO": "IO", "BIOES": "BIOES"}.get(scheme, "IOB")) == entities
    assert scheme == "IO" or touching > 20


def test_exact_tags():
    entities = [(0, 2, "PER"), (2, 1, "PER"), (3, 1, "LOC"), (5, 3, "LOC")]
    assert encode_tags(8, entities, "IOB1") == ["I-PER", "I-PER", "B-PER", "I-LOC", "O", "I-LOC", "I-LOC", "I-LOC"]
    assert encode_tags(8, entities, "IOB2") == ["B-PER", "I-PER", "B-PER", "B-LOC", "O", "B-LOC", "I-LOC", "I-LOC"]
    assert encode_tags(8, entities, "BIOES") == ["B-PER", "E-PER", "S-PER", "S-LOC", "O", "B-LOC", "I-LOC", "E-LOC"]
    assert encode_tags(8, entities, "IO") == ["PER", "PER", "PER", "LOC", "O", "LOC", "LOC", "LOC"]


def test_files_of_all_schemes_hold_the_same_entities(tmp_path: Path):
    rng = random.Random(7)
    wanted = [([f"w{i}" for i in range(9)], random_entities(rng, 9)) for _ in range(30)]
    for scheme in ("IOB1", "IOB2", "BIOES", "BILOU"):
        blocks = []
        for words, entities in wanted:
            tags = encode_tags(len(words), entities, "BIOES" if scheme == "BILOU" else scheme)
            if scheme == "BILOU":
                tags = [tag.replace("E-", "L-").replace("S-", "U-") for tag in tags]
            blocks.append("".join(f"{word} {tag}\n" for word, tag in zip(words, tags, strict=True)))
        path = tmp_path / f"{scheme}.conll"
        path.write_text("\n".join(blocks))
        assert entities_of(path) == wanted, scheme


@pytest.mark.parametrize(
    ("tags", "scheme", "entities"),
    [
        ("O I-PER I-PER O", "IOB", [(1, 2, "PER")]),
        ("B-PER I-LOC I-LOC", "IOB", [(0, 1, "PER"), (1, 2, "LOC")]),
        ("I-PER", "IOB", [(0, 1, "PER")]),
        ("O E-PER O", "BIOES", [(1, 1, "PER")]),
        ("I-PER E-PER I-PER", "BIOES", [(0, 2, "PER"), (2, 1, "PER")]),
        ("B-PER O S-LOC S-LOC", "BIOES", [(0, 1, "PER"), (2, 1, "LOC"), (3, 1, "LOC")]),
        ("B-PER M-PER E-PER", "BIOES", [(0, 3, "PER")]),
        ("B-PER L-PER U-PER L-LOC", "BILOU", [(0, 2, "PER"), (2, 1, "PER"), (3, 1, "LOC")]),
        ("PER PER LOC O PER", "IO", [(0, 2, "PER"), (2, 1, "LOC"), (4, 1, "PER")]),
    ],
)
def test_broken_and_unusual_sequences(tags: str, scheme: str, entities: list):
    assert decode_tags(tags.split(), scheme) == entities
    if scheme != "IOB":
        assert detect_scheme(tags.split()) in {scheme, "IOB"}


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O", "IO"),
        ("O PER LOC", "IO"),
        ("O I-PER", "IOB"),
        ("B-PER I-PER O B-art-work", "IOB"),
        ("B-PER I-PER E-PER S-LOC", "BIOES"),
        ("B-PER M-PER E-PER S-LOC", "BIOES"),
        ("O S-PER", "BIOES"),
        ("B-PER I-PER L-PER U-LOC", "BILOU"),
        ("O U-PER", "BILOU"),
    ],
)
def test_detect_scheme(tags: str, scheme: str):
    assert detect_scheme(tags.split()) == scheme


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ("B-PER I-PER LOC", "'LOC'"),
        ("X-PER O", "'X-PER'"),
        ("B-PER X-PER", "'X-PER'"),
        ("B I O", "'B'"),
        ("B-PER B- O", "'B-'"),
        ("B-PER E-PER U-PER", "'E'"),
        ("B-PER M-PER L-PER", "'M'"),
    ],
)
def test_detect_scheme_refuses(tags: str, named: str):
    with pytest.raises(InputError, match=named):
        detect_scheme(tags.split())


# ------------------------------------------------------------------------------------------------------------- readers

COLUMNS = {
    "tabs": "Anna\tB-PER\nBerg\tI-PER\nsings\tO\n\nOslo\tB-LOC\n",
    "spaces": "Anna B-PER\nBerg   I-PER\nsings O\n\nOslo B-LOC\n",
    "extra columns": "Anna NNP I-NP B-PER\nBerg NNP I-NP I-PER\nsings VB O O\n\nOslo NNP I-NP B-LOC\n",
    "CRLF": "Anna\tB-PER\r\nBerg\tI-PER\r\nsings\tO\r\n\r\nOslo\tB-LOC\r\n",
    "byte order mark": "\ufeffAnna\tB-PER\nBerg\tI-PER\nsings\tO\n\nOslo\tB-LOC\n",
    "document lines": "-DOCSTART- -X- -X- O\n\nAnna B-PER\nBerg I-PER\nsings O\n-DOCSTART- O\nOslo B-LOC\n",
    "no final newline": "Anna\tB-PER\nBerg\tI-PER\nsings\tO\n\nOslo\tB-LOC",
    "many blank lines": "\n \nAnna\tB-PER\nBerg\tI-PER\nsings\tO\n\t\n\n \n\nOslo\tB-LOC\n\n\n",
}
TWO = [(["Anna", "Berg", "sings"], [(0, 2, "PER")]), (["Oslo"], [(0, 1, "LOC")])]


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("zipped", [False, True])
def test_column_files(tmp_path: Path, kind: str, zipped: bool):
    path = tmp_path / ("corpus.iob2.gz" if zipped else "corpus.iob2")
    data = COLUMNS[kind].encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert entities_of(path) == TWO


def test_words_with_spaces_and_line_separators_stay_whole(tmp_path: Path):
    path = tmp_path / "corpus.tsv"
    path.write_text("New York\tB-LOC\na\u2028b\tO\n\u00a0\tO\n", encoding="utf-8")
    words, entities = entities_of(path)[0]
    assert words[:2] == ["New York", "a\u2028b"] and len(words) == 3 and words[2].strip()  # an invisible word keeps its place
    assert entities == [(0, 1, "LOC")]


@pytest.mark.parametrize("keys", [("tokens", "tags"), ("words", "ner_tags"), ("tokens", "labels")])
@pytest.mark.parametrize("zipped", [False, True])
def test_json_lines(tmp_path: Path, keys: tuple[str, str], zipped: bool):
    lines = [{keys[0]: words, keys[1]: encode_tags(len(words), entities)} for words, entities in TWO]
    text = "\n\n".join(json.dumps(line) for line in [*lines, {keys[0]: [], keys[1]: []}])
    path = tmp_path / ("corpus.jsonl.gz" if zipped else "corpus.jsonl")
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    assert entities_of(path) == TWO


def test_json_lines_without_tags_are_plain_text(tmp_path: Path):
    path = tmp_path / "target.jsonl"
    path.write_text('{"tokens": ["Anna", "sings"]}\n')
    assert entities_of(path, labelled=False) == [(["Anna", "sings"], [])]


@pytest.mark.parametrize("name", ["corpus.json", "corpus.json.gz"])
def test_spanner_json(tmp_path: Path, name: str):
    records = [
        {"context": "a b c d", "span_posLabel": {"3;3": "LOC", "0;1": "PER"}},
        {"context": "nothing here", "span_posLabel": {}},
        {"context": "", "span_posLabel": {}},
        {"context": "without spans"},
    ]
    data = json.dumps(records, indent=1).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert entities_of(path) == [
        (["a", "b", "c", "d"], [(0, 2, "PER"), (3, 1, "LOC")]),
        (["nothing", "here"], []),
        (["without", "spans"], []),
    ]


def test_plain_text(tmp_path: Path):
    path = tmp_path / "target.txt"
    path.write_text("\ufeffMr. O'Neil, 42!\r\n\r\n  \r\n北京2号线。", encoding="utf-8")
    assert entities_of(path, labelled=False) == [
        (["Mr", ".", "O", "'", "Neil", ",", "42", "!"], []),
        (["北", "京", "2", "号", "线", "。"], []),
    ]


def test_a_text_file_of_a_labelled_corpus_has_columns(tmp_path: Path):
    path = tmp_path / "train.txt"
    path.write_text(COLUMNS["tabs"])
    assert entities_of(path) == TWO


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
        "lists of equal length",
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
    "offsets backwards": ("a.jsonl", '{"text": "ab", "entities": [[2, 1, "X"]]}', "line 1", "span {'start': 2"),
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
    "empty": ("a.iob2", "", "", "no sentence in it"),
    "blank lines alone": ("a.iob2", "\n\n", "", "no sentence in it"),
    "empty JSON lines": ("a.jsonl", "", "", "no sentence in it"),
    "empty JSON list": ("a.json", "[]", "", "no sentence in it"),
    "empty JSON": ("a.json", "", "line 1", "not JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path: Path, case: str):
    name, text, place, words = BROKEN[case]
    path = tmp_path / name
    path.write_text(text)
    if words == "no sentence in it":  # what an empty file lacks shows only when all of it is read
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


@pytest.mark.parametrize("name", ["a.iob2", "a.jsonl", "a.json", "a.txt", "a.iob2.gz"])
def test_other_encodings_are_named_with_their_line(tmp_path: Path, name: str):
    path = tmp_path / name
    data = b"Anna\tB-PER\nM\xfcller\tI-PER\n"
    if name == "a.jsonl":
        data = b'{"tokens": ["Anna"], "tags": ["B-PER"]}\n{"tokens": ["M\xfcller"], "tags": ["B-PER"]}\n'
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    message = message_of(path, labelled=name != "a.txt")
    assert "UTF-8" in message and "line 2:" in message


@pytest.mark.parametrize("damage", ["cut off", "overwritten", "not gzip at all"])
def test_damaged_gzip_files(tmp_path: Path, damage: str):
    rng = random.Random(0)
    data = gzip.compress("".join(f"{rng.random()} O\n" for _ in range(3000)).encode())
    broken = {"cut off": data[:-2000], "overwritten": data[:2000] + b"\xff" * 3000 + data[5000:], "not gzip at all": b"Anna O\n"}
    path = tmp_path / "a.iob2.gz"
    path.write_bytes(broken[damage])
    assert "packed as its name says" in message_of(path)


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


# ------------------------------------------------------------------------------------------- formats of other hands

CONLL = {
    "CoNLL-2003 English": (
        "-DOCSTART- -X- O O\n\nAnna NNP I-NP I-PER\nBerg NNP I-NP I-PER\nsings VB I-VP O\n\nOslo NNP I-NP I-LOC\n",
        "IOB1",
    ),
    "CoNLL-2003 German": (
        "Anna Anna NE I-NC I-PER\nBerg Berg NE I-NC I-PER\nsings sing VV I-VC O\n\nOslo Oslo NE I-NC I-LOC\n",
        "IOB1",
    ),
    "CoNLL-2002 Spanish": ("Anna B-PER\nBerg I-PER\nsings O\n\nOslo B-LOC\n", "IOB2"),
    "CoNLL-2002 Dutch": ("-DOCSTART- -DOCSTART- O\nAnna N B-PER\nBerg N I-PER\nsings V O\n\nOslo N B-LOC\n", "IOB2"),
    "an index": (
        "# text = Anna Berg sings\n1\tAnna\tB-PER\n2-3\tBergsings\tO\n2\tBerg\tI-PER\n2.1\tx\tO\n3\tsings\tO\n\n1\tOslo\tB-LOC\n",
        "IOB2",
    ),
    "CoNLL-U": (
        "# sent_id = 1\n1\tAnna\tAnna\tPROPN\t_\t_\t3\tx\t_\tNER=B-PER\n"
        "2\tBerg\tB\tPROPN\t_\t_\t1\tx\t_\tSpaceAfter=No|NER=I-PER\n"
        "3\tsings\ts\tVERB\t_\t_\t0\tx\t_\t_\n\n1\tOslo\tO\tPROPN\t_\t_\t0\tx\t_\tNER=B-LOC|SpaceAfter=No\n",
        "IOB2",
    ),
    "carriage returns alone": ("Anna B-PER\rBerg I-PER\rsings O\r\rOslo B-LOC\r", "IOB2"),
}


@pytest.mark.parametrize("kind", CONLL)
def test_column_orders(tmp_path: Path, kind: str):
    text, scheme = CONLL[kind]
    path = tmp_path / "corpus.conll"
    path.write_text(text, newline="")
    assert entities_of(path) == TWO
    assert next(read_corpus(str(path), True))["format"] == f"columns, {scheme}"
    if kind == "an index":
        assert notes_of(path) == {"comments left out": 1, "ranges and empty nodes passed over": 2}


def notes_of(path: Path, **options) -> dict[str, int]:
    return summarize(load_corpus(str(path), True, ReadingOptions(**options)))["notes"]


def test_a_hash_is_a_word_where_it_has_a_tag(tmp_path: Path):
    path = tmp_path / "corpus.iob2"
    path.write_text("# newdoc\n# O\nAnna B-PER\n#1 B-MISC\n# sent_id = O\n#hash O\n\n# the end\n")
    assert entities_of(path) == [(["#", "Anna", "#1", "#hash"], [(1, 1, "PER"), (2, 1, "MISC")])]
    assert notes_of(path) == {"comments left out": 3}


def test_numbers_are_words_where_they_do_not_count(tmp_path: Path):
    path = tmp_path / "corpus.conll"
    path.write_text("1 CD O\nMay NNP B-DATE\n\n2 CD O\n")
    assert [words for words, _ in entities_of(path)] == [["1", "May"], ["2"]]


def test_white_space_of_other_kinds_is_part_of_a_word(tmp_path: Path):
    path = tmp_path / "corpus.iob2"
    path.write_text("10\u00a0000 O\n\u3000 O\nA\u2028B B-ORG\n", encoding="utf-8")
    assert entities_of(path) == [(["10\u00a0000", "\ufffd", "A\u2028B"], [(2, 1, "ORG")])]
    assert notes_of(path) == {"invisible words kept": 1}


@pytest.mark.parametrize(
    ("tags", "scheme", "broken"),
    [
        ("I-PER I-PER O B-LOC O I-ORG", "IOB1", 1),
        ("B-PER I-PER O B-LOC I-PER", "IOB2", 1),
        ("I-PER B-PER O I-LOC", "IOB1", 0),
        ("B-PER I-PER O S-LOC", "BIOES", 1),
        ("B-PER E-PER E-LOC", "BIOES", 1),
        ("B-PER L-PER U-LOC", "BILOU", 0),
        ("PER PER O", "IO", 0),
    ],
)
def test_schemes_are_told_apart_and_what_contradicts_them_is_counted(tmp_path: Path, tags: str, scheme: str, broken: int):
    path = tmp_path / "corpus.iob"
    path.write_text("".join(f"w {tag}\n" for tag in tags.split()))
    assert next(read_corpus(str(path), True))["format"] == f"columns, {scheme}"
    assert notes_of(path) == ({"tags out of place": broken} if broken else {})


OFFSETS = {
    "spaCy": {"text": "Anna Berg sings", "entities": [[0, 9, "PER"]]},
    "spaCy's pairs": ["Anna Berg sings", {"entities": [[0, 9, "PER"]]}],
    "doccano": {"text": "Anna Berg sings", "label": [[0, 9, "PER"]]},
    "doccano with relations": {
        "text": "Anna Berg sings",
        "entities": [{"id": 1, "label": "PER", "start_offset": 0, "end_offset": 9}],
    },
    "Prodigy": {
        "text": "Anna Berg sings",
        "tokens": [{"text": "Anna Berg", "start": 0, "end": 9, "id": 0}],
        "spans": [{"start": 0, "end": 9, "label": "PER", "token_start": 0, "token_end": 0}],
        "answer": "accept",
    },
    "Label Studio": {
        "data": {"text": "Anna Berg sings"},
        "annotations": [
            {"was_cancelled": True, "result": []},
            {
                "result": [
                    {"value": {"start": 0, "end": 9, "text": "Anna Berg", "labels": ["PER"]}},
                    {"value": {"choices": ["x"]}},
                ]
            },
        ],
    },
    "Label Studio's short form": {
        "text": "Anna Berg sings",
        "label": [{"start": 0, "end": 9, "text": "Anna Berg", "labels": ["PER"]}],
    },
}


@pytest.mark.parametrize("kind", OFFSETS)
@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.json", "lines.json"])
def test_offsets(tmp_path: Path, kind: str, name: str):
    records = [OFFSETS[kind], {"text": "Oslo", "entities": [[0, 4, "LOC"]]}]
    if name == "lines.json" and isinstance(records[0], list):
        records.reverse()
    path = tmp_path / name
    path.write_text(json.dumps(records, indent=1) if name == "corpus.json" else "\n".join(map(json.dumps, records)))
    assert sorted(entities_of(path)) == sorted(TWO)


def test_borders_of_entities_are_borders_of_words(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    record = {"text": " Berlins Mitte. 上海人", "entities": [[1, 7, "LOC"], [8, 14, "LOC"], [16, 18, "LOC"], [8, 9, "X"]]}
    path.write_text(json.dumps(record))
    words = ["Berlin", "s", "Mitte", ".", "上", "海", "人"]
    assert entities_of(path) == [(words, [(0, 1, "LOC"), (2, 1, "LOC"), (4, 2, "LOC")])]
    assert notes_of(path) == {"entities without a visible character left out": 1, "words split at the border of an entity": 1}


def test_offsets_in_the_units_of_browsers(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"text": "😀 Oslo 😀", "label": [{"start": 3, "end": 7, "text": "Oslo", "labels": ["LOC"]}]}))
    assert entities_of(path) == [(["😀", "Oslo", "😀"], [(1, 1, "LOC")])]
    assert notes_of(path) == {"offsets in UTF-16 units converted": 1}


def test_the_first_annotation_of_a_task_counts(tmp_path: Path):
    path, values = tmp_path / "corpus.json", [{"start": 0, "end": 4, "labels": [name]} for name in ("LOC", "PER")]
    path.write_text(json.dumps([{"data": {"text": "Oslo"}, "annotations": [{"result": [{"value": value}]} for value in values]}]))
    assert entities_of(path) == [(["Oslo"], [(0, 1, "LOC")])]
    assert notes_of(path) == {"further annotations of a task left out": 1}


def test_what_a_label_a_span_cannot_hold_is_counted(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    entities = [[0, 8, "ORG"], [0, 8, "LOC"], [0, 3, "LOC"]]
    lines = [{"text": "no", "answer": "reject"}, {"text": "New York", "entities": entities}, {"text": "no", "answer": "ignore"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert entities_of(path) == [(["New", "York"], [(0, 1, "LOC"), (0, 2, "LOC")])]
    assert notes_of(path) == {
        "entities that overlap another": 1,
        "records left out that an annotator rejected or ignored": 2,
        "second types of a span left out": 1,
    }


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


def test_a_class_without_a_name(tmp_path: Path):
    features = Features({"tokens": SequenceFeature(Value("string")), "ner_tags": SequenceFeature(ClassLabel(names=["O"]))})
    Dataset.from_list([{"tokens": ["a"], "ner_tags": [-1]}], features=features).to_parquet(tmp_path / "a.parquet")
    message = message_of(tmp_path / "a.parquet")
    assert "row 1: class -1 of `ner_tags`" in message and "has no name. Give it one" in message


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


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
def test_packings(tmp_path: Path, packing: str):
    path, data = tmp_path / f"corpus.conll{packing}", COLUMNS["tabs"].encode()
    modules = {".gz": gzip, ".bz2": bz2, ".xz": lzma, ".zst": zstd}
    half = len("Anna\tB-PER\nBe")
    path.write_bytes(b"".join(modules[packing].compress(part) for part in (data[:half], data[half:])))  # two streams in one file
    assert entities_of(path) == TWO
    path.write_bytes(path.read_bytes()[:-6])
    assert "packed as its name says" in message_of(path)


def test_encodings(tmp_path: Path):
    latin, utf8 = tmp_path / "esp.train", tmp_path / "new.conll"
    latin.write_bytes("Núñez B-PER\n".encode("latin-1"))
    utf8.write_bytes("Núñez B-PER\n".encode())
    for path, form in ((latin, "columns, IOB2, iso8859-1"), (utf8, "columns, IOB2")):
        row = next(read_corpus(str(path), True, ReadingOptions("latin-1")))
        assert (row["words"], row["format"]) == (["Núñez"], form)
    assert "line 1: at byte 1 of the file byte 0xfa is not UTF-8" in (message := message_of(latin))
    assert "Convert it to UTF-8, name its encoding (--encoding latin-1)" in message
    latin.write_bytes("Núñez B-PER\n".encode() + b"Mu\xf1oz B-PER\n")  # one stray byte does not make all else of it latin-1
    with pytest.raises(InputError, match="line 2: at byte 16 of the file byte 0xf1"):
        list(read_corpus(str(latin), True, ReadingOptions("latin-1")))
    for wrong in ("utf-16", "nonsense"):
        with pytest.raises(InputError, match=f"--encoding {wrong}: not known, or not one"):
            list(read_corpus(str(latin), True, ReadingOptions(wrong)))


def test_bytes_that_are_no_text_are_replaced_and_counted_where_asked_for(tmp_path: Path):
    path = tmp_path / "corpus.conll"
    path.write_bytes(b"\xef\xbb\xbfAnna B-PER\nM\xfcl\0ler I-PER\n\xef\xbf\xbd O\n")
    assert "line 2: at byte 15 of the file byte 0xfc" in message_of(path)
    words = next(read_corpus(str(path), True, ReadingOptions(encoding_errors="replace")))["words"]
    assert words == ["Anna", "M\ufffdl\ufffdler", "\ufffd"]
    assert notes_of(path, encoding_errors="replace") == {"broken characters replaced": 2}
    path.write_bytes("Anna B-PER\n".encode("utf-16"))
    assert "byte 0 of the file" in message_of(path)


@pytest.mark.parametrize("name", ["bomb.conll.gz", "bomb.txt.xz", "bomb.jsonl.zst", "bomb.json.bz2"])
def test_lines_that_unpack_to_no_end(tmp_path: Path, monkeypatch, name: str):
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    path = tmp_path / name
    pack = {".gz": gzip, ".bz2": bz2, ".xz": lzma, ".zst": zstd}[path.suffix].compress
    path.write_bytes(pack(b"\n" + b"a" * 1001))
    message = message_of(path, labelled=not name.startswith("bomb.txt"))
    assert "line 2: longer than" in message and "Break it into lines" in message


def test_sentences_and_documents_without_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(columns, "LONGEST_SENTENCE", 10)
    monkeypatch.setattr(records, "LONGEST_DOCUMENT", 100)
    (tmp_path / "a.conll").write_text("a O\n" * 11)
    assert "line 1: a sentence of more than 10 words" in (message := message_of(tmp_path / "a.conll"))
    assert "A blank line ends a sentence" in message
    (tmp_path / "a.json").write_text("[" + "3,\n" * 100)
    assert "Write JSON lines" in message_of(tmp_path / "a.json")


def test_another_column_than_the_tags(tmp_path: Path):
    path = tmp_path / "lemmas.tsv"
    path.write_text("".join(f"word\tlemma{n}\n" for n in range(1500)))
    assert "line 1001: more than 1000 different tags" in (message := message_of(path))
    assert "Is this the column of the tags" in message


def test_words_that_nobody_sees_keep_their_place(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"tokens": ["", "Oslo", " "], "tags": ["O", "B-LOC", "O"]}')
    assert entities_of(path) == [(["\ufffd", "Oslo", "\ufffd"], [(1, 1, "LOC")])]
    assert notes_of(path) == {"invisible words kept": 2}


def test_a_long_line_is_read(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("ab " * 2**19)
    assert len(next(read_corpus(str(path), False))["words"]) == 2**19


def test_a_summary(tmp_path: Path):
    path = tmp_path / "corpus.conll"
    path.write_text(COLUMNS["tabs"])
    corpus = load_corpus(str(path), True)
    assert summarize(corpus) == {
        "format": "columns, IOB2",
        "sentences": 2,
        "words": 4,
        "entities": {"LOC": 1, "PER": 1},
        "longest_sentence": 3,
        "longest_entity": 2,
        "notes": {},
    }
    assert count_repeated(corpus, corpus.select([1])) == 1
    mapped = map_types(corpus, {"PER": "O", "LOC": "PLACE"})
    assert gold_entities(mapped) == [[], [(0, 1, "PLACE")]] and summarize(mapped)["entities"] == {"PLACE": 1}


# -------------------------------------------------------------------------------------------------------- properties

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8).filter(
    lambda text: text.strip() == text and " " not in text and not text.startswith(("#", "\ufeff"))
)


@st.composite
def labelled_sentences(draw) -> list[tuple[list[str], list[tuple[int, int, str]]]]:
    """One to four sentences with flat entities, some of which touch."""
    corpus = []
    for _ in range(draw(st.integers(1, 4))):
        words = draw(st.lists(TEXTS.filter(lambda word: word != "-DOCSTART-"), min_size=1, max_size=6))
        entities, at = [], 0
        while at < len(words):
            length = draw(st.integers(1, len(words) - at))
            if name := draw(st.sampled_from(["", "PER", "LOC", "work_of-art"])):
                entities.append((at, length, name))
            at += length
        corpus.append((words, entities))
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
    st.text(st.characters(codec="utf-8"), max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=4)
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


# ------------------------------------------------------------------------------------------------------ Hub data sets


def hub_data(features: Features, rows: list[dict]) -> DatasetDict:
    return DatasetDict({name: Dataset.from_list(rows, features=features) for name in ("train", "validation")})


@pytest.mark.parametrize(
    ("names", "numbers", "wanted"),
    [
        (["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], [1, 2, 0, 3], [(0, 2, "PER"), (3, 1, "LOC")]),
        (["O", "PER", "LOC"], [1, 1, 0, 2], [(0, 2, "PER"), (3, 1, "LOC")]),
        (["B-PER", "E-PER", "S-LOC", "I-PER", "O"], [0, 1, 4, 2], [(0, 2, "PER"), (3, 1, "LOC")]),
    ],
)
@pytest.mark.parametrize("as_names", [False, True])
def test_hub_data_sets_are_converted(monkeypatch, names: list[str], numbers: list[int], wanted: list, as_names: bool):
    """Whether the tags are stored as classes or as their names."""
    tag = Value("string") if as_names else ClassLabel(names=names)
    features = Features({"tokens": SequenceFeature(Value("string")), "ner_tags": SequenceFeature(tag), "langs": Value("string")})
    tags = [names[i] for i in numbers] if as_names else numbers
    rows = [{"tokens": ["Anna", "Berg", "in", "Oslo"], "ner_tags": tags, "langs": "en"}]
    rows += [{"tokens": [], "ner_tags": [], "langs": "en"}]
    asked = []
    monkeypatch.setattr(hub, "load_dataset", lambda *args: asked.append(args) or hub_data(features, rows))
    loaded = load_hub_corpus("some/set", "en")
    assert asked == [("some/set", "en")]
    assert set(loaded) == {"train", "validation"}
    for part in loaded.values():
        assert part.features == CORPUS
        assert part["words"][:] == [["Anna", "Berg", "in", "Oslo"]]  # the empty row is gone
        assert gold_entities(part) == [wanted]


@pytest.mark.parametrize("error", [ConnectionError("no route\nmore"), ConnectionError(), ValueError("unknown config 'xx'")])
def test_an_unreachable_hub_data_set(monkeypatch, error: Exception):
    def fail(*_):
        raise error

    monkeypatch.setattr(hub, "load_dataset", fail)
    with pytest.raises(InputError) as raised:
        load_hub_corpus("some/set", "xx")
    message = str(raised.value)
    assert "some/set" in message and "xx" in message and type(error).__name__ in message and "\n" not in message
    assert "Check the name, the language and the connection" in message


@pytest.mark.parametrize(
    ("column", "tag", "message"),
    [
        ("pos", Value("string"), "expected `tokens` and `ner_tags`"),
        ("ner_tags", Value("int64"), "`ner_tags` are numbers without names"),
        ("ner_tags", ClassLabel(names=["O", "X-PER"]), "tag 'X-PER' fits no label scheme"),
    ],
)
def test_hub_data_sets_of_another_kind(monkeypatch, column: str, tag: Value | ClassLabel, message: str):
    features = Features({"tokens": SequenceFeature(Value("string")), column: SequenceFeature(tag)})
    row = {"tokens": ["a"], column: ["O"] if column == "pos" else [1]}
    monkeypatch.setattr(hub, "load_dataset", lambda *_: hub_data(features, [row]))
    with pytest.raises(InputError, match="data set 'some/set'") as error:
        load_hub_corpus("some/set", "en")
    assert message in str(error.value)
