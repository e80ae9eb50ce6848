"""Protects annotated records: what JSON of the field's tools says arrives as words and entities."""

import gzip
import json
from pathlib import Path

import pytest
from support.corpora import TWO, entities_of, message_of, notes_of, written

from glode.corpora.schemes import encode_tags

pytestmark = pytest.mark.usefixtures("datasets_cache")


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


OFFSETS = {
    "spaCy": {"text": "Anna Berg sings", "entities": [[0, 9, "PER"]]},
    "spaCy's pairs": ["Anna Berg sings", {"entities": [[0, 9, "PER"]]}],
    "doccano": {"text": "Anna Berg sings", "label": [[0, 9, "PER"]]},
    "doccano with relations": {
        "text": "Anna Berg sings",
        "entities": [{"id": 1, "label": "PER", "start_offset": 0, "end_offset": 9}],
    },
    "Prodigy": {
        "text": "Anna Berg sings",
        "tokens": [{"text": "Anna Berg", "start": 0, "end": 9, "id": 0}],
        "spans": [{"start": 0, "end": 9, "label": "PER", "token_start": 0, "token_end": 0}],
        "answer": "accept",
    },
    "Label Studio": {
        "data": {"text": "Anna Berg sings"},
        "annotations": [
            {"was_cancelled": True, "result": []},
            {
                "result": [
                    {"value": {"start": 0, "end": 9, "text": "Anna Berg", "labels": ["PER"]}},
                    {"value": {"choices": ["x"]}},
                ]
            },
        ],
    },
    "Label Studio's short form": {
        "text": "Anna Berg sings",
        "label": [{"start": 0, "end": 9, "text": "Anna Berg", "labels": ["PER"]}],
    },
}


@pytest.mark.parametrize("kind", OFFSETS)
@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.json", "lines.json"])
def test_offsets(tmp_path: Path, kind: str, name: str):
    records = [OFFSETS[kind], {"text": "Oslo", "entities": [[0, 4, "LOC"]]}]
    if name == "lines.json" and isinstance(records[0], list):
        records.reverse()
    path = tmp_path / name
    path.write_text(json.dumps(records, indent=1) if name == "corpus.json" else "\n".join(map(json.dumps, records)))
    assert sorted(entities_of(path)) == sorted(TWO)


