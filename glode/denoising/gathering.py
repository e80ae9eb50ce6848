"""What processes exchange."""

from collections.abc import Callable

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]


def alone(tensor: Tensor) -> Tensor:
    """Gathering for one process: [...] -> [1, ...]."""
    return tensor[None]


def gather_uneven(tensor: Tensor, gather: Gather) -> Tensor:
    """Join [n, ...] tensors of different n, by rank."""
    if gather is alone:  # nobody has to be told how many
        return tensor
    counts = gather(torch.tensor(len(tensor), device=tensor.device)).flatten().tolist()
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    return torch.cat([part[:n] for part, n in zip(gather(padded), counts, strict=True)])
