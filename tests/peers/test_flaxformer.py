"""What flaxformer tests of T5's relative biases, rotary and other position embeddings, and token tables."""

import math
import re
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import File, Suite, call

import posembed_jax as pe
from posembed_jax import linen

ONE_AXIS = "a table of one's own is a parameter: which axes of the mesh activations are on is `out_sharding`"
HASHES = "there are no tables that are looked up by hashes of n-grams"
CACHE = "there is no cached bias: a bias is a function of positions, so a decoding step is a call like any other"
COMBINE = "there is no container of embeddings: they are arrays, to be added or concatenated"

BIASES = (
    "test_relative_attention_bidirectional_params",
    "test_regression_relative_attention_bidirectional_values",
    "test_relative_attention_unidirectional_params",
    "test_regression_relative_attention_unidirectional_values",
)
ROTARY = ("test_rotary_embedding", "test_rotary_embedding_multiquery", "test_rotary_embedding_decode")
SUITE = Suite(
    peer="flaxformer",
    repository="google/flaxformer",
    commit="399ea3a85e9807ada653fd0de1a9de627eb0acde",
    licence="Apache-2.0",
    files=(
        File(
            path="flaxformer/components/relative_position_biases_test.py",
            here=(
                *BIASES,
                "test_relative_attention_renamed_head_axis",
                "test_relative_attention_decode_cache",
            ),
            absent={
                CACHE: (
                    "test_relative_attention_decode_cache_error_with_init",
                    "test_relative_attention_decode_cache_errror_with_bidirectional",
                ),
            },
        ),
        File(
            path="flaxformer/components/relative_position_biases_export_test.py",
            here=("test_relative_position_with_on_device_computation_exporting",),
        ),
        File(
            path="flaxformer/architectures/longt5/relative_position_biases_general_test.py",
            here=BIASES,
            prefix="general_",
        ),
        File(
            path="flaxformer/architectures/h_transformer/hierarchical_relative_position_bias_test.py",
            here=("test_rpb_1d",),
        ),
        File(
            path="flaxformer/architectures/perceiver_ar/rotary_embedding_test.py",
            here=(*ROTARY, "test_rotary_embedding_q_offset", "test_rotary_embedding_to_subset"),
            prefix="perceiver_",
        ),
        File(
            path="flaxformer/components/embedding_test.py",
            here=(
                "test_embedder_raises_exception_for_incorrect_input_type",
                "test_embedding_initializes_correctly",
                "test_embedding_matrix_shape",
                "test_embedding_attend",
                "test_multi_embed_returns_correct_shape",
                "test_multi_embed_returns_nonempty_gradient",
                "test_add_position_embs",
                "test_add_position_embs_decoder",
                "test_add_position_embs_batch_decoder",
                "test_add_sinusoidal_position_embs",
                "test_regression_add_position_embeddings_sine",
                "test_regression_add_position_embeddings_learned",
                *ROTARY,
            ),
            absent={
                ONE_AXIS: (
                    "test_embedding_axis_names",
                    "test_embedding_axis_names_ctor",
                    "test_embedding_axis_names_call_overrides",
                ),
                COMBINE: (
                    "test_multi_embed_combines_embeddings_correctly",
                    "test_multi_embed_combine_embeddings_raises_exception",
                    "test_multi_embed_can_return_individual_embeddings",
                ),
                HASHES: (
                    "test_hash_embedder",
                    "test_hash_embedder_4d",
                    "NgramHashEmbedTest.test_hash_embedder",
                    "test_packing_correctness",
                ),
            },
        ),
    ),
    notes=(
        "The regression values are those of tables that Flax draws from `PRNGKey(0)` with JAX's former default, "
        "`jax_threefry_partitionable=False`. Drawn again so, the tables give all of them through our schemes, to the "
        "five places that flaxformer asks for.",
    ),
)


class Drawn(nn.Module):
    """A parameter as a Flax module draws it."""

    param_name: str
    draw: Callable
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self):
        return self.param(self.param_name, self.draw, self.shape)


