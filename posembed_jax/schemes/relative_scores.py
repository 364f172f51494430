"""The product of each query with the row of a relative table that belongs to a key, without an array `[T, S, D]`.

    found[n, t, s] = query[t, n] . table[n, rows[t, s]]

A query is multiplied with the rows first, `[N, T, R]`; `pick` then takes one number for each key, and `collect`, its
transpose, sums one for each key into rows. Where a tile's positions count up, its rows are next to each other: of a
large table only so many are multiplied.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks, lookup


def of_rows(query: jax.Array, table: jax.Array, rows: jax.Array, *, heads: int, name: str = "query") -> jax.Array:
    """The product of each query with the row of each key, and 0 where there is no such row.

    Args:
        query: `[..., T, N, D]`; N is `heads`.
        table: `[N or 1, R, D]`.
        rows: int32 `[..., 1, T, S]`.
        name: of the query, in messages.

    Returns:
        float32 `[..., N, T, S]`.
    """
    dim, size, near = table.shape[-1], table.shape[1], rows.shape[-2] + rows.shape[-1] - 1
    needs = f"[..., {heads}, {dim}], the heads and the last axis that the settings say"
    checks.shape(name, query, (*[None] * (query.ndim - 2), heads, dim), needs)
    if size <= near:
        return pick(scores(query, table), rows)
    inside = jnp.clip(rows, 0, size - 1)
    first = jnp.min(inside)
    start = jnp.minimum(first, size - near)

    def neighbours(query: jax.Array, table: jax.Array) -> jax.Array:
        return pick(scores(query, lax.dynamic_slice_in_dim(table, start, near, axis=1)), rows - start)

    def whole(query: jax.Array, table: jax.Array) -> jax.Array:
        return pick(scores(query, table), rows)

    return lax.cond(jnp.max(inside) - first < near, neighbours, whole, query, table)


def scores(query: jax.Array, table: jax.Array) -> jax.Array:
    """query `[..., T, N, D]` times every row of table `[N or 1, R, D]` -> float32 `[..., N, T, R]`."""
    dtype = jnp.promote_types(checks.compute_dtype(query.dtype), checks.compute_dtype(table.dtype))
    query, table = query.astype(dtype), table.astype(dtype)
    equation = "...tnd,rd->...ntr" if table.shape[0] == 1 else "...tnd,nrd->...ntr"
    table = table[0] if table.shape[0] == 1 else table
    return jnp.einsum(equation, query, table, precision=lax.Precision.HIGHEST)


def of_all_heads(key: jax.Array, heads: int) -> jax.Array:
    """key `[..., S, K, D]` for each of the heads of the query that share it: `[..., S, N, D]`."""
    shared, rest = divmod(heads, key.shape[-2])
    if rest:
        raise ValueError(
            f"key is {checks.describe(key)}, with {key.shape[-2]} heads; they need to divide the {heads} of the scheme."
        )
    return key if shared == 1 else jnp.repeat(key, shared, axis=-2)


@jax.custom_jvp
def pick(scores: jax.Array, rows: jax.Array) -> jax.Array:
    """`scores[n, t, rows[t, s]]`, and 0 where there is no such row.

    The gradient is a product with ones and zeros, unless those would be more than `lookup.LARGEST_PRODUCT`.

    Args:
        scores: `[..., N, T, R]`.
        rows: int32 `[..., N or 1, T, S]`.

    Returns:
        `[..., N, T, S]`.
    """
    return _gather(scores, rows)


@pick.defjvp
def _pick_jvp(primals, tangents):
    scores, rows = primals
    if rows.shape[-3] > 1 or _large(rows, scores.shape[-1]):
        return _gather(scores, rows), _gather(tangents[0], rows)  # transposed: a scatter-add
    chosen = jax.nn.one_hot(rows[..., 0, :, :], scores.shape[-1], dtype=scores.dtype)
    tangent = jnp.einsum("...ntr,...tsr->...nts", tangents[0], chosen, precision=lax.Precision.HIGHEST)
    return _gather(scores, rows), tangent


def collect(weights: jax.Array, rows: jax.Array, size: int) -> jax.Array:
    """Weights `[..., N, T, S]` summed over the keys of each row, int32 `[..., 1, T, S]`: `[..., N, T, size]`.

    Keys whose row is outside of 0 ... size - 1 are left out.
    """
    if _large(rows, size):
        like = jax.ShapeDtypeStruct((*weights.shape[:-1], size), weights.dtype)
        return jax.linear_transpose(lambda scores: _gather(scores, rows), like)(weights)[0]
    chosen = jax.nn.one_hot(rows[..., 0, :, :], size, dtype=weights.dtype)
    return jnp.einsum("...nts,...tsr->...ntr", weights, chosen, precision=lax.Precision.HIGHEST)


def distances(query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
    """`key position - query position`, the same for all heads: int32 `[..., T]`, `[..., S]` -> `[..., 1, T, S]`."""
    return key_positions[..., None, None, :] - query_positions[..., None, :, None]


def _large(rows: jax.Array, size: int) -> bool:
    return rows.size * size > lookup.LARGEST_PRODUCT


def _gather(scores: jax.Array, rows: jax.Array) -> jax.Array:
    size = scores.shape[-1]
    shape = jnp.broadcast_shapes(scores.shape[:-1], rows.shape[:-1])
    scores, rows = jnp.broadcast_to(scores, (*shape, size)), jnp.broadcast_to(rows, (*shape, rows.shape[-1]))
    found = jnp.take_along_axis(scores, jnp.clip(rows, 0, size - 1), axis=-1, mode="clip")
    return jnp.where((rows >= 0) & (rows < size), found, 0.0)
