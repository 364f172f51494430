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


# An image of one row, two rows of one slice each, a frame of a video right behind it, text.
IMAGE = [1, PICTURE, PICTURE, 2, 3, PICTURE, PICTURE, 4, 5, 3, PICTURE, PICTURE, 4]
FRAME = [1, CLIP, CLIP, CLIP, 2]
ROW = jnp.array([TEXT, *IMAGE, 5, *FRAME, TEXT])
IMAGES, VIDEOS = jnp.array([[2, 4], [2, 4], [2, 4]]), jnp.array([[6, 2]])
HEIGHTS = [0, 0, 1, 1, 3, 1, 1, 1, 1, 1, 2, 2, 2, 2, 1, 3, 4, 5, 6, 7, 8]
WIDTHS = [0, 0, 1, 2, 3, 1, 1, 2, 2, 3, 1, 1, 2, 2, 1, 3, 4, 4, 4, 5, 8]


def test_a_row_by_hand():
    """The canvas is 2 by 2 at 1, so that the frame, 3 by 1, begins at 1 + 2 + 1, and the text at 4 + 3 + 1."""
    at, following = canvas(ROW, types_of(ROW), image_grids=IMAGES, video_grids=VIDEOS)
    assert at[:, 0].tolist() == [0] + [1] * 14 + [4] * 5 + [8]
    assert at[:, 1].tolist() == HEIGHTS and at[:, 2].tolist() == WIDTHS and following == 9


def test_a_frame_ends_with_what_is_no_marker():
    tokens = jnp.array([1, PICTURE, 2, 5, 2, TEXT, 5, 1, PICTURE, TEXT])
    at, _ = canvas(tokens, types_of(tokens), image_grids=jnp.array([[2, 2], [2, 2]]))
    assert at[:, 0].tolist() == [0, 0, 0, 0, 0, 2, 3, 4, 4, 6]
    assert at[:, 1].tolist() == [0, 0, 1, 0, 0, 2, 3, 3, 4, 6]


def test_rows_of_slices_that_are_not_full_are_one_row():
    """Three slices of which the second and the third are apart: no two rows of two."""
    slices = [3, PICTURE, 4, 3, PICTURE, 4, 5, 3, PICTURE, 4]
    tokens = jnp.array([1, PICTURE, 2, *slices])
    at, following = canvas(tokens, types_of(tokens), image_grids=jnp.array([[2, 2]] * 4))
    assert at[:, 1].tolist() == [0, 0, 1, *[0] * 10] and at[:, 2].tolist() == [0, 0, 3, 0, 0, 0, 1, 1, 1, 3, 2, 2, 2]
    assert following == 4


def packed():
    """Two rows: one of two documents that interrupt each other, padding before and between; one of a document."""
    one, other = np.asarray(ROW), np.array([TEXT, TEXT, *FRAME, *IMAGE])
    tokens, ids = np.zeros((2, one.size + other.size + 4), np.int32), np.zeros((2, one.size + other.size + 4), np.int32)
    cuts = np.split(one, [4, 10]), np.split(other, [8])
    pieces = [(2, cuts[0][0]), (1, cuts[1][0]), (2, cuts[0][1]), (0, [PICTURE] * 2), (1, cuts[1][1]), (2, cuts[0][2])]
    at = 2
    for document, piece in pieces:
        tokens[0, at : at + len(piece)], ids[0, at : at + len(piece)] = piece, document
        at += len(piece)
    tokens[1, : one.size], ids[1, : one.size] = one, 3
    return jnp.array(tokens), jnp.array(ids), other


def test_packed_rows_are_separate_rows():
    """Eager, under jit and under vmap; grids of the rows, or of the whole batch."""
    tokens, ids, other = packed()
    # In the packed row the frame of document 1 comes before the image of document 1 and the second slice of 2.
    images, videos = jnp.array([[[2, 4]] * 6, [[2, 4]] * 3 + [[0, 0]] * 3]), jnp.array([[[6, 2]] * 2, [[0, 0], [6, 2]]])
    flat = {"image_grids": jnp.array([[2, 4]] * 9), "video_grids": jnp.array([[6, 2]] * 3)}

    def call(tokens, ids, images, videos):
        return canvas(tokens, types_of(tokens), image_grids=images, video_grids=videos, segment_ids=ids)

    alone = {2: canvas(ROW, types_of(ROW), image_grids=IMAGES, video_grids=VIDEOS)}
    other = jnp.array(other, jnp.int32)
    alone |= {1: canvas(other, types_of(other), image_grids=IMAGES, video_grids=VIDEOS), 3: alone[2]}
    for at, following in (
        call(tokens, ids, images, videos),
        jax.jit(call)(tokens, ids, images, videos),
        jax.jit(jax.vmap(call))(tokens, ids, images, videos),
        canvas(tokens, types_of(tokens), segment_ids=ids, **flat),
    ):
        for row, document in ((0, 1), (0, 2), (1, 3)):
            np.testing.assert_array_equal(at[row][ids[row] == document], alone[document][0])
        np.testing.assert_array_equal(at[ids == 0], 0)
        assert following.tolist() == [int(alone[2][1]), int(alone[3][1])]


def test_text_alone_and_crops_without_grids_are_text():
    tokens = jnp.array([TEXT, 1, PICTURE, 2, TEXT])
    at, following = jax.jit(canvas)(tokens, types_of(tokens))
    assert at[:, 1].tolist() == [0, 1, 2, 3, 4] and following == 5


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
