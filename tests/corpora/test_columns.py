"""Protects column files of all kinds: word, tag and sentence are the right ones, or one message says what cannot be told."""

import gzip
from pathlib import Path

import pytest
from support.corpora import COLUMNS, TWO, entities_of, message_of, notes_of, written

from glode.corpora.reading import read_corpus

pytestmark = pytest.mark.usefixtures("datasets_cache")


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
    assert notes_of(path) == {"words with a blank in them": 1, "invisible words kept": 1}


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


def test_another_column_than_the_tags(tmp_path: Path):
    path = tmp_path / "lemmas.tsv"
    path.write_text("".join(f"word\tlemma{n}\n" for n in range(1500)))
    assert "line 1001: more than 1000 different tags" in (message := message_of(path))
    assert "different tags. Is this the column of the tags" in message


def test_a_text_file_of_a_labelled_corpus_has_columns(tmp_path: Path):
    path = tmp_path / "train.txt"
    path.write_text(COLUMNS["tabs"])
    assert entities_of(path) == TWO


LENA = [(["Lena", "Ott", "lebt"], [(0, 2, "PER")]), (["Kiel"], [(0, 1, "LOC")])]

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


CSV = {
    "Kaggle": "Sentence #,Word,POS,Tag\nSentence: 1,Lena,NE,B-PER\n,Ott,NE,I-PER\n,lebt,VV,O\nSentence: 2,Kiel,NE,B-LOC\n",
    "semicolons": "id;word;ner\n1;Lena;B-PER\n2;Ott;I-PER\n3;lebt;O\n\n4;Kiel;B-LOC\n",
    "pandas": ",word,pos,sentence_idx,tag\n0,Lena,NE,1.0,B-PER\n1,Ott,NE,1.0,I-PER\n2,lebt,VV,1.0,O\n3,Kiel,NE,2.0,B-LOC\n",
    "quotes": '"token","label"\n"Lena","B-PER"\n"Ott","I-PER"\n"lebt","O"\n,\n"Kiel","B-LOC"\n',
    "no header": "Lena,B-PER\nOtt,I-PER\nlebt,O\n\nKiel,B-LOC\n",
}


@pytest.mark.parametrize("kind", CSV)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(tmp_path: Path, kind: str, end: str):
    assert entities_of(written(tmp_path / "a.csv", CSV[kind].replace("\n", end))) == LENA


def test_csv_with_words_that_separate(tmp_path: Path):
    path = written(tmp_path / "a.csv", 'word,tag\n",",O\n"""",O\n#1,O\n"New York",B-LOC\n')
    assert entities_of(path) == [([",", '"', "#1", "New York"], [(3, 1, "LOC")])]


@pytest.mark.parametrize("labelled", [False, True])
def test_text_whose_lines_end_in_tags_has_columns(tmp_path: Path, labelled: bool):
    text = "-DOCSTART- -X- -X- O\n\nLena NNP B-NP B-PER\nOtt NNP I-NP I-PER\nlebt VBZ B-VP O\n\nKiel NNP B-NP B-LOC\n"
    assert entities_of(written(tmp_path / "a.txt", text), labelled) == LENA
    assert entities_of(written(tmp_path / "b.txt", "Lena b-per\nOtt i-per\nlebt o\n\nKiel b-loc\n"), labelled) == LENA
    assert entities_of(written(tmp_path / "c.txt", "Lena PER\nOtt PER\nlebt O\n\nKiel LOC\n"), labelled) == LENA


def test_text_of_which_some_lines_end_in_tags(tmp_path: Path):
    path = written(tmp_path / "a.txt", "Lena B-PER\nlebt O\nin O\nKiel.\n")
    assert "3 of its first 4" in (message := message_of(path, labelled=False)) and "lines end in a tag such as O" in message
    written(path, "She has vitamin B-twelve\nand lives in Kiel.\nThe grade was an\nO\n")
    assert len(entities_of(path, labelled=False)) == 4


def test_tags_that_are_none_of_entities_in_text_without_labels(tmp_path: Path):
    path = written(tmp_path / "a.tsv", "Lena\tNE\nlebt\tVV\n")
    assert entities_of(path, labelled=False) == [(["Lena", "lebt"], [])]
    notes = next(read_corpus(str(path), False))["notes"]
    assert notes == ["2 words whose tags are none of entities, and are not read"] and "words whose tags are none of" in notes[0]


