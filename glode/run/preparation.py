"""A run before anything is trained: everything is read, checked and tokenised."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from transformers.utils import logging

from glode.corpora.labels import count_repeated, label_names
from glode.fast.precision import speedup_of_bf16
from glode.fast.products import faster_products
from glode.features.columns import list_lengths, numbers
from glode.features.reach import choose_span_length, unreachable_share
from glode.features.windows import build_features
from glode.run.arguments import DataArguments, ModelArguments, RunArguments
from glode.run.backbone import check_language_model, embedded_backbone, fresh_model, glode_config, load_backbone
from glode.run.config import recipe_name
from glode.run.corpora import check_dev, check_target_train, load_corpora, restrict_to
from glode.run.embedded import DEMO_BACKBONE
from glode.run.fingerprint import fingerprint_of
from glode.run.given_labels import are_records, types_in_records
from glode.run.languages import language_note
from glode.run.precision import choose_precision
from glode.run.report import console, say, show_corpora, summarize_corpora
from glode.run.resuming import check_writable
from glode.run.teacher_kinds import LABELS, kinds_of, types_of_teachers
from glode.training.arguments import GlodeTrainingArguments

logger = logging.get_logger("glode")

UNSPACED_LANGUAGES = {"zh", "ja", "th", "lo", "km", "yue", "wuu"}


REFINING = ("both", "global", "local", "contproto")  # --denoising that moves labels


def refines(training: GlodeTrainingArguments, epochs: float) -> bool:
    """Whether the pseudo labels are refined in a target stage of so many epochs."""
    return training.denoising in REFINING and bool(training.denoising_settings.refining_epochs(math.ceil(epochs)))


class Preparation:
    """What all stages of a run share.

    Args:
        memory: corpora that are no files, see `load_corpora`.
    Attributes:
        data, model_arguments, training, options: what the run is told.
        corpora: see `Corpora`; entities of types that the source lacks are dropped from the target's.
        path, tokenizer: of the backbone, which is another one from the end of --pretrain_epochs on.
        labels: "O" and the types.
        length: L.
        config: of a fresh model.
        teacher_kinds: of each of --teachers, see `kinds_of`.
        labels_are_given: whether there are files of labels, which are of the whole target text.
        source, dev, target: their windows; the target's without entities, whatever the corpus has.
        source_languages: the language of each of the source's, see `Denoiser`; None where there is one language.
        labelled: the windows of all labelled sentences that the target stage learns, the source's and those of --target_train.
        labelled_languages: the language of each of them, likewise.
        metrics: what goes to metrics.json.
        repository: where a checkpoint is pushed to, None for nowhere.
        main: whether this process speaks and writes.
        fingerprint: what the results depend on.
    Raises:
        InputError: something in the input is wrong.
    """

    def __init__(
        self,
        data: DataArguments,
        model: ModelArguments,
        training: GlodeTrainingArguments,
        options: RunArguments,
        memory: Mapping[str, Any] | None = None,
    ):
        self.data, self.model_arguments, self.training, self.options = data, model, training, options
        self.output = Path(training.output_dir)
        self.main = training.process_index == 0
        self.repository: str | None = None
        check_writable(self.output)
        self._say_languages()
        self.teacher_kinds = kinds_of(options, self.output)
        with training.main_process_first(desc="reading the corpora"):
            self._read(memory)
        self._say_what()
        summaries = summarize_corpora(self.corpora) if self.main else {}
        if self.main:
            show_corpora(summaries)
        label_names(self.corpora.source)  # an entity in the development set alone is not enough
        check_dev(self.corpora.source, self.corpora.dev)
        self.labels = label_names(self.corpora.source, self.corpora.dev)
        self.last_stage = "source" if options.stage == "source" else "target"
        self.length = model.max_span_length or self._choose_length()
        for name in ("target", "source_test", "target_test"):
            if (corpus := getattr(self.corpora, name)) is not None:
                setattr(self.corpora, name, restrict_to(corpus, self.labels, name))
        self.config = glode_config(model, self.path, self.tokenizer, self.labels, self.length)
        with training.main_process_first(desc="tokenising"):
            self.source, self.dev = (self.features(c, self.labels) for c in (self.corpora.source, self.corpora.dev))
            self.target = self.features(self.corpora.target)  # no labels: the target's entities are never read into features
            self.source_languages = self._languages_of_source()
            self.labelled, self.labelled_languages = self._with_target_train()
        precision = self._choose_precision()
        self.fingerprint = fingerprint_of(self.corpora, model, self.training, options, self.labels, self.length)
        self.metrics: dict[str, Any] = {
            "arguments": {"data": vars(data), "model": vars(model), "run": vars(options), "seed": training.seed},
            "corpora": summaries,
            **precision,
            "labels": self.labels,
            "max_span_length": self.length,
            "unreachable": self._unreachable(),
            "cost": {},
            "epochs": {},
        } | self._target_train_facts()

    def _read(self, memory: Mapping[str, Any] | None) -> None:
        """Corpora, path and tokenizer of the backbone. Mistakes in a backbone that is not embedded are told before corpora are
        read."""
        name = self.model_arguments.model_name_or_path
        if not (embedded := name == DEMO_BACKBONE):
            self.path, self.tokenizer = load_backbone(name)
            if self.options.pretrain_epochs:
                check_language_model(self.path)
        self.labels_are_given = bool(self.options.pseudo_labels) or LABELS in self.teacher_kinds.values()
        self.corpora = load_corpora(self.data, memory, self._types_of_others(), self.labels_are_given)
        if embedded:
            self.path, self.tokenizer = load_backbone(embedded_backbone(self.corpora, self.options.model_cache))

    @property
    def model_directory(self) -> Path:
        """Where the run's last model goes."""
        if self.last_stage == "target":
            return self.output
        return Path(self.options.teachers[0]) if self.options.teachers else self.output / "source_model"

    def features(self, corpus: Dataset, labels: list[str] | None = None) -> Dataset:
        """A corpus' windows, see `build_features`."""
        cut = self.model_arguments.cut_sentences
        return build_features(corpus, self.tokenizer, self.config.max_tokens, self.length, labels, cut, self.config.units)

    def _languages_of_source(self) -> torch.Tensor | None:
        """The language of each source window: 0 the first, then the targets' numbers are left out."""
        if not (rows := self.corpora.by_language("source")):
            return None
        first, *others = rows
        self.say("noted", f"{first} and {', '.join(others)} have equal shares of the labelled windows in an epoch")
        of_languages = [0, *(1 + len(self.data.target_languages) + i for i in range(len(others)))]
        of_sentences = np.repeat(of_languages, list(map(len, rows.values())))
        return torch.from_numpy(of_sentences[numbers(self.source, "sentence")])

    def _with_target_train(self) -> tuple[Dataset, torch.Tensor | None]:
        """The windows of all labelled sentences, and the language of each, see `labelled`."""
        if (corpus := self.corpora.target_train) is None:
            return self.source, self.source_languages
        check_target_train(corpus, self.labels)
        windows = self.features(corpus, self.labels).cast(self.source.features)
        number = {name: i for i, name in enumerate(self.corpora.rows["target"], 1)}
        rows = self.corpora.rows["target_train"]
        of_sentences = np.repeat([number[name] for name in rows], [len(part) for part in rows.values()])
        of_windows = torch.from_numpy(of_sentences[numbers(windows, "sentence")])
        source = torch.zeros(len(self.source), dtype=torch.long) if self.source_languages is None else self.source_languages
        return concatenate_datasets([self.source, windows]), torch.cat([source, of_windows])

    def _target_train_facts(self) -> dict[str, Any]:
        """What is told of --target_train, also on the terminal."""
        if (corpus := self.corpora.target_train) is None:
            return {}
        taken, weight, test = self.corpora.taken_out, self.training.target_train_weight, self.corpora.target_test
        facts = {"sentences": len(corpus), "weight": weight, "taken_out": len(taken) if taken else 0}
        self.say("noted", f"{len(corpus)} labelled target sentences join the target stage, each with the weight {weight:g}")
        if taken:
            self.say("", f"{len(taken)} sentences of the unlabelled text are the same, and are taken out there")
        elif self.labels_are_given:
            given = "--pseudo_labels" if self.options.pseudo_labels else "the labels of --teachers"
            self.say("", f"those that the target text has as well stay there, as {given} are of all of it")
        if self.main and test and (both := count_repeated(test, corpus)):
            logger.warning(f"--target_train has {both} of the sentences of --target_test: its scores will be too good.")
        return {"target_train": facts}

    def _types_of_others(self) -> set[str] | None:
        """The types of labels and teachers that others have made, which --label_map may rename; None where any may be."""
        if not self.data.label_map:
            return set()
        path, types = Path(self.options.pseudo_labels or ""), types_of_teachers(self.teacher_kinds)
        return types if types is None or not are_records(path) else types | types_in_records(path)

    def _say_what(self) -> None:
        """The first lines of a run: what it takes, and how to give it one's own."""
        if not self.main:
            return
        data, demo = self.data, not (self.data.source_train or self.data.dataset_name)
        files = " + ".join([*(data.source_train or []), *(data.target_unlabeled or [])])
        corpus = "embedded demo" if demo else data.dataset_name or files
        labelled, plain = len(self.corpora.source), len(self.corpora.target)
        sizes = f"{labelled} labelled {', '.join(data.source_languages)} and {plain} plain {data.target_lang} sentences"
        say("corpus", f"{corpus}: {sizes}")
        say("backbone", self.path)
        if self.training.save_only_model:
            say("noted", "--save_only_model: where a stage is stopped, it cannot be resumed")
        say("settings", self._settings())
        say("", f"results go to {self.output}")
        if note := self._refinement_note():
            say("noted", note)
        if demo:
            say("your own", "--source_train, --target_unlabeled, --target_test or --dataset_name for the corpus,")
            say("", "--model_name_or_path for the backbone; --help explains all arguments")

    def _say_languages(self) -> None:
        """Which languages are not named by a code; configurations on the Hub have names of their own."""
        for name in [] if self.data.dataset_name else [*self.data.source_languages, *self.data.target_languages]:
            if note := language_note(name):
                self.say("noted", note)

    def _settings(self) -> str:
        """The recipe, and what it and the command line have chosen."""
        training, config = self.training, self.options.config
        recipe = f"recipe {name}" if (name := recipe_name(config)) else config or "defaults"
        source = training.source_num_train_epochs or training.num_train_epochs
        length = f"{training.max_steps} steps" if training.max_steps > 0 else f"{source:g} + {training.num_train_epochs:g} epochs"
        chosen = f"{length}, learning rate {training.learning_rate:g}, batch {training.per_device_train_batch_size}"
        before = f"{epochs:g} epochs of pretraining, then " if (epochs := self.options.pretrain_epochs) else ""
        return f"{self.options.config_reason or recipe}; {before}{chosen}"

    def _refinement_note(self) -> str | None:
        """What does not happen in a target stage of so few epochs."""
        training, epochs = self.training, self.training.num_train_epochs
        if self.options.stage == "source" or training.max_steps > 0 or refines(training, epochs):
            return None
        if training.denoising not in REFINING:
            return (
                "--agreement acts beside a side of --denoising, and there is none: no label moves" if training.agreement else None
            )
        length = "1 epoch, which does not begin" if epochs == 1 else f"{epochs:g} epochs, none of which begins"
        return (
            f"no pseudo label will be refined: the target stage has {length} after the share {training.refine_start:g} of the "
            "training. Give more --num_train_epochs or a smaller --refine_start."
        )

    def _choose_precision(self) -> dict[str, Any]:
        """Settle the precision of training where it is open; what is told of it in metrics.json."""
        told = (self.training, self.options, self.model_arguments)
        self.training, choice = choose_precision(*told, self._speedup_of_bf16)
        if choice.told:
            self.say("precision", choice.told)
        return {"mixed_precision": self.training.mixed_precision, "bf16_speedup": choice.factor}

    def _speedup_of_bf16(self) -> float:
        """How many times as fast a step is in bf16 as in fp32, on this encoder and on rows as long as the corpora's."""
        model = fresh_model(self.path, self.config, self.model_arguments)
        if not self.model_arguments.lora_rank:
            model.get_input_embeddings().requires_grad_(not self.training.freeze_embeddings)
        windows = np.concatenate([list_lengths(corpus, "input_ids") for corpus in (self.source, self.target)])
        rows = 2 * self.training.per_device_train_batch_size  # of both streams
        with faster_products():
            return speedup_of_bf16(model, rows, round(windows.mean()), self.training.device)

    def _choose_length(self) -> int:
        length = choose_span_length(self.corpora.source)
        # A piece or a character of a script without spaces is shorter than a word of the source.
        unspaced = any(language.split("-")[0] in UNSPACED_LANGUAGES for language in self.data.target_languages)
        return max(length, 8) if unspaced else length

    def _unreachable(self) -> dict[str, float]:
        """The share of the gold entities of the source and of the target test set that the grid cannot hold."""
        shares = {"source": unreachable_share(self.corpora.source, self.source, self.length)}
        if (test := self.corpora.target_test) is not None:
            shares["target test"] = unreachable_share(test, self.features(test), self.length)
        if self.main:
            text = ", ".join(f"{100 * share:.1f} % of {name}" for name, share in shares.items())
            say("spans", f"up to L = {self.length} words; gold entities out of reach: {text}")
        return shares

    def say(self, name: str, text: str) -> None:
        """A line on the terminal, where this process speaks."""
        if self.main:
            say(name, text)

    def heading(self, text: str) -> None:
        """A line across the terminal."""
        if self.main:
            console.rule(text)
