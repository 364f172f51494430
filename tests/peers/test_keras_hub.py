"""What keras-hub tests of its layers of rotary, sinusoidal, learned and token embeddings and of its ALiBi."""

import dataclasses
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import File, Suite, call

import posembed_jax as pe
from posembed_jax import linen

LAYERS = "keras_hub/src/layers/modeling/"
SUITE = Suite(
    peer="keras-hub",
    repository="keras-team/keras-hub",
    commit="71453d08f59edc90d276e999319fc51e61cbf82c, and `reversible_embedding_test.py`, which is in Keras since, at "
    "0b647e47a28952219b1931ff43d4e2ff2cee341f",
    licence="Apache-2.0",
    files=(
        File(
            path=f"{LAYERS}rotary_embedding_test.py",
            prefix="rotary_",
            here=(
                "test_layer_behaviors",
                "test_layer_behaviors_4d",
                "test_dynamic_layer_output_shape",
                "test_output_correct_values",
                "test_start_index",
                "test_float16_dtype",
                "test_positions_1d_array",
                "test_positions_2d_array",
                "test_rope_scaling",
                "test_rope_scaling_with_kv_cache",
            ),
            absent={
                "x is [T, N, D] or [B, T, N, D]; jax.vmap adds axes and jnp.moveaxis moves them": (
                    "test_multi_dimension_layer_output_shape",
                    "test_permuted_axes",
                )
            },
        ),
        File(
            path=f"{LAYERS}sine_position_encoding_test.py",
            prefix="sine_",
            here=(
                "test_layer_behaviors",
                "test_layer_behaviors_4d",
                "test_static_layer_output_shape",
                "test_dynamic_layer_output_shape",
                "test_multi_dimension_layer_output_shape",
                "test_output_correct_values",
                "test_start_index",
                "test_positions",
            ),
        ),
        File(
            path=f"{LAYERS}position_embedding_test.py",
            prefix="learned_",
            here=(
                "test_layer_behaviors",
                "test_layer_behaviors_4d",
                "test_float16_dtype",
                "test_dynamic_layer_output_shape",
                "test_dynamic_layer_slicing",
                "test_callable_initializer",
                "test_start_index",
                "test_positions",
                "test_explicit_positions_take_precedence",
            ),
            absent={
                "embeddings are of positions, and added to what they are added to by `+`, which broadcasts": (
                    "test_more_than_3_dimensions_dynamic",
                ),
                "there is no serving context: positions are always given": (
                    "test_no_serving_context_matches_slice_path",
                ),
            },
        ),
        File(
            path=f"{LAYERS}token_and_position_embedding_test.py",
            prefix="token_",
            here=("test_layer_behaviors",),
            absent={
                "a mask does not travel with activations: `masks.padding` makes it where it is used": (
                    "test_mask_propagation",
                )
            },
        ),
        File(
            path=f"{LAYERS}alibi_bias_test.py",
            prefix="alibi_",
            here=(
                "test_layer_behaviors",
                "test_float16_dtype",
                "test_dynamic_layer_output_shape",
                "test_value_error_when_inputs_shape_is_not_4",
                "test_num_heads_is_not_power_of_two",
                "test_correct_output",
                "test_correct_output_num_heads_not_power_of_two",
                "test_correct_output_alibi_bias_max",
                "test_correct_output_alibi_bias_max_num_heads_not_power_of_two",
            ),
        ),
        File(
            path=f"{LAYERS}reversible_embedding_test.py",
            prefix="reversible_",
            here=("test_layer_behaviors_tied", "test_correctness", "test_reverse_dtype"),
            absent={
                "parameters are arrays in a dict, which Orbax or numpy saves": ("test_saving",),
                "tables are not quantized": ("test_quantize_int8", "test_quantize_dtype_argument"),
            },
        ),
    ),
    notes=(
        "T5's bias, which keras-hub has inside its T5 attention, has no tests there; flaxformer's and transformers' "
        "numbers are what ours is held to.",
        "All numbers agree. Two of `SinePositionEncoding` are cut off rather than rounded: cos(3 * 10000^(-2/3)) is "
        "0.99998 to five digits, not 0.99997, and sin(0.01) is 0.0100, not 0.009999; they are compared to 1e-5.",
        "The outputs of RoPE with scaled positions come from transformers' float32: they are within 3e-7 of float64, "
        "and ours within 1e-7.",
        "In half precision keras-hub asks only for the dtype. Its sinusoids there are made of positions and angles in "
        "half precision, which merges neighbours; ours are float32, and cast after.",
    ),
)