def drawn(name, draw, shape):
    """The array that flaxformer's tests had: Flax's draw from PRNGKey(0), by the generator of JAX before 0.5."""
    with jax.threefry_partitionable(False):
        return Drawn(name, draw, shape).init_with_output(jax.random.PRNGKey(0))[0]


def bias(bidirectional):
    return pe.T5Bias(heads=3, buckets=12, max_distance=10, bidirectional=bidirectional)


def t5_table():
    return {"table": drawn("rel_embedding", nn.linear.default_embed_init, (3, 12))}


# Of relative_position_biases_test.py and relative_position_biases_general_test.py: [head, query, key] -> value.
VALUES = {
    True: {(0, 0, 0): -0.10940, (1, 2, 1): -0.22087, (1, 4, 6): 0.27360, (2, 4, 6): -0.31798},
    False: {(0, 0, 0): -0.10940, (1, 2, 1): -0.22087, (1, 4, 6): -0.18996, (2, 4, 6): 0.3660492},
}


def assert_values(out, bidirectional):
    assert out.shape == (3, 5, 7)
    for at, value in VALUES[bidirectional].items():
        np.testing.assert_allclose(out[at], value, rtol=0, atol=5e-6)


def whole(bidirectional):
    bound = bias(bidirectional).bind(t5_table())
    return jax.jit(lambda: bound(pe.positions.arange(5), pe.positions.arange(7)))()


def by_bucket(bidirectional):
    """As LongT5 has it: the buckets first, of any distances, then their values."""
    distance = pe.positions.arange(7)[None, :] - pe.positions.arange(5)[:, None]
    return jnp.take(t5_table()["table"], bias(bidirectional).bucket(distance), axis=1)


def test_relative_attention_bidirectional_params():
    assert jax.tree.map(jnp.shape, pe.init(bias(True), jax.random.key(0))) == {"table": (3, 12)}


def test_relative_attention_unidirectional_params():
    assert jax.tree.map(jnp.shape, pe.init(bias(False), jax.random.key(0))) == {"table": (3, 12)}


def test_regression_relative_attention_bidirectional_values():
    assert_values(whole(True), True)


def test_regression_relative_attention_unidirectional_values():
    assert_values(whole(False), False)


def test_general_relative_attention_bidirectional_params():
    variables = linen.Scheme(bias(True)).init(jax.random.key(0), jnp.arange(5), jnp.arange(7))
    assert jax.tree.map(jnp.shape, variables) == {"params": {"table": (3, 12)}}


def test_general_relative_attention_unidirectional_params():
    variables = linen.Scheme(bias(False)).init(jax.random.key(0), jnp.arange(5), jnp.arange(7))
    assert jax.tree.map(jnp.shape, variables) == {"params": {"table": (3, 12)}}


def test_general_regression_relative_attention_bidirectional_values():
    assert_values(by_bucket(True), True)


def test_general_regression_relative_attention_unidirectional_values():
    assert_values(by_bucket(False), False)


def test_relative_attention_renamed_head_axis():
    module = linen.Scheme(bias(True), logical_axes={"table": ("relpos_heads", "relpos_buckets")})
    variables = module.init(jax.random.key(0), jnp.arange(5), jnp.arange(7))
    spec = nn.get_partition_spec(variables)["params"]["table"]
    assert tuple(spec) == ("relpos_heads", "relpos_buckets")


def test_relative_attention_decode_cache():
    """One query after the other has the rows, and flaxformer's numbers, of all at once."""
    bound = bias(False).bind(t5_table())
    step = jax.jit(lambda t: bound(pe.positions.arange(1, t), pe.positions.arange(7)))
    rows = jnp.concatenate([step(jnp.int32(t)) for t in range(5)], axis=1)
    assert_values(rows, False)
    np.testing.assert_array_equal(rows, whole(False))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_position_with_on_device_computation_exporting(bidirectional):
    """No array of [T, S], nor another large one, is a constant of the exported program: buckets are computed there."""
    call = jax.jit(lambda table, query, key: bias(bidirectional).bind({"table": table})(query, key))
    program = jax.export.export(call)(jnp.zeros((3, 12)), jnp.arange(50), jnp.arange(70)).mlir_module()
    constants = re.findall(r"stablehlo.constant .* : tensor<([^>]*)>", program)
    sizes = [math.prod(int(axis) for axis in re.findall(r"(\d+)x", constant)) for constant in constants]
    assert constants and max(sizes) < 50


