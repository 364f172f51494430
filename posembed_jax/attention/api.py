"""`attend`: the checks, the defaults, and the choice of an implementation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from posembed_jax import checks
from posembed_jax.attention import blockwise, places, reference
from posembed_jax.attention.inputs import Inputs, check_broadcasts, sees_mask
from posembed_jax.contracts import BoundBias, BoundContentBias, BoundValueBias
from posembed_jax.scheme import Bound, Scheme

IMPLEMENTATIONS: dict[str, Callable[[Inputs], jax.Array]] = {"reference": reference.attend, "xla": blockwise.attend}


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    bias: Callable[..., jax.Array] | jax.Array | None = None,
    value_bias: Callable[..., jax.Array] | None = None,
    mask: jax.Array | None = None,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    query_positions: jax.Array | None = None,
    key_positions: jax.Array | None = None,
    query_segment_ids: jax.Array | None = None,
    key_segment_ids: jax.Array | None = None,
    scale: float | None = None,
    temperature: jax.Array | None = None,
    logits_soft_cap: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    broadcast_dropout: bool = False,
    precision: Any = None,
    implementation: str | None = None,
) -> jax.Array:
    """Multi-head attention with a position bias.

        logits = scale (temperature query) key^T + bias
        logits = logits_soft_cap tanh(logits / logits_soft_cap)      when there is a soft cap
        weights = softmax(logits, where mask and causal and window and segments)
        out = weights value + value_bias(weights)

    The softmax is in float32. A query with nothing to attend gets zeros, and passes back zero gradients.

    Args:
        query: floating `[B, T, N, D]`.
        key, value: `[B, S, K, D]`, of the query's dtype; K divides N, and query head n uses key head `n // (N / K)`.
            The value may have a D of its own.
        bias: a bound scheme, or any pytree callable `(query_positions, key_positions) -> [N, T, S]` (`[B, N, T, S]` for
            batched positions); or an array `[B, N, T, S]`, 1 on shared axes. A 3-D array is refused: with B == N
            nobody could tell which it is.
        value_bias: a bound `ValueBias`: `(weights, query_positions, key_positions) -> [B, T, N, D]`, linear in weights.
        mask: boolean, True = attend, `[T, S]` or `[B, N, T, S]`, 1 on shared axes.
        causal: a query attends keys at its own position and before.
        window: `(left, right)` or one int for both: how far a query sees, in positions; see `masks.window`.
        query_positions, key_positions: int32 `[T]` or `[B, T]`, `[S]` or `[B, S]`. When T == S one defaults to the
            other, and both to 0, 1, 2 ...; needed otherwise by causal, window and bias. For a bias whose positions are
            A numbers, `[T, A]` or `[B, T, A]`: causal, window and a bias without axes then go by the order of the
            tokens, which needs T == S.
        query_segment_ids, key_segment_ids: int32 `[B, T]`, `[B, S]`: attend within the same document; 0 is padding.
            When T == S, key_segment_ids defaults to query_segment_ids.
        scale: `D ** -0.5` when None; T5 uses 1.
        temperature: floating `[T]` or `[B, T]`, which multiplies queries, such as `SteppedTemperature(...)(positions)`.
        logits_soft_cap: as above.
        dropout_rate, dropout_key: of the attention weights.
        broadcast_dropout: drop the same weights in every row and head, as Flax's attention does by default.
        precision: of the two products; for float32 inputs None means the highest, the same on every backend.
        implementation: "reference" keeps the whole [B, N, T, S] logits in memory, and can be differentiated at will.
            "xla" works tile by tile, in memory that grows with T + S, leaves out tiles in which nobody attends, and has
            first derivatives in reverse mode; up to 2^20 logits, or 32 queries, it is the reference. None chooses:
            "xla" on a CPU, and elsewhere above 2^26 logits.

    Returns:
        `[B, T, N, D]` of the query's dtype, with the D of the value.

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
    _check_biases(bias, value_bias, shape)
    if mask is not None:
        checks.boolean("mask", mask, "boolean [T, S] or [B, N, T, S]")
        checks.rank("mask", mask, {2, 4}, "boolean [T, S] or [B, N, T, S]: add the axes, of size 1")
        check_broadcasts("mask", mask, shape[-mask.ndim :], "boolean [T, S] or [B, N, T, S]")
    if scale is not None:
        checks.number_setting("scale", scale)
    if logits_soft_cap is not None:
        checks.number_setting("logits_soft_cap", logits_soft_cap)
    checks.rate("dropout_rate", dropout_rate)
    checks.flag("broadcast_dropout", broadcast_dropout)
    if dropout_rate > 0.0 and dropout_key is None:
        raise ValueError(f"dropout_key is None; dropout_rate {dropout_rate} needs one: pass a `jax.random.key`.")
    if temperature is not None:
        query = _tempered(query, temperature)

    order, coordinates = places.positions_of(
        query_positions,
        key_positions,
        shape,
        uses_order={"causal": causal, "window": window is not None},
        biases={"bias": bias if callable(bias) else None, "value_bias": value_bias},
    )
    query_segment_ids, key_segment_ids = places.segment_ids_of(query_segment_ids, key_segment_ids, shape)
    inputs = Inputs(
        query=query,
        key=key,
        value=value,
        bias=bias if bias is None or callable(bias) else jnp.asarray(bias),
        value_bias=value_bias,
        mask=mask,
        causal=causal,
        window=None if window is None else checks.window_sizes(window),
        query_positions=order[0],
        key_positions=order[1],
        coordinates=coordinates,
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
    if sees_mask(inputs.bias):
        return "reference"
    if jax.default_backend() == "cpu" or math.prod(inputs.logits_shape()) > 2**26:
        return "xla"
    return "reference"


def _check_heads(query: jax.Array, key: jax.Array, value: jax.Array) -> None:
    checks.rank("query", query, {4}, "floating [B, T, N, D]")
    checks.floating("query", query, "floating [B, T, N, D]")
    batch, _, heads, width = query.shape
    if heads == 0 or width == 0:
        raise ValueError(
            f"query is {checks.describe(query)}; it needs to be floating [B, T, N, D], N and D at least 1."
        )
    needs = f"[B, S, K, D] with the B, D and dtype of the query, which is {checks.describe(query)}"
    checks.shape("key", key, (batch, None, None, width), needs)
    checks.shape("value", value, (*key.shape[:3], None), f"[B, S, K, D] as the key, which is {checks.describe(key)}")
    for name, x in (("key", key), ("value", value)):
        if x.dtype != query.dtype:
            raise TypeError(f"{name} is {checks.describe(x)}; it needs to be {needs}: cast all three to one dtype.")
    if key.shape[2] == 0 or heads % key.shape[2]:
        raise ValueError(
            f"key is {checks.describe(key)}, with {key.shape[2]} heads; they need to divide the {heads} of the query."
        )


def _check_biases(bias: Any, value_bias: Any, shape: tuple[int, int, int, int]) -> None:
    if isinstance(bias, Scheme):
        raise TypeError(f"bias is {bias!r}; it needs to be bound to its arrays: pass `scheme.bind(params)`.")
    if isinstance(bias, Bound) and not isinstance(bias, BoundBias | BoundContentBias):
        name = type(bias.scheme).__name__
        raise TypeError(f"bias is a bound {name}; it needs to be a bound Bias or ContentBias: it acts elsewhere.")
    if isinstance(bias, BoundContentBias):
        for name, x, size in zip(("query", "key"), bias.content, shape[2:], strict=True):
            if x is not None:
                needs = f"[B, T, ...] as attention's {name}, that is [{shape[0]}, {size}, ...]"
                checks.rank(f"the {name} content of bias", x, range(2, 9), needs)
                checks.shape(f"the {name} content of bias", x, (shape[0], size, *x.shape[2:]), needs)
    if bias is not None and not callable(bias):
        remedy = "a 3-D array could be [B, T, S] or [N, T, S], so add the axis: bias[None] or bias[:, None]"
        checks.rank("bias", bias, {4}, f"a bound scheme or an array [B, N, T, S], that is {list(shape)}; {remedy}")
        checks.floating("bias", bias, "floating [B, N, T, S]")
        check_broadcasts("bias", bias, shape, "floating [B, N, T, S]")
    other = isinstance(value_bias, Scheme | Bound) and not isinstance(value_bias, BoundValueBias)
    if value_bias is not None and (other or not callable(value_bias)):
        came = checks.describe(value_bias)
        raise TypeError(f"value_bias is {came}; it needs to be a bound ValueBias: pass `scheme.bind(params)`.")


def _tempered(query: jax.Array, temperature: Any) -> jax.Array:
    needs = f"floating [T] or [B, T] of the query, which is {checks.describe(query)}"
    checks.rank("temperature", temperature, {1, 2}, needs)
    checks.floating("temperature", temperature, needs)
    checks.shape("temperature", temperature, query.shape[2 - temperature.ndim : 2], needs)
    dtype = checks.compute_dtype(query.dtype)
    each = jnp.asarray(temperature, dtype).reshape(*[1] * (2 - temperature.ndim), *temperature.shape, 1, 1)
    return (query.astype(dtype) * each).astype(query.dtype)
