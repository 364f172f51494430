"""A bias of an image whose rows and columns have tables of their own (MViT v2, SAM)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks
from posembed_jax.contracts import ContentBias
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes import relative_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecomposedBias(ContentBias):
    """The products of each query with a vector of its offset to the key along each axis.

        bias[n, t, s] = scale sum_a query[t, n] . table_a[n, query_positions[t, a] - key_positions[s, a] + shape[a] - 1]

    Offsets outside of the tables are an error when positions are concrete, and NaN when they are traced. Where queries
    are pooled more than keys, their positions are multiplied: `2 * positions.grid(...)`.

    Args:
        heads: N.
        dim: D of a head.
        shape: the size of the image along each axis, (height, width) or any number of them.
        shared: whether all heads have the same vectors, as in SAM.
        scale: of the product; MViT and SAM do not scale it, as they do that of queries and keys.
        stddev: of the normal initializer.

    Params: `{"table_0": [1 or heads, 2 shape[0] - 1, dim], "table_1": ...}`: `rel_pos_h` and `rel_pos_w` of
    `sam_vision_model`, `sam_hq_vision_model`, `got_ocr2`, `vitdet`, `seggpt`. For another shape they are resized:
    `resize_table(rel_pos_h, (old,), (2 * height - 1,), method="bilinear")`.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme, x = pe.DecomposedBias(heads=4, dim=8, shape=(2, 3)), jnp.ones((1, 6, 4, 8))
    >>> bias = scheme.bind(pe.init(scheme, jax.random.key(0)))
    >>> pe.attend(x, x, x, bias=bias, query_positions=pe.positions.grid((2, 3))).shape
    (1, 6, 4, 8)

    Source: https://arxiv.org/abs/2112.01526, section 4.1.
    """

    heads: int
    dim: int
    shape: tuple[int, ...]
    shared: bool = True
    scale: float = 1.0
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("dim", self.dim)
        checks.sizes("shape", self.shape)
        checks.flag("shared", self.shared)
        checks.number_setting("scale", self.scale)
        checks.number_setting("stddev", self.stddev)

    @property
    def position_axes(self) -> int:
        return len(self.shape)

    def inits(self) -> dict[str, Initializer]:
        heads = 1 if self.shared else self.heads
        return {
            f"table_{axis}": normal(self.stddev, (heads, 2 * size - 1, self.dim))
            for axis, size in enumerate(self.shape)
        }

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        relative_scores.check_heads("query", query, self.heads, self.dim)
        found = []
        for axis, size in enumerate(self.shape):
            rows = size - 1 - relative_scores.distances(query_positions[..., axis], key_positions[..., axis])
            inside = (rows >= 0) & (rows < 2 * size - 1)
            if checks.is_concrete(inside) and not np.all(inside):
                raise ValueError(
                    f"query_positions - key_positions goes from {np.min(rows) - size + 1} to {np.max(rows) - size + 1} "
                    f"along axis {axis}, but the table is of the offsets within {self.shape}: correct the positions, "
                    "or resize the table."
                )
            picked = relative_scores.pick(relative_scores.scores(query, arrays[f"table_{axis}"]), rows)
            found.append(jnp.where(jnp.broadcast_to(inside, picked.shape), picked, jnp.nan))
        return self.scale * jnp.sum(jnp.stack(found), axis=0)
