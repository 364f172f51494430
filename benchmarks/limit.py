"""The matrix products of attention tile by tile, and nothing else: what no attention in the same loops can beat.

For each tile of queries and keys that a causal mask leaves something of, diagonal by diagonal and all heads at once as
posembed_jax visits them: two products forward, and five more backward, where the logits are computed a second time. No
bias, no mask, no softmax: the results mean nothing. A limit of these loops and tiles in XLA, not of the machine.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Of `[B, N, ...]` arrays, in the dtype of y, summed in float32."""
    precision = lax.Precision.HIGHEST if y.dtype == jnp.float32 else None
    return jnp.einsum(equation, x.astype(y.dtype), y, precision=precision, preferred_element_type=jnp.float32)


def attention(size: int):
    """A function of query, key and value `[B, S, N, D]` with gradients; S is a multiple of `size`."""

    def block(x, index):
        return lax.dynamic_slice_in_dim(x, index * size, size, axis=2)

    def add(x, update, index):
        return lax.dynamic_update_slice_in_dim(x, block(x, index) + update, index * size, axis=2)

    def over_tiles(visit, state, length):
        blocks = length // size

        def diagonal(distance, state):
            return lax.fori_loop(distance, blocks, lambda i, state: visit(state, i, i - distance), state)

        return lax.fori_loop(0, blocks, diagonal, state)

    @jax.custom_vjp
    def attend(q, k, v):
        return attend_forward(q, k, v)[0]

    def attend_forward(q, k, v):
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))

        def visit(out, i, j):
            weights = product("bntd,bnsd->bnts", block(q, i), block(k, j))
            return add(out, product("bnts,bnsd->bntd", weights, block(v, j)), i)

        out = over_tiles(visit, jnp.zeros(q.shape, jnp.float32), q.shape[2])
        return jnp.swapaxes(out.astype(v.dtype), 1, 2), (q, k, v)

    def attend_backward(saved, out_bar):
        q, k, v = saved
        bar = jnp.swapaxes(out_bar, 1, 2)

        def visit(state, i, j):
            q_bar, k_bar, v_bar = state
            weights = product("bntd,bnsd->bnts", block(q, i), block(k, j))
            weights_bar = product("bntd,bnsd->bnts", block(bar, i), block(v, j))
            v_bar = add(v_bar, product("bnts,bntd->bnsd", weights, block(bar, i)), j)
            k_bar = add(k_bar, product("bnts,bntd->bnsd", weights_bar, block(q, i)), j)
            return add(q_bar, product("bnts,bnsd->bntd", weights_bar, block(k, j)), i), k_bar, v_bar

        zeros = jnp.zeros(q.shape, jnp.float32)
        bars = over_tiles(visit, (zeros, zeros, zeros), q.shape[2])
        return tuple(jnp.swapaxes(x.astype(q.dtype), 1, 2) for x in bars)

    attend.defvjp(attend_forward, attend_backward)
    return attend
