"""brat's standoff annotations (a .txt and a .ann beside it) -> sentences."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from glode.corpora.files import read_lines, read_text
from glode.corpora.offsets import cut_words
from glode.corpora.options import ReadingOptions
from glode.corpora.schema import Raw
from glode.corpora.sentences import split_sentences
from glode.errors import InputError

Entity = tuple[int, int, str]  # start, end, type


def parts_of(path: Path) -> list[Path]:
    """The text and the annotations of a document, of which `path` is one."""
    return [path.with_suffix(".txt"), path.with_suffix(".ann")] if path.suffix in (".txt", ".ann") else []


def is_brat(path: Path) -> bool:
    """Whether it is a document with its annotations beside it, or a directory of such."""
    if path.is_dir():
        return any(path.rglob("*.ann"))
    return bool(parts := parts_of(path)) and all(part.is_file() for part in parts)


def read_brat(path: Path, options: ReadingOptions, labelled: bool = True) -> Iterator[Raw]:
    """The text-bound annotations (T lines) of a document, or of all documents below a directory.

    Relations, events with their triggers, attributes and notes are passed over. The parts of an entity that white space alone
    separates are one; entities with gaps are left out and counted, since a span has none. Offsets count characters of the text.

    Raises:
        InputError: a line is no annotation, its offsets or its text do not fit, or one of the two files is missing.
    """
    documents = (
        sorted({file.with_suffix(".txt") for file in path.rglob("*.ann")}) if path.is_dir() else [path.with_suffix(".txt")]
    )
    for document in documents:
        notes = Counter[str]()
        text = read_text(document, options.encoding, options.encoding_errors)
        lines = list(read_lines(document.with_suffix(".ann"), options.encoding, options.encoding_errors))
        if "\r\n" in text and not _all_fit(lines, text):
            text = text.replace("\r\n", "\n")  # annotated where a line end is one character
        entities = []
        triggers = {match[1] for _, line, _ in lines if (match := re.match(r"E\S*\t[^\s:]+:(T\S+)", line))}
        for number, line, _ in lines:
            if line.split("\t")[0] in triggers:
                notes["triggers of events left out"] += 1
            elif line.startswith("T"):
                where = f"{document.with_suffix('.ann')}, line {number}"
                entities += _without_gaps(*_annotation(line, text, where), text, notes)
        for start, end in _whole_sentences(split_sentences(text), entities):
            inside = [(a - start, b - start, name) for a, b, name in entities if start <= a and b <= end]
            yield cut_words(text[start:end], inside, start, notes)
            notes = Counter()


def _annotation(line: str, text: str, where: str) -> tuple[list[tuple[int, int]], str]:
    """The fragments (start, end) and the type of a T line."""
    match = re.fullmatch(r"T\S*\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?", line)
    if not match:
        raise InputError(f"{where}: {line[:60]!r} is no annotation. Expected T1, a tab, type, start and end, a tab and the text.")
    fragments = [(int(start), int(end)) for start, end in (part.split() for part in match[2].split(";"))]
    found = " ".join(text[start:end] for start, end in fragments)
    valid = all(0 <= start < end <= len(text) for start, end in fragments)
    if not valid or (match[3] is not None and found.split() != match[3].split()):
        raise InputError(
            f"{where}: at {match[2]} the text has {found[:40]!r}, the annotation says {(match[3] or '')[:40]!r}. Is the .txt the "
            "one that was annotated?"
        )
    return fragments, match[1]


def _all_fit(lines: Sequence[tuple[int, str, int]], text: str) -> bool:
    try:
        return all(bool(_annotation(line, text, "")) for _, line, _ in lines if line.startswith("T"))
    except InputError:
        return False


def _without_gaps(fragments: list[tuple[int, int]], name: str, text: str, notes: Counter[str]) -> list[Entity]:
    """The entity of an annotation, none where there is more than white space between its parts."""
    fragments = sorted(fragments)
    if any(text[end:start].strip() for (_, end), (start, _) in pairwise(fragments)):
        notes["entities with gaps left out"] += 1
        return []
    return [(fragments[0][0], fragments[-1][1], name)]


def _whole_sentences(sentences: list[tuple[int, int]], entities: list[Entity]) -> Iterator[tuple[int, int]]:
    """The sentences, joined where an entity goes across a border."""
    ends, position = sorted((start, end) for start, end, _ in entities), 0
    at = 0
    while at < len(sentences):
        start, end = sentences[at]
        at += 1
        while position < len(ends) and ends[position][0] < end:
            last = ends[position][1]
            position += 1
            while last > end and at < len(sentences):
                end = sentences[at][1]
                at += 1
        yield start, end
