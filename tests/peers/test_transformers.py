"""What transformers tests of its rotary frequencies and of the dicts that ask for them."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from suites import File, Suite

from posembed_jax import hf

NAMES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
SUITE = Suite(
    peer="transformers",
    repository="huggingface/transformers",
    commit="a version of 2026 whose commit is not known: with `proportional`, 81,176 characters",
    licence="Apache-2.0",
    files=(
        File(
            path="tests/utils/test_modeling_rope_utils.py",
            here=(
                "test_rope_validation",
                "test_rope_bad_layer_types",
                "test_yarn_original_original_max_position_embeddings_validation",
                *(f"test_{name}_rope_numerically{nested}" for name in NAMES for nested in ("", "_nested")),
                "test_dynamic_rope_resets_after_long_sequence",
                "test_dynamic_rope_resets_after_long_sequence_nested",
            ),
            absent={
                "there is no configuration class: a dict is read once, without names of keys to ignore": (
                    "test_convert_rope_params_to_dict_with_list_ignore_keys",
                ),
            },
        ),
    ),
    notes=(
        "All frequencies are right to the five digits that transformers prints. transformers compares with an absolute "
        "tolerance of 1e-5, which is more than a third of its frequencies; here the tolerance is relative, half a unit "
        "of the fifth digit, and float32's own error.",
        'transformers refuses `{"rope_type": "yarn"}` without a factor. We took it for a factor of 1, which changes '
        "nothing; since this test was written we refuse it too, unless original_max_position_embeddings says "
        "the factor.",
        "A key that a rope type does not read is an error here and a warning there.",
        "A factor that is not max_position_embeddings / original_max_position_embeddings is a warning there; it is "
        "used there and here.",
        "`test_proportional_rope_numerically_nested` prints 64 frequencies, 16 of them not 0, for Gemma 3's heads of "
        "256 channels. transformers 5.23 gives 128 there, 32 of them not 0, and so do we.",
        "A length of 0, which transformers gives for LongRoPE's short factors, is refused: the shortest is 1.",
    ),
)

# The values that transformers' tests print, to five digits. Its default frequencies of 128 channels are every second
# one of those of 256, and those of each decade the digits of the first: 1.0000e+00, 9.3057e-01, 8.6596e-01 ...
DECADE = """10.000 9.3057 8.6596 8.0584 7.4989 6.9783 6.4938 6.0430 5.6234 5.2330 4.8697 4.5316 4.2170 3.9242 3.6517
    3.3982 3.1623 2.9427 2.7384 2.5483 2.3714 2.2067 2.0535 1.9110 1.7783 1.6548 1.5399 1.4330 1.3335 1.2409 1.1548
    1.0746"""
WIDE = np.concatenate([np.array(DECADE.split(), np.float64) / 10 ** (k + 1) for k in range(4)])
DEFAULT = WIDE[::2]
# dynamic: factor 10 at 16,384 of 2,048 positions, and at 200,000 of 131,072
DYNAMIC = """1.0000e+00 8.0931e-01 6.5498e-01 5.3008e-01 4.2900e-01 3.4720e-01 2.8099e-01 2.2741e-01 1.8404e-01
    1.4895e-01 1.2055e-01 9.7558e-02 7.8955e-02 6.3899e-02 5.1714e-02 4.1853e-02 3.3872e-02 2.7413e-02 2.2185e-02
    1.7955e-02 1.4531e-02 1.1760e-02 9.5176e-03 7.7027e-03 6.2339e-03 5.0451e-03 4.0831e-03 3.3045e-03 2.6744e-03
    2.1644e-03 1.7517e-03 1.4176e-03 1.1473e-03 9.2852e-04 7.5146e-04 6.0817e-04 4.9220e-04 3.9834e-04 3.2238e-04
    2.6091e-04 2.1115e-04 1.7089e-04 1.3830e-04 1.1193e-04 9.0585e-05 7.3312e-05 5.9332e-05 4.8018e-05 3.8861e-05
    3.1451e-05 2.5453e-05 2.0600e-05 1.6672e-05 1.3492e-05 1.0920e-05 8.8374e-06 7.1522e-06 5.7883e-06 4.6845e-06
    3.7912e-06 3.0683e-06 2.4832e-06 2.0097e-06 1.6265e-06"""
DYNAMIC_WIDE = """1.0000e+00 9.1723e-01 8.4131e-01 7.7168e-01 7.0781e-01 6.4922e-01 5.9548e-01 5.4620e-01 5.0099e-01
    4.5952e-01 4.2149e-01 3.8660e-01 3.5460e-01 3.2525e-01 2.9833e-01 2.7364e-01 2.5099e-01 2.3021e-01 2.1116e-01
    1.9368e-01 1.7765e-01 1.6295e-01 1.4946e-01 1.3709e-01 1.2574e-01 1.1533e-01 1.0579e-01 9.7033e-02 8.9001e-02
    8.1635e-02 7.4878e-02 6.8680e-02 6.2996e-02 5.7781e-02 5.2999e-02 4.8612e-02 4.4589e-02 4.0898e-02 3.7513e-02
    3.4408e-02 3.1560e-02 2.8948e-02 2.6552e-02 2.4354e-02 2.2338e-02 2.0489e-02 1.8793e-02 1.7238e-02 1.5811e-02
    1.4502e-02 1.3302e-02 1.2201e-02 1.1191e-02 1.0265e-02 9.4153e-03 8.6360e-03 7.9212e-03 7.2656e-03 6.6642e-03
    6.1126e-03 5.6067e-03 5.1426e-03 4.7170e-03 4.3265e-03 3.9684e-03 3.6400e-03 3.3387e-03 3.0623e-03 2.8089e-03
    2.5764e-03 2.3631e-03 2.1675e-03 1.9881e-03 1.8236e-03 1.6726e-03 1.5342e-03 1.4072e-03 1.2907e-03 1.1839e-03
    1.0859e-03 9.9603e-04 9.1359e-04 8.3797e-04 7.6862e-04 7.0500e-04 6.4665e-04 5.9312e-04 5.4403e-04 4.9900e-04
    4.5770e-04 4.1982e-04 3.8507e-04 3.5320e-04 3.2396e-04 2.9715e-04 2.7255e-04 2.4999e-04 2.2930e-04 2.1032e-04
    1.9291e-04 1.7695e-04 1.6230e-04 1.4887e-04 1.3655e-04 1.2524e-04 1.1488e-04 1.0537e-04 9.6648e-05 8.8648e-05
    8.1311e-05 7.4581e-05 6.8408e-05 6.2746e-05 5.7552e-05 5.2789e-05 4.8419e-05 4.4412e-05 4.0736e-05 3.7364e-05
    3.4271e-05 3.1435e-05 2.8833e-05 2.6446e-05 2.4257e-05 2.2250e-05 2.0408e-05 1.8719e-05 1.7170e-05"""
# yarn and llama3, factor 10: those between the default ones, before, and a tenth of them, after; (first index, values)
YARN = (
    17,
    """8.3479e-02 6.9590e-02 5.7925e-02 4.8136e-02 3.9931e-02 3.3061e-02 2.7315e-02 2.2515e-02 1.8512e-02 1.5177e-02
    1.2403e-02 1.0101e-02 8.1924e-03 6.6143e-03 5.3120e-03 4.2400e-03 3.3599e-03 2.6396e-03 2.0520e-03 1.5746e-03
    1.1882e-03 8.7713e-04 6.2810e-04 4.3007e-04""",
)
YARN_WIDE = (
    91,
    """1.4067e-03 1.2845e-03 1.1726e-03 1.0699e-03 9.7592e-04 8.8980e-04 8.1093e-04 7.3872e-04 6.7263e-04 6.1216e-04
    5.5684e-04 5.0625e-04 4.6001e-04 4.1774e-04 3.7912e-04 3.4386e-04 3.1166e-04 2.8228e-04 2.5547e-04 2.3103e-04
    2.0875e-04 1.8845e-04 1.6996e-04 1.5313e-04 1.3782e-04 1.2389e-04 1.1124e-04 9.9743e-05 8.9308e-05 7.9841e-05
    7.1258e-05 6.3483e-05 5.6443e-05 5.0075e-05 4.4319e-05 3.9121e-05 3.4431e-05""",
)
LLAMA3 = (
    31,
    """1.0730e-02 7.7785e-03 5.6009e-03 3.9991e-03 2.8248e-03 1.9675e-03 1.3449e-03 8.9549e-04 5.7363e-04 3.4539e-04""",
)
LLAMA3_WIDE = (
    62,
    """1.0730e-02 9.1428e-03 7.7785e-03 6.6067e-03 5.6009e-03 4.7383e-03 3.9991e-03 3.3661e-03 2.8248e-03 2.3623e-03
    1.9675e-03 1.6312e-03 1.3449e-03 1.1017e-03 8.9549e-04 7.2098e-04 5.7363e-04 4.4956e-04 3.4539e-04""",
)

CASES = pytest.mark.parametrize("case", ["nested, same", "nested", "flat"])
NESTED = pytest.mark.parametrize("case", ["nested, same", "nested"])
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}


def found(parameters, case="flat", **settings):
    """The rotations that these parameters are read as: of Llama, or of Gemma 3's full, or full and sliding, layers."""
    parameters = {"rope_theta": 10_000.0, **parameters}
    if case == "flat":
        config = {"model_type": "llama", "max_position_embeddings": 2048, "rope_parameters": parameters}
        return [hf.from_config(config | settings).rotation]
    sliding = parameters if case == "nested, same" else PLAIN
    config = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 2,
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {"full_attention": parameters, "sliding_attention": sliding},
    }
    rotations = hf.from_config(config | settings).rotations
    if case == "nested":
        assert rotations["sliding_attention"] == found(PLAIN, "nested, same", **settings)[1]
    return [rotations["full_attention"], rotations["sliding_attention"]][: 2 if case == "nested, same" else 1]


