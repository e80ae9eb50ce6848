"""Annotated records -> sentences: tokens with tags, text with offsets, Label Studio, GLiNER, spaCy, spanner."""

import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

from glode.corpora.exports import read_export
from glode.corpora.files import read_lines, unpacked_suffix
from glode.corpora.options import ReadingOptions
from glode.corpora.schema import Raw
from glode.corpora.words import split_words
from glode.errors import InputError

LONGEST_DOCUMENT = 2**28  # characters of JSON that is not JSON lines and therefore read at once

TOKEN_KEYS = ("tokens", "words")
TAG_KEYS = ("ner_tags", "tags", "ner", "labels")
SPAN_KEYS = ("entities", "spans", "ents", "label", "labels", "annotations", "annotation", "entity_mentions")
_TYPE_KEYS = ("label", "labels", "entity_group", "entity", "type")
_NO_TEXT = {"id", "annotator", "created_at", "updated_at", "answer", "language", "lang", "url", "source"}  # keys of other strings


_LETTERS = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u052f]{2}")  # Latin, Greek, Cyrillic: others write words together
LETTER_SHORT = "entities that end one letter before a word does"


def read_json(path: Path, options: ReadingOptions, labelled: bool = False) -> Iterator[Raw]:
    """JSON lines, where the name or the first line says so, or else a JSON list of records, see `read_record`."""
    lines_of_file = read_lines(path, options.encoding, options.encoding_errors)
    if has_json_lines(path, options):
        for number, line, replaced in lines_of_file:
            if line.strip():
                yield from read_record(_json(path, number, line), f"{path}, line {number}", number, options, replaced)
        return
    lines, size, replacements = [], 0, 0
    for _, line, replaced in lines_of_file:
        lines.append(line)
        size, replacements = size + len(line) + 1, replacements + replaced
        if size > LONGEST_DOCUMENT:
            raise InputError(
                f"{path}: more than {LONGEST_DOCUMENT >> 20} Mi characters of JSON at once. Write JSON lines, .jsonl."
            )
    records = _json(path, 1, "\n".join(lines))
    del lines
    for number, record in enumerate(records if isinstance(records, list) else [records], 1):
        yield from read_record(record, f"{path}, record {number}", number, options, replacements if number == 1 else 0)


def has_json_lines(path: Path, options: ReadingOptions) -> bool:
    """Whether each line is a record."""
    if unpacked_suffix(path) != ".json":
        return True
    lines = read_lines(path, options.encoding, options.encoding_errors)
    first = next((line for _, line, _ in lines if line.strip()), "")
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


def read_record(
    record: object, where: str, number: int, options: ReadingOptions | None = None, replaced: int = 0
) -> Iterator[Raw]:
    """A record of a JSON file or a table; most are a sentence:

    - {"tokens" or "words": [...], "ner_tags", "tags" or "labels": [one name a word]}, other keys by `token_column`, `tag_column`;
    - {"text": ..., "entities", "spans", "ents", "label" or "labels": [[start, end, type] or {"start", "end", "label"}]}, offsets
      in characters (spaCy, doccano, Prodigy, Label Studio's short export, `glode tag`); [text, {"entities": ...}] is the same;
    - a task of Label Studio, {"data": {"text": ...}, "annotations": [...]}, of which the first annotation counts;
    - GLiNER's {"tokenized_text": [...], "ner": [[first, last, type]]}, in words;
    - the spanner's {"context": "words joined by spaces", "span_posLabel": {"first;last": type}}, in words;
    - spaCy's documents, {"paragraphs": ...} and {"annotations": [[text, {"entities": ...}]]}, of several sentences;
    - what `glode.corpora.exports` reads.

    Raises:
        InputError: it is something else; the message says `where`.
    """
    options = options or ReadingOptions()
    notes = Counter({"broken characters replaced": replaced})
    if isinstance(record, list) and len(record) == 2 and isinstance(record[0], str) and isinstance(record[1], dict):
        record = {"text": record[0], **record[1]}
    if not isinstance(record, dict):
        record = {}
    if (texts := read_export(record, where, notes)) is not None:
        for text, spans in texts:
            yield _annotated({"text": text, "entities": spans}, where, number, ReadingOptions(), notes)
            notes = Counter()
        return
    annotations = _first_of(record, "annotations", "completions")
    if annotations is None and isinstance(record.get("predictions"), list):  # nobody has looked at this task yet
        annotations = []
    if record.get("answer") in ("reject", "ignore"):
        yield _rejected(number)
    elif isinstance(record.get("paragraphs"), list):
        yield from _spacy_document(record, where, number, notes)
    elif isinstance(record.get("data"), dict) and isinstance(annotations, list | None):
        yield _label_studio(record["data"], annotations or [], where, number, options, notes)
    elif isinstance(annotations, list) and annotations and all(isinstance(pair, list | None) for pair in annotations):
        for pair in annotations:
            yield from read_record(pair, where, number, options) if pair else ()
    elif "tokenized_text" in record:
        yield _gliner(record, where, number, notes)
    elif "context" in record:
        yield _spanner(record, where, number, notes)
    elif _is_strings(words := _first_of(record, *keys(options.token_column, TOKEN_KEYS))):
        yield _tagged(words, record, where, number, options, notes)
    else:
        yield _annotated(record, where, number, options, notes)