def behaves(scheme, parameters=0):
    """What `run_layer_test` asks of layers, asked of settings: they are written, read, compared, and have arrays."""
    assert type(scheme)(**{f.name: getattr(scheme, f.name) for f in dataclasses.fields(scheme)}) == scheme
    assert pickle.loads(pickle.dumps(scheme)) == scheme and hash(pickle.loads(pickle.dumps(scheme))) == hash(scheme)
    assert len(pe.init(scheme, jax.random.key(0))) == parameters


def uniform(*shape):
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def exported_shape(f, *shapes):
    """The shape of the output where B and T are not known until it runs; a shape is of float32, positions are "T"."""
    b, t = jax.export.symbolic_shape("B, T")
    sizes = {"B": b, "T": t}
    arguments = [
        jax.ShapeDtypeStruct((b, t), jnp.int32)
        if shape == "T"
        else jax.ShapeDtypeStruct(tuple(sizes.get(axis, axis) for axis in shape), jnp.float32)
        for shape in shapes
    ]
    (out,) = jax.export.export(jax.jit(lambda *a: f(*a)))(*arguments).out_avals
    return tuple(str(axis) if axis in (b, t) else axis for axis in out.shape)


def step_by_step(f, length):
    """f of one position after the other, joined; one program."""
    one = jax.jit(lambda i: f(pe.positions.arange(1, i)))
    return jnp.concatenate([one(jnp.int32(i)) for i in range(length)], axis=-2)


# RotaryEmbedding: max_wavelength is base, scaling_factor is Linear, and the layout is "half".


def rope(dim, base=10_000.0, scaling=None):
    return pe.RoPE(dim=dim, layout="half", base=base, scaling=scaling)


def test_rotary_layer_behaviors():
    """Without heads: an axis of one."""
    scheme = rope(6, base=1000.0, scaling=pe.Linear(factor=2.0))
    behaves(scheme)
    x = uniform(2, 4, 1, 6)
    assert call(scheme, x, pe.positions.arange(4)).shape == (2, 4, 1, 6)


def test_rotary_layer_behaviors_4d():
    scheme = rope(6, base=1000.0)
    behaves(scheme)
    assert call(scheme, uniform(2, 8, 4, 6), pe.positions.arange(8)).shape == (2, 8, 4, 6)


def test_rotary_dynamic_layer_output_shape():
    assert exported_shape(rope(32).bind({}), ("B", "T", 1, 32), "T") == ("B", "T", 1, 32)


def test_rotary_output_correct_values():
    out = call(rope(6), jnp.ones((4, 1, 6)), pe.positions.arange(4))[:, 0]
    np.testing.assert_array_equal(out[0], np.ones(6))
    np.testing.assert_allclose(out[3], [-1.1311, 0.8515, 0.9935, -0.8489, 1.1291, 1.0064], rtol=0, atol=5.1e-5)


def test_rotary_start_index():
    x, scheme = uniform(2, 3, 1, 4), rope(4)
    whole = call(scheme, x, pe.positions.arange(3))
    one = jax.jit(lambda x, i: scheme.bind({})(x, pe.positions.arange(1, i)))
    steps = [one(x[:, i : i + 1], jnp.int32(i)) for i in range(3)]
    np.testing.assert_array_equal(whole, jnp.concatenate(steps, axis=1))


def test_rotary_float16_dtype():
    """And the angles are not half precision: the output is the float32 one, rounded once."""
    x, at = uniform(100, 1, 32).astype(np.float16), pe.positions.arange(100, 2000)
    out = call(rope(32), x, at)
    assert out.dtype == jnp.float16
    exact = call(rope(32), x.astype(np.float32), at)
    np.testing.assert_array_equal(out, exact.astype(jnp.float16))


