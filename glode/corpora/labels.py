"""What a corpus holds, and other names for its types."""

from collections import Counter

import pyarrow.compute as pc
from datasets import Dataset

from glode.errors import InputError


def summarize(corpus: Dataset) -> dict:
    """What a corpus holds: `format`, `sentences`, `words`, `entities` by type, `longest_sentence` and `longest_entity` in words,
    and `notes`: what was done to how many words, tags or records."""
    formats, types, notes = Counter[str](), Counter[str](), Counter[str]()
    words = sentence = entity = 0
    for table in corpus.with_format("arrow").iter(10_000):
        sizes = pc.list_value_length(table["words"])
        words, sentence = words + pc.sum(sizes).as_py(), max(sentence, pc.max(sizes).as_py())
        entity = max(entity, pc.max(pc.list_flatten(table["lengths"])).as_py() or 0)
        formats.update(table["format"].to_pylist())
        types.update(pc.list_flatten(table["types"]).to_pylist())
        for count, note in (text.split(" ", 1) for text in pc.list_flatten(table["notes"]).to_pylist()):
            notes[note] += int(count)
    return {
        "format": " / ".join(sorted(formats)),
        "sentences": len(corpus),
        "words": words,
        "entities": dict(sorted(types.items())),
        "longest_sentence": sentence,
        "longest_entity": entity,
        "notes": dict(sorted(notes.items())),
    }


def count_repeated(corpus: Dataset, train: Dataset) -> int:
    """How many sentences of a corpus are, word for word, in the training corpus too."""
    seen = {hash(tuple(words)) for words in train["words"]}
    return sum(hash(tuple(words)) in seen for words in corpus["words"])


def types_of(corpus: Dataset) -> set[str]:
    """The types of a corpus' entities."""
    return {name for names in corpus["types"] for name in names}


def parse_label_map(text: str) -> dict[str, str]:
    """Old name -> new name of a --label_map.

    Raises:
        InputError: it is not OLD=NEW,OLD=NEW.
    """
    pairs = [pair.split("=") for pair in text.split(",")]
    if not all(len(pair) == 2 and all(map(str.strip, pair)) for pair in pairs):
        raise InputError(f"--label_map {text}: expected OLD=NEW,OLD=NEW, such as FIRST=PER,LAST=PER,MISC=O.")
    return {old.strip(): new.strip() for old, new in pairs}


def map_types(corpus: Dataset, mapping: dict[str, str]) -> Dataset:
    """Rename, merge and, where the new name is "O", drop the types of a corpus' entities; others stay."""
    if not mapping:
        return corpus

    def convert(row: dict) -> dict:
        types = [mapping.get(name, name) for name in row["types"]]
        columns = {"begins": row["begins"], "lengths": row["lengths"], "types": types}
        return {
            column: [value for value, name in zip(values, types, strict=True) if name != "O"]
            for column, values in columns.items()
        }

    return corpus.map(convert, desc="Mapping types")


def label_names(*corpora: Dataset) -> list[str]:
    """ "O" and the entity types of the corpora, sorted.

    Raises:
        InputError: there is no entity at all.
    """
    types = sorted({name for corpus in corpora for names in corpus["types"] for name in names})
    if not types:
        raise InputError("the source corpus has no entity: every tag is O. Give a labelled corpus with --source_train.")
    return ["O", *types]
