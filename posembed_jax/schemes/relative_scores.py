"""The product of each query with the row of a relative table that belongs to a key, without an array `[T, S, D]`.

    found[n, t, s] = query[t, n] . table[n, rows[t, s]]

A query is multiplied with all the rows first, `[N, T, R]`; `pick` then takes one number for each key, and `collect`,
its transpose, sums one for each key into rows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks, lookup


def scores(query: jax.Array, table: jax.Array, *, heads: int, name: str = "query") -> jax.Array:
    """query `[..., T, N, D]` times every row of table `[N or 1, R, D]` -> float32 `[..., N, T, R]`."""
    dim = table.shape[-1]
    needs = f"[..., {heads}, {dim}], the heads and the dim of the settings"
    checks.shape(name, query, (*[None] * (query.ndim - 2), heads, dim), needs)
    dtype = jnp.promote_types(checks.compute_dtype(query.dtype), checks.compute_dtype(table.dtype))
    query, table = query.astype(dtype), table.astype(dtype)
    equation = "...tnd,rd->...ntr" if table.shape[0] == 1 else "...tnd,nrd->...ntr"
    table = table[0] if table.shape[0] == 1 else table
    return jnp.einsum(equation, query, table, precision=lax.Precision.HIGHEST)


@jax.custom_jvp
def pick(scores: jax.Array, rows: jax.Array) -> jax.Array:
    """`scores[n, t, rows[t, s]]`: `[..., N, T, R]` and int32 `[..., T, S]` -> `[..., N, T, S]`, 0 outside 0 ... R - 1.

    The gradient is a product with ones and zeros, unless those would be more than `lookup.LARGEST_PRODUCT`.
    """
    return _gather(scores, rows)


@pick.defjvp
def _pick_jvp(primals, tangents):
    scores, rows = primals
    if _large(rows, scores.shape[-1]):
        return _gather(scores, rows), _gather(tangents[0], rows)  # transposed: a scatter-add
    chosen = jax.nn.one_hot(rows, scores.shape[-1], dtype=scores.dtype)
    tangent = jnp.einsum("...ntr,...tsr->...nts", tangents[0], chosen, precision=lax.Precision.HIGHEST)
    return _gather(scores, rows), tangent


def collect(weights: jax.Array, rows: jax.Array, size: int) -> jax.Array:
    """Weights `[..., N, T, S]` summed over the keys of each row, int32 `[..., T, S]`: `[..., N, T, size]`.

    Keys whose row is outside of 0 ... size - 1 are left out.
    """
    if _large(rows, size):
        like = jax.ShapeDtypeStruct((*weights.shape[:-1], size), weights.dtype)
        return jax.linear_transpose(lambda scores: _gather(scores, rows), like)(weights)[0]
    chosen = jax.nn.one_hot(rows, size, dtype=weights.dtype)
    return jnp.einsum("...nts,...tsr->...ntr", weights, chosen, precision=lax.Precision.HIGHEST)


def distances(query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
    """`key position - query position`: int32 `[..., T]` and `[..., S]` -> `[..., T, S]`."""
    return key_positions[..., None, :] - query_positions[..., :, None]


def _large(rows: jax.Array, size: int) -> bool:
    return rows.size * size > lookup.LARGEST_PRODUCT


def _gather(scores: jax.Array, rows: jax.Array) -> jax.Array:
    size, rows = scores.shape[-1], rows[..., None, :, :]
    shape = jnp.broadcast_shapes(scores.shape[:-1], rows.shape[:-1])
    scores, rows = jnp.broadcast_to(scores, (*shape, size)), jnp.broadcast_to(rows, (*shape, rows.shape[-1]))
    found = jnp.take_along_axis(scores, jnp.clip(rows, 0, size - 1), axis=-1, mode="clip")
    return jnp.where((rows >= 0) & (rows < size), found, 0.0)
