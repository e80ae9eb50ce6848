"""Trains a named-entity recogniser for a language without labels, from labels in another language.

    accelerate launch run_crossner.py --target_lang zh

trains on the embedded demo corpus with the embedded encoder. Give your own corpora and backbone:

    accelerate launch run_crossner.py --source_train en.iob2 --source_dev en.dev.iob2 --target_unlabeled zh.txt \\
        --target_test zh.iob2 --model_name_or_path xlm-roberta-large --target_lang zh

Two stages: the source model is trained on the source labels and gives soft pseudo labels to the target text; a fresh target
model is trained on both while prototypes and nearest neighbours refine those labels. Target labels, where the corpora have
them, are read for reports only.
"""

import dataclasses
import gc
import itertools
import json
import os
import resource
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import faiss
import torch
import yaml
from datasets import Dataset, concatenate_datasets
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, HfArgumentParser, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging

import glode
from glode.corpora.hub import load_hub_corpus
from glode.corpora.labels import count_repeated, label_names, map_types, summarize, types_of
from glode.corpora.options import SCHEMES, ReadingOptions
from glode.corpora.reading import load_corpus
from glode.denoising.pseudo_labels import PseudoLabels
from glode.errors import InputError, run_command
from glode.fast.products import faster_products
from glode.features.windows import (
    build_features,
    choose_span_length,
    gold_entities,
    list_lengths,
    reachable_entities,
    unreachable_share,
)
from glode.metrics import entity_scores, of_known_types
from glode.publishing.card import EXAMPLES, PICTURE, TOKENS_CARD, plot_pseudo_labels, write_card
from glode.publishing.hub import copy_code, make_portable, open_repository, publish
from glode.publishing.token_classifier import predict_entities, train_token_classifier
from glode.run.embedded import DEMO_BACKBONE, DEMO_DIRECTORY, convert_e5, demo_languages
from glode.training.arguments import GlodeTrainingArguments
from glode.training.checkpoints import damage, newest_checkpoint
from modeling_glode import GlodeConfig, GlodeModel, encoder_capacity, join_unspaced
from trainer_glode import DENOISING_STATE, GlodeTrainer

logger = logging.get_logger("glode")

DEMO_RECIPE = Path(glode.__file__).parent / "run" / "recipes" / "demo.yaml"
UNSPACED_LANGUAGES = {"zh", "ja", "th", "lo", "km", "yue", "wuu"}


@dataclass
class DataArguments:
    """What is read."""

    target_lang: str = field(
        metadata={
            "help": "Language without labels, such as zh; the configuration of a Hub data set. Several make one model: de,es,nl."
        }
    )
    source_lang: str = field(default="en", metadata={"help": "Language with labels."})
    source_train: str | None = field(
        default=None,
        metadata={
            "help": "Labelled source corpus: columns (tag last), .jsonl or .json (tokens and tags, or text and offsets), "
            ".parquet, .spacy or a directory of `datasets`; also as .gz, .bz2, .xz or .zst."
        },
    )
    source_dev: str | None = field(
        default=None,
        metadata={"help": "Labelled source development set, which chooses the checkpoint. Default: a tenth of the training set."},
    )
    source_test: str | None = field(default=None, metadata={"help": "Labelled source test set, for the report."})
    target_unlabeled: list[str] | None = field(
        default=None,
        metadata={
            "help": "Target text, one file or several: .txt of sentences or paragraphs, or a labelled corpus, whose tags only "
            "the report reads. With several target languages: de=FILE es=FILE."
        },
    )
    target_test: list[str] | None = field(
        default=None,
        metadata={"help": "Labelled target test set, for the report. With several target languages: de=FILE es=FILE."},
    )
    label_map: str | None = field(
        default=None,
        metadata={"help": "Renames, merges and drops types of all corpora: FIRST=PER,LAST=PER,MISC=O."},
    )
    encoding: str = field(default="utf-8", metadata={"help": "Encoding of the corpora that are not UTF-8, such as latin-1."})
    encoding_errors: str = field(
        default="strict",
        metadata={
            "help": "What to do where bytes are no text: end with a message, or replace them by U+FFFD and count them.",
            "choices": ["strict", "replace"],
        },
    )
    token_column: str | None = field(
        default=None,
        metadata={"help": "Column of the words, where a file does not show it: 1 is the first, -1 the last; or its name."},
    )
    tag_column: str | None = field(
        default=None, metadata={"help": "Column of the tags, the same; in CoNLL-U also a key of the last column, such as NER."}
    )
    scheme: str | None = field(
        default=None, metadata={"help": "Label scheme of the tags, where they do not show it.", "choices": list(SCHEMES)}
    )
    text_field: str | None = field(default=None, metadata={"help": "Key of the text in JSON records. Default: text."})
    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Data set on the Hub in place of files, such as unimelb-nlp/wikiann; one configuration a language."},
    )
    max_source_samples: int | None = field(default=None, metadata={"help": "Use only the first source training sentences."})
    max_target_samples: int | None = field(
        default=None, metadata={"help": "Use only the first target training sentences of each language."}
    )

    @property
    def target_languages(self) -> list[str]:
        """The languages of `target_lang`."""
        return list(dict.fromkeys(name.strip() for name in self.target_lang.split(",") if name.strip()))


