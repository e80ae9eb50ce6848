"""One Trainer for both stages: source model (eq. 1-3) and target model with global-local denoising (eq. 4-11)."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.utils import logging

from glode.denoising.baselines import denoiser_class
from glode.denoising.denoiser import Denoiser
from glode.denoising.gathering import alone
from glode.denoising.pseudo_labels import PseudoLabels, prune_overlaps
from glode.fast.preparing import speed_up
from glode.features.columns import list_lengths, numbers, span_counts, token_set
from glode.features.predictions import by_window, entities_by_word, merge_windows
from glode.features.streams import TwoStreams, TwoStreamSampler, of_languages
from glode.metrics import Entity
from glode.training.adapters import is_adapted
from glode.training.arguments import GlodeTrainingArguments
from glode.training.assignment import empty_pseudo_labels, write_soft_labels
from glode.training.batches import make_collator, mean_masked
from glode.training.calibration import fit_temperature, gold_logits
from glode.training.callbacks import DenoisingCallback, InterruptCallback, PatienceCallback, SamplerCallback, out_of_patience
from glode.training.denoising_state import DENOISING_STATE, load_denoising, save_denoising
from glode.training.losses import LossMeans, contrastive, finite, nll, reduce_spans, row_weights, soft_cross_entropy
from glode.training.optimizer import give_head_its_rate, one_cycle
from glode.training.reading import CorpusReader
from glode.training.report import PseudoLabelReport
from glode.training.scoring import DevScores
from glode.training.search import SearchCallback, first_model, fresh_models
from modeling_glode import GlodeModel

SPAN_COLUMNS = ("labels", "is_target", "window", "key", "own_start", "span_mask", "target_spans")  # not read by the model
PREDICTION_COLUMNS = (  # of a batch, from which the model predicts
    *("input_ids", "attention_mask", "position_ids", "token_places", "read_tokens", "first_token", "last_token", "word_shapes"),
)


class GlodeTrainer(Trainer):
    """Trains a [`GlodeModel`] on labelled source text and unlabelled target text.

    Without `pseudo_labels` this is the source stage: L_src + w L_mlm. With them it is the target stage: L_src + L_tgt +
    w L_mlm, and `compute_loss` swaps in the soft labels, refined as training goes on. All streams are in
    one batch, source rows first.

    Args:
        source: labelled windows, see `build_features`.
        target: unlabelled windows.
        dev: labelled source windows for the choice of the checkpoint.
        dev_references: their gold entities, one list of (first word, length, type) a sentence.
        pseudo_labels: the soft labels of `target`.
        target_references: gold entities of the target sentences, for the report only.
        languages: where the target text is of several languages, the sentences of each, one language after the other.
        source_languages: of the source windows, see [`Denoiser`]; None where all are of one source language.
        target_strings: with `agreement`, which target spans are the same string, see `string_ids`.
        model_init: in place of `model`, gives each training a fresh one: for `hyperparameter_search` of the source stage.
    """

    # The losses are means over a batch: the Trainer has to divide them by the accumulation steps.
    loss_is_scaled_for_ga = False

    args: GlodeTrainingArguments
    compute_metrics: Callable | None

    def __init__(
        self,
        model: GlodeModel | None,
        args: GlodeTrainingArguments,
        processing_class: PreTrainedTokenizerBase,
        source: Dataset | None = None,
        target: Dataset | None = None,
        dev: Dataset | None = None,
        dev_references: Sequence | None = None,
        pseudo_labels: PseudoLabels | None = None,
        target_references: Sequence | None = None,
        languages: dict[str, range] | None = None,
        source_languages: Tensor | None = None,
        target_strings: Tensor | None = None,
        model_init: Callable[..., GlodeModel] | None = None,
        **kwargs,
    ):
        denoises = pseudo_labels is not None
        self.mlm = target is not None and args.auxiliary_task == "mlm" and args.mlm_weight > 0
        self.mlm = self.mlm and (denoises or args.source_mlm == "on")
        self.contrastive = args.auxiliary_task == "scl" or (denoises and args.denoising == "contproto")
        target = target if denoises or self.mlm else None
        model = first_model(model, model_init, args.seed, denoises)
        self._choose_what_learns(model, args, denoises)
        self.target_batch_size = args.per_device_train_batch_size if target is not None else 0
        batches = {"keep_target": denoises, "first_position": speed_up(model)}
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=make_collator(processing_class, args, model.config.max_span_length, self.mlm, **batches),
            train_dataset=TwoStreams(source, target) if source is not None else None,
            eval_dataset=TwoStreams(dev, None) if dev is not None else None,
            compute_metrics=DevScores(dev, dev_references or [], model.config.id2label) if dev is not None else None,
            **kwargs,
        )
        self.model_init = fresh_models(model_init, lambda fresh: self._choose_what_learns(fresh, args, denoises))
        self.denoiser: Denoiser | None = None
        self.interrupt = InterruptCallback()
        self.gather = alone if args.world_size == 1 else lambda tensor: self.accelerator.gather(tensor[None])
        self.loss_means = LossMeans(self.gather)
        if pseudo_labels is not None:
            self._prepare_denoising(pseudo_labels, target, languages or {}, source_languages, target_references, target_strings)
        if source is not None:
            self._prepare_streams(source, target, source_languages, max(len(languages or ()), 1))
            self.add_callback(SamplerCallback(self.sampler))
        for callback in (PatienceCallback(), SearchCallback(), self.interrupt):
            self.add_callback(callback)

    def _choose_what_learns(self, model: GlodeModel, args: GlodeTrainingArguments, denoises: bool) -> None:
        """What gets no gradient must not ask for one: several processes would wait for it."""
        model.mlm_head.requires_grad_(self.mlm)
        model.projector.requires_grad_(self.contrastive or (args.train_projection and denoises))
        model.get_input_embeddings().requires_grad_(not (args.freeze_embeddings or is_adapted(model.encoder)))

    def _prepare_denoising(
        self,
        labels: PseudoLabels,
        target: Dataset,
        languages: dict[str, range],
        source_languages: Tensor | None,
        references: Sequence | None,
        strings: Tensor | None,
    ) -> None:
        """The denoiser, the report of its labels, and the callback that refreshes both."""
        ends = [sentences.stop for sentences in languages.values()]
        language_of = np.searchsorted(ends[:-1], numbers(target, "sentence"), side="right")
        self.denoiser = denoiser_class(self.args.denoising)(
            labels,
            self.args.denoising_settings,
            self.model.config.projection_size,
            languages=torch.from_numpy(language_of),
            source_languages=source_languages,
            gather=self.gather,
            rank=self.accelerator.process_index,
            strings=strings,
        )
        self.report = PseudoLabelReport(self.denoiser, target, self.model.config, languages, references)
        self.denoising_callback = DenoisingCallback(self.denoiser, self.report.summary, self.log, self.refine_labels)
        self.add_callback(self.denoising_callback)

    def _prepare_streams(self, source: Dataset, target: Dataset | None, languages: Tensor | None, targets: int) -> None:
        """The sampler, and what the corpora have on the mean: a batch's losses are divided by it. `languages` are those of the
        source windows, 1 to `targets` for target languages."""
        args, length = self.args, self.model.config.max_span_length
        lengths = [list_lengths(s, "input_ids") if s is not None else np.empty(0, np.int32) for s in (source, target)]
        batches = (args.per_device_train_batch_size, self.target_batch_size)
        by_language = of_languages(languages.numpy(), targets) if languages is not None else ()
        self.sampler = TwoStreamSampler(lengths[0], lengths[1], *batches, args.seed, args.world_size, by_language)
        texts = [target, *([source] if args.mlm_text == "both" else [])] if target is not None else []
        self.source_weights = row_weights(len(source), languages, targets, args.target_train_weight).to(args.device)
        self.mean_masked = mean_masked(texts, self.processing_class, args)
        of_target = float(span_counts(target, length).mean()) if target is not None else 1.0
        self.mean_spans = [self.sampler.source_mean(span_counts(source, length)), of_target]
        self.mlm_tokens = token_set(*texts, device=args.device) if self.mlm and args.mlm_vocabulary == "target" else None

    # ------------------------------------------------------------------------------------------------------------ batches

    def _get_train_sampler(self, train_dataset=None) -> TwoStreamSampler:
        return self.sampler

    def get_train_dataloader(self) -> DataLoader:
        """A micro-batch holds the source windows and as many target windows."""
        batch_size = self._train_batch_size + self.target_batch_size
        return self._get_dataloader(self.train_dataset, "Training", batch_size, self._get_train_sampler, is_training=True)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        rate = self.args.head_learning_rate if self.optimizer is None else None  # one that is there has its rates
        return give_head_its_rate(super().create_optimizer(model), self.model.encoder, rate)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        if self.args.one_cycle:
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = one_cycle(optimizer or self.optimizer, warmup, num_training_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    # --------------------------------------------------------------------------------------------------------------- loss

    def compute_loss(self, model, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch=None):
        """L_src (eq. 1), L_mlm (eq. 3) and, in the target stage, L_tgt (eq. 4) on the refined soft labels."""
        spans = {name: inputs.pop(name) for name in SPAN_COLUMNS}
        projects = self.contrastive or (self.denoiser is not None and self.denoiser.reads_vectors)
        outputs = model(**inputs, mlm_tokens=self.mlm_tokens, return_projection=projects)
        rows, is_span = self.args.per_device_train_batch_size, spans["span_mask"]
        types, log_probabilities = [spans["labels"][:rows]], outputs.logits.log_softmax(-1)
        losses = {"source_loss": self._source_loss(log_probabilities[:rows], spans)}
        if self.denoiser is not None:
            soft = self._denoise(self.denoiser, outputs.projection, spans)
            wanted = self.denoiser.loss_targets(soft, is_span[rows:])
            losses["target_loss"] = self._target_loss(log_probabilities[rows:], wanted, is_span[rows:])
            types.append(soft.argmax(-1))
            if self.args.train_projection:
                losses["projection_loss"] = self._projection_loss(self.denoiser, outputs.projection[:rows], spans)
        if outputs.mlm_loss is not None:
            losses["mlm_loss"] = outputs.mlm_loss
            if self.args.loss_reduction != "batch":  # a token weighs the same in every batch, as a span does
                losses["mlm_loss"] = outputs.mlm_loss * (inputs["mlm_labels"] != -100).sum() / self.mean_masked
        if self.contrastive:
            drawn = (self.args.datastore_outside_share, self.args.seed, self.state.global_step)
            losses["contrastive_loss"] = contrastive(outputs.projection, torch.cat(types), is_span, *drawn)
        self.loss_means.add(losses)
        weights = {"mlm_loss": self.args.mlm_weight, "contrastive_loss": self.args.contrastive_weight}
        loss = sum(weights.get(name, 1.0) * value for name, value in losses.items())
        return (loss, outputs) if return_outputs else loss

    def _source_loss(self, log_probabilities: Tensor, spans: dict[str, Tensor]) -> Tensor:
        """L_src of log probabilities, or of log similarities [source rows, words, length, types]."""
        rows = len(log_probabilities)
        losses = nll(log_probabilities, spans["labels"][:rows]) * self.source_weights[spans["window"][:rows], None, None]
        return reduce_spans(losses, spans["span_mask"][:rows], self.args.loss_reduction, self.mean_spans[0])

    def _denoise(self, denoiser: Denoiser, projection: Tensor | None, spans: dict[str, Tensor]) -> Tensor:
        """The soft labels of a batch's target spans, as the denoiser has them now: [batch, words, length, D] -> [target rows,
        words, length, types]."""
        vectors = None if projection is None else projection.detach()
        rows, step = self.args.per_device_train_batch_size, self.state.global_step
        soft = denoiser.step(vectors, **spans, step=step, beta=self.beta(), source_rows=rows)
        return prune_overlaps(soft, spans["span_mask"][-len(soft) :]) if self.args.prune_pseudo_labels else soft

    def _target_loss(self, log_probabilities: Tensor, wanted: Tensor, is_span: Tensor) -> Tensor:
        """L_tgt: [target rows, words, length, types], the same, bool [target rows, words, length]."""
        predicted = log_probabilities.exp().log_softmax(-1) if self.args.double_softmax else log_probabilities
        return reduce_spans(soft_cross_entropy(predicted, wanted), is_span, self.args.loss_reduction, self.mean_spans[1])

    def _projection_loss(self, denoiser: Denoiser, projection: Tensor, spans: dict[str, Tensor]) -> Tensor:
        """L_src of a classifier by the similarity to the prototypes. [source rows, words, length, D]"""
        vectors = denoiser.centered(projection, denoiser.language_of(spans["window"], spans["is_target"])[: len(projection)])
        similarity = denoiser.prototypes.similarity(vectors) / 0.1
        return self._source_loss(similarity.log_softmax(-1), spans)

    def beta(self) -> float | None:
        """The weight of the old label at this step (eq. 11), None before refinement starts. A pure function of the step."""
        done = self.state.global_step / max(self.state.max_steps, 1)
        return self.args.denoising_settings.beta(int(self.state.epoch), self.epochs, done)

    @property
    def epochs(self) -> int:
        """Of the run, the last of which may be cut."""
        return self.state.num_train_epochs or math.ceil(self.args.num_train_epochs)

    def refine_labels(self, epoch: int) -> dict[str, float]:
        """With `--refine epoch`, refine all pseudo labels as an epoch begins, unless that is done; what is logged of it."""
        if self.denoiser is None or self.denoiser.settings.refine != "epoch":
            return {}
        beta = self.denoiser.settings.beta(epoch, self.epochs, (epoch + 0.5) / self.epochs)
        if beta is None:
            return {}
        collator = dataclasses.replace(self.data_collator, mlm_probability=0.0)
        place = (self.args.per_device_eval_batch_size, self.args.process_index, self.args.world_size)
        read = CorpusReader(self.model, self.train_dataset, collator, self._read, *place).read
        return self.denoiser.refine_all(read, epoch, beta)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the parts of the loss over processes and steps. Raises InputError where one is no number."""
        if "loss" in logs:
            logs |= finite(self.loss_means.take(), self.state.global_step, self.args.output_dir)
        super().log(logs, start_time)

    # --------------------------------------------------------------------------------------------------------- prediction

    def _get_eval_sampler(self, eval_dataset: TwoStreams) -> list[int]:
        """Windows of similar length share a batch; the longest come first, so that what memory lacks is seen at once."""
        return np.argsort(-list_lengths(eval_dataset.source, "input_ids"), kind="stable").tolist()

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Entities of each window, at most one a first word: [rows, words, (type, length, probability)], and the window."""
        inputs, outputs = self._read(model, inputs)
        return None, entities_by_word(outputs.logits, inputs["span_mask"]), inputs["window"]

    @torch.no_grad()
    def _read(self, model, batch: dict[str, Tensor], **options) -> tuple[dict[str, Tensor], Any]:
        """A batch where the model lies, and what the model says of it."""
        inputs = send_to_device(batch, self.args.device, non_blocking=self.accelerator.non_blocking)
        with self.accelerator.autocast():
            return inputs, model(**{name: inputs[name] for name in PREDICTION_COLUMNS if name in inputs}, **options)

    def predict_entities(self, windows: Dataset, sentences: int) -> list[list[Entity]]:
        """The entities (first word, length, type) of each sentence of a corpus' windows, windows joined."""
        compute_metrics, self.compute_metrics = self.compute_metrics, None
        prediction = by_window(self.predict(TwoStreams(windows, None)))
        self.compute_metrics = compute_metrics
        return merge_windows([prediction], windows, sentences, self.model.config.id2label)

    # ------------------------------------------------------------------------------------------------------ pseudo labels

    def assign_pseudo_labels(
        self, windows: Dataset, temperature: float = 1.0, others: PseudoLabels | None = None, number: int = 0
    ) -> PseudoLabels:
        """Soft labels of every span of the target text, from this trainer's (source) model, whose logits are divided by
        `temperature`; where `others` is the mean of `number` other teachers' labels, it becomes the mean of all."""
        labels = others or empty_pseudo_labels(windows, self.model.config, self.args, self.accelerator.wait_for_everyone)
        hard_outside = self.args.initial_labels == "hard_outside"
        return write_soft_labels(labels, self._logits_of(windows), temperature, hard_outside, number, self.gather)

    def fit_temperature(self) -> float:
        """The temperature at which this model is as sure as it is right on the development set."""
        return fit_temperature(*gold_logits(self._logits_of(dev := self.eval_dataset.source), dev, self.gather))

    def _logits_of(self, windows: Dataset) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Batches of windows, where the model lies, and the logits of each: [batch, words, length, types]."""
        self.model.eval()
        batches = self.get_test_dataloader(TwoStreams(windows, None))  # that of evaluation may be kept, with other windows
        for batch in logging.tqdm(batches, desc="Reading windows", disable=self.args.disable_tqdm):
            inputs, outputs = self._read(self.model, batch)
            yield inputs, outputs.logits

    def pseudo_entities(self, sentences: int) -> list[list[Entity]]:
        """The entities (first word, length, type) that the pseudo labels of each target sentence say."""
        return self.report.entities(sentences)

    @property
    def pseudo_label_history(self) -> list[dict]:
        """Of each epoch what `PseudoLabelReport.summary` says of the pseudo labels, with its number."""
        return self.denoising_callback.history

    # -------------------------------------------------------------------------------------------------------- checkpoints

    def create_model_card(self, *args, **kwargs) -> None:
        """The card belongs to the run, which knows the corpora and the scores; a push must not overwrite it."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.denoiser is not None:
            state = self.denoiser.state_dict()  # gathers: every process takes part
            if self.args.should_save:
                save_denoising(Path(output_dir, DENOISING_STATE), state, self.pseudo_label_history)

    def _init_training_state(self, max_steps: int, updates: int, epochs: int, *more: Any) -> tuple[int, int]:
        """The epoch and the batch that come first: none after an end in the midst of an epoch, or out of patience."""
        first = super()._init_training_state(max_steps, updates, epochs, *more)
        return (epochs, 0) if self.state.global_step >= max_steps or out_of_patience(self.args, self.state) else first

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.denoiser is not None:
            state, self.denoising_callback.history = load_denoising(Path(checkpoint, DENOISING_STATE))
            self.denoiser.load_state_dict(state)
