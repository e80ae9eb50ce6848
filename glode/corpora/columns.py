"""Column files (CoNLL and its kin, CSV) -> sentences."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from glode.corpora.files import read_lines, unpacked_suffix
from glode.corpora.options import ReadingOptions
from glode.corpora.schema import Raw
from glode.corpora.tags import CHUNK_TYPES, COMMON_TYPES, MOST_TAGS, NoTags, interpret
from glode.errors import InputError

LONGEST_SENTENCE = 2**20  # words: a column file without blank lines is one sentence
_PREFIXES = frozenset("BIESLUM")
_PARTED = re.compile(r". -\w.*|.- \w.*")  # B -PER, B- PER
_LANGUAGE = re.compile(r"(?:[a-z]{2,3}|simple)(?:[-_][a-z]+)*:")  # PAN-X has it before each word
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # around a tag they are no part of it
_SAMPLE = 1000  # lines that show what separates the columns

COLUMN_SUFFIXES = frozenset({
    "", ".annotated", ".bieo", ".bilou", ".bilu", ".bio", ".bio2", ".bioes", ".bmeo", ".bmes", ".col", ".cols", ".conll",
    ".conll02", ".conll03", ".conll2002", ".conll2003", ".conllu", ".conllup", ".conllx", ".csv", ".dat", ".data", ".dev",
    ".iob", ".iob1", ".iob2", ".iobes", ".ner", ".tag", ".tagged", ".tags", ".test", ".testa", ".testb", ".text", ".tok",
    ".train", ".tsv", ".txt", ".utf8", ".valid",
})  # fmt: skip

_TOKEN_NAMES = ("word", "words", "token", "tokens", "form", "text")
_TAG_NAMES = (("ner_tag", "ner_tags", "ner", "ne", "ne_tag", "iob", "bio", "entity"), ("tag", "tags", "label", "labels"))
_SENTENCE_NAMES = ("sentence_#", "sentence#", "sentence", "sentence_id", "sentence_idx", "sent_id", "sent", "sentence_number")
_MISC_KEYS = ("ner", "ne", "name", "tag", "entity", "namedentity", "named_entity", "nertag", "ner_tag", "iob", "bio")


@dataclass(frozen=True)
class Layout:
    """What the columns of a file are: how many, the positions of words, tags and the sentence's number or name, whether the first
    one counts the words, the line with their names, the language codes before all words, the key within the tags' column
    (CoNLL-U), and what is said about all this."""

    width: int = 0
    token: int = 0
    tag: int | None = None
    sentence: int | None = None
    indexed: bool = False
    header: int | None = None
    languages: tuple[str, ...] = ()
    key: str | None = None
    notes: tuple[str, ...] = ()


def read_columns(path: Path, options: ReadingOptions, labelled: bool = True, layout: Layout | None = None) -> Iterator[Raw]:
    """One word a line, the word in the first column, its tag in the last; a blank line between sentences.

    - Tabs separate the columns of a line that has one, else blanks; a file may mix them. All lines have as many columns as the
      first. A .csv file is what its name says.
    - A first line of names (word, tag) says which column is which, and may name one of sentences.
    - `-DOCSTART-` lines end a sentence too.
    - A first column that counts the words (CoNLL-U) is left out; ranges (1-2) and empty nodes (1.1) are passed over. Of ten
      columns the last says NER=tag among others; of UNER's five the third is the tag, of GermEval's four the third the outer one.
    - A line that begins with # is a word where it has as many columns as the others and a tag (O, a prefixed or an upper-case
      name) in the last, else a comment.

    Raises:
        InputError: a line has other columns than the first, or which column is which cannot be told.
    """
    layout = layout or find_layout(path, options, labelled)
    raw, sentence = Raw(0, [], [], []), None
    for number, columns, replaced in _rows(path, options):
        if not columns or columns[0] == "-DOCSTART-":
            if raw.words:
                yield raw
                raw = Raw(0, [], [], [])
            continue
        if number == layout.header:
            raw.notes["header lines left out"] += 1
            continue
        if _is_comment(columns, layout.width, path):
            raw.notes["comments left out"] += 1
            continue
        _check_row(columns, layout, path, number, labelled)
        if layout.indexed and not columns[0].strip().isdecimal():
            raw.notes["ranges and empty nodes passed over"] += 1
            continue
        if layout.sentence is not None and (name := columns[layout.sentence].strip()) and name != sentence:
            sentence = name
            if raw.words:
                yield raw
                raw = Raw(0, [], [], [])
        for note in layout.notes:
            raw.notes[note] += 1
        if replaced:
            raw.notes["broken characters replaced"] += replaced
        raw.place = raw.place or number
        _add_word(raw, columns, layout, number)
        if len(raw.words) > LONGEST_SENTENCE:
            raise InputError(
                f"{path}, line {raw.place}: a sentence of more than {LONGEST_SENTENCE} words. A blank line ends a sentence."
            )
    yield raw


def _add_word(raw: Raw, columns: list[str], layout: Layout, number: int) -> None:
    word = columns[layout.token].strip()
    if " " in word:
        raw.notes["words with a blank in them"] += 1
    raw.words.append(_LANGUAGE.sub("", word, count=1) if layout.languages else word)
    if layout.tag is None:
        raw.tags = None
        return
    tag = _visible(columns[layout.tag])
    if layout.key is not None:
        named = re.search(rf"(?:^|\|){re.escape(layout.key)}=([^|]+)", tag)
        tag = named[1] if named else "O" if tag in ("_", "") or "=" in tag else tag
    raw.tags = raw.tags or []
    raw.tags.append(tag)
    raw.lines.append(number)


def _check_row(columns: list[str], layout: Layout, path: Path, number: int, labelled: bool) -> None:
    """A line has a word and a tag, and as many columns as the others."""
    line = " ".join(columns).strip()[:60]
    if len(columns) < 2 or (layout.tag is not None and len(columns) == layout.width and not columns[layout.tag].strip()):
        raise InputError(
            f"{path}, line {number}: {line!r} has no tag. Each line is a word, white space and its tag. Plain text goes into a "
            ".txt file."
        )
    if len(columns) != layout.width:
        raise InputError(
            f"{path}, line {number}: {line!r} has {len(columns)} columns, the first word of the file {layout.width}. "
            "Is there a space in a word? Separate the columns by tabs."
        )


# ------------------------------------------------------------------------------------------------ lines -> columns


def _rows(path: Path, options: ReadingOptions) -> Iterator[tuple[int, list[str], int]]:
    """(number, columns, replaced characters) of each line; a blank line has no columns."""
    lines = (
        (number, line.removeprefix("\ufeff"), replaced)  # of a file that was appended
        for number, line, replaced in read_lines(path, options.encoding, options.encoding_errors)
    )
    if unpacked_suffix(path) == ".csv":
        yield from _csv_rows(path, lines, _delimiter(path, options))
        return
    mixed = _is_mixed(path, options)
    for number, line, replaced in lines:
        yield number, _split(line, mixed), replaced


def _csv_rows(path: Path, lines: Iterable[tuple[int, str, int]], delimiter: str) -> Iterator[tuple[int, list[str], int]]:
    broken = Counter[str]()

    def texts() -> Iterator[str]:
        for _, line, replaced in lines:
            broken["replaced"] += replaced
            yield line + "\n"

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    try:
        for columns in reader:
            yield reader.line_num, columns if any(map(str.strip, columns)) else [], broken.pop("replaced", 0)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not CSV ({error}). Correct it, or save it with tabs as .tsv."
        ) from None


def _delimiter(path: Path, options: ReadingOptions) -> str:
    first = next((line for _, line, _ in read_lines(path, options.encoding, options.encoding_errors) if line.strip()), "")
    return max(",;\t", key=first.count)


def _split(line: str, mixed: bool) -> list[str]:
    """The columns of a line, none of a blank one. Other white space (no-break, ideographic) may be part of a word."""
    if not _visible(line):
        return []
    if "\t" in line:
        if not mixed:
            return line.split("\t")
        line = line.replace("\t", " ")
    columns = [column for column in line.split(" ") if column]
    if len(columns) > 2 and columns[-2].rstrip("-") in _PREFIXES and _PARTED.fullmatch(f"{columns[-2]} {columns[-1]}"):
        columns[-2:] = ["".join(columns[-2:])]
    return columns


def _visible(text: str) -> str:
    return text.strip().strip(_INVISIBLE).strip()


def _is_mixed(path: Path, options: ReadingOptions) -> bool:
    """Whether tabs and blanks both separate columns: only together do they give all lines the same number of columns, and more
    than one to the last field of each line."""
    lines = read_lines(path, options.encoding, options.encoding_errors)
    sample = list(islice((line for _, line, _ in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))), _SAMPLE))
    if not any("\t" in line for line in sample):
        return False
    together = {len(_split(line, True)) for line in sample}
    tabs = {len(_split(line, False)) for line in sample}
    pieces = {len(line.strip().split("\t")[-1].split()) for line in sample}
    return len(together) == 1 and (len(tabs) > 1 or min(pieces) > 1)


def _is_comment(columns: list[str], width: int, path: Path) -> bool:
    if not columns[0].startswith("#") or unpacked_suffix(path) == ".csv":
        return False
    tag = columns[-1].strip()
    is_entry = len(columns) > 2 and columns[2 if columns[0] == "#" else 1] == "="  # sent_id = A1
    return (
        is_entry
        or len(columns) != width
        or not (tag == "O" or re.match("[BIESLUM]-.", tag) or (tag.isupper() and " " not in tag))
    )


def looks_like_columns(path: Path, options: ReadingOptions) -> bool:
    """Whether nearly every line of a file ends in a tag.

    Raises:
        InputError: so many do that it is neither text nor columns.
    """
    lines = read_lines(path, options.encoding, options.encoding_errors)
    sample = [line.split() for line in islice((line for _, line, _ in lines if line.strip()), _SAMPLE)]
    tagged = sum(
        len(columns) > 1 and _ends_in_tag(columns) for columns in sample if not columns[0].startswith(("#", "-DOCSTART-"))
    )
    counted = sum(not columns[0].startswith(("#", "-DOCSTART-")) for columns in sample)
    words = [word for columns in sample for word in columns]
    if 2 * sum(map(bool, map(_ATTACHED.fullmatch, words))) > len(words):
        raise InputError(f"{path}: words with their tags attached, as in {words[0]!r}. Write a word and its tag a line.")
    if counted and 0.5 < tagged / counted < 0.9:
        raise InputError(
            f"{path}: {tagged} of its first {counted} lines end in a tag such as O or B-PER. Name it .conll if it has columns, "
            "else take the tags away."
        )
    return counted > 0 and tagged >= 0.9 * counted


def _ends_in_tag(columns: list[str]) -> bool:
    last = columns[-1]
    return last == "O" or (last == "o" and len(columns) < 5) or last in COMMON_TYPES or bool(_TAG.fullmatch(last))


_ATTACHED = re.compile(rf".+[/|](O|[BIESLUM]-[A-Za-z].*|{'|'.join(sorted(COMMON_TYPES))})")  # Lena/B-PER lebt/O
_TAG = re.compile(r"[BIESLUM][-_:][A-Za-z]\S*|[bieslum]-[a-z]\S*|[A-Z]+[-_:][BIESLUM]")


# ------------------------------------------------------------------------------------------- columns -> what they are


@dataclass
class Survey:
    """What a file's lines show: the first one, and of each column its values (as far as they are few), whether all are digits,
    how many have a language code before them, and how many blanks they hold; how often the first column repeats itself."""

    first: tuple[int, list[str]] | None = None
    names: list[str] = field(default_factory=list)  # of columns, in lower case
    header: int | None = None
    values: list[Counter[str]] = field(default_factory=list)
    digits: list[bool] = field(default_factory=list)
    languages: list[Counter[str]] = field(default_factory=list)
    blanks: list[int] = field(default_factory=list)
    last: str | None = None
    repeats: int = 0
    misc: dict[str, Counter[str]] = field(default_factory=dict)
    words: int = 0
    indexed: bool = False

    @property
    def width(self) -> int:
        return len(self.first[1]) if self.first else 0


def find_layout(path: Path, options: ReadingOptions, labelled: bool) -> Layout:
    """Which column is which.

    Raises:
        InputError: it cannot be told; the message says what was seen and names the option that settles it.
    """
    survey = _survey(path, options)
    if not survey.width:
        return Layout()
    token = _find_token(survey, options, path)
    tag, key, notes = _find_tag(survey, options, path, token, labelled) if survey.width > 1 else (0, None, [])
    if tag == token and survey.width > 1:
        raise InputError(f"{path}: column {tag + 1} cannot hold both words and tags. Give --token_column and --tag_column.")
    if tag is not None:
        _check_header(survey, tag, path)
    if not options.token_column:
        _check_words(survey, token, None if options.tag_column else tag, path)
    languages = _languages(survey, token, path)
    notes += [f"words without the {', '.join(languages)} before them"] if languages else []
    sentence = next((survey.names.index(name) for name in _SENTENCE_NAMES if name in survey.names), None)
    indexed = survey.indexed and token != 0 and sentence != 0
    sentence = sentence if sentence not in (token, tag) else None
    return Layout(survey.width, token, tag, sentence, indexed, survey.header, languages, key, tuple(notes))


def _survey(path: Path, options: ReadingOptions) -> Survey:
    survey, index = Survey(), Index()
    for number, columns, _ in _rows(path, options):
        if not columns or columns[0] == "-DOCSTART-":
            index.end_sentence()
            continue
        if (
            not survey.first
            and columns[0].startswith("#")
            and (match := re.match(r"#\s*global\.columns\s*=\s*(.+)", " ".join(columns)))
        ):
            survey.names = [
                name.lower().rpartition(":")[2] if "ner" in name.lower() else name.lower() for name in match[1].split()
            ]
        if _is_comment(columns, survey.width or 2, path):
            continue
        if not survey.first:
            survey.first = number, columns
            survey.values = [Counter() for _ in columns]
            survey.digits, survey.blanks = [True] * len(columns), [0] * len(columns)
            survey.languages = [Counter() for _ in columns]
            if names := _names(columns, options):
                survey.names, survey.header = names, number
                continue
        if len(columns) == len(survey.values):
            survey.words += 1
            index.add(columns[0].strip())
            _look_at(survey, columns)
    survey.indexed = survey.width > 2 and index.counts
    return survey


def _look_at(survey: Survey, columns: list[str]) -> None:
    """Add a line to what its columns show."""
    survey.repeats += columns[0] == survey.last
    survey.last = columns[0]
    for column, text in enumerate(columns):
        text = _visible(text)
        counter = survey.values[column]
        if text in counter or len(counter) <= MOST_TAGS:
            counter[text] += 1
        if survey.digits[column] and not text.isdecimal():
            survey.digits[column] = False
        survey.blanks[column] += text.count(" ")
        if match := _LANGUAGE.match(text):
            survey.languages[column][match[0]] += 1
    if survey.width == 10:
        for part in columns[-1].strip().split("|"):
            name, equals, value = part.partition("=")
            values = survey.misc.setdefault(name, Counter()) if len(survey.misc) < MOST_TAGS else Counter()
            if equals and len(values) <= MOST_TAGS:
                values[value] += 1


class Index:
    """Whether a column counts the words, of each sentence or of all, from 0 or from 1."""

    def __init__(self):
        self.base: int | None = None
        self.expected: int | None = None  # None where a sentence begins
        self.total = 0
        self.by_sentence = self.through = True
        self.seen = False

    def add(self, text: str) -> None:
        """The next line's value."""
        if not text.isdecimal():
            self.by_sentence = self.by_sentence and bool(re.fullmatch(r"\d+[-.]\d+", text))
            self.through = self.through and self.by_sentence
            return
        number, self.seen = int(text), True
        if self.base is None:
            self.base = number
            self.by_sentence = self.through = self.by_sentence and number in (0, 1)
        self.by_sentence = self.by_sentence and number == (self.base if self.expected is None else self.expected)
        self.through = self.through and number == self.base + self.total
        self.expected, self.total = number + 1, self.total + 1

    def end_sentence(self) -> None:
        """A blank line."""
        self.expected = None

    @property
    def counts(self) -> bool:
        return self.seen and (self.by_sentence or self.through)


