"""Which channels of a head are a pair, and what it takes to move a checkpoint from one choice to another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

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
