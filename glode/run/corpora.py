"""The corpora of a run: files, a data set on the Hub, or the embedded demo."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers.utils import logging

from glode.corpora.hub import load_hub_corpus
from glode.corpora.labels import map_types, parse_label_map, types_of
from glode.corpora.memory import from_memory
from glode.corpora.options import ReadingOptions
from glode.corpora.reading import load_corpus
from glode.errors import InputError
from glode.run.arguments import DataArguments
from glode.run.embedded import DEMO_DIRECTORY, demo_languages

logger = logging.get_logger("glode")

CORPORA = ("source", "dev", "source_test", "target", "target_train", "target_test")

# Source training, development and test set; each target language's text and test set.
Parts = tuple[Dataset, Dataset | None, Dataset | None, dict[str, Dataset], dict[str, Dataset]]


@dataclass
class Corpora:
    """The corpora of a run. `target` keeps the gold entities of the target text, if any, for the report only.

    Several target languages lie one after the other in `target`, `target_train` and `target_test`; `rows` has the sentences of
    each. `target_train` are labelled target sentences, `taken_out` those that the target text had as well.
    """

    source: Dataset
    dev: Dataset
    source_test: Dataset | None
    target: Dataset
    target_test: Dataset | None
    rows: dict[str, dict[str, range]]
    target_train: Dataset | None = None
    taken_out: Dataset | None = None

    def present(self) -> dict[str, Dataset]:
        """The corpora that there are, by name."""
        named = {name: getattr(self, name) for name in CORPORA}
        return {name: corpus for name, corpus in named.items() if corpus is not None}

    def by_language(self, name: str) -> dict[str, range]:
        """The sentences of each target language in a corpus, empty where there are not several languages."""
        return self.rows.get(name, {}) if len(self.rows["target"]) > 1 else {}


def load_corpora(
    arguments: DataArguments,
    memory: Mapping[str, Any] | None = None,
    more_types: Iterable[str] = (),
    keeps_target: bool = False,
) -> Corpora:
    """Read all corpora.

    Args:
        memory: what is no file: name -> data, see `from_memory`; a corpus argument of that name stands for them.
        more_types: which --label_map may name, too: those of given pseudo labels.
        keeps_target: whether labelled target sentences stay in the target text as well: given pseudo labels are of all of it.
    Raises:
        InputError: something is missing, broken, or not enough for a run.
    """
    data, languages = dataclasses.replace(arguments), arguments.target_languages
    if not languages:
        raise InputError(f"--target_lang {data.target_lang!r}: expected a language, such as zh, or several: de,es,nl.")
    names = ("encoding", "encoding_errors", "token_column", "tag_column", "scheme", "text_field")
    options = ReadingOptions(**{name: getattr(data, name) for name in names})
    read = _from_hub(data, options) if data.dataset_name else _from_files(data, options, memory or {})
    source, dev, source_test, target, target_test = read
    if data.max_source_samples:
        source = source.select(range(min(data.max_source_samples, len(source))))
    if data.max_target_samples:
        target = {name: part.select(range(min(data.max_target_samples, len(part)))) for name, part in target.items()}
    target_train = _by_language("target_train", data, True, options, memory or {})
    target, taken_out = (target, None) if keeps_target else _without(target, target_train)
    rows = {"target": rows_of(target), "target_train": rows_of(target_train), "target_test": rows_of(target_test)}
    joined = _joined(target)
    assert joined is not None, "there is a target language"
    corpora = Corpora(source, dev, source_test, joined, _joined(target_test), rows, _joined(target_train), taken_out)
    if data.label_map:
        _map_labels(corpora, parse_label_map(data.label_map), more_types)
    _warn_of_case(set().union(*map(types_of, corpora.present().values())))
    if corpora.dev is None:
        if len(corpora.source) < 2:
            raise InputError(
                "--source_dev is missing and the source corpus is too small to set a tenth of it aside. Give --source_dev."
            )
        split = corpora.source.train_test_split(test_size=max(1, len(corpora.source) // 10), seed=0)
        corpora.source, corpora.dev = split["train"], split["test"]
        logger.warning(f"No --source_dev: {len(corpora.dev)} source sentences are set aside to choose the checkpoint.")
    return corpora


def _from_hub(data: DataArguments, options: ReadingOptions) -> Parts:
    """The corpora out of a data set on the Hub."""
    name = data.dataset_name or ""
    source = load_hub_corpus(name, data.source_lang, options, labelled=True)
    targets = {language: load_hub_corpus(name, language, options) for language in data.target_languages}
    for language, corpus in {data.source_lang: source, **targets}.items():
        if "train" not in corpus:
            raise InputError(f"data set {name!r} ({language}) has no part `train`, only {', '.join(corpus)}.")
    target = {language: corpus["train"] for language, corpus in targets.items()}
    target_test = {language: corpus["test"] for language, corpus in targets.items() if "test" in corpus}
    return source["train"], source.get("validation"), source.get("test"), target, target_test


def _from_files(data: DataArguments, options: ReadingOptions, memory: Mapping[str, Any]) -> Parts:
    """The corpora out of files, out of memory, or the demo's."""
    languages = data.target_languages
    if not data.source_train and not data.target_unlabeled:
        _use_demo(data)
    if not data.source_train or not data.target_unlabeled:
        raise InputError(
            f"--{'target_unlabeled' if data.source_train else 'source_train'} is missing. Give both --source_train and "
            "--target_unlabeled, or --dataset_name, or none of them for the demo."
        )
    read = partial(_read, options=options, memory=memory)
    source = read(data.source_train, True)
    dev, source_test = (read(path, True) if path else None for path in (data.source_dev, data.source_test))
    target, target_test = (
        _by_language(name, data, labelled, options, memory)
        for name, labelled in (("target_unlabeled", False), ("target_test", True))
    )
    if missing := [language for language in languages if language not in target]:
        raise InputError(f"--target_unlabeled has no text in {missing[0]!r}. Give --target_unlabeled {missing[0]}=FILE too.")
    return source, dev, source_test, target, target_test


