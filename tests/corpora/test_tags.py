"""Protects how tags are read: as people write them, or one message; never a prefix as a part of a type, never O as a type."""

from pathlib import Path

import pytest
from support.corpora import entities_of, message_of, written

from glode.corpora.options import ReadingOptions
from glode.errors import InputError

pytestmark = pytest.mark.usefixtures("datasets_cache")

FOUR = ["Lena", "Ott", "lebt", "Kiel"]


MENDS = (
    "Write all tags alike, and O where there is no entity",
    "has a prefix, written otherwise than in",
    "beside 'O': does it stand for O too",
    "may both stand for O. Write O for both",
    "Name the column of the tags by --tag_column, or give --scheme.",
    "is a number without a name",
    "holds several tags. Keep one layer",
    "are no label scheme that is read. Convert them",
    "end an entity, none begins one. As types",
    "is no tag but a feature. Name",
    "none is O. Is this the column",
    "which stands for no entity. Rename",
)


def column_file(directory: Path, tags: list[str]) -> Path:
    return written(directory / "a.tsv", "".join(f"{word}\t{tag}\n" for word, tag in zip(FOUR, tags, strict=False)))


@pytest.mark.parametrize(
    "tags",
    [
        "B-PER I-PER O B-LOC",
        "B_PER I_PER O B_LOC",
        "B:PER I:PER O B:LOC",
        "PER-B PER-I O LOC-B",
        "PER_B PER_I O LOC_B",
        "b-per i-per o b-loc",
        "b_per i_per o b_loc",
        "per-b per-i o loc-b",
        "B-PER I-PER - B-LOC",
        "B-PER I-PER _ B-LOC",
        "B-PER I-PER 0 B-LOC",
        "B-PER I-PER o B-LOC",
        "I-PER I-PER O I-LOC",
        "B-PER E-PER O S-LOC",
        "B_PER E_PER O S_LOC",
        "PER-B PER-L O LOC-U",
        "PER PER O LOC",
        "PER PER - LOC",
        "per per o loc",
    ],
)
def test_ways_to_write_tags(tmp_path: Path, tags: str):
    assert entities_of(column_file(tmp_path, tags.split())) == [(FOUR, [(0, 2, "PER"), (3, 1, "LOC")])]


@pytest.mark.parametrize("tags", [["B -PER", "I -PER", "O", "B -LOC"], ["B- PER", "I- PER", "O", "B- LOC"]])
@pytest.mark.parametrize("separator", ["\t", " "])
def test_a_blank_in_the_tag(tmp_path: Path, tags: list[str], separator: str):
    text = "".join(f"{word}{separator}{tag}\n" for word, tag in zip(FOUR, tags, strict=True))
    assert entities_of(written(tmp_path / "a.conll", text)) == [(FOUR, [(0, 2, "PER"), (3, 1, "LOC")])]


def test_types_keep_their_letters_where_the_prefixes_are_capitals(tmp_path: Path):
    types = ["B-corporation", "I-corporation", "O", "B-creative-work"]
    assert entities_of(column_file(tmp_path, types)) == [(FOUR, [(0, 2, "corporation"), (3, 1, "creative-work")])]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("PER_B PER_I O LOC", "line 4: the tags 'PER_B' and 'PER_I' look like one type with two prefixes, 'LOC' has none"),
        ("B_PER I_PER O B-LOC", "look like one type with two prefixes, 'B-LOC'"),
        ("B_PER O LOC", "line 3: tag 'B_PER' has a prefix, written otherwise than in 'LOC'"),
        ("PER O o", "line 3: tag 'o' beside 'O': does it stand for O too"),
        ("B-PER I-PER O -", "line 4: tag '-' beside 'O'"),
        ("B-PER - _", "line 3: the tags '-' and '_' may both stand for O"),
        ("FOO BAR -", "does '-' stand for O beside ['BAR', 'FOO']?"),
        ("1 2 O", "tag '1' is a number without a name"),
        ("B-PER|B-ORG O", "tag 'B-PER|B-ORG' holds several tags. Keep one"),
        ("(PER* *) O", "brackets such as '(PER*' are no label scheme"),
        ("E-mail O", "tags such as 'E-mail' end an entity, none begins one"),
        ("x=1 O", "'x=1' is no tag but a feature"),
        ("PER LOC ORG", "every word has a type (PER, LOC, ORG), none is O"),
        ("I-o O", "an entity of the type 'o'"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path: Path, tags: str, message: str):
    text = message_of(column_file(tmp_path, tags.split()))
    assert message in text and any(mend in text for mend in MENDS)


