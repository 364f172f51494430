"""Gradients are those of the mathematics, and bfloat16 training does not lose them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schemes import (
    VOCABULARY,
    B,
    D,
    F,
    K,
    S,
    T,
    apply,
    every,
    full_pass,
    layer,
    layer_params,
    random_params,
    spread,
    values,
)

import posembed_jax as pe

REPEATS = 4096


def assert_slopes_are_differences(f, tree, step, tolerance):
    """Of `f` along a random direction: reverse mode, forward mode and the second derivative, which is one over both.

    The central differences are at two steps, combined so that the error of order step^2 cancels.
    """
    direction = jax.tree.map(lambda x: values(*x.shape, seed=x.size, dtype=x.dtype), tree)

    @jax.jit
    def along(tree, at):
        def line(at):
            return f(jax.tree.map(lambda x, d: x + at.astype(x.dtype) * d, tree, direction))

        (value, slope), (forward, second) = jax.jvp(jax.value_and_grad(line), (at,), (jnp.ones_like(at),))
        return value, slope, forward, second

    (_, slope, forward, second), *ends = (along(tree, jnp.float32(k * step)) for k in (0, 1, -1, 2, -2))

    def difference(which):
        near, far = (float(ends[i][which] - ends[i + 1][which]) / (2 * step * (1 + i // 2)) for i in (0, 2))
        return (4 * near - far) / 3

    np.testing.assert_allclose(forward, slope, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(slope, difference(0), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(second, difference(1), rtol=10 * tolerance, atol=10 * tolerance)
    return float(slope)


@pytest.mark.slow
@every(heavy=True)
def test_gradients_are_finite_differences(row):
    """In float64, with respect to all learned arrays and inputs together.

    Cosines are float32 whatever the inputs are, and frequencies too, hence the step and the tolerance.
    """
    with jax.enable_x64(True):
        params, x = random_params(row.scheme, dtype=jnp.float64), values(T, row.heads, D, dtype=jnp.float64)
        at = pe.positions.arange(T), pe.positions.arange(S, 2)
        weights = values(*apply(row.scheme.bind(params), *at, x).shape, seed=3, dtype=jnp.float64)

        def loss(arrays):
            params, x = arrays
            return jnp.sum(weights * apply(row.scheme.bind(params), *at, x).astype(jnp.float64) ** 3)

        slope = assert_slopes_are_differences(loss, (params, x), row.step if row.smooth else 2.0**-16, 1e-3)
        assert (slope != 0) == bool(row.learned or not issubclass(row.contract, pe.Additive | pe.Bias))


@pytest.mark.slow
@every(lambda row: row.in_layers and row.smooth)
def test_gradients_through_attention_are_finite_differences(row):
    """Of the whole layer, in float32."""
    x, _ = full_pass(row)
    positions, ids = pe.positions.arange(T, jnp.zeros(B, jnp.int32)), jnp.ones((B, T), jnp.int32)
    weights = values(*x.shape, seed=3)

    def loss(arrays):
        return jnp.sum(weights * layer("plain", row)(*arrays, positions, segment_ids=ids))

    assert abs(assert_slopes_are_differences(loss, (layer_params(row), x), 2 * row.step, 2e-3)) > 1e-2


def test_learned_frequencies_have_the_right_gradient_far_away():
    """d cos(p f) / df = -p sin(p f) and d sin(p f) / df = p cos(p f), at positions where float32 angles are noise."""
    scheme = pe.RoPE(dim=D, layout="half", learned=True)
    params, positions = random_params(scheme), jnp.array([1, 70_000, 2**24 + 1, 2**30 + 3])
    p = np.asarray(positions, np.float64)[:, None]
    f = np.asarray(params["frequencies"], np.float64)[None]
    ones = {"frequencies": jnp.ones(D // 2)}
    _, (cos_dot, sin_dot) = jax.jvp(lambda params: scheme.cos_sin(positions, params), (params,), (ones,))
    np.testing.assert_allclose(cos_dot / p, -np.sin(p * f), rtol=0, atol=3e-7)
    np.testing.assert_allclose(sin_dot / p, np.cos(p * f), rtol=0, atol=3e-7)


def learned_positions(table, dtype):
    scheme = pe.LearnedPositions(length=VOCABULARY, features=F)
    return scheme.bind({"table": table})(jnp.full(REPEATS, 5)).astype(dtype)


def t5_bias(table, dtype):
    scheme = pe.T5Bias(heads=VOCABULARY, buckets=F, bidirectional=True)
    bias = scheme.bind({"table": table})(jnp.full(64, 3), jnp.full(REPEATS // 64, 3))
    return bias.astype(dtype).reshape(VOCABULARY, REPEATS)


def embedded(table, dtype):
    return pe.embed(table, jnp.full(REPEATS, 5), dtype=dtype)


@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("use", [embedded, learned_positions, t5_bias])
def test_a_row_used_4096_times_keeps_its_gradient_in_bfloat16(use, param_dtype):
    """A sum in bfloat16 would stop at 256."""
    table = values(VOCABULARY, F)

    def gradient(dtype, param_dtype):
        def loss(table):
            out = use(table, dtype)
            weights = 0.5 + 0.5 * values(*out.shape, seed=5).astype(jnp.bfloat16)  # the same numbers in both dtypes
            return jnp.sum((out * weights.astype(dtype)).astype(jnp.float32))

        got = jax.jit(jax.grad(loss))(table.astype(param_dtype))
        assert got.dtype == param_dtype
        return np.asarray(got.astype(jnp.float32))

    want = gradient(jnp.float32, jnp.float32)
    assert np.abs(want).max() > 1000
    # A bfloat16 table stores its gradient in bfloat16: half a unit in its last place more.
    tolerance = 1e-3 if param_dtype == jnp.float32 else 2.0**-8
    np.testing.assert_allclose(gradient(jnp.bfloat16, param_dtype), want, rtol=tolerance, atol=0)


@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
def test_tied_logits_keep_their_gradient_in_bfloat16(param_dtype):
    table = values(VOCABULARY, F).astype(jnp.bfloat16)
    x = 0.5 + 0.5 * values(REPEATS, F, seed=5).astype(jnp.bfloat16)

    def gradient(dtype, param_dtype):
        got = jax.jit(jax.grad(lambda table: jnp.sum(pe.logits(table, x.astype(dtype)))))(table.astype(param_dtype))
        assert got.dtype == param_dtype
        return np.asarray(got.astype(jnp.float32))

    want = gradient(jnp.float32, jnp.float32)
    assert want.min() > 1000
    tolerance = 1e-3 if param_dtype == jnp.float32 else 2.0**-8
    np.testing.assert_allclose(gradient(jnp.bfloat16, param_dtype), want, rtol=tolerance, atol=0)


@every(lambda row: row.place != "additive" and row.in_layers, heavy=True)
def test_a_row_with_nothing_to_attend_has_zero_gradient(row):
    params, q = random_params(row.scheme), values(2, T, row.heads, D)
    k, v = values(2, S, K, D, seed=1), values(2, S, K, D, seed=2)
    q_at, k_at = pe.positions.arange(T), pe.positions.arange(S)
    mask = jnp.ones((2, 1, T, S), bool).at[0, :, 4].set(False).at[1].set(False)

    def loss(params, q, k, v):
        bound, at = row.scheme.bind(params), [spread(row.scheme, positions) for positions in (q_at, k_at)]
        if row.place == "rotation":
            out = pe.attend(bound(q, at[0]), bound.for_keys()(k, at[1]), v, mask=mask)
        else:
            out = pe.attend(q, k, v, **{row.place: bound}, mask=mask, query_positions=at[0], key_positions=at[1])
        return jnp.sum(out * values(*out.shape, seed=4)), out

    grads, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(params, q, k, v)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    np.testing.assert_array_equal(out[1], 0.0)
    np.testing.assert_array_equal(out[0, 4], 0.0)
    for g in grads[1:]:
        np.testing.assert_array_equal(g[1], 0.0)
        assert np.abs(g[0]).max() > 0
    np.testing.assert_array_equal(grads[1][0, 4], 0.0)


def test_out_of_range_rows_pass_back_nothing():
    """Clipped rows do get gradients, as the function that was asked for says; others never reach a neighbour's row."""
    ids = jnp.array([0, VOCABULARY, -1, 3])
    table = values(VOCABULARY, F)

    @functools.partial(jax.jit, static_argnums=2)
    def gradient(table, ids, out_of_range):
        return jax.grad(lambda t: jnp.nansum(pe.embed(t, ids, out_of_range=out_of_range)))(table)

    np.testing.assert_array_equal(gradient(table, ids, "error").sum(axis=1), F * np.eye(VOCABULARY)[[0, 3]].sum(axis=0))
    want = F * np.eye(VOCABULARY)[[0, VOCABULARY - 1, 0, 3]].sum(axis=0)
    np.testing.assert_array_equal(gradient(table, ids, "clip").sum(axis=1), want)
