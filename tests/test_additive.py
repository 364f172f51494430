"""What is added to the embedding in several axes, against float64 written out."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

import posembed_jax as pe

RNG = np.random.default_rng(0)


def sin_cos(x, f):
    return np.concatenate([np.sin(x[..., None] * f), np.cos(x[..., None] * f)], axis=-1)


def test_sinusoids_of_axes():
    """As three of a third of the features, in another order, at any distance."""
    at = RNG.integers(-(2**31), 2**31, (5, 3)).astype(np.int32)
    ours = pe.Sinusoidal(features=12, axes=3, order=(2, 0, 1)).bind({})(at)
    f = 10_000.0 ** (-np.arange(2) / 2)
    expected = [sin_cos(np.float64(at[:, axis]), f) for axis in (2, 0, 1)]
    np.testing.assert_allclose(ours, np.concatenate(expected, axis=-1), rtol=0, atol=1.5e-6)  # 2^31 in float64
    near = at % 1000
    expected = [sin_cos(np.float64(near[:, axis]), f) for axis in (2, 0, 1)]
    ours = pe.Sinusoidal(features=12, axes=3, order=(2, 0, 1)).bind({})(near)
    np.testing.assert_allclose(ours, np.concatenate(expected, axis=-1), rtol=0, atol=1.2e-7)


def test_scaled_sinusoids():
    f = 10_000.0 ** (-np.arange(4) / 4)
    whole, fractions = np.arange(50, dtype=np.int32), RNG.uniform(0, 1, 50).astype(np.float32)
    ours = pe.Sinusoidal(features=8, scale=7.5).bind({})(whole)
    np.testing.assert_allclose(ours, sin_cos(7.5 * whole, f), rtol=0, atol=1.2e-7)
    ours = pe.Sinusoidal(features=8, scale=2 * math.pi, fractional=True).bind({})(fractions)
    np.testing.assert_allclose(ours, sin_cos(2 * math.pi * np.float64(fractions), f), rtol=0, atol=6e-7)  # ulp of 2 pi
    scheme = pe.Sinusoidal(features=8, learned_amplitude=True)
    ours = scheme.bind({"amplitude": jnp.array([0.5])})(whole)
    np.testing.assert_allclose(ours, 0.5 * sin_cos(whole, f), rtol=0, atol=1.2e-7)
    assert pe.init(scheme, jax.random.key(0))["amplitude"].tolist() == [1.0]


def test_axial_tables():
    rows, columns = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(5, 2)).astype(np.float32)
    at = pe.positions.grid((4, 5))
    settings = pe.AxialPositions(shape=(4, 5), features=5, join="concatenate", channels=(3, 2), order=(1, 0))
    ours = settings.bind({"table_0": rows, "table_1": columns})(at).reshape(4, 5, 5)
    for i in range(4):
        for j in range(5):
            np.testing.assert_array_equal(ours[i, j], np.concatenate([columns[j], rows[i]]))
    columns = RNG.normal(size=(5, 3)).astype(np.float32)
    scheme = pe.AxialPositions(shape=(4, 5), features=3, join="add", tables=(0, 1, 0))
    ours = scheme.bind({"table_0": rows, "table_1": columns})(jnp.array([[0, 4, 3]]))
    np.testing.assert_allclose(ours[0], rows[0] + columns[4] + rows[3], rtol=1e-6)
    params = {"table_0": rows, "table_1": columns}
    traced = jax.jit(lambda at: scheme.bind(params)(at))(jnp.array([[0, 5, 3], [0, 0, 0]]))
    assert np.isnan(traced[0]).all() and np.isfinite(traced[1]).all()


def test_numbered_tokens():
    """Reformer's: past the product of the shape there is nothing."""
    shape = (2, 3, 4)
    np.testing.assert_array_equal(pe.positions.unravel(jnp.arange(24), shape), pe.positions.grid(shape))
    scheme = pe.AxialPositions(shape=shape, features=6, join="concatenate")
    bound = scheme.bind(pe.init(scheme, jax.random.key(0)))
    outside = jax.jit(lambda numbers: bound(pe.positions.unravel(numbers, shape)))(jnp.array([23, 24, -1]))
    assert np.isnan(outside).any(axis=1).tolist() == [False, True, True]


def test_fourier_features():
    frequencies, at = RNG.normal(size=(2, 3)).astype(np.float32), RNG.uniform(-1, 1, (7, 2)).astype(np.float32)
    bound = pe.FourierFeatures(features=6).bind({"frequencies": jnp.asarray(frequencies)})
    angle = 2 * np.pi * np.float64(at) @ np.float64(frequencies)
    expected = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
    np.testing.assert_allclose(bound(at), expected, rtol=0, atol=3e-6)
    np.testing.assert_allclose(bound(np.array([[2, -3]])), bound(np.array([[2.0, -3.0]], np.float32)), atol=2e-5)


