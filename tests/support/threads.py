"""Several processes, as threads of one."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


class World:
    """Processes that gather from each other, as threads of this one."""

    def __init__(self, size: int):
        self.barrier, self.slots = threading.Barrier(size), [None] * size

    def gather(self, rank: int) -> Callable[[Tensor], Tensor]:
        def gather(tensor: Tensor) -> Tensor:
            self.slots[rank] = tensor
            self.barrier.wait(timeout=20)
            joined = torch.stack(self.slots)
            self.barrier.wait(timeout=20)
            return joined

        return gather

    def run(self, *processes: Callable[[], object]) -> list:
        with ThreadPoolExecutor(len(processes)) as pool:
            return [future.result() for future in [pool.submit(process) for process in processes]]
