"""Mistakes that other libraries made with the scalings and axes of RoPE: each test fails where ours makes it too.

Those of plain RoPE are in `test_regressions.py`. Where a number is expected, it is from the paper's formula, in numpy.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schemes import values

import posembed_jax as pe
from posembed_jax import hf

DIM, BASE = 64, 10_000.0
PLAIN = BASE ** (-np.arange(0, DIM, 2) / DIM)


def frequencies(scaling, *, dim=DIM, base=BASE, **settings):
    return np.array(pe.RoPE(dim=dim, layout="half", base=base, scaling=scaling, **settings).frequencies(), np.float64)


def test_axial_offsets_poison_a_cache():
    """rotary-embedding-torch: offsets of axes were ignored after a first call, or spoilt the tables of other calls."""
    axes = pe.RoPE(dim=8, layout="half", axes=pe.Axes.blocks(axes=2, count=2))
    line, at = pe.RoPE(dim=8, layout="half"), pe.positions.grid((2, 3))
    before = line.cos_sin(pe.positions.arange(6))
    moved = axes.cos_sin(at + jnp.array([[5, 100]]))
    for table, wave in zip(moved, (np.cos, np.sin), strict=True):
        angle = np.asarray(at + jnp.array([[5, 100]]), np.float64)[:, [0, 0, 1, 1]] * np.array([1, 0.01, 1, 0.01])
        np.testing.assert_allclose(table, wave(angle), rtol=0, atol=2e-7)
    np.testing.assert_array_equal(before, line.cos_sin(pe.positions.arange(6)))


@pytest.mark.slow
def test_xpos_centre_that_follows_the_slice():
    """rotary-embedding-torch, torchscale: cached keys were divided for another centre than new queries."""
    xpos = pe.XPos(rope=pe.RoPE(dim=8, layout="interleaved"), centre=8).bind({})
    q, k, at = values(16, 2, 8), values(16, 2, 8, seed=1), pe.positions.arange(16)
    whole = jnp.einsum("tnd,snd->nts", xpos(q, at), xpos.for_keys()(k, at), precision="highest")
    cached = jnp.concatenate([xpos.for_keys()(k[i : i + 4], at[i : i + 4]) for i in range(0, 16, 4)])
    for t in range(16):
        step = jnp.einsum("tnd,snd->nts", xpos(q[t : t + 1], at[t : t + 1]), cached, precision="highest")
        np.testing.assert_allclose(step[:, 0], whole[:, t], rtol=0, atol=1e-6)


def test_dynamic_ntk_is_not_a_larger_interpolation():
    """keras-hub: every frequency was divided by one number. NTK keeps the highest, and divides the lowest by all."""
    found = frequencies(pe.DynamicNTK(factor=2.0, original_length=32), length=96)
    grown = 2.0 * 96 / 32 - 1.0
    np.testing.assert_allclose(found, (BASE * grown ** (DIM / (DIM - 2))) ** (-np.arange(0, DIM, 2) / DIM), rtol=1e-12)
    assert found[0] == 1.0


def test_a_section_of_the_doubled_table():
    """EasyDeL: sections cut the table after it was doubled, so the two of a pair turned by angles of different axes."""
    rope = pe.RoPE(dim=16, layout="half", axes=pe.Axes.sections((2, 3, 3))).bind({})
    x, at = values(5, 2, 16), jnp.array([[3, 50, 7]] * 5)
    np.testing.assert_allclose(jnp.linalg.norm(rope(x, at), axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-6)
    alone = pe.RoPE(dim=16, layout="half").bind({})(x, jnp.full(5, 50))
    np.testing.assert_allclose(rope(x, at)[..., [2, 3, 4, 10, 11, 12]], alone[..., [2, 3, 4, 10, 11, 12]], atol=1e-6)


def yarn(dim, base, factor, original, fast=32.0, slow=1.0):
    """Peng et al. 2023, section 3.2, with truncation."""

    def index(turns):
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(index(fast)), 0), min(math.ceil(index(slow)), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low if high != low else 0.001), 0, 1)
    plain = base ** (-np.arange(0, dim, 2) / dim)
    return plain * (1 - ramp) + plain / factor * ramp


def test_yarn_divides_once_and_its_range_is_of_channels():
    """levanter: positions were divided by the factor again, and the range was of pairs: 0.004 to 0.06 times as fast."""
    np.testing.assert_allclose(
        frequencies(pe.YaRN(factor=4.0, original_length=2048)), yarn(DIM, BASE, 4.0, 2048), rtol=1e-12
    )
    assert pe.YaRN(factor=4.0, original_length=2048).amplitude() == pytest.approx(0.1 * math.log(4.0) + 1.0)


def test_yarn_whose_ramp_is_a_single_point():
    """axlearn: with low == high it moved low up instead of high, which turns the ramp round."""
    found = frequencies(pe.YaRN(factor=4.0, original_length=6))
    np.testing.assert_allclose(found, yarn(DIM, BASE, 4.0, 6), rtol=1e-12)
    np.testing.assert_allclose(found[:2], [1.0, PLAIN[1] / 4.0], rtol=1e-12)


@pytest.mark.parametrize("positions", [[2048, 4096], [100_000, 2**31 - 1]])
def test_yarn_positions_past_a_table(positions):
    """MaxText: the last row of a table for every position past max_position_embeddings."""
    rope = pe.RoPE(dim=DIM, layout="half", scaling=pe.YaRN(factor=4.0, original_length=512, attention_factor=1.0))
    angle = np.array(positions, np.float64)[:, None] * np.array([float(f) for f in rope.frequencies()])
    cos, _ = rope.cos_sin(jnp.array(positions))
    if max(positions) < 10**6:  # float64 holds the angle
        np.testing.assert_allclose(cos, np.cos(angle), rtol=0, atol=2e-7)
    assert not np.array_equal(cos[0], cos[1])


def nested(truncate):
    entry = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "rope_theta": 150_000.0}
    layers = {"full_attention": entry | {"truncate": truncate}, "sliding_attention": {"rope_type": "default"}}
    return {"model_type": "gemma3_text", "head_dim": 64, "rope_parameters": layers}


def test_truncate_of_a_nested_entry():
    """transformers: read from the outer dict, so that `truncate: false` of a layer type changed nothing."""
    rounded, exact = (hf.from_config(nested(flag)).rotations["full_attention"] for flag in (True, False))
    assert rounded.frequencies() != exact.frequencies()
    followed = hf.from_config(nested(False), follow_upstream_bugs=True).rotations["full_attention"]
    assert followed.frequencies() == rounded.frequencies()


@pytest.mark.parametrize("factor, original", [(8.0, 8192), (32.0, 8192), (16.0, 1024)])
def test_llama3_factors_are_not_of_one_model(factor, original):
    """MaxText: 8 and 8192 were written into the code, four times off for Llama 3.2."""
    scaling = pe.Llama3(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_length=original)
    plain = 500_000.0 ** (-np.arange(0, DIM, 2) / DIM)
    wavelength = 2 * math.pi / plain
    smooth = np.clip((original / wavelength - 1.0) / 3.0, 0, 1)
    want = np.where(wavelength > original, plain / factor, (1 - smooth) * plain / factor + smooth * plain)
    np.testing.assert_allclose(frequencies(scaling, base=500_000.0), want, rtol=1e-12)


@pytest.mark.slow
def test_a_length_of_the_whole_batch():
    """transformers: one long row changed the frequencies of every row, and of keys that were already cached."""
    rope = pe.RoPE(dim=8, layout="half", scaling=pe.DynamicNTK(factor=4.0, original_length=8))
    x, at = values(2, 20, 1, 8), pe.positions.arange(20)
    both = rope.bind({}, length=jnp.array([8, 20]))(x, at)
    for row, length in enumerate((8, 20)):
        alone = rope.bind({}, length=length)(x[row], at)
        np.testing.assert_allclose(both[row], alone, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(both[0], rope.bind({}, length=jnp.array([8, 9]))(x, at)[0])


@pytest.mark.parametrize("positions", [[0, 1, 2, 3, 100, 101, 102, 103], [0, 2, 4, 6, 8, 10, 12, 14]])
def test_skipped_positions_are_one_document(positions):
    """transformers: jumps were read as borders of documents. With RoPE too, only segment ids are."""
    rope, at = pe.RoPE(dim=8, layout="half").bind({}), jnp.array(positions)
    q, k, v = (values(1, 8, 2, 8, seed=seed) for seed in range(3))
    out = pe.attend(rope(q, at), rope(k, at), v, causal=True, query_positions=at)
    np.testing.assert_allclose(out[:, :1], v[:, :1], rtol=0, atol=1e-6)
    assert np.abs(np.asarray(out[:, 4] - v[:, 4])).max() > 0.1


def test_vjepas_tiled_tables_are_asked_for_by_name():
    """transformers keeps V-JEPA 2's mistake for its checkpoints: an angle for each channel, which RoPE never has."""
    found = hf.from_config({"model_type": "vjepa2"})
    rope = next(r for r in (*found.rotations.values(), *(t.rotation for t in found.towers.values())) if r is not None)
    assert len(rope.axes.axis) == rope.dim
    x = values(3, 1, rope.dim)
    at = jnp.array([[1, 2, 3], [4, 5, 6], [0, 7, 1]])
    changed = jnp.abs(jnp.linalg.norm(rope.bind({})(x, at), axis=-1) - jnp.linalg.norm(x, axis=-1))
    assert jnp.max(changed) > 1e-3


