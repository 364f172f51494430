"""What torchtune tests of Llama's rotary frequencies and of resized position tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import File, Suite

import posembed_jax as pe

RANDOM = "the numbers are of inputs that torch draws from a seed"
META = "torch's meta device"
TILES = "tables of tiles, gated and padded by aspect ratio, are Llama 3.2's own model"
SUITE = Suite(
    peer="torchtune",
    repository="pytorch/torchtune",
    commit="bd2a0fc7c31430972728494fa01aaeeb0ebf1ba1",
    licence="BSD-3-Clause",
    files=(
        File(
            path="tests/torchtune/models/llama3_1/test_position_embeddings.py",
            here=("test_cache_equality",),
            absent={
                RANDOM: ("test_forward", "test_forward_with_curr_pos", "test_forward_with_2d_pos_ids"),
                META: ("test_rope_init_meta_device",),
            },
        ),
        File(
            path="tests/torchtune/models/clip/test_pos_embedding_interpolation.py",
            here=(
                "test_tile_resize_position_embedding",
                "test_resize_local_position_embedding",
                "test_resize_global_position_embedding",
            ),
            absent={
                "hooks of torch's state_dict": (
                    "test_load_state_dict_hook_tiled_token",
                    "test_load_state_dict_hook_tile",
                ),
            },
        ),
        File(
            path="tests/torchtune/modules/test_position_embeddings.py",
            here=(),
            absent={
                RANDOM: (
                    "test_forward",
                    "test_forward_with_curr_pos",
                    "test_forward_with_packed_pos",
                    "TestVisionRotaryPositionEmbedding.test_forward",
                ),
                META: ("test_rope_init_meta_device", "TestVisionRotaryPositionEmbedding.test_rope_init_meta_device"),
            },
        ),
        File(
            path="tests/torchtune/modules/_export/test_export_position_embeddings.py",
            here=(),
            absent={
                TILES: (
                    *(f"test_tile_positional_embedding_{name}" for name in ("smoke", "export", "aoti")),
                    *(f"test_tiled_token_positional_embedding_{name}" for name in ("smoke", "export", "aoti")),
                    "test_replace_tile_positional_embedding",
                    "test_replace_tiled_token_positional_embedding",
                )
            },
        ),
        File(
            path="tests/torchtune/models/phi3/test_phi3_position_embeddings.py",
            here=(),
            absent={RANDOM: ("test_forward",)},
        ),
        File(
            path="tests/torchtune/models/clip/test_positional_embeddings.py",
            here=(),
            absent={
                TILES: (
                    "test_token_positional_embedding",
                    "test_tiled_token_positional_embedding",
                    "test_tile_positional_embedding",
                )
            },
        ),
    ),
    notes=(
        "The sum of Llama 3.1's 524,288 cosines and sines at 4,096 positions is 91141.7656 there, in float32; of the "
        "float64 ones it is 91141.7593, and of ours too. The difference is less than one unit of float32 there.",
    ),
)


def test_cache_equality():
    """Llama 3.1's cosines and sines at 4,096 positions: their mean, sum and largest; in float64, and ours."""
    scaling = pe.Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=8192)
    rope = pe.RoPE(dim=128, layout="interleaved", scaling=scaling)
    angle = np.arange(4096)[:, None] * np.array(rope.frequencies(), np.float64)
    true = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    ours = np.stack(jax.jit(rope.cos_sin)(jnp.arange(4096)), axis=-1)
    np.testing.assert_allclose(ours, true, rtol=0, atol=1.3e-7)
    for table in (ours.astype(np.float64), true):
        np.testing.assert_allclose(table.mean(), 0.1738, rtol=0, atol=1e-4)
        np.testing.assert_allclose(table.sum(), 91141.7656, rtol=0, atol=2**-7)
        assert table.max() == 1.0


def resized(grid, size):
    """`[height, width, F]` -> `[size, size, F]`, corners on corners."""
    grid = jnp.asarray(grid)
    old = grid.shape[:2]
    rows = pe.resize_table(
        grid.reshape(-1, grid.shape[-1]), old, (size, size), method="bilinear", align_corners=True, shrink=True
    )
    return rows.reshape(size, size, -1)


def counting(*shape):
    return np.arange(float(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("table", "size", "expected"),
    [
        (counting(2, 2, 2), 1, [[[0.0, 1.0]]]),
        (counting(1, 1, 1), 3, np.zeros((3, 3, 1))),
        (counting(3, 3, 2), 2, [[[0.0, 1.0], [4.0, 5.0]], [[12.0, 13.0], [16.0, 17.0]]]),
    ],
)
def test_tile_resize_position_embedding(table, size, expected):
    np.testing.assert_allclose(resized(table, size), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("table", "size", "expected"),
    [
        (counting(5, 2), 2, counting(5, 2)),
        (counting(5, 1), 1, [[0.0], [1.0]]),
        (counting(2, 2), 2, [[0.0, 1.0], *[[2.0, 3.0]] * 4]),
    ],
)
def test_resize_local_position_embedding(table, size, expected):
    """A class token in front stays as it is."""
    side = round((len(table) - 1) ** 0.5)
    settings = {"method": "bilinear", "align_corners": True, "before": 1, "shrink": True}
    out = pe.resize_table(jnp.asarray(table), (side, side), (size, size), **settings)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)


def pasted(table, tiles, size):
    """A table `[tiles, tiles, 1 + patches, F]` of a picture in tiles: class tokens, and the patches as one grid."""
    old, side, features = table.shape[0], round((table.shape[2] - 1) ** 0.5), table.shape[-1]
    patches = table[:, :, 1:].reshape(old, old, side, side, features).swapaxes(1, 2)
    grid = resized(patches.reshape(old * side, old * side, features), tiles * size)
    back = np.asarray(grid).reshape(tiles, size, tiles, size, features).swapaxes(1, 2)
    return np.concatenate(
        [resized(table[:, :, 0], tiles)[:, :, None], back.reshape(tiles, tiles, -1, features)], axis=2
    )


THIRDS = [
    [[0.0, 2.0, 4.6667, 10.0, 12.6667], [8.0, 7.3333, 10.0, 15.3333, 18.0]],
    [[24.0, 18.0, 20.6667, 26.0, 28.6667], [32.0, 23.3333, 26.0, 31.3333, 34.0]],
]


@pytest.mark.parametrize(
    ("table", "tiles", "size", "expected"),
    [
        (counting(2, 2, 5, 2), 1, 2, [[[[0.0, 1.0], [2.0, 3.0], [14.0, 15.0], [26.0, 27.0], [38.0, 39.0]]]]),
        (
            counting(1, 1, 5, 1),
            3,
            1,
            [[[[0.0], [i + j / 2 + 1.0]] for j in range(3)] for i in range(3)],
        ),
        (counting(3, 3, 2, 2), 2, 2, np.stack([np.array(THIRDS), np.array(THIRDS) + 1], axis=-1)),
    ],
)
def test_resize_global_position_embedding(table, tiles, size, expected):
    """The tiles' patches are resized as one grid, and their class tokens as another."""
    np.testing.assert_allclose(pasted(table, tiles, size), expected, rtol=0, atol=5.1e-5)
