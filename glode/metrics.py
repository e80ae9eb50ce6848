"""Entity-level scores, strict and in the paper's protocol, per type; also as an `evaluate.Metric`."""

from collections import Counter
from collections.abc import Iterable, Sequence

Entity = tuple[int, int, str]


_DESCRIPTION = """Entity-level precision, recall and F1: a prediction counts where first word, length and type are those of a
gold entity. `strict` counts every gold entity. `paper` is the protocol of the GLoDe paper's code: gold entities longer
than `max_span_length` words, which its span grid cannot hold, are left out of the recall."""


def entity_scores(references: Sequence[Iterable[Entity]], predictions: Sequence[Iterable[Entity]]) -> dict:
    """Strict scores over all sentences (micro average).

    Args:
        references, predictions: one collection of (first word, length in words, type) a sentence.
    Returns:
        `precision`, `recall`, `f1` in percent, `gold`, `predicted` and `correct` counts, and `per_type` with the same keys
        for each type. A rate without anything to count is 0.
    """
    gold, predicted, correct = Counter(), Counter(), Counter()
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


def both_protocols(references: Sequence[Iterable[Entity]], predictions: Sequence[Iterable[Entity]], max_span_length: int) -> dict:
    """`strict` over all gold entities, and `paper` without those longer than `max_span_length` words."""
    reachable = [[entity for entity in entities if entity[1] <= max_span_length] for entities in references]
    return {"strict": entity_scores(references, predictions), "paper": entity_scores(reachable, predictions)}


def entity_metric():
    """The scores as an `evaluate.Metric` instance: `compute(predictions=..., references=..., max_span_length=...)`, where each
    sentence is a list of {"start": first word, "length": in words, "type": name}. `evaluate` is imported here, because that
    takes ten seconds."""
    import datasets
    import evaluate

    class EntityScores(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            entity = {"start": datasets.Value("int32"), "length": datasets.Value("int32"), "type": datasets.Value("string")}
            features = datasets.Features({"predictions": [entity], "references": [entity]})
            return evaluate.MetricInfo(description=_DESCRIPTION, citation="", features=features)

        def _compute(self, predictions: list, references: list, max_span_length: int) -> dict:
            sides = ([[(e["start"], e["length"], e["type"]) for e in row] for row in side] for side in (references, predictions))
            return both_protocols(*sides, max_span_length)

    return EntityScores()
