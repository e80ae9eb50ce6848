"""A corpus, in a file or on the Hub -> labelled words, and what it holds.

A sentence is {"words": [...], "begins": [...], "lengths": [...], "types": [...]}: its words and its entities, in words. A corpus
that was read has two columns more: `format` (what was found: format, scheme, encoding) and `notes` (what was done to the
sentence so that it could be read, such as "2 tags out of place"), which `summarize` adds up.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets import Dataset
from datasets.exceptions import DatasetGenerationError

from glode.corpora.columns import read_columns
from glode.corpora.files import find_encoding, unpacked_suffix
from glode.corpora.records import has_json_lines, read_json
from glode.corpora.schema import CORPUS, Raw
from glode.corpora.schemes import broken_tags, decode_tags, detect_scheme
from glode.corpora.tables import read_docbin, read_table
from glode.corpora.text import read_plain
from glode.errors import InputError

_VERSION = 4  # of corpora in the cache of `datasets`, which does not notice when the code here changes


MOST_TAGS = 1000  # more are no tags but words


def read_corpus(path: str, labelled: bool, encoding: str = "utf-8", errors: str = "strict") -> Iterator[dict]:
    """Read a corpus, packed (.gz, .bz2, .xz, .zst) or not; the format follows from its name: .jsonl, .ndjson and .json (records),
    .parquet, .spacy, a directory (`Dataset.save_to_disk`), .txt (plain text where `labelled` is False), anything else columns.

    Args:
        labelled: every sentence must have labels.
        encoding: of a text file that is not UTF-8, see `find_encoding`.
        errors: "strict" or "replace", see `read_lines`.
    Yields:
        Rows of `CORPUS`.
    Raises:
        InputError: the file is missing or broken; the message names file and line.
    """
    file = Path(path)
    suffix, unit, options = unpacked_suffix(file), "line", ()
    if file.is_dir() or suffix == ".parquet":
        kind, unit, read = "table", "row", read_table
    elif suffix == ".spacy":
        kind, unit, read = "DocBin", "document", read_docbin
    else:
        options = (find_encoding(file, encoding), errors)
        if suffix in (".jsonl", ".ndjson", ".json"):
            kind, read = "JSON", read_json
            unit = "line" if has_json_lines(file, *options) else "record"
        else:
            kind, read = ("text", read_plain) if suffix == ".txt" and not labelled else ("columns", read_columns)
    scheme = _scheme_of(path, unit, read(file, *options)) if read is not read_plain else None
    form = ", ".join(filter(None, (kind, scheme, *(name for name in options[:1] if name != "utf-8"))))
    for raw in _without_empty(read(file, *options)):
        where = f"{path}, {unit} {raw.place}"
        if labelled and raw.tags is None and raw.entities is None:
            raise InputError(f"{where}: no labels. In a labelled corpus every sentence has them, if only [] or O.")
        if raw.tags is not None:
            raw.entities = decode_tags(raw.tags, scheme)
            raw.notes["tags out of place"] += broken_tags(raw.tags, scheme)
        yield as_row(raw.words, _one_type_each(raw.entities or [], raw.notes, where), form, raw.notes)


def _scheme_of(path: str, unit: str, sentences: Iterable[Raw]) -> str | None:
    """The scheme of a file's tags, None where it has none. IOB1 and IOB2 have the same prefixes: it is the one that fewer tags
    contradict, IOB2 where there is no telling.

    Raises:
        InputError: names the first line whose tag does not fit.
    """
    first, scheme, contradictions, tagged = {}, "IO", Counter(), False
    for raw in sentences:
        tagged = tagged or raw.tags is not None
        for tag, line in zip(raw.tags or (), raw.lines, strict=True):
            if tag not in first:
                first[tag] = line
                if len(first) > MOST_TAGS:
                    raise InputError(
                        f"{path}, {unit} {line}: more than {MOST_TAGS} different tags. Is the tag in the last column?"
                    )
                scheme = detect_scheme(first, f"{path}, {unit} {line}")
        if scheme == "IOB":
            contradictions.update({name: broken_tags(raw.tags or (), name) for name in ("IOB1", "IOB2")})
    if scheme == "IOB":
        return "IOB1" if contradictions["IOB1"] < contradictions["IOB2"] else "IOB2"
    return scheme if tagged else None


def _without_empty(sentences: Iterable[Raw]) -> Iterator[Raw]:
    """Leave out what has no words; its notes go to the sentence before, or the first one."""
    held, notes = None, Counter()
    for raw in sentences:
        if not raw.words:
            notes.update(raw.notes)
            continue
        if held:
            held.notes.update(notes)
            notes = Counter()
            yield held
        held = raw
    if held:
        held.notes.update(notes)
        yield held


def _one_type_each(entities: list[tuple[int, int, str]], notes: Counter[str], where: str) -> list[tuple[int, int, str]]:
    """The entities without second types of a span, which a model of one label a span cannot hold."""
    kept, end = {}, 0
    for begin, length, name in entities:
        if name.strip() in ("", "O"):
            raise InputError(f"{where}: an entity of the type {name!r}, which stands for no entity. Rename it.")
        if kept.setdefault((begin, length), name) != name:
            notes["second types of a span left out"] += 1
    for begin, length in sorted(kept):
        notes["entities that overlap another"] += begin < end
        end = max(end, begin + length)
    return [(*span, name) for span, name in kept.items()]


def as_row(words: list[str], entities: Iterable[tuple[int, int, str]], form: str, notes: Counter[str]) -> dict:
    """A row of `CORPUS`. Words that nobody can see keep their place, as U+FFFD."""
    invisible = [i for i, word in enumerate(words) if not word.strip()]
    if invisible:
        words, notes = list(words), notes + Counter({"invisible words kept": len(invisible)})
        for i in invisible:
            words[i] = "\ufffd"
    notes = [f"{count} {note}" for note, count in notes.items() if count]
    begins, lengths, types = map(list, zip(*entities, strict=True)) if entities else ([], [], [])
    return {"words": words, "begins": begins, "lengths": lengths, "types": types, "format": form, "notes": notes}


def load_corpus(path: str, labelled: bool, encoding: str = "utf-8", errors: str = "strict") -> Dataset:
    """Read a corpus, see `read_corpus`, into a data set of `CORPUS` in Arrow, cached by `datasets` while the file stays as it is.

    Raises:
        InputError: the file is missing, empty or broken; the message names file and line.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file. Check the path.")
    files = [file for file in sorted(Path(path).rglob("*")) if file.is_file()] or [Path(path)]
    stamp = [_VERSION, *((str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size) for file in files)]
    options = {"path": str(path), "labelled": labelled, "encoding": encoding, "errors": errors, "stamp": tuple(stamp)}
    try:
        return Dataset.from_generator(_generate, features=CORPUS, gen_kwargs=options)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def _generate(path: str, labelled: bool, encoding: str, errors: str, stamp: tuple) -> Iterator[dict]:
    """`stamp` makes a changed file another entry of the cache."""
    empty = True
    for sentence in read_corpus(path, labelled, encoding, errors):
        empty = False
        yield sentence
    if empty:
        raise InputError(f"{path}: no sentence in it. Expected one word and tag a line, or one sentence a line in a .txt file.")
