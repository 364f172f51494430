"""Refusals of what is added to the embedding, and of resizing its tables."""

import jax.numpy as jnp
from refusals import COUNT, FLAG, INT, KEY, MODES, POSITIVE, good

import posembed_jax as pe

SIZES = "; it needs to be a tuple of sizes, such as (height, width)"
GRID, FLAT = jnp.ones((2, 3, 4)), jnp.ones((7, 4))

MATRIX = good(pe.resize_matrix, old=4, new=6)
RESIZE = good(pe.resize_table, table=FLAT, old=(2, 3), new=(4, 6), before=1)
OFFSETS = good(pe.resize_bias_table, table=jnp.ones((2, 9)), old=(2, 2), new=(3, 3))
SAMPLE = good(pe.sample_table, table=GRID, coordinates=jnp.zeros((5, 2)))
SHAPES = good(pe.resize_to_shapes, table=GRID, shapes=jnp.array([[1, 2], [2, 2]]), length=4)

CONVOLUTION = good(pe.conv_positions, x=jnp.ones((1, 5, 4)), kernel=jnp.ones((3, 2, 4)))
NORMED = good(pe.weight_norm, direction=jnp.ones((3, 2, 4)), gain=jnp.ones(3))
KERNEL = "; it needs to be floating [*K, F / groups, F] of 1 axes and F = 4"
TILES = good(pe.TilePositions, arrangements=2, tiles=3, patches=4, features=5)
IN_TILES = TILES().bind(pe.init(TILES(), KEY))
HASHED = good(pe.embed_hashed, tables=GRID, ids=jnp.arange(3))
SINUSOIDAL = good(pe.Sinusoidal, features=8)
TABLES = good(pe.AxialPositions, shape=(2, 3), features=8, join="concatenate")
FOURIER = good(pe.FourierFeatures, features=8)
MASK = good(pe.vision.mask_coordinates, mask=jnp.ones((1, 2, 3), bool))
PIXELS = "; it needs to be boolean [B, height, width], True = a real pixel"

