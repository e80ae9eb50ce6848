"""Protects the layout of column files: word, tag and sentence are found, or one message says what cannot be told."""

from pathlib import Path

import pytest
from support.corpora import LENA, entities_of, message_of, notes_of, written

pytestmark = pytest.mark.usefixtures("datasets_cache")

LAYOUTS = {
    "an index from 0 (WikiNEuRal)": ("0\tLena\tB-PER\n1\tOtt\tI-PER\n2\tlebt\tO\n\n0\tKiel\tB-LOC\n", {}),
    "an index through the file": ("1\tLena\tB-PER\n2\tOtt\tI-PER\n3\tlebt\tO\n\n4\tKiel\tB-LOC\n", {}),
    "UNER: index, word, tag, other tag, annotator": (
        "# sent_id = x1\n# text = Lena Ott lebt\n1\tLena\tB-PER\t-\tanno\n2\tOtt\tI-PER\t-\tanno\n3\tlebt\tO\t-\tanno\n\n"
        "# sent_id = x2\n1\tKiel\tB-LOC\tB-OTH\tanno\n",
        {"comments left out": 3},
    ),
    "PAN-X: a language before each word": (
        "de:Lena\tB-PER\nde:Ott\tI-PER\nde:lebt\tO\n\nde:Kiel\tB-LOC\n",
        {"words without the de: before them": 4},
    ),
    "GermEval: two layers": (
        "#\thttp://example.org [2010-01-01]\n1\tLena\tB-PER\tO\n2\tOtt\tI-PER\tB-LOC\n3\tlebt\tO\tO\n\n"
        "#\thttp://example.org [2010-01-02]\n1\tKiel\tB-LOC\tO\n",
        {"comments left out": 2, "words of which only the outer of two layers of tags was read": 4},
    ),
    "CoNLL-2003, tabs and blanks": ("Lena\tNNP B-NP B-PER\nOtt\tNNP I-NP I-PER\nlebt\tVBZ B-VP O\n\nKiel\tNNP B-NP B-LOC\n", {}),
    "lines with tabs and lines with blanks": ("Lena\tB-PER\nOtt I-PER\nlebt  O\n\nKiel \t B-LOC\n", {}),
    "a header": ("Token\tNER\nLena\tB-PER\nOtt\tI-PER\nlebt\tO\n\nKiel\tB-LOC\n", {"header lines left out": 1}),
    "a header, tags in the middle": (
        "word ner pos\nLena B-PER NE\nOtt I-PER NE\nlebt O VV\n\nKiel B-LOC NE\n",
        {"header lines left out": 1},
    ),
    "a header with sentences": (
        "Sentence #\tWord\tTag\nSentence: 1\tLena\tB-PER\n\tOtt\tI-PER\n\tlebt\tO\nSentence: 2\tKiel\tB-LOC\n",
        {"header lines left out": 1},
    ),
    "CoNLL-U Plus": (
        "# global.columns = ID FORM UPOS NER:TYPE\n1\tLena\tPROPN\tB-PER\n2\tOtt\tPROPN\tI-PER\n3\tlebt\tVERB\tO\n\n"
        "1\tKiel\tPROPN\tB-LOC\n",
        {"comments left out": 1},
    ),
    "Label Studio's CONLL": ("-DOCSTART- -X- O\nLena -X- _ B-PER\nOtt -X- _ I-PER\nlebt -X- _ O\n\nKiel -X- _ B-LOC\n\n", {}),
    "WNUT17: a tab between sentences": ("Lena\tB-PER\nOtt\tI-PER\nlebt\tO\n\t\nKiel\tB-LOC\n", {}),
    "tabs at the line ends": ("Lena\tB-PER\t\nOtt\tI-PER\t\nlebt\tO\t\n\nKiel\tB-LOC\t\n", {}),
    "our own tag output": ("Lena B-PER\nOtt I-PER\nlebt O\n\nKiel B-LOC\n\n", {}),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts(tmp_path: Path, kind: str):
    text, notes = LAYOUTS[kind]
    path = written(tmp_path / "corpus.tsv", text)
    assert entities_of(path) == LENA
    assert notes_of(path) == notes


@pytest.mark.parametrize("key", ["NER", "name", "Tag", "NE", "Entity"])
def test_keys_of_conllu(tmp_path: Path, key: str):
    tags = [f"SpaceAfter=No|{key}=B-PER", f"{key}=I-PER|Gloss=x", "_"]
    rows = zip((1, 2, 3), LENA[0][0], tags, strict=True)
    lines = [f"{i}\t{word}\t_\tX\t_\t_\t0\troot\t_\t{misc}\n" for i, word, misc in rows]
    path = written(tmp_path / "a.conllu", "".join(lines))
    assert entities_of(path) == LENA[:1]
    assert entities_of(path, tag_column=key) == LENA[:1]


def conllu(*misc: str) -> str:
    return "".join(f"{i}\tw{i}\t_\tX\t_\t_\t0\troot\t_\t{value}\n" for i, value in enumerate(misc, 1))


def test_conllu_without_tags_is_text(tmp_path: Path):
    path = written(tmp_path / "a.conllu", conllu("SpaceAfter=No", "_"))
    assert entities_of(path, labelled=False) == [(["w1", "w2"], [])]
    assert "CoNLL-U without tags of entities: column 10 has" in (message := message_of(path)) and "has SpaceAfter," in message
    written(path, conllu("Entity=(1-person", "Entity=1)"))  # brackets of coreference
    assert entities_of(path, labelled=False) == [(["w1", "w2"], [])]
    assert "column 10 has Entity, but no NER=B-PER" in message_of(path)


def test_conllu_with_two_keys(tmp_path: Path):
    path = written(tmp_path / "a.conllu", conllu("NER=B-PER|name=B-WORK", "NER=O|name=I-WORK"))
    assert "NER= and name=" in (message := message_of(path)) and "both hold tags. Name one by" in message
    assert entities_of(path, tag_column="name") == [(["w1", "w2"], [(0, 2, "WORK")])]


CHOICES = {
    "the inner layer": ("1\tTSV\tB-ORG\tO\n2\tKiel\tI-ORG\tB-LOC\n", {"tag_column": "4"}, [(["TSV", "Kiel"], [(1, 1, "LOC")])]),
    "from the end": ("Lena NE B-PER 0.9\nlebt VV O 0.8\n", {"tag_column": "-2"}, [(["Lena", "lebt"], [(0, 1, "PER")])]),
    "tags before parts of speech": ("Lena B-PER NE\nlebt O VV\n", {"tag_column": "2"}, [(["Lena", "lebt"], [(0, 1, "PER")])]),
    "a number of the sentence": ("7\tLena\tB-PER\n7\tlebt\tO\n", {"token_column": "2"}, [(["Lena", "lebt"], [(0, 1, "PER")])]),
    "tags first": ("B-PER Lena\nO lebt\n", {"token_column": "2", "tag_column": "1"}, [(["Lena", "lebt"], [(0, 1, "PER")])]),
    "names": ("Wort\tArt\nLena\tB-PER\n", {"tag_column": "Art", "token_column": "wort"}, [(["Lena"], [(0, 1, "PER")])]),
    "gold beside predictions": ("Lena B-PER B-LOC\nlebt O O\n", {"tag_column": "2"}, [(["Lena", "lebt"], [(0, 1, "PER")])]),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_columns_that_an_option_names(tmp_path: Path, kind: str):
    text, options, sentences = CHOICES[kind]
    assert entities_of(written(tmp_path / "a.tsv", text), **options) == sentences


MENDS = (
    "Name the words' column by --token_column",
    "Name the right one by --tag_column, such as",
    "all hold tags of entities. Name one by",
    "none is O. Is this the column",
    "stand for O beside",
    "Count from 1, or from the end with",
    "cannot hold both words and tags. Give",
    "may both be the tags. Name one",
    "Is this a line of names? Take it away",
    "first column holds numbers alone",
    "Correct it, or save it with tabs",
)
UNCERTAIN = {
    "a number of the sentence": ("7\tLena\tB-PER\n7\tlebt\tO\n", {}, "the first column holds numbers alone (7)"),
    "an index without words": ("1\tB-PER\n2\tO\n", {}, "the first column holds numbers alone (1, 2)"),
    "confidence last": (
        "Lena NE B-PER 0.9\nlebt VV O 0.8\n",
        {},
        "the last column holds '0.9', '0.8', and column 3 tags of entities",
    ),
    "parts of speech last": ("Lena B-PER NE\nlebt O VV\n", {}, "such as --tag_column 2"),
    "gold and predictions": ("Lena NE B-PER B-LOC\nlebt VV O O\n", {}, "columns 3, 4 all hold tags of entities. Name one"),
    "parts of speech alone": ("Lena NE\nlebt VV\n", {}, "every word has a type (NE, VV), none is O"),
    "features": ("1\tLena\tCase=Nom\n2\tlebt\t_\n", {}, "does '_' stand for O beside ['Case=Nom']?"),
    "a column that is not there": ("Lena B-PER\n", {"tag_column": "3"}, "--tag_column 3:"),
    "a name that is not there": ("Lena B-PER\n", {"tag_column": "ner"}, "has 2 columns without names. Count from 1"),
    "words and tags in one": ("Lena B-PER\n", {"tag_column": "1"}, "column 1 cannot hold both words and tags"),
    "two columns of tags by name": ("word\ttag\tlabel\nLena\tB-PER\tx\n", {}, "the columns tag and label may both be the tags"),
    "a header of unknown names": ("Wort\tArt\nLena\tPER\nlebt\tO\n", {}, "line 1: 'Art' is a tag unlike all others"),
    "CSV that is none": ('word,tag\n"Lena"x,B-PER\n', {}, "line 2: not CSV ("),
}


@pytest.mark.parametrize("kind", UNCERTAIN)
def test_what_cannot_be_told_is_refused(tmp_path: Path, kind: str):
    text, options, message = UNCERTAIN[kind]
    path = written(tmp_path / ("a.csv" if "CSV" in kind else "a.tsv"), text)
    text = message_of(path, **options)
    assert message in text and any(mend in text for mend in MENDS)
