"""Protects the method: every equation of GLoDe (1, 2, 4, 6-11) equals a reference written from the formulas as loops over plain
lists, the denoiser as a whole equals that reference step by step, two processes equal one with the joint batch, and the state
survives a checkpoint."""

import math
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.centers import Centers
from glode.denoising.datastore import Datastore, reservoir
from glode.denoising.denoiser import Denoiser
from glode.denoising.prototypes import Prototypes
from glode.denoising.pseudo_labels import PseudoLabels, prune_overlaps
from glode.denoising.refinement import directions, refine
from glode.denoising.thresholds import Thresholds
from glode.errors import InputError
from glode.features.collator import GlodeCollator
from glode.randomness import uniform
from glode.training.losses import nll, soft_cross_entropy
from modeling_glode import encode_words, span_grid
from trainer_glode import GlodeTrainer

SEEDS = range(10)
Vector = list[float]


class World:
    """Processes that gather from each other, as threads of this one."""

    def __init__(self, size: int):
        self.barrier, self.slots = threading.Barrier(size), [None] * size

    def gather(self, rank: int) -> Callable[[Tensor], Tensor]:
        def gather(tensor: Tensor) -> Tensor:
            self.slots[rank] = tensor
            self.barrier.wait(timeout=20)
            joined = torch.stack(self.slots)
            self.barrier.wait(timeout=20)
            return joined

        return gather

    def run(self, *processes: Callable[[], object]) -> list:
        with ThreadPoolExecutor(len(processes)) as pool:
            return [future.result() for future in [pool.submit(process) for process in processes]]


def double(values: Sequence) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_near(actual: Tensor, expected: Sequence) -> None:
    """To 1e-9, and really in double precision."""
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, double(expected).reshape(actual.shape), rtol=0, atol=1e-9)


def random_unit(rng: random.Random, size: int) -> Vector:
    return unit([rng.gauss(0, 1) for _ in range(size)])


def random_soft(rng: random.Random, types: int) -> Vector:
    values = [math.exp(rng.gauss(0, 2)) for _ in range(types)]
    return [value / sum(values) for value in values]


# ------------------------------------------------------------------------------------------------ reference, from the paper


def unit(vector: Vector) -> Vector:
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector] if norm > 0 else vector


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def largest(values: Vector) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))


def moving_average(prototypes: list[Vector], spans: Sequence[tuple[Vector, int]], decay: float) -> list[Vector]:
    """Eq. 6, span after span, without the normalisation."""
    prototypes = [list(vector) for vector in prototypes]
    for vector, label in spans:
        prototypes[label] = [decay * old + (1 - decay) * new for old, new in zip(prototypes[label], vector, strict=True)]
    return prototypes


def chosen_directions(similarity: Vector, thresholds: Vector) -> Vector:
    """Eq. 8."""
    towards = [1.0 if s > t else 0.0 for s, t in zip(similarity, thresholds, strict=True)]
    if all(similarity[0] >= s for s in similarity):
        towards[0] = 1.0
    return towards


def neighbour_shares(query: Vector, stored: Sequence[tuple[Vector, int]], neighbors: int, types: int) -> Vector:
    """Eq. 9. Refuses queries whose K-th and next neighbour are nearly tied, where single precision may choose either."""
    if not stored:
        return [0.0] * types
    ranked = sorted(((dot(query, vector), label) for vector, label in stored), reverse=True)
    neighbors = min(neighbors, len(ranked))
    if neighbors < len(ranked):
        nearly_tied = ranked[neighbors - 1][0] - ranked[neighbors][0] < 1e-6
        assert not nearly_tied or ranked[neighbors - 1][1] == ranked[neighbors][1], "choose another seed"
    nearest = [label for _, label in ranked[:neighbors]]
    return [nearest.count(c) / neighbors for c in range(types)]


def refined(soft: Vector, towards: Vector, beta: float) -> Vector:
    """Eq. 10, 11."""
    if sum(towards) == 0:
        return soft
    moved = [beta * p + (1 - beta) * d / sum(towards) for p, d in zip(soft, towards, strict=True)]
    return [value / sum(moved) for value in moved]


class Reference:
    """The whole denoiser over lists. A batch is a list of source and of target spans; `soft` maps a target span to its label."""

    def __init__(self, soft: dict, types: int, size: int, sides: Sequence[str], **options):
        self.soft, self.types, self.sides = soft, types, sides
        self.decay, self.neighbors, self.scale = options["decay"], options["neighbors"], options["local_threshold_scale"]
        self.normalize = options["normalize_directions"]
        self.prototypes = [[0.0] * size for _ in range(types)]
        self.languages = options["languages"]
        self.thresholds = {side: [[math.inf] * types for _ in set(self.languages)] for side in sides}
        self.seen = {side: [[[] for _ in range(types)] for _ in set(self.languages)] for side in sides}
        self.stored, self.collected = [], []

    def step(self, source: list[tuple[Vector, int]], target: list[tuple[tuple, Vector]], beta: float | None) -> None:
        pseudo = [(vector, largest(self.soft[span])) for span, vector in target]
        for spans in (source, pseudo):
            self.prototypes = [unit(v) for v in moving_average(self.prototypes, spans, self.decay)]
        for (span, vector), (_, label) in zip(target, pseudo, strict=True):
            towards = [0.0] * self.types
            for side in self.sides:
                if side == "global":
                    similarity, scale = [dot(vector, prototype) for prototype in self.prototypes], 1.0
                else:
                    if not self.stored:
                        continue
                    similarity, scale = neighbour_shares(vector, self.stored, self.neighbors, self.types), self.scale
                language = self.languages[span[0]]
                self.seen[side][language][label].append(similarity[label])
                thresholds = [scale * t for t in self.thresholds[side][language]]
                for s, t in zip(similarity, thresholds, strict=True):
                    assert abs(s - t) > 1e-9 or s == t == 0, "choose another seed"
                chosen = chosen_directions(similarity, thresholds)
                share = sum(chosen) if self.normalize and sum(chosen) else 1.0
                towards = [a + b / share for a, b in zip(towards, chosen, strict=True)]
            if beta is not None:
                self.soft[span] = refined(self.soft[span], towards, beta)
        self.collected += source + [(vector, largest(self.soft[span])) for span, vector in target]

    def begin_epoch(self) -> None:
        for side in self.sides:
            for seen, thresholds in zip(self.seen[side], self.thresholds[side], strict=True):
                for c, values in enumerate(seen):
                    if values:
                        thresholds[c] = sum(values) / len(values)
                    seen[c] = []
        self.stored, self.collected = self.collected, []


# ----------------------------------------------------------------------------------------------------------- eq. 1, 4: losses


def log_softmax(logits: Vector) -> Vector:
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


def reduced(losses: list[list[float]], reduction: str, mean_spans: float) -> float:
    """Losses of the valid spans of each row -> one number."""
    if reduction == "sentence":
        return sum(sum(row) / len(row) for row in losses) / len(losses)
    return sum(sum(row) for row in losses) / (len(losses) * mean_spans)


