"""Made-up sentences with entities."""

import random

from datasets import Dataset

from glode.corpora.schema import SENTENCE

TYPES = ["PER", "LOC", "ORG"]
LABELS = ["O", "LOC", "ORG", "PER"]


def random_entities(rng: random.Random, number: int, apart: bool = False) -> list[tuple[int, int, str]]:
    """Flat entities; they often touch, also those of the same type, unless they shall be `apart`."""
    entities, at = [], 0
    while at < number:
        length = min(rng.choice([1, 1, 2, 3]), number - at)
        if rng.random() < 0.6:
            entities.append((at, length, rng.choice(TYPES)))
            length += apart
        at += length
    return entities


def sentence(words: list[str], entities: list[tuple[int, int, str]]) -> dict:
    begins, lengths, types = ([entity[i] for entity in entities] for i in range(3))
    return {"words": words, "begins": begins, "lengths": lengths, "types": types}


def make_corpus(*rows: dict) -> Dataset:
    return Dataset.from_list(list(rows), features=SENTENCE)
