"""The layers of the decoders: how q, k and v come out of their weights, and what those are called."""

import functools

import jax
import jax.numpy as jnp
from layers import heads, layer_norm, linear, mlp, rms_norm
from models import Block

EPS, N, K, D = 1e-6, 4, 2, 16
RANK, NOPE, TURNING, VALUE = 14, 12, 8, 10  # of DeepSeek's attention

norm = functools.partial(rms_norm, eps=EPS)
gated = functools.partial(mlp, up="up_proj", down="down_proj", gate="gate_proj")


def separate(w, x, rotate):
    q, k, v = (heads(linear(w / f"{name}_proj", x), D) for name in "qkv")
    return rotate(q), rotate(k), v


def normed(w, x, rotate):
    q, k, v = (heads(linear(w / f"{name}_proj", x), D) for name in "qkv")
    q, k = (rms_norm(w / f"{name}_norm", y, eps=EPS, offset=1.0) for name, y in (("q", q), ("k", k)))
    return rotate(q), rotate(k), v


def fused(w, x, rotate):
    q, k, v = (heads(y, D) for y in jnp.split(linear(w / "qkv_proj", x), [N * D, (N + K) * D], axis=-1))
    return rotate(q), rotate(k), v


def latent(w, x, rotate):
    """Multi-head latent attention: the channels that turn are one key for all heads."""
    q = linear(w / "q_b_proj", norm(w / "q_a_layernorm", linear(w / "q_a_proj", x)))
    q, q_turning = jnp.split(heads(q, NOPE + TURNING), [NOPE], axis=-1)
    low, k_turning = jnp.split(linear(w / "kv_a_proj_with_mqa", x), [RANK], axis=-1)
    k, v = jnp.split(heads(linear(w / "kv_b_proj", norm(w / "kv_a_layernorm", low)), NOPE + VALUE), [NOPE], axis=-1)
    k_turning = jnp.broadcast_to(rotate(heads(k_turning, TURNING)), q_turning.shape)
    return jnp.concatenate([q, rotate(q_turning)], -1), jnp.concatenate([k, k_turning], -1), v


def fused_by_head(w, x, rotate):
    q, k, v = jnp.split(heads(linear(w / "query_key_value", x), 3 * D), 3, axis=-1)
    return rotate(q), rotate(k), v


def fused_by_part(w, x, rotate):
    q, k, v = (heads(y, D) for y in jnp.split(linear(w / "Wqkv", x), 3, axis=-1))
    return rotate(q), rotate(k), v


def fused_gated(w, x):
    gate, up = jnp.split(linear(w / "gate_up_proj", x), 2, axis=-1)
    return linear(w / "down_proj", jax.nn.silu(gate) * up)


LLAMA = Block(qkv=separate, norm=norm, mlp=functools.partial(gated, act=jax.nn.silu))
GEMMA = Block(
    qkv=normed,
    norm=functools.partial(rms_norm, eps=EPS, offset=1.0),
    mlp=functools.partial(gated, act=jax.nn.gelu),  # the tanh approximation
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)
DEEPSEEK = Block(qkv=latent, norm=norm, mlp=LLAMA.mlp)
PHI = Block(qkv=fused, norm=norm, mlp=fused_gated)
BLOOM = Block(
    qkv=fused_by_head,
    norm=functools.partial(layer_norm, eps=EPS),
    mlp=functools.partial(mlp, act=jax.nn.gelu, up="dense_h_to_4h", down="dense_4h_to_h"),
    attention="self_attention",
    out="dense",
)
MPT = Block(
    qkv=fused_by_part,
    norm=BLOOM.norm,
    mlp=functools.partial(mlp, act=functools.partial(jax.nn.gelu, approximate=False), up="up_proj", down="down_proj"),
    attention="attn",
    out="out_proj",
    feed_forward="ffn",
    before_attention="norm_1",
    before_mlp="norm_2",
)