@pytest.mark.parametrize("reduction", ["sentence", "span"])
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
    trainer = SimpleNamespace(args=SimpleNamespace(loss_reduction=reduction))
    mean_spans = rng.uniform(1, 10)
    logs, mask = double(logits).log_softmax(-1), torch.tensor(mask)
    hard = GlodeTrainer._reduce(trainer, nll(logs, torch.tensor(gold)), mask, mean_spans)
    assert_near(hard, reduced(hard_losses, reduction, mean_spans))
    cross_entropy = GlodeTrainer._reduce(trainer, soft_cross_entropy(logs, double(soft)), mask, mean_spans)
    assert_near(cross_entropy, reduced(soft_losses, reduction, mean_spans))


def test_a_spans_weight_does_not_depend_on_its_batch():
    """The reason for "span": two batches of one row each weigh as one batch of both."""
    trainer = SimpleNamespace(args=SimpleNamespace(loss_reduction="span"))
    losses, mask = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0)), torch.ones(2, 4, 2, dtype=torch.bool)
    mask[1, 1:] = False
    joint = GlodeTrainer._reduce(trainer, losses, mask, 5.0)
    alone = [GlodeTrainer._reduce(trainer, losses[i : i + 1], mask[i : i + 1], 5.0) for i in range(2)]
    torch.testing.assert_close(joint, sum(alone) / 2)


# ------------------------------------------------------------------------------------------------------------ eq. 2: masks


def rows_of(tokenizer, sentences: list[list[str]], source: int) -> list[dict]:
    """The first `source` sentences as source windows, the others as target windows."""
    columns = encode_words(sentences, tokenizer, 64, 2)
    rows = [{name: column[i] for name, column in columns.items()} for i in range(len(sentences))]
    labels = {"begins": [], "lengths": [], "types": []}
    return [row | (labels if i < source else {}) | {"index": i, "window": i - source} for i, row in enumerate(rows)]


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


# ------------------------------------------------------------------------------------------------------- eq. 6, 7: prototypes


def random_batch(rng: random.Random, types: int, size: int, number: int | None = None) -> tuple:
    """Spans, of which some are not valid (type -100 or not); type 1 has none, where there are three types or more."""
    number = rng.randint(0, 30) if number is None else number
    labels = [rng.choice([c for c in range(types) if types < 3 or c != 1]) for _ in range(number)]
    valid = [rng.random() < 0.7 for _ in range(number)]
    labels = [c if ok or rng.random() < 0.5 else -100 for c, ok in zip(labels, valid, strict=True)]
    return [random_unit(rng, size) for _ in range(number)], labels, valid


def tensors_of(batch: tuple, size: int) -> tuple[Tensor, Tensor, Tensor]:
    vectors, labels, valid = batch
    return double(vectors).reshape(-1, size), torch.tensor(labels, dtype=torch.long), torch.tensor(valid, dtype=torch.bool)


def valid_spans(batch: tuple) -> list[tuple[Vector, int]]:
    return [(vector, label) for vector, label, ok in zip(*batch, strict=True) if ok]


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_6_is_the_sequential_moving_average(seed: int):
    rng = random.Random(seed)
    types, size, decay = rng.randint(2, 6), rng.randint(2, 7), rng.choice([0.5, 0.9, 0.99])
    prototypes, expected = Prototypes(types, size, decay), [[0.0] * size for _ in range(types)]
    for _ in range(4):
        batch = random_batch(rng, types, size)
        prototypes.update(*tensors_of(batch, size))
        expected = [unit(vector) for vector in moving_average(expected, valid_spans(batch), decay)]
        assert_near(prototypes.vectors, expected)
    if types >= 3:
        assert prototypes.vectors[1].tolist() == [0.0] * size  # a type without a span


