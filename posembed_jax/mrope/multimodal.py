"""M-RoPE's numbers of text, images, videos and their sound in one sequence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks
from posembed_jax.mrope.grids import (
    IMAGE,
    VIDEO,
    Grids,
    Rule,
    check_tokens,
    checked_segments,
    following,
    places,
    running_sum,
    second_marks,
    sizes_in_tokens,
    sounds_of_videos,
)

AFTER = ("side", "largest")
TYPES = "int32 token types [T] or [B, T]: 0 = text, 1 = image, 2 = video"


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
    seconds_first: bool = False,
    after: str = "side",
    sound: bool = False,
    paired_marks: bool = False,
    fractional: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Where each token stands in time, height and width, and the position with which decoding goes on.

    A text token stands at `(p, p, p)`, and the next token at p + 1. A token in frame t, row h and column w of an image
    or a video that starts at p stands at `(p + time(t), p + h, p + w)`, and what comes after it at p + extent:

        time(t) = trunc(t * (tokens_per_second * seconds_per_grid))  in float32, of a video; t where neither is given
        time(t) = trunc((t * seconds_per_grid) * tokens_per_second)  with seconds_first=True, which rounds otherwise
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
        seconds_first: how the product of three is rounded, in the Omni models.
        after: "side" or "largest".
        sound: tokens of type 3 that stand among those of a video, or right behind them, are its sound: the n-th stands
            at p + n on all axes, and what comes after at p + the extent of whichever of the two ends the video. With
            False they are as text.
        paired_marks: the last two tokens before a video that has sound, which say that both begin, stand at one
            position, and so do the first two behind it: Qwen2.5-Omni's.
        fractional: times are not cut to whole numbers, and positions are float32, for RoPE(fractional=True): exact up
            to 2^24 and to their rounding.

    Returns:
        positions, int32 (or float32) `[..., T, 3]`; and, of that dtype, `[]` or `[B]`, 1 + the largest position of each
        row (if packed, of the document of its last token). The i-th token decoded stands there + i, on all three axes.
        The rope_deltas of transformers are these numbers less those of the row's tokens that are not padding.

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
    checks.flag("seconds_first", seconds_first)
    checks.flag("fractional", fractional)
    checks.flag("sound", sound)
    checks.flag("paired_marks", paired_marks)
    if paired_marks and not sound:
        raise ValueError("paired_marks is True; it needs sound=True, whose marks it is of: pass both or neither.")
    if sound and split_frames:
        raise ValueError(
            "sound is True; it needs to be False with split_frames=True, where no sound is that of a whole video: "
            "leave out one of the two."
        )
    segment_ids = checked_segments(segment_ids, token_types)
    image_sizes = sizes_in_tokens("image_grids", image_grids, token_types, (1, merge, merge))
    video_sizes = sizes_in_tokens("video_grids", video_grids, token_types, (time_merge, merge, merge))
    interval = _interval(tokens_per_second, seconds_per_grid, video_sizes, split_frames, seconds_first)
    factor = tokens_per_second if seconds_first else None
    images, videos = Grids(image_sizes), Grids(video_sizes, interval, factor, split_frames)
    for name, kind, grids in (("image_grids", IMAGE, images), ("video_grids", VIDEO, videos)):
        if all(checks.is_concrete(x) for x in (token_types, grids.sizes, segment_ids)):
            check_tokens(name, kind, grids, token_types, segment_ids, sound=sound)
    return _positions(token_types, segment_ids, images, videos, sound, Rule(after, fractional, paired_marks))


def _interval(
    per_second: Any, seconds: Any, sizes: jax.Array, split_frames: bool, seconds_first: bool
) -> jax.Array | None:
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
    factor = np.float32(1.0 if seconds_first else per_second)
    if seconds is None:
        return jnp.full(sizes.shape[:-1], factor, jnp.float32)
    needs = f"floating {list(sizes.shape[:-1])}, one number for each of video_grids"
    checks.floating("seconds_per_grid", seconds, needs)
    checks.shape("seconds_per_grid", seconds, sizes.shape[:-1], needs)
    if checks.is_concrete(seconds) and not np.all(np.isfinite(np.asarray(seconds)) & (np.asarray(seconds) >= 0)):
        raise ValueError(
            f"seconds_per_grid is {checks.describe(seconds)} with a number that is negative or not finite; it needs "
            "seconds from frame to frame: correct the number."
        )
    return factor * jnp.asarray(seconds, jnp.float32)


def _positions(
    token_types: jax.Array, segment_ids: jax.Array | None, images: Grids, videos: Grids, sound: bool, rule: Rule
) -> tuple[jax.Array, jax.Array]:
    real = jnp.ones(token_types.shape, bool) if segment_ids is None else segment_ids != 0
    dtype = jnp.float32 if rule.fractional else jnp.int32
    step = extent = jnp.ones_like(token_types)
    step_beyond = beyond = jnp.zeros(step.shape, dtype)
    at = jnp.zeros((*step.shape, 3), dtype)
    sounds = sounds_of_videos(token_types, real, segment_ids) if sound else None
    for kind, grids in ((IMAGE, images), (VIDEO, videos)):
        if not grids.sizes.shape[-2]:
            continue
        place = places(real & (token_types == kind), sounds if kind == VIDEO else None, grids, rule)
        step = jnp.where(place.inside, jnp.where(place.first, place.extent, 0), step)
        extent = jnp.where(place.inside, place.extent, extent)
        if rule.paired_marks:
            step = jnp.where(second_marks(place), 0, step)
        at = jnp.where(place.inside[..., None], place.at.astype(dtype), at)
        if place.beyond is not None:
            step_beyond = jnp.where(place.inside & place.first, place.beyond, step_beyond)
            beyond = jnp.where(place.inside, place.beyond, beyond)
    # The first token of an image counts for all of it, so the sum up to any of its tokens, less its extent, is where
    # it starts: no token has to look for the first.
    start = (running_sum(step, segment_ids) - extent).astype(dtype)
    if rule.fractional:  # whole numbers and the rest apart, because float32 sums of many tokens lose the rest
        at += (running_sum(step_beyond, segment_ids) - beyond)[..., None]
    positions = jnp.where(real[..., None], start[..., None] + at, 0)
    return positions, following(positions, real, segment_ids)
