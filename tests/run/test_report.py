"""Protects the reader of the results: a model that finds nothing does not pass in silence."""

import pytest

from glode.run.arguments import DataArguments
from glode.run.report import doubts, show_results


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


def test_teachers_and_rounds_are_shown(capsys):
    """Each under its name, in the order of what happened."""
    part = {"dev": {name: {"precision": 1.0, "recall": 1.0, "f1": 1.0, "correct": 1, "gold": 1} for name in ("strict", "paper")}}
    history = [{"epoch": 0, "confidence": 0.5, "spans": {"O": 1, "PER": 1}}]
    metrics = {"source_model": part, "source_model_2": part, "target_model": part, "token_classifier": part, "cost": {}}
    metrics |= {"pseudo_labels": history, "cost": {"source_stage": {"seconds": 1, "peak_memory_mb": 1}}}
    show_results(metrics, DataArguments(target_lang="de"))
    text = capsys.readouterr().out
    names = ["source model ", "source model 2", "target model ", "token classifier"]
    assert [text.count(name) for name in names] == [2, 1, 1, 1] and "round" not in text
    show_results(metrics | {"rounds": [{"target_model": part, "pseudo_labels": history}] * 2}, DataArguments(target_lang="de"))
    text = capsys.readouterr().out
    assert text.index("target model 1") < text.index("target model 2") < text.index("token classifier")
    assert text.count("target model ") == 2 and "round" in text.partition("pseudo labels by epoch")[2].splitlines()[2]
