"""Tables of positions for other sizes: how each new row is a weighted sum of old ones.

Row i of `new` rows stands at `(i + 0.5) old / new - 0.5` among the `old` rows, and takes those near it, as
`torch.nn.functional.interpolate` does. Axes are independent, so a grid is resized by one small matrix for each axis:
made on the host in float64 where the sizes are static, in the graph where they are traced.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks, lookup

METHODS = ("bicubic", "bilinear", "nearest")
A, ANTIALIASED_A = -0.75, -0.5  # of the cubic kernel; torch has one for each


def resize_matrix(
    old: int,
    new: int,
    *,
    method: str = "bicubic",
    antialias: bool = False,
    align_corners: bool = False,
    scale_factor: float | None = None,
) -> np.ndarray:
    """The matrix that resizes one axis: `resized = matrix @ table`, each row of which sums to 1.

        matrix[i, j] = w(at[i] - j), at[i] = (i + 0.5) old / new - 0.5             rows beyond the edge are the last one
        matrix[i, j] = w((at[i] - j) / stretch) / sum, stretch = max(old / new, 1)                    with antialias

    w is `1 - abs(x)` or Keys' cubic kernel, with a = -0.75, and -0.5 with antialias.

    Args:
        old, new: static numbers of rows.
        method: "bicubic", "bilinear" (of one axis: linear), or "nearest", the row at or before `i old / new`.
        antialias: shrinking averages over all rows, instead of picking some.
        align_corners: the first and last rows stay where they are: `at[i] = i (old - 1) / (new - 1)`.
        scale_factor: new / old where a model computes with a slightly different number, such as (new + 0.1) / old.

    Returns:
        float32 `[new, old]`, made in float64: what torch computes in float64, rounded once.

    >>> import posembed_jax as pe
    >>> pe.resize_matrix(2, 4, method="bilinear").tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]

    Source: https://doi.org/10.1109/TASSP.1981.1163711 for the cubic kernel; torch's `interpolate` for the rest.
    """
    checks.integer_setting("old", old)
    checks.integer_setting("new", new)
    _check_method(method, antialias, align_corners)
    if scale_factor is not None:
        checks.number_setting("scale_factor", scale_factor)
        if math.floor(old * scale_factor) != new:
            raise ValueError(
                f"scale_factor is {scale_factor!r}; it needs to be new / old or slightly more: floor(old scale_factor) "
                f"is {math.floor(old * scale_factor)}, and new is {new}."
            )
    step = old / new if scale_factor is None else 1.0 / scale_factor
    if align_corners:
        step = (old - 1) / (new - 1) if new > 1 else 0.0
    if method == "nearest":  # torch's float32, because rounding decides between two rows
        rows = np.arange(old) if old == new else np.floor(np.arange(new, dtype=np.float32) * np.float32(step))
        return np.eye(old, dtype=np.float32)[np.minimum(rows.astype(np.int64), old - 1)]
    i = np.arange(new, dtype=np.float64)
    return _weights(np, i, step, old, method, antialias, align_corners).astype(np.float32)


def _check_method(method: str, antialias: bool, align_corners: bool) -> None:
    checks.one_of("method", method, METHODS)
    checks.flag("antialias", antialias)
    checks.flag("align_corners", align_corners)
    if method == "nearest" and (antialias or align_corners):
        name = "antialias" if antialias else "align_corners"
        raise ValueError(f"{name} is True; it needs to be False with method='nearest', which has no weights.")


def _weights(
    xp: ModuleType, i: Any, step: Any, old: int, method: str, antialias: bool, align_corners: bool = False
) -> Any:
    """The rows `i` `[...]` of the matrix, `[..., old]`, in numpy or jax.numpy: `xp`."""
    at = step * i if align_corners and not antialias else step * (i + 0.5) - 0.5
    rows = np.arange(-2, old + 2, dtype=at.dtype).reshape(*[1] * at.ndim, -1)
    apart = abs(at[..., None] - rows)
    if antialias:
        stretch = xp.maximum(step, 1.0) + xp.zeros_like(at)
        weights = _kernel(xp, apart[..., 2:-2] / stretch[..., None], method, ANTIALIASED_A)
        return weights / weights.sum(-1, keepdims=True)
    if method == "bilinear":
        return _kernel(xp, abs(xp.clip(at, 0, old - 1)[..., None] - rows[..., 2:-2]), method, A)
    weights, last = _kernel(xp, apart, method, A), np.clip(np.arange(-2, old + 2), 0, old - 1)
    return xp.stack([weights[..., last == j].sum(-1) for j in range(old)], axis=-1)


def _kernel(xp: ModuleType, x: Any, method: str, a: float) -> Any:
    """The weight of a row at a distance x >= 0."""
    if method == "bilinear":
        return xp.maximum(1.0 - x, 0.0)
    return xp.where(x < 1.0, _near(x, a), xp.where(x < 2.0, _far(x, a), 0.0))


def _near(x: Any, a: float) -> Any:
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0


def _far(x: Any, a: float) -> Any:
    return ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a


def taps(t: Any, method: str) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Offsets and weights of the rows about a place `t` past a row, 0 <= t < 1."""
    if method == "bilinear":
        return (0, 1), (1.0 - t, t)
    return (-1, 0, 1, 2), (_far(1.0 + t, A), _near(t, A), _near(1.0 - t, A), _far(2.0 - t, A))


