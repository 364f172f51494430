"""Biases of low rank as extra channels: the logits they give, their error bound, and a kernel that takes no bias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posembed_jax as pe

B, T, S, N, K, D = 2, 700, 900, 6, 3, 40


def float64(x):
    return np.asarray(x.astype(jnp.float32), np.float64)


def logits(query, key, scale):
    grouped = float64(query).reshape(B, T, K, N // K, -1)
    return scale * np.einsum("btkgd,bskd->bkgts", grouped, float64(key)).reshape(B, N, T, S)


@pytest.mark.parametrize("jit", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_within_the_error_bound(dtype, jit):
    keys = jax.random.split(jax.random.key(0), 4)
    query = jax.random.normal(keys[0], (B, T, N, D), dtype)
    key = jax.random.normal(keys[1], (B, S, K, D), dtype)
    query_factors = jax.random.normal(keys[2], (B, T, N, 3)) * 100.0
    key_factors = jax.random.normal(keys[3], (S, 1, 3))
    function = jax.jit(pe.bias_to_channels, static_argnames=("scale", "multiple_of")) if jit else pe.bias_to_channels
    new_query, new_key = function(query, key, query_factors, key_factors, scale=0.3, multiple_of=16)
    assert new_query.dtype == new_key.dtype == dtype and new_query.shape[-1] == new_key.shape[-1] == (
        48 if dtype == jnp.float32 else 64
    )

    bias = logits(new_query, new_key, 0.3) - logits(query, key, 0.3)
    terms = np.einsum("btnr,sr->bntsr", float64(query_factors), float64(key_factors)[:, 0])
    error = np.abs(bias - terms.sum(-1))
    assert np.all(error <= 2.0**-23 * np.abs(terms).sum(-1) + 1e-12)
    one_part = float64(query_factors.astype(jnp.bfloat16))  # what a plain cast would give: it is not within the bound
    naive = np.einsum("btnr,sr->bnts", one_part, float64(key_factors)[:, 0])
    assert np.max(np.abs(naive - terms.sum(-1))) > 1000 * np.max(error)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_alibi_through_a_kernel_without_bias(dtype, tolerance):
    length = 300
    query, key, value = jax.random.normal(jax.random.key(1), (3, B, length, 4, D), dtype)
    scheme, positions = pe.ALiBi(heads=4), pe.positions.arange(length)
    new_query, new_key = pe.bias_to_channels(query, key, *scheme.factors(positions, positions))
    wide = jnp.pad(value, [(0, 0)] * 3 + [(0, new_query.shape[-1] - D)])
    with jax.numpy_dtype_promotion("standard"):
        out = jax.nn.dot_product_attention(new_query, new_key, wide, scale=D**-0.5, is_causal=True)[..., :D]
    expected = pe.attend(
        query, key, value, causal=True, bias=scheme.bind({}), query_positions=positions, key_positions=positions
    )
    np.testing.assert_allclose(out.astype(jnp.float32), expected.astype(jnp.float32), atol=tolerance, rtol=0)


@pytest.mark.slow
def test_gradients_reach_the_factors():
    query = jax.random.normal(jax.random.key(2), (1, 5, 2, 8))
    gates = jax.random.normal(jax.random.key(3), (5, 2))  # a forgetting gate: bias = sums[t] - sums[s]

    def through_channels(gates):
        sums = jnp.cumsum(gates, axis=0)[..., None]
        one = jnp.ones_like(sums)
        factors = jnp.concatenate([sums, one], -1), jnp.concatenate([one, -sums], -1)
        new_query, new_key = pe.bias_to_channels(query, query, *factors)
        return pe.attend(new_query, new_key, jnp.pad(query, [(0, 0)] * 3 + [(0, 2)]), scale=8**-0.5, causal=True)[
            ..., :8
        ]

    def as_an_array(gates):
        sums = jnp.cumsum(gates, axis=0).T
        return pe.attend(query, query, query, bias=(sums[:, :, None] - sums[:, None, :])[None], causal=True)

    np.testing.assert_allclose(through_channels(gates), as_an_array(gates), atol=2e-6)
    ours, expected = (
        jax.grad(lambda gates, f=f: jnp.sum(f(gates) ** 2))(gates) for f in (through_channels, as_an_array)
    )
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_factors_of_alibi_follow_positions_of_each_row():
    scheme, rows = pe.ALiBi(heads=3, symmetric=False), jnp.array([[4, 5, 6], [0, 10, 11]])
    query_factors, key_factors = scheme.factors(rows, rows)
    bias = jnp.einsum("btnr,bsr->bnts", query_factors, key_factors[:, :, 0])
    np.testing.assert_allclose(bias, scheme.bind({})(rows, rows), atol=1e-6)
