"""Linen, NNX and plain JAX are one library: the same parameters, values, gradients and training."""

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from schemes import (
    LAYERS,
    VOCABULARY,
    B,
    D,
    F,
    K,
    N,
    S,
    T,
    apply,
    arguments,
    every,
    full_pass,
    layer_params,
    loaded,
    random_params,
    values,
)

import posembed_jax as pe
from posembed_jax import linen
from posembed_jax import nnx as pnnx

POSITIONS = pe.positions.arange(T)


def content(row):
    return pe.positions.arange(T), pe.positions.arange(S, 2), values(T, row.heads, D)


def assert_trees_equal(got, want, **tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **({"rtol": 0, "atol": 0} | tolerance))


def pure(module):
    """The parameters of an NNX module as the nested dict that Linen and plain JAX have."""
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


# The generic face.


@every(heavy=True)
def test_the_scheme_module_is_the_bound_scheme(row):
    params, at = random_params(row.scheme), arguments(row.scheme, *content(row))

    def plain(params):
        return row.scheme.bind(params)(*at)

    def with_linen(params):
        return linen.Scheme(row.scheme).apply({"params": params}, *at)

    def with_nnx(params):
        return loaded(params, pnnx.Scheme, row.scheme)(*at)

    def outputs_and_gradients(params):
        weights = values(*plain(params).shape, seed=5)
        return [
            (f(params), jax.grad(lambda p, f=f: jnp.sum(weights * f(p)))(params)) for f in (plain, with_linen, with_nnx)
        ]

    want, *others = jax.jit(outputs_and_gradients)(params)
    for got in others:
        assert_trees_equal(got, want)


@every()
def test_initial_parameters_have_the_names_and_shapes_of_plain_jax(row):
    at = arguments(row.scheme, *content(row))
    variables = jax.eval_shape(linen.Scheme(row.scheme).init, jax.random.key(0), *at)
    in_nnx = pure(pnnx.Scheme(row.scheme, rngs=nnx.Rngs(0)))
    assert {name: x.shape for name, x in variables.get("params", {}).items()} == row.learned
    assert {name: x.shape for name, x in in_nnx.items()} == row.learned
    assert set(variables) <= {"params"}
    assert len(jax.tree.leaves(nnx.state(pnnx.Scheme(row.scheme, rngs=nnx.Rngs(0))))) == len(row.learned)


@pytest.mark.slow
@every()
def test_adamw_moves_what_is_learned_and_nothing_else(row):
    """Weight decay cannot touch a fixed table: there is none."""
    at, optimizer = arguments(row.scheme, *content(row)), optax.adamw(1e-2, weight_decay=0.1)
    module = linen.Scheme(row.scheme)
    params = {"params": random_params(row.scheme)} if row.learned else {}
    before = module.apply(params, *at)
    weights = values(*before.shape, seed=5)

    @jax.jit
    def train(params):
        gradient = jax.grad(lambda p: jnp.sum(weights * module.apply(p, *at)))(params)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    @nnx.jit
    def train_nnx(module, optimizer):
        optimizer.update(module, nnx.grad(lambda m: jnp.sum(weights * m(*at)))(module))

    in_nnx = loaded(random_params(row.scheme), pnnx.Scheme, row.scheme)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies its integer step count by floats
        after = train(params)
        train_nnx(in_nnx, nnx.Optimizer(in_nnx, optimizer, wrt=nnx.Param))

    assert_trees_equal(pure(in_nnx), after.get("params", {}), atol=1e-6)
    for name in row.learned:
        assert not np.array_equal(after["params"][name], params["params"][name])
    changed = not np.array_equal(module.apply(after, *at), before)
    assert changed == bool(row.learned)
    assert changed != np.array_equal(in_nnx(*at), before)


@every(lambda row: row.learned, heavy=True)
def test_serialization_round_trips(row):
    params = random_params(row.scheme)
    blank = jax.tree.map(jnp.zeros_like, {"params": params})
    restored = flax.serialization.from_bytes(blank, flax.serialization.to_bytes({"params": params}))
    assert_trees_equal(restored["params"], jax.tree.map(np.asarray, params))
    source = loaded(params, pnnx.Scheme, row.scheme)
    target = pnnx.Scheme(row.scheme, rngs=nnx.Rngs(1))
    nnx.update(target, nnx.state(source))
    assert_trees_equal(pure(target), params)
    graphdef, state = nnx.split(source)
    at = content(row)
    np.testing.assert_array_equal(apply(nnx.merge(graphdef, state).bound(), *at), apply(source.bound(), *at))


# Attention with every scheme in its place.


@every(lambda row: row.in_layers, heavy=True)
def test_attention_layers_agree(row):
    x, want = full_pass(row)
    ids, weights = jnp.ones((B, T), jnp.int32), values(*x.shape, seed=5)
    positions = pe.positions.arange(T, jnp.zeros(B, jnp.int32))

    def outputs_and_gradients(params, x):
        def loss(params, x, face):
            out = LAYERS[face](row, params, x, positions, segment_ids=ids)
            return jnp.sum(weights * out), out

        return [jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x, face) for face in LAYERS]

    (gradient, out), *others = jax.jit(outputs_and_gradients)(layer_params(row), x)
    np.testing.assert_allclose(out, want, rtol=0, atol=1e-6)
    for got in others:
        assert_trees_equal(got, (gradient, out), rtol=1e-5, atol=1e-5)


