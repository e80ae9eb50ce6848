"""Protects agreement beyond what the reference of one pass sees: labels in blocks and in half precision, and nothing repeated."""

from pathlib import Path

import pytest
import torch

from glode.denoising.agreement import Agreement
from glode.denoising.pseudo_labels import PseudoLabels

WORDS, LENGTH, TYPES = 23, 3, 4
CELLS = torch.arange(WORDS * LENGTH)


class InSmallBlocks(Agreement):
    block = 4


def labels_of(file: Path | None = None) -> PseudoLabels:
    labels = PseudoLabels([WORDS], LENGTH, TYPES, file=file)
    noise = torch.rand(WORDS, LENGTH, TYPES, generator=torch.Generator().manual_seed(0))
    labels.probabilities.copy_((4 * noise).softmax(-1))
    return labels


@pytest.fixture
def strings() -> torch.Tensor:
    return torch.randint(-2, 5, (WORDS, LENGTH), generator=torch.Generator().manual_seed(1), dtype=torch.int32)


def test_blocks_and_half_precision_change_nothing(strings: torch.Tensor, tmp_path: Path):
    labels, half = labels_of(), labels_of(tmp_path / "labels")
    soft = labels.probabilities.view(-1, TYPES)
    mean, there = Agreement(labels, strings).of_others(CELLS, soft)
    in_blocks, still_there = InSmallBlocks(labels, strings).of_others(CELLS, soft)
    assert there.any() and torch.equal(there, still_there)
    torch.testing.assert_close(in_blocks, mean)
    torch.testing.assert_close(mean[there].sum(-1), torch.ones(int(there.sum())))
    assert not mean[~there].any()
    rounded = half.probabilities.view(-1, TYPES).float()
    from_half = Agreement(half, strings).of_others(CELLS, rounded)[0]
    torch.testing.assert_close(from_half, mean, rtol=0, atol=1e-2)


@pytest.mark.parametrize("nothing", [-1, -2])
def test_where_nothing_is_repeated_there_are_no_others(strings: torch.Tensor, nothing: int):
    labels = labels_of()
    mean, there = Agreement(labels, strings.fill_(nothing)).of_others(CELLS, labels.probabilities.view(-1, TYPES))
    assert not there.any() and not mean.any()


def test_a_name_within_another_is_neither_asked_nor_told():
    """ "Rome" twice alone, as LOC and as O, and once within "University of Rome"."""
    labels = PseudoLabels([5], LENGTH, TYPES)
    soft = torch.tensor([0.1, 0.7, 0.1, 0.1])
    labels.probabilities[0, 0] = soft  # Rome
    labels.probabilities[2, 2] = soft  # University of Rome
    strings = torch.tensor([[0, -1, -1], [0, -1, -1], [-1, -1, -1], [-1, -1, -2], [0, -2, -2]], dtype=torch.int32)
    mean, there = Agreement(labels, strings).of_others(CELLS[:15], labels.probabilities.view(-1, TYPES))
    assert there.nonzero().flatten().tolist() == [0, 3]
    torch.testing.assert_close(mean[3], soft)
    assert mean[0].tolist() == [1, 0, 0, 0]
