"""Positions of text, images and videos in one sequence (M-RoPE): int32 `[..., T, 3]` of (time, height, width).

The models that use M-RoPE number their tokens by one rule, and differ in its settings:

- Qwen2-VL, PaddleOCR-VL: `merge=2`.
- Qwen2.5-VL: `tokens_per_second` of the configuration and `seconds_per_grid` of the processor.
- Qwen3-VL, Qwen3.5, GLM-4V, GLM-4.6V, GLM-OCR, Cohere Compass, Cosmos 3: `split_frames=True`.
- ERNIE 4.5 VL: `time_merge=2`.
- Qwen2.5-Omni without the sound of its videos: `after="largest"`, and `tokens_per_second` its position_id_per_seconds.
  It multiplies by seconds first, which is the same where the products are exact, and has padding at 1.

Not so numbered: HunyuanVL (text counts every token of an image), MiniCPM-V 4.7 (slices on one canvas), GLM-Image
(padding at 1, and positions of the image that it is to draw), the Omni models where sound stands within a video, and
Qwen3-Omni where times are fractions.

`merge` is the spatial_merge_size of the configuration.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks

IMAGE, VIDEO = 1, 2
AFTER = ("side", "largest")
TYPES = "int32 token types [T] or [B, T]: 0 = text, 1 = image, 2 = video"


class _Grids(NamedTuple):
    """The images, or the videos: what of them is one token large."""

    sizes: jax.Array  # int32 [n, 3] or [B, n, 3]: time, height and width in tokens
    interval: jax.Array | None  # float32 [n] or [B, n]: how much the time position grows from frame to frame
    split: bool  # every frame is numbered as an image of its own


class _Place(NamedTuple):
    """What is known of each token from the image or video that it is part of."""

    inside: jax.Array  # bool [T]: it is part of one
    first: jax.Array  # bool [T]: it is the first one of it
    extent: jax.Array  # int32 [T]: how far the next one stands from its start
    at: jax.Array  # int32 [T, 3]: where the token stands, from the start


def positions(
    token_types: jax.Array,
    *,
    merge: int,
    image_grids: jax.Array | None = None,
    video_grids: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    time_merge: int = 1,
    split_frames: bool = False,
    tokens_per_second: float | None = None,
    seconds_per_grid: jax.Array | None = None,
    after: str = "side",
) -> tuple[jax.Array, jax.Array]:
    """Where each token stands in time, height and width, and the position with which decoding goes on.

    A text token stands at `(p, p, p)`, and the next token at p + 1. A token in frame t, row h and column w of an image
    or a video that starts at p stands at `(p + time(t), p + h, p + w)`, and what comes after it at p + extent:

        time(t) = trunc(t * (tokens_per_second * seconds_per_grid))  in float32, of a video; t where neither is given
        extent = max(H, W)                                  with after="side"
        extent = max(time(last frame) + 1, H, W)            with after="largest"

    in tokens, the grid being T, H, W = t // time_merge (of videos), h // merge, w // merge. "side" is what transformers
    5 does; "largest" is the paper's, transformers 4's and vLLM's. They differ only for a video that is longer in time
    than in space: with "side" its time positions overtake those of the text that follows.

    The images of a row are taken in order, and so are its videos; two may follow each other without text between them.
    Shapes are static and contents may be traced: other images in the same shapes do not compile again.

    Args:
        token_types: int32 `[T]` or `[B, T]`: 0 = text, 1 = image, 2 = video (mm_token_type_ids of transformers); any
            other number, such as that of sound, is as text.
        merge: how many patches along each side one token stands for.
        image_grids: int32 (t, h, w) in patches, before merging. `[..., n, 3]` has n images for each row, and suits
            vmap and shards of a batch; rows of zeros are no images, and make n the same for all. `[n, 3]` with types
            `[B, T]` has the images of the whole batch in order, as the image_grid_thw of transformers does; rows that
            are on other devices then wait for each other.
        video_grids: the same of videos.
        segment_ids: int32, the shape of token_types. 0 is padding, which may be anywhere and stands at (0, 0, 0); the
            attention_mask of transformers is such an array. Each other id is a document that starts at 0; it goes on
            where it stopped if another one interrupts it, but not within an image or a video.
        time_merge: how many frames of a video one token stands for.
        split_frames: every frame of a video is numbered as an image of its own; there may be text between them.
        tokens_per_second: how much the time position of a video grows in a second.
        seconds_per_grid: floating `[..., n]`, beside video_grids: from frame to frame; 1 when None.
        after: "side" or "largest".

    Returns:
        positions, int32 `[..., T, 3]`; and int32 `[]` or `[B]`, 1 + the largest position of each row (if packed, of the
        document of its last token). The i-th token decoded stands there + i, on all three axes. The rope_deltas of
        transformers are these numbers less those of the row's tokens that are not padding.

    Raises:
        ValueError: settings; and, where contents can be read now, numbers of tokens and grids that do not fit. Where
            they are traced, tokens for which there is no grid are as text, and grids without tokens are not used: call
            it once outside of jit, where the batch is made, to be told.
        AssertionError, TypeError: shapes and dtypes.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> types, grids = jnp.array([0, 1, 1, 1, 1, 0]), jnp.array([[1, 4, 4]])
    >>> at, following = pe.mrope.positions(types, image_grids=grids, merge=2)
    >>> at.T.tolist()
    [[0, 1, 1, 1, 1, 3], [0, 1, 1, 2, 2, 3], [0, 1, 2, 1, 2, 3]]
    >>> pe.positions.arange(2, following).tolist()  # of the next two tokens
    [4, 5]

    Source: https://arxiv.org/abs/2409.12191, section 2.1.
    """
    token_types = checks.integers("token_types", token_types, TYPES)
    checks.rank("token_types", token_types, {1, 2}, TYPES)
    checks.integer_setting("merge", merge)
    checks.integer_setting("time_merge", time_merge)
    checks.flag("split_frames", split_frames)
    checks.one_of("after", after, AFTER)
    if segment_ids is not None:
        needs = f"int32 segment ids, 0 = padding, of the shape of token_types, which is {checks.describe(token_types)}"
        segment_ids = checks.integers("segment_ids", segment_ids, needs)
        checks.shape("segment_ids", segment_ids, token_types.shape, needs)
    image_sizes = _sizes("image_grids", image_grids, token_types, (1, merge, merge))
    video_sizes = _sizes("video_grids", video_grids, token_types, (time_merge, merge, merge))
    images = _Grids(image_sizes, None, False)
    videos = _Grids(
        video_sizes, _interval(tokens_per_second, seconds_per_grid, video_sizes, split_frames), split_frames
    )
    for name, kind, grids in (("image_grids", IMAGE, images), ("video_grids", VIDEO, videos)):
        if all(checks.is_concrete(x) for x in (token_types, grids.sizes, segment_ids)):
            _check_tokens(name, kind, grids, token_types, segment_ids)
    return _positions(token_types, segment_ids, images, videos, after)


def _interval(per_second: Any, seconds: Any, sizes: jax.Array, split_frames: bool) -> jax.Array | None:
    """float32, one for each of the videos; None where the time positions are the numbers of the frames."""
    if per_second is None:
        if seconds is not None:
            raise ValueError(
                f"seconds_per_grid is {checks.describe(seconds)}; it needs tokens_per_second, which the configuration "
                "of the model has: pass both or neither."
            )
        return None
    checks.number_setting("tokens_per_second", per_second)
    if split_frames:
        raise ValueError(
            f"tokens_per_second is {per_second!r}; it needs to be None with split_frames=True, where the frames of a "
            "video have no time between them: leave out one of the two."
        )
    if seconds is None:
        return jnp.full(sizes.shape[:-1], per_second, jnp.float32)
    needs = f"floating {list(sizes.shape[:-1])}, one number for each of video_grids"
    checks.floating("seconds_per_grid", seconds, needs)
    checks.shape("seconds_per_grid", seconds, sizes.shape[:-1], needs)
    if checks.is_concrete(seconds) and not np.all(np.isfinite(np.asarray(seconds)) & (np.asarray(seconds) >= 0)):
        raise ValueError(
            f"seconds_per_grid is {checks.describe(seconds)} with a number that is negative or not finite; it needs "
            "seconds from frame to frame: correct the number."
        )
    return jnp.float32(per_second) * jnp.asarray(seconds, jnp.float32)


def _sizes(name: str, grids: Any, token_types: jax.Array, merges: tuple[int, int, int]) -> jax.Array:
    """The grids in tokens; of none, as none: `[0, 3]`."""
    needs = "int32 (time, height, width) [n, 3], or [B, n, 3] with token_types [B, T]"
    grids = checks.integers(name, np.zeros((0, 3), np.int32) if grids is None else grids, needs)
    checks.rank(name, grids, {2, token_types.ndim + 1}, needs)
    checks.shape(name, grids, (*token_types.shape[: grids.ndim - 2], None, 3), needs)
    if checks.is_concrete(grids) and grids.size and np.min(np.asarray(grids)) < 0:
        raise ValueError(f"{name} has {np.min(np.asarray(grids))}; it needs numbers of at least 0: rows of 0 are none.")
    return grids // jnp.array(merges, jnp.int32).reshape((1,) * (grids.ndim - 1) + (3,))


def _check_tokens(name: str, kind: int, grids: _Grids, token_types: jax.Array, segment_ids: jax.Array | None) -> None:
    """Refuses tokens that are not those of the grids, or that something stands between."""
    types, sizes = np.asarray(token_types), np.asarray(grids.sizes)
    ids = np.ones_like(types) if segment_ids is None else np.asarray(segment_ids)
    if types.ndim == 2 and sizes.ndim == 3:
        for row in range(len(types)):
            alone = slice(row, row + 1)
            _check_grids(f"{name}[{row}]", kind, sizes[row], grids.split, types[alone], ids[alone])
    else:
        _check_grids(name, kind, sizes, grids.split, np.atleast_2d(types), np.atleast_2d(ids))


def _check_grids(name: str, kind: int, sizes: np.ndarray, split: bool, types: np.ndarray, ids: np.ndarray) -> None:
    """types and ids: of the rows, `[B, T]`, to which the grids `[n, 3]` go in order."""
    what = {IMAGE: "image", VIDEO: "video"}[kind]
    rows, slots = np.nonzero(ids)
    place = np.flatnonzero(types[rows, slots] == kind)
    lengths = np.prod(sizes, axis=-1, dtype=np.int64)
    if len(place) != lengths.sum():
        raise ValueError(
            f"{name} is of {lengths.sum()} {what} tokens after merging; it needs to be of {len(place)}, as many as "
            f"token_types has of {kind} that are not padding: check merge, and that no row was cut short."
        )
    if split:
        lengths = np.repeat(sizes[:, 1] * sizes[:, 2], sizes[:, 0])
    lengths = lengths[lengths > 0]
    first, last = place[np.cumsum(lengths) - lengths], place[np.cumsum(lengths) - 1]
    apart = last - first != lengths - 1
    for owner in (ids[rows, slots], rows):
        apart |= owner[first] != owner[last]
    if np.any(apart):
        raise ValueError(
            f"token_types has something else between the tokens of one {what}; it needs to have the tokens of each "
            f"of {name} side by side in one document: where text stands between frames, pass split_frames=True."
        )


def _positions(
    token_types: jax.Array, segment_ids: jax.Array | None, images: _Grids, videos: _Grids, after: str
) -> tuple[jax.Array, jax.Array]:
    real = jnp.ones(token_types.shape, bool) if segment_ids is None else segment_ids != 0
    step = extent = jnp.ones_like(token_types)
    at = jnp.zeros((*step.shape, 3), jnp.int32)
    for kind, grids in ((IMAGE, images), (VIDEO, videos)):
        if grids.sizes.shape[-2]:
            place = _places(real & (token_types == kind), grids, after)
            step = jnp.where(place.inside, jnp.where(place.first, place.extent, 0), step)
            extent = jnp.where(place.inside, place.extent, extent)
            at = jnp.where(place.inside[..., None], place.at, at)
    # The first token of an image counts for all of it, so the sum up to any of its tokens, less its extent, is where
    # it starts: no token has to look for the first.
    start = _running_sum(step, segment_ids) - extent
    positions = jnp.where(real[..., None], start[..., None] + at, 0)
    counted = real
    if segment_ids is not None:
        index = lax.broadcasted_iota(jnp.int32, real.shape, real.ndim - 1)
        last = jnp.max(jnp.where(real, index, 0), axis=-1, keepdims=True, initial=0)
        counted &= segment_ids == jnp.sum(jnp.where(index == last, segment_ids, 0), -1, jnp.int32, keepdims=True)
    return positions, jnp.max(jnp.where(counted[..., None], positions + 1, 0), axis=(-2, -1), initial=0)


def _places(chosen: jax.Array, grids: _Grids, after: str) -> _Place:
    """chosen: which tokens are of this kind, `[T]` or `[B, T]`."""

    def of_row(chosen: jax.Array, sizes: jax.Array, interval: jax.Array | None) -> _Place:
        return _places_in_row(chosen, _Grids(sizes, interval, grids.split), after)

    if grids.sizes.ndim == 3:
        return jax.vmap(of_row)(chosen, grids.sizes, grids.interval)
    place = of_row(chosen.reshape(-1), grids.sizes, grids.interval)
    return jax.tree.map(lambda x: x.reshape(*chosen.shape, *x.shape[1:]), place)


def _places_in_row(chosen: jax.Array, grids: _Grids, after: str) -> _Place:
    counts = jnp.prod(grids.sizes, axis=-1, dtype=jnp.int32)
    ends = jnp.cumsum(counts, dtype=jnp.int32)
    rank = jnp.cumsum(chosen, dtype=jnp.int32) - 1
    owner = jnp.searchsorted(ends, rank, side="right")
    inside = chosen & (owner < ends.size)
    owner = jnp.minimum(owner, ends.size - 1)
    # At least 1: a token that is of no grid divides by the size of one that may be empty.
    frames, height, width = (jnp.maximum(grids.sizes[owner, axis], 1) for axis in range(3))
    in_grid = rank - (ends - counts)[owner]
    frame, in_frame = in_grid // (height * width), in_grid % (height * width)
    time, last = (jnp.zeros_like(frame),) * 2 if grids.split else (frame, frames - 1)
    if grids.interval is not None:
        interval = grids.interval[owner]
        time, last = ((t.astype(jnp.float32) * interval).astype(jnp.int32) for t in (time, last))
    extent = jnp.maximum(height, width)
    if after == "largest":
        extent = jnp.maximum(extent, last + 1)
    first = (in_frame if grids.split else in_grid) == 0
    return _Place(inside, first, extent, jnp.stack([time, in_frame // width, in_frame % width], axis=-1))


def _running_sum(values: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Sums up to and with each token, within its document; values of at least 0."""
    if segment_ids is None:
        return jnp.cumsum(values, axis=-1, dtype=jnp.int32)
    axis = values.ndim - 1
    # As in positions.from_segment_ids: sorted by id a document is one run, and the original index brings sums home.
    index = lax.broadcasted_iota(jnp.int32, values.shape, axis)
    ids, origin, values = lax.sort((segment_ids, index, values), dimension=axis, num_keys=1, is_stable=True)
    total = jnp.cumsum(values, axis=axis, dtype=jnp.int32)
    previous = jnp.concatenate([~ids[..., :1], ids[..., :-1]], axis=axis)
    before = lax.cummax(jnp.where(ids != previous, total - values, 0), axis=axis)
    return lax.sort((origin, total - before), dimension=axis, num_keys=1)[1]


