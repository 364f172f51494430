"""Positions of images that a model draws, token by token: GLM-Image's."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from posembed_jax import checks
from posembed_jax.mrope.grids import owners

GRIDS = "int32 (time, height, width) in tokens, [n, 3] or [B, n, 3]"


def drawn_positions(grids: jax.Array, start: jax.Array, *, length: int) -> jax.Array:
    """Where the tokens stand that a model decodes when it draws images, one image after the other.

    The last of the grids is drawn first. A token in row h and column w of an image that starts at p stands at
    `(p, p + h, p + w)`, and the next image starts at `p + max(H, W)`. What is decoded after the last image stands where
    a next one would start.

    Args:
        grids: int32 (t, h, w) in tokens, `[n, 3]` or `[B, n, 3]`; t is not used, and rows of zeros are no images.
        start: int32 `[]`, or `[B]` with grids `[B, n, 3]`: where decoding begins, the second result of `positions`.
        length: how many tokens are decoded.

    Returns:
        int32 `[length, 3]` or `[B, length, 3]`.

    >>> import jax.numpy as jnp
    >>> from posembed_jax import mrope
    >>> mrope.drawn_positions(jnp.array([[1, 1, 2], [1, 2, 1]]), 5, length=5).T.tolist()
    [[5, 5, 7, 7, 9], [5, 6, 7, 7, 9], [5, 5, 7, 8, 9]]

    Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/glm_image/modeling_glm_image.py.
    """
    grids = checks.integers("grids", grids, GRIDS)
    checks.rank("grids", grids, {2, 3}, GRIDS)
    checks.shape("grids", grids, (*grids.shape[:-1], 3), GRIDS)
    needs = f"int32 {list(grids.shape[:-2])}: where decoding begins"
    start = checks.integers("start", start, needs)
    checks.shape("start", start, grids.shape[:-2], needs)
    checks.integer_setting("length", length)
    if grids.ndim == 3:
        return jax.vmap(lambda one, begin: _drawn(one, begin, length))(grids, start)
    return _drawn(grids, start, length)


def _drawn(grids: jax.Array, start: jax.Array, length: int) -> jax.Array:
    sizes = jnp.concatenate([grids[::-1, 1:], jnp.zeros((1, 2), grids.dtype)])  # of the last, nothing: what comes after
    sides = jnp.max(sizes, axis=-1)
    starts = start + jnp.cumsum(sides, dtype=jnp.int32) - sides
    owner, known, index = owners(jnp.ones(length, bool), sizes[:, 0] * sizes[:, 1])
    width = jnp.maximum(sizes[owner, 1], 1)
    inside = jnp.where(known, 1, 0)
    row, column = inside * (index // width), inside * (index % width)
    return starts[owner][:, None] + jnp.stack([jnp.zeros_like(row), row, column], axis=-1)
