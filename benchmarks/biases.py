"""The biases of `attention.py`, twice: as posembed_jax takes them, and as the array that its peers take.

`BOUND[name](params)` is a pytree callable `(query_positions, key_positions) -> [N, T, S]`; T5 and ALiBi come with
posembed_jax, KERPLE and FIRE are written here as a user would write them. `ARRAY[name](params, length)` is the usual
formula, float32 `[N, length, length]`, for queries and keys at 0 ... length - 1.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from attention_inputs import HEADS, T5_BUCKETS, T5_MAX_DISTANCE, alibi_slopes

import posembed_jax as pe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kerple(pe.DistanceBias):
    """bias = -strength[n] log(1 + rate[n] |distance|).

    Source: https://arxiv.org/abs/2205.09921, the logarithmic variant.
    """

    heads: int

    def inits(self):
        return {name: pe.Initializer((self.heads,), jax.nn.initializers.ones) for name in ("strength", "rate")}

    def at(self, arrays, distance):
        strength, rate = (arrays[name].reshape(-1, *[1] * distance.ndim) for name in ("strength", "rate"))
        return -strength * jnp.log1p(rate * jnp.abs(distance)[None])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fire:
    """An MLP of log(1 + rate d) / log(1 + rate max(query position, threshold)), d = query - key position >= 0.

    Source: https://arxiv.org/abs/2310.04418, section 3.
    """

    arrays: dict[str, jax.Array]

    def __call__(self, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        rate, threshold = self.arrays["rate"], self.arrays["threshold"]
        queries = query_positions[:, None]
        distance = jnp.maximum(queries - key_positions[None, :], 0)
        relative = jnp.log1p(rate * distance) / jnp.log1p(rate * jnp.maximum(queries, threshold))
        hidden = jax.nn.relu(relative[..., None] * self.arrays["first"] + self.arrays["first_bias"])
        return jnp.einsum("tsf,nf->nts", hidden, self.arrays["last"])


T5 = pe.T5Bias(heads=HEADS, buckets=T5_BUCKETS, max_distance=T5_MAX_DISTANCE, bidirectional=False)
BOUND = {"t5": T5.bind, "alibi": pe.ALiBi(heads=HEADS).bind, "kerple": Kerple(heads=HEADS).bind, "fire": Fire}


# ---------------------------------------------------------------- as arrays


def distances(length: int) -> jax.Array:
    """query position - key position, 0 where the key comes after: int32 `[length, length]`."""
    positions = jnp.arange(length)
    return jnp.maximum(positions[:, None] - positions[None, :], 0)


def t5_bucket(distance: jax.Array) -> jax.Array:
    """With the logarithm in float32, as T5 implementations have it."""
    exact = T5_BUCKETS // 2
    log = jnp.log(jnp.maximum(distance, 1) / exact) / math.log(T5_MAX_DISTANCE / exact)
    return jnp.where(distance < exact, distance, jnp.minimum(exact + (log * exact).astype(int), T5_BUCKETS - 1))


def t5_array(params, length):
    return jnp.take(params["table"], t5_bucket(distances(length)), axis=1)


def alibi_array(params, length):
    return -jnp.asarray(alibi_slopes())[:, None, None] * distances(length)


def kerple_array(params, length):
    strength, rate = params["strength"][:, None, None], params["rate"][:, None, None]
    return -strength * jnp.log1p(rate * distances(length))


def fire_array(params, length):
    positions = jnp.arange(length)
    return Fire(params)(positions, positions)


ARRAY = {"t5": t5_array, "alibi": alibi_array, "kerple": kerple_array, "fire": fire_array}
