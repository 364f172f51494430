"""Attention tile by tile, in memory that grows with T + S: online softmax forward, recomputation backward.

The logits are cut into tiles of as many queries as keys, each holding all rows and heads, so that a sharding of either
goes through. Tiles in which nobody attends are left out. The bias of a tile is evaluated where it is needed:

- A `DistanceBias` is the same for all tiles of one diagonal when positions count up, and takes `2 size - 1` values a
  head. Tiles are visited diagonal by diagonal; backward, the gradients of a diagonal are summed in one tile, then over
  equal distances, then through `at`, whose own gradient sums in a fixed order. Nothing is scattered.
- Any other bias is called with the positions (a `ContentBias` also with the queries and keys) of each tile.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.attention import reference
from posembed_jax.attention.inputs import Inputs, check_broadcasts
from posembed_jax.attention.tiles import Where, add_block, block, count_on, fill, fill_unless_shared, gather_up, spread, tile_size
from posembed_jax.scheme import BoundContentBias, BoundDistanceBias

State = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is static in a call; see `attend` for what each is."""

    scale: float
    logits_soft_cap: float | None
    dropout_rate: float
    broadcast_dropout: bool
    precision: Any
    size: int


def attend(inputs: Inputs) -> jax.Array:
    """As the reference, without the [B, N, T, S] arrays."""
    batch, heads, queries, keys = inputs.logits_shape()
    size = tile_size(batch * heads)
    if queries == 1 or (queries <= size and keys <= size):
        return reference.attend(inputs)  # a single row, or a single tile
    precision = inputs.precision
    if precision is None and inputs.query.dtype == jnp.float32:
        precision = lax.Precision.HIGHEST  # the default is bfloat16 on a TPU
    settings = Settings(
        scale=inputs.scale,
        logits_soft_cap=inputs.logits_soft_cap,
        dropout_rate=inputs.dropout_rate if inputs.dropout_key is not None else 0.0,
        broadcast_dropout=inputs.broadcast_dropout,
        precision=precision,
        size=size,
    )
    query, key, value = (fill(jnp.swapaxes(x, 1, 2), 2, size) for x in (inputs.query, inputs.key, inputs.value))
    where = _where(inputs, size)
    out = _attend(settings, query, key, value, _bias(inputs.bias, where), where, inputs.dropout_key)
    return jnp.swapaxes(out[:, :, :queries], 1, 2)


def _where(inputs: Inputs, size: int) -> Where:
    query_ids, key_ids, mask, window = (
        inputs.query_segment_ids, inputs.key_segment_ids, inputs.mask, inputs.window,
    )
    if key_ids is None and inputs.key.shape[1] % size:  # the keys that fill the last tile are padding
        query_ids, key_ids = jnp.ones((1, inputs.query.shape[1]), jnp.int32), jnp.ones((1, inputs.key.shape[1]), jnp.int32)
    if mask is not None:
        mask = mask if mask.ndim == 4 else mask[None, None]
        mask = fill_unless_shared(fill_unless_shared(mask, 2, size), 3, size)
    return Where(
        query_positions=count_on(inputs.query_positions, size),
        key_positions=count_on(inputs.key_positions, size),
        query_segment_ids=None if query_ids is None else fill(query_ids, 1, size),
        key_segment_ids=None if key_ids is None else fill(key_ids, 1, size),
        mask=mask,
        causal=inputs.causal,
        window=window if isinstance(window, tuple) or window is None else (window, window),
        size=size,
    )


def _bias(bias: Any, where: Where) -> Any:
    """The bias as a pytree of arrays that custom_vjp can differentiate."""
    if isinstance(bias, jax.Array):
        return fill_unless_shared(fill_unless_shared(bias, 2, where.size), 3, where.size)
    if all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(bias)):
        return bias
    function, captured = jax.closure_convert(bias, *where.positions(0, 0))
    return jax.tree_util.Partial(lambda captured, *positions: function(*positions, *captured), captured)


