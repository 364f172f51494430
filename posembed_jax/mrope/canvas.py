"""MiniCPM-V 4.7's canvas: an image and its slices laid over each other, with the marker tokens around them."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.mrope.grids import IMAGE, VIDEO, checked_segments, following, sizes_in_tokens

IDS = "int32 token ids [T] or [B, T]"


class Tokens(NamedTuple):
    """Of each token, documents one behind the other: `[T]`, or `[B, T]`."""

    opens_slice: jax.Array  # bool: it is slice_start_id
    marks: jax.Array  # bool: it is one of the five ids
    new: jax.Array  # bool: it is the first of its document
    starts: jax.Array  # bool: it is the first of a crop
    size: jax.Array  # int32 [..., 2]: where it does, the crop's height and width in tokens


class Crops(NamedTuple):
    """The crops of a row in order, `[C]`, or `[C, 2]` of height and width in tokens."""

    first: jax.Array  # int32: its first token, and its last
    last: jax.Array
    sliced: jax.Array  # bool: it is a slice, and does not open a frame
    followed: jax.Array  # bool: the next crop is a slice of the same frame
    size: jax.Array  # int32 [C, 2]
    canvas: jax.Array  # int32 [C, 2]: of its frame
    offset: jax.Array  # int32 [C, 2]: where it begins on the canvas
    row_end: jax.Array  # int32 [C, 2]: where the newline stands that ends its row of slices


def canvas_positions(
    tokens: jax.Array,
    token_types: jax.Array,
    *,
    merge: int,
    image_start_id: int,
    image_end_id: int,
    slice_start_id: int,
    slice_end_id: int,
    newline_id: int,
    image_grids: jax.Array | None = None,
    video_grids: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Where each token stands in time, height and width, and the position with which decoding goes on: MiniCPM-V 4.7's.

    A run of tokens of one type is a crop. With slice_start_id right before it, it is a slice of the frame before it;
    otherwise it opens a frame, which is one image or one frame of a video. A frame takes in the token before its first
    crop (`<image>`), all up to its last crop, and the markers that follow on that, which are the five ids. A text token
    stands at `(p, p, p)`, and the next token at p + 1. A frame at p has a canvas of height H and width W, and what
    comes after it stands at p + max(H, W) + 1; its tokens stand at `(p, p + y, p + x)`:

        (y, x) = (-1, -1), but at no position below 0   of the token before the first crop (<image>)
        (y, x) = (row * (H - 1) / (h - 1), column * (W - 1) / (w - 1))  rounded, of the first crop, h by w
        (y, x) = (H, W)                                 of the token behind it (</image>)
        (y, x) = (Y, X)                                 of the token before a slice (<slice>) that begins at (Y, X)
        (y, x) = (Y + row, X + column)                  of a slice, h by w
        (y, x) = (Y + h - 1, X + w - 1)                 of the token behind it (</slice>)
        (y, x) = (Y + h' - 1, W)                        of what else is between two slices, such as a newline
        (y, x) = (0, 0)                                 of what else is in the frame

    Slice k of the frame, from 0, begins at (Y, X) = (k // columns * h', k % columns * w'), where h' by w' is the first
    slice. The first two slices that are more than `</slice><slice>` apart end a row and so tell how many columns there
    are; if none are, or rows are not full, all stand in one row. H by W is that of rows by columns of slices, or,
    without slices, of the first crop.

    Args:
        tokens: int32 `[T]` or `[B, T]`, the ids of the tokens.
        token_types: int32, the shape of tokens: 0 = text, 1 = image, 2 = video (mm_token_type_ids of transformers); any
            other number is as text.
        merge: how many patches along each side one token stands for: 4, or 2 where downsample_mode is "4x".
        image_start_id: the id of `<image>`, and so on: the settings that `hf.from_config(...).numbering` has.
        image_grids: int32 (h, w) in patches of each crop of an image, slices too, in their order (target_sizes of
            transformers). `[..., n, 2]` has those of each row; rows of zeros are none. `[n, 2]` with tokens `[B, T]`
            has those of the whole batch, as transformers does.
        video_grids: the same of videos (target_sizes_videos).
        segment_ids: int32, the shape of tokens: 0 is padding, which stands at 0; each other id is a document. A frame
            is not broken by what is of another document.

    Returns:
        positions, int32 `[..., T, 3]`; and int32 `[]` or `[B]`, 1 + the largest position of each row (if packed, of
        the document of its last token), with which decoding goes on, on all axes.

    Raises:
        ValueError: settings; and, where contents can be read now, crops and grids that do not fit, or a crop that no
            token stands before. Where they are traced, crops for which there is no grid are as text.
        AssertionError, TypeError: shapes and dtypes.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> ids = dict(image_start_id=1, image_end_id=2, slice_start_id=3, slice_end_id=4, newline_id=5)
    >>> tokens = jnp.array([9, 1, 7, 7, 2, 3, 7, 7, 7, 7, 4, 3, 7, 7, 4, 9])
    >>> grids = jnp.array([[4, 8], [8, 8], [8, 4]])  # an image and two slices, side by side
    >>> types = jnp.where(tokens == 7, 1, 0)
    >>> at, following = pe.mrope.canvas_positions(tokens, types, merge=4, image_grids=grids, **ids)
    >>> at.T.tolist()[1:]
    [[0, 0, 1, 1, 3, 1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 6], [0, 0, 1, 4, 5, 1, 1, 2, 1, 2, 2, 3, 3, 3, 3, 6]]

    Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/minicpmv4_7/modeling_minicpmv4_7.py.
    """
    tokens = checks.integers("tokens", tokens, IDS)
    checks.rank("tokens", tokens, {1, 2}, IDS)
    needs = f"int32 token types of the shape of tokens, which is {checks.describe(tokens)}: 0 = text, 1 = image"
    token_types = checks.integers("token_types", token_types, needs)
    checks.shape("token_types", token_types, tokens.shape, needs)
    checks.integer_setting("merge", merge)
    markers = {
        "slice_start_id": slice_start_id,
        "slice_end_id": slice_end_id,
        "image_start_id": image_start_id,
        "image_end_id": image_end_id,
        "newline_id": newline_id,
    }
    for name, marker in markers.items():
        checks.integer_setting(name, marker, minimum=0)
    segment_ids = checked_segments(segment_ids, token_types)
    grids = {IMAGE: ("image_grids", image_grids), VIDEO: ("video_grids", video_grids)}
    sizes = {kind: sizes_in_tokens(name, x, token_types, (merge, merge)) for kind, (name, x) in grids.items()}
    if not tokens.shape[-1]:
        return jnp.zeros((*tokens.shape, 3), jnp.int32), jnp.zeros(tokens.shape[:-1], jnp.int32)
    documents = jnp.ones_like(token_types) if segment_ids is None else segment_ids
    real = documents != 0
    kinds = jnp.where(real & ((token_types == IMAGE) | (token_types == VIDEO)), token_types, 0)

    # Sorted by its id a document is one run: what is side by side in it stands side by side.
    order = jnp.argsort(documents, axis=-1, stable=True)
    back = jnp.argsort(order, axis=-1)
    tokens, kinds, documents = (jnp.take_along_axis(x, order, axis=-1) for x in (tokens, kinds, documents))
    new = (documents != jnp.roll(documents, 1, axis=-1)).at[..., 0].set(True)
    starts = (kinds != 0) & (new | (kinds != jnp.roll(kinds, 1, axis=-1)))
    size = jnp.zeros((*starts.shape, 2), jnp.int32)
    for kind, (name, _) in grids.items():
        of_kind = starts & (kinds == kind)
        own = _sizes_in_order(jnp.take_along_axis(of_kind, back, axis=-1), sizes[kind])
        size = jnp.where(of_kind[..., None], jnp.take_along_axis(own, order[..., None], axis=-2), size)
        if all(checks.is_concrete(x) for x in (token_types, sizes[kind], segment_ids)):
            _check(name, kind, *(np.asarray(x) for x in (kinds, new, of_kind, size, sizes[kind])))
    marks = jnp.isin(tokens, jnp.array(list(markers.values()), jnp.int32))
    row = Tokens(tokens == slice_start_id, marks, new, starts & (jnp.min(size, axis=-1) > 0), size)
    places = functools.partial(_places, count=max(1, sum(x.shape[-2] for x in sizes.values())))
    at = places(row) if tokens.ndim == 1 else jax.vmap(places)(row)
    at = jnp.where(real[..., None], jnp.take_along_axis(at, back[..., None], axis=-2), 0)
    return at, following(at, real, segment_ids)