# The values that keras-hub gives for numpy's default_rng(0).standard_normal((2, 2, 1, 16)) at positions [0, 0], [0, 1].
TURNED = """
    0.12573022 -0.13210486 0.64042264 0.10490011 -0.5356694 0.36159506 1.304 0.94708097
    -0.70373523 -1.2654215 -0.62327445 0.04132598 -2.3250308 -0.21879166 -1.245911 -0.7322674
    -0.544259 -0.31630015 0.41163054 1.0425134 -0.12853466 1.3664634 -0.6651947 0.35151008
    0.90347016 0.0940123 -0.7434993 -0.9217254 -0.45772582 0.22019513 -1.0096182 -0.20917557
    -0.159225017 0.540845573 0.214659125 0.355372697 -0.653828621 -0.129613638 0.783975482 1.49343109
    -1.25906551 1.51392376 1.34587538 0.781311393 0.264455616 -0.313922822 1.45802069 1.96025836
    0.611709595 1.03343689 0.47380957 -1.18679309 -8.96309502e-05 0.660170913 -1.29010022 0.395278841
    1.74827969 1.07050526 -1.14252377 -0.699575782 -0.436457992 -1.1677202 1.73807859 -0.495785743
"""
TURNED = np.array(TURNED.split(), np.float64).reshape(2, 2, 1, 16)


def normals(rows):
    return np.random.default_rng(0).standard_normal(size=(rows, 2, 1, 16)).astype(np.float32)


def test_rotary_positions_1d_array():
    """At position 0 nothing turns, bit for bit."""
    out = call(rope(16), normals(1), jnp.array([0, 0]))
    np.testing.assert_array_equal(out, normals(1))
    np.testing.assert_allclose(out, TURNED[:1], rtol=1e-7)


def test_rotary_positions_2d_array():
    out = call(rope(16), normals(2), jnp.array([[0, 0], [0, 1]]))
    np.testing.assert_allclose(out, TURNED, rtol=0, atol=2.5e-7)


def assert_scaled(at, factor, expected):
    """keras-hub's numbers of ones that are turned, and, closer, float64's."""
    x = jnp.ones((len(at), 2, 4))
    out = call(rope(4, scaling=pe.Linear(factor=factor)), x, jnp.array(at))
    expected = np.array(expected)
    np.testing.assert_allclose(out, np.stack([expected] * 2, axis=1), rtol=0, atol=4e-7)
    angle = np.array(at)[:, None] / factor * np.array([1.0, 0.01])
    true = np.concatenate([np.cos(angle) - np.sin(angle), np.cos(angle) + np.sin(angle)], axis=-1)
    np.testing.assert_allclose(expected, true, rtol=0, atol=3e-7)
    np.testing.assert_allclose(out[:, 0], true, rtol=0, atol=1.3e-7)


def test_rotary_rope_scaling():
    expected = [
        [1.0, 1.0, 1.0, 1.0],
        [0.398157001, 0.994987488, 1.357008100, 1.004987478],
        [-0.301168621, 0.989950180, 1.381773233, 1.009949803],
    ]
    assert_scaled([0, 1, 2], 2.0, expected)


def test_rotary_rope_scaling_with_kv_cache():
    assert_scaled([12], 5.0, [[-1.412856817, 0.975714266, -0.061930716, 1.023709655]])


# SinePositionEncoding: interleaved, with the frequencies of the original transformer.


def sine(features):
    return pe.Sinusoidal(features=features, layout="interleaved")


def test_sine_layer_behaviors():
    behaves(sine(6))
    assert (uniform(2, 4, 6) + call(sine(6), jnp.arange(4))[None]).shape == (2, 4, 6)


def test_sine_layer_behaviors_4d():
    assert (uniform(1, 2, 4, 6) + call(sine(6), jnp.arange(4))[None, None]).shape == (1, 2, 4, 6)


def test_sine_static_layer_output_shape():
    assert jax.eval_shape(lambda at: sine(32).bind({})(at), jnp.arange(100)).shape == (100, 32)


def test_sine_dynamic_layer_output_shape():
    assert exported_shape(sine(32).bind({}), "T") == ("B", "T", 32)


def test_sine_multi_dimension_layer_output_shape():
    """More axes in front are `jax.vmap`'s."""
    at = jnp.zeros((3, 2, 100), jnp.int32)
    assert jax.eval_shape(jax.vmap(lambda at: sine(32).bind({})(at)), at).shape == (3, 2, 100, 32)


