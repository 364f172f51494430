"""Facts about speed and memory that do not depend on the machine: traces, constants, temporaries, scatters."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_lowering import FUNCTIONS, gradient

import posembed_jax as pe
from posembed_jax import nnx as pnnx

KIB = 1024
SCHEMES = {
    "LearnedPositions": lambda: pe.LearnedPositions(length=16, features=8),
    "Sinusoidal": lambda: pe.Sinusoidal(features=8),
    "RoPE": lambda: pe.RoPE(dim=8, layout="half"),
    "RoPE, learned": lambda: pe.RoPE(dim=8, layout="half", learned=True),
    "T5Bias": lambda: pe.T5Bias(heads=4, bidirectional=True),
    "ALiBi": lambda: pe.ALiBi(heads=4, slopes=(0.5, 0.25, 0.125, 0.1)),
}
OTHERS = {
    "LearnedPositions": lambda: pe.LearnedPositions(length=15, features=8),
    "Sinusoidal": lambda: pe.Sinusoidal(features=8, base=100.0),
    "RoPE": lambda: pe.RoPE(dim=8, layout="interleaved"),
    "RoPE, learned": lambda: pe.RoPE(dim=8, layout="half", learned=True, rotated="last"),
    "T5Bias": lambda: pe.T5Bias(heads=4, bidirectional=False),
    "ALiBi": lambda: pe.ALiBi(heads=4, symmetric=False),
}


def arguments(scheme):
    positions = pe.positions.arange(5)
    if isinstance(scheme, pe.Rotation):
        return jnp.ones((5, 2, 8)), positions
    return (positions, positions) if isinstance(scheme, pe.Bias) else (positions,)


# Traces


def test_decoding_with_nnx_traces_once():
    attention = pnnx.Attention(
        24, heads=6, key_value_heads=2, rotation=pe.RoPE(dim=4, layout="half"), bias=pe.ALiBi(heads=6), rngs=nnx.Rngs(0)
    )
    cache = pe.KVCache.empty(batch=2, capacity=20, heads=2, dim=4)
    traces = []

    @nnx.jit
    def step(attention, x, cache):
        traces.append(x.shape)
        return attention(x, cache=cache)

    _, cache = step(attention, jnp.ones((2, 3, 24)), cache)
    for _ in range(16):
        _, cache = step(attention, jnp.ones((2, 1, 24)), cache)
    assert traces == [(2, 3, 24), (2, 1, 24)] and cache.lengths.tolist() == [19, 19]


def test_decoding_in_plain_jax_traces_once():
    """The rotation, the bias, the offset and the cache are all arrays to jit."""
    rotation = pe.RoPE(dim=4, layout="half").bind({})
    settings = pe.T5Bias(heads=6, bidirectional=False)
    bias = settings.bind(pe.init(settings, jax.random.key(0)))
    cache = pe.KVCache.empty(batch=2, capacity=16, heads=2, dim=4)
    traces = []

    @jax.jit
    def step(rotation, bias, q, kv, cache):
        traces.append(q.shape)
        positions, ids = pe.positions.arange(1, cache.lengths), jnp.ones((2, 1), jnp.int32)
        cache = cache.append(rotation(kv, positions), kv, positions, ids)
        out = pe.attend(
            rotation(q, positions),
            cache.keys,
            cache.values,
            bias=bias,
            causal=True,
            query_positions=positions,
            key_positions=cache.positions,
            query_segment_ids=ids,
            key_segment_ids=cache.segment_ids,
        )
        return out, cache

    for _ in range(16):
        out, cache = step(rotation, bias, jnp.ones((2, 1, 6, 4)), jnp.ones((2, 1, 2, 4)), cache)
    assert len(traces) == 1 and cache.lengths.tolist() == [16, 16] and np.all(np.isfinite(out))


@pytest.mark.parametrize("name", SCHEMES)
def test_equal_settings_share_a_trace(name):
    """As a static argument, and inside a bound scheme; other settings have a trace of their own."""
    static, inside = [], []

    @jax.jit(static_argnums=0)
    def of_settings(scheme, params, *args):
        static.append(scheme)
        return scheme.bind(params)(*args)

    @jax.jit
    def of_bound(bound, *args):
        inside.append(bound)
        return bound(*args)

    for make in (SCHEMES[name], SCHEMES[name], OTHERS[name], SCHEMES[name]):
        scheme = make()
        params = pe.init(scheme, jax.random.key(len(inside)))
        of_settings(scheme, params, *arguments(scheme))
        of_bound(scheme.bind(params), *arguments(scheme))
    assert len(static) == len(inside) == 2


# Constants


def constants(jaxpr):
    """Every constant of a closed jaxpr and of the jaxprs inside it."""
    yield from jaxpr.consts
    yield from inner_constants(jaxpr.jaxpr)


def inner_constants(jaxpr):
    for eqn in jaxpr.eqns:
        yield from (x.val for x in eqn.invars if isinstance(x, jax.extend.core.Literal))
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
            if isinstance(value, jax.extend.core.ClosedJaxpr):
                yield from constants(value)
            elif isinstance(value, jax.extend.core.Jaxpr):
                yield from inner_constants(value)


def is_jaxpr(x):
    return isinstance(x, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_constant_above_64_kib(name):
    """No stored cos, sin, mask or bias: at the table's 256 x 384 tokens, any of these would be larger."""
    function, *args = FUNCTIONS[name]
    for f in (function, gradient(name)):
        if f is not None:
            sizes = [np.size(x) * np.dtype(jnp.result_type(x)).itemsize for x in constants(jax.make_jaxpr(f)(*args))]
            assert max(sizes, default=0) <= 64 * KIB


