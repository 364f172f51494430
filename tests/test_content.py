"""Biases that are functions of content, and vectors beside values: references of a few lines in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schemes import values
from test_blockwise import tiles_of

import posembed_jax as pe
from posembed_jax import lookup
from posembed_jax.schemes import relative_scores

B, T, S, N, D = 2, 5, 7, 3, 4
AT, KEYS_AT = jnp.array([3, 9, 0, 2, 7]), jnp.array([5, 1, 2, 9, 0, 20, 3])


def content(seed=0, keys=S, queries=T, heads=N, dim=D):
    return values(B, queries, heads, dim, seed=seed), values(B, keys, heads, dim, seed=seed + 1)


# Rows of relative tables


@pytest.mark.parametrize("size", [6, 200_000])
def test_pick_and_collect_in_both_ways(size):
    """As products and as additions one by one; what is outside of the table is 0 and passes nothing back."""
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.integers(-2, size + 2, (B, 1, T, S)), jnp.int32)
    rows = rows.at[0, 0, 0, :2].set(jnp.array([2**31 - 1, -1]))
    assert (rows.size * size > lookup.LARGEST_PRODUCT) == (size > 6)
    scores, weights = values(B, N, T, size), values(B, N, T, S, seed=1)
    inside = np.asarray((rows >= 0) & (rows < size))
    at = np.where(inside, rows, 0)
    want = np.take_along_axis(np.asarray(scores), np.broadcast_to(at, weights.shape), -1) * inside
    found, pull_back = jax.vjp(lambda scores: relative_scores.pick(scores, rows), scores)
    np.testing.assert_array_equal(found, want)
    sums = np.zeros(scores.shape)
    for b, n, t, s in np.ndindex(*weights.shape):
        if inside[b, 0, t, s]:
            sums[b, n, t, rows[b, 0, t, s]] += weights[b, n, t, s]
    np.testing.assert_allclose(pull_back(weights)[0], sums, rtol=0, atol=1e-6)
    np.testing.assert_allclose(relative_scores.collect(weights, rows, size), sums, rtol=0, atol=1e-6)
    _, pull_back = jax.vjp(lambda weights: relative_scores.collect(weights, rows, size), weights)
    np.testing.assert_array_equal(pull_back(scores)[0], want)


# Shaw


def vectors_of(table, left, right, outside):
    """float64 `[N or 1, T, S, D]`, as the paper writes it."""
    distance = np.asarray(KEYS_AT)[None] - np.asarray(AT)[:, None]
    found = np.float64(table)[:, np.clip(distance, -left, right) + left]
    within = (distance >= -left) & (distance <= right)
    return found * within[..., None] if outside == "zero" else found


@pytest.mark.parametrize("outside", ["clip", "zero"])
@pytest.mark.parametrize("shared", [True, False])
def test_shaw_bias_and_values(outside, shared):
    query, key = content()
    settings = {"heads": N, "dim": D, "left": 4, "right": 2, "outside": outside, "shared": shared}
    table = values(1 if shared else N, 7, D, seed=3)
    vectors = vectors_of(table, 4, 2, outside)
    bias = pe.ShawBias(**settings).bind({"table": table})
    want = np.sum(np.float64(query).swapaxes(1, 2)[:, :, :, None] * vectors, -1)
    np.testing.assert_allclose(bias(query, key, AT, KEYS_AT), want / 2, rtol=0, atol=1e-6)
    unscaled = pe.ShawBias(**settings, scale=1.0).bind({"table": table})
    np.testing.assert_allclose(unscaled(query, key, AT, KEYS_AT), want, rtol=0, atol=2e-6)
    beside, weights = pe.ShawValues(**settings).bind({"table": table}), values(B, N, T, S, seed=4)
    want = np.sum(np.float64(weights)[..., None] * vectors, -2).swapaxes(1, 2)
    np.testing.assert_allclose(beside(weights, AT, KEYS_AT), want, rtol=0, atol=1e-6)


def test_shaw_makes_no_array_of_vectors():
    """As compiled, forward and backward: an array [T, S, D] of 2,048 tokens would be 1 GiB."""
    scheme = pe.ShawBias(heads=2, dim=64, left=8, right=8)

    def loss(table, x):
        return jnp.sum(pe.attend(x, x, x, bias=scheme.bind({"table": table}), implementation="xla") ** 2)

    table, x = jax.ShapeDtypeStruct((1, 17, 64), jnp.float32), jax.ShapeDtypeStruct((1, 2048, 2, 64), jnp.float32)
    done = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(table, x).compile()
    assert done.memory_analysis().temp_size_in_bytes < 2**26


def test_values_of_shaw_tile_by_tile():
    scheme, table = pe.ShawValues(heads=4, dim=8, left=3, right=2), values(1, 6, 8)
    qkv = [values(2, 45, heads, 8, seed=i) for i, heads in enumerate((4, 2, 2))]

    def loss(implementation):
        def of(table, *qkv):
            out = pe.attend(*qkv, value_bias=scheme.bind({"table": table}), causal=True, implementation=implementation)
            return jnp.sum(jnp.sin(3 * out)), out

        return jax.jit(jax.grad(of, argnums=(0, 1, 2, 3), has_aux=True))(table, *qkv)

    with tiles_of(8):
        got, want = (jax.tree.leaves(loss(name)) for name in ("xla", "reference"))
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-6 * max(1.0, np.abs(y).max()))