def _sizes_in_order(starts: jax.Array, sizes: jax.Array) -> jax.Array:
    """The size `[..., T, 2]` of the crop that begins at a token, where one does; 0 by 0 where none is left."""
    if sizes.ndim == 3:
        return jax.vmap(_sizes_in_order)(starts, sizes)
    sizes = jnp.pad(sizes, ((0, 1), (0, 0)))
    sizes = sizes[jnp.argsort(jnp.min(sizes, axis=-1) == 0, stable=True)]  # those that are none behind the others
    number = jnp.cumsum(starts.reshape(-1), dtype=jnp.int32).reshape(starts.shape) - 1
    return sizes[jnp.clip(number, 0, sizes.shape[0] - 1)]


def _check(
    name: str, kind: int, kinds: np.ndarray, new: np.ndarray, starts: np.ndarray, size: np.ndarray, sizes: np.ndarray
) -> None:
    """Refuses crops that do not have the sizes of the grids, and those that no text stands before."""
    given = np.sum(np.min(sizes, axis=-1) > 0, axis=-1)
    found = np.sum(starts, axis=-1 if sizes.ndim == kinds.ndim + 1 else None)
    if np.any(given != found):
        raise ValueError(
            f"{name} is of {given} crops; it needs to be of {found}, as many as token_types has runs of {kind} that "
            "are not padding: pass the size of every crop, slices too."
        )
    lengths = np.bincount((np.cumsum(starts) - 1)[kinds.reshape(-1) == kind], minlength=np.sum(starts))
    for length, (height, width) in zip(lengths, size[starts], strict=True):
        if length != height * width:
            raise ValueError(
                f"{name} has a crop of {height} by {width} tokens after merging; it needs to be of {length}, as many "
                f"as its run of {kind} in token_types: check merge, and that no row was cut short."
            )
    if np.any(starts & (new | (np.roll(kinds, 1, axis=-1) != 0))):
        raise ValueError(
            f"token_types has a run of {kind} right at the start of a document or behind another run; it needs to have "
            "a 0 before each, for <image> or <slice>: pass the sequence with its markers."
        )


