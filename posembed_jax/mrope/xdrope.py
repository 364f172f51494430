"""HunyuanVL's XD-RoPE: text counts every token, and images are numbered beside it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from posembed_jax import checks
from posembed_jax.mrope.grids import (
    IMAGE,
    Grids,
    check_tokens,
    checked_segments,
    following,
    owners,
    running_sum,
    sizes_in_tokens,
)

TYPES = "int32 token types [T] or [B, T]: 0 = text, 1 = image"


def xdrope_positions(
    token_types: jax.Array,
    *,
    merge: int,
    axes: int = 4,
    image_grids: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Where each token stands in XD-RoPE's axes, and the position with which decoding goes on: HunyuanVL's rule.

    Every token counts, so that text, and an image's tokens on the first `axes - 3` axes, stand at their place p in the
    sequence. A token in row h and column w of image i stands, on the last three axes, at

        (w, h, i)

    with images counted from 0. A row of an image is one token longer than its grid in tokens, h // merge and
    w // merge: a newline ends it. Two more tokens may enclose an image: they stand at p, as text.

    Args:
        token_types: int32 `[T]` or `[B, T]`: 0 = text, 1 = image, with its newlines and with what encloses it, if all
            images have that; any other number is as text.
        merge: how many patches along each side one token stands for.
        axes: how many numbers a position has, of which the last three are of images: the length of the
            xdrope_section.
        image_grids: int32 (t, h, w) in patches, as `positions` has them; t is not used. With `[..., n, 3]` images are
            counted in their row, or document; with `[n, 3]` and types `[B, T]` through the whole batch, as transformers
            does.
        segment_ids: int32, the shape of token_types: 0 is padding, which stands at 0; each other id is a document.

    Returns:
        positions, int32 `[..., T, axes]`; and int32 `[]` or `[B]`, 1 + the largest position of each row (if packed, of
        the document of its last token), with which decoding goes on, on all axes.

    Raises:
        ValueError: settings, and numbers of tokens and grids that do not fit, where contents can be read now.
        AssertionError, TypeError: shapes and dtypes.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> types, grids = jnp.array([0, 1, 1, 1, 1, 1, 1, 0]), jnp.array([[1, 4, 4]])
    >>> at, following = pe.mrope.xdrope_positions(types, image_grids=grids, merge=2)
    >>> at.T.tolist()[:3]
    [[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 1, 2, 0, 1, 2, 7], [0, 0, 0, 0, 1, 1, 1, 7]]

    Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/hunyuan_vl/modeling_hunyuan_vl.py.
    """
    token_types = checks.integers("token_types", token_types, TYPES)
    checks.rank("token_types", token_types, {1, 2}, TYPES)
    checks.integer_setting("merge", merge)
    checks.integer_setting("axes", axes, minimum=3)
    segment_ids = checked_segments(segment_ids, token_types)
    sizes = sizes_in_tokens("image_grids", image_grids, token_types, (1, merge, merge))
    real = jnp.ones(token_types.shape, bool) if segment_ids is None else segment_ids != 0
    at = running_sum(real.astype(jnp.int32), segment_ids) - 1
    at = jnp.repeat(at[..., None], axes, axis=-1)
    if sizes.shape[-2]:
        chosen = real & (token_types == IMAGE)
        counts, enclosed = _counts(chosen, sizes)
        if all(checks.is_concrete(x) for x in (token_types, sizes, segment_ids)):
            rows = jnp.stack([jnp.ones_like(counts)] * 2 + [counts], axis=-1)
            check_tokens("image_grids", IMAGE, Grids(rows), token_types, segment_ids, sound=False)
        if sizes.ndim == 3:
            place = jax.vmap(_places)(chosen, sizes, counts, enclosed)
            image = running_sum(place[1].astype(jnp.int32), segment_ids) - 1
        else:
            place = _places(chosen.reshape(-1), sizes, counts, enclosed)
            image = (jnp.cumsum(place[1], dtype=jnp.int32) - 1).reshape(chosen.shape)
            if token_types.ndim == 1:
                image = running_sum(place[1].astype(jnp.int32), segment_ids) - 1
        inside, _, column, row = (x.reshape(chosen.shape) for x in place)
        of_image = jnp.stack([column, row, image], axis=-1)
        at = at.at[..., axes - 3 :].set(jnp.where(inside[..., None], of_image, at[..., axes - 3 :]))
    at = jnp.where(real[..., None], at, 0)
    return at, following(at, real, segment_ids)


def _counts(chosen: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens of each image, int32 `[..., n]`; and how many enclose it on each side, int32 `[...]`, 0 or 1."""
    counts = sizes[..., 1] * (sizes[..., 2] + 1) * jnp.minimum(sizes[..., 2], 1)
    axes = None if sizes.ndim == 2 else -1
    tokens = jnp.sum(chosen, axis=axes, dtype=jnp.int32)
    enclosed = (tokens > jnp.sum(counts, axis=-1, dtype=jnp.int32)).astype(jnp.int32)
    return counts + 2 * jnp.minimum(counts, 1) * enclosed[..., None], enclosed


def _places(chosen: jax.Array, sizes: jax.Array, counts: jax.Array, enclosed: jax.Array) -> tuple[jax.Array, ...]:
    """Of each token `[T]`: whether it is in a grid, whether it is the first of an image, its column, its row."""
    owner, known, index = owners(chosen, counts)
    width = sizes[owner, 2] + 1
    in_grid = index - enclosed
    inside = chosen & known & (in_grid >= 0) & (in_grid < sizes[owner, 1] * width)
    return inside, chosen & known & (index == 0), in_grid % width, in_grid // width
