"""A corpus file -> labelled words: label schemes, file formats, data sets of the Hub.

A sentence is {"words": [...], "begins": [...], "lengths": [...], "types": [...]}: its words and its entities, in words.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Value, load_dataset
from datasets import Sequence as SequenceFeature
from datasets.exceptions import DatasetGenerationError

from modeling_glode import InputError, split_words

SENTENCE = Features(
    {
        "words": SequenceFeature(Value("string")),
        "begins": SequenceFeature(Value("int32")),
        "lengths": SequenceFeature(Value("int32")),
        "types": SequenceFeature(Value("string")),
    }
)

# ------------------------------------------------------------------------------------------------------------- schemes

_VERSION = 2  # of corpora in the cache of `datasets`, which does not notice when the code here changes
_PREFIXED = re.compile(r"^([BIESLUM])-(.+)$")


def detect_scheme(tags: Iterable[str]) -> str:
    """Name the label scheme of a set of tags: "IO" (bare types), "IOB" (1 or 2; decoding is the same), "BIOES" or "BILOU".

    Raises:
        InputError: the tags mix schemes or have a prefix that no scheme has.
    """
    names = sorted(set(tags) - {"O"})
    prefixes = {match[1] for match in map(_PREFIXED.match, names) if match}
    bare = [name for name in names if not _PREFIXED.match(name)]
    strange = [name for name in bare if re.match(r"^[A-Z]-", name) or name in {"B", "I", "E", "S", "L", "U", "M", "_", "-"}]
    if strange or (bare and prefixes):
        example = (strange or bare)[0]
        raise InputError(
            f"tag {example!r} fits no label scheme together with {(sorted(set(names) - {example}) or ['O'])[:4]}. "
            "Known are IOB1, IOB2, BIOES, BILOU (as in B-PER) and bare types (PER); use one of them in the whole file."
        )
    if not prefixes:
        return "IO"
    if prefixes <= {"B", "I"}:
        return "IOB"
    if prefixes <= {"B", "I", "E", "S"} or prefixes <= {"B", "M", "E", "S"}:
        return "BIOES"
    if prefixes <= {"B", "I", "L", "U"}:
        return "BILOU"
    raise InputError(f"prefixes {sorted(prefixes)} fit no label scheme. Known are IOB1, IOB2, BIOES and BILOU.")


def decode_tags(tags: Sequence[str], scheme: str) -> list[tuple[int, int, str]]:
    """Entities (begin, length, type) of a tag sequence. An inside tag without a beginning starts an entity (IOB1, and the
    usual reading of broken sequences)."""
    entities, open_type, begin = [], None, 0
    for position, tag in enumerate([*tags, "O"]):
        prefix, name = ("I", tag) if scheme == "IO" else (tag[0], tag[2:])
        if tag == "O":
            name = None
        starts = name is not None and (prefix in "BSU" or name != open_type)
        if open_type is not None and (name is None or starts):
            entities.append((begin, position - begin, open_type))
            open_type = None
        if starts:
            begin, open_type = position, name
        if name is not None and prefix in "ESLU" and scheme != "IO":
            entities.append((begin, position + 1 - begin, open_type))
            open_type = None
    return entities


def encode_tags(number: int, entities: Iterable[tuple[int, int, str]], scheme: str = "IOB2") -> list[str]:
    """The tags of `number` words, in "IOB1", "IOB2", "BIOES" or "IO"."""
    tags, after = ["O"] * number, {}
    for begin, length, name in sorted(entities):
        last = begin + length - 1
        if scheme == "IO":
            tags[begin : last + 1] = [name] * length
            continue
        first_prefix = "I" if scheme == "IOB1" and after.get(begin) != name else "B"
        tags[begin : last + 1] = [f"{first_prefix}-{name}", *[f"I-{name}"] * (length - 1)]
        if scheme == "BIOES":
            tags[last] = f"{'S' if length == 1 else 'E'}-{name}"
        after[last + 1] = name
    return tags


# ------------------------------------------------------------------------------------------------------------- readers


def _open(path: Path):
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their line end; every failure to read names the file."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {number}: not UTF-8 ({error.reason}). Convert the file to UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error


def _sentence(words: list[str], entities: Iterable[tuple[int, int, str]]) -> dict:
    begins, lengths, types = map(list, zip(*entities, strict=True)) if entities else ([], [], [])
    return {"words": words, "begins": begins, "lengths": lengths, "types": types}


def read_columns(path: Path) -> Iterator[dict]:
    """One word a line, its tag in the last column, a blank line between sentences; `-DOCSTART-` lines are left out."""
    tags = {}
    for number, line in _lines(path):
        columns = line.split("\t") if "\t" in line else line.split()
        if columns and line.strip() and columns[0] != "-DOCSTART-":
            if len(columns) < 2 or not columns[-1].strip():
                raise InputError(
                    f"{path}, line {number}: {line.strip()[:60]!r} has no tag. Each line is a word, white space and its tag."
                )
            tags.setdefault(columns[-1].strip(), number)
    scheme = _scheme_of(path, tags)
    words, names = [], []
    for _, line in _lines(path):
        columns = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or columns[0] == "-DOCSTART-":
            if words:
                yield _sentence(words, decode_tags(names, scheme))
            words, names = [], []
            continue
        words.append(columns[0].strip() or "\ufffd")
        names.append(columns[-1].strip())
    if words:
        yield _sentence(words, decode_tags(names, scheme))


def _scheme_of(path: Path, tags: dict[str, int]) -> str:
    """The scheme of the tags, given with the line where each occurs first; the error names the first line that does not fit."""
    seen, scheme = [], "IO"
    for tag, number in tags.items():
        seen.append(tag)
        try:
            scheme = detect_scheme(seen)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return scheme


def read_json_lines(path: Path) -> Iterator[dict]:
    """One JSON object a line: "tokens" (or "words") and "tags" (or "ner_tags", "labels"), which are names."""
    records, tags = [], {}
    for number, line in _lines(path):
        if not line.strip():
            continue
        record = _json(path, number, line)
        words = next((record[k] for k in ("tokens", "words") if k in record), None) if isinstance(record, dict) else None
        names = next((record[k] for k in ("tags", "ner_tags", "labels") if k in record), None) if words is not None else None
        if not _is_strings(words) or (names is not None and not (_is_strings(names) and len(names) == len(words))):
            raise InputError(
                f'{path}, line {number}: expected {{"tokens": [words], "tags": [one tag a word, such as "B-PER"]}} '
                "with lists of equal length."
            )
        if words:
            records.append((words, names))
            for tag in names or ():
                tags.setdefault(tag, number)
    scheme = _scheme_of(path, tags)
    for words, names in records:
        yield _sentence(words, decode_tags(names or ["O"] * len(words), scheme))


def read_spanner(path: Path) -> Iterator[dict]:
    """The authors' format: a JSON list of {"context": "words joined by spaces", "span_posLabel": {"first;last": type}}."""
    text = "\n".join(line for _, line in _lines(path))
    records = _json(path, 1, text)
    for number, record in enumerate(records if isinstance(records, list) else [records], 1):
        try:
            words = record["context"].split()
            spans = [(*map(int, key.split(";")), name) for key, name in record.get("span_posLabel", {}).items()]
            entities = sorted((first, last - first + 1, str(name)) for first, last, name in spans)
            valid = all(begin >= 0 and length > 0 and begin + length <= len(words) for begin, length, _ in entities)
        except (TypeError, KeyError, ValueError, AttributeError):
            valid = False
        if not valid:
            raise InputError(
                f'{path}, record {number}: expected {{"context": "words", "span_posLabel": {{"first;last": "TYPE"}}}} '
                "with positions inside the text."
            )
        if words:
            yield _sentence(words, entities)


