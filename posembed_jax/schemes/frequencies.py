"""Rotary and sinusoidal frequencies, exact, as host data: a tuple of `Decimal`, in radians per position.

A frequency is never an array: `schemes.phase` turns it into fixed point with integer arithmetic, so that
no compiler can re-derive, reassociate or round it.
"""

from __future__ import annotations

import decimal
from decimal import Decimal

Frequencies = tuple[Decimal, ...]

# 64 bits of a turn times 31 bits of position need 29 decimal digits; the rest is head room for chained operations.
CONTEXT = decimal.Context(prec=50)


def geometric(count: int, base: float, denominator: float) -> Frequencies:
    """The frequencies `frequencies[i] = base ** (-i / denominator)` for i = 0 ... count - 1.

    RoPE over `dim` channels is `geometric(dim // 2, base, dim / 2)`.
    Source: https://arxiv.org/abs/1706.03762, section 3.5, and https://arxiv.org/abs/2104.09864, section 3.2.2.
    """
    if count == 0:
        return ()
    ratio = CONTEXT.exp(CONTEXT.divide(-CONTEXT.ln(Decimal(base)), Decimal(denominator)))
    frequencies = [Decimal(1)]
    while len(frequencies) < count:
        frequencies.append(CONTEXT.multiply(frequencies[-1], ratio))
    return tuple(frequencies)
