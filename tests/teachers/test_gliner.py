"""Protects a GLiNER model as a teacher, with a stand-in of its package: what it is asked, and what becomes of its scores."""

import sys
from types import SimpleNamespace

import pytest
from support.gliner import Gliner, use

from glode.errors import InputError
from glode.teachers.gliner import GlinerTeacher, share_out
from glode.teachers.loading import kind_of, load_teacher, own_types
from glode.teachers.teacher import SoftSpan, TeacherSettings

SETTINGS = TeacherSettings(asked={"PER": "PER", "city": "LOC"}, batch_size=7)


def test_a_model_is_asked_for_types_by_name(gliner_directory, monkeypatch):
    model = use(monkeypatch, Gliner(Anna=[("person", 0.75)], Rome=[("city", 0.5)], ive=[("city", 0.9)]))
    assert kind_of(str(gliner_directory)) == "gliner" and own_types(str(gliner_directory)) is None
    teacher = load_teacher(str(gliner_directory), SETTINGS)
    assert teacher.kind == "GLiNER" and list(teacher.types) == ["PER", "city"]
    words = ["Anna", "lives", "in", "Rome"]
    assert teacher([words, ["Es"]], "de") == [[SoftSpan(0, 1, "PER", 0.75), SoftSpan(3, 1, "city", 0.5)], []]
    assert teacher.facts() == {"within_words": 1}
    texts, labels, options = model.asked[0]
    assert texts == ["Anna lives in Rome", "Es"] and labels == ["person", "city"]
    assert options == {"threshold": 0.05, "batch_size": 7, "flat_ner": False, "multi_label": True}


def test_long_sentences_are_given_in_parts(gliner_directory, monkeypatch):
    model = use(monkeypatch, Gliner(Rome=[("city", 0.5)]))
    words = ["a"] * 45 + ["Rome"]
    assert GlinerTeacher(str(gliner_directory), SETTINGS)([words], "de") == [[SoftSpan(45, 1, "city", 0.5)]]
    assert [len(text.split()) for text in model.asked[0][0]] == [20, 20, 6]


def test_scores_of_one_span_make_one_at_most():
    spans = [SoftSpan(0, 1, "A", 0.9), SoftSpan(0, 1, "B", 0.6), SoftSpan(0, 1, "B", 0.3), SoftSpan(1, 1, "A", 0.4)]
    expected = [SoftSpan(0, 1, "B", 0.4), SoftSpan(0, 1, "A", 0.6), SoftSpan(1, 1, "A", 0.4)]
    shared = share_out(spans)
    assert sorted(span[:3] for span in shared) == sorted(span[:3] for span in expected)
    assert sorted(span.score for span in shared) == pytest.approx(sorted(span.score for span in expected))


def test_the_package_is_missing(gliner_directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "gliner", None)
    with pytest.raises(InputError, match="is a GLiNER model, and the package gliner cannot be imported") as raised:
        load_teacher(str(gliner_directory), SETTINGS)
    assert "pip install --no-deps gliner" in str(raised.value)


def test_a_model_that_does_not_load(gliner_directory, monkeypatch):
    def from_pretrained(name):
        raise RuntimeError("no\nweights")

    monkeypatch.setitem(sys.modules, "gliner", SimpleNamespace(GLiNER=SimpleNamespace(from_pretrained=from_pretrained)))
    with pytest.raises(InputError, match=" does not load as a GLiNER model: ") as raised:
        load_teacher(str(gliner_directory), SETTINGS)
    assert str(raised.value).endswith("no weights")
