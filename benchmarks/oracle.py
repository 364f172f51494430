"""The true cos and sin of position x frequency, for the benchmarks to measure errors against.

A frequency is computed with twice as many bits as are kept, its product with the position is a Python integer
of any length, and the only rounding is the last one: of the angle within one turn, to float64.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np

BITS = 192


def frequencies(dim: int, base: float) -> list[int]:
    """`base ** (-2 i / dim) / (2 pi)` turns per position, `dim // 2` integers in units of 2^-192 turn."""
    with mpmath.workprec(2 * BITS):
        turns = [mpmath.mpf(base) ** (mpmath.mpf(-2 * i) / dim) / (2 * mpmath.pi) for i in range(dim // 2)]
        return [int(mpmath.nint(t * 2**BITS)) for t in turns]


def cos_sin(positions: np.ndarray, frequencies: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """float64 `[positions, frequencies]` each."""
    exact_positions = np.array(positions.tolist(), dtype=object)[:, None]
    turns = (exact_positions * np.array(frequencies, dtype=object)) % 2**BITS
    angles = (turns >> (BITS - 64)).astype(np.float64) * (2 * math.pi / 2**64)
    return np.cos(angles), np.sin(angles)
