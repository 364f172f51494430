"""Relative biases against transformers' numbers, and references of a few lines in float64 from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schemes import values

import posembed_jax as pe
from posembed_jax import lookup

N = 3


def wave(*shape, seed=0):
    """Parameters that any library can make: sin(0 + seed), sin(1 + seed) ..."""
    return jnp.asarray(np.sin(np.arange(np.prod(shape)) + seed).reshape(shape), jnp.float32)


def numbered(scheme):
    """The scheme, bound to a table whose entries are their own indices: its bias is the index of each pair."""
    (shape,) = (initializer.shape for initializer in scheme.inits().values())
    return scheme.bind({"table": jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.float32), shape)})


# Look-ups


def sums_of_columns(indices, weights, size):
    """float64 `[N, size]`, one column after the other."""
    found = np.zeros((weights.shape[0], size))
    for column in range(size):
        found[:, column] = np.float64(weights)[:, indices == column].sum(-1)
    return found


@pytest.mark.parametrize("size", [30, 2209])
def test_gradients_of_columns_in_both_ways(size):
    """As a product and as additions to the table; what is outside of it is NaN and passes nothing back."""
    rng = np.random.default_rng(0)
    indices = rng.integers(-2, size + 2, (39, 60)).astype(np.int32)
    indices[0, :2] = -(2**31), 2**31 - 1
    weights, table = rng.normal(size=(N, *indices.shape)).astype(np.float32), values(N, size).astype(jnp.bfloat16)
    assert (indices.size * size > lookup.LARGEST_PRODUCT) == (size > 30)

    def loss(table):
        found = lookup.columns(table, jnp.asarray(indices))
        return jnp.nansum(found * weights), found

    inside = (indices >= 0) & (indices < size)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    assert ("scatter(" in gradient.lower(table).compile().as_text()) == (size > 30)
    got, found = gradient(table)
    assert got.dtype == table.dtype and found.dtype == jnp.float32
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(~inside, found.shape))
    np.testing.assert_array_equal(found[:, inside], table.astype(jnp.float32)[:, indices[inside]])
    want = sums_of_columns(np.where(inside, indices, -1), weights, size)
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2.0**-8, atol=1e-5)
    _, forward = jax.jvp(lambda table: lookup.columns(table, indices), (table,), (table,))
    np.testing.assert_array_equal(forward[:, inside], found[:, inside])


def test_a_column_used_4096_times_keeps_its_gradient_in_bfloat16():
    """Where values are added one by one: in bfloat16 they would stop at 256."""
    table, indices = jnp.zeros((N, 2000), jnp.bfloat16), jnp.full(4096, 1999)
    assert indices.size * 2000 > lookup.LARGEST_PRODUCT
    got = jax.jit(jax.grad(lambda table: jnp.sum(lookup.columns(table, indices))))(table)
    np.testing.assert_array_equal(got[:, 1999].astype(jnp.float32), 4096.0)


# Functions of the distance


@pytest.mark.parametrize("kind", ["log", "power"])
def test_kerple(kind):
    """The authors' `-bias_p log(1 + bias_a diff)` and `-bias_a diff ** bias_p`, diff being 0 and more."""
    r1, r2 = np.array([0.01, 0.7, 1.9]), np.array([1.99, 0.01, 0.5])
    params = {"log_r1": np.log(r1), "log_r2": np.log(r2)}
    if kind == "power":
        params = {"log_r1": np.log(r1), "logit_r2": np.log(r2 / (2 - r2))}
    bound = pe.KERPLE(heads=N, kind=kind).bind({name: jnp.asarray(x, jnp.float32) for name, x in params.items()})
    distance = np.array([0, -1, 1, -2, 77, -4096, 10**6, 2**31 - 1], np.int32)
    away, r1, r2 = np.abs(np.float64(distance)), r1[:, None], r2[:, None]
    want = -r1 * np.log(1 + r2 * away) if kind == "log" else -r1 * away**r2
    np.testing.assert_allclose(jax.jit(bound.at)(distance), want, rtol=1e-5)
    gradient = jax.grad(lambda bound: jnp.sum(bound.at(jnp.zeros(5, jnp.int32))))(bound)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kind", ["log", "power"])
def test_kerple_begins_as_the_authors_do(kind):
    params = pe.init(pe.KERPLE(heads=1000, kind=kind), jax.random.key(0))
    r1 = np.exp(params["log_r1"])
    r2 = np.exp(params["log_r2"]) if kind == "log" else 2 / (1 + np.exp(-params["logit_r2"]))
    for x, most in ((r1, 2.0 if kind == "log" else 1.0), (r2, 1.0 if kind == "log" else 2.0)):
        assert 0 < x.min() < 0.02 * most and 0.98 * most < x.max() < most and abs(x.mean() - most / 2) < 0.05 * most


# transformers 5.23.0: rows of `Phi4MultimodalAudioRelativeAttentionBias` of a table of its own indices. Where it is
# symmetric and the distance is bias_max_distance, transformers reads past the end.
PHI4 = [[3, 4, 5, 5, 5, 5, 5], [2, 3, 4, 5, 5, 5, 5], [1, 2, 3, 4, 5, 5, 5], [0, 1, 2, 3, 4, 5, 5]]
PHI4 += [[0, 0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3, 4], [0, 0, 0, 0, 1, 2, 3]]
PHI4_SYMMETRIC = [[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]]


@pytest.mark.parametrize(
    "scheme,wanted",
    [
        (pe.ClippedBias(heads=N, left=3, right=2), PHI4),
        (pe.ClippedBias(heads=N, left=3, right=3, symmetric=True), PHI4_SYMMETRIC),
    ],
)
def test_clipped_bias_is_phi4s(scheme, wanted):
    positions = pe.positions.arange(len(wanted), 9)
    np.testing.assert_array_equal(numbered(scheme)(positions, positions), [wanted] * N)
    assert len(np.unique(wanted)) == scheme.inits()["table"].shape[1]
    ends = numbered(scheme).at(jnp.array([-(2**31) + 1, 2**31 - 1]))
    np.testing.assert_array_equal(ends, [[3 if scheme.symmetric else 0, np.max(wanted)]] * N)
