"""The keys under which records have words, tags and spans."""

from typing import Any

TOKEN_KEYS = ("tokens", "words")
TAG_KEYS = ("ner_tags", "tags", "ner", "labels")
SPAN_KEYS = ("entities", "spans", "ents", "label", "labels", "annotations", "annotation", "entity_mentions")


def keys(chosen: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The keys to look for: the one that an option names; a number is a column of other files."""
    return (chosen,) if chosen and not chosen.removeprefix("-").isdecimal() else usual


def first_of(record: dict, *names: str) -> Any:
    """The first value that is there under one of the names, else None."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def is_strings(value: object) -> bool:
    """Whether it is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
