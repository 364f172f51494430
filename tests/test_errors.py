"""Every refusal of the package: each row is one bad argument, and the message it must get.

A message names the argument and what came (the start of it is made from the row), then what is needed and the remedy.
`...` in a row stands for any text. The last test of the rows walks the source and asserts that no `raise` and no check
is without a row.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import traceback
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from flax import nnx
from jax.experimental import checkify

import posembed_jax as pe
from posembed_jax import hf, linen, masks, mrope, positions, vision
from posembed_jax import nnx as pnnx

PACKAGE = Path(pe.__file__).parent
B, T, S, N, K, D, F, V = 2, 3, 5, 4, 2, 8, 6, 7
KEY = jax.random.key(0)

QUERY, KEYS = jnp.ones((B, T, N, D)), jnp.ones((B, S, K, D))
TABLE, IDS, X = jnp.ones((V, F)), jnp.zeros((B, T), jnp.int32), jnp.ones((B, T, N * D))
P, Q = jnp.arange(T, dtype=jnp.int32), jnp.arange(S, dtype=jnp.int32)
FLOATS, BOOLS = jnp.ones(T), jnp.ones(T, bool)
WIDE = np.array([2**31])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dot(pe.ContentBias):
    """The smallest ContentBias: the package has none yet, only the contract."""

    heads: int

    def pairs(self, arrays, query, key, query_positions, key_positions):
        return jnp.zeros((self.heads, query_positions.shape[-1], key_positions.shape[-1]))


class OtherHeads(pe.DistanceBias):
    """Breaks its contract: one head more than it says."""

    def at(self, arrays, distance):
        return jnp.zeros((N + 1, *distance.shape))


ROPE = pe.RoPE(dim=D, layout="half")
LEARNED = pe.LearnedPositions(length=4, features=F)
ALIBI = pe.ALiBi(heads=N).bind({})


def bias_of_two_axes(query_positions, key_positions):
    return jnp.zeros((T, S))


COS, SIN = ROPE.cos_sin(P)
CACHE = pe.KVCache.empty(batch=B, capacity=4, heads=K, dim=D)
ROOMY = pe.KVCache.empty(batch=B, capacity=4, heads=N, dim=D)
NEW = {"keys": KEYS[:, :T], "values": KEYS[:, :T], "positions": IDS, "segment_ids": IDS + 1}

INT = "; it needs to be a Python int of at least 1"
COUNT = "; it needs to be a Python int of at least 0"
POSITIVE = "; it needs to be a finite Python number above 0"
ABOVE_ONE = "; it needs to be a finite Python number above 1"
RATE = "; it needs to be a Python number of at least 0 and below 1"
FLAG = "; it needs to be True or False"
POSITIONS = "; it needs to be int32 positions [T] or [B, T]"
NO_ARRAY = " ... pass a jax or numpy array"
NARROW = " ... pass an int32 array; positions and ids are never cast to the activation dtype"
CAST = " ... cast it with `.astype(jnp.int32)`"
MODES = "; it needs to be one of 'error', 'clip', 'checkify'"


def good(function, **arguments):
    """The function with every argument right; a row replaces one of them."""
    return functools.partial(function, **arguments)


CENTERS, DRAWS = vision.patch_centers((1, 3)), jnp.zeros(5)
TIMES = good(mrope.timestamps, times=jnp.ones((B, T)), seconds=0.5, count=8)
GRID, WINDOWS = good(vision.merged_grid, shape=(2, 2)), good(vision.windows, shape=(1, 2, 2), size=1)
AUGMENTED = good(vision.augmented, centers=CENTERS, draws=DRAWS)
TAPS = good(vision.table_taps, shape=(2, 2), side=3)
CHANNELS = pe.Axes(axis=(0, 1, 0, 1), index=(0, 1, 0, 1), count=2)
OF_CHANNELS = pe.RoPE(dim=4, layout="half", axes=CHANNELS).bind({})
FILE = good(hf.from_config)
LAYERS = {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}


def rotation_of(config):
    return hf.from_config(config).rotation


def of_learned(table):
    return LEARNED.bind({"table": table})


def learned_at(**change):
    scheme = dataclasses.replace(LEARNED, **change)
    return good(scheme.bind(pe.init(scheme, KEY)), positions=P)


def attention(x=X, positions=P, segment_ids=None, cache=None, **settings):
    """Both faces: they share their checks, and must not differ in them."""
    settings = {"heads": N, **settings}
    arguments = {"positions": positions, "segment_ids": segment_ids, "cache": cache}
    with pytest.raises(Exception) as from_linen:
        linen.Attention(**settings).init(KEY, x, **arguments)
    with pytest.raises(type(from_linen.value), match=re.escape(str(from_linen.value))):
        pnnx.Attention(N * D, **settings, rngs=nnx.Rngs(0))(x, **arguments)
    raise from_linen.value


def nnx_attention(x):
    return pnnx.Attention(N * D, heads=N, rngs=nnx.Rngs(0))(x, P)


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


LEARN = good(pe.LearnedPositions, length=4, features=F)
SINUSOIDS = good(pe.Sinusoidal, features=F)
ROTARY = good(pe.RoPE, dim=D, layout="half")
T5 = good(pe.T5Bias, heads=N, bidirectional=True)
SLOPES = good(pe.ALiBi, heads=N)
SINUSOIDS_AT = good(pe.Sinusoidal(features=F).bind({}))
TURN = good(ROPE.bind({}), x=QUERY, positions=P)
PAIRS = good(ALIBI, query_positions=P, key_positions=Q)
CONTENT = good(Dot(heads=N).bind({}), query=QUERY, key=KEYS, query_positions=P, key_positions=Q)


class MyScaling(pe.Scaling):
    def scale(self, frequencies, base):
        return frequencies


STEPPED = good(pe.stepped_temperature, positions=P, beta=0.1, length=2)
XPOS = good(pe.XPos, rope=ROPE, centre=0)
FOPE = good(pe.FoPE, dim=D, layout="half", length=100)
MIXED = good(pe.RoPEMixed, dim=D, layout="half")
THREE_HEADS = MIXED(axes=1, key_value_heads=3).bind({"frequencies": jnp.ones((3, 1, D // 2))})
PLANE = pe.RoPE(dim=D, layout="half", axes=pe.Axes.blocks(axes=2, count=2)).bind({})
OF_FILE = good(hf.scaling, max_position_embeddings=16)
STRETCH = good(pe.LongRoPE, short_factor=(1.0,) * 4, long_factor=(2.0,) * 4, original_length=16)
DYNAMIC = pe.RoPE(dim=D, layout="half", scaling=pe.DynamicNTK(factor=2.0, original_length=4))
YARN = good(pe.YaRN, factor=4.0, original_length=16)
LLAMA3 = good(pe.Llama3, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=16)
REROTATE = good(pe.rerotate, old=DYNAMIC.bind({}, length=4), new=DYNAMIC.bind({}, length=8))
REROTATED = good(REROTATE, keys=KEYS, positions=Q)
ROTATE = good(pe.rotate, x=QUERY, cos=COS, sin=SIN, layout="half")
PERMUTE = good(pe.permute_layout, array=X, source="half", target="half")
POSE = good(positions.pose, key=KEY, length=T, max_length=9)
TYPES, GRIDS = jnp.array([[0, 1, 1, 0], [1, 2, 2, 2]]), jnp.array([[1, 2, 4], [1, 2, 2]])
TYPED = good(mrope.positions, token_types=TYPES, image_grids=GRIDS, video_grids=jnp.array([[3, 2, 2]]), merge=2)
TIMED = good(TYPED, tokens_per_second=2)
IMAGES_OF_ROWS = good(mrope.positions, token_types=jnp.minimum(TYPES, 1), merge=2)
WINDOW = good(masks.window, query_positions=P, key_positions=Q)
APPEND = good(CACHE.append, **NEW)
ATTEND = good(pe.attend, query=QUERY, key=KEYS, value=KEYS, query_positions=P + 2, key_positions=Q)
SELF = good(pe.attend, query=QUERY, key=KEYS[:, :T], value=KEYS[:, :T])
CHANNELS = good(
    pe.bias_to_channels, query=QUERY, key=KEYS, query_factors=jnp.ones((T, N, 2)), key_factors=jnp.ones((B, S, 1, 2))
)
FACTORS = good(pe.ALiBi(heads=N).factors, query_positions=P, key_positions=Q)
BARE = good(pe.attend, query=QUERY, key=KEYS, value=KEYS)
RANGES = good(masks.causal, query_positions=P, key_positions=Q)

# (function, argument, what comes, exception, what the message says after "argument is what came"[, before that])
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
    (STEPPED, "positions", FLOATS, TypeError, "int32 positions [...]" + NARROW),
    (STEPPED, "beta", 0.0, ValueError, POSITIVE),
    (STEPPED, "length", 0.5, ValueError, INT),
    (STEPPED, "offset", 2, ValueError, "; it needs to be 0 (Ministral 3) or 1 (Llama 4)"),
    (good(pe.log_temperature, length=4), "positions", FLOATS, TypeError, "int32 positions [...]" + NARROW),
    (good(pe.log_temperature, positions=P), "length", 1, ValueError, "at least 2"),
    (good(pe.yarn_softmax_scale, factor=4.0, mscale_all_dim=1.0), "dim", 0, ValueError, INT),
    (good(pe.yarn_softmax_scale, dim=D, mscale_all_dim=1.0), "factor", -1.0, ValueError, POSITIVE),
    (good(pe.yarn_softmax_scale, dim=D, factor=4.0), "mscale_all_dim", -1.0, ValueError, POSITIVE),
    (good(pe.Linear), "factor", 0, ValueError, POSITIVE),
    (good(pe.NTK), "factor", "2", ValueError, POSITIVE),
    (good(pe.DynamicNTK, original_length=16), "factor", 0.0, ValueError, POSITIVE),
    (good(pe.DynamicNTK, factor=2.0), "original_length", 16.0, ValueError, INT),
    (YARN, "factor", None, ValueError, POSITIVE),
    (YARN, "original_length", 0, ValueError, INT),
    (YARN, "beta_slow", 0.0, ValueError, POSITIVE),
    (YARN, "beta_fast", 1.0, ValueError, "above 1"),
    (YARN, "truncate", 1, ValueError, FLAG),
    (YARN, "mscale", "1", ValueError, POSITIVE),
    (STRETCH, "short_factor", [1.0] * 4, ValueError, "a tuple of dim / 2 numbers above 0"),
    (STRETCH, "long_factor", (2.0, 2.0, 2.0, 0.0), ValueError, "a tuple of dim / 2 numbers above 0"),
    (STRETCH, "attention_factor", -1.0, ValueError, POSITIVE),
    (LLAMA3, "factor", 0.0, ValueError, POSITIVE),
    (LLAMA3, "low_freq_factor", 0.0, ValueError, POSITIVE),
    (LLAMA3, "high_freq_factor", 1.0, ValueError, "above 1"),
    (LLAMA3, "original_length", 0, ValueError, INT),
    (good(pe.Proportional), "fraction", 0.0, ValueError, POSITIVE),
    (good(pe.Proportional, fraction=0.5), "factor", 0.0, ValueError, POSITIVE),
    # The models of transformers' files.
    (FILE, "config", 3, TypeError, "; it needs to be a dict or the path of a config.json"),
    (FILE, "config", {"model_type": "bert"}, ValueError, "model_type is 'bert'; it needs to be one of", ""),
    (
        FILE,
        "config",
        {"model_type": "cohere2_moe", "rope_scaling": {"type": "linear", "factor": 2.0}},
        ValueError,
        "rope_scaling is {'type': 'linear', 'factor': 2.0}, which transformers does not read",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "recurrent_gemma", "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        ValueError,
        "rope_type is 'linear'; this model type needs 'default'",
        "",
    ),
    (good(rotation_of), "config", {"model_type": "gemma3_text"}, ValueError, "it needs one for all", ""),
    (
        FILE,
        "config",
        {"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": 3.0}},
        ValueError,
        "'alpha', which this model_type does not read",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "llama", "rope_scaling": {"type": "default"}, "rope_parameters": {"factor": 2.0}},
        ValueError,
        "rope_scaling is {'type': 'default'} beside rope_parameters {'factor': 2.0}; it needs",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "gemma3_text", "rope_parameters": {**LAYERS, "factor": 2.0}},
        ValueError,
        "it needs to be without ['factor']",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "gemma3_text", "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        ValueError,
        "needs one dict for each of ['full_attention', 'sliding_attention']",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "nemotron", "rope_percent": 0.25},
        ValueError,
        "config has ['rope_percent'], which",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "olmo3", "rope_theta": 1e6},
        ValueError,
        "rope_theta is 1000000.0, which ... to be",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "llama", "rope_theta": 1e6, "rope_parameters": {"rope_theta": 2e6}},
        ValueError,
        "rope_theta is 1000000.0, but the rotary dict says rope_theta 2000000.0; it needs to be said once",
        "",
    ),
    (
        FILE,
        "config",
        {
            "model_type": "llama",
            "max_position_embeddings": 8,
            "rope_scaling": {"type": "default", "max_position_embeddings": 9},
        },
        ValueError,
        "max_position_embeddings is 8, but the rotary",
        "",
    ),
    (
        FILE,
        "config",
        {
            "model_type": "phi3",
            "original_max_position_embeddings": 8,
            "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 9},
        },
        ValueError,
        "original_max_position_embeddings is 8, but the rotary dict says 9; it needs",
        "",
    ),
    (
        good(hf.to_config),
        "positions",
        dataclasses.replace(hf.from_config({"model_type": "llama"}), rotations={"": ROPE}),
        ValueError,
        "its rotations need to differ from the model's own in base and scaling alone",
        "",
    ),
    (
        good(hf.multimodal),
        "config",
        {"model_type": "llama"},
        ValueError,
        "model_type is 'llama'; it needs to be one",
        "",
    ),
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
    (AUGMENTED, "jitter", 0.5, ValueError, "; it needs to be a number of at least 1.0"),
    (good(vision.nearest_rows, shape=(2, 2)), "side", 0, ValueError, INT),
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
    # transformers' files.
    (OF_FILE, "parameters", {"rope_type": "ntk-aware"}, ValueError, "its rope_type needs to be one of ['axial', "),
    (OF_FILE, "parameters", {"rope_type": "linear", "type": "yarn"}, ValueError, "not ['linear', 'yarn']"),
    (OF_FILE, "parameters", {"rope_type": "linear", "factor": None}, ValueError, "needs ['factor'] as well"),
    (OF_FILE, "parameters", {"type": "linear", "factor": 2.0, "beta_fast": 32}, ValueError, "be without ['beta_fast']"),
    (OF_FILE, "parameters", {"rope_type": "default", "factor": 2.0}, ValueError, "be without ['factor']"),
    (
        good(hf.scaling, parameters={"rope_type": "dynamic", "factor": 2.0}),
        "max_position_embeddings",
        None,
        ValueError,
        "without an original length in parameters it needs to be given",
    ),
    (
        good(hf.scaling, parameters={"rope_type": "yarn", "original_max_position_embeddings": 8}),
        "max_position_embeddings",
        None,
        ValueError,
        "without factor in parameters",
    ),
    (good(hf.rope_parameters, base=10_000.0), "scaling", MyScaling(), TypeError, "one that transformers has, or None"),
    (REROTATED, "keys", IDS, AssertionError, "floating [S, K, D] or [B, S, K, D]"),
    (T5, "heads", 0, ValueError, INT),
    (T5, "buckets", 2, ValueError, "at least 4"),
    (good(pe.T5Bias, heads=N, bidirectional=False), "buckets", 1, ValueError, "at least 2"),
    (T5, "buckets", 31, ValueError, "an even number: half a direction"),
    (good(pe.T5Bias, heads=N, bidirectional=False), "max_distance", 16, ValueError, "at least 17"),
    (T5, "stddev", -0.5, ValueError, POSITIVE),
    (good(pe.T5Bias, heads=N), "bidirectional", None, ValueError, "True (encoder) or False (decoder)"),
    (SLOPES, "heads", 4.0, ValueError, INT),
    (SLOPES, "bias_max", 0, ValueError, POSITIVE),
    (SLOPES, "symmetric", 0, ValueError, FLAG),
    (SLOPES, "slopes", (0.5,), ValueError, "a tuple of 4 numbers, one a head"),
    (SLOPES, "slopes", [0.5] * N, ValueError, "a tuple of 4 numbers, one a head"),
    (good(pe.ALiBi, heads=2), "slopes", (0.5, 0.0), ValueError, "slopes[1] is 0.0" + POSITIVE, ""),
    (good(pe.alibi_slopes, heads=N), "heads", 0, ValueError, INT),
    (good(pe.alibi_slopes, heads=N), "bias_max", "8", ValueError, POSITIVE),
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
    (good(masks.padding), "key_mask", BOOLS[0], AssertionError, "boolean [S] or [B, S]"),
    # attend.
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
    (SELF, "query_segment_ids", IDS.astype(jnp.float32), TypeError, "int32 segment ids [T] or [B, T]" + NARROW),
    # The cache.
    (good(pe.KVCache.empty, batch=B, heads=K, dim=D), "capacity", 0, ValueError, INT),
    (good(pe.KVCache.empty, capacity=4, heads=K, dim=D), "batch", 2.0, ValueError, INT),
    (APPEND, "keys", QUERY, AssertionError, "[B, T, K, D] as the cache ... float32[2, 4, 2, 8]"),
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


def row_id(row):
    function, argument = row[0], row[1]
    function = getattr(function, "func", function)
    return f"{getattr(function, '__qualname__', type(function).__name__)}-{argument}"


def pattern(row):
    """A regular expression for the message: the argument, what came, and what the row says, `...` being anything."""
    _, argument, value, _, says, *start = row
    is_array = isinstance(value, jax.Array | np.ndarray)
    came = f"{value.dtype}{list(value.shape)}" if is_array else f"...{value!r}"
    text = says if start else f"{argument} is {came}...{says}"
    return re.compile(".*".join(re.escape(part.strip()) for part in text.split("...")), re.DOTALL)


@functools.cache
def refusal(index):
    function, argument, value = ROWS[index][:3]
    try:
        function(**{argument: value})
    except Exception as error:
        return error


@pytest.mark.parametrize("index", range(len(ROWS)), ids=[row_id(row) for row in ROWS])
def test_refused(index):
    error, kind = refusal(index), ROWS[index][3]
    assert type(error) is kind, f"expected {kind.__name__}, got {error!r}"
    assert pattern(ROWS[index]).search(str(error)), f"{error}\ndoes not match\n{pattern(ROWS[index]).pattern}"


def refusing_nodes():
    """Every `raise`, and outside of checks.py every call of a check."""
    readers = {"describe", "is_concrete", "compute_dtype"}  # what in checks.py refuses nothing
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Raise():
                    yield path, node
                case ast.Call(func=ast.Attribute(value=ast.Name(id="checks"), attr=name)) if name not in readers:
                    yield path, node


def test_every_refusal_has_a_row():
    reached = set()
    for index in range(len(ROWS)):
        if (error := refusal(index)) is not None:
            reached |= {
                (Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)
            }
    missing = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)[:100]}"
        for path, node in refusing_nodes()
        if not any((path, line) in reached for line in range(node.lineno, node.end_lineno + 1))
    ]
    assert not missing, "\n".join(missing)


# Every function that takes arrays, with arguments that are right. Options are closed over: only arrays are traced.
GOOD = {
    "embed": (pe.embed, {"table": TABLE, "ids": IDS}),
    "logits": (functools.partial(pe.logits, scale=0.5), {"table": TABLE, "x": TABLE[:T]}),
    "rotate": (functools.partial(pe.rotate, layout="half"), {"x": QUERY, "cos": COS, "sin": SIN}),
    "permute_layout": (functools.partial(pe.permute_layout, source="half", target="interleaved"), {"array": X}),
    "rerotate": (REROTATE, {"keys": KEYS, "positions": Q}),
    "stepped_temperature": (functools.partial(pe.stepped_temperature, beta=0.1, length=2), {"positions": P}),
    "log_temperature": (functools.partial(pe.log_temperature, length=2), {"positions": P}),
    "attend": (
        functools.partial(pe.attend, bias=ALIBI, causal=True, window=2, logits_soft_cap=30.0),
        {
            "query": QUERY,
            "key": KEYS,
            "value": KEYS,
            "mask": jnp.ones((T, S), bool),
            "query_positions": P + 2,
            "key_positions": Q,
            "query_segment_ids": IDS + 1,
            "key_segment_ids": jnp.ones((B, S), jnp.int32),
        },
    ),
    "bias_to_channels": (
        pe.bias_to_channels,
        {"query": QUERY, "key": KEYS, "query_factors": jnp.ones((T, N, 2)), "key_factors": jnp.ones((B, S, 1, 2))},
    ),
    "init": (lambda data: pe.init(LEARNED, jax.random.wrap_key_data(data)), {"data": jax.random.key_data(KEY)}),
    "LearnedPositions": (
        lambda table, positions: LEARNED.bind({"table": table})(positions),
        {"table": TABLE[:4], "positions": P},
    ),
    "Sinusoidal": (pe.Sinusoidal(features=F).bind({}), {"positions": P}),
    "RoPE": (ROPE.bind({}), {"x": QUERY, "positions": P}),
    "T5Bias": (
        lambda table, **ranges: pe.T5Bias(heads=N, buckets=V - 1, bidirectional=True).bind({"table": table})(**ranges),
        {"table": TABLE[:N], "query_positions": P, "key_positions": Q},
    ),
    "ALiBi": (ALIBI, {"query_positions": P, "key_positions": Q}),
    "positions.arange": (functools.partial(positions.arange, T), {"offset": P}),
    "positions.from_segment_ids": (positions.from_segment_ids, {"segment_ids": IDS}),
    "positions.from_mask": (positions.from_mask, {"mask": IDS > 0}),
    "positions.cache_overflows": (functools.partial(positions.cache_overflows, capacity=3), {"lengths": P, "new": P}),
    "positions.randomized": (
        lambda data: positions.randomized(jax.random.wrap_key_data(data), T, 9),
        {"data": jax.random.key_data(KEY)},
    ),
    "positions.pose": (
        lambda data: positions.pose(jax.random.wrap_key_data(data), T, 9),
        {"data": jax.random.key_data(KEY)},
    ),
    "positions.inverse_order": (positions.inverse_order, {"order": P[::-1]}),
    "mrope.positions": (
        functools.partial(mrope.positions, merge=2, tokens_per_second=2),
        {
            "token_types": TYPES,
            "image_grids": GRIDS,
            "video_grids": jnp.array([[3, 2, 2]]),
            "seconds_per_grid": jnp.array([0.5]),
            "segment_ids": jnp.ones_like(TYPES),
        },
    ),
    "mrope.timestamps": (functools.partial(mrope.timestamps, seconds=0.5, count=8), {"times": jnp.ones((B, T))}),
    "vision.augmented": (functools.partial(vision.augmented, shift=0.5), {"centers": CENTERS, "draws": DRAWS}),
    "masks.causal": (masks.causal, {"query_positions": P, "key_positions": Q}),
    "masks.window": (functools.partial(masks.window, size=1), {"query_positions": P, "key_positions": Q}),
    "masks.segment": (masks.segment, {"query_segment_ids": P, "key_segment_ids": Q}),
    "masks.padding": (masks.padding, {"key_mask": Q > 1}),
    "KVCache": (CACHE.append, NEW),
}


def test_every_function_of_arrays_has_a_good_call():
    takes = set()
    for module, prefix in (
        (pe, ""),
        (positions, "positions."),
        (mrope, "mrope."),
        (vision, "vision."),
        (masks, "masks."),
    ):
        for name, public in vars(module).items():
            annotations = getattr(public, "__annotations__", {}) if callable(public) else {}
            arguments = [kind for argument, kind in annotations.items() if argument != "return"]
            if (
                not isinstance(public, type)
                and not name.startswith("_")
                and any("jax.Array" in str(a) for a in arguments)
            ):
                takes.add(prefix + name)
    assert takes - {"positions.check_cache"} <= set(GOOD)  # check_cache answers by a checkify.check: tested below


@functools.cache
def result(name):
    function, arguments = GOOD[name]
    return function(**arguments)


# What only the values tell cannot be refused under jit; what only the host's 64 bits hold cannot be traced.
TRACEABLE = [index for index, row in enumerate(ROWS) if isinstance(row[2], jax.Array) and row[3] is not ValueError]


class DoorTest(chex.TestCase):
    """The door is the same on traced, device and host arrays."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    @parameterized.named_parameters((name, name) for name in GOOD)
    def test_passes(self, name):
        function, arguments = GOOD[name]
        out = self.variant(lambda arguments: function(**arguments))(arguments)
        chex.assert_trees_all_equal_shapes_and_dtypes(out, result(name))
        chex.assert_trees_all_close(out, result(name), rtol=1e-6, atol=1e-6)

    @chex.variants(with_jit=True, without_device=True)  # `test_refused` is the other two
    @parameterized.parameters(*TRACEABLE)
    def test_refuses(self, index):
        function, argument, value, kind = ROWS[index][:4]
        with pytest.raises(kind, match=pattern(ROWS[index])):
            self.variant(lambda value: function(**{argument: value}))(value)


