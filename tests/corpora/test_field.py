"""Protects against silent misreadings of what the field's data sets and tools write: the right entities, or one message."""

import gzip
from pathlib import Path

import pytest
from support.corpora import entities_of, message_of, notes_of, written

from glode.corpora.reading import read_corpus

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


CHARACTERS = ["王", "明", "在", "基", "尔"]
RECORDS = {
    "CLUENER": {"text": "王明在基尔", "label": {"name": {"王明": [[0, 1]]}, "address": {"基尔": [[3, 4]]}}},
    "doccano's annotations": {
        "text": "王明在基尔",
        "annotations": [
            {"label": "name", "start_offset": 0, "end_offset": 2},
            {"label": "address", "start_offset": 3, "end_offset": 5},
        ],
    },
    "UBIAI": {
        "document": "王明在基尔",
        "annotation": [{"start": 0, "end": 2, "label": "name"}, {"start": 3, "end": 5, "label": "address"}],
    },
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_are_read(tmp_path: Path, kind: str):
    path = written(tmp_path / "a.json", [RECORDS[kind]])
    assert entities_of(path) == [(CHARACTERS, [(0, 2, "name"), (3, 2, "address")])]


def test_a_sentence_above_its_characters(tmp_path: Path):
    path = written(tmp_path / "a.tsv", "## klue_1\t<레나:PS> <킬:LC>\n레\tB-PS\n나\tI-PS\n \tO\n킬\tB-LC\n")
    assert entities_of(path) == [(["레", "나", "\ufffd", "킬"], [(0, 2, "PS"), (3, 1, "LC")])]


def test_titles_in_a_script_without_spaces_are_text(tmp_path: Path):
    titles = ["上海市人民政府", "北京大学图书馆", "世界卫生组织", "东京国立博物馆"] * 5
    path = written(tmp_path / "a.txt", "".join(f"{title}\n" for title in titles))
    assert len(entities_of(path, labelled=False)) == 20
    words = written(tmp_path / "b.txt", "".join(f"{word}\n" for word in ["上海", "市", "的", "博物馆"] * 5))
    assert "nearly every line is one word" in message_of(words, labelled=False)


REFUSED_RECORDS = {
    "MRC-NER": (
        {"context": "Lena lebt", "span_position": ["0;0"], "entity_label": "PER"},
        "a question for each type, as MRC-NER has them, is not read",
    ),
    "CLUENER with ends outside": (
        {"text": "王明在基尔", "label": {"name": {"王明": [[0, 2]]}}},
        "types with their surfaces and places are read as CLUENER has them",
    ),
    "types with texts": ({"text": "Lena lebt", "entities": {"PER": ["Lena"]}}, "'?' is not where it should be"),
    "types with places": ({"text": "Lena lebt", "entities": {"PER": [[0, 4]]}}, "'?' is not where it should be"),
    "mentions of words": (
        {"tokens": ["Lena"], "entity_mentions": [{"entity_type": "PER", "start": 0, "end": 1}]},
        "whether the last word is inside is not certain",
    ),
    "predictions as labels": ({"data": {"text": "Lena lebt"}, "predictions": []}, "no labels"),
}


@pytest.mark.parametrize("kind", REFUSED_RECORDS)
def test_records_are_refused(tmp_path: Path, kind: str):
    record, message = REFUSED_RECORDS[kind]
    assert message in message_of(written(tmp_path / "a.json", [record]))


def test_tasks_before_anyone_has_labelled_them_are_texts(tmp_path: Path):
    path = written(tmp_path / "a.json", [{"data": {"text": "Lena lebt"}}])
    assert entities_of(path, labelled=False) == [(["Lena", "lebt"], [])]


REFUSED = {
    "two tags with a slash": ("Lena B-PER/B-LOC\nlebt O\n", "holds several tags. Keep one layer"),
    "a text and its label": ("text\tlabel\nLena lebt\tPER\nOtto auch\tO\n", "a column holds texts"),
    "numbered texts": ("id\ttext\n1\tLena lebt in Kiel .\n2\tOtto auch .\n", "a column holds texts ('Lena lebt in Kiel .')"),
    "sentences": ("Lena lebt in Kiel\tB-PER O O B-LOC\nOtto auch\tB-PER O\n", "Give a word a line; texts go into a .txt file"),
    "the tags of a sentence": ("Lena\tB-PER O\nOtto\tO\nKiel\tB-LOC\n", "is no tag of one word. Give"),
    "tags first": ("B-PER\tLena\nO\tlebt\n", "the first column holds the tags (B-PER, O). Name both columns"),
    "types first": ("PER Lena NE\nO lebt VV\n", "such as --token_column 2 --tag_column 1"),
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


NO_TEXT = {
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "the content is a pointer of Git LFS"),
    "a zip": (b"PK\x03\x04\x14\0", "the content is an archive or a spreadsheet"),
    "gzip": (gzip.compress(b"Lena O\n"), "the content is packed by gzip"),
    "UTF-16": ("Lena O\n".encode("utf-16"), "the content is UTF-16. Convert"),
    "a web page": (b"<!DOCTYPE html>\n<html>\n", "the content is a web page"),
    "XML": (b"<?xml version='1.0'?>\n", "the content is XML, which is not read"),
}


@pytest.mark.parametrize("kind", NO_TEXT)
@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.jsonl"])
def test_what_is_no_text_is_named(tmp_path: Path, kind: str, name: str):
    content, message = NO_TEXT[kind]
    text = message_of(written(tmp_path / name, content), labelled=name != "a.txt")
    assert "whatever its name says, the content is" in text and message in text


def test_numbers_before_lines_of_text(tmp_path: Path):
    path = written(tmp_path / "deu-sentences.txt", "1\tLena lebt.\n2\tEs regnet.\n4\tKiel.\n")
    assert [words for words, _ in entities_of(path, labelled=False)] == [
        ["Lena", "lebt", "."],
        ["Es", "regnet", "."],
        ["Kiel", "."],
    ]
    assert "numbers before a line left out" in next(read_corpus(str(path), False))["notes"][0]


NO_PLAIN_TEXT = {
    "records": ('{"text": "Lena"}\n{"text": "Ott"}\n', "records of JSON, one a line, are no plain text"),
    "marks": ("<PER>Lena</PER> lebt .\n<LOC>Kiel</LOC> auch .\n", "line 1: text with marks of entities, as in"),
    "brackets": ("[Lena]PER lebt .\n[Kiel](LOC) auch .\n", "As target text, take the marks away"),
    "names with types": ("<Lena:PER> lebt .\n<Kiel:LOC> auch .\n", "As target text, take the marks away"),
    "OpenNLP's": ("Es regnet .\nEs hagelt .\n<START:person> Lena <END> lebt .\n", "line 3: text with marks of entities"),
    "MUC's, in a few lines": ('Es regnet .\nEs hagelt .\n<ENAMEX TYPE="PERSON">Lena</ENAMEX> lebt .\n', "line 3: text with"),
    "NLTK's trees": ("(S\n  (PERSON Lena/NNP Ott/NNP)\n  lebt/VBZ)\n", "line 2: text with marks of entities"),
    "types behind slashes": ("Lena/PER lebt/O\nKiel/LOC auch/O\n", "words with their tags attached, as in 'Lena/PER'"),
    "parts of speech behind slashes": (
        "Lena/NNP lebt/VBZ in/IN Kiel/NNP ./.\n",
        "words with their tags attached, as in 'Lena/NNP'",
    ),
    "WikiNER's": ("Lena|NNP|I-PER lebt|VB|O\nKiel|NNP|I-LOC\n", "words with their tags attached, as in 'Lena|NNP|I-PER'"),
    "tags and words": ("B-PER Lena\nO lebt\n\nB-LOC Kiel\nO liegt\nO da\n", "the first column holds the tags"),
    "PubTator": ("1|t|Lena lebt.\n1|a|Es regnet.\n1\t0\t4\tLena\tPER\n", "PubTator's title and abstract lines are no plain text"),
    "a word a line": (
        "Lena\nlebt\nin\nKiel\n.\n\n" * 3,
        "Write a sentence a line; words that have a line each",
    ),
    "a table": ("7\tdeu\tLena lebt.\n3\tdeu\tEs regnet.\n", "tabs, as a table has. Keep"),
}


@pytest.mark.parametrize("name", ["a.txt", "a.train"])
@pytest.mark.parametrize("kind", ["OpenNLP's", "NLTK's trees", "WikiNER's", "marks"])
def test_marks_are_no_labels(tmp_path: Path, kind: str, name: str):
    text, message = NO_PLAIN_TEXT[kind]
    assert message in message_of(written(tmp_path / name, text))


def test_a_mark_of_the_web_is_text(tmp_path: Path):
    lines = ["Es <b>regnet</b> .", "Es hagelt .", "Er trank und/oder ging (BBC Radio/TV) .", "(S. 12)", "E-Mail kam ."]
    for name, text in (("a.txt", "\n".join(lines)), ("b.txt", lines[-1]), ("c.txt", lines[2])):
        assert len(entities_of(written(tmp_path / name, text), labelled=False)) == text.count("\n") + 1


TABLES_OF_TEXTS = {
    "numbered": "id,text\n1,Lena lebt\n2,Otto auch\n3,Kiel brennt\n",
    "alone": "text\nLena lebt\nOtto auch\n",
    "with a language": "text,lang\nLena lebt,de\nOtto auch,de\n",
}


@pytest.mark.parametrize("kind", TABLES_OF_TEXTS)
def test_tables_of_short_texts(tmp_path: Path, kind: str):
    message = message_of(written(tmp_path / "a.csv", TABLES_OF_TEXTS[kind]), labelled=False)
    assert "a column holds texts" in message and ("Lena lebt" in message or "Kiel brennt" in message)


def test_a_table_of_titles_and_numbers(tmp_path: Path):
    path = written(tmp_path / "a.csv", "id,title\n1,Kiel\n2,Oslo\n")
    assert "the first column holds numbers alone (id, 1, 2)" in message_of(path, labelled=False)


TABLE_OF_OFFSETS = "File,Line,Begin Offset,End Offset,Type\nd.txt,0,0,4,PER\n"


@pytest.mark.parametrize("table", [TABLE_OF_OFFSETS, "text,start,end,type\n1,0,4,PER\n"])
def test_a_row_an_entity(tmp_path: Path, table: str):
    message = message_of(written(tmp_path / "a.csv", table))
    assert "line 1:" in message and "without the texts around them. Give records" in message


@pytest.mark.parametrize("kind", NO_PLAIN_TEXT)
def test_what_is_no_plain_text_is_refused(tmp_path: Path, kind: str):
    text, message = NO_PLAIN_TEXT[kind]
    assert message in message_of(written(tmp_path / "a.txt", text), labelled=False)


def test_triggers_of_events_are_no_entities(tmp_path: Path):
    written(tmp_path / "a.ann", "T1\tPER 0 4\tLena\nT2\tMarry 5 13\theiratet\nE1\tMarry:T2 Who:T1\nR1\tx Arg1:T1 Arg2:T2\n")
    path = written(tmp_path / "a.txt", "Lena heiratet Otto\n")
    assert entities_of(path) == [(["Lena", "heiratet", "Otto"], [(0, 1, "PER")])]
    assert notes_of(path) == {"triggers of events left out": 1}


def test_two_lists_of_tags_in_a_record(tmp_path: Path):
    record = {"tokens": ["Lena", "lebt"], "tags": ["NN", "VV"], "ner": ["B-PER", "O"]}
    path = written(tmp_path / "a.json", [record])
    assert "tags and ner may both be the words' tags. Name" in (message := message_of(path))
    assert "may both be the words' tags" in message
    assert entities_of(path, tag_column="ner") == [(["Lena", "lebt"], [(0, 1, "PER")])]


def test_ends_that_are_inside(tmp_path: Path):
    texts = ("Lena lebt", "Otto auch", "Anna nicht")
    path = written(tmp_path / "a.json", [{"text": text, "entities": [[0, 3, "PER"]]} for text in texts])
    assert "entities end one letter before their word does" in message_of(path)


def test_offsets_that_only_a_browser_counts_so(tmp_path: Path):
    path = written(tmp_path / "a.json", [{"text": "\U0001f600 Lena lebt", "entities": [[3, 7, "PER"]]}])
    assert entities_of(path)[0][1] == [(1, 1, "PER")]
    assert notes_of(path) == {"offsets in UTF-16 units converted": 1}


def test_white_space_at_the_end_of_a_span_is_no_sign_of_a_browser(tmp_path: Path):
    """Counted in UTF-16 units, the last end would be one of a word."""
    text = "000\U00010000\U00010000:\n"
    path = written(tmp_path / "a.json", [{"text": text, "entities": [[0, 7, "X"]]}])
    words, entities = entities_of(path)[0]
    assert entities == [(0, len(words), "X")] and notes_of(path) == {}


def test_of_two_types_the_first_is_kept(tmp_path: Path):
    path = written(tmp_path / "a.json", [{"text": "Lena lebt", "entities": [[0, 4, "PER"], [0, 4, "LOC"]]}])
    assert entities_of(path)[0][1] == [(0, 1, "PER")]


def test_label_studio_says_which_text(tmp_path: Path):
    value = {"start": 0, "end": 4, "labels": ["PER"]}
    task = {"data": {"title": "Lena", "text": "Otto auch"}, "annotations": [{"result": [{"to_name": "title", "value": value}]}]}
    assert entities_of(written(tmp_path / "a.json", [task])) == [(["Lena"], [(0, 1, "PER")])]


def test_what_is_refused_is_settled_by_an_option(tmp_path: Path):
    assert entities_of(written(tmp_path / "a.tsv", REFUSED["a document's name"][0]), token_column="2")[0][0][0] == "Lena"
    assert entities_of(written(tmp_path / "b.tsv", REFUSED["chunks"][0]), tag_column="3")[0][1] == [(0, 1, "NP"), (1, 1, "VP")]
    assert entities_of(written(tmp_path / "c.tsv", REFUSED["numbered entities"][0]), scheme="IOB2")[0][1][1] == (1, 1, "PER-2")