def test_sine_output_correct_values():
    out = call(sine(6), jnp.arange(4))
    np.testing.assert_array_equal(out[0], [0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(out[3], [0.14112, -0.98999, 0.13879, 0.99032, 0.00646, 0.99997], rtol=0, atol=1e-5)
    assert round(math.cos(3 * 10_000 ** (-2 / 3)), 5) == 0.99998 == round(float(out[3, 5]), 5)


def test_sine_start_index():
    bound = sine(4).bind({})
    np.testing.assert_array_equal(call(sine(4), jnp.arange(3)), step_by_step(bound, 3))


def test_sine_positions():
    out = call(sine(4), jnp.array([[0, 1], [1, 0]]))
    first, second = [0.0, 1.0, 0.0, 1.0], [0.84147, 0.54030, 0.009999, 0.99995]
    np.testing.assert_allclose(out, [[first, second], [second, first]], rtol=0, atol=5e-6)


# PositionEmbedding


def learned(length, features):
    return pe.LearnedPositions(length=length, features=features)


def bound_table(length, features):
    scheme = learned(length, features)
    params = pe.init(scheme, jax.random.key(0))
    return scheme.bind(params), np.asarray(params["table"])


def test_learned_layer_behaviors():
    behaves(learned(21, 30), parameters=1)
    bound, _ = bound_table(21, 30)
    assert (uniform(4, 21, 30) + bound(jnp.arange(21))[None]).shape == (4, 21, 30)


def test_learned_layer_behaviors_4d():
    bound, _ = bound_table(21, 30)
    assert (uniform(4, 5, 21, 30) + bound(jnp.arange(21))[None, None]).shape == (4, 5, 21, 30)


def test_learned_float16_dtype():
    """Of a table in half precision, rows are float32, to be cast where they are added; the cast gives them back."""
    module = linen.Scheme(learned(21, 30), param_dtype=jnp.float16)
    out, variables = module.init_with_output(jax.random.key(0), jnp.arange(21))
    assert out.dtype == jnp.float32 and out.shape == (21, 30)
    np.testing.assert_array_equal(out.astype(jnp.float16), variables["params"]["table"])


def test_learned_dynamic_layer_output_shape():
    f = lambda table, at: learned(40, 30).bind({"table": table})(at)  # noqa: E731
    assert exported_shape(f, (40, 30), "T") == ("B", "T", 30)


def test_learned_dynamic_layer_slicing():
    bound, table = bound_table(40, 30)
    np.testing.assert_array_equal(bound(jnp.arange(17)), table[:17])


def test_learned_callable_initializer():
    counting = pe.Initializer((4, 3), lambda key, shape, dtype: jnp.arange(12, dtype=dtype).reshape(shape))
    out = learned(4, 3).bind({"table": counting(jax.random.key(0))})(jnp.arange(4))
    np.testing.assert_array_equal(out, np.arange(12.0).reshape(4, 3))


def test_learned_start_index():
    bound, table = bound_table(3, 4)
    np.testing.assert_array_equal(step_by_step(bound, 3), table)


def test_learned_positions():
    bound, table = bound_table(4, 5)
    at = np.array([[0, 0, 1, 2], [1, 2, 3, 0]])
    np.testing.assert_array_equal(bound(at), table[at])


def test_learned_explicit_positions_take_precedence():
    bound, table = bound_table(4, 5)
    at = np.array([[3, 1, 0, 2], [0, 0, 2, 3]])
    np.testing.assert_array_equal(jax.jit(lambda at: bound(at))(at), table[at])


def test_token_layer_behaviors():
    """Tables of ones: tokens and positions add up to two."""
    ids, positions = np.random.default_rng(0).integers(0, 5, (2, 4)), learned(4, 3).bind({"table": jnp.ones((4, 3))})
    out = pe.embed(jnp.ones((5, 3)), ids) + positions(jnp.arange(4))[None]
    np.testing.assert_array_equal(out, np.full((2, 4, 3), 2.0))


# AlibiBias, which is of the last queries of the keys: one query and three keys are positions [2] and [0, 1, 2].


def alibi(heads, queries, keys, bias_max=8.0):
    scheme = pe.ALiBi(heads=heads, bias_max=bias_max)
    return call(scheme, pe.positions.arange(queries, keys - queries), pe.positions.arange(keys))


def assert_alibi(heads, nearest, bias_max=8.0):
    """`nearest`: what keras-hub has for the key before the query; that before it has twice as much."""
    nearest = np.array(nearest)
    expected = np.stack([2 * nearest, nearest, 0 * nearest], axis=-1)[:, None]
    np.testing.assert_allclose(alibi(heads, 1, 3, bias_max), expected, rtol=1e-7, atol=5e-9)


def test_alibi_layer_behaviors():
    behaves(pe.ALiBi(heads=8, bias_max=8.0))
    assert (uniform(4, 8, 10, 10) + alibi(8, 10, 10)[None]).shape == (4, 8, 10, 10)


def test_alibi_float16_dtype():
    """The bias is float32, and attention float16 as its queries are."""
    q, k = np.ones((1, 5, 8, 4), np.float16), np.ones((1, 10, 8, 4), np.float16)
    assert alibi(8, 5, 10).dtype == jnp.float32 and alibi(8, 5, 10).shape == (8, 5, 10)
    where = {"query_positions": np.arange(5, 10), "key_positions": np.arange(10)}
    out = pe.attend(q, k, k, bias=pe.ALiBi(heads=8).bind({}), **where, implementation="reference")
    assert out.dtype == jnp.float16 and out.shape == q.shape


def test_alibi_dynamic_layer_output_shape():
    assert exported_shape(pe.ALiBi(heads=4).bind({}), "T", "T") == ("B", 4, "T", "T")


def test_alibi_value_error_when_inputs_shape_is_not_4():
    with pytest.raises(AssertionError, match="query_positions is"):
        pe.ALiBi(heads=4).bind({})(jnp.zeros((2, 2, 2), jnp.int32), jnp.arange(3))


def test_alibi_num_heads_is_not_power_of_two():
    assert alibi(12, 12, 12).shape == (12, 12, 12)


EIGHT = [-0.5, -0.25, -0.125, -0.0625, -0.03125, -0.015625, -0.0078125, -0.00390625]


def test_alibi_correct_output():
    assert_alibi(8, EIGHT)


def test_alibi_correct_output_num_heads_not_power_of_two():
    rest = [-0.70710677, -0.35355338, -0.17677669, -0.08838835, -0.04419417, -0.02209709]
    assert_alibi(14, [*EIGHT, *rest])


def test_alibi_correct_output_alibi_bias_max():
    assert_alibi(2, [-0.015625, -0.00024414], bias_max=12.0)


def test_alibi_correct_output_alibi_bias_max_num_heads_not_power_of_two():
    assert_alibi(3, [-0.125, -0.015625, -0.35355338], bias_max=6.0)


# ReversibleEmbedding


@pytest.mark.parametrize("tied", [True, False])
def test_reversible_layer_behaviors_tied(tied):
    """Another table for the logits is another argument."""
    module, ids = linen.TokenEmbed(vocabulary=100, features=32), np.arange(40).reshape(4, 10)
    x, variables = module.init_with_output(jax.random.key(0), ids)
    assert x.shape == (4, 10, 32) and len(jax.tree.leaves(variables)) == 1
    table = variables["params"]["table"] if tied else pe.normal(0.02, (100, 32))(jax.random.key(1))
    assert pe.logits(table, x).shape == (4, 10, 100)
    assert np.array_equal(pe.logits(table, x), module.apply(variables, x, method="logits")) == tied


def test_reversible_correctness():
    """A soft cap is `cap * tanh(logits / cap)` of the logits: 3.320184 and 4.168273 for 5."""
    table = jnp.array([[0.0, 0.0], [2.0, 2.0], [3.0, 3.0]])
    np.testing.assert_array_equal(pe.embed(table, np.array([2, 1, 0])), [[3.0, 3.0], [2.0, 2.0], [0.0, 0.0]])
    logits = pe.logits(table, jnp.array([[1.0, 1.0]]))
    np.testing.assert_array_equal(logits, [[0.0, 4.0, 6.0]])
    np.testing.assert_allclose(5.0 * jnp.tanh(logits / 5.0), [[0.0, 3.320184, 4.168273]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_reversible_reverse_dtype(dtype):
    out = pe.logits(jnp.ones((100, 16)), jnp.ones((4, 10, 16)), dtype=dtype)
    assert out.shape == (4, 10, 100) and out.dtype == dtype
