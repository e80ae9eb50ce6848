"""What a sentence of a corpus is: as a file has it, and as a row of a data set."""

from collections import Counter
from dataclasses import dataclass, field

from datasets import Features, Value
from datasets import Sequence as SequenceFeature


@dataclass
class Raw:
    """A sentence as a file has it: tags with the line of each, or entities in words, or no labels at all (both None). A tag of
    None says that its word is not labelled. One without words carries notes only."""

    place: int
    words: list[str]
    tags: list[str | None] | None = None
    lines: list[int] = field(default_factory=list)
    entities: list[tuple[int, int, str]] | None = None
    notes: Counter[str] = field(default_factory=Counter)


SENTENCE = Features(
    {
        "words": SequenceFeature(Value("string")),
        "begins": SequenceFeature(Value("int32")),
        "lengths": SequenceFeature(Value("int32")),
        "types": SequenceFeature(Value("string")),
    }
)


CORPUS = Features({**SENTENCE, "format": Value("string"), "notes": SequenceFeature(Value("string"))})
