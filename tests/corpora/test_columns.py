"""Protects column files of all kinds: words and entities are the right ones."""

import gzip
from pathlib import Path

import pytest
from support.corpora import COLUMNS, LENA, TWO, entities_of, message_of, notes_of, written

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


@pytest.mark.parametrize("mark", ["-DOCSTART-", "-docstart-", "DOCSTART", "</s>", "<s>", "<doc>"])
@pytest.mark.parametrize("rest", ["", " O"])
def test_marks_between_sentences_are_no_words(tmp_path: Path, mark: str, rest: str):
    text = f"{mark}{rest}\nLena B-PER\nOtt I-PER\nlebt O\n{mark}{rest}\nKiel B-LOC\n"
    for name in ("a.conll", "a.txt"):
        assert entities_of(written(tmp_path / name, text)) == LENA


def test_a_mark_with_a_tag_of_its_own_is_a_word(tmp_path: Path):
    text = "<s> B-TAG\nbegins O\na O\nline O\n"
    assert entities_of(written(tmp_path / "a.conll", text)) == [(["<s>", "begins", "a", "line"], [(0, 1, "TAG")])]


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
