"""Attention tile by tile, in memory that grows with T + S: online softmax forward, recomputation backward.

A tile holds all rows and heads, so that a sharding of either goes through. `tiles.py` says which tiles are alive,
`walk.py` visits them with their biases; here is what happens to a tile.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from posembed_jax import checks
from posembed_jax.attention import reference, walk
from posembed_jax.attention.inputs import Inputs, sees_mask
from posembed_jax.attention.tiles import (
    Tiles,
    add_block,
    block,
    count_on,
    fill,
    fill_unless_shared,
    put_block,
    tile_size,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is static in a call; see `attend` for what each is."""

    scale: float
    logits_soft_cap: float | None
    dropout_rate: float
    broadcast_dropout: bool
    precision: Any


def attend(inputs: Inputs) -> jax.Array:
    """As `reference.attend`, which it calls when one tile holds all logits. Differentiable once, in reverse mode."""
    size = tile_size(inputs.logits_shape())
    if size is None:
        return reference.attend(inputs)
    if sees_mask(inputs.bias):
        raise ValueError(
            "implementation is 'xla'; the bias is a function of all the keys that a query attends, which are in no one "
            "tile: it needs implementation='reference'."
        )
    settings = Settings(
        scale=inputs.scale,
        logits_soft_cap=inputs.logits_soft_cap,
        dropout_rate=inputs.dropout_rate,
        broadcast_dropout=inputs.broadcast_dropout,
        precision=reference.precision_of(inputs),
    )
    tiles = _cut(inputs, size)
    query, key, value = (fill(jnp.swapaxes(x, 1, 2), 2, size) for x in (inputs.query, inputs.key, inputs.value))
    attention = functools.partial(_attend, settings)
    sharding = jax.typeof(query).sharding
    if sharding.mesh.explicit_axes:  # slices of tiles and sums over them are left to the compiler, as on an Auto mesh
        attention = jax.sharding.auto_axes(attention, out_sharding=sharding)
    bias = walk.as_arrays(inputs.bias, tiles)
    weights = jax.ShapeDtypeStruct((*query.shape[:2], size, size), checks.compute_dtype(query.dtype))
    value_bias = walk.as_arrays(inputs.value_bias, tiles, weights)
    out = attention(query, key, value, bias, value_bias, tiles, inputs.dropout_key)
    return jnp.swapaxes(out[:, :, : inputs.query.shape[1]], 1, 2)


def _cut(inputs: Inputs, size: int) -> Tiles:
    query_ids, key_ids, mask = inputs.query_segment_ids, inputs.key_segment_ids, inputs.mask
    lengths = inputs.query.shape[1], inputs.key.shape[1]
    if key_ids is None and any(length % size for length in lengths):  # what fills up the last tile is padding
        query_ids, key_ids = (jnp.ones((1, x.shape[1]), jnp.int32) for x in (inputs.query, inputs.key))
    if mask is not None:
        mask = fill_unless_shared(mask if mask.ndim == 4 else mask[None, None], size)
    return Tiles(
        query_positions=count_on(inputs.query_positions, size),
        key_positions=count_on(inputs.key_positions, size),
        coordinates=None if inputs.coordinates is None else _filled(inputs.coordinates, size),
        query_segment_ids=None if query_ids is None else fill(query_ids, 1, size),
        key_segment_ids=None if key_ids is None else fill(key_ids, 1, size),
        mask=mask,
        causal=inputs.causal,
        window=inputs.window,
        size=size,
    )


def _filled(coordinates: tuple[jax.Array, jax.Array], size: int) -> tuple[jax.Array, jax.Array]:
    query, key = (fill(x, x.ndim - 2, size) for x in coordinates)
    return query, key


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    settings: Settings,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: Any,
    value_bias: Any,
    tiles: Tiles,
    dropout_key: Any,
) -> jax.Array:
    """query `[B, N, T, D]`, key and value `[B, K, S, D]` in whole tiles -> `[B, N, T, D]`, with the D of the value."""
    return _forward(settings, query, key, value, bias, value_bias, tiles, dropout_key)[0]


