"""One Trainer for both stages: source model (eq. 1-3) and target model with global-local denoising (eq. 4-11)."""

import math
import platform
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import (
    EvalPrediction,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PredictionOutput
from transformers.utils import logging

from baselines_glode import BASELINES
from contrastive_glode import supervised_contrastive
from data_glode import (
    GlodeCollator,
    TwoStreams,
    TwoStreamSampler,
    grids,
    list_lengths,
    merge_windows,
    numbers,
    span_counts,
    token_set,
)
from denoising_glode import Denoiser, PseudoLabels, prune_overlaps
from metrics_glode import entity_scores, of_known_types
from modeling_glode import GlodeModel, InputError, decode
from packing_glode import pack_encoder, replace_dropout
from random_glode import uniform

logger = logging.get_logger(__name__)

DENOISING_STATE = "denoising_state.safetensors"


@dataclass
class GlodeTrainingArguments(TrainingArguments):
    """The method's settings, beside those of every Trainer. Defaults are the paper's."""

    output_dir: str = field(default="glode-model", metadata={"help": "Where the model, checkpoints and metrics.json go."})
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    head_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Peak learning rate of the span head and the MLM head. Default: learning_rate, as in the paper."},
    )
    num_train_epochs: float = field(
        default=8, metadata={"help": "Epochs of the target stage: passes over the longer of the two corpora."}
    )
    source_num_train_epochs: float | None = field(
        default=None, metadata={"help": "Epochs of the source stage. Default: num_train_epochs."}
    )
    per_device_train_batch_size: int = field(
        default=32, metadata={"help": "Source sentences a step and device; as many target sentences come beside them."}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Sentences a step and device in evaluation."})
    warmup_steps: float = field(
        default=50, metadata={"help": "Steps until the learning rate peaks; it falls linearly afterwards."}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's decay, not on biases and layer norms."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to score the source development set."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints that are kept, the best one among them; two, should one be damaged."}
    )
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the model of the best source development F1."})
    metric_for_best_model: str | None = field(default="f1", metadata={"help": "What selects the model: strict F1 on source dev."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two log lines."})
    dataloader_pin_memory: bool = field(default=torch.cuda.is_available(), metadata={"help": "Pin batches in memory for a GPU."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep False: the collator needs every column."})

    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "auto goes on with the run in --output_dir, whatever stage it was stopped in; or a checkpoint's directory."
        },
    )

    denoising: str = field(
        default="both",
        metadata={
            "help": "Which side refines the pseudo labels: prototypes (global), neighbours (local). Or a baseline, see "
            "docs/baselines.md.",
            "choices": ["both", "global", "local", "none", *BASELINES],
        },
    )
    directions: str = field(
        default="multiple",
        metadata={
            "help": "A label moves towards every type above its threshold, or to the most similar alone (eq. 8).",
            "choices": ["multiple", "single"],
        },
    )
    normalize_directions: bool = field(
        default=False, metadata={"help": "Give the global and the local direction equal weight before they are added (eq. 10)."}
    )
    center_vectors: bool = field(
        default=False,
        metadata={
            "help": "Compare spans without the center of their language's vectors: where the encoder learns fast (a small one, "
            "rates far above the paper's), the vectors of all spans move together."
        },
    )
    prototype_decay: float = field(default=0.99, metadata={"help": "alpha, the moving average of the prototypes (eq. 6)."})
    num_neighbors: int = field(default=300, metadata={"help": "K, the neighbours that vote (eq. 9)."})
    neighbor_share: float = field(
        default=0.05,
        metadata={"help": "The most neighbours as a share of the datastore: all of a small one would tell every span the same."},
    )
    local_threshold_scale: float = field(default=0.9, metadata={"help": "Factor on the thresholds of the local side."})
    refine_start_epoch: int = field(
        default=3, metadata={"help": "The first epoch (from 1) that refines; thresholds exist after the second."}
    )
    beta_start: float = field(default=0.95, metadata={"help": "Weight of the old label at the start of training (eq. 11)."})
    beta_end: float = field(default=0.80, metadata={"help": "The same at the end; linear in between."})
    datastore_outside_share: float = field(default=0.03, metadata={"help": "Share of the O spans that the datastore keeps."})
    datastore_size: int = field(
        default=200_000,
        metadata={
            "help": "The most span vectors that the datastore holds. Of more, a sample: K of each type, then in proportion to "
            "what the epoch brought."
        },
    )
    datastore_exact_size: int = field(
        default=4_000,
        metadata={
            "help": "Beyond so many vectors, spans whose directions are certain without it are not searched, and where vectors "
            "cluster the search is approximate; its recall and the error of the shares are logged."
        },
    )
    pseudo_labels_in_memory: int = field(
        default=1024,
        metadata={
            "help": "MB of pseudo labels that are held in memory, by each process. More lie in a file in the output directory, "
            "in half precision, which the processes of a machine share."
        },
    )
    confidence_threshold: float = field(
        default=0.9, metadata={"help": "The least probability of a pseudo label that counts, with --denoising confidence."}
    )
    auxiliary_task: str = field(
        default="mlm",
        metadata={
            "help": "What is learnt beside the labels: the masked language model (mlm), or supervised contrastive learning on "
            "source gold and target pseudo labels (scl).",
            "choices": ["mlm", "scl", "none"],
        },
    )
    contrastive_weight: float = field(default=1.0, metadata={"help": "The weight of the contrastive loss."})
    mlm_weight: float = field(default=1e-3, metadata={"help": "w, the weight of the language model's loss (paper: 1e-5 for es)."})
    mlm_probability: float = field(default=0.25, metadata={"help": "r_m, the share of target tokens that are masked (eq. 2)."})
    mlm_vocabulary: str = field(
        default="all",
        metadata={
            "help": "Predict masked tokens among the whole vocabulary, as the paper does, or among those that the target text "
            "has: the others are never right, and with a large vocabulary they cost a tenth of the step.",
            "choices": ["all", "target"],
        },
    )
    source_mlm: str = field(
        default="on",
        metadata={"help": "Whether the source stage reads target text with the masked language model.", "choices": ["on", "off"]},
    )
    freeze_embeddings: bool = field(
        default=False,
        metadata={"help": "Keep the encoder's word embeddings as they are; for little text and large rates."},
    )
    loss_reduction: str = field(
        default="span",
        metadata={
            "help": "Average over the spans of the corpus, or within each sentence first (eq. 1, 4).",
            "choices": ["span", "sentence"],
        },
    )
    double_softmax: bool = field(
        default=False, metadata={"help": "Compute L_tgt on probabilities passed through log-softmax once more."}
    )
    prune_pseudo_labels: bool = field(
        default=True,
        metadata={"help": "Among overlapping entities in the pseudo labels only the most probable counts in the loss."},
    )
    train_projection: bool = field(
        default=False,
        metadata={"help": "Train the denoiser's projection: source spans are classified by their similarity to the prototypes."},
    )


class DenoisingCallback(TrainerCallback):
    """Refreshes the denoising state between epochs: thresholds, datastore, pseudo labels of all processes.

    It acts at the beginning of an epoch, where a resumed run passes as well; what is done already is not done again.
    Quality and statistics of the pseudo labels are kept in `history`, one entry an epoch.

    Args:
        trainer: the trainer whose state is refreshed.
        references: gold entities of each target sentence, where there are any. For the report only.
    """

    def __init__(self, trainer: "GlodeTrainer", references: Sequence | None = None):
        self.trainer, self.references = trainer, references
        self.history: list[dict] = []

    def _prefixes(self) -> dict[str | None, str]:
        """What the names of a language's log lines begin with; None stands for all languages together."""
        return {None: "pseudo_labels_"} | {name: f"pseudo_labels_{name}_" for name in self.trainer.languages}

    def on_train_begin(self, args: GlodeTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        """A resumed run finds the history of the epochs before in the Trainer's log."""
        for logs in state.log_history:
            if "pseudo_labels_confidence" in logs:
                reports = {language: self._from_logs(logs, prefix) for language, prefix in self._prefixes().items()}
                self.history.append({"epoch": round(logs["epoch"])} | _joined(reports))

    def _from_logs(self, logs: dict[str, float], prefix: str) -> dict:
        names = self.trainer.model.config.id2label.values()
        report = {name: logs[prefix + name] for name in ("confidence", "precision", "recall", "f1") if prefix + name in logs}
        return report | {"spans": {name: logs[f"{prefix}spans_{name}"] for name in names}}

    def on_epoch_begin(self, args: GlodeTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        epoch = int(state.epoch or 0)
        self.trainer.sampler.set_epoch(epoch)
        self._refresh(epoch)

    def on_train_end(self, args: GlodeTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self._refresh(round(state.epoch))

    def _refresh(self, epoch: int) -> None:
        if self.trainer.denoiser is None:
            return
        self.trainer.denoiser.begin_epoch(epoch)
        if not any(entry["epoch"] == epoch for entry in self.history):
            reports = self.trainer.pseudo_label_reports(self.references)
            self.history.append({"epoch": epoch} | _joined(reports))
            store = self.trainer.denoiser.datastore
            logs = {"datastore_size": len(store), "datastore_recall": store.recall, "datastore_deviation": store.deviation}
            for language, prefix in self._prefixes().items():
                report = dict(reports[language])
                logs |= {f"{prefix}spans_{name}": number for name, number in report.pop("spans").items()}
                logs |= {prefix + name: value for name, value in report.items()}
            self.trainer.log(logs)


def _joined(reports: dict[str | None, dict]) -> dict:
    """The report of all languages (None), with those of the single ones, if there are several, as `languages`."""
    single = {language: report for language, report in reports.items() if language is not None}
    return reports[None] | ({"languages": single} if single else {})


class InterruptCallback(TrainerCallback):
    """Ctrl-C while a model is trained: finish the step, save a checkpoint, stop. `interrupted` says that it happened; a second
    Ctrl-C stops at once."""

    def __init__(self):
        self.interrupted, self._before = False, None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._remember)

    def _remember(self, number: int, frame) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._before)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


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
            options = {"confidence_threshold": args.confidence_threshold} if args.denoising == "confidence" else {}
            self.denoiser = BASELINES.get(args.denoising, Denoiser)(
                pseudo_labels,
                model.config.projection_size,
                denoising=args.denoising,
                directions=args.directions,
                neighbors=args.num_neighbors,
                neighbor_share=args.neighbor_share,
                decay=args.prototype_decay,
                local_threshold_scale=args.local_threshold_scale,
                normalize_directions=args.normalize_directions,
                center=args.center_vectors,
                outside_share=args.datastore_outside_share,
                capacity=args.datastore_size,
                exact_size=args.datastore_exact_size,
                seed=args.seed,
                languages=self._languages_of(target),
                gather=self._gather,
                rank=self.accelerator.process_index,
                **options,
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
        spans = {name: inputs.pop(name) for name in ("labels", "window", "own_start", "span_mask")}
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
        if self.state.epoch is not None and int(self.state.epoch) + 1 < self.args.refine_start_epoch:
            return None
        done = self.state.global_step / max(self.state.max_steps, 1)
        return self.args.beta_start + (self.args.beta_end - self.args.beta_start) * done

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
            labels.write(window + len(windows), inputs["own_start"], logits.softmax(-1), gather=self._gather)
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


def give_head_its_rate(optimizer: torch.optim.Optimizer, encoder: torch.nn.Module, rate: float | None) -> torch.optim.Optimizer:
    """Let what is not the encoder's learn at a rate of its own; None leaves the optimizer as it is."""
    if rate is not None:
        inside = {id(parameter) for parameter in encoder.parameters()}
        for group in list(optimizer.param_groups):
            head = [parameter for parameter in group["params"] if id(parameter) not in inside]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in inside]
            optimizer.add_param_group({**group, "params": head, "lr": rate})
    return optimizer


def entities_by_word(logits: Tensor, span_mask: Tensor) -> Tensor:
    """The entity that starts at each word, or zeros: [batch, words, length, types] -> [batch, words, (type, length, score)]."""
    found = torch.zeros(*logits.shape[:2], 3, device=logits.device)
    row, begin, length, label, score = decode(logits, span_mask)
    found[row, begin] = torch.stack([label.float(), length.float(), score], dim=-1)
    return found


def by_window(prediction: EvalPrediction | PredictionOutput) -> np.ndarray:
    """What `prediction_step` gave for each window, in their order. [windows, words, (type, length, probability)]"""
    return prediction.predictions[prediction.label_ids.argsort()]


def nll(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """-log p of the gold types: [..., types], [...] -> [...]; cells below 0 hold no meaning (mask them)."""
    return -log_probabilities.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)


def soft_cross_entropy(log_probabilities: Tensor, soft: Tensor) -> Tensor:
    """Eq. 4 for each span: [..., types], [..., types] -> [...]."""
    return -(soft * log_probabilities).sum(-1)
