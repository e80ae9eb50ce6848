"""Training from Python.

from glode import train

result = train(source_train=sentences, target_unlabeled=texts, target_lang="de", output_dir="my-model")
print(result.metrics["target_model"])
print(result.model.predict("Petra Lindner arbeitet in München.", result.tokenizer))
"""

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from datasets import DatasetDict, are_progress_bars_disabled, enable_progress_bars
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from glode.errors import InputError
from glode.run.arguments import KINDS, DataArguments, ModelArguments, RunArguments
from glode.run.parsing import parse_arguments
from glode.serving.tag import no_bars
from glode.training.arguments import GlodeTrainingArguments
from modeling_glode import GlodeModel
from run_crossner import carry_out

# The corpora, and the part of a `DatasetDict` that stands for each where only the first is given.
SOURCE = {"source_train": "train", "source_dev": "validation", "source_test": "test"}
TARGET = {"target_unlabeled": "train", "target_test": "test"}
HAVE_LANGUAGES = {*SOURCE, *TARGET, "target_train"}  # which may be {language: corpus}
FILE_NAME = re.compile(r"\S+\.[a-z][a-z0-9]{1,7}")


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Attributes:
        model: the target model, or with `stage="source"` the source model.
        tokenizer: its tokenizer.
        metrics: what metrics.json holds: `source_model` and `target_model`, each corpus -> `strict` and `paper` -> scores.
        output_dir: the model's directory, ready for `from_pretrained` and for the Hub.
    """

    model: GlodeModel
    tokenizer: PreTrainedTokenizerBase
    metrics: dict[str, Any]
    output_dir: Path


def train(
    *,
    target_lang: str | Sequence[str],
    source_lang: str | Sequence[str] | None = None,
    source_train: Any = None,
    source_dev: Any = None,
    source_test: Any = None,
    target_unlabeled: Any = None,
    target_test: Any = None,
    target_train: Any = None,
    **options: Any,
) -> TrainResult:
    """Train a recogniser for a language without labels, as `glode train` does, with the same scores.

    A corpus is a path; a `Dataset` or a list of {"tokens": [...], "ner_tags": [...]}; or, for `target_unlabeled`, a list of
    texts. A `DatasetDict` brings all parts of its language: train, validation and test. Of several languages, on either side,
    each has its corpus: {"de": ..., "es": ...}. Several files are a list of `pathlib.Path`.

    Args:
        target_lang: the language without labels, or several.
        source_lang: the language with labels, or several, each of which teaches as much as the others. English by default.
        source_train: labelled sentences of the source language. Without it and `target_unlabeled`: the demo, or `dataset_name`.
        source_dev: labelled sentences that choose the checkpoint; None sets a tenth of the training set aside.
        source_test: labelled sentences for the report.
        target_unlabeled: text of the target language.
        target_test: labelled sentences of the target language, for the report.
        target_train: labelled sentences of the target language that the target stage learns as well, a few or many.
        options: all others that `glode train --help_all` explains, such as `output_dir` or `num_train_epochs`. None is the
            option's default.
    Raises:
        InputError: something in the input is wrong; the message says what and how to mend it.
        TypeError: there is no such option.
    """
    known = {field.name for kind in KINDS for field in dataclasses.fields(kind) if field.init}
    if unknown := sorted(set(options) - known):
        like = difflib.get_close_matches(unknown[0], known, n=1)
        raise TypeError(f"train() has no argument {unknown[0]!r}.{f' Did you mean {like[0]!r}?' if like else ''}")
    source = _spread({"source_train": source_train, "source_dev": source_dev, "source_test": source_test}, SOURCE)
    target = _spread({"target_unlabeled": target_unlabeled, "target_test": target_test}, TARGET) | {"target_train": target_train}
    memory: dict[str, Any] = {}
    corpora = {option: list(_names(option, data, memory)) for option, data in {**source, **target}.items()}
    sides = {"target_lang": target_lang, "source_lang": source_lang}
    languages = {name: ",".join(side) if isinstance(side, list | tuple) else side for name, side in sides.items()}
    arguments = _parse({**languages, **corpora, **options})
    with _terminal_as_it_was():
        directory, metrics = carry_out(*arguments, memory)
    with no_bars():
        model = GlodeModel.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory, config=model.config)
    return TrainResult(model, tokenizer, metrics, directory)


@contextlib.contextmanager
def _terminal_as_it_was() -> Iterator[None]:
    """A run silences libraries; after it they speak as before."""
    verbosity, bars, data_bars = logging.get_verbosity(), logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if data_bars:
            enable_progress_bars()


def _spread(corpora: dict[str, Any], splits: dict[str, str]) -> dict[str, Any]:
    """The corpora of one side. Where the first is a `DatasetDict`, or is one of some language, its other parts stand for the
    corpora that are not given.

    Raises:
        InputError: it has no part `train`.
    """
    first, *others = splits
    whole = corpora[first]
    if isinstance(whole, DatasetDict):
        if splits[first] not in whole:
            raise InputError(f"{first}: the DatasetDict has no part `{splits[first]}`, only {', '.join(whole)}. Rename one.")
        found = {option: whole.get(split) for option, split in splits.items()}
    elif _has_languages(first, whole) and any(isinstance(part, DatasetDict) for part in whole.values()):
        of_languages = {name: _spread({**dict.fromkeys(others), first: part}, splits) for name, part in whole.items()}
        found = {option: {name: parts[option] for name, parts in of_languages.items()} for option in splits}
    else:
        return corpora
    return found | {option: corpora[option] for option in others if corpora[option] is not None}


def _has_languages(option: str, data: Any) -> bool:
    """Whether the data are {language: corpus}."""
    return option in HAVE_LANGUAGES and isinstance(data, Mapping) and not isinstance(data, DatasetDict)


def _names(option: str, data: Any, memory: dict[str, Any]) -> Iterator[str]:
    """What stands on the command line for a corpus: a path as it is, for what is in memory a name, under which `memory` gets it.

    Raises:
        InputError: a list of strings that are names of files: a list of strings is text.
    """
    if data is None:
        return
    if isinstance(data, str | os.PathLike):
        yield os.fspath(data)
    elif _has_languages(option, data):
        for language, part in data.items():
            yield from (f"{language}={name}" for name in _names(f"{option} {language}", part, memory))
    elif _all_are(data, os.PathLike):
        yield from map(os.fspath, data)
    elif _all_are(data, str) and all(map(FILE_NAME.fullmatch, data)):
        raise InputError(
            f"{option}: {data[0]!r} is the name of a file, and a list of strings is text. Give one file as a string, several as "
            "a list of pathlib.Path."
        )
    else:
        name = f"{option} in memory"
        memory[name] = data
        yield name


def _all_are(data: Any, kind: type) -> bool:
    """Whether it is a list of this kind, with something in it."""
    return isinstance(data, list | tuple) and bool(data) and all(isinstance(item, kind) for item in data)


def _parse(options: dict[str, Any]) -> tuple[DataArguments, ModelArguments, GlodeTrainingArguments, RunArguments]:
    """The arguments of a run, as the command line gives them.

    Raises:
        InputError: an option has a value that it cannot have.
    """
    texts = {name: _texts(value) for name, value in options.items()}
    argv = [part for name, values in texts.items() if values for part in (f"--{name}", *values)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse_arguments(argv)
    except SystemExit:  # argparse's way to refuse
        reason = " ".join(said.getvalue().rpartition("error: ")[2].split())
        raise InputError(f"an option of train() has a value that it cannot have: {reason}. See glode train --help_all.") from None


def _texts(value: Any) -> list[str]:
    """An option's value as it is written on a command line."""
    if value is None:
        return []
    if isinstance(value, list | tuple | set):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, Mapping):
        return [json.dumps(value)]
    return [str(value.value if isinstance(value, Enum) else value)]