ATTENTIONS = {
    "plain": {},
    "grouped": {"key_value_heads": K},
    "multi_query_wide": {"key_value_heads": 1, "head_dim": 5, "use_bias": True},
    "rotation": {"rotation": pe.RoPE(dim=2, layout="half")},
    "bias": {"bias": pe.T5Bias(heads=N, bidirectional=True), "causal": False, "scale": 1.0},
    "both": {
        "rotation": pe.RoPE(dim=2, layout="interleaved", learned=True),
        "bias": pe.T5Bias(heads=N, bidirectional=False),
        "window": (5, 0),
        "logits_soft_cap": 2.0,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", ATTENTIONS.values(), ids=ATTENTIONS)
def test_attention_settings_mean_the_same_in_both(settings):
    x = values(B, T, F)
    module = linen.Attention(heads=N, **settings)
    in_nnx = pnnx.Attention(F, heads=N, rngs=nnx.Rngs(0), **settings)
    params = module.init(jax.random.key(0), x, POSITIONS)["params"]
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == jax.tree.map(jnp.shape, without_none(pure(in_nnx)))
    params = jax.tree.map(lambda p: values(*p.shape), params)
    nnx.update(in_nnx, params)
    got = in_nnx(x, POSITIONS)
    np.testing.assert_allclose(got, module.apply({"params": params}, x, POSITIONS), rtol=0, atol=1e-6)


def without_none(tree):
    """NNX keeps the bias vector that a layer does not have as a None."""
    found = {name: without_none(value) if isinstance(value, dict) else value for name, value in tree.items()}
    return {
        name: value
        for name, value in found.items()
        if value is not None and not (isinstance(value, dict) and not value)
    }


def test_initial_values_are_drawn_from_the_same_distributions():
    settings = {"heads": 8, "bias": pe.T5Bias(heads=8, buckets=256, stddev=0.3, bidirectional=True)}
    x = jnp.ones((1, 1, 256))
    params = linen.Attention(**settings).init(jax.random.key(0), x, POSITIONS[:1])["params"]
    in_nnx = without_none(pure(pnnx.Attention(256, rngs=nnx.Rngs(0), **settings)))
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(in_nnx), strict=True):
        np.testing.assert_allclose(np.std(a), np.std(b), rtol=0.05)
        assert abs(np.mean(a)) < 0.1 * np.std(a)
    np.testing.assert_allclose(np.std(params["query"]["kernel"]), 256**-0.5, rtol=0.02)
    np.testing.assert_allclose(np.std(params["out"]["kernel"]), 256**-0.5, rtol=0.02)
    np.testing.assert_allclose(np.std(params["bias"]["table"]), 0.3, rtol=0.05)


def test_token_embed():
    settings = {"scale": F**0.5, "dtype": jnp.bfloat16, "logits_scale": 0.5, "stddev": 0.7}
    ids = jnp.array([[0, 3, VOCABULARY - 1], [3, 3, 1]])
    module = linen.TokenEmbed(VOCABULARY, F, **settings)
    table = values(VOCABULARY, F)
    params, in_nnx = {"params": {"table": table}}, pnnx.TokenEmbed(VOCABULARY, F, rngs=nnx.Rngs(0), **settings)
    assert in_nnx.table.shape == module.init(jax.random.key(0), ids)["params"]["table"].shape
    nnx.update(in_nnx, {"table": table})
    want = pe.embed(table, ids, scale=F**0.5, dtype=jnp.bfloat16)
    assert want.dtype == jnp.bfloat16
    np.testing.assert_array_equal(module.apply(params, ids), want)
    np.testing.assert_array_equal(in_nnx(ids), want)
    want_logits = pe.logits(table, want, scale=0.5)
    np.testing.assert_array_equal(module.apply(params, want, method="logits"), want_logits)
    np.testing.assert_array_equal(in_nnx.logits(want), want_logits)
    big = linen.TokenEmbed(500, 40, stddev=0.7)
    drawn = big.init(jax.random.key(0), ids)["params"]["table"], pnnx.TokenEmbed(500, 40, stddev=0.7, rngs=nnx.Rngs(0))
    np.testing.assert_allclose([np.std(drawn[0]), np.std(drawn[1].table[...])], 0.7, rtol=0.02)


# One bias for two layers, as T5 has it.

SHARED = pe.T5Bias(heads=N, bidirectional=False)


class LinenPair(nn.Module):
    @nn.compact
    def __call__(self, x):
        bias = linen.Scheme(SHARED, name="bias")
        for i in range(2):
            x = x + linen.Attention(heads=N, bias=bias, name=f"layer_{i}")(x, POSITIONS)
        return x


class NnxPair(nnx.Module):
    def __init__(self, rngs):
        bias = pnnx.Scheme(SHARED, rngs=rngs)
        self.layer_0 = pnnx.Attention(F, heads=N, bias=bias, rngs=rngs)
        self.layer_1 = pnnx.Attention(F, heads=N, bias=bias, rngs=rngs)

    def __call__(self, x):
        x = x + self.layer_0(x, POSITIONS)
        return x + self.layer_1(x, POSITIONS)


def test_a_shared_bias_is_stored_once_and_trained_by_both_layers():
    x = values(B, T, F)
    params = LinenPair().init(jax.random.key(0), x)["params"]
    assert set(params) == {"bias", "layer_0", "layer_1"}
    assert "bias" not in params["layer_0"]
    pair = NnxPair(nnx.Rngs(0))
    tables = [path for path, _ in nnx.to_flat_state(nnx.state(pair, nnx.Param)) if path[-1] == "table"]
    assert len(tables) == 1
    nnx.update(pair, {name: params[name] for name in ("layer_0", "layer_1")})
    pair.layer_0.bias.table[...] = params["bias"]["table"]
    np.testing.assert_allclose(pair(x), LinenPair().apply({"params": params}, x), rtol=0, atol=1e-6)

    gradient = jax.jit(jax.grad(lambda p: jnp.sum(LinenPair().apply({"params": p}, x) ** 2)))(params)
    in_nnx = nnx.jit(nnx.grad(lambda m: jnp.sum(m(x) ** 2)))(pair)
    np.testing.assert_allclose(
        nnx.to_pure_dict(in_nnx)["layer_0"]["bias"]["table"], gradient["bias"]["table"], rtol=1e-4, atol=1e-5
    )
    before = pair.layer_1.bias.table[...]
    optimizer = nnx.Optimizer(pair, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(pair, in_nnx)
    assert pair.layer_0.bias is pair.layer_1.bias
    assert not np.array_equal(pair.layer_1.bias.table[...], before)


# The lifted transformations of Flax.


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, positions):
        attention = linen.Attention(
            heads=N, rotation=pe.RoPE(dim=2, layout="half", learned=True), bias=SHARED, name="attention"
        )
        return x + attention(x, positions), None


@pytest.mark.slow
def test_linen_scan_and_remat_over_blocks():
    x = values(B, T, F)
    stack = nn.scan(
        nn.remat(Block),
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=3,
    )()
    variables = stack.init(jax.random.key(0), x, POSITIONS)
    table = variables["params"]["attention"]["bias"]["table"]
    assert table.shape == (3, N, 32)
    assert not np.array_equal(table[0], table[1])

    def looped(variables, x):
        for i in range(3):
            x, _ = Block().apply(jax.tree.map(lambda p, i=i: p[i], variables), x, POSITIONS)
        return x

    got = jax.jit(jax.value_and_grad(lambda v: jnp.sum(stack.apply(v, x, POSITIONS)[0] ** 2)))(variables)
    want = jax.jit(jax.value_and_grad(lambda v: jnp.sum(looped(v, x) ** 2)))(variables)
    assert_trees_equal(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_nnx_transformations():
    x = values(B, T, F)
    module = pnnx.Attention(F, heads=N, bias=SHARED, rotation=pe.RoPE(dim=2, layout="half"), rngs=nnx.Rngs(0))
    want = module(x, POSITIONS)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x, POSITIONS))(module, x), want, rtol=0, atol=1e-6)
    graphdef, state = nnx.split(module)
    merged = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, POSITIONS))(state, x)
    np.testing.assert_allclose(merged, want, rtol=0, atol=1e-6)
    gradient = nnx.to_pure_dict(nnx.grad(lambda m: jnp.sum(m(x, POSITIONS) ** 2))(module))
    assert np.abs(gradient["bias"]["table"]).max() > 0