def resize_table(
    table: jax.Array,
    old: tuple[int, ...],
    new: tuple[int, ...],
    *,
    method: str = "bicubic",
    antialias: bool = False,
    align_corners: bool = False,
    scale_factor: tuple[float, ...] | None = None,
    before: int = 0,
    after: int = 0,
    shrink: bool = False,
) -> jax.Array:
    """A learned table of a grid, for another grid; rows of class and other tokens stay as they are.

    Equal sizes give the table back. Inside jit it is one small product for each axis, and gradients flow through it,
    so a model may keep the table that it was trained with.

    Args:
        table: `[before + product of old + after, F]`, the grid in row-major order.
        old, new: static sizes, such as (height, width) in patches; (length,) for one axis.
        method, antialias, align_corners: as in `resize_matrix`. ViT, CLIP and DeiT: "bicubic"; DINOv2 with registers
            also antialias; Swin's and BEiT's are `resize_bias_table`.
        scale_factor: one for each axis, as in `resize_matrix`.
        before, after: rows of tokens that do not stand in the grid: 1 for a class token, 2 in DeiT.
        shrink: whether any axis may become smaller, which loses what the table holds.

    Returns:
        float32 `[before + product of new + after, F]`; float64 for float64.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.resize_table(jnp.array([[9.0], [0.0], [1.0]]), (1, 2), (1, 4), method="bilinear", before=1)[:, 0].tolist()
    [9.0, 0.0, 0.25, 0.75, 1.0]

    Source: https://arxiv.org/abs/2010.11929, section 3.2.
    """
    checks.integer_setting("before", before, minimum=0)
    checks.integer_setting("after", after, minimum=0)
    matrices = [
        resize_matrix(a, b, method=method, antialias=antialias, align_corners=align_corners, scale_factor=factor)
        for a, b, factor in _axes(old, new, scale_factor, shrink)
    ]
    rows, needs = math.prod(old), f"a floating table [T, F] of {before} + the product of {old} + {after} rows"
    checks.rank("table", table, {2}, needs)
    checks.floating("table", table, needs)
    checks.shape("table", table, (before + rows + after, None), needs)
    table = jnp.asarray(table).astype(checks.compute_dtype(table.dtype))
    grid = table[before : before + rows].reshape(*old, -1)
    if old != new:  # else torch copies, whatever the scale factor
        for axis, matrix in enumerate(matrices):
            grid = jnp.moveaxis(jnp.tensordot(matrix.astype(grid.dtype), grid, (1, axis), precision="highest"), 0, axis)
    return jnp.concatenate([table[:before], grid.reshape(-1, table.shape[1]), table[before + rows :]])


