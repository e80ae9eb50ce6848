"""Plain text -> sentences of words."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

from glode.corpora.files import read_lines
from glode.corpora.options import ReadingOptions
from glode.corpora.schema import Raw
from glode.corpora.sentences import split_sentences
from glode.corpora.words import iter_words, split_words
from glode.errors import InputError

_SAMPLE = 1000  # lines that show what is no plain text
_NUMBERED = re.compile(r"(\d+)\t(?=\S)")
_JSON = re.compile(r"[\[{]\s*[\[{\"]")
_PUBTATOR = re.compile(r"\d+\|[ta]\|")
_FEW_LINES = 9
_WORDS_OF_ONE = 3  # as the splitter cuts it: don't is three, and so is a word of three characters without spaces


def read_plain(path: Path, options: ReadingOptions, labelled: bool = False) -> Iterator[Raw]:
    """Plain text, a sentence or a paragraph a line, split by the rules that inference uses. A number and a tab before each line
    (Leipzig's corpora) are left out.

    Raises:
        InputError: the lines are records of JSON, or rows of a table.
    """
    numbered = _has_numbers(path, options)
    for number, line, replaced in read_lines(path, options.encoding, options.encoding_errors):
        notes = Counter({"broken characters replaced": replaced})
        if numbered and (match := _NUMBERED.match(line)):
            line = line[match.end() :]
            notes["numbers before a line left out"] += 1
        yield from sentences_of(line, number, notes)


def _has_numbers(path: Path, options: ReadingOptions) -> bool:
    """Whether a number and a tab stand before each line of a text, ever higher ones."""
    lines = read_lines(path, options.encoding, options.encoding_errors)
    sample = list(islice((line.strip() for _, line, _ in lines if line.strip()), _SAMPLE))
    rows = [line for line in sample if not line.startswith("#")]
    if not sample:
        return False
    if all(line[0] + line[-1] == "{}" for line in sample):
        raise InputError(f"{path}: records of JSON, one a line, are no plain text. Name it .jsonl.")
    if _JSON.match("".join(sample[:3])) and sample[-1][-1] in "]}":
        raise InputError(f"{path}: JSON is no plain text. Name it .json.")
    if _PUBTATOR.match(sample[0]):
        raise InputError(f"{path}: PubTator's title and abstract lines are no plain text. Keep the texts alone, one a line.")
    if len(sample) > _FEW_LINES and _is_a_word_a_line(sample):
        raise InputError(
            f"{path}: nearly every line is one word ({', '.join(sample[:3])}). Write a sentence a line; words that "
            "have a line each need a tag beside them (O will do), in a .conll file."
        )
    tabs = {line.count("\t") for line in rows}
    numbers = [int(match[1]) for match in map(_NUMBERED.match, sample) if match]
    if tabs == {1} and len(numbers) == len(sample) and all(low < high for low, high in pairwise(numbers)):
        return True
    if len(rows) > 1 and len(tabs) == 1 and tabs != {0}:
        raise InputError(
            f"{path}: each line has {tabs.pop()} tabs, as a table has. Keep the column of the text alone, or name it .tsv if "
            "a line is a word."
        )
    return False


def _is_a_word_a_line(sample: list[str]) -> bool:
    """Also where words are not separated: a title there has more pieces than a word."""
    alone = [line for line in sample if not re.search(r"\s", line)]
    pieces = sum(len(split_words(line)) for line in alone)
    return len(alone) > 0.9 * len(sample) and pieces <= _WORDS_OF_ONE * len(alone)


def sentences_of(text: str, place: int, notes: Counter[str]) -> Iterator[Raw]:
    """The sentences of a text; the first one has the notes."""
    for start, end in split_sentences(text) or [(0, 0)]:
        yield Raw(place, list(iter_words(text[start:end])), notes=notes)
        notes = Counter()
