"""A text file, packed or not, in any encoding -> its numbered lines, in bounded memory."""

import bz2
import codecs
import gzip
import lzma
import string
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from glode.errors import InputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstd.open}


READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)


LONGEST_LINE = 2**24  # bytes: a packed file of a few kilobytes may hold a line of any length


def unpacked_suffix(path: Path) -> str:
    """What the name says of the content: ".jsonl" for corpus.jsonl.gz."""
    return Path(path.stem if path.suffix.lower() in OPENERS else path).suffix.lower()


def open_bytes(path: Path) -> BinaryIO:
    """The content of a plain, .gz, .bz2, .xz or .zst file, or of standard input under its name."""
    if path == Path("/dev/stdin") and path.is_socket():  # as Node gives it, and no name opens a socket
        return open(0, "rb", closefd=False)
    return OPENERS.get(path.suffix.lower(), open)(path, "rb")


def read_lines(path: Path, encoding: str = "utf-8", errors: str = "strict") -> Iterator[tuple[int, str, int]]:
    """(number from 1 on, text without its line end, replaced characters) of each line; LF, CRLF and CR end a line.

    Args:
        encoding: any in which ASCII is ASCII, see [`find_encoding`].
        errors: "replace" makes U+FFFD of NUL and of what the encoding does not know; "strict" raises.
    Raises:
        InputError: the file cannot be read, holds a line beyond `LONGEST_LINE`, or what `errors` does not allow.
    """
    number = offset = 0
    try:
        with open_bytes(path) as file:
            while raw := file.readline(LONGEST_LINE + 1):
                if len(raw) > LONGEST_LINE:
                    raise InputError(f"{path}, line {number + 1}: longer than {LONGEST_LINE >> 20} MiB. Break it into lines.")
                if offset == 0:
                    _check_head(raw, path)
                if offset == 0 and raw.startswith(codecs.BOM_UTF8):
                    raw, offset = raw.removeprefix(codecs.BOM_UTF8), len(codecs.BOM_UTF8)
                at = offset
                offset += len(raw)
                for line in raw.rstrip(b"\r\n").split(b"\r"):
                    number += 1
                    yield number, *_decode(line, encoding, errors, path, number, at)
                    at += len(line) + 1
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Check the path.") from error
    except READ_ERRORS as error:
        raise InputError(f"{path}: cannot be read ({error}). Is it whole, and packed as its name says?") from error


def _decode(line: bytes, encoding: str, errors: str, path: Path, number: int, at: int) -> tuple[str, int]:
    """A line's text, and how many of its characters were replaced. `at` is its first byte's offset."""
    try:
        text = line.decode(encoding)
        if "\0" not in text:
            return text, 0
        position, reason = line.index(0), "a NUL byte: is it UTF-16, or no text at all?"
    except UnicodeDecodeError as error:
        position, reason = error.start, f"byte 0x{line[error.start]:02x} is not {encoding.upper()} ({error.reason})."
    if errors == "strict":
        raise InputError(
            f"{path}, line {number}: at byte {at + position} of the file {reason} Convert it to UTF-8, name its encoding "
            "(--encoding latin-1), or give --encoding_errors replace."
        )
    kept = line.decode(encoding, "ignore").replace("\0", "").count("\ufffd")
    text = line.decode(encoding, "replace").replace("\0", "\ufffd")
    return text, text.count("\ufffd") - kept


def read_text(path: Path, encoding: str, errors: str) -> str:
    """A whole file, with its line ends as they are, for formats whose offsets count them.

    Raises:
        InputError: as [`read_lines`], or the file is longer than `LONGEST_LINE`.
    """
    try:
        with open_bytes(path) as file:
            raw = file.read(LONGEST_LINE + 1)
    except READ_ERRORS as error:
        raise InputError(f"{path}: cannot be read ({error}). Does it exist, and is it whole?") from error
    if len(raw) > LONGEST_LINE:
        raise InputError(f"{path}: a document of more than {LONGEST_LINE >> 20} MiB. Break it into several.")
    for _ in read_lines(path, encoding, errors):  # says where bytes are no text
        pass
    return raw.removeprefix(codecs.BOM_UTF8).decode(encoding, errors).replace("\0", "\ufffd")


# What a file begins with that is no text, whatever its name says: what it is, and the mend.
_NO_TEXT = (
    (b"version https://git-lfs.github.com", "a pointer of Git LFS, without the content. Get it with git lfs pull."),
    (b"PK\x03\x04", "an archive or a spreadsheet. Unpack it, or save it as .csv."),
    (b"\x1f\x8b", "packed by gzip. Name it .gz."),
    (b"BZh91AY&SY", "packed by bzip2. Name it .bz2."),
    (b"\xfd7zXZ", "packed by xz. Name it .xz."),
    (b"\x28\xb5\x2f\xfd", "packed by zstd. Name it .zst."),
    (b"%PDF-", "PDF. Save its text as .txt."),
    (codecs.BOM_UTF16_LE, "UTF-16. Convert it to UTF-8."),
    (codecs.BOM_UTF16_BE, "UTF-16. Convert it to UTF-8."),
    (b"<!doctype html", "a web page. Was it downloaded from the right address?"),
    (b"<html", "a web page. Was it downloaded from the right address?"),
    (b"<?xml", "XML, which is not read. Convert it."),
)


def check_text(path: Path) -> None:
    """Whether a file is text at all, by its first bytes.

    Raises:
        InputError: it is something else.
    """
    try:
        with open_bytes(path) as file:
            head = file.read(64)
    except READ_ERRORS:
        return  # reading it says why
    _check_head(head, path)


def _check_head(head: bytes, path: Path) -> None:
    for start, what in _NO_TEXT:
        if head.removeprefix(codecs.BOM_UTF8)[:64].lower().startswith(start.lower()):
            raise InputError(f"{path}: whatever its name says, the content is {what}")


def find_encoding(path: Path, encoding: str) -> str:
    """The encoding of a file: UTF-8 where its first line beyond ASCII is that, else the given one. So one `--encoding
    latin-1` suits corpora of which only some are old.

    Raises:
        InputError: there is no such encoding, or ASCII is not ASCII in it.
    """
    try:
        name = codecs.lookup(encoding).name.removesuffix("-sig")
        usable = string.printable.encode(name) == string.printable.encode("ascii")
    except (LookupError, ValueError):
        usable = False
    if not usable:
        raise InputError(
            f"--encoding {encoding}: not known, or not one in which ASCII stays ASCII (UTF-16). Convert the file to UTF-8."
        )
    if name == "utf-8":
        return name
    try:
        return "utf-8" if any(not line.isascii() for _, line, _ in read_lines(path)) else name
    except InputError:
        return name  # reading it with that encoding shows what else is wrong
