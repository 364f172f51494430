"""The KV cache: keys and values of the tokens so far, with where they stand, as one immutable pytree."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from posembed_jax import checks
from posembed_jax.positions import cache_overflows, check_cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys (already rotated) and values of the tokens so far. Every row has its own length.

    Attributes:
        keys, values: `[B, S, K, D]`, S the capacity; the values may have a D of their own.
        positions: int32 `[B, S]`, where each cached token stands.
        segment_ids: int32 `[B, S]`, its document; 0 where the slot is empty.
        lengths: int32 `[B]`, how many tokens were appended. More than S means that some were not stored.

    >>> import posembed_jax as pe
    >>> pe.KVCache.empty(batch=2, capacity=16, heads=4, dim=8).keys.shape
    (2, 16, 4, 8)
    """

    keys: jax.Array
    values: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    lengths: jax.Array

    @classmethod
    def empty(
        cls, *, batch: int, capacity: int, heads: int, dim: int, value_dim: int | None = None, dtype: Any = jnp.float32
    ) -> KVCache:
        """A cache for `capacity` tokens a row and `heads` key heads of `dim` channels, `value_dim` of the values."""
        value_dim = dim if value_dim is None else value_dim
        sizes = {"batch": batch, "capacity": capacity, "heads": heads, "dim": dim, "value_dim": value_dim}
        for name, value in sizes.items():
            checks.integer_setting(name, value)
        checks.float_dtype("dtype", dtype)
        return cls(
            keys=jnp.zeros((batch, capacity, heads, dim), dtype),
            values=jnp.zeros((batch, capacity, heads, value_dim), dtype),
            positions=jnp.zeros((batch, capacity), jnp.int32),
            segment_ids=jnp.zeros((batch, capacity), jnp.int32),
            lengths=jnp.zeros((batch,), jnp.int32),
        )

    @property
    def capacity(self) -> int:
        return self.keys.shape[1]

    @property
    def overflow(self) -> jax.Array:
        """boolean `[B]`: whether tokens of this row were appended past the capacity, and so not stored."""
        return self.lengths > self.capacity

    def next_positions(self, segment_ids: jax.Array) -> jax.Array:
        """Where new tokens stand when rows go on counting: int32 `[B, T]` for segment_ids `[B, T]`, 0 = padding.

        A row goes on from the position of its last token, an empty one begins at 0.
        """
        segment_ids = checks.integers("segment_ids", segment_ids, "int32 [B, T], 0 = padding")
        batch = self.lengths.shape[0]
        checks.shape("segment_ids", segment_ids, (batch, None), f"int32 [B, T] with the B of the cache, {batch}")
        return (self._of_last_token(self.positions, -1) + 1)[:, None] + _count(segment_ids != 0)

    def last_segment_ids(self) -> jax.Array:
        """The document that each row is in, int32 `[B]`: that of its last token, 1 in an empty row."""
        return self._of_last_token(self.segment_ids, 1)

    def _of_last_token(self, x: jax.Array, empty: int) -> jax.Array:
        """`[B, S]` -> `[B]`."""
        last = jnp.minimum(self.lengths, self.capacity)[:, None] - 1
        is_last = jnp.arange(self.capacity, dtype=jnp.int32)[None] == last
        return jnp.where(self.lengths > 0, jnp.sum(jnp.where(is_last, x, 0), axis=1, dtype=jnp.int32), empty)

    def append(self, keys: jax.Array, values: jax.Array, positions: jax.Array, segment_ids: jax.Array) -> KVCache:
        """The cache with the new tokens behind those of each row. Padding (segment id 0) is left out.

        keys, values `[B, T, K, D]`, positions and segment_ids int32 `[B, T]`. Any T: a prompt, a chunk of one, a token.
        Tokens past the capacity: a `ValueError` when that can be told now; under jit they are not stored, nothing is
        overwritten, and `overflow` says so (`positions.check_cache` is the checkify guard).
        """
        batch, _, heads, dim = self.keys.shape
        needs = f"[B, T, K, D] as the cache, whose keys are {checks.describe(self.keys)}"
        checks.shape("keys", keys, (batch, None, heads, dim), needs)
        checks.shape("values", values, (*keys.shape[:3], self.values.shape[-1]), needs)
        checks.floating("keys", keys, needs)
        checks.floating("values", values, needs)
        needs = f"int32 [B, T], that is {list(keys.shape[:2])}"
        positions = checks.integers("positions", positions, needs)
        segment_ids = checks.integers("segment_ids", segment_ids, needs)
        checks.shape("positions", positions, keys.shape[:2], needs)
        checks.shape("segment_ids", segment_ids, keys.shape[:2], needs)
        real = segment_ids != 0
        new = jnp.sum(real, axis=1, dtype=jnp.int32)
        if checks.is_concrete(cache_overflows(self.lengths, new, self.capacity)):
            check_cache(self.lengths, new, self.capacity)
        slots = jnp.where(real, self.lengths[:, None] + _count(real), self.capacity)  # padding is out of range: dropped
        rows = jnp.arange(batch)[:, None]

        def store(old: jax.Array, x: jax.Array) -> jax.Array:
            return old.at[rows, slots].set(x.astype(old.dtype), mode="drop")

        return KVCache(
            keys=store(self.keys, keys),
            values=store(self.values, values),
            positions=store(self.positions, positions),
            segment_ids=store(self.segment_ids, segment_ids),
            lengths=self.lengths + new,
        )


def _count(real: jax.Array) -> jax.Array:
    """How many real tokens stand before each one: bool `[B, T]` -> int32 `[B, T]`."""
    return jnp.maximum(jnp.cumsum(real, axis=1, dtype=jnp.int32) - 1, 0)
