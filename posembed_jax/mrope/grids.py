"""Images and videos as runs of tokens in a sequence: whose each token is, and the sums that number them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks

IMAGE, VIDEO, SOUND = 1, 2, 3
NAMES = {IMAGE: "image", VIDEO: "video"}


class Grids(NamedTuple):
    """The images, or the videos: what of them is one token large."""

    sizes: jax.Array  # int32 [n, 3] or [B, n, 3]: time, height and width in tokens
    interval: jax.Array | None = None  # float32 [n] or [B, n]: how much the time position grows from frame to frame
    factor: float | None = None  # by which times are multiplied after that
    split: bool = False  # every frame is numbered as an image of its own


class Place(NamedTuple):
    """What is known of each token from the image or video that it is part of."""

    inside: jax.Array  # bool [T]: it is part of one
    first: jax.Array  # bool [T]: it is the first one of it
    extent: jax.Array  # int32 [T]: how far the next one stands from its start
    beyond: jax.Array | None  # float32 [T]: what of that distance is less than 1
    at: jax.Array  # int32 or float32 [T, 3]: where the token stands, from the start
    sounding: jax.Array | None  # bool [T]: it is of a video that has sound


class Rule(NamedTuple):
    """What the models' rules differ in."""

    after: str
    fractional: bool
    paired_marks: bool


def checked_segments(segment_ids: Any, token_types: jax.Array) -> jax.Array | None:
    if segment_ids is None:
        return None
    needs = f"int32 segment ids, 0 = padding, of the shape of token_types, which is {checks.describe(token_types)}"
    segment_ids = checks.integers("segment_ids", segment_ids, needs)
    checks.shape("segment_ids", segment_ids, token_types.shape, needs)
    return segment_ids


def sizes_in_tokens(name: str, grids: Any, token_types: jax.Array, merges: tuple[int, ...]) -> jax.Array:
    """The grids in tokens, by as many axes as there are merges; of none, as none: `[0, axes]`."""
    axes = len(merges)
    what = ("time", "height", "width")[-axes:]
    needs = f"int32 ({', '.join(what)}) [n, {axes}], or [B, n, {axes}] with token_types [B, T]"
    grids = checks.integers(name, np.zeros((0, axes), np.int32) if grids is None else grids, needs)
    checks.rank(name, grids, {2, token_types.ndim + 1}, needs)
    checks.shape(name, grids, (*token_types.shape[: grids.ndim - 2], None, axes), needs)
    if checks.is_concrete(grids) and grids.size and np.min(np.asarray(grids)) < 0:
        raise ValueError(f"{name} has {np.min(np.asarray(grids))}; it needs numbers of at least 0: rows of 0 are none.")
    return grids // jnp.array(merges, jnp.int32).reshape((1,) * (grids.ndim - 1) + (axes,))


def check_tokens(
    name: str, kind: int, grids: Grids, token_types: jax.Array, segment_ids: jax.Array | None, *, sound: bool
) -> None:
    """Refuses tokens that are not those of the grids, or that something stands between."""
    types, sizes = np.asarray(token_types), np.asarray(grids.sizes)
    ids = np.ones_like(types) if segment_ids is None else np.asarray(segment_ids)
    if sound:  # which may stand between the tokens of a video
        ids = np.where(types == SOUND, 0, ids)
    if types.ndim == 2 and sizes.ndim == 3:
        for row in range(len(types)):
            alone = slice(row, row + 1)
            check_grids(f"{name}[{row}]", kind, sizes[row], grids.split, types[alone], ids[alone])
    else:
        check_grids(name, kind, sizes, grids.split, np.atleast_2d(types), np.atleast_2d(ids))


def check_grids(name: str, kind: int, sizes: np.ndarray, split: bool, types: np.ndarray, ids: np.ndarray) -> None:
    """types and ids: of the rows, `[B, T]`, to which the grids `[n, 3]` go in order."""
    what = NAMES[kind]
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


def places(chosen: jax.Array, sounds: jax.Array | None, grids: Grids, rule: Rule) -> Place:
    """chosen, sounds: which tokens are of this kind, and which sound in it, `[T]` or `[B, T]`."""

    def of_row(chosen: jax.Array, sounds: Any, sizes: jax.Array, interval: Any) -> Place:
        return places_in_row(chosen, sounds, grids._replace(sizes=sizes, interval=interval), rule)

    if grids.sizes.ndim == 3:
        return jax.vmap(of_row)(chosen, sounds, grids.sizes, grids.interval)
    flat = None if sounds is None else sounds.reshape(-1)
    place = of_row(chosen.reshape(-1), flat, grids.sizes, grids.interval)
    return jax.tree.map(lambda x: x.reshape(*chosen.shape, *x.shape[1:]), place)


