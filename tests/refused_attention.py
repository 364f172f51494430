"""Refusals of attention, its cache, the faces and the hooks."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from own_schemes import Beside, Crowd, Gates, Plane
from refusals import (
    ALIBI,
    CACHE,
    COUNT,
    FLAG,
    FLOATS,
    IDS,
    INT,
    KEY,
    KEYS,
    NARROW,
    NEW,
    NO_ARRAY,
    POSITIONS,
    POSITIVE,
    QUERY,
    ROPE,
    B,
    D,
    F,
    K,
    N,
    P,
    Q,
    S,
    T,
    X,
    good,
)

import posembed_jax as pe
from posembed_jax import linen
from posembed_jax import nnx as pnnx


class InSpace(Beside):
    position_axes = 3


class InSpaceBias(Plane):
    position_axes = 3


class OtherHeads(pe.DistanceBias):
    """Breaks its contract: one head more than it says."""

    def at(self, arrays, distance):
        return jnp.zeros((N + 1, *distance.shape))


def bias_of_two_axes(query_positions, key_positions):
    return jnp.zeros((T, S))


ROOMY = pe.KVCache.empty(batch=B, capacity=4, heads=N, dim=D)

RATE = "; it needs to be a Python number of at least 0 and below 1"


def attention(x=X, positions=P, segment_ids=None, cache=None, length=None, deterministic=True, **settings):
    """Both faces: they share their checks, and must not differ in them."""
    settings = {"heads": N, **settings}
    arguments = {"positions": positions, "segment_ids": segment_ids, "cache": cache, "length": length}
    arguments["deterministic"] = deterministic
    with pytest.raises(Exception) as from_linen:
        linen.Attention(**settings).init(KEY, x, **arguments)
    with pytest.raises(type(from_linen.value), match=re.escape(str(from_linen.value))):
        pnnx.Attention(N * D, **settings, rngs=nnx.Rngs(0))(x, **arguments)
    raise from_linen.value


def nnx_attention(x, deterministic=True, **settings):
    return pnnx.Attention(N * D, heads=N, rngs=nnx.Rngs(0), **settings)(x, P, deterministic=deterministic)


def linen_attention(**settings):
    return linen.Attention(heads=N, **settings).init(KEY, X, P)


def linen_scheme(scheme=None, **settings):
    return linen.Scheme(pe.LearnedPositions(length=4, features=F) if scheme is None else scheme, **settings).init(
        KEY, P
    )


def nnx_scheme(scheme=None, **settings):
    scheme = pe.LearnedPositions(length=4, features=F) if scheme is None else scheme
    return pnnx.Scheme(scheme, **settings, rngs=nnx.Rngs(0))


def linen_tokens(**settings):
    return linen.TokenEmbed(7, F, **settings).init(KEY, IDS)


def linen_hook(attention_fn=None, query=None, **arguments):
    x = X if query is None else query
    attention_fn = linen.AttentionFn(rotation=ROPE) if attention_fn is None else attention_fn
    return nn.MultiHeadDotProductAttention(N, attention_fn=attention_fn).init(KEY, x, **arguments)


def second_derivative(implementation):
    x = jnp.ones((1, 1032, 1, 2))
    jax.grad(lambda x: jax.grad(lambda x: pe.attend(x, x, x, implementation=implementation).sum())(x).sum())(x)


def second_derivative_of_the_bias(implementation):
    x, t5 = jnp.ones((1, 1032, 1, 2)), pe.T5Bias(heads=1, bidirectional=True)

    def loss(table):
        return pe.attend(x, x, x, bias=t5.bind({"table": table}), implementation=implementation).sum()

    jax.grad(lambda table: jax.grad(loss)(table).sum())(jnp.ones((1, 32)))


def many_tiles(bias):
    x = jnp.ones((1, 520, N, 2))
    pe.attend(x, x, x, bias=bias, implementation="xla")


def many_tiles_without(**arguments):
    x = jnp.ones((1, 1032, 1, 2))
    pe.attend(x, x, x, implementation="xla", **arguments)


def many_tiles_of_content(bias):
    x = jnp.ones((1, 1032, N, 2))
    pe.attend(x, x, x, bias=bias, causal=True, implementation="xla")


PLANE, BESIDE = Plane(heads=N).bind({"slope": jnp.ones((N, 2))}), Beside(features=D).bind({"vectors": jnp.ones((3, D))})
ON_PLANE = good(pe.attend, query=QUERY, key=KEYS, value=KEYS, bias=PLANE, key_positions=jnp.zeros((S, 2), jnp.int32))
FOPE = pe.FoPE(dim=D, layout="half", length=100)
AXES = pe.RoPE(dim=D, layout="half", axes=pe.Axes.blocks(axes=2, count=2))
BESIDE_AT = good(BESIDE, weights=jnp.ones((N, T, S)), query_positions=P, key_positions=Q)
APPEND = good(CACHE.append, **NEW)

ATTEND = good(pe.attend, query=QUERY, key=KEYS, value=KEYS, query_positions=P + 2, key_positions=Q)

SELF = good(pe.attend, query=QUERY, key=KEYS[:, :T], value=KEYS[:, :T])

FACTORS = good(pe.ALiBi(heads=N).factors, query_positions=P, key_positions=Q)

BARE = good(pe.attend, query=QUERY, key=KEYS, value=KEYS)

CHANNELS = good(
    pe.bias_to_channels, query=QUERY, key=KEYS, query_factors=jnp.ones((T, N, 2)), key_factors=jnp.ones((B, S, 1, 2))
)

ROWS = [
    # Biases of several axes, of content, and beside values; temperatures and lengths.
    (ATTEND, "value_bias", Beside(features=D), TypeError, "; it needs to be a bound ValueBias: pass `scheme.bind", ""),
    (ATTEND, "value_bias", QUERY, TypeError, "; it needs to be a bound ValueBias: pass `scheme.bind"),
    (ATTEND, "temperature", QUERY, AssertionError, "; it needs to be floating [T] or [B, T] of the query, which is"),
    (ATTEND, "temperature", P, AssertionError, "; it needs to be floating [T] or [B, T] of the query, which is"),
    (ATTEND, "temperature", jnp.ones(S), AssertionError, "; it needs to be floating [T] or [B, T] of the query"),
    (
        ATTEND,
        "bias",
        Gates(heads=N).bind({}).of(query=jnp.ones((B, S, N))),
        AssertionError,
        "the query content of bias is float32[2, 5, 4]; it needs to be [B, T, ...] as attention's query",
        "",
    ),
    (
        ATTEND,
        "bias",
        Gates(heads=N).bind({}).of(key=jnp.ones(B)),
        AssertionError,
        "the key content of bias is float32[2]; it needs to be [B, T, ...]",
        "",
    ),
    (ON_PLANE, "query_positions", None, ValueError, "; it needs to be int32 [3, 2] or [2, 3, 2], for a bias of 2 axes"),
    (ON_PLANE, "query_positions", FLOATS, TypeError, "; it needs to be int32 positions [T, 2] or [B, T, 2]" + NARROW),
    (ON_PLANE, "query_positions", jnp.zeros((S, 2), jnp.int32), AssertionError, "int32 [3, 2] or [2, 3, 2]"),
    (ON_PLANE, "causal", True, ValueError, "positions have 2 axes and so no order, which causal ... pass a mask", ""),
    (
        good(ON_PLANE, query_positions=jnp.zeros((T, 2), jnp.int32)),
        "value_bias",
        InSpace(features=D).bind({"vectors": jnp.ones((3, D))}),
        ValueError,
        "bias and value_bias have positions of [2, 3] axes; they need to have as many",
        "",
    ),
    (many_tiles_of_content, "bias", Crowd(heads=N).bind({}), ValueError, "implementation is 'xla'; the bias is", ""),
    (good(PLANE.at), "distance", jnp.int32(1), AssertionError, "; it needs to be int32 distances [..., 2]"),
    (good(PLANE.at), "distance", P, AssertionError, "; it needs to be int32 distances [..., 2]"),
    (BESIDE_AT, "weights", FLOATS, AssertionError, "; it needs to be floating [N, T, S] or [B, N, T, S]"),
    (BESIDE_AT, "weights", jnp.ones((N, T, S), jnp.int32), AssertionError, "floating [N, T, S] or [B, N, T, S]"),
    (
        good(attention, rotation=AXES),
        "bias",
        InSpaceBias(heads=N),
        ValueError,
        "rotation and bias have positions of [2, 3] axes",
        "",
    ),
    (
        good(attention, rotation=AXES),
        "positions",
        None,
        ValueError,
        "; of 2 axes it needs to be int32 [3, 2] or",
    ),
    (
        good(attention, positions=jnp.zeros((T, 2), jnp.int32), bias=Plane(heads=N)),
        "cache",
        ROOMY,
        ValueError,
        "cache is given, but the bias has positions of 2 axes, which a cache does not hold",
        "",
    ),
    (attention, "length", 8, ValueError, "length is given, but there is no rotation that depends on it", ""),
    (good(attention, rotation=ROPE), "length", 8, ValueError, "length is given, but ... has fixed frequencies", ""),
    (good(attention, rotation=FOPE), "length", 8, ValueError, "length is given, but ... does not depend on it", ""),
    (attention, "value_bias", pe.ALiBi(heads=N), TypeError, "; it needs to be a ValueBias such as ShawValues(...)", ""),
    (
        good(linen_hook, inputs_k=jnp.ones((B, S, N * D))),
        "attention_fn",
        linen.AttentionFn(rotation=AXES),
        ValueError,
        "with 3 queries and 5 keys; positions of 2 axes need to be given, for self-attention without a cache",
        "",
    ),
    # attend.
    *(
        (
            ATTEND,
            name,
            scheme.bind(pe.init(scheme, KEY)),
            TypeError,
            f"{name} is {came}; it needs to be a bound {needs}",
            "",
        )
        for name, scheme, came, needs in (
            ("bias", pe.Sinusoidal(features=D), "a bound Sinusoidal", "Bias or ContentBias"),
            ("bias", ROPE, "a bound RoPE", "Bias or ContentBias"),
            ("bias", Beside(features=D), "a bound Beside", "Bias or ContentBias"),
            ("value_bias", pe.ALiBi(heads=N), "BoundDistanceBias ...", "ValueBias: pass `scheme.bind"),
        )
    ),
    (ATTEND, "broadcast_dropout", "no", ValueError, FLAG),
    (ATTEND, "query", QUERY[:, :, :0], ValueError, "; it needs to be floating [B, T, N, D], N and D at least 1"),
    (ATTEND, "query", QUERY[..., :0], ValueError, "; it needs to be floating [B, T, N, D], N and D at least 1"),
    (
        good(pe.attend, query=QUERY, value=KEYS[:, :, :0]),
        "key",
        KEYS[:, :, :0],
        ValueError,
        ", with 0 heads; they need to divide the 4 of the query",
    ),
    (ATTEND, "implementation", "cudnn", ValueError, "one of 'reference', 'xla'"),
    (second_derivative, "implementation", "xla", NotImplementedError, ", which ... pass implementation='reference'"),
    (second_derivative_of_the_bias, "implementation", "xla", NotImplementedError, "pass implementation='reference'"),
    (
        many_tiles,
        "bias",
        OtherHeads().bind({}),
        AssertionError,
        "the value of bias is float32[1, 5, ... [N, T, S] or [B, N, T, S] in a tile, that is [1, 4",
        "",
    ),
    # bias_to_channels.
    (CHANNELS, "query", QUERY[0], AssertionError, "[B, T, N, D]"),
    (CHANNELS, "key", KEYS[0], AssertionError, "[B, S, K, D]"),
    (CHANNELS, "query", QUERY.astype(jnp.float16), TypeError, "float32, bfloat16 or float64, ... float16 overflows"),
    (CHANNELS, "key", KEYS.astype(jnp.bfloat16), TypeError, "float32, bfloat16 or float64, as the query is"),
    (CHANNELS, "key", KEYS[..., :4], AssertionError, "[B, S, K, D] of float32[2, 3, 4, 8]"),
    (CHANNELS, "scale", -1.0, ValueError, POSITIVE),
    (CHANNELS, "multiple_of", 0, ValueError, INT),
    (CHANNELS, "query_factors", FLOATS, AssertionError, "floating [T, N, R] or [B, T, N, R], for float32[2, 3, 4, 8]"),
    (CHANNELS, "key_factors", jnp.ones((S, K, 2), int), AssertionError, "floating [T, N, R] or [B, T, N, R]"),
    (CHANNELS, "query_factors", jnp.ones((T, 3, 2)), AssertionError, "that is [3, 4, 2] or 1 on an axis"),
    (CHANNELS, "key_factors", jnp.ones((S, K, 3)), ValueError, "key_factors has 3 factors; it needs 2", ""),
    (FACTORS, "query_positions", FLOATS, TypeError, "int32 positions [T] or [B, T]"),
    (FACTORS, "key_positions", FLOATS, TypeError, "int32 positions [T] or [B, T]"),
    (ATTEND, "query", QUERY[0], AssertionError, "floating [B, T, N, D]"),
    (ATTEND, "query", QUERY.astype(jnp.int32), AssertionError, "floating [B, T, N, D]"),
    (
        ATTEND,
        "key",
        KEYS[:1],
        AssertionError,
        "[B, S, K, D] with the B, D and dtype of the query ... float32[2, 3, 4, 8]",
    ),
    (ATTEND, "key", KEYS[..., :4], AssertionError, "[B, S, K, D] with the B, D and dtype of the query"),
    (ATTEND, "value", KEYS[:, :T], AssertionError, "[B, S, K, D] as the key, which is float32[2, 5, 2, 8]"),
    (ATTEND, "key", KEYS.astype(jnp.bfloat16), TypeError, "[B, S, K, D] with ... cast all three to one dtype"),
    (ATTEND, "value", KEYS.astype(jnp.float16), TypeError, "[B, S, K, D] with ... cast all three to one dtype"),
    (
        good(pe.attend, query=QUERY, value=jnp.ones((B, S, 3, D))),
        "key",
        jnp.ones((B, S, 3, D)),
        ValueError,
        ", with 3 heads; they need to divide the 4 of the query",
    ),
    (
        ATTEND,
        "bias",
        jnp.ones((N, T, S)),
        AssertionError,
        "[B, N, T, S], that is [2, 4, 3, 5]; ... bias[None] or bias[:, None]",
    ),
    (ATTEND, "bias", [0.0], TypeError, "a bound scheme or an array [B, N, T, S]" + NO_ARRAY),
    (ATTEND, "bias", jnp.ones((B, N, T, S), jnp.int32), AssertionError, "floating [B, N, T, S]"),
    (ATTEND, "bias", jnp.ones((B, N + 1, T, S)), AssertionError, "[2, 4, 3, 5] or 1 on an axis that is shared"),
    (
        ATTEND,
        "bias",
        OtherHeads().bind({}),
        AssertionError,
        "the value of bias is float32[1, 5, 3, 5]; ... [N, T, S] or [B, N, T, S], that is [2, 4, 3, 5] or 1 on an axis",
        "",
    ),
    (ATTEND, "bias", bias_of_two_axes, AssertionError, "the value of bias is float32[3, 5]; ... [N, T, S]", ""),
    (
        ATTEND,
        "mask",
        jnp.ones((T, S)),
        AssertionError,
        "boolean [T, S] or [B, N, T, S]: True = attend; `mask > 0` makes one",
    ),
    (
        ATTEND,
        "mask",
        jnp.ones((B, T, S), bool),
        AssertionError,
        "boolean [T, S] or [B, N, T, S]: add the axes, of size 1",
    ),
    (ATTEND, "mask", jnp.ones((S, T), bool), AssertionError, "that is [3, 5] or 1 on an axis that is shared"),
    (ATTEND, "scale", 0.0, ValueError, POSITIVE),
    (ATTEND, "scale", jnp.float32(1), ValueError, "scale is Array(1., dtype=float32)" + POSITIVE, ""),
    (ATTEND, "logits_soft_cap", -30.0, ValueError, POSITIVE),
    (ATTEND, "dropout_rate", 1.0, ValueError, RATE),
    (ATTEND, "dropout_rate", float("nan"), ValueError, RATE),
    (ATTEND, "dropout_rate", "0.1", ValueError, RATE),
    (
        good(ATTEND, dropout_rate=0.1),
        "dropout_key",
        None,
        ValueError,
        "; dropout_rate 0.1 needs one: pass a `jax.random.key`",
    ),
    (ATTEND, "query_positions", FLOATS, TypeError, POSITIONS + NARROW),
    (ATTEND, "query_positions", Q, AssertionError, "; it needs to be int32 [3] or [2, 3]"),
    (ATTEND, "key_positions", Q[None], AssertionError, "; it needs to be int32 [5] or [2, 5]"),
    (
        good(BARE, causal=True),
        "query_positions",
        None,
        ValueError,
        "; causal with 3 queries and 5 keys needs it ... pass",
    ),
    (
        good(BARE, window=2, bias=ALIBI, query_positions=P),
        "key_positions",
        None,
        ValueError,
        "; window and bias with 3 queries and 5 keys needs it ... pass posembed_jax.positions.arange(length, offset)",
    ),
    (ATTEND, "window", -2, ValueError, "size of the window is -2" + COUNT, ""),
    (many_tiles_without, "window", -2, ValueError, "size of the window is -2" + COUNT, ""),
    (many_tiles_without, "window", (1, 2.5), ValueError, "right size of the window is 2.5" + COUNT, ""),
    (many_tiles_without, "query_segment_ids", jnp.ones((1, 1032)), TypeError, "int32 [B, T], that is" + NARROW),
    (ATTEND, "causal", "no", ValueError, FLAG),
    (ATTEND, "bias", pe.ALiBi(heads=N), TypeError, "; it needs to be bound to its arrays: pass `scheme.bind(params)`"),
    (
        good(BARE, key_segment_ids=jnp.ones((B, S), jnp.int32)),
        "query_segment_ids",
        None,
        ValueError,
        " but ... pass both",
    ),
    (good(BARE, query_segment_ids=IDS), "key_segment_ids", None, ValueError, "; with 3 queries and 5 keys, pass both"),
    (
        good(SELF, key_segment_ids=IDS),
        "query_segment_ids",
        P,
        AssertionError,
        "; it needs to be int32 [B, T], that is [2, 3]",
    ),
    (
        good(SELF, query_segment_ids=IDS),
        "key_segment_ids",
        P,
        AssertionError,
        "; it needs to be int32 [B, S], that is [2, 3]",
    ),
    (SELF, "query_segment_ids", IDS.astype(jnp.float32), TypeError, "int32 [B, T], that is [2, 3]" + NARROW),
    (
        good(SELF, query_segment_ids=IDS),
        "key_segment_ids",
        IDS == 0,
        TypeError,
        "int32 [B, S], that is [2, 3]" + NARROW,
    ),
    # The cache.
    (good(pe.KVCache.empty, batch=B, heads=K, dim=D), "capacity", 0, ValueError, INT),
    (good(pe.KVCache.empty, capacity=4, heads=K, dim=D), "batch", 2.0, ValueError, INT),
    (APPEND, "keys", QUERY, AssertionError, "[B, T, K, D] as the cache ... float32[2, 4, 2, 8]"),
    (APPEND, "keys", KEYS[:, :T].astype(jnp.int32), AssertionError, "[B, T, K, D] as the cache, whose keys are"),
    (APPEND, "values", KEYS[:, :T] > 0, AssertionError, "[B, T, K, D] as the cache, whose keys are"),
    (APPEND, "values", KEYS, AssertionError, "[B, T, K, D] as the cache, whose keys are"),
    (APPEND, "positions", P, AssertionError, "; it needs to be int32 [B, T], that is [2, 3]"),
    (APPEND, "segment_ids", P, AssertionError, "; it needs to be int32 [B, T], that is [2, 3]"),
    (
        CACHE.next_positions,
        "segment_ids",
        jnp.ones((B + 1, T), jnp.int32),
        AssertionError,
        "with the B of the cache, 2",
    ),
    (CACHE.next_positions, "segment_ids", FLOATS, TypeError, "int32 [B, T], 0 = padding" + NARROW),
    (APPEND, "positions", jnp.ones((B, T)), TypeError, "int32 [B, T], that is [2, 3]" + NARROW),
    (APPEND, "segment_ids", IDS == 0, TypeError, "int32 [B, T], that is [2, 3]" + NARROW),
    (
        good(CACHE.append, keys=KEYS, values=KEYS, positions=jnp.zeros((B, S), jnp.int32)),
        "segment_ids",
        jnp.ones((B, S), jnp.int32),
        ValueError,
        "5 new tokens do not fit: the cache holds 0 of at most 4 tokens; make it longer, or drop old tokens first",
        "",
    ),
    # The faces and the hooks.
    (attention, "x", X[0], AssertionError, "; it needs to be floating [B, T, F]"),
    (attention, "x", X.astype(jnp.int32), AssertionError, "; it needs to be floating [B, T, F]"),
    (nnx_attention, "x", X[0], AssertionError, "; it needs to be floating [B, T, F]"),
    (nnx_attention, "x", X.astype(jnp.int32), AssertionError, "; it needs to be floating [B, T, F]"),
    (
        attention,
        "positions",
        None,
        ValueError,
        "; without a cache ... int32 [3] or [2, 3]: pass ... from_mask for packed",
    ),
    (attention, "positions", FLOATS, TypeError, POSITIONS + NARROW),
    (good(attention, cache=ROOMY), "positions", Q, AssertionError, "; it needs to be int32 [3] or [2, 3]"),
    (good(attention, cache=ROOMY), "segment_ids", P, AssertionError, "; it needs to be int32 [B, T], that is [2, 3]"),
    (good(attention, cache=ROOMY), "segment_ids", IDS == 0, TypeError, "int32 [B, T], that is [2, 3]" + NARROW),
    *(
        (
            function,
            "scheme",
            scheme,
            TypeError,
            "; it needs to be a scheme such as T5Bias(...): check which argument",
            "",
        )
        for function in (linen_scheme, nnx_scheme)
        for scheme in (pe.T5Bias, "t5", ROPE.bind({}))
    ),
    *(
        (
            function,
            name,
            {"tabel": ("vocab", None)},
            ValueError,
            "; it needs to be a dict of axes by name, and the names",
        )
        for functions, name in (
            ((linen_attention, linen_scheme, linen_tokens), "logical_axes"),
            (
                (
                    good(nnx_attention, x=X),
                    nnx_scheme,
                    good(pnnx.TokenEmbed, vocabulary=7, features=F, rngs=nnx.Rngs(0)),
                ),
                "out_sharding",
            ),
        )
        for function in functions
    ),
    (linen_tokens, "logical_axes", "table", ValueError, "; it needs to be a dict of axes ... the names are ['table']"),
    (attention, "cache", {}, TypeError, "; it needs to be a KVCache such as KVCache.empty(...)"),
    (attention, "temperature", 2.0, TypeError, "; it needs to be a function of positions: pass LogTemperature(...)"),
    (
        attention,
        "temperature",
        pe.LogTemperature,
        TypeError,
        "temperature is type <class ... a function of positions",
        "",
    ),
    (good(attention, dropout_rate=0.5), "deterministic", "no", ValueError, FLAG),
    (good(nnx_attention, x=X), "deterministic", "no", ValueError, FLAG),
    (attention, "heads", 0, ValueError, INT),
    (attention, "dropout_rate", 2.0, ValueError, RATE),
    (good(pnnx.Attention, features=F, heads=N, rngs=nnx.Rngs(0)), "dropout_rate", -0.1, ValueError, RATE),
    (attention, "rotation", pe.ALiBi(heads=N), TypeError, "a Rotation such as RoPE(...), or a Scheme module", ""),
    (
        attention,
        "bias",
        ROPE,
        TypeError,
        "; it needs to be a Bias such as T5Bias(...), or a Scheme ... check which",
        "",
    ),
    (good(pe.init, key=KEY), "scheme", "rope", TypeError, "; it needs to be a scheme such as T5Bias(...)"),
    (good(pe.normal, shape=(2, 3)), "stddev", -1, ValueError, POSITIVE),
    (good(pe.normal, stddev=1.0), "shape", 3, ValueError, "; it needs to be a tuple of sizes"),
    (good(pe.normal, stddev=1.0), "shape", (0, 3), ValueError, "shape[0] is 0" + INT, ""),
    (attention, "heads", 3, ValueError, "features is 32; it needs to be a multiple of heads, 3, or pass head_dim", ""),
    (attention, "head_dim", 0, ValueError, INT),
    (attention, "key_value_heads", 0, ValueError, INT),
    (attention, "key_value_heads", 3, ValueError, "; it needs to divide heads, 4"),
    (linen_hook, "query", X[None], AssertionError, "query is float32[1, 2, 3, 4, 8]; ... one batch axis", ""),
    (
        good(linen_hook, inputs_k=jnp.ones((B, S, N * D))),
        "query",
        X,
        ValueError,
        "positions is None; with 3 queries and 5",
        "",
    ),
    (
        good(linen_hook),
        "sow_weights",
        True,
        NotImplementedError,
        "sow_weights is set, and AttentionFn cannot honour it: leave",
        "",
    ),
]
