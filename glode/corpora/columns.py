"""Column files (CoNLL and its kin, CSV) -> sentences."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from glode.corpora.files import read_lines
from glode.corpora.layout import Layout, find_layout
from glode.corpora.options import ReadingOptions
from glode.corpora.rows import SAMPLE, is_comment, is_mark, read_rows, visible
from glode.corpora.schema import Raw
from glode.corpora.survey import LANGUAGE, RANGE, names_of
from glode.corpora.tags import COMMON_TYPES
from glode.errors import InputError

LONGEST_SENTENCE = 2**20  # words: a column file without blank lines is one sentence
_FEW_LINES = 4  # so few may begin with E-Mail
_TAG = re.compile(r"[BIESLUM][-_:/|][A-Za-z]\S*|[bieslum][-_][a-z]\S*|[A-Z]+[-_:/|][BIESLUM]|[a-z]+[-_][bieslum]")
_PART_OF_SPEECH = re.compile(r"[A-Z]{1,6}\$?|[^\w\s]+")
_NO_NAME = ("nan", "none", "null")  # of a sentence, as a table's empty cell may be written
_NO_ENTITY = ("O", "o", "_", "-", "")

COLUMN_SUFFIXES = frozenset({
    "", ".annotated", ".bieo", ".bilou", ".bilu", ".bio", ".bio2", ".bioes", ".bmeo", ".bmes", ".col", ".cols", ".conll",
    ".conll02", ".conll03", ".conll2002", ".conll2003", ".conllu", ".conllup", ".conllx", ".csv", ".dat", ".data", ".dev",
    ".iob", ".iob1", ".iob2", ".iobes", ".ner", ".tag", ".tagged", ".tags", ".test", ".testa", ".testb", ".text", ".tok",
    ".train", ".tsv", ".txt", ".utf8", ".valid",
})  # fmt: skip


def read_columns(path: Path, options: ReadingOptions, labelled: bool = True, layout: Layout | None = None) -> Iterator[Raw]:
    """One word a line, the word in the first column, its tag in the last; a blank line between sentences.

    - Tabs separate the columns of a line that has one, else blanks; a file may mix them. All lines have as many columns as the
      first. A .csv file is what its name says.
    - A first line of names (word, tag) says which column is which, and may name one of sentences.
    - `-DOCSTART-` and lines of a mark such as <s> end a sentence too.
    - A first column that counts the words (CoNLL-U) is left out; ranges (1-2) and empty nodes (1.1) are passed over. Of ten
      columns the last says NER=tag among others; of UNER's five the third is the tag, of GermEval's four the third the outer one.
    - A line that begins with # is a word where it has as many columns as the others and a tag (O, a prefixed or an upper-case
      name) in the last, else a comment.

    Raises:
        InputError: a line has other columns than the first, or which column is which cannot be told.
    """
    layout = layout or find_layout(path, options, labelled)
    raw, sentence, of_range = Raw(0, [], [], []), [""] * len(layout.sentence), ("", "O")
    for number, columns, replaced in read_rows(path, options):
        if not columns or is_mark(columns) or columns == layout.header:
            if raw.words:
                yield raw
                raw = Raw(0, [], [], [])
            raw.notes["header lines left out"] += columns == layout.header
            continue
        if is_comment(columns, layout.width, path, -1 if layout.tag is None else layout.tag, layout.tags):
            raw.notes["comments left out"] += 1
            continue
        _check_row(columns, layout, path, number, labelled)
        if layout.indexed and RANGE.fullmatch(columns[0].strip()):
            raw.notes["ranges and empty nodes passed over"] += 1
            of_range = (columns[0], _tag_of(columns, layout)) if "-" in columns[0] else of_range
            continue
        before, sentence = sentence, _sentence_of(columns, layout, sentence)
        if raw.words and sentence != before:
            yield raw
            raw = Raw(0, [], [], [])
        for note in layout.notes:
            raw.notes[note] += 1
        if replaced:
            raw.notes["broken characters replaced"] += replaced
        raw.place = raw.place or number
        _add_word(raw, columns, layout, number)
        if of_range[1] not in _NO_ENTITY and raw.tags and raw.tags[-1] in _NO_ENTITY:
            raise InputError(
                f"{path}, line {number}: the range {of_range[0]} has the tag {of_range[1]!r}, its first word none. "
                "Give the words their tags."
            )
        of_range = ("", "O")
        if len(raw.words) > LONGEST_SENTENCE:
            raise InputError(
                f"{path}, line {raw.place}: a sentence of more than {LONGEST_SENTENCE} words. A blank line ends a sentence."
            )
    yield raw


def _sentence_of(columns: list[str], layout: Layout, before: list[str]) -> list[str]:
    """The names of a line's document and sentence, which stand on their first line or on all."""
    names = (columns[column].strip() for column in layout.sentence)
    return [name if name and name.lower() not in _NO_NAME else old for name, old in zip(names, before, strict=True)]


