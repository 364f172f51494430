"""The token table: look-up on the way in, tied logits on the way out."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks, lookup


def embed(
    table: jax.Array,
    ids: jax.Array,
    *,
    dtype: Any = None,
    scale: float | None = None,
    scale_dtype: Any = jnp.float32,
    out_of_range: str = "error",
    out_sharding: Any = None,
) -> jax.Array:
    """Token embeddings `x[..., f] = scale * table[ids[...], f]`.

    The rows are gathered from the table as it is stored and cast after, so the table's gradient is summed in float32.

    Args:
        table: floating `[V, F]`.
        ids: int32 `[...]`, each in 0 ... V - 1.
        dtype: of the result; the table's own when None.
        scale: multiplies the rows, `sqrt(F)` in the original transformer, T5 and Gemma; None does nothing.
        scale_dtype: the dtype in which rows and scale are multiplied. Gemma's published code does it in bfloat16,
            where sqrt(3072) is 55.5.
        out_of_range: what an id outside the table does. "error": `ValueError` when the ids are concrete and a row of
            NaN (never another token's row) when they are traced; "clip": the nearest row; "checkify": a
            `checkify.check`. Negative ids never wrap.
        out_sharding: of the result, needed where the mesh is Explicit.

    Returns:
        `[..., F]`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.embed(jnp.ones((5, 3)), jnp.array([[0, 4]])).shape
    (1, 2, 3)

    Source: https://arxiv.org/abs/1706.03762, section 3.4.
    """
    checks.shape("table", table, (None, None), "a floating table [V, F]")
    checks.floating("table", table, "a floating table [V, F]")
    ids = checks.integers("ids", ids, "int32 token ids")
    checks.float_dtype("dtype", dtype)
    x = lookup.rows(table, ids, name="ids", out_of_range=out_of_range, out_sharding=out_sharding)
    if scale is not None:
        checks.factor("scale", scale)
        checks.float_dtype("scale_dtype", scale_dtype)
        x = x.astype(scale_dtype) * jnp.asarray(scale, scale_dtype)
    return x.astype(table.dtype if dtype is None else dtype)


PRIMES = (31, 43, 59, 61, 73, 97, 103, 113, 137, 149, 157, 173, 181, 193, 211, 223)  # CANINE's


def embed_hashed(tables: jax.Array, ids: jax.Array) -> jax.Array:
    """Embeddings of characters without a vocabulary: a row of each of several small tables, side by side.

        x[..., h, :] = tables[h, (ids[...] + 1) * PRIMES[h] mod V]

    Args:
        tables: floating `[H, V, F / H]`, of at most 16 hashes.
        ids: int32 `[...]`, such as Unicode code points, none of them negative.

    Returns:
        float32 `[..., F]`; NaN where an id is negative and traced, a `ValueError` where it is concrete.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.embed_hashed(jnp.ones((4, 16, 2)), jnp.array([104, 105])).shape
    (2, 8)

    Source: https://arxiv.org/abs/2103.06874, section 3.1.
    """
    checks.shape("tables", tables, (None, None, None), "a floating [H, V, F / H]")
    checks.floating("tables", tables, "a floating [H, V, F / H]")
    ids = checks.integers("ids", ids, "int32 ids, such as code points")
    hashes, rows, features = tables.shape
    if hashes > len(PRIMES) or rows > 2**31 // PRIMES[-1]:
        raise ValueError(
            f"tables is {checks.describe(tables)}; it needs at most {len(PRIMES)} tables of at most "
            f"{2**31 // PRIMES[-1]} rows: there are so many primes, and products need to fit int32."
        )
    if checks.is_concrete(ids) and ids.size and np.min(np.asarray(ids)) < 0:
        raise ValueError(f"ids has {np.min(np.asarray(ids))}; it needs to be at least 0 everywhere.")
    bucket = (ids % rows + 1) % rows  # below V, so that a product with a prime fits int32
    places = jnp.stack([bucket * prime % rows + h * rows for h, prime in enumerate(PRIMES[:hashes])], axis=-1)
    places = jnp.where(ids[..., None] >= 0, places, -1)
    x = lookup.rows(jnp.asarray(tables).reshape(-1, features), places, name="ids")
    return x.reshape(*ids.shape, hashes * features)


def logits(
    table: jax.Array,
    x: jax.Array,
    *,
    dtype: Any = jnp.float32,
    scale: float | None = None,
    precision: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """Tied logits `logits[..., v] = scale * sum_f x[..., f] table[v, f]`.

    Args:
        table: floating `[V, F]`, cast to the dtype of x for the product.
        x: floating `[..., F]`.
        dtype: in which the products are summed and returned; float32 also when x is bfloat16.
        scale: multiplies the logits, `F ** -0.5` in T5 with tied embeddings; None does nothing.
        precision: of the product, as in `jax.lax.dot_general`.
        out_sharding: of the result, for Explicit meshes.

    Returns:
        `[..., V]`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.logits(jnp.ones((5, 3)), jnp.ones((2, 4, 3), jnp.bfloat16)).dtype
    dtype('float32')

    Source: https://arxiv.org/abs/1608.05859.
    """
    checks.shape("table", table, (None, None), "a floating table [V, F]")
    checks.floating("table", table, "a floating table [V, F]")
    needs = f"floating [..., F] with the F of the table, which is {checks.describe(table)}"
    checks.floating("x", x, needs)
    checks.shape("x", x, (*x.shape[:-1], table.shape[1]), needs)
    checks.float_dtype("dtype", dtype)
    if scale is not None:
        checks.factor("scale", scale)
    out = _product(table, x, dtype, precision, out_sharding)
    return out if scale is None else out * jnp.asarray(scale, dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _product(table: jax.Array, x: jax.Array, dtype: Any, precision: Any, out_sharding: Any) -> jax.Array:
    return jnp.einsum(
        "...f,vf->...v",
        x,
        table.astype(x.dtype),
        preferred_element_type=dtype,
        precision=precision,
        out_sharding=out_sharding,
    )


@_product.defjvp
def _product_jvp(dtype, precision, out_sharding, primals, tangents):
    table, x = primals
    table_dot, x_dot = tangents
    wide = checks.compute_dtype(table.dtype)  # transposed: the table's gradient, not rounded to the dtype of x
    along_table = _product(table_dot.astype(wide), x.astype(wide), dtype, precision, out_sharding)
    return _product(table, x, dtype, precision, out_sharding), along_table + _product(
        table, x_dot, dtype, precision, out_sharding
    )