def _names(columns: list[str], options: ReadingOptions) -> list[str]:
    """The names of the columns, where the line has them: one for words and one for tags, or one that an option says."""
    names = [re.sub(r"\s+", "_", column.strip().lower()) for column in columns]
    chosen = {option.lower() for option in (options.token_column, options.tag_column) if option} & set(names)
    known = set(names) & set(_TOKEN_NAMES) and set(names) & {name for group in _TAG_NAMES for name in group}
    return names if chosen or known else []


def _position(survey: Survey, option: str, value: str, path: Path) -> int:
    """The column that an option names."""
    if re.fullmatch(r"-?\d+", value):
        number = int(value)
        if 0 < abs(number) <= survey.width:
            return number - 1 if number > 0 else survey.width + number
    elif value.lower() in survey.names:
        return survey.names.index(value.lower())
    names = f", named {', '.join(survey.names)}" if survey.names else " without names"
    raise InputError(f"--{option} {value}: {path} has {survey.width} columns{names}. Count from 1, or from the end with -1.")


def _find_token(survey: Survey, options: ReadingOptions, path: Path) -> int:
    if options.token_column:
        return _position(survey, "token_column", options.token_column, path)
    if known := [name for name in _TOKEN_NAMES if name in survey.names]:
        return survey.names.index(known[0])
    if survey.indexed:
        return 1
    if survey.digits[0] and survey.words > 1:
        raise InputError(
            f"{path}: the first column holds numbers alone ({', '.join(list(survey.values[0])[:4])}). Name the words' column by "
            "--token_column."
        )
    return 0


