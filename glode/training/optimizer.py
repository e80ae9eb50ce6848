"""Learning rates of the parts of a model, and their schedule."""

import torch
from torch.optim.lr_scheduler import OneCycleLR


def give_head_its_rate(optimizer: torch.optim.Optimizer, encoder: torch.nn.Module, rate: float | None) -> torch.optim.Optimizer:
    """Let what is not the encoder's learn at a rate of its own; None leaves the optimizer as it is."""
    if rate is not None:
        inside = {id(parameter) for parameter in encoder.parameters()}
        for group in list(optimizer.param_groups):
            head = [parameter for parameter in group["params"] if id(parameter) not in inside]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in inside]
            optimizer.add_param_group({**group, "params": head, "lr": rate})
    return optimizer


def one_cycle(optimizer: torch.optim.Optimizer, warmup_steps: int, steps: int) -> OneCycleLR:
    """One linear cycle of the learning rates and of Adam's beta1: each group's rate rises from a 25th for `warmup_steps` of the
    `steps` and falls to next to nothing, while beta1 goes from 0.95 to 0.85 and back."""
    rates = [group["lr"] for group in optimizer.param_groups]
    rising = min(warmup_steps, steps - 1)
    rising = rising if rising > 1 else 0  # a rise that begins at its end is none
    return OneCycleLR(optimizer, rates, total_steps=steps, pct_start=rising / steps, anneal_strategy="linear")
