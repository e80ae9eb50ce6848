"""What tests/test_accelerate.py runs in each process: the model sharded by FSDP 2 has the loss and gradients of the whole one."""

import copy
import os
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from test_modeling import random_inputs, tiny_model  # noqa: E402


def loss(model: torch.nn.Module) -> torch.Tensor:
    output = model(**random_inputs([5, 3, 4]))
    return output.logits.square().mean() + output.mlm_loss


def main() -> None:
    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    whole = tiny_model().eval()
    sharded = copy.deepcopy(whole)
    for module in (*sharded.encoder.encoder.layer, sharded):
        fully_shard(module, mesh=mesh)
    losses = [loss(model) for model in (whole, sharded)]
    for value in losses:
        value.backward()
    torch.testing.assert_close(losses[0], losses[1])
    parameters = dict(sharded.named_parameters())
    learnt = [(name, parameter.grad) for name, parameter in whole.named_parameters() if parameter.grad is not None]
    assert learnt
    for name, gradient in learnt:
        torch.testing.assert_close(gradient, parameters[name].grad.full_tensor())


if __name__ == "__main__":
    main()
    os._exit(0)  # torch's caches hold the group, and a thread of it that outlives the interpreter at times aborts it
