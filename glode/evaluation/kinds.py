"""Kinds of errors: what became of each gold entity, and where each found one comes from.

From their numbers follow the four measures of SemEval 2013, task 9.1.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from glode.metrics import Entity

CORRECT, WRONG_TYPE, WRONG_BORDERS, BOTH, MISSED, SPURIOUS = KINDS = (
    "correct",
    "wrong type",
    "wrong borders",
    "both wrong",
    "missed",
    "spurious",
)


class Outcome(NamedTuple):
    """A gold entity and the found one that answers it, or one of them alone."""

    kind: str
    gold: Entity | None
    found: Entity | None

    @property
    def type(self) -> str:
        """That of the gold entity; a spurious one's own."""
        return (self.gold or self.found or (0, 0, ""))[2]


def end_of(entity: Entity) -> int:
    """The word after an entity. A negative length is that of the words that are touched, see
    `glode.publishing.token_classifier.find_entities`."""
    return entity[0] + abs(entity[1])


def overlap(first: Entity, second: Entity) -> int:
    """How many words two entities share."""
    return max(0, min(end_of(first), end_of(second)) - max(first[0], second[0]))


def outcomes(references: Iterable[Entity], predictions: Iterable[Entity]) -> list[Outcome]:
    """Pair the entities of one sentence, each with one at most: equal ones first, then those of the same words, then those that
    overlap and have the same type, then those that overlap; of several the one that shares more words.

    Returns:
        The pairs and what is left alone, in text order.
    """
    gold, found = sorted(set(references)), sorted(set(predictions))
    paired = [Outcome(CORRECT, entity, entity) for entity in sorted(set(gold) & set(found))]
    gold, found = ([entity for entity in side if entity not in {pair.gold for pair in paired}] for side in (gold, found))
    for kind, fits in _STEPS:
        paired += _pair(kind, gold, found, fits)
    paired += [Outcome(MISSED, entity, None) for entity in gold] + [Outcome(SPURIOUS, None, entity) for entity in found]
    return sorted(paired, key=lambda pair: (pair.gold or pair.found or (0, 0, ""), pair.kind))


def _pair(kind: str, gold: list[Entity], found: list[Entity], fits: Callable[[Entity, Entity], bool]) -> Iterator[Outcome]:
    """Take the pairs that fit out of both lists, those that share most words first."""
    candidates = [(-overlap(wanted, got), wanted, got) for wanted in gold for got in found if fits(wanted, got)]
    for _, wanted, got in sorted(candidates):
        if wanted in gold and got in found:
            gold.remove(wanted)
            found.remove(got)
            yield Outcome(kind, wanted, got)


_STEPS: tuple[tuple[str, Callable[[Entity, Entity], bool]], ...] = (
    (WRONG_TYPE, lambda wanted, got: wanted[:2] == got[:2]),
    (WRONG_BORDERS, lambda wanted, got: wanted[2] == got[2] and overlap(wanted, got) > 0),
    (BOTH, lambda wanted, got: overlap(wanted, got) > 0),
)


def count_kinds(rows: Iterable[Iterable[Outcome]]) -> dict[str, int]:
    """How many of each kind, in the order of `KINDS`."""
    counts = Counter(outcome.kind for row in rows for outcome in row)
    return {kind: counts[kind] for kind in KINDS}


def kinds_by_type(rows: Iterable[Iterable[Outcome]]) -> dict[str, dict[str, int]]:
    """The same for each type, see `Outcome.type`."""
    by_type: dict[str, list[Outcome]] = {}
    for row in rows:
        for outcome in row:
            by_type.setdefault(outcome.type, []).append(outcome)
    return {name: count_kinds([by_type[name]]) for name in sorted(by_type)}


def confusions(rows: Iterable[Iterable[Outcome]]) -> dict[str, dict[str, int]]:
    """Gold type -> found type -> how often one stands for the other, right borders or not."""
    pairs = Counter((o.gold[2], o.found[2]) for row in rows for o in row if o.gold and o.found and o.gold[2] != o.found[2])
    table: dict[str, dict[str, int]] = {}
    for (gold, found), number in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        table.setdefault(gold, {})[found] = number
    return table


def partial_scores(kinds: dict[str, int]) -> dict[str, float]:
    """F1 in percent by the four measures: `strict` wants borders and type, `exact` borders alone, `ent_type` the type and any
    overlap; `partial` counts right borders once and any overlap half, whatever the type."""
    borders, any_overlap = kinds[CORRECT] + kinds[WRONG_TYPE], kinds[WRONG_BORDERS] + kinds[BOTH]
    credits = {
        "strict": kinds[CORRECT],
        "exact": borders,
        "ent_type": kinds[CORRECT] + kinds[WRONG_BORDERS],
        "partial": borders + any_overlap / 2,
    }
    both = sum(kinds.values()) - kinds[MISSED] - kinds[SPURIOUS]
    return {name: 200 * credit / max(2 * both + kinds[MISSED] + kinds[SPURIOUS], 1) for name, credit in credits.items()}
