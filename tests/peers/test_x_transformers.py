"""What x-transformers tests of rotary embeddings and ALiBi: positions of one's own, padding in front, and decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import File, Suite

import posembed_jax as pe
from posembed_jax import linen

SUITE = Suite(
    peer="x-transformers",
    repository="lucidrains/x-transformers",
    commit="9252ed7838021ee61e6c5be0930b3a9a88efdf06",
    licence="MIT",
    files=(
        File(
            path="tests/test_x_transformers.py",
            here=(
                "test_cope",
                "test_custom_alibi",
                "test_custom_rotary_pos_emb",
                "test_cross_attn_rotary",
                "test_seq_start_pos_parity",
                "test_pos_emb_parity",
                "test_relative_proj_positional_bias",
            ),
            absent={
                "positions are those of tokens, the same in all heads": ("test_custom_alibi_across_heads",),
            },
        ),
    ),
    notes=(
        "x-transformers mostly asks whether its models run; here the outputs are compared with float64 attention.",
        "Its `polar_pos_emb` (PoPE) doubles the channels of the head, and is not here: `test_pos_emb_parity` is of "
        "RoPE, XPos, ALiBi and T5's bias instead.",
    ),
)


def attention(q, k, v, bias=0.0):
    """float64, `[B, T, N, D]`."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = np.einsum("btnd,bsnd->bnts", q, k) * q.shape[-1] ** -0.5 + bias
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bnts,bsnd->btnd", weights / weights.sum(-1, keepdims=True), v)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_custom_alibi(implementation):
    """Positions of each row, with gaps; as one array of logits, and tile by tile."""
    at = np.array([[0, 1, 2, 4], [1, 3, 5, 7]])
    q, k, v = normal(0, 3, 2, 4, 8, 16)
    bias = pe.ALiBi(heads=8).bind({})
    out = pe.attend(q, k, v, bias=bias, query_positions=at, key_positions=at, implementation=implementation)
    slopes = 2.0 ** -np.arange(1.0, 9.0)
    expected = attention(q, k, v, -slopes[:, None, None] * np.abs(at[:, None, None, :] - at[:, None, :, None]))
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)


ROTATIONS = {
    "rotary": pe.RoPE(dim=8, layout="half"),
    "xpos": pe.XPos(rope=pe.RoPE(dim=8, layout="interleaved"), centre=8),
}


def layer(name):
    schemes = {"alibi": pe.ALiBi(heads=4), "t5": pe.T5Bias(heads=4, bidirectional=False)}
    if name in ROTATIONS:
        return linen.Attention(heads=4, head_dim=8, rotation=ROTATIONS[name])
    return linen.Attention(heads=4, head_dim=8, bias=schemes[name])


@pytest.mark.parametrize("name", list(ROTATIONS))
def test_custom_rotary_pos_emb(name):
    """Positions of all rows, given for each, are those of one row for all."""
    module, x = layer(name), normal(0, 4, 4, 32)
    variables = jax.jit(module.init)(jax.random.key(0), x, jnp.arange(4))
    apply = jax.jit(module.apply)
    np.testing.assert_array_equal(
        apply(variables, x, jnp.tile(jnp.arange(4)[None], (4, 1))), apply(variables, x, jnp.arange(4))
    )


@pytest.mark.parametrize("own_positions", [False, True])
@pytest.mark.parametrize("turn_context", [False, True])
def test_cross_attn_rotary(own_positions, turn_context):
    """Queries of 6 tokens and keys of a context of 11, each turned by its own positions, or the context not at all."""
    q, k, v = normal(0, 1, 6, 4, 8), normal(1, 1, 11, 4, 8), normal(2, 1, 11, 4, 8)
    at = np.arange(3, 9) if own_positions else np.arange(6)
    bound = ROTATIONS["rotary"].bind({})

    @jax.jit
    def out(q, k, v):
        turned = bound(k, jnp.arange(11)) if turn_context else k
        return pe.attend(bound(q, at), turned, v, implementation="reference")

    def turned(x, positions):
        angle = (positions[:, None] * 10_000.0 ** (-np.arange(4) / 4))[:, None]
        a, b = np.split(np.asarray(x, np.float64), 2, axis=-1)
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)

    keys = turned(k, np.arange(11)) if turn_context else k
    np.testing.assert_allclose(out(q, k, v), attention(turned(q, at), keys, v), rtol=0, atol=2e-6)