def _check_words(survey: Survey, token: int, tag: int | None, path: Path) -> None:
    """What was taken for the words' column may hold texts, names of documents, or words with a position."""
    values = survey.values[token]
    is_text = survey.blanks[token] >= (1 if survey.names and survey.names[token] in ("text", "sentence") else 2) * survey.words
    if tag is not None and survey.blanks[tag] > survey.words:
        values, is_text = survey.values[tag], True
    if survey.words and is_text:
        raise InputError(
            f"{path}: a column holds texts ({max(values, key=len)[:40]!r}). Give a word a line; texts go into a .txt "
            "file or, with offsets, into .jsonl. If they are words, name their column by --token_column."
        )
    if token == 0 and survey.width > 2 and all(re.fullmatch(r"\d+-\d+(\.\d+)?", value) for value in values):
        raise InputError(
            f"{path}: the first column numbers sentences and words ({', '.join(list(values)[:3])}), as WebAnno's TSV does, "
            "which is not read. Export it as CoNLL 2002, or name the words' column by --token_column."
        )
    if token == 0 and survey.width > 2 and 2 * survey.repeats >= max(survey.words - 1, 1):
        raise InputError(
            f"{path}: the first column repeats {next(iter(values))!r} from line to line, as names of documents do. Name the "
            "words' column by --token_column."
        )
    if survey.words > 2 and all(re.fullmatch(r".\d", value) for value in values) and not "".join(values).isascii():
        raise InputError(
            f"{path}: each word is a character with a digit ({', '.join(list(values)[:3])}): are these positions within "
            "words? Take them away, or name the words' column by --token_column."
        )


