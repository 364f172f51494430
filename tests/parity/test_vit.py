"""ViT on a picture of another size than its own: its table is resized, in the model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from layers import heads, layer_norm, linear, mlp, plus_bias
from models import Attention, Block, Model, Tokens, run
from torch_models import ROUNDING, assert_close, assert_same, recorded, tensor, tiny, weights

import posembed_jax as pe

pytestmark = pytest.mark.parity

B, N, D, PATCH, SIDE, LAYERS, EPS = 2, 3, 8, 4, 4, 2, 1e-6
CONFIG = transformers.ViTConfig(
    hidden_size=N * D,
    num_hidden_layers=LAYERS,
    num_attention_heads=N,
    intermediate_size=40,
    image_size=SIDE * PATCH,
    patch_size=PATCH,
    layer_norm_eps=EPS,
)


def qkv(w, x, rotate):
    return tuple(heads(linear(w / f"{name}_proj", x), D) for name in "qkv")


BLOCK = Block(
    qkv=qkv,
    norm=functools.partial(layer_norm, eps=EPS),
    mlp=functools.partial(mlp, act=functools.partial(jax.nn.gelu, approximate=False), up="fc1", down="fc2"),
    attention="attention",
    before_attention="layernorm_before",
    before_mlp="layernorm_after",
)
MODEL = Model(block=BLOCK, attentions=(Attention(causal=False),) * LAYERS, layers="layers", last_norm="layernorm")


@functools.partial(jax.jit, static_argnames="grid")
def embedded(w, pixels, grid):
    """Pixels `[B, 3, H, W]` -> `[B, 1 + T, F]`."""
    part = w / "embeddings.patch_embeddings.projection"
    dimensions = ("NCHW", "OIHW", "NHWC")
    x = jax.lax.conv_general_dilated(pixels, part["weight"], (PATCH, PATCH), "VALID", dimension_numbers=dimensions)
    x = plus_bias(part, x).reshape(B, -1, N * D)
    x = jnp.concatenate([jnp.broadcast_to(w["embeddings.cls_token"], (B, 1, N * D)), x], axis=1)
    table = pe.resize_table(w["embeddings.position_embeddings"][0], (SIDE, SIDE), grid, before=1, shrink=True)
    return x + jnp.broadcast_to(table, x.shape)


@pytest.mark.parametrize("grid", [(6, 9), (3, 7), (4, 4)], ids=str)
def test_full_pass(dtype, grid):
    theirs = tiny(transformers.ViTModel, CONFIG)
    w = weights(theirs)
    pixels = jnp.asarray(np.random.default_rng(1).standard_normal((B, 3, *(PATCH * n for n in grid))), jnp.float32)
    with recorded(theirs, MODEL) as calls:
        want = theirs(tensor(pixels), interpolate_pos_encoding=True).last_hidden_state
    x = embedded(w, pixels, grid)
    places = pe.positions.arange(x.shape[1], jnp.zeros(B, jnp.int32))
    got, _ = run(MODEL, w, x, Tokens(jnp.ones_like(places), places, places))
    assert_same(got, calls[0], ..., ROUNDING)
    assert_close("last", BLOCK.norm(w / MODEL.last_norm, got.hidden[-1]), want, ROUNDING)
