"""Writes the demo corpus from the sentence frames and name lists in `frames/`: python glode/run/demo/make_demo.py

English: train.iob2 and dev.iob2. Other languages: unlabeled.txt (one sentence a line) and test.iob2. Frames and names of
the second part never occur in the first. Words are those of the splitter that inference uses. The output is the same at
every run.
"""

import random
import re
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from glode.corpora.schemes import encode_tags  # noqa: E402
from modeling_glode import split_words  # noqa: E402

SIZES = {"train": {"en": 900, "other": 500}, "test": {"en": 150, "other": 200}}
_SLOT = re.compile(r"\{(PER|LOC|ORG)\}")


def fill(frames: list[str], names: dict[str, list[str]], number: int, rng: random.Random) -> list[tuple[str, list]]:
    """`number` distinct sentences with their entities (start, end, type) in characters; names are used evenly."""
    decks: dict[str, list[str]] = {kind: [] for kind in names}

    def draw(kind: str, taken: set[str]) -> str:
        while True:
            if not decks[kind]:
                decks[kind] = rng.sample(names[kind], len(names[kind]))
            name = decks[kind].pop()
            if name not in taken:
                return name

    sentences: list[tuple[str, list]] = []
    seen: set[str] = set()
    while len(sentences) < number:
        for frame in rng.sample(frames, len(frames)):
            entities: list[tuple[int, int, str]] = []
            taken: set[str] = set()
            text, at = "", 0
            for slot in _SLOT.finditer(frame):
                name = draw(slot[1], taken)
                taken.add(name)
                text += frame[at : slot.start()]
                entities.append((len(text), len(text) + len(name), slot[1]))
                text, at = text + name, slot.end()
            text += frame[at:]
            if text not in seen and len(sentences) < number:
                seen.add(text)
                sentences.append((text, entities))
    return sentences


def to_columns(text: str, entities: list[tuple[int, int, str]]) -> str:
    """One word and its IOB2 tag a line."""
    spans = split_words(text)
    first = {start: i for i, (start, _) in enumerate(spans)}
    last = {end: i for i, (_, end) in enumerate(spans)}
    in_words = [(first[start], last[end] - first[start] + 1, kind) for start, end, kind in entities]
    tags = encode_tags(len(spans), in_words)
    return "".join(f"{text[a:b]}\t{tag}\n" for (a, b), tag in zip(spans, tags, strict=True))


def write(language: str) -> None:
    """Write one language's two files."""
    parts = yaml.safe_load((HERE / "frames" / f"{language}.yaml").read_text(encoding="utf-8"))
    directory = HERE / language
    directory.mkdir(exist_ok=True)
    for part, content in parts.items():
        size = SIZES[part]["en" if language == "en" else "other"]
        sentences = fill(
            content["frames"], {k: content[k] for k in ("PER", "LOC", "ORG")}, size, random.Random(f"{language} {part}")
        )
        labelled = "\n".join(to_columns(*sentence) for sentence in sentences)
        if language == "en":
            (directory / ("train.iob2" if part == "train" else "dev.iob2")).write_text(labelled, encoding="utf-8")
        elif part == "train":
            (directory / "unlabeled.txt").write_text("".join(f"{text}\n" for text, _ in sentences), encoding="utf-8")
        else:
            (directory / "test.iob2").write_text(labelled, encoding="utf-8")


if __name__ == "__main__":
    for path in sorted((HERE / "frames").glob("*.yaml")):
        write(path.stem)
