"""Protects the kinds of errors: each entity is in one pair at most, and the four measures follow from the numbers."""

import pytest

from glode.evaluation.kinds import KINDS, confusions, count_kinds, kinds_by_type, outcomes, partial_scores


@pytest.mark.parametrize(
    ("gold", "found", "kinds"),
    [
        ([(0, 2, "PER")], [(0, 2, "PER")], ["correct"]),
        ([(0, 2, "PER")], [(0, 2, "LOC")], ["wrong type"]),
        ([(0, 2, "PER")], [(1, 2, "PER")], ["wrong borders"]),
        ([(0, 2, "PER")], [(1, 2, "LOC")], ["both wrong"]),
        ([(0, 2, "PER")], [(2, 1, "PER")], ["missed", "spurious"]),
        ([(0, 2, "PER")], [(0, -2, "PER")], ["wrong borders"]),  # borders within the words
        ([(3, 1, "PER")], [], ["missed"]),
        ([], [(3, 1, "PER")], ["spurious"]),
        ([(0, 4, "PER")], [(0, 1, "PER"), (1, 3, "PER")], ["wrong borders", "spurious"]),  # one pair, of the most words
        ([(0, 2, "PER"), (0, 3, "ORG")], [(0, 3, "ORG")], ["missed", "correct"]),
        ([(0, 3, "PER")], [(0, 1, "PER"), (1, 2, "LOC")], ["wrong borders", "spurious"]),  # the type before the words
        ([(0, 1, "A"), (0, 2, "A")], [(0, 2, "B"), (1, 2, "A")], ["missed", "wrong type", "spurious"]),
    ],
)
def test_kinds(gold: list, found: list, kinds: list[str]):
    row = outcomes(gold, found)
    assert sorted(outcome.kind for outcome in row) == sorted(kinds)
    assert sorted(o.gold for o in row if o.gold) == sorted(gold) and sorted(o.found for o in row if o.found) == sorted(found)


def test_numbers_and_measures():
    gold = [(0, 1, "PER"), (2, 1, "PER"), (4, 2, "LOC"), (7, 2, "LOC"), (10, 1, "LOC")]
    found = [(0, 1, "PER"), (2, 1, "LOC"), (4, 1, "LOC"), (8, 2, "PER"), (12, 1, "PER"), (14, 1, "PER")]
    rows = [outcomes(gold, found)]
    kinds = count_kinds(rows)
    assert kinds == dict(zip(KINDS, (1, 1, 1, 1, 1, 2), strict=True))
    assert kinds_by_type(rows)["LOC"] == dict(zip(KINDS, (0, 0, 1, 1, 1, 0), strict=True))
    assert kinds_by_type(rows)["PER"] == dict(zip(KINDS, (1, 1, 0, 0, 0, 2), strict=True))
    assert confusions(rows) == {"PER": {"LOC": 1}, "LOC": {"PER": 1}}
    scores = partial_scores(kinds)  # of 5 + 6 entities
    assert scores == pytest.approx({"strict": 200 / 11, "exact": 400 / 11, "ent_type": 400 / 11, "partial": 600 / 11})
    assert partial_scores(count_kinds([])) == dict.fromkeys(scores, 0)
