"""Label schemes: the tags of words (IOB1, IOB2, BIOES, BILOU, IO) <-> entities."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from glode.errors import InputError

PREFIXED = re.compile(r"^([BIESLUM])-(.+)$")


def detect_scheme(tags: Iterable[str], where: str = "tags") -> str:
    """Name the label scheme of a set of tags: "IO" (bare types), "IOB" (1 or 2; decoding is the same), "BIOES" or "BILOU".

    Args:
        where: what a message begins with.
    Raises:
        InputError: the tags mix schemes or have a prefix that no scheme has.
    """
    names = sorted(set(tags) - {"O"})
    prefixes = {match[1] for match in map(PREFIXED.match, names) if match}
    bare = [name for name in names if not PREFIXED.match(name)]
    strange = [name for name in bare if re.match(r"^[A-Z]-", name) or name in {"B", "I", "E", "S", "L", "U", "M", "_", "-"}]
    if strange or (bare and prefixes):
        example = (strange or bare)[0]
        raise InputError(
            f"{where}: tag {example!r} fits no label scheme together with {(sorted(set(names) - {example}) or ['O'])[:4]}. "
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
    raise InputError(
        f"{where}: the prefixes {sorted(prefixes)} fit no label scheme together. Known are IOB1, IOB2, BIOES and BILOU; use one "
        "of them in the whole file."
    )


def decode_tags(tags: Sequence[str], scheme: str) -> list[tuple[int, int, str]]:
    """Entities (begin, length, type) of a tag sequence. An inside tag without a beginning starts an entity (IOB1, and the
    usual reading of broken sequences)."""
    entities: list[tuple[int, int, str]] = []
    open_type: str | None = None
    begin = 0
    for position, tag in enumerate([*tags, "O"]):
        prefix = "I" if scheme == "IO" else tag[0]
        name = None if tag == "O" else tag if scheme == "IO" else tag[2:]
        starts = name is not None and (prefix in "BSU" or name != open_type)
        if open_type is not None and (name is None or starts):
            entities.append((begin, position - begin, open_type))
            open_type = None
        if starts:
            begin, open_type = position, name
        if name is not None and prefix in "ESLU" and scheme != "IO":
            entities.append((begin, position + 1 - begin, name))
            open_type = None
    return entities


def encode_tags(number: int, entities: Iterable[tuple[int, int, str]], scheme: str = "IOB2") -> list[str]:
    """The tags of `number` words, in "IOB1", "IOB2", "BIOES" or "IO"."""
    tags, after = ["O"] * number, dict[int, str]()
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


def broken_tags(tags: Sequence[str], scheme: str) -> int:
    """How many tags stand where the scheme (IOB1, IOB2, BIOES, BILOU, IO) has others; `decode_tags` reads them all the same."""
    count = 0
    if scheme == "IO" or set(tags) == {"O"}:
        return count
    for before, tag in pairwise(["O", *tags, "O"]):
        same, prefix = before[2:] == tag[2:] != "", tag[0]
        if scheme == "IOB1":
            count += prefix == "B" and not same
        elif scheme == "IOB2":
            count += prefix == "I" and not same
        else:
            is_open, goes_on = before[0] in "BIM", prefix in "IMEL"
            count += is_open != goes_on or (is_open and not same)
    return count