def test_a_prefix_in_every_line_of_many(tmp_path: Path):
    path = written(tmp_path / "a.tsv", "".join(f"w{i}\tB-{'NP' if i % 2 else 'VP'}\n" for i in range(200)))
    assert "every word has a type" in message_of(path)
    assert len(entities_of(path, scheme="IOB2")[0][1]) == 200


def test_types_by_the_hundred(tmp_path: Path):
    path = written(tmp_path / "a.tsv", "w\tO\n" + "".join(f"w\tT{i}\n" for i in range(150)))
    assert "150 types (T0, T1, T2)" in (message := message_of(path)) and "are many. If this is right, give" in message
    assert len(entities_of(path, scheme="IO")[0][1]) == 150
    assert len(entities_of(path, tag_column="2")[0][1]) == 150


@pytest.mark.parametrize(
    ("tags", "scheme", "entities"),
    [
        ("B_PER I_PER O LOC", "IO", [(0, 1, "B_PER"), (1, 1, "I_PER"), (3, 1, "LOC")]),
        ("I-PER I-PER O I-LOC", "IO", [(0, 2, "PER"), (3, 1, "LOC")]),
        ("PER LOC LOC", "IO", [(0, 1, "PER"), (1, 2, "LOC")]),
        ("E-mail O", "IO", [(0, 1, "E-mail")]),
        ("I-PER I-PER O I-LOC", "IOB1", [(0, 2, "PER"), (3, 1, "LOC")]),
        ("VITAMIN-B O", "IOB2", [(0, 1, "VITAMIN")]),
        ("VITAMIN-B O", None, [(0, 1, "VITAMIN-B")]),
        ("B-PER E-PER S-PER", "BIOES", [(0, 2, "PER"), (2, 1, "PER")]),
        ("B-PER L-PER O U-LOC", "BILOU", [(0, 2, "PER"), (3, 1, "LOC")]),
    ],
)
def test_schemes_that_an_option_names(tmp_path: Path, tags: str, scheme: str | None, entities: list):
    assert entities_of(column_file(tmp_path, tags.split()), scheme=scheme)[0][1] == entities


def test_a_scheme_that_does_not_fit(tmp_path: Path):
    path = column_file(tmp_path, ["B-PER", "E-PER", "O"])
    assert "line 2: tag 'E-PER'" in (message := message_of(path, scheme="IOB2")) and "Correct one of them" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "BIO"}, ": not one of the label schemes"),
        ({"tag_column": "0"}, ": columns count from 1, from the end -1"),
        ({"token_column": ""}, "--token_column : columns count"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str):
    with pytest.raises(InputError) as error:
        ReadingOptions(**options)
    assert message in str(error.value)


def test_types_of_spans_are_no_tags(tmp_path: Path):
    record = {"text": "Lena Ott", "entities": [[0, 4, "B-PER"], [5, 8, "I-PER"]]}
    message = message_of(written(tmp_path / "a.jsonl", record))
    assert "line 1: the spans' types 'B-PER'" in message and "are tags of words. Give the type alone" in message
    record["entities"] = [[0, 1, f"T{i}"] for i in range(1001)]
    assert "types of entities. Are the types what" in message_of(written(tmp_path / "a.jsonl", record))
