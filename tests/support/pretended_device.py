"""A device that is not there: what it computes is computed on the CPU, and whatever would wait for a GPU is counted."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import TrainingArguments

from support import ROOT

DEVICE = torch.device("meta")  # autograd knows it, and no kernel runs there unseen
aten = torch.ops.aten
# The host has to know a number, or the shape of a result, before it can go on.
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten.equal, aten.repeat_interleave}
WAITS |= {aten._unique2, aten.unique_dim, aten.unique_consecutive}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class OnDevice(Tensor):
    """A tensor that says that it lies on `DEVICE`; `inner` has its numbers."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnDevice":
        shape = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        tensor = Tensor._make_wrapper_subclass(cls, inner.size(), device=DEVICE, **shape)
        tensor.inner = inner
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        raise AssertionError(f"{function} outside of a PretendedDevice")

    def __repr__(self) -> str:
        return f"OnDevice({self.inner})"


class _ByWayOfTheHost(TorchFunctionMode):
    """What torch does for every device by way of the host, but not for "meta"."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.tensor and kwargs.get("device") == DEVICE:
            return torch.tensor(*args, **{**kwargs, "device": None}).to(DEVICE)
        if function in (Tensor.tolist, Tensor.numpy) and isinstance(args[0], OnDevice):
            return function(args[0].detach().cpu())
        return function(*args, **kwargs)


class PretendedDevice(TorchDispatchMode):
    """Within it `DEVICE` is a device that computes. As on a GPU, its tensors and those of the host do not meet, but for single
    numbers and indices; and the host waits for it where it asks for a number, a shape or a copy.

    Attributes:
        waits: how often the host has waited, by operation and place ("file:line" in the repository, or else in a package).
    """

    def __init__(self):
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._by_way_of_the_host = _ByWayOfTheHost()

    def __enter__(self) -> "PretendedDevice":
        self._by_way_of_the_host.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._by_way_of_the_host.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, operation = dict(kwargs or {}), function.overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        wrappers = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, OnDevice)}
        there = bool(wrappers)
        if operation is aten._fused_sdp_choice:
            return 0  # products and a softmax, which every device knows
        if there and self._waits(operation, args, kwargs, tensors):
            self.waits[operation.__name__, _place()] += 1
        if kwargs.get("device") is not None:
            there = kwargs["device"] == DEVICE
            if there and tensors and not wrappers and not kwargs.get("non_blocking"):
                self.waits["copy to the device", _place()] += 1
            kwargs["device"] = torch.device("cpu")
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        result = function(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if operation is aten.copy_:
            return args[0]
        if not there:
            return result

        def wrapped(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return wrappers[id(leaf)] if id(leaf) in wrappers else OnDevice(leaf)  # what is changed in place stays the same

        return tree_map(wrapped, result)

    def _waits(self, operation: Any, args: tuple, kwargs: dict, tensors: list[Tensor]) -> bool:
        """Whether a GPU's host would wait, where some of the tensors lie on the device."""
        if operation is aten._to_copy:
            return kwargs.get("device") not in (None, DEVICE)
        apart = [tensor for tensor in tensors if not isinstance(tensor, OnDevice) and tensor.dim()]
        if operation is aten.copy_:
            return bool(apart) and not (isinstance(args[0], OnDevice) and (args[2:] or kwargs.get("non_blocking")))
        if operation in INDEXING:
            assert isinstance(args[0], OnDevice), f"{operation}: a tensor of the host with indices of the device at {_place()}"
            indices = [index for index in args[1] if index is not None]
            masks = [index for index in indices if index.dtype == torch.bool]
            filled = operation is not aten.index and len(indices) == 1 and args[2].numel() == 1
            return bool(masks and not filled) or any(not isinstance(index, OnDevice) for index in indices)
        assert not apart, f"{operation}: tensors of the host and of the device at {_place()}"
        return operation in WAITS


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, OnDevice) else leaf


def _place() -> str:
    """The innermost line of the repository that is at work, or else that of a package other than torch."""
    frame, found = sys._getframe(1), ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests"):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        if not found and path != Path(__file__) and "torch" not in path.parts:
            found = f"{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return found


@contextmanager
def trained_on(arguments: TrainingArguments) -> Iterator[PretendedDevice]:
    """Within it trainers with these arguments lie on the pretended device."""
    before = arguments.device
    AcceleratorState._reset_state()
    PartialState._shared_state["device"] = vars(arguments)["_setup_devices"] = DEVICE
    try:
        with PretendedDevice() as device:
            yield device
    finally:
        AcceleratorState._reset_state()
        PartialState._shared_state["device"] = before