@pytest.mark.parametrize("block", [-1, 0, 1])
def test_rpb_1d(block):
    """Four queries and the block of keys before, at or after them: 4 * 4 - 1 entries a head, the right ones of them."""
    scheme = pe.ClippedBias(heads=2, left=7, right=7)
    assert jax.tree.map(jnp.shape, pe.init(scheme, jax.random.key(0))) == {"table": (2, 15)}
    table = jnp.array([[1.0], [10.0]]) * jnp.arange(-7.0, 8.0)[None]
    queries = np.arange(4, 8)
    keys = queries + 4 * block
    out = scheme.bind({"table": table})(queries, keys)
    assert out.shape == (2, 4, 4)
    np.testing.assert_array_equal(out[1], 10.0 * (keys[None, :] - queries[:, None]))


def turned(q, k, *, base=10_000.0, dim=10, query_positions=None):
    rope = pe.RoPE(dim=dim, layout="half", base=base)
    at = pe.positions.arange(q.shape[1]) if query_positions is None else query_positions
    return call(rope, q, at), call(rope, k, pe.positions.arange(k.shape[1]))


def test_rotary_embedding():
    q, k = jnp.ones((2, 3, 4, 10)), jnp.ones((2, 6, 7, 10))
    out_q, out_k = turned(q, k)
    assert out_q.shape == q.shape and out_k.shape == k.shape


def test_rotary_embedding_multiquery():
    """One head of keys is an axis of size one here, and turns as each of many would."""
    q, k = jnp.ones((2, 3, 4, 10)), jnp.ones((2, 6, 1, 10))
    out_q, out_k = turned(q, k)
    assert out_q.shape == q.shape and out_k.shape == k.shape
    np.testing.assert_array_equal(out_k[:, :3], out_q[:, :, :1])


def test_rotary_embedding_decode():
    """The index of each row, 1 in flaxformer's test, is its position."""
    q, k = jnp.ones((2, 1, 4, 10)), jnp.ones((2, 6, 1, 10))
    out_q, out_k = turned(q, k, query_positions=jnp.ones((2, 1), jnp.int32))
    assert out_q.shape == q.shape and out_k.shape == k.shape
    np.testing.assert_array_equal(out_q[:, :, :1], out_k[:, 1:2])


@jax.jit
def turn_by(x, cos, sin):
    return pe.rotate(x, cos, sin, layout="half")


def test_perceiver_rotary_embedding():
    """By `rotate`, with cos and sin that are given."""
    x, table = jnp.ones((2, 3, 4, 10)), jnp.ones((3, 5))
    out = turn_by(x, table, table)
    assert out.shape == x.shape
    np.testing.assert_array_equal(out[..., :5], 0.0)
    np.testing.assert_array_equal(out[..., 5:], 2.0)


def test_perceiver_rotary_embedding_multiquery():
    x, table = jnp.ones((2, 6, 1, 10)), jnp.ones((6, 5))
    assert turn_by(x, table, table).shape == x.shape


def test_perceiver_rotary_embedding_decode():
    x, (cos, sin) = jnp.ones((2, 1, 4, 10)), pe.RoPE(dim=10, layout="half").cos_sin(jnp.array([[1], [2]]))
    out = turn_by(x, cos, sin)
    assert out.shape == x.shape
    assert (np.asarray(out[0]) != np.asarray(out[1])).any()


