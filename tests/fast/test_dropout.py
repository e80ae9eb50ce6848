"""Protects the cheap dropout: it drops its share, keeps the mean, and rests in evaluation."""

import pytest
import torch
from torch import nn

from glode.fast.dropout import Dropout, keep_mask, replace_dropout


@pytest.mark.parametrize("dropped", [0.1, 0.5, 0.001])
def test_dropout_drops_its_share_and_keeps_the_mean(dropped: float):
    torch.manual_seed(0)
    kept = keep_mask(torch.empty(1001, 999), dropped)
    share, number = (kept == 0).double(), kept.numel()
    assert abs(share.mean().item() - dropped) < 5 * (dropped / number) ** 0.5
    assert abs(kept.double().mean().item() - 1) < 5 * (dropped / number) ** 0.5 / (1 - dropped)
    assert len(kept.unique()) == 2
    flat = share.flatten() - dropped
    for apart in (*range(1, 9), 999, 1024):  # eight numbers come of one draw, and of 1,024 one has the same threshold
        together = (flat[apart:] * flat[:-apart]).mean().item()
        assert abs(together) < 5 * dropped * (1 - dropped) / number**0.5
    torch.manual_seed(0)
    assert torch.equal(keep_mask(torch.empty(1001, 999), dropped), kept)


def test_dropout_of_nearly_all_and_in_half_precision():
    kept = keep_mask(torch.empty(10, 7, dtype=torch.bfloat16), 1 - 1e-9)
    assert kept.dtype == torch.bfloat16 and kept.isfinite().all() and (kept == 0).float().mean() > 0.9


def test_every_dropout_is_replaced_and_rests_in_evaluation():
    model = nn.Sequential(nn.Dropout(0.3), nn.ModuleList([nn.Linear(2, 2), nn.Dropout(0.0)]))
    replace_dropout(model.eval())
    places = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [type(module) for module in places] == [Dropout, Dropout] and [module.p for module in places] == [0.3, 0.0]
    ones = torch.ones(50, 50)
    assert all(torch.equal(module(ones), ones) for module in places)
    dropped, untouched = (module(ones) for module in (module.train() for module in places))
    assert 0.2 < (dropped == 0).float().mean() < 0.4 and torch.equal(untouched, ones)
    gradient = torch.ones(50, 50, requires_grad=True)
    dropped = places[0](gradient)
    dropped.sum().backward()
    assert torch.equal(gradient.grad, dropped.detach())
