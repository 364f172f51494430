"""The numbers that `attention.py` gives to every candidate: the same ones in every environment. NumPy alone."""

from __future__ import annotations

import math

import numpy as np

HEADS, WIDTH = 8, 64
BIASES = ("t5", "alibi", "kerple", "fire")
T5_BUCKETS, T5_MAX_DISTANCE = 32, 128
FIRE_HIDDEN = 32


def heads(length: int) -> dict[str, np.ndarray]:
    """query, key, value and the cotangent of the output, float32 `[1, length, HEADS, WIDTH]` each."""
    names = ("query", "key", "value", "cotangent")
    drawn = np.random.default_rng(0).normal(size=(len(names), 1, length, HEADS, WIDTH)).astype(np.float32)
    return dict(zip(names, drawn, strict=True))


def learned(bias: str) -> dict[str, np.ndarray]:
    """The learned arrays of a bias, float32; ALiBi has none. FIRE's MLP has no last bias: softmax ignores it."""
    generator = np.random.default_rng(1)
    normal, uniform = generator.normal, generator.uniform
    arrays = {
        "t5": lambda: {"table": normal(size=(HEADS, T5_BUCKETS))},
        "alibi": lambda: {},
        "kerple": lambda: {"strength": uniform(0.5, 2.0, HEADS), "rate": uniform(0.1, 1.0, HEADS)},
        "fire": lambda: {
            "rate": np.array(0.1),
            "threshold": np.array(512.0),
            "first": normal(size=FIRE_HIDDEN),
            "first_bias": normal(size=FIRE_HIDDEN),
            "last": normal(size=(HEADS, FIRE_HIDDEN)) / math.sqrt(FIRE_HIDDEN),
        },
    }[bias]()
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def alibi_slopes() -> np.ndarray:
    """float32 `[HEADS]`, HEADS being a power of two."""
    return (2.0 ** (-8.0 * np.arange(1, HEADS + 1) / HEADS)).astype(np.float32)
