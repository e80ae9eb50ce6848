"""Protects what all teachers share: other names of types, borders of words, and which spans are entities."""

import pytest

from glode.teachers.teacher import SoftSpan, as_record, likeliest, renamed, to_words, without_overlap

OFFSETS = [(0, 4), (5, 9), (9, 10)]  # Anna Berg.


def test_types_that_become_one_are_added_up_and_others_are_dropped():
    spans = [SoftSpan(0, 1, "FIRST", 0.5), SoftSpan(0, 1, "LAST", 0.25), SoftSpan(1, 1, "DOG", 1.0), SoftSpan(1, 1, "X", 1.0)]
    mapping = {"FIRST": "PER", "LAST": "PER", "X": "O"}
    assert renamed(spans, mapping, ["LOC", "PER"]) == [SoftSpan(0, 1, "PER", 0.75)]


def test_a_record_has_offsets_in_words():
    record = as_record(["Anna", "Berg"], [SoftSpan(0, 2, "PER", 0.1234567)])
    assert record == {"tokens": ["Anna", "Berg"], "entities": [{"start": 0, "end": 2, "entity_group": "PER", "score": 0.123456}]}


def test_the_likeliest_type_has_to_be_likelier_than_none():
    spans = [SoftSpan(0, 1, "PER", 0.4), SoftSpan(0, 1, "LOC", 0.35), SoftSpan(2, 1, "PER", 0.45), SoftSpan(0, 2, "PER", 0.6)]
    assert likeliest(spans) == [SoftSpan(0, 1, "PER", 0.4), SoftSpan(0, 2, "PER", 0.6)]
    assert without_overlap(likeliest(spans)) == [SoftSpan(0, 2, "PER", 0.6)]


@pytest.mark.parametrize(
    ("start", "end", "place"),
    [(0, 4, (0, 1)), (0, 9, (0, 2)), (5, 10, (1, 2)), (1, 4, None), (0, 8, None), (4, 9, None), (9, 99, None)],
)
def test_characters_as_words(start: int, end: int, place: tuple | None):
    assert to_words(start, end, OFFSETS) == place
