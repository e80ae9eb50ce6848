"""Stored vectors, of which a search sees every one."""

import faiss
import numpy as np
import torch
from torch import Tensor


class ExactIndex:
    """A flat FAISS index by inner product: on this process' GPU where FAISS has been built for one, else on the CPU.

    Args:
        vectors: [stored, D].
    """

    def __init__(self, vectors: Tensor):
        index: faiss.Index = faiss.IndexFlatIP(vectors.shape[1])
        self.on_gpu = torch.cuda.is_available() and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        if self.on_gpu:
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), torch.cuda.current_device(), index)
        self._index = index
        self._index.add(on_host(vectors))

    def __len__(self) -> int:
        return self._index.ntotal

    def search(self, queries: Tensor, neighbors: int) -> Tensor:
        """The numbers of the nearest stored vectors: [queries, D] -> [queries, neighbors], on the CPU."""
        return torch.from_numpy(self._index.search(on_host(queries), neighbors)[1])


def on_host(vectors: Tensor) -> np.ndarray:
    """Vectors as FAISS takes them."""
    return np.ascontiguousarray(vectors.float().numpy(force=True))
