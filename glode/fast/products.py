"""A processor switch for products of matrices."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def faster_products() -> Iterator[None]:
    """Within it oneDNN multiplies matrices, in fp32, on an AMD processor with AVX-512, where MKL takes a tenth longer.

    torch asks oneDNN only where that may compute in bf16 as well. It does so on processors with AMX alone, and not on these.
    """
    matmul: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009 - torch's types do not know it
    processor: Mapping[str, Any] = torch.cpu.get_capabilities()
    before = matmul.fp32_precision
    amd = processor.get("cpu_name", "").startswith("AMD") and not torch.cuda.is_available()
    if amd and processor.get("avx512_bw") and not processor.get("amx_tile"):
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
