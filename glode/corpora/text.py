"""Plain text -> sentences of words."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from glode.corpora.files import read_lines
from glode.corpora.schema import Raw
from glode.corpora.sentences import split_sentences
from glode.corpora.words import iter_words


def read_plain(path: Path, encoding: str, errors: str) -> Iterator[Raw]:
    """Plain text, a sentence or a paragraph a line, split by the rules that inference uses."""
    for number, line, replaced in read_lines(path, encoding, errors):
        notes = Counter({"broken characters replaced": replaced})
        for start, end in split_sentences(line) or [(0, 0)]:
            yield Raw(number, list(iter_words(line[start:end])), notes=notes)
            notes = Counter()
