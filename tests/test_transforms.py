"""Every scheme under every transformation of JAX: the transformation changes nothing."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from schemes import (
    TABLE,
    B,
    D,
    N,
    S,
    T,
    apply,
    assert_same,
    every,
    of,
    output_shape,
    random_params,
    sequence_axis,
    spread,
    values,
)

import posembed_jax as pe


def batch(row):
    """Positions `[B, T]` and `[B, S]` that no row shares with another, and the content `[B, T, N, D]`."""
    positions = pe.positions.arange(T, jnp.array([0, 3, 7]))
    return positions, positions[:, :S] + 1, values(B, T, row.heads, D)


@every(heavy=True)
def test_jit_vmap_batch_and_row_by_row_agree(row):
    bound, arguments = row.scheme.bind(random_params(row.scheme)), batch(row)
    whole = apply(bound, *arguments)
    assert whole.shape == output_shape(row, B)
    jitted = jax.jit(apply)
    alone = jnp.stack([jitted(bound, *(x[b] for x in arguments)) for b in range(B)])
    assert alone.shape == whole.shape
    assert not np.array_equal(alone[0], alone[1]) or issubclass(row.contract, pe.Bias)
    for got in (
        alone,
        jitted(bound, *arguments),
        jax.jit(jax.vmap(apply, in_axes=(None, 0, 0, 0)))(bound, *arguments),
    ):
        assert_same(row, got, whole)


@every(heavy=True)
def test_scan_and_remat(row):
    """Scanned over chunks of the sequence, with the bound scheme closed over, and rematerialised."""
    bound = row.scheme.bind(random_params(row.scheme))
    positions, keys, x = (a[0] for a in batch(row))
    chunks = positions.reshape(4, T // 4), x.reshape(4, T // 4, row.heads, D)
    step = jax.remat(lambda carry, chunk: (carry, apply(bound, chunk[0], keys, chunk[1])))
    _, stacked = lax.scan(step, 0, chunks)
    assert_same(row, jnp.concatenate(list(stacked), axis=sequence_axis(row)), apply(bound, positions, keys, x))


@every(of(pe.Rotation), heavy=True)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_rotation_is_float32_with_one_cast_at_the_end(row, dtype):
    bound = row.scheme.bind(random_params(row.scheme))
    positions, _, x = batch(row)
    x = x.astype(dtype)
    at = spread(row.scheme, positions)
    got = bound(x, at)
    assert (got.dtype, got.shape) == (dtype, x.shape)
    np.testing.assert_array_equal(got, bound(x.astype(jnp.float32), at).astype(dtype))


@every(lambda row: row.place != "rotation", heavy=True)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_values_are_float32_whatever_the_parameters_are(row, dtype):
    params = random_params(row.scheme, dtype=dtype)
    got = apply(row.scheme.bind(params), *batch(row))
    assert got.dtype == jnp.float32
    wide = {name: value.astype(jnp.float32) for name, value in params.items()}
    assert_same(row, got, apply(row.scheme.bind(wide), *batch(row)))


@every(heavy=True)
def test_the_parameter_tree(row):
    """Learned arrays have the names and shapes that the table says; a fixed scheme has none."""
    params = pe.init(row.scheme, jax.random.key(0))
    assert {name: value.shape for name, value in params.items()} == row.learned
    assert all(value.dtype == jnp.float32 for value in params.values())
    assert all(value.dtype == jnp.bfloat16 for value in pe.init(row.scheme, jax.random.key(0), jnp.bfloat16).values())


@every()
def test_settings_are_values(row):
    scheme = row.scheme
    names = {name: getattr(pe, name) for name in dir(pe)}
    for twin in (
        eval(repr(scheme), names),
        copy.deepcopy(scheme),
        pickle.loads(pickle.dumps(scheme)),
        dataclasses.replace(scheme),
    ):
        assert twin == scheme
        assert hash(twin) == hash(scheme)
        assert repr(twin) == repr(scheme)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheme.stddev = 1.0
    assert isinstance(scheme, row.contract)


@pytest.mark.parametrize("transform", [jax.jit, jax.checkpoint])
@pytest.mark.parametrize("name", ["learned", "rope_half", "fire", "t5_causal", "shaw", "shaw_values"])
def test_a_bound_scheme_is_a_function_that_can_be_transformed(name, transform):
    (row,) = (row for row in TABLE if row.name == name)
    bound, (at, keys, x) = row.scheme.bind(random_params(row.scheme)), batch(row)
    arguments = {
        pe.Additive: (at,),
        pe.Rotation: (x, at),
        pe.Bias: (at, keys),
        pe.DistanceBias: (at, keys),
        pe.ContentBias: (x, x[:, :S], at, keys),
        pe.ValueBias: (jnp.swapaxes(values(B, S, T, row.heads), 1, 3), at, keys),
    }[row.contract]
    np.testing.assert_allclose(transform(bound)(*arguments), bound(*arguments), atol=1e-5)
    assert hash(bound) == hash(bound) and bound != row.scheme.bind(random_params(row.scheme))


def test_settings_that_differ_are_not_equal():
    assert len({row.scheme for row in TABLE}) == len(TABLE)
    assert len({row.name for row in TABLE}) == len(TABLE)


@every(heavy=True)
def test_equal_settings_share_one_trace(row):
    traces = []

    @jax.jit
    def with_bound(bound, *arguments):
        traces.append("bound")
        return apply(bound, *arguments)

    def with_static(scheme, params, *arguments):
        traces.append("static")
        return apply(scheme.bind(params), *arguments)

    with_static = jax.jit(with_static, static_argnums=0)
    for seed in (0, 1):
        scheme, params = copy.deepcopy(row.scheme), random_params(row.scheme, seed)
        with_bound(scheme.bind(params), *batch(row))
        with_static(scheme, params, *batch(row))
    assert traces == ["bound", "static"]


@every(heavy=True)
def test_bound_is_a_pytree_of_arrays(row):
    params = random_params(row.scheme)
    bound = row.scheme.bind(params)
    leaves, treedef = jax.tree.flatten(bound)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert set(bound.arrays) == set(params) | set(row.scheme.constants())
    assert treedef == jax.tree.structure(copy.deepcopy(row.scheme).bind(params))
    again = jax.tree.unflatten(treedef, leaves)
    assert_same(row, apply(again, *batch(row)), apply(bound, *batch(row)))


@every(of(pe.Bias))
def test_the_leaves_of_a_bias_lead_with_heads(row):
    leaves = jax.tree.leaves(row.scheme.bind(random_params(row.scheme)))
    assert leaves
    assert all(leaf.shape[0] in (1, row.heads) for leaf in leaves)


@every(of(pe.Rotation))
def test_rotation_scores_depend_on_the_difference_alone(row):
    bound = row.scheme.bind(random_params(row.scheme))
    q, k = values(T, N, D), values(S, N, D, seed=8)

    @jax.jit
    def scores(shift):
        q_at, k_at = (spread(row.scheme, pe.positions.arange(size, shift)) for size in (T, S))
        a, b = bound(q, q_at), bound.for_keys()(k, k_at)
        return jnp.einsum("tnd,snd->nts", a, b, precision="highest")

    want = scores(0)
    assert np.std(np.asarray(want - jnp.einsum("tnd,snd->nts", q, k))) > 0.1
    for shift in row.shifts:
        # A rounded angle is off by half a unit in its last place, which grows with the position.
        tolerance = 1e-6 if not row.rounds else 1e-6 + 4 * (shift + T) * 2.0**-24
        np.testing.assert_allclose(scores(shift), want, rtol=0, atol=tolerance)


@every(of(pe.Rotation))
def test_inverse_rotation_undoes_the_rotation(row):
    bound = row.scheme.bind(random_params(row.scheme))
    positions, _, x = batch(row)
    positions = spread(row.scheme, positions)
    turned = bound(x, positions)
    back = bound(turned, positions, inverse=True)
    np.testing.assert_allclose(back, x, rtol=0, atol=5e-7 if row.keeps_norm else 1e-5)
    if row.keeps_norm:
        amplitude = row.scheme.amplitude() if isinstance(row.scheme, pe.RoPE) else 1.0
        norm = amplitude * jnp.linalg.norm(x, axis=-1)
        np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), norm, rtol=1e-6)


@every(lambda row: row.place in ("bias", "value_bias"), heavy=True)
def test_biases_depend_on_the_difference_alone(row):
    bound = row.scheme.bind(random_params(row.scheme))
    positions, keys, x = batch(row)
    want = apply(bound, positions, keys, x)
    assert np.ptp(np.asarray(want), axis=(0, 2, 3)).min() > 0
    for shift in row.shifts:
        got = apply(bound, positions + shift, keys + shift, x)
        np.testing.assert_allclose(got, want, rtol=0, atol=0 if issubclass(row.contract, pe.Bias) else 3e-6)


@every(of(pe.DistanceBias))
def test_at_is_the_bias_of_a_distance(row):
    bound = row.scheme.bind(random_params(row.scheme))
    at, keys, _ = (spread(row.scheme, a[0]) for a in batch(row))
    np.testing.assert_array_equal(bound.at(keys[None, :] - at[:, None]), bound(at, keys))


@every(of(pe.Additive))
def test_each_position_has_a_vector_of_its_own(row):
    """A constant shift cannot hide in an absolute scheme."""
    x = np.asarray(row.scheme.bind(random_params(row.scheme))(spread(row.scheme, pe.positions.arange(T))))
    assert len(np.unique(x.round(5), axis=0)) == T
