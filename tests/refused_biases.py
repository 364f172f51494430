"""Refusals of relative biases."""

import jax.numpy as jnp
from refusals import COUNT, FLAG, INT, KEY, POSITIVE, N, good

import posembed_jax as pe

KERPLE = good(pe.KERPLE, heads=N)

SANDWICH = good(pe.Sandwich, heads=N)

FIRE = good(pe.FIRE, heads=N)

DYNAMIC = good(pe.DynamicPositionBias, heads=N, hidden=2)

CLIPPED = good(pe.ClippedBias, heads=N, left=2, right=2)

SWIN_V2 = good(pe.SwinV2Bias, heads=N, window=(2, 3))

AXES = good(pe.AxisBias)

SIZES = "; it needs to be a tuple of sizes, such as (height, width)"

NEAR, FAR = jnp.zeros((1, 2), jnp.int32), jnp.array([[1, 0], [2, 5]])

PIXELS = good(pe.BoxRPB, heads=N, shape=(2, 5))

ON_PIXELS = PIXELS(hidden=2).bind(pe.init(PIXELS(hidden=2), KEY))

RELATION = good(pe.BoxRelationBias, heads=N)

ROWS = [
    (KERPLE, "heads", 0, ValueError, INT),
    (KERPLE, "kind", "exponential", ValueError, "; it needs to be one of 'log', 'power'"),
    (FIRE, "heads", 0, ValueError, INT),
    (FIRE, "hidden", 0, ValueError, INT),
    (FIRE, "c", 0.0, ValueError, POSITIVE),
    (FIRE, "length", -1.0, ValueError, POSITIVE),
    (DYNAMIC, "heads", 0, ValueError, INT),
    (DYNAMIC, "hidden", 0, ValueError, INT),
    (DYNAMIC, "axes", 0, ValueError, INT),
    (SANDWICH, "heads", 0, ValueError, INT),
    (SANDWICH, "features", 0, ValueError, INT),
    (SANDWICH, "features", 7, ValueError, "; it needs to be even: a sine and a cosine a frequency"),
    (SANDWICH, "base", 1.0, ValueError, "; it needs to be a finite Python number above 1"),
    (good(pe.ALiBi.falcon, heads=N), "head_dim", 0, ValueError, INT),
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
    (good(pe.SwinBias, heads=N, window=(2, 3)), "outside", "nan", ValueError, "; it needs to be one of"),
    *(
        row
        for scheme, size in ((pe.SwinBias, "window"), (pe.LeViTBias, "shape"), (pe.BEiTBias, "shape"))
        for row in (
            (good(scheme, **{size: (2, 3)}), "heads", 0, ValueError, INT),
            (good(scheme, heads=N), size, [2, 3], ValueError, SIZES),
            (good(scheme, heads=N), size, (), ValueError, SIZES),
            (good(scheme, heads=N), size, (2, 0), ValueError, f"{size}[1] is 0" + INT, ""),
            (good(scheme, heads=N, **{size: (2, 3)}), "stddev", 0.0, ValueError, POSITIVE),
        )
    ),
    (SWIN_V2, "heads", 0, ValueError, INT),
    (SWIN_V2, "window", 2, ValueError, SIZES),
    (SWIN_V2, "hidden", 0, ValueError, INT),
    (SWIN_V2, "pretrained_window", (0, 0), ValueError, "pretrained_window[0] is 0; ... a Python int of at least 2", ""),
    (SWIN_V2, "pretrained_window", (2, 2, 2), ValueError, "; it needs as many sizes as (2, 3)"),
    (
        good(pe.LeViTBias(heads=1, shape=(2, 6)).bind({"table": jnp.zeros((1, 12))}), query_positions=NEAR),
        "key_positions",
        FAR,
        ValueError,
        "key_positions - query_positions goes from [1, 0] to [2, 5], but the table is of the offsets within (2, 6): "
        "correct the positions, or make the table larger",
        "",
    ),
    (AXES, "biases", [pe.ALiBi(heads=N)], ValueError, "; it needs to be a tuple of a DistanceBias for each axis"),
    (AXES, "biases", (), ValueError, "; it needs to be a tuple of a DistanceBias for each axis"),
    (AXES, "biases", (pe.BEiTBias(heads=N, shape=(2, 3)),), TypeError, "biases[0] is ... such as T5Bias(...)", ""),
    (
        AXES,
        "biases",
        (pe.ALiBi(heads=N), pe.ALiBi(heads=3)),
        ValueError,
        f"biases[1] has 3 heads; it needs {N}, as the first",
        "",
    ),
    (PIXELS, "heads", 0, ValueError, INT),
    (PIXELS, "shape", 4, ValueError, SIZES),
    (PIXELS, "shape", (2, 3, 4), ValueError, "; it needs to be (height, width)"),
    (PIXELS, "hidden", 0, ValueError, INT),
    (
        good(ON_PIXELS, query=jnp.ones((1, 4)), key=jnp.ones((2, 1, 1)), query_positions=NEAR),
        "key_positions",
        FAR,
        ValueError,
        "key_positions go from 0 to 5 along an axis of shape of 5 pixels; they need to be positions.grid(shape)",
        "",
    ),
    (RELATION, "heads", 0, ValueError, INT),
    (RELATION, "features", 0, ValueError, INT),
    (RELATION, "features", 3, ValueError, "; it needs to be even: a sine and a cosine a frequency"),
    (RELATION, "base", 1.0, ValueError, "; it needs to be a finite Python number above 1"),
    (RELATION, "scale", 0.0, ValueError, POSITIVE),
    (RELATION, "denominator", 0, ValueError, POSITIVE),
    (RELATION, "relu", "yes", ValueError, FLAG),
]