# What only the values tell, when they are traced.
OUTSIDE = jnp.array([0, -1, V, V - 1, -(2**31), 2**31 - 1], jnp.int32)
LOOK_UPS = {
    "embed": lambda table, ids, **options: pe.embed(table, ids, **options),
    "learned": lambda table, ids, **options: pe.LearnedPositions(length=V, features=F, **options).bind(
        {"table": table}
    )(ids),
}
NUMBERED = jnp.arange(V * F, dtype=jnp.float32).reshape(V, F)


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_traced_indices_out_of_range_never_get_a_neighbours_row(look_up):
    rows = np.asarray(jax.jit(look_up)(NUMBERED, OUTSIDE))
    np.testing.assert_array_equal(rows[[0, 3]], NUMBERED[jnp.array([0, V - 1])])
    assert np.isnan(rows[[1, 2, 4, 5]]).all()


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_clipped_indices_get_the_nearest_row(look_up, transform):
    rows = transform(functools.partial(look_up, out_of_range="clip"))(NUMBERED, OUTSIDE)
    np.testing.assert_array_equal(rows, NUMBERED[jnp.array([0, 0, V - 1, V - 1, 0, V - 1])])


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_checkify_tells_indices_out_of_range(look_up):
    checked = checkify.checkify(jax.jit(functools.partial(look_up, out_of_range="checkify")))
    error, rows = checked(NUMBERED, jnp.array([0, V - 1]))
    assert error.get() is None
    np.testing.assert_array_equal(rows, NUMBERED[jnp.array([0, V - 1])])
    error, _ = checked(NUMBERED, jnp.array([-1, V]))
    assert re.search(r"(ids|positions) go from -1 to 7, outside the table's rows 0 to 6", error.get())


