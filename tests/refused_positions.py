"""Refusals of positions, masks, patches and tokens."""

import jax.numpy as jnp
from refusals import (
    BOOLS,
    CAST,
    CENTERS,
    COUNT,
    DRAWS,
    FLAG,
    FLOATS,
    GRIDS,
    IDS,
    INT,
    KEY,
    LEARNED,
    MIXED,
    MODES,
    NARROW,
    NO_ARRAY,
    POSITIONS,
    POSITIVE,
    ROTARY,
    ROTATE,
    TABLE,
    TYPES,
    WIDE,
    B,
    F,
    N,
    P,
    Q,
    S,
    T,
    V,
    X,
    good,
)

import posembed_jax as pe
from posembed_jax import masks, mrope, positions, vision

TIMES = good(mrope.timestamps, times=jnp.ones((B, T)), seconds=0.5, count=8)

GRID, WINDOWS = good(vision.merged_grid, shape=(2, 2)), good(vision.windows, shape=(1, 2, 2), size=1)

AUGMENTED = good(vision.augmented, centers=CENTERS, draws=DRAWS)

TAPS = good(vision.table_taps, shape=(2, 2), side=3)

CHANNELS = pe.Axes(axis=(0, 1, 0, 1), index=(0, 1, 0, 1), count=2)
OF_CHANNELS = pe.RoPE(dim=4, layout="half", axes=CHANNELS).bind({})

POSE = good(positions.pose, key=KEY, length=T, max_length=9)

TYPED = good(mrope.positions, token_types=TYPES, image_grids=GRIDS, video_grids=jnp.array([[3, 2, 2]]), merge=2)

TIMED = good(TYPED, tokens_per_second=2)

SOUNDING = good(TYPED, sound=True)

XDROPE = good(mrope.xdrope_positions, token_types=jnp.ones(6, jnp.int32), image_grids=jnp.array([[1, 4, 4]]), merge=2)

CANVAS_IDS = ("image_start_id", "image_end_id", "slice_start_id", "slice_end_id", "newline_id")
CANVAS = good(
    mrope.canvas_positions,
    tokens=jnp.array([[1, 7, 2, 3, 7, 4]] * B),
    token_types=jnp.array([[0, 1, 0, 0, 1, 0]] * B),
    merge=2,
    image_start_id=1,
    image_end_id=2,
    slice_start_id=3,
    slice_end_id=4,
    newline_id=5,
    image_grids=jnp.array([[[2, 2], [2, 3]]] * B),
)

DRAWN = good(mrope.drawn_positions, grids=jnp.array([[1, 2, 2]]), start=0, length=4)

IMAGES_OF_ROWS = good(mrope.positions, token_types=jnp.minimum(TYPES, 1), merge=2)

NEIGHBOURS = good(masks.neighbourhood, shape=(5, 6), size=3)

WINDOW = good(masks.window, query_positions=P, key_positions=Q)

RANGES = good(masks.causal, query_positions=P, key_positions=Q)

