"""A corpus that is in memory already -> labelled words, by the rules that files have."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from datasets import Dataset

from glode.corpora.options import ReadingOptions
from glode.corpora.reading import label
from glode.corpora.records import read_record
from glode.corpora.schema import CORPUS, Raw
from glode.corpora.tables import read_rows
from glode.corpora.text import sentences_of
from glode.errors import InputError


def from_memory(
    data: Dataset | Sequence[dict | str | Sequence[str]],
    labelled: bool,
    options: ReadingOptions | None = None,
    name: str = "corpus in memory",
) -> Dataset:
    """A data set of `CORPUS`, as `load_corpus` gives it, from Python objects.

    Args:
        data: a `Dataset` or a list of records ({"tokens", "ner_tags"} or any other of `read_record`; tags are names, or classes
            of a `Dataset` whose feature is a ClassLabel); or, without labels, a list of texts or of lists of words.
        labelled: every sentence must have labels.
        name: what messages begin with.
    Raises:
        InputError: a row is something else, or there is none; the message names the row.
    """
    options = options or ReadingOptions()
    if isinstance(data, Dataset) and data.features == CORPUS:
        return data
    if isinstance(data, str | bytes | dict) or not isinstance(data, Iterable):
        raise InputError(
            f"{name}: expected a Dataset or a list of sentences, not {type(data).__name__}. A file goes to load_corpus."
        )
    rows = list(label(_reader(data, name, options), name, "row", ("memory", ""), labelled, options))
    if not rows:
        raise InputError(f"{name}: there is no sentence in it. Give records with tokens and ner_tags, or texts.")
    return Dataset.from_list(rows, features=CORPUS)


def _reader(data: Iterable, name: str, options: ReadingOptions) -> Callable[[], Iterator[Raw]]:
    """What reads the data anew at each call."""
    if isinstance(data, Dataset):
        return lambda: read_rows(data.with_format(None), data.features, name, options)
    rows = list(data)
    return lambda: (raw for number, row in enumerate(rows, 1) for raw in _read_row(row, name, number, options))


def _read_row(row: object, name: str, number: int, options: ReadingOptions) -> Iterator[Raw]:
    """A row of a list: a text, a sentence's words, a pair of words and tags, or a record."""
    if isinstance(row, list | tuple) and len(row) == 2 and all(isinstance(part, list | tuple) for part in row):
        row = {"tokens": row[0], "ner_tags": row[1]}
    if isinstance(row, str):
        yield from sentences_of(row, number, Counter())
    elif isinstance(row, list | tuple) and all(isinstance(word, str) for word in row):
        yield Raw(number, list(row))
    elif isinstance(row, dict):
        record = {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}
        yield from read_record(record, f"{name}, row {number}", number, options)
    elif isinstance(row, list | tuple):
        yield from read_record(list(row), f"{name}, row {number}", number, options)
    else:
        raise InputError(f"{name}, row {number}: expected a record, a text or a list of words, not {type(row).__name__}.")
