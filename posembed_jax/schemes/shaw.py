"""Vectors of the clipped distance, added to keys and to values (Shaw et al.)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import ContentBias, ValueBias
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes import relative_scores

OUTSIDE = ("clip", "zero")


def clipped_rows(distance: jax.Array, left: int, right: int, outside: str) -> jax.Array:
    """The row of each distance; without "clip", rows outside of the table for distances outside of -left ... right."""
    return (jnp.clip(distance, -left, right) if outside == "clip" else distance) + left


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShawBias(ContentBias):
    """The product of each query with a learned vector of its distance to the key.

        bias[n, t, s] = scale query[t, n] . table[n, clip(distance, -left, right) + left]
        distance = key_positions[s] - query_positions[t]

    It is `scale query . (key + vector)` without its first part, which is attention's own. Each query is multiplied with
    all the vectors once; there is no array `[T, S, D]`. The skewing of the Music Transformer is another way to compute
    the same: `left=max_length - 1, right=0`, with causal attention.

    Args:
        heads: N.
        dim: D of a head.
        left, right: how many distances before and after the query have a vector of their own.
        outside: the vector of those further away: that of the nearest distance ("clip"), or 0 ("zero", VITS).
        shared: whether all heads have the same vectors.
        scale: as that of `attend`; `D ** -0.5` when None.
        stddev: of the normal initializer.

    Params: `{"table": [1 or heads, left + 1 + right, dim]}`, ordered by distance: `distance_embedding.weight` of
    `wav2vec2-bert` and `seamless_m4t_v2`. Tables of `query position - key position` are turned around:
    `pe_k.weight[::-1]` of `speecht5` with `left=max_length - 1, right=max_length`, and the middle of
    `rel_pos_emb.weight[::-1]` of `granite_speech` with `left=right=context_size`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> bound = pe.ShawBias(heads=1, dim=1, left=1, right=1).bind({"table": jnp.array([[[1.0], [2.0], [3.0]]])})
    >>> q, at = jnp.array([[[[1.0]], [[10.0]]]]), pe.positions.arange(2)
    >>> bound(q, q, at, at).tolist()
    [[[[2.0, 3.0], [10.0, 20.0]]]]

    Source: https://arxiv.org/abs/1803.02155, equation 4.
    """

    heads: int
    dim: int
    left: int
    right: int
    outside: str = "clip"
    shared: bool = True
    scale: float | None = None
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        _check_table(self)
        if self.scale is not None:
            checks.number_setting("scale", self.scale)

    def inits(self) -> dict[str, Initializer]:
        return {"table": normal(self.stddev, (1 if self.shared else self.heads, self.left + 1 + self.right, self.dim))}

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        relative_scores.check_heads("query", query, self.heads, self.dim)
        scale = self.dim**-0.5 if self.scale is None else self.scale
        distance = relative_scores.distances(query_positions, key_positions)
        return scale * relative_scores.of_rows(
            query, arrays["table"], lambda d: clipped_rows(d, self.left, self.right, self.outside), distance
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShawValues(ValueBias):
    """A learned vector of the distance, added to each value: the other half of `ShawBias`.

        out[t, n] += sum_s weights[n, t, s] table[n, clip(distance, -left, right) + left]
        distance = key_positions[s] - query_positions[t]

    Args:
        heads: N.
        dim: D of the values.
        left, right, outside, shared, stddev: as in `ShawBias`.

    Params: `{"table": [1 or heads, left + 1 + right, dim]}`, ordered by distance: `emb_rel_v` of `vits` with
    `left=right=window_size, outside="zero"`.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme, x = pe.ShawValues(heads=4, dim=8, left=2, right=2), jnp.ones((1, 3, 4, 8))
    >>> pe.attend(x, x, x, value_bias=scheme.bind(pe.init(scheme, jax.random.key(0)))).shape
    (1, 3, 4, 8)

    Source: https://arxiv.org/abs/1803.02155, equation 3.
    """

    heads: int
    dim: int
    left: int
    right: int
    outside: str = "clip"
    shared: bool = True
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        _check_table(self)

    def inits(self) -> dict[str, Initializer]:
        return {"table": normal(self.stddev, (1 if self.shared else self.heads, self.left + 1 + self.right, self.dim))}

    def summed(
        self, arrays: Arrays, weights: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        checks.shape("weights", weights, (*weights.shape[:-3], self.heads, None, None), f"[..., {self.heads}, T, S]")
        table, dtype = arrays["table"], checks.compute_dtype(weights.dtype)
        distance = relative_scores.distances(query_positions, key_positions)
        rows = clipped_rows(distance, self.left, self.right, self.outside)
        of_rows = relative_scores.collect(weights.astype(dtype), rows, table.shape[1])
        table = jnp.broadcast_to(table, (self.heads, *table.shape[1:])).astype(dtype)
        return jnp.einsum("...ntr,nrd->...tnd", of_rows, table, precision=lax.Precision.HIGHEST)


def _check_table(scheme: ShawBias | ShawValues) -> None:
    checks.integer_setting("dim", scheme.dim)
    checks.integer_setting("left", scheme.left, minimum=0)
    checks.integer_setting("right", scheme.right, minimum=0)
    checks.one_of("outside", scheme.outside, OUTSIDE)
    checks.flag("shared", scheme.shared)
    checks.number_setting("stddev", scheme.stddev)
