"""The pretraining of a run: before the stages, its backbone reads the text of both languages."""

import copy
import json
from pathlib import Path

import torch
from transformers import set_seed

from glode.files import write_whole
from glode.run.backbone import aligned, fresh_model
from glode.run.models import StageModels
from glode.run.parts import checkpoints
from glode.run.preparation import Preparation
from glode.run.report import Stopwatch, write_metrics
from glode.run.resuming import PRETRAINED, checkpoint_of, finished_part
from glode.training.adapters import adapt, merge_adapters
from glode.training.pretraining import LanguageModelTrainer
from glode.training.progress import watch
from modeling_glode import load_language_model

STAGE = "pretraining"


def pretrain(run: Preparation, models: StageModels) -> None:
    """Train the backbone as a masked language model, or take the one that is there; the run goes on with it as its backbone."""
    stopwatch, directory = Stopwatch(), run.output / PRETRAINED
    if finished_part(run.training, PRETRAINED):
        run.say("backbone", f"{directory} is there already, and is not trained again")
        facts = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    else:
        run.heading("pretraining: the backbone reads both languages")
        facts = _train(run, models, directory)
    before, after = facts["loss_before"], facts["loss_after"]
    run.say("backbone", f"loss on held-out text {before:.2f} before and {after:.2f} after; the stages start from {directory}")
    run.metrics[STAGE], run.path = facts, str(directory)
    run.metrics["cost"][STAGE] = stopwatch.read()


def _train(run: Preparation, models: StageModels, directory: Path) -> dict[str, float]:
    """Train it, and put it into its directory. Returns what is told of it."""
    trainer, head_is_fresh = _trainer(run, models)
    checkpoint, steps = checkpoint_of(run.training, STAGE), run.training.mlm_head_warmup_steps
    if head_is_fresh:
        run.say("noted", "the encoder has no language model's head: a fresh one is learnt")
        if steps and not checkpoint:
            losses = trainer.fit_head()
            run.say("language", f"a fresh head is fitted for {steps} steps: loss {losses[0]:.2f}, then {losses[-1]:.2f}")
    models.train_from(checkpoint, trainer, STAGE)
    if run.model_arguments.lora_rank:
        merge_adapters(trainer.model.base_model)
    losses = trainer.held_out_losses()
    facts = {"epochs": trainer.state.epoch, "loss_before": losses[0], "loss_after": losses[-1]}

    def write_more(partial: Path) -> None:
        run.fingerprint.write(partial)
        write_metrics(facts, partial)

    models.save(trainer, write_whole(directory, owner=run.main), write_more)
    return facts


def _trainer(run: Preparation, models: StageModels) -> tuple[LanguageModelTrainer, bool]:
    """The trainer of the backbone's language model, and whether that one has a fresh head.

    Raises:
        InputError: the encoder does not read as it must, see `fresh_model`.
    """
    attention = fresh_model(run.path, run.config, run.model_arguments).encoder.config._attn_implementation
    set_seed(run.training.seed)  # of a fresh head
    config = copy.deepcopy(run.config.encoder_config)
    model, head = load_language_model(run.path, config, dtype=torch.float32, attn_implementation=attention)
    if rank := run.model_arguments.lora_rank:
        adapt(model.base_model, rank, run.model_arguments.lora_alpha)
    arguments = models.arguments(
        output_dir=str(run.output / checkpoints(STAGE, 1)),
        num_train_epochs=run.options.pretrain_epochs,
        max_steps=-1,
        eval_on_start=True,
        eval_strategy="epoch",
        eval_delay=0,
        load_best_model_at_end=False,
        metric_for_best_model="loss",
        greater_is_better=False,
        push_to_hub=False,
    )
    trainer = LanguageModelTrainer(aligned(model), arguments, run.tokenizer, run.source, run.target)
    watch(trainer, STAGE)
    return trainer, head is None