def keys(chosen: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The keys to look for: the one that an option names; a number is a column of other files."""
    return (chosen,) if chosen and not chosen.removeprefix("-").isdecimal() else usual


def _first_of(record: dict, *names: str):
    return next((record[name] for name in names if record.get(name) is not None), None)


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _rejected(number: int) -> Raw:
    return Raw(number, [], notes=Counter(["records left out that an annotator rejected or ignored"]))


def _expected(where: str, record: dict) -> InputError:
    return InputError(
        f'{where}: expected {{"tokens": [words], "tags": [one tag a word, such as "B-PER"]}} with lists of equal length, or '
        '{"text": "...", "entities": [[start, end, "PER"]]} with offsets in characters. '
        f"The keys are {', '.join(map(repr, record)) or 'none'}; others are named by --token_column, --tag_column, --text_field."
    )


def _tagged(words: list[str], record: dict, where: str, number: int, options: ReadingOptions, notes: Counter[str]) -> Raw:
    """A record of words: with tags, without any labels, or with a text and offsets beside them."""
    tags = _first_of(record, *keys(options.tag_column, TAG_KEYS))
    if not options.tag_column and "ner_tags" not in record:
        named = {key: record[key] for key in TAG_KEYS if _is_strings(record.get(key)) and len(record[key]) == len(words)}
        if len({tuple(each) for each in named.values()}) > 1:
            raise InputError(f"{where}: {' and '.join(named)} may both be the words' tags. Name one by --tag_column.")
    if isinstance(tags, str | int | float):
        raise InputError(f"{where}: one tag ({str(tags)[:40]!r}) for a sentence of {len(words)} words. Give a tag a word.")
    if isinstance(tags, list) and all(isinstance(tag, str | None) for tag in tags):
        if len(tags) != len(words):
            raise InputError(f"{where}: {len(words)} words and {len(tags)} tags, but expected lists of equal length.")
        return Raw(number, words, tags, [number] * len(tags), notes=notes)
    if isinstance(tags, list) and all(isinstance(tag, int | float | None) for tag in tags):
        raise InputError(f"{where}: the tags are numbers without names. Give names, or a data set whose feature is a ClassLabel.")
    spans = _first_of(record, *SPAN_KEYS)
    if isinstance(record.get(options.text_field or "text"), str):
        return _annotated(record, where, number, options, notes)
    if tags is None and not spans:
        return Raw(number, words, entities=None if spans is None else [], notes=notes)
    if tags is None:
        raise InputError(
            f"{where}: spans of words: whether the last word is inside is not certain. Give a tag a word, or GLiNER's "
            '{"tokenized_text": [words], "ner": [[first, last, "PER"]]}.'
        )
    raise _expected(where, record)


def _annotated(record: dict, where: str, number: int, options: ReadingOptions, notes: Counter[str]) -> Raw:
    """A text and the offsets of its entities."""
    spans = _first_of(record, *keys(options.tag_column, SPAN_KEYS))
    if isinstance(spans, dict) and isinstance(text := record.get(options.text_field or "text"), str):
        spans = _by_type(spans, text, where)
    if spans is None:
        spans = next((value for value in record.values() if _is_regions(value)), None)
    if spans is None and (
        "annotator" in record or record.get("answer") == "accept"
    ):  # Label Studio and Prodigy write no empty list
        spans = []
    text = _text_of(record, spans, where, options)
    if text is None or not isinstance(spans, list | None):
        raise _expected(where, record)
    if spans is None:
        return Raw(number, [text[a:b] for a, b in split_words(text)], notes=notes)
    found = [entity for span in spans for entity in _entities(span, text, where, notes)]
    return cut_words(text, _in_characters(found, text, notes), number, notes)


def _by_type(spans: dict, text: str, where: str) -> list[list]:
    """The spans of CLUENER, {type: {surface: [[first, last]]}} with the last character inside."""
    try:
        found = [
            (first, last + 1, name, surface)
            for name, surfaces in spans.items()
            for surface in surfaces
            for first, last in surfaces[surface]
        ]
        wrong = [surface for start, end, _, surface in found if text[start:end] != surface]
    except (TypeError, ValueError):
        found, wrong = [], ["?"]
    if wrong:
        raise InputError(
            f"{where}: types with their surfaces and places are read as CLUENER has them, "
            "{type: {surface: [[first, last]]}} with "
            f"the last character inside. {wrong[0]!r} is not where it should be."
        )
    return [[start, end, name] for start, end, name, _ in sorted(found)]


def _in_characters(found: list[tuple[int, int, str]], text: str, notes: Counter[str]) -> list[tuple[int, int, str]]:
    """Entities whose offsets count UTF-16 units, as browsers do: only so they begin and end with words."""
    if not found or max(text) < "\U00010000":
        return found
    words = split_words(text)
    starts, ends = {start for start, _ in words}, {end for _, end in words}
    units = list(accumulate((1 + (character >= "\U00010000") for character in text), initial=0))
    place = {unit: position for position, unit in enumerate(units)}
    converted = [(place.get(start, -1), place.get(end, -1), name) for start, end, name in found]
    if all(start in starts and end in ends for start, end in (_without_white_space(text, *span[:2]) for span in found)):
        return found
    if not all(start in starts and end in ends for start, end, _ in converted):
        return found
    notes["offsets in UTF-16 units converted"] += len(found)
    return converted


def _without_white_space(text: str, start: int, end: int) -> tuple[int, int]:
    inside = text[start:end]
    return end - len(inside.lstrip()), start + len(inside.rstrip())


def _is_regions(value: object) -> bool:
    """Whether it is a list of labelled spans, as Label Studio's short export has it under a name of the user's."""
    return isinstance(value, list) and any(isinstance(each, dict) and {"start", "end", "labels"} <= set(each) for each in value)


def _text_of(record: dict, spans: object, where: str, options: ReadingOptions) -> str | None:
    """The text of a record: what the user names, "text", or the only string that can be it and holds what the spans say.

    Raises:
        InputError: it cannot be told.
    """
    strings = {key: value for key, value in record.items() if isinstance(value, str) and key not in _NO_TEXT}
    if options.text_field:
        if options.text_field not in strings:
            raise InputError(
                f"{where}: no text under {options.text_field!r} (--text_field), its strings are under {sorted(strings)}."
            )
        return strings[options.text_field]
    if "text" in strings or spans is None:
        return strings.get("text")
    if isinstance(spans, list) and len(strings) > 1:
        strings = {key: value for key, value in strings.items() if all(_fits(span, value) for span in spans)}
    if len(strings) > 1:
        raise InputError(f"{where}: the text may be under any of {sorted(strings)}. Name its key by --text_field.")
    return next(iter(strings.values()), None)


def _fits(span: object, text: str) -> bool:
    """Whether a text has at a span what the span says."""
    try:
        return bool(list(_entities(span, text, "", Counter())))
    except InputError:
        return False


def _spacy_document(record: dict, where: str, number: int, notes: Counter[str]) -> Iterator[Raw]:
    """spaCy 2's training data: documents of paragraphs of sentences of tokens, with BILUO tags, - where there is no label."""
    try:
        sentences = [sentence["tokens"] for paragraph in record["paragraphs"] for sentence in paragraph["sentences"]]
        for tokens in sentences:
            words, tags = [token["orth"] for token in tokens], [token.get("ner") for token in tokens]
            if not _is_strings(words):
                raise TypeError
            named = None if all(tag is None for tag in tags) else [None if tag == "-" else tag for tag in tags]
            yield Raw(number, words, named, [number] * len(words), notes=notes)
            notes = Counter()
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{where}: a document of spaCy 2 has paragraphs of sentences of tokens with orth and ner, this one has not. Convert "
            "it by `spacy convert` to .spacy."
        ) from None


