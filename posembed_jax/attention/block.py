"""What the Linen and the NNX faces share: attention behind the projections, with positions and a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from posembed_jax import checks, positions
from posembed_jax.attention.api import attend
from posembed_jax.attention.cache import KVCache
from posembed_jax.scheme import Bias, BoundRotation, ContentBias, Rotation

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
    causal: bool,
    window: int | tuple[int, int] | None,
    scale: float | None,
    logits_soft_cap: float | None,
    dropout_rate: float,
    dropout_key: jax.Array | None,
    implementation: str | None,
) -> tuple[jax.Array, KVCache | None]:
    """Rotates query and key, appends to the cache when there is one, and attends."""
    batch, length = query.shape[:2]
    axes = getattr(getattr(rotation, "scheme", None), "position_axes", None)
    if token_positions is None and (cache is None or axes is not None):
        without = "without a cache" if axes is None else f"with the {axes} axes of rotation"
        last = "" if axes is None else f", {axes}"
        raise ValueError(
            f"positions is None; {without} it needs to be int32 [{length}{last}] or [{batch}, {length}{last}]: pass "
            "posembed_jax.positions.arange(T), or from_segment_ids or from_mask for packed or padded rows."
        )
    if segment_ids is not None:
        needs = f"int32 [B, T], that is {[batch, length]}"
        segment_ids = checks.integers("segment_ids", segment_ids, needs)
        checks.shape("segment_ids", segment_ids, (batch, length), needs)
    if cache is not None:
        segment_ids = jnp.ones((batch, length), jnp.int32) if segment_ids is None else segment_ids
        token_positions = cache.next_positions(segment_ids) if token_positions is None else token_positions
    fractional = axes is not None and rotation is not None and rotation.scheme.fractional
    token_positions = checks.positions("positions", token_positions, fractional=fractional, axes=axes)
    last = () if axes is None else (axes,)
    needs = f"int32 {[length, *last]} or {[batch, length, *last]}"
    checks.shape("positions", token_positions, (batch, length, *last)[-token_positions.ndim :], needs)
    if rotation is not None:
        query, key = rotation(query, token_positions), rotation.for_keys()(key, token_positions)
    if axes is not None:  # no order of their own: masks and biases go by the order of the tokens
        in_order = positions.arange(length)
        token_positions = in_order if cache is None else cache.next_positions(segment_ids)
    key_positions, key_segment_ids = token_positions, segment_ids
    if cache is not None and segment_ids is not None:
        everyone = jnp.broadcast_to(token_positions, (batch, length))
        cache = cache.append(key, value, everyone, segment_ids)
        key, value = cache.keys.astype(query.dtype), cache.values.astype(query.dtype)
        key_positions, key_segment_ids = cache.positions, cache.segment_ids
    out = attend(
        query,
        key,
        value,
        bias=bias,
        causal=causal,
        window=window,
        query_positions=token_positions,
        key_positions=key_positions,
        query_segment_ids=segment_ids,
        key_segment_ids=key_segment_ids,
        scale=scale,
        logits_soft_cap=logits_soft_cap,
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
        implementation=implementation,
    )
    if cache is not None:
        out = jnp.where(cache.overflow[:, None, None, None], jnp.nan, out)  # a wrong answer would look like a right one
    return out, cache


def check_contract(name: str, scheme: Any) -> None:
    """Refuses settings of a contract that does not act where `name` says."""
    contracts = {"rotation": Rotation, "bias": (Bias, ContentBias)}[name]
    example = {"rotation": "a Rotation such as RoPE(...)", "bias": "a Bias such as T5Bias(...)"}[name]
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
    query_positions, key_positions = flax_positions(query, key, mask, token_positions)
    if rotation is not None:
        query, key = rotation(query, query_positions), rotation.for_keys()(key, key_positions)
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