def _forward(settings, query, key, value, bias, value_bias, tiles, dropout_key):
    size, heads, dtype = tiles.size, key.shape[1], checks.compute_dtype(query.dtype)

    def visit(state, i, j, values, allowed):
        peak, total, out = (block(x, i, size, 2) for x in state)
        logits, _ = _logits(settings, block(query, i, size, 2), block(key, j, size, 2), values, allowed)
        new_peak = jnp.maximum(peak, jnp.max(logits, axis=-1))
        weights, decay = jnp.exp(logits - new_peak[..., None]), jnp.exp(peak - new_peak)
        new_total = total * decay + jnp.sum(weights, axis=-1)
        weights = _drop(settings, dropout_key, tiles, i, j, weights)
        update = _product(settings, "bkts,bksd->bktd", _group(weights, heads), block(value, j, size, 2))
        new_out = out * decay[..., None] + update.reshape(out.shape)
        if value_bias is not None:
            new_out = new_out + _beside_values(value_bias, weights, tiles, i, j)
        new = (new_peak, new_total, new_out)
        return tuple(put_block(x, y, i, size, 2) for x, y in zip(state, new, strict=True)), None

    lowest = jnp.full(query.shape[:3], jnp.finfo(dtype).min, dtype)
    state = (lowest, jnp.zeros_like(lowest), jnp.zeros((*query.shape[:3], value.shape[-1]), dtype))
    soft_cap = settings.logits_soft_cap is not None
    (peak, total, out), _ = walk.walk(tiles, bias, query, key, state, visit, soft_cap=soft_cap)
    seen = total > 0.0
    out = (out / jnp.where(seen, total, 1.0)[..., None]).astype(query.dtype)
    normalizer = jnp.where(seen, peak + jnp.log(total), jnp.inf)  # infinite where nothing is seen: all weights 0
    return out, (query, key, value, bias, value_bias, tiles, dropout_key, out, normalizer)


@jax.custom_jvp
def _once(x: jax.Array) -> jax.Array:
    """x, which refuses to be differentiated."""
    return x


@_once.defjvp
def _once_jvp(primals, tangents):
    raise NotImplementedError(
        "implementation is 'xla', which has first derivatives in reverse mode only; for second derivatives pass "
        "implementation='reference'."
    )


def _backward(settings, saved, out_bar):
    query, key, value, bias, value_bias, tiles, dropout_key, out, normalizer = saved
    query, key, value, out_bar = map(_once, (query, key, value, out_bar))
    bias, value_bias = (
        rebuild([_once(x) for x in learned]) for learned, rebuild in map(walk.split, (bias, value_bias))
    )
    beside, rebuild_beside = walk.split(value_bias)
    size, heads, dtype = tiles.size, key.shape[1], checks.compute_dtype(query.dtype)
    projection = jnp.sum(out.astype(dtype) * out_bar.astype(dtype), axis=-1)  # sum over keys of weights * weights_bar

    def visit(state, i, j, values, allowed):
        (query_bar, key_bar, value_bar), beside_bar = state
        here, there, bar = block(query, i, size, 2), block(key, j, size, 2), block(out_bar, i, size, 2)
        logits, slope = _logits(settings, here, there, values, allowed)
        weights = jnp.exp(logits - block(normalizer, i, size, 2)[..., None])
        weights_bar = _product(settings, "bktd,bksd->bkts", _group(bar, heads), block(value, j, size, 2))
        weights_bar, dropped = weights_bar.reshape(weights.shape), _drop(settings, dropout_key, tiles, i, j, weights)
        if value_bias is not None:
            _, pull_back = jax.vjp(
                lambda beside, weights: _beside_values(rebuild_beside(beside), weights, tiles, i, j), beside, dropped
            )
            updates, more = pull_back(bar.astype(dtype))
            weights_bar = weights_bar + more
            beside_bar = [x + y.astype(x.dtype) for x, y in zip(beside_bar, updates, strict=True)]
        weights_bar = _drop(settings, dropout_key, tiles, i, j, weights_bar)
        logits_bar = weights * (weights_bar - block(projection, i, size, 2)[..., None])
        logits_bar = logits_bar if slope is None else logits_bar * slope

        value_update = _product(settings, "bkts,bktd->bksd", _group(dropped, heads), _group(bar, heads))
        key_update = _product(settings, "bkts,bktd->bksd", _group(logits_bar, heads), _group(here, heads))
        query_update = _product(settings, "bkts,bksd->bktd", _group(logits_bar, heads), there).reshape(here.shape)
        value_bar = add_block(value_bar, value_update, j, size, 2)
        key_bar = add_block(key_bar, key_update, j, size, 2)
        query_bar = add_block(query_bar, query_update, i, size, 2)
        return ((query_bar, key_bar, value_bar), beside_bar), logits_bar

    state = tuple(jnp.zeros(x.shape, dtype) for x in (query, key, value)), walk.zero_gradients(value_bias, query, key)
    gradients = walk.zero_gradients(bias, query, key)
    soft_cap = settings.logits_soft_cap is not None
    ((query_bar, key_bar, value_bar), beside_bar), gradients = walk.walk(
        tiles, bias, query, key, state, visit, soft_cap=soft_cap, gradients=gradients
    )
    query_bar, key_bar = settings.scale * query_bar, settings.scale * key_bar
    bias_bar, content_bars = walk.gradient_of(bias, gradients)
    query_bar, key_bar = (
        x if more is None else x + more for x, more in zip((query_bar, key_bar), content_bars, strict=True)
    )
    bars = [x.astype(like.dtype) for x, like in zip((query_bar, key_bar, value_bar), (query, key, value), strict=True)]
    return *bars, bias_bar, walk.gradient_of(value_bias, beside_bar)[0], None, None