def resize_bias_table(
    table: jax.Array,
    old: tuple[int, ...],
    new: tuple[int, ...],
    *,
    method: str = "bicubic",
    extra: int = 0,
    shrink: bool = False,
) -> jax.Array:
    """The table of `SwinBias` or `BEiTBias`, of all offsets within a window, for another window.

    Args:
        table: `[heads, product of (2 old - 1) + extra]`.
        old, new: static sizes of the windows, such as (height, width).
        method: "bicubic" in timm, "bilinear" in transformers' BEiT.
        extra: entries at the end that are kept: 3 in `BEiTBias`.
        shrink: whether any axis may become smaller.

    Returns:
        float32 `[heads, product of (2 new - 1) + extra]`; float64 for float64.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> table = jnp.array([[0.0, 1.0, 2.0, 7.0]])
    >>> pe.resize_bias_table(table, (1, 2), (1, 3), method="bilinear", extra=1)[0, jnp.array([0, 2, 4, 5])].tolist()
    [0.0, 1.0, 2.0, 7.0]

    Source: https://arxiv.org/abs/2106.08254, and its code for fine-tuning at another size.
    """
    checks.sizes("old", old)
    checks.sizes("new", new)
    checks.integer_setting("extra", extra, minimum=0)
    old, new = tuple(2 * size - 1 for size in old), tuple(2 * size - 1 for size in new)
    needs = f"a floating table [heads, {math.prod(old)} offsets + {extra} extra]"
    checks.rank("table", table, {2}, needs)
    checks.shape("table", table, (None, math.prod(old) + extra), needs)
    return resize_table(table.T, old, new, method=method, after=extra, shrink=shrink).T


def _axes(old: Any, new: Any, scale_factor: Any, shrink: bool) -> list[tuple[int, int, float | None]]:
    """(old, new, scale factor) of each axis."""
    checks.sizes("old", old)
    checks.sizes("new", new)
    checks.flag("shrink", shrink)
    if len(new) != len(old):
        raise ValueError(f"new is {new}; it needs as many sizes as old, {old}.")
    if not shrink and any(b < a for a, b in zip(old, new, strict=True)):
        raise ValueError(
            f"new is {new}; it needs to be at least old, {old}, along every axis: pass shrink=True to make the table "
            "smaller, which loses what it holds."
        )
    factors = (None,) * len(old) if scale_factor is None else scale_factor
    if not isinstance(factors, tuple) or len(factors) != len(old):
        raise ValueError(f"scale_factor is {scale_factor!r}; it needs to be a tuple of one number for each of {old}.")
    return list(zip(old, new, factors, strict=True))


def _check_grid(table: Any) -> None:
    checks.rank("table", table, range(2, 9), "a floating table [*sizes, F]")
    checks.floating("table", table, "a floating table [*sizes, F]")


def sample_table(
    table: jax.Array, coordinates: jax.Array, *, method: str = "bilinear", padding: str = "border"
) -> jax.Array:
    """A table read between its rows.

        x[t] = sum over rows of w(coordinates[t] - row) * table[row]

    A patch at `(i + 0.5) / size` of an image of any size has the coordinate `(i + 0.5) / size * rows - 0.5`.
    Gradients flow to the table and to the coordinates.

    Args:
        table: floating `[*sizes, F]`, for A axes.
        coordinates: float32 `[..., A]`, counted in rows: 0 is the middle of the first row.
        method: "bilinear", or "bicubic" with a = -0.75.
        padding: rows beyond the table are the nearest of its "border", or "zeros".

    Returns:
        float32 `[..., F]`; NaN where a coordinate is.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.sample_table(jnp.array([[[0.0], [1.0]]]), jnp.array([[0.0, 0.25], [0.0, 9.0]]))[:, 0].tolist()
    [0.25, 1.0]

    Source: https://arxiv.org/abs/1506.02025, section 3.3.
    """
    checks.one_of("method", method, METHODS[:2])
    checks.one_of("padding", padding, ("border", "zeros"))
    _check_grid(table)
    sizes, needs = table.shape[:-1], f"float32 coordinates [..., {table.ndim - 1}], one for each axis of table"
    checks.floating("coordinates", coordinates, needs)
    checks.rank("coordinates", coordinates, range(1, 9), needs)
    checks.shape("coordinates", coordinates, (*[None] * (coordinates.ndim - 1), len(sizes)), needs)
    if coordinates.dtype not in (jnp.float32, jnp.float64):
        came = checks.describe(coordinates)
        raise TypeError(f"coordinates is {came}; it needs to be {needs}: narrower floats merge neighbours.")
    first = jnp.floor(lax.stop_gradient(coordinates))
    indices = jnp.zeros((*coordinates.shape[:-1], 1), jnp.int32)
    weights = jnp.ones(indices.shape, coordinates.dtype)
    for axis, size in enumerate(sizes):
        offsets, taken = taps(coordinates[..., axis] - first[..., axis], method)
        # far from the table every row is its edge, or nothing
        row = jnp.clip(first[..., axis], -4, size + 4).astype(jnp.int32)
        places = jnp.stack([row + offset for offset in offsets], axis=-1)
        own = jnp.stack(taken, axis=-1)
        if padding == "zeros":
            own = jnp.where((places >= 0) & (places < size), own, 0.0 * own)
        places = jnp.clip(places, 0, size - 1)
        indices = (indices[..., :, None] * size + places[..., None, :]).reshape(*places.shape[:-1], -1)
        weights = (weights[..., :, None] * own[..., None, :]).reshape(indices.shape)
    rows = lookup.rows(table.reshape(-1, table.shape[-1]), indices, name="coordinates", out_of_range="clip")
    return jnp.einsum("...n,...nf->...f", weights, rows, precision=lax.Precision.HIGHEST)


