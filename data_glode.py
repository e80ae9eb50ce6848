"""Labelled words -> word-aligned features -> batches.

Features are the windows of `encode_words`; a batch is a dictionary of named tensors.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

from modeling_glode import InputError, collate_windows, encode_words, in_words, resolve, span_grid
from packing_glode import pack_rows
from random_glode import uniform

_VERSION = 3  # of the features in the cache of `datasets`, which does not notice when the code here changes

# ------------------------------------------------------------------------------------------------------------ features


def label_names(*corpora: Dataset) -> list[str]:
    """ "O" and the entity types of the corpora, sorted.

    Raises:
        InputError: there is no entity at all.
    """
    types = sorted({name for corpus in corpora for names in corpus["types"] for name in names})
    if not types:
        raise InputError("the source corpus has no entity: every tag is O. Give a labelled corpus with --source_train.")
    return ["O", *types]


def choose_span_length(corpus: Dataset, cover: float = 0.995) -> int:
    """The smallest L, in words, that covers the share `cover` of the corpus' entities."""
    lengths = np.sort([n for row in corpus["lengths"] for n in row])
    return int(lengths[int(np.ceil(cover * len(lengths))) - 1])


def unreachable_share(corpus: Dataset, windows: Dataset, max_span_length: int) -> float:
    """The share of the corpus' entities that the grid cannot hold: longer than L, or with a border within a unit."""
    total = sum(map(len, corpus["types"]))
    return 1 - sum(map(len, reachable_entities(corpus, windows, max_span_length))) / total if total else 0.0


