"""Protects the faster products: they are as exact, and asked for only where they are."""

import pytest
import torch

from glode.fast.products import faster_products

AMD = {"cpu_name": "AMD EPYC 9R14", "avx512_bw": True, "amx_tile": False}


def test_faster_products_are_in_full_precision():
    """On this processor, whichever it is; bf16 would err by a hundredth."""
    rows, weights = torch.randn(1100, 384), torch.randn(1536, 384)
    gradients = torch.randn(1100, 1536)
    pairs = [(rows, weights.T), (gradients, weights), (gradients.T, rows)]
    with faster_products():
        products = [first @ second for first, second in pairs]
    for (first, second), product in zip(pairs, products, strict=True):
        exact = first.double() @ second.double()
        assert ((product - exact).norm() / exact.norm()).item() < 1e-6


@pytest.mark.parametrize(
    "processor, allowed",
    [
        (AMD, True),
        (AMD | {"amx_tile": True}, False),
        (AMD | {"avx512_bw": False}, False),
        (AMD | {"cpu_name": "Intel(R) Xeon(R)"}, False),
        ({}, False),
    ],
)
def test_onednn_is_asked_where_it_stays_in_full_precision(processor: dict, allowed: bool, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with pytest.raises(KeyboardInterrupt), faster_products():
        assert matmul.fp32_precision == ("bf16" if allowed else before)
        raise KeyboardInterrupt
    assert matmul.fp32_precision == before
