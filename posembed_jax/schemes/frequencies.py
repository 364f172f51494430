"""Rotary and sinusoidal frequencies, exact, as host data: a tuple of `Decimal`, in radians per position.

A frequency is never an array: `schemes.phase` turns it into fixed point with integer arithmetic, so that
no compiler can re-derive, reassociate or round it.
"""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from decimal import Decimal, localcontext

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


def divided(frequencies: Frequencies, by: Sequence[float]) -> Frequencies:
    return tuple(CONTEXT.divide(f, Decimal(x)) for f, x in zip(frequencies, by, strict=True))


def stretched(frequencies: Frequencies, factor: Decimal) -> Frequencies:
    """The frequencies of base * factor ** (n / (n - 1)): the highest as it was, the lowest divided by factor."""
    steps = max(1, len(frequencies) - 1)
    with localcontext(CONTEXT):
        return tuple(f * factor ** (Decimal(-i) / steps) for i, f in enumerate(frequencies))


def partly_divided(frequencies: Frequencies, factor: float, shares: Sequence[Decimal]) -> Frequencies:
    """Each frequency as it was, at a share of 0 or less, up to divided by factor, at 1 or more."""
    with localcontext(CONTEXT):
        clipped = [min(max(share, Decimal(0)), Decimal(1)) for share in shares]
        mixed = zip(frequencies, clipped, strict=True)
        return tuple(f * (1 - share) + f / Decimal(factor) * share for f, share in mixed)