def build_features(
    corpus: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    max_span_length: int,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """Tokenise a corpus into windows, see `encode_words`. Batched, and cached by `datasets`.

    Args:
        labels: the types, "O" first; None leaves the corpus' entities unread.
    Returns:
        One row a window: `encode_words`' columns (`sentence` is the row in `corpus`) and, with `labels`, the entities of at
        most L units that the window owns: `begins` (in the window), `lengths` and `types` (indices into `labels`).
    """
    if labels is None:
        corpus = corpus.select_columns(["words"])
    options = {"tokenizer": tokenizer, "max_tokens": max_tokens, "max_span_length": max_span_length, "version": _VERSION}
    options["label_ids"] = {name: i for i, name in enumerate(labels)} if labels is not None else None
    return corpus.map(
        _features, batched=True, with_indices=True, remove_columns=corpus.column_names, fn_kwargs=options, desc="Tokenising"
    )


def _features(
    batch: dict, indices: list[int], tokenizer, max_tokens: int, max_span_length: int, label_ids: dict | None, version: int
) -> dict:
    columns = encode_words(batch["words"], tokenizer, max_tokens, max_span_length)
    if label_ids is not None:
        columns |= {"begins": [], "lengths": [], "types": []}
        for sentence, *window in zip(*(columns[name] for name in ("sentence", "borders", "own_start", "own_end")), strict=True):
            entities = zip(*(batch[name][sentence] for name in ("begins", "lengths", "types")), strict=True)
            mine = [(begin, n, label_ids[name]) for begin, n, name in in_units(entities, *window, max_span_length)]
            for name, values in zip(
                ("begins", "lengths", "types"), zip(*mine, strict=True) if mine else ([], [], []), strict=True
            ):
                columns[name].append(list(values))
    columns["sentence"] = [indices[i] for i in columns["sentence"]]
    return columns


def in_units(
    entities: Iterable[tuple[int, int, str]], borders: Sequence[int], own_start: int, own_end: int, max_span_length: int
) -> list[tuple[int, int, str]]:
    """The entities (first word, length in words, type) that a window's grid holds, as (first unit, length in units, type): they
    begin at an owned unit, end where a unit ends, and have at most L units."""
    unit = {word: i for i, word in enumerate(borders)}
    found = []
    for begin, length, name in entities:
        first, end = unit.get(begin, -1), unit.get(begin + length, -1)
        if own_start <= first < own_end and 0 < end - first <= max_span_length:
            found.append((first, end - first, name))
    return found


def reachable_entities(corpus: Dataset, windows: Dataset, max_span_length: int) -> list[list[tuple[int, int, str]]]:
    """The gold entities of each sentence that its windows' grids hold; the others cannot be found, whatever the model."""
    gold = gold_entities(corpus)
    reachable = [[] for _ in gold]
    columns = (windows[name] for name in ("sentence", "borders", "own_start", "own_end"))
    for sentence, borders, *own in zip(*columns, strict=True):
        reachable[sentence] += [in_words(e, borders) for e in in_units(gold[sentence], borders, *own, max_span_length)]
    return reachable


def span_counts(features: Dataset, max_span_length: int) -> np.ndarray:
    """How many cells of its grid each window has. [windows]"""
    words, start, end = list_lengths(features, "first_token"), numbers(features, "own_start"), numbers(features, "own_end")
    return sum(np.maximum(np.minimum(end, words - length) - start, 0) for length in range(max_span_length))


def list_lengths(dataset: Dataset, column: str) -> np.ndarray:
    """How many elements each row's list has, from Arrow's offsets: the elements are not read. [rows]"""
    blocks = dataset.select_columns([column]).with_format("arrow").iter(10_000)
    return np.concatenate([np.empty(0, np.int32), *(pc.list_value_length(block[column]).to_numpy() for block in blocks)])


def numbers(dataset: Dataset, column: str) -> np.ndarray:
    """A column of numbers. [rows]"""
    return np.asarray(dataset.with_format("numpy")[column][:])


def grids(windows: Dataset, max_span_length: int, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Row [batch], first owned word [batch] and span grid [batch, words, length] of all windows, in order; no token is read."""
    borders = windows.select_columns(["first_token", "own_start", "own_end"]).with_format("arrow")
    for at, block in enumerate(borders.iter(batch_size)):
        columns = (pc.list_value_length(block["first_token"]), block["own_start"], block["own_end"])
        words, start, end = (torch.tensor(column.to_numpy(), dtype=torch.long) for column in columns)
        yield at * batch_size + torch.arange(len(words)), start, span_grid(words, start, end, int(words.max()), max_span_length)


def merge_windows(
    predictions: Iterable[np.ndarray], windows: Dataset, sentences: int, names: dict[int, str]
) -> list[list[tuple[int, int, str]]]:
    """Join the entities of each sentence's windows; where those of two windows overlap, the more probable one stays.

    Args:
        predictions: [windows, units, (type, length, probability)], at most one entity a first unit; type <= 0 is none. In blocks,
            one window after the other.
        sentences: how many sentences the corpus has.
        names: id2label.
    Returns:
        (first word, length, type) of each sentence's entities, in text order.
    """
    found = [[] for _ in range(sentences)]
    windows, at = windows.select_columns(["sentence", "borders"]), 0
    for block in predictions:
        rows = windows[at : at + len(block)]
        at += len(block)
        row, begin = np.nonzero(block[..., 0] > 0)
        for window, unit, (label, length, score) in zip(row.tolist(), begin.tolist(), block[row, begin].tolist(), strict=True):
            entity = in_words((unit, int(length), names[int(label)], score), rows["borders"][window])
            found[rows["sentence"][window]].append(entity)
    return [[entity[:3] for entity in resolve(entities)] for entities in found]


def gold_entities(corpus: Dataset) -> list[list[tuple[int, int, str]]]:
    """(first word, length, type) of each sentence's gold entities."""
    return [list(zip(*row, strict=True)) for row in zip(corpus["begins"], corpus["lengths"], corpus["types"], strict=True)]


# ------------------------------------------------------------------------------------------------------------- batches


class TwoStreams(torch.utils.data.Dataset):
    """Source windows, then target windows, as one map-style data set. An index beyond its end starts again: epoch after epoch."""

    def __init__(self, source: Dataset, target: Dataset | None):
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source) + (len(self.target) if self.target is not None else 0)

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        border, total = len(self.source), len(self)
        places = [index % total for index in indices]
        rows = [self.source[i] if i < border else self.target[i - border] for i in places]
        return [row | {"index": n, "window": i - border} for row, n, i in zip(rows, indices, places, strict=True)]

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]


