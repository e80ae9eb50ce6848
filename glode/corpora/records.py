"""Annotated records -> sentences: tokens with tags, text with offsets, and what annotation tools and data sets make of these."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from glode.corpora.exports import read_export
from glode.corpora.keys import SPAN_KEYS, TAG_KEYS, TOKEN_KEYS, first_of, is_strings, keys
from glode.corpora.offsets import TYPE_KEYS, cut_words, entities_of_span, in_characters
from glode.corpora.options import ReadingOptions
from glode.corpora.schema import Raw
from glode.corpora.word_records import gliner, spacy_document, spanner
from glode.corpora.words import split_words
from glode.errors import InputError

_TAG = re.compile(r"O|[BIESLU]-\S+")
_NO_TEXT = {
    "id",
    "annotator",
    "created_at",
    "updated_at",
    "answer",
    "language",
    "lang",
    "url",
    "source",
}  # keys of other strings


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
    annotations = first_of(record, "annotations", "completions")
    if annotations is None and isinstance(record.get("predictions"), list):  # nobody has looked at this task yet
        annotations = []
    if record.get("answer") in ("reject", "ignore"):
        yield _rejected(number)
    elif isinstance(record.get("paragraphs"), list):
        yield from spacy_document(record, where, number, notes)
    elif isinstance(record.get("data"), dict) and isinstance(annotations, list | None):
        yield _label_studio(record["data"], annotations or [], where, number, options, notes)
    elif isinstance(annotations, list) and annotations and all(isinstance(pair, list | None) for pair in annotations):
        for pair in annotations:
            yield from read_record(pair, where, number, options) if pair else ()
    elif "tokenized_text" in record:
        yield gliner(record, where, number, notes)
    elif "context" in record:
        yield spanner(record, where, number, notes)
    elif is_strings(words := first_of(record, *keys(options.token_column, TOKEN_KEYS))):
        yield _tagged(words, record, where, number, options, notes)
    else:
        yield _annotated(record, where, number, options, notes)


def _check_strings(values: object, where: str, what: str) -> None:
    """Whether a list of words or tags holds strings alone, and not what an exporter makes of 7, NA or no.

    Raises:
        InputError: it does not.
    """
    for number, value in enumerate(values if isinstance(values, list) else (), 1):
        if not isinstance(value, str | dict | list):
            raise InputError(f"{where}: {what} {number} is {value!r}, no string. A tag that is not known is null.")


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
    tags = first_of(record, *keys(options.tag_column, TAG_KEYS))
    if not options.tag_column and "ner_tags" not in record:
        named = {key: record[key] for key in TAG_KEYS if is_strings(record.get(key)) and len(record[key]) == len(words)}
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
    spans = first_of(record, *SPAN_KEYS)
    if isinstance(record.get(options.text_field or "text"), str):
        return _annotated(record, where, number, options, notes)
    if tags is None and not spans:
        return Raw(number, words, entities=None if spans is None else [], notes=notes)
    if isinstance(tags, list):
        _check_strings([tag for tag in tags if tag is not None], where, "tag")
    if tags is None:
        raise InputError(
            f"{where}: spans of words: whether the last word is inside is not certain. Give a tag a word, or GLiNER's "
            '{"tokenized_text": [words], "ner": [[first, last, "PER"]]}.'
        )
    raise _expected(where, record)


def _annotated(record: dict, where: str, number: int, options: ReadingOptions, notes: Counter[str]) -> Raw:
    """A text and the offsets of its entities."""
    spans = _spans_of(record, where, options)
    if isinstance(spans, dict) and isinstance(text := record.get(options.text_field or "text"), str):
        spans = _by_type(spans, text, where)
    if spans is None and (
        "annotator" in record or record.get("answer") == "accept"
    ):  # Label Studio and Prodigy write no empty list
        spans = []
    text = _text_of(record, spans, where, options)
    if text is not None and (tags := _tags_beside(record)) and (spans is None or is_strings(spans)):
        raise InputError(f"{where}: {tags!r} holds a tag a word, but the words are one text. Give a list of them, 'tokens'.")
    if text is None:
        _check_strings(first_of(record, *keys(options.token_column, TOKEN_KEYS)), where, "word")
    if text is None or not isinstance(spans, list | None):
        raise _expected(where, record)
    if spans is None:
        return Raw(number, [text[a:b] for a, b in split_words(text)], notes=notes)
    found = [entity for span in spans for entity in entities_of_span(span, text, where, notes)]
    return cut_words(text, in_characters(found, text, notes), number, notes)


def _tags_beside(record: dict) -> str | None:
    """The key under which a record of a text has a tag a word."""
    lists = {key: record[key] for key in TAG_KEYS if is_strings(record.get(key))}
    return next((key for key, tags in lists.items() if tags and all(map(_TAG.fullmatch, tags))), None)


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


def _spans_of(record: dict, where: str, options: ReadingOptions) -> Any:
    """What holds the spans of a record: under one of the usual keys or, as in Label Studio's short export, a name of the user's.

    Raises:
        InputError: several keys hold some.
    """
    if options.tag_column:
        return first_of(record, *keys(options.tag_column, SPAN_KEYS))
    full = {key: value for key, value in record.items() if _are_spans(value, key in (*SPAN_KEYS, *TAG_KEYS))}
    first, *others = [*full.values(), None]
    if any(value not in (first, None) for value in others):
        raise InputError(f"{where}: {' and '.join(full)} all hold spans. Name one by --tag_column.")
    return first_of(record, *SPAN_KEYS) if first is None else first


def _are_spans(value: object, usual: bool) -> bool:
    """Whether it is a list of labelled spans, none of which may stay unread; under an unusual key only of Label Studio's."""
    return isinstance(value, list) and any(
        (isinstance(each, dict) and {"start", "end", "labels"} <= each.keys())
        or (usual and isinstance(each, dict) and each.keys() & {"start", "start_offset"} and each.keys() & set(TYPE_KEYS))
        or (usual and isinstance(each, list) and len(each) == 3 and type(each[0]) is type(each[1]) is int)
        for each in value
    )


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
        return bool(list(entities_of_span(span, text, "", Counter())))
    except InputError:
        return False


def _label_studio(data: dict, annotations: list, where: str, number: int, options: ReadingOptions, notes: Counter[str]) -> Raw:
    """A task: the labelled spans of its first annotation that was not cancelled, before others one that is marked as the truth;
    without labels where it has no annotation."""
    done = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
    done.sort(key=lambda each: not each.get("ground_truth"))
    if annotations and not done:
        return _rejected(number)
    notes["further annotations of a task left out"] += max(len(done) - 1, 0)
    results = done[0].get("result") if done else None
    regions = None
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    if isinstance(results, list):
        named = {each["to_name"] for each in results if isinstance(each, dict) and "value" in each and "to_name" in each}
        if not options.text_field and len(named) == 1 and named <= set(texts):
            texts = {"text": texts[named.pop()]}
        values = [each["value"] for each in results if isinstance(each, dict) and isinstance(each.get("value"), dict)]
        for key in (key for value in values for key in value if key.endswith("labels") and key != "labels"):
            raise InputError(f"{where}: Label Studio's {key} are no offsets in a text. Label it as Text, with Labels.")
        regions = [value for value in values if "labels" in value]
        notes["regions of a task without a label left out"] += sum("start" in value for value in values) - len(regions)
    return _annotated({**texts, "entities": regions}, where, number, options, notes)
