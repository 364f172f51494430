"""Where each token stands: int32 arrays of static shape, safe under jit, vmap and shard_map.

Positions are data. A packed batch, a left-padded batch, a decode step and a shard of a sequence differ in the array
they pass, never in the code that uses it. An offset may be a traced scalar or one value per row, so a decode step
compiles once.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from jax.experimental import checkify

from posembed_jax import checks

LAST = 2**31 - 1


def arange(length: int, offset: Any = 0) -> jax.Array:
    """`positions[t] = offset + t`, for t = 0 ... length - 1.

    Args:
        length: static T, or a dimension of `jax.export.symbolic_shape`.
        offset: a Python int, a scalar (traced or not), or int32 `[B]` with one offset per row, as the cache lengths are
            in decoding and in chunked prefill. Inside `shard_map`, `lax.axis_index(name) * length`.

    Returns:
        int32 `[T]`, or `[B, T]` for offsets `[B]`. Past the last int32 concrete offsets are refused, traced ones wrap.

    >>> from posembed_jax import positions
    >>> positions.arange(3, jnp.array([0, 7])).tolist()
    [[0, 1, 2], [7, 8, 9]]
    """
    symbolic = export.is_symbolic_dim(length)
    if not symbolic:
        checks.integer_setting("length", length, minimum=0)
    offset = checks.integers("offset", offset, "an int, an int32 scalar or int32 [B]")
    checks.rank("offset", offset, {0, 1}, "an int, an int32 scalar or int32 [B]")
    if (
        not symbolic
        and checks.is_concrete(offset)
        and offset.size
        and np.max(np.asarray(offset)) > LAST - max(length - 1, 0)
    ):
        raise ValueError(
            f"offset {np.max(np.asarray(offset))} + length {length} passes the last int32 position, {LAST}: "
            "start lower."
        )
    steps = jnp.arange(length, dtype=jnp.int32)
    return offset + steps if offset.ndim == 0 else offset[:, None] + steps[None, :]


def from_segment_ids(segment_ids: jax.Array) -> jax.Array:
    """The place of each token in its own document: `positions[t] = #{s < t : segment_ids[s] == segment_ids[t]}`.

    Args:
        segment_ids: int32 `[..., T]`. 0 is padding; any other ids, in any order. A document that is interrupted
            (by padding, or by another document) goes on counting where it stopped.

    Returns:
        int32 `[..., T]`; padding is at 0. Use it with `masks.segment`: restarted positions alone do not keep documents
        from attending to each other.

    >>> from posembed_jax import positions
    >>> positions.from_segment_ids(jnp.array([7, 7, 7, 3, 3, 0])).tolist()
    [0, 1, 2, 0, 1, 0]
    """
    segment_ids = checks.integers("segment_ids", segment_ids, "int32 segment ids [..., T], 0 = padding")
    checks.rank("segment_ids", segment_ids, range(1, 9), "int32 segment ids [..., T], 0 = padding")
    axis = segment_ids.ndim - 1
    # Sorted by id (stably), a document is one run; its tokens count from the start of the run, and a second sort, by
    # the original index, brings the counts home. No gather, no scatter, nothing of size T^2.
    index = lax.broadcasted_iota(jnp.int32, segment_ids.shape, axis)
    ids, origin = lax.sort((segment_ids, index), dimension=axis, num_keys=1, is_stable=True)
    previous = jnp.concatenate([~ids[..., :1], ids[..., :-1]], axis=axis)
    start = lax.cummax(jnp.where(ids != previous, index, 0), axis=axis)
    _, counts = lax.sort((origin, index - start), dimension=axis, num_keys=1)
    return jnp.where(segment_ids == 0, 0, counts)


def from_mask(mask: jax.Array, *, padding_position: int = 0) -> jax.Array:
    """The place of each real token among the real tokens of its row: `positions[t] = #{s < t : mask[s]}`.

    Args:
        mask: boolean `[..., T]`, True = a real token. Padding may be on the left, on the right or in between.
        padding_position: of padded slots: 0 as in transformers 5 (1 in transformers 4, -1 in OPT and RoBERTa).

    Returns:
        int32 `[..., T]`.

    >>> from posembed_jax import positions
    >>> positions.from_mask(jnp.array([[False, False, True, True, True]])).tolist()
    [[0, 0, 0, 1, 2]]
    """
    checks.boolean("mask", mask, "boolean [..., T]")
    checks.rank("mask", mask, range(1, 9), "boolean [..., T]")
    checks.integer_setting("padding_position", padding_position, minimum=-LAST - 1)
    if padding_position > LAST:
        raise ValueError(f"padding_position is {padding_position}; it needs to be an int32, at most {LAST}.")
    mask = jnp.asarray(mask)
    counts = jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1
    return jnp.where(mask, counts, jnp.int32(padding_position))


def cache_overflows(lengths: jax.Array, new: Any, capacity: int) -> jax.Array:
    """Whether appending `new` tokens to rows that hold `lengths` passes the cache's `capacity`: boolean, like lengths.

    >>> from posembed_jax import positions
    >>> positions.cache_overflows(jnp.array([3, 4]), 1, capacity=4).tolist()
    [False, True]
    """
    checks.integer_setting("capacity", capacity)
    lengths = checks.integers("lengths", lengths, "int32 cache lengths, [] or [B]")
    new = checks.integers("new", new, "an int or int32 counts of new tokens")
    if new.ndim and lengths.ndim:
        checks.shape("new", new, lengths.shape, f"an int, or int32 counts as lengths, {checks.describe(lengths)}")
    return new > capacity - lengths


def check_cache(lengths: jax.Array, new: Any, capacity: int) -> None:
    """Refuses an append that `cache_overflows`: a `ValueError` when it can be told now, else a `checkify.check`.

    Under jit, call it inside a function wrapped in `jax.experimental.checkify.checkify`. lengths, new: int32 `[]` or
    `[B]`.

    >>> from posembed_jax import positions
    >>> error, _ = checkify.checkify(positions.check_cache)(jnp.array([3, 4]), 1, 5)
    >>> error.get() is None
    True
    """
    overflows = cache_overflows(lengths, new, capacity)
    if checks.is_concrete(overflows):
        if np.any(np.asarray(overflows)):
            raise ValueError(
                f"{np.max(np.asarray(new))} new tokens do not fit: the cache holds {np.max(np.asarray(lengths))} "
                f"of at most {capacity} tokens; make it longer, or drop old tokens first."
            )
    else:
        checkify.check(
            ~jnp.any(overflows),
            "new tokens do not fit: the cache holds {length} of at most {capacity} tokens",
            length=jnp.max(jnp.asarray(lengths)),
            capacity=jnp.int32(capacity),
        )


def grid(shape: tuple[int, ...]) -> jax.Array:
    """The coordinates of an n-dimensional grid in row-major order.

    Args:
        shape: static sizes, such as (height, width) or (frames, height, width).

    Returns:
        int32 `[T, A]`, T the product of the A sizes: the last axis of the grid moves fastest.

    >>> from posembed_jax import positions
    >>> positions.grid((2, 3)).tolist()
    [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    """
    checks.sizes("shape", shape)
    axes = [lax.broadcasted_iota(jnp.int32, shape, axis) for axis in range(len(shape))]
    return jnp.stack(axes, axis=-1).reshape(math.prod(shape), len(shape))


def unravel(numbers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The coordinates of the tokens of a grid that are numbered in row-major order.

    Args:
        numbers: int32 `[...]`.
        shape: static sizes of the grid.

    Returns:
        int32 `[..., A]`. A number past the grid's last, or below 0, has a first coordinate outside of it.

    >>> from posembed_jax import positions
    >>> positions.unravel(jnp.array([0, 4, 6]), (2, 3)).tolist()
    [[0, 0], [1, 1], [2, 0]]
    """
    numbers = checks.integers("numbers", numbers, "int32 [...]")
    checks.sizes("shape", shape)
    axes = []
    for size in shape[:0:-1]:
        axes.append(numbers % size)
        numbers = numbers // size
    return jnp.stack([numbers, *axes[::-1]], axis=-1)


def randomized(key: jax.Array, length: int, max_length: int) -> jax.Array:
    """`length` distinct positions out of 0 ... max_length - 1, sorted: training on them prepares for `max_length`.

    Returns:
        int32 `[length]`.

    >>> from posembed_jax import positions
    >>> positions.randomized(jax.random.key(0), 4, 4).tolist()
    [0, 1, 2, 3]

    Source: https://arxiv.org/abs/2305.16843.
    """
    _check_lengths(length, max_length)
    return jnp.sort(jax.random.choice(key, jnp.arange(max_length, dtype=jnp.int32), (length,), replace=False))


def pose(key: jax.Array, length: int, max_length: int, *, chunks: int = 2) -> jax.Array:
    """Positional skip-wise training: `chunks` runs of consecutive positions with random gaps, below max_length.

    The cuts between chunks are drawn without replacement; chunk i is shifted by `skip_i`, uniform in
    `skip_{i-1} ... max_length - length`, and the first by 0.

    Returns:
        int32 `[length]`, increasing.

    >>> from posembed_jax import positions
    >>> positions.pose(jax.random.key(0), 4, 4).tolist()
    [0, 1, 2, 3]

    Source: https://arxiv.org/abs/2309.10400, section 3.2.
    """
    _check_lengths(length, max_length)
    checks.integer_setting("chunks", chunks)
    if chunks > length:
        raise ValueError(f"chunks is {chunks}; it needs to be at most length, {length}: no chunk is empty.")
    cut_key, *skip_keys = jax.random.split(key, chunks)
    index = jnp.arange(length, dtype=jnp.int32)
    cuts = jnp.sort(jax.random.choice(cut_key, index[1:], (chunks - 1,), replace=False)) if chunks > 1 else index[:0]
    positions, skip = index, jnp.int32(0)
    for i, skip_key in enumerate(skip_keys):
        skip = jax.random.randint(skip_key, (), skip, max_length - length + 1, jnp.int32)
        positions = jnp.where(index >= cuts[i], index + skip, positions)
    return positions


def _check_lengths(length: int, max_length: int) -> None:
    checks.integer_setting("length", length)
    checks.integer_setting("max_length", max_length)
    if max_length > LAST:
        raise ValueError(f"max_length is {max_length}; it needs to be at most {LAST}: positions are int32.")
    if length > max_length:
        raise ValueError(
            f"length is {length}; it needs to be at most max_length, {max_length}: positions do not repeat."
        )


def zigzag(length: int, shards: int) -> jax.Array:
    """The order of tokens that balances causal attention over a sequence sharded `shards` ways.

    The sequence is cut into `2 * shards` chunks and shard i gets chunks i and `2 * shards - 1 - i`. Permute tokens,
    positions and segment ids alike with it, `x = x[zigzag(T, shards)]`, and back with `inverse_order`.

    Returns:
        int32 `[length]`: the original index of each token.

    >>> from posembed_jax import positions
    >>> positions.zigzag(8, 2).tolist()
    [0, 1, 6, 7, 2, 3, 4, 5]

    Source: https://arxiv.org/abs/2407.21783, section 3.3.2.
    """
    checks.integer_setting("length", length)
    checks.integer_setting("shards", shards)
    if length % (2 * shards):
        raise ValueError(
            f"length is {length}; it needs to be a multiple of 2 * shards = {2 * shards}: pad the sequence."
        )
    chunks = jnp.arange(length, dtype=jnp.int32).reshape(2, shards, -1)
    return jnp.stack([chunks[0], chunks[1, ::-1]], axis=1).reshape(length)


def inverse_order(order: jax.Array) -> jax.Array:
    """The order that undoes `order`: `x[order][inverse_order(order)] == x`.

    Args:
        order: int32 `[T]`, a permutation of 0 ... T - 1.

    >>> from posembed_jax import positions
    >>> positions.inverse_order(positions.zigzag(8, 2)).tolist()
    [0, 1, 4, 5, 6, 7, 2, 3]
    """
    order = checks.integers("order", order, "an int32 permutation [T]")
    checks.rank("order", order, {1}, "an int32 permutation [T]")
    if checks.is_concrete(order) and not np.array_equal(np.sort(np.asarray(order)), np.arange(order.size)):
        raise ValueError(
            f"order is {checks.describe(order)}; it needs each of 0 ... {order.size - 1} once: make it with zigzag."
        )
    return jnp.argsort(order).astype(jnp.int32)