class TwoStreamSampler(Sampler[int]):
    """Draws `source_batch` source and `target_batch` target windows, over and over: together one micro-batch.

    The order is a pure function of (seed, epoch). An epoch is one pass over the longer stream, the shorter one starts
    anew. Windows of similar length share a batch: within each run of batches both streams are sorted by length, and
    the batches are shuffled afterwards. Several processes, of which each takes every n-th micro-batch, get together what
    one process with n times the batch gets.

    Args:
        source_lengths, target_lengths: tokens of each window.
        source_batch, target_batch: windows of each stream a micro-batch; `target_batch` 0 leaves the target out.
        processes: how many processes share an epoch.
    """

    run = 16

    def __init__(
        self,
        source_lengths: Sequence[int],
        target_lengths: Sequence[int],
        source_batch: int,
        target_batch: int,
        seed: int,
        processes: int = 1,
    ):
        self.streams = [(np.asarray(source_lengths), source_batch, 0)]
        if target_batch:
            self.streams.append((np.asarray(target_lengths), target_batch, len(source_lengths)))
        self.steps = max(-(-len(lengths) // (batch * processes)) for lengths, batch, _ in self.streams)
        self.seed, self.epoch, self.processes = seed, 0, processes

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.processes * sum(batch for _, batch, _ in self.streams)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        drawn = [self._draw(generator, *stream) for stream in self.streams]
        batches = np.concatenate([stream.reshape(self.steps, self.processes, -1) for stream in drawn], axis=2)
        total = sum(len(lengths) for lengths, *_ in self.streams)  # an index tells the epoch as well, see TwoStreams
        for step in generator.permutation(self.steps):
            yield from (batches[step].ravel() + self.epoch * total).tolist()

    def _draw(self, generator: np.random.Generator, lengths: np.ndarray, batch: int, shift: int) -> np.ndarray:
        """[steps, batch of all processes] indices, sorted by length inside each run of batches."""
        batch *= self.processes
        wanted = self.steps * batch
        passes = [generator.permutation(len(lengths)) for _ in range(-(-wanted // len(lengths)))]
        order = np.concatenate(passes)[:wanted]
        for at in range(0, wanted, self.run * batch):
            run = order[at : at + self.run * batch]
            run[:] = run[np.argsort(lengths[run], kind="stable")]
        return order.reshape(self.steps, batch) + shift


@dataclass
class GlodeCollator:
    """Makes a batch of windows, for training (both streams) and for evaluation (one stream).

    Returns a dictionary of tensors, for 2 source windows, 1 target window and its masked copy, with L = 2:

        input_ids       [4, tokens]     source, target, masked copies of the target; the target itself only with `keep_target`;
                                        attention_mask likewise
        first_token     [3, words]      only windows that are scored; last_token and word_shapes likewise
        span_mask       [3, words, 2]   which cells of the grid are spans
        labels          [3, words, 2]   gold types of source spans; -100 for target spans and where there is no span
        window          [3]             the window in the target's pseudo labels; below 0 for source windows
        own_start       [3]             its first owned word
        mlm_labels      [4, tokens]     the masked tokens; -100 elsewhere

    With `first_position` (see `pack_encoder`) the rows of tokens are packed into one, see `pack_rows`.

    What is masked is a pure function of the seed, the epoch and the window.
    """

    tokenizer: PreTrainedTokenizerBase
    max_span_length: int
    mlm_probability: float = 0.0
    keep_target: bool = True
    seed: int = 0
    first_position: int | None = None

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        target = [row for row in rows if row.get("window", -1) >= 0]
        masked = target if self.mlm_probability > 0 else []
        scored = rows if self.keep_target else [row for row in rows if row.get("window", -1) < 0]
        batch = collate_windows([*scored, *masked], self.tokenizer.pad_token_id)
        if masked:
            self._mask(batch, len(scored), [row["index"] for row in masked])
        words = max(len(row["first_token"]) for row in scored)
        for name in ("first_token", "last_token", "word_shapes"):
            batch[name] = batch[name][: len(scored), :words]
        own = [batch.pop(name)[: len(scored)] for name in ("number_of_words", "own_start", "own_end")]
        batch["span_mask"] = span_grid(*own, words, self.max_span_length)
        batch["window"] = torch.tensor([row.get("window", row.get("index", 0)) for row in scored])
        batch["own_start"] = own[1]
        if "types" in scored[0]:
            batch["labels"] = self._labels(scored, batch["span_mask"])
        return batch if self.first_position is None else pack_rows(batch, self.first_position)

    def _mask(self, batch: dict[str, Tensor], first: int, indices: Sequence[int]) -> None:
        """Replace each ordinary token of the rows from `first` on by the mask token, with the given probability (eq. 2)."""
        tokens = batch["input_ids"]
        chosen = batch["attention_mask"].bool() & ~torch.isin(tokens, torch.tensor(self.tokenizer.all_special_ids))
        chosen[:first] = False
        keys = torch.tensor(indices)[:, None] * 2**20 + torch.arange(tokens.shape[1])
        chosen[first:] &= uniform(keys, self.seed) < self.mlm_probability
        batch["mlm_labels"] = tokens.masked_fill(~chosen, -100)
        batch["input_ids"] = tokens.masked_fill(chosen, self.tokenizer.mask_token_id)

    @staticmethod
    def _labels(rows: Sequence[dict], span_mask: Tensor) -> Tensor:
        is_source = torch.tensor(["types" in row for row in rows])
        labels = torch.zeros(span_mask.shape, dtype=torch.long)
        cells = [
            (i, begin, length - 1, label)
            for i, row in enumerate(rows)
            for begin, length, label in zip(row.get("begins", ()), row.get("lengths", ()), row.get("types", ()), strict=True)
        ]
        if cells:
            row, begin, length, label = torch.tensor(cells).T
            labels[row, begin, length] = label
        return labels.masked_fill(~span_mask | ~is_source[:, None, None], -100)


def token_set(windows: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """[tokens], in rising order: the tokens that the windows have."""
    chunks = windows.with_format("arrow")[:]["input_ids"]
    return torch.tensor(sorted(pc.unique(pc.list_flatten(chunks)).to_pylist()), device=device)
