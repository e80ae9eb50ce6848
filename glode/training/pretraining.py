"""Continued pretraining: a masked language model of transformers reads the text of both languages."""

from collections.abc import Sequence
from functools import partial

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from glode.features.collator import GlodeCollator
from glode.features.columns import list_lengths, numbers
from glode.features.streams import TwoStreams, TwoStreamSampler
from glode.training.arguments import GlodeTrainingArguments
from glode.training.batches import make_collator, mean_masked
from glode.training.callbacks import InterruptCallback, SamplerCallback
from glode.training.head_warmup import fit_alone
from glode.training.losses import finite
from glode.training.optimizer import give_head_its_rate

ONE_OF = 20  # so many sentences of each language is held out, for the loss before and after


class LanguageModelTrainer(Trainer):
    """Trains a masked language model on windows of two languages, as many of each in a batch.

    Order and masks are those of the stages: they follow from seed, epoch and window alone. The masks of transformers' own
    collator follow from the global random state, a batch ahead of a checkpoint, and would be others in a resumed run.

    Args:
        source, target: windows, see `build_features`, of which only the tokens are read.
    """

    loss_is_scaled_for_ga = False  # as in `GlodeTrainer`
    args: GlodeTrainingArguments

    def __init__(
        self,
        model: PreTrainedModel,
        args: GlodeTrainingArguments,
        processing_class: PreTrainedTokenizerBase,
        source: Dataset,
        target: Dataset,
    ):
        learnt, held_out = zip(*map(_split, (source, target)), strict=True)
        if args.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=partial(_mask, make_collator(processing_class, args, max_span_length=1, masks=True)),
            train_dataset=TwoStreams(*learnt),
            eval_dataset=TwoStreams(*(held_out if any(map(len, held_out)) else learnt)),  # of a sentence each
        )
        lengths, batch = [list_lengths(windows, "input_ids") for windows in learnt], args.per_device_train_batch_size
        self.sampler = TwoStreamSampler(lengths[0], lengths[1], batch, batch, args.seed, args.world_size)
        self.mean_masked = mean_masked(learnt, processing_class, args)
        self.label_names, self.interrupt = ["mlm_labels"], InterruptCallback()
        for callback in (SamplerCallback(self.sampler), self.interrupt):
            self.add_callback(callback)

    def get_train_dataloader(self) -> DataLoader:
        """A micro-batch holds windows of the source and as many of the target."""
        size = 2 * self._train_batch_size
        return self._get_dataloader(self.train_dataset, "Training", size, lambda _: self.sampler, is_training=True)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        return give_head_its_rate(super().create_optimizer(model), self.model.base_model, self.args.head_learning_rate)

    def compute_loss(self, model, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch=None):
        """The mean over the masked tokens (eq. 3), in training over as many as a batch has on the mean: a token weighs the same
        in every batch, and a batch of few short rows may have none."""
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        labels = inputs["mlm_labels"].flatten()
        masked = (labels != -100).nonzero().squeeze(1)
        scores = logits.flatten(0, -2).index_select(0, masked).float()
        mean = self.mean_masked if model.training else max(1, len(masked))
        loss = F.cross_entropy(scores, labels[masked], reduction="sum") / mean
        return (loss, {}) if return_outputs else loss

    def fit_head(self) -> list[float]:
        """Fit a fresh head before the training, see `fit_alone`. Returns the loss of each step."""
        inside = {id(parameter) for parameter in self.model.base_model.parameters()}
        head = [parameter for parameter in self.model.parameters() if id(parameter) not in inside]
        loss_of = partial(self.compute_loss, self.model)
        return fit_alone(self.model, head, loss_of, self.processing_class, self.train_dataset, self.args)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Raises InputError where the loss is no number."""
        finite({"loss": logs.get("loss", 0.0)}, self.state.global_step, self.args.output_dir)
        super().log(logs, start_time)

    def held_out_losses(self) -> list[float]:
        """Of the text that is held out: before the training, then after each epoch."""
        return [entry["eval_loss"] for entry in self.state.log_history if "eval_loss" in entry]

    def create_model_card(self, *args, **kwargs) -> None:
        """The card belongs to the run."""


def _split(windows: Dataset) -> tuple[Dataset, Dataset]:
    """The windows of the sentences that are learnt, and of those that are held out: the second, and every 20th from there."""
    held_out = numbers(windows, "sentence") % ONE_OF == 1
    return windows.select((~held_out).nonzero()[0]), windows.select(held_out.nonzero()[0])


def _mask(collator: GlodeCollator, rows: Sequence[dict]) -> dict[str, Tensor]:
    return collator.masked(rows, [row["index"] for row in rows])