@pytest.mark.parametrize("seed", range(5))
def test_eq_6_over_processes_is_one_after_the_other_by_rank(seed: int):
    rng = random.Random(seed)
    types, size, decay, number = 4, 3, 0.9, 3
    world = World(number)
    processes = [Prototypes(types, size, decay) for _ in range(number)]
    expected = [[0.0] * size for _ in range(types)]
    for _ in range(3):
        batches = [random_batch(rng, types, size) for _ in range(number)]
        world.run(
            *(
                lambda rank=rank: processes[rank].update(*tensors_of(batches[rank], size), world.gather(rank))  # noqa: B023
                for rank in range(number)
            )
        )
        spans = [span for batch in batches for span in valid_spans(batch)]
        expected = [unit(vector) for vector in moving_average(expected, spans, decay)]
        for prototypes in processes:
            assert_near(prototypes.vectors, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_center_of_a_language_is_the_mean_of_its_types_decayed_means(seed: int):
    rng = random.Random(seed)
    languages, types, size = 3, 4, 5
    centers = Centers(languages, types, size, decay=0.8)
    sums = [[[0.0] * size for _ in range(types)] for _ in range(languages)]
    counts = [[0.0] * types for _ in range(languages)]
    for _ in range(3):
        rows = [(rng.randrange(languages), random_batch(rng, types, size, number=6)) for _ in range(rng.randint(1, 5))]
        grids = [tensors_of(batch, size) for _, batch in rows]
        vectors, labels, valid = (torch.stack(parts)[:, :, None] for parts in zip(*grids, strict=True))
        centers.update(vectors, labels, torch.tensor([language for language, _ in rows]), valid)
        for language in range(languages):
            for c in range(types):
                kept = [vector for of, batch in rows if of == language for vector, label in valid_spans(batch) if label == c]
                counts[language][c] = 0.8 * counts[language][c] + len(kept)
                sums[language][c] = [0.8 * old + sum(v[i] for v in kept) for i, old in enumerate(sums[language][c])]
    queries = [random_unit(rng, size) for _ in range(languages)]
    found = centers.subtract(double(queries)[:, None, None], torch.arange(languages))[:, 0, 0]
    for language, query in enumerate(queries):
        means = [[x / n for x in total] for total, n in zip(sums[language], counts[language], strict=True) if n > 0]
        center = [sum(mean[i] for mean in means) / max(len(means), 1) for i in range(size)]
        assert_near(found[language], unit([q - m for q, m in zip(query, center, strict=True)]))


def test_centers_make_a_common_drift_vanish():
    """All vectors of a language move by the same; what is compared stays."""
    rng = random.Random(0)
    vectors = double([random_unit(rng, 8) for _ in range(100)]).view(2, 50, 1, 8)
    types = torch.tensor([rng.randrange(3) for _ in range(100)]).view(2, 50, 1)
    seen, languages = [], torch.tensor([0, 1])
    for drift in (0.0, 3.0):
        centers, moved = Centers(2, 3, 8), vectors + drift * languages[:, None, None, None]
        centers.update(moved, types, languages, torch.ones_like(types, dtype=torch.bool))
        seen.append(centers.subtract(moved, languages))
    assert_near(seen[1], seen[0].tolist())


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_7_similarity(seed: int):
    rng = random.Random(seed)
    types, size, words, length = (rng.randint(2, 5) for _ in range(4))
    prototypes = Prototypes(types, size)
    vectors = [random_unit(rng, size) for _ in range(types)]
    prototypes.vectors = double(vectors)
    queries = [[random_unit(rng, size) for _ in range(length)] for _ in range(words)]
    expected = [[[dot(q, phi) for phi in vectors] for q in row] for row in queries]
    assert_near(prototypes.similarity(double(queries)), expected)


# ---------------------------------------------------------------------------------------------- eq. 8: thresholds, directions


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_8_thresholds(seed: int):
    rng = random.Random(seed)
    types, languages = rng.randint(3, 6), rng.randint(1, 3)
    thresholds, expected = Thresholds(types, languages), [[math.inf] * types for _ in range(languages)]
    for epoch in range(3):
        seen = [[[] for _ in range(types)] for _ in range(languages)]
        # Type 1 never occurs; the last type occurs in the first epoch alone and keeps its threshold.
        present = [0, *range(2, types - (epoch > 0))]
        for _ in range(3):
            number = rng.randint(0, 20)
            similarity = [[rng.uniform(-1, 1) for _ in range(types)] for _ in range(number)]
            labels, language = [rng.choice(present) for _ in range(number)], [rng.randrange(languages) for _ in range(number)]
            thresholds.add(
                double(similarity).reshape(-1, types),
                torch.tensor(labels, dtype=torch.long),
                torch.tensor(language, dtype=torch.long),
            )
            for sims, label, of in zip(similarity, labels, language, strict=True):
                seen[of][label].append(sims[label])
        thresholds.set()
        expected = [
            [sum(values) / len(values) if values else old for values, old in zip(*rows, strict=True)]
            for rows in zip(seen, expected, strict=True)
        ]
        assert all(math.isinf(row[1]) for row in expected)
        assert_near(thresholds.values, expected)
        assert not thresholds.sums.any()


def test_eq_8_thresholds_hold_during_the_epoch():
    thresholds = Thresholds(2)
    thresholds.add(double([[0.25, 0.5]]), torch.tensor([1]), torch.tensor([0]))
    assert thresholds.values.tolist() == [[math.inf, math.inf]]
    thresholds.set()
    assert thresholds.values.tolist() == [[math.inf, 0.5]]


def test_eq_8_thresholds_over_processes_are_those_of_all_spans():
    rng = random.Random(0)
    world, processes, seen = World(2), [Thresholds(3), Thresholds(3)], [[], [], []]
    for rank, number in enumerate((7, 3)):
        similarity, labels = [[rng.random() for _ in range(3)] for _ in range(number)], [rng.randrange(2) for _ in range(number)]
        processes[rank].add(double(similarity), torch.tensor(labels), torch.zeros(number, dtype=torch.long))
        for sims, label in zip(similarity, labels, strict=True):
            seen[label].append(sims[label])
    world.run(*(lambda rank=rank: processes[rank].set(world.gather(rank)) for rank in range(2)))
    for thresholds in processes:
        assert_near(thresholds.values[0], [sum(seen[0]) / len(seen[0]), sum(seen[1]) / len(seen[1]), math.inf])


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_8_directions(seed: int):
    rng = random.Random(seed)
    types = rng.randint(2, 5)
    values = [i / 4 for i in range(-4, 5)]  # few values: ties among the types and with the thresholds
    similarity = [[rng.choice(values) for _ in range(types)] for _ in range(100)]
    thresholds = [rng.choice([*values, math.inf]) for _ in range(types)]
    assert_near(directions(double(similarity), double(thresholds)), [chosen_directions(s, thresholds) for s in similarity])
    single = directions(double(similarity), double(thresholds), multiple=False)
    for towards, sims in zip(single.tolist(), similarity, strict=True):
        assert sorted(towards) == [0.0] * (types - 1) + [1.0]
        assert sims[towards.index(1.0)] == max(sims)


@pytest.mark.parametrize(
    ("similarity", "thresholds", "expected"),
    [
        ([0.5, 0.5, 0.1], [math.inf] * 3, [1, 0, 0]),  # O ties for the highest: no similarity is higher
        ([0.4, 0.5, 0.1], [math.inf] * 3, [0, 0, 0]),  # no direction at all
        ([0.4, 0.5, 0.1], [0.4, 0.5, 0.1], [0, 0, 0]),  # equal does not exceed
        ([0.4, 0.5, 0.1], [0.3, 0.4, 0.0], [1, 1, 1]),
        ([0.9, 0.5, 0.1], [1.0, 0.4, 1.0], [1, 1, 0]),
        ([0.0, 0.0, 0.0], [math.inf] * 3, [1, 0, 0]),
    ],
)
def test_eq_8_directions_by_hand(similarity: Vector, thresholds: Vector, expected: Vector):
    assert directions(double(similarity), double(thresholds)).tolist() == expected


def test_eq_8_leaves_the_similarities_as_they_are():
    similarity = double([[0.4, 0.5], [0.9, 0.5]])
    directions(similarity, double([0.1, 0.1]))
    assert similarity.tolist() == [[0.4, 0.5], [0.9, 0.5]]


# ---------------------------------------------------------------------------------------------------------- eq. 9: datastore


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("neighbors", [1, 7, 300])
def test_eq_9_is_the_share_among_the_nearest(seed: int, neighbors: int):
    rng = random.Random(seed)
    types, size = rng.randint(2, 5), 6
    stored = [(random_unit(rng, size), rng.randrange(types)) for _ in range(rng.randint(1, 60))]
    queries = [random_unit(rng, size) for _ in range(10)]
    datastore = Datastore(types, size, neighbors)
    datastore.store(torch.tensor([v for v, _ in stored]), torch.tensor([c for _, c in stored]))
    assert len(datastore) == len(stored)
    assert_near(datastore.similarity(double(queries)), [neighbour_shares(q, stored, neighbors, types) for q in queries])


def test_eq_9_of_an_empty_datastore_is_zero():
    datastore = Datastore(3, 4)
    assert datastore.similarity(torch.ones(2, 4)).tolist() == [[0.0] * 3] * 2
    datastore.rebuild()
    assert datastore.similarity(torch.ones(2, 4)).tolist() == [[0.0] * 3] * 2
    assert datastore.similarity(torch.ones(0, 4)).shape == (0, 3)


def numbered(number: int) -> Tensor:
    """Vectors that say which span they are."""
    return torch.stack([torch.arange(number, dtype=torch.float32), torch.ones(number)], dim=1)


def test_the_datastore_keeps_entities_and_a_share_of_the_rest():
    number, share = 20_000, 0.03
    rng = random.Random(0)
    types = torch.tensor([rng.choice([0, 0, 0, 1, 2]) for _ in range(number)])
    valid = torch.tensor([rng.random() < 0.9 for _ in range(number)])
    datastore = Datastore(3, 2, outside_share=share, seed=1)
    datastore.collect(numbered(number), types, valid, torch.arange(number), 5)
    assert len(datastore) == 0  # what is collected is stored at the next rebuild
    datastore.rebuild()
    kept = datastore.vectors[:, 0].long()
    assert torch.equal(datastore.types, types[kept])
    assert valid[kept].all()
    assert kept[datastore.types != 0].tolist() == (valid & (types != 0)).nonzero().flatten().tolist()
    outside = int((valid & (types == 0)).sum())
    assert abs(int((datastore.types == 0).sum()) - share * outside) < 4 * math.sqrt(share * (1 - share) * outside)

    def again(seed: int, step: int, order: Tensor) -> list[int]:
        other = Datastore(3, 2, outside_share=share, seed=seed)
        for part in order.split(7001):  # as several processes would have them
            other.collect(numbered(number)[part], types[part], valid[part], part, step)
        other.rebuild()
        return sorted(other.vectors[:, 0].long().tolist())

    order = torch.arange(number)
    assert again(1, 5, order) == again(1, 5, order.flip(0)) == kept.tolist()
    assert again(2, 5, order) != kept.tolist() != again(1, 6, order)


def test_uniform_numbers_are_uniform_and_independent_of_the_keys_order():
    keys = torch.arange(-50_000, 50_000)
    numbers = uniform(keys, 3, 4)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers.float(), 20, 0, 1)
    assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-squared, 19 degrees of freedom: 1 in 7,000
    assert abs(torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]) < 0.015
    assert torch.equal(uniform(keys.flip(0), 3, 4), numbers.flip(0))
    assert not torch.equal(uniform(keys, 4, 3), numbers)