@pytest.mark.parametrize("face", ["linen", "nnx"])
def test_dropout(face):
    x, settings = values(B, T, F), {"heads": N, "dropout_rate": 0.5}
    if face == "linen":
        module = linen.Attention(**settings)
        variables = module.init(jax.random.key(0), x, POSITIONS)

        def run(seed, deterministic):
            rngs = {"dropout": jax.random.key(seed)}
            return module.apply(variables, x, POSITIONS, deterministic=deterministic, rngs=rngs)
    else:

        def run(seed, deterministic):
            module = pnnx.Attention(F, rngs=nnx.Rngs(params=0, dropout=seed), **settings)
            return module(x, POSITIONS, deterministic=deterministic)

    dropped = run(1, False)
    assert not np.array_equal(dropped, run(1, True))
    assert not np.array_equal(dropped, run(2, False))
    np.testing.assert_array_equal(dropped, run(1, False))
    np.testing.assert_array_equal(run(1, True), run(2, True))


def test_nnx_dropout_draws_anew_in_every_call():
    module = pnnx.Attention(F, heads=N, dropout_rate=0.5, rngs=nnx.Rngs(0))
    x = values(B, T, F)
    step = nnx.jit(lambda m, x: m(x, POSITIONS, deterministic=False))
    assert not np.array_equal(step(module, x), step(module, x))
