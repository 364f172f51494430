"""Refusals of biases that are functions of content, and of what is added to values."""

import jax.numpy as jnp
from refusals import COUNT, FLAG, IDS, INT, KEY, KEYS, POSITIVE, QUERY, B, D, F, N, P, Q, S, T, X, good

import posembed_jax as pe

OUTSIDE = "; it needs to be one of 'clip', 'zero'"

SHAW = good(pe.ShawBias, heads=N, dim=D, left=2, right=2)

SIZE = ", the heads and the size of each that the settings say"

XL = good(pe.TransformerXLBias, heads=N, dim=D, sinusoid=pe.Sinusoidal(features=F))

DEBERTA = good(pe.DeBERTaBias, heads=N, dim=D, max_distance=9)

DECOMPOSED = good(pe.DecomposedBias, heads=N, dim=D, shape=(2, 3))

LOGITS = good(pe.RelativeLogits, heads=N, features=2, extent=3)

GATED = good(pe.GatedBias, bias=pe.ALiBi(heads=N), features=N * D)

COPE = good(pe.CoPE, heads=N, dim=D, length=3)

AT = {"query_positions": P, "key_positions": Q}


BOXES = jnp.ones((B, S, 4))

GRID = {"query_positions": jnp.zeros((T, 2), jnp.int32), "key_positions": pe.positions.grid((1, S)), "key": KEYS}


