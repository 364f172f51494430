"""Pre-norm transformers in JAX, with torch's weights. All that is positional in them is the library's.

A model is data: what its weights are called and how q, k and v come out of them (`Block`), and what its attention does
in each layer (`Attention`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from layers import Array, Weights, linear

import posembed_jax as pe

Caches = list[pe.KVCache]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """What the attention of one layer does."""

    rotation: pe.RoPE | None = None
    bias: Callable[[Weights], Any] | None = None  # the weights of the model -> a bound bias
    causal: bool = True
    window: tuple[int, int] | None = None
    scale: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """One layer of a model: what it computes, and what its parts are called."""

    qkv: Callable[..., tuple[Array, Array, Array]]  # (weights of the attention, x, rotate) -> q, k, v [B, T, N, D]
    norm: Callable[[Weights, Array], Array]
    mlp: Callable[[Weights, Array], Array]
    attention: str = "self_attn"
    out: str = "o_proj"
    cross: str | None = None  # attention to the encoder
    feed_forward: str = "mlp"
    before_attention: str = "input_layernorm"
    before_cross: str = ""
    before_mlp: str = "post_attention_layernorm"
    after_attention: str | None = None
    after_mlp: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A stack of blocks, an embedding before it and a head behind it."""

    block: Block
    attentions: tuple[Attention, ...]
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens"
    embedding_scale: float | None = None
    after_embedding: str | None = None
    last_norm: str = "model.norm"
    head: str = "lm_head"
    logits_scale: float | None = None


class Tokens(NamedTuple):
    """Where the tokens of one call stand."""

    segment_ids: Array  # int32 [B, T], 0 = padding
    places: Array  # int32 [B, T], in their document: for causality, windows and biases
    positions: Array  # int32 [B, T] or [B, T, A]: for the rotation


class Encoded(NamedTuple):
    """What a decoder attends to besides itself."""

    x: Array  # [B, S, F]
    segment_ids: Array  # int32 [B, S], 0 = padding


class Outputs(NamedTuple):
    attention: list[Array]  # of each layer, after its output projection: [B, T, F]
    hidden: list[Array]  # after each layer: [B, T, F]


@functools.partial(jax.jit, static_argnames="model")
def embed(model: Model, w: Weights, ids: Array) -> Array:
    x = pe.embed(w[f"{model.embedding}.weight"], ids, scale=model.embedding_scale)
    return x if model.after_embedding is None else model.block.norm(w / model.after_embedding, x)


@functools.partial(jax.jit, static_argnames="model")
def run(
    model: Model, w: Weights, x: Array, tokens: Tokens, caches: Caches | None = None, encoded: Encoded | None = None
) -> tuple[Outputs, list[Any]]:
    """x `[B, T, F]` -> what each layer puts out, and its cache with these tokens (None without caches)."""
    attention, hidden, grown = [], [], []
    for i, kind in enumerate(model.attentions):
        part, cache = w / f"{model.layers}.{i}", None if caches is None else caches[i]
        bias = None if kind.bias is None else kind.bias(w)
        out, cache = self_attention(model.block, part, x, tokens, kind, bias, cache)
        x = rest_of_layer(model.block, part, x, out, tokens, kind, encoded)
        attention.append(out)
        hidden.append(x)
        grown.append(cache)
    return Outputs(attention, hidden), grown


@functools.partial(jax.jit, static_argnames="model")
def logits(model: Model, w: Weights, x: Array) -> Array:
    x = model.block.norm(w / model.last_norm, x)
    return pe.logits(w[f"{model.head}.weight"], x, scale=model.logits_scale, precision="highest")


def rest_of_layer(
    block: Block, w: Weights, x: Array, out: Array, tokens: Tokens, kind: Attention, encoded: Encoded | None
) -> Array:
    """x after a layer; out: of its attention."""
    x = x + (out if block.after_attention is None else block.norm(w / block.after_attention, out))
    if block.cross is not None and encoded is not None:
        normed = block.norm(w / block.before_cross, x)
        x = x + cross_attention(block, w / block.cross, normed, tokens, kind, encoded)
    fed = block.mlp(w / block.feed_forward, block.norm(w / block.before_mlp, x))
    return x + (fed if block.after_mlp is None else block.norm(w / block.after_mlp, fed))


def self_attention(
    block: Block, w: Weights, x: Array, tokens: Tokens, kind: Attention, bias: Any, cache: pe.KVCache | None
) -> tuple[Array, pe.KVCache | None]:
    x, w = block.norm(w / block.before_attention, x), w / block.attention
    q, k, v = block.qkv(w, x, rotate_at(kind.rotation, tokens.positions))
    key_places, key_segment_ids = tokens.places, tokens.segment_ids
    if cache is not None:
        cache = cache.append(k, v, tokens.places, tokens.segment_ids)
        k, v, key_places, key_segment_ids = cache.keys, cache.values, cache.positions, cache.segment_ids
    out = pe.attend(
        q,
        k,
        v,
        bias=bias,
        causal=kind.causal,
        window=kind.window,
        scale=kind.scale,
        query_positions=tokens.places,
        key_positions=key_places,
        query_segment_ids=tokens.segment_ids,
        key_segment_ids=key_segment_ids,
    )
    return linear(w / block.out, out.reshape(*x.shape[:2], -1)), cache


def cross_attention(block: Block, w: Weights, x: Array, tokens: Tokens, kind: Attention, encoded: Encoded) -> Array:
    """Without positions."""
    q, _, _ = block.qkv(w, x, lambda y: y)
    _, k, v = block.qkv(w, encoded.x, lambda y: y)
    ids = tokens.segment_ids, encoded.segment_ids
    out = pe.attend(q, k, v, scale=kind.scale, query_segment_ids=ids[0], key_segment_ids=ids[1])
    return linear(w / block.out, out.reshape(*x.shape[:2], -1))


def rotate_at(rope: pe.RoPE | None, positions: Array) -> Callable[[Array], Array]:
    """As in transformers, a scaling that depends on the length goes by the longest row of the batch."""
    if rope is None:
        return lambda x: x
    by_length = isinstance(rope.scaling, pe.LongRoPE)
    bound = rope.bind({}, length=jnp.max(positions) + 1 if by_length else None)
    return lambda x: bound(x, positions)