def _languages(survey: Survey, token: int, path: Path) -> tuple[str, ...]:
    """The language codes that precede all words.

    Raises:
        InputError: they precede most.
    """
    found, marked = survey.languages[token], survey.languages[token].total()
    if survey.words > marked > survey.words / 2:
        raise InputError(
            f"{path}: {marked} of {survey.words} words have a language before them ({next(iter(found))}). Take it away, or write "
            "it before all."
        )
    return tuple(sorted(found)) if marked == survey.words else ()


def _find_tag(
    survey: Survey, options: ReadingOptions, path: Path, token: int, labelled: bool
) -> tuple[int | None, str | None, list[str]]:
    """The tags' column, the key within it, and what is said about it."""
    last = survey.width - 1
    if (value := options.tag_column) is not None:
        if survey.width == 10 and value in survey.misc:
            return last, value, []
        return _position(survey, "tag_column", value, path), None, []
    for group in _TAG_NAMES:
        if len(named := [name for name in group if name in survey.names]) > 1:
            raise InputError(f"{path}: the columns {' and '.join(named)} may both be the tags. Name one by --tag_column.")
        if named:
            return survey.names.index(named[0]), None, []
    if survey.width == 10 and survey.indexed:
        return _find_key(survey, path, labelled)
    while last > token + 1 and set(survey.values[last]) == {""}:  # tabs at the line ends
        last -= 1
    layers = [column for column in range(token + 1, last) if _holds_entities(survey.values[column])]
    if not layers:
        is_uner = survey.indexed and survey.width == 5 and set(survey.values[2]) == {"O"}
        return (2 if is_uner else last), None, []
    counted = f"columns {', '.join(str(column + 1) for column in [*layers, last])}"
    if survey.indexed and (survey.width, layers) == (4, [2]) and _holds_tags(survey.values[3]):
        return 2, None, ["words of which only the outer of two layers of tags was read"]
    if survey.indexed and survey.width == 5 and layers[0] == 2 and not _holds_entities(survey.values[4]):
        return 2, None, []
    if _holds_tags(survey.values[last]):
        raise InputError(f"{path}: {counted} all hold tags of entities. Name one by --tag_column.")
    raise InputError(
        f"{path}: the last column holds {', '.join(map(repr, list(survey.values[last])[:3]))}, and column {layers[0] + 1} tags "
        f"of entities. Name the right one by --tag_column, such as --tag_column {layers[0] + 1}."
    )


