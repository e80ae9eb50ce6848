"""Records whose entities are said in words: spaCy 2, GLiNER, spanner."""

from collections import Counter
from collections.abc import Iterator

from glode.corpora.keys import is_strings
from glode.corpora.schema import Raw
from glode.errors import InputError


def spacy_document(record: dict, where: str, number: int, notes: Counter[str]) -> Iterator[Raw]:
    """spaCy 2's training data: documents of paragraphs of sentences of tokens, with BILUO tags, - where there is no label."""
    try:
        sentences = [sentence["tokens"] for paragraph in record["paragraphs"] for sentence in paragraph["sentences"]]
        for tokens in sentences:
            words, tags = [token["orth"] for token in tokens], [token.get("ner") for token in tokens]
            if not is_strings(words):
                raise TypeError
            named = None if all(tag is None for tag in tags) else [None if tag == "-" else tag for tag in tags]
            yield Raw(number, words, named, [number] * len(words), notes=notes)
            notes = Counter()
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{where}: a document of spaCy 2 has paragraphs of sentences of tokens with orth and ner, this one has not. Convert "
            "it by `spacy convert` to .spacy."
        ) from None


def gliner(record: dict, where: str, number: int, notes: Counter[str]) -> Raw:
    """{"tokenized_text": [words], "ner": [[first, last, type]]}, the last word inside."""
    words, spans = record["tokenized_text"], record.get("ner")
    try:
        entities = None if spans is None else [(first, last - first + 1, name) for first, last, name in spans]
        valid = is_strings(words) and all(
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


def spanner(record: dict, where: str, number: int, notes: Counter[str]) -> Raw:
    """{"context": "words joined by spaces", "span_posLabel": {"first;last": type}}, the last word inside."""
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
