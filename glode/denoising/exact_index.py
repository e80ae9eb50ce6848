"""Stored vectors, of which a search sees every one."""

import faiss
import numpy as np
import torch
from torch import Tensor


class ExactIndex:
    """A search by inner product: a flat FAISS index on the CPU, products and `topk` where the vectors lie on another device.

    Args:
        vectors: [stored, D].
    """

    products = 2**28  # of queries and stored vectors that are held at once on a device: a gigabyte

    def __init__(self, vectors: Tensor):
        self._vectors = vectors.float()
        self._index: faiss.Index | None = None
        if vectors.device.type == "cpu":
            self._index = faiss.IndexFlatIP(vectors.shape[1])
            self._index.add(on_host(vectors))

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Tensor, neighbors: int) -> Tensor:
        """The numbers of the nearest stored vectors: [queries, D] -> [queries, neighbors]."""
        if self._index is not None:
            return torch.from_numpy(self._index.search(on_host(queries), neighbors)[1])
        parts = queries.float().split(max(1, self.products // len(self)))
        return torch.cat([(part @ self._vectors.T).topk(neighbors, sorted=False).indices for part in parts])


def on_host(vectors: Tensor) -> np.ndarray:
    """Vectors as FAISS takes them."""
    return np.ascontiguousarray(vectors.float().numpy(force=True))