ROWS = [
    (CONVOLUTION, "x", jnp.ones((5, 4)), AssertionError, "; it needs to be floating [B, *sizes, F]"),
    (CONVOLUTION, "x", jnp.ones((1, 5, 4), jnp.int32), AssertionError, "; it needs to be floating [B, *sizes, F]"),
    (CONVOLUTION, "kernel", jnp.ones((2, 4)), AssertionError, KERNEL),
    (CONVOLUTION, "kernel", jnp.ones((3, 2, 4), jnp.int32), AssertionError, KERNEL),
    (CONVOLUTION, "kernel", jnp.ones((3, 3, 4)), ValueError, KERNEL + ": a divisor of F before the last"),
    (CONVOLUTION, "bias", jnp.ones(3), AssertionError, "; it needs to be floating [F], with F = 4"),
    (CONVOLUTION, "bias", jnp.ones(4, jnp.int32), AssertionError, "; it needs to be floating [F], with F = 4"),
    (CONVOLUTION, "stride", 0, ValueError, INT),
    (CONVOLUTION, "normalize", 1, ValueError, FLAG),
    (NORMED, "direction", FLAT, AssertionError, "; it needs to be floating [K, F / groups, F]"),
    (
        NORMED,
        "direction",
        jnp.ones((3, 2, 4), jnp.int32),
        AssertionError,
        "; it needs to be floating [K, F / groups, F]",
    ),
    (NORMED, "gain", jnp.ones(2), AssertionError, "; it needs to be floating [K], as direction has it"),
    (NORMED, "gain", jnp.ones(3, jnp.int32), AssertionError, "; it needs to be floating [K], as direction has it"),
    *((TILES, name, 0, ValueError, INT) for name in ("arrangements", "tiles", "patches", "features")),
    (TILES, "shared", 1, ValueError, "; it needs to be True or False"),
    (TILES, "stddev", 0.0, ValueError, POSITIVE),
    (
        IN_TILES,
        "positions",
        jnp.array([[0, 3, 1]]),
        ValueError,
        "(arrangement, tile, patch), of [2, 3, 4], as numbers of rows go from -1 to -1, but the table has rows 0 to 23",
        "",
    ),
    (HASHED, "tables", FLAT, AssertionError, "; it needs to be a floating [H, V, F / H]"),
    (HASHED, "tables", GRID.astype(jnp.int32), AssertionError, "; it needs to be a floating [H, V, F / H]"),
    (HASHED, "tables", jnp.ones((17, 2, 1)), ValueError, "; it needs at most 16 tables of at most 9629971 rows"),
    (HASHED, "ids", jnp.ones(3), TypeError, "; it needs to be int32 ids, such as code points"),
    (HASHED, "ids", jnp.array([3, -1]), ValueError, "ids has -1; it needs to be at least 0 everywhere", ""),
    (SINUSOIDAL, "axes", 0, ValueError, INT),
    (SINUSOIDAL, "axes", 3, ValueError, "features is 8; it needs to be a multiple of axes, 3", ""),
    (good(SINUSOIDAL, axes=2), "order", (1,), ValueError, "; it needs to be a tuple of each of the 2 axes once"),
    (good(SINUSOIDAL, axes=2), "order", [1, 0], ValueError, "; it needs to be a tuple of each of the 2 axes once"),
    (SINUSOIDAL, "order", (0,), ValueError, "; it needs to be a tuple of each of the 0 axes once"),
    (SINUSOIDAL, "scale", 0.0, ValueError, POSITIVE),
    (SINUSOIDAL, "learned_amplitude", 1, ValueError, FLAG),
    (TABLES, "shape", [2, 3], ValueError, SIZES),
    (TABLES, "features", 0, ValueError, INT),
    (TABLES, "features", 7, ValueError, "; it needs to be a multiple of the 2 axes: pass channels="),
    (TABLES, "join", "sum", ValueError, "; it needs to be one of 'concatenate', 'add'"),
    (TABLES, "channels", [4, 4], ValueError, SIZES),
    (TABLES, "channels", (4, 5), ValueError, "; with join='concatenate' it needs one for each of the tables of (2, 3)"),
    (TABLES, "channels", (8,), ValueError, "; with join='concatenate' it needs one for each of the tables of (2, 3)"),
    (good(TABLES, join="add"), "channels", (4, 4), ValueError, "and with 'add' None"),
    (TABLES, "order", (0, 0), ValueError, "; it needs to be a tuple of each of the 2 axes once"),
    (
        good(SINUSOIDAL, axes=2),
        "order",
        (True, False),
        ValueError,
        "; it needs to be a tuple of each of the 2 axes once",
    ),
    (TABLES, "order", ("a", 1), ValueError, "; it needs to be a tuple of each of the 2 axes once"),
    (TABLES, "tables", (0.0, 1.0), ValueError, "; it needs to name each of 2 tables: 0, 1, ..."),
    (
        OFFSETS,
        "table",
        jnp.ones((9, 2)),
        AssertionError,
        "; it needs to be a floating table [heads, 9 offsets + 0 extra]",
    ),
    (OFFSETS, "extra", -1, ValueError, COUNT),
    (CONVOLUTION, "activation", "gelu", TypeError, "; it needs to be a function such as jax.nn.gelu, or None"),
    (TABLES, "tables", (0, 2), ValueError, "; it needs to name each of 2 tables: 0, 1, ..."),
    (TABLES, "tables", [0, 1], ValueError, "; it needs to name each of 2 tables: 0, 1, ..."),
    (TABLES, "stddev", 0.0, ValueError, POSITIVE),
    (TABLES, "out_of_range", "wrap", ValueError, MODES),
    (
        TABLES().bind({"table_0": jnp.ones((2, 4)), "table_1": jnp.ones((3, 4))}),
        "positions",
        jnp.array([[0, 3]]),
        ValueError,
        "positions[..., 1] go from 3 to 3, but the table has rows 0 to 2",
        "",
    ),
    (FOURIER, "features", 0, ValueError, INT),
    (FOURIER, "features", 7, ValueError, "; it needs to be even: a sine and a cosine a frequency"),
    (FOURIER, "axes", 0, ValueError, INT),
    (FOURIER, "stddev", 0.0, ValueError, POSITIVE),
    (FOURIER, "layout", "half", ValueError, "; it needs to be one of 'sin_cos', 'cos_sin', 'interleaved'"),
    (MASK, "mask", jnp.ones((1, 2, 3)), AssertionError, PIXELS),
    (MASK, "mask", jnp.ones((2, 3), bool), AssertionError, PIXELS),
    (MASK, "normalize", 1, ValueError, FLAG),
    (MASK, "scale", 0.0, ValueError, POSITIVE),
    (MASK, "offset", -0.5, ValueError, "; it needs normalize=True: counts are whole numbers"),
    (good(pe.positions.unravel, numbers=jnp.arange(3)), "shape", 3, ValueError, SIZES),
    (good(pe.positions.unravel, shape=(2, 3)), "numbers", jnp.ones(3), TypeError, "; it needs to be int32 [...]"),
    (MATRIX, "old", 0, ValueError, INT),
    (MATRIX, "new", 2.0, ValueError, INT),
    (MATRIX, "method", "lanczos", ValueError, "; it needs to be one of 'bicubic', 'bilinear', 'nearest'"),
    (MATRIX, "antialias", 1, ValueError, FLAG),
    (MATRIX, "align_corners", 1, ValueError, FLAG),
    (MATRIX, "scale_factor", 0.0, ValueError, POSITIVE),
    (MATRIX, "scale_factor", 2.0, ValueError, "floor(old scale_factor) is 8, and new is 6"),
    (good(MATRIX, method="nearest"), "antialias", True, ValueError, "; it needs to be False with method='nearest'"),
    (good(MATRIX, method="nearest"), "align_corners", True, ValueError, "; it needs to be False with method='nearest'"),
    (RESIZE, "before", -1, ValueError, COUNT),
    (RESIZE, "after", 0.5, ValueError, COUNT),
    (RESIZE, "old", [2, 3], ValueError, SIZES),
    (RESIZE, "new", 6, ValueError, SIZES),
    (RESIZE, "new", (6,), ValueError, "; it needs as many sizes as old, (2, 3)"),
    (RESIZE, "new", (8, 2), ValueError, "; it needs to be at least old, (2, 3), along every axis: pass shrink=True"),
    (RESIZE, "shrink", 1, ValueError, FLAG),
    (RESIZE, "scale_factor", 2.0, ValueError, "; it needs to be a tuple of one number for each of (2, 3)"),
    (RESIZE, "scale_factor", (2.0,), ValueError, "; it needs to be a tuple of one number for each of (2, 3)"),
    (RESIZE, "table", FLAT[None], AssertionError, "; it needs to be a floating table [T, F] of 1 + the product of"),
    (RESIZE, "table", FLAT.astype(jnp.int32), AssertionError, "; it needs to be a floating table [T, F] of 1 + the"),
    (
        RESIZE,
        "table",
        FLAT[1:],
        AssertionError,
        "; it needs to be a floating table [T, F] of 1 + the product of (2, 3)",
    ),
    (OFFSETS, "old", 2, ValueError, SIZES),
    (OFFSETS, "new", (), ValueError, SIZES),
    (OFFSETS, "new", (1, 3), ValueError, "new is (1, 5); it needs to be at least old, (3, 3)", ""),
    (OFFSETS, "table", FLAT[0], AssertionError, "; it needs to be a floating table [heads, 9 offsets + 0 extra]"),
    (SAMPLE, "method", "nearest", ValueError, "; it needs to be one of 'bicubic', 'bilinear'"),
    (SAMPLE, "padding", "reflect", ValueError, "; it needs to be one of 'border', 'zeros'"),
    (SAMPLE, "table", FLAT[0], AssertionError, "; it needs to be a floating table [*sizes, F]"),
    (SAMPLE, "table", GRID.astype(jnp.int32), AssertionError, "; it needs to be a floating table [*sizes, F]"),
    (SAMPLE, "coordinates", jnp.float32(0.5), AssertionError, "; it needs to be float32 coordinates [..., 2]"),
    (SAMPLE, "coordinates", jnp.zeros((5, 3)), AssertionError, "; it needs to be float32 coordinates [..., 2]"),
    (
        SAMPLE,
        "coordinates",
        jnp.zeros((5, 2), jnp.bfloat16),
        TypeError,
        "; it needs to be float32 ... merge neighbours",
    ),
    (SAMPLE, "coordinates", jnp.zeros((5, 2), int), AssertionError, "; it needs to be float32 coordinates [..., 2]"),
    (SHAPES, "method", "nearest", ValueError, "; it needs to be one of 'bicubic', 'bilinear'"),
    (SHAPES, "antialias", 1, ValueError, FLAG),
    (SHAPES, "padding", "border", ValueError, "; it needs to be one of 'zeros', 'first'"),
    (SHAPES, "length", 0, ValueError, INT),
    (SHAPES, "shapes", jnp.ones((2, 2)), TypeError, "; it needs to be int32 [B, 2], a size for each axis of table"),
    (
        SHAPES,
        "shapes",
        jnp.ones(2, int),
        AssertionError,
        "; it needs to be int32 [B, 2], a size for each axis of table",
    ),
    (SHAPES, "shapes", jnp.ones((1, 3), int), AssertionError, "; it needs to be int32 [B, 2], a size for each axis"),
    (SHAPES, "shapes", jnp.array([[2, 3]]), ValueError, "shapes is [[2, 3]]; it needs sizes of at least 1 whose", ""),
    (SHAPES, "shapes", jnp.array([[2, 0]]), ValueError, "shapes is [[2, 0]]; it needs sizes of at least 1 whose", ""),
]
