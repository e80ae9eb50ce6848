"""Protects records as annotation tools and services export them: the right entities, or what to export instead."""

import json
from pathlib import Path

import pytest
from support.corpora import entities_of, message_of, notes_of, written

pytestmark = pytest.mark.usefixtures("datasets_cache")

TEXT = "Lena Ott lebt"
LENA = (["Lena", "Ott", "lebt"], [(0, 2, "PER")])


def bioc(*locations: tuple[int, int]) -> dict:
    """A document whose second passage begins at 20."""
    places = [{"offset": offset, "length": length} for offset, length in locations]
    annotation = {"text": "Lena Ott", "infons": {"type": "PER"}, "locations": places}
    title = {"offset": 0, "text": "Kiel", "annotations": []}
    return {"id": "7", "passages": [title, {"offset": 20, "text": TEXT, "annotations": [annotation]}]}


def argilla(*responses: list, status: str = "submitted") -> dict:
    states = [status] * len(responses)
    return {"id": "a", "status": "completed", "text": TEXT, "q.responses": list(responses), "q.responses.status": states}


PER = {"start": 0, "end": 8, "label": "PER"}
EXPORTS = {
    "AutoML": {
        "text_snippet": {"content": TEXT},
        "annotations": [{"text_extraction": {"text_segment": {"end_offset": 8}}, "display_name": "PER"}],
    },
    "Vertex AI": {
        "textContent": TEXT,
        "textSegmentAnnotations": [{"startOffset": "0", "endOffset": "8", "displayName": "PER"}],
    },
    "Ground Truth": {
        "source": TEXT,
        "ner": {"annotations": {"entities": [{"label": "PER", "startOffset": 0, "endOffset": 8}]}},
        "ner-metadata": {"type": "groundtruth/custom"},
    },
    "LightTag": {"examples": [{"content": TEXT, "annotations": [{"start": 0, "end": 8, "tag": "PER", "value": "Lena Ott"}]}]},
    "Dataturks": {
        "content": TEXT,
        "annotation": [{"label": ["PER"], "points": [{"start": 0, "end": 7, "text": "Lena Ott"}]}],
        "extras": None,
    },
    "Rubrix": {"text": TEXT, "tokens": TEXT.split(), "prediction": None, "annotation": [["PER", 0, 8]], "status": "Validated"},
    "Argilla 2": argilla([PER]),
    "offset and length": {"text": TEXT, "entities": [{"type": "PER", "offset": 0, "length": 8}]},
}


@pytest.mark.parametrize("kind", EXPORTS)
def test_exports_are_read(tmp_path: Path, kind: str):
    assert entities_of(written(tmp_path / "a.json", [EXPORTS[kind]])) == [LENA]


@pytest.mark.parametrize("collected", [True, False])
def test_bioc(tmp_path: Path, collected: bool):
    record = {"source": "x", "key": "y", "documents": [bioc((20, 8))]} if collected else bioc((20, 8))
    path = written(tmp_path / "a.json", json.dumps(record, indent=1))
    assert entities_of(path) == [(["Kiel"], []), LENA]
    written(path, bioc((20, 4), (25, 3)))
    assert entities_of(path)[1] == (LENA[0], [])
    assert notes_of(path) == {"entities with gaps left out": 1}


def test_several_annotators(tmp_path: Path):
    path = written(tmp_path / "a.json", [argilla([PER], [])])
    assert entities_of(path) == [LENA]
    assert notes_of(path) == {"further annotations of a task left out": 1}
    assert "no labels. In a" in message_of(written(path, [argilla([PER], status="discarded")]))


REFUSED = {
    "INCEpTION": (
        {"%TYPES": {}, "%FEATURE_STRUCTURES": [], "%VIEWS": {}},
        "this looks like a CAS of UIMA in JSON (INCEpTION), which no reader here takes. Export it as CoNLL 2002",
    ),
    "tagtog": (
        {"annotatable": {}, "anncomplete": True, "entities": []},
        "a file of tagtog's annotations, which no",
    ),
    "texts with places": ({"text": TEXT, "entities": [["Lena", 0, 4]]}, "is no start, end and type inside the text"),
    "Azure": (
        {"projectFileVersion": "1", "assets": {}},
        "The texts lie in other files",
    ),
    "Comprehend": ({"Entities": [], "File": "d.txt", "Line": 0}, "which no reader here takes"),
    "Universal NER": ({"id": "1", "conversations": []}, "which no reader here takes. It says what is in a text, and not where"),
    "DocRED": ({"sents": [["Lena"]], "vertexSet": []}, "a document of DocRED, which no reader here takes. Write each sentence"),
    "another LightTag": ({"examples": [{"text": TEXT}]}, ", but its texts or spans are not where they should be"),
    "labels of two jobs": (
        EXPORTS["Ground Truth"] | {"b": {"annotations": {"entities": []}}},
        "labels of several jobs",
    ),
    "Dataturks with other places": (
        {"content": TEXT, "annotation": [{"label": ["PER"], "points": [{"start": 0, "end": 9, "text": "Lena Ott"}]}]},
        "the span says 'Lena Ott'",
    ),
    "doccano's ids of labels": (
        {"text": TEXT, "annotations": [{"label": 1, "start_offset": 0, "end_offset": 4}]},
        "of a span is only a number. Export the labels with their names",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_to_export_instead(tmp_path: Path, kind: str):
    record, message = REFUSED[kind]
    text = message_of(written(tmp_path / "a.jsonl", record))
    assert message in text and "line 1" in text
