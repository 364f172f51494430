"""What MaxText tests of its token, rotary, partial rotary and multimodal rotary embeddings."""

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import File, Suite, call

import posembed_jax as pe
from posembed_jax import nnx

SHARDS = "explicit meshes are in tests/test_sharding.py, for every scheme"
SUITE = Suite(
    peer="MaxText",
    repository="AI-Hypercomputer/maxtext",
    commit="e591f30cbbf217ed67ef71263ec0538239f9c3b8",
    licence="Apache-2.0",
    files=(
        File(path="tests/unit/embeddings_test.py::EmbedTest", prefix="embed_", here=("test_basic_call", "test_attend")),
        File(path="tests/unit/embeddings_test.py::RotaryEmbeddingTest", prefix="rotary_", here=("test_basic_call",)),
        File(
            path="tests/unit/embeddings_test.py::LLaMARotaryEmbeddingTest", prefix="llama_", here=("test_basic_call",)
        ),
        File(
            path="tests/unit/embeddings_test.py::YarnRotaryEmbeddingTest",
            prefix="yarn_",
            here=(
                "test_basic_call",
                "test_pairwise_call",
                "test_pairwise_requires_interleave",
                "test_non_interleaved_call",
            ),
            absent={SHARDS: ("test_explicit_shard_mode_call", "test_pairwise_explicit_shard_mode_call")},
        ),
        File(
            path="tests/unit/partial_rotary_embedding_test.py::PartialRotaryEmbeddingTest",
            prefix="partial_",
            here=(
                "test_partial_rotary_half",
                "test_partial_rotary_full",
                "test_shift_invariance",
                "test_snapshot_verification",
            ),
        ),
        File(
            path="tests/unit/partial_rotary_embedding_test.py::Gemma4PartialRotaryEmbeddingTest",
            prefix="gemma4_",
            here=(
                "test_timescale_padding",
                "test_gemma4_partial_rotary_layout",
                "test_shift_invariance",
                "test_snapshot_verification",
            ),
        ),
        File(
            path="tests/unit/qwen35_partial_mrope_test.py",
            prefix="qwen35_",
            here=(
                "test_matches_reference_and_preserves_unrotated_suffix",
                "test_factor_one_preserves_full_width_mrope_behavior",
            ),
            absent={
                "MaxText's own attention layer": ("test_attention_wires_qwen35_partial_factor_into_mrope",),
            },
        ),
        File(
            path="tests/unit/yarn_vs_reference_test.py",
            here=(),
            absent={
                "compares with DeepSeek's code in torch; tests/golden has its numbers": ("test_rope_multiple_seq",)
            },
        ),
    ),
    notes=(
        "MaxText's snapshots are of bfloat16: ours are the same bits, cast from float32.",
        "`multimodal_rope_check.py`, which its test run does not collect, compares with transformers in torch; what it "
        "checks of Qwen3-Omni's positions is in tests/test_mrope.py.",
    ),
)


def rope(dim=4, layout="half", **settings):
    return pe.RoPE(dim=dim, layout=layout, **settings)


def assert_snapshot(scheme, expected):
    """Ones at positions 0 and 1: the same bits in bfloat16."""
    out = call(scheme, jnp.ones((1, 2, 1, 4)), jnp.array([[0, 1]]))
    np.testing.assert_array_equal(out[0, 0, 0], np.ones(4))
    low = np.asarray(out[0, 1, 0].astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(low, expected, rtol=0, atol=5e-6)


def test_embed_basic_call():
    module = nnx.TokenEmbed(vocabulary=100, features=16, rngs=flax.nnx.Rngs(0))
    assert module(jnp.zeros((2, 3), jnp.int32)).shape == (2, 3, 16)


def test_embed_attend():
    module = nnx.TokenEmbed(vocabulary=100, features=16, rngs=flax.nnx.Rngs(0))
    assert module.logits(jnp.ones((2, 3, 16))).shape == (2, 3, 100)


def test_rotary_basic_call():
    assert_snapshot(rope(), [-0.300781, 0.988281, 1.38281, 1.00781])


def test_llama_basic_call():
    """Llama 3.1's scaling leaves both frequencies of four channels as they are."""
    scaling = pe.Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=8192)
    assert_snapshot(rope(layout="interleaved", scaling=scaling), [-0.300781, 1.38281, 0.988281, 1.00781])


YARN = pe.YaRN(factor=40.0, original_length=4096, attention_factor=1.0)


def test_yarn_basic_call():
    """MaxText's defaults; its layer leaves the attention factor out."""
    assert_snapshot(rope(scaling=YARN), [-0.300781, 0.996094, 1.38281, 1.00781])


ORDER = np.array([0, 2, 1, 3])  # of four channels: pairs side by side <-> halves; its own inverse


def test_yarn_pairwise_call():
    """The same pairs, side by side or in halves."""
    x, at = jax.random.normal(jax.random.key(0), (1, 2, 1, 4)), jnp.array([[0, 1]])
    halves = call(rope(scaling=YARN), x[..., ORDER], at)
    np.testing.assert_array_equal(call(rope(layout="interleaved", scaling=YARN), x, at), halves[..., ORDER])


