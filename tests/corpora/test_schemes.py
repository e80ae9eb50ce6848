"""Protects the label schemes: entities and tags of every scheme are each other's image."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
from support.corpora import entities_of, notes_of, random_entities

from glode.corpora.reading import read_corpus
from glode.corpora.schemes import decode_tags, detect_scheme, encode_tags
from glode.errors import InputError

pytestmark = pytest.mark.usefixtures("datasets_cache")


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