@dataclass
class ModelArguments:
    """What is trained."""

    model_name_or_path: str = field(
        default=DEMO_BACKBONE,
        metadata={
            "help": "Encoder: a Hub name or a directory. e5-small is the embedded multilingual-e5-small, trimmed to the corpora."
        },
    )
    max_span_length: int | None = field(
        default=None, metadata={"help": "L, the longest entity in words. Default: covers 99.5 % of the source's entities."}
    )
    max_tokens: int = field(
        default=256, metadata={"help": "Tokens a window; longer sentences become several overlapping windows."}
    )
    dropout: float = field(default=0.2, metadata={"help": "Dropout in the encoder and on its output."})
    projection_size: int = field(default=128, metadata={"help": "Size of the vectors that the denoiser compares."})
    attn_implementation: str = field(
        default="sdpa", metadata={"help": "Attention of the encoder: sdpa, eager, flash_attention_2."}
    )


@dataclass
class RunArguments:
    """What is done."""

    config: str | None = field(default=None, metadata={"help": "YAML file with any of these arguments; the command line wins."})
    stage: str = field(
        default="all",
        metadata={
            "help": "Train the source model, the target model (with --source_model) or both.",
            "choices": ["all", "source", "target"],
        },
    )
    source_model: str | None = field(default=None, metadata={"help": "Directory of a source model that is there already."})
    pseudo_labels: str | None = field(
        default=None, metadata={"help": "File of pseudo labels that are there already (pseudo_labels.safetensors)."}
    )
    export_token_classifier: bool = field(
        default=False,
        metadata={
            "help": "Also train a built-in token classifier on the source labels and the refined pseudo labels, for the hosted "
            "widget and ONNX. Goes to token_classifier/ and, with --push_to_hub, to a repository of its own, ID-tokens."
        },
    )
    token_classifier_epochs: float = field(default=2, metadata={"help": "Epochs of the token classifier's training."})
    license: str | None = field(default=None, metadata={"help": "The model's license, for its card, as the Hub names it."})
    widget_examples: list[str] | None = field(
        default=None, metadata={"help": "Sentences for the card and the widget. Default: some of ours in the target language."}
    )
    model_cache: str = field(default="~/.cache/glode", metadata={"help": "Where the embedded encoder is converted to."})


@dataclass
class Corpora:
    """The corpora of a run. `target` keeps the gold entities of the target text, if any, for the report only.

    Several target languages lie one after the other in `target` and `target_test`; `rows` has the sentences of each.
    """

    source: Dataset
    dev: Dataset
    source_test: Dataset | None
    target: Dataset
    target_test: Dataset | None
    rows: dict[str, dict[str, range]]

    def present(self) -> dict[str, Dataset]:
        """The corpora that there are, by name."""
        named = {name: getattr(self, name) for name in ("source", "dev", "source_test", "target", "target_test")}
        return {name: corpus for name, corpus in named.items() if corpus is not None}

    def by_language(self, name: str) -> dict[str, range]:
        """The sentences of each target language in a corpus, empty where there are not several languages."""
        return self.rows.get(name, {}) if len(self.rows["target"]) > 1 else {}


def parse_arguments(argv: list[str]) -> tuple[DataArguments, ModelArguments, GlodeTrainingArguments, RunArguments]:
    """Command line over `--config` file over defaults.

    Raises:
        InputError: the file is missing or is not a flat YAML mapping of known arguments.
    """
    parser = HfArgumentParser(
        (DataArguments, RunArguments, ModelArguments, GlodeTrainingArguments),
        description=__doc__.split("\n\n")[0],
        prog="run_crossner.py",
        allow_abbrev=False,
    )
    path = _value_of(argv, "--config")
    given = {name for name in ("source_train", "target_unlabeled", "dataset_name") if _value_of(argv, f"--{name}")}
    if path is None and not given:
        path = str(DEMO_RECIPE)
    values = _read_config(path) if path else {}
    known = {action.dest for action in parser._actions}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{path}: unknown argument {unknown[0]!r}. See run_crossner.py --help.")
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items() if value is not None}
    from_file = [part for name, value in lists.items() for part in (f"--{name}", *map(str, value))]
    try:
        data, run, model, training, rest = parser.parse_args_into_dataclasses([*from_file, *argv], return_remaining_strings=True)
    except ValueError as error:  # what TrainingArguments refuses
        raise InputError(f"{' '.join(str(error).split())} See run_crossner.py --help for the arguments.") from error
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    for values, names in ((data, ("max_source_samples", "max_target_samples")), (model, ("max_span_length",))):
        for name in names:
            if (value := getattr(values, name)) is not None and value < 1:
                raise InputError(f"--{name} {value}: expected a number from 1 on.")
    if (wanted := training.resume_from_checkpoint) and wanted != "auto":
        stages = Path(training.output_dir, "source_checkpoints"), Path(training.output_dir, "target_checkpoints")
        if not Path(wanted).is_dir() or Path(wanted).resolve().parent not in [stage.resolve() for stage in stages]:
            raise InputError(
                f"--resume_from_checkpoint {wanted}: no checkpoint of --output_dir {training.output_dir}. Give auto."
            )
    if run.export_token_classifier and run.stage == "source":
        raise InputError("--export_token_classifier learns the pseudo labels of the target stage: give --stage all or target.")
    if model.max_tokens < 8:
        raise InputError(f"--max_tokens {model.max_tokens}: expected a number from 8 on.")
    return data, model, training, dataclasses.replace(run, config=path)


def _value_of(argv: list[str], option: str) -> str | None:
    """The value of an option, which the parser also takes with dashes for underscores (--source-train)."""
    for position, part in enumerate(argv):
        name, equals, value = part.partition("=")
        if name.replace("-", "_") != option.replace("-", "_"):
            continue
        return value if equals else next(iter(argv[position + 1 :]), None)
    return None


