"""Eight devices change nothing: positions are data, and they travel with the tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from schemes import D, S, T, apply, assert_same, every, random_params, sequence_axis, values

import posembed_jax as pe
from posembed_jax import linen
from posembed_jax import nnx as pnnx

SHARDS = 8


@pytest.fixture(scope="module")
def sequence_mesh():
    return jax.make_mesh((SHARDS,), ("sequence",), axis_types=(AxisType.Auto,))


@pytest.fixture(scope="module")
def explicit_mesh():
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)


@every(heavy=True)
def test_a_sharded_sequence_is_the_whole_one(row, sequence_mesh):
    """In order, each shard making its own positions; and in zigzag order, positions being sharded like the tokens."""
    bound, x, keys = row.scheme.bind(random_params(row.scheme)), values(T, row.heads, D), jnp.arange(S)
    want = apply(bound, pe.positions.arange(T), keys, x)
    over_sequence = P(*[None] * sequence_axis(row), "sequence")

    def in_order(bound, x):
        local = x.shape[0]
        return apply(bound, pe.positions.arange(local, lax.axis_index("sequence") * local), keys, x)

    def permuted(bound, positions, x):
        return apply(bound, positions, keys, x)

    def sharded(f, *specs):
        return jax.jit(jax.shard_map(f, mesh=sequence_mesh, in_specs=(P(), *specs), out_specs=over_sequence))

    assert_same(row, sharded(in_order, P("sequence"))(bound, x), want)
    order = pe.positions.zigzag(T, SHARDS)
    got = sharded(permuted, P("sequence"), P("sequence"))(bound, order, x[order])
    assert_same(row, jnp.take(got, pe.positions.inverse_order(order), axis=sequence_axis(row)), want)


@pytest.mark.slow
@every()
def test_a_sharded_batch_is_the_whole_one(row, sequence_mesh):
    bound, x = row.scheme.bind(random_params(row.scheme)), values(SHARDS, T, row.heads, D)
    positions = pe.positions.arange(T, jnp.arange(SHARDS))
    arguments = positions, positions[:, :S], x
    by_row = NamedSharding(sequence_mesh, P("sequence"))
    got = jax.jit(apply)(bound, *(jax.device_put(a, by_row) for a in arguments))
    assert_same(row, got, apply(bound, *arguments))
    assert got.sharding.is_equivalent_to(by_row, got.ndim)


@pytest.mark.parametrize("table_spec", [P(), P(None, "model"), P("model", None)], ids=str)
def test_embed_and_logits_on_an_explicit_mesh(table_spec, explicit_mesh):
    table, ids = values(20, 12), jnp.arange(2 * 7).reshape(2, 7)
    want, want_logits = pe.embed(table, ids), pe.logits(table, pe.embed(table, ids))
    with jax.set_mesh(explicit_mesh):
        sharded_table = jax.device_put(table, NamedSharding(explicit_mesh, table_spec))
        sharded_ids = jax.device_put(ids, NamedSharding(explicit_mesh, P("data")))

        @jax.jit
        def run(table, ids):
            x = pe.embed(table, ids, out_sharding=P("data", None, None))
            return x, pe.logits(table, x, out_sharding=P("data", None, None))

        x, logits = run(sharded_table, sharded_ids)
        assert jax.typeof(x).sharding.spec == P("data", None, None)
        np.testing.assert_array_equal(x, want)
        np.testing.assert_allclose(logits, want_logits, rtol=0, atol=1e-6)
        gradient = jax.jit(jax.grad(lambda table: jnp.sum(run(table, sharded_ids)[0] ** 2)))(sharded_table)
    np.testing.assert_allclose(gradient, jax.grad(lambda t: jnp.sum(pe.embed(t, ids) ** 2))(table), rtol=1e-6)


def test_linen_logical_axes():
    axes = {"table": ("position", "embed")}
    for module, arguments in (
        (linen.Scheme(pe.LearnedPositions(length=24, features=12), logical_axes=axes), jnp.arange(T)),
        (linen.TokenEmbed(24, 12, logical_axes=axes), jnp.arange(T)),
    ):
        variables = module.init(jax.random.key(0), arguments)
        assert nn.get_partition_spec(variables)["params"]["table"] == P("position", "embed")
        unboxed = nn.unbox(variables)
        np.testing.assert_array_equal(module.apply(variables, arguments), module.apply(unboxed, arguments))
        plain = module.clone(logical_axes=None).init(jax.random.key(0), arguments)
        assert isinstance(plain["params"]["table"], jax.Array)
        np.testing.assert_array_equal(plain["params"]["table"], unboxed["params"]["table"])


def test_linen_attention_logical_axes():
    axes = {name: ("embed", "heads", "head_dim") for name in ("query", "key", "value")}
    module = linen.Attention(heads=4, logical_axes={**axes, "out": ("heads", "head_dim", "embed")})
    variables = module.init(jax.random.key(0), jnp.ones((3, T, 12)), jnp.arange(T))
    specs = nn.get_partition_spec(variables)["params"]
    assert specs["query"]["kernel"] == specs["key"]["kernel"] == P("embed", "heads", "head_dim")
    assert specs["out"]["kernel"] == P("heads", "head_dim", "embed")
    assert variables["params"]["query"]["kernel"].unbox().shape == (12, 4, 3)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_nnx_out_sharding(axis_type):
    mesh, spec = jax.make_mesh((2, 4), ("data", "model"), axis_types=(axis_type,) * 2), (None, "model")
    heads = {"query": (None, "model", None), "out": ("model", None, None)}
    with jax.set_mesh(mesh):
        positions = pnnx.Scheme(
            pe.LearnedPositions(length=24, features=12), out_sharding={"table": spec}, rngs=nnx.Rngs(0)
        )
        tokens = pnnx.TokenEmbed(24, 12, out_sharding={"table": spec}, rngs=nnx.Rngs(0))
        attention = pnnx.Attention(12, heads=4, out_sharding=heads, rngs=nnx.Rngs(0))
        for module in (positions, tokens):
            assert module.table.out_sharding == spec
            assert module.table[...].sharding.is_equivalent_to(NamedSharding(mesh, P(*spec)), 2)
        assert attention.query.kernel.out_sharding == heads["query"]
        assert attention.out.kernel.out_sharding == heads["out"]
        assert getattr(attention.key.kernel, "out_sharding", None) is None


def test_nnx_has_no_sharding_by_default():
    modules = (
        pnnx.Scheme(pe.T5Bias(heads=4, bidirectional=True), rngs=nnx.Rngs(0)),
        pnnx.TokenEmbed(24, 12, rngs=nnx.Rngs(0)),
        pnnx.Attention(12, heads=4, rngs=nnx.Rngs(0)),
    )
    for module in modules:
        for _, variable in nnx.to_flat_state(nnx.state(module)):
            assert "out_sharding" not in variable.get_metadata()
