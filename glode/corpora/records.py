"""Annotated records -> sentences: JSON (tokens with tags, text with offsets, Label Studio, spanner), tables, spaCy's DocBin."""

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from glode.corpora.files import read_lines, unpacked_suffix
from glode.corpora.schema import Raw
from glode.corpora.words import split_words
from glode.errors import InputError

LONGEST_DOCUMENT = 2**28  # characters of JSON that is not JSON lines and therefore read at once


def read_json(path: Path, encoding: str, errors: str) -> Iterator[Raw]:
    """JSON lines, where the name or the first line says so, or else a JSON list of records, see `read_record`."""
    if has_json_lines(path, encoding, errors):
        for number, line, replaced in read_lines(path, encoding, errors):
            if line.strip():
                yield read_record(_json(path, number, line), f"{path}, line {number}", number, replaced)
        return
    lines, size, replacements = [], 0, 0
    for _, line, replaced in read_lines(path, encoding, errors):
        lines.append(line)
        size, replacements = size + len(line) + 1, replacements + replaced
        if size > LONGEST_DOCUMENT:
            raise InputError(
                f"{path}: more than {LONGEST_DOCUMENT >> 20} Mi characters of JSON at once. Write JSON lines, .jsonl."
            )
    records = _json(path, 1, "\n".join(lines))
    del lines
    for number, record in enumerate(records if isinstance(records, list) else [records], 1):
        yield read_record(record, f"{path}, record {number}", number, replacements if number == 1 else 0)


