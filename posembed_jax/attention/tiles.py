"""The tiles of the logits: which are alive, in which order, what may be attended in each, and their diagonals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGEST, SMALLEST = np.iinfo(np.int32).max, np.iinfo(np.int32).min
WHOLE = 2**20  # up to here the logits are a single tile; measured on a CPU, where tiles win above it
FEW = 32  # up to so many queries as well: their logits take as much as so many key features, and a tile is wasteful
PART = 2**19  # logits of one tile, 2 MiB in float32: more leaves the CPU's cache, fewer are all overhead


def tile_size(shape: tuple[int, int, int, int]) -> int | None:
    """Queries, and keys, of a tile of logits `[B, N, T, S]`; None where one tile holds all of them.

    A power of two in 64 ... 512, made smaller by multiples of 32 where that leaves less to fill up.
    """
    batch, heads, queries, keys = shape
    if queries <= FEW or math.prod(shape) <= WHOLE:
        return None
    size = int(np.clip(2 ** int(math.log2(PART / (batch * heads)) / 2), 64, 512))
    needed = min(math.ceil(length / math.ceil(length / size)) for length in (queries, max(keys, queries)))
    return 32 * math.ceil(needed / 32)


def fill(x: jax.Array, axis: int, size: int) -> jax.Array:
    """x with zeros (False) after it, up to a whole number of blocks along `axis`."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % size)
    return jnp.pad(x, widths)


def fill_unless_shared(x: jax.Array, size: int) -> jax.Array:
    """A mask or bias `[B or 1, N or 1, T or 1, S or 1]`, filled up in its last two axes."""
    for axis in (2, 3):
        x = x if x.shape[axis] == 1 else fill(x, axis, size)
    return x


def count_on(positions: jax.Array, size: int) -> jax.Array:
    """Positions up to a whole number of blocks: the last one + 1, + 2 ..., so that what was contiguous stays so."""
    more = jnp.arange(1, -positions.shape[-1] % size + 1, dtype=jnp.int32)
    return jnp.concatenate([positions, positions[..., -1:] + (more if positions.ndim == 1 else more[None])], axis=-1)


def block(x: jax.Array, index: jax.Array, size: int, axis: int) -> jax.Array:
    """Block number `index` of x along `axis`; the whole of an axis of length 1, which is shared."""
    return x if x.shape[axis] == 1 else lax.dynamic_slice_in_dim(x, index * size, size, axis)


def put_block(x: jax.Array, update: jax.Array, index: jax.Array, size: int, axis: int) -> jax.Array:
    """x with its block number `index` replaced."""
    return lax.dynamic_update_slice_in_dim(x, update, index * size, axis)


def add_block(x: jax.Array, update: jax.Array, index: jax.Array, size: int, axis: int) -> jax.Array:
    """x with `update` added to its block number `index`."""
    return put_block(x, block(x, index, size, axis) + update, index, size, axis)


def spread(values: jax.Array) -> jax.Array:
    """The tile of a diagonal: `tile[n, t, s] = values[n, s - t + size - 1]`, `[N, 2 size - 1]` -> `[N, size, size]`."""
    heads, length = values.shape
    size = (length + 1) // 2
    repeated = jnp.broadcast_to(values[:, None], (heads, size, length)).reshape(heads, size * length)
    rows = lax.slice_in_dim(repeated, size - 1, size - 1 + size * (length - 1), axis=1)  # each starts one earlier
    return rows.reshape(heads, size, length - 1)[:, :, :size]


