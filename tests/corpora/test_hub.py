"""Protects data sets of the Hub and on disk: their rows are read by the rules of files."""

from pathlib import Path

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Sequence as SequenceFeature
from support.corpora import TWO, as_sentences, written

from glode.corpora import hub
from glode.corpora.hub import load_hub_corpus
from glode.corpora.options import ReadingOptions
from glode.corpora.schema import CORPUS
from glode.errors import InputError
from glode.features.reach import gold_entities

pytestmark = pytest.mark.usefixtures("datasets_cache")


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
        ("ner_tags", Value("int64"), "are numbers without names. Give files instead"),
        ("ner_tags", ClassLabel(names=["O", "X-PER"]), "tag 'X-PER' fits no label scheme"),
    ],
)
def test_hub_data_sets_of_another_kind(monkeypatch, column: str, tag: Value | ClassLabel, message: str):
    features = Features({"tokens": SequenceFeature(Value("string")), column: SequenceFeature(tag)})
    row = {"tokens": ["a"], column: ["O"] if column == "pos" else [1]}
    monkeypatch.setattr(hub, "load_dataset", lambda *_: hub_data(features, [row]))
    with pytest.raises(InputError, match="data set 'some/set'") as error:
        load_hub_corpus("some/set", "en", labelled=True)
    assert message in str(error.value)


CLASSES = ["O", "B-PER", "I-PER", "B-LOC"]


def classes(names: list[str] = CLASSES) -> Features:
    return Features({"tokens": SequenceFeature(Value("string")), "ner_tags": SequenceFeature(ClassLabel(names=names))})


def loaded_from(monkeypatch, features: Features, **parts: list[dict]) -> DatasetDict:
    """What `load_hub_corpus` makes of a data set of these parts; ids beyond the names are kept, as in a file of the Hub."""
    data = {}
    for name, rows in parts.items():
        plain = Dataset.from_list(rows)
        schema = features.arrow_schema
        table = pa.table([plain.data.column(field.name).combine_chunks().cast(field.type) for field in schema], schema=schema)
        data[name] = Dataset(table)
    monkeypatch.setattr(hub, "load_dataset", lambda *_: DatasetDict(data))
    return load_hub_corpus("some/set", "en")


def row(*tags: int | None, words: tuple[str, ...] = ("Anna", "Berg", "sings")) -> dict:
    return {"tokens": list(words), "ner_tags": list(tags)}


@pytest.mark.parametrize("missing", [-1, -100, None])
def test_words_that_are_not_labelled(monkeypatch, missing: int | None):
    """A sentence with such words is left out; it tells neither its entities nor what is none."""
    loaded = loaded_from(monkeypatch, classes(), train=[row(1, 2, 0), row(missing, 1, 0), row(missing, missing, missing)])
    assert as_sentences(loaded["train"]) == TWO[:1]
    assert loaded["train"]["notes"][:] == [["2 sentences left out in which words are not labelled"]]


def test_parts_without_labels(monkeypatch, caplog):
    """`train` may be a target language's text; a test set without labels cannot be one."""
    loaded = loaded_from(monkeypatch, classes(), train=[row(-1, -1, -1)], test=[row(-1, -1, -1)], validation=[row(1, 2, 0)])
    assert set(loaded) == {"train", "validation"}
    assert as_sentences(loaded["train"]) == [(["Anna", "Berg", "sings"], [])]
    assert "data set 'some/set' (en, test)" in caplog.text and "no word of it is labelled, it is left out" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, 2, 0), row(7, 1, 0)], "(en, train), row 2: class 7 of `ner_tags` has no name, there are 4"),
        ([row(1, -2, 0)], "row 1: class -2 of `ner_tags` has no name"),
        ([row(1, 2, 0), row(1, 2)], "row 2: 3 words and 2 tags, but expected lists of equal length"),
        ([row(1, -100, 0)], "every sentence has words that are not labelled (class -1 or -100, or no tag)"),
    ],
)
def test_rows_that_cannot_be_read(monkeypatch, rows: list[dict], message: str):
    with pytest.raises(InputError) as error:
        loaded_from(monkeypatch, classes(), train=rows)
    assert "data set 'some/set'" in str(error.value) and message in str(error.value)


def test_a_tag_for_a_sentence(monkeypatch):
    features = Features({"tokens": SequenceFeature(Value("string")), "ner_tags": Value("string")})
    monkeypatch.setattr(hub, "load_dataset", lambda *_: hub_data(features, [{"tokens": ["a"], "ner_tags": "O"}]))
    with pytest.raises(InputError, match="has one value a row, expected a list with a tag a word"):
        load_hub_corpus("some/set", "en")


@pytest.mark.parametrize("tags", ["O B_PER I_PER B_LOC", "o b-per i-per b-loc", "O PER-B PER-I LOC-B"])
def test_tags_as_people_write_them(monkeypatch, tags: str):
    """All names count, so that a part in which few of them occur is read as the others are."""
    loaded = loaded_from(
        monkeypatch, classes(tags.split()), train=[row(1, 2, 0)], test=[row(3, words=("Oslo",)), row(0, words=("x",))]
    )
    assert as_sentences(loaded["train"]) == TWO[:1]
    assert as_sentences(loaded["test"])[0] == TWO[1]


