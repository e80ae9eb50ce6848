"""A fresh language model's head is fitted before a stage begins: its first gradients would do the encoder harm."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from glode.features.columns import token_set
from glode.features.streams import TwoStreams
from glode.training.arguments import GlodeTrainingArguments
from glode.training.batches import make_collator
from modeling_glode import GlodeModel

RATE = 1e-3  # of a head alone, whatever the rates of training are; it falls linearly


def needs_warmup(model: GlodeModel, arguments: GlodeTrainingArguments, stage: str) -> bool:
    """Whether a stage, "source" or "target", trains a masked language model whose head is a fresh one."""
    reads = arguments.auxiliary_task == "mlm" and arguments.mlm_weight > 0
    reads = reads and (stage == "target" or arguments.source_mlm == "on")
    return reads and not model.has_pretrained_mlm_head


def fit_head(
    model: GlodeModel,
    tokenizer: PreTrainedTokenizerBase,
    source: Dataset,
    target: Dataset,
    arguments: GlodeTrainingArguments,
) -> list[float]:
    """Fit the language model's head of a span model to masked text of both languages, see `fit_alone`."""
    among = token_set(source, target, device=arguments.device) if arguments.mlm_vocabulary == "target" else None

    def loss_of(inputs: dict[str, Tensor]) -> Tensor:
        return model(**inputs, mlm_tokens=among).mlm_loss

    return fit_alone(model, list(model.mlm_head.parameters()), loss_of, tokenizer, TwoStreams(source, target), arguments)


def fit_alone(
    model: nn.Module,
    head: Sequence[nn.Parameter],
    loss_of: Callable[[dict[str, Tensor]], Tensor],
    tokenizer: PreTrainedTokenizerBase,
    texts: TwoStreams,
    arguments: GlodeTrainingArguments,
) -> list[float]:
    """Fit a language model's head to masked text of both languages for `mlm_head_warmup_steps` steps, with the encoder as it is
    and without dropout. Nothing but the head changes; what is drawn follows from the seed alone, on every process.

    Args:
        head: its weights.
        loss_of: of a batch, see `GlodeCollator.masked`.
    Returns:
        The loss of each step.
    """
    model.to(arguments.device).eval()
    learns = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    for parameter in head:
        parameter.requires_grad_(True)
    steps, losses = arguments.mlm_head_warmup_steps, []
    optimizer = torch.optim.AdamW(head, RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, steps)
    for batch in _batches(texts, tokenizer, arguments):
        loss = loss_of({name: values.to(arguments.device) for name, values in batch.items()})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.detach())
    for parameter, before in learns.items():
        parameter.requires_grad_(before)
    model.train()
    return torch.stack(losses).tolist()


def _batches(streams: TwoStreams, tokenizer: PreTrainedTokenizerBase, arguments: GlodeTrainingArguments):
    """Masked batches of both texts, without the words that spans are made of."""
    collator = make_collator(tokenizer, arguments, max_span_length=1, masks=True)
    generator, size = np.random.default_rng(arguments.seed), 2 * arguments.per_device_train_batch_size
    for step in range(arguments.mlm_head_warmup_steps):
        rows = streams.__getitems__(generator.integers(len(streams), size=size).tolist())
        yield collator.masked(rows, [step * size + place for place in range(len(rows))])
