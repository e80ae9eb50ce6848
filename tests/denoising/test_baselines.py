"""Protects the baselines: each equals its paper's formula written as loops over plain lists, and each
trains through the same Trainer, with what it promises about labels, projection and language model."""

import math
import random

import pytest
import torch
from datasets import Dataset
from support.settings import settings
from test_trainer import LABELS, arguments, fresh_model, soft_labels
from torch.nn import functional as F

from glode.denoising.baselines import (
    BASELINES,
    ConfidentSelfTraining,
    NearestPrototype,
    NeighborConsistency,
    consistency_weight,
    denoiser_class,
)
from glode.denoising.pseudo_labels import PseudoLabels
from glode.features.windows import build_features
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = range(5)
TYPES, SIZE = 4, 6


def denoiser(name: str, **options):
    return denoiser_class(name)(PseudoLabels([3, 3], 2, TYPES), settings(denoising=name, **options), SIZE)


def test_hard_labels_and_confidence():
    torch.manual_seed(0)
    soft = (3 * torch.randn(2, 3, 2, TYPES)).softmax(-1)
    hard = denoiser("self-training").loss_targets(soft, torch.ones(2, 3, 2, dtype=torch.bool))
    sure = denoiser("confidence", confidence_threshold=0.8)
    assert isinstance(sure, ConfidentSelfTraining)
    kept = sure.loss_targets(soft, torch.ones(2, 3, 2, dtype=torch.bool))
    for row, wanted, thresholded in zip(soft.view(-1, TYPES), hard.view(-1, TYPES), kept.view(-1, TYPES), strict=True):
        values = row.tolist()
        expected = [float(i == values.index(max(values))) for i in range(TYPES)]
        assert wanted.tolist() == expected
        assert thresholded.tolist() == (expected if max(values) >= 0.8 else [0.0] * TYPES)


@pytest.mark.parametrize("seed", SEEDS)
def test_contproto_takes_the_nearest_prototype_within_its_margin(seed):
    rng = random.Random(seed)
    similarity = [[rng.uniform(-1, 1) for _ in range(TYPES)] for _ in range(50)]
    margins = [rng.uniform(-0.2, 0.9) for _ in range(TYPES)]
    chosen = denoiser("contproto")
    assert isinstance(chosen, NearestPrototype) and chosen.sides == ("global",)
    towards = chosen.choose_directions(torch.tensor(similarity), torch.tensor([margins] * 50), torch.zeros(50, dtype=torch.long))
    for row, found in zip(similarity, towards.tolist(), strict=True):
        nearest = row.index(max(row))
        expected = [0.0] * TYPES
        if nearest == 0 or row[nearest] > margins[nearest]:
            expected[nearest] = 1.0
        assert found == expected


def test_consistency_weight():
    def oracle(c: float, mu: float) -> float:
        return (1 / (1 + math.exp(-6 * (c - mu)))) / (1 / (1 + math.exp(-6 * (1 - mu))))

    shares, means = [0.0, 0.3, 0.7, 1.0], [0.2, 0.5, 0.9, 0.6]
    weights = consistency_weight(torch.tensor(shares), torch.tensor(means)).tolist()
    assert weights == pytest.approx([oracle(c, mu) for c, mu in zip(shares, means, strict=True)], abs=1e-6)
    assert consistency_weight(torch.tensor([0.3]), torch.tensor([math.inf])).tolist() == [1.0]


