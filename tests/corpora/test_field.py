"""Protects against silent misreadings of what the field's data sets and tools write: the right entities, or one message."""

from pathlib import Path

import pytest
from support.corpora import entities_of, message_of, written

pytestmark = pytest.mark.usefixtures("datasets_cache")

LENA = [(["Lena", "Ott", "lebt"], [(0, 2, "PER")])]

READ = {
    "PAN-X of a long code": "zh-min-nan:Lena\tB-PER\nzh-min-nan:Ott\tI-PER\nzh-min-nan:lebt\tO\n",
    "PAN-X in simple English": "simple:Lena\tB-PER\nsimple:Ott\tI-PER\nsimple:lebt\tO\n",
    "PAN-X of two languages": "de:Lena\tB-PER\nen:Ott\tI-PER\nde:lebt\tO\n",
    "an invisible character behind a tag": "Lena\tB-PER\u200b\nOtt\tI-PER\ufeff\nlebt\tO\u200e\n",
    "a dash of another kind": "Lena\tB\u2013PER\nOtt\tI\u2013PER\nlebt\tO\n",
    "a line of one invisible character, and a mark within the file": "\u200b\n\ufeffLena\tB-PER\nOtt\tI-PER\nlebt\tO\n",
    "entries above a sentence of four columns": "# sent_id = A1\nLena NN x B-PER\nOtt NN x I-PER\nlebt VV x O\n",
    "UNER without an entity": "1\tLena\tO\t-\tanno\n2\tOtt\tO\t-\tanno\n3\tlebt\tO\t-\tanno\n",
}


@pytest.mark.parametrize("kind", READ)
def test_columns_are_read(tmp_path: Path, kind: str):
    expected = LENA if "without" not in kind else [(LENA[0][0], [])]
    assert entities_of(written(tmp_path / "a.tsv", READ[kind])) == expected


REFUSED = {
    "a text and its label": ("text\tlabel\nLena lebt\tPER\nOtto auch\tO\n", "the words' column holds texts"),
    "sentences": ("Lena lebt in Kiel\tB-PER O O B-LOC\nOtto auch\tB-PER O\n", "Give a word a line; texts go into a .txt file"),
    "the tags of a sentence": ("Lena\tB-PER O\nOtto\tB-PER O O\n", "is no tag of one word. Give"),
    "a list in a table": ("Lena\t['B-PER','O']\n", "is no tag of one word"),
    "WebAnno's TSV": ("1-1\t0-4\tLena\tPER\n1-2\t5-9\tlebt\t_\n", "the first column numbers sentences and words"),
    "a document's name": ("d1\tLena\tB-PER\nd1\tlebt\tO\nd2\tKiel\tB-LOC\n", "from line to line, as names of documents do"),
    "positions within words": ("王0\tB-PER\n明1\tI-PER\n住0\tO\n", "each word is a character with a digit"),
    "a language before most": ("de:Lena\tB-PER\nde:Ott\tI-PER\nlebt\tO\n", "words have a language before them"),
    "prefixes alone": ("colon\tB\ncancer\tI\nis\tO\n", "name no type. Write a type behind them"),
    "chunks": ("Lena NN B-NP\nlebt VV B-VP\n. . O\n", "the tags are of chunks"),
    "numbered entities": ("Lena B-PER-1\nOtt B-PER-2\nlebt O\n", "end in numbers. Do these count"),
    "lemmas": ("Lena Lena\nO O\nlebt leben\nan an\n", "most tags are their words once more, as lemmas are"),
    "no tag at all": ("Lena _ _ _\nlebt _ _ _\n", "for O or for no label. Write O if"),
    "names of columns in capitals": ("WORT\tART\nLena\tPER\nlebt\tO\n", "is a tag unlike all others"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_columns_are_refused(tmp_path: Path, kind: str):
    text, message = REFUSED[kind]
    assert message in message_of(written(tmp_path / "a.tsv", text))


def test_what_is_refused_is_settled_by_an_option(tmp_path: Path):
    assert entities_of(written(tmp_path / "a.tsv", REFUSED["a document's name"][0]), token_column="2")[0][0][0] == "Lena"
    assert entities_of(written(tmp_path / "b.tsv", REFUSED["chunks"][0]), tag_column="3")[0][1] == [(0, 1, "NP"), (1, 1, "VP")]
    assert entities_of(written(tmp_path / "c.tsv", REFUSED["numbered entities"][0]), scheme="IOB2")[0][1][1] == (1, 1, "PER-2")
