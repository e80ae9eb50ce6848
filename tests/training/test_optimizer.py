"""Protects the schedule of one cycle: rates of encoder and head, and Adam's beta1, at each step of a run."""

import pytest
import torch
from torch import nn

from glode.errors import InputError
from glode.training.arguments import GlodeTrainingArguments
from glode.training.optimizer import give_head_its_rate, one_cycle


def cycled(warmup: int, steps: int) -> list[tuple[float, float, float]]:
    """Rate of the encoder, of the head, and beta1, of each step."""
    encoder, head = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=0.1, betas=(0.9, 0.98))
    optimizer = give_head_its_rate(optimizer, encoder, 0.5)
    schedule, seen = one_cycle(optimizer, warmup, steps), []
    for _ in range(steps):
        groups = optimizer.param_groups
        assert {group["betas"][1] for group in groups} == {0.98} and len({group["betas"][0] for group in groups}) == 1
        seen.append((groups[0]["lr"], groups[1]["lr"], groups[0]["betas"][0]))
        optimizer.step()
        schedule.step()
    return seen


def test_one_cycle_is_linear_up_and_down():
    rates, head_rates, betas = zip(*cycled(5, 20), strict=True)
    assert rates[0] == pytest.approx(0.1 / 25) and rates[4] == pytest.approx(0.1) == max(rates)
    assert rates[2] == pytest.approx((rates[0] + rates[4]) / 2) and rates[-1] < 1e-5
    assert head_rates == pytest.approx([5 * rate for rate in rates])
    assert (betas[0], betas[4], betas[-1]) == pytest.approx((0.95, 0.85, 0.95))


@pytest.mark.parametrize(("warmup", "steps"), [(50, 3), (1, 1), (0, 2), (2, 2)])
def test_one_cycle_of_a_run_that_is_shorter_than_its_warmup(warmup: int, steps: int):
    assert all(0 <= rate <= 0.1 for rate, _, _ in cycled(warmup, steps))


def test_a_second_schedule_is_refused(tmp_path):
    with pytest.raises(InputError, match="--one_cycle is a schedule of its own"):
        GlodeTrainingArguments(output_dir=str(tmp_path), use_cpu=True, one_cycle=True, lr_scheduler_type="cosine")
