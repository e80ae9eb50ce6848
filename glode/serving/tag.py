"""Finds the entities of a file of any size, each line of which is a text, or a JSON object that holds one.

    glode tag --model glode-demo --input big.txt.gz --output big.jsonl.gz
    glode tag --model glode-demo --input posts.jsonl --text_field body --output tagged.jsonl
    zcat big.txt.gz | glode tag --model glode-demo | head

Writes {"text": ..., "entities": [...]} a line, with what the pipeline returns for the line, and all that the line's JSON object
had; or, where the output is a .conll file, a word and its IOB2 tag a line and a blank line after each text. It runs on the GPU
or on all cores, holds a few lines at a time, and with --resume goes on where it was stopped.

    glode tag --model glode-demo --input big.txt --format brat --output brat-files   # csv, label-studio, spacy
    glode tag --model glode-demo --input few.txt --render                            # for the eye
"""

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from safetensors import SafetensorError
from tqdm import tqdm

from glode.corpora.files import OPENERS, unpacked_suffix
from glode.errors import InputError, run_command
from glode.parser import parse
from glode.serving.documents import Document, read_documents
from glode.serving.formats import BratWriter, CsvWriter, LabelStudioWriter, RecordWriter, SpacyWriter, Writer
from glode.serving.records import is_record_of, whole_records
from glode.serving.rendering import RenderWriter

if TYPE_CHECKING:  # else loaded with a model: --help needs none of them
    import torch
    from transformers import PreTrainedTokenizerBase

    from modeling_glode import GlodeModel

BUFFER = 2**18  # characters that are tagged together: windows of equal length share a batch
SUFFIXES_OF_NO_TEXT = (".json", ".csv", ".tsv", ".conll", ".parquet", ".arrow", ".html", ".xml", ".pdf", ".docx", ".zip", ".7z")
FORMATS = {"": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl", ".conll": "conll", ".csv": "csv"}
FORMATS |= {".json": "label-studio", ".spacy": "spacy"}
RESUMABLE = ("jsonl", "conll")
Module = TypeVar("Module", bound="torch.nn.Module")


@dataclass
class TagArguments:
    """What is tagged, and how."""

    model: str = field(metadata={"help": "Directory of a model or its repository on the Hub."})
    input: str = field(
        default="-",
        metadata={
            "help": "Text, a document a line, or JSON lines (.jsonl, .ndjson); plain, .gz, .bz2, .xz or .zst; may be a pipe; "
            "- is standard input."
        },
    )
    text_field: str | None = field(
        default=None,
        metadata={"help": "The field of JSON lines that holds the text; given, the input is JSON lines. Default: text."},
    )
    output: str = field(
        default="-",
        metadata={"help": "File to write, packed where its name ends in .gz, .bz2, .xz or .zst; - is standard output."},
    )
    format: str = field(
        default="auto",
        metadata={
            "help": "auto: as the output's name says (.jsonl, .conll, .csv, .spacy, .json: label-studio), jsonl on standard "
            "output. brat makes a directory.",
            "choices": ["auto", "jsonl", "conll", "csv", "brat", "label-studio", "spacy"],
        },
    )
    render: bool = field(
        default=False,
        metadata={"help": "Print the texts with colored entities; a file is written where --output names one."},
    )
    resume: bool = field(default=False, metadata={"help": "Go on after the last whole text of the output."})
    batch_size: int = field(default=32, metadata={"help": "Windows at a time."})
    threshold: float = field(default=0.0, metadata={"help": "Least score of an entity."})
    nested: bool = field(default=False, metadata={"help": "Also entities within entities (not in conll)."})
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
        if Path(self.output).suffix.lower() in (".zip", ".7z", ".lz4", ".tgz", ".tar"):
            raise InputError(f"--output {self.output} would not be packed. Name it .gz, .bz2, .xz or .zst.")
        self.format = find_format(self.format, self.output)
        if self.nested and self.format == "conll":
            raise InputError("--nested: a .conll file has one tag a word. Write a .jsonl file.")
        if self.batch_size < 1:
            raise InputError(f"--batch_size {self.batch_size}: expected at least 1 window at a time.")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"--threshold {self.threshold}: the least score of an entity is a number between 0 and 1.")
        if self.format in ("brat", "spacy") and (self.output == "-" or Path(self.output).suffix.lower() in OPENERS):
            raise InputError(f"--format {self.format} makes files of its own, which are not packed: give another --output.")
        if self.resume and self.output == "-":
            raise InputError("--resume needs a file: give --output.")
        if self.resume and self.format not in RESUMABLE:
            raise InputError(f"--resume goes on with {' and '.join(RESUMABLE)}, not with {self.format}. Start anew.")
        self._check_input()

    def _check_input(self) -> None:
        path, suffix = self.input_path, unpacked_suffix(Path(self.input))
        if not path.exists() or path.is_dir():
            raise InputError(f"--input {path} is no file. Check the path.")
        if self.encoding != "utf-8" and not path.is_file():  # it is read twice
            raise InputError("--encoding needs a file: give --input, or convert the stream to UTF-8.")
        if suffix in SUFFIXES_OF_NO_TEXT and self.text_field is None:
            raise InputError(
                f"--input {path}: {suffix} is not tagged as it is. Give a .txt file, a text a line, or a .jsonl file, an object "
                "with a text a line."
            )

    @property
    def input_path(self) -> Path:
        return Path("/dev/stdin" if self.input == "-" else self.input)


def find_format(form: str, output: str) -> str:
    """The format that is asked for, or that the output's name says.

    Raises:
        InputError: it says none.
    """
    suffix = unpacked_suffix(Path(output))
    if form == "auto" and suffix not in FORMATS:
        raise InputError(
            f"--output {output}: {suffix} says no format. Give --format, or end it in .jsonl, .conll, .csv, .json (Label Studio) "
            "or .spacy."
        )
    return FORMATS[suffix] if form == "auto" else form


