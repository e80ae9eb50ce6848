"""Learning rates of the parts of a model."""

import torch


def give_head_its_rate(optimizer: torch.optim.Optimizer, encoder: torch.nn.Module, rate: float | None) -> torch.optim.Optimizer:
    """Let what is not the encoder's learn at a rate of its own; None leaves the optimizer as it is."""
    if rate is not None:
        inside = {id(parameter) for parameter in encoder.parameters()}
        for group in list(optimizer.param_groups):
            head = [parameter for parameter in group["params"] if id(parameter) not in inside]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in inside]
            optimizer.add_param_group({**group, "params": head, "lr": rate})
    return optimizer
