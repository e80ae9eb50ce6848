"""The stages of a run: source model, pseudo labels, target model and, where wanted, a token classifier."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from safetensors import SafetensorError
from transformers import AutoTokenizer, Trainer, set_seed
from transformers.utils import logging

from glode.corpora.labels import parse_label_map
from glode.denoising.pseudo_labels import PseudoLabels
from glode.errors import InputError
from glode.features.columns import list_lengths
from glode.features.reach import gold_entities, reachable_entities
from glode.features.strings import string_ids
from glode.files import write_into, write_whole
from glode.metrics import measure
from glode.publishing.hub import copy_code
from glode.publishing.token_classifier import predict_entities, train_token_classifier
from glode.run.arguments import DataArguments, ModelArguments, RunArguments, checkpoints, numbered
from glode.run.backbone import aligned, fresh_model
from glode.run.given_labels import are_records, read_calibration, read_labels, read_records, write_labels
from glode.run.preparation import Preparation
from glode.run.publishing import open_repository_or_go_on, write_run_card
from glode.run.report import Stopwatch, console, say, show_results, write_metrics
from glode.run.resuming import checkpoint_of, claim_output, finished_part, finished_run
from glode.training.arguments import GlodeTrainingArguments
from glode.training.assignment import empty_pseudo_labels
from glode.training.calibration import Scaling
from glode.training.head_warmup import fit_head, needs_warmup
from glode.training.mutual_calibration import calibrate_on_each_other, mean_of
from glode.training.progress import watch
from modeling_glode import GlodeModel
from trainer_glode import GlodeTrainer

logger = logging.get_logger("glode")


def training_steps(trainer: GlodeTrainer) -> int:
    """Updates of the weights in a training, as the Trainer counts them."""
    arguments = trainer.args
    steps = -(-trainer.sampler.steps // arguments.gradient_accumulation_steps)
    return arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * steps)


class Run(Preparation):
    """One run: what is common to both stages, and the stages.

    Attributes:
        predictions: of the model that was scored last: corpus -> the entities of each sentence.
    """

    def __init__(
        self,
        data: DataArguments,
        model: ModelArguments,
        training: GlodeTrainingArguments,
        run: RunArguments,
        memory: Mapping[str, Any] | None = None,
    ):
        super().__init__(data, model, training, run, memory)
        self.repository = open_repository_or_go_on(self) if training.push_to_hub else None
        self.predictions: dict[str, list] = {}
        self.fitted_head: dict[str, torch.Tensor] | None = None

    def stages(self) -> None:
        """Run the stages that the arguments ask for: the teachers, and round after round their labels and a target model.

        Raises:
            InputError: the target stage alone lacks what it starts from.
        """
        if self.run.stage == "target" and not self.run.teachers and not self.run.pseudo_labels:
            raise InputError("--stage target needs --teachers or --pseudo_labels.")
        claim_output(self.training, self.run, self.fingerprint)
        if before := finished_run(self.training, self.run):
            self._finished_stages(before)
            return
        labels_are_there = self.run.stage == "target" and self.run.pseudo_labels
        teachers: list[GlodeTrainer | Path] = [] if labels_are_there else self.source_stages()
        if self.run.stage == "source":
            return
        for number in range(1, self.run.rounds + 1):
            teachers = [self.target_round(teachers, number)]

    def source_stages(self) -> list[GlodeTrainer | Path]:
        """The source models, one after the other. Of several, which memory may not hold at once, the directories."""
        several = len(self.run.teachers) if self.run.teachers else self.run.num_teachers
        if several == 1:
            return [self.source_stage(1)[0]]
        return [self.source_stage(number)[1] for number in range(1, several + 1)]

    def source_stage(self, number: int) -> tuple[GlodeTrainer, Path]:
        """Train a source model, or take the one that is there; its scores. Returns its trainer and its directory."""
        watch, name = Stopwatch(), numbered("source_model", number)
        there = self.run.teachers[number - 1] if self.run.teachers else finished_part(self.training, name)
        directory = Path(there or self.output / name)
        if there:
            self._say("source", f"{directory} is there already, and is not trained again")
            trainer = self.trainer(self._load_teacher(directory), "source", number)
        else:
            self.heading("stage 1: source model" + _of(number, self.run.num_teachers))
            trainer = self.trainer(self.fresh_model("source", number), "source", number)
            self._train(trainer, "source", number)
            self._save(trainer, write_whole(directory, owner=self.main), self.fingerprint.write)
        self.metrics["cost"][numbered("source_stage", number)] = watch.read()
        self.metrics[name] = self._scores(trainer)
        return trainer, directory

    def target_round(self, teachers: Sequence[GlodeTrainer | Path], number: int) -> Path:
        """One round: the teachers label the target text, and a target model learns it. Returns its directory."""
        directory = self.output if number == self.run.rounds else self.output / numbered("target_model", number)
        if directory != self.output and finished_part(self.training, directory.name):
            self._say("target", f"{directory} is there already, and is not trained again")
            result = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        else:
            result = self.target_stage(self.pseudo_labels(teachers, number), number, directory)
        self.metrics |= result
        if self.run.rounds > 1:
            self.metrics.setdefault("rounds", []).append(result)
        return directory

    def pseudo_labels(self, teachers: Sequence[GlodeTrainer | Path], number: int) -> PseudoLabels:
        """The mean of the teachers' soft labels of the target text, or those that are there."""
        watch, path = Stopwatch(), self.output / f"{numbered('pseudo_labels', number)}.safetensors"
        given = self.run.pseudo_labels if number == 1 else None
        if there := given or finished_part(self.training, path.name):
            self._say("labels", f"{there} is there already")
            labels = self._read_pseudo_labels(Path(there))
            calibration = read_calibration(Path(there))
        else:
            labels, calibration = self._assign_pseudo_labels(teachers, number)
            if self.main:
                write_labels(labels, path, calibration)
        if calibration:
            told = {name: scaling._asdict() for name, scaling in calibration.items()}
            self.metrics["calibration"] = self.metrics.get("calibration", {}) | told
            shown = "; ".join(f"{name} {scaling.told}" for name, scaling in calibration.items())
            self._say("noted", f"confidence is calibrated: {shown}")
        self.metrics["cost"][numbered("pseudo_labels", number)] = watch.read()
        return labels

    def _assign_pseudo_labels(
        self, teachers: Sequence[GlodeTrainer | Path], number: int
    ) -> tuple[PseudoLabels, dict[str, Scaling]]:
        """Let the teachers label the target text, one after the other; with --calibrate also their scalings, by name."""
        kind = "source" if number == 1 else "target"
        who = f"the {kind} model labels" if len(teachers) == 1 else f"{len(teachers)} {kind} models label"
        self._say("labels", f"{who} {len(self.corpora.target)} sentences")
        several = range(1, len(teachers) + 1)
        names = [numbered("source_model", i) if number == 1 else numbered("target_model", number - 1) for i in several]
        trainers = (self.trainer(self._load_teacher(t), "source") if isinstance(t, Path) else t for t in teachers)
        if self.run.calibrate == "teachers" and len(teachers) > 1:
            each = [trainer.assign_pseudo_labels(self.target) for trainer in trainers]
            scalings = calibrate_on_each_other(each, self.target)
            return mean_of(each, scalings), dict(zip(names, scalings, strict=True))
        labels: PseudoLabels | None = None
        calibration: dict[str, Scaling] = {}
        for before, (name, trainer) in enumerate(zip(names, trainers, strict=True)):
            if self.run.calibrate == "dev":
                calibration[name] = Scaling(trainer.fit_temperature())
            labels = trainer.assign_pseudo_labels(self.target, calibration.get(name, Scaling()).temperature, labels, before)
        assert labels is not None, "a round has a teacher or given labels"
        return labels, calibration

    def target_stage(self, labels: PseudoLabels, number: int, directory: Path) -> dict[str, Any]:
        """Train a target model on the labels, which are refined meanwhile. Returns its scores, and the labels by epoch."""
        self.heading("stage 2: target model" + _of(number, self.run.rounds, ", round"))
        watch, last = Stopwatch(), number == self.run.rounds
        trainer = self.trainer(self.fresh_model("target"), "target", number, labels)
        self._train(trainer, "target", number)
        if last:
            self._save(trainer, write_into(directory, owner=self.main))
        self.metrics["cost"][numbered("target_stage", number)] = watch.read()
        result = {"target_model": self._scores(trainer), "pseudo_labels": trainer.pseudo_label_history}
        result |= {name: self.metrics[name] for name in ("calibration",) if name in self.metrics}
        if not last:
            self._save(trainer, write_whole(directory, owner=self.main), partial(self._write_round, result))
        elif self.run.export_token_classifier:
            self.token_classifier(trainer)
        return result

    def _write_round(self, result: Mapping, directory: Path) -> None:
        """What stands with the model of a round that is not the last."""
        self.fingerprint.write(directory)
        write_metrics(result, directory)

    def _finished_stages(self, before: dict) -> None:
        """What a finished run has, with scores on the test sets that are given now."""
        self.heading("finished before: nothing is left to train")
        if self.run.stage == "all":
            self.source_stages()
        trainer = self.trainer(GlodeModel.from_pretrained(self.output), "source")
        self.metrics["target_model"] = self._scores(trainer)
        kept = ("pseudo_labels", "token_classifier", "rounds", "calibration", "cost", "epochs")
        self.metrics |= {name: before[name] for name in kept if name in before}

    def token_classifier(self, teacher: GlodeTrainer) -> None:
        """Train the built-in token classifier beside the target model, and score it as its users will call it."""
        self.heading("token classifier")
        watch = Stopwatch()
        directory, epochs = self.output / "token_checkpoints", self.run.token_classifier_epochs
        arguments = self._arguments(output_dir=str(directory), num_train_epochs=epochs, push_to_hub=False)
        labelled = [corpus for corpus in (self.corpora.source, self.corpora.target_train) if corpus is not None]
        data = (concatenate_datasets(labelled), self.corpora.dev, self.corpora.target)
        entities = teacher.pseudo_entities(len(self.corpora.target))
        trainer = train_token_classifier(self.path, teacher.model, self.tokenizer, arguments, *data, entities)
        directory = self.output / "token_classifier"
        self._save(trainer, write_whole(directory, owner=self.main))
        self.metrics["cost"]["token_classifier"] = watch.read()
        scores = self.metrics["token_classifier"] = {}
        for name, corpus in {"dev": self.corpora.dev, "test": self.corpora.target_test}.items():
            if corpus is not None:
                found = predict_entities(directory, corpus, self.config.max_tokens, self.training.device)
                scores |= self._score(name, corpus, self.features(corpus), found)

    def report(self) -> None:
        """The results as metrics.json and as tables on the terminal."""
        if self.main:
            scored = self.run.stage == "source" and self.run.teachers and (self.output / "metrics.json").exists()
            # Scores of a model that was there already do not take the place of those of the run that trained it.
            path = write_metrics(self.metrics, self.output, "scores.json" if scored else "metrics.json")
            show_results(self.metrics, self.data)
            say("model", str(self.model_directory))
            say("results", str(path))

    # ---------------------------------------------------------------------------------------------------- models, trainers

    def fresh_model(self, stage: str, number: int = 1) -> GlodeModel:
        """The same initial model for both stages and on all processes, but that further teachers have other heads; a fresh
        language model's head is fitted for a stage that reads with it."""
        set_seed(self._seed(stage, number))
        model = fresh_model(self.path, self.config, self.model_arguments.attn_implementation)
        if needs_warmup(model, self.training, stage):
            self._fit_head(model)
        return model

    def _fit_head(self, model: GlodeModel) -> None:
        """Fit a language model's head that the encoder came without, once a run, or say that there is none."""
        steps = self.training.mlm_head_warmup_steps
        if self.fitted_head:
            model.mlm_head.load_state_dict(self.fitted_head)
        elif steps:
            losses = fit_head(model, self.tokenizer, self.source, self.target, self.training)
            self.fitted_head = {name: tensor.cpu() for name, tensor in model.mlm_head.state_dict().items()}
            self._say("language", f"a fresh head is fitted for {steps} steps: loss {losses[0]:.2f}, then {losses[-1]:.2f}")
        elif self.fitted_head is None:
            self.fitted_head = {}
            self._say("noted", "the encoder has no language model's head; a fresh one learns (--mlm_head_warmup_steps)")

    def _seed(self, stage: str, number: int) -> int:
        """Teachers differ by their seeds, which follow one another; all rounds have the same one."""
        return (self.training.seed + (number - 1 if stage == "source" else 0)) % 2**32

    def trainer(self, model: GlodeModel, stage: str, number: int = 1, pseudo_labels: PseudoLabels | None = None) -> GlodeTrainer:
        """The trainer of a stage, "source" or, with pseudo labels, "target"; `number` says which teacher or round."""
        epochs = self.training.num_train_epochs
        if stage == "source" and self.training.source_num_train_epochs is not None:
            epochs = self.training.source_num_train_epochs
        directory = self.output / checkpoints(stage, number)
        is_result = stage == self.last_stage and number == (1 if stage == "source" else self.run.rounds)
        pushes = self.repository is not None and is_result and self.training.hub_strategy != "end"
        if pushes and self.main:
            copy_code(directory)  # a push in the middle of training must be loadable
            write_run_card(self, directory)
        changes = {"output_dir": str(directory), "num_train_epochs": epochs, "seed": self._seed(stage, number)}
        arguments = self._arguments(**changes, push_to_hub=pushes, hub_model_id=self.repository)
        references = gold_entities(self.corpora.target) if list_lengths(self.corpora.target, "types").any() else None
        trainer = GlodeTrainer(
            model,
            arguments,
            self.tokenizer,
            source=self.source if pseudo_labels is None else self.labelled,
            target=self.target,
            dev=self.dev,
            dev_references=gold_entities(self.corpora.dev),
            pseudo_labels=pseudo_labels,
            target_references=references,
            languages=self.corpora.by_language("target"),
            source_languages=None if pseudo_labels is None else self.source_languages,
            target_strings=self._target_strings() if pseudo_labels is not None else None,
        )
        watch(trainer, f"{stage} model" + (f" {number}" if number > 1 else ""))
        return trainer

    def _target_strings(self) -> torch.Tensor | None:
        """Which target spans are the same string, where that is asked for."""
        return string_ids(self.corpora.target, self.target, self.length) if self.training.agreement else None

    def _arguments(self, **changes: Any) -> GlodeTrainingArguments:
        return dataclasses.replace(self.training, **changes)

    def _save(
        self, trainer: Trainer, place: AbstractContextManager[Path], write_more: Callable[[Path], None] | None = None
    ) -> None:
        """Save a trainer's model and tokenizer, and what stands with them, whole or not at all; all processes take part."""
        with place as directory:
            trainer.accelerator.wait_for_everyone()  # what a killed run has left there is gone by now
            trainer.save_model(str(directory), _internal_call=True)  # the end of the run pushes it, with its card
            if write_more and self.main:
                write_more(directory)
        trainer.accelerator.wait_for_everyone()

    def _train(self, trainer: GlodeTrainer, stage: str, number: int) -> None:
        """Train a stage, from its newest checkpoint where the run is resumed.

        Raises:
            KeyboardInterrupt: Ctrl-C; a checkpoint has been saved.
        """
        self._fit_warmup(trainer, stage)
        checkpoint = checkpoint_of(self.training, stage, number)
        if self.main:
            self.fingerprint.write(self.output / checkpoints(stage, number))
            if checkpoint:
                console.print(f"goes on from {checkpoint}")
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        self.metrics["epochs"][numbered(stage, number)] = trainer.state.epoch
        if trainer.interrupt.interrupted:
            raise KeyboardInterrupt

    def _fit_warmup(self, trainer: GlodeTrainer, stage: str) -> None:
        """Of a short stage a recipe's or a default's warm-up takes a tenth at most; one that was given stays."""
        warmup, steps = trainer.args.warmup_steps, training_steps(trainer)
        if not self.run.warmup_is_given and warmup > (most := steps // 10):
            trainer.args.warmup_steps = most
            self._say("noted", f"the {stage} stage has {steps} steps: its warm-up takes {most} of them, not {warmup:g}")
        elif self.run.warmup_is_given and warmup > steps / 2 and self.main:
            logger.warning(
                f"--warmup_steps {warmup:g} is more than half of the {steps} steps of the {stage} stage: the learning rate is at "
                "its peak for a moment at best. Give fewer, or more epochs."
            )

    def _load_teacher(self, directory: Path) -> GlodeModel:
        """A model that was trained before.

        Raises:
            InputError: it cannot be loaded, or is none of this run's backbone, types and span length.
        """
        try:
            model = aligned(GlodeModel.from_pretrained(directory))
            tokenizer = AutoTokenizer.from_pretrained(directory, config=model.config)  # else asks whether to run code
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(
                f"--teachers {directory} cannot be loaded ({str(error).splitlines()[0]}). Give a source_model directory "
                "that run_crossner.py has written."
            ) from error
        if tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise InputError(
                f"--teachers {directory} has another vocabulary than the backbone {self.path}. Train it on this backbone."
            )
        found = (model.config.max_span_length, list(model.config.id2label.values()))
        if found != (self.length, self.labels):
            raise InputError(
                f"--teachers {directory} has L = {found[0]} and types {found[1]}; this run needs "
                f"L = {self.length} and {self.labels}. Give --max_span_length {found[0]}, or a model of these types."
            )
        return model

    def _read_pseudo_labels(self, path: Path) -> PseudoLabels:
        """Pseudo labels that were made before, see `read_labels` and `read_records`."""
        wait_for_everyone = self.training.distributed_state.wait_for_everyone
        labels = empty_pseudo_labels(self.target, self.config, self.training, wait_for_everyone)
        if not are_records(path):
            read_labels(path, labels, self.fingerprint)
            return labels
        mapping = parse_label_map(self.data.label_map) if self.data.label_map else {}
        held, there = read_records(path, labels, self.corpora.target, self.target, self.labels, mapping)
        if held < there:
            told = (
                f"{there - held} of {there} entities are left out: longer than L = {self.length}, or with a border within a word"
            )
            self._say("noted", told)
        return labels

    # ------------------------------------------------------------------------------------------------------------- scores

    def _scores(self, trainer: GlodeTrainer) -> dict[str, dict]:
        """{"dev": source development, "test": target test, "source_test": ...} -> {"strict": ..., "paper": ...}; with several
        target languages also "test_de" and so on."""
        corpora = {"dev": self.corpora.dev, "source_test": self.corpora.source_test, "test": self.corpora.target_test}
        scores: dict[str, dict] = {}
        for name, corpus in corpora.items():
            if corpus is not None:
                windows = self.features(corpus)
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
        return {part: measure(gold[at], found[at], reachable[at]) for part, at in parts.items()}


def _of(number: int, total: int, what: str = "") -> str:
    """2 of 3, where there are several."""
    return f"{what} {number} of {total}" if total > 1 else ""