def test_names_of_classes_that_are_numbers(monkeypatch):
    with pytest.raises(InputError, match="is a number without a name"):
        loaded_from(monkeypatch, classes(["0", "1", "2"]), train=[row(1, 2, 0)])


@pytest.mark.parametrize("columns", [("words", "tags"), ("tokens", "labels"), ("wort", "art")])
def test_other_names_of_columns(monkeypatch, columns: tuple[str, str]):
    token, tag = columns
    features = Features({token: SequenceFeature(Value("string")), tag: SequenceFeature(ClassLabel(names=CLASSES))})
    rows = [{token: ["Anna", "Berg", "sings"], tag: [1, 2, 0]}]
    monkeypatch.setattr(hub, "load_dataset", lambda *_: hub_data(features, rows))
    options = ReadingOptions(token_column=token, tag_column=tag) if token == "wort" else None
    assert as_sentences(load_hub_corpus("some/set", "en", options)["train"]) == TWO[:1]


@pytest.mark.parametrize("parts", [True, False])
def test_a_data_set_that_was_saved(tmp_path: Path, parts: bool):
    data = Dataset.from_list([row(1, 2, 0)], features=classes())
    (DatasetDict({"train": data}) if parts else data).save_to_disk(tmp_path / "set" / "de")
    assert as_sentences(load_hub_corpus(str(tmp_path / "set"), "de")["train"]) == TWO[:1]
    with pytest.raises(InputError) as error:
        load_hub_corpus(str(tmp_path / "set" / "de"), "de")
    assert "was saved from one language. Save each into a directory" in str(error.value)
    assert str(tmp_path / "set" / "de" / "train") in str(error.value)


def test_parts_of_other_names(monkeypatch, caplog):
    one = [row(1, 2, 0)]
    loaded = loaded_from(monkeypatch, classes(), train=one, dev=one, valid=one, extra=one)
    assert set(loaded) == {"train", "validation"}
    assert "(en): the parts extra, valid" in caplog.text and "are not read, only" in caplog.text


def test_texts_and_words_without_labels(monkeypatch):
    """What files may be, these may be too; but a source has labels."""
    for record in ({"text": "Anna Berg sings"}, {"tokens": ["Anna", "Berg", "sings"]}):
        data = DatasetDict({"train": Dataset.from_list([record])})
        monkeypatch.setattr(hub, "load_dataset", lambda *_, data=data: data)
        assert as_sentences(load_hub_corpus("some/set", "en")["train"]) == [(TWO[0][0], [])]
        with pytest.raises(InputError, match="expected `tokens` and `ner_tags`"):
            load_hub_corpus("some/set", "en", labelled=True)
    spans = [{"text": "Anna Berg sings", "entities": [{"start": 0, "end": 9, "label": "PER"}]}]
    monkeypatch.setattr(hub, "load_dataset", lambda *_: DatasetDict({"train": Dataset.from_list(spans)}))
    assert as_sentences(load_hub_corpus("some/set", "en", labelled=True)["train"]) == TWO[:1]


def test_a_source_without_any_label(monkeypatch):
    rows = Dataset.from_list([row(-1, -1, -1)], features=classes())
    monkeypatch.setattr(hub, "load_dataset", lambda *_: DatasetDict({"train": rows}))
    with pytest.raises(InputError, match="every sentence has words that are not labelled"):
        load_hub_corpus("some/set", "en", labelled=True)


def test_a_part_without_a_word(monkeypatch):
    with pytest.raises(InputError, match="no row of it has words"):
        loaded_from(monkeypatch, classes(), train=[row(words=())])


def test_directories_of_files(tmp_path: Path):
    """A directory a language, with parquet or JSON lines; column files are read by rules of our own, as files."""
    record = {"tokens": ["Anna", "Berg", "sings"], "ner_tags": ["B-PER", "I-PER", "O"]}
    written(tmp_path / "set/de/train.jsonl", record)
    written(tmp_path / "set/de/dev.jsonl", record)
    Dataset.from_list([row(1, 2, 0)], features=classes()).to_parquet(tmp_path / "set/fr/train.parquet")
    written(tmp_path / "set/nl/train.conll", "Anna B-PER\n")
    loaded = load_hub_corpus(str(tmp_path / "set"), "de")
    assert set(loaded) == {"train", "validation"}
    assert as_sentences(loaded["train"]) == as_sentences(load_hub_corpus(str(tmp_path / "set"), "fr")["train"]) == TWO[:1]
    with pytest.raises(InputError, match=", and no parquet or JSON lines"):
        load_hub_corpus(str(tmp_path / "set"), "nl")
    with pytest.raises(InputError, match="has no directory of the language") as error:
        load_hub_corpus(str(tmp_path / "set"), "it")
    assert "'it', only de, fr, nl" in str(error.value)
