"""Temperatures and softmax scales against transformers' numbers; rotations that are weakened by layer or by step."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from schemes import D, N, T, values

import posembed_jax as pe

POSITIONS = np.array([0, 1, 8190, 8191, 8192, 16_383, 16_384, 100_000, 131_071, 131_072, 10**6, 10_485_759, 10_485_760])

# transformers 5.23.0: `get_llama_4_attn_scale(positions, 0.1, length)` of Ministral 3 (16384) and of Mistral 4 (8192).
MINISTRAL_3 = [1.0] * 6 + [1.0693147, 1.1945910, 1.2079442, 1.2197225, 1.4127134, 1.6461468, 1.6463029]
MISTRAL_4 = [1.0] * 4 + [1.0693147] * 2 + [1.1098613, 1.2564950, 1.2772589, 1.2833214, 1.4812185, 1.7154615, 1.7155397]
# The same: queries of ones that leave `Llama4TextAttention` without RoPE, with floor_scale 4 and attn_scale 0.25.
LLAMA_4 = np.repeat([1.0, 1.1732868, 1.2746531, 1.3465736, 1.4023595, 1.4479399], 4)[1:21]


@pytest.mark.parametrize("length,wanted", [(16_384, MINISTRAL_3), (8192, MISTRAL_4)])
def test_stepped_temperature_is_mistrals(length, wanted):
    got = jax.jit(pe.SteppedTemperature(beta=0.1, length=length))(POSITIONS.reshape(1, 13))
    assert got.dtype == jnp.float32 and got.shape == (1, 13)
    np.testing.assert_allclose(got[0], wanted, rtol=1.5e-7)


def test_stepped_temperature_is_llama_4s():
    got = pe.SteppedTemperature(beta=0.25, length=4, offset=1)(pe.positions.arange(20))
    np.testing.assert_allclose(got, LLAMA_4, rtol=1.5e-7)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("length", [1, 7, 8192, 2**31 - 1])
def test_steps_are_found_in_integers(length, offset):
    """Where float32 positions have lost the last one before a step, and at the end of int32."""
    at = np.array([-(2**31), -1, 0, 7 * 10**8, 7 * 10**8 - 1, 2**27 - 1, 2**27, 2**31 - 2, 2**31 - 1], np.int64)
    steps = np.floor_divide(np.maximum(at, 0) + offset, length)
    got = pe.SteppedTemperature(beta=0.5, length=length, offset=offset)(at.astype(np.int32))
    np.testing.assert_allclose(got, 1 + 0.5 * np.log1p(np.float64(steps)), rtol=2e-7)


@pytest.mark.parametrize("length", [2, 2048, 8192])
def test_log_temperature(length):
    """Qwen's list, `log(i, length) if i > length else 1` for i = 1, 2 ..., and on to the end of int32."""
    at = np.array([-5, 0, length - 2, length - 1, length, length + 1, 3 * length, 32_766, 10**6, 2**31 - 1], np.int64)
    with mpmath.workdps(30):
        wanted = [float(max(1, mpmath.log(max(int(p), 0) + 1) / mpmath.log(length))) for p in at]
    got = jax.jit(pe.LogTemperature(length=length))(at.astype(np.int32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, rtol=2e-7)
    np.testing.assert_array_equal(got[:4], 1.0)


def test_a_temperature_multiplies_the_logits_of_its_query():
    q, k, at = values(T, N, D), values(T, N, D, seed=8), pe.positions.arange(T)
    temperature = pe.LogTemperature(length=4)(at)
    warm = jnp.einsum("tnd,snd->nts", q * temperature[..., None, None], k)
    np.testing.assert_allclose(warm, jnp.einsum("tnd,snd->nts", q, k) * temperature[None, :, None], rtol=0, atol=3e-6)


def test_yarn_softmax_scale():
    """DeepSeek-V3's attention in transformers 5.23.0: head dim 192, factor 40, mscale_all_dim 1.0 and 0.707."""
    for weight, wanted in ((1.0, 0.1352337788608801), (0.707, 0.11472138679292611), (0.0, 192**-0.5)):
        assert pe.yarn_softmax_scale(192, factor=40.0, mscale_all_dim=weight) == pytest.approx(wanted, rel=1e-14)
    assert pe.yarn_softmax_scale(64, factor=1.0, mscale_all_dim=1.0) == 0.125


# DroPE trains with RoPE and drops it, all at once: `rotation=None`, as in iRoPE's layers without positions. What lies
# between is a strength that multiplies the frequencies, which needs nothing new.


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_a_strength_is_a_linear_scaling(strength):
    x, at = values(T, N, D), pe.positions.arange(T, 1000)
    weak = pe.RoPE(dim=D, layout="half", scaling=pe.Linear(factor=1 / strength)).bind({})(x, at)
    plain = [float(f) for f in pe.RoPE(dim=D, layout="half").frequencies()]
    angle = np.float64(at)[:, None, None] * strength * np.array(plain)
    a, b = np.float64(x)[..., : D // 2], np.float64(x)[..., D // 2 :]
    wanted = np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)
    np.testing.assert_allclose(weak, wanted, rtol=0, atol=1e-6)


def test_a_strength_that_changes_with_the_step_compiles_once():
    """Frequencies as an array, multiplied: down to 0, where a rotation is the identity bit for bit."""
    rope, x, at, traces = pe.RoPE(dim=D, layout="half", learned=True), values(T, N, D), pe.positions.arange(T), []
    full = pe.init(rope, jax.random.key(0))

    @jax.jit
    def rotated(strength):
        traces.append(strength)
        return rope.bind(jax.tree.map(lambda f: strength * f, full))(x, at)

    np.testing.assert_allclose(rotated(1.0), pe.RoPE(dim=D, layout="half").bind({})(x, at), rtol=0, atol=3e-6)
    assert np.abs(rotated(0.5) - rotated(1.0)).max() > 0.1
    np.testing.assert_array_equal(rotated(0.0), x)
    assert len(traces) == 1
