"""The tiles of attention: how large they are, which are visited, and what stands on their diagonals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posembed_jax as pe
from posembed_jax.attention.tiles import Tiles, count_on, fill, fill_unless_shared, spread, sum_diagonals, tile_size


@pytest.mark.parametrize("size", [2, 5, 8])
def test_the_diagonals_of_a_tile(size):
    by_distance = np.random.default_rng(size).integers(-99, 99, (3, 2 * size - 1))
    tile = np.random.default_rng(size).integers(-99, 99, (3, size, size))
    t, s = np.indices((size, size))
    np.testing.assert_array_equal(spread(jnp.asarray(by_distance)), by_distance[:, s - t + size - 1])
    sums = [tile.diagonal(distance, axis1=1, axis2=2).sum(-1) for distance in range(1 - size, size)]
    np.testing.assert_array_equal(sum_diagonals(jnp.asarray(tile)), np.stack(sums, axis=1))


def test_tile_sizes():
    assert tile_size((8, 16, 1, 2**20)) is None and tile_size((1, 8, 32, 2**20)) is None  # there is little to recompute
    assert tile_size((1, 8, 33, 2**20)) is not None
    assert tile_size((1, 1, 1024, 1024)) is None
    for batch, heads, size in ((1, 1, 512), (1, 2, 512), (1, 8, 256), (2, 16, 128), (8, 16, 64), (64, 64, 64)):
        assert tile_size((batch, heads, 4096, 8192)) == size
    for queries in range(1025, 1600, 7):
        size = tile_size((1, 8, queries, queries))
        whole = 256 * math.ceil(queries / 256)
        assert 64 <= size <= 256 and size % 32 == 0
        assert math.ceil(queries / size) == whole // 256  # no tile more
        assert -queries % size < 32 * (whole // 256) and -queries % size <= whole - queries  # and little to fill up


def cut(queries, keys=None, ids=None, key_ids=None, *, mask=None, causal=False, window=None, size=4):
    """`Tiles` of positions and segment ids, filled up to whole ones."""
    keys = queries if keys is None else keys
    key_ids = ids if key_ids is None else key_ids
    return Tiles(
        query_positions=count_on(jnp.asarray(queries, jnp.int32), size),
        key_positions=count_on(jnp.asarray(keys, jnp.int32), size),
        coordinates=None,
        query_segment_ids=None if ids is None else fill(jnp.asarray(ids, jnp.int32), 1, size),
        key_segment_ids=None if key_ids is None else fill(jnp.asarray(key_ids, jnp.int32), 1, size),
        mask=None if mask is None else fill_unless_shared(jnp.asarray(mask), size),
        causal=causal,
        window=window,
        size=size,
    )


def pairs(tiles):
    """Who may attend, by the definition: distances and bool, `[B or 1, T, S]`."""
    queries, keys = (np.atleast_2d(x) for x in (tiles.query_positions, tiles.key_positions))
    distance = keys[:, None, :] - queries[:, :, None]
    allowed = np.ones(distance.shape, bool)
    if tiles.causal:
        allowed = allowed & (distance <= 0)
    if tiles.window is not None:
        allowed = allowed & (distance >= -tiles.window[0]) & (distance <= tiles.window[1])
    if tiles.query_segment_ids is not None:
        there = np.asarray(tiles.key_segment_ids)[:, None, :]
        allowed = allowed & (np.asarray(tiles.query_segment_ids)[:, :, None] == there) & (there != 0)
    if tiles.mask is not None:
        allowed = allowed & np.asarray(tiles.mask).any(1)
    return np.broadcast_arrays(distance, allowed)


def needed(tiles):
    """bool `[blocks of queries, blocks of keys]`: whether anybody may attend there."""
    allowed = pairs(tiles)[1].any(0)
    rows, columns = (length // tiles.size for length in allowed.shape)
    return allowed.reshape(rows, tiles.size, columns, tiles.size).any((1, 3))


UP, COUNTED = np.arange(12), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]
TWO = [1] * 5 + [2] * 7
UNEVEN = np.arange(12) + np.array([[0], [5]])
HOLE = [1, 1, 1, 0, 0, 1, 1, 2, 2, 0, 2, 2]
LEFT = np.array([[0] * 5 + [1] * 7, [1] * 12])
FROM_LEFT = np.array([[0] * 5 + list(range(7)), range(12)])
ALIGNED = {  # name -> (tiles, offset or None)
    "one range": (cut(UP), 0),
    "a chunk": (cut(UP[:5] + 7, UP), -7),
    "rows alike": (cut(np.stack([UP, UP]), np.stack([UP, UP]) + 3), 3),
    "rows not alike": (cut(UNEVEN, UNEVEN), None),
    "rows not alike, one document each": (cut(UNEVEN, UNEVEN, np.ones((2, 12))), 0),
    "rows not alike, keys elsewhere": (cut(UNEVEN, UNEVEN + 1, np.ones((2, 12))), None),
    "packed": (cut([COUNTED], [COUNTED], [TWO]), 0),
    "packed, without ids": (cut([COUNTED], [COUNTED]), None),
    "packed, counted throughout": (cut(UP, UP, [TWO]), 0),
    "packed, keys of other documents": (cut([COUNTED], [COUNTED], [TWO], [[*TWO[1:], 2]]), None),
    "falling ids": (cut([COUNTED], [COUNTED], [[2] * 5 + [1] * 7]), None),
    "an id recurs": (cut([COUNTED], [COUNTED], [[1] * 5 + [2] * 3 + [1] * 4]), None),
    "a document jumps": (cut([[*range(5), *range(9, 16)]], None, [[1] * 12]), None),
    "a hole, not counted": (cut([[0, 1, 2, 9, 9, 3, 4, 0, 1, 9, 2, 3]], None, [HOLE]), None),
    "a hole, counted": (cut([[0, 1, 2, 9, 9, 5, 6, 0, 1, 9, 3, 4]], None, [HOLE]), 0),
    "padding on the left": (cut(FROM_LEFT, FROM_LEFT, LEFT), 0),
    "padding on the left, keys elsewhere": (cut(FROM_LEFT, FROM_LEFT + 1, LEFT), None),
    "backwards": (cut(UP[::-1]), None),
    "every other": (cut(2 * UP), None),
}


@pytest.mark.parametrize("name", ALIGNED)
def test_alignment(name):
    tiles, want = ALIGNED[name]
    aligned, offset = tiles.alignment()
    assert bool(aligned) == (want is not None)
    if aligned:
        assert int(offset) == want
        distance, allowed = pairs(tiles)
        t, s = np.indices(distance.shape[1:])
        np.testing.assert_array_equal(np.where(allowed, distance - s + t, want), want)


RANGE, BATCH = np.arange(24), np.arange(24) + np.array([[0], [3]])
PACKED = np.repeat([[1, 2, 3, 0], [4, 5, 6, 7]], 6, axis=1)
RANDOM = np.random.default_rng(1)
SCATTERED = RANDOM.integers(0, 40, (2, 24))
MASK = (RANDOM.random((2, 3, 24, 24)) < 0.5) & (RANDOM.random((2, 3, 6, 6)) < 0.2).repeat(4, 2).repeat(4, 3)
VISITS = {
    "all": cut(RANGE),
    "causal": cut(RANGE, causal=True),
    "a chunk, causal": cut(RANGE[:8] + 9, RANGE, causal=True),
    "causal window": cut(RANGE, causal=True, window=(6, 0)),
    "window": cut(RANGE, window=(2, 5)),
    "window, keys elsewhere": cut(RANGE, RANGE[:16] + 11, window=(2, 5)),
    "rows not alike, causal": cut(BATCH, RANGE, causal=True),
    "packed": cut(RANGE, ids=PACKED),
    "packed, counted in each document, causal": cut(np.array([[*range(6)] * 4]), ids=np.sort(PACKED[1:]), causal=True),
    "packed, counted throughout, causal": cut(RANGE, ids=PACKED, causal=True, window=(9, 9)),
    "padding": cut(RANGE, ids=np.array([[1] * 9 + [0] * 15])),
    "filled up": cut(RANGE[:21], ids=np.ones((1, 21)), causal=True),
    "mask": cut(RANGE, mask=MASK),
    "mask of the keys": cut(RANGE, mask=(RANGE > 13)[None, None, None]),
    "mask of the queries": cut(RANGE, mask=(RANGE < 7)[None, None, :, None], causal=True),
    "nobody": cut(RANGE, mask=np.zeros((1, 1, 1, 24), bool)),
}


@pytest.mark.parametrize("name", VISITS)
def test_only_tiles_in_which_somebody_attends_are_visited(name):
    tiles = VISITS[name]
    i, j, count = tiles.order(*tiles.alignment())
    found = list(zip(i[: int(count)].tolist(), j[: int(count)].tolist(), strict=True))
    want = np.argwhere(needed(tiles)).tolist()
    assert found == sorted(map(tuple, want), key=lambda at: (at[1] - at[0], at[0]))  # diagonal by diagonal


@pytest.mark.parametrize("causal", [False, True])
def test_no_tile_in_which_somebody_attends_is_left_out(causal):
    """Whatever the documents, positions and masks; an alignment that is claimed is one."""
    facts = jax.jit(lambda tiles: (tiles.alive(*tiles.alignment()), *tiles.alignment()))
    claims = 0
    for _ in range(150):
        ids, key_ids = RANDOM.integers(0, 4, (2, 3, 24))
        if RANDOM.random() < 0.7:
            ids, key_ids = np.sort(ids, axis=1), np.sort(key_ids, axis=1)
        key_ids = ids if RANDOM.random() < 0.7 else key_ids
        kinds = pe.positions.from_segment_ids(jnp.asarray(ids)), RANDOM.integers(-30, 30, (3, 24)), RANGE + ids[:, :1]
        queries, keys = (np.asarray(kinds[RANDOM.choice(3, p=[0.6, 0.2, 0.2])]) for _ in range(2))
        keys = queries if RANDOM.random() < 0.7 else keys
        mask = RANDOM.random((3, 2, 24, 24)) < RANDOM.choice([0.01, 0.2, 1.0])
        tiles = cut(queries, keys, ids, key_ids, mask=mask, causal=causal, window=(9, 4) if causal else (40, 40))
        alive, aligned, offset = facts(tiles)
        assert np.all(alive | ~needed(tiles))
        if aligned:
            distance, allowed = pairs(tiles)
            t, s = np.indices(distance.shape[1:])
            assert np.all(distance[allowed] == np.broadcast_to(s - t + offset, distance.shape)[allowed])
            claims += 1
    assert 20 < claims < 130