def _is_strings(value) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _json(path: Path, number: int, text: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number + error.lineno - 1}: not JSON ({error.msg}, column {error.colno}).") from None


def read_plain(path: Path) -> Iterator[dict]:
    """Plain text, one sentence a line, split by the rule that inference uses."""
    for _, line in _lines(path):
        if words := [line[a:b] for a, b in split_words(line)]:
            yield _sentence(words, [])


def read_corpus(path: str, labelled: bool) -> Iterator[dict]:
    """Read a corpus file; the format follows from its name: .jsonl, .json (spanner), .txt (plain text where `labelled` is
    False), anything else columns. Each may be gzipped."""
    path = Path(path)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    readers = {".jsonl": read_json_lines, ".json": read_spanner}
    if not labelled:
        readers[".txt"] = read_plain
    yield from readers.get(suffix, read_columns)(path)


def load_corpus(path: str, labelled: bool) -> Dataset:
    """Read a corpus file into an Arrow-backed data set of sentences, cached by `datasets` under the file's content.

    Raises:
        InputError: the file is missing, empty or broken; the message names file and line.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such file. Check the path.")
    stamp = (str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size, _VERSION)
    try:
        return Dataset.from_generator(
            _generate, features=SENTENCE, gen_kwargs={"path": str(path), "labelled": labelled, "stamp": stamp}
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def _generate(path: str, labelled: bool, stamp: tuple) -> Iterator[dict]:
    """`stamp` makes a changed file another entry of the cache."""
    empty = True
    for sentence in read_corpus(path, labelled):
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
        raise InputError(f"data set {name!r} has the columns {sorted(columns)}; expected `tokens` and `ner_tags`.")
    feature = columns["ner_tags"].feature
    names = feature.names if hasattr(feature, "names") else None
    if names is None and feature.dtype != "string":
        raise InputError(f"data set {name!r}: `ner_tags` are numbers without names. Give files instead: --source_train.")
    scheme = detect_scheme(names or {tag for part in raw.values() for tags in part["ner_tags"] for tag in tags})

    def convert(row: dict) -> dict:
        tags = [names[i] for i in row["ner_tags"]] if names else row["ner_tags"]
        return _sentence(row["tokens"], decode_tags(tags, scheme))

    return raw.map(convert, remove_columns=list(columns), features=SENTENCE, desc="Reading labels").filter(
        lambda row: len(row["words"]) > 0
    )