def timestamps(times: jax.Array, *, seconds: float, count: int) -> jax.Array:
    """Positions of frames in windows, times how late they are: MusicFlamingo's rotary time embedding.

        window[b] = round(times[b, 0] / (seconds * T)) / count
        within[t] = 2 pi t / count
        out[b, t] = (window[b], within[t]) * -2 pi times[b, t]

    Args:
        times: float32 `[B, T]`, when each frame of a window begins, in seconds.
        seconds: that a frame lasts.
        count: how many windows, and frames, the model counts to.

    Returns:
        float32 `[B, T, 2]`, for a fractional RoPE of two axes.

    >>> import jax.numpy as jnp
    >>> from posembed_jax import mrope
    >>> mrope.timestamps(jnp.array([[0.0, 0.04, 0.08]]), seconds=0.04, count=1200).shape
    (1, 3, 2)

    Source: https://arxiv.org/abs/2511.10289.
    """
    checks.rank("times", times, {2}, "float32 [B, T]")
    checks.floating("times", times, "float32 [B, T]")
    checks.number_setting("seconds", seconds)
    checks.integer_setting("count", count)
    length = times.shape[1]
    window = jnp.round(times[:, :1] / np.float32(seconds * length)) / np.float32(count)
    within = (np.arange(length) / count * math.tau).astype(np.float32)[None]
    both = jnp.stack(jnp.broadcast_arrays(window, jnp.asarray(within)), axis=-1)
    return both * (np.float32(-math.tau) * times)[..., None]
