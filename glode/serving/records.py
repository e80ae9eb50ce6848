"""Tagged texts in a file: a record each, plain or packed, and what a run that was stopped has left of it."""

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from glode.corpora.files import READ_ERRORS, zstd
from glode.corpora.schemes import encode_tags
from glode.corpora.words import split_words
from glode.errors import InputError
from glode.serving.documents import Document


def to_record(document: Document, entities: list[dict], form: str) -> bytes:
    """A tagged text as it is written; the text it came from can be told from it."""
    if form == "jsonl":
        record = json.dumps(document.fields | {"entities": entities}, ensure_ascii=False)
        return record.encode("utf-8", "backslashreplace") + b"\n"  # half a character in another field than the text stays JSON
    text, words = document.text, split_words(document.text)
    first, last = ({span[side]: i for i, span in enumerate(words)} for side in (0, 1))
    spans = [(first[e["start"]], last[e["end"]] - first[e["start"]] + 1, e["entity_group"]) for e in entities]
    lines = [f"{text[a:b]} {tag}\n" for (a, b), tag in zip(words, encode_tags(len(words), spans), strict=True)]
    return "".join([*lines, "\n"]).encode()


def is_record_of(record: bytes, document: Document, form: str) -> bool:
    """Whether a document is the one from which [`to_record`] made the record."""
    try:
        if form == "jsonl":
            found = json.loads(record)
            return isinstance(found.pop("entities"), list) and json.dumps(found) == json.dumps(document.fields)
        words = [line.rpartition(" ")[0] for line in record.decode().split("\n") if line]
        return words == [document.text[a:b] for a, b in split_words(document.text)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


# Suffix -> how a buffer of records becomes a member of a packed file, and what reads one. A file of members is one packed file to
# every program, and a run that was stopped leaves all of them whole but the last.
PACKERS: dict[str, tuple[Callable[[bytes], bytes], Callable[[], Any]]] = {
    ".gz": (lambda content: zlib.compress(content, wbits=31), lambda: zlib.decompressobj(wbits=31)),
    ".bz2": (bz2.compress, bz2.BZ2Decompressor),
    ".xz": (lzma.compress, lzma.LZMADecompressor),
    ".zst": (zstd.compress, zstd.ZstdDecompressor),
}


def pack(content: bytes, path: str) -> bytes:
    """Records as they are appended to a file of that name."""
    packer = PACKERS.get(Path(path).suffix.lower())
    return packer[0](content) if packer and content else content


def whole_records(path: Path, form: str) -> tuple[int, int, bytes]:
    """How many whole records a file has, how many of its bytes they take, and the last of them.

    Raises:
        InputError: the file is not packed as its name says.
    """
    packer = PACKERS.get(path.suffix.lower())
    number = size = 0
    last = b""
    with open(path, "rb") as file:
        if not packer:
            for last in split_records(file, form):
                number, size = number + 1, size + len(last)
            return number, size, last
        try:
            for content, end in members(file, packer[1]):
                records = list(split_records(io.BytesIO(content), form))
                if sum(map(len, records)) < len(content):
                    break  # not written by us: its records go on in the next member
                number, size, last = number + len(records), end, (records or [last])[-1]
        except READ_ERRORS as error:
            raise InputError(f"--resume: {path} cannot be unpacked ({error}). Take it away.") from error
    return number, size, last


def split_records(file: BinaryIO, form: str) -> Iterator[bytes]:
    """The whole records of a stream: a line, or the lines up to an empty one."""
    lines = []
    for line in file:
        lines.append(line)
        if line.endswith(b"\n") and (form == "jsonl" or line == b"\n"):
            yield b"".join(lines)
            lines = []


def members(file: BinaryIO, reader: Callable[[], Any]) -> Iterator[tuple[bytes, int]]:
    """The content of each whole member of a packed file, and the byte at which it ends."""
    end, rest = 0, b""
    while True:
        unpack, content = reader(), []
        while not unpack.eof:
            piece, rest = rest or file.read(2**20), b""
            if not piece:
                return
            content.append(unpack.decompress(piece))
            end += len(piece)
        rest = unpack.unused_data
        end -= len(rest)
        yield b"".join(content), end
