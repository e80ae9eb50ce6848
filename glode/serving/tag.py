"""Finds the entities of a file of any size, each line of which is a text.

    glode tag --model glode-demo --input big.txt.gz --output big.jsonl
    zcat big.txt.gz | glode tag --model glode-demo | head

Writes {"text": ..., "entities": [...]} a line, with what the pipeline returns for the line, or, where the output is a .conll
file, a word and its IOB2 tag a line and a blank line after each text. It runs on the GPU or on all cores, holds a few lines at
a time, and with --resume goes on where it was stopped.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import AutoTokenizer, HfArgumentParser, PretrainedConfig, PreTrainedTokenizerBase

from glode.corpora.files import find_encoding, read_lines
from glode.corpora.schemes import encode_tags
from glode.corpora.words import split_words
from glode.errors import InputError, run_command
from modeling_glode import GlodeModel

BUFFER = 2**18  # characters that are tagged together: windows of equal length share a batch


@dataclass
class TagArguments:
    """What is tagged, and how."""

    model: str = field(metadata={"help": "Directory of a model or its repository on the Hub."})
    input: str = field(
        default="-", metadata={"help": "Text, a document a line; plain, .gz, .bz2, .xz or .zst; - is standard input."}
    )
    output: str = field(default="-", metadata={"help": "File to write; - is standard output."})
    format: str | None = field(
        default=None,
        metadata={"help": "Default: conll where the output's name ends so, else jsonl.", "choices": ["jsonl", "conll"]},
    )
    resume: bool = field(default=False, metadata={"help": "Go on after the last whole text of the output."})
    batch_size: int = field(default=32, metadata={"help": "Windows at a time."})
    threshold: float = field(default=0.0, metadata={"help": "Least score of an entity."})
    nested: bool = field(default=False, metadata={"help": "Also entities within entities (jsonl)."})
    device: str | None = field(default=None, metadata={"help": "Such as cuda:1 or cpu. Default: the GPU where there is one."})
    dtype: str = field(
        default="float32", metadata={"help": "Numbers of the model.", "choices": ["float32", "bfloat16", "float16"]}
    )
    encoding: str = field(default="utf-8", metadata={"help": "Encoding of the input."})
    encoding_errors: str = field(
        default="strict",
        metadata={
            "help": "What is not of that encoding: strict stops, replace makes it U+FFFD and counts.",
            "choices": ["strict", "replace"],
        },
    )

    def __post_init__(self):
        if self.format is None:
            self.format = "conll" if self.output.endswith(".conll") else "jsonl"
        if self.nested and self.format == "conll":
            raise InputError("--nested: a .conll file has one tag a word. Write a .jsonl file.")
        if self.batch_size < 1:
            raise InputError(f"--batch_size {self.batch_size}: expected at least 1 window at a time.")
        if self.resume and self.output == "-":
            raise InputError("--resume needs a file: give --output.")
        if self.input == "-" and self.encoding != "utf-8":
            raise InputError("--encoding needs a file: give --input, or convert the stream to UTF-8.")


def load_model(arguments: TagArguments) -> tuple[GlodeModel, PreTrainedTokenizerBase]:
    """The model, on its device, and its tokenizer.

    Raises:
        InputError: there is no such model or device.
    """
    name = arguments.model
    try:
        kind = PretrainedConfig.get_config_dict(name)[0].get("model_type")
        if kind != GlodeModel.config_class.model_type:
            raise InputError(f"--model {name} is of the type {kind!r}. Give a model that run_crossner.py has trained.")
        model = GlodeModel.from_pretrained(name, dtype=getattr(torch, arguments.dtype)).eval()
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
    except (OSError, KeyError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--model {name} cannot be loaded: {reason} Give a directory or a repository.") from error
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model.to(device), tokenizer
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device} cannot be used ({reason}). Give cpu, or cuda:0 where there is a GPU.") from error


def to_record(text: str, entities: list[dict], form: str) -> bytes:
    """A tagged text as it is written; the text it came from can be told from it."""
    if form == "jsonl":
        return json.dumps({"text": text, "entities": entities}, ensure_ascii=False).encode() + b"\n"
    words = split_words(text)
    first, last = ({span[side]: i for i, span in enumerate(words)} for side in (0, 1))
    spans = [(first[e["start"]], last[e["end"]] - first[e["start"]] + 1, e["entity_group"]) for e in entities]
    lines = [f"{text[a:b]} {tag}\n" for (a, b), tag in zip(words, encode_tags(len(words), spans), strict=True)]
    return "".join([*lines, "\n"]).encode()


def is_record_of(record: bytes, text: str, form: str) -> bool:
    """Whether a text is the one from which [`to_record`] made the record."""
    try:
        if form == "jsonl":
            return json.loads(record)["text"] == text
        words = [line.rpartition(" ")[0] for line in record.decode().split("\n") if line]
        return words == [text[a:b] for a, b in split_words(text)]
    except (ValueError, KeyError, TypeError):
        return False


def whole_records(path: Path, form: str) -> tuple[int, int, bytes]:
    """How many whole records a file has, how many bytes they take, and the last of them."""
    number = size = 0
    lines, last = [], b""
    with open(path, "rb") as file:
        for line in file:
            lines.append(line)
            if line.endswith(b"\n") and (form == "jsonl" or line == b"\n"):
                last = b"".join(lines)
                number, size, lines = number + 1, size + len(last), []
    return number, size, last


def open_output(arguments: TagArguments, lines: Iterator[tuple[int, str, int]]) -> BinaryIO:
    """The stream to write to. With `resume` the lines whose records are there are read away, and half a record is cut off.

    Raises:
        InputError: the file is there already, is the input, or comes from another input.
    """
    if arguments.output == "-":
        return open(1, "wb", closefd=False)
    path = Path(arguments.output)
    if not path.exists() or not path.stat().st_size:
        return open(path, "wb")
    if arguments.input != "-" and path.samefile(arguments.input):
        raise InputError(f"--output {path} is the input. Name another file.")
    if not arguments.resume:
        raise InputError(f"--output {path} is there already. Go on with it by --resume, or take it away.")
    number, size, last = whole_records(path, arguments.format)
    read = deque(islice(lines, number), maxlen=1)
    if number and not (read and is_record_of(last, read[0][1], arguments.format)):
        raise InputError(f"--resume: record {number} of {path} is not that of line {number} of {arguments.input}. Take it away.")
    os.truncate(path, size)
    return open(path, "ab")


def buffers(lines: Iterator[tuple[int, str, int]]) -> Iterator[tuple[list[str], int]]:
    """Texts of about `BUFFER` characters together, and how many of their characters were replaced."""
    texts, size, replaced = [], 0, 0
    for _, text, broken in lines:
        texts.append(text)
        size, replaced = size + len(text) + 1, replaced + broken
        if size >= BUFFER:
            yield texts, replaced
            texts, size, replaced = [], 0, 0
    if texts:
        yield texts, replaced


def main(argv: Sequence[str]) -> None:
    """Tag what the arguments name."""
    parser = HfArgumentParser(TagArguments, description=__doc__.split("\n\n")[0], prog="glode tag")
    arguments, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    path = Path("/dev/stdin" if arguments.input == "-" else arguments.input)
    if arguments.input != "-" and not path.is_file():
        raise InputError(f"--input {path} is no file. Check the path.")
    lines = read_lines(path, find_encoding(path, arguments.encoding), arguments.encoding_errors)
    model, tokenizer = load_model(arguments)
    texts_done = entities_found = characters_replaced = 0
    with open_output(arguments, lines) as output, tqdm(unit=" texts", disable=None) as progress:
        for texts, replaced in buffers(lines):
            found = model.predict(texts, tokenizer, arguments.batch_size, arguments.threshold, arguments.nested)
            for text, entities in zip(texts, found, strict=True):
                output.write(to_record(text, entities, arguments.format))
            output.flush()
            progress.update(len(texts))
            texts_done, entities_found = texts_done + len(texts), entities_found + sum(map(len, found))
            characters_replaced += replaced
    print(f"{texts_done} texts, {entities_found} entities, {characters_replaced} characters made U+FFFD", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """The command: `main`, with its exit code."""
    return run_command(main, argv, resume="--resume")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
