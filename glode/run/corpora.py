"""The corpora of a run: files, a data set on the Hub, or the embedded demo."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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

Parts = dict[str, dict[str, Dataset]]  # the name of a corpus, see `CORPORA` -> language -> its sentences


@dataclass
class Corpora:
    """The corpora of a run. `target` keeps the gold entities of the target text, if any, for the report only.

    Several languages lie one after the other; `rows` has the sentences of each, of every corpus by its name. `target_train` are
    labelled target sentences, `taken_out` those that the target text had as well. `names_of_teachers` are the names in
    --label_map that no corpus has, and what they become.
    """

    source: Dataset
    dev: Dataset
    source_test: Dataset | None
    target: Dataset
    target_test: Dataset | None
    rows: dict[str, dict[str, range]]
    target_train: Dataset | None = None
    taken_out: Dataset | None = None
    names_of_teachers: dict[str, str] = field(default_factory=dict)

    def present(self) -> dict[str, Dataset]:
        """The corpora that there are, by name."""
        named = {name: getattr(self, name) for name in CORPORA}
        return {name: corpus for name, corpus in named.items() if corpus is not None}

    def by_language(self, name: str) -> dict[str, range]:
        """The sentences of each language in a corpus, empty where its side, source or target, has not several languages."""
        side = "target" if name.startswith("target") else "source"
        return self.rows.get(name, {}) if len(self.rows[side]) > 1 else {}


def load_corpora(
    arguments: DataArguments,
    memory: Mapping[str, Any] | None = None,
    more_types: Iterable[str] | None = (),
    keeps_target: bool = False,
) -> Corpora:
    """Read all corpora.

    Args:
        memory: what is no file: name -> data, see `from_memory`; a corpus argument of that name stands for them.
        more_types: which --label_map may name, too: those of given pseudo labels and of teachers. None for any.
        keeps_target: whether labelled target sentences stay in the target text as well: given pseudo labels are of all of it.
    Raises:
        InputError: something is missing, broken, or not enough for a run.
    """
    data, memory = dataclasses.replace(arguments), memory or {}
    _check_languages(data)
    names = ("encoding", "encoding_errors", "token_column", "tag_column", "scheme", "text_field")
    options = ReadingOptions(**{name: getattr(data, name) for name in names})
    parts = _from_hub(data, options) if data.dataset_name else _from_files(data, options, memory)
    parts["target_train"] = _by_language("target_train", data, True, options, memory)
    types = _types_of_sources(parts)
    for name, most in (("source", data.max_source_samples), ("target", data.max_target_samples)):
        if most:
            parts[name] = {language: part.select(range(min(most, len(part)))) for language, part in parts[name].items()}
    parts["target"], taken_out = (parts["target"], None) if keeps_target else _without(parts["target"], parts["target_train"])
    _set_dev_aside(parts)
    rows = {name: rows_of(part) for name, part in parts.items()}
    joined: dict[str, Any] = {name: _joined(part) for name, part in parts.items()}
    corpora = Corpora(**joined, rows=rows, taken_out=taken_out)
    mapping = parse_label_map(data.label_map) if data.label_map else {}
    if mapping:
        _map_labels(corpora, mapping, more_types)
    _check_same_types({language: {mapping.get(name, name) for name in names} - {"O"} for language, names in types.items()})
    _warn_of_case(set().union(*map(types_of, corpora.present().values())))
    return corpora


def _check_languages(data: DataArguments) -> None:
    """Whether there are languages on both sides.

    Raises:
        InputError: there are not.
    """
    if not data.target_languages:
        raise InputError(f"--target_lang {data.target_lang!r}: expected a language, such as zh, or several: de,es,nl.")
    if not data.source_languages:
        raise InputError(f"--source_lang {data.source_lang!r}: expected a language with labels, such as en, or several: en,es.")


def _from_hub(data: DataArguments, options: ReadingOptions) -> Parts:
    """The corpora out of a data set on the Hub."""
    name = data.dataset_name or ""
    languages = dict.fromkeys([*data.source_languages, *data.target_languages])
    read = {language: load_hub_corpus(name, language, options, language in data.source_languages) for language in languages}
    for language, corpus in read.items():
        if "train" not in corpus:
            raise InputError(f"data set {name!r} ({language}) has no part `train`, only {', '.join(corpus)}.")
    wanted = {"source": ("source", "train"), "dev": ("source", "validation"), "source_test": ("source", "test")}
    wanted |= {"target": ("target", "train"), "target_test": ("target", "test")}
    sides = {"source": data.source_languages, "target": data.target_languages}
    return {
        corpus: {language: read[language][part] for language in sides[side] if part in read[language]}
        for corpus, (side, part) in wanted.items()
    }


def _from_files(data: DataArguments, options: ReadingOptions, memory: Mapping[str, Any]) -> Parts:
    """The corpora out of files, out of memory, or the demo's."""
    if not data.source_train and not data.target_unlabeled:
        _use_demo(data)
    if not data.source_train or not data.target_unlabeled:
        raise InputError(
            f"--{'target_unlabeled' if data.source_train else 'source_train'} is missing. Give both --source_train and "
            "--target_unlabeled, or --dataset_name, or none of them for the demo."
        )
    arguments = {"source": "source_train", "dev": "source_dev", "source_test": "source_test"}
    arguments |= {"target": "target_unlabeled", "target_test": "target_test"}
    parts = {corpus: _by_language(argument, data, corpus != "target", options, memory) for corpus, argument in arguments.items()}
    for corpus, languages in (("source", data.source_languages), ("target", data.target_languages)):
        if missing := [language for language in languages if language not in parts[corpus]]:
            option = f"--{arguments[corpus]}"
            raise InputError(f"{option} names no file in {missing[0]!r}. Give {option} {missing[0]}=FILE too.")
    return parts


