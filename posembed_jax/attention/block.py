"""What the Linen and the NNX faces share: attention behind the projections, with positions and a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from posembed_jax import checks, positions
from posembed_jax.attention.api import attend
from posembed_jax.attention.cache import KVCache
from posembed_jax.contracts import Bias, BoundRotation, ContentBias, Rotation, ValueBias
from posembed_jax.scheme import Arrays, Scheme

KERNELS = ("query", "key", "value", "out")
Rotate = BoundRotation | None
BiasFn = Callable[..., jax.Array] | None


def self_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    token_positions: jax.Array | None,
    segment_ids: jax.Array | None,
    cache: KVCache | None,
    rotation: Rotate,
    bias: BiasFn,
    value_bias: BiasFn,
    causal: bool,
    window: int | tuple[int, int] | None,
    scale: float | None,
    temperature: Callable[[jax.Array], jax.Array] | None,
    logits_soft_cap: float | None,
    dropout_rate: float,
    dropout_key: jax.Array | None,
    implementation: str | None,
) -> tuple[jax.Array, KVCache | None]:
    """Rotates query and key, appends to the cache when there is one, and attends."""
    batch, length = query.shape[:2]
    if cache is not None:
        checks.contract("cache", cache, KVCache, "a KVCache such as KVCache.empty(...)")
    if temperature is not None and (isinstance(temperature, type) or not callable(temperature)):
        came = checks.describe(temperature)
        raise TypeError(f"temperature is {came}; it needs to be a function of positions: pass LogTemperature(...).")
    if segment_ids is not None:
        needs = f"int32 [B, T], that is {[batch, length]}"
        segment_ids = checks.integers("segment_ids", segment_ids, needs)
        checks.shape("segment_ids", segment_ids, (batch, length), needs)
    elif cache is not None:
        segment_ids = jnp.broadcast_to(cache.last_segment_ids()[:, None], (batch, length))
    axes = _axes(rotation, bias, value_bias)
    order, given = _order(token_positions, axes, rotation, (batch, length), cache, segment_ids)
    if rotation is not None:
        at = order if rotation.position_axes is None else given
        query, key = rotation(query, at), rotation.for_keys()(key, at)
    by_axes = any(getattr(x, "position_axes", None) is not None for x in (bias, value_bias))
    query_positions = key_positions = given if by_axes else order
    key_segment_ids = segment_ids
    if cache is not None and segment_ids is not None:
        if by_axes:
            raise ValueError(f"cache is given, but the bias has positions of {axes} axes, which a cache does not hold.")
        cache = cache.append(key, value, jnp.broadcast_to(order, (batch, length)), segment_ids)
        key, value = cache.keys.astype(query.dtype), cache.values.astype(query.dtype)
        key_positions, key_segment_ids = cache.positions, cache.segment_ids
    out = attend(
        query,
        key,
        value,
        bias=bias,
        value_bias=value_bias,
        causal=causal,
        window=window,
        query_positions=query_positions,
        key_positions=key_positions,
        query_segment_ids=segment_ids,
        key_segment_ids=key_segment_ids,
        scale=scale,
        temperature=None if temperature is None else temperature(order),
        logits_soft_cap=logits_soft_cap,
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
        implementation=implementation,
    )
    if cache is not None:
        out = jnp.where(cache.overflow[:, None, None, None], jnp.nan, out)  # a wrong answer would look like a right one
    return out, cache


def _axes(*users: Any) -> int | None:
    """How many numbers the positions have that the rotation and the biases take; those without axes go by the order."""
    found = {axes for user in users if (axes := getattr(user, "position_axes", None)) is not None}
    if len(found) > 1:
        raise ValueError(f"rotation and bias have positions of {sorted(found)} axes; they need to have as many.")
    return found.pop() if found else None


def _order(
    token_positions: Any,
    axes: int | None,
    rotation: Rotate,
    shape: tuple[int, int],
    cache: KVCache | None,
    segment_ids: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Where tokens stand in a row, int32 `[T]` or `[B, T]`, and their positions as they were given."""
    batch, length = shape
    if token_positions is None and (cache is None or axes is not None):
        without = "without a cache" if axes is None else f"of {axes} axes"
        last = "" if axes is None else f", {axes}"
        raise ValueError(
            f"positions is None; {without} it needs to be int32 [{length}{last}] or [{batch}, {length}{last}]: pass "
            "posembed_jax.positions.arange(T), or from_segment_ids or from_mask for packed or padded rows."
        )
    counted = None if cache is None or segment_ids is None else cache.next_positions(segment_ids)
    fractional = axes is not None and rotation is not None and rotation.scheme.fractional
    given = checks.positions(
        "positions", counted if token_positions is None else token_positions, fractional=fractional, axes=axes
    )
    sizes = (length,) if axes is None else (length, axes)
    needs = f"int32 {list(sizes)} or {[batch, *sizes]}"
    checks.shape("positions", given, (batch, *sizes)[-given.ndim :], needs)
    if axes is None:
        return given, given
    return positions.arange(length) if counted is None else counted, given