_attend.defvjp(_forward, _backward)


def _group(x: jax.Array, heads: int) -> jax.Array:
    """`[B, N, T, ...]` -> `[B, heads, N / heads * T, ...]`: heads that share a key head are more rows of one matrix."""
    return x if x.shape[1] == heads else x.reshape(x.shape[0], heads, -1, x.shape[3])


def _product(settings: Settings, equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """In the dtype of y, summed in float32."""
    dtype = checks.compute_dtype(y.dtype)
    return jnp.einsum(equation, x.astype(y.dtype), y, precision=settings.precision, preferred_element_type=dtype)


def _beside_values(value_bias: Any, weights: jax.Array, tiles: Tiles, i: jax.Array, j: jax.Array) -> jax.Array:
    """What the value bias adds to the output of tile i, j: `[B, N, size, D]`."""
    return jnp.swapaxes(value_bias(weights, *tiles.positions_for(value_bias, i, j)), 1, 2).astype(weights.dtype)


def _logits(
    settings: Settings, query: jax.Array, key: jax.Array, bias: jax.Array | None, allowed: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """The logits of a tile `[B, N, size, size]`, -inf where not allowed, and the slope of the soft cap."""
    logits = _product(settings, "bktd,bksd->bkts", _group(query, key.shape[1]), key)
    logits, slope = settings.scale * logits.reshape(*query.shape[:3], key.shape[2]), None
    if bias is not None:
        logits = logits + bias
    if settings.logits_soft_cap is not None:
        capped = jnp.tanh(logits / settings.logits_soft_cap)
        logits, slope = settings.logits_soft_cap * capped, 1.0 - capped * capped
    if allowed is not None:
        logits = jnp.where(allowed, logits, -jnp.inf)
        slope = None if slope is None else jnp.where(allowed, slope, 0.0)  # a bias may be anything where not allowed
    return logits, slope


def _drop(settings: Settings, key: Any, tiles: Tiles, i: jax.Array, j: jax.Array, weights: jax.Array) -> jax.Array:
    """The weights of tile i, j, or their gradient, after dropout: the same are kept whenever it is asked."""
    if key is None:
        return weights
    key = jax.random.fold_in(key, i * (tiles.key_positions.shape[-1] // tiles.size) + j)
    keep = 1.0 - settings.dropout_rate
    kept = jax.random.bernoulli(key, keep, (1, 1, *weights.shape[2:]) if settings.broadcast_dropout else weights.shape)
    return jnp.where(kept, weights / keep, 0.0)
