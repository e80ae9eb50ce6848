"""One Trainer for both stages: source model (eq. 1-3) and target model with global-local denoising (eq. 4-11)."""

import math
import platform
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
)
from transformers.utils import logging

from glode.denoising.baselines import denoiser_class
from glode.denoising.denoiser import Denoiser
from glode.denoising.pseudo_labels import PseudoLabels, prune_overlaps
from glode.errors import InputError
from glode.fast.dropout import replace_dropout
from glode.fast.packing import pack_encoder
from glode.features.collator import GlodeCollator
from glode.features.predictions import by_window, entities_by_word
from glode.features.streams import TwoStreams, TwoStreamSampler
from glode.features.windows import grids, list_lengths, merge_windows, numbers, span_counts, token_set
from glode.metrics import entity_scores, of_known_types
from glode.randomness import uniform
from glode.training.arguments import GlodeTrainingArguments
from glode.training.callbacks import DenoisingCallback, InterruptCallback
from glode.training.losses import nll, soft_cross_entropy, supervised_contrastive
from glode.training.optimizer import give_head_its_rate
from modeling_glode import GlodeModel

logger = logging.get_logger(__name__)

DENOISING_STATE = "denoising_state.safetensors"


class GlodeTrainer(Trainer):
    """Trains a [`GlodeModel`] on labelled source text and unlabelled target text.

    Without `pseudo_labels` this is the source stage: L_src + w L_mlm. With them it is the target stage: L_src + L_tgt +
    w L_mlm, and `compute_loss` swaps in the soft labels, refined as training goes on. All streams are in
    one batch.

    Args:
        source: labelled windows, see `build_features`.
        target: unlabelled windows.
        dev: labelled source windows for the choice of the checkpoint.
        dev_references: their gold entities, one list of (first word, length, type) a sentence.
        pseudo_labels: the soft labels of `target`.
        target_references: gold entities of the target sentences, for the report only.
        languages: where the target text is of several languages, the sentences of each, one language after the other.
    """

    # The losses are means over a batch: the Trainer has to divide them by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: GlodeModel,
        args: GlodeTrainingArguments,
        processing_class: PreTrainedTokenizerBase,
        source: Dataset | None = None,
        target: Dataset | None = None,
        dev: Dataset | None = None,
        dev_references: Sequence | None = None,
        pseudo_labels: PseudoLabels | None = None,
        target_references: Sequence | None = None,
        languages: dict[str, range] | None = None,
        **kwargs,
    ):
        length = model.config.max_span_length
        mlm = target is not None and args.auxiliary_task == "mlm" and args.mlm_weight > 0
        mlm = mlm and (pseudo_labels is not None or args.source_mlm == "on")
        self.contrastive = args.auxiliary_task == "scl" or (pseudo_labels is not None and args.denoising == "contproto")
        if pseudo_labels is None and not mlm:
            target = None
        # What gets no gradient must not ask for one: several processes would wait for it.
        model.mlm_head.requires_grad_(mlm)
        model.projector.requires_grad_(self.contrastive or (args.train_projection and pseudo_labels is not None))
        model.get_input_embeddings().requires_grad_(not args.freeze_embeddings)
        replace_dropout(model)
        collator = GlodeCollator(
            processing_class,
            length,
            mlm_probability=args.mlm_probability if mlm else 0.0,
            keep_target=pseudo_labels is not None,
            seed=args.seed,
            first_position=pack_encoder(model.encoder),
        )
        self.target_batch_size = args.per_device_train_batch_size if target is not None else 0
        self.dev, self.dev_references = dev, dev_references
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=collator,
            train_dataset=TwoStreams(source, target) if source is not None else None,
            eval_dataset=TwoStreams(dev, None) if dev is not None else None,
            compute_metrics=self._dev_scores if dev is not None else None,
            **kwargs,
        )
        self.denoiser, self.languages = None, languages or {}
        if pseudo_labels is not None:
            self.denoiser = denoiser_class(args.denoising)(
                pseudo_labels,
                args.denoising_settings,
                model.config.projection_size,
                languages=self._languages_of(target),
                gather=self._gather,
                rank=self.accelerator.process_index,
            )
        if source is not None:
            lengths = [list_lengths(stream, "input_ids") if stream is not None else [] for stream in (source, target)]
            batches = (args.per_device_train_batch_size, self.target_batch_size)
            self.sampler = TwoStreamSampler(*lengths, *batches, args.seed, args.world_size)
            tokens = np.mean(lengths[1]) - processing_class.num_special_tokens_to_add() if target is not None else 1.0
            self.mlm_tokens = token_set(target, args.device) if mlm and args.mlm_vocabulary == "target" else None
            self.mean_masked = args.per_device_train_batch_size * tokens * args.mlm_probability
            self.mean_spans = [
                float(span_counts(stream, length).mean()) if stream is not None else 1.0 for stream in (source, target)
            ]
        self.denoising_callback = DenoisingCallback(self, target_references)
        self.add_callback(self.denoising_callback)
        self.interrupt = InterruptCallback()
        self.add_callback(self.interrupt)
        self._components: dict[str, list[Tensor]] = defaultdict(list)

    def _languages_of(self, windows: Dataset) -> np.ndarray:
        """The language of each target window, from 0. [windows]"""
        ends = [sentences.stop for sentences in self.languages.values()]
        return np.searchsorted(ends[:-1], numbers(windows, "sentence"), side="right")

    def _gather(self, tensor: Tensor) -> Tensor:
        """[...] -> [processes, ...], by rank."""
        return self.accelerator.gather(tensor[None])

    # ------------------------------------------------------------------------------------------------------------ batches

    def _get_train_sampler(self, train_dataset=None) -> TwoStreamSampler:
        return self.sampler

    def get_train_dataloader(self) -> DataLoader:
        """A micro-batch holds the source windows and as many target windows."""
        batch_size = self._train_batch_size + self.target_batch_size
        return self._get_dataloader(self.train_dataset, "Training", batch_size, self._get_train_sampler, is_training=True)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        return give_head_its_rate(super().create_optimizer(model), self.model.encoder, self.args.head_learning_rate)

    # --------------------------------------------------------------------------------------------------------------- loss

    def compute_loss(self, model, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch=None):
        """L_src (eq. 1), L_mlm (eq. 3) and, in the target stage, L_tgt (eq. 4) on the refined soft labels."""
        spans = {name: inputs.pop(name) for name in ("labels", "is_target", "window", "key", "own_start", "span_mask")}
        projecting = self.denoiser is not None or self.contrastive
        outputs = model(**inputs, mlm_tokens=self.mlm_tokens, return_projection=projecting)
        rows = self.args.per_device_train_batch_size
        gold, is_span = spans["labels"][:rows], spans["span_mask"]
        log_probabilities = outputs.logits.log_softmax(-1)
        losses = {"source_loss": self._reduce(nll(log_probabilities[:rows], gold), is_span[:rows], self.mean_spans[0])}
        if self.denoiser is not None:
            soft = self.denoiser.step(outputs.projection.detach(), **spans, step=self.state.global_step, beta=self.beta())
            if self.args.prune_pseudo_labels:
                soft = prune_overlaps(soft, is_span[rows:])
            predicted = log_probabilities[rows:]
            if self.args.double_softmax:
                predicted = predicted.exp().log_softmax(-1)
            wanted = self.denoiser.loss_targets(soft, is_span[rows:])
            losses["target_loss"] = self._reduce(soft_cross_entropy(predicted, wanted), is_span[rows:], self.mean_spans[1])
            if self.args.train_projection:
                vectors = self.denoiser.centered(outputs.projection[:rows], torch.zeros_like(spans["window"][:rows]))
                similarity = self.denoiser.prototypes.similarity(vectors) / 0.1
                losses["projection_loss"] = self._reduce(
                    nll(similarity.log_softmax(-1), gold), is_span[:rows], self.mean_spans[0]
                )
        loss = sum(losses.values())
        if outputs.mlm_loss is not None:  # a token weighs the same in every batch, as a span does
            losses["mlm_loss"] = outputs.mlm_loss * (inputs["mlm_labels"] != -100).sum() / self.mean_masked
            loss = loss + self.args.mlm_weight * losses["mlm_loss"]
        if self.contrastive:
            types = gold if self.denoiser is None else torch.cat([gold, soft.argmax(-1)])
            losses["contrastive_loss"] = self._contrastive_loss(outputs.projection[is_span], types[is_span])
            loss = loss + self.args.contrastive_weight * losses["contrastive_loss"]
        for name, value in losses.items():
            self._components[name].append(value.detach())
        return (loss, outputs) if return_outputs else loss

    def _contrastive_loss(self, vectors: Tensor, types: Tensor) -> Tensor:
        """Over the entity spans of both languages and the share of O spans that the datastore keeps. [spans, D], [spans]."""
        keys = torch.arange(len(types), device=types.device)
        lucky = uniform(keys, self.args.seed, self.state.global_step) < self.args.datastore_outside_share
        kept = (types != 0) | lucky
        return supervised_contrastive(vectors[kept], types[kept])

    def _reduce(self, losses: Tensor, span_mask: Tensor, mean_spans: float) -> Tensor:
        """Average [rows, words, length] losses over the spans, so that a span's weight does not depend on its neighbours in the
        batch ("span": by the corpus' mean number of spans), or within each window first ("sentence")."""
        totals = (losses * span_mask).sum((1, 2))
        if self.args.loss_reduction == "span":
            return totals.mean() / mean_spans
        return (totals / span_mask.sum((1, 2)).clamp(min=1)).mean()

    def beta(self) -> float | None:
        """The weight of the old label at this step (eq. 11), None before refinement starts. A pure function of the step."""
        epoch = self.args.refine_start_epoch if self.state.epoch is None else int(self.state.epoch)
        return self.args.denoising_settings.beta(epoch, self.state.global_step / max(self.state.max_steps, 1))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the loss components since the last log line.

        Raises:
            InputError: one of them is not a number any more.
        """
        if "loss" in logs:
            means = {name: torch.stack(values).mean().item() for name, values in self._components.items()}
            self._components.clear()
            if lost := [name for name, value in means.items() if not math.isfinite(value)]:
                raise InputError(
                    f"{lost[0]} is {means[lost[0]]} at step {self.state.global_step}. Lower --learning_rate or train in full "
                    f"precision; the checkpoints in {self.args.output_dir} are from before."
                )
            logs |= means
        super().log(logs, start_time)

    # --------------------------------------------------------------------------------------------------------- prediction

    def _get_eval_sampler(self, eval_dataset: TwoStreams) -> list[int]:
        """Windows of similar length share a batch; the longest come first, so that what memory lacks is seen at once."""
        return np.argsort(-list_lengths(eval_dataset.source, "input_ids"), kind="stable").tolist()

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Entities of each window, at most one a first word: [rows, words, (type, length, probability)], and the window."""
        inputs = self._prepare_inputs(inputs)
        logits, span_mask, window = self._logits(model, inputs)
        return None, entities_by_word(logits, span_mask), window

    @torch.no_grad()
    def _logits(self, model, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        known = ("input_ids", "attention_mask", "position_ids", "token_places", "read_tokens")
        known += ("first_token", "last_token", "word_shapes")
        with self.accelerator.autocast():
            logits = model(**{name: inputs[name] for name in known if name in inputs}).logits
        return logits, inputs["span_mask"], inputs["window"]

    def predict_entities(self, windows: Dataset, sentences: int) -> list[list[tuple[int, int, str]]]:
        """The entities (first word, length, type) of each sentence of a corpus' windows, windows joined."""
        compute_metrics, self.compute_metrics = self.compute_metrics, None
        prediction = self.predict(TwoStreams(windows, None))
        self.compute_metrics = compute_metrics
        return merge_windows([by_window(prediction)], windows, sentences, self.model.config.id2label)

    def _dev_scores(self, prediction) -> dict[str, float]:
        found = merge_windows([by_window(prediction)], self.dev, len(self.dev_references), self.model.config.id2label)
        scores = entity_scores(self.dev_references, found)
        return {name: scores[name] for name in ("precision", "recall", "f1")}

    def assign_pseudo_labels(self, windows: Dataset) -> PseudoLabels:
        """Soft labels of every span of the target text, from this trainer's (source) model."""
        labels = self.empty_pseudo_labels(windows)
        self.model.eval()
        dataloader = self.get_eval_dataloader(TwoStreams(windows, None))
        for inputs in logging.tqdm(dataloader, desc="Assigning pseudo labels", disable=self.args.disable_tqdm):
            inputs = self._prepare_inputs(inputs)
            logits, _, window = self._logits(self.model, inputs)
            labels.write(window, inputs["own_start"], logits.softmax(-1), gather=self._gather)
        return labels

    def empty_pseudo_labels(self, windows: Dataset) -> PseudoLabels:
        """Pseudo labels of target windows, all "O": in memory, or beyond `pseudo_labels_in_memory` in a file. It loses its name
        as soon as all processes have it open, so that nothing is left of it, whatever ends the run."""
        words = numbers(windows, "own_end") - numbers(windows, "own_start")
        length, types, file = self.model.config.max_span_length, self.model.config.num_labels, None
        megabytes = 4 * int(words.sum()) * length * types / 2**20
        if megabytes > self.args.pseudo_labels_in_memory:
            file = Path(self.args.output_dir, f"_pseudo_labels-{platform.node()}.float16")
            file.parent.mkdir(parents=True, exist_ok=True)
            if self.args.should_log:
                logger.warning(f"Pseudo labels of {megabytes:,.0f} MB lie in a file in {file.parent}, in half precision.")
        labels = PseudoLabels(words, length, types, self.args.device, file)
        self.accelerator.wait_for_everyone()
        if file is not None:
            file.unlink(missing_ok=True)
        return labels

    def pseudo_entities(self, sentences: int) -> list[list[tuple[int, int, str]]]:
        """The entities (first word, length, type) that the pseudo labels of each target sentence say."""
        found = (entities_by_word(soft.log(), span_mask).numpy(force=True) for soft, span_mask in self._pseudo_batches())
        return merge_windows(found, self.train_dataset.target, sentences, self.model.config.id2label)

    def pseudo_label_reports(self, references: Sequence | None) -> dict[str | None, dict]:
        """Spans per type, mean confidence, and F1 where the target text has gold entities: of all target text (None) and, where
        there are several, of each language."""
        names, types = self.model.config.id2label, self.model.config.num_labels
        number = max(len(self.languages), 1)
        totals, at = torch.zeros(number, types + 1, dtype=torch.float64), 0  # spans per type, confidence
        for soft, span_mask in self._pseudo_batches():
            score, label = soft.max(-1)
            language = self.denoiser.languages[at : at + len(soft)]
            at += len(soft)
            spans = (F.one_hot(label, types) * span_mask[..., None]).sum((1, 2))
            of_windows = torch.cat([spans, (score * span_mask).sum((1, 2), dtype=torch.float64)[:, None]], dim=1)
            totals += (F.one_hot(language, number).T.double() @ of_windows).cpu()
        found = self.pseudo_entities(len(references)) if references is not None else None

        def report(rows: slice, sentences: range | None) -> dict:
            *spans, confidence = totals[rows].sum(0).tolist()
            report = {"confidence": confidence / sum(spans)}
            if references is not None:
                part = slice(sentences.start, sentences.stop) if sentences is not None else slice(None)
                gold = references[part]
                scores = entity_scores(gold, of_known_types(gold, found[part]))
                report |= {name: scores[name] for name in ("precision", "recall", "f1")}
            return report | {"spans": {names[i]: int(n) for i, n in enumerate(spans)}}

        reports = {None: report(slice(None), None)}
        return reports | {name: report(slice(i, i + 1), part) for i, (name, part) in enumerate(self.languages.items())}

    def _pseudo_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The pseudo labels [rows, words, length, types] and the grid [rows, words, length] of all target windows, in order."""
        for batch in grids(self.train_dataset.target, self.model.config.max_span_length):
            window, own_start, span_mask = (tensor.to(self.args.device) for tensor in batch)
            yield self.denoiser.pseudo_labels.read(window, own_start, span_mask.shape[1]), span_mask

    # -------------------------------------------------------------------------------------------------------- checkpoints

    def create_model_card(self, *args, **kwargs) -> None:
        """The card belongs to the run, which knows the corpora and the scores; a push must not overwrite it."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.denoiser is not None:
            state = self.denoiser.state_dict()  # gathers: every process takes part
            if self.args.should_save:
                partial = Path(output_dir, f".{DENOISING_STATE}")
                save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, partial)
                partial.replace(Path(output_dir, DENOISING_STATE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.denoiser is not None:
            self.denoiser.load_state_dict(load_file(Path(checkpoint, DENOISING_STATE)))
