"""Which column of a file holds the words, and which the tags."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from glode.corpora.options import ReadingOptions
from glode.corpora.survey import TAG_NAMES, TEXT_NAMES, TOKEN_NAMES, Survey, take_survey
from glode.corpora.tags import CHUNK_TYPES, COMMON_TYPES, MOST_TAGS, NoTags, interpret
from glode.errors import InputError

_SENTENCE_NAMES = ("sentence_#", "sentence#", "sentence", "sentence_id", "sentence_idx", "sent_id", "sent", "sentence_number")
_DOCUMENT_NAMES = ("doc", "document", "doc_id", "docid", "document_id", "doc_idx", "file", "filename")
_START_NAMES, _END_NAMES = ("start", "begin", "begin offset", "start offset"), ("end", "end offset", "stop")
_MISC_KEYS = ("ner", "ne", "name", "tag", "entity", "namedentity", "named_entity", "nertag", "ner_tag", "iob", "bio")


@dataclass(frozen=True)
class Layout:
    """What the columns of a file are: the first line that has them and how many, the positions of words, tags and the numbers or
    names of sentence and document, whether the first one counts the words, their names, the language codes before all words, the
    key within the tags' column (CoNLL-U), the tags, and what is said about all this."""

    line: int = 0
    width: int = 0
    token: int = 0
    tag: int | None = None
    sentence: tuple[int, ...] = ()
    indexed: bool = False
    header: list[str] | None = None
    languages: tuple[str, ...] = ()
    key: str | None = None
    tags: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def find_layout(path: Path, options: ReadingOptions, labelled: bool) -> Layout:
    """Which column is which.

    Raises:
        InputError: it cannot be told; the message says what was seen and names the option that settles it.
    """
    survey = take_survey(path, options)
    if not survey.width:
        return Layout()
    _check_offsets(survey, options, path)
    token = _find_token(survey, options, path)
    tag, key, notes = _find_tag(survey, options, path, token, labelled) if survey.width > 1 else (0, None, [])
    if tag == token and survey.width > 1:
        raise InputError(f"{path}: column {tag + 1} cannot hold both words and tags. Give --token_column and --tag_column.")
    if tag is not None:
        _check_header(survey, tag, path)
    if not options.token_column:
        _check_words(survey, token, None if options.tag_column else tag, path)
    languages = _languages(survey, token, path, options.token_column is not None)
    notes += [f"words without the {', '.join(languages)} before them"] if languages else []
    places = [i for i, name in enumerate(survey.names) if name in (*_SENTENCE_NAMES, *_DOCUMENT_NAMES)]
    indexed = survey.indexed and token != 0 and 0 not in places
    sentence = tuple(i for i in places if i not in (token, tag))
    assert survey.first
    line, first = survey.first
    header = first if survey.header else None
    tags = frozenset(survey.values[tag] if tag is not None and len(survey.values[tag]) <= MOST_TAGS else ())
    return Layout(line, survey.width, token, tag, sentence, indexed, header, languages, key, tags, tuple(notes))


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
    if known := [name for name in TOKEN_NAMES if name in survey.names]:
        return survey.names.index(known[0])
    if survey.indexed:
        return 1
    if survey.digits[0] and survey.words > 1:
        _check_texts(survey, range(1, survey.width), path)
        raise InputError(
            f"{path}: the first column holds numbers alone ({', '.join(list(survey.values[0])[:4])}). Name the words' column by "
            "--token_column."
        )
    return 0


def _check_offsets(survey: Survey, options: ReadingOptions, path: Path) -> None:
    """A table with a row an entity has no texts, as those of Comprehend and of `glode tag`."""
    assert survey.first
    number, columns = survey.first
    names = {re.sub(r"[\s_]+", " ", name.strip().lower()) for name in columns}
    offsets = names & set(_START_NAMES) and names & set(_END_NAMES)
    if offsets and not names & (set(TOKEN_NAMES) - {"text"}) and not options.token_column:
        raise InputError(
            f"{path}, line {number}: a table of entities and their places ({', '.join(columns)[:60]}), without the texts around "
            "them. Give records of a text and its entities, .jsonl."
        )


