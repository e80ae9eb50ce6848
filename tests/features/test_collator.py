"""Protects batches: every entity arrives in the cell of the grid where it belongs, target labels arrive nowhere, and the masks of
the language model (eq. 2) are the right share of the right tokens, and the same again."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset

from glode.features.collator import GlodeCollator
from glode.features.streams import TwoStreams
from glode.features.windows import build_features
from modeling_glode import encode_words

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_collated_shapes(streams: TwoStreams, tokenizer):
    """The example of the class' docstring: 2 source windows, 1 target window and its masked copy, L = 2."""
    rows = streams.__getitems__([0, 4, 23])
    batch = GlodeCollator(tokenizer, 2, mlm_probability=0.5)(rows)
    tokens, words = max(len(row["input_ids"]) for row in rows), max(len(row["first_token"]) for row in rows)
    shapes = dict.fromkeys(("input_ids", "attention_mask", "mlm_labels"), (4, tokens))
    shapes |= dict.fromkeys(("first_token", "last_token", "word_shapes"), (3, words))
    shapes |= {"span_mask": (3, words, 2), "labels": (3, words, 2), "own_start": (3,)}
    shapes |= {"is_target": (3,), "window": (3,), "key": (3,)}
    mask, masked = batch["span_mask"][2].flatten(), (batch["mlm_labels"] != -100).flatten()
    shapes |= {"target_spans": (int(mask.sum()),), "mlm_places": (int(masked.sum()),)}
    assert {name: tuple(value.shape) for name, value in batch.items()} == shapes
    assert mask[batch["target_spans"]].all() and masked[batch["mlm_places"]].all()
    assert batch["is_target"].tolist() == [False, False, True] and batch["window"].tolist() == [0, 4, 3]
    assert batch["key"].tolist() == [-20, -16, 3]
    for i, row in enumerate([*rows, rows[2]]):
        number = len(row["input_ids"])
        assert batch["attention_mask"][i].tolist() == [1] * number + [0] * (tokens - number)
        assert (batch["input_ids"][i, number:] == tokenizer.pad_token_id).all()
        if i < 3:
            assert batch["input_ids"][i, :number].tolist() == row["input_ids"]
            for name in ("first_token", "last_token", "word_shapes"):
                assert batch[name][i].tolist() == row[name] + [0] * (words - len(row[name]))


def test_labels_are_in_their_cells_and_never_the_targets(streams: TwoStreams, tokenizer):
    rows = streams.__getitems__([*range(20), 20, 21, 34])
    labels = GlodeCollator(tokenizer, 2)(rows)["labels"]
    assert (labels[20:] == -100).all()
    positive = 0
    for i, row in enumerate(rows[:20]):
        gold = {(b, n): t for b, n, t in zip(row["begins"], row["lengths"], row["types"], strict=True)}
        for begin in range(labels.shape[1]):
            for length in (1, 2):
                inside = begin + length <= len(row["first_token"])
                assert labels[i, begin, length - 1] == (gold.get((begin, length), 0) if inside else -100)
        positive += len(gold)
    assert (labels > 0).sum() == positive > 20


def test_a_targets_own_labels_are_not_used(corpus: Dataset, tokenizer):
    """Unlabelled windows stay unlabelled beside labelled ones, and a batch of them alone has no labels at all."""
    target = TwoStreams(build_features(corpus, tokenizer, 64, 2), None)
    assert "labels" not in GlodeCollator(tokenizer, 2)(target.__getitems__([0, 1, 2]))


@pytest.mark.parametrize("keep_target", [True, False])
def test_only_copies_of_the_target_are_masked(streams: TwoStreams, tokenizer, keep_target: bool):
    rows = streams.__getitems__([0, 1, 2, 22, 27])
    batch = GlodeCollator(tokenizer, 2, mlm_probability=1.0, keep_target=keep_target)(rows)
    scored = 5 if keep_target else 3
    inputs = batch["input_ids"]
    assert len(inputs) == scored + 2
    assert batch["first_token"].shape[0] == batch["span_mask"].shape[0] == batch["labels"].shape[0] == scored
    assert len(batch["window"]) == len(batch["own_start"]) == scored
    assert (batch["mlm_labels"][:scored] == -100).all()
    assert all((tokens != tokenizer.mask_token_id).all() for tokens in inputs[:scored])
    special = set(tokenizer.all_special_ids)
    for i, row in enumerate(rows[3:], scored):
        number = len(row["input_ids"])
        wanted = [t if t in special else tokenizer.mask_token_id for t in row["input_ids"]]
        assert inputs[i][:number].tolist() == wanted
        assert batch["mlm_labels"][i, :number].tolist() == [-100 if t in special else t for t in row["input_ids"]]
        assert (batch["mlm_labels"][i, number:] == -100).all()