def _check_header(survey: Survey, tag: int, path: Path) -> None:
    """A first line of unknown names is no word with a tag."""
    assert survey.first
    number, columns = survey.first
    first, values = columns[tag].strip(), survey.values[tag]
    others = [value for value in values if value != first and len(value) > 1]
    is_known = first in COMMON_TYPES or not COMMON_TYPES.issuperset(others)
    is_type = (first.isupper() and is_known) or first in ("O", "-", "_", "0", "o") or re.match("[BIESLUM][-_:]", first)
    is_alone = number != survey.header and values[first] == 1 and not is_type
    bare = bool(others) and "O" in values and all(value.isupper() and not re.match("[BIESLUM]-", value) for value in others)
    if is_alone and bare:
        raise InputError(
            f"{path}, line {number}: {first!r} is a tag unlike all others. Is this a line of names? Take it away, or "
            "name the columns by --token_column and --tag_column."
        )


def _find_key(survey: Survey, path: Path, labelled: bool) -> tuple[int | None, str | None, list[str]]:
    """The key of the tags in CoNLL-U's last column."""
    last = survey.width - 1
    keys = [key for key in survey.misc if key.lower() in _MISC_KEYS and survey.misc[key] and _holds_tags(survey.misc[key])]
    if len(keys) > 1:
        raise InputError(f"{path}: {' and '.join(f'{key}=' for key in keys)} both hold tags. Name one by --tag_column {keys[0]}.")
    if keys:
        return last, keys[0], []
    if any(value not in ("_", "") and "=" not in value for value in survey.values[last]):
        return last, "NER", []
    if labelled:
        seen = sorted(key for key, values in survey.misc.items() if values)[:6]
        raise InputError(
            f"{path}: CoNLL-U without tags of entities: column 10 has {', '.join(seen) or 'nothing'}, but no NER=B-PER or the "
            "like. Name the column, or the key in the last one, by --tag_column."
        )
    return None, None, []


def _holds_tags(values: Iterable[str]) -> bool:
    """Whether all values are tags with a prefix, or O."""
    try:
        canonical, scheme = interpret(values)
    except InputError:
        return False
    return scheme != "IO" or set(canonical) == {"O"}


def _holds_entities(values: Iterable[str]) -> bool:
    """Whether they are tags of entities: with a prefix, and not those of chunks."""
    try:
        canonical, scheme = interpret(values)
    except (InputError, NoTags):
        return False
    types = {tag[2:] for tag in canonical.values() if tag != "O"}
    return scheme != "IO" and not types <= CHUNK_TYPES
