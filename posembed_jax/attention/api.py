"""`attend`: the checks, the defaults, and the choice of an implementation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from posembed_jax import checks, positions
from posembed_jax.attention import blockwise, reference
from posembed_jax.attention.inputs import Inputs, check_broadcasts
from posembed_jax.scheme import Scheme

IMPLEMENTATIONS: dict[str, Callable[[Inputs], jax.Array]] = {"reference": reference.attend, "xla": blockwise.attend}


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    bias: Callable[..., jax.Array] | jax.Array | None = None,
    mask: jax.Array | None = None,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    query_positions: jax.Array | None = None,
    key_positions: jax.Array | None = None,
    query_segment_ids: jax.Array | None = None,
    key_segment_ids: jax.Array | None = None,
    scale: float | None = None,
    logits_soft_cap: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    broadcast_dropout: bool = False,
    precision: Any = None,
    implementation: str | None = None,
) -> jax.Array:
    """Multi-head attention with a position bias.

        logits = scale query key^T + bias
        logits = logits_soft_cap tanh(logits / logits_soft_cap)      when there is a soft cap
        out = softmax(logits, where mask and causal and window and segments) value

    The softmax is in float32. A query with nothing to attend gets zeros, and passes back zero gradients.

    Args:
        query: floating `[B, T, N, D]`.
        key, value: `[B, S, K, D]`, of the query's dtype; K divides N, and query head n uses key head `n // (N / K)`.
        bias: a bound scheme, or any pytree callable `(query_positions, key_positions) -> [N, T, S]` (`[B, N, T, S]` for
            batched positions); or an array `[B, N, T, S]`, 1 on shared axes. A 3-D array is refused: with B == N
            nobody could tell which it is.
        mask: boolean, True = attend, `[T, S]` or `[B, N, T, S]`, 1 on shared axes.
        causal: a query attends keys at its own position and before.
        window: `(left, right)` or one int for both: how far a query sees, in positions; see `masks.window`.
        query_positions, key_positions: int32 `[T]` or `[B, T]`, `[S]` or `[B, S]`. Default to 0, 1, 2 ... when
            T == S; needed otherwise by causal, window and bias.
        query_segment_ids, key_segment_ids: int32 `[B, T]`, `[B, S]`: attend within the same document; 0 is padding.
            When T == S, key_segment_ids defaults to query_segment_ids.
        scale: `D ** -0.5` when None; T5 uses 1.
        logits_soft_cap: as above.
        dropout_rate, dropout_key: of the attention weights.
        broadcast_dropout: drop the same weights in every row and head, as Flax's attention does by default.
        precision: of the two products; for float32 inputs None means the highest, the same on every backend.
        implementation: "reference" keeps the whole [B, N, T, S] logits in memory, and can be differentiated at will.
            "xla" works tile by tile, in memory that grows with T + S, leaves out tiles in which nobody attends, and has
            first derivatives in reverse mode; up to 2^20 logits, or 32 queries, it is the reference. None chooses:
            "xla" on a CPU, and elsewhere above 2^26 logits.

    Returns:
        `[B, T, N, D]` of the query's dtype.

    >>> import jax, posembed_jax as pe
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 4, 8))
    >>> pe.attend(q, k, v, causal=True, bias=pe.ALiBi(heads=4).bind({})).shape
    (2, 5, 4, 8)

    Source: https://arxiv.org/abs/1706.03762, section 3.2.
    """
    checks.one_of("implementation", "reference" if implementation is None else implementation, tuple(IMPLEMENTATIONS))
    _check_heads(query, key, value)
    batch, queries, heads, width = query.shape
    keys = key.shape[1]
    shape = (batch, heads, queries, keys)

    checks.flag("causal", causal)
    if isinstance(bias, Scheme):
        raise TypeError(f"bias is {bias!r}; it needs to be bound to its arrays: pass `scheme.bind(params)`.")
    if bias is not None and not callable(bias):
        remedy = "a 3-D array could be [B, T, S] or [N, T, S], so add the axis: bias[None] or bias[:, None]"
        checks.rank("bias", bias, {4}, f"a bound scheme or an array [B, N, T, S], that is {list(shape)}; {remedy}")
        checks.floating("bias", bias, "floating [B, N, T, S]")
        check_broadcasts("bias", bias, shape, "floating [B, N, T, S]")
        bias = jnp.asarray(bias)
    if mask is not None:
        checks.boolean("mask", mask, "boolean [T, S] or [B, N, T, S]")
        checks.rank("mask", mask, {2, 4}, "boolean [T, S] or [B, N, T, S]: add the axes, of size 1")
        check_broadcasts("mask", mask, shape[-mask.ndim :], "boolean [T, S] or [B, N, T, S]")
    if scale is not None:
        checks.number_setting("scale", scale)
    if logits_soft_cap is not None:
        checks.number_setting("logits_soft_cap", logits_soft_cap)
    checks.rate("dropout_rate", dropout_rate)
    if dropout_rate > 0.0 and dropout_key is None:
        raise ValueError(f"dropout_key is None; dropout_rate {dropout_rate} needs one: pass a `jax.random.key`.")

    users = {"causal": causal, "window": window is not None, "bias": callable(bias)}
    needed_by = [name for name, uses in users.items() if uses]
    query_positions, key_positions = _positions(query_positions, key_positions, shape, needed_by)
    query_segment_ids, key_segment_ids = _segment_ids(query_segment_ids, key_segment_ids, shape)
    inputs = Inputs(
        query=query,
        key=key,
        value=value,
        bias=bias,
        mask=mask,
        causal=causal,
        window=window,
        query_positions=query_positions,
        key_positions=key_positions,
        query_segment_ids=query_segment_ids,
        key_segment_ids=key_segment_ids,
        scale=width**-0.5 if scale is None else scale,
        logits_soft_cap=logits_soft_cap,
        dropout_rate=dropout_rate,
        dropout_key=dropout_key if dropout_rate > 0.0 else None,
        broadcast_dropout=broadcast_dropout,
        precision=precision,
    )
    return IMPLEMENTATIONS[implementation or _fastest(inputs)](inputs)


def _fastest(inputs: Inputs) -> str:
    """On a CPU, where both were timed, "xla" (which is the reference up to 2^20 logits); elsewhere, where neither
    was, "xla" once the logits of the reference would take 256 MiB in float32."""
    if jax.default_backend() == "cpu" or math.prod(inputs.logits_shape()) > 2**26:
        return "xla"
    return "reference"


def _check_heads(query: jax.Array, key: jax.Array, value: jax.Array) -> None:
    checks.rank("query", query, {4}, "floating [B, T, N, D]")
    checks.floating("query", query, "floating [B, T, N, D]")
    batch, _, heads, width = query.shape
    needs = f"[B, S, K, D] with the B, D and dtype of the query, which is {checks.describe(query)}"
    checks.shape("key", key, (batch, None, None, width), needs)
    checks.shape("value", value, (*key.shape[:3], None), f"[B, S, K, D] as the key, which is {checks.describe(key)}")
    for name, x in (("key", key), ("value", value)):
        if x.dtype != query.dtype:
            raise TypeError(f"{name} is {checks.describe(x)}; it needs to be {needs}: cast all three to one dtype.")
    if heads % key.shape[2]:
        raise ValueError(
            f"key is {checks.describe(key)}, with {key.shape[2]} heads; they need to divide the {heads} of the query."
        )


def _positions(
    query_positions: Any, key_positions: Any, shape: tuple[int, ...], needed_by: list[str]
) -> tuple[jax.Array, jax.Array]:
    batch, _, queries, keys = shape
    found = []
    for name, x, size in (("query_positions", query_positions, queries), ("key_positions", key_positions, keys)):
        if x is not None:
            x = checks.positions(name, x)
            checks.shape(name, x, (batch, size)[-x.ndim :], f"int32 [{size}] or [{batch}, {size}]")
        elif needed_by and queries != keys:
            raise ValueError(
                f"{name} is None; {' and '.join(needed_by)} with {queries} queries and {keys} keys needs it, to know "
                "where the queries stand among the keys: pass posembed_jax.positions.arange(length, offset)."
            )
        else:
            x = positions.arange(size)
        found.append(x)
    return found[0], found[1]


def _segment_ids(queries: Any, keys: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    if queries is None and keys is None:
        return None, None
    if queries is None:
        raise ValueError("query_segment_ids is None but key_segment_ids is not; pass both.")
    if keys is None:
        if shape[2] != shape[3]:
            raise ValueError(f"key_segment_ids is None; with {shape[2]} queries and {shape[3]} keys, pass both.")
        keys = queries
    batch = shape[0]
    checks.shape("query_segment_ids", queries, (batch, shape[2]), f"int32 [B, T], that is {[batch, shape[2]]}")
    checks.shape("key_segment_ids", keys, (batch, shape[3]), f"int32 [B, S], that is {[batch, shape[3]]}")
    return queries, keys