def test_perceiver_rotary_embedding_q_offset():
    """Three queries that begin at 2 in one row and at 3 in the other are those of the whole: [2, 5) and [3, 6)."""
    q, k = jnp.ones((2, 6, 4, 10)), jnp.ones((2, 6, 7, 10))
    full_q, full_k = turned(q, k, base=8.0)
    short_q, short_k = turned(q[:, :3], k, base=8.0, query_positions=pe.positions.arange(3, jnp.array([2, 3])))
    np.testing.assert_array_equal(short_k, full_k)
    np.testing.assert_array_equal(short_q[0], full_q[0, 2:5])
    np.testing.assert_array_equal(short_q[1], full_q[1, 3:])


def test_perceiver_rotary_embedding_to_subset():
    """Half of 12 channels turn; the others pass bit for bit."""
    q, k = jnp.ones((2, 6, 4, 12)), jnp.ones((2, 6, 7, 12))
    for x, out in zip((q, k), turned(q, k, base=8.0, dim=6), strict=True):
        assert out.shape == x.shape
        assert (np.asarray(out[:, 1:, :, :6]) != 1.0).all()
        np.testing.assert_array_equal(out[..., 6:], x[..., 6:])


def test_embedder_raises_exception_for_incorrect_input_type():
    module, ids = linen.TokenEmbed(vocabulary=10, features=5), np.arange(5, dtype=np.int64)[:, None]
    variables = module.init(jax.random.key(0), ids)
    with pytest.raises(TypeError, match="ids is float32"):
        module.apply(variables, ids.astype(np.float32))


@pytest.mark.parametrize(("draw", "total"), [(jax.nn.initializers.ones, 50), (jax.nn.initializers.zeros, 0)])
def test_embedding_initializes_correctly(draw, total):
    table = pe.Initializer((10, 5), draw)(jax.random.key(0))
    assert table.shape == (10, 5) and int(table.sum()) == total


def test_embedding_matrix_shape():
    variables = linen.TokenEmbed(vocabulary=10, features=5).init(jax.random.key(0), jnp.arange(5)[:, None])
    assert variables["params"]["table"].shape == (10, 5)


def test_embedding_attend():
    """The logits of a vector of ones are the sums of the rows."""
    module = linen.TokenEmbed(vocabulary=10, features=5)
    variables = module.init(jax.random.key(0), jnp.array([[1]]))
    out = module.apply(variables, jnp.ones(5), method="logits")
    np.testing.assert_allclose(out, variables["params"]["table"].sum(-1), rtol=0, atol=1e-6)


TOKENS, SEGMENTS = jnp.array([[0, 1, 2], [3, 4, 5]]), jnp.array([[0, 1, 1], [0, 0, 1]])


def summed(tables):
    """Of tokens, segments and positions."""
    positions = pe.LearnedPositions(length=12, features=5).bind({"table": tables["position"]})
    return pe.embed(tables["token"], TOKENS) + pe.embed(tables["segment"], SEGMENTS) + positions(jnp.arange(3))[None]


def tables():
    sizes = {"token": 10, "segment": 2, "position": 12}
    return {name: pe.normal(1.0, (size, 5))(jax.random.key(size)) for name, size in sizes.items()}


def test_multi_embed_returns_correct_shape():
    assert summed(tables()).shape == (*TOKENS.shape, 5)


def test_multi_embed_returns_nonempty_gradient():
    gradients = jax.grad(lambda tables: summed(tables).sum())(tables())
    np.testing.assert_array_equal(gradients["segment"][:, 0], [3.0, 3.0])
    np.testing.assert_array_equal(gradients["token"][:, 0], [1.0] * 6 + [0.0] * 4)
    np.testing.assert_array_equal(gradients["position"][:, 0], [2.0] * 3 + [0.0] * 9)


def counting(features):
    """A table whose entries are 0, 1, 2 ..."""
    scheme = pe.LearnedPositions(length=10, features=features)
    return scheme.bind({"table": jnp.arange(10.0 * features).reshape(10, features)})


def test_add_position_embs():
    out = counting(2)(jnp.array([[0, 1, 2], [0, 1, 2]]))
    np.testing.assert_array_equal(out, [[[0, 1], [2, 3], [4, 5]]] * 2)