def test_the_datastore_is_rebuilt_from_the_last_epoch_alone():
    datastore = Datastore(2, 2, outside_share=1.0)
    for epoch, number in enumerate((4, 3), start=1):
        datastore.collect(
            numbered(number), torch.full((number,), epoch - 1), torch.ones(number, dtype=torch.bool), torch.arange(number), 0
        )
        datastore.rebuild()
        assert datastore.vectors[:, 0].tolist() == list(range(number))
        assert datastore.types.tolist() == [epoch - 1] * number


def reservoir_of(spans: Sequence[tuple[int, float]], capacity: int, least: int) -> list[int]:
    """Span after span: the `least` first of each type by priority, then the first of all."""
    by_priority = sorted(range(len(spans)), key=lambda i: spans[i][1])
    sure = [i for i in by_priority if sum(spans[j][0] == spans[i][0] and spans[j][1] < spans[i][1] for j in by_priority) < least]
    return sorted((sure + [i for i in by_priority if i not in sure])[:capacity])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reservoir_is_that_of_its_parts_in_any_order(seed: int):
    rng = random.Random(seed)
    number, capacity, least = rng.randint(1, 120), rng.randint(12, 60), rng.randint(0, 4)
    spans = [(rng.choice([0, 0, 0, 0, 1, 2]), rng.random()) for _ in range(number)]
    types, priority = torch.tensor([c for c, _ in spans]), double([u for _, u in spans])
    expected = reservoir_of(spans, capacity, least)
    assert reservoir(types, priority, capacity, least).tolist() == expected
    for _ in range(3):  # parts of the spans, each with a reservoir of its own, joined at random
        kept = torch.empty(0, dtype=torch.long)
        for part in torch.tensor(rng.sample(range(number), number)).split(rng.randint(1, 50)):
            joined = torch.cat([kept, part[reservoir(types[part], priority[part], capacity, least)]])
            kept = joined[reservoir(types[joined], priority[joined], capacity, least)]
        assert sorted(kept.tolist()) == expected


def test_the_reservoir_is_unbiased_in_each_type_and_starves_none():
    """600 draws: every span of a type is kept equally often, types in proportion to their numbers, a rare one whole."""
    draws, capacity, least = 600, 90, 6
    types = torch.tensor([0] * 200 + [1] * 90 + [2] * 6 + [3] * 12)
    kept = torch.zeros(len(types))
    for seed in range(draws):
        kept[reservoir(types, uniform(torch.arange(len(types)), seed, 1), capacity, least)] += 1
    assert kept.sum() == draws * capacity
    assert (kept[types == 2] == draws).all()
    rates = [float(kept[types == c].mean() / draws) for c in range(4)]
    assert abs(rates[0] - rates[1]) < 0.02 and rates[3] >= 0.5
    for c in range(4):
        mean, number = rates[c], int((types == c).sum())
        if mean < 1:  # chi-squared with at most `number` degrees of freedom; six standard deviations
            spread = ((kept[types == c] - draws * mean) ** 2 / (draws * mean * (1 - mean))).sum()
            assert spread < number + 6 * math.sqrt(2 * number), c


def test_the_datastore_has_a_capacity_that_holds_while_it_is_collected():
    """Whoever has the spans, in whatever order: the same sample."""
    number, capacity = 3000, 600
    types = (torch.arange(number) % 10 < 3).long() + (torch.arange(number) % 100 == 0).long()
    sizes = []

    def filled(processes: int, seed: int, backwards: bool = False) -> list[int]:
        world = World(processes)
        stores = [Datastore(3, 2, neighbors=20, outside_share=0.5, capacity=capacity, seed=seed) for _ in range(processes)]
        steps = list(enumerate(torch.arange(number).split(300)))
        for step, rows in reversed(steps) if backwards else steps:
            for rank, store in enumerate(stores):
                mine = rows[rank::processes]
                store.collect(numbered(number)[mine], types[mine], torch.ones_like(mine, dtype=torch.bool), mine, step)
                sizes.append(sum(len(column[1]) for column in store.collected))
        world.run(*(lambda rank=rank: stores[rank].rebuild(world.gather(rank)) for rank in range(processes)))
        for store in stores:
            kept = store.vectors[:, 0].long()
            assert torch.equal(store.types, types[kept]) and len(store) == store.index.ntotal == len(set(kept.tolist()))
            assert torch.equal(store.vectors, stores[0].vectors)
        return kept.tolist()

    kept = filled(1, seed=0)
    assert len(kept) == capacity and max(sizes) <= 1.25 * capacity
    assert kept == filled(1, seed=0, backwards=True) == filled(3, seed=0) != filled(1, seed=1)
    found, offered = types[kept].bincount(), types.bincount() / double([2.0, 1.0, 1.0])
    assert found[2] >= 20
    assert abs(found[0] / found[1] - offered[0] / offered[1]) < 0.4  # in proportion


def test_a_small_datastore_has_few_neighbours():
    vectors, types = clustered(100, 1.0)
    store, rng = Datastore(3, 16, 300, neighbor_share=0.07), random.Random(0)
    store.store(vectors, types)
    assert store.neighbors == 7
    queries = [random_unit(rng, 16) for _ in range(20)]
    stored = list(zip(vectors.double().tolist(), types.tolist(), strict=True))
    assert_near(store.similarity(double(queries)), [neighbour_shares(query, stored, 7, 3) for query in queries])
    store.store(vectors[:1], types[:1])
    assert store.neighbors == 1


