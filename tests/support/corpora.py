"""What the tests of corpora share: small corpora, and ways to read them."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from glode.corpora.labels import summarize
from glode.corpora.options import ReadingOptions
from glode.corpora.reading import load_corpus, read_corpus
from glode.errors import InputError

TYPES = ["PER", "LOC", "ORG"]


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


LENA = [(["Lena", "Ott", "lebt"], [(0, 2, "PER")]), (["Kiel"], [(0, 1, "LOC")])]
TWO = [(["Anna", "Berg", "sings"], [(0, 2, "PER")]), (["Oslo"], [(0, 1, "LOC")])]


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


Sentences = list[tuple[list[str], list[tuple[int, int, str]]]]  # words, entities


def as_sentences(rows: Iterable[dict]) -> Sentences:
    """Words and entities of rows."""
    return [(row["words"], list(zip(row["begins"], row["lengths"], row["types"], strict=True))) for row in rows]


def entities_of(path: Path, labelled: bool = True, **options) -> Sentences:
    """Words and entities, read without and with the cache, which must agree."""
    rows = list(read_corpus(str(path), labelled, ReadingOptions(**options)))
    assert load_corpus(str(path), labelled, ReadingOptions(**options)).to_list() == rows
    return as_sentences(rows)


def message_of(path: Path, labelled: bool = True, **options) -> str:
    """The InputError of a broken file, which both ways of reading it raise."""
    with pytest.raises(InputError) as plain:
        list(read_corpus(str(path), labelled, ReadingOptions(**options)))
    with pytest.raises(InputError) as cached:
        load_corpus(str(path), labelled, ReadingOptions(**options))
    assert str(plain.value) == str(cached.value)
    assert str(path) in str(plain.value) and "\n" not in str(plain.value)
    return str(plain.value)


def written(path: Path, content: str | bytes | list | dict) -> Path:
    """A file of a text, bytes, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8", newline="")
    return path


def notes_of(path: Path, **options) -> dict[str, int]:
    return summarize(load_corpus(str(path), True, ReadingOptions(**options)))["notes"]
