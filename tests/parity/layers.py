"""torch's weights by name, and the parts of a transformer that know nothing of positions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Weights:
    """torch's parameters by name; `weights / "layers.0"` are those of a part, by their names in it."""

    arrays: dict[str, Array]
    prefix: str = dataclasses.field(default="", metadata={"static": True})

    def __truediv__(self, part: str) -> Weights:
        return Weights(self.arrays, f"{self.prefix}{part}." if part else self.prefix)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[self.prefix + name]

    def get(self, name: str) -> Array | None:
        return self.arrays.get(self.prefix + name)


def linear(w: Weights, x: Array) -> Array:
    return plus_bias(w, jnp.einsum("...f,gf->...g", x, w["weight"], precision="highest"))


def rms_norm(w: Weights, x: Array, *, eps: float, offset: float = 0.0) -> Array:
    """offset: 1 where the weight is kept less 1 (Gemma)."""
    scale = jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps)
    return x * scale * jnp.broadcast_to(offset + w["weight"], x.shape)


def layer_norm(w: Weights, x: Array, *, eps: float) -> Array:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps)
    return plus_bias(w, x * scale * jnp.broadcast_to(w["weight"], x.shape))


def plus_bias(w: Weights, x: Array) -> Array:
    bias = w.get("bias")
    return x if bias is None else x + jnp.broadcast_to(bias, x.shape)


def mlp(w: Weights, x: Array, *, act: Callable[[Array], Array], up: str, down: str, gate: str | None = None) -> Array:
    inner = act(linear(w / up, x)) if gate is None else act(linear(w / gate, x)) * linear(w / up, x)
    return linear(w / down, inner)


def heads(x: Array, dim: int) -> Array:
    """`[B, T, N * dim]` -> `[B, T, N, dim]`."""
    return x.reshape(*x.shape[:-1], -1, dim)