def _read(path: str, labelled: bool, options: ReadingOptions, memory: Mapping[str, Any]) -> Dataset:
    """A corpus in a file, or what `memory` has under its name."""
    if path in memory:
        return from_memory(memory[path], labelled, options, path)
    return load_corpus(path, labelled, options)


def _by_language(
    name: str, data: DataArguments, labelled: bool, options: ReadingOptions, memory: Mapping[str, Any]
) -> dict[str, Dataset]:
    """The corpus of each language that has files in the argument `name`."""
    files = files_by_language(name, getattr(data, name), languages_of(name, data))
    return {
        language: concatenate_datasets([_read(path, labelled, options, memory) for path in paths])
        for language, paths in files.items()
    }


def _joined(parts: dict[str, Dataset]) -> Dataset | None:
    return concatenate_datasets(list(parts.values())) if parts else None


def _set_dev_aside(parts: Parts) -> None:
    """A tenth of the source sentences of each language that has no development set becomes one.

    Raises:
        InputError: there are too few.
    """
    several = len(parts["source"]) > 1
    for language, corpus in parts["source"].items():
        if language in parts["dev"]:
            continue
        name = f"--source_dev {language}=FILE" if several else "--source_dev"
        if len(corpus) < 2:
            raise InputError(f"{name} is missing and the source corpus is too small to set a tenth of it aside. Give {name}.")
        split = corpus.train_test_split(test_size=max(1, len(corpus) // 10), seed=0)
        parts["source"][language], parts["dev"][language] = split["train"], split["test"]
        logger.warning(f"No {name}: {len(split['test'])} source sentences are set aside to choose the checkpoint.")
    parts["dev"] = {language: parts["dev"][language] for language in parts["source"]}


def _types_of_sources(parts: Parts) -> dict[str, set[str]]:
    """The types that the labelled corpora of each source language have, where there are several."""
    labelled = [parts[name] for name in ("source", "dev", "source_test")]
    return {
        language: set[str]().union(*(types_of(part[language]) for part in labelled if language in part))
        for language in (parts["source"] if len(parts["source"]) > 1 else ())
    }


def _check_same_types(types: Mapping[str, set[str]]) -> None:
    """Whether one model can learn the types of all source languages.

    Raises:
        InputError: they differ.
    """
    if len(set(map(frozenset, types.values()))) > 1:
        told = "; ".join(f"{language} has {', '.join(sorted(names)) or 'none'}" for language, names in types.items())
        raise InputError(
            f"the source languages have different types: {told}. Entities that a corpus does not label would be learnt as O. "
            "Rename types by --label_map, or drop them: --label_map MISC=O."
        )


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


def languages_of(option: str, data: DataArguments) -> list[str]:
    """The languages in which files of an argument are."""
    return data.source_languages if option.startswith("source") else data.target_languages


def files_by_language(option: str, values: list[str] | None, languages: list[str]) -> dict[str, list[str]]:
    """The files of each language, in the languages' order: FILE, or LANGUAGE=FILE.

    Raises:
        InputError: it does not say of several languages which one a file is in, or names one that there is not.
    """
    files: dict[str, list[str]] = {}
    for value in values or []:
        language, equals, path = value.partition("=")
        if equals and language in languages:
            files.setdefault(language, []).append(path)
        elif len(languages) == 1:
            if equals and re.fullmatch(r"[a-z]{2,3}([-_]\w+)?", language) and not Path(value).exists():
                named, both = f"--{option.split('_')[0]}_lang", ",".join([*languages, language])
                raise InputError(f"--{option} {value}: {language} is no language of {named} {languages[0]}. Give {named} {both}.")
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
    if data.source_languages != ["en"]:
        raise InputError(
            f"the demo corpus has labels in English alone, and --source_lang is {data.source_lang}. Give --source_train and "
            "--target_unlabeled for other languages."
        )
    if missing := [language for language in data.target_languages if language not in demo_languages()]:
        raise InputError(
            f"the demo corpus has no text in {missing[0]!r}; it has {', '.join(demo_languages())}. For other languages "
            "give --source_train and --target_unlabeled, or --dataset_name."
        )
    data.source_train, data.source_dev = ([str(DEMO_DIRECTORY / "en" / f"{part}.iob2")] for part in ("train", "dev"))
    data.target_unlabeled, data.target_test = (
        [f"{language}={DEMO_DIRECTORY / language / name}" for language in data.target_languages]
        for name in ("unlabeled.txt", "test.iob2")
    )


def _map_labels(corpora: Corpora, mapping: dict[str, str], more_types: Iterable[str] | None) -> None:
    """Apply --label_map to all corpora.

    Raises:
        InputError: neither a corpus nor `more_types` has a type that it names.
    """
    given = corpora.present()
    in_corpora = set[str]().union(*map(types_of, given.values()))
    corpora.names_of_teachers = {old: new for old, new in mapping.items() if old not in in_corpora}
    known = in_corpora | set(mapping if more_types is None else more_types)
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
