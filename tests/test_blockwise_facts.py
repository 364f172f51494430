"""Facts about attention tile by tile: memory, sums of gradients, bits, transformations, devices."""

import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from schemes import random_params, values
from test_blockwise import CLOSED_OVER, FIRE, LAYOUTS, SETTINGS, SHAW, SIZE, T5, B, N, S, closure, inputs, run, tiles_of
from test_performance_facts import is_jaxpr

import posembed_jax as pe
from posembed_jax.attention.tiles import tile_size

# Memory


def loss(bias, **settings):
    """Of query, key, value and the arrays of the bias."""

    def function(query, key, value, arrays):
        out = pe.attend(query, key, value, bias=bias(arrays), implementation="xla", **settings)
        return jnp.sum(out.astype(jnp.float32) ** 2)

    return function


def test_memory_grows_with_the_length_and_nothing_is_scattered():
    """Forward and backward with a learned bias, as compiled: at 8,192 tokens a matrix would be 2 GiB."""
    heads, temporary = 8, []
    t5 = pe.T5Bias(heads=heads, bidirectional=False)
    gradient = jax.jit(jax.grad(loss(lambda table: t5.bind({"table": table}), causal=True), argnums=(0, 1, 2, 3)))
    for length in (2048, 4096, 8192):
        x = jax.ShapeDtypeStruct((1, length, heads, 64), jnp.float32)
        done = gradient.lower(x, x, x, jax.ShapeDtypeStruct((heads, 32), jnp.float32)).compile()
        temporary.append(done.memory_analysis().temp_size_in_bytes)
        assert not re.search(r"= \S+ scatter\(", done.as_text())
    assert temporary[1] < 2.2 * temporary[0] and temporary[2] < 2.2 * temporary[1]
    assert temporary[2] < heads * 8192**2 * 4 / 16


LONG = 1100  # more than anything else, such as the 511 values of a diagonal or the 64 of the features


def shapes(jaxpr):
    for eqn in jaxpr.eqns:
        yield from (x.aval.shape for x in (*eqn.invars, *eqn.outvars))
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(value):
                yield from shapes(getattr(value, "jaxpr", value))


def squares(function, *args):
    found = shapes(jax.make_jaxpr(jax.grad(function, argnums=(0, 1, 2, 3)))(*args).jaxpr)
    return [shape for shape in found if sum(size >= LONG for size in shape) > 1]


