"""Rotary scalings: frequencies against ten-line references in float64, lengths in the graph, live caches."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schemes import values

import posembed_jax as pe

DIM, BASE, LENGTH = 64, 500_000.0, 8192
N = DIM // 2
PLAIN = BASE ** (-np.arange(N) / N)
FACTORS = tuple(np.linspace(1.0, 2.0, N).tolist()), tuple(np.linspace(2.0, 40.0, N).tolist())


def yarn(factor, fast, slow, truncate, length=LENGTH):
    def index(turns):
        return N * math.log(length / (turns * 2 * math.pi)) / math.log(BASE)

    low, high = index(fast), index(slow)
    low, high = (math.floor(low), math.ceil(high)) if truncate else (low, high)
    ramp = np.clip((np.arange(N) - max(low, 0)) / (min(high, DIM - 1) - max(low, 0)), 0, 1)
    return PLAIN / factor * ramp + PLAIN * (1 - ramp)


def llama3(factor, low, high):
    wavelength = 2 * np.pi / PLAIN
    smooth = (LENGTH / wavelength - low) / (high - low)
    between = (1 - smooth) * PLAIN / factor + smooth * PLAIN
    return np.where(wavelength < LENGTH / high, PLAIN, np.where(wavelength > LENGTH / low, PLAIN / factor, between))


def resonance(frequencies):
    return 2 * np.pi / np.round(2 * np.pi / frequencies)


def with_base(base):
    return base ** (-np.arange(N) / N)


DYNAMIC = pe.DynamicNTK(factor=4.0, original_length=LENGTH)
LONG = pe.LongRoPE(short_factor=FACTORS[0], long_factor=FACTORS[1], original_length=LENGTH, attention_factor=1.25)
LOUD = dataclasses.replace(LONG, long_attention_factor=0.8)  # Phi-3.5-MoE's
CASES = {  # name -> (scaling, length, frequencies, amplitude)
    "linear": (pe.Linear(factor=2.5), None, PLAIN / 2.5, 1.0),
    "ntk": (pe.NTK(factor=8.0), None, with_base(BASE * 8.0 ** (DIM / (DIM - 2))), 1.0),
    "dynamic, short": (DYNAMIC, LENGTH - 1, PLAIN, 1.0),
    "dynamic, as trained": (DYNAMIC, LENGTH, PLAIN, 1.0),
    "dynamic, long": (DYNAMIC, 3 * LENGTH, with_base(BASE * (4.0 * 3 - 3.0) ** (DIM / (DIM - 2))), 1.0),
    "yarn": (pe.YaRN(factor=4.0, original_length=LENGTH), None, yarn(4.0, 32, 1, True), 1 + 0.1 * math.log(4.0)),
    "yarn, own bands": (
        pe.YaRN(factor=4.0, original_length=LENGTH, beta_fast=9.0, beta_slow=3.0, truncate=False, attention_factor=0.7),
        None,
        yarn(4.0, 9, 3, False),
        0.7,
    ),
    "yarn, a band that ends beyond the last": (
        pe.YaRN(factor=4.0, original_length=2**24, attention_factor=1.0),
        None,
        yarn(4.0, 32, 1, True, 2**24),
        1.0,
    ),
    "yarn, DeepSeek": (
        pe.YaRN(factor=40.0, original_length=LENGTH, mscale=1.0, mscale_all_dim=0.5),
        None,
        yarn(40.0, 32, 1, True),
        (1 + 0.1 * math.log(40.0)) / (1 + 0.05 * math.log(40.0)),
    ),
    "yarn, no mscale": (
        pe.YaRN(factor=0.5, original_length=LENGTH, mscale=1.0, mscale_all_dim=0.0),
        None,
        yarn(0.5, 32, 1, True),
        1.0,
    ),
    "longrope, short": (LONG, LENGTH, PLAIN / FACTORS[0], 1.25),
    "longrope, long": (LONG, LENGTH + 1, PLAIN / FACTORS[1], 1.25),
    "longrope, short of two amplitudes": (LOUD, LENGTH, PLAIN / FACTORS[0], 1.25),
    "longrope, long of two amplitudes": (LOUD, LENGTH + 1, PLAIN / FACTORS[1], 0.8),
    "llama3": (
        pe.Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=LENGTH),
        None,
        llama3(8.0, 1.0, 4.0),
        1.0,
    ),
    "yarn, Kimi K2": (
        pe.YaRN(factor=32.0, original_length=LENGTH, beta_fast=1.0, attention_factor=1.0),
        None,
        yarn(32.0, 1, 1, True),
        1.0,
    ),
    "llama3, Llama 4": (
        pe.Llama3(factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0, original_length=LENGTH),
        None,
        np.where(2 * np.pi / PLAIN < LENGTH, PLAIN, PLAIN / 16.0),
        1.0,
    ),
    "proportional": (
        pe.Proportional(fraction=0.3, factor=2.0),
        None,
        np.where(np.arange(N) < 9, PLAIN / 2.0, 0.0),
        1.0,
    ),
    "resonance": (pe.Resonance(), None, resonance(PLAIN), 1.0),
    "resonance, yarn": (
        pe.Resonance(scaling=pe.YaRN(factor=4.0, original_length=LENGTH)),
        None,
        resonance(yarn(4.0, 32, 1, True)),
        1 + 0.1 * math.log(4.0),
    ),
    "resonance, proportional": (
        pe.Resonance(scaling=pe.Proportional(fraction=0.3)),
        None,
        np.where(np.arange(N) < 9, resonance(PLAIN), 0.0),
        1.0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_frequencies(name):
    scaling, length, frequencies, amplitude = CASES[name]
    rope = pe.RoPE(dim=DIM, layout="half", base=BASE, scaling=scaling, length=length)
    np.testing.assert_allclose(np.array(rope.frequencies(), np.float64), frequencies, rtol=1e-12)
    assert rope.amplitude() == pytest.approx(amplitude, rel=1e-12)
    positions = np.array([0, 1, 1000, 131_071], np.int32)
    cos, sin = rope.cos_sin(positions)
    angles = positions[:, None] * np.array(rope.frequencies(), np.float64)
    np.testing.assert_allclose(cos, amplitude * np.cos(angles), rtol=0, atol=3e-7)
    np.testing.assert_allclose(sin, amplitude * np.sin(angles), rtol=0, atol=3e-7)


def test_bands_that_meet_are_a_step():
    """Another library's ramp was the wrong way round where both ends of the band are one index."""
    scaling = pe.YaRN(factor=4.0, original_length=8, beta_slow=1.56)
    found = np.array(pe.RoPE(dim=DIM, layout="half", base=BASE, scaling=scaling).frequencies(), np.float64)
    np.testing.assert_allclose(found, np.where(np.arange(N) < 1, PLAIN, PLAIN / 4.0), rtol=1e-12)