def owners(chosen: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of n runs of `counts` tokens: the run that each token is in, or that is the last before it; whether there is one;
    and the token's number in it."""
    ends = jnp.cumsum(counts, dtype=jnp.int32)
    rank = jnp.cumsum(chosen, dtype=jnp.int32) - 1
    owner = jnp.searchsorted(ends, rank, side="right")
    known = owner < ends.size
    owner = jnp.minimum(owner, ends.size - 1)
    return owner, known, rank - (ends - counts)[owner]


def places_in_row(chosen: jax.Array, sounds: jax.Array | None, grids: Grids, rule: Rule) -> Place:
    counts = jnp.prod(grids.sizes, axis=-1, dtype=jnp.int32)
    owner, known, in_grid = owners(chosen, counts)
    # At least 1: a token that is of no grid divides by the size of one that may be empty.
    frames, height, width = (jnp.maximum(grids.sizes[owner, axis], 1) for axis in range(3))
    frame, in_frame = in_grid // (height * width), in_grid % (height * width)
    time, last = (jnp.zeros_like(frame),) * 2 if grids.split else (frame, frames - 1)
    if grids.interval is not None:
        time, last = (times(t, grids.interval[owner], grids, rule) for t in (time, last))
    at = jnp.stack([x.astype(time.dtype) for x in (time, in_frame // width, in_frame % width)], axis=-1)
    inside, first = chosen & known, (in_frame if grids.split else in_grid) == 0
    extent, beyond = jnp.maximum(height, width), None
    if rule.after == "largest":
        whole = last.astype(jnp.int32) + 1
        if rule.fractional:
            rest = last.astype(jnp.float32) - last.astype(jnp.int32).astype(jnp.float32)
            beyond = jnp.where(whole >= extent, rest, 0)
        extent = jnp.maximum(extent, whole)
    place = Place(inside, first, extent, beyond, at, None)
    return place if sounds is None else with_sounds(place, sounds & known, owner, in_grid, counts)


def with_sounds(place: Place, sounds: jax.Array, owner: jax.Array, in_grid: jax.Array, counts: jax.Array) -> Place:
    """Sounds are numbered one by one from where their video starts; what comes after follows on what stands last."""

    def count(chosen: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(chosen.astype(jnp.int32), owner, counts.size)

    heard, behind = count(sounds), count(sounds & (in_grid == counts[owner] - 1))
    nth = jnp.cumsum(sounds, dtype=jnp.int32) - 1 - (jnp.cumsum(heard, dtype=jnp.int32) - heard)[owner]
    last = behind[owner] > 0
    inside = place.inside | sounds
    return Place(
        inside=inside,
        first=place.first & ~sounds,
        extent=jnp.where(last, heard[owner], place.extent),
        beyond=None if place.beyond is None else jnp.where(last, 0, place.beyond),
        at=jnp.where(sounds[:, None], nth[:, None].astype(place.at.dtype), place.at),
        sounding=inside & (heard[owner] > 0),
    )


def times(frame: jax.Array, interval: jax.Array, grids: Grids, rule: Rule) -> jax.Array:
    time = frame.astype(jnp.float32) * interval
    if grids.factor is not None:
        # Without the barrier XLA multiplies the two constants of a closed-over interval first, which rounds otherwise.
        time = lax.optimization_barrier(time) * np.float32(grids.factor)
    return time if rule.fractional else time.astype(jnp.int32)


def sounds_of_videos(token_types: jax.Array, real: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Which tokens of sound stand behind a token of a video, with nothing but such tokens between."""
    axis = token_types.ndim - 1
    index = lax.broadcasted_iota(jnp.int32, token_types.shape, axis)
    video, sound = (real & (token_types == kind) for kind in (VIDEO, SOUND))
    last_other = jnp.where(video | sound, -1, index)
    if segment_ids is not None:
        previous = jnp.concatenate([segment_ids[..., :1], segment_ids[..., :-1]], axis=axis)
        last_other = jnp.where(segment_ids != previous, jnp.maximum(last_other, index - 1), last_other)
    last_other = lax.cummax(last_other, axis=axis)
    return sound & (lax.cummax(jnp.where(video, index, -1), axis=axis) > last_other)


def second_marks(place: Place) -> jax.Array:
    """Which tokens stand right before a video that has sound, or second behind it."""
    if place.sounding is None:
        return jnp.zeros_like(place.inside)
    padding = [(0, 0)] * (place.inside.ndim - 1)
    following = jnp.pad(place.sounding, (*padding, (0, 1)))[..., 1:]
    starts = jnp.pad(place.sounding & place.first, (*padding, (0, 1)))[..., 1:]
    ends = place.sounding & ~following
    return starts | jnp.pad(ends, (*padding, (2, 0)))[..., :-2]


def running_sum(values: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Sums up to and with each token, within its document; values of at least 0."""
    if segment_ids is None:
        return jnp.cumsum(values, axis=-1, dtype=values.dtype)
    axis = values.ndim - 1
    # As in positions.from_segment_ids: sorted by id a document is one run, and the original index brings sums home.
    index = lax.broadcasted_iota(jnp.int32, values.shape, axis)
    ids, origin, values = lax.sort((segment_ids, index, values), dimension=axis, num_keys=1, is_stable=True)
    total = jnp.cumsum(values, axis=axis, dtype=values.dtype)
    previous = jnp.concatenate([~ids[..., :1], ids[..., :-1]], axis=axis)
    before = lax.cummax(jnp.where(ids != previous, total - values, 0), axis=axis)
    return lax.sort((origin, total - before), dimension=axis, num_keys=1)[1]


def following(positions: jax.Array, real: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """1 + the largest position of each row; if packed, of the document of its last token."""
    counted = real
    if segment_ids is not None:
        index = lax.broadcasted_iota(jnp.int32, real.shape, real.ndim - 1)
        last = jnp.max(jnp.where(real, index, 0), axis=-1, keepdims=True, initial=0)
        counted &= segment_ids == jnp.sum(jnp.where(index == last, segment_ids, 0), -1, jnp.int32, keepdims=True)
    return jnp.max(jnp.where(counted[..., None], positions + 1, 0), axis=(-2, -1), initial=0)
