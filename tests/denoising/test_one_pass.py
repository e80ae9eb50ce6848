"""Protects refinement in one pass: it equals loops over plain lists; two processes equal one; where not all spans that may move
can be held, the corpora are read again and the labels are the same; what is surely O stays."""

import random
from collections.abc import Iterable

import pytest
import torch
from reference import refined_at_once
from support.settings import settings
from support.spans import double, random_soft, random_windows
from support.threads import World
from torch.nn import functional as F

from glode.denoising.baselines import denoiser_class
from glode.denoising.denoiser import Denoiser
from glode.denoising.one_pass import OnePass, ReadWindows
from glode.denoising.pseudo_labels import PseudoLabels
from modeling_glode import span_grid

TYPES, HIDDEN, LENGTH, SOURCE, TARGET = 3, 3, 2, 6, 14
OPTIONS = {"num_neighbors": 7, "local_threshold_scale": 0.8731, "datastore_outside_share": 1.0}


class Corpora:
    """Random windows of both corpora as a model reads them, in batches of two, and the same as plain lists."""

    def __init__(self, seed: int, languages: int = 1):
        rng = self.rng = random.Random(seed)
        self.owned, own_start, words = random_windows(rng, TARGET)
        self.languages = torch.tensor([w % languages for w in range(TARGET)])
        rows = sum(self.owned)
        self.soft = double([[random_soft(rng, TYPES) for _ in range(LENGTH)] for _ in range(rows)])
        self.strings = torch.full((rows, LENGTH), -2)
        self.source, self.target, self.predicted = [], {}, {}
        self.batches = [self.read_source() for _ in range(SOURCE // 2)]
        offsets = [0, *torch.tensor(self.owned).cumsum(0).tolist()]
        for at in range(0, TARGET, 2):
            two = range(at, at + 2)
            own_end = [own_start[w] + self.owned[w] for w in two]
            batch = self.read([words[w] for w in two], [own_start[w] for w in two], own_end, list(two), list(two))
            self.batches.append(batch)
            for row, b, k in batch.span_mask.nonzero().tolist():
                span = (offsets[at + row] + b - own_start[at + row], k)
                self.strings[span] = rng.choice([-1, *range(6)])
                self.target[span] = (vector_of(batch, row, b, k), int(self.languages[at + row]))
                self.predicted[span] = batch.probabilities[row, b, k].tolist()

    def read(self, words: list, own_start: list, own_end: list, window: list, key: list, labels=None) -> ReadWindows:
        rng, width = self.rng, max(words) + 1
        grid = span_grid(torch.tensor(words), torch.tensor(own_start), torch.tensor(own_end), width, LENGTH)
        states = double([[[[rng.gauss(0, 1) for _ in range(HIDDEN)] for _ in range(width)] for _ in words] for _ in range(2)])
        states += torch.tensor([1.0, -2.0, 0.0])  # what all spans share
        states = states.float().double()  # a sample holds single precision
        soft = double([[[random_soft(rng, TYPES) for _ in range(LENGTH)] for _ in range(width)] for _ in words])
        return ReadWindows(states, soft, grid, labels, torch.tensor(window), torch.tensor(key), torch.tensor(own_start))

    def read_source(self) -> ReadWindows:
        batch = self.read([3, 4], [0, 0], [3, 4], [0, 1], [self.rng.randint(-(10**6), -1) for _ in range(2)])
        labels = torch.full(batch.span_mask.shape, -100)
        for row, b, k in batch.span_mask.nonzero().tolist():
            labels[row, b, k] = self.rng.randrange(TYPES)
            self.source.append((vector_of(batch, row, b, k), int(labels[row, b, k])))
        return batch._replace(labels=labels)

    def labels(self) -> PseudoLabels:
        labels = PseudoLabels(self.owned, LENGTH, TYPES)
        labels.probabilities = self.soft.clone()
        return labels

    def one_pass(self, gather=None, kind: type[OnePass] = OnePass, source_languages=None, **options) -> OnePass:
        more = {"source_languages": source_languages} | ({} if gather is None else {"gather": gather})
        return kind(self.labels(), settings(**{**OPTIONS, **options}), self.languages, self.strings, **more)


def vector_of(batch: ReadWindows, row: int, first: int, more: int) -> list[float]:
    return [*batch.states[0, row, first].tolist(), *batch.states[1, row, first + more].tolist()]


def as_dict(values: torch.Tensor, spans: Iterable[tuple]) -> dict:
    return {span: values[span].tolist() for span in spans}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"denoising": "global"},
        {"denoising": "local"},
        {"normalize_directions": True},
        {"agreement": True},
        {"self_direction": True},
        {"denoising": "global", "agreement": True, "self_direction": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(4))
def test_one_pass_equals_the_reference(seed: int, options: dict):
    corpora = Corpora(seed, languages=1 + seed % 2)
    one_pass = corpora.one_pass(**options)
    given = {**OPTIONS, "normalize_directions": False, "agreement": False, "self_direction": False, **options}
    given |= {"sides": one_pass.settings.sides, "types": TYPES}
    soft = as_dict(corpora.soft, corpora.target)
    strings = {span: int(corpora.strings[span]) if corpora.strings[span] >= 0 else None for span in corpora.target}
    expected = refined_at_once(corpora.source, corpora.target, soft, strings, corpora.predicted, 0.7, **given)
    logged = one_pass.refine(lambda: iter(corpora.batches), 5, 0.7)
    found = as_dict(one_pass.pseudo_labels.probabilities, corpora.target)
    torch.testing.assert_close(double(list(found.values())), double(list(expected.values())), rtol=0, atol=1e-6)
    changed = [max(range(TYPES), key=lambda c: found[span][c]) != int(corpora.soft[span].argmax()) for span in found]
    assert logged["pseudo_labels_changed"] == sum(changed) > 0
    assert set(one_pass.pseudo_labels.refined_in.tolist()) == {5}
    outside = torch.ones(corpora.soft.shape[:2], dtype=torch.bool)
    for span in corpora.target:
        outside[span] = False
    assert torch.equal(one_pass.pseudo_labels.probabilities[outside], corpora.soft[outside])


@pytest.mark.parametrize("options", [{}, {"datastore_outside_share": 0.4, "agreement": True}])
def test_two_processes_equal_one(options: dict):
    """With an odd number of batches: the second process reads one again, which does not count."""
    corpora, world = Corpora(3, languages=2), World(2)
    batches = [*corpora.batches, corpora.read_source()]
    single = corpora.one_pass(**options)
    pair = [corpora.one_pass(gather=world.gather(rank), **options) for rank in range(2)]
    empty = batches[0]._replace(span_mask=torch.zeros_like(batches[0].span_mask))
    assert len(batches) % 2 == 1
    parts = [batches[0::2], [*batches[1::2], empty]]
    # Both have as many target batches: those of the second are fewer by the one that is no more than an empty place.
    nothing = corpora.batches[-1]._replace(span_mask=torch.zeros_like(corpora.batches[-1].span_mask))
    targets = [sum(batch.labels is None for batch in part) for part in parts]
    parts = [part + [nothing] * (max(targets) - number) for part, number in zip(parts, targets, strict=True)]
    logged = single.refine(lambda: iter(batches), 2, 0.7)
    both = world.run(*(lambda r=r: pair[r].refine(lambda: iter(parts[r]), 2, 0.7) for r in range(2)))
    assert both[0] == both[1] == logged
    for one_pass in pair:
        assert torch.equal(one_pass.pseudo_labels.probabilities, pair[0].pseudo_labels.probabilities)
        difference = one_pass.pseudo_labels.probabilities - single.pseudo_labels.probabilities
        assert difference.abs().max() < 1e-9
    assert not torch.equal(single.pseudo_labels.probabilities, corpora.soft)


def test_what_cannot_be_held_is_read_again_to_the_same_end():
    class HoldsNothing(OnePass):
        holds = 0.0

    corpora, calls = Corpora(1), []

    def read():
        calls.append(1)
        return iter(corpora.batches)

    ends = []
    for kind, times in ((OnePass, 1), (HoldsNothing, 2)):
        one_pass = corpora.one_pass(kind=kind, agreement=True)
        logged = one_pass.refine(read, 0, 0.6)
        ends.append((one_pass.pseudo_labels.probabilities, logged))
        assert len(calls) == times
        calls.clear()
    assert torch.equal(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]
    small = corpora.one_pass(datastore_size=20)
    assert small.refine(read, 0, 0.6)["datastore_size"] == 20 and len(calls) == 2


def test_where_one_process_cannot_hold_its_part_both_read_again():
    """A model that is sharded takes all processes at once."""

    class HoldsFew(OnePass):
        holds = 4 / 200_000  # spans: as many as the first process has, fewer than the second

    corpora, world, calls = Corpora(1), World(2), [0, 0]
    batches = [batch for batch in corpora.batches if batch.labels is None]
    parts = [[corpora.batches[0], batches[0]], [corpora.batches[1], batches[1]]]
    parts[0][1] = batches[0]._replace(span_mask=torch.zeros_like(batches[0].span_mask))

    def read(rank: int):
        calls[rank] += 1
        return iter(parts[rank])

    pair = [corpora.one_pass(gather=world.gather(rank), kind=HoldsFew) for rank in range(2)]
    assert batches[1].span_mask.sum() > 4
    world.run(*(lambda r=r: pair[r].refine(lambda: read(r), 0, 0.7) for r in range(2)))
    assert calls == [2, 2]


def test_what_is_surely_outside_stays_to_the_bit():
    corpora = Corpora(2)
    sure = torch.tensor([0.995, 0.003, 0.002], dtype=torch.float64)
    corpora.soft[: len(corpora.soft) // 2] = sure
    batches = [
        batch if batch.labels is not None else batch._replace(probabilities=sure.expand_as(batch.probabilities))
        for batch in corpora.batches
    ]
    one_pass = corpora.one_pass()
    one_pass.refine(lambda: iter(batches), 0, 0.5)
    same = (one_pass.pseudo_labels.probabilities == corpora.soft).all(-1)
    assert same[: len(corpora.soft) // 2].all() and not same.all()
    told = corpora.one_pass(self_direction=True)
    told.refine(lambda: iter(corpora.batches), 0, 0.5)  # a model that is not sure
    moved = (told.pseudo_labels.probabilities != corpora.soft).any(-1)
    assert all(moved[span] for span in corpora.target)


def test_agreement_without_strings_is_refused():
    corpora = Corpora(0)
    with pytest.raises(ValueError, match="agreement needs the strings of the target's spans"):
        OnePass(corpora.labels(), settings(agreement=True), corpora.languages)


def test_the_denoiser_refines_once_an_epoch():
    corpora, read, options = Corpora(0), [], settings(refine="epoch", agreement=True, **OPTIONS)
    denoiser, restored = (Denoiser(corpora.labels(), options, 2, corpora.languages, strings=corpora.strings) for _ in range(2))
    assert not denoiser.reads_vectors and Denoiser(corpora.labels(), settings(), 2).reads_vectors

    def batches():
        read.append(1)
        return iter(corpora.batches)

    assert denoiser.refine_all(batches, 0, 0.7)
    once = denoiser.pseudo_labels.probabilities.clone()
    assert not torch.equal(once, corpora.soft)
    assert denoiser.refine_all(batches, 0, 0.7) == {} and len(read) == 1
    restored.load_state_dict(denoiser.state_dict())
    assert restored.refine_all(batches, 0, 0.7) == {} and len(read) == 1
    for one in (denoiser, restored):
        assert one.refine_all(batches, 1, 0.7)
    assert torch.equal(denoiser.pseudo_labels.probabilities, restored.pseudo_labels.probabilities)
    assert not torch.equal(denoiser.pseudo_labels.probabilities, once)


@pytest.mark.parametrize("denoising", ["none", "self-training", "confidence"])
def test_what_refines_nothing_reads_nothing(denoising: str):
    corpora = Corpora(0)
    options = settings(refine="epoch", denoising=denoising, agreement=True, self_direction=True)
    denoiser = denoiser_class(denoising)(corpora.labels(), options, 2, corpora.languages)
    assert denoiser.refine_all(lambda: pytest.fail("the corpora were read"), 3, 0.5) == {}
    assert torch.equal(denoiser.pseudo_labels.probabilities, corpora.soft)


@pytest.mark.parametrize("denoising", ["contproto", "colada"])
def test_a_baseline_that_acts_in_a_step_keeps_to_it(denoising: str):
    denoiser = denoiser_class(denoising)(Corpora(0).labels(), settings(refine="epoch", denoising=denoising), 2)
    assert denoiser.reads_vectors and denoiser.settings.refine == "step"


def test_labelled_target_sentences_count_for_their_language():
    """In the sample, and so in centers and thresholds; prototypes are of all."""
    corpora = Corpora(1)
    plain, labelled = corpora.one_pass(), corpora.one_pass(source_languages=torch.tensor([0, 1]))
    samples = [one_pass._read(iter(corpora.batches))[0] for one_pass in (plain, labelled)]
    plain._settle(samples[0])
    labelled._settle(samples[1])
    spans = [one_pass.centers.shape for one_pass in (plain, labelled)]
    assert spans[0] == spans[1] and not torch.allclose(plain.centers, labelled.centers)
    assert not torch.allclose(plain.thresholds["global"].values, labelled.thresholds["global"].values)


@pytest.mark.parametrize("languages", [1, 2])
def test_a_further_source_has_a_center_of_its_own_and_no_thresholds(languages: int):
    """Its spans are in the sample, compared without their own center; thresholds are of target spans alone."""
    corpora = Corpora(1, languages=languages)
    one_pass = corpora.one_pass(source_languages=torch.tensor([0, 1 + languages]))
    sample = one_pass._read(iter(corpora.batches))[0]
    language, vectors = sample.when[:, 0], sample.vectors.clone()
    assert sorted(set(language.tolist())) == list(range(2 + languages))
    one_pass._settle(sample)
    for number in range(2 + languages):
        means = [vectors[(language == number) & (sample.types == c)].mean(0) for c in range(TYPES)]
        torch.testing.assert_close(one_pass.centers[number], torch.stack(means).mean(0), rtol=0, atol=1e-6)
    similarity = one_pass.prototypes.similarity(F.normalize(vectors - one_pass.centers[language], dim=-1))
    values = one_pass.thresholds["global"].values
    assert values.shape == (languages, TYPES)
    for target in range(languages):
        for c in range(TYPES):
            mine = similarity[(language == 1 + target) & (sample.types == c), c]
            assert float(values[target, c]) == pytest.approx(float(mine.mean()), abs=1e-6)