ROWS = [
    # Patches and times.
    (GRID, "shape", (4,), ValueError, "; it needs to be (height, width) or (frames, height, width)"),
    (GRID, "shape", (0, 2), ValueError, "shape[0] is 0; it needs to be a Python int of at least 1", ""),
    (GRID, "merge", 0, ValueError, INT),
    (GRID, "merge", 3, ValueError, "its height and width need to be multiples of merge, 3", ""),
    (WINDOWS, "shape", (2, 2), ValueError, "; it needs to be (frames, height, width)"),
    (WINDOWS, "shape", (1, 2, 0), ValueError, "shape[2] is 0; it needs to be a Python int of at least 1", ""),
    (WINDOWS, "size", 0, ValueError, INT),
    (AUGMENTED, "centers", DRAWS, AssertionError, "float32 [T, A]"),
    (AUGMENTED, "centers", jnp.zeros((3, 2), jnp.int32), AssertionError, "float32 [T, A]"),
    (AUGMENTED, "draws", DRAWS[:4], AssertionError, "float32 [2 A + 1]"),
    (AUGMENTED, "draws", jnp.zeros(5, jnp.int32), AssertionError, "float32 [2 A + 1]"),
    (AUGMENTED, "jitter", 0.5, ValueError, "; it needs to be a finite Python number of at least 1.0"),
    (AUGMENTED, "shift", float("inf"), ValueError, "; it needs to be a finite Python number of at least 0.0"),
    (AUGMENTED, "rescale", True, ValueError, "; it needs to be a finite Python number of at least 1.0"),
    (good(vision.nearest_rows, shape=(2, 2)), "side", 0, ValueError, INT),
    (good(vision.nearest_rows, shape=(2, 2), side=3), "reciprocal", 1, ValueError, FLAG),
    (TAPS, "side", 0, ValueError, INT),
    (TAPS, "method", "nearest", ValueError, "; it needs to be one of 'bilinear', 'bicubic'"),
    (TAPS, "padding", "reflect", ValueError, "; it needs to be one of 'border', 'zeros'"),
    (TAPS, "align_corners", 1, ValueError, FLAG),
    (good(vision.lengths), "shapes", [(2, 2)], ValueError, "shapes[0] is (2, 2); it needs to be (frames, height,", ""),
    (TIMES, "times", FLOATS, AssertionError, "float32 [B, T]"),
    (TIMES, "times", IDS, AssertionError, "float32 [B, T]"),
    (TIMES, "seconds", 0.0, ValueError, POSITIVE),
    (TIMES, "count", 0, ValueError, INT),
    (MIXED, "fractional", 1, ValueError, FLAG),
    (ROTATE, "tables", "rows", ValueError, "; it needs to be one of 'pairs', 'channels'"),
    (ROTATE, "blocks", 0, ValueError, INT),
    (ROTATE, "blocks", 3, ValueError, "the 8 channels that turn need to be so many runs of whole pairs"),
    (ROTARY, "clockwise", 1, ValueError, FLAG),
    (ROTARY, "blocks", 0, ValueError, INT),
    (ROTARY, "blocks", 3, ValueError, "needs to be so many runs of whole pairs"),
    (
        good(OF_CHANNELS, x=jnp.ones((T, N, 4)), positions=jnp.ones((T, 2), jnp.int32)),
        "inverse",
        True,
        ValueError,
        "but axes has an angle for each channel",
    ),
    # Tokens.
    (good(pe.embed, ids=IDS), "table", TABLE[0], AssertionError, "; it needs to be a floating table [V, F]"),
    (
        good(pe.embed, ids=IDS),
        "table",
        TABLE.astype(jnp.int8),
        AssertionError,
        "; it needs to be a floating table [V, F]",
    ),
    (good(pe.embed, ids=IDS), "table", [[1.0]], TypeError, "a floating table [V, F]" + NO_ARRAY),
    (good(pe.embed, table=TABLE), "ids", FLOATS, TypeError, "int32 token ids" + NARROW),
    (good(pe.embed, table=TABLE), "ids", WIDE, TypeError, "int32 token ids" + CAST),
    (good(pe.embed, table=TABLE), "ids", jnp.array([2**31], jnp.uint32), TypeError, "int32 token ids" + CAST),
    (
        good(pe.embed, table=TABLE),
        "ids",
        IDS + V,
        ValueError,
        "ids go from 7 to 7, but ... rows 0 to 6: correct them",
        "",
    ),
    (good(pe.embed, table=TABLE), "ids", IDS - 1, ValueError, "ids go from -1 to -1 ... pass out_of_range='clip'", ""),
    (good(pe.embed, table=TABLE, ids=IDS), "out_of_range", "nan", ValueError, MODES),
    *(
        (function, name, dtype, ValueError, "; it needs to be a floating dtype such as jnp.bfloat16")
        for function, name, dtype in (
            (good(pe.embed, table=TABLE, ids=IDS), "dtype", jnp.int32),
            (good(pe.embed, table=TABLE, ids=IDS, scale=2.0), "scale_dtype", jnp.int32),
            (good(pe.logits, table=TABLE, x=TABLE), "dtype", "half-ish"),
            (good(pe.init, scheme=LEARNED, key=KEY), "dtype", jnp.int32),
            (good(pe.KVCache.empty, batch=1, capacity=2, heads=1, dim=2), "dtype", bool),
        )
    ),
    *(
        row
        for function in (good(pe.embed, table=TABLE, ids=IDS), good(pe.logits, table=TABLE, x=TABLE))
        for row in (
            (function, "scale", "2", ValueError, POSITIVE),
            (function, "scale", True, ValueError, POSITIVE),
            (function, "scale", float("nan"), ValueError, POSITIVE),
            (
                function,
                "scale",
                jnp.ones((4, 1, 1)),
                ValueError,
                "; it needs to be a Python number or a floating array",
            ),
            (function, "scale", jnp.int32(2), ValueError, "; it needs to be a Python number or a floating array"),
        )
    ),
    (good(pe.logits, x=X), "table", TABLE[0], AssertionError, "; it needs to be a floating table [V, F]"),
    (good(pe.logits, x=X), "table", TABLE > 0, AssertionError, "; it needs to be a floating table [V, F]"),
    (
        good(pe.logits, table=TABLE),
        "x",
        X,
        AssertionError,
        "floating [..., F] with the F of the table ... float32[7, 6]",
    ),
    (good(pe.logits, table=TABLE), "x", IDS[:, :1] + jnp.zeros((1, F), jnp.int32), AssertionError, "floating [..., F]"),
    (good(pe.logits, table=TABLE), "x", [1.0] * F, TypeError, "floating [..., F] with the F of the table" + NO_ARRAY),
    # Positions.
    (good(positions.arange), "length", jnp.int32(4), ValueError, "length is Array(4, dtype=int32)" + COUNT, ""),
    (good(positions.arange), "length", -1, ValueError, COUNT),
    (good(positions.arange, length=T), "offset", 2.0, TypeError, "an int, an int32 scalar or int32 [B]" + NO_ARRAY),
    (good(positions.arange, length=T), "offset", FLOATS, TypeError, "an int, an int32 scalar or int32 [B]" + NARROW),
    (good(positions.arange, length=T), "offset", IDS, AssertionError, "an int, an int32 scalar or int32 [B]"),
    (
        good(positions.arange, length=T),
        "offset",
        2**31 - T + 1,
        ValueError,
        "offset 2147483646 + length 3 passes the last int32 position, 2147483647: start lower",
        "",
    ),
    (good(positions.from_segment_ids), "segment_ids", FLOATS, TypeError, "segment ids [..., T], 0 = padding" + NARROW),
    (good(positions.from_segment_ids), "segment_ids", BOOLS, TypeError, "segment ids [..., T], 0 = padding" + NARROW),
    (good(positions.from_segment_ids), "segment_ids", P[0], AssertionError, "segment ids [..., T], 0 = padding"),
    (
        good(positions.from_mask),
        "mask",
        FLOATS,
        AssertionError,
        "boolean [..., T]: True = attend; `mask > 0` makes one",
    ),
    (good(positions.from_mask), "mask", BOOLS[0], AssertionError, "boolean [..., T]"),
    (good(positions.from_mask), "mask", [True], TypeError, "boolean [..., T]" + NO_ARRAY),
    (
        good(positions.from_mask, mask=BOOLS),
        "padding_position",
        0.5,
        ValueError,
        "a Python int of at least -2147483648",
    ),
    (good(positions.cache_overflows, lengths=P, new=1), "capacity", 0, ValueError, INT),
    (good(positions.cache_overflows, new=1, capacity=4), "lengths", FLOATS, TypeError, "int32 cache lengths" + NARROW),
    (good(positions.cache_overflows, lengths=P, capacity=4), "new", FLOATS, TypeError, "int32 counts of new" + NARROW),
    (
        good(positions.check_cache, lengths=P, capacity=4),
        "new",
        S,
        ValueError,
        "5 new tokens do not fit: the cache holds 2 of at most 4 tokens; make it longer, or drop old tokens first",
        "",
    ),
    (good(positions.grid), "shape", [2, 3], ValueError, "a tuple of sizes, such as (height, width)"),
    (good(positions.grid), "shape", (), ValueError, "a tuple of sizes, such as (height, width)"),
    (good(positions.grid), "shape", (2, 0), ValueError, "shape[1] is 0" + INT, ""),
    (
        good(positions.cache_overflows, lengths=P, capacity=4),
        "new",
        Q,
        AssertionError,
        "int32 counts as lengths, int32[3]",
    ),
    (
        good(positions.from_mask, mask=BOOLS),
        "padding_position",
        2**31,
        ValueError,
        "; it needs to be an int32, at most",
    ),
    *(
        (function, "max_length", 2**31, ValueError, "; it needs to be at most 2147483647: positions are int32")
        for function in (POSE, good(positions.randomized, key=KEY, length=T))
    ),
    (good(positions.randomized, key=KEY, max_length=9), "length", 0, ValueError, INT),
    (good(positions.randomized, key=KEY, length=T), "max_length", 9.0, ValueError, INT),
    (
        good(positions.randomized, key=KEY, max_length=9),
        "length",
        10,
        ValueError,
        "at most max_length, 9: ... not repeat",
    ),
    (POSE, "length", 0, ValueError, INT),
    (POSE, "max_length", "9", ValueError, INT),
    (POSE, "chunks", 0, ValueError, INT),
    (POSE, "length", 10, ValueError, "at most max_length, 9: ... not repeat"),
    (POSE, "chunks", 4, ValueError, "at most length, 3: no chunk is empty"),
    (good(positions.zigzag, shards=2), "length", 0, ValueError, INT),
    (good(positions.zigzag, length=8), "shards", 2.0, ValueError, INT),
    (good(positions.zigzag, shards=2), "length", 6, ValueError, "a multiple of 2 * shards = 4: pad the sequence"),
    (good(positions.inverse_order), "order", FLOATS, TypeError, "an int32 permutation [T]" + NARROW),
    (good(positions.inverse_order), "order", IDS, AssertionError, "an int32 permutation [T]"),
    (good(positions.inverse_order), "order", P + 1, ValueError, "each of 0 ... 2 once: make it with zigzag"),
    (TYPED, "token_types", FLOATS, TypeError, "int32 token types [T] or [B, T]: 0 = text" + NARROW),
    (TYPED, "token_types", TYPES[None], AssertionError, "int32 token types [T] or [B, T]: 0 = text"),
    (TYPED, "merge", 0, ValueError, INT),
    (TYPED, "time_merge", 1.5, ValueError, INT),
    (TYPED, "split_frames", 1, ValueError, FLAG),
    (TYPED, "seconds_first", 1, ValueError, FLAG),
    (TYPED, "sound", 1, ValueError, FLAG),
    (TYPED, "fractional", 1, ValueError, FLAG),
    (TYPED, "paired_marks", 1, ValueError, FLAG),
    (TYPED, "paired_marks", True, ValueError, "; it needs sound=True, whose marks it is of: pass both or neither"),
    (SOUNDING, "split_frames", True, ValueError, "sound is True; it needs to be False with split_frames=True", ""),
    (XDROPE, "merge", 0, ValueError, INT),
    (XDROPE, "axes", 2, ValueError, "at least 3"),
    (XDROPE, "token_types", FLOATS, TypeError, "int32 token types [T] or [B, T]: 0 = text" + NARROW),
    (XDROPE, "token_types", TYPES[None], AssertionError, "int32 token types [T] or [B, T]: 0 = text"),
    (XDROPE, "token_types", jnp.ones(7, jnp.int32), ValueError, "image_grids is of 8 image tokens ... of 7", ""),
    (CANVAS, "tokens", FLOATS, TypeError, "int32 token ids [T] or [B, T]" + NARROW),
    (CANVAS, "tokens", TYPES[None], AssertionError, "int32 token ids [T] or [B, T]"),
    (
        CANVAS,
        "token_types",
        FLOATS,
        TypeError,
        "int32 token types of the shape of tokens, which is int32[2, 6]" + NARROW,
    ),
    (CANVAS, "token_types", IDS, AssertionError, "int32 token types of the shape of tokens, which is int32[2, 6]"),
    (CANVAS, "segment_ids", IDS, AssertionError, "of the shape of token_types, which is int32[2, 6]"),
    (CANVAS, "merge", 0, ValueError, INT),
    *((CANVAS, name, None, ValueError, "; it needs to be a Python int of at least 0") for name in CANVAS_IDS),
    (CANVAS, "image_grids", GRIDS, AssertionError, "int32 (height, width) [n, 2], or [B, n, 2]"),
    (CANVAS, "image_grids", -GRIDS[:, 1:], ValueError, "image_grids has -4; it needs numbers of at least 0", ""),
    (CANVAS, "image_grids", GRIDS[:1, 1:], ValueError, "image_grids is of 1 crops; it needs to be of 4, as many", ""),
    (CANVAS, "video_grids", jnp.array([[2, 2]]), ValueError, "video_grids is of 1 crops; it needs to be of 0, as", ""),
    (
        CANVAS,
        "image_grids",
        jnp.array([[[2, 2], [0, 0]]] * B),
        ValueError,
        "image_grids is of [1 1] crops; it needs to be of [2 2], as many as token_types has runs of 1 that are not "
        "padding: pass the size of every crop, slices too",
        "",
    ),
    (
        CANVAS,
        "image_grids",
        jnp.array([[[2, 2], [2, 4]]] * B),
        ValueError,
        "image_grids has a crop of 1 by 2 tokens after merging; it needs to be of 1, as many as its run of 1 in "
        "token_types: check merge, and that no row was cut short",
        "",
    ),
    *(
        (
            CANVAS,
            "segment_ids",
            jnp.array([ids] * B),
            ValueError,
            "token_types has a run of 1 right at the start of a document or behind another run; it needs to have a 0 "
            "before each, for <image> or <slice>: pass the sequence with its markers",
            "",
        )
        for ids in ([1, 2, 2, 2, 2, 2], [1, 1, 0, 0, 2, 2])
    ),
    (DRAWN, "grids", FLOATS, TypeError, "int32 (time, height, width) in tokens, [n, 3] or [B, n, 3]" + NARROW),
    (DRAWN, "grids", P, AssertionError, "int32 (time, height, width) in tokens, [n, 3] or [B, n, 3]"),
    (DRAWN, "grids", GRIDS[:, 1:], AssertionError, "int32 (time, height, width) in tokens, [n, 3] or [B, n, 3]"),
    (DRAWN, "start", FLOATS, TypeError, "int32 []: where decoding begins" + NARROW),
    (DRAWN, "start", P, AssertionError, "int32 []: where decoding begins"),
    (DRAWN, "length", 0, ValueError, INT),
    (TYPED, "after", "max", ValueError, "; it needs to be one of 'side', 'largest'"),
    (TYPED, "segment_ids", FLOATS, TypeError, "of the shape of token_types, which is int32[2, 4]" + NARROW),
    (TYPED, "segment_ids", IDS, AssertionError, "of the shape of token_types, which is int32[2, 4]"),
    (TYPED, "image_grids", FLOATS, TypeError, "int32 (time, height, width) [n, 3], or [B, n, 3]" + NARROW),
    (TYPED, "image_grids", P, AssertionError, "int32 (time, height, width) [n, 3], or [B, n, 3]"),
    (TYPED, "image_grids", GRIDS[:, 1:], AssertionError, "int32 (time, height, width) [n, 3], or [B, n, 3]"),
    (TYPED, "video_grids", GRIDS[:1, None], AssertionError, "int32 (time, height, width) [n, 3], or [B, n, 3]"),
    (TYPED, "image_grids", -GRIDS, ValueError, "image_grids has -4; it needs numbers of at least 0: rows of 0", ""),
    (
        TYPED,
        "image_grids",
        GRIDS[:1],
        ValueError,
        "image_grids is of 2 image tokens after merging; it needs to be of 3, as many as token_types has of 1 "
        "that are not padding: check merge, and that no row was cut short",
        "",
    ),
    (
        TYPED,
        "segment_ids",
        TYPES + 1 - jnp.array([[0, 2, 2, 0], [0, 0, 0, 0]]),
        ValueError,
        "image_grids is of 3 image tokens after merging; it needs to be of 1,",
        "",
    ),
    (TYPED, "video_grids", None, ValueError, "video_grids is of 0 video tokens after merging; it needs ... of 3", ""),
    (
        IMAGES_OF_ROWS,
        "image_grids",
        jnp.array([[[1, 2, 4]], [[1, 4, 2]]]),
        ValueError,
        "image_grids[1] is of 2 image tokens after merging; it needs to be of 4",
        "",
    ),
    (
        TYPED,
        "image_grids",
        GRIDS[::-1],
        ValueError,
        "token_types has something else between the tokens of one image; it needs to have the tokens of each of "
        "image_grids side by side in one document: where text stands between frames, pass split_frames=True",
        "",
    ),
    (
        TYPED,
        "segment_ids",
        jnp.array([[1, 2, 3, 3], [1, 1, 1, 1]]),
        ValueError,
        "token_types has something else between the tokens of one image",
        "",
    ),
    (TIMED, "tokens_per_second", 0, ValueError, POSITIVE),
    (TIMED, "split_frames", True, ValueError, "tokens_per_second is 2; ... be None with split_frames=True", ""),
    (TYPED, "seconds_per_grid", FLOATS[:1], ValueError, "; it needs tokens_per_second, which the configuration"),
    (TIMED, "seconds_per_grid", P[:1], AssertionError, "floating [1], one number for each of video_grids"),
    (TIMED, "seconds_per_grid", FLOATS, AssertionError, "floating [1], one number for each of video_grids"),
    (TIMED, "seconds_per_grid", -FLOATS[:1], ValueError, "a number that is negative or not finite; ... correct the"),
    (TIMED, "seconds_per_grid", FLOATS[:1] / 0, ValueError, "a number that is negative or not finite; ... correct the"),
    # Masks.
    (RANGES, "query_positions", FLOATS, TypeError, POSITIONS + NARROW),
    (RANGES, "key_positions", P[0], AssertionError, POSITIONS),
    (WINDOW, "size", -1, ValueError, "left size of the window is -1" + COUNT, ""),
    (WINDOW, "size", (1, 0.5), ValueError, "right size of the window is 0.5" + COUNT, ""),
    (WINDOW, "size", [1, 0], ValueError, "left size of the window is [1, 0]" + COUNT, ""),
    (
        good(masks.segment, key_segment_ids=Q),
        "query_segment_ids",
        FLOATS,
        TypeError,
        "segment ids [T] or [B, T]" + NARROW,
    ),
    (
        good(masks.segment, query_segment_ids=P),
        "key_segment_ids",
        FLOATS,
        TypeError,
        "segment ids [S] or [B, S]" + NARROW,
    ),
    (good(masks.segment, key_segment_ids=Q), "query_segment_ids", P[0], AssertionError, "segment ids [T] or [B, T]"),
    (
        good(masks.segment, query_segment_ids=P),
        "key_segment_ids",
        IDS,
        AssertionError,
        "batched as query_segment_ids is",
    ),
    (
        good(masks.padding),
        "key_mask",
        FLOATS,
        AssertionError,
        "boolean [S] or [B, S]: True = attend; `mask > 0` makes one",
    ),
    (NEIGHBOURS, "shape", [5, 6], ValueError, "; it needs to be a tuple of sizes"),
    (NEIGHBOURS, "size", 4, ValueError, "; it needs to be odd: a token stands in the middle"),
    (NEIGHBOURS, "size", 0, ValueError, INT),
    (NEIGHBOURS, "dilation", 0, ValueError, INT),
    (NEIGHBOURS, "dilation", 2, ValueError, "; each of its sizes needs to be at least size * dilation, 6", ""),
    (good(masks.padding), "key_mask", BOOLS[0], AssertionError, "boolean [S] or [B, S]"),
]