POSITIONS = pe.positions.arange(LONG, jnp.array([0, 9]))
IDS = jnp.asarray(np.arange(LONG) // 300 + np.array([[1], [2]]), jnp.int32)
LEAN = {
    "distances": (lambda bias: bias, T5, {"causal": True}),
    "distances, packed": (
        lambda bias: bias,
        T5,
        {"query_segment_ids": IDS, "query_positions": POSITIONS, "window": 99},
    ),
    "pytree": (lambda strength: FIRE.__class__(strength, jnp.int32(3)), values(N), {"logits_soft_cap": 9.0}),
    "closure": (closure, CLOSED_OVER[0], {}),
    "content": (lambda bias: bias, SHAW, {"causal": True}),
    "nothing, dropout": (lambda _: None, jnp.zeros(()), {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}),
}


@pytest.mark.parametrize("name", LEAN)
def test_no_value_has_two_axes_of_tokens(name):
    make, arrays, settings = LEAN[name]
    if name == "closure":
        make, arrays = lambda strength: closure((strength, CLOSED_OVER[1])), arrays
    x = jax.ShapeDtypeStruct((2, LONG, N, 5), jnp.float32)
    if "query_positions" in settings:
        settings = {**settings, "key_positions": settings["query_positions"]}
    assert tile_size((2, N, LONG, LONG)) < LONG // 2
    assert not squares(loss(make, **settings), x, x, x, arrays)


def test_squares_are_found():
    """Guards the test above."""
    x = jax.ShapeDtypeStruct((2, LONG, N, 5), jnp.float32)
    dense = jax.checkpoint(lambda q, k, v, _: jnp.sum(pe.attend(q, k, v, implementation="reference") ** 2))
    assert squares(dense, x, x, x, jnp.zeros(()))


FAR = """
import re, sys
import jax, jax.numpy as jnp, numpy as np
import posembed_jax as pe

length, heads = 32_768, 8
t5 = pe.T5Bias(heads=heads, bidirectional=False)
table = pe.init(t5, jax.random.key(0))["table"]
q, k, v = jax.random.normal(jax.random.key(1), (3, 1, length, heads, 64))

@jax.jit
@jax.value_and_grad
def step(arrays):
    q, k, v, table = arrays
    return jnp.sum(pe.attend(q, k, v, bias=t5.bind({"table": table}), causal=True, implementation="xla") ** 2)

def kib(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])

step = step.lower((q, k, v, table)).compile()
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again
before = kib("VmRSS")
out = jax.block_until_ready(step((q, k, v, table)))
assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(out))
print((kib("VmHWM") - before) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_32768_tokens_fit_into_2_gib():
    """Of the process, beside the inputs of 192 MiB: the logits of one matrix would be 32 GiB."""
    done = subprocess.run([sys.executable, "-c", FAR], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.1 < float(done.stdout) < 2.0


# Sums


@pytest.mark.parametrize("step", [1, 3], ids=["on diagonals", "tile by tile"])
@pytest.mark.parametrize("param_dtype", [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.bfloat16])
def test_a_bucket_used_half_a_million_times_keeps_its_gradient_in_bfloat16(step, param_dtype):
    """The last one. The further a key, the larger its value, so that little cancels. Against float64."""
    length, heads, width, buckets = 1536, 2, 4, 4
    t5 = pe.T5Bias(heads=heads, buckets=buckets, max_distance=length * step // 4, bidirectional=False)
    positions, table = pe.positions.arange(length) * step, (values(heads, buckets) / 4).astype(param_dtype)
    query, key, value = inputs(1, (length, length), (heads, heads), width, jnp.bfloat16)
    value = value + jnp.linspace(4, 0, length)[None, :, None, None].astype(jnp.bfloat16)

    @jax.jit
    @jax.grad
    def gradient(table):
        at = {"query_positions": positions, "key_positions": positions}
        out = pe.attend(query, key, value, bias=t5.bind({"table": table}), causal=True, implementation="xla", **at)
        return jnp.sum(out.astype(jnp.float32))

    got = gradient(table)
    assert got.dtype == param_dtype

    q, k, v = (np.asarray(x, np.float64)[0].swapaxes(0, 1) for x in (query, key, value))
    distance = np.asarray(positions)[None, :] - np.asarray(positions)[:, None]
    bucket = np.asarray(t5.bucket(jnp.asarray(distance, jnp.int32)))
    logits = q @ k.swapaxes(1, 2) / width**0.5 + np.asarray(table, np.float64)[:, bucket]
    logits[:, distance > 0] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    weights_bar = v.sum(-1)[:, None, :]
    logits_bar = weights * (weights_bar - (weights * weights_bar).sum(-1, keepdims=True))
    want = np.stack([logits_bar[:, bucket == b].sum(-1) for b in range(buckets)], axis=1)
    assert np.sum(bucket == buckets - 1) > 500_000 and np.abs(want[:, -1]).min() > 80
    tolerance = 3e-3 if param_dtype == jnp.float32 else 2.0**-8
    np.testing.assert_allclose(np.asarray(got, np.float64)[:, -1], want[:, -1], rtol=tolerance, atol=0)


# Bits and transformations


@pytest.mark.parametrize("name", ["packed", "scattered"])
def test_twice_is_the_same_to_the_bit(name):
    first, second = (run("xla", inputs(), T5, LAYOUTS[name], **SETTINGS) for _ in range(2))
    for x, y in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, y)


def one_row(bias, query, positions, ids):
    arrays = {"query_positions": positions, "key_positions": positions}
    out = pe.attend(*3 * [query[None]], bias=bias, query_segment_ids=ids[None], implementation="xla", **arrays)
    return jnp.sum(out * values(1, S, N, 5, seed=9)), out[0]


@pytest.mark.slow
def test_eager_and_vmap_and_loop_agree():
    """Rows of which some have their positions aligned and others do not."""
    query, ids = inputs(heads=(N, N))[0], LAYOUTS["packed"]["query_segment_ids"]
    positions = LAYOUTS["packed"]["query_positions"].at[1].set(LAYOUTS["scattered"]["query_positions"][1])
    gradient = jax.value_and_grad(one_row, argnums=(0, 1), has_aux=True)
    with tiles_of(SIZE):
        mapped = jax.jit(jax.vmap(gradient, (None, 0, 0, 0)))(T5, query, positions, ids)
        alone = jax.jit(gradient)
        for b in range(B):
            want = alone(T5, query[b], positions[b], ids[b])
            for x, y in zip(jax.tree.leaves(mapped), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(x[b], y, rtol=1e-5, atol=1e-5)
        _, eager = one_row(T5, query[2], positions[2], ids[2])
    np.testing.assert_allclose(eager, want[0][1], rtol=0, atol=1e-6)


def test_layers_in_a_scan_with_checkpoints():
    tables, x = values(3, N, 8), values(B, S, N, 5)

    def layers(implementation, wrap, tables, x):
        def layer(x, table):
            bias = T5.scheme.bind({"table": table})
            return x + pe.attend(x, x, x, bias=bias, causal=True, implementation=implementation), None

        return jnp.sum(jax.lax.scan(wrap(layer), x, tables)[0] ** 2)

    with tiles_of(SIZE):
        got, want = (
            jax.jit(jax.grad(layers, argnums=(2, 3)), static_argnums=(0, 1))(*static, tables, x)
            for static in (("xla", jax.checkpoint), ("reference", lambda layer: layer))
        )
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())


def test_float64_is_float64():
    with jax.enable_x64(True), tiles_of(SIZE):
        table, x = values(N, 8, dtype=jnp.float64), values(B, S, N, 5, dtype=jnp.float64)

        def gradient(implementation):
            def loss(table, x):
                bias = T5.scheme.bind({"table": table})
                return jnp.sum(pe.attend(x, x, x, bias=bias, causal=True, implementation=implementation) ** 2)

            return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(table, x)

        for got, want in zip(*(jax.tree.leaves(gradient(i)) for i in ("xla", "reference")), strict=True):
            assert got.dtype == jnp.float64
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_forward_mode_is_refused():
    x = values(1, S, N, 5)
    with tiles_of(SIZE), pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: pe.attend(x, x, x, implementation="xla"), (x,), (x,))


@pytest.mark.parametrize(
    "backend, length, chosen",
    [("cpu", 1100, "xla"), ("cpu", 99, "reference"), ("gpu", 1100, "reference"), ("tpu", 9000, "xla")],
)
def test_the_default_is_chosen_by_backend_and_size(backend, length, chosen, monkeypatch):
    x = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
    traces = {
        i: str(jax.make_jaxpr(lambda x, i=i: pe.attend(x, x, x, implementation=i))(x)) for i in ("reference", "xla")
    }
    assert (traces["xla"] == traces["reference"]) == (length < 1024)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert str(jax.make_jaxpr(lambda x: pe.attend(x, x, x))(x)) == traces[chosen]


# Devices

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast")


@pytest.mark.parametrize(
    "kind, spec",
    [
        pytest.param(AxisType.Auto, P("data"), marks=pytest.mark.slow),
        pytest.param(AxisType.Auto, P(None, None, "model"), marks=pytest.mark.slow),
        (AxisType.Explicit, P("data", None, "model")),
    ],
    ids=str,
)
def test_sharded_rows_and_heads_stay_where_they_are(kind, spec):
    """The tokens never travel: what does is the gradient of the bias, summed over the rows."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    query, key, value = inputs(batch=4)
    table = random_params(T5.scheme)["table"]
    function = loss(lambda table: T5.scheme.bind({"table": table}), causal=True)
    gradient = jax.value_and_grad(function, argnums=(0, 1, 2, 3))
    with tiles_of(SIZE):
        want = jax.jit(gradient)(query, key, value, table)
        with jax.set_mesh(mesh):
            by_spec, whole = NamedSharding(mesh, spec), NamedSharding(mesh, P())
            sharded = [jax.device_put(x, by_spec) for x in (query, key, value)]
            table = jax.device_put(table, whole)
            done = jax.jit(gradient).lower(*sharded, table).compile()
            got = done(*sharded, table)
    assert all(x.sharding.is_equivalent_to(by_spec, x.ndim) for x in got[1][:3])
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    assert math.prod(query.shape) // mesh.size > N * SIZE**2
    tiles_summed = 0
    for result, name in re.findall(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", done.as_text()):
        largest = max(math.prod(map(int, filter(None, x.split(",")))) for x in re.findall(r"\[([\d,]*)\]", result))
        summed = name == "all-reduce" and largest <= (N * SIZE**2 if "data" in spec else 1)
        assert summed or (name == "all-gather" and largest == table.size), (name, result)
        tiles_summed += largest > N * (2 * SIZE - 1)
    assert tiles_summed <= 1  # in the loop over tiles that are on no diagonal, which is not run here