def frequencies(rope, length=None):
    rope = rope if length is None else dataclasses.replace(rope, length=length)
    return np.array(rope.frequencies(), np.float64)


def default_frequencies(case):
    return frequencies(found(PLAIN, case)[0])


def assert_printed(values, expected):
    """To the digits that are printed: half a unit of the fifth, and what float32 does to base ** exponent."""
    np.testing.assert_allclose(values, expected, rtol=5e-5 + 2e-6, atol=0)


def numbers(text):
    return np.array(text.split(), np.float64)


def between(default, part, factor):
    """The default ones, `part`, and default / factor."""
    first, text = part
    values = numbers(text)
    return np.concatenate([default[:first], values, default[first + len(values) :] / factor])


@CASES
def test_rope_validation(case):
    found(PLAIN, case)
    for name in set(NAMES) - {"default", "proportional"}:
        with pytest.raises(ValueError, match="needs"):
            found({"rope_type": name}, case)
    readers = {
        "factor": ["linear", "dynamic", "yarn", "longrope"],
        "attention_factor": ["yarn", "longrope"],
        "beta_fast": ["yarn"],
        "beta_slow": ["yarn"],
        "short_factor": ["longrope"],
        "long_factor": ["longrope"],
    }
    for name in set(NAMES) - {"default", "proportional"}:
        for key in readers:
            if name not in readers[key]:
                with pytest.raises(ValueError, match="needs"):
                    found({"rope_type": name, key: True}, case)
    with pytest.raises(ValueError, match="mrope_sections"):
        found({"rope_type": "default", "mrope_sections": True}, case)