def _read(path: str, labelled: bool, options: ReadingOptions, memory: Mapping[str, Any]) -> Dataset:
    """A corpus in a file, or what `memory` has under its name."""
    if path in memory:
        return from_memory(memory[path], labelled, options, path)
    return load_corpus(path, labelled, options)


def _by_language(
    name: str, data: DataArguments, labelled: bool, options: ReadingOptions, memory: Mapping[str, Any]
) -> dict[str, Dataset]:
    """The corpus of each target language that has files in the argument `name`."""
    files = files_by_language(name, getattr(data, name), data.target_languages)
    return {
        language: concatenate_datasets([_read(path, labelled, options, memory) for path in paths])
        for language, paths in files.items()
    }


def _joined(parts: dict[str, Dataset]) -> Dataset | None:
    return concatenate_datasets(list(parts.values())) if parts else None


def _without(target: dict[str, Dataset], labelled: dict[str, Dataset]) -> tuple[dict[str, Dataset], Dataset | None]:
    """The target text without the sentences that are labelled, however they are cut into words; and these, None of none.

    Raises:
        InputError: nothing would be left of a language.
    """
    kept, taken = dict(target), []
    for language, corpus in labelled.items():
        given = {"".join(words) for words in corpus["words"]}
        is_given = ["".join(words) in given for words in target[language]["words"]]
        if all(is_given):
            raise InputError(
                f"all of --target_unlabeled in {language!r} is labelled in --target_train: nothing is left to label. Give more "
                "text."
            )
        if any(is_given):
            kept[language], there = (
                target[language].select([i for i, labelled in enumerate(is_given) if labelled == wanted])
                for wanted in (False, True)
            )
            taken.append(there)
    return kept, concatenate_datasets(taken) if taken else None


def files_by_language(option: str, values: list[str] | None, languages: list[str]) -> dict[str, list[str]]:
    """The files of each target language, in the languages' order: FILE, or LANGUAGE=FILE.

    Raises:
        InputError: it does not say of several languages which one a file is in.
    """
    files: dict[str, list[str]] = {}
    for value in values or []:
        language, equals, path = value.partition("=")
        if equals and language in languages:
            files.setdefault(language, []).append(path)
        elif len(languages) == 1:
            files.setdefault(languages[0], []).append(value)
        else:
            raise InputError(f"--{option} {value}: in which of {', '.join(languages)}? Give {languages[0]}={value}, for example.")
    return {language: files[language] for language in languages if language in files}


def rows_of(parts: dict[str, Dataset]) -> dict[str, range]:
    """Where each part lies when they are joined in order."""
    ends = list(itertools.accumulate(map(len, parts.values()), initial=0))
    return {name: range(*bounds) for name, bounds in zip(parts, itertools.pairwise(ends), strict=True)}


