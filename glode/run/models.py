"""The models of a run's stages: fresh, trained, saved, taken up again."""

import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, Trainer, set_seed
from transformers.utils import logging

from glode.denoising.pseudo_labels import PseudoLabels
from glode.errors import InputError
from glode.features.columns import list_lengths
from glode.features.reach import gold_entities
from glode.features.strings import string_ids
from glode.publishing.hub import copy_code
from glode.run.backbone import aligned, fresh_model
from glode.run.parts import checkpoints, numbered
from glode.run.preparation import Preparation
from glode.run.publishing import write_run_card
from glode.run.report import console
from glode.run.resuming import checkpoint_of
from glode.training.adapters import DIRECTORY, Adapter, adapter_of, is_adapted, learning_share, merge_adapters
from glode.training.arguments import GlodeTrainingArguments
from glode.training.head_warmup import fit_head, needs_warmup
from glode.training.pretraining import LanguageModelTrainer
from glode.training.progress import watch
from modeling_glode import GlodeModel
from trainer_glode import GlodeTrainer

logger = logging.get_logger("glode")
LOW_RATE = 5e-5  # below it adapters hardly learn


def training_steps(trainer: GlodeTrainer | LanguageModelTrainer) -> int:
    """Updates of the weights in a training, as the Trainer counts them."""
    arguments = trainer.args
    steps = -(-trainer.sampler.steps // arguments.gradient_accumulation_steps)
    return arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * steps)


