"""Dropout whose random numbers cost little on a CPU."""

import torch
from torch import Tensor, nn

_THRESHOLDS = 1024  # of a dropout; every so many numbers share one


def keep_mask(like: Tensor, dropped: float) -> Tensor:
    """Zero with probability `dropped`, at most 255/256, and otherwise what keeps the mean. The shape of `like`.

    Eight bits decide on a number, so that one draw serves eight: on a CPU nn.Dropout, which draws each by itself, takes four
    times as long, and an eighth of an encoder's training step. They are compared with thresholds that lie at the multiple of
    1/256 above or below `dropped`, by chance, so that the probability is `dropped` itself.
    """
    number, dropped = like.numel(), min(dropped, 255 / 256)
    thresholds = (256 * dropped + torch.rand(_THRESHOLDS)).floor().sub_(128).to(torch.int8)
    draws = torch.empty(-(-number // _THRESHOLDS), _THRESHOLDS // 8, dtype=torch.int64).random_(-(2**63), None)
    kept = torch.empty(len(draws), _THRESHOLDS, dtype=like.dtype)
    torch.ge(draws.view(torch.int8), thresholds, out=kept)
    return kept.flatten()[:number].view(like.shape).mul_(1 / (1 - dropped))


class Dropout(nn.Dropout):
    """nn.Dropout whose random numbers cost little on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.p > 0 and input.device.type == "cpu":
            return input * keep_mask(input, self.p)
        return super().forward(input)


def replace_dropout(model: nn.Module) -> None:
    """Put [`Dropout`] in the place of every nn.Dropout of a model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