def test_constants_are_found():
    """Guards the test above: inside jit, scan and custom derivatives."""
    table = jnp.ones((100, 200))

    @jax.custom_jvp
    def f(x):
        return jax.jit(lambda x: x + table)(x)

    f.defjvps(lambda t, _, x: t)
    jaxpr = jax.make_jaxpr(lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, length=2))(jnp.ones((100, 200)))
    assert max(np.size(x) for x in constants(jaxpr)) == 20_000


# Memory


def temporary_bytes(f, *args):
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rotation_needs_its_tables_and_little_more(dtype, layout):
    length, heads, dim = 512, 8, 64
    rotation = pe.RoPE(dim=dim, layout=layout).bind({})
    x = jax.ShapeDtypeStruct((1, length, heads, dim), dtype)
    tables = 2 * length * dim // 2 * 4
    wide = length * heads * dim * 4  # x in float32
    assert temporary_bytes(lambda x: rotation(x, pe.positions.arange(length)), x) <= 2 * tables + wide


@pytest.mark.parametrize("name", ["T5Bias", "ALiBi"])
def test_a_bias_needs_its_result_and_little_more(name):
    scheme, length = SCHEMES[name](), 512
    params = pe.init(scheme, jax.random.key(0))
    positions = jax.ShapeDtypeStruct((length,), jnp.int32)
    result = scheme.heads * length * length * 4
    assert temporary_bytes(lambda params, p: scheme.bind(params)(p, p), params, positions) <= 2 * result


# Gradients of tables


def scatters(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name.startswith("scatter"):
            yield eqn.outvars[0].aval.dtype
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(value):
                yield from scatters(getattr(value, "jaxpr", value))


@pytest.mark.parametrize("stored", [jnp.float32, jnp.bfloat16])
def test_gradients_of_tables_are_summed_in_float32(stored):
    """A scatter-add in bfloat16 stops counting at 256."""
    ids = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    learned, t5 = pe.LearnedPositions(length=11, features=8), pe.T5Bias(heads=11, buckets=8, bidirectional=True)
    uses = {
        "embed": ((11, 8), lambda table, ids: pe.embed(table, ids, dtype=jnp.bfloat16)),
        "LearnedPositions": ((11, 8), lambda table, ids: learned.bind({"table": table})(ids).astype(jnp.bfloat16)),
        "T5Bias": ((11, 8), lambda table, ids: t5.bind({"table": table})(ids, ids).astype(jnp.bfloat16)),
    }
    found = []
    for shape, use in uses.values():
        grad = jax.grad(lambda table, ids, use=use: jnp.sum(use(table, ids).astype(jnp.float32)))
        dtypes = list(scatters(jax.make_jaxpr(grad)(jax.ShapeDtypeStruct(shape, stored), ids).jaxpr))
        assert all(dtype == jnp.float32 for dtype in dtypes)
        found += dtypes
    assert found


def test_a_row_used_4096_times_counts_4096():
    ids = jnp.zeros((1, 4096), jnp.int32)
    for stored in (jnp.float32, jnp.bfloat16):
        grad = jax.jit(jax.grad(lambda table: jnp.sum(pe.embed(table, ids, dtype=jnp.bfloat16).astype(jnp.float32))))
        assert np.all(grad(jnp.ones((2, 3), stored))[0] == 4096)
