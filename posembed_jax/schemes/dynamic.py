"""A network of the offset of two positions, for images and sequences of any size (CrossFormer)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import DistanceBias
from posembed_jax.scheme import Arrays, Initializer
from posembed_jax.schemes.mlp import uniform

LAYERS = 3  # before the last, each with a layer norm


def dynamic_position_bias(arrays: Arrays, offset: jax.Array) -> jax.Array:
    """`[..., A]` -> `[heads, ...]`, of its dtype."""
    arrays = {name: x.astype(offset.dtype) for name, x in arrays.items()}
    x = offset.reshape(-1, offset.shape[-1])
    for layer in range(LAYERS):
        x = jnp.dot(x, arrays[f"kernel_{layer}"][0], precision=lax.Precision.HIGHEST) + arrays[f"bias_{layer}"]
        x = jax.nn.standardize(x, epsilon=1e-5) * arrays[f"scale_{layer}"] + arrays[f"shift_{layer}"]
        x = jax.nn.relu(x)
    out = jnp.dot(arrays["out_kernel"], x.T, precision=lax.Precision.HIGHEST) + arrays["out_bias"][:, None]
    return out.reshape(-1, *offset.shape[:-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class DynamicPositionBias(DistanceBias):
    """A network of the offset itself, so that there is no table to resize and no furthest distance.

        x_0 = offset = query_positions[t] - key_positions[s]
        x_{i + 1} = relu(scale_i layer_norm(x_i kernel_i + bias_i) + shift_i),   i = 0, 1, 2
        bias[n, t, s] = out_kernel[n] . x_3 + out_bias[n]

    Args:
        heads: N.
        axes: A numbers of a position, or None where it is one.
        hidden: H; a quarter of the features of a stage, in the paper.

    Params: `{"kernel_i": [1, A, H], then [1, H, H], "bias_i", "scale_i", "shift_i": [1, H], "out_kernel": [heads, H],
    "out_bias": [heads]}` for i = 0, 1, 2; A = 1 where axes is None.

    >>> import jax, posembed_jax as pe
    >>> scheme, at = pe.DynamicPositionBias(heads=4, hidden=8), pe.positions.grid((2, 3))
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(at, at).shape
    (4, 6, 6)

    Source: https://arxiv.org/abs/2108.00154, section 3.3.
    """

    heads: int
    hidden: int
    axes: int | None = 2

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("hidden", self.hidden)
        if self.axes is not None:
            checks.integer_setting("axes", self.axes)

    @property
    def position_axes(self) -> int | None:
        return self.axes

    def inits(self) -> dict[str, Initializer]:
        found, row = {}, (1, self.hidden)
        for layer in range(LAYERS):
            inputs = self.hidden if layer else self.axes or 1
            found[f"kernel_{layer}"] = uniform(inputs, 1, inputs, self.hidden)
            found[f"bias_{layer}"] = uniform(inputs, *row)
            found[f"scale_{layer}"] = Initializer(row, jax.nn.initializers.ones)
            found[f"shift_{layer}"] = Initializer(row, jax.nn.initializers.zeros)
        found["out_kernel"] = uniform(self.hidden, self.heads, self.hidden)
        found["out_bias"] = uniform(self.hidden, self.heads)
        return found

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        offset = -distance.astype(checks.compute_dtype(arrays["out_kernel"].dtype))
        return dynamic_position_bias(arrays, offset[..., None] if self.axes is None else offset)
