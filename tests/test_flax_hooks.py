"""A rotation and a bias inside Flax's own attention modules: the mask, the dropout and the cache keep working."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from schemes import TABLE, B, T, values

import posembed_jax as pe
from posembed_jax import linen
from posembed_jax import nnx as pnnx

N, D = 4, 8
F = N * D
CLOSE = functools.partial(np.testing.assert_allclose, rtol=0, atol=3e-6)
X = values(B, T, F)
HOOKED = {
    row.name: row
    for row in TABLE
    if row.name in ("rope_half", "rope_learned", "t5_bidirectional", "t5_causal", "alibi", "alibi_linear")
}
every_hooked = pytest.mark.parametrize("row", HOOKED.values(), ids=HOOKED)
FLAX_TAKES_POSITIONS = "input_positions" in inspect.signature(nnx.MultiHeadAttention.__call__).parameters
both = {"rotation": pe.RoPE(dim=D, layout="half"), "bias": pe.T5Bias(heads=N, bidirectional=False)}


def linen_module(in_attention, *, positions=None, **settings):
    return nn.MultiHeadDotProductAttention(
        N, attention_fn=linen.AttentionFn(positions=positions, **in_attention), **settings
    )


def nnx_module(in_attention, **settings):
    attention_fn = pnnx.AttentionFn(rngs=nnx.Rngs(1), **in_attention)
    return nnx.MultiHeadAttention(N, F, attention_fn=attention_fn, **{"decode": False, "rngs": nnx.Rngs(0)} | settings)


@functools.cache
def linen_params(row):
    """Flax's own initial kernels, and learned arrays that are not small."""
    params = jax.jit(linen_module(row.in_attention).init)(jax.random.key(0), X)["params"]
    if row.learned:
        params["attention_fn"] = jax.tree.map(lambda p: p + 0.3 * values(*p.shape), params["attention_fn"])
    return params


def nnx_with(params, in_attention, **settings):
    module = nnx_module(in_attention, **settings)
    nnx.update(module, params)
    return module


def ours(row, params, x, positions, **keywords):
    """The same projections around `attend`."""

    def project(name):
        return jnp.einsum("btf,fnd->btnd", x, params[name]["kernel"]) + params[name]["bias"][None, None]

    query, key, value = map(project, ("query", "key", "value"))
    bound = row.scheme.bind(params.get("attention_fn", {}).get(row.place, {}))
    if row.place == "rotation":
        query, key, bound = bound(query, positions), bound(key, positions), None
    out = pe.attend(query, key, value, bias=bound, query_positions=positions, key_positions=positions, **keywords)
    return jnp.einsum("btnd,ndf->btf", out, params["out"]["kernel"]) + params["out"]["bias"][None, None]


REAL = jnp.arange(T)[None] < jnp.array([[T], [5], [1]])
MASKS = {
    "none": (None, {}),
    "causal_float": (nn.make_causal_mask(jnp.ones((B, T))), {"causal": True}),
    "causal_bool": (nn.make_causal_mask(jnp.ones((B, T)), dtype=bool), {"causal": True}),
    "padding": (
        nn.make_attention_mask(jnp.ones((B, T)), REAL.astype(jnp.float32)),
        {"mask": jnp.broadcast_to(REAL[:, None, None], (B, 1, T, T))},
    ),
}


@pytest.mark.slow
@every_hooked
def test_a_full_pass_is_attend(row):
    """With no mask, with Flax's default float masks and with boolean ones, in Linen and NNX."""
    params = linen_params(row)
    in_nnx = nnx_with(params, row.in_attention)
    with_linen = jax.jit(lambda params, mask: linen_module(row.in_attention).apply({"params": params}, X, mask=mask))
    with_nnx = nnx.jit(lambda module, mask: module(X, mask=mask))
    want = [ours(row, params, X, pe.positions.arange(T), **keywords) for _, keywords in MASKS.values()]
    for (mask, _), wanted in zip(MASKS.values(), want, strict=True):
        CLOSE(with_linen(params, mask), wanted)
        CLOSE(with_nnx(in_nnx, mask), wanted)
    assert np.abs(np.asarray(want[0] - want[1])).max() > 0.01


