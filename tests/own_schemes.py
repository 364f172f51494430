"""Schemes of a user's own, the smallest of each contract that takes more than two positions."""

import dataclasses

import jax
import jax.numpy as jnp

import posembed_jax as pe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plane(pe.DistanceBias):
    """slope[n, 0] abs(rows apart) + slope[n, 1] sin(columns apart)"""

    heads: int

    @property
    def position_axes(self):
        return 2

    def inits(self):
        return {"slope": pe.normal(1.0, (self.heads, 2))}

    def at(self, arrays, distance):
        slope = arrays["slope"].reshape(-1, *[1] * (distance.ndim - 1), 2)
        parts = jnp.stack(
            [jnp.abs(distance[..., 0]).astype(jnp.float32), jnp.sin(distance[..., 1].astype(jnp.float32))], axis=-1
        )
        return jnp.sum(slope * parts[None], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gates(pe.ContentBias):
    """content of the query times content of the key, each one number of a token and head."""

    heads: int
    content_axes = ("T, N", "S, N")

    def pairs(self, arrays, query, key, query_positions, key_positions):
        return jnp.einsum("...tn,...sn->...nts", query, key, precision="highest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crowd(pe.ContentBias):
    """How many keys each query sees: a function of all of them."""

    heads: int
    sees_mask = True

    def pairs(self, arrays, query, key, query_positions, key_positions, mask):
        shape = (query.shape[0], self.heads, query.shape[1], key.shape[1])
        return jnp.broadcast_to(jnp.sum(jnp.broadcast_to(mask, shape), -1, jnp.float32, keepdims=True), shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside(pe.ValueBias):
    """vectors[sign of the distance]"""

    features: int

    def inits(self):
        return {"vectors": pe.normal(1.0, (3, self.features))}

    def summed(self, arrays, weights, query_positions, key_positions):
        sign = jnp.sign(key_positions[..., None, :] - query_positions[..., :, None]) + 1
        sign = jnp.broadcast_to(sign, (*weights.shape[:-3], *sign.shape[-2:]))
        chosen = jax.nn.one_hot(sign, 3, dtype=jnp.float32)
        return jnp.einsum("...nts,...tsk,kd->...tnd", weights, chosen, arrays["vectors"], precision="highest")
