"""Protects the path from a corpus file to a batch: every entity of every label scheme and file format arrives in the cell of the
grid where it belongs, target labels arrive nowhere, and a mistake in a file is an InputError that names file and line."""

import gzip
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Sequence as SequenceFeature

import data_glode
from data_glode import (
    SENTENCE,
    GlodeCollator,
    TwoStreams,
    TwoStreamSampler,
    build_features,
    choose_span_length,
    decode_tags,
    detect_scheme,
    encode_tags,
    entity_counts,
    gold_entities,
    label_names,
    load_corpus,
    load_hub_corpus,
    merge_windows,
    read_corpus,
    span_counts,
    unreachable_share,
)
from modeling_glode import InputError, collate_windows, span_grid

pytestmark = pytest.mark.usefixtures("datasets_cache")

TYPES = ["PER", "LOC", "ORG"]
LABELS = ["O", "LOC", "ORG", "PER"]


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


def sentence(words: list[str], entities: list[tuple[int, int, str]]) -> dict:
    begins, lengths, types = ([entity[i] for entity in entities] for i in range(3))
    return {"words": words, "begins": begins, "lengths": lengths, "types": types}


def make_corpus(*rows: dict) -> Dataset:
    return Dataset.from_list(list(rows), features=SENTENCE)


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
    "no tag, spaces": ("a.iob2", "Anna B-PER\nsings\n", "line 2", "no tag"),
    "no tag, tab": ("a.iob2", "Anna\tB-PER\n\nsings\t\n", "line 3", "no tag"),
    "unknown prefix": ("a.iob2", "Anna B-PER\nsings O\nOslo X-LOC\n", "line 3", "'X-LOC'"),
    "bare and prefixed": ("a.iob2", "Anna B-PER\nsings O\n\nOslo LOC\n", "line 4", "'LOC'"),
    "two schemes": ("a.iob2", "Anna B-PER\nBerg E-PER\nsings O\nOslo U-LOC\n", "line 4", "scheme"),
    "unequal lists": ("a.jsonl", '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n', "line 2", "equal"),
    "numbers for tags": ("a.jsonl", '{"tokens": ["a"], "tags": [0]}\n', "line 1", "tags"),
    "no tokens": ("a.jsonl", '\n{"text": "a"}\n', "line 2", "tokens"),
    "a list": ("a.jsonl", '["a"]\n', "line 1", "tokens"),
    "JSON lines cut off": ("a.jsonl", '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a"\n', "line 2", "not JSON"),
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
        "inside",
    ),
    "span backwards": ("a.json", '[{"context": "a b", "span_posLabel": {"1;0": "PER"}}]', "record 1", "inside"),
    "span of one number": ("a.json", '[{"context": "a b", "span_posLabel": {"1": "PER"}}]', "record 1", "first;last"),
    "context of another kind": ("a.json", '[{"context": ["a"]}]', "record 1", "context"),
    "record of another kind": ("a.json", "[3]", "record 1", "context"),
    "empty": ("a.iob2", "", "", "no sentence"),
    "blank lines alone": ("a.iob2", "\n\n", "", "no sentence"),
    "empty JSON lines": ("a.jsonl", "", "", "no sentence"),
    "empty JSON list": ("a.json", "[]", "", "no sentence"),
    "empty JSON": ("a.json", "", "line 1", "not JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path: Path, case: str):
    name, text, place, words = BROKEN[case]
    path = tmp_path / name
    path.write_text(text)
    if words == "no sentence":  # what an empty file lacks shows only when all of it is read
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
    assert "cannot be read" in message_of(path)


def test_corpora_are_cached_until_they_change(tmp_path: Path, monkeypatch):
    path = tmp_path / "corpus.iob2"
    path.write_text(COLUMNS["tabs"])
    first = load_corpus(str(path), labelled=True)
    with monkeypatch.context() as patch:
        patch.setattr(data_glode, "read_corpus", lambda *_: pytest.fail("read again"))
        assert load_corpus(str(path), labelled=True).to_list() == first.to_list()
    path.write_text(COLUMNS["tabs"].replace("Oslo", "Bern"))  # the same size
    assert load_corpus(str(path), labelled=True)[1]["words"] == ["Bern"]
    assert load_corpus(str(path), labelled=True)[0]["words"] == first[0]["words"]


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
    monkeypatch.setattr(data_glode, "load_dataset", lambda *args: asked.append(args) or hub_data(features, rows))
    loaded = load_hub_corpus("some/set", "en")
    assert asked == [("some/set", "en")]
    assert set(loaded) == {"train", "validation"}
    for part in loaded.values():
        assert part.features == SENTENCE
        assert part["words"][:] == [["Anna", "Berg", "in", "Oslo"]]  # the empty row is gone
        assert gold_entities(part) == [wanted]


@pytest.mark.parametrize("error", [ConnectionError("no route\nmore"), ConnectionError(), ValueError("unknown config 'xx'")])
def test_an_unreachable_hub_data_set(monkeypatch, error: Exception):
    def fail(*_):
        raise error

    monkeypatch.setattr(data_glode, "load_dataset", fail)
    with pytest.raises(InputError) as raised:
        load_hub_corpus("some/set", "xx")
    message = str(raised.value)
    assert "some/set" in message and "xx" in message and type(error).__name__ in message and "\n" not in message


@pytest.mark.parametrize(
    "features",
    [
        {"tokens": SequenceFeature(Value("string")), "tags": SequenceFeature(Value("string"))},
        {"tokens": SequenceFeature(Value("string")), "ner_tags": SequenceFeature(Value("int64"))},
        {"tokens": SequenceFeature(Value("string")), "ner_tags": SequenceFeature(ClassLabel(names=["O", "X-PER"]))},
    ],
    ids=["other columns", "numbers without names", "unknown scheme"],
)
def test_hub_data_sets_of_another_kind(monkeypatch, features: dict):
    row = {"tokens": ["a"]} | {name: ["O"] if name == "tags" else [1] for name in features if name != "tokens"}
    monkeypatch.setattr(data_glode, "load_dataset", lambda *_: hub_data(Features(features), [row]))
    with pytest.raises(InputError):
        load_hub_corpus("some/set", "en")


# ----------------------------------------------------------------------------------------------------------- summaries


def test_label_names(corpus: Dataset):
    assert label_names(corpus) == ["O", "LOC", "PER"]
    other = make_corpus(sentence(["x"], [(0, 1, "ART")]))
    assert label_names(corpus, other) == ["O", "ART", "LOC", "PER"]
    with pytest.raises(InputError, match="no entity"):
        label_names(make_corpus(sentence(["x"], [])))
    assert entity_counts(corpus) == Counter(name for row in corpus for name in row["types"])


def test_choose_span_length_is_the_smallest_that_covers():
    rng = random.Random(3)
    for number in [1, 2, 199, 200, 201, 399, 400, *(rng.randint(1, 3000) for _ in range(60))]:
        lengths = [min(int(rng.expovariate(0.7)) + 1, 15) for _ in range(number)]
        data = make_corpus({"words": [], "begins": [0] * number, "lengths": lengths, "types": ["PER"] * number})
        smallest = next(n for n in range(1, 16) if 1000 * sum(x <= n for x in lengths) >= 995 * number)
        assert choose_span_length(data) == smallest, number


def test_unreachable_share(tokenizer):
    data = make_corpus(sentence(["w"] * 9, [(0, 1, "PER"), (1, 4, "PER")]), sentence(["w"] * 9, [(0, 5, "PER"), (5, 2, "LOC")]))
    for length, share in enumerate([0.75, 0.5, 0.5, 0.25, 0.0], 1):
        assert unreachable_share(data, build_features(data, tokenizer, 128, length), length) == share
    empty = make_corpus(sentence(["w"], []))
    assert unreachable_share(empty, build_features(empty, tokenizer, 128, 4), 4) == 0.0


# ------------------------------------------------------------------------------------------------------------ features


@pytest.fixture(scope="module")
def long_corpus(corpus: Dataset) -> Dataset:
    """12 random sentences, most of them longer than a window of 30 tokens."""
    rng = random.Random(5)
    vocabulary = sorted({word for words in corpus["words"] for word in words})
    rows = []
    for number in [3, 8, *(rng.randint(20, 90) for _ in range(10))]:
        rows.append(sentence([rng.choice(vocabulary) for _ in range(number)], random_entities(rng, number)))
    return make_corpus(*rows)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_long_sentences_lose_no_entity(long_corpus: Dataset, tokenizer, length: int):
    features = build_features(long_corpus, tokenizer, 30, length, LABELS)
    assert len(features) > 2 * len(long_corpus)
    owned = [[] for _ in long_corpus]
    for row in features:
        assert len(row["input_ids"]) <= 30
        for begin, size, label in zip(row["begins"], row["lengths"], row["types"], strict=True):
            assert row["own_start"] <= begin < row["own_end"] and begin + size <= len(row["first_token"])
            owned[row["sentence"]].append((begin + row["borders"][0], size, LABELS[label]))
    assert [sorted(x) for x in owned] == [[e for e in x if e[1] <= length] for x in gold_entities(long_corpus)]


def test_the_columns_of_a_short_sentence(corpus: Dataset, tokenizer):
    features = build_features(corpus, tokenizer, 64, 3, ["O", "LOC", "PER"])
    assert features["sentence"][:] == list(range(len(corpus)))
    for row, gold in zip(features, corpus, strict=True):
        assert row["begins"] == [b for b, n in zip(gold["begins"], gold["lengths"], strict=True) if n <= 3]
        assert [["O", "LOC", "PER"][i] for i in row["types"]] == gold["types"]
        spans = zip(row["first_token"], row["last_token"], strict=True)
        pieces = [tokenizer.convert_ids_to_tokens(row["input_ids"][a : b + 1]) for a, b in spans]
        assert ["".join(piece).replace("▁", "") for piece in pieces] == gold["words"]


def test_without_labels_the_entities_are_never_read(corpus: Dataset, tokenizer, monkeypatch):
    poison = make_corpus(*({"words": row["words"], "begins": [99], "lengths": [-1], "types": ["POISON"]} for row in corpus))
    seen, original = [], data_glode._features

    def spy(batch, *args, **options):
        seen.extend(batch.keys())
        return original(batch, *args, **options)

    monkeypatch.setattr(data_glode, "_features", spy)
    unlabelled = build_features(poison, tokenizer, 64, 3)
    assert set(seen) == {"words"}
    assert not {"begins", "lengths", "types"} & set(unlabelled.column_names)
    monkeypatch.undo()
    labelled = build_features(corpus, tokenizer, 64, 3, LABELS)
    assert unlabelled.to_list() == labelled.remove_columns(["begins", "lengths", "types"]).to_list()


def test_span_counts_are_the_sums_of_the_grid(long_corpus: Dataset, tokenizer):
    for max_tokens, length in ((30, 1), (30, 3), (100, 7)):
        features = build_features(long_corpus, tokenizer, max_tokens, length)
        assert len(features) > len(long_corpus)
        batch = collate_windows(features.to_list(), tokenizer.pad_token_id)
        own = [batch[name] for name in ("number_of_words", "own_start", "own_end")]
        grid = span_grid(*own, batch["first_token"].shape[1], length)
        assert span_counts(features, length).tolist() == grid.sum((1, 2)).tolist()
        whole = sum(max(len(words) - k, 0) for words in long_corpus["words"] for k in range(length))
        assert span_counts(features, length).sum() == whole  # every span of the corpus is in exactly one window


def test_features_are_cached(tmp_path: Path, tokenizer, monkeypatch):
    path = tmp_path / "corpus.iob2"
    path.write_text(COLUMNS["tabs"])
    first = build_features(load_corpus(str(path), labelled=True), tokenizer, 64, 3, LABELS)

    def fail(*_):
        raise RuntimeError("tokenised again")

    monkeypatch.setattr(data_glode, "encode_words", fail)
    second = build_features(load_corpus(str(path), labelled=True), tokenizer, 64, 3, LABELS)
    assert second._fingerprint == first._fingerprint and second.cache_files == first.cache_files != []
    assert second.to_list() == first.to_list()
    for settings in ((64, 2, LABELS), (32, 3, LABELS), (64, 3, None), (64, 3, ["O", "PER", "LOC", "ORG"])):
        with pytest.raises(RuntimeError, match="tokenised again"):
            build_features(load_corpus(str(path), labelled=True), tokenizer, *settings)


def test_merge_windows_joins_offsets_and_overlaps():
    windows = Dataset.from_dict({"sentence": [0, 0, 2], "borders": [list(range(20)), list(range(4, 24)), list(range(20))]})
    predictions = np.zeros((3, 8, 3), dtype=np.float32)
    predictions[..., 0] = -1
    predictions[0, 1] = (1, 2, 0.7)
    predictions[0, 5] = (1, 2, 0.6)  # words 5 and 6; the next window is surer of word 6
    predictions[1, 2] = (2, 1, 0.9)
    predictions[1, 3] = (2, 3, 0.5)  # words 7 to 9, which touch but do not overlap
    predictions[2, 0] = (0, 1, 0.99)  # "O" is no entity
    predictions[2, 4] = (2, 2, 0.4)
    assert merge_windows([predictions[:1], predictions[1:]], windows, 4, {0: "O", 1: "PER", 2: "LOC"}) == [
        [(1, 2, "PER"), (6, 1, "LOC"), (7, 3, "LOC")],
        [],
        [(4, 2, "LOC")],
        [],
    ]


def test_merge_windows_gives_back_what_the_windows_hold(long_corpus: Dataset, tokenizer):
    features = build_features(long_corpus, tokenizer, 30, 3, LABELS)
    predictions = np.zeros((len(features), max(map(len, features["first_token"])), 3))
    for i, row in enumerate(features):
        for begin, length, label in zip(row["begins"], row["lengths"], row["types"], strict=True):
            predictions[i, begin] = (label, length, 0.5)
    blocks = predictions[:1], predictions[1:]
    assert merge_windows(blocks, features, len(long_corpus), dict(enumerate(LABELS))) == gold_entities(long_corpus)


# ------------------------------------------------------------------------------------------------------------- sampler


def lengths_of(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 200, number)


@pytest.mark.parametrize(("source", "target"), [(103, 40), (40, 103), (50, 50), (7, 1), (1, 7)])
@pytest.mark.parametrize(("source_batch", "target_batch"), [(4, 4), (3, 5), (8, 1)])
def test_sampler_batches(source: int, target: int, source_batch: int, target_batch: int):
    sampler = TwoStreamSampler(lengths_of(source, 0), lengths_of(target, 1), source_batch, target_batch, seed=3)
    steps = max(-(-source // source_batch), -(-target // target_batch))
    indices = list(sampler)
    assert len(indices) == len(sampler) == steps * (source_batch + target_batch)
    batches = np.array(indices).reshape(steps, -1)
    assert (batches[:, :source_batch] < source).all() and (batches[:, source_batch:] >= source).all()
    drawn = Counter(indices)
    assert set(drawn) == set(range(source + target))  # the shorter stream is covered all the more
    for part in (range(source), range(source, source + target)):
        assert max(drawn[i] for i in part) - min(drawn[i] for i in part) <= 1


def test_sampler_is_a_function_of_seed_and_epoch():
    def draw(seed: int, epoch: int) -> list[int]:
        sampler = TwoStreamSampler(lengths_of(60, 0), lengths_of(90, 1), 4, 4, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    np.random.seed(0)
    torch.manual_seed(0)
    first = draw(1, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert draw(1, 0) == first
    orders = [draw(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6
    sampler = TwoStreamSampler(lengths_of(60, 0), lengths_of(90, 1), 4, 4, 1)
    sampler.set_epoch(2)
    assert list(sampler) == orders[2] == list(sampler)
    assert {index // 150 for index in orders[2]} == {2}  # an index tells the epoch
    sampler.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one(processes: int):
    lengths = (lengths_of(50, 0), lengths_of(70, 1))
    one = np.array(list(TwoStreamSampler(*lengths, 2 * processes, 3 * processes, 1))).reshape(-1, 5 * processes)
    several = np.array(list(TwoStreamSampler(*lengths, 2, 3, 1, processes))).reshape(-1, processes, 5)
    assert len(one) == len(several)
    border = 2 * processes
    assert np.array_equal(one[:, :border].reshape(-1, processes, 2), several[..., :2])
    assert np.array_equal(one[:, border:].reshape(-1, processes, 3), several[..., 2:])


def test_sampler_of_the_source_alone():
    sampler = TwoStreamSampler(lengths_of(21, 0), lengths_of(500, 1), 4, 0, seed=0)
    assert len(sampler) == 24 and set(sampler) == set(range(21))


def test_similar_lengths_share_a_batch():
    lengths = [lengths_of(640, 0), lengths_of(640, 1)]
    batches = np.array(list(TwoStreamSampler(*lengths, 8, 8, seed=0))).reshape(-1, 16)
    together = np.concatenate(lengths)[batches]
    random_batches = np.random.default_rng(0).permutation(640).reshape(-1, 8)
    usual = np.ptp(lengths[0][random_batches], axis=1).mean()
    assert np.ptp(together[:, :8], axis=1).mean() < usual / 4
    assert np.ptp(together[:, 8:], axis=1).mean() < usual / 4
    assert np.ptp(together, axis=1).mean() < usual / 3  # both streams: they are padded to one width
    order = np.diff(together.mean(1)) > 0
    assert 0.25 < order.mean() < 0.75  # but the batches do not come in the order of their lengths


# ------------------------------------------------------------------------------------------------------------ collator


@pytest.fixture(scope="module")
def streams(corpus: Dataset, tokenizer) -> TwoStreams:
    source = build_features(corpus, tokenizer, 64, 2, ["O", "LOC", "PER"])
    return TwoStreams(source, build_features(corpus.select(range(5, 20)), tokenizer, 64, 2))


def test_two_streams(streams: TwoStreams):
    assert len(streams) == 35
    rows = streams.__getitems__([3, 20, 34])
    assert [row["index"] for row in rows] == [3, 20, 34] and [row["window"] for row in rows] == [-17, 0, 14]
    later = streams.__getitems__([3 + 35, 20 + 70])
    assert [row["window"] for row in later] == [-17, 0] and [row["input_ids"] for row in later] == [
        r["input_ids"] for r in rows[:2]
    ]
    assert rows[1]["input_ids"] == streams.target[0]["input_ids"] and rows[0]["input_ids"] == streams.source[3]["input_ids"]
    assert "types" in rows[0] and "types" not in rows[1]
    assert streams[34] == rows[2]
    assert len(TwoStreams(streams.source, None)) == 20


def test_collated_shapes(streams: TwoStreams, tokenizer):
    """The example of the class' docstring: 2 source windows, 1 target window and its masked copy, L = 2."""
    rows = streams.__getitems__([0, 4, 23])
    batch = GlodeCollator(tokenizer, 2, mlm_probability=0.5)(rows)
    tokens = max(len(row["input_ids"]) for row in rows)
    words = max(len(row["first_token"]) for row in rows)
    shapes = dict.fromkeys(("input_ids", "attention_mask", "mlm_labels"), (4, tokens))
    shapes |= dict.fromkeys(("first_token", "last_token", "word_shapes"), (3, words))
    shapes |= {"span_mask": (3, words, 2), "labels": (3, words, 2), "window": (3,), "own_start": (3,)}
    assert {name: tuple(value.shape) for name, value in batch.items()} == shapes
    assert batch["window"].tolist()[2] == 3 and (batch["window"][:2] < 0).all()
    for i, row in enumerate([*rows, rows[2]]):
        number = len(row["input_ids"])
        assert batch["attention_mask"][i].tolist() == [1] * number + [0] * (tokens - number)
        assert (batch["input_ids"][i, number:] == tokenizer.pad_token_id).all()
        if i < 3:
            assert batch["input_ids"][i, :number].tolist() == row["input_ids"]
            for name in ("first_token", "last_token", "word_shapes"):
                assert batch[name][i].tolist() == row[name] + [0] * (words - len(row[name]))


def test_labels_are_in_their_cells_and_never_the_targets(streams: TwoStreams, tokenizer):
    rows = streams.__getitems__([*range(20), 20, 21, 34])
    labels = GlodeCollator(tokenizer, 2)(rows)["labels"]
    assert (labels[20:] == -100).all()
    positive = 0
    for i, row in enumerate(rows[:20]):
        gold = {(b, n): t for b, n, t in zip(row["begins"], row["lengths"], row["types"], strict=True)}
        for begin in range(labels.shape[1]):
            for length in (1, 2):
                inside = begin + length <= len(row["first_token"])
                assert labels[i, begin, length - 1] == (gold.get((begin, length), 0) if inside else -100)
        positive += len(gold)
    assert (labels > 0).sum() == positive > 20


def test_a_targets_own_labels_are_not_used(corpus: Dataset, tokenizer):
    """Unlabelled windows stay unlabelled beside labelled ones, and a batch of them alone has no labels at all."""
    target = build_features(corpus, tokenizer, 64, 2)
    assert "labels" not in GlodeCollator(tokenizer, 2)([target[i] for i in range(3)])


@pytest.mark.parametrize("keep_target", [True, False])
def test_only_copies_of_the_target_are_masked(streams: TwoStreams, tokenizer, keep_target: bool):
    rows = streams.__getitems__([0, 1, 2, 22, 27])
    batch = GlodeCollator(tokenizer, 2, mlm_probability=1.0, keep_target=keep_target)(rows)
    scored = 5 if keep_target else 3
    assert batch["input_ids"].shape[0] == scored + 2
    assert batch["first_token"].shape[0] == batch["span_mask"].shape[0] == batch["labels"].shape[0] == scored
    assert len(batch["window"]) == len(batch["own_start"]) == scored
    assert (batch["mlm_labels"][:scored] == -100).all()
    assert (batch["input_ids"][:scored] != tokenizer.mask_token_id).all()
    special = set(tokenizer.all_special_ids)
    for i, row in enumerate(rows[3:], scored):
        number = len(row["input_ids"])
        wanted = [t if t in special else tokenizer.mask_token_id for t in row["input_ids"]]
        assert batch["input_ids"][i, :number].tolist() == wanted
        assert batch["mlm_labels"][i, :number].tolist() == [-100 if t in special else t for t in row["input_ids"]]
        assert (batch["mlm_labels"][i, number:] == -100).all()


def test_masks_depend_on_seed_and_batch_alone(streams: TwoStreams, tokenizer):
    rows = streams.__getitems__([0, 1, *range(20, 35)])

    def masks(seed: int, probability: float = 0.3, rows: list[dict] = rows) -> torch.Tensor:
        return GlodeCollator(tokenizer, 2, mlm_probability=probability, seed=seed)(rows)["mlm_labels"] != -100

    first = masks(0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert torch.equal(first, masks(0)) and not torch.equal(first, masks(1))
    assert not torch.equal(first, masks(0, rows=[row | {"index": row["index"] + 1} for row in rows]))  # the same texts
    ordinary = masks(0, 1.0).sum()
    assert 0.2 < first.sum() / ordinary < 0.4
    assert "mlm_labels" not in GlodeCollator(tokenizer, 2)(rows)
