"""Lines of a column file -> columns."""

import csv
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from itertools import islice
from pathlib import Path

from glode.corpora.files import read_lines, unpacked_suffix
from glode.corpora.options import ReadingOptions
from glode.errors import InputError

SAMPLE = 1000  # lines that show what separates the columns
_DOCUMENT, _SENTENCE = re.compile(r"-?DOCSTART-?", re.IGNORECASE), re.compile(r"</?(s|sent|sentence|doc|bos|eos)>", re.IGNORECASE)
_PREFIXES = frozenset("BIESLUM")
_FEW_LINES = 3  # in so few, each word may have a blank in it
_PARTED = re.compile(r". -\w.*|.- \w.*")  # B -PER, B- PER
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # around a tag they are no part of it


def read_rows(path: Path, options: ReadingOptions) -> Iterator[tuple[int, list[str], int]]:
    """(number, columns, replaced characters) of each line; a blank line has no columns."""
    lines = (
        (number, line.removeprefix("\ufeff"), replaced)  # of a file that was appended
        for number, line, replaced in read_lines(path, options.encoding, options.encoding_errors)
    )
    if unpacked_suffix(path) == ".csv":
        yield from _csv_rows(path, lines, _delimiter(path, options))
        return
    mixed = _is_mixed(path, options)
    for number, line, replaced in lines:
        yield number, _split(line, mixed), replaced


def _csv_rows(path: Path, lines: Iterable[tuple[int, str, int]], delimiter: str) -> Iterator[tuple[int, list[str], int]]:
    broken = Counter[str]()

    def texts() -> Iterator[str]:
        for _, line, replaced in lines:
            broken["replaced"] += replaced
            yield line + "\n"

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    try:
        for columns in reader:
            yield reader.line_num, columns if any(map(str.strip, columns)) else [], broken.pop("replaced", 0)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not CSV ({error}). Correct it, or save it with tabs as .tsv."
        ) from None


def _delimiter(path: Path, options: ReadingOptions) -> str:
    first = next((line for _, line, _ in read_lines(path, options.encoding, options.encoding_errors) if line.strip()), "")
    return max(",;\t", key=first.count)


def _split(line: str, mixed: bool) -> list[str]:
    """The columns of a line, none of a blank one. Other white space (no-break, ideographic) may be part of a word."""
    if not visible(line):
        return []
    if "\t" in line:
        if not mixed:
            return line.split("\t")
        line = line.replace("\t", " ")
    columns = [column for column in line.split(" ") if column]
    if len(columns) > 2 and columns[-2].rstrip("-") in _PREFIXES and _PARTED.fullmatch(f"{columns[-2]} {columns[-1]}"):
        columns[-2:] = ["".join(columns[-2:])]
    return columns


def _is_beside(line: str) -> bool:
    return line.startswith("#") or is_mark(line.split())


def visible(text: str) -> str:
    return text.strip().strip(_INVISIBLE).strip()


def _is_mixed(path: Path, options: ReadingOptions) -> bool:
    """Whether tabs and blanks both separate columns: only together do they give all lines the same number of columns, and more
    than one to the last field of each line, or to the first one of many."""
    lines = read_lines(path, options.encoding, options.encoding_errors)
    sample = list(islice((line for _, line, _ in lines if line.strip() and not _is_beside(line)), SAMPLE))
    if not any("\t" in line for line in sample):
        return False
    together = {len(_split(line, True)) for line in sample}
    tabs = {len(_split(line, False)) for line in sample}
    first, last = (min(len(line.strip().split("\t")[end].split()) for line in sample) for end in (0, -1))
    return len(together) == 1 and (len(tabs) > 1 or last > 1 or (first > 1 and len(sample) > _FEW_LINES))


def is_mark(columns: list[str]) -> bool:
    """Whether a line says that a document or a sentence begins or ends there: -DOCSTART-, with a number before it or not, or <s>
    alone or with O. A mark with another tag is a word."""
    first, last = columns[0].strip(), columns[-1].strip()
    if any(_DOCUMENT.fullmatch(column.strip()) for column in columns[:2]):
        return True
    return _SENTENCE.fullmatch(first) is not None and (len(columns) == 1 or last in ("O", "o", "_", first))


def is_comment(columns: list[str], width: int, path: Path, tag: int = -1, known: Container[str] = ()) -> bool:
    """Whether a line begins with # and is none of words: it has no tag in the column `tag`, which would be one of `known`, those
    of the other lines, or O, or what can hardly be anything else."""
    if not columns[0].startswith("#") or unpacked_suffix(path) == ".csv":
        return False
    is_entry = len(columns) > 2 and columns[2 if columns[0] == "#" else 1] == "="  # sent_id = A1
    if is_entry or len(columns) != width:
        return True
    name = columns[tag].strip()
    return not (name in known or name == "O" or re.match("[BIESLUM]-.", name) or (name.isupper() and " " not in name))
