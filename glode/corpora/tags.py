"""The tags of a corpus, as people write them (B-PER, B_PER, PER-B, b-per, PER; O, o, -), -> those of a label scheme."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from glode.corpora.schemes import broken_tags, decode_tags, detect_scheme
from glode.errors import InputError

MOST_TAGS = 1000  # more are no tags but words
MOST_TYPES = 100  # of bare types: more are lemmas, or features
FEW_WORDS = 100  # in so few, every word may be inside of an entity

COMMON_TYPES = frozenset({
    "PER", "PERS", "PERSON", "LOC", "LOCATION", "ORG", "ORGANIZATION", "ORGANISATION", "MISC", "GPE", "GEO", "FAC", "NORP",
    "GROUP", "CORPORATION", "PRODUCT", "EVENT", "LAW", "LANGUAGE", "WORK_OF_ART", "DATE", "TIME", "MONEY", "PERCENT", "QUANTITY",
    "ORDINAL", "CARDINAL", "TITLE", "DISEASE", "CHEMICAL", "GENE", "PROTEIN", "OTH",
})  # fmt: skip
CHUNK_TYPES = frozenset(["NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP", "NC", "VC", "PC"])

_LIKE_O = ("o", "-", "_", "0")
_LETTERS = "BIESLUM"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"
_SEPARATORS = ("-", "_", ":", " -", "- ", " ", ".", "/", "|", "~", *_DASHES)
_ALLOWED = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIESM", "BILOU": "BILU"}


def _styles() -> list[re.Pattern[str]]:
    """How a prefix and a type are written together, the usual way first."""
    usual = [rf"(?P<prefix>[{_LETTERS}])-(?P<type>[^\s-].*)"]
    for separator in map(re.escape, _SEPARATORS):
        for letters in (_LETTERS, _LETTERS.lower()):
            usual.append(rf"(?P<prefix>[{letters}])(?:{separator})+(?P<type>[^\W_].*)")
    for separator in map(re.escape, _SEPARATORS):
        for letters in (_LETTERS, _LETTERS.lower()):
            usual.append(rf"(?P<type>\w.*?)(?:{separator})+(?P<prefix>[{letters}])")
    return [re.compile(pattern, re.DOTALL) for pattern in usual]


_STYLES = _styles()
_USUAL = _STYLES[0]
_JOINED = re.compile(r"(?P<prefix>[BI]|[bi])(?P<type>[^\W\d_]\w*)")  # BPER
_SPELT = re.compile(r"(inside|intermediate|cont)[-_:/. ].+|.+[-_:/. ](inside|intermediate|cont)", re.IGNORECASE)
_OF_SEVERAL_WORDS = re.compile(rf"(?:O|[{_LETTERS}]-\S+)(?:[\s,;]+(?:O|[{_LETTERS}]-\S+))+|[\[{{].*", re.DOTALL)
_NUMBERED = re.compile(r".+?[-_#]\d+")
_NUMBER = re.compile(r"-?\d+([.,]\d+)?")


@dataclass
class TagCensus:
    """The tags of a corpus: where each was seen first, and which follow each other. None is a word that is not labelled."""

    first: dict[str, int] = field(default_factory=dict)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, tags: Sequence[str | None], lines: Sequence[int], counted: bool = True) -> None:
        """Count a sentence's tags, or, without `counted`, only know them."""
        for tag, line in zip(tags, lines, strict=True):
            if tag is not None and tag not in self.first:
                self.first[tag] = line
        if counted:
            self.pairs.update(pairwise(["O", *("O" if tag is None else tag for tag in tags), "O"]))


@dataclass(frozen=True)
class TagReading:
    """What the tags of a corpus mean."""

    scheme: str
    canonical: dict[str, str]

    def decode(self, tags: Sequence[str]) -> tuple[list[tuple[int, int, str]], int]:
        """The entities of a sentence, and how many of its tags stand where the scheme has others."""
        canonical = [self.canonical[tag] for tag in tags]
        return decode_tags(canonical, self.scheme), broken_tags(canonical, self.scheme)


class NoTags(InputError):
    """What was read as tags is something else: words, parts of speech, numbers."""


def read_tags(census: TagCensus, source: str, unit: str, scheme: str | None = None, settled: bool = False) -> TagReading:
    """What the tags of a corpus mean.

    Args:
        source, unit: what messages begin with, such as a path and "line".
        scheme: the one that the user names; None where the tags show it.
        settled: the user has named the column of the tags.
    Raises:
        InputError: they fit no scheme, or what they mean is not certain; the message names the first place.
        NoTags: they are no tags of entities at all.
    """
    if len(census.first) > MOST_TAGS:
        where = f"{source}, {unit} {list(census.first.values())[MOST_TAGS]}"
        raise NoTags(f"{where}: more than {MOST_TAGS} different tags. Is this the column of the tags? Name it by --tag_column.")
    tags, start = list(census.first), f"{source}, {unit} {min(census.first.values(), default=1)}"
    try:
        canonical, found = interpret(tags, start, scheme)
    except NoTags:
        raise
    except InputError:
        number = bisect_left(range(1, len(tags)), True, key=lambda number: not _fits(tags[:number], scheme)) + 1
        canonical, found = interpret(
            tags[:number], f"{source}, {unit} {census.first[tags[number - 1]]}", scheme
        )  # raises it anew
    words = sum(census.pairs.values())
    if not scheme:
        _check_outside(census, canonical, found, words, start, settled)
    if found == "IOB":
        contradictions = {
            name: sum(number * _broken_pair(canonical, pair, name) for pair, number in census.pairs.items())
            for name in ("IOB1", "IOB2")
        }
        found = "IOB1" if contradictions["IOB1"] < contradictions["IOB2"] else "IOB2"
    return TagReading(scheme or found, canonical)