def _read_config(path: str) -> dict:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check --config.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start} ({error.reason}). Convert it to UTF-8.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}. Correct it.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected `argument: value` lines.")
    return values


def load_corpora(arguments: DataArguments) -> Corpora:
    """Read all corpora.

    Raises:
        InputError: something is missing, broken, or not enough for a run.
    """
    data, languages = dataclasses.replace(arguments), arguments.target_languages
    if not languages:
        raise InputError(f"--target_lang {data.target_lang!r}: expected a language, such as zh, or several: de,es,nl.")
    names = ("encoding", "encoding_errors", "token_column", "tag_column", "scheme", "text_field")
    options = ReadingOptions(**{name: getattr(data, name) for name in names})
    if data.dataset_name:
        source = load_hub_corpus(data.dataset_name, data.source_lang, options)
        targets = {language: load_hub_corpus(data.dataset_name, language, options) for language in languages}
        for language, corpus in {data.source_lang: source, **targets}.items():
            if "train" not in corpus:
                raise InputError(f"data set {data.dataset_name!r} ({language}) has no part `train`, only {', '.join(corpus)}.")
        source, dev, source_test = source["train"], source.get("validation"), source.get("test")
        target = {language: corpus["train"] for language, corpus in targets.items()}
        target_test = {language: corpus["test"] for language, corpus in targets.items() if "test" in corpus}
    else:
        if not data.source_train and not data.target_unlabeled:
            _use_demo(data)
        for name in ("source_train", "target_unlabeled"):
            if not getattr(data, name):
                raise InputError(
                    f"--{name} is missing. Give both --source_train and --target_unlabeled, or --dataset_name, or none of them "
                    "for the demo."
                )
        paths = (data.source_train, data.source_dev, data.source_test)
        source, dev, source_test = (load_corpus(path, True, options) if path else None for path in paths)
        target, target_test = (
            {
                language: concatenate_datasets([load_corpus(path, labelled, options) for path in files])
                for language, files in files_by_language(name, getattr(data, name), languages).items()
            }
            for name, labelled in (("target_unlabeled", False), ("target_test", True))
        )
        if missing := [language for language in languages if language not in target]:
            raise InputError(f"--target_unlabeled has no text in {missing[0]!r}. Give --target_unlabeled {missing[0]}=FILE too.")
    if data.max_source_samples:
        source = source.select(range(min(data.max_source_samples, len(source))))
    if data.max_target_samples:
        target = {name: part.select(range(min(data.max_target_samples, len(part)))) for name, part in target.items()}
    rows = {"target": rows_of(target), "target_test": rows_of(target_test)}
    joined = (concatenate_datasets(list(parts.values())) if parts else None for parts in (target, target_test))
    corpora = Corpora(source, dev, source_test, *joined, rows)
    if data.label_map:
        _map_labels(corpora, data.label_map)
    if corpora.dev is None:
        if len(corpora.source) < 2:
            raise InputError(
                "--source_dev is missing and the source corpus is too small to set a tenth of it aside. Give --source_dev."
            )
        parts = corpora.source.train_test_split(test_size=max(1, len(corpora.source) // 10), seed=0)
        corpora.source, corpora.dev = parts["train"], parts["test"]
        logger.warning(f"No --source_dev: {len(corpora.dev)} source sentences are set aside to choose the checkpoint.")
    return corpora


def files_by_language(option: str, values: list[str] | None, languages: list[str]) -> dict[str, list[str]]:
    """The files of each target language, in the languages' order: FILE, or LANGUAGE=FILE.

    Raises:
        InputError: it does not say of several languages which one a file is in.
    """
    files = {}
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


def _map_labels(corpora: Corpora, text: str) -> None:
    """Apply --label_map to all corpora.

    Raises:
        InputError: it is not OLD=NEW,OLD=NEW, or no corpus has a type that it names.
    """
    pairs = [pair.split("=") for pair in text.split(",")]
    if not all(len(pair) == 2 and all(map(str.strip, pair)) for pair in pairs):
        raise InputError(f"--label_map {text}: expected OLD=NEW,OLD=NEW, such as FIRST=PER,LAST=PER,MISC=O.")
    mapping = {old.strip(): new.strip() for old, new in pairs}
    given = corpora.present()
    known = set().union(*map(types_of, given.values()))
    if unknown := sorted(set(mapping) - known):
        raise InputError(f"--label_map: no corpus has the type {unknown[0]!r}. There are {', '.join(sorted(known)) or 'none'}.")
    for name, corpus in given.items():
        setattr(corpora, name, map_types(corpus, mapping))


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
    if found and (foreign or missing):
        differ = [f"{', '.join(names)} only in {where}" for names, where in ((foreign, name), (missing, "the source")) if names]
        shared = ", ".join(sorted(found & known))
        logger.warning(f"{name} and the source differ in types ({'; '.join(differ)}): scores are on {shared}.")
    return map_types(corpus, dict.fromkeys(foreign, "O"))


def load_backbone(arguments: ModelArguments, corpora: Corpora, cache: str) -> tuple[str, PreTrainedTokenizerBase]:
    """Path and tokenizer of the encoder.

    Raises:
        InputError: it cannot be loaded, or its tokenizer is not a fast one.
    """
    path = arguments.model_name_or_path
    if path == DEMO_BACKBONE:
        parts = [corpora.source, corpora.dev, corpora.target]
        texts = (" ".join(join_unspaced(words)[0]) for part in parts for words in part["words"])
        try:
            path = str(convert_e5(Path(cache).expanduser(), texts))
        except OSError as error:
            raise InputError(f"--model_cache {cache} cannot be written ({error.strerror}). Choose another directory.") from error
    try:
        AutoConfig.from_pretrained(path)  # fails sooner where the Hub is not there
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise _backbone_error(path, error) from error
    if not tokenizer.is_fast:
        raise InputError(f"backbone {path!r} has no fast tokenizer, and word alignment needs one. Use one with a tokenizer.json.")
    if tokenizer.mask_token_id is None:
        raise InputError(f"backbone {path!r} has no mask token. Use an encoder that was trained as a masked language model.")
    return path, tokenizer


def _backbone_error(path: str, error: Exception) -> InputError:
    return InputError(
        f"backbone {path!r} cannot be loaded: {' '.join(str(error).split())[:200]} Check the name, the connection to the Hub "
        "(HF_ENDPOINT, HF_TOKEN), or give a local directory."
    )


def glode_config(arguments: ModelArguments, path: str, tokenizer, labels: list[str], max_span_length: int) -> GlodeConfig:
    """The configuration of a fresh model on a backbone, with the wanted dropout in the encoder."""
    encoder = AutoConfig.from_pretrained(path)
    for name, value in encoder.to_dict().items():
        if "drop" in name and isinstance(value, (int, float)) and not isinstance(value, bool) and "classifier" not in name:
            setattr(encoder, name, arguments.dropout)
    return GlodeConfig(
        encoder,
        max_span_length=max_span_length,
        max_tokens=encoder_capacity(tokenizer, encoder, arguments.max_tokens),
        projection_size=arguments.projection_size,
        head_dropout=arguments.dropout,
        id2label=dict(enumerate(labels)),
    )


class Stopwatch:
    """Seconds since it was made, and the process' peak memory so far."""

    def __init__(self):
        self.start = time.perf_counter()

    def read(self) -> dict[str, float]:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        reading = {"seconds": round(time.perf_counter() - self.start, 1), "peak_memory_mb": round(memory)}
        if torch.cuda.is_available():
            reading["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
        return reading


class Run:
    """One run: what is common to both stages, and the stages."""

    def __init__(self, data: DataArguments, model: ModelArguments, training: GlodeTrainingArguments, run: RunArguments):
        self.data, self.model_arguments, self.training, self.run = data, model, training, run
        self.output = Path(training.output_dir)
        self.main = training.process_index == 0
        _check_writable(self.output)
        with training.main_process_first(desc="reading the corpora"):
            self.corpora = load_corpora(data)
            self.path, self.tokenizer = load_backbone(model, self.corpora, run.model_cache)
        self._say_what()
        self.summaries = self._summarize() if self.main else {}
        label_names(self.corpora.source)  # an entity in the development set alone is not enough
        self.labels = label_names(self.corpora.source, self.corpora.dev)
        self.last_stage = "source" if run.stage == "source" else "target"
        self.repository = self._open_repository() if training.push_to_hub else None
        self.length = model.max_span_length or self._choose_length()
        for name in ("target", "source_test", "target_test"):
            if (corpus := getattr(self.corpora, name)) is not None:
                setattr(self.corpora, name, restrict_to(corpus, self.labels, name))
        self.config = glode_config(model, self.path, self.tokenizer, self.labels, self.length)
        with training.main_process_first(desc="tokenising"):
            self.source, self.dev = (self._features(c, self.labels) for c in (self.corpora.source, self.corpora.dev))
            self.target = self._features(self.corpora.target)  # no labels: the target's entities are never read into features
        self._say_length()
        self.metrics = {
            "arguments": {"data": vars(data), "model": vars(model), "run": vars(run), "seed": training.seed},
            "corpora": self.summaries,
            "labels": self.labels,
            "max_span_length": self.length,
            "unreachable": self.unreachable,
            "cost": {},
        }
        self.predictions: dict[str, list] = {}  # of the model that was scored last: the entities of each sentence

    def _features(self, corpus: Dataset, labels: list[str] | None = None) -> Dataset:
        return build_features(corpus, self.tokenizer, self.config.max_tokens, self.length, labels)

    def _say_what(self) -> None:
        """The first lines of a run: what it takes, and how to give it one's own."""
        if not self.main:
            return
        data, demo = self.data, not (self.data.source_train or self.data.dataset_name)
        corpus = "embedded demo" if demo else data.dataset_name or " + ".join([data.source_train, *data.target_unlabeled])
        labelled, plain = len(self.corpora.source), len(self.corpora.target)
        sizes = f"{labelled} labelled {data.source_lang} and {plain} plain {data.target_lang} sentences"
        say("corpus", f"{corpus}: {sizes}")
        say("backbone", self.path)
        config = self.run.config or "defaults, which are those of the paper"
        say("settings", f"{config}; results go to {self.output}")
        if demo:
            say("your own", "--source_train, --target_unlabeled, --target_test or --dataset_name for the corpus,")
            say("", "--model_name_or_path for the backbone; --help explains all arguments")

    def _summarize(self) -> dict[str, dict]:
        """What each corpus holds, see `summarize`, also as a table; `repeated` counts the sentences that training has seen."""
        corpora = {}
        for name, corpus in self.corpora.present().items():
            parts = {f"{name} {language}": corpus.select(rows) for language, rows in self.corpora.by_language(name).items()}
            corpora |= parts or {name: corpus}
        summaries = {name: summarize(corpus) for name, corpus in corpora.items()}
        table = Table(box=None, caption="longest: sentence / entity, in words; seen: sentences that are in the training text too")
        for column in ("corpus", "format", "sentences", "words", "longest", "seen", "entities"):
            table.add_column(column, justify="left" if column in ("corpus", "format", "entities") else "right")
        for name, summary in summaries.items():
            if train := self._training_set_of(name):
                summary["repeated"] = count_repeated(corpora[name], corpora[train])
            longest = f"{summary['longest_sentence']} / {summary['longest_entity']}"
            numbers = map(str, (summary["sentences"], summary["words"], longest, summary.get("repeated", "")))
            entities = ", ".join(f"{label} {count}" for label, count in summary["entities"].items())
            table.add_row(name, summary["format"], *numbers, entities)
        console.print(table)
        for name, summary in summaries.items():
            for note, count in summary["notes"].items():
                say("noted", f"{name}: {count} {note}")
        return summaries

    @staticmethod
    def _training_set_of(name: str) -> str | None:
        """The corpus that a test or development set, such as "target_test de", must not repeat."""
        name, *language = name.split()
        train = {"dev": "source", "source_test": "source", "target_test": "target"}.get(name)
        return train and " ".join([train, *language])

    def _choose_length(self) -> int:
        length = choose_span_length(self.corpora.source)
        # A piece of a script without spaces is shorter than a word of the source.
        unspaced = any(language.split("-")[0] in UNSPACED_LANGUAGES for language in self.data.target_languages)
        return max(length, 8) if unspaced else length

    def _say_length(self) -> None:
        self.unreachable = shares = {"source": unreachable_share(self.corpora.source, self.source, self.length)}
        if (test := self.corpora.target_test) is not None:
            shares["target test"] = unreachable_share(test, self._features(test), self.length)
        if self.main:
            text = ", ".join(f"{100 * share:.1f} % of {name}" for name, share in shares.items())
            say("spans", f"up to L = {self.length} words; gold entities out of reach: {text}")

    # ----------------------------------------------------------------------------------------------------------- stages

    def trainer(self, model: GlodeModel, stage: str, pseudo_labels: PseudoLabels | None = None) -> GlodeTrainer:
        epochs = self.training.num_train_epochs
        if stage == "source" and self.training.source_num_train_epochs is not None:
            epochs = self.training.source_num_train_epochs
        directory = self.output / f"{stage}_checkpoints"
        pushes = self.repository is not None and stage == self.last_stage and self.training.hub_strategy != "end"
        if pushes and self.main:
            copy_code(directory)  # a push in the middle of training must be loadable
            self.write_card(directory)
        arguments = dataclasses.replace(
            self.training,
            output_dir=str(directory),
            num_train_epochs=epochs,
            push_to_hub=pushes,
            hub_model_id=self.repository,
        )
        references = gold_entities(self.corpora.target) if list_lengths(self.corpora.target, "types").any() else None
        return GlodeTrainer(
            model,
            arguments,
            self.tokenizer,
            source=self.source,
            target=self.target,
            dev=self.dev,
            dev_references=gold_entities(self.corpora.dev),
            pseudo_labels=pseudo_labels,
            target_references=references,
            languages=self.corpora.by_language("target"),
        )

    def fresh_model(self) -> GlodeModel:
        """The same initial model for both stages and on all processes."""
        set_seed(self.training.seed)
        try:
            return GlodeModel.from_encoder(self.path, self.config, attn_implementation=self.model_arguments.attn_implementation)
        except (OSError, ValueError, ImportError, SafetensorError) as error:  # no weights, or an attention that is not there
            raise _backbone_error(self.path, error) from error

    def source_stage(self) -> GlodeTrainer:
        watch = Stopwatch()
        if directory := self.run.source_model or self._finished("source_model"):
            try:
                model = GlodeModel.from_pretrained(directory)
                tokenizer = AutoTokenizer.from_pretrained(directory, config=model.config)  # else asks whether to run code
            except (OSError, ValueError, SafetensorError) as error:
                raise InputError(
                    f"--source_model {directory} cannot be loaded ({str(error).splitlines()[0]}). Give a source_model directory "
                    "that run_crossner.py has written."
                ) from error
            if tokenizer.get_vocab() != self.tokenizer.get_vocab():
                raise InputError(
                    f"--source_model {directory} has another vocabulary than the backbone {self.path}. Train it on this backbone."
                )
            found = (model.config.max_span_length, list(model.config.id2label.values()))
            if found != (self.length, self.labels):
                raise InputError(
                    f"--source_model {directory} has L = {found[0]} and types {found[1]}; this run needs "
                    f"L = {self.length} and {self.labels}. Give --max_span_length {found[0]}, or a model of these types."
                )
            trainer = self.trainer(model, "source")
        else:
            self._heading("stage 1: source model")
            trainer = self.trainer(self.fresh_model(), "source")
            self._train(trainer, "source")
            self._save_model(trainer, "source_model")
        self.metrics["cost"]["source_stage"] = watch.read()
        self.metrics["source_model"] = self._scores(trainer)
        return trainer

    def pseudo_labels(self, trainer: GlodeTrainer) -> PseudoLabels:
        watch = Stopwatch()
        if path := self.run.pseudo_labels or self._finished("pseudo_labels.safetensors"):
            labels = self._read_pseudo_labels(Path(path), trainer)
        else:
            labels = trainer.assign_pseudo_labels(self.target)
            if self.main:
                state = {"offsets": labels.offsets.cpu(), "probabilities": labels.probabilities.cpu()}
                partial = self.output / ".pseudo_labels.safetensors"
                save_file(state, partial)
                partial.replace(self.output / "pseudo_labels.safetensors")
        self.metrics["cost"]["pseudo_labels"] = watch.read()
        return labels

    def _read_pseudo_labels(self, path: Path, trainer: GlodeTrainer) -> PseudoLabels:
        if not path.is_file():
            raise InputError(f"--pseudo_labels {path} is not there. Check the path.")
        try:
            state = load_file(path)
            offsets, probabilities = state["offsets"], state["probabilities"]
        except (OSError, KeyError, SafetensorError) as error:
            raise InputError(
                f"--pseudo_labels {path}: not a file of pseudo labels ({error}). Give a pseudo_labels.safetensors."
            ) from error
        labels = trainer.empty_pseudo_labels(self.target)
        if (
            not torch.equal(offsets.to(labels.offsets.device), labels.offsets)
            or probabilities.shape != labels.probabilities.shape
        ):
            raise InputError(
                f"--pseudo_labels {path} was made for another target text, span length or set of types. Make it new."
            )
        labels.probabilities.copy_(probabilities)
        return labels

    def stages(self) -> GlodeTrainer:
        """Run the stages that the arguments ask for.

        Returns:
            The trainer of the last one.
        Raises:
            InputError: the target stage alone lacks what it starts from.
        """
        if self.run.stage == "target" and not self.run.source_model and not self.run.pseudo_labels:
            raise InputError("--stage target needs --source_model or --pseudo_labels.")
        labels_are_there = self.run.stage == "target" and self.run.pseudo_labels
        trainer = self.trainer(self.fresh_model(), "source") if labels_are_there else self.source_stage()
        return trainer if self.run.stage == "source" else self.target_stage(self.pseudo_labels(trainer))

    def target_stage(self, labels: PseudoLabels) -> GlodeTrainer:
        self._heading("stage 2: target model")
        watch = Stopwatch()
        trainer = self.trainer(self.fresh_model(), "target", labels)
        self._train(trainer, "target")
        trainer.save_model(str(self.output), _internal_call=True)  # publish() pushes it, with its card
        self.metrics["cost"]["target_stage"] = watch.read()
        self.metrics["target_model"] = self._scores(trainer)
        self.metrics["pseudo_labels"] = trainer.denoising_callback.history
        if self.run.export_token_classifier:
            self.token_classifier(trainer)
        return trainer

    def token_classifier(self, teacher: GlodeTrainer) -> None:
        """Train the built-in token classifier beside the target model, and score it as its users will call it."""
        self._heading("token classifier")
        watch = Stopwatch()
        arguments = dataclasses.replace(
            self.training,
            output_dir=str(self.output / "token_checkpoints"),
            num_train_epochs=self.run.token_classifier_epochs,
            push_to_hub=False,
        )
        data = (self.corpora.source, self.corpora.dev, self.corpora.target)
        entities = teacher.pseudo_entities(len(self.corpora.target))
        trainer = train_token_classifier(self.path, teacher.model, self.tokenizer, arguments, *data, entities)
        directory = self.output / "token_classifier"
        trainer.save_model(str(directory))
        self.metrics["cost"]["token_classifier"] = watch.read()
        scores = self.metrics["token_classifier"] = {}
        for name, corpus in {"dev": self.corpora.dev, "test": self.corpora.target_test}.items():
            if corpus is not None:
                found = predict_entities(directory, corpus, self.config.max_tokens, self.training.device)
                scores |= self._score(name, corpus, self._features(corpus), found)

    def _train(self, trainer: GlodeTrainer, stage: str) -> None:
        """Train a stage, from its newest checkpoint where the run is resumed.

        Raises:
            KeyboardInterrupt: Ctrl-C; a checkpoint has been saved.
        """
        trainer.train(resume_from_checkpoint=self._checkpoint(stage))
        if trainer.interrupt.interrupted:
            raise KeyboardInterrupt

    def _checkpoint(self, stage: str) -> str | None:
        """Where a stage goes on with --resume_from_checkpoint; None begins it.

        Raises:
            InputError: the given checkpoint is not there or is damaged, or it is a model of other types or another span length.
        """
        wanted = self.training.resume_from_checkpoint
        if not wanted:
            return None
        required = (DENOISING_STATE,) if stage == "target" else ()
        if wanted == "auto":
            found = newest_checkpoint(self.output / f"{stage}_checkpoints", required)
        else:
            found = Path(wanted) if Path(wanted).resolve().parent.name == f"{stage}_checkpoints" else None
            if found and (fault := damage(found, required)):
                raise InputError(f"--resume_from_checkpoint {wanted}: {fault}. Give another checkpoint, or auto for the newest.")
        if not found:
            return None
        saved = GlodeConfig.from_pretrained(found)
        length, types = saved.max_span_length, list(saved.id2label.values())
        if (length, types) != (self.length, self.labels):
            raise InputError(
                f"--resume_from_checkpoint: {found} has L = {length} and types {types}; this run has L = {self.length} and "
                f"{self.labels}. Give the data of the run that saved it, or another --output_dir."
            )
        if self.main:
            console.print(f"goes on from {found}")
        return str(found)

    def _finished(self, name: str) -> Path | None:
        """What a run that is resumed has finished already: `source_model` or `pseudo_labels.safetensors`, which are renamed into
        place when they are whole."""
        path = self.output / name
        return path if self.training.resume_from_checkpoint and path.exists() else None

    def _save_model(self, trainer: GlodeTrainer, name: str) -> None:
        """Save a stage's model under a temporary name, and rename it."""
        partial = self.output / f".{name}"
        trainer.save_model(str(partial), _internal_call=True)  # publish() pushes it, with its card
        if self.main:
            shutil.rmtree(self.output / name, ignore_errors=True)
            partial.rename(self.output / name)
        trainer.accelerator.wait_for_everyone()

    def _heading(self, text: str) -> None:
        if self.main:
            console.rule(text)

    # ------------------------------------------------------------------------------------------------------- publishing

    def _open_repository(self) -> str | None:
        """The repository to push to; None where the Hub refuses now: then training goes on, and the end tries again."""
        name = self.training.hub_model_id or self.output.name
        try:
            return open_repository(name, None, self.training.hub_private_repo)
        except InputError as error:
            logger.warning(f"{error} Training goes on without pushing; the end of the run tries again.")
            return None

    def write_card(self, directory: Path) -> None:
        """README.md and the picture of the pseudo labels, from what is known so far."""
        history = self.metrics.get("pseudo_labels", [])
        if history:
            plot_pseudo_labels(history, directory / PICTURE)
        write_card(directory, self._card_facts(directory))

    def _card_facts(self, directory: Path) -> dict:
        data, training = self.data, self.training
        names, languages = self._part_names(), data.target_languages
        repository = self.repository or training.hub_model_id
        known = [EXAMPLES[language.split("-")[0]] for language in languages if language.split("-")[0] in EXAMPLES]
        examples = self.run.widget_examples or [text for pair in zip(*known or [EXAMPLES["en"]], strict=True) for text in pair]
        scores = self.metrics.get(f"{self.last_stage}_model", {})
        test = scores.get("test", {}).get("strict")
        text = files_by_language("target_unlabeled", data.target_unlabeled, languages)
        embedded = self.model_arguments.model_name_or_path == DEMO_BACKBONE
        backbone = "intfloat/multilingual-e5-small" if embedded else self.model_arguments.model_name_or_path
        public = "/" in backbone and not Path(backbone).exists()
        demo = not (data.source_train or data.dataset_name)
        epochs = training.num_train_epochs
        return {
            "model_name": (repository or self.output.resolve().name).split("/")[-1],
            "repo": repository or str(self.output),
            "license": self.run.license,
            "base_model": backbone if public else None,
            "backbone": f"{backbone} (4 bits a weight, vocabulary trimmed to the corpora)" if embedded else Path(backbone).name,
            "datasets": [data.dataset_name] if data.dataset_name else None,
            "labels": self.labels[1:],
            "source_lang": data.source_lang,
            "target_lang": ", ".join(languages),
            "languages": [*languages, data.source_lang],
            "source_name": "the GLoDe demo corpus" if demo else data.dataset_name or Path(data.source_train).name,
            "target_name": "the GLoDe demo corpus"
            if demo
            else data.dataset_name or ", ".join(Path(path).name for path in itertools.chain(*text.values())),
            "source_sentences": len(self.corpora.source),
            "target_sentences": len(self.corpora.target),
            "examples": examples,
            "example": json.dumps(examples[0], ensure_ascii=False),
            "scores": {names[name]: values for name, values in scores.items()},
            "test_scores": test,
            "per_type": test and test["per_type"],
            "unreachable": self.metrics["unreachable"].get("target test"),
            "max_span_length": self.length,
            "max_tokens": self.config.max_tokens,
            "stages": self.last_stage,
            "source_epochs": training.source_num_train_epochs or epochs,
            "target_epochs": epochs,
            "source_mlm": training.auxiliary_task == "mlm" and training.mlm_weight > 0 and training.source_mlm == "on",
            "denoising": training.denoising,
            "learning_rate": training.learning_rate,
            "batch_size": training.per_device_train_batch_size,
            "seed": training.seed,
            "tokens_repo": self.repository and self.run.export_token_classifier and f"{self.repository}-tokens",
            "token_scores": {names[name]: values for name, values in self.metrics.get("token_classifier", {}).items()},
            "token_epochs": self.run.token_classifier_epochs,
            "history": bool(self.metrics.get("pseudo_labels")),
            "history_f1": any("f1" in entry for entry in self.metrics.get("pseudo_labels", [])),
        }

    def publish(self) -> None:
        """Finish the model's directory: card, picture, code; and push it, where asked to.

        Raises:
            InputError: the Hub cannot be reached or refuses. All files are written by then.
        """
        if not self.main:
            return
        directory = self.output if self.last_stage == "target" else self.output / "source_model"
        copy_code(directory)
        make_portable(directory)
        self.write_card(directory)
        tokens = self.output / "token_classifier" if self.run.export_token_classifier else None
        if tokens:
            make_portable(tokens)
            self.write_tokens_card(tokens)
        if self.training.push_to_hub:
            name = self.training.hub_model_id or self.output.name
            private, revision = self.training.hub_private_repo, self.training.hub_revision
            self.repository = self.repository or open_repository(name, None, private)
            if tokens:
                repository = open_repository(f"{self.repository}-tokens", None, private)
                self.write_tokens_card(tokens)
                say("pushed", publish(tokens, repository, None, revision, "End of training"))
            self.write_card(directory)
            say("pushed", publish(directory, self.repository, None, revision, "End of training"))

    def write_tokens_card(self, directory: Path) -> None:
        """README.md of the token classifier."""
        facts = self._card_facts(directory)
        test = self.metrics["token_classifier"].get("test")
        repository = self.repository and f"{self.repository}-tokens"
        facts |= {
            "main_repo": self.repository,
            "repo": repository or str(directory),
            "model_name": repository.split("/")[-1] if repository else f"{facts['model_name']}-tokens",
            "test_scores": test and test["strict"],
        }
        write_card(directory, facts, TOKENS_CARD)

    # ---------------------------------------------------------------------------------------------------------- reports

    def _scores(self, trainer: GlodeTrainer) -> dict:
        """{"dev": source development, "test": target test, "source_test": ...} -> {"strict": ..., "paper": ...}; with several
        target languages also "test_de" and so on."""
        corpora = {"dev": self.corpora.dev, "source_test": self.corpora.source_test, "test": self.corpora.target_test}
        scores = {}
        for name, corpus in corpora.items():
            if corpus is not None:
                windows = self._features(corpus)
                found = self.predictions[name] = trainer.predict_entities(windows, len(corpus))
                scores |= self._score(name, corpus, windows, found)
        return scores

    def _score(self, name: str, corpus: Dataset, windows: Dataset, found: list) -> dict[str, dict]:
        """Both protocols' scores, on the types that the corpus has; of each target language too, where there are several."""
        gold, reachable = gold_entities(corpus), reachable_entities(corpus, windows, self.length)
        parts = {name: slice(None)}
        if name == "test":
            rows = self.corpora.by_language("target_test").items()
            parts |= {f"test_{language}": slice(part.start, part.stop) for language, part in rows}
        scores = {}
        for part, at in parts.items():
            kept = of_known_types(gold[at], found[at])
            scores[part] = {"strict": entity_scores(gold[at], kept), "paper": entity_scores(reachable[at], kept)}
        return scores

    def _part_names(self) -> dict[str, str]:
        """How the corpora that are scored are called in tables."""
        data = self.data
        languages = {f"test_{language}": f"{language} test" for language in data.target_languages}
        test = {"test": f"{' + '.join(data.target_languages)} test"}
        return {"dev": f"{data.source_lang} dev", "source_test": f"{data.source_lang} test"} | test | languages

    def report(self) -> None:
        """The results as a table on the terminal and as metrics.json."""
        if not self.main:
            return
        path, partial = self.output / "metrics.json", self.output / ".metrics.json"
        partial.write_text(json.dumps(self.metrics, indent=2, ensure_ascii=False), encoding="utf-8")
        partial.replace(path)
        table = Table(title=f"entity scores, {self.data.source_lang} -> {self.data.target_lang}")
        for column in ("model", "corpus", "P", "R", "F1 (all gold)", "F1 (paper's protocol)"):
            table.add_column(column, justify="left" if column in ("model", "corpus") else "right")
        names = self._part_names()
        for model in ("source_model", "target_model", "token_classifier"):
            for corpus, scores in self.metrics.get(model, {}).items():
                strict = scores["strict"]
                cells = [f"{value:.1f}" for value in (strict["precision"], strict["recall"], strict["f1"], scores["paper"]["f1"])]
                table.add_row(model.replace("_", " "), names[corpus], *cells)
        console.print(table)
        history = self.metrics.get("pseudo_labels", [])
        if history:
            table = Table(title="pseudo labels by epoch")
            of_languages = ["language"] if "languages" in history[0] else []
            f1 = ["F1"] if "f1" in history[0] else []
            for column in ("epoch", *of_languages, "mean confidence", *history[0]["spans"], *f1):
                table.add_column(column, justify="right")
            for entry in history:
                for language, report in {"all": entry, **entry.get("languages", {})}.items():
                    cells = [str(entry["epoch"]), *([language] if of_languages else []), f"{report['confidence']:.4f}"]
                    table.add_row(*cells, *map(str, report["spans"].values()), *([f"{report['f1']:.1f}"] if f1 else []))
            console.print(table)
        costs = ", ".join(f"{name.replace('_', ' ')} {cost['seconds']:.0f} s" for name, cost in self.metrics["cost"].items())
        console.print(f"{costs}; peak memory {max(c['peak_memory_mb'] for c in self.metrics['cost'].values())} MB")
        model = self.output if "target_model" in self.metrics else self.output / "source_model"
        say("model", str(model))
        say("results", str(path))


console = Console(soft_wrap=True, markup=False, emoji=False)  # names of types and files are shown as they are


def say(name: str, text: str) -> None:
    """A line of the terminal, under a name."""
    console.print(Text(f"{name:<9}", "bold"), text)


def _check_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--output_dir {directory} cannot be written ({error.strerror}). Choose another directory.") from error


def use_all_cores() -> None:
    """Give a process its share of the cores: `accelerate launch` and `torchrun` limit each to one thread by themselves."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "LOCAL_WORLD_SIZE" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1" and not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)


def main(argv: list[str]) -> None:
    """Run the stages that the arguments ask for."""
    arguments = parse_arguments(argv)
    if token := arguments[2].hub_token:
        os.environ["HF_TOKEN"] = token  # where huggingface_hub looks, and no file of the run
        arguments[2].hub_token = None
    use_all_cores()
    run = Run(*arguments)
    with faster_products():
        run.stages()
    run.report()
    run.publish()
    processes = run.training.distributed_state
    del run
    gc.collect()  # of the trainers, which hold the group's threads: one that outlives the interpreter at times aborts it
    processes.destroy_process_group()


def run(argv: list[str]) -> int:
    """The command: `main`, with its exit code."""
    return run_command(main, argv, resume="--resume_from_checkpoint auto")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
