"""Protects against silent misreadings of variants: what people and tools write instead of the usual form of a format."""

from pathlib import Path

import pytest
from support.corpora import LENA, entities_of, message_of, notes_of, written

pytestmark = pytest.mark.usefixtures("datasets_cache")

TAGS = ["B-PER", "I-PER", "O", "B-LOC"]


def column_text(row: str, tags: list[str] = TAGS) -> str:
    """Two sentences, a line as `row` says: {i} from 1, {j} from 0, {w} the word, {t} its tag."""
    words = [(1, "Lena"), (2, "Ott"), (3, "lebt"), (1, "Kiel")]
    lines = [row.format(i=i, j=i - 1, w=word, t=tag) for (i, word), tag in zip(words, tags, strict=True)]
    return "\n".join([*lines[:3], "", lines[3], ""])


PLAIN = column_text("{w}\t{t}")
READ = {
    "numbers with a full stop": column_text("{i}.\t{w}\t{t}"),
    "numbers in brackets": column_text("[{j}]\t{w}\t{t}"),
    "PAN-X in capitals": column_text("DE:{w}\t{t}"),
    "UNER without annotators": column_text("{i}\t{w}\t{t}\t-"),
    "blanks before a tab": column_text("{w} NN\t{t}"),
    "a document's mark with a number": "0\t-DOCSTART-\tO\n\n" + column_text("{i}\t{w}\t{t}"),
    "a mark of the end": PLAIN.replace("\n\n", "\n<EOS>\tO\n"),
    "German names": "Wort\tEtikett\n" + PLAIN,
    "Chinese names and types alone": "词\t标签\n" + column_text("{w}\t{t}", ["PER", "PER", "O", "LOC"]),
    **{
        f"tags with {tags[0]}": column_text("{w}\t{t}", tags)
        for tags in (
            ["PER/B", "PER/I", "O", "LOC/B"],
            ["B|PER", "I|PER", "O", "B|LOC"],
            ["B PER", "I PER", "O", "B LOC"],
            ["B__PER", "I__PER", "O", "B__LOC"],
            ["BPER", "IPER", "O", "BLOC"],
        )
    },
}


@pytest.mark.parametrize("kind", READ)
def test_variants_are_read(tmp_path: Path, kind: str):
    assert entities_of(written(tmp_path / "a.tsv", READ[kind])) == LENA


def test_a_line_of_names_in_the_middle(tmp_path: Path):
    path = written(tmp_path / "a.csv", "word,tag\nLena,PER\nlebt,O\n" * 2)
    assert entities_of(path) == [(["Lena", "lebt"], [(0, 1, "PER")])] * 2
    assert notes_of(path) == {"header lines left out": 2}


def test_sentences_have_names_within_documents(tmp_path: Path):
    path = written(tmp_path / "a.csv", "doc_id,sent_id,word,tag\n1,1,Lena,B-PER\nnan,nan,lebt,O\n2,1,Kiel,B-LOC\n")
    assert entities_of(path) == [(["Lena", "lebt"], [(0, 1, "PER")]), (["Kiel"], [(0, 1, "LOC")])]


def test_a_hash_before_a_word(tmp_path: Path):
    path = written(tmp_path / "a.tsv", "# made up\nLena\tPerson\n#Ott\tPerson\nlebt\tO\n")
    assert entities_of(path) == [(["Lena", "#Ott", "lebt"], [(0, 2, "Person")])]


def test_uner_of_which_only_the_other_tags_are_given(tmp_path: Path):
    path = written(tmp_path / "a.iob2", "1\tLena\tO\tB-OTH\tanno\n2\tlebt\tO\t-\tanno\n")
    assert entities_of(path) == [(["Lena", "lebt"], [])]