def sum_diagonals(tile: jax.Array) -> jax.Array:
    """The transpose of `spread`: `[N, size, size]` -> `[N, 2 size - 1]`."""
    heads, size, _ = tile.shape
    length = 2 * size - 1
    rows = jnp.pad(tile, ((0, 0), (0, 0), (0, size - 2))).reshape(heads, -1)
    rows = jnp.pad(rows, ((0, 0), (size - 1, size * length - (size - 1) - rows.shape[1])))
    return rows.reshape(heads, size, length).sum(axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiles:
    """Where queries and keys stand and who may attend, cut into tiles; all arrays are filled up to whole ones."""

    query_positions: jax.Array  # int32 [T] or [B, T]
    key_positions: jax.Array  # int32 [S] or [B, S]
    coordinates: tuple[jax.Array, jax.Array] | None  # int32 [T, A] or [B, T, A], and of the keys
    query_segment_ids: jax.Array | None  # int32 [B or 1, T]
    key_segment_ids: jax.Array | None  # int32 [B or 1, S], 0 where there is no key
    mask: jax.Array | None  # bool [B or 1, N or 1, T or 1, S or 1]
    causal: bool = dataclasses.field(metadata={"static": True})
    window: tuple[int, int] | None = dataclasses.field(metadata={"static": True})
    size: int = dataclasses.field(metadata={"static": True})

    def positions(self, i: jax.Array, j: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of the queries and of the keys of tile i, j."""
        return block(self.query_positions, i, self.size, -1), block(self.key_positions, j, self.size, -1)

    def positions_for(self, bias: Any, i: jax.Array, j: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same, or the coordinates, where the bias has axes."""
        if self.coordinates is None or getattr(bias, "position_axes", None) is None:
            return self.positions(i, j)
        query, key = self.coordinates
        return block(query, i, self.size, -2), block(key, j, self.size, -2)

    def allowed_at(self, distance: jax.Array) -> jax.Array | None:
        """What causality and window allow at these distances; None when everything."""
        allowed = distance <= 0 if self.causal else None
        if self.window is not None:
            left, right = self.window
            allowed = both(allowed, (distance >= -left) & (distance <= right))
        return allowed

    def allowed_in(self, i: jax.Array, j: jax.Array) -> jax.Array | None:
        """What segments and mask allow in tile i, j: bool `[B or 1, N or 1, size, size]`; None when everything."""
        allowed = None
        if self.query_segment_ids is not None and self.key_segment_ids is not None:
            queries = block(self.query_segment_ids, i, self.size, 1)[:, None, :, None]
            keys = block(self.key_segment_ids, j, self.size, 1)[:, None, None, :]
            allowed = (queries == keys) & (keys != 0)
        if self.mask is not None:
            allowed = both(allowed, block(block(self.mask, i, self.size, 2), j, self.size, 3))
        return allowed

    def order(self, aligned: jax.Array, offset: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """i and j of the tiles that are alive, diagonal by diagonal, and how many there are; see `alignment`."""
        alive = self.alive(aligned, offset)
        rows = alive.shape[0]
        i, j = (lax.broadcasted_iota(jnp.int32, alive.shape, axis) for axis in (0, 1))
        order = jnp.argsort(jnp.where(alive, (j - i + rows) * rows + i, LARGEST).reshape(-1))
        return i.reshape(-1)[order], j.reshape(-1)[order], jnp.sum(alive, dtype=jnp.int32)

    def alive(self, aligned: jax.Array, offset: jax.Array) -> jax.Array:
        """Whether anybody may attend in a tile, or it cannot be told: bool `[blocks of queries, blocks of keys]`."""
        # positions start again in every document, so where they are aligned the indices tell more
        query_positions = jnp.where(aligned, lax.iota(jnp.int32, self.query_positions.shape[-1]), self.query_positions)
        key_positions = jnp.where(
            aligned, lax.iota(jnp.int32, self.key_positions.shape[-1]) + offset, self.key_positions
        )
        first_query, last_query, queries = _range(query_positions, self.query_segment_ids, self.size)
        first_key, last_key, keys = _range(key_positions, self.key_segment_ids, self.size)
        first_query, last_query, queries = (x[:, :, None] for x in (first_query, last_query, queries))
        first_key, last_key, keys = (x[:, None, :] for x in (first_key, last_key, keys))
        alive = queries & keys
        if self.causal:
            alive &= first_key <= last_query
        if self.window is not None:
            alive &= (last_key - first_query >= -self.window[0]) & (first_key - last_query <= self.window[1])
        if self.query_segment_ids is not None and self.key_segment_ids is not None:
            lowest, highest, _ = (
                x[:, :, None] for x in _range(self.query_segment_ids, self.query_segment_ids, self.size)
            )
            low, high, _ = (x[:, None, :] for x in _range(self.key_segment_ids, self.key_segment_ids, self.size))
            alive &= (low <= highest) & (high >= lowest)
        alive = alive.any(0)
        if self.mask is not None:
            seen = self.mask.any((0, 1))
            here, there = (1 if length == 1 else self.size for length in seen.shape)
            alive &= seen.reshape(seen.shape[0] // here, here, seen.shape[1] // there, there).any((1, 3))
        return alive

    def alignment(self) -> tuple[jax.Array, jax.Array]:
        """Whether all pairs that may attend have distance `s - t + offset`, s and t their indices; and the offset.

        They do when positions count up by one throughout, alike in all rows, or, with T == S, in each document of
        packed rows.
        """
        low, high = _offset_range(self.query_positions, self.query_segment_ids)
        key_low, key_high = _offset_range(self.key_positions, self.key_segment_ids)
        throughout, offset = (low == high) & (key_low == key_high), key_low - low
        ids, positions = self.key_segment_ids, self.key_positions
        if ids is None or self.query_segment_ids is None or self.query_positions.shape != positions.shape:
            return throughout, offset
        same = jnp.all(self.query_positions == positions) & jnp.all(self.query_segment_ids == ids)
        return throughout | (same & _count_up_in_segments(positions, ids)), jnp.where(throughout, offset, 0)


def both(one: jax.Array | None, other: jax.Array | None) -> jax.Array | None:
    """Allowed by one and the other; None allows everything."""
    return other if one is None else one if other is None else one & other


def _range(x: jax.Array, ids: jax.Array | None, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Lowest and highest x in each block, padding left out, and whether anything is left: `[B or 1, blocks]`."""
    x, valid = jnp.broadcast_arrays(jnp.atleast_2d(x), jnp.ones((1, 1), bool) if ids is None else ids != 0)
    x, valid = x.reshape(x.shape[0], -1, size), valid.reshape(x.shape[0], -1, size)
    return jnp.where(valid, x, LARGEST).min(-1), jnp.where(valid, x, SMALLEST).max(-1), valid.any(-1)


def _offsets(positions: jax.Array) -> jax.Array:
    return jnp.atleast_2d(positions) - lax.iota(jnp.int32, positions.shape[-1])[None]


def _offset_range(positions: jax.Array, ids: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest position - index in all rows, padding left out."""
    lowest, highest, _ = _range(_offsets(positions), ids, positions.shape[-1])
    return lowest.min(), highest.max()


def _count_up_in_segments(positions: jax.Array, ids: jax.Array) -> jax.Array:
    """Whether segment ids never fall along a row, and position - index is constant in each, padding left out."""
    offsets, ids = jnp.broadcast_arrays(_offsets(positions), ids)
    seen = lax.cummax(jnp.where(ids != 0, lax.broadcasted_iota(jnp.int32, ids.shape, 1), -1), axis=1)
    before = jnp.pad(seen[:, :-1], ((0, 0), (1, 0)), constant_values=-1)  # index of the last one that is no padding
    id_before, offset_before = (jnp.take_along_axis(x, before, axis=1, mode="clip") for x in (ids, offsets))
    good = (id_before < ids) | ((id_before == ids) & (offset_before == offsets))
    return jnp.all(good | (ids == 0) | (before < 0))
