"""Who may attend to whom: boolean `[..., T, S]`, True = attend, as functions of positions and segment ids.

Every mask takes `[T]` and `[S]`, or `[B, T]` and `[B, S]`, but for `neighbourhood`, which takes the sizes of a picture.
Combine them with `&`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks
from posembed_jax.contracts import check_pair


def causal(query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
    """`mask[t, s] = key_positions[s] <= query_positions[t]`.

    >>> import jax.numpy as jnp
    >>> causal(jnp.array([1]), jnp.array([0, 1, 2])).tolist()
    [[True, True, False]]
    """
    query_positions, key_positions = check_pair(query_positions, key_positions)
    return key_positions[..., None, :] <= query_positions[..., :, None]


def window(query_positions: jax.Array, key_positions: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """`mask[t, s] = -left <= key_positions[s] - query_positions[t] <= right`.

    size: `(left, right)`, or one int for both. A causal sliding window of w tokens, the token itself included (the
    `sliding_window` of transformers), is `(w - 1, 0)`.

    >>> import jax.numpy as jnp
    >>> window(jnp.array([2]), jnp.array([0, 1, 2, 3]), (1, 0)).tolist()
    [[False, True, True, False]]
    """
    left, right = checks.window_sizes(size)
    query_positions, key_positions = check_pair(query_positions, key_positions)
    distance = key_positions[..., None, :] - query_positions[..., :, None]
    return (distance >= -left) & (distance <= right)


def segment(query_segment_ids: jax.Array, key_segment_ids: jax.Array) -> jax.Array:
    """`mask[t, s] = query_segment_ids[t] == key_segment_ids[s] != 0`: the same document, and no padding.

    >>> import jax.numpy as jnp
    >>> segment(jnp.array([2, 0]), jnp.array([1, 2, 0])).tolist()
    [[False, True, False], [False, False, False]]
    """
    queries = checks.integers("query_segment_ids", query_segment_ids, "int32 segment ids [T] or [B, T]")
    keys = checks.integers("key_segment_ids", key_segment_ids, "int32 segment ids [S] or [B, S]")
    checks.rank("query_segment_ids", queries, {1, 2}, "int32 segment ids [T] or [B, T]")
    checks.shape("key_segment_ids", keys, (*queries.shape[:-1], None), "[S] or [B, S], batched as query_segment_ids is")
    keys = keys[..., None, :]
    return (queries[..., :, None] == keys) & (keys != 0)


def padding(key_mask: jax.Array) -> jax.Array:
    """`mask[t, s] = key_mask[s]`, for every query: `[..., 1, S]`.

    >>> import jax.numpy as jnp
    >>> padding(jnp.array([[True, False]])).tolist()
    [[[True, False]]]
    """
    checks.boolean("key_mask", key_mask, "boolean [S] or [B, S]")
    checks.rank("key_mask", key_mask, {1, 2}, "boolean [S] or [B, S]")
    return key_mask[..., None, :]


def neighbourhood(shape: tuple[int, ...], size: int, *, dilation: int = 1) -> jax.Array:
    """`[T, T]`: each token of a picture attends the `size` nearest of its own along every axis, itself among them.

    Its own are those at a multiple of the dilation from it. At an edge the window stays inside, so that all attend as
    many. For tokens in the order of `positions.grid(shape)`, as in NAT and DiNAT.

    Args:
        shape: static sizes in tokens, each at least `size * dilation`.
        size: odd.
        dilation: the step between neighbours.

    >>> neighbourhood((5,), 3)[0].tolist(), neighbourhood((6,), 3, dilation=2)[3].tolist()
    ([True, True, True, False, False], [False, True, False, True, False, True])

    Source: https://arxiv.org/abs/2204.07143, section 3.1, and https://arxiv.org/abs/2209.15001, section 3.
    """
    checks.sizes("shape", shape)
    checks.integer_setting("size", size)
    checks.integer_setting("dilation", dilation)
    if size % 2 == 0:
        raise ValueError(f"size is {size}; it needs to be odd: a token stands in the middle of its neighbours.")
    if min(shape) < size * dilation:
        least = size * dilation
        raise ValueError(f"shape is {shape}; each of its sizes needs to be at least size * dilation, {least}.")
    total = math.prod(shape)
    mask = np.ones((total, total), bool)
    for length, at in zip(shape, np.indices(shape).reshape(len(shape), total), strict=True):
        own, group = at // dilation, at % dilation
        last = (length - 1 - group) // dilation - (size - 1)
        ahead = own[None, :] - np.clip(own - size // 2, 0, last)[:, None]
        mask &= (group[:, None] == group[None, :]) & (ahead >= 0) & (ahead < size)
    return jnp.asarray(mask)