def bind(scheme: Scheme | None, arrays: Arrays, length: int | jax.Array | None) -> Any:
    """The bound scheme, for sequences of `length` where it is a rotation that depends on it; None stays None."""
    if isinstance(scheme, Rotation):
        return scheme.bind(arrays, length=length)
    if length is not None:
        raise ValueError(f"length is given, but there is no rotation that depends on it, only {scheme}: leave it out.")
    return None if scheme is None else scheme.bind(arrays)


def check_contract(name: str, scheme: Any) -> None:
    """Refuses settings of a contract that does not act where `name` says."""
    contracts, example = {
        "rotation": (Rotation, "a Rotation such as RoPE(...)"),
        "bias": ((Bias, ContentBias), "a Bias such as T5Bias(...)"),
        "value_bias": (ValueBias, "a ValueBias such as ShawValues(...)"),
    }[name]
    checks.contract(name, scheme, contracts, f"{example}, or a Scheme module that holds one")


def head_dim(features: int, heads: int, key_value_heads: int | None, given: int | None) -> int:
    """D of an attention block, after checking its sizes."""
    checks.integer_setting("heads", heads)
    if key_value_heads is not None:
        checks.integer_setting("key_value_heads", key_value_heads)
        if heads % key_value_heads:
            raise ValueError(f"key_value_heads is {key_value_heads}; it needs to divide heads, {heads}.")
    if given is not None:
        checks.integer_setting("head_dim", given)
        return given
    if features % heads:
        raise ValueError(f"features is {features}; it needs to be a multiple of heads, {heads}, or pass head_dim.")
    return features // heads


def refuse_given(**arguments: Any) -> None:
    """Refuses what Flax's own attention function can do and `attend` cannot."""
    for name, value in arguments.items():
        if value is not None:
            raise NotImplementedError(f"{name} is set, and AttentionFn cannot honour it: leave it at its default.")


def flax_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    rotation: Rotate,
    bias: BiasFn,
    token_positions: jax.Array | None,
    mask: jax.Array | None,
    is_causal: bool,
    scale: float | None,
    dropout_rng: jax.Array | None,
    dropout_rate: float,
    broadcast_dropout: bool,
    deterministic: bool,
    dtype: Any,
    precision: Any,
    implementation: str | None,
) -> jax.Array:
    """The work of Flax's `attention_fn`, for its own attention modules, which cache keys before they are rotated."""
    dtype = jnp.result_type(query, key, value) if dtype is None else dtype
    query, key, value = query.astype(dtype), key.astype(dtype), value.astype(dtype)
    mask = None if mask is None else jnp.asarray(mask, bool)
    axes = _axes(rotation, bias)
    given = None if axes is None else _flax_coordinates(query, key, token_positions, axes)
    order = flax_positions(query, key, mask, token_positions if axes is None else None)
    given = order if given is None else given
    if rotation is not None:
        query_at, key_at = order if rotation.position_axes is None else given
        query, key = rotation(query, query_at), rotation.for_keys()(key, key_at)
    query_positions, key_positions = order if getattr(bias, "position_axes", None) is None else given
    drop = not deterministic and dropout_rate > 0.0
    return attend(
        query,
        key,
        value,
        bias=bias,
        mask=mask,
        causal=is_causal,
        query_positions=query_positions,
        key_positions=key_positions,
        scale=scale,
        dropout_rate=dropout_rate if drop else 0.0,
        dropout_key=dropout_rng if drop else None,
        broadcast_dropout=broadcast_dropout,
        precision=precision,
        implementation=implementation,
    )


def _flax_coordinates(query: jax.Array, key: jax.Array, given: Any, axes: int) -> tuple[jax.Array, jax.Array]:
    if given is None or query.shape[1] != key.shape[1]:
        raise ValueError(
            f"positions is {checks.describe(given)} with {query.shape[1]} queries and {key.shape[1]} keys; positions "
            f"of {axes} axes need to be given, for self-attention without a cache."
        )
    return given, given


def flax_positions(
    query: jax.Array, key: jax.Array, mask: jax.Array | None, token_positions: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Positions of queries and keys inside a Flax attention module.

    In a full pass both are `token_positions`, or 0, 1, 2 ... In cached decoding there is one query, the keys are the
    slots of the cache, and the query stands at the last slot that Flax's own mask lets it see.
    """
    checks.rank("query", query, {4}, "[B, T, N, D]: Flax attention with one batch axis")
    queries, keys = query.shape[1], key.shape[1]
    if queries == keys:
        both = positions.arange(keys) if token_positions is None else token_positions
        return both, both
    if token_positions is None:
        if queries != 1 or mask is None:
            raise ValueError(
                f"positions is None; with {queries} queries and {keys} keys this is neither self-attention nor "
                "cached decoding: pass positions of the queries."
            )
        seen = jnp.any(mask, axis=(1, 2))
        last = keys - 1 - jnp.argmax(seen[:, ::-1], axis=1).astype(jnp.int32)
        token_positions = jnp.broadcast_to(last[:, None], (query.shape[0], 1))
    return token_positions, positions.arange(keys)
