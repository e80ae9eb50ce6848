"""What a teacher is: it reads sentences and says how likely their spans are names. Imports no torch."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

LEAST = 0.01  # a span that is less likely a name is left out


class SoftSpan(NamedTuple):
    """How likely a span is a name of a type; what all types leave of 1 is "O"."""

    begin: int  # first word
    length: int  # in words
    type: str
    score: float


class Teacher(Protocol):
    """A kind of teacher; each has a file in this room.

    Attributes:
        kind: what it is called in reports.
        types: the names that it uses for types; --label_map makes ours of them.
    """

    kind: str

    @property
    def types(self) -> Sequence[str]: ...

    def __call__(self, sentences: Sequence[Sequence[str]], language: str) -> list[list[SoftSpan]]:
        """The spans of each sentence that are names with a score of at least `LEAST`; of a span the scores of all types make 1
        at most."""
        ...

    def facts(self) -> dict[str, Any]:
        """What it cost and what went wrong, for the report."""
        ...


@dataclass(frozen=True)
class Example:
    """A labelled sentence that a chat model is shown: its words, and (first word, length, type) of its names."""

    words: Sequence[str]
    entities: Sequence[tuple[int, int, str]]


@dataclass(frozen=True)
class TeacherSettings:
    """What teachers are told.

    Args:
        asked: of teachers that can be asked for any type: the name that they are asked for -> ours. A name that is ours as well
            is asked for as the language calls it, see `prompts.yaml`.
        examples: labelled sentences of the source, for chat models.
        device: where models lie.
        batch_size: sentences at a time.
        requests: to an endpoint, at the same time.
        price: of a million tokens that an endpoint reads, and that it writes; None where it is not known.
        cache: the file of an endpoint's answers.
        backoff: seconds before a request is tried again; twice as many each time.
        quiet: whether no bar of progress is shown.
    """

    asked: Mapping[str, str]
    examples: Sequence[Example] = ()
    device: Any = "cpu"
    batch_size: int = 32
    requests: int = 8
    price: tuple[float, float] | None = None
    cache: Path = Path("answers.sqlite")
    backoff: float = 1.0
    quiet: bool = True


def renamed(spans: Iterable[SoftSpan], mapping: Mapping[str, str], types: Iterable[str]) -> list[SoftSpan]:
    """Spans with our names of types: those of types that become one are added up, those that we do not have are dropped."""
    known, sums = set(types), dict[tuple[int, int, str], float]()
    for begin, length, name, score in spans:
        if (ours := mapping.get(name, name)) in known:
            sums[begin, length, ours] = sums.get((begin, length, ours), 0.0) + score
    return [SoftSpan(*place, min(score, 1.0)) for place, score in sorted(sums.items())]


def as_record(words: Sequence[str], spans: Iterable[SoftSpan]) -> dict:
    """A sentence in the form that `--pseudo_labels` reads."""
    entities = [
        {"start": begin, "end": begin + length, "entity_group": name, "score": math.floor(1e6 * score) / 1e6}
        for begin, length, name, score in spans
    ]
    return {"tokens": list(words), "entities": entities}


def likeliest(spans: Iterable[SoftSpan]) -> list[SoftSpan]:
    """Of each span its likeliest type, where that is likelier than "O"."""
    cells: dict[tuple[int, int], list[SoftSpan]] = {}
    for span in spans:
        cells.setdefault((span.begin, span.length), []).append(span)
    best = {cell: max(spans, key=lambda span: span.score) for cell, spans in cells.items()}
    return [best[cell] for cell, spans in cells.items() if best[cell].score > 1 - sum(span.score for span in spans)]


def without_overlap(spans: Iterable[SoftSpan]) -> list[SoftSpan]:
    """The spans with the highest scores, of which no two have a word in common."""
    taken: set[int] = set()
    chosen = []
    for span in sorted(spans, key=lambda span: (-span.score, span.begin, span.length)):
        words = range(span.begin, span.begin + span.length)
        if taken.isdisjoint(words):
            taken.update(words)
            chosen.append(span)
    return chosen


def to_words(start: int, end: int, offsets: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The (first word, length) of the characters from `start` to `end`; None where a border is within a word.

    Args:
        offsets: each word's characters (start, end).
    """
    first = bisect_left(offsets, start, key=lambda word: word[0])
    last = bisect_left(offsets, end, key=lambda word: word[1])
    whole = last < len(offsets) and first <= last and offsets[first][0] == start and offsets[last][1] == end
    return (first, last - first + 1) if whole else None
