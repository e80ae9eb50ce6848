"""Lines of a text in which entities are marked: named, not read as words."""

import re
from itertools import islice
from pathlib import Path

from glode.corpora.files import read_lines
from glode.corpora.options import ReadingOptions
from glode.corpora.tags import COMMON_TYPES
from glode.errors import InputError

_SAMPLE = 1000  # lines that show whether there are marks
_TAGS = re.compile(
    r"<(\w+)(?: [^<>]*)?>[^<>]*</\1>|<[^<>]+:[A-Z]+>|\[[^\[\]]+\](?:\([A-Za-z]+\)|[A-Z]{2,})"
)  # <PER>x</PER>, <x:PER>, [x](PER), [x]PER: also in texts of the web, and marks only where most lines have them
_CERTAIN = re.compile(
    r".*<START(?::\S+)?> .* <END>|.*<(?:ENAMEX|NUMEX|TIMEX)\b"  # OpenNLP, MUC
    r"|\(S .*/[A-Z.,:]+\)+$|\([A-Z_]{2,}(?: \S+/[A-Z]{2,5}\$?)+\)+$"  # trees of NLTK
)
_ATTACHED = re.compile(rf".+[/|,;](O|[BIESLUM]-[A-Za-z].*|{'|'.join(sorted(COMMON_TYPES))})")  # Lena/B-PER lebt/O
_PART_OF_SPEECH = re.compile(r".+[/|_](?:[A-Z]{2,5}\$?|[.,:])")  # Lena/NNP lebt/VBZ ./.
_FEW_WORDS = 3


def check_marks(path: Path, options: ReadingOptions) -> None:
    """Whether a text file has its entities, or its tags, within its lines.

    Raises:
        InputError: it has; the message shows the first line with a mark.
    """
    lines = read_lines(path, options.encoding, options.encoding_errors)
    sample = list(islice(((number, text) for number, line, _ in lines if (text := line.strip())), _SAMPLE))
    tagged = [line for line in sample if _TAGS.search(line[1])]
    certain = [line for line in sample if _CERTAIN.match(line[1])]
    for number, text in certain or (tagged if 2 * len(tagged) > len(sample) else ()):
        raise InputError(
            f"{path}, line {number}: text with marks of entities, as in {text[:40]!r}. As target text, take the marks away; for "
            "labels, write a word and its tag a line."
        )
    words = [(number, word) for number, text in sample for word in text.split()]
    for pattern in (_ATTACHED, _PART_OF_SPEECH):
        attached = [each for each in words if pattern.fullmatch(each[1])]
        if 2 * len(attached) > len(words) and (len(words) > _FEW_WORDS or pattern is _ATTACHED):
            number, word = attached[0]
            raise InputError(
                f"{path}, line {number}: words with their tags attached, as in {word!r}. Write a word and its tag a line; "
                "with commas between them, name it .csv."
            )