def test_traced_and_static_lengths_are_one():
    """A scaling that is chosen by a Python branch cannot be traced: lengths one below, at and one past the original."""
    longrope = pe.LongRoPE(
        short_factor=(1.0,) * 4, long_factor=(1.5, 2.0, 3.0, 4.0), original_length=16, attention_factor=1.2
    )
    for scaling in (longrope, pe.DynamicNTK(factor=2.0, original_length=16)):
        rope = pe.RoPE(dim=8, layout="half", scaling=scaling)
        traced = jax.jit(lambda length, rope=rope: rope.cos_sin(pe.positions.arange(20), length=length))
        for length in (15, 16, 17):
            for got, want in zip(traced(length), rope.cos_sin(pe.positions.arange(20), length=length), strict=True):
                np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)
        one, two, three = (traced(length)[0] for length in (15, 16, 17))
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(two, three)


@pytest.mark.parametrize("scheme", [pe.RoPE(dim=8, layout="half"), pe.Sinusoidal(features=8)], ids=["rope", "sinusoid"])
def test_a_model_cast_to_float16_has_rounded_frequencies(scheme):
    """positional-encodings: `.half()` of a module rounded its frequencies. Integers are not cast with the rest."""
    bound, far = scheme.bind({}), pe.positions.arange(8) + 4_000
    half = jax.tree.map(lambda x: x.astype(jnp.float16) if jnp.issubdtype(x.dtype, jnp.floating) else x, bound)
    given = (jnp.ones((8, 1, 8)), far) if isinstance(scheme, pe.RoPE) else (far,)
    np.testing.assert_array_equal(half(*given), bound(*given))
