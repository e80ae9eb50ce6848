"""Plain text -> sentences of words."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from glode.corpora.files import read_lines
from glode.corpora.options import ReadingOptions
from glode.corpora.schema import Raw
from glode.corpora.sentences import split_sentences
from glode.corpora.words import iter_words


def read_plain(path: Path, options: ReadingOptions, labelled: bool = False) -> Iterator[Raw]:
    """Plain text, a sentence or a paragraph a line, split by the rules that inference uses."""
    for number, line, replaced in read_lines(path, options.encoding, options.encoding_errors):
        yield from sentences_of(line, number, Counter({"broken characters replaced": replaced}))


def sentences_of(text: str, place: int, notes: Counter[str]) -> Iterator[Raw]:
    """The sentences of a text; the first one has the notes."""
    for start, end in split_sentences(text) or [(0, 0)]:
        yield Raw(place, list(iter_words(text[start:end])), notes=notes)
        notes = Counter()