def test_add_position_embs_decoder():
    """A traced position, so that the second step is the program of the first."""
    step = jax.jit(lambda index: counting(3)(pe.positions.arange(1, index)))
    np.testing.assert_array_equal(step(jnp.int32(0)), [[0, 1, 2]])
    np.testing.assert_array_equal(step(jnp.int32(1)), [[3, 4, 5]])


def test_add_position_embs_batch_decoder():
    """The rows have had 1 and 3 tokens: flaxformer's index is that of the last one, 0 and 2."""
    step = jax.jit(lambda index: counting(2)(pe.positions.arange(1, index)))
    np.testing.assert_array_equal(step(jnp.array([1, 3])), [[[2, 3]], [[6, 7]]])
    np.testing.assert_array_equal(step(jnp.array([2, 4])), [[[4, 5]], [[8, 9]]])


def fixed(positions):
    return call(pe.Sinusoidal(features=5, denominator="half_minus_1", odd="zero"), positions)


def test_add_sinusoidal_position_embs():
    expected = [[0.0, 0.0, 1.0, 1.0, 0.0], [0.84147, 0.0001, 0.540302, 1.0, 0.0]]
    np.testing.assert_allclose(fixed(jnp.arange(2)), expected, rtol=0, atol=1.5e-6)


def test_regression_add_position_embeddings_sine():
    """Its values are float32's: those of the paper's formula to one ulp, so they are asked of us to 1e-7."""
    expected = [
        [0.0, 0.0, 1.0, 1.0, 0.0],
        [0.8414709568023682, 9.999999747378752e-05, 0.5403022766113281, 1.0, 0.0],
        [0.9092974066734314, 0.00019999999494757503, -0.416146844625473, 1.0, 0.0],
        [0.14112000167369843, 0.00029999998514540493, -0.9899924993515015, 0.9999999403953552, 0.0],
        [-0.756802499294281, 0.00039999998989515007, -0.6536436080932617, 0.9999999403953552, 0.0],
        [-0.9589242935180664, 0.0004999999655410647, 0.28366219997406006, 0.9999998807907104, 0.0],
        [-0.279415488243103, 0.0005999999702908099, 0.9601702690124512, 0.9999998211860657, 0.0],
    ]
    np.testing.assert_allclose(fixed(jnp.arange(7)), expected, rtol=0, atol=1.3e-7)


def test_regression_add_position_embeddings_learned():
    table = drawn("pos_embedding", jax.nn.initializers.normal(stddev=1e-6), (32, 5))
    scheme = pe.LearnedPositions(length=32, features=5)
    assert jax.tree.map(jnp.shape, pe.init(scheme, jax.random.key(0))) == {"table": (32, 5)}
    expected = [
        [4.486782358981145e-07, -3.5457077274259063e-07, 1.0727929122822388e-07, 1.3890753791656607e-07],
        [-2.3853303332543874e-07, 8.467901011499634e-07, -8.650059157844225e-08, 3.407756707929366e-07],
        [-1.1156219414942825e-07, -6.10807489920262e-07, 1.5079198192324839e-06, 1.714607265057566e-07],
        [2.980690965159738e-07, 4.950079102172822e-08, 1.9940485174174682e-07, 7.134963198041078e-07],
        [7.398467261054975e-08, -4.966278197571228e-07, 8.895806757891478e-08, -4.5914887891740364e-07],
        [1.3519083950086497e-06, -1.0249741535517387e-06, -1.1988712458332884e-06, -6.748282288526752e-08],
        [-1.6119436168082757e-06, 1.0756450308235799e-07, -8.505542155035073e-07, 1.1778743100876454e-06],
    ]
    last = [-7.792502287884417e-07, -2.226069852895307e-07, -1.9881858861481305e-06, 1.5179145975707797e-06]
    last += [1.1332289204801782e-06, 1.18359389489342e-06, -1.000783186100307e-06]
    out = scheme.bind({"table": table})(pe.positions.arange(7))
    np.testing.assert_allclose(out, np.column_stack([expected, last]), rtol=1e-5)
