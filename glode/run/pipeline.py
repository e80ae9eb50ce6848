"""The stages of a run: source model, pseudo labels, target model and, where wanted, a token classifier."""

import dataclasses
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Trainer, set_seed
from transformers.utils import logging

from glode.denoising.pseudo_labels import PseudoLabels
from glode.errors import InputError
from glode.features.columns import list_lengths
from glode.features.reach import gold_entities, reachable_entities
from glode.features.strings import string_ids
from glode.files import write_into, write_whole
from glode.metrics import measure
from glode.publishing.hub import copy_code
from glode.publishing.token_classifier import predict_entities, train_token_classifier
from glode.run.arguments import DataArguments, ModelArguments, RunArguments
from glode.run.backbone import fresh_model
from glode.run.fingerprint import read_fingerprint
from glode.run.preparation import Preparation
from glode.run.publishing import open_repository_or_go_on, write_run_card
from glode.run.report import Stopwatch, console, say, show_results, write_metrics
from glode.run.resuming import checkpoint_of, claim_output, finished_part, finished_run
from glode.training.arguments import GlodeTrainingArguments
from glode.training.head_warmup import fit_head, needs_warmup
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

    def stages(self) -> GlodeTrainer:
        """Run the stages that the arguments ask for.

        Returns:
            The trainer of the last one.
        Raises:
            InputError: the target stage alone lacks what it starts from.
        """
        if self.run.stage == "target" and not self.run.source_model and not self.run.pseudo_labels:
            raise InputError("--stage target needs --source_model or --pseudo_labels.")
        claim_output(self.training, self.run, self.fingerprint)
        if before := finished_run(self.training, self.run):
            return self._finished_stages(before)
        labels_are_there = self.run.stage == "target" and self.run.pseudo_labels
        trainer = self.trainer(self.fresh_model("source"), "source") if labels_are_there else self.source_stage()
        return trainer if self.run.stage == "source" else self.target_stage(self.pseudo_labels(trainer))

    def source_stage(self) -> GlodeTrainer:
        """Train the source model, or take the one that is there; its scores."""
        watch = Stopwatch()
        if directory := self.run.source_model or finished_part(self.training, "source_model"):
            self._say("source", f"{directory} is there already, and is not trained again")
            trainer = self.trainer(self._load_source_model(Path(directory)), "source")
        else:
            self.heading("stage 1: source model")
            trainer = self.trainer(self.fresh_model("source"), "source")
            self._train(trainer, "source")
            self._save(trainer, write_whole(self.output / "source_model", owner=self.main), with_fingerprint=True)
        self.metrics["cost"]["source_stage"] = watch.read()
        self.metrics["source_model"] = self._scores(trainer)
        return trainer

    def pseudo_labels(self, trainer: GlodeTrainer) -> PseudoLabels:
        """The source model's soft labels of the target text, or those that are there."""
        watch = Stopwatch()
        if path := self.run.pseudo_labels or finished_part(self.training, "pseudo_labels.safetensors"):
            self._say("labels", f"{path} is there already")
            labels = self._read_pseudo_labels(Path(path), trainer)
        else:
            self._say("labels", f"the source model labels {len(self.corpora.target)} sentences")
            labels = trainer.assign_pseudo_labels(self.target)
            if self.main:
                state = {"offsets": labels.offsets.cpu(), "probabilities": labels.probabilities.cpu()}
                with write_whole(self.output / "pseudo_labels.safetensors") as partial:
                    save_file(state, partial)
        self.metrics["cost"]["pseudo_labels"] = watch.read()
        return labels

    def target_stage(self, labels: PseudoLabels) -> GlodeTrainer:
        """Train the target model on the labels, which are refined meanwhile; its scores."""
        self.heading("stage 2: target model")
        watch = Stopwatch()
        trainer = self.trainer(self.fresh_model("target"), "target", labels)
        self._train(trainer, "target")
        self._save(trainer, write_into(self.output, owner=self.main))
        self.metrics["cost"]["target_stage"] = watch.read()
        self.metrics["target_model"] = self._scores(trainer)
        self.metrics["pseudo_labels"] = trainer.pseudo_label_history
        if self.run.export_token_classifier:
            self.token_classifier(trainer)
        return trainer

    def _finished_stages(self, before: dict) -> GlodeTrainer:
        """What a finished run has, with scores on the test sets that are given now."""
        self.heading("finished before: nothing is left to train")
        if self.run.stage == "all":
            self.source_stage()
        trainer = self.trainer(GlodeModel.from_pretrained(self.output), "source")
        self.metrics["target_model"] = self._scores(trainer)
        self.metrics |= {name: before[name] for name in ("pseudo_labels", "token_classifier", "cost", "epochs") if name in before}
        return trainer

    def token_classifier(self, teacher: GlodeTrainer) -> None:
        """Train the built-in token classifier beside the target model, and score it as its users will call it."""
        self.heading("token classifier")
        watch = Stopwatch()
        directory, epochs = self.output / "token_checkpoints", self.run.token_classifier_epochs
        arguments = self._arguments(output_dir=str(directory), num_train_epochs=epochs, push_to_hub=False)
        data = (self.corpora.source, self.corpora.dev, self.corpora.target)
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
            scored = self.run.stage == "source" and self.run.source_model and (self.output / "metrics.json").exists()
            # Scores of a model that was there already do not take the place of those of the run that trained it.
            path = write_metrics(self.metrics, self.output, "scores.json" if scored else "metrics.json")
            show_results(self.metrics, self.data)
            say("model", str(self.model_directory))
            say("results", str(path))

    # ---------------------------------------------------------------------------------------------------- models, trainers

    def fresh_model(self, stage: str) -> GlodeModel:
        """The same initial model for both stages and on all processes; a fresh language model's head is fitted for a stage that
        reads with it."""
        set_seed(self.training.seed)
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

    def trainer(self, model: GlodeModel, stage: str, pseudo_labels: PseudoLabels | None = None) -> GlodeTrainer:
        """The trainer of a stage, "source" or, with pseudo labels, "target"."""
        epochs = self.training.num_train_epochs
        if stage == "source" and self.training.source_num_train_epochs is not None:
            epochs = self.training.source_num_train_epochs
        directory = self.output / f"{stage}_checkpoints"
        pushes = self.repository is not None and stage == self.last_stage and self.training.hub_strategy != "end"
        if pushes and self.main:
            copy_code(directory)  # a push in the middle of training must be loadable
            write_run_card(self, directory)
        arguments = self._arguments(
            output_dir=str(directory), num_train_epochs=epochs, push_to_hub=pushes, hub_model_id=self.repository
        )
        references = gold_entities(self.corpora.target) if list_lengths(self.corpora.target, "types").any() else None
        trainer = GlodeTrainer(
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
            target_strings=self._target_strings() if pseudo_labels is not None else None,
        )
        watch(trainer, f"{stage} model")
        return trainer

    def _target_strings(self) -> torch.Tensor | None:
        """Which target spans are the same string, where that is asked for."""
        return string_ids(self.corpora.target, self.target, self.length) if self.training.agreement else None

    def _arguments(self, **changes: Any) -> GlodeTrainingArguments:
        return dataclasses.replace(self.training, **changes)

    def _save(self, trainer: Trainer, place: AbstractContextManager[Path], with_fingerprint: bool = False) -> None:
        """Save a trainer's model and tokenizer, whole or not at all; all processes take part."""
        with place as partial:
            trainer.accelerator.wait_for_everyone()  # what a killed run has left there is gone by now
            trainer.save_model(str(partial), _internal_call=True)  # the end of the run pushes it, with its card
            if with_fingerprint and self.main:
                self.fingerprint.write(partial)
        trainer.accelerator.wait_for_everyone()

    def _train(self, trainer: GlodeTrainer, stage: str) -> None:
        """Train a stage, from its newest checkpoint where the run is resumed.

        Raises:
            KeyboardInterrupt: Ctrl-C; a checkpoint has been saved.
        """
        self._fit_warmup(trainer, stage)
        checkpoint = checkpoint_of(self.training, stage)
        if self.main:
            self.fingerprint.write(self.output / f"{stage}_checkpoints")
            if checkpoint:
                console.print(f"goes on from {checkpoint}")
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        self.metrics["epochs"][stage] = trainer.state.epoch
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

    def _load_source_model(self, directory: Path) -> GlodeModel:
        """A source model that was trained before.

        Raises:
            InputError: it cannot be loaded, or is none of this run's backbone, types and span length.
        """
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
        return model

    def _read_pseudo_labels(self, path: Path, trainer: GlodeTrainer) -> PseudoLabels:
        """Pseudo labels that were written before.

        Raises:
            InputError: the file is missing or broken, or of another text, span length or set of types.
        """
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
        whose = read_fingerprint(path.parent)  # of the run that made them, where it is known
        same_text = not whose or all(whose.values.get(n) == self.fingerprint.values[n] for n in ("target text", "types"))
        same_windows = torch.equal(offsets.to(labels.offsets.device), labels.offsets)
        if not same_text or not same_windows or probabilities.shape != labels.probabilities.shape:
            raise InputError(
                f"--pseudo_labels {path} was made for another target text, span length or set of types. Make it new."
            )
        labels.probabilities.copy_(probabilities)
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
