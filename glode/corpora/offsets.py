"""A text and its entities in characters -> words and entities in words."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise

from glode.corpora.keys import first_of, is_strings
from glode.corpora.schema import Raw
from glode.corpora.words import split_words
from glode.errors import InputError

TYPE_KEYS = ("label", "labels", "entity_group", "entity", "type")
_LETTERS = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u052f]{2}")  # Latin, Greek, Cyrillic: others write words together
UNITS = {"UTF-16 units": ("utf-16-le", 2), "bytes": ("utf-8", 1)}  # encoding, bytes each: browsers count so, C, Go
LETTER_SHORT = "entities that end one letter before a word does"


def entities_of_span(span: object, text: str, where: str, notes: Counter[str]) -> Iterator[tuple[int, int, str]]:
    """(start, end, type) of an annotated span, in characters, for each of its types."""
    given = span
    if isinstance(span, list) and len(span) == 3:
        names_first = isinstance(span[0], str) and type(span[1]) is type(span[2]) is int  # as Rubrix has it
        is_type_first = names_first and span[0] != text[span[1] : span[2]]
        span = dict(zip(("label", "start", "end") if is_type_first else ("start", "end", "label"), span, strict=True))
    span = span if isinstance(span, dict) else {}
    if type(span.get("offset")) is type(span.get("length")) is int:
        span = {"start": span["offset"], "end": span["offset"] + span["length"], **span}
    start, end, names = (
        first_of(span, "start", "start_offset"),
        first_of(span, "end", "end_offset"),
        first_of(span, *TYPE_KEYS),
    )
    names, surface = [names] if isinstance(names, str) else names, span.get("text")
    if type(start) is type(end) is type(names) is int:
        raise InputError(
            f"{where}: the label {names} of a span is only a number. Export the labels with their names, not their ids."
        )
    valid = type(start) is type(end) is int and is_strings(names)
    if valid and isinstance(surface, str) and not (end <= len(text) and _is_same(text[max(start, 0) : max(end, 0)], surface)):
        for name in UNITS:
            place = _places(text, name)
            if start in place and end in place and _is_same(text[place[start] : place[end]], surface):
                start, end = place[start], place[end]
                notes[f"offsets in {name} converted"] += 1
                break
        else:
            if end <= len(text):
                raise InputError(
                    f"{where}: characters {start} to {end} are {text[start:end][:40]!r}, the span says {surface[:40]!r}. "
                    "Correct the offsets."
                )
    if not valid or not 0 <= start < end <= len(text):
        raise InputError(
            f"{where}: span {str(given)[:80]} is no start, end and type inside the text of {len(text)} characters. Offsets count "
            "characters from 0, the end is not inside."
        )
    yield from ((start, end, name.strip()) for name in names)


def _places(text: str, name: str) -> dict[int, int]:
    """How many characters stand before each place that another unit counts."""
    encoding, size = UNITS[name]
    lengths = (len(character.encode(encoding, "surrogatepass")) // size for character in text)
    return {unit: position for position, unit in enumerate(accumulate(lengths, initial=0))}


def _is_same(text: str, surface: str) -> bool:
    """Whether a span is what it says of itself; white space may be written otherwise, such as a line break as backslash and n."""
    return text == surface or text.split() == surface.replace("\\n", " ").replace("\\r", " ").replace("\\t", " ").split()


def in_characters(found: list[tuple[int, int, str]], text: str, notes: Counter[str]) -> list[tuple[int, int, str]]:
    """Entities whose offsets count `UNITS`: only so they begin and end with words."""
    if not found or text.isascii():
        return found
    words = split_words(text)
    starts, ends = {start for start, _ in words}, {end for _, end in words}
    if all(start in starts and end in ends for start, end in (_without_white_space(text, *span[:2]) for span in found)):
        return found
    for name in UNITS:
        place = _places(text, name)
        converted = [(place.get(start, -1), place.get(end, -1), kind) for start, end, kind in found]
        if all(start in starts and end in ends for start, end, _ in converted):
            notes[f"offsets in {name} converted"] += len(found)
            return converted
    return found


def _without_white_space(text: str, start: int, end: int) -> tuple[int, int]:
    inside = text[start:end]
    return end - len(inside.lstrip()), start + len(inside.rstrip())


def cut_words(text: str, found: list[tuple[int, int, str]], number: int, notes: Counter[str]) -> Raw:
    """The words of a text and its entities in words: an entity's border is a word's border too."""
    borders, words = sorted({border for start, end, _ in found for border in (start, end)}), list[tuple[int, int]]()
    for start, end in split_words(text):
        inside = borders[bisect_right(borders, start) : bisect_left(borders, end)]
        notes["words split at the border of an entity"] += bool(inside)
        words += pairwise([start, *inside, end])
    starts, ends = [start for start, _ in words], [end for _, end in words]
    entities = []
    if found and all(end + 1 in ends and _LETTERS.fullmatch(text[end - 1 : end + 1]) for _, end, _ in found):
        notes[LETTER_SHORT] += len(found)
    for start, end, name in sorted(found, key=lambda entity: entity[:2]):  # of two types the first one comes first
        first, length = bisect_left(starts, start), bisect_right(ends, end) - bisect_left(starts, start)
        if length > 0:
            entities.append((first, length, name))
        else:
            notes["entities without a visible character left out"] += 1
    return Raw(number, [text[start:end] for start, end in words], entities=entities, notes=notes)
