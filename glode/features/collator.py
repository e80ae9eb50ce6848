"""Windows -> a batch of named tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from glode.fast.packing import pack_rows
from glode.randomness import uniform
from modeling_glode import collate_windows, span_grid


@dataclass
class GlodeCollator:
    """Makes a batch of the rows of [`TwoStreams`], for training (both streams) and for evaluation (the first alone).

    Returns a dictionary of tensors, for 2 source windows, 1 target window and its masked copy, with L = 2:

        input_ids       [4, tokens]     source, target, masked copies of the target; the target itself only with `keep_target`;
                                        attention_mask likewise
        first_token     [3, words]      only windows that are scored; last_token and word_shapes likewise
        span_mask       [3, words, 2]   which cells of the grid are spans
        labels          [3, words, 2]   gold types of source spans; -100 for target spans and where there is no span
        is_target       [3]             bool, which stream a row is of
        window          [3]             the number of the window in its stream
        key             [3]             a number that no other window of either stream has
        own_start       [3]             its first owned word
        target_spans    [spans]         the cells of the target rows' grids, one grid after the other, that are spans
        mlm_labels      [4, tokens]     the masked tokens; -100 elsewhere
        mlm_places      [masked]        where they are, row after row

    With `first_position` (see `pack_encoder`) the rows of tokens are packed into one, see `pack_rows`.

    Where spans and masked tokens are is said here, because a GPU that is asked for it has to be waited for.

    What is masked is a pure function of the seed, the epoch and the window.

    Args:
        mlm_text: "both" makes masked copies of the source rows as well.
        mlm_whole_words: the tokens of a word are masked together.
        mlm_hide_masked: the attention does not see masked tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    max_span_length: int
    mlm_probability: float = 0.0
    mlm_text: str = "target"
    mlm_whole_words: bool = False
    mlm_hide_masked: bool = False
    keep_target: bool = True
    seed: int = 0
    first_position: int | None = None

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        target = [row for row in rows if row["is_target"]]
        read = rows if target and self.mlm_text == "both" else target
        masked = read if self.mlm_probability > 0 else []
        scored = rows if self.keep_target else [row for row in rows if not row["is_target"]]
        batch = collate_windows([*scored, *masked], self.tokenizer.pad_token_id)
        seen = batch["attention_mask"]
        if masked:
            self._mask(batch, len(scored), [row["index"] for row in masked])
            seen = self._seen(batch)
        words = max(len(row["first_token"]) for row in scored)
        for name in ("first_token", "last_token", "word_shapes"):
            batch[name] = batch[name][: len(scored), :words]
        number, start, end = (batch.pop(name)[: len(scored)] for name in ("number_of_words", "own_start", "own_end"))
        batch["span_mask"] = span_grid(number, start, end, words, self.max_span_length)
        batch |= {name: torch.tensor([row[name] for row in scored]) for name in ("is_target", "window", "key")}
        batch["own_start"] = start
        batch["target_spans"] = batch["span_mask"][batch["is_target"]].flatten().nonzero()[:, 0]
        if "types" in scored[0]:
            batch["labels"] = self._labels(scored, batch["span_mask"])
        if self.first_position is None:
            batch["attention_mask"] = seen
        else:
            batch = pack_rows(batch, self.first_position, seen)
        if masked:
            batch["mlm_places"] = (batch["mlm_labels"] != -100).flatten().nonzero()[:, 0]
        return batch

    def masked(self, rows: Sequence[dict], indices: Sequence[int]) -> dict[str, Tensor]:
        """Masked rows alone, never packed, as the language model reads them: `input_ids`, `attention_mask` and `mlm_labels`
        [rows, tokens]. What is masked follows from the seed and each row's index."""
        batch = collate_windows(rows, self.tokenizer.pad_token_id)
        self._mask(batch, 0, indices)
        return {name: batch[name] for name in ("input_ids", "mlm_labels")} | {"attention_mask": self._seen(batch)}

    def _mask(self, batch: dict[str, Tensor], first: int, indices: Sequence[int]) -> None:
        """Replace each ordinary token of the rows from `first` on by the mask token, with the given probability (eq. 2)."""
        tokens = batch["input_ids"]
        chosen = batch["attention_mask"].bool() & ~torch.isin(tokens, torch.tensor(self.tokenizer.all_special_ids))
        chosen[:first] = False
        places = torch.arange(tokens.shape[1])
        if self.mlm_whole_words:  # the first token's place is that of the whole word
            begins = batch["first_token"][first:]
            places = torch.zeros_like(tokens[first:]).scatter(1, begins, begins).cummax(1).values
        keys = torch.tensor(indices)[:, None] * 2**20 + places
        chosen[first:] &= uniform(keys, self.seed) < self.mlm_probability
        batch["mlm_labels"] = tokens.masked_fill(~chosen, -100)
        batch["input_ids"] = tokens.masked_fill(chosen, self.tokenizer.mask_token_id)

    def _seen(self, batch: dict[str, Tensor]) -> Tensor:
        """Which tokens the attention sees, [rows, tokens]: where masked ones are hidden, at least something of each row."""
        there = batch["attention_mask"]
        if not self.mlm_hide_masked:
            return there
        seen = there * (batch["mlm_labels"] == -100)
        return torch.where(seen.any(1, keepdim=True), seen, there)

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
