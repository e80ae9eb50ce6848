"""Protects the reported numbers: strict scores are those of seqeval and count every gold entity, the paper's protocol leaves out
what its span grid cannot hold, and the `evaluate.Metric` says the same without any Hub."""

import random

import pytest
from seqeval.metrics import classification_report

from glode.corpora.schemes import encode_tags
from glode.metrics import both_protocols, entity_metric, entity_scores, measure, of_known_types

TYPES = ["PER", "LOC", "ORG", "MISC"]
RATES = {"precision": "precision", "recall": "recall", "f1": "f1-score"}


def flat_entities(rng: random.Random, number: int) -> list[tuple[int, int, str]]:
    entities, at = [], 0
    while at < number:
        length = min(rng.randint(1, 6), number - at)
        if rng.random() < 0.5:
            entities.append((at, length, rng.choice(TYPES)))
        at += length
    return entities


def noisy(rng: random.Random, entities: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Some entities are lost, some have another type, some are too short."""
    found = []
    for begin, length, name in entities:
        if rng.random() < 0.8:
            found.append((begin, length - (length > 1 and rng.random() < 0.2), name if rng.random() < 0.8 else rng.choice(TYPES)))
    return found


def random_data(seed: int) -> tuple[list, list]:
    rng = random.Random(seed)
    gold = [flat_entities(rng, 15) for _ in range(40)]
    return gold, [noisy(rng, row) if rng.random() < 0.8 else flat_entities(rng, 15) for row in gold]


def up_to(limit: int, rows: list) -> list:
    """The entities of at most `limit` words."""
    return [[entity for entity in row if entity[1] <= limit] for row in rows]


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_seqeval(seed: int):
    gold, found = random_data(seed)
    tags = [[encode_tags(15, row, "IOB2") for row in rows] for rows in (gold, found)]
    report = classification_report(*tags, output_dict=True, zero_division=0)
    scores = entity_scores(gold, found)
    assert 0 < scores["f1"] < 100
    assert set(scores["per_type"]) == set(TYPES)
    for ours, theirs in [(scores, report["micro avg"]), *((scores["per_type"][name], report[name]) for name in TYPES)]:
        assert ours["gold"] == theirs["support"]
        for name, key in RATES.items():
            assert ours[name] == pytest.approx(100 * theirs[key])


def test_counts_by_hand():
    gold = [[(0, 2, "PER"), (3, 9, "ORG")], [(1, 1, "LOC")], []]
    found = [[(0, 2, "PER"), (3, 8, "ORG")], [(1, 1, "PER")], [(0, 1, "LOC")]]
    scores = entity_scores(gold, found)
    assert (scores["gold"], scores["predicted"], scores["correct"]) == (3, 4, 1)
    assert scores["precision"] == 25 and scores["recall"] == pytest.approx(100 / 3) and scores["f1"] == pytest.approx(200 / 7)
    assert scores["per_type"]["PER"] == {"precision": 50, "recall": 100, "f1": pytest.approx(200 / 3)} | {
        "gold": 1,
        "predicted": 2,
        "correct": 1,
    }
    assert scores["per_type"]["ORG"]["f1"] == 0


def test_predictions_of_types_that_the_references_lack_are_left_out():
    found = [[(0, 1, "PER"), (2, 1, "ART")], [(0, 1, "ART")]]
    assert of_known_types([[(0, 1, "PER")], []], found) == [[(0, 1, "PER")], []]
    assert of_known_types([[], []], found) == found


def test_an_entity_counts_once():
    assert entity_scores([[(0, 1, "PER")]], [[(0, 1, "PER"), (0, 1, "PER")]])["precision"] == 100


def test_entities_match_within_their_own_sentence_only():
    assert entity_scores([[(0, 1, "PER")], []], [[], [(0, 1, "PER")]])["correct"] == 0
    with pytest.raises(ValueError):
        entity_scores([[], []], [[]])


def test_the_papers_protocol_leaves_long_gold_out():
    gold, found = random_data(9)
    limit = 3
    found = [[entity for entity in row if entity[1] <= limit] for row in found]  # what a grid of this size can give
    long = sum(entity[1] > limit for row in gold for entity in row)
    scores = both_protocols(gold, found, up_to(limit, gold))
    strict, paper = scores["strict"], scores["paper"]
    assert strict == entity_scores(gold, found)
    assert strict["gold"] == sum(map(len, gold)) and paper["gold"] == strict["gold"] - long and long > 20
    assert (paper["predicted"], paper["correct"]) == (strict["predicted"], strict["correct"])
    assert paper["precision"] == strict["precision"] and paper["recall"] > strict["recall"]
    assert both_protocols(gold, found, gold)["paper"] == strict


def test_both_protocols_leave_out_predictions_of_types_without_gold():
    gold, found = [[(0, 3, "PER"), (3, 4, "PER")]], [[(0, 3, "PER"), (8, 1, "ART")]]
    scores = both_protocols(gold, found, up_to(3, gold))
    assert [scores[name]["predicted"] for name in ("strict", "paper")] == [1, 1] and scores["paper"]["f1"] == 100


@pytest.mark.parametrize(("gold", "found"), [([], []), ([[]], [[]]), ([[(0, 1, "PER")]], [[]]), ([[]], [[(0, 1, "PER")]])])
def test_nothing_to_count_is_zero(gold: list, found: list):
    for scores in both_protocols(gold, found, gold).values():
        assert scores["precision"] == scores["recall"] == scores["f1"] == 0
        assert scores["gold"] == sum(map(len, gold)) and scores["predicted"] == sum(map(len, found))


def test_the_evaluate_metric_gives_the_same_offline(tmp_path, monkeypatch):
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))
    gold, found = random_data(2)
    gold[0], found[1] = [], []

    expected = both_protocols(gold, found, up_to(3, gold))
    assert expected["paper"]["gold"] < expected["strict"]["gold"]
    assert measure(gold, found, up_to(3, gold)) == expected  # what a run reports
    metric = entity_metric()
    assert isinstance(metric, evaluate.Metric)
    for wanted, row in zip(gold, found, strict=True):
        reference = [{"start": b, "length": n, "type": t, "reachable": n <= 3} for b, n, t in wanted]
        metric.add(prediction=[{"start": b, "length": n, "type": t} for b, n, t in row], reference=reference)
    assert metric.compute() == expected


@pytest.mark.parametrize(("gold", "found"), [([[]], [[]]), ([[(0, 1, "PER")]], [[]]), ([[]], [[(0, 1, "PER")]])])
def test_the_metric_of_nothing_is_zero(gold: list, found: list):
    assert measure(gold, found, gold) == both_protocols(gold, found, gold)
