"""Protects reading text: packings, encodings, damage and size."""

import bz2
import gzip
import lzma
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.corpora import COLUMNS, TWO, entities_of, message_of, notes_of

from glode.corpora import columns, files, json_files
from glode.corpora.files import zstd
from glode.corpora.options import ReadingOptions
from glode.corpora.reading import read_corpus
from glode.errors import InputError

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
def test_packings(tmp_path: Path, packing: str):
    path, data = tmp_path / f"corpus.conll{packing}", COLUMNS["tabs"].encode()
    modules = {".gz": gzip, ".bz2": bz2, ".xz": lzma, ".zst": zstd}
    half = len("Anna\tB-PER\nBe")
    path.write_bytes(b"".join(modules[packing].compress(part) for part in (data[:half], data[half:])))  # two streams in one file
    assert entities_of(path) == TWO
    path.write_bytes(path.read_bytes()[:-6])
    assert "packed as its name says" in message_of(path)


def test_encodings(tmp_path: Path):
    latin, utf8 = tmp_path / "esp.train", tmp_path / "new.conll"
    latin.write_bytes("Núñez B-PER\n".encode("latin-1"))
    utf8.write_bytes("Núñez B-PER\n".encode())
    for path, form in ((latin, "columns, IOB2, iso8859-1"), (utf8, "columns, IOB2")):
        row = next(read_corpus(str(path), True, ReadingOptions("latin-1")))
        assert (row["words"], row["format"]) == (["Núñez"], form)
    assert "line 1: at byte 1 of the file byte 0xfa is not UTF-8" in (message := message_of(latin))
    assert "Convert it to UTF-8, name its encoding (--encoding latin-1)" in message
    latin.write_bytes("Núñez B-PER\n".encode() + b"Mu\xf1oz B-PER\n")  # one stray byte does not make all else of it latin-1
    with pytest.raises(InputError, match="line 2: at byte 16 of the file byte 0xf1"):
        list(read_corpus(str(latin), True, ReadingOptions("latin-1")))
    for wrong in ("utf-16", "nonsense"):
        with pytest.raises(InputError, match=f"--encoding {wrong}: not known, or not one"):
            list(read_corpus(str(latin), True, ReadingOptions(wrong)))


def test_bytes_that_are_no_text_are_replaced_and_counted_where_asked_for(tmp_path: Path):
    path = tmp_path / "corpus.conll"
    path.write_bytes(b"\xef\xbb\xbfAnna B-PER\nM\xfcl\0ler I-PER\n\xef\xbf\xbd O\n")
    assert "line 2: at byte 15 of the file byte 0xfc" in message_of(path)
    words = next(read_corpus(str(path), True, ReadingOptions(encoding_errors="replace")))["words"]
    assert words == ["Anna", "M\ufffdl\ufffdler", "\ufffd"]
    assert notes_of(path, encoding_errors="replace") == {"broken characters replaced": 2}
    path.write_bytes("Anna B-PER\n".encode("utf-16"))
    assert "the content is UTF-16" in message_of(path)


@pytest.mark.parametrize("name", ["bomb.conll.gz", "bomb.txt.xz", "bomb.jsonl.zst", "bomb.json.bz2"])
def test_lines_that_unpack_to_no_end(tmp_path: Path, monkeypatch, name: str):
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    path = tmp_path / name
    pack = {".gz": gzip, ".bz2": bz2, ".xz": lzma, ".zst": zstd}[path.suffix].compress
    path.write_bytes(pack(b"\n" + b"a" * 1001))
    message = message_of(path, labelled=not name.startswith("bomb.txt"))
    assert "line 2: longer than" in message and "Break it into lines" in message


def test_sentences_and_documents_without_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(columns, "LONGEST_SENTENCE", 10)
    monkeypatch.setattr(json_files, "LONGEST_DOCUMENT", 100)
    (tmp_path / "a.conll").write_text("a O\n" * 11)
    assert "line 1: a sentence of more than 10 words" in (message := message_of(tmp_path / "a.conll"))
    assert "A blank line ends a sentence" in message
    (tmp_path / "a.json").write_text("[" + "3,\n" * 100)
    assert "Write JSON lines" in message_of(tmp_path / "a.json")


def test_a_long_line_is_read(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("ab " * 2**19)
    assert len(next(read_corpus(str(path), False))["words"]) == 2**19


@pytest.mark.parametrize("name", ["a.iob2", "a.jsonl", "a.json", "a.txt", "a.iob2.gz"])
def test_other_encodings_are_named_with_their_line(tmp_path: Path, name: str):
    path = tmp_path / name
    data = b"Anna\tB-PER\nM\xfcller\tI-PER\n"
    if name == "a.jsonl":
        data = b'{"tokens": ["Anna"], "tags": ["B-PER"]}\n{"tokens": ["M\xfcller"], "tags": ["B-PER"]}\n'
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    message = message_of(path, labelled=name != "a.txt")
    assert "UTF-8" in message and "line 2:" in message


@pytest.mark.parametrize("damage", ["cut off", "overwritten", "not gzip at all"])
def test_damaged_gzip_files(tmp_path: Path, damage: str):
    rng = random.Random(0)
    data = gzip.compress("".join(f"{rng.random()} O\n" for _ in range(3000)).encode())
    broken = {"cut off": data[:-2000], "overwritten": data[:2000] + b"\xff" * 3000 + data[5000:], "not gzip at all": b"Anna O\n"}
    path = tmp_path / "a.iob2.gz"
    path.write_bytes(broken[damage])
    assert "packed as its name says" in message_of(path)


def test_documents_that_are_read_whole(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    (tmp_path / "a.ann").write_text("")
    (tmp_path / "a.txt").write_text("ab\n" * 500)
    assert "a document of more than" in (message := message_of(tmp_path / "a.txt")) and "Break it into several" in message


def test_standard_input_that_is_a_socket():
    """As Node gives it to the commands that it starts."""
    code = "from pathlib import Path\nfrom glode.corpora.files import read_lines\nprint(*read_lines(Path('/dev/stdin')))"
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"Oslo\nBern\n")
        here.shutdown(socket.SHUT_WR)
        told = subprocess.run([sys.executable, "-c", code], stdin=there, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "(1, 'Oslo', 0) (2, 'Bern', 0)\n"
