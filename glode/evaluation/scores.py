"""All that is said of one model's entities, and of two models beside each other."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from glode.evaluation.kinds import Outcome, confusions, count_kinds, kinds_by_type, partial_scores
from glode.evaluation.statistics import bootstrap, interval, randomisation_test, sentence_counts
from glode.metrics import Entity, entity_scores

LONG = 5  # words; entities of so many and more are counted together

Sentences = Sequence[Sequence[str]]
Entities = Sequence[Iterable[Entity]]


def scores_of(
    words: Sentences,
    gold: Entities,
    found: Entities,
    outcomes: Sequence[Sequence[Outcome]],
    seen: Collection[tuple] | None = None,
) -> dict[str, Any]:
    """The scores of one model.

    Args:
        words: of each sentence.
        gold, found: (first word, length in words, type) of each sentence's entities.
        outcomes: see `glode.evaluation.kinds.outcomes`.
        seen: the names, as tuples of words, that training has seen; None where nobody knows.
    Returns:
        `strict` as of `entity_scores`; `kinds` of errors, `kinds_by_type`, `confusions`; `partial`: F1 by four measures;
        `per_length`, and with `seen` the scores of seen and unseen names, `per_novelty`.
    """
    kinds = count_kinds(outcomes)
    scores: dict[str, Any] = {"strict": entity_scores(gold, found), "kinds": kinds, "partial": partial_scores(kinds)}
    scores |= {"kinds_by_type": kinds_by_type(outcomes), "confusions": confusions(outcomes)}
    scores["per_length"] = _split(gold, found, lambda row, entity: _length_name(entity))
    if seen is not None:

        def novelty(row: int, entity: Entity) -> str:
            return "seen" if tuple(words[row][entity[0] : entity[0] + abs(entity[1])]) in seen else "unseen"

        scores["per_novelty"] = _split(gold, found, novelty)
    return scores


def names_of(words: Sentences, entities: Entities) -> set[tuple]:
    """The entities' words."""
    rows = zip(words, entities, strict=True)
    return {tuple(sentence[begin : begin + length]) for sentence, found in rows for begin, length, _ in found}


def _length_name(entity: Entity) -> str:
    length = abs(entity[1])
    return str(length) if length < LONG else f"{LONG}+"


def _split(gold: Entities, found: Entities, group: Callable[[int, Entity], str]) -> dict[str, dict]:
    """Strict scores of the entities of each group. An entity and the equal one that was found are in the same group."""
    parts: dict[str, tuple[list[list[Entity]], ...]] = {}
    for side, rows in enumerate((gold, found)):
        for row, entities in enumerate(rows):
            for entity in entities:
                name = group(row, entity)
                if name not in parts:
                    parts[name] = tuple([[] for _ in gold] for _ in range(2))
                parts[name][side][row].append(entity)
    scores = {name: entity_scores(*parts[name]) for name in sorted(parts)}
    return {name: {key: value for key, value in part.items() if key != "per_type"} for name, part in scores.items()}


def intervals_and_tests(
    gold: Entities, found: Mapping[str, Entities], draws: int, trials: int, seed: int
) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """What chance may have done.

    Args:
        found: model -> its entities.
        draws: samples of the bootstrap.
        trials: exchanges of the paired test.
    Returns:
        Model -> 95 % interval of strict F1; and of the first model against each other one `difference` in points of F1, its
        `interval` and `p`.
    """
    counts = np.stack([sentence_counts(gold, entities) for entities in found.values()], axis=1)
    samples, names = bootstrap(counts, draws, seed), list(found)
    intervals = {name: interval(samples[:, i]) for i, name in enumerate(names)}
    tests = []
    for i, name in enumerate(names[1:], start=1):
        difference, p = randomisation_test(counts[:, 0], counts[:, i], trials, seed)
        bounds = interval(samples[:, 0] - samples[:, i])
        tests.append({"first": names[0], "second": name, "difference": difference, "interval": bounds, "p": p})
    return intervals, tests