def test_masks_depend_on_seed_and_batch_alone(streams: TwoStreams, tokenizer):
    rows = streams.__getitems__([0, 1, *range(20, 35)])

    def masks(seed: int, probability: float = 0.3, rows: list[dict] = rows) -> torch.Tensor:
        return GlodeCollator(tokenizer, 2, mlm_probability=probability, seed=seed)(rows)["mlm_labels"] != -100

    first = masks(0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert torch.equal(first, masks(0)) and not torch.equal(first, masks(1))
    assert not torch.equal(first, masks(0, rows=[row | {"index": row["index"] + 1} for row in rows]))  # the same texts
    ordinary = masks(0, 1.0).sum()
    assert 0.2 < first.sum() / ordinary < 0.4
    assert "mlm_labels" not in GlodeCollator(tokenizer, 2)(rows)


def stream_columns(i: int, source: int) -> dict:
    """As [`TwoStreams`] gives them."""
    return {"is_target": i >= source, "window": i - source if i >= source else i, "key": i - source, "index": i}


def rows_of(tokenizer, sentences: list[list[str]], source: int) -> list[dict]:
    """The first `source` sentences as source windows, the others as target windows."""
    columns = encode_words(sentences, tokenizer, 64, 2)
    rows = [{name: column[i] for name, column in columns.items()} for i in range(len(sentences))]
    labels = {"begins": [], "lengths": [], "types": []}
    return [row | (labels if i < source else {}) | stream_columns(i, source) for i, row in enumerate(rows)]


def test_eq_2_masks(tokenizer, corpus):
    rate, source = 0.25, 5
    sentences = [corpus[i % 20]["words"] + ["\U00012345"] for i in range(400)]  # the last word is the unknown token
    rows = rows_of(tokenizer, sentences, source)
    batch = GlodeCollator(tokenizer, 2, rate, True, seed=3)(rows)
    target = len(sentences) - source
    inputs, labels = batch["input_ids"].tolist(), batch["mlm_labels"].tolist()
    assert len(inputs) == len(labels) == len(sentences) + target
    chosen, ordinary = 0, 0
    for row, (tokens, wanted) in enumerate(zip(inputs, labels, strict=True)):
        original = rows[row if row < len(rows) else row - target]["input_ids"]
        padding = [tokenizer.pad_token_id] * (len(tokens) - len(original))
        for token, label, before in zip(tokens, wanted, original + padding, strict=True):
            can_be_masked = row >= len(rows) and before not in tokenizer.all_special_ids
            ordinary += can_be_masked
            if label == -100:
                assert token == before
            else:
                assert can_be_masked
                assert (token, label) == (tokenizer.mask_token_id, before)
                chosen += 1
    assert ordinary > 3000
    assert abs(chosen / ordinary - rate) < 4 * math.sqrt(rate * (1 - rate) / ordinary)


def test_eq_2_masks_are_a_function_of_seed_and_indices(tokenizer, corpus):
    rows = rows_of(tokenizer, [row["words"] for row in corpus], 5)
    batch = GlodeCollator(tokenizer, 2, 0.25, True, seed=3)(rows)
    torch.rand(3)
    assert torch.equal(GlodeCollator(tokenizer, 2, 0.25, True, seed=3)(rows)["mlm_labels"], batch["mlm_labels"])
    assert not torch.equal(GlodeCollator(tokenizer, 2, 0.25, True, seed=4)(rows)["mlm_labels"], batch["mlm_labels"])
    later = [row | {"index": row["index"] + 1} for row in rows]
    assert not torch.equal(GlodeCollator(tokenizer, 2, 0.25, True, seed=3)(later)["mlm_labels"], batch["mlm_labels"])


def test_masked_copies_of_both_texts(streams: TwoStreams, tokenizer):
    """Source rows first; a batch without target rows, as in evaluation, is never masked."""
    rows = streams.__getitems__([0, 1, 22])
    collator = GlodeCollator(tokenizer, 2, mlm_probability=1.0, mlm_text="both")
    batch = collator(rows)
    assert len(batch["input_ids"]) == 6 and len(batch["window"]) == 3
    assert (batch["mlm_labels"][:3] == -100).all() and (batch["mlm_labels"][3:] != -100).any(1).all()
    masked = batch["mlm_labels"][3:] != -100
    assert torch.equal(batch["mlm_labels"][3:][masked], batch["input_ids"][:3][masked])
    assert "mlm_labels" not in collator(rows[:2])


def test_whole_words_are_masked_together(tokenizer, corpus):
    rows = rows_of(tokenizer, [row["words"] for row in corpus] * 4, 0)
    collator = GlodeCollator(tokenizer, 2, 0.25, mlm_whole_words=True)
    batch, ordinary, chosen, split = collator(rows), 0, 0, 0
    for i, row in enumerate(rows[:5]):  # whatever it is padded to
        alone = collator([row])["mlm_labels"][1]
        assert torch.equal(batch["mlm_labels"][len(rows) + i, : len(alone)], alone)
    masks = batch["mlm_labels"][len(rows) :] != -100
    for row, mask in zip(rows, masks, strict=True):
        for first, last in zip(row["first_token"], row["last_token"], strict=True):
            word = mask[first : last + 1]
            assert word.all() or not word.any()
            ordinary, chosen, split = ordinary + 1, chosen + bool(word.any()), split + (last > first)
    assert abs(chosen / ordinary - 0.25) < 4 * math.sqrt(0.25 * 0.75 / ordinary) and split > 50


def test_masked_tokens_are_hidden_from_attention(streams: TwoStreams, tokenizer):
    rows = streams.__getitems__([0, 1, 22, 27])
    plain = GlodeCollator(tokenizer, 2, mlm_probability=0.5)(rows)
    batch = GlodeCollator(tokenizer, 2, mlm_probability=0.5, mlm_hide_masked=True)(rows)
    masked = plain["mlm_labels"] != -100
    assert masked.any() and torch.equal(batch["attention_mask"], plain["attention_mask"].masked_fill(masked, 0))
    assert all(torch.equal(batch[name], plain[name]) for name in ("input_ids", "mlm_labels"))
    alone = [row | {"input_ids": row["input_ids"][1:-1]} for row in rows]  # no special token that could be seen
    whole = GlodeCollator(tokenizer, 2, mlm_probability=1.0, mlm_hide_masked=True).masked(alone, range(len(alone)))
    assert (whole["attention_mask"].sum(1) == torch.tensor([len(row["input_ids"]) for row in alone])).all()
