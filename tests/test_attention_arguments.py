"""What attention takes beside a bias of two positions, by the reference against numpy, and by tiles against it.

Positions of several axes, content of one's own, vectors beside the values, temperatures of queries.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from own_schemes import Beside, Crowd, Gates, Plane
from schemes import values
from test_blockwise import LESS_COMPILING, inputs, tiles_of

import posembed_jax as pe
from posembed_jax import linen
from posembed_jax import nnx as pnnx

B, T, N, K, D = 3, 29, 4, 2, 5
GRID = pe.positions.grid((T // 4 + 1, 4))[:T]


def dense(q, k, v, bias=0.0, beside=None, mask=True):
    """Attention in numpy, float64."""
    q, k, v = (np.float64(x) for x in (q, k, v))
    k, v = (np.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    logits = np.where(mask, np.einsum("btnd,bsnd->bnts", q, k) * D**-0.5 + np.float64(bias), -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = np.einsum("bnts,bsnd->btnd", weights, v)
    return out if beside is None else out + np.einsum("bnts,tsd->btnd", weights, np.float64(beside))


def both_of(function):
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2, 3), has_aux=True), compiler_options=LESS_COMPILING)


def both(arguments, *qkv, **settings):
    """The output of the reference, which that of tiles and all gradients are equal to. arguments: differentiable."""

    def loss(implementation, arguments, *qkv):
        found = {name: make(given) for name, (make, given) in arguments.items()}
        out = pe.attend(*qkv, implementation=implementation, **found, **settings)
        return jnp.sum(out * values(*out.shape, seed=9)), out

    given = {name: value for name, (_, value) in arguments.items()}
    makers = {name: make for name, (make, _) in arguments.items()}
    found = []
    for implementation in ("reference", "xla"):

        def of(given, *qkv, implementation=implementation):
            return loss(implementation, {name: (makers[name], given[name]) for name in given}, *qkv)

        with tiles_of(8):
            (_, out), gradients = both_of(of)(given, *qkv)
        found.append((out, gradients))
    for x, y in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.abs(x).max() > 0
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * max(1.0, np.abs(y).max()))
    return found[0][0]


QKV = inputs(lengths=(T, T), heads=(N, K), width=D)
CAUSAL = np.tril(np.ones((T, T), bool))


@pytest.mark.parametrize("batched", [False, True])
def test_a_bias_of_two_axes(batched):
    scheme, at = Plane(heads=N), GRID
    params = {"slope": values(N, 2)}
    apart = np.float64(at[None, :] - at[:, None])
    bias = np.einsum("na,tsa->nts", params["slope"], np.stack([np.abs(apart[..., 0]), np.sin(apart[..., 1])], axis=-1))
    np.testing.assert_allclose(scheme.bind(params)(at, at), bias, rtol=0, atol=1e-5)
    positions = jnp.stack([at + row for row in range(B)]) if batched else at
    out = both({"bias": (scheme.bind, params)}, *QKV, query_positions=positions)
    np.testing.assert_allclose(out, dense(*QKV, bias), rtol=0, atol=1e-5)


def test_causality_beside_two_axes_is_the_order_of_the_tokens():
    scheme, params = Plane(heads=N), {"slope": values(N, 2)}
    out = both({"bias": (scheme.bind, params)}, *QKV, query_positions=GRID[::-1], causal=True)
    bias = scheme.bind(params)(GRID[::-1], GRID[::-1])
    np.testing.assert_allclose(out, dense(*QKV, bias, mask=CAUSAL), rtol=0, atol=1e-5)


def test_a_closure_of_two_axes():
    slope = values(N, 2)

    def biased(slope):
        def bias(query_positions, key_positions):
            return Plane(heads=N).bind({"slope": slope})(query_positions, key_positions)

        bias.position_axes = 2
        return bias

    out = both({"bias": (biased, slope)}, *QKV, query_positions=GRID)
    want = pe.attend(*QKV, bias=Plane(heads=N).bind({"slope": slope}), query_positions=GRID)
    np.testing.assert_allclose(out, want, rtol=0, atol=1e-6)


def test_content_of_ones_own():
    query, key = values(B, T, N, seed=3), values(B, T, N, seed=4)
    bound = Gates(heads=N).bind({})
    out = both({"bias": (lambda content: bound.of(*content), (query, key))}, *QKV, causal=True)
    bias = np.einsum("btn,bsn->bnts", np.float64(query), np.float64(key))
    np.testing.assert_allclose(out, dense(*QKV, bias, mask=CAUSAL), rtol=0, atol=1e-5)


def test_a_function_of_all_keys_sees_the_mask_and_is_refused_by_tiles():
    bound, ids = Crowd(heads=N).bind({}), jnp.ones((B, T), jnp.int32).at[:, 20:].set(2)
    mask = CAUSAL & (np.asarray(ids)[0][:, None] == np.asarray(ids)[0])
    bias = mask.sum(-1, keepdims=True) * np.ones((T, T))
    out = pe.attend(*QKV, bias=bound, causal=True, query_segment_ids=ids)
    np.testing.assert_allclose(out, dense(*QKV, bias, mask=mask), rtol=0, atol=1e-5)
    with tiles_of(8):
        pe.attend(*QKV, bias=bound, causal=True)  # chooses the reference
        with pytest.raises(ValueError, match="needs implementation='reference'"):
            pe.attend(*QKV, bias=bound, causal=True, implementation="xla")


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [False, True])
def test_vectors_beside_the_values(dropout):
    scheme, params = Beside(features=D), {"vectors": values(3, D, seed=5)}
    settings = {"dropout_rate": 0.5, "dropout_key": jax.random.key(0), "broadcast_dropout": True} if dropout else {}
    if dropout:  # the same weights are dropped for values as for vectors: what differs is a vector for each value
        same = {"vectors": jnp.tile(values(1, D, seed=5), (3, 1))}
        with tiles_of(8):
            for implementation in ("reference", "xla"):
                some = {**settings, "implementation": implementation}
                got = pe.attend(*QKV, value_bias=scheme.bind(same), **some)
                want = pe.attend(QKV[0], QKV[1], QKV[2] + same["vectors"][None, None, :1], **some)
                np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
        return
    t5, table = pe.T5Bias(heads=N, bidirectional=True), {"table": values(N, 32)}
    out = both({"value_bias": (scheme.bind, params), "bias": (t5.bind, table)}, *QKV, causal=True)
    distance = np.arange(T)[None, :] - np.arange(T)[:, None]
    bias = t5.bind(table)(np.arange(T), np.arange(T))
    beside = np.asarray(params["vectors"])[np.sign(distance) + 1]
    np.testing.assert_allclose(out, dense(*QKV, bias, beside, CAUSAL), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_temperature_multiplies_its_query(dtype):
    q, k, v = (x.astype(dtype) for x in QKV)
    each = values(B, T, seed=6) + 2.0
    want = pe.attend((q.astype(jnp.float32) * each[..., None, None]).astype(dtype), k, v, causal=True)
    np.testing.assert_array_equal(pe.attend(q, k, v, temperature=each, causal=True), want)
    np.testing.assert_array_equal(pe.attend(q, k, v, temperature=each[0], causal=True)[0], want[0])


def test_values_may_be_wider_or_narrower():
    q, k = QKV[:2]
    for width in (3, 8):
        other = values(B, T, K, width, seed=8)
        np.testing.assert_allclose(both({}, q, k, other), dense(q, k, other), rtol=0, atol=1e-5)
    cache = pe.KVCache.empty(batch=B, capacity=T, heads=K, dim=D, value_dim=8)
    at = pe.positions.arange(T, jnp.zeros(B, jnp.int32))
    assert cache.append(k, other, at, jnp.ones_like(at)).values.shape == (B, T, K, 8)


def test_positions_of_queries_are_those_of_keys_unless_these_are_given():
    at, bias = 3 * pe.positions.arange(T), pe.ALiBi(heads=N).bind({})
    want = pe.attend(*QKV, bias=bias, causal=True, query_positions=at, key_positions=at)
    np.testing.assert_array_equal(pe.attend(*QKV, bias=bias, causal=True, query_positions=at), want)
    np.testing.assert_array_equal(pe.attend(*QKV, bias=bias, causal=True, key_positions=at), want)


# The same in the layers.

F, PLANE = N * D, pe.Axes.blocks(axes=2, count=1)
SETTINGS = {
    "two axes": {
        "bias": Plane(heads=N),
        "rotation": pe.RoPE(dim=4, layout="half", axes=pe.Axes.blocks(axes=2, count=1)),
    },
    "an axis beside none": {"bias": Plane(heads=N), "rotation": pe.RoPE(dim=4, layout="half")},
    "values": {"value_bias": Beside(features=D)},
    "temperature": {"temperature": pe.SteppedTemperature(beta=0.5, length=4), "bias": pe.ALiBi(heads=N)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_layers_take_them(name):
    settings, x = SETTINGS[name], values(B, T, F)
    at = GRID if "ax" in name else pe.positions.arange(T)
    module = linen.Attention(heads=N, **settings)
    variables = module.init(jax.random.key(0), x, at)
    params = jax.tree.map(lambda p: values(*p.shape), variables["params"])
    in_nnx = pnnx.Attention(F, heads=N, rngs=nnx.Rngs(0), **settings)
    nnx.update(in_nnx, params)
    q, k, v = (jnp.einsum("btf,fnd->btnd", x, params[part]["kernel"]) for part in ("query", "key", "value"))
    bound = {part: settings[part].bind(params.get(part, {})) for part in ("bias", "value_bias") if part in settings}
    if "rotation" in settings:
        turn = settings["rotation"].bind({})
        where = at if turn.position_axes else pe.positions.arange(T)
        q, k = turn(q, where), turn(k, where)
    if "temperature" in settings:
        bound["temperature"] = settings["temperature"](at)
    out = pe.attend(q, k, v, causal=True, query_positions=at, **bound)
    want = jnp.einsum("btnd,ndf->btf", out, params["out"]["kernel"])
    np.testing.assert_allclose(module.apply({"params": params}, x, at), want, rtol=0, atol=2e-5)
    np.testing.assert_allclose(in_nnx(x, at), want, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_layers_take_a_length_one_for_each_row_and_traced():
    """A cache whose length grows is turned over: the same as one pass at the new length."""
    rope = pe.RoPE(dim=4, layout="half", scaling=pe.DynamicNTK(factor=4.0, original_length=8))
    module, x, at = linen.Attention(heads=N, rotation=rope), values(B, T, F), pe.positions.arange(T)
    params = {
        name: {"kernel": values(*shape)}
        for name, shape in {"query": (F, N, D), "key": (F, N, D), "value": (F, N, D), "out": (N, D, F)}.items()
    }
    in_nnx = pnnx.Attention(F, heads=N, rotation=rope, rngs=nnx.Rngs(0))
    nnx.update(in_nnx, params)
    lengths = jnp.array([T, 8, 17])
    run = jax.jit(lambda lengths: module.apply({"params": params}, x, at, length=lengths))
    got = run(lengths)
    np.testing.assert_allclose(got, in_nnx(x, at, length=lengths), rtol=0, atol=1e-5)
    for row, length in enumerate([T, 8, 17]):
        alone = module.apply({"params": params}, x[row : row + 1], at, length=length)
        np.testing.assert_allclose(got[row], alone[0], rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="length is None; DynamicNTK depends on the length"):
        module.apply({"params": params}, x, at)

    cache = pe.KVCache.empty(batch=B, capacity=T, heads=N, dim=D)
    _, cache = module.apply({"params": params}, x[:, :10], cache=cache, length=10)
    old, new = rope.bind({}, length=10), rope.bind({}, length=T)
    cache = dataclasses.replace(cache, keys=pe.rerotate(cache.keys, cache.positions, old=old, new=new))
    rest, _ = module.apply({"params": params}, x[:, 10:], cache=cache, length=T)
    whole = module.apply({"params": params}, x, at, length=T)
    np.testing.assert_allclose(rest, whole[:, 10:], rtol=0, atol=2e-5)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("sizes", [(0, 3, 5), (2, 0, 5), (2, 3, 0)], ids=["rows", "queries", "keys"])
def test_nothing_of_something_is_no_error(sizes, implementation):
    batch, queries, keys = sizes
    query, key = jnp.ones((batch, queries, 4, 8)), jnp.ones((batch, keys, 2, 8))
    out = pe.attend(query, key, key[..., :6], implementation=implementation)
    np.testing.assert_array_equal(out, np.zeros((batch, queries, 4, 6)))
