"""Where the patches of pictures and videos stand: orders, windows, and which rows of a table they read.

Sizes are static, so all of this is made on the host, once; coordinates may be augmented in the graph.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks, resize

Shape = tuple[int, ...]


def merged_grid(shape: Shape, *, merge: int = 1) -> jax.Array:
    """Coordinates of the patches of a picture or video, block after block of `merge * merge` neighbours.

    So do models keep them that later join each block into one token: Qwen2-VL and its kin.

    Args:
        shape: static (height, width) or (frames, height, width) in patches, multiples of merge.
        merge: the side of a block.

    Returns:
        int32 `[T, A]`, T the product of the A sizes; `positions.grid` in another order, the same one for merge = 1.

    >>> from posembed_jax import vision
    >>> vision.merged_grid((2, 4), merge=2).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]

    Source: https://arxiv.org/abs/2409.12191, section 2.1.
    """
    return jnp.asarray(np.stack([axis.reshape(-1) for axis in _blocks(shape, merge)], axis=-1), jnp.int32)


def _blocks(shape: Shape, merge: int) -> list[np.ndarray]:
    """The coordinates, one array for each axis, in block order."""
    checks.integer_setting("merge", merge)
    if not isinstance(shape, tuple) or len(shape) not in (2, 3):
        raise ValueError(f"shape is {shape!r}; it needs to be (height, width) or (frames, height, width).")
    for axis, size in enumerate(shape):
        checks.integer_setting(f"shape[{axis}]", size)
    height, width = shape[-2:]
    if height % merge or width % merge:
        raise ValueError(f"shape is {shape}; its height and width need to be multiples of merge, {merge}.")
    axes = np.indices(shape).reshape(len(shape), -1, height // merge, merge, width // merge, merge)
    return list(axes.swapaxes(-3, -2))


def windows(shape: Shape, *, size: int) -> tuple[jax.Array, jax.Array]:
    """The order that puts tokens window after window, and the window of each: attention inside windows.

    Args:
        shape: static (frames, height, width) in tokens.
        size: the side of a window; those at the lower and right edges may be smaller.

    Returns:
        order: int32 `[T]`; `x[order]` has the windows one after the other, each in row-major order.
        segment_ids: int32 `[T]`, 1, 2, ... for the tokens in that order: attention's `segment_ids`.

    >>> from posembed_jax import vision
    >>> order, segment_ids = vision.windows((1, 2, 3), size=2)
    >>> order.tolist(), segment_ids.tolist()
    ([0, 1, 3, 4, 2, 5], [1, 1, 1, 1, 2, 2])

    Source: https://arxiv.org/abs/2502.13923, section 2.1.1.
    """
    checks.integer_setting("size", size)
    if not isinstance(shape, tuple) or len(shape) != 3:
        raise ValueError(f"shape is {shape!r}; it needs to be (frames, height, width).")
    for axis, extent in enumerate(shape):
        checks.integer_setting(f"shape[{axis}]", extent)
    frame, row, column = np.indices(shape).reshape(3, -1)
    across = -(-shape[2] // size)
    down = -(-shape[1] // size)
    window = (frame * down + row // size) * across + column // size
    order = np.argsort(window, kind="stable")
    return jnp.asarray(order, jnp.int32), jnp.asarray(window[order] + 1, jnp.int32)


def patch_centers(shape: Shape) -> jax.Array:
    """The centres of the patches of a picture, between -1 and 1: `2 (i + 0.5) / size - 1` along each axis.

    DINOv3's rotation takes `2 * pi` of it as positions; a token at 0, such as a class token, is not turned.

    Args:
        shape: static (height, width) in patches.

    Returns:
        float32 `[T, A]` in row-major order.

    >>> from posembed_jax import vision
    >>> vision.patch_centers((1, 4)).tolist()
    [[0.0, -0.75], [0.0, -0.25], [0.0, 0.25], [0.0, 0.75]]

    Source: https://arxiv.org/abs/2508.10104, section 3.2.
    """
    axes = [2.0 * (axis + 0.5) / size - 1.0 for axis, size in zip(_blocks(shape, 1), shape, strict=True)]
    return jnp.asarray(np.stack([axis.reshape(-1) for axis in axes], axis=-1), jnp.float32)


def augmented(
    centers: jax.Array, draws: jax.Array, *, shift: float = 0.0, jitter: float = 1.0, rescale: float = 1.0
) -> jax.Array:
    """Centres moved, stretched along each axis, and stretched as a whole: DINOv3's augmentation in training.

        (centers + shift * draws[:A]) * jitter ** draws[A : 2 A] * rescale ** draws[2 A]

    Args:
        centers: float32 `[T, A]`, of `patch_centers`.
        draws: float32 `[2 A + 1]` between -1 and 1: `jax.random.uniform(key, (2 * A + 1,), minval=-1.0)`.
        shift: the largest move.
        jitter: the largest stretch along one axis, at least 1; its inverse is the smallest.
        rescale: the largest stretch of both, at least 1.

    Returns:
        float32 `[T, A]`.

    >>> import jax
    >>> from posembed_jax import vision
    >>> draws = jax.random.uniform(jax.random.key(0), (5,), minval=-1.0)
    >>> vision.augmented(vision.patch_centers((2, 3)), draws, shift=0.1, rescale=2.0).shape
    (6, 2)

    Source: https://arxiv.org/abs/2508.10104, section 3.2.
    """
    checks.rank("centers", centers, {2}, "float32 [T, A]")
    checks.floating("centers", centers, "float32 [T, A]")
    axes = centers.shape[1]
    checks.shape("draws", draws, (2 * axes + 1,), "float32 [2 A + 1]: two for each axis, and one for all")
    checks.floating("draws", draws, "float32 [2 A + 1]")
    for name, value, least in (("shift", shift, 0.0), ("jitter", jitter, 1.0), ("rescale", rescale, 1.0)):
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number or not least <= value < math.inf:
            raise ValueError(f"{name} is {value!r}; it needs to be a finite Python number of at least {least}.")
    stretch = np.log(np.float32(jitter)) * draws[axes : 2 * axes] + np.log(np.float32(rescale)) * draws[2 * axes]
    return (centers + np.float32(shift) * draws[None, :axes]) * jnp.exp(stretch[None])


def mask_coordinates(
    mask: jax.Array, *, normalize: bool = False, offset: float = 0.0, scale: float = 2 * math.pi
) -> jax.Array:
    """The coordinates of the pixels of padded pictures: how many real pixels there are up to each, down and across.

        (y + offset) / (last y of the column + 1e-6) * scale, and x alike          with normalize

    For `Sinusoidal(axes=2, layout="interleaved", fractional=normalize)`, as DETR and its kin have it.

    Args:
        mask: boolean `[B, height, width]`, True = a real pixel; all True where nothing is padded.
        normalize: between 0 and scale, whatever the size (DETR), rather than counts from 1.
        offset: -0.5 in Deformable DETR.
        scale: as above.

    Returns:
        `[B, height * width, 2]`, rows first, in row-major order: float32 with normalize, else int32.

    >>> import jax.numpy as jnp
    >>> from posembed_jax import vision
    >>> vision.mask_coordinates(jnp.array([[[True, True, False]]])).tolist()
    [[[1, 1], [1, 2], [0, 2]]]

    Source: https://arxiv.org/abs/2005.12872, appendix A.4, and its code for the rest.
    """
    checks.boolean("mask", mask, "boolean [B, height, width], True = a real pixel")
    checks.rank("mask", mask, {3}, "boolean [B, height, width], True = a real pixel")
    checks.flag("normalize", normalize)
    checks.number_setting("scale", scale)
    if not normalize and offset:
        raise ValueError(f"offset is {offset!r}; it needs normalize=True: counts are whole numbers.")
    found = [jnp.cumsum(jnp.asarray(mask), axis=axis, dtype=jnp.int32) for axis in (1, 2)]
    if normalize:
        last = found[0][:, -1:], found[1][:, :, -1:]
        pairs = zip(found, last, strict=True)
        floats = [(x.astype(jnp.float32), end.astype(jnp.float32)) for x, end in pairs]
        found = [(x + np.float32(offset)) / (end + np.float32(1e-6)) * np.float32(scale) for x, end in floats]
    return jnp.stack(found, axis=-1).reshape(mask.shape[0], -1, 2)


def nearest_rows(shape: Shape, *, side: int, reciprocal: bool = False) -> jax.Array:
    """For each patch, the row of a square table of `side * side` positions that its upper left corner falls in.

    Args:
        shape: static (height, width) in patches.
        side: of the table.
        reciprocal: `i (1 / size)`, as in Idefics2, Idefics3, SmolVLM and Phi-4, not `i / size`, as in MiniCPM-V:
            where an edge is hit, float32 rounds one of them to the row before.

    Returns:
        int32 `[T]` in row-major order. Edges are compared in float32, as in the models that are trained so.

    >>> from posembed_jax import vision
    >>> vision.nearest_rows((2, 3), side=4).tolist()
    [0, 1, 2, 8, 9, 10]

    Source: https://arxiv.org/abs/2307.06304, section 2.1, and transformers' Idefics2 and MiniCPM-V.
    """
    checks.integer_setting("side", side)
    checks.flag("reciprocal", reciprocal)
    rows, columns = _blocks(shape, 1)
    edges = (1 / side + np.arange(side - 1) / side).astype(np.float32)
    at = [
        np.searchsorted(
            edges, _fraction(axis.reshape(-1).astype(np.float32), np.float32(size), reciprocal), side="right"
        )
        for axis, size in zip((rows, columns), shape, strict=True)
    ]
    return jnp.asarray(at[0] * side + at[1], jnp.int32)


def _fraction(i: np.ndarray, size: np.float32, reciprocal: bool) -> np.ndarray:
    return i * (np.float32(1) / size) if reciprocal else i / size


def table_taps(
    shape: Shape,
    *,
    side: int,
    method: str = "bilinear",
    align_corners: bool = False,
    padding: str = "border",
    merge: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Which rows of a square table each patch reads, and with which weights: a table resized without its new grid.

        positions[t] = sum over n of weights[t, n] * table[indices[t, n]]

    Args:
        shape: static (height, width) or (frames, height, width) in patches; every frame reads the same.
        side: of the table.
        method: "bilinear", 4 rows, or "bicubic", 16, with a = -0.75.
        align_corners: the corners' centres, rather than their edges, meet.
        padding: rows beyond the table are the nearest of its "border", or weigh nothing, "zeros".
        merge: patches in the order of `merged_grid`.

    Returns:
        indices: int32 `[T, n]`.
        weights: float32 `[T, n]`.

    >>> from posembed_jax import vision
    >>> indices, weights = vision.table_taps((2, 2), side=2, align_corners=True)
    >>> indices[:, 0].tolist(), weights[:, 0].tolist()
    ([0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0])

    Source: https://doi.org/10.1109/TASSP.1981.1163711 for the cubic kernel.
    """
    checks.integer_setting("side", side)
    checks.one_of("method", method, ("bilinear", "bicubic"))
    checks.one_of("padding", padding, ("border", "zeros"))
    checks.flag("align_corners", align_corners)
    at = [axis.reshape(-1) for axis in _blocks(shape, merge)[-2:]]
    taps = [_taps(i, size, side, method, align_corners, padding) for i, size in zip(at, shape[-2:], strict=True)]
    (rows, down), (columns, across) = taps
    indices = rows[:, :, None] * side + columns[:, None, :]
    weights = down[:, :, None] * across[:, None, :]
    return (
        jnp.asarray(indices.reshape(len(rows), -1), jnp.int32),
        jnp.asarray(weights.reshape(len(rows), -1), jnp.float32),
    )


