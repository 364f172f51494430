"""Refusals of biases that are functions of content, and of what is added to values."""

import jax.numpy as jnp
from refusals import COUNT, FLAG, INT, POSITIVE, QUERY, D, K, N, P, Q, S, T, good

import posembed_jax as pe

OUTSIDE = "; it needs to be one of 'clip', 'zero'"

SHAW = good(pe.ShawBias, heads=N, dim=D, left=2, right=2)

SHAW_VALUES = good(pe.ShawValues, heads=N, dim=D, left=2, right=2)

ROWS = [
    *(
        row
        for scheme in (SHAW, SHAW_VALUES)
        for row in (
            (scheme, "heads", 0, ValueError, INT),
            (scheme, "dim", 0, ValueError, INT),
            (scheme, "left", -1, ValueError, COUNT),
            (scheme, "right", -1, ValueError, COUNT),
            (scheme, "outside", "nearest", ValueError, OUTSIDE),
            (scheme, "shared", 1, ValueError, FLAG),
            (scheme, "stddev", 0.0, ValueError, POSITIVE),
        )
    ),
    (SHAW, "scale", 0.0, ValueError, POSITIVE),
    (
        good(SHAW().bind({"table": jnp.zeros((1, 5, D))}), key=jnp.ones((S, K, D)), query_positions=P, key_positions=Q),
        "query",
        QUERY[0, ..., 1:],
        AssertionError,
        f"; it needs to be [..., {N}, {D}], the heads and the dim of the settings",
    ),
    (
        good(SHAW_VALUES().bind({"table": jnp.zeros((1, 5, D))}), query_positions=P, key_positions=Q),
        "weights",
        jnp.ones((N + 1, T, S)),
        AssertionError,
        f"; it needs to be [..., {N}, T, S]",
    ),
]
