"""Tagged texts in the formats of other programs: a table (CSV), brat, Label Studio, spaCy. One class a format.

A writer takes documents with their entities as the pipeline returns them, and is closed as a whole or, where the run ended before
its time, as it is: then what a reader would take for the whole is not finished.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from glode.corpora.words import split_words
from glode.errors import InputError
from glode.serving.documents import Document
from glode.serving.records import pack, to_record


class Writer:
    """What all of them have in common."""

    def write(self, documents: Sequence[Document], found: Sequence[list[dict]]) -> None:
        """Documents and the entities of each."""
        raise NotImplementedError

    def close(self, whole: bool) -> None:
        """Nothing more comes; `whole` says whether that was all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(whole=kind is None)


class StreamWriter(Writer):
    """One file.

    Args:
        stream: where the texts go, at its end.
        name: of the file, which says how it is packed.
    """

    def __init__(self, stream: BinaryIO, name: str):
        self.stream, self.name = stream, name

    def put(self, content: bytes) -> None:
        self.stream.write(pack(content, self.name))
        self.stream.flush()

    def close(self, whole: bool) -> None:
        self.stream.close()


class RecordWriter(StreamWriter):
    """A record a text, as JSON lines or columns ("jsonl" or "conll"): what can be gone on with, see `records`."""

    def __init__(self, stream: BinaryIO, name: str, form: str):
        super().__init__(stream, name)
        self.form = form

    def write(self, documents: Sequence[Document], found: Sequence[list[dict]]) -> None:
        self.put(b"".join(to_record(*pair, self.form) for pair in zip(documents, found, strict=True)))