def _gliner(record: dict, where: str, number: int, notes: Counter[str]) -> Raw:
    words, spans = record["tokenized_text"], record.get("ner")
    try:
        entities = None if spans is None else [(first, last - first + 1, name) for first, last, name in spans]
        valid = _is_strings(words) and all(
            type(first) is int and 0 <= first < first + length <= len(words) and isinstance(name, str)
            for first, length, name in entities or ()
        )
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(
            f'{where}: expected {{"tokenized_text": [words], "ner": [[first, last, "PER"]]}} with positions of words, the last '
            "inside."
        )
    return Raw(number, words, entities=entities, notes=notes)


def _spanner(record: dict, where: str, number: int, notes: Counter[str]) -> Raw:
    if "span_posLabel" not in record and ("span_position" in record or "entity_label" in record):
        raise InputError(
            f"{where}: a question for each type, as MRC-NER has them, is not read. Give a sentence once, with "
            '{"context": "words", "span_posLabel": {"first;last": "TYPE"}}.'
        )
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


def _label_studio(data: dict, annotations: list, where: str, number: int, options: ReadingOptions, notes: Counter[str]) -> Raw:
    """A task: the labelled spans of its first annotation that was not cancelled; without labels where it has no annotation."""
    done = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
    if annotations and not done:
        return _rejected(number)
    notes["further annotations of a task left out"] += max(len(done) - 1, 0)
    results = done[0].get("result") if done else None
    regions = None
    if isinstance(results, list):
        named = {each["to_name"] for each in results if isinstance(each, dict) and "value" in each and "to_name" in each}
        texts = {key: value for key, value in data.items() if isinstance(value, str)}
        if not options.text_field and len(named) == 1 and named <= set(texts):
            data = {"text": texts[named.pop()]}
        values = [each["value"] for each in results if isinstance(each, dict) and isinstance(each.get("value"), dict)]
        for key in (key for value in values for key in value if key.endswith("labels") and key != "labels"):
            raise InputError(f"{where}: Label Studio's {key} are no offsets in a text. Label it as Text, with Labels.")
        regions = [value for value in values if "labels" in value]
        notes["regions of a task without a label left out"] += sum("start" in value for value in values) - len(regions)
    return _annotated({**data, "entities": regions}, where, number, options, notes)


