"""Swin V2: a network of offsets as bias, cosine attention, windows that shift, and two stages.

transformers rolls the picture and cuts windows out of it. Here tokens stay where they are: a window is a segment, and
the bias is that of their places in the whole picture.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from layers import heads, layer_norm, linear, plus_bias
from torch_models import ROUNDING, assert_close, keep_in, tensor, tiny, weights

import posembed_jax as pe

pytestmark = pytest.mark.parity

B, PATCH, WINDOW, HEADS, DEPTHS, EPS = 2, 2, 4, (2, 4), (2, 2), 1e-5
PRETRAINED = (3, 0)
CONFIG = transformers.Swinv2Config(
    embed_dim=12,
    depths=list(DEPTHS),
    num_heads=list(HEADS),
    window_size=WINDOW,
    pretrained_window_sizes=list(PRETRAINED),
    image_size=32,
    patch_size=PATCH,
    mlp_ratio=2.0,
    layer_norm_eps=EPS,
)
norm = functools.partial(layer_norm, eps=EPS)
gelu = functools.partial(jax.nn.gelu, approximate=False)


def windows(grid, shift):
    """The window of each token, `[1, T]` from 1 on, where they begin at `shift`."""
    across = (pe.positions.grid(grid) - shift) // WINDOW + 1
    return (across[:, 0] * (grid[1] // WINDOW + 2) + across[:, 1] + 1)[None]


@functools.partial(jax.jit, static_argnames=("grid", "shift", "count", "pretrained"))
def block(w, x, grid, shift, count, pretrained):
    part, dim = w / "attention.self", x.shape[-1] // count
    scheme = pe.SwinV2Bias(
        heads=count, window=(WINDOW, WINDOW), pretrained_window=(pretrained, pretrained) if pretrained else None
    )
    network = part / "continuous_position_bias_mlp"
    bias = scheme.bind(
        {
            "hidden_kernel": network["0.weight"].T[None],
            "hidden_bias": network["0.bias"][None],
            "out_kernel": network["2.weight"],
        }
    )
    q, k, v = (heads(linear(part / name, x), dim) for name in ("query", "key", "value"))
    q, k = (y / jnp.linalg.norm(y, axis=-1, keepdims=True) for y in (q, k))
    scale = jnp.exp(jnp.minimum(part["logit_scale"], np.float32(np.log(100.0)))).reshape(1, 1, count, 1)
    at, ids = pe.positions.grid(grid), jnp.broadcast_to(windows(grid, shift), x.shape[:2])
    segments = {"query_segment_ids": ids, "key_segment_ids": ids}
    out = pe.attend(q * scale, k, v, bias=bias, scale=1.0, query_positions=at, key_positions=at, **segments)
    x = x + norm(w / "layernorm_before", linear(w / "attention.output.dense", out.reshape(x.shape)))
    fed = linear(w / "output.dense", gelu(linear(w / "intermediate.dense", x)))
    return x + norm(w / "layernorm_after", fed)


@functools.partial(jax.jit, static_argnames="grid")
def merged(w, x, grid):
    """Four neighbours become one token."""
    x = x.reshape(B, grid[0] // 2, 2, grid[1] // 2, 2, -1)
    x = jnp.concatenate([x[:, :, row, :, column] for column in (0, 1) for row in (0, 1)], axis=-1)
    return norm(w / "norm", linear(w / "reduction", x.reshape(B, -1, x.shape[-1])))


@functools.partial(jax.jit)
def embedded(w, pixels):
    part = w / "embeddings.patch_embeddings.projection"
    dimensions = ("NCHW", "OIHW", "NHWC")
    x = jax.lax.conv_general_dilated(pixels, part["weight"], (PATCH, PATCH), "VALID", dimension_numbers=dimensions)
    return norm(w / "embeddings.norm", plus_bias(part, x).reshape(B, -1, x.shape[-1]))


def test_full_pass(dtype):
    theirs = tiny(transformers.Swinv2Model, CONFIG)
    w, hidden = weights(theirs), []
    for stage in theirs.encoder.layers:
        for layer in stage.blocks:
            layer.register_forward_hook(keep_in(hidden))
    grid = (16, 8)
    pixels = jnp.asarray(np.random.default_rng(2).standard_normal((B, 3, *(PATCH * n for n in grid))), jnp.float32)
    want = theirs(tensor(pixels)).last_hidden_state

    x, blocks = embedded(w, pixels), iter(hidden)
    for stage, (depth, count, pretrained) in enumerate(zip(DEPTHS, HEADS, PRETRAINED, strict=True)):
        for layer in range(depth):
            shift = (layer % 2) * (WINDOW // 2)
            x = block(w / f"encoder.layers.{stage}.blocks.{layer}", x, grid, shift, count, pretrained)
            assert_close(f"stage {stage}, layer {layer}", x, next(blocks), ROUNDING)
        if stage == 0:
            x, grid = merged(w / "encoder.layers.0.downsample", x, grid), (grid[0] // 2, grid[1] // 2)
    assert_close("last", norm(w / "layernorm", x), want, ROUNDING)