def test_hashed_characters():
    """In Python's integers, which do not overflow."""
    tables = RNG.normal(size=(3, 50, 2)).astype(np.float32)
    ids = np.array([[0, 1, 49, 0x10FFFF, 2**31 - 1]])
    expected = [[tables[h, (int(i) + 1) * prime % 50] for h, prime in enumerate((31, 43, 59))] for i in ids[0]]
    np.testing.assert_array_equal(pe.embed_hashed(jnp.asarray(tables), ids)[0], np.reshape(expected, (5, 6)))
    assert np.isnan(jax.jit(pe.embed_hashed)(tables, jnp.array([-1]))).all()


def test_tiles():
    scheme = pe.TilePositions(arrangements=2, tiles=3, patches=4, features=5)
    params = {name: RNG.normal(size=x.shape).astype(np.float32) for name, x in scheme.inits().items()}
    at = np.array([[1, 2, 3], [0, 1, 2], [1, 3, 0]], np.int32)
    gate = np.tanh(np.float64(params["gate"][0]))
    ours = jax.jit(lambda at: scheme.bind(params)(at))(at)
    for row, (arrangement, tile, patch) in zip(ours[:2], at[:2], strict=True):
        expected = (1 - gate) * params["table"][patch] + gate * params["tiles"][arrangement, tile, patch]
        np.testing.assert_allclose(row, expected, rtol=0, atol=5e-7)
    assert np.isnan(ours[2]).all()
    del params["table"]
    alone = dataclasses.replace(scheme, shared=False).bind(params)(at[:2])
    np.testing.assert_allclose(alone, gate * params["tiles"][tuple(at[:2].T)], rtol=0, atol=5e-7)


def convolved(x, kernel, bias, stride=1):
    """In float64, one product at a time."""
    sizes, groups = kernel.shape[:-2], x.shape[-1] // kernel.shape[-2]
    padded = np.pad(np.float64(x), [(0, 0), *((size // 2, size // 2) for size in sizes), (0, 0)])
    shape = [(n + 2 * (k // 2) - k) // stride + 1 - (k % 2 == 0) for n, k in zip(x.shape[1:-1], sizes, strict=True)]
    out = np.zeros((len(x), *shape, x.shape[-1]))
    per = kernel.shape[-2]
    for index in np.ndindex(*shape):
        window = padded[(slice(None), *(slice(stride * i, stride * i + k) for i, k in zip(index, sizes, strict=True)))]
        for channel in range(x.shape[-1]):
            group = channel // (x.shape[-1] // groups)
            own = window[..., group * per : (group + 1) * per] * kernel[..., channel]
            out[(slice(None), *index, channel)] = own.reshape(len(x), -1).sum(1) + bias[channel]
    return out


def test_convolutions():
    bias = RNG.normal(size=4).astype(np.float32)
    for sizes, kernel, stride in (((7,), (4, 2), 1), ((7,), (3, 4), 1), ((9,), (4, 1), 2), ((4, 5), (3, 3, 1), 1)):
        x, kernel = RNG.normal(size=(2, *sizes, 4)), RNG.normal(size=(*kernel, 4))
        x, kernel = x.astype(np.float32), kernel.astype(np.float32)
        ours = pe.conv_positions(x, kernel, bias=bias, stride=stride, activation=None)
        np.testing.assert_allclose(ours, convolved(x, kernel, bias, stride), rtol=0, atol=5e-6)
    normal = pe.conv_positions(x, kernel, bias=bias, normalize=True, activation=None)
    np.testing.assert_allclose(normal.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose((normal**2).mean(-1), 1, rtol=1e-3)
    active = pe.conv_positions(x, kernel, bias=bias, normalize=True)
    np.testing.assert_allclose(active, normal * 0.5 * (1 + jax.lax.erf(normal / np.sqrt(2))), atol=1e-6)
    assert pe.conv_positions(jnp.asarray(x, jnp.bfloat16), kernel).dtype == jnp.float32


def test_coordinates_of_masks():
    mask = np.zeros((2, 3, 4), bool)
    mask[0, :2, :3] = mask[1] = True
    counts = pe.vision.mask_coordinates(jnp.asarray(mask)).reshape(2, 3, 4, 2)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts[1], np.stack(np.indices((3, 4)), axis=-1) + 1)
    np.testing.assert_array_equal(counts[0, :2, :3], counts[1, :2, :3])
    ours = pe.vision.mask_coordinates(jnp.asarray(mask), normalize=True, offset=-0.5, scale=3.0).reshape(2, 3, 4, 2)
    sizes = np.array([2, 3])
    expected = 3.0 * (np.float64(counts[0, :2, :3]) - 0.5) / (sizes + 1e-6)
    np.testing.assert_allclose(ours[0, :2, :3], expected, rtol=1e-6)