def _entities(span: object, text: str, where: str, notes: Counter[str]) -> Iterator[tuple[int, int, str]]:
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
        _first_of(span, "start", "start_offset"),
        _first_of(span, "end", "end_offset"),
        _first_of(span, *_TYPE_KEYS),
    )
    names, surface = [names] if isinstance(names, str) else names, span.get("text")
    if type(start) is type(end) is type(names) is int:
        raise InputError(
            f"{where}: the label {names} of a span is only a number. Export the labels with their names, not their ids."
        )
    valid = type(start) is type(end) is int and _is_strings(names)
    if valid and isinstance(surface, str) and not _is_same(text[max(start, 0) : max(end, 0)], surface):
        units = text.encode("utf-16-le")  # what browsers count
        if not _is_same(units[2 * max(start, 0) : 2 * max(end, 0)].decode("utf-16-le", "replace"), surface):
            raise InputError(
                f"{where}: characters {start} to {end} are {text[start:end][:40]!r}, the span says {surface[:40]!r}. "
                "Correct the offsets."
            )
        start, end = (len(units[: 2 * border].decode("utf-16-le")) for border in (start, end))
        notes["offsets in UTF-16 units converted"] += 1
    if not valid or not 0 <= start < end <= len(text):
        raise InputError(
            f"{where}: span {str(given)[:80]} is no start, end and type inside the text of {len(text)} characters. Offsets count "
            "characters from 0, the end is not inside."
        )
    yield from ((start, end, name.strip()) for name in names)


def _is_same(text: str, surface: str) -> bool:
    """Whether a span is what it says of itself; white space may be written otherwise, such as a line break as backslash and n."""
    return text == surface or text.split() == surface.replace("\\n", " ").replace("\\r", " ").replace("\\t", " ").split()


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