class CsvWriter(StreamWriter):
    """A row an entity: `COLUMNS`, of which `text` counts the texts of the input from 1 on and `start` and `end` are characters.
    A text without entities has no row."""

    COLUMNS = ("text", "start", "end", "type", "score", "entity")

    def __init__(self, stream: BinaryIO, name: str):
        super().__init__(stream, name)
        self.number = 0
        self.put_rows([self.COLUMNS])

    def put_rows(self, rows: Iterable[Sequence]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self.put(text.getvalue().encode())

    def write(self, documents: Sequence[Document], found: Sequence[list[dict]]) -> None:
        numbered = [(number, entity) for number, entities in enumerate(found, self.number + 1) for entity in entities]
        self.put_rows([n, e["start"], e["end"], e["entity_group"], e["score"], e["word"]] for n, e in numbered)
        self.number += len(documents)


class LabelStudioWriter(StreamWriter):
    """A JSON list of tasks whose predictions are the entities, with their scores; `data` is all that the input has of a text.

    It suits `<Labels name="label" toName="text">` over `<Text name="text" value="$text"/>`.

    Args:
        version: the model's name, which Label Studio shows beside its predictions.
    """

    def __init__(self, stream: BinaryIO, name: str, version: str):
        super().__init__(stream, name)
        self.version, self.before = version, "[\n"

    def write(self, documents: Sequence[Document], found: Sequence[list[dict]]) -> None:
        tasks = []
        for document, entities in zip(documents, found, strict=True):
            results = [self.result(number, entity) for number, entity in enumerate(entities)]
            score = min((entity["score"] for entity in entities), default=1.0)
            prediction = {"model_version": self.version, "score": score, "result": results}
            tasks.append(json.dumps({"data": document.fields, "predictions": [prediction]}, ensure_ascii=False))
        content = self.before + ",\n".join(tasks)
        self.put(content.encode("utf-8", "backslashreplace"))  # half a character in another field than the text stays JSON
        self.before = ",\n"

    @staticmethod
    def result(number: int, entity: dict) -> dict[str, Any]:
        """An entity as Label Studio has it."""
        value = {"start": entity["start"], "end": entity["end"], "text": entity["word"], "labels": [entity["entity_group"]]}
        where = {"id": str(number), "from_name": "label", "to_name": "text", "type": "labels"}
        return where | {"value": value, "score": entity["score"]}

    def close(self, whole: bool) -> None:
        if whole:
            self.put(b"[]\n" if self.before == "[\n" else b"\n]\n")
        super().close(whole)


class BratWriter(Writer):
    """A directory for brat: a .txt and an .ann file a text, named by its number, and annotation.conf.

    Args:
        directory: is made, or empty.
        types: the entities' types; what brat has no sign for becomes "_".
    Raises:
        InputError: the directory holds something, or two types would have one name.
    """

    PIECE = re.compile("[^\t\n\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029]+")

    def __init__(self, directory: Path, types: Sequence[str]):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise InputError(f"--output {directory}: brat's files take a directory of their own. Name a new one.")
        self.names = {name: re.sub(r"[^\w-]", "_", name) for name in types}
        if len(set(self.names.values())) < len(types):
            raise InputError(f"--format brat: of {', '.join(types)} two are one name to brat. Write another format.")
        directory.mkdir(exist_ok=True)
        self.directory, self.number = directory, 0
        sections = ["[entities]", *self.names.values(), "[relations]", "[events]", "[attributes]", ""]
        (directory / "annotation.conf").write_text("\n".join(sections), encoding="utf-8")

    def write(self, documents: Sequence[Document], found: Sequence[list[dict]]) -> None:
        for document, entities in zip(documents, found, strict=True):
            self.number += 1
            path = self.directory / f"{self.number:08d}.txt"
            path.write_bytes(document.text.encode())
            lines = [self.lines(number, entity) for number, entity in enumerate(entities, 1)]
            path.with_suffix(".ann").write_bytes("".join(lines).encode())

    def lines(self, number: int, entity: dict) -> str:
        """An entity and its score. One that a line end or a tab divides has several parts."""
        parts = [(entity["start"] + m.start(), entity["start"] + m.end()) for m in self.PIECE.finditer(entity["word"])]
        where = ";".join(f"{start} {end}" for start, end in parts)
        surface = " ".join(entity["word"][a - entity["start"] : b - entity["start"]] for a, b in parts)
        note = f"#{number}\tAnnotatorNotes T{number}\tscore {entity['score']:.4f}\n"
        return f"T{number}\t{self.names[entity['entity_group']]} {where}\t{surface}\n{note}"


class SpacyWriter(Writer):
    """A DocBin: a Doc a text, with its entities in `ents` and, with those within others and all scores, in `spans["sc"]`. All
    Docs are held until the end, some ten bytes a word.

    Raises:
        InputError: spaCy is not installed.
    """

    def __init__(self, stream: BinaryIO):
        try:
            import spacy
            from spacy.tokens import DocBin
        except ImportError as error:
            raise InputError("--format spacy: spaCy is not installed: pip install spacy.") from error
        self.stream, self.docs, self.vocab = stream, DocBin(), spacy.blank("xx").vocab

    def write(self, documents: Sequence[Document], found: Sequence[list[dict]]) -> None:
        from spacy.tokens import Doc, Span
        from spacy.util import filter_spans

        for document, entities in zip(documents, found, strict=True):
            words, spaces = spacy_tokens(document.text)
            doc = Doc(self.vocab, words=words, spaces=spaces)
            first, last = {token.idx: token.i for token in doc}, {token.idx + len(token): token.i for token in doc}
            spans = [Span(doc, first[e["start"]], last[e["end"]] + 1, label=e["entity_group"]) for e in entities]
            doc.set_ents(filter_spans(spans), default="outside")
            doc.spans["sc"] = spans
            doc.spans["sc"].attrs["scores"] = [entity["score"] for entity in entities]
            self.docs.add(doc)

    def close(self, whole: bool) -> None:
        if whole:
            self.stream.write(self.docs.to_bytes())
        self.stream.close()


def spacy_tokens(text: str) -> tuple[list[str], list[bool]]:
    """All of a text as tokens, and which of them a space follows: its words, and what stands between them beyond one space."""
    tokens: list[str] = []
    spaces: list[bool] = []
    at = 0
    for start, end in [*split_words(text), (len(text), len(text))]:
        if tokens and text[at:start].startswith(" "):
            spaces[-1] = True
            at += 1
        pieces = [piece for piece in (text[at:start], text[start:end]) if piece]
        tokens += pieces
        spaces += [False] * len(pieces)
        at = end
    return tokens, spaces