def interpret(tags: Iterable[str], where: str = "tags", scheme: str | None = None) -> tuple[dict[str, str], str]:
    """Each tag as B-PER, PER or O, and the scheme: "IOB", "BIOES", "BILOU" or "IO"."""
    names = set(tags)
    if numbers := sorted(tag for tag in names - {"0"} if _NUMBER.fullmatch(tag)):
        raise NoTags(f"{where}: tag {numbers[0]!r} is a number without a name. Name the column of the tags by --tag_column.")
    outside = _outside(names, where, scheme)
    typed = sorted(names - {outside})
    canonical = {outside: "O"}
    if rows := [tag for tag in typed if _OF_SEVERAL_WORDS.fullmatch(tag)]:
        raise InputError(
            f"{where}: {rows[0][:40]!r} is no tag of one word. Give a word and its tag a line; sentences with lists of tags, or "
            "with offsets, go into .jsonl."
        )
    if typed and set(typed) <= set(_LETTERS):
        raise InputError(f"{where}: the tags {', '.join(typed)} name no type. Write a type behind them, as in B-DISEASE.")
    if several := [tag for tag in typed if re.search(rf"[|,;+#&/] *[{_LETTERS}]-", tag)]:
        raise InputError(f"{where}: tag {several[0]!r} holds several tags. Keep one layer of entities.")
    if scheme == "IO":
        inside = all(tag.startswith("I-") for tag in typed)
        return canonical | {tag: tag[2:] if inside else tag for tag in typed}, "IO"
    parsed = _parse(typed, scheme is not None)
    if parsed is None and not scheme:
        _check_bare(typed, outside, where)
        detect_scheme(typed, where)
        lower = outside == "o" and not any(tag != tag.lower() for tag in typed)
        return canonical | {tag: tag.upper() if lower else tag for tag in typed}, "IO"
    parsed = parsed or {}
    if scheme:
        if misfits := [tag for tag in typed if tag not in parsed or parsed[tag][0] not in _ALLOWED[scheme]]:
            raise InputError(f"{where}: tag {misfits[0]!r} is not of --scheme {scheme}. Correct one of them.")
        return canonical | parsed, scheme
    if typed and not {tag[0] for tag in parsed.values()} & set("BISU"):
        raise InputError(f"{where}: tags such as {typed[0]!r} end an entity, none begins one. As types: --scheme IO.")
    return canonical | parsed, detect_scheme(["O", *parsed.values()], where) if typed else "IO"


def _outside(names: set[str], where: str, scheme: str | None) -> str:
    """The tag of words that are in no entity."""
    like = [tag for tag in _LIKE_O if tag in names]
    if "O" in names:
        if like:
            raise InputError(f"{where}: tag {like[0]!r} beside 'O': does it stand for O too, or for no label? Correct it.")
        return "O"
    if len(like) > 1:
        raise InputError(f"{where}: the tags {like[0]!r} and {like[1]!r} may both stand for O. Write O for both.")
    typed = names - set(like)
    if not like:
        return "O"
    plain = typed and (_parse(sorted(typed), False) or all(tag.upper() in COMMON_TYPES for tag in typed))
    if not typed:
        raise NoTags(f"{where}: every tag is {like[0]!r}, for O or for no label. Write O if there is no entity.")
    if not plain and not scheme:
        raise NoTags(
            f"{where}: does {like[0]!r} stand for O beside {sorted(typed)[:3]}? Name the column of the tags by --tag_column, "
            "or give --scheme."
        )
    return like[0]


def _parse(typed: list[str], settled: bool) -> dict[str, str] | None:
    """Tags with a prefix, all written alike, as B-PER; None where they are not. `settled`: they are known to have one."""
    if typed and all(map(_USUAL.fullmatch, typed)):
        return {tag: tag for tag in typed}
    for style in (*_STYLES[1:], _JOINED):
        matches = {tag: match for tag in typed if (match := style.fullmatch(tag))}
        if not typed or len(matches) < len(typed):
            continue
        prefixes: dict[str, set[str]] = {}
        for match in matches.values():
            prefixes.setdefault(match["type"], set()).add(match["prefix"].upper())
        is_prefix = style.pattern.startswith("(?P<prefix>")
        paired = any(len(letters) > 1 for letters in prefixes.values())
        plain = set().union(*prefixes.values()) == {"B"} and is_prefix and style is not _JOINED
        known = all(name.upper() in COMMON_TYPES for name in prefixes)
        if (settled and style is not _JOINED) or paired or plain or known:
            lower = all(tag == tag.lower() for tag in typed)
            return {
                tag: f"{match['prefix'].upper()}-{match['type'].upper() if lower else match['type']}"
                for tag, match in matches.items()
            }
    return None


