"""Random numbers that follow from what they are for, not from who draws them or when: the same in any number of processes."""

from torch import Tensor


def uniform(keys: Tensor, *salts: int) -> Tensor:
    """A number in [0, 1) for each integer key, float64: the finaliser of splitmix64, once for each salt."""
    for salt in salts:
        keys = keys + _signed(salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            keys = (keys ^ (keys >> shift & (1 << 64 - shift) - 1)) * _signed(factor)
        keys = keys ^ (keys >> 31 & (1 << 33) - 1)
    return (keys >> 11 & (1 << 53) - 1).double() / 2**53


def _signed(number: int) -> int:
    """A 64-bit number as int64 has it."""
    return (number + 2**63) % 2**64 - 2**63
