"""Values against references of a few lines in float64, written from the definitions and not from the package."""

import itertools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import posembed_jax as pe

B, T, S, N, K, D = 2, 5, 7, 6, 3, 10
RNG = np.random.default_rng(0)

call = jax.jit(lambda bound, *args, **kwargs: bound(*args, **kwargs), static_argnames="inverse")
cos_sin = jax.jit(pe.RoPE.cos_sin, static_argnums=0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# Sinusoids


def sinusoid(positions, features, layout, denominator, odd):
    """float64 `[T, features]`, channel by channel."""
    half = features // 2 if odd == "zero" else math.ceil(features / 2)
    divisor = features / 2 if denominator == "half" else features // 2 - 1
    table = np.zeros((len(positions), features))
    for channel in range(2 * half if odd == "zero" else features):
        if layout == "interleaved":
            i, function = channel // 2, (np.sin, np.cos)[channel % 2]
        else:
            i, second = channel % half, channel >= half
            function = np.cos if second == (layout == "sin_cos") else np.sin
        table[:, channel] = function(positions / 10_000.0 ** (i / divisor))
    return table


@pytest.mark.parametrize("features", [8, 9])
@pytest.mark.parametrize("odd", ["truncate", "zero"])
@pytest.mark.parametrize("denominator", ["half", "half_minus_1"])
@pytest.mark.parametrize("layout", ["sin_cos", "cos_sin", "interleaved"])
def test_sinusoidal(features, layout, denominator, odd):
    settings = dict(features=features, layout=layout, denominator=denominator, odd=odd)
    positions = np.array([0, 1, 2, 17, 300, -4, 1_777_777], np.int32)
    wanted = sinusoid(positions, **settings)
    exact = call(pe.Sinusoidal(**settings).bind({}), positions)
    np.testing.assert_allclose(exact, wanted, rtol=0, atol=1.2e-7)
    usual = call(pe.Sinusoidal(**settings, phase="float32").bind({}), positions)
    np.testing.assert_allclose(usual[:-1], wanted[:-1], rtol=0, atol=300 * 1.2e-7)
    assert np.max(np.abs(usual[-1] - wanted[-1])) > 1e-3  # where the usual angle has lost it


def test_sinusoidal_base_and_fractional_positions():
    positions = np.array([0.25, -3.75, 1000.5], np.float32)
    wide = pe.Sinusoidal(features=6, base=100.0, layout="sin_cos", fractional=True)
    angles = positions[:, None] * 100.0 ** (-np.arange(3) / 3)
    wanted = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    np.testing.assert_allclose(call(wide.bind({}), positions), wanted, atol=1.2e-7)


# RoPE


def rope(x, positions, frequencies, layout, rotated="first", inverse=False):
    """Pairs of channels as complex numbers, multiplied by e^(i angle): float64 `[..., T, N, D]`."""
    dim = 2 * len(frequencies)
    start = 0 if rotated == "first" else x.shape[-1] - dim
    out = np.array(x, np.float64)
    for i, frequency in enumerate(frequencies):
        a, b = (start + 2 * i, start + 2 * i + 1) if layout == "interleaved" else (start + i, start + i + dim // 2)
        turn = np.exp((-1j if inverse else 1j) * np.float64(positions) * frequency)[..., None]
        z = (x[..., a] + 1j * x[..., b]) * turn
        out[..., a], out[..., b] = z.real, z.imag
    return out


def frequencies(dim, base):
    return base ** (-2 * np.arange(dim // 2) / dim)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dim,rotated", [(D, "first"), (6, "first"), (6, "last")])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rope(layout, dim, rotated, inverse):
    x, positions = normal(B, T, N, D), RNG.integers(-1000, 10**6, (B, T), np.int32)
    x[..., 0] = x[..., -1] = -0.0
    bound = pe.RoPE(dim=dim, base=500.0, layout=layout, rotated=rotated).bind({})
    wanted = rope(x, positions, frequencies(dim, 500.0), layout, rotated, inverse)
    out = call(bound, x, positions, inverse=inverse)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=2e-6)
    rest = np.s_[..., dim:] if rotated == "first" else np.s_[..., : D - dim]
    np.testing.assert_array_equal(np.asarray(out)[rest].view(np.int32), x[rest].view(np.int32))  # -0.0 too
    back = call(bound, out, positions, inverse=not inverse)
    np.testing.assert_allclose(back, x, rtol=0, atol=2e-6)
    np.testing.assert_allclose(call(bound, x, positions[0], inverse=inverse)[0], wanted[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_rope_rounds_once(dtype):
    """Half an ulp of the result, and nothing for the tables or the products."""
    x, positions = jnp.asarray(normal(T, N, D), dtype), np.arange(T, dtype=np.int32) + 10**6
    out = call(pe.RoPE(dim=D, layout="half").bind({}), x, positions)
    assert out.dtype == dtype
    wanted = rope(np.asarray(x, np.float64), positions, frequencies(D, 1e4), "half")
    ulp = 2.0 ** np.floor(np.log2(np.abs(wanted))) * float(jnp.finfo(dtype).eps)
    assert np.all(np.abs(np.asarray(out, np.float64) - wanted) <= 0.501 * ulp + 1e-6)


def test_fractional_positions():
    x, positions = normal(T, N, D), np.array([0.5, -0.5, 2.75, 1e5 + 0.5, -1e-3], np.float32)
    bound = pe.RoPE(dim=D, layout="half", fractional=True).bind({})
    wanted = rope(x, positions.astype(np.float64), frequencies(D, 1e4), "half")
    np.testing.assert_allclose(call(bound, x, positions), wanted, rtol=0, atol=1e-6)


def test_gradient_of_fractional_positions():
    positions, weights = np.array([0.5, -7.25, 1e5 + 0.5], np.float32), normal(2, 3, 4)
    settings = pe.RoPE(dim=8, layout="half", fractional=True)

    def loss(positions):
        cos, sin = settings.cos_sin(positions)
        return jnp.sum(cos * weights[0]) + jnp.sum(sin * weights[1])

    f = frequencies(8, 1e4)
    angles = positions.astype(np.float64)[:, None] * f
    wanted = np.sum((np.cos(angles) * weights[1] - np.sin(angles) * weights[0]) * f, axis=1)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.asarray(positions)), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_learned_frequencies(layout):
    """Values, and gradients against the derivative in float64, at positions to five million."""
    f = np.array([1.0, 0.37, -0.01, 1e-5], np.float32)
    x, weights = normal(B, T, N, D), normal(B, T, N, D)
    positions = RNG.integers(-5_000_000, 5_000_000, (B, T), np.int32)
    scheme = pe.RoPE(dim=8, layout=layout, learned=True)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return jnp.sum(scheme.bind(params)(x, positions) * weights)

    value, grads = loss({"frequencies": jnp.asarray(f)})
    f = f.astype(np.float64)
    wanted = rope(x, positions, f, layout)
    assert abs(value - np.sum(wanted * weights)) < 1e-4
    # d out / d f_i = position * (the pair turned by another quarter)
    for i in range(4):
        a, b = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + 4)
        along = -wanted[..., b] * weights[..., a] + wanted[..., a] * weights[..., b]
        terms = along * np.float64(positions)[..., None]
        assert abs(grads["frequencies"][i] - np.sum(terms)) <= 1e-6 * np.sum(np.abs(terms))


def test_learned_frequencies_begin_as_the_fixed_ones():
    params = pe.init(pe.RoPE(dim=16, base=1e6, layout="half", learned=True), jax.random.key(0))
    np.testing.assert_allclose(params["frequencies"], frequencies(16, 1e6), rtol=6e-8)


# permute_layout

KERNELS = {  # heads of N or K; the array, its axis, and `heads` when they are merged with D
    "flax kernel": lambda heads: (normal(4, heads, D), dict(axis=-1)),
    "merged kernel": lambda heads: (normal(4, heads * D), dict(axis=1, heads=heads)),
    "torch weight": lambda heads: (normal(heads * D, 4), dict(axis=0, heads=heads)),
    "bias": lambda heads: (normal(heads * D), dict(heads=heads)),
}


def projected(name, array, heads):
    """What the array makes of some input: `[T, heads, D]`."""
    x = np.linspace(-1, 1, T * 4, dtype=np.float32).reshape(T, 4)
    if name == "bias":
        return np.broadcast_to(np.asarray(array).reshape(heads, D), (T, heads, D)).copy()
    array = np.asarray(array).T if name == "torch weight" else np.asarray(array)
    return (x @ array.reshape(4, -1)).reshape(T, heads, D)


@pytest.mark.parametrize("dim,rotated", [(None, "first"), (6, "first"), (6, "last")])
@pytest.mark.parametrize("source,target", [("half", "interleaved"), ("interleaved", "half")])
@pytest.mark.parametrize("name", KERNELS)
def test_permute_layout(name, source, target, dim, rotated):
    """Scores of grouped queries and keys are the same, and the converted projection turns into the same numbers."""
    positions = RNG.integers(0, 1000, T, np.int32)
    turned = {}
    for heads in (N, K):
        array, settings = KERNELS[name](heads)
        settings = dict(dim=dim, rotated=rotated, **settings)
        there = pe.permute_layout(array, source=source, target=target, **settings)
        assert there.shape == array.shape and np.any(there != array)
        np.testing.assert_array_equal(pe.permute_layout(there, source=target, target=source, **settings), array)
        f = frequencies(dim or D, 1e4)
        before = rope(projected(name, array, heads), positions, f, source, rotated)
        after = rope(projected(name, there, heads), positions, f, target, rotated)
        moved = pe.permute_layout(jnp.asarray(before), source=source, target=target, dim=dim, rotated=rotated)
        np.testing.assert_allclose(after, moved, rtol=0, atol=1e-5)
        turned[heads] = before, after
    scores = [np.einsum("tkgd,skd->kgts", turned[N][i].reshape(T, K, -1, D), turned[K][i]) for i in (0, 1)]
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_permute_layout_to_itself_is_nothing():
    x = normal(3, D)
    np.testing.assert_array_equal(pe.permute_layout(x, source="half", target="half"), x)


# T5


def t5_bucket(distance, buckets, max_distance, bidirectional):
    """The definition with a 60-digit logarithm; a whole number of buckets is a tie, which belongs to the next."""
    away = abs(distance) if bidirectional else max(-distance, 0)
    one_way = buckets // 2 if bidirectional else buckets
    first = one_way if bidirectional and distance > 0 else 0
    exact = one_way // 2
    if away < exact:
        return first + away
    with mpmath.workdps(60):
        place = mpmath.log(mpmath.mpf(away) / exact) / mpmath.log(mpmath.mpf(max_distance) / exact)
        step = int(mpmath.floor(place * (one_way - exact) + mpmath.mpf(10) ** -40))
    return first + min(exact + step, one_way - 1)


@pytest.mark.parametrize(
    "buckets,max_distance,bidirectional",
    [
        (32, 128, True),
        (32, 128, False),
        (20, 50, True),
        (17, 37, False),
        (64, 256, True),
        (320, 800, True),
        (32, 1024, False),
        (2, 5, False),
        (3, 2, False),
        (4, 3, True),
        (6, 100, True),
        (10, 6, False),
        (128, 65, False),
    ],
)
def test_t5_buckets(buckets, max_distance, bidirectional):
    scheme = pe.T5Bias(heads=2, buckets=buckets, max_distance=max_distance, bidirectional=bidirectional)
    distances = np.arange(-2 * max_distance - 3, 2 * max_distance + 4, dtype=np.int32)
    wanted = [t5_bucket(int(d), buckets, max_distance, bidirectional) for d in distances]
    np.testing.assert_array_equal(jax.jit(scheme.bucket)(distances), wanted)
    far = jnp.array([-(2**31) + 1, 2**31 - 1])
    last = (buckets // 2 if bidirectional else buckets) - 1
    assert scheme.bucket(far).tolist() == [last, buckets - 1 if bidirectional else 0]


def test_t5_bias_is_its_table():
    """bias[n, t, s] = table[n, bucket], and its gradient counts how often a bucket is used."""
    scheme = pe.T5Bias(heads=N, buckets=8, max_distance=6, bidirectional=True)
    table, queries, keys = normal(N, 8), np.arange(3, 3 + T, dtype=np.int32), np.arange(S, dtype=np.int32)
    used = np.array([[t5_bucket(int(s - t), 8, 6, True) for s in keys] for t in queries])
    np.testing.assert_array_equal(call(scheme.bind({"table": jnp.asarray(table)}), queries, keys), table[:, used])
    weights = normal(N, T, S)
    grad = jax.jit(jax.grad(lambda table: jnp.sum(scheme.bind({"table": table})(queries, keys) * weights)))(table)
    wanted = np.stack([np.sum(np.where(used == b, weights, 0), axis=(1, 2), dtype=np.float64) for b in range(8)], 1)
    np.testing.assert_allclose(grad, wanted, rtol=0, atol=1e-5)


# ALiBi


def slopes(heads, bias_max=8.0):
    """The paper's rule: for a power of two, a geometric sequence from 2^(-8/n) with that ratio; else those of the
    power of two below, and then every other one of the power of two above."""
    if heads & (heads - 1) == 0:
        return [(2.0 ** (-bias_max / heads)) ** n for n in range(1, heads + 1)]
    below = 1 << (heads.bit_length() - 1)
    return slopes(below, bias_max) + slopes(2 * below, bias_max)[::2][: heads - below]


@pytest.mark.parametrize("bias_max", [8.0, 4.0])
def test_alibi_slopes(bias_max):
    for heads in range(1, 65):
        np.testing.assert_allclose(pe.alibi_slopes(heads, bias_max=bias_max), slopes(heads, bias_max), rtol=1e-13)


@pytest.mark.parametrize("symmetric", [True, False])
def test_alibi(symmetric):
    queries, keys = RNG.integers(0, 10**6, T, np.int32), RNG.integers(0, 10**6, S, np.int32)
    distance = keys.astype(np.float64) - queries[:, None]
    wanted = np.array(slopes(N))[:, None, None] * (-np.abs(distance) if symmetric else distance)
    bound = pe.ALiBi(heads=N, symmetric=symmetric).bind({})
    np.testing.assert_allclose(call(bound, queries, keys), wanted, rtol=2e-7)
    given = pe.ALiBi(heads=2, slopes=(0.3, 2.0)).bind({})
    np.testing.assert_allclose(call(given, queries, keys)[1], -2 * np.abs(distance), rtol=1e-7)


# attend


def attention(q, k, v, allowed, bias=0.0, scale=None, cap=None):
    """float64 `[B, T, N, D]`, head by head."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    bias = np.broadcast_to(bias, allowed.shape)
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for b, n in itertools.product(range(q.shape[0]), range(q.shape[2])):
        group = n // (q.shape[2] // k.shape[2])
        logits = (q.shape[3] ** -0.5 if scale is None else scale) * q[b, :, n] @ k[b, :, group].T + bias[b, n]
        logits = logits if cap is None else cap * np.tanh(logits / cap)
        weights = np.where(allowed[b, n], np.exp(logits), 0)
        total = weights.sum(-1, keepdims=True)
        out[b, :, n] = weights / np.where(total > 0, total, 1) @ v[b, :, group]
    return out


def where(rule, batch=B, queries=T, keys=S):
    """`rule(b, t, s)` for every pair: boolean `[B, N, T, S]`."""
    found = [[[rule(b, t, s) for s in range(keys)] for t in range(queries)] for b in range(batch)]
    return np.broadcast_to(np.array(found, bool)[:, None], (batch, N, queries, keys))


QP = np.array([[3, 4, 5, 6, 7], [0, 2, 4, 6, 9]], np.int32)  # where queries and keys stand
KP = np.array([[0, 1, 2, 3, 4, 5, 6], [1, 0, 9, 3, 2, 8, 4]], np.int32)
QI = np.array([[1, 1, 2, 2, 0], [5, 4, 4, 4, 4]], np.int32)  # and their documents
KI = np.array([[1, 2, 2, 1, 0, 0, 2], [4, 4, 5, 0, 5, 5, 5]], np.int32)
MASK = RNG.random((T, S)) < 0.6
MASKS = RNG.random((B, 1, T, S)) < 0.6
BIASES = normal(1, N, T, S)
TABLE = jnp.asarray(normal(N, 32))
BUCKETS = np.array([[[t5_bucket(int(s - t), 32, 128, False) for s in KP[b]] for t in QP[b]] for b in range(B)])
PLACED = dict(query_positions=QP, key_positions=KP)
EVERYWHERE = where(lambda b, t, s: True)

CASES = {  # keywords of attend, and what the reference is told
    "plain": ({}, {}),
    "bias array": (dict(bias=BIASES), dict(bias=BIASES)),
    "bias callable": (
        dict(bias=pe.ALiBi(heads=N).bind({}), **PLACED),
        dict(bias=-np.array(slopes(N))[:, None, None] * np.abs(KP[:, None, None, :] - QP[:, None, :, None])),
    ),
    "learned bias": (
        dict(bias=pe.T5Bias(heads=N, bidirectional=False).bind({"table": TABLE}), **PLACED),
        dict(bias=np.asarray(TABLE)[:, BUCKETS].swapaxes(0, 1)),
    ),
    "bias of the same positions in every row": (
        dict(bias=pe.ALiBi(heads=N).bind({}), query_positions=QP[0], key_positions=KP[1]),
        dict(bias=-np.array(slopes(N))[:, None, None] * np.abs(KP[1] - QP[0][:, None])),
    ),
    "any function": (
        dict(
            bias=lambda q, k: jnp.stack([(q[:, None] * k[None, :]).astype(float)] * N),
            query_positions=np.arange(T),
            key_positions=np.arange(S),
        ),
        dict(bias=np.arange(T)[:, None] * np.arange(S)),
    ),
    "mask [T, S]": (dict(mask=MASK), dict(allowed=np.broadcast_to(MASK, EVERYWHERE.shape))),
    "mask [B, 1, T, S]": (dict(mask=MASKS), dict(allowed=np.broadcast_to(MASKS, EVERYWHERE.shape))),
    "causal": (dict(causal=True, **PLACED), dict(allowed=where(lambda b, t, s: KP[b, s] <= QP[b, t]))),
    "window": (dict(window=2, **PLACED), dict(allowed=where(lambda b, t, s: abs(KP[b, s] - QP[b, t]) <= 2))),
    "window to one side": (
        dict(window=(3, 1), **PLACED),
        dict(allowed=where(lambda b, t, s: -3 <= KP[b, s] - QP[b, t] <= 1)),
    ),
    "segments": (
        dict(query_segment_ids=QI, key_segment_ids=KI),
        dict(allowed=where(lambda b, t, s: QI[b, t] == KI[b, s] != 0)),
    ),
    "all that forbids": (
        dict(mask=MASK, causal=True, window=(4, 0), query_segment_ids=QI, key_segment_ids=KI, **PLACED),
        dict(
            allowed=where(lambda b, t, s: MASK[t, s] and -4 <= KP[b, s] - QP[b, t] <= 0 and QI[b, t] == KI[b, s] != 0)
        ),
    ),
    "scale": (dict(scale=1.0), dict(scale=1.0)),
    "soft cap after the bias": (dict(logits_soft_cap=2.0, bias=BIASES), dict(cap=2.0, bias=BIASES)),
}
Q, KEY, V = normal(B, T, N, D), normal(B, S, K, D), normal(B, S, K, 4)


@pytest.mark.parametrize("name", CASES)
def test_attend(name):
    settings, told = CASES[name]
    wanted = attention(Q, KEY, V, **{"allowed": EVERYWHERE, **told})
    out = jax.jit(lambda *qkv: pe.attend(*qkv, **settings))(Q, KEY, V)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=3e-6)


def test_attend_of_equal_lengths_counts_from_zero():
    """Without positions, T == S: 0, 1, 2 ..., and keys' documents are the queries'."""
    q, ids = normal(B, T, N, D), np.array([[1, 1, 2, 2, 0], [3, 3, 3, 3, 3]], np.int32)
    k, v = normal(2, B, T, K, D)
    out = jax.jit(lambda *qkv: pe.attend(*qkv, causal=True, query_segment_ids=ids))(q, k, v)
    allowed = where(lambda b, t, s: s <= t and ids[b, t] == ids[b, s] != 0, keys=T)
    np.testing.assert_allclose(out, attention(q, k, v, allowed), rtol=0, atol=3e-6)


@pytest.mark.parametrize("dtype,atol", [(jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)])
def test_attend_in_narrow_floats(dtype, atol):
    q, k, v = (jnp.asarray(x, dtype) for x in (Q, KEY, V))
    out = jax.jit(pe.attend)(q, k, v)
    assert out.dtype == dtype
    np.testing.assert_allclose(out.astype(jnp.float32), attention(q, k, v, EVERYWHERE), rtol=0, atol=atol)


def test_attend_in_float64():
    with jax.enable_x64(True):
        q, k, v = (jnp.asarray(x, jnp.float64) for x in (Q, KEY, V))
        settings, told = CASES["bias callable"]
        out = pe.attend(q, k, v, mask=jnp.asarray(MASK), **settings)
        assert out.dtype == jnp.float64
        wanted = attention(q, k, v, np.broadcast_to(MASK, EVERYWHERE.shape), **told)
        np.testing.assert_allclose(out, wanted, rtol=0, atol=3e-6)  # the slopes are float32
        np.testing.assert_allclose(pe.attend(q, k, v), attention(q, k, v, EVERYWHERE), rtol=0, atol=1e-14)


@pytest.mark.parametrize("bias", [None, -1e30, 1e30])
def test_rows_with_nothing_to_attend_are_zero(bias):
    """Output and gradients, whatever the bias there; the other rows have theirs."""
    mask = MASK.copy()
    mask[2] = False
    mask[[0, 1, 3, 4], 0] = True
    array = None if bias is None else jnp.full((1, 1, T, S), bias, jnp.float32)

    def loss(q, k, v):
        out = pe.attend(q, k, v, mask=mask, bias=array)
        return jnp.sum(out**2), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(Q, KEY, V)
    assert np.all(out[:, 2] == 0) and np.all(grads[0][:, 2] == 0)
    assert all(np.all(np.isfinite(g)) for g in grads)
    assert np.any(grads[2] != 0) and np.all(np.any(out != 0, axis=(0, 2, 3)) == (np.arange(T) != 2))
    nothing = jax.jit(jax.grad(lambda *qkv: jnp.sum(pe.attend(*qkv, mask=np.zeros((T, S), bool))), (0, 1, 2)))
    assert all(np.all(g == 0) for g in nothing(Q, KEY, V))


@pytest.mark.parametrize("shared", [False, True])
def test_dropout(shared):
    """Equal logits and a unit value for each key show the weights: 0, or 1 / (S keep)."""
    rate, keys = 0.3, 40
    q, k = jnp.zeros((B, 30, N, D)), jnp.zeros((B, keys, K, D))
    v = jnp.broadcast_to(jnp.eye(keys)[None, :, None, :], (B, keys, K, keys))

    @jax.jit
    def weights(key):
        return pe.attend(q, k, v, dropout_rate=rate, dropout_key=key, broadcast_dropout=shared)

    kept = np.asarray(weights(jax.random.key(0)))
    there = kept > 0
    np.testing.assert_allclose(kept[there], 1 / (keys * (1 - rate)), rtol=1e-5)
    count = there[0, :, 0].size if shared else there.size
    assert abs(there.mean() - (1 - rate)) < 5 * math.sqrt(rate * (1 - rate) / count)
    assert np.all(there == there[:1, :, :1]) == shared
    assert np.any(there != (np.asarray(weights(jax.random.key(1))) > 0))
    no_key = pe.attend(q, k, v, dropout_rate=0.0, dropout_key=jax.random.key(0))
    np.testing.assert_allclose(no_key, 1 / keys, rtol=1e-6)


# Tokens


def test_embed():
    table, ids = jnp.asarray(normal(11, 6)), np.array([[0, 10, 3], [3, 3, 7]], np.int32)
    np.testing.assert_array_equal(pe.embed(table, ids), np.asarray(table)[ids])
    scaled = pe.embed(table, ids, scale=6**0.5)
    np.testing.assert_allclose(scaled, np.asarray(table)[ids] * np.float32(6**0.5), rtol=1e-7)
    assert pe.embed(table, ids, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    np.testing.assert_array_equal(pe.embed(table, np.array([-5, 99]), out_of_range="clip"), np.asarray(table)[[0, 10]])


def test_gemma_scales_in_bfloat16():
    """sqrt(3072) is 55.4256, and 55.5 in bfloat16: the published models were trained with 55.5."""
    table = jnp.asarray(normal(11, 6), jnp.bfloat16)
    ours = pe.embed(table, jnp.arange(11), scale=3072**0.5, scale_dtype=jnp.bfloat16)
    wanted = (np.asarray(table, np.float64) * 55.5).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(ours), wanted)
    wide = pe.embed(table, jnp.arange(11), scale=3072**0.5)
    assert wide.dtype == jnp.bfloat16 and np.any(np.asarray(wide) != wanted)


def test_traced_ids_outside_the_table_give_nan_and_no_gradient():
    table, ids = normal(4, 3), jnp.array([-1, 0, 3, 4])
    out = jax.jit(pe.embed)(table, ids)
    np.testing.assert_array_equal(np.isnan(out).all(1), [True, False, False, True])
    np.testing.assert_array_equal(out[1:3], table[[0, 3]])
    grad = jax.jit(jax.grad(lambda table, ids: jnp.sum(pe.embed(table, ids)[1:3])))(table, ids)
    np.testing.assert_array_equal(grad, np.array([1, 0, 0, 1.0])[:, None] * np.ones(3))


@pytest.mark.parametrize("dtype,rtol", [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-5)])
def test_logits(dtype, rtol):
    """Products of bfloat16 are summed and returned in float32."""
    table, x = normal(11, 6), jnp.asarray(normal(B, T, 6), dtype)
    ours = pe.logits(table, x, scale=6**-0.5)
    assert ours.dtype == jnp.float32
    wanted = np.asarray(x, np.float64) @ np.asarray(jnp.asarray(table, dtype), np.float64).T * 6**-0.5
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=rtol * np.max(np.abs(wanted)))
    assert pe.logits(table, x, dtype=jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize("offset", [0, 2])
def test_learned_positions(offset):
    scheme = pe.LearnedPositions(length=9, features=6, index_offset=offset)
    params = pe.init(scheme, jax.random.key(0))
    assert params["table"].shape == (9 + offset, 6)
    positions = np.array([[-offset, 0, 8], [1, 1, 2]], np.int32)
    np.testing.assert_array_equal(scheme.bind(params)(positions), params["table"][positions + offset])


# Positions


def test_from_segment_ids():
    """A document goes on counting where it was interrupted, and any ids do, in any order."""
    ids = RNG.choice(np.array([0, 7, -2, 2**31 - 1, -(2**31), 1]), (B, 3, 29)).astype(np.int32)
    wanted = np.zeros_like(ids)
    for row, out in zip(ids.reshape(-1, 29), wanted.reshape(-1, 29), strict=True):
        for t in range(29):
            out[t] = 0 if row[t] == 0 else np.sum(row[:t] == row[t])
    np.testing.assert_array_equal(jax.jit(pe.positions.from_segment_ids)(ids), wanted)


@pytest.mark.parametrize("padding", [0, 1, -1])
def test_from_mask(padding):
    masks = {"left": [0, 0, 1, 1, 1], "right": [1, 1, 1, 0, 0], "inner": [0, 1, 0, 1, 1], "all": [0] * 5}
    wanted = {"left": [None, None, 0, 1, 2], "right": [0, 1, 2, None, None], "inner": [None, 0, None, 1, 2]}
    for name, mask in masks.items():
        numbers = [padding if x is None else x for x in wanted.get(name, [None] * 5)]
        assert pe.positions.from_mask(np.array(mask, bool), padding_position=padding).tolist() == numbers, name
        assert pe.positions.from_mask(np.array([mask, mask], bool), padding_position=padding).tolist() == [numbers] * 2


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4)])
def test_grid(shape):
    assert pe.positions.grid(shape).tolist() == [list(index) for index in np.ndindex(shape)]


def test_arange():
    assert pe.positions.arange(3).tolist() == [0, 1, 2] and pe.positions.arange(0).shape == (0,)
    assert pe.positions.arange(3, -1).tolist() == [-1, 0, 1]
    assert pe.positions.arange(2, 2**31 - 2).tolist() == [2**31 - 2, 2**31 - 1]
    traced = jax.jit(pe.positions.arange, static_argnums=0)
    assert traced(3, jnp.int32(5)).tolist() == [5, 6, 7]
    assert traced(3, jnp.array([5, 0])).tolist() == [[5, 6, 7], [0, 1, 2]]


def test_randomized():
    draw = jax.jit(jax.vmap(lambda key: pe.positions.randomized(key, 8, 20)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    assert found.dtype == np.int32 and np.all(np.diff(found) > 0) and found.min() == 0 and found.max() == 19
    # Each of 20 positions is in 8 draws of 20: 0.4, give or take five standard deviations.
    share = np.bincount(found.ravel(), minlength=20) / 4000
    assert np.all(np.abs(share - 0.4) < 5 * math.sqrt(0.24 / 4000))


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_pose(chunks):
    length, last = 12, 40
    draw = jax.jit(jax.vmap(lambda key: pe.positions.pose(key, length, last, chunks=chunks)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    gaps = np.diff(found)
    assert found.dtype == np.int32 and np.all(gaps > 0) and np.all(found[:, 0] == 0) and found.max() < last
    jumps = (gaps > 1).sum(1)
    assert jumps.max() == chunks - 1
    if chunks == 1:
        np.testing.assert_array_equal(found, np.broadcast_to(np.arange(length), found.shape))
    elif chunks == 2:
        # The second chunk begins at any of the places inside, and is shifted by any of 0 ... last - length.
        skip = found[:, -1] - (length - 1)
        counts = np.bincount(skip, minlength=last - length + 1)
        assert len(counts) == last - length + 1
        expected = 4000 / len(counts)
        assert np.all(np.abs(counts - expected) < 5 * math.sqrt(expected))
        cuts = np.bincount(np.argmax(gaps[skip > 0] > 1, axis=1), minlength=length - 1)
        assert np.all(np.abs(cuts - cuts.mean()) < 5 * math.sqrt(cuts.mean()))
    else:
        assert found.max() == last - 1 and np.sum(jumps == 2) > 2000


@pytest.mark.parametrize("length,shards", [(24, 3), (8, 4), (6, 1)])
def test_zigzag(length, shards):
    """Shard i holds chunks i and 2 shards - 1 - i, which makes causal work equal."""
    order = np.asarray(pe.positions.zigzag(length, shards))
    chunks = np.arange(length).reshape(2 * shards, -1)
    for i, shard in enumerate(order.reshape(shards, -1)):
        np.testing.assert_array_equal(shard, np.concatenate([chunks[i], chunks[2 * shards - 1 - i]]))
    assert len({int(shard.sum()) for shard in order.reshape(shards, -1)}) == 1
    back = np.asarray(pe.positions.inverse_order(order))
    np.testing.assert_array_equal(order[back], np.arange(length))
    np.testing.assert_array_equal(back[order], np.arange(length))


# Masks


@pytest.mark.parametrize("shape,size,dilation", [((7,), 3, 1), ((11,), 5, 2), ((9, 13), 3, 3), ((10, 9), 3, 2)])
def test_neighbourhoods(shape, size, dilation):
    """Each key that could be attended, ordered by how far it is; at an edge the window is pushed inside."""

    def along(i, length):
        mine = list(range(i % dilation, length, dilation))
        start = min(max(mine.index(i) - size // 2, 0), len(mine) - size)
        return mine[start : start + size]

    ours = np.asarray(pe.masks.neighbourhood(shape, size, dilation=dilation))
    for t, at in enumerate(np.ndindex(*shape)):
        rows = [along(i, length) for i, length in zip(at, shape, strict=True)]
        expected = {np.ravel_multi_index(key, shape) for key in itertools.product(*rows)}
        assert set(np.flatnonzero(ours[t])) == expected, at


def test_masks():
    rules = {
        "causal": (pe.masks.causal(QP, KP), lambda b, t, s: KP[b, s] <= QP[b, t]),
        "window": (pe.masks.window(QP, KP, 1), lambda b, t, s: abs(KP[b, s] - QP[b, t]) <= 1),
        "window (2, 0)": (pe.masks.window(QP, KP, (2, 0)), lambda b, t, s: -2 <= KP[b, s] - QP[b, t] <= 0),
        "segment": (pe.masks.segment(QI, KI), lambda b, t, s: QI[b, t] == KI[b, s] != 0),
        "padding": (
            jnp.broadcast_to(pe.masks.padding(jnp.asarray(KI != 0)), (B, T, S)),
            lambda b, t, s: KI[b, s] != 0,
        ),
    }
    for name, (ours, rule) in rules.items():
        assert ours.dtype == bool
        np.testing.assert_array_equal(ours, where(rule)[:, 0], err_msg=name)
    np.testing.assert_array_equal(pe.masks.causal(QP[0], KP[1]), KP[1] <= QP[0][:, None])
    np.testing.assert_array_equal(pe.masks.causal(QP[0], KP)[1], KP[1] <= QP[0][:, None])


# KVCache


def test_cache_keeps_every_real_token_in_order():
    """Chunks of different lengths, with padding anywhere: each row holds its own real tokens, one after another."""
    append = jax.jit(pe.KVCache.append)
    cache = pe.KVCache.empty(batch=B, capacity=9, heads=K, dim=4)
    kept = [[] for _ in range(B)]
    for real in ([[1, 1, 0], [0, 1, 0]], [[0], [1]], [[1, 0, 1, 1], [1, 1, 0, 0]], [[1], [1]]):
        real = np.array(real, bool)
        ids = np.where(real, RNG.integers(1, 9, real.shape), 0).astype(np.int32)
        keys, values = normal(2, *real.shape, K, 4)
        positions = np.asarray(cache.next_positions(jnp.asarray(ids)))
        cache = append(cache, keys, values, positions, ids)
        for b, t in zip(*np.nonzero(real), strict=True):
            assert positions[b, t] == len(kept[b])
            kept[b].append((keys[b, t], values[b, t], positions[b, t], ids[b, t]))
    assert cache.lengths.tolist() == [len(row) for row in kept] == [6, 5]
    assert not np.any(cache.overflow)
    for b, row in enumerate(kept):
        for name, column in zip(("keys", "values", "positions", "segment_ids"), zip(*row, strict=True), strict=True):
            np.testing.assert_array_equal(getattr(cache, name)[b, : len(row)], np.stack(column), err_msg=name)
        assert np.all(cache.segment_ids[b, len(row) :] == 0)


def test_cache_overflow_overwrites_nothing():
    cache = pe.KVCache.empty(batch=B, capacity=3, heads=K, dim=4)
    keys, ids = normal(B, 2, K, 4), np.array([[1, 1], [1, 0]], np.int32)
    append = jax.jit(lambda cache: cache.append(keys, keys, cache.next_positions(jnp.asarray(ids)), ids))
    twice = append(append(cache))
    assert twice.overflow.tolist() == [True, False] and twice.lengths.tolist() == [4, 2]
    np.testing.assert_array_equal(twice.keys[0], keys[0, [0, 1, 0]])
    assert pe.positions.cache_overflows(jnp.array([2, 3]), 1, 3).tolist() == [False, True]
