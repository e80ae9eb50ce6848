"""Tables and binary corpora -> sentences: parquet, `datasets` on disk or in memory, spaCy's DocBin."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import accumulate
from pathlib import Path

import pyarrow.parquet as pq
from datasets import ClassLabel, DatasetDict, Features, load_from_disk

from glode.corpora.keys import TAG_KEYS, keys
from glode.corpora.options import ReadingOptions
from glode.corpora.records import read_record
from glode.corpora.schema import Raw
from glode.errors import InputError

NOT_LABELLED = (-1, -100, None)  # what data sets and loss functions mean by these classes


def read_table(path: Path, options: ReadingOptions, labelled: bool = False) -> Iterator[Raw]:
    """A .parquet file or a directory of `Dataset.save_to_disk`, of rows that are records; tags may be classes."""
    try:
        if path.is_dir():
            rows = load_from_disk(str(path))
            if isinstance(rows, DatasetDict):
                raise InputError(f"{path} has the parts {', '.join(rows)}. Name one of them: {path / next(iter(rows))}.")
            features = rows.features
        else:
            file = pq.ParquetFile(path)
            features = Features.from_arrow_schema(file.schema_arrow)
            rows = (row for batch in file.iter_batches(1000) for row in batch.to_pylist())
        yield from read_rows(rows, features, str(path), options)
    except InputError:
        raise
    except Exception as error:  # what pyarrow and datasets raise at broken files has no class in common
        raise _unreadable(path, error) from error


def read_rows(rows: Iterable[dict], features: Features | None, source: str, options: ReadingOptions) -> Iterator[Raw]:
    """Rows that are records, see `read_record`; classes get the names that their features have.

    Raises:
        InputError: a row is no record, or has a class without a name; the message says `source` and the row.
    """
    classes = {
        name: item.names for name, f in (features or {}).items() if isinstance(item := getattr(f, "feature", None), ClassLabel)
    }
    if names := next((classes[key] for key in keys(options.tag_column, TAG_KEYS) if key in classes), None):
        yield Raw(1, [], [*names], [1] * len(names))  # what a tag means depends on all that there are, in whatever part
    for number, row in enumerate(rows, 1):
        where = f"{source}, row {number}"
        named = {
            column: [_name(i, known, column, where) for i in row[column]]
            for column, known in classes.items()
            if isinstance(row.get(column), list)
        }
        yield from read_record({**row, **named} if isinstance(row, dict) else row, where, number, options)


def _name(number: int | None, names: list[str], column: str, where: str) -> str | None:
    """The name of a class, None where it says that a word is not labelled."""
    if number in NOT_LABELLED:
        return None
    if number not in range(len(names)):
        raise InputError(
            f"{where}: class {number} of `{column}` has no name, there are {len(names)}. Give it one, or store tags as names."
        )
    return names[number]


def read_docbin(path: Path, options: ReadingOptions, labelled: bool = False) -> Iterator[Raw]:
    """spaCy's training data, .spacy; a document is a sentence, its tokens are the words."""
    try:
        spacy, tokens = import_module("spacy"), import_module("spacy.tokens")
    except ImportError as error:
        raise InputError(f"{path}: spaCy reads its own files, and is not here: pip install spacy.") from error
    try:
        for number, doc in enumerate(tokens.DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab), 1):
            visible = [0, *accumulate(not token.is_space for token in doc)]
            entities = [(visible[e.start], visible[e.end] - visible[e.start], e.label_) for e in doc.ents]
            words = [token.text for token in doc if not token.is_space]
            yield Raw(number, words, entities=entities if doc.has_annotation("ENT_IOB") else None)
    except Exception as error:  # as in read_table
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return InputError(f"{path}: cannot be read ({reason}). Is it whole, and of the format that its name says?")
