"""Resizing tables: against torch's numbers (golden/make_resized.py), and what must hold without any."""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import posembed_jax as pe

with np.load(pathlib.Path(__file__).parent / "golden" / "resized.npz") as arrays:
    TORCH = dict(arrays)
TABLE = TORCH.pop("table")
OLD = TABLE.shape[:2]
GRID = jnp.asarray(TABLE, jnp.float32)


def settings(name):
    how, new = name.rpartition("-")[0], tuple(int(n) for n in name.rpartition("-")[2].split("x"))
    found = {"method": how.partition("-")[0], "antialias": "antialias" in how, "align_corners": "corners" in how}
    if "factor" in how:
        found["scale_factor"] = tuple((b + 0.1) / a for a, b in zip(OLD, new, strict=True))
    return new, found


@pytest.mark.parametrize("name", TORCH)
def test_as_torch(name):
    new, how = settings(name)
    ours = pe.resize_table(jnp.asarray(TABLE.reshape(-1, 2), jnp.float32), OLD, new, shrink=True, **how)
    np.testing.assert_allclose(ours, TORCH[name].reshape(-1, 2), rtol=0, atol=1e-6)


def test_a_matrix_keeps_constants_and_is_one_for_the_same_size():
    for method in ("bilinear", "bicubic", "nearest"):
        for antialias in (False, True) if method != "nearest" else (False,):
            how = {"method": method, "antialias": antialias}
            for old, new in ((1, 4), (4, 1), (2, 5), (7, 3), (14, 24)):
                matrix = pe.resize_matrix(old, new, **how)
                assert matrix.dtype == np.float32 and matrix.shape == (new, old)
                np.testing.assert_allclose(matrix.sum(1), 1, rtol=0, atol=1e-6)
                np.testing.assert_allclose(matrix, matrix[::-1, ::-1] if method != "nearest" else matrix, atol=1e-7)
            np.testing.assert_array_equal(pe.resize_matrix(6, 6, **how), np.eye(6, dtype=np.float32))


def test_tokens_outside_the_grid_stay():
    table = jnp.arange(2.0 * 7).reshape(7, 2)
    ours = pe.resize_table(table, (2, 2), (3, 4), before=2, after=1)
    np.testing.assert_array_equal(ours[:2], table[:2])
    np.testing.assert_array_equal(ours[-1:], table[-1:])
    np.testing.assert_array_equal(ours[2:-1], pe.resize_table(table[2:6], (2, 2), (3, 4)))


def test_of_one_and_three_axes():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(24, 3)), jnp.float32)
    matrices = [pe.resize_matrix(a, b) for a, b in ((2, 3), (3, 5), (4, 4))]
    expected = np.einsum("xa,yb,zc,abcf->xyzf", *matrices, np.asarray(table).reshape(2, 3, 4, 3))
    ours = pe.resize_table(table, (2, 3, 4), (3, 5, 4))
    np.testing.assert_allclose(ours, expected.reshape(-1, 3), rtol=0, atol=2e-6)
    np.testing.assert_allclose(pe.resize_table(table, (24,), (30,)), pe.resize_matrix(24, 30) @ table, atol=1e-6)


def test_offsets_of_windows():
    """Offset 0 stays in the middle, extra entries at the end, and no head sees another."""
    table = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3 * 5 + 3)), jnp.float32)
    ours = pe.resize_bias_table(table, (2, 3), (4, 4), method="bilinear", extra=3)
    assert ours.shape == (3, 7 * 7 + 3)
    np.testing.assert_array_equal(ours[:, -3:], table[:, -3:])
    np.testing.assert_allclose(ours[:, 24], table[:, 7], rtol=1e-6)
    scheme = pe.BEiTBias(heads=3, shape=(4, 4))
    at = pe.positions.grid((4, 4))
    np.testing.assert_allclose(scheme.bind({"table": ours})(at, at)[:, 5, 5], table[:, 7], rtol=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_samples(method, padding):
    """At the places of the rows of a resized table, and where rows beyond the edge weigh nothing."""
    new = (8, 9)
    at = np.stack(
        np.meshgrid(*((np.arange(b) + 0.5) * a / b - 0.5 for a, b in zip(OLD, new, strict=True)), indexing="ij"), -1
    )
    ours = jax.jit(functools.partial(pe.sample_table, method=method, padding=padding))(
        GRID, jnp.asarray(at, jnp.float32)
    )
    if padding == "border":
        np.testing.assert_allclose(ours, TORCH[f"{method}-8x9"], rtol=0, atol=4e-6)
    else:
        wide = jnp.pad(GRID, ((4, 4), (4, 4), (0, 0)))
        expected = pe.sample_table(wide, jnp.asarray(at + 4, jnp.float32), method=method)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=4e-6)
    far = pe.sample_table(GRID, jnp.array([[-1e9, 1e9], [jnp.nan, 0.0]]), method=method, padding=padding)
    np.testing.assert_allclose(far[0], GRID[0, -1] if padding == "border" else [0, 0], atol=1e-6)
    assert np.isnan(far[1]).all()


def test_samples_are_differentiable():
    inside = jnp.array([[1.4, 2.7], [2.1, 3.35]])
    sample = jax.jit(functools.partial(pe.sample_table, method="bicubic"))
    check_grads(sample, (GRID, inside), order=1, modes=["fwd", "rev"], atol=2e-2, rtol=2e-2)
    slope = jax.grad(lambda at: pe.sample_table(GRID[..., :1], at)[0])(jnp.array([2.0, 3.0]))
    np.testing.assert_allclose(slope, [GRID[3, 3, 0] - GRID[2, 3, 0], GRID[2, 4, 0] - GRID[2, 3, 0]], rtol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_batch_of_shapes(method, antialias):
    shapes = np.array([[8, 9], [3, 4], [5, 7], [1, 14]])
    each = jax.jit(functools.partial(pe.resize_to_shapes, length=72, method=method, antialias=antialias))
    ours = each(GRID, jnp.asarray(shapes))
    for row, shape in zip(ours, shapes.tolist(), strict=True):
        count = shape[0] * shape[1]
        expected = pe.resize_table(
            GRID.reshape(-1, 2), OLD, tuple(shape), method=method, antialias=antialias, shrink=True
        )
        np.testing.assert_allclose(row[:count], expected, rtol=0, atol=5e-6)
        assert not np.any(row[count:])
    repeated = pe.resize_to_shapes(GRID, jnp.array([[1, 2]]), length=4, padding="first")
    np.testing.assert_array_equal(repeated[0, 2:], repeated[0, [0, 0]])
    too_large = each(GRID, jnp.array([[8, 10], [0, 3], [2**16, 2**16], [2, 2]]))
    assert np.isnan(too_large[:3]).all() and np.isfinite(too_large[3]).all()


def test_gradients_reach_the_table_in_float32():
    table = jnp.ones((1 + 35, 2), jnp.bfloat16)
    resize = jax.jit(functools.partial(pe.resize_table, old=OLD, new=(8, 9), before=1))
    assert resize(table).dtype == jnp.float32
    gradient = jax.grad(lambda table: resize(table)[1:].sum())(table.astype(jnp.float32))
    columns = [pe.resize_matrix(a, b).sum(0) for a, b in zip(OLD, (8, 9), strict=True)]
    np.testing.assert_allclose(gradient[1:, 0], np.outer(*columns).reshape(-1), rtol=1e-5)
    assert not np.any(gradient[0])
