"""Attention as it is defined. Every other implementation is tested against this one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks
from posembed_jax.attention.inputs import Inputs


def attend(inputs: Inputs) -> jax.Array:
    """`softmax(scale query key^T + bias, where mask) value`, with the [B, N, T, S] logits and weights in memory."""
    query, key, value = inputs.query, inputs.key, inputs.value
    batch, heads, queries, keys = inputs.logits_shape()
    shared = heads // key.shape[2]  # query heads that share a key head
    dtype, precision = checks.compute_dtype(query.dtype), precision_of(inputs)

    grouped = query.reshape(batch, queries, key.shape[2], shared, query.shape[-1])
    logits = jnp.einsum("btkgd,bskd->bkgts", grouped, key, precision=precision, preferred_element_type=dtype)
    logits = inputs.scale * logits.reshape(batch, heads, queries, keys)
    mask = inputs.mask_values()
    if (bias := inputs.bias_values(mask)) is not None:
        logits = logits + bias
    if inputs.logits_soft_cap is not None:
        logits = inputs.logits_soft_cap * jnp.tanh(logits / inputs.logits_soft_cap)

    weights = softmax(logits, mask)
    if inputs.dropout_key is not None:
        keep = 1.0 - inputs.dropout_rate
        shape = (1, 1, queries, keys) if inputs.broadcast_dropout else weights.shape
        weights = jnp.where(jax.random.bernoulli(inputs.dropout_key, keep, shape), weights / keep, 0.0)

    grouped = weights.astype(value.dtype).reshape(batch, key.shape[2], shared, queries, keys)
    out = jnp.einsum("bkgts,bskd->btkgd", grouped, value, precision=precision, preferred_element_type=dtype)
    out = out.reshape(batch, queries, heads, value.shape[-1])
    if inputs.value_bias is not None:
        out = out + inputs.value_bias(weights, *inputs.positions_of(inputs.value_bias)).astype(dtype)
    return out.astype(query.dtype)


def precision_of(inputs: Inputs) -> Any:
    """Of the products: for float32 the default is bfloat16 on a TPU."""
    if inputs.precision is None and inputs.query.dtype == jnp.float32:
        return lax.Precision.HIGHEST
    return inputs.precision


def softmax(logits: jax.Array, mask: jax.Array | None) -> jax.Array:
    """float32 softmax over the last axis, where mask; a row with nothing to attend is zero, and so is its gradient."""
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf)
    peak = lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=jnp.finfo(logits.dtype).min))
    weights = jnp.exp(logits - peak)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total > 0.0, total, 1.0)
