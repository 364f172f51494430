"""Refusals of relative biases."""

from refusals import COUNT, FLAG, INT, POSITIVE, N, good

import posembed_jax as pe

KERPLE = good(pe.KERPLE, heads=N)

CLIPPED = good(pe.ClippedBias, heads=N, left=2, right=2)

ROWS = [
    (KERPLE, "heads", 0, ValueError, INT),
    (KERPLE, "kind", "exponential", ValueError, "; it needs to be one of 'log', 'power'"),
    (CLIPPED, "heads", 0, ValueError, INT),
    (CLIPPED, "left", -1, ValueError, COUNT),
    (CLIPPED, "right", 1.0, ValueError, COUNT),
    (CLIPPED, "symmetric", 1, ValueError, FLAG),
    (CLIPPED, "stddev", 0.0, ValueError, POSITIVE),
    (
        good(pe.ClippedBias, heads=N, left=2, symmetric=True),
        "right",
        1,
        ValueError,
        "; with symmetric=True it needs to be left, 2",
    ),
]
