"""The matrix products of attention tile by tile, and nothing else: what no attention in the same loops can beat.

For each tile of queries and keys that a causal mask leaves something of: two products forward, and five more backward,
where the logits are computed a second time. No bias, no mask, no softmax; so the results mean nothing. It is the
limit of these loops and tiles in XLA, not the machine's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def product(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """a and b of two axes each, summed over axis `contract[0]` of a and `contract[1]` of b, in float32."""
    axes = ((contract[:1], contract[1:]), ((), ()))
    return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def tile(x: jax.Array, index: jax.Array, size: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, index * size, size)


def put(x: jax.Array, value: jax.Array, index: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, value.astype(x.dtype), index * value.shape[0], axis=0)


def forward(q: jax.Array, k: jax.Array, v: jax.Array, *, query_tile: int, key_tile: int) -> jax.Array:
    """One head, `[S, D]` each: for every tile of queries, over the tiles of keys that begin no later than it ends."""

    def queries(i, out):
        q_tile = tile(q, i, query_tile)

        def keys(j, sums):
            weights = product(q_tile, tile(k, j, key_tile), (1, 1)).astype(v.dtype)
            return sums + product(weights, tile(v, j, key_tile), (1, 0))

        live = ((i + 1) * query_tile + key_tile - 1) // key_tile
        return put(out, lax.fori_loop(0, live, keys, jnp.zeros(q_tile.shape, jnp.float32)), i)

    return lax.fori_loop(0, q.shape[0] // query_tile, queries, jnp.zeros_like(q))


def backward(q, k, v, cotangent, *, query_tile: int, key_tile: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One head, `[S, D]` each: for every tile of keys, over the tiles of queries that do not end before it begins."""

    def keys(j, gradients):
        dq, dk, dv = gradients
        k_tile, v_tile = tile(k, j, key_tile), tile(v, j, key_tile)

        def queries(i, sums):
            dq, dk_tile, dv_tile = sums
            q_tile, out_tile = tile(q, i, query_tile), tile(cotangent, i, query_tile)
            weights = product(q_tile, k_tile, (1, 1)).astype(q.dtype)
            dweights = product(out_tile, v_tile, (1, 1)).astype(q.dtype)
            dv_tile += product(weights, out_tile, (0, 0))
            dk_tile += product(dweights, q_tile, (0, 0))
            return put(dq, tile(dq, i, query_tile) + product(dweights, k_tile, (1, 0)), i), dk_tile, dv_tile

        zeros = jnp.zeros(k_tile.shape, jnp.float32)
        start = j * key_tile // query_tile
        dq, dk_tile, dv_tile = lax.fori_loop(start, q.shape[0] // query_tile, queries, (dq, zeros, zeros))
        return dq, put(dk, dk_tile, j), put(dv, dv_tile, j)

    start = jnp.zeros(q.shape, jnp.float32), jnp.zeros_like(k), jnp.zeros_like(v)
    dq, dk, dv = lax.fori_loop(0, k.shape[0] // key_tile, keys, start)
    return dq.astype(q.dtype), dk, dv


def over_heads(one_head, arrays: tuple[jax.Array, ...]):
    """Calls `one_head` for each head of `[B, S, N, D]` arrays, one after the other."""
    batch, length, heads, width = arrays[0].shape

    def apart(x):
        return x.swapaxes(1, 2).reshape(batch * heads, length, width)

    def together(x):
        return x.reshape(batch, heads, length, width).swapaxes(1, 2)

    return jax.tree.map(together, lax.map(lambda head: one_head(*head), tuple(map(apart, arrays))))


def attention(query_tile: int, key_tile: int):
    """A function of query, key and value `[B, S, N, D]` with the gradients above; S is a multiple of both tiles."""
    tiles = {"query_tile": query_tile, "key_tile": key_tile}

    @jax.custom_vjp
    def attend(q, k, v):
        return over_heads(lambda *head: forward(*head, **tiles), (q, k, v))

    def attend_forward(q, k, v):
        return attend(q, k, v), (q, k, v)

    def attend_backward(inputs, cotangent):
        return over_heads(lambda *head: backward(*head, **tiles), (*inputs, cotangent))

    attend.defvjp(attend_forward, attend_backward)
    return attend