def _check_words(survey: Survey, token: int, tag: int | None, path: Path) -> None:
    """What was taken for the words' column may hold texts, names of documents, or words with a position."""
    assert survey.first
    values = survey.values[token]
    if survey.width > 2 and 2 * values[""] >= survey.words > 0:
        raise InputError(
            f"{path}: the words' column is empty in {values['']} of {survey.words} lines. Is it the sentence's name? "
            "Name the words' column by --token_column."
        )
    named = survey.first[1][token].strip().lower() in TEXT_NAMES
    _check_texts(survey, [tag] if tag is not None else [], path)
    _check_texts(survey, [token], path, 0.5 if named else None)
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


def _check_texts(survey: Survey, columns: Iterable[int], path: Path, share: float | None = 0.5) -> None:
    """Whether one of the columns holds texts: two blanks a line, or more than this share of lines with one that is in no tag."""
    for column in columns:
        blanks, parted = survey.blanks[column], survey.parted[column]
        if survey.words and (blanks >= 2 * survey.words or (share is not None and parted > share * survey.words)):
            raise InputError(
                f"{path}: a column holds texts ({max(survey.values[column], key=len)[:40]!r}). Give a word a line; texts go into "
                "a .txt file or, with offsets, into .jsonl. If they are words, name their column by --token_column."
            )


def _languages(survey: Survey, token: int, path: Path, settled: bool) -> tuple[str, ...]:
    """The language codes that precede all words.

    Raises:
        InputError: they precede many, and the user has not named the words' column.
    """
    found, marked = survey.languages[token], survey.languages[token].total()
    if survey.words > marked > max(1, survey.words / 10) and not settled:
        raise InputError(
            f"{path}: {marked} of {survey.words} words have a language before them ({next(iter(found))}). Take it away, or write "
            "it before all; if these are words, name their column by --token_column."
        )
    return tuple(sorted(found)) if marked == survey.words else ()


def _find_tag(
    survey: Survey, options: ReadingOptions, path: Path, token: int, labelled: bool
) -> tuple[int | None, str | None, list[str]]:
    """The tags' column, the key within it, and what is said about it."""
    last = survey.width - 1
    if not (options.tag_column or options.token_column or survey.names) and _is_tags_first(survey):
        shown = ", ".join(list(survey.values[0])[:3])
        raise InputError(
            f"{path}: the first column holds the tags ({shown}). Name both columns, such as --token_column 2 --tag_column 1."
        )
    if (value := options.tag_column) is not None:
        if survey.width == 10 and value in survey.misc:
            return last, value, []
        return _position(survey, "tag_column", value, path), None, []
    for group in TAG_NAMES:
        if len(named := [name for name in group if name in survey.names]) > 1:
            raise InputError(f"{path}: the columns {' and '.join(named)} may both be the tags. Name one by --tag_column.")
        if named:
            return survey.names.index(named[0]), None, []
    if survey.width == 10 and survey.indexed:
        return _find_key(survey, path, labelled)
    while last > token + 1 and set(survey.values[last]) == {""}:  # tabs at the line ends
        last -= 1
    layers = [column for column in range(token + 1, last) if _holds_entities(survey.values[column])]
    is_uner = survey.indexed and survey.width == 5 and set(survey.values[2]) == {"O"}
    if is_uner and (not layers or (layers == [3] and "-" in survey.values[3])):
        return 2, None, []
    if not layers:
        return last, None, []
    if len(layers) == 1 and set(survey.values[last]) <= {"", "-", "_"}:
        return layers[0], None, []
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


def _is_tags_first(survey: Survey) -> bool:
    """Whether the first column holds tags of entities, and the last one none."""
    first = survey.values[0].keys()
    plain = "O" in first and len(first) > 1 and all(tag == "O" or tag in COMMON_TYPES for tag in first)
    return (plain or _holds_entities(first)) and not _holds_tags(survey.values[-1])


def _check_header(survey: Survey, tag: int, path: Path) -> None:
    """A first line of unknown names is no word with a tag."""
    assert survey.first
    number, columns = survey.first
    first, values = columns[tag].strip(), survey.values[tag]
    others = [value for value in values if value != first and len(value) > 1]
    is_known = first in COMMON_TYPES or not COMMON_TYPES.issuperset(others)
    is_tag = first in ("O", "-", "_", "0", "o") or re.match("[BIESLUM][-_:]", first)
    is_type = first.isupper() and is_known
    is_alone = number != survey.header and values[first] == 1
    bare = bool(others) and "O" in values and all(value.isupper() and not re.match("[BIESLUM]-", value) for value in others)
    prefixed = first.upper() not in COMMON_TYPES and _holds_entities(others) and not _holds_tags([first, *others])
    if is_alone and not is_tag and ((bare and not is_type) or prefixed):
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
