"""MiniCPM-V 4.7's numbers: the values are golden cases; here, one row by hand, and what batching must not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posembed_jax as pe
from posembed_jax.mrope.canvas import _stretched

IDS = {"image_start_id": 1, "image_end_id": 2, "slice_start_id": 3, "slice_end_id": 4, "newline_id": 5}
PICTURE, CLIP, TEXT = 7, 8, 9
canvas = functools.partial(pe.mrope.canvas_positions, merge=2, **IDS)


def types_of(tokens):
    return jnp.where(tokens == PICTURE, 1, jnp.where(tokens == CLIP, 2, 0)).astype(jnp.int32)


# An image of one column, two rows of one slice each, a frame of a video right behind it, text.
IMAGE = [1, PICTURE, PICTURE, 2, 3, PICTURE, PICTURE, 4, 5, 3, PICTURE, PICTURE, 4]
FRAME = [1, CLIP, CLIP, CLIP, 2]
ROW = jnp.array([TEXT, *IMAGE, 5, *FRAME, TEXT])
IMAGES, VIDEOS = jnp.array([[4, 2], [2, 4], [2, 4]]), jnp.array([[6, 2]])
HEIGHTS = [0, 0, 1, 2, 3, 1, 1, 1, 1, 1, 2, 2, 2, 2, 1, 3, 4, 5, 6, 7, 8]
WIDTHS = [0, 0, 1, 1, 3, 1, 1, 2, 2, 3, 1, 1, 2, 2, 1, 3, 4, 4, 4, 5, 8]


def test_a_row_by_hand():
    """The canvas is 2 by 2 at 1, so that the frame, 3 by 1, begins at 1 + 2 + 1, and the text at 4 + 3 + 1."""
    at, following = canvas(ROW, types_of(ROW), image_grids=IMAGES, video_grids=VIDEOS)
    assert at[:, 0].tolist() == [0] + [1] * 14 + [4] * 5 + [8]
    assert at[:, 1].tolist() == HEIGHTS and at[:, 2].tolist() == WIDTHS and following == 9


@pytest.mark.slow
def test_a_frame_ends_with_what_is_no_marker():
    tokens = jnp.array([1, PICTURE, 2, 5, 2, TEXT, 5, 1, PICTURE, TEXT])
    at, _ = canvas(tokens, types_of(tokens), image_grids=jnp.array([[2, 2], [2, 2]]))
    assert at[:, 0].tolist() == [0, 0, 0, 0, 0, 2, 3, 4, 4, 6]
    assert at[:, 1].tolist() == [0, 0, 1, 0, 0, 2, 3, 3, 4, 6]


@pytest.mark.slow
def test_rows_of_slices_that_are_not_full_are_one_row():
    """Three slices of which the second and the third are apart: no two rows of two."""
    slices = [3, PICTURE, 4, 3, PICTURE, 4, 5, 3, PICTURE, 4]
    tokens = jnp.array([1, PICTURE, 2, *slices])
    at, following = canvas(tokens, types_of(tokens), image_grids=jnp.array([[2, 2]] * 4))
    assert at[:, 1].tolist() == [0, 0, 1, *[0] * 10] and at[:, 2].tolist() == [0, 0, 3, 0, 0, 0, 1, 1, 1, 3, 2, 2, 2]
    assert following == 4


# Begins with a marker of no frame, and a slice that there is no frame for; text between slices.
OTHER = jnp.array([5, TEXT, 3, CLIP, CLIP, 4, TEXT, 1, *[PICTURE] * 3, 2, 3, *[PICTURE] * 2, 4, TEXT, 3, PICTURE, 4, 5])
HEIGHTS_OF_OTHER = [0, 1, 1, 2, 2, 3, 5, 5, 6, 6, 6, 10, 6, 6, 7, 7, 7, 8, 8, 8, 6]
WIDTHS_OF_OTHER = [0, 1, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 6, 6, 6, 6, 7, 6, 6, 6, 6]
OTHER_IMAGES, OTHER_VIDEOS = jnp.array([[2, 6], [4, 2], [2, 2]]), jnp.array([[2, 4]])


def packed():
    """Two rows: of two documents that interrupt each other, with padding; of two documents side by side."""
    pieces = [
        (0, [PICTURE] * 2),
        (2, ROW[:5]),
        (1, OTHER[:7]),
        (2, ROW[5:10]),
        (0, [CLIP]),
        (1, OTHER[7:]),
        (2, ROW[10:]),
    ]
    tokens = np.concatenate([piece for _, piece in pieces])
    ids = np.concatenate([np.full(len(piece), document) for document, piece in pieces])
    tokens, ids = np.stack([tokens, [*OTHER, *OTHER, 0, 0, 0]]), np.stack([ids, [3] * 21 + [4] * 21 + [0] * 3])
    return jnp.array(tokens, jnp.int32), jnp.array(ids, jnp.int32)


@pytest.mark.slow
def test_packed_rows_are_separate_rows():
    """Eager, under jit and under vmap; grids of the rows, or of the whole batch."""
    tokens, ids = packed()
    images = jnp.stack([jnp.concatenate([IMAGES[:2], OTHER_IMAGES, IMAGES[2:]]), jnp.tile(OTHER_IMAGES, (2, 1))])
    videos = jnp.stack([jnp.concatenate([OTHER_VIDEOS, VIDEOS]), jnp.tile(OTHER_VIDEOS, (2, 1))])

    def call(tokens, ids, images, videos):
        return canvas(tokens, types_of(tokens), image_grids=images, video_grids=videos, segment_ids=ids)

    row, _ = canvas(ROW, types_of(ROW), image_grids=IMAGES, video_grids=VIDEOS)
    other, _ = canvas(OTHER, types_of(OTHER), image_grids=OTHER_IMAGES, video_grids=OTHER_VIDEOS)
    for at, following in (
        call(tokens, ids, images, videos),
        jax.jit(call)(tokens, ids, images, videos),
        jax.jit(jax.vmap(call))(tokens, ids, images, videos),
        call(tokens, ids, images.reshape(-1, 2), videos.reshape(-1, 2)),
    ):
        for document, alone in ((1, other), (2, row), (3, other), (4, other), (0, np.zeros((6, 3)))):
            np.testing.assert_array_equal(at[ids == document], alone)
        assert following.tolist() == [9, 11]


def test_text_between_slices_is_of_the_frame_and_a_slice_of_no_frame_opens_one():
    at, following = canvas(OTHER, types_of(OTHER), image_grids=OTHER_IMAGES, video_grids=OTHER_VIDEOS)
    assert at[:, 0].tolist() == [0, 1] + [2] * 4 + [5] + [6] * 14
    assert at[:, 1].tolist() == HEIGHTS_OF_OTHER and at[:, 2].tolist() == WIDTHS_OF_OTHER and following == 11


def test_text_alone_and_crops_without_grids_are_text():
    tokens = jnp.array([TEXT, 1, PICTURE, 2, TEXT])
    at, following = jax.jit(canvas)(tokens, types_of(tokens))
    assert at[:, 1].tolist() == [0, 1, 2, 3, 4] and following == 5
    at, following = canvas(jnp.zeros((2, 0), jnp.int32), jnp.zeros((2, 0), jnp.int32))
    assert at.shape == (2, 0, 3) and following.tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 15, 31])
def test_a_first_crop_is_stretched_as_float32_rounds(size):
    """As `linspace` of torch: half of these are ties that the rounding of the step decides (15 over 118 is one)."""
    over = np.arange(size, 600)
    step = np.float32(over - 1) / np.float32(max(size - 1, 1))
    i = np.arange(size)[:, None]
    want = np.where(i < size // 2, step * np.float32(i), np.float32(over - 1) - step * np.float32(size - 1 - i))
    want = np.round(want if size > 1 else 0 * want).astype(np.int32)
    for row in range(size):
        cell = jnp.full((over.size, 2), row)
        ours = _stretched(cell, jnp.full_like(cell, size), jnp.stack([jnp.array(over, jnp.int32)] * 2, axis=-1))
        np.testing.assert_array_equal(ours[:, 0], want[row])
