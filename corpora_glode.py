"""A corpus, in a file or on the Hub -> labelled words, and what it holds.

A sentence is {"words": [...], "begins": [...], "lengths": [...], "types": [...]}: its words and its entities, in words. A corpus
that was read has two columns more: `format` (what was found: format, scheme, encoding) and `notes` (what was done to the
sentence so that it could be read, such as "2 tags out of place"), which `summarize` adds up.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Features, Value, load_dataset
from datasets import Sequence as SequenceFeature
from datasets.exceptions import DatasetGenerationError

from files_glode import find_encoding, read_lines, unpacked_suffix
from modeling_glode import InputError, iter_words
from records_glode import Raw, has_json_lines, read_docbin, read_json, read_table
from schemes_glode import PREFIXED, broken_tags, decode_tags, detect_scheme
from sentences_glode import split_sentences

SENTENCE = Features(
    {
        "words": SequenceFeature(Value("string")),
        "begins": SequenceFeature(Value("int32")),
        "lengths": SequenceFeature(Value("int32")),
        "types": SequenceFeature(Value("string")),
    }
)
CORPUS = Features({**SENTENCE, "format": Value("string"), "notes": SequenceFeature(Value("string"))})

_VERSION = 4  # of corpora in the cache of `datasets`, which does not notice when the code here changes

# ------------------------------------------------------------------------------------------------------------- columns

LONGEST_SENTENCE = 2**20  # words: a column file without blank lines is one sentence
MOST_TAGS = 1000  # more are no tags but words


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


def read_plain(path: Path, encoding: str, errors: str) -> Iterator[Raw]:
    """Plain text, a sentence or a paragraph a line, split by the rules that inference uses."""
    for number, line, replaced in read_lines(path, encoding, errors):
        notes = Counter({"broken characters replaced": replaced})
        for start, end in split_sentences(line) or [(0, 0)]:
            yield Raw(number, list(iter_words(line[start:end])), notes=notes)
            notes = Counter()


# ------------------------------------------------------------------------------------------------------------- corpora


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
        yield _sentence(raw.words, _one_type_each(raw.entities or [], raw.notes, where), form, raw.notes)


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


def _sentence(words: list[str], entities: Iterable[tuple[int, int, str]], form: str, notes: Counter[str]) -> dict:
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


def load_hub_corpus(name: str, language: str) -> DatasetDict:
    """Load a token-classification data set from the Hub (columns `tokens` and `ner_tags`), one configuration a language.

    Raises:
        InputError: the Hub, the data set or the language is not there, or the columns are others.
    """
    try:
        raw = load_dataset(name, language)
    except Exception as error:  # the Hub client raises a dozen unrelated classes here, each a reason the user must see
        raise InputError(
            f"data set {name!r} ({language}) cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}. "
            "Check the name, the language and the connection to the Hub (HF_ENDPOINT, HF_TOKEN), or give files: "
            "--source_train, --target_unlabeled."
        ) from error
    columns = next(iter(raw.values())).features
    if "tokens" not in columns or "ner_tags" not in columns:
        raise InputError(
            f"data set {name!r} has the columns {sorted(columns)}; expected `tokens` and `ner_tags`. Give files instead: "
            "--source_train."
        )
    feature = columns["ner_tags"].feature
    names = feature.names if hasattr(feature, "names") else None
    if names is None and feature.dtype != "string":
        raise InputError(f"data set {name!r}: `ner_tags` are numbers without names. Give files instead: --source_train.")
    tags = names or {tag for part in raw.values() for tags in part["ner_tags"] for tag in tags}
    scheme = detect_scheme(tags, f"data set {name!r}")

    def convert(row: dict) -> dict:
        tags = [names[i] for i in row["ner_tags"]] if names else row["ner_tags"]
        return _sentence(row["tokens"], decode_tags(tags, scheme), f"Hub, {scheme}", Counter())

    return raw.map(convert, remove_columns=list(columns), features=CORPUS, desc="Reading labels").filter(
        lambda row: len(row["words"]) > 0
    )


# ------------------------------------------------------------------------------------------------------------- summary


def summarize(corpus: Dataset) -> dict:
    """What a corpus holds: `format`, `sentences`, `words`, `entities` by type, `longest_sentence` and `longest_entity` in words,
    and `notes`: what was done to how many words, tags or records."""
    formats, types, notes, words, sentence, entity = Counter(), Counter(), Counter(), 0, 0, 0
    for table in corpus.with_format("arrow").iter(10_000):
        sizes = pc.list_value_length(table["words"])
        words, sentence = words + pc.sum(sizes).as_py(), max(sentence, pc.max(sizes).as_py())
        entity = max(entity, pc.max(pc.list_flatten(table["lengths"])).as_py() or 0)
        formats.update(table["format"].to_pylist())
        types.update(pc.list_flatten(table["types"]).to_pylist())
        for count, note in (text.split(" ", 1) for text in pc.list_flatten(table["notes"]).to_pylist()):
            notes[note] += int(count)
    return {
        "format": " / ".join(sorted(formats)),
        "sentences": len(corpus),
        "words": words,
        "entities": dict(sorted(types.items())),
        "longest_sentence": sentence,
        "longest_entity": entity,
        "notes": dict(sorted(notes.items())),
    }


def count_repeated(corpus: Dataset, train: Dataset) -> int:
    """How many sentences of a corpus are, word for word, in the training corpus too."""
    seen = {hash(tuple(words)) for words in train["words"]}
    return sum(hash(tuple(words)) in seen for words in corpus["words"])


def types_of(corpus: Dataset) -> set[str]:
    """The types of a corpus' entities."""
    return {name for names in corpus["types"] for name in names}


def map_types(corpus: Dataset, mapping: dict[str, str]) -> Dataset:
    """Rename, merge and, where the new name is "O", drop the types of a corpus' entities; others stay."""
    if not mapping:
        return corpus

    def convert(row: dict) -> dict:
        types = [mapping.get(name, name) for name in row["types"]]
        columns = {"begins": row["begins"], "lengths": row["lengths"], "types": types}
        return {
            column: [value for value, name in zip(values, types, strict=True) if name != "O"]
            for column, values in columns.items()
        }

    return corpus.map(convert, desc="Mapping types")