def _check_not_spread(trainer: Trainer) -> None:
    """Raises InputError where the weights of a model with adapters are spread over devices."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise InputError(
            "--lora_rank: adapters are merged into weights that lie on one device, and FSDP and DeepSpeed spread them. Leave one "
            "of them out; with adapters a model needs far less memory."
        )


class StageModels:
    """Makes, trains, saves and loads the models of a run.

    Attributes:
        adapter: what the last training taught adapters, where these are kept by themselves.
        fitted_head: the weights of a fresh language model's head, once they are fitted; empty where the run leaves it fresh.
    """

    def __init__(self, run: Preparation):
        self.run = run
        self.adapter: Adapter | None = None
        self.fitted_head: dict[str, torch.Tensor] | None = None

    def fresh_model(self, stage: str, number: int = 1) -> GlodeModel:
        """The same initial model for both stages and on all processes, but that further teachers have other heads; a fresh
        language model's head is fitted for a stage that reads with it."""
        set_seed(self._seed(stage, number))
        model = fresh_model(self.run.path, self.run.config, self.run.model_arguments)
        if needs_warmup(model, self.run.training, stage):
            if number > 1 and self.fitted_head is None:
                self.fresh_model(stage)  # the first teacher is there already, and all have the head that it began with
            self._fit_head(model)
        return model

    def _fit_head(self, model: GlodeModel) -> None:
        """Fit a language model's head that the encoder came without, once a run, or say that there is none."""
        run = self.run
        steps = run.training.mlm_head_warmup_steps
        if self.fitted_head:
            model.mlm_head.load_state_dict(self.fitted_head)
        elif steps:
            losses = fit_head(model, run.tokenizer, run.source, run.target, run.training)
            self.fitted_head = {name: tensor.cpu() for name, tensor in model.mlm_head.state_dict().items()}
            run.say("language", f"a fresh head is fitted for {steps} steps: loss {losses[0]:.2f}, then {losses[-1]:.2f}")
        elif self.fitted_head is None:
            self.fitted_head = {}
            run.say("noted", "the encoder has no language model's head: a fresh one learns with the rest")

    def _seed(self, stage: str, number: int) -> int:
        """Teachers differ by their seeds, which follow one another; all rounds have the same one."""
        return (self.run.training.seed + (number - 1 if stage == "source" else 0)) % 2**32

    def trainer(self, model: GlodeModel, stage: str, number: int = 1, pseudo_labels: PseudoLabels | None = None) -> GlodeTrainer:
        """The trainer of a stage, "source" or, with pseudo labels, "target"; `number` says which teacher or round."""
        run = self.run
        epochs = run.training.num_train_epochs
        if stage == "source" and run.training.source_num_train_epochs is not None:
            epochs = run.training.source_num_train_epochs
        directory = run.output / checkpoints(stage, number)
        is_result = stage == run.last_stage and number == (1 if stage == "source" else run.options.rounds)
        pushes = run.repository is not None and is_result and run.training.hub_strategy != "end"
        if pushes and run.main:
            copy_code(directory)  # a push in the middle of training must be loadable
            write_run_card(run, directory)
        changes = {"output_dir": str(directory), "num_train_epochs": epochs, "seed": self._seed(stage, number)}
        arguments = self.arguments(**changes, push_to_hub=pushes, hub_model_id=run.repository)
        references = gold_entities(run.corpora.target) if list_lengths(run.corpora.target, "types").any() else None
        trainer = GlodeTrainer(
            model,
            arguments,
            run.tokenizer,
            source=run.source if pseudo_labels is None else run.labelled,
            target=run.target,
            dev=run.dev,
            dev_references=gold_entities(run.corpora.dev),
            pseudo_labels=pseudo_labels,
            target_references=references,
            languages=run.corpora.by_language("target"),
            source_languages=run.source_languages if pseudo_labels is None else run.labelled_languages,
            target_strings=self._target_strings() if pseudo_labels is not None else None,
        )
        watch(trainer, f"{stage} model" + (f" {number}" if number > 1 else ""))
        return trainer

    def _target_strings(self) -> torch.Tensor | None:
        """Which target spans are the same string, where that is asked for."""
        return string_ids(self.run.corpora.target, self.run.target, self.run.length) if self.run.training.agreement else None

    def arguments(self, **changes: Any) -> GlodeTrainingArguments:
        """The arguments of a stage, changed."""
        return dataclasses.replace(self.run.training, **changes)

    def train(self, trainer: GlodeTrainer, stage: str, number: int) -> None:
        """Train a stage, see `train_from`. The model has no adapters afterwards."""
        run = self.run
        if is_adapted(trainer.model.encoder):
            self._say_what_learns(trainer)
        self.train_from(checkpoint_of(run.training, stage, number), trainer, stage, number)
        if is_adapted(trainer.model.encoder):
            if run.options.save_adapter and run.main:
                name = run.path if run.options.pretrain_epochs else run.model_arguments.model_name_or_path
                self.adapter = adapter_of(trainer.model, name)
            merge_adapters(trainer.model.encoder)

    def train_from(
        self, checkpoint: Path | None, trainer: GlodeTrainer | LanguageModelTrainer, stage: str, number: int = 1
    ) -> None:
        """Train a stage, from a checkpoint where there is one.

        Raises:
            InputError: its adapters would be spread over devices.
            KeyboardInterrupt: Ctrl-C; a checkpoint has been saved.
        """
        run = self.run
        self._fit_warmup(trainer, stage)
        if run.model_arguments.lora_rank:
            _check_not_spread(trainer)
        if run.main:
            run.fingerprint.write(run.output / checkpoints(stage, number))
            if checkpoint:
                console.print(f"goes on from {checkpoint}")
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        run.metrics["epochs"][numbered(stage, number)] = trainer.state.epoch
        if trainer.interrupt.interrupted:
            raise KeyboardInterrupt

    def _say_what_learns(self, trainer: GlodeTrainer) -> None:
        """How few weights a run with adapters trains, once; and where their rate is one for whole weights."""
        run = self.run
        if "parameters" in run.metrics:
            return
        learn, total = learning_share(trainer.model)
        run.metrics["parameters"] = {"learn": learn, "all": total}
        run.say("adapters", f"of rank {run.model_arguments.lora_rank}: {learn:,} of {total:,} weights learn")
        if run.main and (rate := run.training.learning_rate) < LOW_RATE:
            logger.warning(
                f"--learning_rate {rate:g} is one for whole weights: adapters want about ten times as much, such as 2e-4."
            )

    def _fit_warmup(self, trainer: GlodeTrainer | LanguageModelTrainer, stage: str) -> None:
        """Of a short stage a recipe's or a default's warm-up takes a tenth at most; one that was given stays."""
        run = self.run
        warmup, steps = trainer.args.warmup_steps, training_steps(trainer)
        if not run.options.warmup_is_given and warmup > (most := steps // 10):
            trainer.args.warmup_steps = most
            run.say("noted", f"the {stage} stage has {steps} steps: its warm-up takes {most} of them, not {warmup:g}")
        elif run.options.warmup_is_given and warmup > steps / 2 and run.main:
            logger.warning(
                f"--warmup_steps {warmup:g} is more than half of the {steps} steps of the {stage} stage: the learning rate is at "
                "its peak for a moment at best. Give fewer, or more epochs."
            )

    def save(
        self, trainer: Trainer, place: AbstractContextManager[Path], write_more: Callable[[Path], None] | None = None
    ) -> None:
        """Save a trainer's model and tokenizer, and what stands with them, whole or not at all; all processes take part."""
        with place as directory:
            trainer.accelerator.wait_for_everyone()  # what a killed run has left there is gone by now
            trainer.save_model(str(directory), _internal_call=True)  # the end of the run pushes it, with its card
            if self.adapter:
                self.adapter.write(directory / DIRECTORY)
                self.adapter = None
            if write_more and self.run.main:
                write_more(directory)
        trainer.accelerator.wait_for_everyone()

    def load(self, directory: Path) -> GlodeModel:
        """A model that was trained before.

        Raises:
            InputError: it cannot be loaded, or is none of this run's backbone, units, types and span length.
        """
        run = self.run
        try:
            model = aligned(GlodeModel.from_pretrained(directory))
            tokenizer = AutoTokenizer.from_pretrained(directory, config=model.config)  # else asks whether to run code
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(
                f"--teachers {directory} cannot be loaded ({str(error).splitlines()[0]}). Give a source_model directory "
                "that run_crossner.py has written."
            ) from error
        if tokenizer.get_vocab() != run.tokenizer.get_vocab():
            raise InputError(
                f"--teachers {directory} has another vocabulary than the backbone {run.path}. Train it on this backbone."
            )
        found = (model.config.max_span_length, list(model.config.id2label.values()))
        if (units := model.config.units) != run.config.units:
            raise InputError(
                f"--teachers {directory} reads scripts without spaces by the {units}; this run, by the {run.config.units}. "
                f"Give --units {units}, or a model that was trained so."
            )
        if found != (run.length, run.labels):
            raise InputError(
                f"--teachers {directory} has L = {found[0]} and types {found[1]}; this run needs "
                f"L = {run.length} and {run.labels}. Give --max_span_length {found[0]}, or a model of these types."
            )
        return model