@pytest.mark.slow
@every_hooked
def test_cached_decoding_is_the_full_pass(row):
    """`decode=True`: Flax feeds one token at a time and caches keys before they are rotated."""
    params = linen_params(row)
    want = ours(row, params, X, pe.positions.arange(T), causal=True)

    module = linen_module(row.in_attention, decode=True)
    cache = jax.tree.map(jnp.zeros_like, jax.eval_shape(module.init, jax.random.key(0), X)["cache"])
    traces = []

    @jax.jit
    def step(cache, token):
        traces.append("linen")
        out, changed = module.apply({"params": params, "cache": cache}, token, mutable=["cache"])
        return out, changed["cache"]

    in_nnx = nnx_with(params, row.in_attention, decode=True)
    in_nnx.init_cache(X.shape)

    @nnx.jit
    def nnx_step(module, token):
        traces.append("nnx")
        return module(token)

    for t in range(T):
        token = X[:, t : t + 1]
        out, cache = step(cache, token)
        CLOSE(out, want[:, t : t + 1])
        CLOSE(nnx_step(in_nnx, token), want[:, t : t + 1])
    assert sorted(traces) == ["linen", "nnx"]


@every_hooked
def test_causal_attention_of_nnx_in_a_full_pass(row):
    params = linen_params(row)
    got = nnx_with(params, row.in_attention)(X, is_causal=True)
    CLOSE(got, ours(row, params, X, pe.positions.arange(T), causal=True))


PACKED = jnp.array([[1] * 5 + [2] * 8 + [0] * 3, [3] * 16, [2] * 7 + [1] * 9])
SAME = jnp.logical_and(PACKED[:, None, :, None] == PACKED[:, None, None, :], PACKED[:, None, None, :] != 0)


@pytest.mark.slow
@every_hooked
def test_linen_packed_positions(row):
    positions, params = pe.positions.from_segment_ids(PACKED), linen_params(row)
    got = linen_module(row.in_attention, positions=positions).apply({"params": params}, X, mask=SAME)
    CLOSE(got, ours(row, params, X, positions, query_segment_ids=PACKED))


@pytest.mark.skipif(not FLAX_TAKES_POSITIONS, reason="nnx.MultiHeadAttention has input_positions from flax 0.12.10")
@every_hooked
def test_nnx_input_positions(row):
    positions, params = pe.positions.from_segment_ids(PACKED), linen_params(row)
    got = nnx_with(params, row.in_attention)(X, mask=SAME, input_positions=positions)
    CLOSE(got, ours(row, params, X, positions, query_segment_ids=PACKED))


def runs(face, **settings):
    """A function of a dropout seed (None: deterministic), through Flax's module with a rotation and a bias."""
    if face == "linen":
        module = linen_module(both, **settings)
        variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(9)}, X, deterministic=True)
        return lambda seed: module.apply(
            variables, X, deterministic=seed is None, rngs={"dropout": jax.random.key(seed or 0)}
        )
    return lambda seed: nnx_module(both, rngs=nnx.Rngs(params=0, dropout=seed or 0), **settings)(
        X, deterministic=seed is None
    )


@pytest.mark.parametrize("face", ["linen", "nnx"])
def test_dropout_is_honoured(face):
    run, without = runs(face, dropout_rate=0.5), runs(face)
    np.testing.assert_array_equal(run(None), without(None))
    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))
    assert not np.array_equal(run(1), run(None))


