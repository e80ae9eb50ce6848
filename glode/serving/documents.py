"""Texts to tag: lines of text, or of JSON objects that hold one, from a file or a pipe."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from glode.corpora.files import find_encoding, read_lines, unpacked_suffix
from glode.corpora.options import ReadingOptions
from glode.errors import InputError

SUFFIXES_OF_JSON_LINES = (".jsonl", ".ndjson")
FEW_LINES = 4  # in so few, each may end in a letter O by chance
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can say it, UTF-8 cannot


@dataclass(frozen=True)
class Document:
    """A text to tag.

    Args:
        text: what is tagged.
        fields: all that its record has beside the entities, the text among them.
        replaced: how many of its characters were made U+FFFD.
    """

    text: str
    fields: dict[str, Any] = field(default_factory=dict)
    replaced: int = 0


def read_documents(path: Path, text_field: str | None, encoding: str = "utf-8", errors: str = "strict") -> Iterator[Document]:
    """The texts of a file.

    Args:
        text_field: the field of JSON lines that holds the text; None where the suffix says whether the input is that.
        encoding, errors: see `read_lines`.
    Raises:
        InputError: a line is not of the encoding, or not the JSON object that it should be.
    """
    name = "text" if text_field is None and unpacked_suffix(path) in SUFFIXES_OF_JSON_LINES else text_field
    if name is None and path.is_file():
        _check_columns(path, ReadingOptions(find_encoding(path, encoding), errors))
    for number, line, replaced in read_lines(path, find_encoding(path, encoding), errors):
        if name is None:
            if number == 1 and _is_object(line):
                raise InputError(f"{path}, line 1: a JSON object is no text. Name the field that holds it: --text_field text.")
            yield Document(line, {"text": line}, replaced)
        elif line.strip():
            where = f"{path}, line {number}"
            fields = parse_object(line, name, where)
            text, halves = SURROGATE.subn("\ufffd", fields[name])
            if halves and errors == "strict":
                raise InputError(f"{where}: {halves} halves of characters (\\ud800 to \\udfff). Give --encoding_errors replace.")
            yield Document(text, fields | {name: text}, replaced + halves)


def _check_columns(path: Path, options: ReadingOptions) -> None:
    """The lines are texts, and not words with their tags."""
    from glode.corpora.columns import looks_like_columns  # loads `datasets`, which --help does not need

    lines = sum(1 for _ in islice(read_lines(path, options.encoding, options.encoding_errors), FEW_LINES + 1))
    if lines > FEW_LINES and looks_like_columns(path, options):
        raise InputError(f"{path}: nearly every line has a tag beside a word. Give texts without tags, a document a line.")


def _is_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def parse_object(line: str, name: str, where: str) -> dict:
    """A line of JSON lines: an object with a text of that name, and without entities.

    Raises:
        InputError: it is something else.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: no JSON ({error}). Each line is one object; lines of plain text belong into a .txt file."
        ) from error
    if not isinstance(fields, dict) or not isinstance(fields.get(name), str):
        seen = ", ".join(map(repr, fields)) if isinstance(fields, dict) else type(fields).__name__
        raise InputError(f"{where}: expected an object with a string {name!r}, found {seen}. Name the text by --text_field.")
    if "entities" in fields:
        raise InputError(f"{where}: the object has 'entities' already, which would be lost. Rename that field or take it out.")
    return fields
