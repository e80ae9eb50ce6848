"""Protects the denoiser as a whole: it equals the reference step by step, two processes equal one with the joint batch, and the
state survives a checkpoint."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from reference import (
    Reference,
)
from support.settings import settings
from support.spans import assert_near, double, random_soft, random_unit, random_windows
from support.threads import World
from torch import Tensor

from glode.denoising.denoiser import Denoiser
from glode.denoising.pseudo_labels import PseudoLabels
from glode.errors import InputError
from modeling_glode import span_grid

TYPES, SIZE, LENGTH = 3, 6, 2
OPTIONS = {
    "prototype_decay": 0.9,
    "num_neighbors": 7,
    "local_threshold_scale": 0.8731,
    "datastore_outside_share": 1.0,
}


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
            "is_target": torch.arange(rows) >= source,
            "window": torch.tensor([0] * source + list(target)),
            "key": torch.tensor([rng.randint(-(10**6), -1) for _ in range(source)] + list(target)),
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
    options = OPTIONS | {"normalize_directions": normalize}
    denoiser = Denoiser(material.labels(), settings(denoising=denoising, **options), SIZE, languages)
    reference = Reference(dict(material.soft), TYPES, SIZE, denoiser.sides, languages=languages, **options)
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
    options = OPTIONS | {"normalize_directions": True, "center_vectors": center}
    world = World(2)
    file = tmp_path / "labels" if mapped else None
    pair = [Denoiser(material.labels(file), settings(**options), SIZE, gather=world.gather(rank), rank=rank) for rank in range(2)]
    single = Denoiser(material.labels(), settings(**options), SIZE)
    names = ("projection", "labels", "is_target", "window", "key", "own_start", "span_mask")
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
    denoiser = Denoiser(material.labels(), settings(denoising="none"), SIZE)
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    batch = material.batch(2, [4, 1])[0]
    soft = denoiser.step(**batch, step=0, beta=0.5)
    assert torch.equal(soft, denoiser.pseudo_labels.read(torch.tensor([4, 1]), batch["own_start"][2:], soft.shape[1]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())


@pytest.mark.parametrize("every_visit", [False, True])
def test_a_label_is_refined_once_an_epoch_or_at_every_visit(every_visit: bool):
    material = Material(0)
    denoiser = Denoiser(material.labels(), settings(denoising="global", refine_every_visit=every_visit, **OPTIONS), SIZE)
    batch, seen = material.batch(2, [0, 1, 2])[0], []
    for step in range(4):
        denoiser.begin_epoch(step // 2)
        denoiser.step(**batch, step=step, beta=0.9)
        seen.append(denoiser.pseudo_labels.probabilities.clone())
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], seen[3]) != every_visit


def test_begin_epoch_acts_once_an_epoch():
    material = Material(1)
    denoiser = Denoiser(material.labels(), settings(**OPTIONS), SIZE)
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
    options = OPTIONS | {"datastore_outside_share": 0.5, "center_vectors": epochs % 2 == 1}
    files = [tmp_path / name if mapped else None for name in "ab"]
    first, second = (Denoiser(Material(2).labels(file), settings(**options), SIZE) for file in files)
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
    material, options = Material(4), OPTIONS | {"datastore_outside_share": 0.5, "center_vectors": True}

    def together(world: World, denoisers: list[Denoiser], epoch: int, batches: list, step: int) -> None:
        world.run(*(lambda d=d: d.begin_epoch(epoch) for d in denoisers))
        world.run(*(lambda d=d, b=b: d.step(**b, step=step, beta=0.9) for d, b in zip(denoisers, batches, strict=True)))

    def some(world: World) -> list[Denoiser]:
        number = len(world.slots)
        return [Denoiser(Material(4).labels(), settings(**options), SIZE, gather=world.gather(r), rank=r) for r in range(number)]

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
    denoiser = Denoiser(PseudoLabels([2, 3], 2, 3), settings(), SIZE)
    other = Denoiser(PseudoLabels(owned, length, types), settings(), SIZE)
    with pytest.raises(InputError, match="denoising state is of another target text"):
        denoiser.load_state_dict(other.state_dict())
    denoiser.load_state_dict(Denoiser(PseudoLabels([2, 3], 2, 3), settings(), SIZE).state_dict())


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
    options = {"denoising": denoising, "directions": multiple, "num_neighbors": 12, "datastore_outside_share": 1.0}
    denoiser = Denoiser(labels, settings(**options), SIZE)
    for epoch in range(8):
        denoiser.begin_epoch(epoch)
        for step, target in enumerate(everything.split(4)):
            batch = {
                "projection": torch.cat([vectors[:2], vectors[target]]),
                "labels": torch.cat([truth[:2, :, None], torch.full((4, words, 1), -100)]),
                "is_target": torch.tensor([False] * 2 + [True] * 4),
                "window": torch.cat([torch.tensor([0, 1]), target]),
                "key": torch.cat([torch.tensor([-2, -1]), target]),
                "own_start": torch.zeros(6, dtype=torch.long),
                "span_mask": torch.ones(6, words, 1, dtype=torch.bool),
            }
            denoiser.step(**batch, step=2 * epoch + step, beta=0.8 if epoch >= 2 else None)
        if epoch == 1:
            assert torch.equal(labels.probabilities, soft.flatten(0, 1))
    found = labels.probabilities.argmax(-1).view(windows, words)
    assert torch.equal(found, wrong if denoising == "none" else truth)


def test_a_further_source_moves_its_own_center_alone():
    """It is numbered behind the target languages, whose thresholds do not know it."""
    material = Material(3)
    options = OPTIONS | {"center_vectors": True}
    languages, sources = [0, 1, 0, 1, 0, 1], torch.tensor([3])
    denoiser = Denoiser(material.labels(), settings(**options), SIZE, languages, source_languages=sources)
    assert len(denoiser.centers.sums) == 4
    assert denoiser.language_of(torch.tensor([0, 0, 1]), torch.tensor([False, True, True])).tolist() == [3, 1, 2]
    batch, _, _ = material.batch(2, [0, 2])
    denoiser.step(**batch, step=0, beta=None)
    moved = denoiser.centers.sums.abs().sum((1, 2)) > 0
    assert moved.tolist() == [False, True, False, True]
    assert all(thresholds.sums.shape == (2, 2, TYPES) for thresholds in denoiser.thresholds.values())
