"""Protects the masks of the language model (eq. 2): the right share of the right tokens, and the same again."""

import math

import torch

from glode.features.collator import GlodeCollator
from modeling_glode import encode_words


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