def _split(bias: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """The floating arrays of the bias, and what puts them back."""
    leaves, structure = jax.tree.flatten(bias)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def join(values: list[Any], others: Callable[[Any], Any] = lambda leaf: leaf) -> Any:
        rest = iter(values)
        return structure.unflatten(
            [next(rest) if own else others(leaf) for leaf, own in zip(leaves, floating, strict=True)]
        )

    return [leaf for leaf, own in zip(leaves, floating, strict=True) if own], join


def _tile_bias(bias: Any, where: Where, i: Any, j: Any, query: jax.Array, key: jax.Array) -> jax.Array | None:
    """The bias of tile i, j: `[B or 1, N or 1, size, size]`, an axis of a given array possibly 1."""
    if bias is None:
        return None
    if isinstance(bias, jax.Array):
        return block(block(bias, i, where.size, 2), j, where.size, 3).astype(checks.compute_dtype(bias.dtype))
    if isinstance(bias, BoundContentBias):
        values = bias(jnp.swapaxes(query, 1, 2), jnp.swapaxes(key, 1, 2), *where.positions(i, j))
    else:
        values = bias(*where.positions(i, j))
    values = values[None] if values.ndim == 3 else values
    shape = (*query.shape[:2], where.size, where.size)
    check_broadcasts("the value of bias", values, shape, "[N, T, S] or [B, N, T, S]")
    return values.astype(checks.compute_dtype(query.dtype))


def _product(equation: str, x: jax.Array, y: jax.Array, settings: Settings) -> jax.Array:
    """Of `[B, N, ...]` and `[B, K, ...]`: the heads that share a key head become more rows of one matrix."""
    dtype = checks.compute_dtype(y.dtype)
    return jnp.einsum(equation, x.astype(y.dtype), y, precision=settings.precision, preferred_element_type=dtype)


def _group(x: jax.Array, heads: int) -> jax.Array:
    """`[B, N, T, ...]` -> `[B, heads, N / heads * T, ...]`."""
    return x.reshape(x.shape[0], heads, -1, x.shape[3])


def _logits(
    settings: Settings, query: jax.Array, key: jax.Array, bias: jax.Array | None, allowed: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """Logits of a tile, -inf where not allowed, and the derivative of the soft cap."""
    logits = _product("bktd,bksd->bkts", _group(query, key.shape[1]), key, settings)
    logits = settings.scale * logits.reshape(*query.shape[:3], key.shape[2])
    slope = None
    if bias is not None:
        logits = logits + bias
    if settings.logits_soft_cap is not None:
        capped = jnp.tanh(logits / settings.logits_soft_cap)
        logits, slope = settings.logits_soft_cap * capped, 1.0 - capped * capped
    if allowed is not None:
        logits = jnp.where(allowed, logits, -jnp.inf)
    return logits, slope


def _kept(settings: Settings, dropout_key: jax.Array | None, where: Where, i: Any, j: Any, shape: tuple[int, ...]):
    """What dropout multiplies the weights of tile i, j with, the same whenever it is asked."""
    if dropout_key is None:
        return None
    key = jax.random.fold_in(dropout_key, i * where.counts[1] + j)
    keep = 1.0 - settings.dropout_rate
    kept = jax.random.bernoulli(key, keep, (1, 1, *shape[2:]) if settings.broadcast_dropout else shape)
    return kept.astype(jnp.float32) / keep


def _both(one: jax.Array | None, other: jax.Array | None) -> jax.Array | None:
    return other if one is None else one if other is None else one & other


def _visit_all(
    where: Where,
    bias: Any,
    state: State,
    visit: Callable[..., tuple[State, Any]],
    start: Callable[[], Any],
    finish: Callable[..., State],
    anywhere: Callable[..., State],
) -> State:
    """Visits the tiles that are alive."""
    i, j, count = where.order()
    size, first = where.size, 0
    if isinstance(bias, BoundDistanceBias):
        aligned, offset = where.alignment()
        first = jnp.where(aligned, count, 0)

        def diagonal(carry: tuple[jax.Array, State]) -> tuple[jax.Array, State]:
            number, state = carry
            which = j[number] - i[number]
            distance = which * size + offset + jnp.arange(1 - size, size, dtype=jnp.int32)
            values = spread(bias.at(distance))[None]
            allowed = where.allowed_at(distance)
            allowed = None if allowed is None else spread(allowed[None])[None]

            def tile(carry):
                number, state, total = carry
                both = _both(allowed, where.allowed_in(i[number], j[number]))
                return number + 1, *visit(state, total, i[number], j[number], values, both)

            def same(carry):
                return (carry[0] < first) & (j[carry[0]] - i[carry[0]] == which)

            number, state, total = lax.while_loop(same, tile, (number, state, start()))
            return number, finish(state, total, distance)

        _, state = lax.while_loop(lambda carry: carry[0] < first, diagonal, (jnp.int32(0), state))

    def tile(number: jax.Array, state: State) -> State:
        query_positions, key_positions = where.positions(i[number], j[number])
        distance = key_positions[..., None, :] - query_positions[..., :, None]
        allowed = where.allowed_at(distance)
        if allowed is not None:
            allowed = allowed[None, None] if allowed.ndim == 2 else allowed[:, None]
        return anywhere(state, i[number], j[number], _both(allowed, where.allowed_in(i[number], j[number])))

    return lax.fori_loop(first, count, tile, state)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(settings, query, key, value, bias, where, dropout_key):
    return _forward(settings, query, key, value, bias, where, dropout_key)[0]


def _forward(settings, query, key, value, bias, where, dropout_key):
    batch, heads, queries, width = query.shape
    size, dtype = where.size, checks.compute_dtype(query.dtype)

    def visit(state, i, j, values, allowed):
        peak, total, out = (block(x, i, size, 2) for x in state)
        logits, _ = _logits(settings, block(query, i, size, 2), block(key, j, size, 2), values, allowed)
        highest = jnp.maximum(peak, jnp.max(logits, axis=-1))
        weights = jnp.exp(logits - highest[..., None])
        decay = jnp.exp(peak - highest)
        total = total * decay + jnp.sum(weights, axis=-1)
        kept = _kept(settings, dropout_key, where, i, j, weights.shape)
        weights = weights if kept is None else weights * kept
        update = _product("bkts,bksd->bktd", _group(weights, key.shape[1]), block(value, j, size, 2), settings)
        out = out * decay[..., None] + update.reshape(out.shape)
        return tuple(
            lax.dynamic_update_slice_in_dim(x, y, i * size, 2)
            for x, y in zip(state, (highest, total, out), strict=True)
        )

    def anywhere(state, i, j, allowed):
        values = _tile_bias(bias, where, i, j, block(query, i, size, 2), block(key, j, size, 2))
        return visit(state, i, j, values, allowed)

    state = (
        jnp.full((batch, heads, queries), jnp.finfo(dtype).min, dtype),
        jnp.zeros((batch, heads, queries), dtype),
        jnp.zeros((batch, heads, queries, width), dtype),
    )
    peak, total, out = _visit_all(
        where, bias, state,
        lambda state, _, *tile: (visit(state, *tile), ()), tuple, lambda state, *_: state, anywhere,
    )
    seen = total > 0.0
    out = (out / jnp.where(seen, total, 1.0)[..., None]).astype(query.dtype)
    normalizer = jnp.where(seen, peak + jnp.log(total), jnp.inf)  # infinite: all weights are zero backward as well
    return out, (query, key, value, bias, where, dropout_key, out, normalizer)


def _backward(settings, saved, out_dot):
    query, key, value, bias, where, dropout_key, out, normalizer = saved
    size, dtype = where.size, checks.compute_dtype(query.dtype)
    shared = jnp.sum(out.astype(dtype) * out_dot.astype(dtype), axis=-1)
    learned, join = _split(bias)

    def visit(state, i, j, values, allowed):
        """The state with the gradients of one tile to query, key and value added, and that to its logits."""
        query_bar, key_bar, value_bar = state
        here, there, from_value = block(query, i, size, 2), block(key, j, size, 2), block(value, j, size, 2)
        logits, slope = _logits(settings, here, there, values, allowed)
        weights = jnp.exp(logits - block(normalizer, i, size, 2)[..., None])
        bar = block(out_dot, i, size, 2)
        weights_bar = _product("bktd,bksd->bkts", _group(bar, key.shape[1]), from_value, settings).reshape(weights.shape)
        kept, dropped = _kept(settings, dropout_key, where, i, j, weights.shape), weights
        if kept is not None:
            weights_bar, dropped = weights_bar * kept, weights * kept
        logits_bar = weights * (weights_bar - block(shared, i, size, 2)[..., None])
        logits_bar = logits_bar if slope is None else logits_bar * slope
        heads = key.shape[1]
        grouped = _group(logits_bar, heads)
        value_bar = add_block(value_bar, _product("bkts,bktd->bksd", _group(dropped, heads), _group(bar, heads), settings), j, size, 2)
        key_bar = add_block(key_bar, _product("bkts,bktd->bksd", grouped, _group(here, heads), settings), j, size, 2)
        update = _product("bkts,bksd->bktd", grouped, there, settings)
        query_bar = add_block(query_bar, update.reshape(here.shape), i, size, 2)
        return (query_bar, key_bar, value_bar), logits_bar

    def on_diagonal(state, total, i, j, values, allowed):
        state, learned_bar = state
        state, logits_bar = visit(state, i, j, values, allowed)
        return (state, learned_bar), total + logits_bar.sum(0)

    def finish(state, total, distance):
        state, learned_bar = state
        values, pullback = jax.vjp(lambda learned: join(learned).at(distance), learned)
        (update,) = pullback(_sum_to(gather_up(total), values.shape))
        return state, jax.tree.map(_add, learned_bar, update)

    def anywhere(state, i, j, allowed):
        (query_bar, key_bar, value_bar), learned_bar = state
        here, there = block(query, i, size, 2), block(key, j, size, 2)
        values, pullback = jax.vjp(lambda learned, here, there: _tile_bias(join(learned), where, i, j, here, there), learned, here, there)
        state, logits_bar = visit((query_bar, key_bar, value_bar), i, j, values, allowed)
        if values is None:
            return state, learned_bar
        if isinstance(bias, jax.Array):
            update = _sum_to(logits_bar, values.shape)
            before = block(block(learned_bar[0], i, size, 2), j, size, 3)
            starts = (0, 0, 0 if bias.shape[2] == 1 else i * size, 0 if bias.shape[3] == 1 else j * size)
            return state, [lax.dynamic_update_slice(learned_bar[0], before + update, starts)]
        update, here_bar, there_bar = pullback(_sum_to(logits_bar, values.shape))
        if isinstance(bias, BoundContentBias):
            query_bar, key_bar, value_bar = state
            state = (add_block(query_bar, here_bar / settings.scale, i, size, 2), add_block(key_bar, there_bar / settings.scale, j, size, 2), value_bar)
        return state, jax.tree.map(_add, learned_bar, update)

    state = tuple(jnp.zeros(x.shape, dtype) for x in (query, key, value))
    learned_bar = [jnp.zeros(leaf.shape, checks.compute_dtype(leaf.dtype)) for leaf in learned]
    (query_bar, key_bar, value_bar), learned_bar = _visit_all(
        where, bias, (state, learned_bar), on_diagonal, lambda: jnp.zeros((query.shape[1], size, size), dtype), finish, anywhere
    )
    bias_bar = join([bar.astype(leaf.dtype) for bar, leaf in zip(learned_bar, learned, strict=True)], lambda leaf: None)
    return (
        (settings.scale * query_bar).astype(query.dtype),
        (settings.scale * key_bar).astype(key.dtype),
        value_bar.astype(value.dtype),
        bias_bar, None, None,
    )


def _add(total: jax.Array, update: jax.Array) -> jax.Array:
    return total + update.astype(total.dtype)


def _sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """x summed over the axes that have length 1 in `shape`, broadcast before."""
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and x.shape[axis] > 1)
    return x.sum(axes, keepdims=True) if axes else x


_attend.defvjp(_forward, _backward)