def _check_bare(typed: list[str], outside: str, where: str) -> None:
    """Names without a prefix that are no types, or look as if they had one."""
    for style in _STYLES[1:]:
        seen: dict[str, str] = {}
        for tag in typed:
            if (match := style.fullmatch(tag)) and seen.setdefault(match["type"], tag) != tag:
                rest = [other for other in typed if not style.fullmatch(other)]
                raise InputError(
                    f"{where}: the tags {seen[match['type']]!r} and {tag!r} look like one type with two prefixes, {rest[0]!r} "
                    "has none. Write all tags alike, and O where there is no entity, or give --scheme IO if these are the types."
                )
    if spelt := [tag for tag in typed if _SPELT.fullmatch(tag)]:
        raise InputError(f"{where}: tag {spelt[0]!r} spells its prefix out. Write tags like B-PER and I-PER.")
    for tag in typed:
        known = [match for style in _STYLES[1:] if (match := style.fullmatch(tag)) and match["type"].upper() in COMMON_TYPES]
        if known and not _USUAL.fullmatch(tag) and (others := [other for other in typed if other != tag]):
            raise InputError(f"{where}: tag {tag!r} has a prefix, written otherwise than in {others[0]!r}. Write all like B-PER.")
    if any(re.fullmatch(r"\(.+\*?|\*\)?", tag) for tag in typed):
        raise InputError(f"{where}: brackets such as {typed[0]!r} are no label scheme that is read. Convert them to IOB2.")
    if features := [tag for tag in typed if "=" in tag]:
        raise NoTags(f"{where}: {features[0]!r} is no tag but a feature. Name the column of the tags by --tag_column.")


def _check_outside(census: TagCensus, canonical: dict, found: str, words: int, where: str, settled: bool) -> None:
    """Where every word has a type, or there are too many types, the tags may be something else."""
    outside = any(canonical[tag] == "O" for tag in census.first)
    types = [tag for tag in census.first if canonical[tag] != "O"]
    if types and not outside and (found == "IO" or words > FEW_WORDS):
        raise NoTags(
            f"{where}: every word has a type ({', '.join(types[:3])}), none is O. Is this the column of the tags? Name it by "
            "--tag_column, or the scheme by --scheme if it is."
        )
    named = {canonical[tag] if found == "IO" else canonical[tag][2:] for tag in types}
    if named and named <= CHUNK_TYPES and not settled:
        raise NoTags(
            f"{where}: the tags are of chunks ({', '.join(sorted(named)[:3])}), not of entities. Name the column of the tags by "
            "--tag_column; if it is this one, too."
        )
    numbered = [name for name in sorted(named) if _NUMBERED.fullmatch(name)]
    stems = {name.rstrip("0123456789") for name in numbered}
    if len(numbered) > 1 and (len(stems) < len(numbered) or len(numbered) == len(named)):
        raise InputError(
            f"{where}: the types {numbered[0]!r} and {numbered[1]!r} end in numbers. Do these count the entities? Take them "
            "away; if they belong to the types, give --scheme."
        )
    if found == "IO" and len(types) > MOST_TYPES and not settled:
        raise NoTags(f"{where}: {len(types)} types ({', '.join(types[:3])}) are many. If this is right, give --scheme IO.")


def _fits(tags: list[str], scheme: str | None) -> bool:
    try:
        interpret(tags, scheme=scheme)
    except InputError:
        return False
    return True


def _broken_pair(canonical: dict[str, str], pair: tuple[str, str], scheme: str) -> int:
    """1 where the second tag of a pair contradicts IOB1 or IOB2."""
    before, tag = (canonical.get(name, "O") for name in pair)
    same = before[2:] == tag[2:] != ""
    return int(tag[0] == ("B" if scheme == "IOB1" else "I") and not same)


def check_types(types: dict[str, int], source: str, unit: str) -> None:
    """The types of annotated spans, with the place of each, are no tags of words, and not as many as words.

    Raises:
        InputError: two of them look like one type with two prefixes, or there are too many.
    """
    if len(types) > MOST_TAGS:
        raise InputError(f"{source}: more than {MOST_TAGS} types of entities. Are the types what the spans have as their label?")
    stems: dict[str, str] = {}
    for name, place in types.items():
        if match := _USUAL.fullmatch(name):
            other = stems.setdefault(match["type"], name)
            if other != name or match["type"].upper() in COMMON_TYPES:
                raise InputError(
                    f"{source}, {unit} {place}: the spans' types {other!r} and {name!r} are tags of words. Give the type alone, "
                    "for whole entities."
                )
