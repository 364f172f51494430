"""Positions of the patches of an image that is cut into tiles."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks, lookup
from posembed_jax.contracts import Additive
from posembed_jax.scheme import Arrays, Initializer, normal


@dataclasses.dataclass(frozen=True, kw_only=True)
class TilePositions(Additive):
    """A table for all tiles, and another for each arrangement of tiles and each tile, with a gate between the two.

        x[t] = (1 - tanh(gate)) table[patch] + tanh(gate) tiles[arrangement, tile, patch]
        x[t] = tanh(gate) tiles[arrangement, tile, patch]                                           without shared
        arrangement, tile, patch = positions[t]

    The gate is 0 at first, when tiles are not told from each other. Arrangement 0 is that of padding tiles.

    Args:
        arrangements: how many there are: `max_aspect_ratio_id + 1` in Llama 3.2's vision (mllama).
        tiles: at most in an image.
        patches: in a tile, with its class token; 1 where all patches of a tile have the same.
        features: F.
        shared: whether there is a table for all tiles.
        stddev: of the normal initializer of both tables.

    Params: `{"gate": [1], "table": [patches, F], "tiles": [arrangements, tiles, patches, F]}`; no table without shared.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme = pe.TilePositions(arrangements=9, tiles=4, patches=5, features=8)
    >>> at = jnp.concatenate([jnp.full((20, 1), 3), pe.positions.grid((4, 5))], axis=-1)
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(at).shape
    (20, 8)

    Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/mllama/modeling_mllama.py.
    """

    arrangements: int
    tiles: int
    patches: int
    features: int
    shared: bool = True
    stddev: float = 0.02

    def __post_init__(self):
        for name in ("arrangements", "tiles", "patches", "features"):
            checks.integer_setting(name, getattr(self, name))
        checks.flag("shared", self.shared)
        checks.number_setting("stddev", self.stddev)

    @property
    def position_axes(self) -> int:
        return 3

    def inits(self) -> dict[str, Initializer]:
        shape = (self.arrangements, self.tiles, self.patches, self.features)
        table = {"table": normal(self.stddev, shape[2:])} if self.shared else {}
        gate = {"gate": Initializer((1,), jax.nn.initializers.zeros)}
        return {**gate, **table, "tiles": normal(self.stddev, shape)}

    def at(self, arrays: Arrays, positions: jax.Array) -> jax.Array:
        sizes = np.array([self.arrangements, self.tiles, self.patches], np.int32)
        row = sizes.reshape(*[1] * (positions.ndim - 1), 3)
        inside = jnp.all((positions >= 0) & (positions < row), axis=-1)
        steps = np.array([self.tiles * self.patches, self.patches, 1], np.int32).reshape(row.shape)
        places = jnp.where(inside, jnp.sum(positions * steps, axis=-1, dtype=jnp.int32), -1)
        name = f"(arrangement, tile, patch), of {sizes.tolist()}, as numbers of rows"
        own = lookup.rows(arrays["tiles"].reshape(-1, self.features), places, name=name)
        gate = jnp.tanh(arrays["gate"].astype(own.dtype)).reshape((1,) * own.ndim)
        if not self.shared:
            return gate * own
        shared = lookup.rows(arrays["table"], jnp.where(inside, positions[..., 2], -1), name=name)
        return (1.0 - gate) * shared.astype(own.dtype) + gate * own
