"""Rotation by tables of each head, for schemes that learn something for each."""

from __future__ import annotations

import jax

from posembed_jax import checks
from posembed_jax.schemes.layouts import rotate


def rotate_heads(x: jax.Array, cos: jax.Array, sin: jax.Array, *, layout: str, inverse: bool) -> jax.Array:
    """`rotate` with tables of K heads: x `[..., T, N, D]`, cos and sin float32 `[..., T, K, dim / 2]` or without batch.

    The N heads of x share the K tables in groups, as queries share keys: head n has table `n // (N / K)`.
    """
    heads, tables = x.shape[-2], cos.shape[-2]
    if heads % tables:
        raise ValueError(
            f"x is {checks.describe(x)}, with {heads} heads; it needs a multiple of {tables}, the key_value_heads."
        )

    def group(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        return rotate(x, cos, sin, layout=layout, inverse=inverse)

    grouped = x.reshape(*x.shape[:-2], tables, heads // tables, x.shape[-1])
    return jax.vmap(group, in_axes=(-3, -2, -2), out_axes=-3)(grouped, cos, sin).reshape(x.shape)
