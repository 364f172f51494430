"""The product of each query with the vector of its distance to a key, without an array `[T, S, D]`.

    found[n, t, s] = query[t, n] . vectors[n, distance[t, s]]

Where positions count up, a query is multiplied with the vectors of the `T + S - 1` distances that there are, and each
row of the product is one place further along than the one before: reshaping picks them, as in Transformer-XL and the
Music Transformer. Elsewhere it is multiplied with all rows of a table, `[N, T, R]`; `pick` then takes one number for
each key, and `collect`, its transpose, sums one for each key into rows.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks, lookup


def of_distances(
    query: jax.Array,
    vectors: Callable[[jax.Array], jax.Array],
    distance: jax.Array,
    otherwise: Callable[[], jax.Array],
) -> jax.Array:
    """The product of each query with the vector of each distance.

    Args:
        query: `[..., T, N, D]`.
        vectors: int32 `[W]`, distances -> `[N or 1, W, D]`.
        distance: int32 `[..., 1, T, S]`.
        otherwise: makes the same where `distance[t, s]` is not `distance[0, 0] + s - t` in all rows of the batch.

    Returns:
        float32 `[..., N, T, S]`.
    """
    queries, keys = distance.shape[-2:]
    first = jnp.min(distance[..., 0, 0])
    along = first + jnp.arange(1 - queries, keys, dtype=jnp.int32)
    counted = jnp.all(distance == shear(jnp.broadcast_to(along, (*distance.shape[:-1], along.shape[0]))))
    return lax.cond(counted, lambda: shear(scores(query, vectors(along))), otherwise)


def of_rows(
    query: jax.Array, table: jax.Array, row_of: Callable[[jax.Array], jax.Array], distance: jax.Array
) -> jax.Array:
    """As `of_distances`, the vector of a distance d being `table[n, row_of(d)]`, and 0 where there is no such row.

    table: `[N or 1, R, D]`. row_of: int32 of any shape -> int32.
    """

    def vectors(distance: jax.Array) -> jax.Array:
        found = table.astype(checks.compute_dtype(table.dtype)).at[:, row_of(distance)]
        return found.get(mode="fill", fill_value=0.0, wrap_negative_indices=False)

    return of_distances(query, vectors, distance, lambda: pick(scores(query, table), row_of(distance)))


def check_heads(name: str, x: jax.Array, heads: int, dim: int) -> None:
    """Refuses queries or keys of another number or size of heads than the scheme's."""
    needs = f"[..., {heads}, {dim}], the heads and the size of each that the settings say"
    checks.shape(name, x, (*[None] * (x.ndim - 2), heads, dim), needs)


def shear(x: jax.Array) -> jax.Array:
    """`x[t, s - t + T - 1]`: `[..., T, T + S - 1]` -> `[..., T, S]`, by reshaping."""
    rows, width = x.shape[-2:]
    if rows == 1:
        return x
    flat = x.reshape(*x.shape[:-2], rows * width)
    flat = lax.slice_in_dim(flat, rows - 1, rows - 1 + rows * (width - 1), axis=-1)
    return flat.reshape(*x.shape[:-1], width - 1)[..., : width - rows + 1]


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