@pytest.mark.parametrize(
    "name", ["train", "eng.testa", "esp.train", "ned.testb", "NER-de-train.tsv", "a.iob2", "a.bio", "a.BIO", "a.conllu", "a.dat"]
)
def test_names_of_column_files(tmp_path: Path, name: str):
    assert entities_of(written(tmp_path / name, "Lena B-PER\nOtt I-PER\nlebt O\n\nKiel B-LOC\n")) == LENA


FIELD = {
    "Few-NERD: types with hyphens, no prefixes": ("Lena\tperson-actor\nOtt\tperson-actor\nlebt\tO\n", [(0, 2, "person-actor")]),
    "OntoNotes: types with underscores": ("Lena B-WORK_OF_ART\nOtt I-WORK_OF_ART\nlebt O\n", [(0, 2, "WORK_OF_ART")]),
    "CNEC: types of one letter": ("Lena B-P\nOtt I-P\nlebt O\n", [(0, 2, "P")]),
    "GermEval: derived types": ("1\tLena\tB-LOCderiv\tO\n2\tOtt\tI-LOCderiv\tO\n3\tlebt\tO\tO\n", [(0, 2, "LOCderiv")]),
    "CoNLL-2003 German: a lemma, chunks": ("Lena L NE I-NC I-PER\nOtt O NE I-NC I-PER\nlebt l VV I-VC O\n", [(0, 2, "PER")]),
    "CoNLL-U: ranges and empty nodes": (
        "1-2\tLenaOtt\t_\n1\tLena\tB-PER\n2\tOtt\tI-PER\n2.1\tx\t_\n3\tlebt\tO\n",
        [(0, 2, "PER")],
    ),
    "a lemma that looks like O": ("Lena o NE B-PER\nOtt o NE I-PER\nlebt O VV O\n", [(0, 2, "PER")]),
    "HIPE, by a name": ("TOKEN\tNE-COARSE-LIT\tMISC\nLena\tB-pers\t_\nOtt\tI-pers\t_\nlebt\tO\tNoSpace\n", [(0, 2, "pers")]),
}


@pytest.mark.parametrize("kind", FIELD)
def test_formats_of_the_field(tmp_path: Path, kind: str):
    text, entities = FIELD[kind]
    options = {"tag_column": "NE-COARSE-LIT"} if "by a name" in kind else {}
    assert entities_of(written(tmp_path / "a.tsv", text), **options) == [(["Lena", "Ott", "lebt"], entities)]


REFUSED = {
    "FiNER: two layers without an index": ("a.csv", "Lena\tB-PER\tO\nlebt\tO\tO\n"),
    "HIPE without the option": ("a.tsv", "TOKEN\tNE-COARSE-LIT\tMISC\nLena\tB-pers\t_\nlebt\tO\tNoSpace\n"),
    "spaCy 1's .iob": ("a.iob", "Lena|B-PER lebt|O\nKiel|B-LOC ruft|O\n"),
    "JSON in CSV": ("a.csv", "tokens,ner_tags\n\"['Lena', 'lebt']\",\"['B-PER', 'O']\"\n"),
    "Kaggle, a sentence a line": ("a.csv", "Sentence #,Sentence,POS,Tag\nSentence: 1,Lena lebt,\"['NE']\",\"['B-per', 'O']\"\n"),
    "types alone": ("a.conll", "Lena B\nOtt I\nlebt O\n"),
    "BIO in capitals and small letters": ("a.conll", "Lena B-PER\nOtt i-per\nlebt O\n"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_formats_of_the_field_that_are_not_read(tmp_path: Path, kind: str):
    name, text = REFUSED[kind]
    assert message_of(written(tmp_path / name, text)).startswith(str(tmp_path / name))


def test_words_with_their_tags_attached(tmp_path: Path):
    path = written(tmp_path / "a.txt", "Lena/B-PER Ott/I-PER lebt/O in/O Kiel/B-LOC\nKiel/B-LOC ruft/O\n")
    message = message_of(path, labelled=False)
    assert "words with their tags attached, as in" in message and "'Lena/B-PER'. Write a word" in message