def _places(tokens: Tokens, count: int) -> jax.Array:
    """Positions `[T, 3]` of the tokens of a row that has at most `count` crops."""
    index, document = jnp.arange(tokens.new.size, dtype=jnp.int32), jnp.cumsum(tokens.new)
    crops = _crops(tokens, document, count)
    # From the token before a crop to the one before the next, all is told by that crop.
    leads = jnp.roll(tokens.starts & ~tokens.new, -1) | (tokens.starts & tokens.new)
    nth = jnp.cumsum(leads, dtype=jnp.int32) - 1
    crop = jax.tree.map(lambda x: x[jnp.clip(nth, 0, count - 1)], crops)
    text = lax.cummax(jnp.where(tokens.marks, -1, index))  # the last token that is no marker
    in_frame = (nth >= 0) & (document[crop.first] == document)
    in_frame &= (index <= crop.last) | crop.followed | (text <= crop.last)

    # The first token of a frame counts for all of it, so the sum up to any of its tokens, less that, is where it is.
    extent = jnp.max(crop.canvas, axis=-1) + 1
    step = jnp.where(in_frame, jnp.where(leads & ~crop.sliced, extent, 0), 1)
    total = jnp.cumsum(step, dtype=jnp.int32)
    before = lax.cummax(jnp.where(tokens.new, total - step, 0))
    start = total - before - jnp.where(in_frame, extent, 1)

    sliced = crop.sliced[:, None]
    over, width = jnp.where(sliced, crop.size, crop.canvas), jnp.maximum(crop.size[:, 1], 1)
    cell = jnp.stack([(index - crop.first) // width, (index - crop.first) % width], axis=-1)
    places = [
        (~in_frame, jnp.zeros_like(cell)),
        (index < crop.first, jnp.where(sliced, crop.offset, -1)),
        (index <= crop.last, crop.offset + _stretched(cell, crop.size, over)),
        (index == crop.last + 1, jnp.where(sliced, crop.offset + crop.size - 1, crop.canvas)),
        (crop.sliced & crop.followed, crop.row_end),
    ]
    at = jnp.select([where[:, None] for where, _ in places], [at for _, at in places], 0)
    return jnp.maximum(start[:, None] + jnp.pad(at, ((0, 0), (1, 0))), 0)


def _crops(tokens: Tokens, document: jax.Array, count: int) -> Crops:
    first = jnp.nonzero(tokens.starts, size=count, fill_value=document.size - 1)[0].astype(jnp.int32)
    number, size = jnp.arange(count, dtype=jnp.int32), tokens.size[first]
    last = first + size[:, 0] * size[:, 1] - 1
    continues = (number > 0) & (number < jnp.sum(tokens.starts)) & (document[first] == document[jnp.roll(first, 1)])
    sliced = continues & jnp.roll(tokens.opens_slice, 1)[first]
    followed = jnp.roll(sliced, -1)  # crop 0 is no slice, so that the last is not followed
    opening = lax.cummax(jnp.where(sliced, 0, number))  # the crop that opens the frame of each
    k = number - opening - 1
    slices = jax.ops.segment_max(k + 1, opening, count)[opening]
    ends_row = sliced & followed & (jnp.roll(first, -1) - last - 1 > 2)
    columns = jax.ops.segment_min(jnp.where(ends_row, k + 1, slices), opening, count)[opening]
    columns = jnp.maximum(jnp.where(slices % jnp.maximum(columns, 1) == 0, columns, slices), 1)
    row, rows, column, shape = k // columns, slices // columns, k % columns, size[jnp.minimum(opening + 1, count - 1)]
    return Crops(
        first=first,
        last=last,
        sliced=sliced,
        followed=followed,
        size=size,
        canvas=jnp.where(slices[:, None] > 0, jnp.stack([rows, columns], -1) * shape, size[opening]),
        offset=jnp.where(sliced[:, None], jnp.stack([row, column], -1) * shape, 0),
        row_end=jnp.stack([row + 1, columns], -1) * shape - jnp.array([[1, 0]]),
    )


def _stretched(cell: jax.Array, size: jax.Array, over: jax.Array) -> jax.Array:
    """cell * (over - 1) / (size - 1), rounded as transformers does: from the nearer end, by a float32 step."""
    i, last, end = (jnp.maximum(x, 0).astype(jnp.float32) for x in (cell, size - 1, over - 1))
    divisor = jnp.maximum(last, 1)
    # Twelve bits of the quotient leave a remainder that is exact, and its quotient makes up for a division that some
    # accelerators do not round correctly.
    high = lax.reduce_precision(end / divisor, exponent_bits=8, mantissa_bits=11)
    step = high + (end - high * divisor) / divisor
    from_start, from_end = step * i, end - step * (last - i)
    return jnp.round(jnp.where((cell < size // 2) | (size == 1), from_start, from_end)).astype(jnp.int32)