def load_model(name: str, device: str | None = None, dtype: str = "float32") -> "tuple[GlodeModel, PreTrainedTokenizerBase]":
    """The model, on its device (without one the GPU, where there is one), and its tokenizer.

    Raises:
        InputError: there is no such model or device.
    """
    import torch
    from transformers import AutoTokenizer, PretrainedConfig

    from modeling_glode import GlodeConfig, GlodeOnnxModel, load_glode

    if not Path(name).is_dir() and ("/" not in name or name[0] in "/.~"):
        raise InputError(f"--model {name}: there is no such directory, and a repository on the Hub has a name like user/model.")
    try:
        config = PretrainedConfig.get_config_dict(name)[0]
        kind = config.get("model_type")
        if not config:
            raise InputError(f"--model {name} is a directory without a model: config.json is not in it. Give another one.")
        if kind != GlodeConfig.model_type:
            raise InputError(f"--model {name} is of the type {kind!r}. Give a model that run_crossner.py has trained.")
        with no_bars():
            model = load_glode(name, dtype=getattr(torch, dtype))
        tokenizer = AutoTokenizer.from_pretrained(name, config=model.config)  # without it, asks to run the model's code
    except (OSError, KeyError, SafetensorError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--model {name} cannot be loaded: {reason} Give a directory or a repository.") from error
    if not isinstance(model, GlodeOnnxModel):
        return move(model, device), tokenizer
    if device not in (None, "cpu") or dtype != "float32":
        raise InputError(f"--model {name} is an export to ONNX, which runs on the CPU as it is: leave out --device and --dtype.")
    return model, tokenizer


@contextmanager
def no_bars() -> Iterator[None]:
    """Without transformers' progress bars, which are as before afterwards."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def move(model: Module, device: str | None) -> Module:
    """A model on a device, without one the GPU, where there is one.

    Raises:
        InputError: the device cannot be used.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device} cannot be used ({reason}). Give cpu, or cuda:0 where there is a GPU.") from error


def open_output(arguments: TagArguments, documents: Iterator[Document]) -> BinaryIO:
    """The stream to write to. With `resume` the documents whose records are there are read away, and half a record is cut off.

    Raises:
        InputError: the file is there already, is the input, or comes from another input.
    """
    if arguments.output == "-":
        return open(1, "wb", closefd=False)
    path = Path(arguments.output)
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: there is no directory {path.parent}. Make it first.")
    if not path.exists() or not path.stat().st_size:
        return open(path, "wb")
    if arguments.input != "-" and path.samefile(arguments.input):
        raise InputError(f"--output {path} is the input. Name another file.")
    if not arguments.resume:
        how = "Go on with it by --resume, or take it away." if arguments.format in RESUMABLE else "Take it away."
        raise InputError(f"--output {path} is there already. {how}")
    number, size, last = whole_records(path, arguments.format)
    read = deque(islice(documents, number), maxlen=1)
    if number and not (read and is_record_of(last, read[0], arguments.format)):
        raise InputError(f"--resume: record {number} of {path} is not that of text {number} of {arguments.input}. Take it away.")
    os.truncate(path, size)
    return open(path, "ab")


def open_writer(arguments: TagArguments, documents: Iterator[Document], types: Sequence[str]) -> Writer:
    """What writes in the format that is asked for, see [`open_output`]."""
    path = Path(arguments.output)
    if arguments.format == "brat":
        return BratWriter(path, types)
    stream = open_output(arguments, documents)
    if arguments.format in RESUMABLE:
        return RecordWriter(stream, arguments.output, arguments.format)
    if arguments.format == "csv":
        return CsvWriter(stream, arguments.output)
    if arguments.format == "spacy":
        return SpacyWriter(stream)
    return LabelStudioWriter(stream, arguments.output, arguments.model)


def buffers(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents of about `BUFFER` characters together."""
    held, size = [], 0
    for document in documents:
        held.append(document)
        size += len(document.text) + 1
        if size >= BUFFER:
            yield held
            held, size = [], 0
    if held:
        yield held


def main(argv: Sequence[str]) -> None:
    """Tag what the arguments name."""
    arguments = parse(TagArguments, argv, prog="glode tag", description=__doc__.split("\n\n")[0])
    documents = read_documents(arguments.input_path, arguments.text_field, arguments.encoding, arguments.encoding_errors)
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    texts_done = entities_found = characters_replaced = 0
    types = list(model.config.id2label.values())[1:]
    with ExitStack() as opened, tqdm(unit=" texts", disable=arguments.render or None) as progress:
        writers: list[Writer] = [RenderWriter(types)] if arguments.render else []
        if arguments.output != "-" or not arguments.render:
            writers.append(opened.enter_context(open_writer(arguments, documents, types)))
        for held in buffers(documents):
            texts = [document.text for document in held]
            found = cast(
                list[list[dict]], model.predict(texts, tokenizer, arguments.batch_size, arguments.threshold, arguments.nested)
            )
            for writer in writers:
                writer.write(held, found)
            progress.update(len(held))
            texts_done, entities_found = texts_done + len(held), entities_found + sum(map(len, found))
            characters_replaced += sum(document.replaced for document in held)
    replaced = f", {characters_replaced} characters made U+FFFD" if characters_replaced else ""
    print(f"{texts_done} texts, {entities_found} entities{replaced}", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """The command: `main`, with its exit code."""
    given = dict(pairwise(argv))
    output = given.get("--output", "-")
    form = given.get("--format", FORMATS.get(unpacked_suffix(Path(output))))
    return run_command(main, argv, resume="--resume" if output != "-" and form in RESUMABLE else "")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