def _taps(
    i: np.ndarray, size: int, side: int, method: str, align_corners: bool, padding: str
) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: places `[T, n]` and their weights."""
    one = np.float32
    i = i.astype(one)
    at = (
        i * one(side - 1) / one(max(size - 1, 1))
        if align_corners
        else (i + one(0.5)) * one(side) / one(size) - one(0.5)
    )
    first = np.floor(at)
    offsets, taken = resize.taps(at - first, method)
    places = first.astype(np.int64)[:, None] + offsets
    weights = np.stack(taken, axis=-1)
    if padding == "zeros":
        weights = weights * ((places >= 0) & (places < side))
    return np.clip(places, 0, side - 1), weights


def lengths(shapes: Sequence[Shape], *, joined: bool = False) -> jax.Array:
    """Where each frame begins among the patches of several pictures and videos, and the end: `cu_seqlens`.

    Args:
        shapes: static (frames, height, width) each.
        joined: where each picture or video begins instead.

    Returns:
        int32 `[number + 1]`.

    >>> from posembed_jax import vision
    >>> vision.lengths([(1, 2, 2), (2, 1, 3)]).tolist()
    [0, 4, 7, 10]

    Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/vision_utils.py.
    """
    sizes: list[int] = []
    for number, shape in enumerate(shapes):
        if not isinstance(shape, tuple) or len(shape) != 3:
            raise ValueError(f"shapes[{number}] is {shape!r}; it needs to be (frames, height, width).")
        frames, height, width = shape
        sizes += [frames * height * width] if joined else [height * width] * frames
    return jnp.asarray(np.cumsum([0, *sizes]), jnp.int32)
