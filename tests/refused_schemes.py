"""Refusals of schemes: settings, learned arrays, calls."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from refusals import (
    ALIBI,
    BOOLS,
    CAST,
    COS,
    COUNT,
    DYNAMIC,
    FLAG,
    FLOATS,
    IDS,
    INT,
    KEY,
    KEYS,
    LEARNED,
    MIXED,
    MODES,
    NARROW,
    NO_ARRAY,
    POSITIONS,
    POSITIVE,
    QUERY,
    ROPE,
    ROTARY,
    ROTATE,
    SIN,
    TABLE,
    WIDE,
    B,
    D,
    F,
    N,
    P,
    Q,
    T,
    X,
    good,
)

import posembed_jax as pe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dot(pe.ContentBias):
    """The smallest ContentBias: the package has none yet, only the contract."""

    heads: int

    def pairs(self, arrays, query, key, query_positions, key_positions):
        return jnp.zeros((self.heads, query_positions.shape[-1], key_positions.shape[-1]))


ABOVE_ONE = "; it needs to be a finite Python number above 1"


def of_learned(table):
    return LEARNED.bind({"table": table})


def learned_at(**change):
    scheme = dataclasses.replace(LEARNED, **change)
    return good(scheme.bind(pe.init(scheme, KEY)), positions=P)


LEARN = good(pe.LearnedPositions, length=4, features=F)

SINUSOIDS = good(pe.Sinusoidal, features=F)

SINUSOIDS_AT = good(pe.Sinusoidal(features=F).bind({}))

TURN = good(ROPE.bind({}), x=QUERY, positions=P)

PAIRS = good(ALIBI, query_positions=P, key_positions=Q)

CONTENT = good(Dot(heads=N).bind({}), query=QUERY, key=KEYS, query_positions=P, key_positions=Q)

STEPPED = good(pe.SteppedTemperature, beta=0.1, length=2)

XPOS = good(pe.XPos, rope=ROPE, centre=0)

FOPE = good(pe.FoPE, dim=D, layout="half", length=100)

THREE_HEADS = MIXED(axes=1, key_value_heads=3).bind({"frequencies": jnp.ones((3, 1, D // 2))})

PLANE = pe.RoPE(dim=D, layout="half", axes=pe.Axes.blocks(axes=2, count=2)).bind({})

STRETCH = good(pe.LongRoPE, short_factor=(1.0,) * 4, long_factor=(2.0,) * 4, original_length=16)

LOUD = pe.LongRoPE(**STRETCH.keywords, long_attention_factor=2.0)


def amplitude_of(scaling):
    return pe.RoPE(dim=D, layout="half", scaling=scaling).amplitude()


YARN = good(pe.YaRN, factor=4.0, original_length=16)

LLAMA3 = good(pe.Llama3, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=16)

PERMUTE = good(pe.permute_layout, array=X, source="half", target="half")

ROWS = [
    # Settings of schemes.
    (LEARN, "length", 0, ValueError, INT),
    (LEARN, "length", True, ValueError, INT),
    (LEARN, "features", 6.0, ValueError, INT),
    (LEARN, "index_offset", -1, ValueError, COUNT),
    (LEARN, "stddev", 0.0, ValueError, POSITIVE),
    (LEARN, "out_of_range", "wrap", ValueError, MODES),
    (SINUSOIDS, "features", "6", ValueError, INT),
    (SINUSOIDS, "base", 1.0, ValueError, ABOVE_ONE),
    (SINUSOIDS, "layout", "half", ValueError, "one of 'sin_cos', 'cos_sin', 'interleaved'"),
    (SINUSOIDS, "denominator", "full", ValueError, "one of 'half', 'half_minus_1'"),
    (SINUSOIDS, "odd", "pad", ValueError, "one of 'truncate', 'zero'"),
    (SINUSOIDS, "phase", "bfloat16", ValueError, "one of 'exact', 'float32'"),
    (SINUSOIDS, "fractional", 1, ValueError, FLAG),
    (good(pe.Sinusoidal, features=F, denominator="half_minus_1"), "features", 3, ValueError, "at least 4"),
    (ROTARY, "dim", D + 1, ValueError, "; it needs to be even: channels turn in pairs"),
    (ROTARY, "dim", np.float32(8), ValueError, INT),
    (ROTARY, "layout", "neox", ValueError, "one of 'half', 'interleaved'"),
    (ROTARY, "layout", True, ValueError, "one of 'half', 'interleaved'"),
    (ROTARY, "base", float("inf"), ValueError, ABOVE_ONE),
    (ROTARY, "base", "10000", ValueError, ABOVE_ONE),
    (ROTARY, "rotated", "middle", ValueError, "one of 'first', 'last'"),
    (ROTARY, "phase", "fast", ValueError, "one of 'exact', 'float32'"),
    (ROTARY, "learned", "yes", ValueError, FLAG),
    (ROTARY, "fractional", None, ValueError, FLAG),
    (ROTARY, "scaling", 2.0, TypeError, "a Scaling such as YaRN(...)"),
    (
        ROTARY,
        "scaling",
        pe.LongRoPE(**STRETCH.keywords | {"long_factor": (2.0,) * 3}),
        ValueError,
        "long_factor needs 4 numbers, dim / 2",
    ),
    (STRETCH, "long_attention_factor", 0.0, ValueError, POSITIVE),
    (good(amplitude_of), "scaling", LOUD, ValueError, "length is None; LongRoPE depends on the length", ""),
    (good(pe.RoPE, dim=D, layout="half", scaling=DYNAMIC.scaling), "length", 0, ValueError, INT),
    (ROTARY, "length", 8, ValueError, "does not depend on it"),
    (good(ROPE.bind, params={}), "length", 8, ValueError, "a scaling that depends on the length"),
    (good(DYNAMIC.bind, params={}), "length", None, ValueError, "pass length= to bind or cos_sin"),
    (good(DYNAMIC.bind, params={}), "length", IDS, AssertionError, "int32 [] or [B]"),
    (good(DYNAMIC.bind, params={}), "length", jnp.float32(8), TypeError, "int32 [] or [B]"),
    (good(DYNAMIC.bind, params={}), "length", 8.0, ValueError, INT),
    (good(DYNAMIC.cos_sin, length=P), "positions", IDS, AssertionError, f"[B, T] with the B of length, which is [{T}]"),
    (ROTARY, "axes", (0, 1), TypeError, "such as `Axes.sections((16, 24, 24))`"),
    (ROTARY, "axes", pe.Axes.blocks(axes=2, count=3), ValueError, "which turns 6 pairs; it needs 4"),
    (good(pe.Axes, axis=(0, 1), index=(0, 1)), "count", 0, ValueError, INT),
    (good(pe.Axes, index=(0, 1), count=2), "axis", (0, 2), ValueError, "a tuple of ints in 0 ... 1"),
    (good(pe.Axes, axis=(0, 1), count=2), "index", [0, 1], ValueError, "a tuple of ints in 0 ... 1"),
    (good(pe.Axes, axis=(0, 1), count=2), "index", (0,), ValueError, "one int for each of axis, 2"),
    (good(PLANE, x=QUERY), "positions", P, AssertionError, "int32 positions [T, 2] or [B, T, 2]"),
    (good(PLANE, x=QUERY), "positions", jnp.zeros((T, 3), jnp.int32), AssertionError, "[T, 2] or [B, T, 2]"),
    (good(PLANE, x=QUERY), "positions", jnp.zeros((T + 1, 2), jnp.int32), AssertionError, "as x, which is"),
    (XPOS, "rope", None, TypeError, "RoPE(...)"),
    (XPOS, "rope", pe.RoPE(dim=D, layout="half", fractional=True), ValueError, "without axes and fractional"),
    (XPOS, "rope", pe.RoPE(dim=D, layout="half", blocks=2), ValueError, "without blocks, and without a scaling that"),
    (
        XPOS,
        "rope",
        DYNAMIC,
        ValueError,
        "; it needs to be without blocks, and without a scaling that depends on the length",
    ),
    (XPOS, "centre", 0.5, ValueError, COUNT),
    (XPOS, "scale_base", 0, ValueError, POSITIVE),
    (XPOS, "gamma", 0.0, ValueError, POSITIVE),
    (XPOS, "side", "value", ValueError, "one of 'query', 'key'"),
    (
        good(pe.XPos(rope=ROPE, centre=100, scale_base=1.0).bind({}), x=QUERY),
        "positions",
        P + 66,
        ValueError,
        "positions go from 66 to 68, but xPos with centre 100 reaches from 67 to 133: move the centre",
        "",
    ),
    (FOPE, "dim", 0, ValueError, INT),
    (FOPE, "dim", 7, ValueError, "; it needs to be even: channels turn in pairs"),
    (FOPE, "layout", "neox", ValueError, "one of 'half', 'interleaved'"),
    (FOPE, "length", 6, ValueError, "at least 7"),
    (FOPE, "base", 1.0, ValueError, ABOVE_ONE),
    (FOPE, "key_value_heads", 0, ValueError, INT),
    (FOPE, "pairs", 0, ValueError, INT),
    (FOPE, "pairs", 5, ValueError, "; it needs to be at most dim / 2, 4"),
    (FOPE, "pad_sin_with_one", 1, ValueError, FLAG),
    (FOPE, "gain", 0.0, ValueError, POSITIVE),
    (MIXED, "dim", 8.0, ValueError, INT),
    (MIXED, "dim", 10, ValueError, "; it needs to be a multiple of 2 * axes, 4"),
    (MIXED, "layout", "neox", ValueError, "one of 'half', 'interleaved'"),
    (MIXED, "axes", 0, ValueError, INT),
    (MIXED, "key_value_heads", -1, ValueError, INT),
    (MIXED, "base", 1, ValueError, ABOVE_ONE),
    (
        good(THREE_HEADS, positions=P),
        "x",
        QUERY,
        ValueError,
        ", with 4 heads; it needs a multiple of 3, the key_value_heads",
    ),
    (good(STEPPED()), "positions", FLOATS, TypeError, "int32 positions [...]" + NARROW),
    (STEPPED, "beta", 0.0, ValueError, POSITIVE),
    (STEPPED, "length", 0.5, ValueError, INT),
    (STEPPED, "offset", 2, ValueError, "; it needs to be 0 (Ministral 3) or 1 (Llama 4)"),
    (good(pe.LogTemperature(length=4)), "positions", FLOATS, TypeError, "int32 positions [...]" + NARROW),
    (good(pe.LogTemperature), "length", 1, ValueError, "at least 2"),
    (good(pe.yarn_softmax_scale, factor=4.0, mscale_all_dim=1.0), "dim", 0, ValueError, INT),
    (good(pe.yarn_softmax_scale, dim=D, mscale_all_dim=1.0), "factor", -1.0, ValueError, POSITIVE),
    (good(pe.yarn_softmax_scale, dim=D, factor=4.0), "mscale_all_dim", -1.0, ValueError, POSITIVE),
    (good(pe.Linear), "factor", 0, ValueError, POSITIVE),
    (good(pe.NTK), "factor", "2", ValueError, POSITIVE),
    (good(pe.yarn_mscale, weight=1.0), "factor", "4", ValueError, POSITIVE),
    (good(pe.yarn_mscale, factor=4.0), "weight", -1.0, ValueError, POSITIVE),
    (good(pe.longrope_factor, original_length=16), "factor", math.inf, ValueError, POSITIVE),
    (good(pe.longrope_factor, factor=4.0), "original_length", 1, ValueError, "a Python int of at least 2"),
    (good(pe.DynamicNTK, original_length=16), "factor", 0.0, ValueError, POSITIVE),
    (good(pe.DynamicNTK, factor=2.0), "original_length", 16.0, ValueError, INT),
    (YARN, "factor", None, ValueError, POSITIVE),
    (YARN, "original_length", 0, ValueError, INT),
    (YARN, "beta_slow", 0.0, ValueError, POSITIVE),
    (YARN, "beta_fast", "32", ValueError, POSITIVE),
    (YARN, "beta_fast", 0.5, ValueError, "at least beta_slow, 1.0"),
    (YARN, "truncate", 1, ValueError, FLAG),
    (YARN, "mscale", "1", ValueError, POSITIVE),
    (YARN, "mscale", 0.7, ValueError, "; it needs to be both without attention_factor, or neither"),
    (
        good(YARN, mscale=0.7, attention_factor=1.5),
        "mscale_all_dim",
        0.7,
        ValueError,
        "mscale is 0.7 and mscale_all_dim 0.7 beside attention_factor 1.5; it needs to be both without",
        "",
    ),
    (
        good(pe.RoPE, dim=D, layout="half", fractional=True),
        "scaling",
        pe.Linear(factor=0.1),
        ValueError,
        "fractional is True, but a frequency is 10.00; with phase 'exact' it needs to be at most pi",
        "",
    ),
    (
        good(pe.RoPE, dim=D, layout="half"),
        "scaling",
        pe.Proportional(fraction=0.05),
        ValueError,
        "fraction is 0.05; of 4 frequencies it needs to leave at least one",
        "",
    ),
    (good(pe.RoPE, layout="half"), "dim", np.int64(8), ValueError, INT),
    (good(pe.RoPE, dim=D, layout="half"), "base", np.float32(1e4), ValueError, ABOVE_ONE),
    *(
        (make, "sizes", sizes, ValueError, "; it needs to be a number of pairs for each axis, such as (16, 24, 24)")
        for make in (good(pe.Axes.sections), good(pe.Axes.interleaved))
        for sizes in ((2, -1, 3), (), (1.5, 2.5))
    ),
    (
        good(DYNAMIC.bind({}, length=jnp.array([8, 9])), positions=P),
        "x",
        jnp.ones((T, N, D)),
        AssertionError,
        "floating [B, T, N, D] with the B of length, which is [2]",
    ),
    (STRETCH, "short_factor", [1.0] * 4, ValueError, "a tuple of dim / 2 finite numbers above 0"),
    (STRETCH, "long_factor", (2.0, 2.0, 2.0, 0.0), ValueError, "a tuple of dim / 2 finite numbers above 0"),
    (STRETCH, "long_factor", (2.0, 2.0, 2.0, float("inf")), ValueError, "a tuple of dim / 2 finite numbers above 0"),
    (STRETCH, "attention_factor", -1.0, ValueError, POSITIVE),
    (LLAMA3, "factor", 0.0, ValueError, POSITIVE),
    (LLAMA3, "low_freq_factor", 0.0, ValueError, POSITIVE),
    (LLAMA3, "high_freq_factor", 0.0, ValueError, POSITIVE),
    (LLAMA3, "high_freq_factor", 0.5, ValueError, "at least low_freq_factor, 1.0"),
    (LLAMA3, "original_length", 0, ValueError, INT),
    (good(pe.Proportional), "fraction", 0.0, ValueError, POSITIVE),
    (good(pe.Proportional), "fraction", 1.5, ValueError, "; it needs to be a share of the frequencies, at most 1"),
    (good(pe.Proportional, fraction=0.5), "factor", 0.0, ValueError, POSITIVE),
    (good(pe.Resonance), "scaling", pe.DynamicNTK(factor=2.0, original_length=16), TypeError, "depends on no length"),
    (good(pe.Resonance), "scaling", 2.0, TypeError, "None or a Scaling that depends on no length"),
    (
        lambda scaling: pe.RoPE(dim=D, layout="half", scaling=scaling).frequencies(),
        "scaling",
        pe.Resonance(scaling=pe.Linear(factor=0.01)),
        ValueError,
        "less than half a position has no whole number",
    ),
    # Binding learned arrays.
    (LEARNED.bind, "params", {}, ValueError, "params is []; LearnedPositions needs ... ['table']: make it with", ""),
    (LEARNED.bind, "params", {"table": TABLE[:4], "x": P}, ValueError, "is ['table', 'x']; ... exactly the names", ""),
    (LEARNED.bind, "params", {"tabel": TABLE[:4]}, ValueError, "params is ['tabel']; ... ['table']: make it with", ""),
    (LEARNED.bind, "params", TABLE, ValueError, "params is float32[7, 6]; ... needs a dict ... posembed_jax.init", ""),
    (of_learned, "table", TABLE, AssertionError, "params['table'] is float32[7, 6]; ... floating [4, 6]", ""),
    (
        of_learned,
        "table",
        IDS[:1, :1] + jnp.zeros((4, F), jnp.int32),
        AssertionError,
        "is int32[4, 6]; ... floating",
        "",
    ),
    (of_learned, "table", [[0.0]], TypeError, "params['table'] is list ... floating [4, 6] as the settings", ""),
    # Calling bound schemes.
    (learned_at(), "positions", jnp.array([0, 4]), ValueError, "positions go from 0 to 4 ... rows 0 to 3: correct", ""),
    (
        learned_at(),
        "positions",
        jnp.array([-1, 2]),
        ValueError,
        "positions go from -1 to 2 ... out_of_range='clip'",
        "",
    ),
    (learned_at(index_offset=2), "positions", P - 3, ValueError, "positions + 2 (index_offset) go from -1 to 1", ""),
    (learned_at(), "positions", FLOATS, TypeError, POSITIONS + NARROW),
    (learned_at(), "positions", FLOATS.astype(jnp.bfloat16), TypeError, POSITIONS + NARROW),
    (learned_at(), "positions", BOOLS, TypeError, POSITIONS + NARROW),
    (learned_at(), "positions", jnp.zeros((1, B, T), jnp.int32), AssertionError, POSITIONS),
    (SINUSOIDS_AT, "positions", FLOATS.astype(jnp.float16), TypeError, POSITIONS + NARROW),
    (SINUSOIDS_AT, "positions", "all", TypeError, POSITIONS + " ... " + NO_ARRAY),
    (SINUSOIDS_AT, "positions", WIDE, TypeError, POSITIONS + CAST),
    (
        good(pe.Sinusoidal(features=F, fractional=True).bind({})),
        "positions",
        FLOATS.astype(jnp.bfloat16),
        TypeError,
        "; fractional positions need to be float32: narrower floats merge neighbours",
    ),
    (TURN, "x", QUERY[0, 0], AssertionError, "floating [T, N, D] or [B, T, N, D]"),
    (TURN, "x", QUERY.astype(jnp.int32), AssertionError, "floating [T, N, D]"),
    (TURN, "positions", Q, AssertionError, "[T] or [B, T] as x ... float32[2, 3, 4, 8]"),
    (TURN, "positions", IDS.T, AssertionError, "[T] or [B, T] as x, which is"),
    (TURN, "positions", FLOATS, TypeError, "`fractional=True`" + NARROW),
    (good(ROPE.cos_sin, positions=P), "positions", FLOATS, TypeError, POSITIONS + NARROW),
    (
        good(pe.RoPE(dim=2 * D, layout="half").bind({}), positions=P),
        "x",
        QUERY,
        ValueError,
        "cos is float32[3, 8], which turns 16 channels, but x has 8: make RoPE's dim at most the head dim",
        "",
    ),
    (PAIRS, "query_positions", FLOATS, TypeError, POSITIONS + NARROW),
    (PAIRS, "key_positions", FLOATS, TypeError, POSITIONS + NARROW),
    (
        good(ALIBI, query_positions=IDS),
        "key_positions",
        Q[None],
        AssertionError,
        "[B, S] with the B of query_positions",
    ),
    (good(ALIBI.at), "distance", FLOATS, TypeError, "int32 distances of any shape" + NARROW),
    (CONTENT, "key_positions", FLOATS, TypeError, POSITIONS + NARROW),
    (CONTENT, "query", QUERY[0, 0], AssertionError, "; it needs to be floating [T, N, D] or [B, T, N, D]"),
    (CONTENT, "key", KEYS.astype(jnp.int32), AssertionError, "; it needs to be floating [S, K, D] or [B, S, K, D]"),
    # RoPE's functions.
    (ROTATE, "layout", "neox", ValueError, "one of 'half', 'interleaved'"),
    (ROTATE, "rotated", 0, ValueError, "one of 'first', 'last'"),
    (ROTATE, "x", QUERY[0, 0], AssertionError, "floating [..., T, N, D]"),
    (ROTATE, "x", QUERY > 0, AssertionError, "floating [..., T, N, D]"),
    (ROTATE, "cos", [1.0], TypeError, "float32 [T, dim / 2]" + NO_ARRAY),
    (ROTATE, "cos", COS[:1], AssertionError, "the leading axes of x, which is"),
    (ROTATE, "cos", COS.astype(jnp.bfloat16), TypeError, "; it needs to be float32: x is cast up"),
    (ROTATE, "sin", SIN[:, :1], AssertionError, "shaped as cos, [3, 4]"),
    (PERMUTE, "source", "torch", ValueError, "one of 'half', 'interleaved'"),
    (PERMUTE, "target", "torch", ValueError, "one of 'half', 'interleaved'"),
    (PERMUTE, "rotated", "all", ValueError, "'first', 'last'"),
    (PERMUTE, "array", [1.0], TypeError, "a kernel or bias" + NO_ARRAY),
    (PERMUTE, "heads", 0, ValueError, INT),
    (PERMUTE, "dim", 8.0, ValueError, INT),
    (
        good(pe.permute_layout, array=X, source="half", target="interleaved"),
        "heads",
        5,
        ValueError,
        "axis -1 of array, float32[2, 3, 32], has 32 channels; with heads=5 ... heads * D, with dim even and at most D",
        "",
    ),
]
