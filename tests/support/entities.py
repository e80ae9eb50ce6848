"""What holds of entities, and how tests compare them."""

from itertools import pairwise


def check(text: str, entities: list[dict], nested: bool = False) -> int:
    """Raise unless the entities are verbatim, sorted and, without `nested`, disjoint; how many they are."""
    spans = [(e["start"], e["end"]) for e in entities]
    for (start, end), entity in zip(spans, entities, strict=True):
        assert 0 <= start < end <= len(text) and text[start:end] == entity["word"], (text, entity)
    assert all(a <= c if nested else b <= c for (a, b), (c, _) in pairwise(spans)), (text, spans)
    return len(spans)


def places(entities: list[dict]) -> list[tuple]:
    """All of entities but their scores, which differ in the last digits from batch to batch."""
    return [(e["entity_group"], e["word"], e["start"], e["end"]) for e in entities]
