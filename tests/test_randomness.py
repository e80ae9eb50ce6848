"""Protects the random numbers: uniform, and a function of their keys alone."""

import torch

from glode.randomness import uniform


def test_uniform_numbers_are_uniform_and_independent_of_the_keys_order():
    keys = torch.arange(-50_000, 50_000)
    numbers = uniform(keys, 3, 4)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers.float(), 20, 0, 1)
    assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-squared, 19 degrees of freedom: 1 in 7,000
    assert abs(torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]) < 0.015
    assert torch.equal(uniform(keys.flip(0), 3, 4), numbers.flip(0))
    assert not torch.equal(uniform(keys, 4, 3), numbers)
