"""Which tiles of the logits are alive, in which order they are visited, and how a diagonal becomes a tile and back."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGEST, SMALLEST = np.iinfo(np.int32).max, np.iinfo(np.int32).min


def tile_size(rows: int) -> int:
    """Queries and keys of a tile with this many batch rows and heads: about 2^19 logits, which stay in a CPU's cache."""
    return int(np.clip(2 ** int(np.log2((2**19 / rows) ** 0.5)), 64, 512))


def fill(x: jax.Array, axis: int, size: int) -> jax.Array:
    """x with zeros (False) after it, up to a whole number of blocks along `axis`."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % size)
    return jnp.pad(x, widths)


def fill_unless_shared(x: jax.Array, axis: int, size: int) -> jax.Array:
    return x if x.shape[axis] == 1 else fill(x, axis, size)


def count_on(positions: jax.Array, size: int) -> jax.Array:
    """Positions up to a whole number of blocks: the last one + 1, + 2 ..., so that they stay contiguous."""
    more = jnp.arange(1, -positions.shape[-1] % size + 1, dtype=jnp.int32)
    more = positions[..., -1:] + (more if positions.ndim == 1 else more[None])
    return jnp.concatenate([positions, more], axis=-1)


def block(x: jax.Array, index: jax.Array, size: int, axis: int) -> jax.Array:
    """Block number `index` of x along `axis`; the whole of an axis of length 1, which is shared."""
    return x if x.shape[axis] == 1 else lax.dynamic_slice_in_dim(x, index * size, size, axis)


def add_block(x: jax.Array, update: jax.Array, index: jax.Array, size: int, axis: int) -> jax.Array:
    """x with `update` added to its block number `index`."""
    update = block(x, index, size, axis) + update
    return lax.dynamic_update_slice_in_dim(x, update, 0 if x.shape[axis] == 1 else index * size, axis)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Where:
    """Where the queries and keys stand, and who may attend: what masks and biases are computed from, a tile at a time.

    All arrays are filled up to whole tiles; keys that were filled in are invalid.
    """

    query_positions: jax.Array  # int32 [T] or [B, T]
    key_positions: jax.Array  # int32 [S] or [B, S]
    query_segment_ids: jax.Array | None  # int32 [B or 1, T]
    key_segment_ids: jax.Array | None  # int32 [B or 1, S], 0 where there is no key
    mask: jax.Array | None  # bool [B or 1, N or 1, T or 1, S or 1]
    causal: bool = dataclasses.field(metadata={"static": True})
    window: tuple[int, int] | None = dataclasses.field(metadata={"static": True})
    size: int = dataclasses.field(metadata={"static": True})

    @property
    def counts(self) -> tuple[int, int]:
        """Blocks of queries and of keys."""
        return self.query_positions.shape[-1] // self.size, self.key_positions.shape[-1] // self.size

    def positions(self, i: jax.Array, j: jax.Array) -> tuple[jax.Array, jax.Array]:
        return block(self.query_positions, i, self.size, -1), block(self.key_positions, j, self.size, -1)

    def allowed_at(self, distance: jax.Array) -> jax.Array | None:
        """What causality and window allow, at these distances."""
        allowed = None
        if self.causal:
            allowed = distance <= 0
        if self.window is not None:
            inside = (distance >= -self.window[0]) & (distance <= self.window[1])
            allowed = inside if allowed is None else allowed & inside
        return allowed

    def allowed_in(self, i: jax.Array, j: jax.Array) -> jax.Array | None:
        """What segments and mask allow in tile i, j: `[B or 1, N or 1, size, size]`."""
        allowed = None
        if self.key_segment_ids is not None:
            queries, keys = block(self.query_segment_ids, i, self.size, 1), block(self.key_segment_ids, j, self.size, 1)
            allowed = ((queries[:, :, None] == keys[:, None]) & (keys != 0)[:, None])[:, None]
        if self.mask is not None:
            mask = block(block(self.mask, i, self.size, 2), j, self.size, 3)
            allowed = mask if allowed is None else allowed & mask
        return allowed

    def alive(self) -> jax.Array:
        """Which tiles somebody attends in: bool `[blocks of queries, blocks of keys]`."""
        query_low, query_high, queries = _block_range(self.query_positions, self.query_segment_ids, self.size)
        key_low, key_high, keys = _block_range(self.key_positions, self.key_segment_ids, self.size)
        alive = queries[:, :, None] & keys[:, None, :]
        if self.causal:
            alive &= key_low[:, None, :] <= query_high[:, :, None]
        if self.window is not None:
            alive &= key_high[:, None, :] - query_low[:, :, None] >= -self.window[0]
            alive &= key_low[:, None, :] - query_high[:, :, None] <= self.window[1]
        if self.query_segment_ids is not None and self.key_segment_ids is not None:
            query_low, query_high, _ = _block_range(self.query_segment_ids, self.query_segment_ids, self.size)
            key_low, key_high, _ = _block_range(self.key_segment_ids, self.key_segment_ids, self.size)
            alive &= key_low[:, None, :] <= query_high[:, :, None]
            alive &= key_high[:, None, :] >= query_low[:, :, None]
        alive = alive.any(0)
        if self.mask is not None:
            seen = self.mask.any((0, 1))
            queries_of, keys_of = (self.size if length > 1 else 1 for length in seen.shape)
            shape = (seen.shape[0] // queries_of, queries_of, seen.shape[1] // keys_of, keys_of)
            alive &= seen.reshape(shape).any((1, 3))
        return alive

    def order(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Blocks of queries i and of keys j of the tiles that are alive, diagonal by diagonal, and how many there are."""
        rows, columns = self.counts
        i = lax.broadcasted_iota(jnp.int32, (rows, columns), 0).reshape(-1)
        j = lax.broadcasted_iota(jnp.int32, (rows, columns), 1).reshape(-1)
        alive = self.alive().reshape(-1)
        order = jnp.argsort(jnp.where(alive, (j - i + rows) * rows + i, LARGEST))
        return i[order], j[order], jnp.sum(alive, dtype=jnp.int32)

    def alignment(self) -> tuple[jax.Array, jax.Array]:
        """Whether every pair that may attend has distance `s - t + offset`, t and s its indices; and that offset.

        So it is when positions count up by one in all rows together, and in packed rows, whose documents each do, of
        the same length T == S.
        """
        query_low, query_high, _ = _offset_range(self.query_positions, self.query_segment_ids)
        key_low, key_high, _ = _offset_range(self.key_positions, self.key_segment_ids)
        together = (query_low == query_high) & (key_low == key_high)
        offset = jnp.where(together, key_low - query_low, 0)
        ids = self.key_segment_ids
        if ids is None or self.query_positions.shape != self.key_positions.shape:
            return together, offset
        same = jnp.all(self.query_positions == self.key_positions) & jnp.all(self.query_segment_ids == ids)
        return together | (same & _counts_up_in_segments(self.key_positions, ids)), offset


