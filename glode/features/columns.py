"""What is known of windows without reading their tokens one by one."""

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor

from modeling_glode import span_grid


def list_lengths(dataset: Dataset, column: str) -> np.ndarray:
    """How many elements each row's list has, from Arrow's offsets: the elements are not read. [rows]"""
    blocks = dataset.select_columns([column]).with_format("arrow").iter(10_000)
    return np.concatenate([np.empty(0, np.int32), *(pc.list_value_length(block[column]).to_numpy() for block in blocks)])


def numbers(dataset: Dataset, column: str) -> np.ndarray:
    """A column of numbers. [rows]"""
    return np.asarray(dataset.with_format("numpy")[column][:])


def token_set(*texts: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """[tokens], in rising order: the tokens that the windows of some texts have."""
    chunks = (windows.with_format("arrow")[:]["input_ids"] for windows in texts)
    return torch.tensor(sorted(set().union(*(pc.unique(pc.list_flatten(chunk)).to_pylist() for chunk in chunks))), device=device)


def span_counts(features: Dataset, max_span_length: int) -> np.ndarray:
    """How many cells of its grid each window has. [windows]"""
    words, start, end = list_lengths(features, "first_token"), numbers(features, "own_start"), numbers(features, "own_end")
    return sum(np.maximum(np.minimum(end, words - length) - start, 0) for length in range(max_span_length))


def grids(windows: Dataset, max_span_length: int, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Row [batch], first owned word [batch] and span grid [batch, words, length] of all windows, in order; no token is read."""
    borders = windows.select_columns(["first_token", "own_start", "own_end"]).with_format("arrow")
    for at, block in enumerate(borders.iter(batch_size)):
        columns = (pc.list_value_length(block["first_token"]), block["own_start"], block["own_end"])
        words, start, end = (torch.tensor(column.to_numpy(), dtype=torch.long) for column in columns)
        yield at * batch_size + torch.arange(len(words)), start, span_grid(words, start, end, int(words.max()), max_span_length)