def has_json_lines(path: Path, encoding: str, errors: str) -> bool:
    if unpacked_suffix(path) != ".json":
        return True
    first = next((line for _, line, _ in read_lines(path, encoding, errors) if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _json(path: Path, number: int, text: str):
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line, reason = number + error.lineno - 1, f"{error.msg}, column {error.colno}"
    except UnicodeEncodeError:
        line, reason = number, "half of a surrogate pair: \\ud800 to \\udfff come in twos"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        line, reason = number, str(error)
    raise InputError(f"{path}, line {line}: not JSON ({reason}). Correct it; in JSON lines each line is a record.")


def read_record(record: object, where: str, number: int, replaced: int = 0) -> Raw:
    """A record of a JSON file or a table:

    - {"tokens" or "words": [...], "tags", "ner_tags" or "labels": [one name a word]};
    - {"text": ..., "entities", "spans", "label" or "labels": [[start, end, type] or {"start", "end", "label"}]}, offsets in
      characters (spaCy, doccano, Prodigy, Label Studio's short export); [text, {"entities": ...}] is the same;
    - a task of Label Studio, {"data": {"text": ...}, "annotations": [...]}, of which the first annotation counts;
    - the spanner's {"context": "words joined by spaces", "span_posLabel": {"first;last": type}}, in words.

    Raises:
        InputError: it is something else; the message says `where`.
    """
    notes = Counter({"broken characters replaced": replaced})
    if isinstance(record, list) and len(record) == 2 and isinstance(record[0], str) and isinstance(record[1], dict):
        record = {"text": record[0], **record[1]}
    if not isinstance(record, dict):
        record = {}
    if record.get("answer") in ("reject", "ignore"):
        return Raw(number, [], notes=Counter(["records left out that an annotator rejected or ignored"]))
    if "context" in record:
        return _spanner(record, where, number, notes)
    if isinstance(record.get("data"), dict) and isinstance(record.get("annotations"), list):
        record = {"text": record["data"].get("text"), "entities": _label_studio(record["annotations"], notes)}
    words, tags, text = _first_of(record, "tokens", "words"), _first_of(record, "tags", "ner_tags"), record.get("text")
    if _is_strings(words):
        tags = record.get("labels") if tags is None else tags
        if _is_strings(tags) and len(tags) == len(words):
            return Raw(number, words, tags, [number] * len(tags), notes=notes)
        if tags is None and text is None:
            return Raw(number, words, notes=notes)
    spans = _first_of(record, "entities", "spans", "label", "labels")
    if tags is not None or not isinstance(text, str) or not isinstance(spans, list | None):
        raise InputError(
            f'{where}: expected {{"tokens": [words], "tags": [one tag a word, such as "B-PER"]}} with lists of equal length, or '
            '{"text": "...", "entities": [[start, end, "PER"]]} with offsets in characters.'
        )
    if spans is None:
        return Raw(number, [text[a:b] for a, b in split_words(text)], notes=notes)
    return _cut_words(text, [entity for span in spans for entity in _entities(span, text, where, notes)], number, notes)


def _first_of(record: dict, *names: str):
    return next((record[name] for name in names if record.get(name) is not None), None)


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _spanner(record: dict, where: str, number: int, notes: Counter[str]) -> Raw:
    try:
        words = record["context"].split()
        spans = [(*map(int, key.split(";")), name) for key, name in record.get("span_posLabel", {}).items()]
        entities = sorted((first, last - first + 1, str(name)) for first, last, name in spans)
        valid = all(begin >= 0 and length > 0 and begin + length <= len(words) for begin, length, _ in entities)
    except (TypeError, KeyError, ValueError, AttributeError):
        valid = False
    if not valid:
        raise InputError(
            f'{where}: expected {{"context": "words", "span_posLabel": {{"first;last": "TYPE"}}}} with positions inside the text.'
        )
    return Raw(number, words, entities=entities, notes=notes)


def _label_studio(annotations: list, notes: Counter[str]) -> list[dict] | None:
    """The labelled spans of a task's first annotation; None where it has no annotation."""
    done = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
    notes["further annotations of a task left out"] += max(len(done) - 1, 0)
    results = done[0].get("result") if done else None
    values = [each.get("value") for each in results if isinstance(each, dict)] if isinstance(results, list) else None
    return values and [value for value in values if isinstance(value, dict) and "labels" in value]


def _entities(span: object, text: str, where: str, notes: Counter[str]) -> Iterator[tuple[int, int, str]]:
    """(start, end, type) of an annotated span, in characters, for each of its types."""
    if isinstance(span, list) and len(span) == 3:
        span = dict(zip(("start", "end", "label"), span, strict=True))
    span = span if isinstance(span, dict) else {}
    start, end, names = (
        _first_of(span, "start", "start_offset"),
        _first_of(span, "end", "end_offset"),
        _first_of(span, "label", "labels"),
    )
    names, surface = [names] if isinstance(names, str) else names, span.get("text")
    valid = type(start) is type(end) is int and _is_strings(names)
    if valid and isinstance(surface, str) and text[max(start, 0) : max(end, 0)] != surface:
        units = text.encode("utf-16-le")  # what browsers count
        if units[2 * max(start, 0) : 2 * max(end, 0)] != surface.encode("utf-16-le"):
            raise InputError(
                f"{where}: characters {start} to {end} are {text[start:end][:40]!r}, the span says {surface[:40]!r}. "
                "Correct the offsets."
            )
        start, end = (len(units[: 2 * border].decode("utf-16-le")) for border in (start, end))
        notes["offsets in UTF-16 units converted"] += 1
    if not valid or not 0 <= start < end <= len(text):
        raise InputError(
            f"{where}: span {str(span)[:80]} is no start, end and type inside the text of {len(text)} characters. Offsets count "
            "characters from 0, the end is not inside."
        )
    yield from ((start, end, name.strip()) for name in names)


def _cut_words(text: str, found: list[tuple[int, int, str]], number: int, notes: Counter[str]) -> Raw:
    """The words of a text and its entities in words: an entity's border is a word's border too."""
    borders, words = sorted({border for start, end, _ in found for border in (start, end)}), []
    for start, end in split_words(text):
        inside = borders[bisect_right(borders, start) : bisect_left(borders, end)]
        notes["words split at the border of an entity"] += bool(inside)
        words += pairwise([start, *inside, end])
    starts, ends = [start for start, _ in words], [end for _, end in words]
    entities = []
    for start, end, name in sorted(found):
        first, length = bisect_left(starts, start), bisect_right(ends, end) - bisect_left(starts, start)
        if length > 0:
            entities.append((first, length, name))
        else:
            notes["entities without a visible character left out"] += 1
    return Raw(number, [text[start:end] for start, end in words], entities=entities, notes=notes)