def clustered(number: int, purity: float) -> tuple[Tensor, Tensor]:
    """Unit vectors around ten centers; a vector has its center's type with the given probability, else another."""
    generator = torch.Generator().manual_seed(0)
    centers, which = torch.randn(10, 16, generator=generator), torch.randint(0, 10, (number,), generator=generator)
    vectors = F.normalize(centers[which] + 0.3 * torch.randn(number, 16, generator=generator), dim=-1)
    other = torch.randint(0, 3, (number,), generator=generator)
    return vectors, torch.where(torch.rand(number, generator=generator) < purity, which % 3, other)


@pytest.mark.parametrize("number", [3000, 12_000])  # a cluster of 300 is no more than 2 K, one of 1,200 is
@pytest.mark.parametrize("purity", [0.0, 0.7, 0.97, 1.0])
def test_a_large_datastore_is_searched_approximately_and_says_how_well(number: int, purity: float):
    vectors, types = clustered(number, purity)
    exact, fast = (Datastore(3, 16, 160, exact_size=size) for size in (number, 1000))
    for store in (exact, fast):
        store.store(vectors, types)
    assert (exact.recall, exact.deviation, exact.cells) == (1.0, 0.0, 0)
    queries = F.normalize(vectors[:200] + 0.1 * torch.randn(200, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    error = (exact.similarity(queries) - fast.similarity(queries)).abs()
    assert fast.recall >= 0.95 and fast.deviation < 0.01 and error.mean() < 0.01
    assert fast.similarity(queries).sum(1).allclose(torch.ones(200))
    searched = []
    fast._shares = lambda queries: searched.append(len(queries)) or Datastore._shares(fast, queries)
    fast.similarity(queries)
    assert sum(searched) < {3000: 200, 12_000: 60}[number] if purity == 1.0 else sum(searched) > 150
    if purity == 1.0:
        assert error.mean() < 1e-3  # only where two centers meet


def test_vectors_without_clusters_are_searched_exactly_and_cells_still_settle():
    """As on real corpora: an eighth of the cells does not hold the neighbours, and yet most of the store is of one type."""
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(3000, 64, generator=generator), dim=-1)
    types = (vectors[:, 0] > 0.3).long()
    exact, fast = (Datastore(2, 64, 100, exact_size=size) for size in (3000, 1000))
    for store in (exact, fast):
        store.store(vectors, types)
    assert (fast.cells, fast.recall) == (0, 1.0) and 0 < fast.deviation < 0.01
    settled = fast._settled(vectors)[1]
    assert 0.1 < settled.double().mean() < 0.9
    assert torch.equal(fast.similarity(vectors)[~settled], exact.similarity(vectors)[~settled])


def test_spans_are_searched_where_it_may_change_their_directions():
    """An O span that moves towards O alone in any case is not; an entity span is, as its share sets the threshold of its type.
    The directions (eq. 8) are those of an exact search."""
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(3000, 16, generator=generator), dim=-1)
    types = torch.where(vectors[:, 0] > 0.3, 1 + (vectors[:, 1] > 0.05).long(), 0)  # hardly a cell holds one type alone
    exact, fast = (Datastore(3, 16, 100, exact_size=size) for size in (3000, 1000))
    for store in (exact, fast):
        store.store(vectors, types)
    queries = F.normalize(vectors[:500] + 0.05 * torch.randn(500, 16, generator=generator), dim=-1)
    labels, shares = types[:500].where(torch.arange(500) % 7 > 0, 1), exact.similarity(queries)
    searched = []
    fast._shares = lambda queries: searched.append(len(queries)) or Datastore._shares(fast, queries)
    plain = fast.similarity(queries)
    for thresholds in ([0.95, 0.2, 0.15], [0.95, 0.4, 0.4], [torch.inf] * 3):
        thresholds = torch.tensor(thresholds).expand(500, 3)
        found = fast.similarity(queries, labels, thresholds)
        assert torch.equal(directions(found, thresholds), directions(shares, thresholds))
        assert torch.equal(directions(found, thresholds, multiple=False), directions(shares, thresholds, multiple=False))
        assert torch.equal(found[labels != 0], plain[labels != 0])
    # The higher the thresholds, the fewer can be exceeded.
    assert searched == sorted(searched, reverse=True) and searched[-1] < 200 < 300 < searched[1] < 400 < searched[0]
    assert 0 < fast.deviation < 0.03


def test_the_datastore_joins_uneven_processes_in_an_order_of_its_own():
    """By step and span: which process had them does not matter."""
    world, stores = World(3), [Datastore(2, 2) for _ in range(3)]
    for step in (1, 0):
        for rank, keys in enumerate(([7, 2], [], [9, 0, 4])):
            vectors, ones = numbered(10)[keys] + 100 * step, torch.ones(len(keys), dtype=torch.long)
            stores[rank].collect(vectors, ones, ones.bool(), torch.tensor(keys, dtype=torch.long), step)
    world.run(*(lambda rank=rank: stores[rank].rebuild(world.gather(rank)) for rank in range(3)))
    for store in stores:
        assert store.vectors[:, 0].tolist() == [0, 2, 4, 7, 9, 100, 102, 104, 107, 109]


# ------------------------------------------------------------------------------------------------------- eq. 10, 11: refinement


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_10_and_11_refine(seed: int):
    rng = random.Random(seed)
    types, beta = rng.randint(2, 6), rng.uniform(0, 1)
    soft = [random_soft(rng, types) for _ in range(50)]
    towards = [[float(rng.choice([0, 0, 0, 1, 2])) for _ in range(types)] for _ in range(50)]
    towards[0] = [0.0] * types
    result = refine(double(soft), double(towards), beta)
    assert_near(result, [refined(p, d, beta) for p, d in zip(soft, towards, strict=True)])
    assert_near(result.sum(-1), [1.0] * 50)
    untouched = [i for i, d in enumerate(towards) if not any(d)]
    assert torch.equal(result[untouched], double(soft)[untouched])


def test_no_direction_leaves_a_label_exactly():
    soft = torch.tensor([[0.1, 0.2, 0.4]])  # float32, and not even of sum 1
    assert torch.equal(refine(soft, torch.zeros(1, 3), 0.8), soft)
    assert not torch.equal(refine(soft, torch.tensor([[0.0, 1.0, 0.0]]), 0.8), soft)


# ---------------------------------------------------------------------------------------------------------- pseudo labels