def test_checkify_tells_a_cache_overrun():
    checked = checkify.checkify(jax.jit(functools.partial(positions.check_cache, capacity=4)))
    assert checked(jnp.array([3, 2]), jnp.array([1, 2]))[0].get() is None
    error, _ = checked(jnp.array([3, 2]), jnp.array([1, 3]))
    assert "new tokens do not fit: the cache holds 3 of at most 4 tokens" in error.get()


def test_traced_cache_overrun_is_flagged_and_overwrites_nothing():
    append = jax.jit(lambda cache, new: cache.append(**new))
    once = append(CACHE, NEW)
    new = {**NEW, "keys": -NEW["keys"], "segment_ids": jnp.array([[2, 2, 2], [2, 0, 0]])}
    twice = append(once, new)
    assert once.overflow.tolist() == [False, False] and twice.overflow.tolist() == [True, False]
    np.testing.assert_array_equal(twice.keys[:, :T], once.keys[:, :T])
    assert twice.segment_ids.tolist() == [[1, 1, 1, 2]] * B


def test_int64_is_refused_unless_its_values_can_be_read_on_the_host():
    with (
        jax.enable_x64(True),
        pytest.raises(TypeError, match=r"ids is int64\[2\].*cast it with `.astype\(jnp.int32\)`"),
    ):
        pe.embed(TABLE, jnp.array([0, 1], jnp.int64))
    np.testing.assert_array_equal(pe.embed(NUMBERED, np.array([0, V - 1], np.int64)), NUMBERED[jnp.array([0, V - 1])])
    with pytest.raises(TypeError, match=r"positions is int64\[1\].*cast it"):
        ROPE.cos_sin(np.array([-(2**31) - 1]))


@pytest.mark.parametrize("same", [[0, 1, 2], (0, 1, 2), np.arange(T, dtype=np.uint8), jnp.arange(T, dtype=jnp.int8)])
def test_integers_of_other_kinds_are_taken(same):
    np.testing.assert_array_equal(ALIBI(same, Q), ALIBI(P, Q))