REFUSED = {
    "prefixes in full": (
        column_text("{w}\t{t}", ["BEGIN-PER", "INSIDE-PER", "O", "BEGIN-LOC"]),
        "spells its prefix out. Write tags",
    ),
    "unknown names": ("Begriff\tKlasse\n" + PLAIN, "line 1: 'Klasse' is a tag unlike all others"),
    "a table without its line of names": ("S: 1\tLena\tB-PER\n\tOtt\tI-PER\n\tlebt\tO\n", "column is empty in 2 of 3 lines"),
    "a language before some": (PLAIN + PLAIN.replace("Lena", "de:Lena").replace("Ott", "de:Ott"), "2 of 8 words have a language"),
    "no-break spaces": (column_text("{w}\u00a0{t}"), "is none that separates columns, such"),
    "the tag of a range": (
        "1-2\tzum\tB-LOC\n1\tzu\tO\n2\tdem\tO\n",
        "line 2: the range 1-2 has the tag 'B-LOC', its first word none",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_variants_are_refused(tmp_path: Path, kind: str):
    text, expected = REFUSED[kind]
    message = message_of(written(tmp_path / "a.tsv", text))
    assert expected in message
    assert kind != "the tag of a range" or ", its first word none. Give the words" in message
    assert kind != "a table without its line of names" or ": the words' column is empty in" in message


TARGET = {
    "slashes": column_text("{w} {t}", [tag.replace("-", "/") for tag in TAGS]),
    "small letters": column_text("{w} {t}", ["b_per", "i_per", "o", "b_loc"]),
    "types in small letters": column_text("{w} {t}", ["per", "per", "o", "loc"]),
    "a line of names": "word\ttag\n" + PLAIN,
}


@pytest.mark.parametrize("kind", TARGET)
def test_columns_in_a_file_of_text(tmp_path: Path, kind: str):
    assert entities_of(written(tmp_path / "a.txt", TARGET[kind]), labelled=False) == LENA


NO_TEXT = {
    "CoNLL-U": ("# newdoc\n1\tLena\t_\tX\n2\tlebt\t_\tX\n", "as a table has. Keep"),
    "parts of speech": ("Lena NE\nlebt VV\nin APPR\nKiel NE\n. $.\n", "5 of its first 5 lines end in a tag"),
    "commas": ("Lena,B-PER\nlebt,O\n", "with commas between them, name it .csv"),
    "a list of JSON": ('[\n {"text": "Lena"}\n]\n', "JSON is no plain text. Name"),
}


@pytest.mark.parametrize("kind", NO_TEXT)
def test_what_is_no_text(tmp_path: Path, kind: str):
    text, expected = NO_TEXT[kind]
    assert expected in message_of(written(tmp_path / "a.txt", text), labelled=False)


def test_lines_of_text_in_capitals_are_text(tmp_path: Path):
    path = written(tmp_path / "a.txt", "LENA LEBT\nOTTO AUCH\nKIEL LIEGT\nES GEHT\nEIN ENDE\n")
    assert len(entities_of(path, labelled=False)) == 5


SPANS = [[0, 4, "PER"]]
OTHER_SPANS = [{"start": 5, "end": 9, "labels": ["X"]}]
RECORDS = {
    "an empty list beside the spans": {"text": "Lena lebt", "entities": [], "label": SPANS},
    "spans under ner": {"text": "Lena lebt", "ner": SPANS},
    "the truth among annotations": {
        "data": {"text": "Lena lebt"},
        "annotations": [
            {"result": []},
            {"result": [{"value": {"start": 0, "end": 4, "labels": ["PER"]}}], "ground_truth": True},
        ],
    },
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_are_read(tmp_path: Path, kind: str):
    assert entities_of(written(tmp_path / "a.json", [RECORDS[kind]])) == [(["Lena", "lebt"], [(0, 1, "PER")])]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"tokens": ["Lena", True], "ner_tags": ["B-PER", "O"]}, "word 2 is True, no string. A tag"),
        ({"tokens": ["Lena", "no"], "ner_tags": ["B-PER", False]}, "no string. A tag that is not known is null"),
        ({"text": "Lena lebt", "ner_tags": ["B-PER", "O"]}, "holds a tag a word, but the words"),
        ({"text": "Lena lebt", "label": SPANS, "more": OTHER_SPANS}, "all hold spans. Name one by"),
    ],
)
def test_records_are_refused(tmp_path: Path, record: dict, expected: str):
    assert expected in message_of(written(tmp_path / "a.json", [record]))


@pytest.mark.parametrize("surface", [{"text": "Lena"}, {}])
@pytest.mark.parametrize(("unit", "text", "start"), [("bytes", "Ähm Lena lebt", 5), ("UTF-16 units", "\U0001f600 Lena lebt", 3)])
def test_offsets_that_count_other_units(tmp_path: Path, unit: str, text: str, start: int, surface: dict):
    span = {"start": start, "end": start + 4, "label": "PER", **surface}
    path = written(tmp_path / "a.json", [{"text": text, "entities": [span]}])
    assert entities_of(path)[0][1] == [(1, 1, "PER")]
    assert notes_of(path) == {f"offsets in {unit} converted": 1}