def test_colada_weighs_by_the_labels_of_the_nearest_target_spans():
    """Two epochs over one source and two target windows of 3 words, all spans kept, against a brute-force search."""
    torch.manual_seed(3)
    neighbors = 4
    chosen = denoiser("colada", num_neighbors=neighbors, datastore_outside_share=1.1)
    assert isinstance(chosen, NeighborConsistency)
    labels = chosen.pseudo_labels
    labels.probabilities = (3 * torch.randn(6, 2, TYPES)).softmax(-1)
    before = labels.probabilities.clone()
    span_mask = torch.tensor([[1, 1], [1, 1], [1, 0]], dtype=torch.bool).expand(3, 3, 2)
    batch = {
        "labels": torch.randint(TYPES, (3, 3, 2)),
        "is_target": torch.tensor([False, True, True]),
        "window": torch.tensor([0, 0, 1]),
        "key": torch.tensor([-1, 0, 1]),
        "own_start": torch.zeros(3, dtype=torch.long),
        "span_mask": span_mask,
    }
    valid = span_mask[1:]
    types = before.view(2, 3, 2, TYPES)[valid].argmax(-1).tolist()
    epochs = [F.normalize(torch.randn(3, 3, 2, SIZE), dim=-1) for _ in range(3)]
    means = dict.fromkeys(range(TYPES), math.inf)
    for epoch, projection in enumerate(epochs):
        chosen.begin_epoch(epoch)
        soft = chosen.step(projection, **batch, step=epoch, beta=0.8)
        assert torch.equal(labels.probabilities, before)  # never refined, whatever beta says
        targets = chosen.loss_targets(soft, valid)[valid].sum(-1).tolist()
        if epoch == 0:
            assert targets == [1.0] * len(types)
            continue
        stored, queries = epochs[epoch - 1][1:][valid], projection[1:][valid]
        shares = []
        for query, own in zip(queries, types, strict=True):
            ranked = sorted(range(len(types)), key=lambda i: -float(query @ stored[i]))[:neighbors]
            shares.append(sum(types[i] == own for i in ranked) / neighbors)
        expected = [
            1.0 if math.isinf(means[t]) else (1 + math.exp(-6 * (1 - means[t]))) / (1 + math.exp(-6 * (c - means[t])))
            for c, t in zip(shares, types, strict=True)
        ]
        assert targets == pytest.approx(expected, abs=1e-5)
        for t in set(types):
            mine = [c for c, other in zip(shares, types, strict=True) if other == t]
            means[t] = sum(mine) / len(mine)
    assert not math.isinf(means[types[0]])


def train(backbone, tokenizer, corpus: Dataset, directory, **options) -> GlodeTrainer:
    windows, unlabeled = build_features(corpus, tokenizer, 64, 3, LABELS), build_features(corpus, tokenizer, 64, 3)
    trainer = GlodeTrainer(
        fresh_model(backbone),
        arguments(directory, logging_steps=1, **options),
        tokenizer,
        source=windows,
        target=unlabeled,
        pseudo_labels=soft_labels(unlabeled, corpus, confidence=0.7),
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_trains(name, backbone, tokenizer, corpus, tmp_path):
    trainer = train(backbone, tokenizer, corpus, tmp_path, denoising=name, num_train_epochs=3 if name == "contproto" else 1)
    assert type(trainer.denoiser) is BASELINES[name]
    logs = {key for entry in trainer.state.log_history for key in entry}
    assert ("contrastive_loss" in logs) == (name == "contproto")
    start = soft_labels(trainer.train_dataset.target, corpus, confidence=0.7).probabilities
    assert torch.equal(trainer.denoiser.pseudo_labels.probabilities, start) == (name != "contproto")
    target_loss = [entry["target_loss"] for entry in trainer.state.log_history if "target_loss" in entry]
    assert all(map(math.isfinite, target_loss))
    if name == "confidence":  # no label is as sure as 0.9
        assert max(target_loss) == 0


@pytest.mark.parametrize("task", ["mlm", "scl", "none"])
def test_the_auxiliary_task_chooses_what_is_learnt(task, backbone, tokenizer, corpus, tmp_path):
    before = fresh_model(backbone)
    trainer = train(backbone, tokenizer, corpus, tmp_path, auxiliary_task=task, num_train_epochs=1)
    logs = {key for entry in trainer.state.log_history for key in entry}
    assert ("mlm_loss" in logs, "contrastive_loss" in logs) == (task == "mlm", task == "scl")
    moved = not torch.equal(trainer.model.projector.linear.weight, before.projector.linear.weight)
    assert moved == (task == "scl")
    language_model = not torch.equal(trainer.model.mlm_head.dense.weight, before.mlm_head.dense.weight)
    assert language_model == (task == "mlm")