@pytest.mark.parametrize("face", ["linen", "nnx"])
@pytest.mark.parametrize("broadcast", [True, False])
def test_dropout_weights(face, broadcast):
    """The rate, the rescaling and the sharing of dropped weights, read off one-hot values."""
    rate, keys = 0.25, 64
    q, k = values(B, T, N, D), values(B, keys, N, D, seed=8)
    v = jnp.broadcast_to(jnp.eye(keys)[None, :, None], (B, keys, N, keys))
    keywords = {"dropout_rng": jax.random.key(0), "dropout_rate": rate, "broadcast_dropout": broadcast}
    mask = jnp.ones((B, 1, T, keys), bool)
    if face == "linen":
        hook = linen.AttentionFn(positions=pe.positions.arange(T)).bind({})
    else:
        hook = functools.partial(pnnx.AttentionFn(rngs=nnx.Rngs(0)), input_positions=pe.positions.arange(T))
    dropped = hook(q, k, v, mask=mask, deterministic=False, **keywords)
    whole = hook(q, k, v, mask=mask, deterministic=True, **keywords)
    kept = np.asarray(dropped) != 0
    np.testing.assert_allclose(kept.mean(), 1 - rate, atol=0.05)
    np.testing.assert_allclose(dropped[kept], (whole / (1 - rate))[kept], rtol=1e-5)
    assert broadcast == bool((kept == kept[:1, :, :1]).all())


def test_a_learned_table_trains_in_linen():
    module, params = linen_module(both), linen_params(HOOKED["t5_causal"])
    assert params["attention_fn"]["bias"]["table"].shape == (N, 32)
    gradient = jax.jit(jax.grad(lambda p: jnp.mean(module.apply({"params": p}, X) ** 2)))(params)
    assert np.abs(gradient["attention_fn"]["bias"]["table"]).max() > 0
    optimizer = optax.adam(1e-2)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies its integer step count by floats
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    moved = optax.apply_updates(params, updates)
    assert not np.array_equal(module.apply({"params": moved}, X), module.apply({"params": params}, X))
    table = moved["attention_fn"]["bias"]["table"]
    assert not np.array_equal(table, params["attention_fn"]["bias"]["table"])


def test_a_learned_table_trains_in_nnx_in_one_trace():
    """Three models share one trace, the table is in the state, and a jitted call sees it move."""
    traces = []

    @nnx.jit
    def call(module, x):
        traces.append(x)
        return module(x)

    @nnx.jit
    def train(module, optimizer, x):
        optimizer.update(module, nnx.grad(lambda m: jnp.mean(m(x) ** 2))(module))

    for seed in range(3):
        module = nnx_module(both, rngs=nnx.Rngs(seed))
        before = call(module, X)
    assert len(traces) == 1
    table = module.attention_fn.bias.table
    assert nnx.state(module, nnx.Param)["attention_fn"]["bias"]["table"].shape == (N, 32)
    start = table[...]
    with jax.numpy_dtype_promotion("standard"):
        train(module, nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param), X)
    assert not np.array_equal(table[...], start)
    assert not np.array_equal(call(module, X), before)


def test_one_linen_trace_for_equal_settings():
    traces, variables = [], None

    @functools.partial(jax.jit, static_argnums=0)
    def call(module, variables, x):
        traces.append(x)
        return module.apply(variables, x)

    for _ in range(3):
        module = linen_module({"bias": pe.T5Bias(heads=N, bidirectional=True)})
        variables = variables or module.init(jax.random.key(0), X)
        call(module, variables, X)
    assert len(traces) == 1


def test_what_cannot_be_honoured_is_refused():
    with pytest.raises(NotImplementedError, match="sow_weights is set"):
        nnx_module(both)(X, sow_weights=True)
    module = linen_module(both)
    variables = {"params": linen_params(HOOKED["t5_causal"])}
    with pytest.raises(NotImplementedError, match="sow_weights is set"):
        module.apply(variables, X, sow_weights=True, mutable=["intermediates"])
    for name in ("qk_attn_weights_einsum_cls", "attn_weights_value_einsum_cls"):
        custom = module.clone(**{name: lambda: jnp.einsum})
        with pytest.raises(NotImplementedError, match=f"{name} is set"):
            custom.apply(variables, X)
