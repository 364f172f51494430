"""What equinox tests of its rotary position and token embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import File, Suite, call

import posembed_jax as pe

SUITE = Suite(
    peer="equinox",
    repository="patrick-kidger/equinox",
    commit="9336d820b2ef66b360fc6cb3611b3da5cefbb14d",
    licence="Apache-2.0",
    files=(
        File(
            path="tests/test_nn.py",
            here=(
                "test_embedding",
                "test_rope_embeddings_shapes",
                "test_rope_embeddings_freqs_cis",
                "test_rope_embeddings_values",
            ),
        ),
    ),
    notes=(
        "equinox takes the id -1 for the last row of the table; here it is an error.",
        "equinox allows its tables in float16 an error of 1%, at positions below 16. Ours are float32 always.",
    ),
)


def test_embedding():
    table = jnp.linspace(0.1, 10, 100).reshape(10, 10)
    assert pe.embed(pe.normal(1.0, (100, 512))(jax.random.key(0)), jnp.array(1)).shape == (512,)
    np.testing.assert_allclose(pe.embed(table, jnp.array(9)), np.linspace(9.1, 10.0, 10), rtol=1e-6)
    with pytest.raises(ValueError, match="ids go from -1 to -1, but the table has rows 0 to 9"):
        pe.embed(table, jnp.array(-1))


def test_rope_embeddings_shapes():
    x = jnp.ones((8, 4, 32))
    assert call(pe.RoPE(dim=32, layout="half"), x, jnp.arange(8)).shape == x.shape


# By Meta's code for Llama, at positions 0 to 15 and four frequencies: the cosine and the sine, to four digits.
TURNS = """1.0000 0.0000 1.0000 0.0000 1.0000 0.0000 1.0000 0.0000
    0.5403 0.8415 0.9950 0.0998 0.9999 0.0100 1.0000 0.0010
    -0.4161 0.9093 0.9801 0.1987 0.9998 0.0200 1.0000 0.0020
    -0.9900 0.1411 0.9553 0.2955 0.9996 0.0300 1.0000 0.0030
    -0.6536 -0.7568 0.9211 0.3894 0.9992 0.0400 1.0000 0.0040
    0.2837 -0.9589 0.8776 0.4794 0.9988 0.0500 1.0000 0.0050
    0.9602 -0.2794 0.8253 0.5646 0.9982 0.0600 1.0000 0.0060
    0.7539 0.6570 0.7648 0.6442 0.9976 0.0699 1.0000 0.0070
    -0.1455 0.9894 0.6967 0.7174 0.9968 0.0799 1.0000 0.0080
    -0.9111 0.4121 0.6216 0.7833 0.9960 0.0899 1.0000 0.0090
    -0.8391 -0.5440 0.5403 0.8415 0.9950 0.0998 0.9999 0.0100
    0.0044 -1.0000 0.4536 0.8912 0.9940 0.1098 0.9999 0.0110
    0.8439 -0.5366 0.3624 0.9320 0.9928 0.1197 0.9999 0.0120
    0.9074 0.4202 0.2675 0.9636 0.9916 0.1296 0.9999 0.0130
    0.1367 0.9906 0.1700 0.9854 0.9902 0.1395 0.9999 0.0140
    -0.7597 0.6503 0.0707 0.9975 0.9888 0.1494 0.9999 0.0150"""


def test_rope_embeddings_freqs_cis():
    cos, sin = jax.jit(pe.RoPE(dim=8, layout="interleaved").cos_sin)(jnp.arange(16))
    expected = np.array(TURNS.split(), np.float64).reshape(16, 4, 2)
    np.testing.assert_allclose(np.stack([cos, sin], axis=-1), expected, rtol=0, atol=5.1e-5)


# By transformers' Llama in Flax, of 0, 1, 2 ... 31, four channels a position.
VALUES = [
    [0.0, 1.0, 2.0, 3.0],
    [-2.887617, 4.9297514, 6.6076975, 7.0496492],
    [-12.422148, 8.778215, 3.1129112, 11.177788],
    [-13.85559, 12.544218, -12.166454, 15.383192],
    [3.1641474, 16.226604, -23.874424, 19.664621],
    [26.769577, 19.824234, -12.937918, 24.020819],
    [30.30889, 23.335985, 18.258457, 28.450514],
    [1.3996639, 26.760752, 41.01269, 32.952423],
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_rope_embeddings_values(dtype):
    """equinox allows 1e-3 for float16, and 1e-2 with tables in float16; here it is the float32 values, rounded once."""
    x = jnp.arange(32.0).reshape(8, 1, 4).astype(dtype)
    out = call(pe.RoPE(dim=4, layout="half"), x, jnp.arange(8))[:, 0]
    assert out.dtype == dtype
    rounding = float(jnp.finfo(dtype).eps) / 2
    np.testing.assert_allclose(np.asarray(out, np.float64), VALUES, rtol=rounding, atol=4e-6)