def test_yarn_pairwise_requires_interleave():
    with pytest.raises(ValueError, match="layout is 'pairwise'; it needs to be one of 'half', 'interleaved'"):
        rope(layout="pairwise", scaling=YARN)


def test_yarn_non_interleaved_call():
    """Of ones, the layouts differ by the order of channels alone."""
    x, at = jnp.ones((1, 2, 1, 4)), jnp.array([[0, 1]])
    interleaved = call(rope(layout="interleaved", scaling=YARN), x, at)
    np.testing.assert_array_equal(call(rope(scaling=YARN), x, at), interleaved[..., ORDER])


def normal(heads, dim, length):
    return jax.random.normal(jax.random.key(0), (1, length, heads, dim))


def assert_shift_invariant(scheme, dim, far=3):
    """The products of turned queries and keys, at positions that are all shifted."""
    x = normal(4, dim, 20)

    @jax.jit
    def products(shift):
        y = scheme.bind({})(x, pe.positions.arange(20, shift))
        return jnp.einsum("bsnd,btnd->bnst", y, y)

    for shift in (far, 10**9):
        np.testing.assert_allclose(products(0), products(shift), rtol=0, atol=6e-6)


def test_partial_partial_rotary_half():
    x, at = normal(4, 8, 16), jnp.arange(16)
    out = call(rope(4), x, at)
    np.testing.assert_array_equal(out[..., :4], call(rope(4), x[..., :4], at))
    np.testing.assert_array_equal(out[..., 4:], x[..., 4:])


def test_partial_partial_rotary_full():
    """A `Proportional` of all frequencies is RoPE."""
    x, at = normal(4, 8, 4), jnp.arange(4)
    np.testing.assert_array_equal(call(rope(8, scaling=pe.Proportional(fraction=1.0)), x, at), call(rope(8), x, at))


def test_partial_shift_invariance():
    """By 3 as MaxText has it, and by a billion."""
    assert_shift_invariant(rope(4), 8)


def test_partial_snapshot_verification():
    assert_snapshot(rope(2), [-0.30078125, 1.3828125, 1.0, 1.0])


HALF = pe.Proportional(fraction=0.5)


def test_gemma4_timescale_padding():
    """Of 8 frequencies the first 4 turn; the time scales of the others, their inverses, are infinite."""
    found = np.array(rope(16, scaling=HALF).frequencies(), np.float64)
    assert found.shape == (8,) and (found[:4] > 0).all() and (found[4:] == 0).all()


def test_gemma4_gemma4_partial_rotary_layout():
    """Channels 4 to 7 and 12 to 15 of 16 pass, bit for bit."""
    x = normal(4, 16, 16)
    out = call(rope(16, scaling=HALF), x, jnp.arange(16))
    for part in (slice(4, 8), slice(12, 16)):
        np.testing.assert_array_equal(out[..., part], x[..., part])
    assert (np.asarray(out)[:, 1:, :, :3] != np.asarray(x)[:, 1:, :, :3]).all()


def test_gemma4_shift_invariance():
    assert_shift_invariant(rope(16, scaling=HALF), 16)


def test_gemma4_snapshot_verification():
    assert_snapshot(rope(4, scaling=HALF), [-0.300781, 1.0, 1.38281, 1.0])


SECTIONS = (11, 11, 10)


def qwen35(x, positions):
    """float64, by Qwen3.5's rule: every third of 32 frequencies is of the row, the next of the column."""
    frequencies = 1e7 ** (-np.arange(32) / 32)
    axis = np.zeros(32, int)
    axis[1 : 3 * SECTIONS[1] : 3], axis[2 : 3 * SECTIONS[2] : 3] = 1, 2
    angle = (positions[..., axis] * frequencies)[:, :, None]
    a, b, rest = np.split(np.asarray(x, np.float64), [32, 64], axis=-1)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def assert_qwen35(width, steps):
    scheme = rope(64, base=1e7, axes=pe.Axes.interleaved(SECTIONS))
    x = np.linspace(-1, 1, 2 * 4 * 3 * width, dtype=np.float32).reshape(2, 4, 3, width)
    at = np.broadcast_to(np.arange(4, dtype=np.int32)[:, None] + np.array(steps, np.int32), (2, 4, 3))
    out = call(scheme, x, at)
    np.testing.assert_allclose(out, qwen35(x, at), rtol=0, atol=3e-7)
    np.testing.assert_array_equal(out[..., 64:], x[..., 64:])
    if not any(steps):  # text: all axes alike, as RoPE of one
        np.testing.assert_array_equal(out, call(rope(64, base=1e7), x, at[..., 0]))


@pytest.mark.parametrize("steps", [(0, 0, 0), (0, 3, 7)])
def test_qwen35_matches_reference_and_preserves_unrotated_suffix(steps):
    assert_qwen35(256, steps)


def test_qwen35_factor_one_preserves_full_width_mrope_behavior():
    assert_qwen35(64, (0, 0, 0))