def _use_demo(data: DataArguments) -> None:
    for name in ("source_dev", "source_test", "target_test"):
        if getattr(data, name):
            raise InputError(
                f"--{name} is given without a corpus to train on. Give --source_train and --target_unlabeled as well."
            )
    if missing := [language for language in data.target_languages if language not in demo_languages()]:
        raise InputError(
            f"the demo corpus has no text in {missing[0]!r}; it has {', '.join(demo_languages())}. For other languages "
            "give --source_train and --target_unlabeled, or --dataset_name."
        )
    data.source_train, data.source_dev = (str(DEMO_DIRECTORY / "en" / f"{part}.iob2") for part in ("train", "dev"))
    data.target_unlabeled, data.target_test = (
        [f"{language}={DEMO_DIRECTORY / language / name}" for language in data.target_languages]
        for name in ("unlabeled.txt", "test.iob2")
    )


def _map_labels(corpora: Corpora, mapping: dict[str, str], more_types: Iterable[str]) -> None:
    """Apply --label_map to all corpora.

    Raises:
        InputError: neither a corpus nor `more_types` has a type that it names.
    """
    given = corpora.present()
    known = set(more_types).union(*map(types_of, given.values()))
    if unknown := sorted(set(mapping) - known):
        raise InputError(f"--label_map: no corpus has the type {unknown[0]!r}. There are {', '.join(sorted(known)) or 'none'}.")
    for name, corpus in given.items():
        setattr(corpora, name, map_types(corpus, mapping))


def _warn_of_case(types: set[str]) -> None:
    """Say which types differ in capitals alone."""
    alike: dict[str, list[str]] = {}
    for name in sorted(types):
        alike.setdefault(name.casefold(), []).append(name)
    for first, *others in alike.values():
        if others:
            mend = ",".join(f"{other}={first}" for other in others)
            logger.warning(f"types that differ in capitals alone: {first}, {', '.join(others)}. One type: --label_map {mend}.")


def check_dev(source: Dataset, dev: Dataset) -> None:
    """Whether a development set can choose a checkpoint.

    Raises:
        InputError: it has no entity, or none of a type that the source has.
    """
    found, known = types_of(dev), types_of(source)
    if not found:
        raise InputError("the development set has no entity: every tag is O. It cannot choose a checkpoint; give --source_dev.")
    if not found & known:
        raise InputError(
            f"--source_dev has the types {', '.join(sorted(found))}, the source has {', '.join(sorted(known))}: it cannot choose "
            "a checkpoint. Map them with --label_map."
        )
    if foreign := ", ".join(sorted(found - known)):
        logger.warning(f"the development set has types that the source lacks, which count as missed: {foreign}.")


def check_target_train(corpus: Dataset, types: Sequence[str]) -> None:
    """Whether the labelled target sentences can be learnt.

    Raises:
        InputError: they have no entity, or types that are none of the model's.
    """
    found, known = types_of(corpus), set(types) - {"O"}
    if not found:
        raise InputError(
            "--target_train has no entity: every tag is O, or nothing was labelled. Give sentences some of which have entities."
        )
    if foreign := sorted(found - known):
        mend = ",".join(f"{name}=O" for name in foreign)
        raise InputError(
            f"--target_train has the types {', '.join(foreign)}, which the source lacks; it has {', '.join(sorted(known))}. "
            f"Rename them by --label_map, or drop them: --label_map {mend}."
        )


def restrict_to(corpus: Dataset, types: list[str], name: str) -> Dataset:
    """Drop gold entities of types that the source does not have, and say so: they cannot be predicted.

    Raises:
        InputError: a test set shares no type with the source.
    """
    found, known = types_of(corpus), set(types) - {"O"}
    foreign, missing = sorted(found - known), sorted(known - found)
    if foreign and len(foreign) == len(found) and name.endswith("test"):
        raise InputError(
            f"--{name} has the types {', '.join(foreign)}, the source has {', '.join(sorted(known))}: none is shared. "
            "Map them with --label_map."
        )
    if not found and name.endswith("test"):
        logger.warning(f"{name} has no entity, every tag is O: its F1 can only be 0.")
    if found and (foreign or missing):
        differ = [f"{', '.join(names)} only in {where}" for names, where in ((foreign, name), (missing, "the source")) if names]
        shared = ", ".join(sorted(found & known))
        logger.warning(f"{name} and the source differ in types ({'; '.join(differ)}): scores are on {shared}.")
    return map_types(corpus, dict.fromkeys(foreign, "O"))
