"""Column files (CoNLL and its kin) -> sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

from glode.corpora.files import read_lines
from glode.corpora.schema import Raw
from glode.corpora.schemes import PREFIXED
from glode.errors import InputError

LONGEST_SENTENCE = 2**20  # words: a column file without blank lines is one sentence


def read_columns(path: Path, encoding: str, errors: str) -> Iterator[Raw]:
    """One word a line, its tag in the last column (CoNLL-2002, CoNLL-2003), a blank line between sentences.

    - Tabs separate the columns of a line that has one, else blanks. All lines have as many columns as the first.
    - `-DOCSTART-` lines end a sentence too.
    - A first column that counts the words of every sentence (CoNLL-U) is left out; ranges (1-2) and empty nodes (1.1) are passed
      over. Of ten columns the last may say NER=tag among others.
    - A line that begins with # is a word where it has as many columns as the others and a tag (O, a prefixed or an upper-case
      name) in the last, else a comment.
    """
    width, indexed = _layout(path, encoding, errors)
    raw = Raw(0, [], [], [])
    for number, line, replaced in read_lines(path, encoding, errors):
        columns = _split_columns(line)
        if not columns or columns[0] == "-DOCSTART-":
            if raw.words:
                yield raw
                raw = Raw(0, [], [], [])
        elif _is_comment(columns, width):
            raw.notes["comments left out"] += 1
        elif len(columns) < 2 or not columns[-1].strip():
            raise InputError(
                f"{path}, line {number}: {line.strip()[:60]!r} has no tag. Each line is a word, white space and its tag. "
                "Plain text goes into a .txt file."
            )
        elif len(columns) != width:
            raise InputError(
                f"{path}, line {number}: {line.strip()[:60]!r} has {len(columns)} columns, the first word of the file {width}. "
                "Is there a space in a word? Separate the columns by tabs."
            )
        elif indexed and not columns[0].isdecimal():
            raw.notes["ranges and empty nodes passed over"] += 1
        else:
            tag = columns[-1].strip()
            if indexed and width == 10:
                named = re.search(r"(?:^|\|)NER=([^|]+)", tag)
                tag = named[1] if named else "O" if tag == "_" or "=" in tag else tag
            raw.notes["broken characters replaced"] += replaced
            raw.place = raw.place or number
            raw.words.append(columns[indexed].strip())
            raw.tags.append(tag)
            raw.lines.append(number)
            if len(raw.words) > LONGEST_SENTENCE:
                raise InputError(
                    f"{path}, line {raw.place}: a sentence of more than {LONGEST_SENTENCE} words. A blank line ends a sentence."
                )
    yield raw


def _layout(path: Path, encoding: str, errors: str) -> tuple[int, bool]:
    """How many columns a file has, and whether the first one counts the words of each sentence."""
    width = last = 0
    for _, line, _ in read_lines(path, encoding, errors):
        columns = _split_columns(line)
        if not columns or columns[0] == "-DOCSTART-":
            last = 0
        elif not _is_comment(columns, width or 2):
            width = width or len(columns)
            if width < 3 or not re.fullmatch(rf"{last + 1}|\d+[-.]\d+", columns[0]):
                return width, False
            last += columns[0].isdecimal()
    return width, True


def _split_columns(line: str) -> list[str]:
    """The columns of a line, none of a blank one. Other white space (no-break, ideographic) may be part of a word."""
    if not line.strip():
        return []
    return line.split("\t") if "\t" in line else [column for column in line.split(" ") if column]


def _is_comment(columns: list[str], width: int) -> bool:
    if not columns[0].startswith("#"):
        return False
    tag = columns[-1].strip()
    return len(columns) != width or not (tag == "O" or PREFIXED.match(tag) or tag.isupper())
