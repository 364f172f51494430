"""Which channels of a head are a pair, and what it takes to move a checkpoint from one choice to another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks

LAYOUTS = ("half", "interleaved")
ENDS = ("first", "last")


def permute_layout(
    array: jax.Array,
    *,
    source: str,
    target: str,
    dim: int | None = None,
    rotated: str = "first",
    heads: int | None = None,
    axis: int = -1,
) -> jax.Array:
    """Converts a query or key projection from one pair layout to the other.

    A model whose q and k kernels (and biases) are both converted, rotated in the target layout, has the same logits.

    Args:
        array: a kernel or bias, one axis of which is the head dim D, or `heads * D` merged.
        source, target: "half" or "interleaved".
        dim: how many channels of the head turn; all when None.
        rotated: which they are, the "first" or the "last".
        heads: how many heads are merged in the axis: N for queries, K for keys with grouped queries. None when
            the axis is D alone, as in Flax's kernels `[F, N, D]`.
        axis: the axis. A torch linear weight is `[heads * D, F]`: axis 0.

    Returns:
        The shape and dtype of array, channels permuted.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.permute_layout(jnp.arange(6.0), source="interleaved", target="half").tolist()
    [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]

    Source: https://github.com/huggingface/transformers/issues/25199.
    """
    for name, layout in (("source", source), ("target", target)):
        checks.one_of(name, layout, LAYOUTS)
    checks.one_of("rotated", rotated, ENDS)
    checks.array("array", array, "a kernel or bias")
    checks.integer_setting("heads", 1 if heads is None else heads)
    size, count = array.shape[axis], heads or 1
    width = size // count
    dim = width if dim is None else dim
    checks.integer_setting("dim", dim)
    if size % count or dim % 2 or dim > width:
        raise ValueError(
            f"axis {axis} of array, {checks.describe(array)}, has {size} channels; with heads={heads} and dim={dim} it "
            "needs to be heads * D, with dim even and at most D."
        )
    if source == target:
        return jnp.asarray(array)
    start = 0 if rotated == "first" else width - dim
    order = np.arange(width)
    inner = (dim // 2, 2) if source == "interleaved" else (2, dim // 2)
    order[start : start + dim] = start + np.arange(dim).reshape(inner).T.reshape(-1)
    whole = (np.arange(count)[:, None] * width + order).reshape(-1)
    return jnp.take(jnp.asarray(array), whole, axis=axis)


def rotate(
    x: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    *,
    layout: str,
    rotated: str = "first",
    inverse: bool = False,
    blocks: int = 1,
    tables: str = "pairs",
) -> jax.Array:
    """Rotates pairs of channels of x by the angles whose cos and sin are given.

        out[a] = x[a] cos - x[b] sin
        out[b] = x[b] cos + x[a] sin

    Args:
        x: floating `[..., T, N, D]`.
        cos, sin: float32 `[T, dim / 2]` or `[..., T, dim / 2]`, dim <= D. Made once, they serve every layer.
        layout: which channels are a pair: "half", (i, i + dim / 2), or "interleaved", (2 i, 2 i + 1).
        rotated: which dim channels of D turn, the "first" or the "last"; the others pass bit for bit.
        inverse: turn the other way.
        blocks: the dim channels are so many runs, and the layout is that of each.
        tables: "pairs", cos and sin have an entry for each pair; or "channels", `[..., dim]`, an entry for each channel
            in the order of the channels. Then a and b may turn by two angles, which is no rotation.

    Returns:
        The shape and dtype of x. Computed in float32 and cast once.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> cos, sin = pe.RoPE(dim=4, layout="half").cos_sin(pe.positions.arange(3))
    >>> pe.rotate(jnp.ones((3, 2, 6)), cos, sin, layout="half").shape
    (3, 2, 6)

    Source: https://arxiv.org/abs/2104.09864, section 3.4.2.
    """
    _check_rotate(x, cos, sin, layout, rotated, blocks, tables)
    width, half = x.shape[-1], cos.shape[-1] // (2 if tables == "channels" else 1)
    start = 0 if rotated == "first" else width - 2 * half
    compute = checks.compute_dtype(x.dtype)
    cos, sin = _over_heads(cos, x.ndim).astype(compute), _over_heads(sin, x.ndim).astype(compute)
    if inverse:
        sin = -sin
    turning = lax.slice_in_dim(x, start, start + 2 * half, axis=-1).astype(compute)
    a, b = _pairs(turning, layout, blocks)
    first_cos, second_cos = (cos, cos) if tables == "pairs" else _pairs(cos, layout, blocks)
    first_sin, second_sin = (sin, sin) if tables == "pairs" else _pairs(sin, layout, blocks)
    first, second = a * first_cos - b * first_sin, b * second_cos + a * second_sin
    # Joined without a concatenation, which XLA does not vectorise on CPU: by a sum of padded pieces, which runs at the
    # speed of a copy, or, where a cast follows and the pieces fill x in one run, by a stack, which casts faster.
    if blocks > 1 or (x.dtype != compute and (layout == "interleaved" or 2 * half == width)):
        runs = (p.reshape(*p.shape[:-1], blocks, -1) for p in (first, second))
        stacked = jnp.stack([*runs], axis=-2 if layout == "half" else -1)
        out = _padded(stacked.reshape(turning.shape), start, 1, width)
    else:
        step, apart = (1, half) if layout == "half" else (2, 1)
        out = _padded(first, start, step, width) + _padded(second, start + apart, step, width)
    if 2 * half < width:
        begin, end = (2 * half, width) if rotated == "first" else (0, start)
        out = out + _padded(lax.slice_in_dim(x, begin, end, axis=-1).astype(compute), begin, 1, width)
    return out.astype(x.dtype)


def _over_heads(table: jax.Array, ndim: int) -> jax.Array:
    """`[T, n]` or `[..., T, n]` -> `[1 or ..., T, 1, n]`, with as many axes as x has."""
    return table[..., None, :].reshape(*[1] * (ndim - table.ndim - 1), *table.shape[:-1], 1, table.shape[-1])


def _pairs(x: jax.Array, layout: str, blocks: int) -> tuple[jax.Array, jax.Array]:
    """Channels `[..., 2 n]` -> the firsts and the seconds of their pairs, `[..., n]` each."""
    if layout == "interleaved":
        return x[..., ::2], x[..., 1::2]
    half = x.shape[-1] // 2
    if blocks == 1:
        return x[..., :half], x[..., half:]
    runs = x.reshape(*x.shape[:-1], blocks, 2, -1)
    return runs[..., 0, :].reshape(*x.shape[:-1], half), runs[..., 1, :].reshape(*x.shape[:-1], half)


def _padded(x: jax.Array, start: int, step: int, width: int) -> jax.Array:
    """x at channels `start, start + step, ...` of `width`; the rest is -0.0: adding it changes no bit."""
    end = start + (x.shape[-1] - 1) * step + 1
    edges = [(0, 0, 0)] * (x.ndim - 1) + [(start, width - end, step - 1)]
    return lax.pad(x, jnp.array(-0.0, x.dtype), edges)


def _check_rotate(
    x: jax.Array, cos: jax.Array, sin: jax.Array, layout: str, rotated: str, blocks: int, tables: str
) -> None:
    checks.one_of("layout", layout, LAYOUTS)
    checks.one_of("rotated", rotated, ENDS)
    checks.one_of("tables", tables, ("pairs", "channels"))
    checks.integer_setting("blocks", blocks)
    checks.rank("x", x, range(3, 9), "floating [..., T, N, D]")
    checks.floating("x", x, "floating [..., T, N, D]")
    checks.array("cos", cos, "float32 [T, dim / 2] or [..., T, dim / 2]")
    for name, table in (("cos", cos), ("sin", sin)):
        if table.dtype not in (jnp.float32, jnp.float64):
            raise TypeError(
                f"{name} is {checks.describe(table)}; it needs to be float32: x is cast up, not the tables down."
            )
    batch = x.shape[:-2] if cos.ndim > 2 else x.shape[-3:-2]
    needs = f"float32 [T, dim / 2] or [..., T, dim / 2] with the leading axes of x, which is {checks.describe(x)}"
    checks.shape("cos", cos, (*batch, None), needs)
    checks.shape("sin", sin, cos.shape, f"shaped as cos, {list(cos.shape)}")
    dim = cos.shape[-1] * (2 if tables == "pairs" else 1)
    if dim > x.shape[-1]:
        raise ValueError(
            f"cos is {checks.describe(cos)}, which turns {dim} channels, but x has {x.shape[-1]}: "
            "make RoPE's dim at most the head dim."
        )
    if dim % (2 * blocks):
        raise ValueError(f"blocks is {blocks}; the {dim} channels that turn need to be so many runs of whole pairs.")
