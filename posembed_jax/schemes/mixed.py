"""RoPE-Mixed: learned frequencies along directions of their own, for positions in images and volumes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import Rotation
from posembed_jax.scheme import Arrays, Initializer
from posembed_jax.schemes import phase
from posembed_jax.schemes.frequencies import geometric
from posembed_jax.schemes.heads import rotate_heads
from posembed_jax.schemes.layouts import LAYOUTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoPEMixed(Rotation):
    """RoPE in several dimensions whose pairs each learn a direction: the angle mixes all axes of the position.

        angle[k, i] = sum_a position[a] * params["frequencies"][k, a, i]
        out = rotate(x, cos(angle), sin(angle))

    The angle is exact for the float32 frequencies, at every int32 position. Diagonals are told apart, which `Axes`
    cannot do.

    Args:
        dim: channels of the head; a multiple of `2 * axes`.
        layout: which channels are a pair: "half", (i, i + dim / 2), or "interleaved", (2 i, 2 i + 1), the authors'.
        axes: A, of the position. With 1, positions are those of text, `[T]` or `[B, T]`, and each head learns RoPE's
            frequencies (LeRoPE); else `[T, A]` or `[B, T, A]`, such as `positions.grid((height, width))`.
        key_value_heads: K, when each has its own frequencies; they divide the heads of x, in groups. None: all share.
        fractional: also take float32 positions, such as key points; their angles are rounded as float32 products are.
        base: of the magnitudes. They begin as `base ** (-j / count)`, j = 0 ... count - 1 with `count = dim / (2 A)`,
            along A orthogonal directions that are drawn for each head.

    The authors' frequencies have the column's axis first, and grids the row.

    Params: `{"frequencies": [K or 1, A, dim / 2]}`. Weight decay is not for them.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> mixed = pe.RoPEMixed(dim=8, layout="interleaved", key_value_heads=4)
    >>> params = pe.init(mixed, jax.random.key(0))
    >>> params["frequencies"].shape
    (4, 2, 4)
    >>> mixed.bind(params)(jnp.ones((6, 4, 8)), pe.positions.grid((2, 3))).shape
    (6, 4, 8)

    Source: https://arxiv.org/abs/2403.13298.
    """

    dim: int
    layout: str
    axes: int = 2
    key_value_heads: int | None = None
    fractional: bool = False
    base: float = 10.0

    def __post_init__(self):
        checks.integer_setting("axes", self.axes)
        checks.integer_setting("dim", self.dim)
        if self.dim % (2 * self.axes):
            raise ValueError(f"dim is {self.dim}; it needs to be a multiple of 2 * axes, {2 * self.axes}.")
        checks.one_of("layout", self.layout, LAYOUTS)
        if self.key_value_heads is not None:
            checks.integer_setting("key_value_heads", self.key_value_heads)
        checks.flag("fractional", self.fractional)
        checks.number_setting("base", self.base, above=1.0)

    @property
    def position_axes(self) -> int | None:
        return None if self.axes == 1 else self.axes

    def inits(self) -> dict[str, Initializer]:
        return {"frequencies": Initializer((self.key_value_heads or 1, self.axes, self.dim // 2), self._draw)}

    def _draw(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        count = shape[-1] // self.axes
        magnitudes = np.array(geometric(count, self.base, count), np.float64).astype(np.float32)
        turned = jax.random.orthogonal(key, self.axes, shape[:1])
        # A reflection is made a rotation: with one axis frequencies begin positive, with two as published.
        turned = turned.at[..., -1].multiply(jnp.linalg.det(turned)[:, None])
        return (turned[..., None] * magnitudes[None, None, None]).reshape(shape).astype(dtype)

    def at(self, arrays: Arrays, x: jax.Array, positions: jax.Array, inverse: bool) -> jax.Array:
        frequencies = arrays["frequencies"].astype(jnp.float32)
        heads, axes, pairs = frequencies.shape
        along = positions[..., None] if self.axes == 1 else positions
        flat = jnp.moveaxis(frequencies, 0, 1).reshape(axes, heads * pairs)
        if jnp.issubdtype(along.dtype, jnp.floating):
            angles = jnp.sum(along[..., None] * flat.reshape(*[1] * (along.ndim - 1), *flat.shape), axis=-2)
            made = jnp.cos(angles), jnp.sin(angles)
        else:
            made = phase.summed_cos_sin(along, flat)
        tables = lax.optimization_barrier(jnp.stack(made))
        cos, sin = tables.reshape(*tables.shape[:-1], heads, pairs)
        return rotate_heads(x, cos, sin, layout=self.layout, inverse=inverse)