def test_rope_bad_layer_types():
    """Layer types beside a dict that is not by layer type: transformers takes it for all layers, and so do we."""
    assert found(PLAIN, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]) == found(PLAIN)
    with pytest.raises(ValueError, match=r"layer_types has \['full', 'sliding'\], which this model type does not know"):
        found(PLAIN, num_hidden_layers=2, layer_types=["full", "sliding"])


@CASES
def test_yarn_original_original_max_position_embeddings_validation(case):
    longest = 2048 if case == "flat" else 131_072
    good = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": longest // 2}
    for rope in found(good, case):
        assert (rope.scaling.factor, rope.scaling.original_length) == (2.0, longest // 2)
    # Without it, transformers' models and we take max_position_embeddings; its validation alone does not.
    for rope in found({"rope_type": "yarn", "factor": 2.0}, case):
        assert (rope.scaling.factor, rope.scaling.original_length) == (2.0, longest)
    for rope in found(good | {"original_max_position_embeddings": 1}, case):
        assert (rope.scaling.factor, rope.scaling.original_length) == (2.0, 1)


def test_default_rope_numerically():
    (rope,) = found(PLAIN)
    assert rope.amplitude() == 1.0
    assert_printed(frequencies(rope), DEFAULT)


@NESTED
def test_default_rope_numerically_nested(case):
    for rope in found(PLAIN, case):
        assert rope.amplitude() == 1.0
        assert_printed(frequencies(rope), WIDE)


def check_linear(case):
    for factor in (2.0, 10.0, 20.0):
        for rope in found({"rope_type": "linear", "factor": factor}, case):
            assert rope.amplitude() == 1.0
            np.testing.assert_allclose(frequencies(rope), default_frequencies(case) / factor, rtol=1e-15)


def test_linear_rope_numerically():
    check_linear("flat")


@NESTED
def test_linear_rope_numerically_nested(case):
    check_linear(case)


def check_dynamic(case, length, expected):
    default = default_frequencies(case)
    for factor in (2.0, 10.0, 20.0):
        for rope in found({"rope_type": "dynamic", "factor": factor}, case):
            assert rope.amplitude() == 1.0
            np.testing.assert_array_equal(frequencies(rope, 1), default)
            traced = rope.bind({}, length=jnp.int32(1)).arrays["frequencies"]
            np.testing.assert_array_equal(traced, default.astype(np.float32))
    for rope in found({"rope_type": "dynamic", "factor": 10.0}, case):
        values = frequencies(rope, length)
        assert not np.allclose(values, default / 10.0, rtol=0.01), "it is not linear"
        assert_printed(values, numbers(expected))
        assert_printed(rope.bind({}, length=jnp.int32(length)).arrays["frequencies"], numbers(expected))


def test_dynamic_rope_numerically():
    check_dynamic("flat", 16_384, DYNAMIC)


@NESTED
def test_dynamic_rope_numerically_nested(case):
    check_dynamic(case, 200_000, DYNAMIC_WIDE)


def check_reset(case):
    """A long sequence leaves nothing behind: a short one after it turns as one before it."""
    config = {"hidden_size": 16, "num_attention_heads": 2, "head_dim": 8, "max_position_embeddings": 8}
    for rope in found({"rope_type": "dynamic", "factor": 4.0}, case, **config):
        before = rope.cos_sin(np.arange(4), length=4)
        long = rope.cos_sin(np.arange(32), length=32)
        after = rope.cos_sin(np.arange(4), length=4)
        np.testing.assert_array_equal(before, after)
        assert (np.asarray(long[1])[1:4, 1:] != np.asarray(after[1])[1:, 1:]).all()
        assert rope.dim == 8


def test_dynamic_rope_resets_after_long_sequence():
    check_reset("flat")


@NESTED
def test_dynamic_rope_resets_after_long_sequence_nested(case):
    check_reset(case)


def check_yarn(case, many_turns, expected):
    """many_turns: what makes a beta_fast of 1,000 begin the ramp at the first frequency."""
    default = default_frequencies(case)
    for factor in (2.0, 10.0, 20.0):
        for rope in found({"rope_type": "yarn", "factor": factor}, case):
            assert rope.amplitude() == 0.1 * math.log(factor) + 1.0
        for rope in found({"rope_type": "yarn", "factor": factor, "attention_factor": 0.5}, case):
            assert rope.amplitude() == 0.5
    yarn = {"rope_type": "yarn", "factor": 10.0, "beta_fast": 32, "beta_slow": 1}
    for rope in found(yarn, case):
        values = frequencies(rope)
        assert (default / 10.0 * (1 - 1e-15) <= values).all() and (values <= default * (1 + 1e-15)).all()
        assert_printed(values, expected)
    for rope in found(yarn | {"beta_fast": 1000} | many_turns, case):
        values = frequencies(rope)
        assert values[0] == default[0] and (values[1:] < default[1:]).all()
        np.testing.assert_allclose(values[-20:], default[-20:] / 10.0, rtol=1e-14)


def test_yarn_rope_numerically():
    check_yarn("flat", {}, between(DEFAULT, YARN, 10.0))


@NESTED
def test_yarn_rope_numerically_nested(case):
    check_yarn(case, {"original_max_position_embeddings": 8}, between(WIDE, YARN_WIDE, 10.0))


def check_longrope(case, longest):
    default = default_frequencies(case)
    short, long = [2.0] * len(default), [float(i + 1) for i in range(len(default))]
    factors = {"rope_type": "longrope", "short_factor": short, "long_factor": long}
    for factor in (2.0, 10.0, 20.0):
        for rope in found(factors | {"factor": factor}, case):
            assert rope.amplitude() == math.sqrt(1 + math.log(factor) / math.log(longest))
        with pytest.raises(
            ValueError, match=r"without \['factor'\], which nothing reads: attention_factor goes before"
        ):
            found(factors | {"factor": factor, "attention_factor": 0.5}, case)
    for rope in found(factors | {"attention_factor": 0.5}, case):
        assert rope.amplitude() == 0.5
    for rope in found(factors | {"factor": 1.0}, case):
        np.testing.assert_allclose(frequencies(rope, 1), default / short, rtol=1e-15)
        np.testing.assert_allclose(frequencies(rope, longest), default / short, rtol=1e-15)
        np.testing.assert_allclose(frequencies(rope, longest + 1), default / long, rtol=1e-15)


def test_longrope_rope_numerically():
    check_longrope("flat", 2048)


@NESTED
def test_longrope_rope_numerically_nested(case):
    check_longrope(case, 131_072)


def check_llama3(case, expected):
    default = default_frequencies(case)
    llama3 = {"rope_type": "llama3", "original_max_position_embeddings": 2048, "low_freq_factor": 1}
    for factor in (2.0, 10.0, 20.0):
        for rope in found(llama3 | {"factor": factor, "high_freq_factor": 4}, case):
            assert rope.amplitude() == 1.0
    for rope in found(llama3 | {"factor": 10.0, "high_freq_factor": 4}, case):
        values = frequencies(rope)
        assert (default / 10.0 * (1 - 1e-15) <= values).all() and (values <= default).all()
        assert_printed(values, expected)
    for rope in found(llama3 | {"factor": 10.0, "high_freq_factor": 1000}, case):
        assert (frequencies(rope) < default).all()


def test_llama3_rope_numerically():
    check_llama3("flat", between(DEFAULT, LLAMA3, 10.0))


@NESTED
def test_llama3_rope_numerically_nested(case):
    check_llama3(case, between(WIDE, LLAMA3_WIDE, 10.0))


def check_proportional(case, expected):
    default = default_frequencies(case)

    def values(fraction, factor=None):
        parameters = {"rope_type": "proportional", "partial_rotary_factor": fraction}
        ropes = found(parameters | ({} if factor is None else {"factor": factor}), case)
        assert all(rope.amplitude() == 1.0 and rope.dim == 2 * len(default) for rope in ropes)
        assert all(rope == ropes[0] for rope in ropes)
        return frequencies(ropes[0])

    for fraction in (1.0, 0.5, 0.25):
        turning = int(fraction * len(default))
        assert (values(fraction)[:turning] != 0).all() and (values(fraction)[turning:] == 0).all()
        np.testing.assert_array_equal(values(fraction)[:turning], default[:turning])
    np.testing.assert_array_equal(values(1.0, 1.0), default)
    for factor in (2.0, 10.0):
        (linear, *_) = found({"rope_type": "linear", "factor": factor}, case)
        np.testing.assert_array_equal(values(1.0, factor), frequencies(linear))
    np.testing.assert_allclose(values(0.5, 2.0), values(0.5, 1.0) / 2.0, rtol=1e-15)
    assert_printed(values(0.25), expected)


def test_proportional_rope_numerically():
    check_proportional("flat", np.concatenate([DEFAULT[:16], np.zeros(48)]))


@NESTED
def test_proportional_rope_numerically_nested(case):
    check_proportional(case, np.concatenate([WIDE[:32], np.zeros(96)]))