def test_a_head_of_one_pair():
    assert pe.RoPE(dim=2, layout="half", scaling=pe.NTK(factor=8.0)).frequencies() == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["exact", "float32"])
@pytest.mark.parametrize("scaling", [DYNAMIC, LONG, LOUD], ids=["dynamic", "longrope", "two amplitudes"])
def test_a_length_in_the_graph_is_a_length(scaling, phase):
    """One trace; for a row alone, and for rows of different lengths."""
    rope = pe.RoPE(dim=DIM, layout="half", base=BASE, scaling=scaling, phase=phase)
    lengths = np.array([5, LENGTH, LENGTH + 1, 4 * LENGTH], np.int32)
    x, positions = values(len(lengths), 6, 2, DIM), pe.positions.arange(6) * 30
    traces = []

    @jax.jit
    def traced(x, length):
        traces.append(length.shape)
        return rope.bind({}, length=length)(x, positions)

    want = np.stack([rope.bind({}, length=int(n))(row, positions) for n, row in zip(lengths, x, strict=True)])
    # The frequencies of dynamic NTK are then float32: off by a few 1e-7 of the angle, which is at most 150.
    tolerance = 1e-4 if scaling is DYNAMIC else 2e-7 if phase == "exact" else 2e-6
    for n, row, there in zip(lengths, x, want, strict=True):
        np.testing.assert_allclose(traced(row, jnp.int32(n)), there, rtol=0, atol=tolerance + 1e-7)
    np.testing.assert_allclose(traced(x, jnp.asarray(lengths)), want, rtol=0, atol=tolerance + 1e-7)
    assert traces == [(), (4,)]
    per_row = rope.cos_sin(jnp.broadcast_to(positions, (4, 6)), length=jnp.asarray(lengths))
    alone = rope.cos_sin(positions, length=jnp.asarray(lengths))
    np.testing.assert_array_equal(per_row, alone)
    for n, of_length in zip(lengths, np.stack(alone, axis=1), strict=True):
        np.testing.assert_allclose(rope.cos_sin(positions, length=int(n)), of_length, rtol=0, atol=tolerance + 1e-7)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 2e-6), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize("scaling", [DYNAMIC, LONG, LOUD], ids=["dynamic", "longrope", "two amplitudes"])
def test_a_live_cache_is_turned_for_a_new_length(scaling, dtype, tolerance):
    rope = pe.RoPE(dim=DIM, layout="interleaved", base=BASE, scaling=scaling)
    old, new = rope.bind({}, length=100), rope.bind({}, length=2 * LENGTH)
    keys, positions = values(3, 7, 2, DIM, dtype=dtype), pe.positions.arange(7, 50)
    cached = old(keys, positions)
    moved = pe.rerotate(cached, positions, old=old, new=new)
    assert moved.dtype == dtype
    far = np.abs(np.float32(new(keys, positions)) - np.float32(cached)).max()
    assert far > 0.1
    np.testing.assert_allclose(np.float32(moved), np.float32(new(keys, positions)), rtol=0, atol=tolerance)
