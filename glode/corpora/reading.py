"""A corpus in a file -> labelled words, and what it holds.

A sentence is {"words": [...], "begins": [...], "lengths": [...], "types": [...]}: its words and its entities, in words. A corpus
that was read has two columns more: `format` (what was found: format, scheme, encoding) and `notes` (what was done to the
sentence so that it could be read, such as "2 tags out of place"), which `summarize` adds up.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset
from datasets.exceptions import DatasetGenerationError

from glode.corpora.brat import is_brat, parts_of, read_brat
from glode.corpora.columns import COLUMN_SUFFIXES, looks_like_columns, read_columns
from glode.corpora.files import check_text, find_encoding, unpacked_suffix
from glode.corpora.json_files import has_json_lines, read_json
from glode.corpora.layout import find_layout
from glode.corpora.marks import check_marks
from glode.corpora.offsets import LETTER_SHORT
from glode.corpora.options import ReadingOptions
from glode.corpora.schema import CORPUS, Raw
from glode.corpora.tables import read_docbin, read_table
from glode.corpora.tags import NoTags, TagCensus, TagReading, check_types, read_tags
from glode.corpora.text import read_plain
from glode.errors import InputError

VERSION = 12  # of corpora in the cache of `datasets`, which does not notice when the code here changes

Reader = Callable[[Path, ReadingOptions, bool], Iterator[Raw]]


class Form(NamedTuple):
    """How a file is read: what its format is called, what its places are, and by which function."""

    kind: str
    unit: str
    read: Reader
    is_text: bool = True


def find_form(path: Path, labelled: bool, options: ReadingOptions) -> Form:
    """The form of a corpus, from its name and, for .txt, what stands beside it and in it.

    Raises:
        InputError: the name says a format that is not read, or nothing.
    """
    suffix = unpacked_suffix(path)
    if is_brat(path):
        return Form("brat", "character", read_brat)
    if path.is_file() and suffix in TEXT_SUFFIXES:
        check_text(path)
        if suffix in COLUMN_SUFFIXES - {".csv"}:
            check_marks(path, options)
    if path.is_dir() or suffix == ".parquet":
        return Form("table", "row", read_table, is_text=False)
    if suffix == ".spacy":
        return Form("DocBin", "document", read_docbin, is_text=False)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return Form("JSON", "line" if has_json_lines(path, options) else "record", read_json)
    if suffix in (".txt", ".text") and not labelled and not looks_like_columns(path, options):
        return Form("text", "line", read_plain)
    if suffix in COLUMN_SUFFIXES:
        return Form("columns", "line", partial(read_columns, layout=find_layout(path, options, labelled)))
    advice = _ADVICE.get(suffix, "the format follows from the name, and this one names none that is read.")
    raise InputError(
        f"{path}: {advice} Rename or convert it: .conll, .tsv, .csv (a word and its tag a line), .jsonl (records), .txt (plain "
        "text), .parquet."
    )


TEXT_SUFFIXES = COLUMN_SUFFIXES | {".jsonl", ".ndjson", ".json"}

_ADVICE = {
    ".ann": "brat's annotations need their text beside them, of the same name and .txt.",
    ".xml": "XML is not read.",
    ".html": "HTML is not read.",
    ".pdf": "PDF is not read.",
    ".docx": "documents of a word processor are not read.",
    ".xlsx": "spreadsheets are not read, save it as .csv.",
    ".xmi": "XML is not read.",
    ".manifest": "a manifest of Ground Truth is JSON lines, name it .jsonl.",
    ".zip": "an archive is no corpus, unpack it.",
    ".tar": "an archive is no corpus, unpack it.",
}


def read_corpus(path: str, labelled: bool, options: ReadingOptions | None = None) -> Iterator[dict]:
    """Read a corpus, packed (.gz, .bz2, .xz, .zst) or not; the format follows from its name: .jsonl, .ndjson and .json (records),
    .parquet, .spacy, a directory (`Dataset.save_to_disk`, brat), .txt (plain text where `labelled` is False and its lines do not
    end in tags), .csv and what column files are called.

    Args:
        labelled: every sentence must have labels.
        options: how to read it, where the file does not say it.
    Yields:
        Rows of `CORPUS`.
    Raises:
        InputError: the file is missing or broken; the message names file and line.
    """
    file, options = Path(path), options or ReadingOptions()
    if file.is_file():
        options = dataclasses.replace(options, encoding=find_encoding(file, options.encoding))
    form = find_form(file, labelled, options)
    encoding = options.encoding if form.is_text and options.encoding not in ("utf-8", "utf8") else ""
    yield from label(lambda: form.read(file, options, labelled), path, form.unit, (form.kind, encoding), labelled, options)


def label(
    sentences: Callable[[], Iterable[Raw]], source: str, unit: str, form: tuple[str, str], labelled: bool, options: ReadingOptions
) -> Iterator[dict]:
    """Sentences of any reader as rows of `CORPUS`. Their tags are looked at as a whole first: what one means depends on all.

    Args:
        sentences: gives them, each time anew.
        source, unit: what messages begin with, such as a path and "line".
        form: format and encoding, for the column `format`.
    """
    reading = _reading_of(sentences(), source, unit, labelled, options)
    kind, encoding = form
    name = ", ".join(filter(None, (kind, reading.scheme if reading else None, encoding)))
    for raw in _without_empty(_labelled_words(sentences(), labelled)):
        where = f"{source}, {unit} {raw.place}"
        if labelled and raw.tags is None and raw.entities is None:
            raise InputError(f"{where}: no labels. In a labelled corpus every sentence has them, if only [] or O.")
        if raw.tags is not None:
            if reading is None:
                raw.notes["words whose tags are none of entities, and are not read"] += len(raw.tags)
            else:
                raw.entities, broken = reading.decode([tag for tag in raw.tags if tag is not None])
                raw.notes["tags out of place"] += broken
        yield as_row(raw.words, _one_type_each(raw.entities or [], raw.notes, where), name, raw.notes)


def _reading_of(sentences: Iterable[Raw], source: str, unit: str, labelled: bool, options: ReadingOptions) -> TagReading | None:
    """What the tags of a corpus mean; None where it has none, or where it needs none and they are something else."""
    census, types, tagged, seen, whole = TagCensus(), dict[str, int](), False, False, False
    typed = alike = spans = short = 0
    for raw in sentences:
        seen = seen or bool(raw.words)
        if raw.tags is not None:
            tagged = True
            census.add(raw.tags, raw.lines, bool(raw.words))
            pairs = [(word, tag) for word, tag in zip(raw.words, raw.tags, strict=False) if tag not in (None, "O")]
            typed, alike = typed + len(pairs), alike + sum(word.casefold() == str(tag).casefold() for word, tag in pairs)
        whole = whole or bool(raw.words and (raw.tags is None or None not in raw.tags))
        spans, short = spans + len(raw.entities or ()), short + raw.notes[LETTER_SHORT]
        for _, _, name in raw.entities or ():
            types.setdefault(name, raw.place)
    if labelled and seen and not whole:
        raise InputError(
            f"{source}: every sentence has words that are not labelled (class -1 or -100, or no tag). Give words, not the pieces "
            "that a tokenizer makes of them, and a tag for each."
        )
    if spans == short > 2:
        raise InputError(
            f"{source}: all {spans} entities end one letter before their word does. Is their end inside? It must not be: add 1."
        )
    if not options.scheme:
        check_types(types, source, unit)
    if not tagged:
        return None
    try:
        if 2 * alike > typed:
            raise NoTags(
                f"{source}: most tags are their words once more, as lemmas are. Name the column of the tags by --tag_column."
            )
        return read_tags(census, source, unit, options.scheme, settled=options.tag_column is not None)
    except NoTags:
        if labelled:
            raise
        return None


def _labelled_words(sentences: Iterable[Raw], labelled: bool) -> Iterator[Raw]:
    """A sentence of which some words are not labelled tells neither its entities nor what is none: it is left out of a labelled
    corpus, and is a sentence without labels in another."""
    for raw in sentences:
        if raw.tags is not None and None in raw.tags:
            raw.tags = None
            if labelled:
                raw.words = []
                raw.notes["sentences left out in which words are not labelled"] += 1
        yield raw


def _without_empty(sentences: Iterable[Raw]) -> Iterator[Raw]:
    """Leave out what has no words; its notes go to the sentence before, or the first one."""
    held, notes = None, Counter[str]()
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
    kept, end = dict[tuple[int, int], str](), 0
    for begin, length, name in entities:
        if name.strip() in ("", "O", "o"):
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
    begins, lengths, types = map(list, zip(*entities, strict=True)) if entities else ([], [], [])
    texts = [f"{count} {note}" for note, count in notes.items() if count]
    return {"words": words, "begins": begins, "lengths": lengths, "types": types, "format": form, "notes": texts}


def load_corpus(path: str, labelled: bool, options: ReadingOptions | None = None) -> Dataset:
    """Read a corpus, see `read_corpus`, into a data set of `CORPUS` in Arrow, cached by `datasets` while the file stays as it is.

    Raises:
        InputError: the file is missing, empty or broken; the message names file and line.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file. Check the path.")
    inside = sorted(Path(path).rglob("*")) if Path(path).is_dir() else {Path(path), *parts_of(Path(path))}
    files = [file for file in sorted(inside) if file.is_file()]
    stamp = [VERSION, *((str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size) for file in files)]
    arguments = {"path": str(path), "labelled": labelled, "options": options or ReadingOptions(), "stamp": tuple(stamp)}
    return build(_generate, arguments)


def build(generate: Callable[..., Iterator[dict]], arguments: dict, **settings) -> Dataset:
    """A data set of `CORPUS` from a generator; an InputError in it stays one."""
    try:
        return Dataset.from_generator(generate, features=CORPUS, gen_kwargs=arguments, **settings)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def _generate(path: str, labelled: bool, options: ReadingOptions, stamp: tuple) -> Iterator[dict]:
    """`stamp` makes a changed file another entry of the cache."""
    empty = True
    for sentence in read_corpus(path, labelled, options):
        empty = False
        yield sentence
    if empty:
        raise InputError(f"{path}: no sentence in it. Expected one word and tag a line, or one sentence a line in a .txt file.")