def _offsets(positions: jax.Array) -> jax.Array:
    positions = jnp.atleast_2d(positions)
    return positions - jnp.arange(positions.shape[1], dtype=jnp.int32)[None]


def _offset_range(positions: jax.Array, ids: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Lowest and highest of position - index, over all that is valid."""
    low, high, valid = _block_range(_offsets(positions), ids, positions.shape[-1])
    return jnp.min(low), jnp.max(high), valid


def _block_range(x: jax.Array, ids: jax.Array | None, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Lowest and highest valid x `[T]` or `[B, T]` in each block, and whether there is one: `[B or 1, blocks]` each."""
    x = jnp.atleast_2d(x)
    valid = jnp.ones(x.shape, bool) if ids is None else jnp.broadcast_to(ids != 0, jnp.broadcast_shapes(x.shape, ids.shape))
    x = jnp.broadcast_to(x, valid.shape).reshape(valid.shape[0], -1, size)
    valid = valid.reshape(x.shape)
    return jnp.where(valid, x, LARGEST).min(-1), jnp.where(valid, x, SMALLEST).max(-1), valid.any(-1)


def _counts_up_in_segments(positions: jax.Array, ids: jax.Array) -> jax.Array:
    """Whether segment ids never fall along a row and position - index is one number in each, padding left out."""
    offsets, ids = jnp.broadcast_arrays(_offsets(positions), ids)
    index = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
    seen = lax.cummax(jnp.where(ids != 0, index, -1), axis=1)
    before = jnp.concatenate([jnp.full((ids.shape[0], 1), -1, jnp.int32), seen[:, :-1]], axis=1)
    id_before = jnp.take_along_axis(ids, before, axis=1, mode="clip")
    offset_before = jnp.take_along_axis(offsets, before, axis=1, mode="clip")
    good = (id_before < ids) | ((id_before == ids) & (offset_before == offsets))
    return jnp.all(good | (ids == 0) | (before < 0))


def spread(values: jax.Array) -> jax.Array:
    """The tile of a diagonal: `tile[n, t, s] = values[n, s - t + size - 1]`, `[N, 2 size - 1]` -> `[N, size, size]`."""
    heads, length = values.shape
    size = (length + 1) // 2
    repeated = jnp.broadcast_to(values[:, None], (heads, size, length)).reshape(heads, size * length)
    rows = lax.slice_in_dim(repeated, size - 1, size - 1 + size * (length - 1), axis=1)  # each row starts one earlier
    return rows.reshape(heads, size, length - 1)[:, :, :size]


def gather_up(tile: jax.Array) -> jax.Array:
    """The transpose of `spread`: sums along the diagonals of the tile, `[N, size, size]` -> `[N, 2 size - 1]`."""
    heads, size, _ = tile.shape
    length = 2 * size - 1
    rows = jnp.pad(tile, ((0, 0), (0, 0), (0, size - 2))).reshape(heads, -1)
    rows = jnp.pad(rows, ((0, 0), (size - 1, size * length - (size - 1) - rows.shape[1])))
    return rows.reshape(heads, size, length).sum(axis=1)
