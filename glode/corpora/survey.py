"""What the columns of a file hold, read line by line."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from glode.corpora.options import ReadingOptions
from glode.corpora.rows import is_comment, is_mark, read_rows, visible
from glode.corpora.tags import MOST_TAGS

LANGUAGE = re.compile(r"(?:[a-z]{2,3}|simple)(?:[-_][a-z]+)*:", re.IGNORECASE)  # PAN-X has it before each word

RANGE = re.compile(r"\d+[-.]\d+")  # of words, and empty nodes, in a column that counts them
TOKEN_NAMES = (
    "word", "words", "token", "tokens", "form", "text",
    "wort", "woord", "ord", "mot", "palabra", "palavra", "parola", "paraula", "słowo", "slovo", "слово", "词", "詞", "字", "单词",
)  # fmt: skip
TEXT_NAMES = ("text", "texts", "sentence", "sentences", "content", "title", "document", "body")
TAG_NAMES = (
    (
        "ner_tag", "ner_tags", "ner", "ner_label", "ne", "ne_tag", "iob", "iob_tag", "bio", "bio_tag", "bio-tag", "entity",
        "named_entity",
    ),
    ("tag", "tags", "label", "labels", "etikett", "etiqueta", "étiquette", "etichetta", "тег", "метка", "标签", "標籤", "标注"),
)  # fmt: skip
_NUMBER_NAMES = ("", "id", "idx", "index", "nr", "no", "no.", "number", "#", "_id", "row", "unnamed: 0")
_PREFIXED = re.compile("[BIESLUM][-_: ]")


@dataclass
class Survey:
    """What a file's lines show: the first one, and of each column its values (as far as they are few), whether all are digits
    (but for the name of such a column above them), how many have a language code before them, how many blanks they hold, and how
    many have one without being a tag; how often the first column repeats itself."""

    first: tuple[int, list[str]] | None = None
    names: list[str] = field(default_factory=list)  # of columns, in lower case
    header: int | None = None
    values: list[Counter[str]] = field(default_factory=list)
    digits: list[bool] = field(default_factory=list)
    languages: list[Counter[str]] = field(default_factory=list)
    blanks: list[int] = field(default_factory=list)
    parted: list[int] = field(default_factory=list)
    last: str | None = None
    repeats: int = 0
    misc: dict[str, Counter[str]] = field(default_factory=dict)
    words: int = 0
    indexed: bool = False

    @property
    def width(self) -> int:
        return len(self.first[1]) if self.first else 0


class Index:
    """Whether a column counts the words, of each sentence or of all, from 0 or from 1."""

    def __init__(self):
        self.base: int | None = None
        self.expected: int | None = None  # None where a sentence begins
        self.total = 0
        self.by_sentence = self.through = True
        self.seen = False
        self.frame: str | None = None  # what stands around the number, as in 1. or [1]

    def add(self, text: str) -> None:
        """The next line's value."""
        if RANGE.fullmatch(text):
            return
        match = re.fullmatch(r"[^\w\s]?(\d+)[^\w\s]?", text)
        frame = text.replace(match[1], " ") if match else ""
        self.frame = self.frame or frame
        if not match or frame != self.frame:
            self.by_sentence = self.through = False
            return
        number, self.seen = int(match[1]), True
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


def take_survey(path: Path, options: ReadingOptions) -> Survey:
    survey, index = Survey(), Index()
    for number, columns, _ in read_rows(path, options):
        if not columns or is_mark(columns):
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
        if is_comment(columns, survey.width or 2, path):
            continue
        if not survey.first:
            survey.first = number, columns
            survey.values = [Counter() for _ in columns]
            survey.digits = [True] * len(columns)
            survey.blanks, survey.parted = ([0] * len(columns) for _ in range(2))
            survey.languages = [Counter() for _ in columns]
            if names := names_of(columns, options):
                survey.names, survey.header = names, number
                continue
        if survey.header and columns == survey.first[1]:  # of a file that was appended
            index.end_sentence()
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
        text = visible(text)
        counter = survey.values[column]
        if text in counter or len(counter) <= MOST_TAGS:
            counter[text] += 1
        if survey.digits[column] and not text.isdecimal():
            survey.digits[column] = survey.words == 1 and text.lower() in _NUMBER_NAMES
        survey.blanks[column] += text.count(" ")
        survey.parted[column] += " " in text and not _PREFIXED.match(text)
        if match := LANGUAGE.match(text):
            survey.languages[column][match[0]] += 1
    if survey.width == 10:
        for part in columns[-1].strip().split("|"):
            name, equals, value = part.partition("=")
            values = survey.misc.setdefault(name, Counter()) if len(survey.misc) < MOST_TAGS else Counter()
            if equals and len(values) <= MOST_TAGS:
                values[value] += 1


def names_of(columns: list[str], options: ReadingOptions) -> list[str]:
    """The names of the columns, where the line has them: one for words and one for tags, or one that an option says."""
    names = [re.sub(r"\s+", "_", column.strip().lower()) for column in columns]
    chosen = {option.lower() for option in (options.token_column, options.tag_column) if option} & set(names)
    known = set(names) & set(TOKEN_NAMES) and set(names) & {name for group in TAG_NAMES for name in group}
    return names if chosen or known else []