def resize_to_shapes(
    table: jax.Array,
    shapes: jax.Array,
    *,
    length: int,
    method: str = "bilinear",
    antialias: bool = True,
    padding: str = "zeros",
) -> jax.Array:
    """A table resized for each image of a batch, whose sizes may be traced: native resolution, as in NaFlex.

    The rows of image b are those of `resize_table(table, old, shapes[b])`, in row-major order, then padding.

    Args:
        table: floating `[*old, F]`.
        shapes: int32 `[B, A]`, the sizes of each image in patches, whose product is at most `length`.
        length: static, the number of patches of the padded batch.
        method, antialias: as in `resize_matrix`, without "nearest".
        padding: rows after an image's last are "zeros", or its "first" row, as in transformers' SigLIP 2.

    Returns:
        float32 `[B, length, F]`; an image of more patches than `length` is refused when shapes are concrete, and all
        NaN when they are traced.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> table = jnp.array([[[0.0], [1.0]]])
    >>> pe.resize_to_shapes(table, jnp.array([[1, 4], [1, 1]]), length=4)[..., 0].tolist()
    [[0.0, 0.25, 0.75, 1.0], [0.5, 0.0, 0.0, 0.0]]

    Source: https://arxiv.org/abs/2502.14786, section 2.4.2.
    """
    checks.one_of("method", method, METHODS[:2])
    checks.flag("antialias", antialias)
    checks.one_of("padding", padding, ("zeros", "first"))
    checks.integer_setting("length", length)
    _check_grid(table)
    old, needs = table.shape[:-1], f"int32 [B, {table.ndim - 1}], a size for each axis of table"
    shapes = checks.integers("shapes", shapes, needs)
    checks.rank("shapes", shapes, {2}, needs)
    checks.shape("shapes", shapes, (None, len(old)), needs)
    numbers = jnp.prod(shapes, axis=-1)
    if checks.is_concrete(shapes) and not (np.all(shapes > 0) and np.all(np.prod(np.int64(shapes), axis=-1) <= length)):
        raise ValueError(
            f"shapes is {np.asarray(shapes).tolist()}; it needs sizes of at least 1 whose product is at most length, "
            f"{length}."
        )
    fits = jnp.all(shapes > 0, axis=-1) & (jnp.prod(shapes.astype(jnp.float32), axis=-1) <= length)
    at = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (len(shapes), length))
    inside = at < numbers[:, None]
    at = jnp.where(inside, at, 0)
    weights = jnp.ones((*at.shape, 1), jnp.float32)
    for axis in reversed(range(len(old))):  # the last axis of the grid moves fastest
        size = jnp.maximum(shapes[:, axis, None], 1)
        step = old[axis] / size.astype(jnp.float32)
        own = _weights(jnp, (at % size).astype(jnp.float32), step, old[axis], method, antialias)
        weights = (own[..., :, None] * weights[..., None, :]).reshape(*at.shape, -1)
        at = at // size
    if padding == "zeros":
        weights = jnp.where(inside[..., None], weights, 0.0)
    weights = jnp.where(fits[:, None, None], weights, jnp.nan)
    flat = table.reshape(-1, table.shape[-1]).astype(checks.compute_dtype(table.dtype))
    return jnp.einsum("btn,nf->btf", weights.astype(flat.dtype), flat, precision=lax.Precision.HIGHEST)