NAMES = ["rotary", "xpos", "alibi", "t5"]


@pytest.mark.parametrize("name", NAMES)
def test_seq_start_pos_parity(name):
    """Rows that begin at 5 and at 0: all at once, and one token after the other with a cache."""
    module, x = layer(name), normal(0, 2, 10, 32)
    mask = np.arange(10) >= np.array([[5], [0]])
    segments = mask.astype(np.int32)
    variables = jax.jit(module.init)(jax.random.key(0), x, jnp.arange(10))
    whole = jax.jit(lambda x: module.apply(variables, x, pe.positions.from_mask(mask), segment_ids=segments))(x)
    step = jax.jit(lambda x, segments, cache: module.apply(variables, x, segment_ids=segments, cache=cache))
    cache, outs = pe.KVCache.empty(batch=2, capacity=10, heads=4, dim=8), []
    for i in range(10):
        out, cache = step(x[:, i : i + 1], segments[:, i : i + 1], cache)
        outs.append(out)
    assert cache.lengths.tolist() == [5, 10]
    np.testing.assert_allclose(np.concatenate(outs, axis=1)[mask], np.asarray(whole)[mask], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_pos_emb_parity(name):
    """A prompt of 10 tokens, then 4 one by one: the last outputs are those of all at once."""
    module, x = layer(name), normal(0, 2, 15, 32)
    variables = jax.jit(module.init)(jax.random.key(0), x, jnp.arange(15))
    whole = jax.jit(lambda x: module.apply(variables, x, jnp.arange(15)))(x)
    step = jax.jit(lambda x, cache: module.apply(variables, x, cache=cache))
    out, cache = step(x[:, :10], pe.KVCache.empty(batch=2, capacity=15, heads=4, dim=8))
    outs = [out[:, -1:]]
    for i in range(10, 14):
        out, cache = step(x[:, i : i + 1], cache)
        outs.append(out)
    np.testing.assert_allclose(jnp.concatenate(outs, axis=1), whole[:, 9:14], rtol=0, atol=2e-6)


def test_cope():
    """4 heads of 2 channels and, as x-transformers has it, 16 positions; the count of gates in float64."""
    scheme = pe.CoPE(heads=4, dim=2, length=16)
    params = {"table": normal(3, 1, 16, 2)}
    q, k, v = normal(0, 3, 1, 48, 4, 2)
    out = jax.jit(lambda q, k, v: pe.attend(q, k, v, bias=scheme.bind(params), causal=True))(q, k, v)
    logits = np.einsum("btnd,bsnd->bnts", q.astype(np.float64), k) * 2**-0.5
    seen = np.tril(np.ones((48, 48), bool))
    gates = np.where(seen, 1 / (1 + np.exp(-logits)), 0.0)
    place = np.minimum(np.cumsum(gates[..., ::-1], -1)[..., ::-1], 15.0)
    at_rows = np.einsum("btnd,rd->bntr", q.astype(np.float64), params["table"][0])
    low, high = (np.take_along_axis(at_rows, f(place).astype(int), -1) for f in (np.floor, np.ceil))
    share = place - np.floor(place)
    expected = attention(q, k, v, np.where(seen, (1 - share) * low + share * high, -np.inf))
    np.testing.assert_allclose(out, expected, rtol=0, atol=5e-6)


def test_relative_proj_positional_bias():
    """16 profiles of 64 distances that each token mixes; nothing for keys after the query; and a gradient."""
    scheme = pe.RelativeLogits(heads=4, features=16, extent=64)
    params, states = {"profiles": normal(3, 1, 64, 16)}, normal(0, 2, 10, 4, 16)
    at = jnp.arange(10)

    @jax.jit
    def bias(params):
        return scheme.bind(params)(states, normal(1, 2, 10, 4, 16), at, at)

    distance = np.arange(10)[:, None] - np.arange(10)[None, :]
    profiles = params["profiles"][0].astype(np.float64)[np.maximum(distance, 0)]
    expected = np.where(distance >= 0, np.einsum("btnf,tsf->bnts", states.astype(np.float64), profiles), 0.0)
    out = bias(params)
    assert out.shape == (2, 4, 10, 10)
    np.testing.assert_allclose(out, expected, rtol=0, atol=5e-6)
    gradient = jax.grad(lambda params: bias(params).sum())(params)["profiles"]
    assert np.asarray(gradient)[0, :10].all() and not np.asarray(gradient)[0, 10:].any()