def random_windows(rng: random.Random, number: int) -> tuple[list[int], list[int], list[int]]:
    """Owned words, first owned word and all words of some windows."""
    owned, own_start = [rng.randint(1, 4) for _ in range(number)], [rng.randint(0, 2) for _ in range(number)]
    return owned, own_start, [a + b + rng.randint(0, 2) for a, b in zip(owned, own_start, strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
def test_pseudo_labels_are_read_as_written(seed: int):
    rng = random.Random(seed)
    owned, own_start, words = random_windows(rng, 6)
    store, width = PseudoLabels(owned, 2, 3), max(words) + 1
    assert store.probabilities.shape == (sum(owned), 2, 3)
    expected = {(w, i): [[1.0, 0.0, 0.0]] * 2 for w in range(6) for i in range(owned[w])}  # before anything is written: O
    for epoch in range(4):
        chosen = rng.sample(range(6), 3)
        values = torch.rand(3, width, 2, 3, generator=torch.Generator().manual_seed(10 * seed + epoch))
        store.write(torch.tensor(chosen), torch.tensor([own_start[w] for w in chosen]), values, epoch)
        for row, w in enumerate(chosen):
            for i in range(owned[w]):
                expected[w, i] = values[row, own_start[w] + i].tolist()
        assert all(store.refined_in[w] == epoch for w in chosen)
        order = rng.sample(range(6), 6)  # all others are as before
        read = store.read(torch.tensor(order), torch.tensor([own_start[w] for w in order]), width)
        assert read.shape == (6, width, 2, 3)
        for row, w in enumerate(order):
            assert read[row, own_start[w] : own_start[w] + owned[w]].tolist() == [expected[w, i] for i in range(owned[w])]


def test_reading_gives_a_copy():
    store = PseudoLabels([2, 3], 2, 3)
    before = store.probabilities.clone()
    store.read(torch.tensor([0, 1]), torch.tensor([0, 0]), 3).zero_()
    assert torch.equal(store.probabilities, before)


@pytest.mark.parametrize("mapped", [False, True])
def test_processes_share_what_they_write_and_the_lowest_rank_wins(mapped: bool, tmp_path: Path):
    file = tmp_path / "labels" if mapped else None
    world, stores = World(2), [PseudoLabels([2, 1, 3, 1], 1, 2, file=file) for _ in range(2)]
    untouched = stores[0].probabilities.clone()
    windows = [torch.tensor([0, 2]), torch.tensor([3, 2])]
    written = [torch.tensor([True, True]), torch.tensor([False, True])]

    def write(rank: int) -> None:
        start = torch.tensor([0, 1])  # the second window owns its words from the second on
        values = torch.full((2, 4 + rank, 1, 2), 10.0 + rank)
        stores[rank].write(windows[rank], start, values, 4, written[rank], world.gather(rank))

    world.run(*(lambda rank=rank: write(rank) for rank in range(2)))
    for store in stores:
        assert store.probabilities[:, 0, 0].tolist() == [10, 10, untouched[2, 0, 0], 10, 10, 10, untouched[6, 0, 0]]
        assert store.refined_in.tolist() == [4, -1, 4, -1]


def test_of_a_window_that_is_twice_in_a_batch_the_first_counts():
    store = PseudoLabels([2, 1], 1, 2)
    values = torch.arange(12.0).reshape(3, 2, 1, 2)
    store.write(torch.tensor([0, 1, 0]), torch.zeros(3, dtype=torch.long), values)
    assert store.probabilities[:, 0, 0].tolist() == [0, 2, 4]


def test_pseudo_labels_in_a_file_are_read_as_written_to_half_precision(tmp_path: Path):
    stores = [PseudoLabels([3, 2, 4], 2, 3, file=tmp_path / "labels") for _ in range(2)]  # two views of one file
    in_memory = PseudoLabels([3, 2, 4], 2, 3)
    assert (tmp_path / "labels").stat().st_size == 9 * 2 * 3 * 2
    window, start = torch.tensor([2, 0]), torch.tensor([1, 0])
    for store in (stores[0], in_memory):
        store.write(window, start, torch.rand(2, 6, 2, 3, generator=torch.Generator().manual_seed(0)).softmax(-1))
    (tmp_path / "labels").unlink()  # what is mapped lives on
    everything = (torch.arange(3), torch.zeros(3, dtype=torch.long), 4)
    read = stores[1].read(*everything)
    assert read.dtype == torch.float32 and torch.equal(read, stores[0].read(*everything))
    assert (read - in_memory.read(*everything)).abs().max() <= 2**-12  # half a unit in the last place of [0.5, 1)


def test_refining_in_half_precision_stays_near(tmp_path: Path):
    """Hundreds of small steps towards random directions: the error stays within half a unit in the last place over 1 - beta."""
    generator, soft = torch.Generator().manual_seed(0), torch.rand(500, 4, generator=torch.Generator().manual_seed(1)).softmax(-1)
    exact, half = soft.double(), soft.half()
    for step in range(200):
        towards = (torch.rand(500, 4, generator=generator) < 0.3).double() if step < 100 else F.one_hot(exact.argmax(-1), 4)
        exact = refine(exact, towards.double(), 0.95)
        half = refine(half.float(), towards.float(), 0.95).half()
        assert (exact - half.double()).abs().max() <= 2**-12 / 0.05


# ----------------------------------------------------------------------------------------------------- overlapping pseudo labels


@pytest.mark.parametrize("seed", SEEDS)
def test_prune_overlaps(seed: int):
    rng = random.Random(seed)
    rows, words, length, types = 3, 6, 3, 3
    soft, mask = torch.zeros(rows, words, length, types), torch.zeros(rows, words, length, dtype=torch.bool)
    expected_losers = set()
    for row in range(rows):
        number, entities = rng.randint(1, words), []
        for b in range(words):
            for k in range(length):
                values = rng.choice([random_soft(rng, types), [0.2, 0.7, 0.1], [0.2, 0.1, 0.7]])  # with ties
                soft[row, b, k] = torch.tensor(values)
                mask[row, b, k] = b + k + 1 <= number
                if mask[row, b, k] and largest(soft[row, b, k].tolist()) != 0:
                    entities.append((-max(soft[row, b, k].tolist()), b, k))
        taken = set()
        for _, b, k in sorted(entities):
            covered = set(range(b, b + k + 1))
            if covered & taken:
                expected_losers.add((row, b, k))
            else:
                taken |= covered
    before = soft.clone()
    pruned = prune_overlaps(soft, mask)
    assert torch.equal(soft, before)
    assert expected_losers
    for row in range(rows):
        for b in range(words):
            for k in range(length):
                wanted = [1.0, 0.0, 0.0] if (row, b, k) in expected_losers else before[row, b, k].tolist()
                assert pruned[row, b, k].tolist() == wanted


# ------------------------------------------------------------------------------------------------------- the denoiser as a whole

TYPES, SIZE, LENGTH = 3, 6, 2
OPTIONS = {"decay": 0.9, "neighbors": 7, "local_threshold_scale": 0.8731, "outside_share": 1.0}


class Material:
    """A target corpus with random soft labels, and random batches of it for both `Denoiser.step` and `Reference.step`."""

    def __init__(self, seed: int, windows: int = 6):
        self.rng = random.Random(seed)
        self.owned, self.own_start, self.words = random_windows(self.rng, windows)
        self.soft = {
            (w, i, k): random_soft(self.rng, TYPES) for w in range(windows) for i in range(self.owned[w]) for k in range(LENGTH)
        }

    def labels(self, file: Path | None = None) -> PseudoLabels:
        store = PseudoLabels(self.owned, LENGTH, TYPES, file=file)
        cells = [[self.soft[w, i, k] for k in range(LENGTH)] for w, n in enumerate(self.owned) for i in range(n)]
        if file is None:
            store.probabilities = double(cells)
        else:
            store.probabilities.copy_(double(cells))
        return store

    def batch(self, source: int, target: Sequence[int]) -> tuple[dict[str, Tensor], list, list]:
        rng = self.rng
        numbers = [rng.randint(1, 4) for _ in range(source)] + [self.words[w] for w in target]
        starts = [0] * source + [self.own_start[w] for w in target]
        ends = numbers[:source] + [self.own_start[w] + self.owned[w] for w in target]
        rows, width = source + len(target), max(self.words) + 1
        grid = span_grid(torch.tensor(numbers), torch.tensor(starts), torch.tensor(ends), width, LENGTH)
        vectors = [[[random_unit(rng, SIZE) for _ in range(LENGTH)] for _ in range(width)] for _ in range(rows)]
        labels = torch.full((rows, width, LENGTH), -100)
        source_spans, target_spans = [], []
        for row, b, k in grid.nonzero().tolist():
            if row < source:
                labels[row, b, k] = rng.randrange(TYPES)
                source_spans.append((vectors[row][b][k], int(labels[row, b, k])))
            else:
                target_spans.append(((target[row - source], b - starts[row], k), vectors[row][b][k]))
        batch = {
            "projection": double(vectors),
            "labels": labels,
            "window": torch.tensor([rng.randint(-(10**6), -1) for _ in range(source)] + list(target)),
            "own_start": torch.tensor(starts),
            "span_mask": grid,
        }
        return batch, source_spans, target_spans


def assert_state_near(denoiser: Denoiser, reference: Reference, material: Material) -> None:
    cells = [reference.soft[w, i, k] for w, n in enumerate(material.owned) for i in range(n) for k in range(LENGTH)]
    assert_near(denoiser.pseudo_labels.probabilities, cells)
    assert_near(denoiser.prototypes.vectors, reference.prototypes)
    for side in reference.sides:
        assert_near(denoiser.thresholds[side].values, reference.thresholds[side])
    if "local" in reference.sides:
        assert sorted(denoiser.datastore.types.tolist()) == sorted(label for _, label in reference.stored)


@pytest.mark.parametrize("denoising", ["both", "global", "local"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_denoiser_equals_the_reference(seed: int, normalize: bool, denoising: str):
    material = Material(seed)
    languages = [w % (1 + seed % 2) for w in range(6)]
    options = OPTIONS | {"normalize_directions": normalize, "languages": languages}
    denoiser = Denoiser(material.labels(), SIZE, denoising, **options)
    reference = Reference(dict(material.soft), TYPES, SIZE, denoiser.sides, **options)
    before, number = dict(reference.soft), 0
    for epoch in range(5):
        denoiser.begin_epoch(epoch)
        if epoch:
            reference.begin_epoch()
        beta = 0.9 if epoch >= 2 else None
        order = material.rng.sample(range(6), 6)
        for target in (order[:3], order[3:]):
            batch, source_spans, target_spans = material.batch(2, target)
            result = denoiser.step(**batch, step=number, beta=beta)
            reference.step(source_spans, target_spans, beta)
            number += 1
            assert_state_near(denoiser, reference, material)
            spans = result[batch["span_mask"][2:]]
            assert_near(spans, [reference.soft[span] for span, _ in target_spans])
        if epoch == 1:
            assert reference.soft == before
    moved = sum(reference.soft[span] != before[span] for span in before)
    assert moved > 0


@pytest.mark.parametrize(("center", "mapped"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("seed", range(3))
def test_two_processes_equal_one_with_the_joint_batch(seed: int, center: bool, mapped: bool, tmp_path: Path):
    """Labels in a file, which both processes have open: to half precision."""
    material = Material(seed)
    options = OPTIONS | {"normalize_directions": True, "center": center}
    world = World(2)
    file = tmp_path / "labels" if mapped else None
    pair = [Denoiser(material.labels(file), SIZE, **options, gather=world.gather(rank), rank=rank) for rank in range(2)]
    single = Denoiser(material.labels(), SIZE, **options)
    names = ("projection", "labels", "window", "own_start", "span_mask")
    for epoch in range(4):
        single.begin_epoch(epoch)
        world.run(*(lambda rank=rank: pair[rank].begin_epoch(epoch) for rank in range(2)))  # noqa: B023
        beta = 0.9 if epoch >= 2 else None
        order = material.rng.sample(range(6), 6)
        for step, (first, second) in enumerate([(order[:2], order[2:4]), (order[4:5], order[5:])]):
            batches = [material.batch(1, first)[0], material.batch(2, second)[0]]
            sources = (1, 2)
            joint = {
                name: torch.cat(
                    [b[name][:n] for b, n in zip(batches, sources, strict=True)]
                    + [b[name][n:] for b, n in zip(batches, sources, strict=True)]
                )
                for name in names
            }
            single.step(**joint, step=step, beta=beta)
            world.run(*(lambda r=r: pair[r].step(**batches[r], step=step, beta=beta) for r in range(2)))  # noqa: B023
            for denoiser in pair:
                assert_near(denoiser.prototypes.vectors, single.prototypes.vectors.tolist())
    single.begin_epoch(4)
    world.run(*(lambda rank=rank: pair[rank].begin_epoch(4) for rank in range(2)))
    assert not torch.equal(single.pseudo_labels.probabilities, material.labels().probabilities)
    stored = sorted(zip(single.datastore.vectors.tolist(), single.datastore.types.tolist(), strict=True))
    for denoiser in pair:
        if mapped:
            error = denoiser.pseudo_labels.probabilities - single.pseudo_labels.probabilities
            assert error.abs().max() < 2**-12 / 0.1  # half a unit in the last place over 1 - beta
            continue
        assert_near(denoiser.pseudo_labels.probabilities, single.pseudo_labels.probabilities.tolist())
        for side in ("global", "local"):
            assert_near(denoiser.thresholds[side].values, single.thresholds[side].values.tolist())
        there = sorted(zip(denoiser.datastore.vectors.tolist(), denoiser.datastore.types.tolist(), strict=True))
        assert [types for _, types in there] == [types for _, types in stored]
        assert_near(double([vector for vector, _ in there]), [vector for vector, _ in stored])
    states = world.run(*(denoiser.state_dict for denoiser in pair))
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def run_some(denoiser: Denoiser, material: Material, epochs: Sequence[int]) -> None:
    for epoch in epochs:
        denoiser.begin_epoch(epoch)
        for step, target in enumerate(([0, 1, 2], [3, 4, 5])):
            denoiser.step(**material.batch(2, target)[0], step=10 * epoch + step, beta=0.9 if epoch >= 2 else None)


def test_none_leaves_everything_as_it_is():
    material = Material(0)
    denoiser = Denoiser(material.labels(), SIZE, "none")
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    batch = material.batch(2, [4, 1])[0]
    soft = denoiser.step(**batch, step=0, beta=0.5)
    assert torch.equal(soft, denoiser.pseudo_labels.read(torch.tensor([4, 1]), batch["own_start"][2:], soft.shape[1]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())


def test_begin_epoch_acts_once_an_epoch():
    material = Material(1)
    denoiser = Denoiser(material.labels(), SIZE, **OPTIONS)
    run_some(denoiser, material, range(3))
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    assert len(before["collected.types"])
    for epoch in (2, 1, 0):  # with all that has been gathered since
        denoiser.begin_epoch(epoch)
        assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())
    denoiser.begin_epoch(3)
    after = denoiser.state_dict()
    assert torch.equal(after["datastore.types"], before["collected.types"])
    assert len(after["collected.types"]) == 0
    assert not torch.equal(after["thresholds.global.values"], before["thresholds.global.values"])


@pytest.mark.parametrize(("epochs", "mapped"), [(0, False), (1, False), (3, False), (3, True)])
def test_a_restored_denoiser_takes_the_same_next_steps(epochs: int, mapped: bool, tmp_path: Path):
    material = Material(2)
    options = OPTIONS | {"outside_share": 0.5, "center": epochs % 2 == 1}
    files = [tmp_path / name if mapped else None for name in "ab"]
    first, second = (Denoiser(Material(2).labels(file), SIZE, **options) for file in files)
    run_some(first, material, range(epochs))  # in the middle of an epoch: sums and collected spans are not empty
    saved = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    second.load_state_dict(saved)
    batches = [material.batch(2, target)[0] for target in ([5, 0], [3, 2])]
    for number, batch in enumerate(batches):
        results = [denoiser.step(**batch, step=100 + number, beta=0.8) for denoiser in (first, second)]
        assert torch.equal(*results)
        for denoiser in (first, second):
            denoiser.begin_epoch(epochs + number + 1)
        states = [denoiser.state_dict() for denoiser in (first, second)]
        assert states[0].keys() == states[1].keys()
        for name, tensor in states[0].items():
            assert tensor.dtype == states[1][name].dtype, name
            assert torch.equal(tensor, states[1][name]), name
    fresh = Material(2).labels()
    assert not torch.equal(first.pseudo_labels.probabilities, fresh.probabilities)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_state_of_two_processes_is_taken_up_by_any_number(processes: int):
    """Saved in the middle of an epoch; two go on exactly, one and three lose nothing."""
    material, options = Material(4), OPTIONS | {"outside_share": 0.5, "center": True}

    def together(world: World, denoisers: list[Denoiser], epoch: int, batches: list, step: int) -> None:
        world.run(*(lambda d=d: d.begin_epoch(epoch) for d in denoisers))
        world.run(*(lambda d=d, b=b: d.step(**b, step=step, beta=0.9) for d, b in zip(denoisers, batches, strict=True)))

    def some(world: World) -> list[Denoiser]:
        number = len(world.slots)
        return [Denoiser(Material(4).labels(), SIZE, **options, gather=world.gather(r), rank=r) for r in range(number)]

    two = World(2)
    first = some(two)
    for epoch in range(3):
        together(two, first, epoch, [material.batch(1, [0, 1])[0], material.batch(1, [2, 3])[0]], 10 * epoch)
    saved = two.run(*(denoiser.state_dict for denoiser in first))[1]
    world = World(processes)
    second = some(world)
    world.run(*(lambda d=d: d.load_state_dict(saved) for d in second))
    for name, tensor in world.run(*(denoiser.state_dict for denoiser in second))[0].items():
        if name.startswith("collected"):
            assert len(tensor) == len(saved[name])
        elif name.endswith("sums") and name.startswith("thresholds"):
            assert_near(tensor.sum(0), saved[name].sum(0).tolist())
        else:
            assert torch.equal(tensor, saved[name]), name
    if processes == 2:
        batches = [material.batch(1, [3, 0])[0], material.batch(1, [4, 5])[0]]
        for epoch in (2, 3):
            for group, members in ((two, first), (world, second)):
                together(group, members, epoch, batches, 10 * epoch + 1)
        states = [group.run(*(d.state_dict for d in members))[0] for group, members in ((two, first), (world, second))]
        assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


@pytest.mark.parametrize("owned, length, types", [([2, 3], 2, 4), ([2, 3], 3, 3), ([3, 2], 2, 3), ([2, 3, 1], 2, 3), ([2], 2, 3)])
def test_the_state_of_another_corpus_is_refused(owned: list[int], length: int, types: int):
    denoiser = Denoiser(PseudoLabels([2, 3], 2, 3), SIZE)
    other = Denoiser(PseudoLabels(owned, length, types), SIZE)
    with pytest.raises(InputError, match="denoising state is of another target text"):
        denoiser.load_state_dict(other.state_dict())
    denoiser.load_state_dict(Denoiser(PseudoLabels([2, 3], 2, 3), SIZE).state_dict())


@pytest.mark.parametrize("multiple", ["multiple", "single"])
@pytest.mark.parametrize("denoising", ["both", "global", "local", "none"])
def test_a_planted_wrong_label_is_corrected(denoising: str, multiple: str):
    """Vectors lie in one cluster a type; one PER span (the centre of its cluster) has the label LOC."""
    rng, windows, words = random.Random(0), 8, 10
    truth = torch.tensor([[rng.choice([0, 0, 0, 1, 2]) for _ in range(words)] for _ in range(windows)])
    planted = (3, 2)
    truth[planted] = 1
    centres = torch.eye(3, SIZE)
    noise = 0.1 * torch.randn(windows, words, SIZE, generator=torch.Generator().manual_seed(0))
    noise[planted] = 0
    vectors = torch.nn.functional.normalize(centres[truth] + noise, dim=-1)[:, :, None]
    labels = PseudoLabels([words] * windows, 1, 3)
    soft = torch.full((windows, words, 1, 3), 0.05)
    wrong = truth.clone()
    wrong[planted] = 2
    soft.scatter_(3, wrong[..., None, None], 0.9)
    everything = torch.arange(windows)
    labels.write(everything, torch.zeros(windows, dtype=torch.long), soft)
    denoiser = Denoiser(labels, SIZE, denoising, multiple, neighbors=12, outside_share=1.0)
    for epoch in range(8):
        denoiser.begin_epoch(epoch)
        for step, target in enumerate(everything.split(4)):
            batch = {
                "projection": torch.cat([vectors[:2], vectors[target]]),
                "labels": torch.cat([truth[:2, :, None], torch.full((4, words, 1), -100)]),
                "window": torch.cat([torch.tensor([-2, -1]), target]),
                "own_start": torch.zeros(6, dtype=torch.long),
                "span_mask": torch.ones(6, words, 1, dtype=torch.bool),
            }
            denoiser.step(**batch, step=2 * epoch + step, beta=0.8 if epoch >= 2 else None)
        if epoch == 1:
            assert torch.equal(labels.probabilities, soft.flatten(0, 1))
    found = labels.probabilities.argmax(-1).view(windows, words)
    assert torch.equal(found, wrong if denoising == "none" else truth)