def _tag_of(columns: list[str], layout: Layout) -> str:
    if layout.tag is None:
        return "O"
    tag = visible(columns[layout.tag])
    if layout.key is None:
        return tag
    named = re.search(rf"(?:^|\|){re.escape(layout.key)}=([^|]+)", tag)
    return named[1] if named else "O" if tag in ("_", "") or "=" in tag else tag


def _add_word(raw: Raw, columns: list[str], layout: Layout, number: int) -> None:
    word = columns[layout.token].strip()
    if " " in word:
        raw.notes["words with a blank in them"] += 1
    raw.words.append(LANGUAGE.sub("", word, count=1) if layout.languages else word)
    if layout.tag is None:
        raw.tags = None
        return
    raw.tags = raw.tags or []
    raw.tags.append(_tag_of(columns, layout))
    raw.lines.append(number)


def _check_row(columns: list[str], layout: Layout, path: Path, number: int, labelled: bool) -> None:
    """A line has a word and a tag, and as many columns as the others."""
    line = " ".join(columns).strip()[:60]
    if len(columns) == 1 and any(character.isspace() for character in line.replace(" ", "")):
        raise InputError(
            f"{path}, line {number}: the white space in {line!r} is none that separates columns, such as a no-break space. "
            "Write tabs."
        )
    if len(columns) < 2 or (layout.tag is not None and len(columns) == layout.width and not columns[layout.tag].strip()):
        raise InputError(
            f"{path}, line {number}: {line!r} has no tag. Each line is a word, white space and its tag. Plain text goes into a "
            ".txt file."
        )
    if len(columns) != layout.width:
        raise InputError(
            f"{path}, line {number}: {line!r} has {len(columns)} columns, the first word of the file (line {layout.line}) "
            f"{layout.width}. Is there a space in a word? Separate the columns by tabs. Is this plain text? It has no labels to "
            "learn from."
        )


def looks_like_columns(path: Path, options: ReadingOptions) -> bool:
    """Whether nearly every line of a file ends in a tag, or begins with one.

    Raises:
        InputError: so many do that it is neither text nor columns.
    """
    lines = read_lines(path, options.encoding, options.encoding_errors)
    sample = [line.split() for line in islice((line for _, line, _ in lines if line.strip()), SAMPLE)]
    rows = [columns for columns in sample if not columns[0].startswith("#") and not is_mark(columns)]
    rows = rows[1:] if rows and names_of(rows[0], options) else rows
    tagged, counted = sum(len(columns) > 1 and _ends_in_tag(columns) for columns in rows), len(rows)
    parts_of_speech = tagged < 0.9 * counted and _end_in_parts_of_speech(rows)
    if counted and (0.5 < tagged / counted < 0.9 or parts_of_speech):
        raise InputError(
            f"{path}: {counted if parts_of_speech else tagged} of its first {counted} lines end in a tag such as O or B-PER, or "
            "a part of speech. Name it .conll if it has columns, else take the tags away."
        )
    begin = [columns[0] for columns in rows if len(columns) > 1 and (columns[0] == "O" or _TAG.fullmatch(columns[0]))]
    tags_first = len(begin) >= 0.9 * counted > _FEW_LINES and any(tag != "O" for tag in begin)
    return counted > 0 and (tagged >= 0.9 * counted or tags_first)


def _ends_in_tag(columns: list[str]) -> bool:
    last = columns[-1]
    if len(columns) < 5 and (last in ("o", "-", "_") or last.upper() in COMMON_TYPES):
        return True
    return last == "O" or last in COMMON_TYPES or bool(_TAG.fullmatch(last))


def _end_in_parts_of_speech(rows: list[list[str]]) -> bool:
    """Whether all lines have as many columns, the last one in capitals or a sign, as no text has them."""
    last = [columns[-1] for columns in rows]
    return (
        len(rows) > _FEW_LINES
        and len({len(columns) for columns in rows}) == 1 < len(rows[0])
        and all(map(_PART_OF_SPEECH.fullmatch, last))
        and 2 * sum(map(str.isalpha, last)) > len(last)
        and any(columns[0].islower() for columns in rows)
    )
