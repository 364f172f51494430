"""The patches of a picture of any shape: what a model adds to them, and where they stand for its rotation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks, resize, vision

Values = Mapping[str, Any]
Shape = tuple[int, ...]


def patch_table(table: jax.Array, shape: Shape, about: Values) -> jax.Array:
    """What a model adds to the tokens of one picture, in the order of its tokens.

    Args:
        table: the parameter of a `LearnedPositions`, floating `[rows, F]`.
        shape: static sizes of the picture in patches, such as (height, width).
        about: of the same place, of `from_config`: it says of which shape the table is and how it is stretched.

    Returns:
        float32 `[before + product of shape + behind, F]`; float64 for float64. Rows of tokens in front and behind are
        those that the table has for them.

    Raises:
        ValueError: a place that is no table of patches, or a shape for which the model has no rows.

    >>> import jax.numpy as jnp
    >>> from posembed_jax import hf
    >>> vit = hf.from_config({"model_type": "vit", "image_size": 32, "patch_size": 16, "hidden_size": 1})
    >>> hf.patch_table(jnp.array([[9.0], [0.0], [1.0], [2.0], [3.0]]), (2, 2), vit.about[""])[:, 0].tolist()
    [9.0, 0.0, 1.0, 2.0, 3.0]

    Source: https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models.
    """
    if not isinstance(about, Mapping) or "shape" not in about:
        raise ValueError(
            f"about is {about!r}; it needs to be that of a table of patches, which has a shape: "
            "from_config(config).about[place], of a tower where there are several."
        )
    old, front, behind = tuple(about["shape"]), about.get("prefix", 0), about.get("behind", 0)
    checks.sizes("shape", shape)
    if len(shape) != len(old) or ("resize" not in about and shape != old):
        raise ValueError(f"shape is {shape}; the model of this table, of {old}, needs {_needs(old, about)}.")
    rows, needs = front + math.prod(old) + behind, f"a floating table [{front} + the product of {old} + {behind}, F]"
    checks.rank("table", table, {2}, needs)
    checks.floating("table", table, needs)
    checks.shape("table", table, (rows, None), needs)
    table = jnp.asarray(table).astype(checks.compute_dtype(table.dtype))
    patches = _resized(table[front : rows - behind], old, shape, about.get("resize", {"method": "none"}))
    if about.get("merge", 1) > 1:
        patches = patches[_row_major(vision.merged_grid(shape, merge=about["merge"]), shape)]
    if about.get("prefix_added_to_all"):
        return patches + table[:1]
    kept = 0 if about.get("prefix_unused") else front
    return jnp.concatenate([table[:kept], patches, table[rows - behind :]])


def patch_positions(shape: Shape, about: Values) -> jax.Array:
    """Where the tokens of one picture or video stand for the rotation, in the order of its tokens.

    Args:
        shape: static (height, width) or (frames, height, width) in patches.
        about: of the place "rotation" of `from_config`: it names the numbers of a position.

    Returns:
        int32 `[before + product of shape + behind, A]`, float32 where these are centres (DINOv3); tokens in front and
        behind, such as a class token, are at 0, where nothing turns.

    Raises:
        ValueError: a model whose patches have no places of their own.

    >>> from posembed_jax import hf
    >>> muse = hf.from_config({"model_type": "muse_spark_vision"})
    >>> hf.patch_positions((1, 3), muse.about["rotation"]).tolist()  # columns first, from 1
    [[1, 1], [2, 1], [3, 1]]

    Source: https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models.
    """
    if not isinstance(about, Mapping) or "axes" not in about:
        raise ValueError(
            f'about is {about!r}; it needs to be about["rotation"] of a model that turns the patches of pictures: '
            'from_config(config).about["rotation"], of a tower where there are several.'
        )
    film = (1, *shape) if isinstance(shape, tuple) and len(shape) == 2 else shape
    if about.get("centers"):
        at = 2 * math.pi * vision.patch_centers(film)
    else:
        at = vision.merged_grid(film, merge=about.get("merge", 1)) + about.get("first", 0)
    at = at[:, np.array([("frame", "row", "column").index(axis) for axis in about["axes"]])]
    return jnp.pad(at, [(about.get("prefix", 0), about.get("behind", 0)), (0, 0)])


def _needs(old: Shape, about: Values) -> str:
    return f"{len(old)} sizes" if "resize" in about else "the same: it never stretches its table"


def _row_major(at: jax.Array, shape: Shape) -> np.ndarray:
    return np.ravel_multi_index(tuple(np.asarray(at).T), shape)


def _resized(rows: jax.Array, old: Shape, shape: Shape, how: Values) -> jax.Array:
    """The rows of the patches of a picture, row after row."""
    if how.get("sides_swapped"):  # a wide picture reads the table of a high one, in the order of its own patches
        shape = shape[::-1]
    if how["method"] == "none":
        return rows
    if how["method"] == "buckets":
        return rows[vision.nearest_rows(shape, side=old[0], reciprocal=how["reciprocal"])]
    settings = {name: how[name] for name in ("method", "antialias", "align_corners") if name in how}
    if "padding" in how:
        del settings["antialias"]
        indices, weights = vision.table_taps(shape, side=old[0], padding=how["padding"], **settings)
        return jnp.einsum("tn,tnf->tf", weights.astype(rows.dtype), rows[indices], precision="highest")
    if how["method"] == "tile":
        return rows[_row_major(np.indices(shape).reshape(len(shape), -1).T % np.array(old), old)]
    if how.get("square_first"):
        square = (max(shape),) * len(shape)
        whole = resize.resize_table(rows, old, square, shrink=True, **settings).reshape(*square, -1)
        return whole[tuple(slice(size) for size in shape)].reshape(math.prod(shape), -1)
    if how.get("by_scale"):
        settings["scale_factor"] = tuple((new + 0.1) / before for before, new in zip(old, shape, strict=True))
    return resize.resize_table(rows, old, shape, shrink=True, **settings)