def bound(scheme, **arguments):
    return good(scheme.bind(pe.init(scheme, KEY)), **{**AT, **arguments})


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
    (bound(SHAW(), key=KEYS), "query", QUERY[..., 1:], AssertionError, f"; it needs to be [..., {N}, {D}]" + SIZE),
    (
        bound(SHAW_VALUES()),
        "weights",
        jnp.ones((N + 1, T, S)),
        AssertionError,
        f"; it needs to be [..., {N}, T, S]",
    ),
    (
        bound(SHAW(), query=QUERY, key=KEYS),
        "query_positions",
        Q,
        AssertionError,
        "; it needs to be int32 [3] or [B, 3]",
    ),
    (bound(SHAW(), query=QUERY, key=KEYS), "key_positions", P, AssertionError, "; it needs to be int32 [5] or [B, 5]"),
    (bound(SHAW(), query=QUERY, key=KEYS), "query_positions", P[:1], AssertionError, "[B, 3], as query and key have"),
    (
        bound(SHAW_VALUES(), weights=jnp.ones((N, T, S))),
        "key_positions",
        P,
        AssertionError,
        "; it needs to be int32 [5] or [B, 5], as weights have them",
    ),
    *(
        (bound(boxes, **more), "query", jnp.ones((B, T, 5)), AssertionError, "; it needs to be boxes [..., 4]")
        for boxes, more in ((pe.BoxRelationBias(heads=N), {"key": BOXES}), (pe.BoxRPB(heads=N, shape=(1, S)), GRID))
    ),
    (bound(pe.BoxRelationBias(heads=N), query=BOXES[:, :T]), "key", BOXES[..., :3], AssertionError, "boxes [..., 4]"),
    (XL, "heads", 0, ValueError, INT),
    (XL, "dim", 0, ValueError, INT),
    (XL, "sinusoid", pe.ALiBi(heads=N), TypeError, "; it needs to be a Sinusoidal(features=...)", ""),
    (XL, "sinusoid", pe.Sinusoidal(features=7), ValueError, "; its features need to be even: a sine and a cosine"),
    *(
        (
            XL,
            "sinusoid",
            pe.Sinusoidal(features=F, **setting),
            ValueError,
            "; it is of int32 distances ... leave out axes",
        )
        for setting in ({"axes": 1}, {"fractional": True, "scale": 3.0}, {"learned_amplitude": True})
    ),
    (XL, "biases", 1, ValueError, FLAG),
    (XL, "max_distance", 0, ValueError, INT),
    (XL, "scale", 0.0, ValueError, POSITIVE),
    (XL, "stddev", 0.0, ValueError, POSITIVE),
    (bound(XL(), key=KEYS), "query", QUERY[:, :, 1:], AssertionError, f"; it needs to be [..., {N}, {D}]" + SIZE),
    (
        bound(XL(), query=QUERY),
        "key",
        jnp.ones((B, S, 3, D)),
        ValueError,
        f", with 3 heads; they need to divide the {N} of the scheme",
    ),
    (DEBERTA, "heads", 0, ValueError, INT),
    (DEBERTA, "dim", 0, ValueError, INT),
    (DEBERTA, "max_distance", 0, ValueError, INT),
    (DEBERTA, "stddev", 0.0, ValueError, POSITIVE),
    (DEBERTA, "buckets", 3, ValueError, "; it needs to be a Python int of at least 4"),
    (good(DEBERTA, buckets=8), "max_distance", 5, ValueError, "; with buckets=8 it needs to be more than 5, or leave"),
    *(
        (DEBERTA, "kinds", kinds, ValueError, "; it needs to be a tuple of 'c2p', 'p2c' or both")
        for kinds in ((), ["c2p"], ("c2p", "c2p"), ("p2p",), "c2p")
    ),
    (bound(DEBERTA(), query=QUERY), "key", KEYS[..., 1:], AssertionError, f"; it needs to be [..., {N}, {D}]", ""),
    (DECOMPOSED, "heads", 0, ValueError, INT),
    (DECOMPOSED, "dim", 0, ValueError, INT),
    (DECOMPOSED, "shape", [2, 3], ValueError, "; it needs to be a tuple of sizes, such as (height, width)"),
    (DECOMPOSED, "shared", 1, ValueError, FLAG),
    (DECOMPOSED, "scale", 0.0, ValueError, POSITIVE),
    (DECOMPOSED, "stddev", 0.0, ValueError, POSITIVE),
    (
        good(
            DECOMPOSED().bind(pe.init(DECOMPOSED(), KEY)),
            query=QUERY[:, :1],
            key=KEYS[:, :2],
            query_positions=jnp.zeros((1, 2), jnp.int32),
        ),
        "key_positions",
        jnp.array([[1, 2], [0, 3]]),
        ValueError,
        "query_positions - key_positions goes from -3 to -2 along axis 1, but the table is of the offsets within "
        "(2, 3): correct the positions, or resize the table",
        "",
    ),
    (LOGITS, "heads", 0, ValueError, INT),
    (LOGITS, "features", 0, ValueError, INT),
    (LOGITS, "extent", 0, ValueError, INT),
    (LOGITS, "stddev", 0.0, ValueError, POSITIVE),
    (GATED, "bias", pe.Sinusoidal(features=F), TypeError, "; it needs to be a Bias such as T5Bias(...)", ""),
    (GATED, "features", 0, ValueError, INT),
    (GATED, "features", 7, ValueError, f"; it needs to be a multiple of the {N} heads of bias"),
    (
        bound(GATED(), key=KEYS),
        "query",
        X[..., 1:],
        AssertionError,
        f"; it needs to be hidden states [..., {N * D}]",
    ),
    (good(pe.ForgettingGate), "heads", 0, ValueError, INT),
    *(
        (
            bound(pe.ForgettingGate(heads=N), **{other: jnp.ones((1, T + S - size, N, 2))}),
            name,
            jnp.ones((1, size, N, 3)),
            AssertionError,
            f"; it needs to be [..., {N}, 2], from `cumulative_gates`",
        )
        for name, other, size in (("query", "key", T), ("key", "query", S))
    ),
    (pe.cumulative_gates, "log_gates", jnp.ones(3), AssertionError, "; it needs to be floating [S, N] or [B, S, N]"),
    (pe.cumulative_gates, "log_gates", IDS, AssertionError, "; it needs to be floating [S, N] or [B, S, N]"),
    (
        bound(COPE(), key=KEYS, mask=None),
        "query",
        QUERY[..., 1:],
        AssertionError,
        f"; it needs to be [..., {N}, {D}]",
        "",
    ),
    (COPE, "heads", 0, ValueError, INT),
    (COPE, "dim", 0, ValueError, INT),
    (COPE, "length", 0, ValueError, INT),
    (COPE, "scale", 0.0, ValueError, POSITIVE),
    (COPE, "stddev", 0.0, ValueError, POSITIVE),
]
