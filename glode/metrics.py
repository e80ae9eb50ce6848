"""Entity-level scores, strict and in the paper's protocol, per type; also as an `evaluate.Metric`."""

from collections import Counter
from collections.abc import Iterable, Sequence

Entity = tuple[int, int, str]


_DESCRIPTION = """Entity-level precision, recall and F1: a prediction counts where first word, length and type are those of a
gold entity. `strict` counts every gold entity. `paper` is the protocol of the GLoDe paper's code: gold entities that the
model's span grid cannot hold (longer than L, or with a border that is none of its units') are left out of the recall.
Predictions of types that no gold entity has are left out of both."""


def entities_of(found: Sequence[Sequence[dict]]) -> list[list[Entity]]:
    """(first word, length in words, type) of what `GlodeModel.predict` finds in sentences of words."""
    return [[(e["start"], e["end"] - e["start"], e["entity_group"]) for e in entities] for entities in found]


def entity_scores(references: Sequence[Iterable[Entity]], predictions: Sequence[Iterable[Entity]]) -> dict:
    """Strict scores over all sentences (micro average).

    Args:
        references, predictions: one collection of (first word, length in words, type) a sentence.
    Returns:
        `precision`, `recall`, `f1` in percent, `gold`, `predicted` and `correct` counts, and `per_type` with the same keys
        for each type. A rate without anything to count is 0.
    """
    gold: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    for wanted, found in zip(references, predictions, strict=True):
        wanted, found = set(wanted), set(found)
        gold.update(entity[2] for entity in wanted)
        predicted.update(entity[2] for entity in found)
        correct.update(entity[2] for entity in wanted & found)
    scores = _rates(gold.total(), predicted.total(), correct.total())
    types = sorted(gold.keys() | predicted.keys())
    return scores | {"per_type": {name: _rates(gold[name], predicted[name], correct[name]) for name in types}}


def of_known_types(references: Sequence[Iterable[Entity]], predictions: Sequence[Iterable[Entity]]) -> list[list[Entity]]:
    """The predictions of types that the references have at all: a corpus without a type cannot say what is wrong there. All of
    them where there is no reference."""
    types = {entity[2] for wanted in references for entity in wanted}
    return [[entity for entity in found if not types or entity[2] in types] for found in predictions]


def _rates(gold: int, predicted: int, correct: int) -> dict:
    precision, recall = correct / max(predicted, 1), correct / max(gold, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    rates = {"precision": 100 * precision, "recall": 100 * recall, "f1": 100 * f1}
    return rates | {"gold": gold, "predicted": predicted, "correct": correct}


def both_protocols(
    references: Sequence[Iterable[Entity]], predictions: Sequence[Iterable[Entity]], reachable: Sequence[Iterable[Entity]]
) -> dict[str, dict]:
    """`strict` over all gold entities, and `paper` without those that the span grid cannot hold.

    Args:
        references, predictions: see `entity_scores`; predictions of types that the references lack are left out.
        reachable: those of the references that the grid holds, see `glode.features.windows.reachable_entities`.
    """
    found = of_known_types(references, predictions)
    return {"strict": entity_scores(references, found), "paper": entity_scores(reachable, found)}


def entity_metric():
    """Both protocols as an `evaluate.Metric`, which a run reports: `compute(predictions=..., references=...)`, where each
    sentence is a list of {"start": first word, "length": in words, "type": name}; a reference has "reachable" as well, whether
    the model's span grid holds it. `evaluate` is imported here, because that takes ten seconds."""
    import datasets
    import evaluate

    class EntityScores(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            entity = {"start": datasets.Value("int32"), "length": datasets.Value("int32"), "type": datasets.Value("string")}
            reference = entity | {"reachable": datasets.Value("bool")}
            features = datasets.Features({"predictions": [entity], "references": [reference]})
            return evaluate.MetricInfo(description=_DESCRIPTION, citation="", features=features)

        def _compute(self, predictions: list, references: list) -> dict[str, dict]:
            reachable = [[entity for entity in row if entity["reachable"]] for row in references]
            gold, found, held = (
                [[(entity["start"], entity["length"], entity["type"]) for entity in row] for row in side]
                for side in (references, predictions, reachable)
            )
            return both_protocols(gold, found, held)

    return EntityScores(keep_in_memory=True, seed=0)


def measure(
    references: Sequence[Iterable[Entity]], predictions: Sequence[Iterable[Entity]], reachable: Sequence[Iterable[Entity]]
) -> dict[str, dict]:
    """What `entity_metric` says of entities as tuples (first word, length in words, type), see `both_protocols`."""
    rows = zip(references, map(set, reachable), strict=True)
    gold = [[{**_named(entity), "reachable": entity in held} for entity in wanted] for wanted, held in rows]
    found = [[_named(entity) for entity in row] for row in predictions]
    return entity_metric().compute(predictions=found, references=gold)


def _named(entity: Entity) -> dict:
    return dict(zip(("start", "length", "type"), entity, strict=True))
