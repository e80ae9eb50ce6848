"""Protects the losses: eq. 1 and 4 equal a reference over plain lists, and a span weighs the same in every batch; the
contrastive loss equals its paper's formula; what is logged is the mean over all processes."""

import math
import random

import pytest
import torch
from reference import dot, log_softmax, reduced
from support.spans import assert_near, double, random_soft
from support.threads import World
from torch.nn import functional as F

from glode.training.losses import LossMeans, nll, reduce_spans, row_weights, soft_cross_entropy, supervised_contrastive

SEEDS = range(10)


@pytest.mark.parametrize("reduction", ["sentence", "span", "batch"])
@pytest.mark.parametrize("seed", SEEDS)
def test_eq_1_and_4_losses(seed: int, reduction: str):
    rng = random.Random(seed)
    rows, words, length, types = (rng.randint(1, n) for n in (4, 5, 4, 5))
    types += 1
    logits, gold, soft, mask = ([[[None] * length for _ in range(words)] for _ in range(rows)] for _ in range(4))
    hard_losses, soft_losses = [[] for _ in range(rows)], [[] for _ in range(rows)]
    for row in range(rows):
        number = rng.randint(1, words)
        for b in range(words):
            for k in range(length):
                logits[row][b][k] = [rng.gauss(0, 3) for _ in range(types)]
                soft[row][b][k] = random_soft(rng, types) if rng.random() < 0.8 else [0.0] * (types - 1) + [1.0]
                mask[row][b][k] = b + k + 1 <= number
                gold[row][b][k] = rng.randrange(types) if mask[row][b][k] else -100
                if mask[row][b][k]:
                    logs = log_softmax(logits[row][b][k])
                    hard_losses[row].append(-logs[gold[row][b][k]])
                    soft_losses[row].append(-dot(soft[row][b][k], logs))
    mean_spans = rng.uniform(1, 10)
    logs, mask = double(logits).log_softmax(-1), torch.tensor(mask)
    hard = reduce_spans(nll(logs, torch.tensor(gold)), mask, reduction, mean_spans)
    assert_near(hard, reduced(hard_losses, reduction, mean_spans))
    cross_entropy = reduce_spans(soft_cross_entropy(logs, double(soft)), mask, reduction, mean_spans)
    assert_near(cross_entropy, reduced(soft_losses, reduction, mean_spans))


def test_a_spans_weight_does_not_depend_on_its_batch():
    """The reason for "span": two batches of one row each weigh as one batch of both."""
    losses, mask = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0)), torch.ones(2, 4, 2, dtype=torch.bool)
    mask[1, 1:] = False
    joint = reduce_spans(losses, mask, "span", 5.0)
    alone = [reduce_spans(losses[i : i + 1], mask[i : i + 1], "span", 5.0) for i in range(2)]
    torch.testing.assert_close(joint, sum(alone) / 2)


def unit_vectors(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("seed", range(5))
def test_contrastive_loss_is_khosla_equation_2(seed):
    torch.manual_seed(seed)
    vectors, types = unit_vectors(9, 6), torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 3])
    total, anchors = 0.0, 0
    for i in range(9):
        others = [a for a in range(9) if a != i]
        positives = [p for p in others if types[p] == types[i]]
        if positives:
            below = sum(math.exp(float(vectors[i] @ vectors[a]) / 0.07) for a in others)
            logs = [math.log(math.exp(float(vectors[i] @ vectors[p]) / 0.07) / below) for p in positives]
            total, anchors = total - sum(logs) / len(logs), anchors + 1
    assert float(supervised_contrastive(vectors, types)) == pytest.approx(total / anchors, abs=1e-9)


def test_contrastive_loss_without_pairs_is_zero_with_a_gradient():
    for number in (0, 1, 3):
        vectors = unit_vectors(number, 6).requires_grad_()
        loss = supervised_contrastive(vectors, torch.arange(number))
        loss.backward()
        assert loss == 0 and (vectors.grad == 0).all()


def test_the_parts_of_the_loss_are_logged_as_means_over_steps_and_processes():
    world, values = World(2), {0: [1.0, 2.0], 1: [4.0, 7.0]}
    means = [LossMeans(world.gather(rank)) for rank in range(2)]
    for rank, losses in values.items():
        for value in losses:
            means[rank].add({"source_loss": torch.tensor(value), "mlm_loss": torch.tensor(10 * value)})
    taken = world.run(*(means[rank].take for rank in range(2)))
    assert taken == [{"source_loss": 3.5, "mlm_loss": 35.0}] * 2
    assert LossMeans().take() == {} == means[0].take()


def test_labelled_target_sentences_have_a_weight_of_their_own():
    """Languages from 1 to the number of targets; further sources have higher numbers, and weigh what the first one does."""
    assert row_weights(3, None, 2, 7.0).tolist() == [1, 1, 1]
    assert row_weights(5, torch.tensor([0, 1, 2, 3, 4]), 2, 7.0).tolist() == [1, 7, 7, 1, 1]
