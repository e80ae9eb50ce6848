"""Which precision a model is trained faster in, measured on the model itself."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from glode.fast.packing import pack_rows
from glode.fast.preparing import speed_up
from modeling_glode import GlodeModel

ROUNDS, SECONDS = 5, 1.0  # at most so many rounds, and no further one after so long; at least two
TOKENS = {"cpu": 512}  # of the batch at most, by device
TOKENS_ELSEWHERE = 4096


def speedup_of_bf16(model: GlodeModel, rows: int, length: int, device: torch.device) -> float:
    """How many times as fast a step forward and back is in bf16 as in fp32, on random tokens; the model is of no use afterwards.

    Both take turns, and the least time of each counts: what else a machine does makes single steps slower.

    Args:
        rows: of a batch; fewer are measured where the device would take long.
        length: of a row, in tokens.
    """
    length = max(4, min(length, model.config.max_tokens))
    rows = max(1, min(rows, TOKENS.get(device.type, TOKENS_ELSEWHERE) // length))
    batch = {name: values.to(device) for name, values in _random_batch(model, rows, length).items()}
    model.to(device).train()
    least = {False: float("inf"), True: float("inf")}
    start = time.perf_counter()
    for number in range(ROUNDS):
        for mixed in least:
            least[mixed] = min(least[mixed], _seconds(model, batch, mixed, device))
        if number and time.perf_counter() - start > SECONDS:
            break
    if device.type == "cuda":  # what the run reports of memory is its own
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return least[False] / least[True]


def _random_batch(model: GlodeModel, rows: int, length: int) -> dict[str, Tensor]:
    """Tokens without a meaning, each but the first and the last a word, packed where training packs them."""
    words = torch.arange(1, length - 1).repeat(rows, 1)
    batch = {
        "input_ids": torch.randint(model.config.encoder_config.vocab_size, (rows, length)),
        "attention_mask": torch.ones(rows, length, dtype=torch.long),
        "first_token": words,
        "last_token": words,
        "word_shapes": torch.ones_like(words),
    }
    first_position = speed_up(model)
    return batch if first_position is None else pack_rows(batch, first_position)


def _seconds(model: GlodeModel, batch: Mapping[str, Tensor], mixed: bool, device: torch.device) -> float:
    """What a step takes."""
    _wait_for(device)
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        logits = model(**batch).logits
    logits.sum().backward()
    model.zero_grad(set_to_none=True)
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
