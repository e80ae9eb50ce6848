"""Protects the reader of the results: a model that finds nothing does not pass in silence."""

import pytest

from glode.run.report import doubts


def scores(correct: int, predicted: int) -> dict:
    return {"strict": {"correct": correct, "predicted": predicted, "gold": 10}}


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (
            {"source_model": {"dev": scores(0, 4)}},
            "the source model finds no entity of the development set: it has learnt nothing",
        ),
        ({"target_model": {"dev": scores(0, 0)}}, " finds no entity of the development set: it has"),
        ({"target_model": {"dev": scores(3, 4), "test": scores(0, 0)}}, " finds no entity at all in the target test set"),
        ({"pseudo_labels": [{"spans": {"O": 9, "PER": 0}}]}, "the pseudo labels have no entity: the target stage"),
        ({"target_model": {"dev": scores(1, 4), "test": scores(0, 3)}, "pseudo_labels": [{"spans": {"O": 9, "PER": 1}}]}, None),
    ],
)
def test_a_model_that_finds_nothing_is_told(metrics: dict, told: str | None):
    assert all(told in line for line in doubts(metrics)) and len(doubts(metrics)) == (told is not None)