def test_borders_of_entities_are_borders_of_words(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    record = {"text": " Berlins Mitte. 上海人", "entities": [[1, 7, "LOC"], [8, 14, "LOC"], [16, 18, "LOC"], [8, 9, "X"]]}
    path.write_text(json.dumps(record))
    words = ["Berlin", "s", "Mitte", ".", "上", "海", "人"]
    assert entities_of(path) == [(words, [(0, 1, "LOC"), (2, 1, "LOC"), (4, 2, "LOC")])]
    assert notes_of(path) == {"entities without a visible character left out": 1, "words split at the border of an entity": 1}


def test_offsets_in_the_units_of_browsers(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    spans = {"😀 Oslo 😀": (3, 7, "Oslo"), "bei Bar 😀": (4, 10, "Bar 😀")}  # the end of the second is beyond its text
    records = [
        {"text": text, "label": [{"start": start, "end": end, "text": name, "labels": ["X"]}]}
        for text, (start, end, name) in spans.items()
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    assert entities_of(path) == [(["😀", "Oslo", "😀"], [(1, 1, "X")]), (["bei", "Bar", "😀"], [(1, 2, "X")])]
    assert notes_of(path) == {"offsets in UTF-16 units converted": 2}


def test_the_first_annotation_of_a_task_counts(tmp_path: Path):
    path, values = tmp_path / "corpus.json", [{"start": 0, "end": 4, "labels": [name]} for name in ("LOC", "PER")]
    path.write_text(json.dumps([{"data": {"text": "Oslo"}, "annotations": [{"result": [{"value": value}]} for value in values]}]))
    assert entities_of(path) == [(["Oslo"], [(0, 1, "LOC")])]
    assert notes_of(path) == {"further annotations of a task left out": 1}


def test_what_a_label_a_span_cannot_hold_is_counted(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    entities = [[0, 8, "ORG"], [0, 8, "LOC"], [0, 3, "LOC"]]
    lines = [{"text": "no", "answer": "reject"}, {"text": "New York", "entities": entities}, {"text": "no", "answer": "ignore"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert entities_of(path) == [(["New", "York"], [(0, 1, "LOC"), (0, 2, "ORG")])]
    assert notes_of(path) == {
        "entities that overlap another": 1,
        "records left out that an annotator rejected or ignored": 2,
        "second types of a span left out": 1,
    }


def test_words_that_nobody_sees_keep_their_place(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"tokens": ["", "Oslo", " "], "tags": ["O", "B-LOC", "O"]}')
    assert entities_of(path) == [(["\ufffd", "Oslo", "\ufffd"], [(1, 1, "LOC")])]
    assert notes_of(path) == {"invisible words kept": 2}


LENA = (["Lena", "Ott", "lebt"], [(0, 2, "PER")])
NOBODY = (["niemand", "lebt"], [])


def task(data: dict, *values: dict, **annotation) -> dict:
    """A task of Label Studio with one annotation."""
    return {
        "id": 1,
        "data": data,
        "annotations": [{"result": [{"type": "labels", "value": value} for value in values], **annotation}],
    }


REGION = {"start": 0, "end": 8, "text": "Lena Ott", "labels": ["PER"]}

TOOLS = {
    "GLiNER": [
        {"tokenized_text": LENA[0], "ner": [[0, 1, "PER"]]},
        {"tokenized_text": NOBODY[0], "ner": []},
    ],
    "glode tag": [
        {"text": "Lena Ott lebt", "entities": [{"entity_group": "PER", "score": 0.9, "word": "Lena Ott", "start": 0, "end": 8}]},
        {"text": "niemand lebt", "entities": []},
    ],
    "spaCy's annotation tool": {
        "classes": ["PER"],
        "annotations": [["Lena Ott lebt", {"entities": [[0, 8, "PER"]]}], None, ["niemand lebt", {"entities": []}]],
    },
    "spaCy 3's Doc.to_json": [
        {"text": "Lena Ott lebt", "ents": [{"start": 0, "end": 8, "label": "PER"}], "tokens": [{"id": 0, "start": 0, "end": 4}]},
        {"text": "niemand lebt", "ents": [], "tokens": []},
    ],
    "spaCy 2's documents": [
        {
            "id": 0,
            "paragraphs": [
                {
                    "raw": "...",
                    "sentences": [
                        {"tokens": [{"orth": w, "ner": t} for w, t in zip(LENA[0], ["B-PER", "L-PER", "O"], strict=True)]},
                        {"tokens": [{"orth": word, "ner": "O"} for word in NOBODY[0]]},
                    ],
                }
            ],
        }
    ],
    "doccano of old": [
        {"id": 1, "data": "Lena Ott lebt", "label": [[0, 8, "PER"]]},
        {"id": 2, "data": "niemand lebt", "label": []},
    ],
    "Prodigy without spans": [
        {"text": "Lena Ott lebt", "spans": [{"start": 0, "end": 8, "label": "PER"}], "answer": "accept"},
        {"text": "niemand lebt", "tokens": [{"text": "niemand", "start": 0, "end": 7}], "answer": "accept"},
    ],
    "Label Studio, text under another key": [
        task({"content": "Lena Ott lebt"}, REGION),
        task({"content": "niemand lebt"}),
    ],
    "Label Studio, several strings": [
        task({"title": "kurz", "content": "Lena Ott lebt", "id": "7"}, REGION),
        task({"text": "niemand lebt", "title": "kurz"}),
    ],
    "Label Studio, old": [
        {"data": {"text": "Lena Ott lebt"}, "completions": [{"result": [{"value": REGION}]}]},
        {"data": {"text": "niemand lebt"}, "completions": [{"result": []}]},
    ],
    "Label Studio, choices and relations": [
        task({"text": "Lena Ott lebt"}, REGION, {"choices": ["kurz"]}),
        {"data": {"text": "niemand lebt"}, "annotations": [{"result": [{"type": "relation", "from_id": "a"}]}]},
    ],
    "Label Studio, short": [
        {"id": 1, "content": "Lena Ott lebt", "spans_of_mine": [REGION], "annotator": 1, "created_at": "..."},
        {"id": 2, "content": "niemand lebt", "annotator": 1, "created_at": "..."},
    ],
    "names of tags before other tags": [
        {"tokens": LENA[0], "tags": ["NE", "NE", "VV"], "ner_tags": ["B-PER", "I-PER", "O"]},
        {"tokens": NOBODY[0], "tags": ["PI", "VV"], "ner_tags": ["O", "O"]},
    ],
}


@pytest.mark.parametrize("kind", TOOLS)
def test_what_tools_write(tmp_path: Path, kind: str):
    assert entities_of(written(tmp_path / "a.json", json.dumps(TOOLS[kind], indent=1))) == [LENA, NOBODY]
    if isinstance(TOOLS[kind], list):
        assert entities_of(written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, TOOLS[kind])))) == [LENA, NOBODY]


@pytest.mark.parametrize(
    ("text", "surface"),
    [
        ("Hallo\nLena Ott", "Lena Ott"),
        ("Hallo Lena\nOtt", "Lena\\nOtt"),
        ("Hallo Lena\nOtt", "Lena Ott"),
        ("Hallo Lena Ott", "Lena\\tOtt"),
        ("😀😀 \nLena\nOtt", "Lena\\nOtt"),
    ],
)
def test_line_breaks_of_labelled_text(tmp_path: Path, text: str, surface: str):
    """Label Studio writes them as backslash and n; a browser counts an emoji as two."""
    start = len(text.encode("utf-16-le")) // 2 - 8
    path = written(
        tmp_path / "a.json", [task({"text": text}, {"start": start, "end": start + 8, "text": surface, "labels": ["PER"]})]
    )
    ((words, entities),) = entities_of(path)
    assert entities == [(len(words) - 2, 2, "PER")] and words[-2:] == ["Lena", "Ott"]


def test_tasks_that_were_skipped_and_regions_without_label(tmp_path: Path):
    tasks = [
        task({"text": "nichts"}, was_cancelled=True),
        task({"text": "Lena Ott lebt"}, REGION, {"start": 9, "end": 13, "text": "lebt"}),
    ]
    path = written(tmp_path / "a.json", tasks)
    assert entities_of(path) == [LENA]
    assert notes_of(path) == {
        "records left out that an annotator rejected or ignored": 1,
        "regions of a task without a label left out": 1,
    }


def test_the_text_that_an_option_names(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", {"id": "x", "body": "Lena Ott lebt", "title": "kurz", "entities": [[0, 4, "PER"]]})
    assert "the text may be under any of" in (message := message_of(path)) and "['body', 'title']. Name its key" in message
    assert entities_of(path, text_field="body") == [(LENA[0], [(0, 1, "PER")])]
    assert "its strings are under" in (message := message_of(path, text_field="corpus")) and "['body', 'title']" in message
    written(path, {"sentence": "Lena Ott lebt"})
    assert "The keys are 'sentence'" in (message := message_of(path, labelled=False)) and "; others are named by" in message
    assert entities_of(path, labelled=False, text_field="sentence") == [(LENA[0], [])]


def test_keys_that_options_name(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", {"wort": LENA[0], "art": ["B-PER", "I-PER", "O"]})
    assert entities_of(path, token_column="wort", tag_column="art") == [LENA]


def test_words_that_spacy_leaves_without_label(tmp_path: Path):
    tokens = [{"orth": "Lena", "ner": "U-PER"}, {"orth": "lebt", "ner": "-"}]
    whole = [{"orth": "Kiel", "ner": "U-LOC"}]
    path = written(tmp_path / "a.json", [{"paragraphs": [{"sentences": [{"tokens": tokens}, {"tokens": whole}]}]}])
    assert entities_of(path) == [(["Kiel"], [(0, 1, "LOC")])]
    assert notes_of(path) == {"sentences left out in which words are not labelled": 1}
    written(path, [{"paragraphs": [{"sentences": [{"tokens": [{"orth": "Kiel"}]}]}]}])
    assert entities_of(path, labelled=False) == [(["Kiel"], [])]
    assert "no labels. In a" in message_of(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"tokens": ["a", "b"], "entities": [{"type": "X", "start": 0, "end": 1}]},
            "spans of words: whether the last word is inside",
        ),
        ({"tokenized_text": ["a"], "ner": [[0, 1, "X"]]}, "with positions of words, the last inside"),
        ({"tokenized_text": ["a"], "ner": [["0", "0", "X"]]}, "with positions of words, the last inside"),
        ({"tokenized_text": "a b", "ner": []}, "with positions of words, the last inside"),
        ({"paragraphs": [{"raw": "a", "entities": []}]}, "a document of spaCy 2 has paragraphs of sentences of tokens"),
        (task({"html": "<b>a</b>"}, {"start": "/b", "hypertextlabels": ["X"]}), "are no offsets in a text. Label it as Text"),
        (task({"text": ["a", "b"]}, {"start": 0, "end": 1, "labels": ["X"]}), "expected {"),
        ({"tokens": ["a"], "tags": []}, " tags, but expected lists of equal length"),
        ({"tokens": ["a"], "tags": "O"}, " words. Give a tag a word"),
        ({"tokens": ["a"], "tags": [3]}, "the tags are numbers without names"),
        ({"tokens": ["a"], "tags": [["O"]]}, "The keys are 'tokens', 'tags'"),
    ],
)
def test_records_that_cannot_be_told(tmp_path: Path, record: dict, message: str):
    assert message in message_of(written(tmp_path / "a.jsonl", record))
