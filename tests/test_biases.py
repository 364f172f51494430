"""Relative biases against transformers' numbers, and references of a few lines in float64 from the papers."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schemes import TABLE, random_params, values
from test_blockwise import compare

import posembed_jax as pe
from posembed_jax import lookup

N = 3
CASES = Path(__file__).parent / "golden" / "cases"  # transformers' numbers: see the README there


def wave(*shape, seed=0):
    """Parameters that any library can make: sin(0 + seed), sin(1 + seed) ..."""
    return jnp.asarray(np.sin(np.arange(np.prod(shape)) + seed).reshape(shape), jnp.float32)


def numbered(scheme):
    """The scheme, bound to a table whose entries are their own indices: its bias is the index of each pair."""
    (shape,) = (initializer.shape for initializer in scheme.inits().values())
    return scheme.bind({"table": jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.float32), shape)})


# Look-ups


def sums_of_columns(indices, weights, size):
    """float64 `[N, size]`, one column after the other."""
    found = np.zeros((weights.shape[0], size))
    for column in range(size):
        found[:, column] = np.float64(weights)[:, indices == column].sum(-1)
    return found


@pytest.mark.parametrize("size", [30, 2209])
def test_gradients_of_columns_in_both_ways(size):
    """As a product and as additions to the table; what is outside of it is NaN and passes nothing back."""
    rng = np.random.default_rng(0)
    indices = rng.integers(-2, size + 2, (39, 60)).astype(np.int32)
    indices[0, :2] = -(2**31), 2**31 - 1
    weights, table = rng.normal(size=(N, *indices.shape)).astype(np.float32), values(N, size).astype(jnp.bfloat16)
    assert (indices.size * size > lookup.LARGEST_PRODUCT) == (size > 30)

    def loss(table):
        found = lookup.columns(table, jnp.asarray(indices))
        return jnp.nansum(found * weights), found

    inside = (indices >= 0) & (indices < size)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    assert ("scatter(" in gradient.lower(table).compile().as_text()) == (size > 30)
    got, found = gradient(table)
    assert got.dtype == table.dtype and found.dtype == jnp.float32
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(~inside, found.shape))
    np.testing.assert_array_equal(found[:, inside], table.astype(jnp.float32)[:, indices[inside]])
    want = sums_of_columns(np.where(inside, indices, -1), weights, size)
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2.0**-8, atol=1e-5)
    _, forward = jax.jvp(lambda table: lookup.columns(table, indices), (table,), (table,))
    np.testing.assert_array_equal(forward[:, inside], found[:, inside])


def test_a_column_used_4096_times_keeps_its_gradient_in_bfloat16():
    """Where values are added one by one: in bfloat16 they would stop at 256."""
    table, indices = jnp.zeros((N, 2000), jnp.bfloat16), jnp.full(4096, 1999)
    assert indices.size * 2000 > lookup.LARGEST_PRODUCT
    got = jax.jit(jax.grad(lambda table: jnp.sum(lookup.columns(table, indices))))(table)
    np.testing.assert_array_equal(got[:, 1999].astype(jnp.float32), 4096.0)


# Functions of the distance


@pytest.mark.parametrize("kind", ["log", "power"])
def test_kerple(kind):
    """The authors' `-bias_p log(1 + bias_a diff)` and `-bias_a diff ** bias_p`, diff being 0 and more."""
    r1, r2 = np.array([0.01, 0.7, 1.9]), np.array([1.99, 0.01, 0.5])
    params = {"log_r1": np.log(r1), "log_r2": np.log(r2)}
    if kind == "power":
        params = {"log_r1": np.log(r1), "logit_r2": np.log(r2 / (2 - r2))}
    bound = pe.KERPLE(heads=N, kind=kind).bind({name: jnp.asarray(x, jnp.float32) for name, x in params.items()})
    distance = np.array([0, -1, 1, -2, 77, -4096, 10**6, 2**31 - 1], np.int32)
    away, r1, r2 = np.abs(np.float64(distance)), r1[:, None], r2[:, None]
    want = -r1 * np.log(1 + r2 * away) if kind == "log" else -r1 * away**r2
    np.testing.assert_allclose(jax.jit(bound.at)(distance), want, rtol=1e-5)
    gradient = jax.grad(lambda bound: jnp.sum(bound.at(jnp.zeros(5, jnp.int32))))(bound)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kind", ["log", "power"])
def test_kerple_begins_as_the_authors_do(kind):
    params = pe.init(pe.KERPLE(heads=1000, kind=kind), jax.random.key(0))
    r1 = np.exp(params["log_r1"])
    r2 = np.exp(params["log_r2"]) if kind == "log" else 2 / (1 + np.exp(-params["logit_r2"]))
    for x, most in ((r1, 2.0 if kind == "log" else 1.0), (r2, 1.0 if kind == "log" else 2.0)):
        assert 0 < x.min() < 0.02 * most and 0.98 * most < x.max() < most and abs(x.mean() - most / 2) < 0.05 * most


def test_sandwich():
    """The authors' code: embeddings of sines and cosines, their product, compression of `8 h / heads`, h = 1 ... heads.

    In float64, also at distances where the usual float32 angle is noise.
    """
    heads, features = 12, 128
    positions = np.array([0, 1, 2, 77, 4096, 2**20 + 1, 2**30], np.int64)
    angles = positions[:, None] / 1e4 ** (2 * np.arange(features // 2) / features)
    embeddings = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    want = embeddings @ embeddings.T / (np.arange(1, heads + 1) * 8 / heads)[:, None, None]
    at = jnp.asarray(positions, jnp.int32)
    bias = pe.Sandwich(heads=heads, features=features).bind({})
    np.testing.assert_allclose(jax.jit(lambda at: bias(at, at))(at), want, rtol=0, atol=2e-5)


def test_sandwich_takes_the_memory_of_the_bias():
    """As compiled: 64 frequencies at once would be 8 times the bias of 8 heads."""
    bias = pe.Sandwich(heads=8).bind({})
    x = jax.ShapeDtypeStruct((512,), jnp.int32)
    memory = jax.jit(lambda q, k: bias(q, k)).lower(x, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < memory.output_size_in_bytes


def fire(params, query_positions, key_positions):
    """float64, of the paper's equation: `f(psi(i - j) / psi(max(L, i)))`, `psi(x) = log(c x + 1)`."""
    p = {name: np.float64(x) for name, x in params.items()}
    c, length = np.exp(p["log_c"]), np.exp(p["log_length"])
    i, j = np.float64(query_positions)[:, None], np.float64(key_positions)[None, :]
    x = np.log(c * np.abs(i - j) + 1) / np.log(c * np.maximum(length, i) + 1)
    hidden = np.maximum(x[..., None] * p["hidden_kernel"][0, 0] + p["hidden_bias"][0], 0)
    return np.moveaxis(hidden @ p["out_kernel"].T + p["out_bias"], -1, 0)


@pytest.mark.slow
def test_fire():
    """Positions on either side of length, the first ones and the last; keys before and after the query."""
    scheme = pe.FIRE(heads=N, hidden=9, length=40.0)
    params = pe.init(scheme, jax.random.key(0))
    np.testing.assert_allclose(np.exp([params["log_c"][0], params["log_length"][0]]), [0.1, 40.0], rtol=1e-6)
    queries, keys = np.array([0, 1, 39, 41, 700, 2**31 - 1], np.int32), np.array([0, 1, 40, 600, 10**9], np.int32)
    got = jax.jit(lambda q, k: scheme.bind(params)(q, k))(queries, keys)
    np.testing.assert_allclose(got, fire(params, queries, keys), rtol=0, atol=1e-6)
    gradient = jax.grad(lambda params: jnp.sum(scheme.bind(params)(queries, keys) ** 2))(params)
    assert all(np.all(np.isfinite(x)) and np.any(x != 0) for x in gradient.values())


def test_fire_is_a_function_of_the_share_of_what_was_before():
    """Beyond length, and with c d much more than 1, keys at the same share of the logarithm have the same bias."""
    params = {"log_c": jnp.full(1, 20.0), "log_length": jnp.zeros(1), "hidden_kernel": jnp.ones((1, 1, 1))}
    params |= {"hidden_bias": jnp.zeros((1, 1)), "out_kernel": jnp.ones((N, 1)), "out_bias": jnp.zeros(N)}
    bound = pe.FIRE(heads=N, hidden=1).bind(params)
    for query in (5, 1000, 10**6):
        np.testing.assert_allclose(bound(jnp.array([query]), jnp.array([0, query]))[:, 0], [[1.0, 0.0]] * N, atol=1e-6)


def dynamic(params, offset):
    """float64, as the layers of figure 3 of the paper follow each other: `[..., A]` -> `[..., heads]`."""
    p = {name: np.float64(x[0] if name[-1].isdigit() else x) for name, x in params.items()}
    x = offset
    for i in range(3):
        x = x @ p[f"kernel_{i}"] + p[f"bias_{i}"]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = np.maximum(x * p[f"scale_{i}"] + p[f"shift_{i}"], 0)
    return x @ p["out_kernel"].T + p["out_bias"]


@pytest.mark.parametrize("axes", [None, 2])
def test_dynamic_position_bias(axes):
    scheme = pe.DynamicPositionBias(heads=N, hidden=6, axes=axes)
    params = random_params(scheme)
    queries, keys = np.array([[0, 3], [7, 2], [2**20, 5]], np.int32), np.array([[1, 1], [900, 4]], np.int32)
    if axes is None:
        queries, keys = queries[:, 0], keys[:, 0]
    got = jax.jit(lambda q, k: scheme.bind(params)(q, k))(queries, keys)
    offset = np.float64(queries)[:, None] - np.float64(keys)[None]
    want = dynamic(params, offset if axes else offset[..., None])
    np.testing.assert_allclose(got, np.moveaxis(want, -1, 0), rtol=0, atol=1e-5)


# transformers 5.23.0: rows of `Phi4MultimodalAudioRelativeAttentionBias` of a table of its own indices. Where it is
# symmetric and the distance is bias_max_distance, transformers reads past the end.
PHI4 = [[3, 4, 5, 5, 5, 5, 5], [2, 3, 4, 5, 5, 5, 5], [1, 2, 3, 4, 5, 5, 5], [0, 1, 2, 3, 4, 5, 5]]
PHI4 += [[0, 0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3, 4], [0, 0, 0, 0, 1, 2, 3]]
PHI4_SYMMETRIC = [[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]]


@pytest.mark.parametrize(
    "scheme,wanted",
    [
        (pe.ClippedBias(heads=N, left=3, right=2), PHI4),
        (pe.ClippedBias(heads=N, left=3, right=3, symmetric=True), PHI4_SYMMETRIC),
    ],
)
def test_clipped_bias_is_phi4s(scheme, wanted):
    positions = pe.positions.arange(len(wanted), 9)
    np.testing.assert_array_equal(numbered(scheme)(positions, positions), [wanted] * N)
    assert len(np.unique(wanted)) == scheme.inits()["table"].shape[1]
    ends = numbered(scheme).at(jnp.array([-(2**31) + 1, 2**31 - 1]))
    np.testing.assert_array_equal(ends, [[3 if scheme.symmetric else 0, np.max(wanted)]] * N)


# ALiBi under other names


# transformers 5.23.0: `build_alibi_tensor` of Falcon at key position 1, 6 heads, and the last 8 of 71.
FALCON = {6: [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]}
FALCON[71] = [0.00390625, 0.95703125, 0.87890625, 0.8046875, 0.73828125, 0.67578125, 0.62109375, 0.5703125]


@pytest.mark.parametrize("heads", FALCON)
def test_alibi_of_falcon(heads):
    """`softmax((q k + slopes key position) / sqrt(D))`, in which the rounded slopes are transformers' own."""
    bound, last = pe.ALiBi.falcon(heads, head_dim=16).bind({}), len(FALCON[heads])
    np.testing.assert_array_equal(4 * bound.arrays["slopes"][-last:], FALCON[heads])
    q, k, v = values(1, 5, last, 16), values(1, 9, last, 16, seed=1), values(1, 9, last, 16, seed=2)
    keys, queries = pe.positions.arange(9), pe.positions.arange(5, 4)
    scheme = pe.ALiBi(heads=last, symmetric=False, slopes=bound.scheme.slopes[-last:])
    got = pe.attend(q, k, v, bias=scheme.bind({}), causal=True, query_positions=queries, key_positions=keys)
    logits = np.einsum("btnd,bsnd->bnts", q, k) + np.array(FALCON[heads])[:, None, None] * np.arange(9)
    weights = np.exp(logits / 4) * (np.arange(9) <= np.arange(4, 9)[:, None])
    want = np.einsum("bnts,bsnd->btnd", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def as_in_the_softmax(bias):
    """Less that of the first key."""
    return np.float64(bias) - np.float64(bias)[..., :1]


def test_alibi_of_mpt_and_bloom():
    """MPT counts `1 - S ... 0` and Bloom real keys from 0; both add the same to every query, as the softmax allows."""
    mpt, bloom = (np.load(CASES / f"bias_alibi__{name}.npz") for name in ("mpt__heads", "bloom__mask"))
    at = pe.positions.arange(6)
    for heads, most in ((3, 8.0), (6, 4.0), (12, 8.0), (71, 8.0)):
        got = pe.ALiBi.mpt(heads, bias_max=most).bind({})(at, at)
        want = mpt[f"out.h{heads}_s6" + ("_max4" if most == 4.0 else "")]
        np.testing.assert_allclose(
            as_in_the_softmax(got), as_in_the_softmax(want) + np.zeros((6, 1)), rtol=0, atol=5e-7
        )
    real = bloom["in.attention_mask"] != 0
    at = pe.positions.from_mask(jnp.asarray(real))
    for heads in (3, 6, 12, 71):
        got, want = pe.ALiBi.bloom(heads).bind({})(at, at), bloom[f"out.h{heads}"].reshape(3, heads, 1, 6)
        for row in range(3):
            ours, theirs = (as_in_the_softmax(x[row][..., real[row]]) for x in (got, want))
            np.testing.assert_allclose(ours, theirs + np.zeros((6, 1)), rtol=0, atol=2e-5)


# Offsets within windows and images


def table_of(x):
    return {"table": jnp.asarray(np.asarray(x).T)}


@pytest.mark.slow
@pytest.mark.parametrize("name,window", [("swin__w2x4", (2, 4)), ("swin__w3x3", (3, 3)), ("donut-swin__w3", (3, 3))])
def test_swin_bias_is_transformers(name, window):
    case, at = np.load(CASES / f"bias_window__{name}.npz"), pe.positions.grid(window)
    scheme = pe.SwinBias(heads=N, window=window)
    np.testing.assert_array_equal(numbered(scheme)(at, at)[0].reshape(-1), case["out.index"].reshape(-1))
    if "par.table" in case:
        np.testing.assert_array_equal(scheme.bind(table_of(case["par.table"]))(at + 7, at + 7), case["out.bias"][0])
        return
    q, k, v = (
        (case["in.x"] @ case[f"par.{name}.weight"].T + case[f"par.{name}.bias"]).reshape(1, 9, N, 4)
        for name in ("query", "key", "value")
    )
    bias = scheme.bind(table_of(case["par.relative_position_bias_table"]))
    out = pe.attend(q, k, v, bias=bias, query_positions=at).reshape(1, 9, 12)
    np.testing.assert_allclose(out, case["out.attn_out"], rtol=0, atol=1e-6)


def test_swin_bias_of_three_axes():
    window = (2, 3, 4)
    at = np.asarray(pe.positions.grid(window))
    y, x, z = np.moveaxis(at[:, None] - at[None, :], -1, 0) + np.array([1, 2, 3])[:, None, None]
    np.testing.assert_array_equal(numbered(pe.SwinBias(heads=N, window=window))(at, at)[2], y * 5 * 7 + x * 7 + z)


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_swin_bias_is_that_of_neighbourhood_attention(dilation):
    """NATTEN 0.14: key `ki` of query i stands at `start(i) + ki dilation` and has `rpb[first(i) + ki]`."""
    kernel, length = 5, 19
    half = kernel // 2
    rpb = np.random.default_rng(0).normal(size=(N, 2 * kernel - 1, 2 * kernel - 1)).astype(np.float32)
    scheme = pe.SwinBias(heads=N, window=(kernel, kernel), outside="zero")
    bound = scheme.bind({"table": jnp.asarray(rpb[:, ::-1, ::-1].reshape(N, -1))})

    def neighbours(i):
        """(position, index in rpb) of each key that query i attends, along one axis."""
        mine = range(i % dilation, length, dilation)  # those that it could attend
        own = i // dilation
        start = min(max(own - half, 0), len(mine) - kernel)
        return [(mine[start + ki], kernel - 1 - (own - start) + ki) for ki in range(kernel)]

    assert dilation > 1 or [neighbours(i)[0] for i in (0, 1, 9, 18)] == [(0, 4), (0, 3), (7, 2), (14, 0)]
    for i, j in ((0, 18), (4, 1), (9, 10)):
        rows, columns = neighbours(i), neighbours(j)
        keys = jnp.array([(y, x) for y, _ in rows for x, _ in columns]) // dilation
        got = bound(jnp.array([(i, j)]) // dilation, keys)
        want = [[rpb[n, a, b] for _, a in rows for _, b in columns] for n in range(N)]
        np.testing.assert_array_equal(got[:, 0], want)


# transformers 5.23.0: `LevitAttention` of resolution 3, `LevitAttentionSubsample` from 4 to 2 with stride 2,
# `BeitRelativePositionBias.generate_relative_position_index((2, 3))`.
LEVIT = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [1, 0, 1, 4, 3, 4, 7, 6, 7], [2, 1, 0, 5, 4, 3, 8, 7, 6]]
LEVIT += [[3, 4, 5, 0, 1, 2, 3, 4, 5], [4, 3, 4, 1, 0, 1, 4, 3, 4], [5, 4, 3, 2, 1, 0, 5, 4, 3]]
LEVIT += [[6, 7, 8, 3, 4, 5, 0, 1, 2], [7, 6, 7, 4, 3, 4, 1, 0, 1], [8, 7, 6, 5, 4, 3, 2, 1, 0]]
SHRINKING = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [2, 1, 0, 1, 6, 5, 4, 5, 10, 9, 8, 9, 14, 13, 12, 13],
]
SHRINKING += [[8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7], [10, 9, 8, 9, 6, 5, 4, 5, 2, 1, 0, 1, 6, 5, 4, 5]]
BEIT = [[17, 15, 15, 15, 15, 15, 15], [16, 7, 6, 5, 2, 1, 0], [16, 8, 7, 6, 3, 2, 1], [16, 9, 8, 7, 4, 3, 2]]
BEIT += [[16, 12, 11, 10, 7, 6, 5], [16, 13, 12, 11, 8, 7, 6], [16, 14, 13, 12, 9, 8, 7]]


def test_levit_bias_is_transformers():
    small, large = pe.positions.grid((2, 2)), pe.positions.grid((4, 4))
    square = pe.positions.grid((3, 3))
    np.testing.assert_array_equal(numbered(pe.LeViTBias(heads=N, shape=(3, 3)))(square, square)[1], LEVIT)
    np.testing.assert_array_equal(numbered(pe.LeViTBias(heads=N, shape=(4, 4)))(2 * small, large)[1], SHRINKING)


def test_beit_bias_is_transformers():
    """Also of a row of the batch without a class token, and with one elsewhere."""
    at = jnp.concatenate([jnp.full((1, 2), -1), pe.positions.grid((2, 3))])
    bound = numbered(pe.BEiTBias(heads=N, shape=(2, 3)))
    np.testing.assert_array_equal(bound(at, at), [BEIT] * N)
    order = np.array([[1, 2, 3, 4, 5, 6], [3, 0, 1, 2, 6, 5]])
    want = np.array(BEIT)[order[:, :, None], order[:, None, :]]
    np.testing.assert_array_equal(jax.jit(lambda at: bound(at, at))(at[order])[:, 1], want)


# transformers 5.23.0: the first and the last query of `Swinv2SelfAttention`, 2 heads, with the parameters of the test.
SWIN_V2 = {
    ((3, 2), None): [
        [11.964485, 8.282536, 11.819263, 9.061832, 11.573809, 9.318111],
        [13.770583, 12.303191, 13.899395, 12.085931, 14.242259, 11.964485],
        [3.652505, 7.309510, 3.972295, 6.687452, 4.274426, 6.460068],
        [1.861315, 3.120576, 1.762297, 3.368327, 1.521444, 3.652505],
    ],
    ((3, 2), (6, 4)): [
        [11.964484, 9.691334, 12.016646, 9.696488, 11.884125, 9.733921],
        [13.572090, 12.026649, 13.595054, 11.900077, 13.607679, 11.964484],
        [3.652505, 5.859204, 3.708552, 6.006391, 3.889450, 6.025998],
        [2.044064, 3.440250, 2.051236, 3.607134, 2.114512, 3.652505],
    ],
    ((1, 1), None): [[11.964484], [11.964484], [3.652505], [3.652505]],
}


@pytest.mark.slow
@pytest.mark.parametrize("window,pretrained", SWIN_V2)
def test_swin_v2_bias_is_transformers(window, pretrained):
    params = {"hidden_kernel": wave(512, 2).T[None], "hidden_bias": wave(1, 512, seed=1)}
    bound = pe.SwinV2Bias(heads=2, window=window, pretrained_window=pretrained).bind(
        params | {"out_kernel": wave(2, 512, seed=2) / 64}
    )
    at = pe.positions.grid(window)
    got = bound(at, at)[:, jnp.array([0, -1])].reshape(4, -1)
    np.testing.assert_allclose(got, SWIN_V2[window, pretrained], rtol=0, atol=5e-6)


OUTSIDE = {
    "swin": (pe.SwinBias(heads=N, window=(2, 3)), [2, 0], [-1, -2]),
    "levit": (pe.LeViTBias(heads=N, shape=(2, 3)), [0, -3], [1, 2]),
    "beit": (pe.BEiTBias(heads=N, shape=(2, 3)), [-2, 1], [1, -2]),
}


@pytest.mark.parametrize("scheme,outside,inside", OUTSIDE.values(), ids=OUTSIDE)
def test_traced_offsets_outside_the_table_are_nan_and_pass_nothing_back(scheme, outside, inside):
    """Never a neighbour's entry; when they are concrete, they are refused."""
    query, keys = jnp.zeros((1, 2), jnp.int32), jnp.array([outside, inside, [2**31 - 1, 0], [0, -(2**31)]])
    params = {"table": values(*scheme.inits()["table"].shape)}

    def loss(params):
        bias = scheme.bind(params)(query, keys)[:, 0]
        return jnp.nansum(bias), bias

    gradient, bias = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert np.isnan(bias[:, [0, 2, 3]]).all() and not np.isnan(bias[:, 1]).any()
    np.testing.assert_array_equal(np.sum(gradient["table"], axis=1), 1.0)
    with pytest.raises(ValueError, match="correct the positions, or make the table larger"):
        scheme.bind(params)(query, keys)


def test_offsets_outside_of_a_neighbourhood_are_zero():
    scheme = pe.SwinBias(heads=N, window=(2, 3), outside="zero")
    params = {"table": values(N, 15)}
    query, keys = jnp.zeros((1, 2), jnp.int32), jnp.array([[2, 0], [-1, -2], [2**31 - 1, 0]])
    gradient, bias = jax.grad(lambda p: (jnp.sum(x := scheme.bind(p)(query, keys)), x), has_aux=True)(params)
    inside = dataclasses.replace(scheme, outside="error").bind(params)(query, keys[1:2])
    np.testing.assert_array_equal(bias, jnp.pad(inside, [(0, 0), (0, 0), (1, 1)]))
    np.testing.assert_array_equal(np.sum(gradient["table"], axis=1), 1.0)


def test_memory_of_a_table_of_offsets_grows_with_the_length():
    """Forward and backward over an image of 64 rows, as compiled: of 8,192 patches a matrix would be 2 GiB."""
    heads, temporary = 8, []
    for width in (32, 64, 128):
        scheme, at = pe.SwinBias(heads=heads, window=(64, width)), pe.positions.grid((64, width))

        def loss(params, q, k, v, scheme=scheme, at=at):
            out = pe.attend(q, k, v, bias=scheme.bind(params), query_positions=at, implementation="xla")
            return jnp.sum(out**2)

        x = jax.ShapeDtypeStruct((1, 64 * width, heads, 32), jnp.float32)
        params = {"table": jax.ShapeDtypeStruct(scheme.inits()["table"].shape, jnp.float32)}
        done = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).lower(params, x, x, x).compile()
        temporary.append(done.memory_analysis().temp_size_in_bytes)
    assert temporary[1] < 2.2 * temporary[0] and temporary[2] < 2.2 * temporary[1]
    assert temporary[2] < heads * 8192**2 * 4 / 16


# Sums over axes


def test_axis_bias_is_layoutlmv2s():
    """Positions in the text, left and bottom of the box."""
    case = np.load(CASES / "bias_t5__layoutlmv2__1d_2d.npz")
    biases = [pe.T5Bias(heads=N, buckets=32, max_distance=128, bidirectional=True)]
    biases += 2 * [pe.T5Bias(heads=N, buckets=64, max_distance=256, bidirectional=True)]
    tables = [jnp.asarray(case[f"par.{name}_bias.weight"]) for name in ("rel_pos", "rel_pos_x", "rel_pos_y")]
    bound = pe.AxisBias(biases=tuple(biases)).bind({f"table_{i}": table for i, table in enumerate(tables)})
    box = case["in.bbox"]
    at = np.stack([case["in.position_ids"], box[..., 0], box[..., 3]], axis=-1).astype(np.int32)
    np.testing.assert_allclose(bound(at, at), case["out.b1d"] + case["out.b2d"], rtol=0, atol=5e-7)


# transformers 5.23.0: `_cal_1d_pos_emb + _cal_2d_pos_emb` of LayoutLMv3's encoder, with the tables of the test.
LAYOUTLMV3 = [
    [
        [1.7507679, -2.9589050, -0.3958210, 0.0771630],
        [-1.0763779, 1.7507679, -1.0753300, 2.0665121],
        [1.2868690, 1.2190420, 1.7507679, 0.7977380],
        [-0.1608180, 1.7074040, 0.2615341, 1.7507679],
    ],
    [
        [2.4001329, -1.2722740, -0.0473230, -0.3282840],
        [-1.5106760, 2.4001329, -0.6177630, 1.4308810],
        [-1.1451310, -0.1889920, 2.4001329, -0.2330510],
        [-1.8115110, 0.1404940, -1.7556911, 2.4001329],
    ],
]


def test_axis_bias_is_layoutlmv3s():
    shared = pe.T5Bias(heads=2, buckets=12, max_distance=40, bidirectional=True)
    scheme = pe.AxisBias(biases=(dataclasses.replace(shared, buckets=8, max_distance=10), shared, shared))
    params = {"table_0": wave(2, 8), "table_1": wave(2, 12, seed=1), "table_2": wave(2, 12, seed=2)}
    at = jnp.array([[0, 0, 6], [1, 10, 9], [2, 60, 50], [30, 11, 75]])
    np.testing.assert_allclose(scheme.bind(params)(at, at), LAYOUTLMV3, rtol=0, atol=1e-6)


def test_axis_bias_of_a_bias_of_two_axes():
    time, plane = pe.ClippedBias(heads=N, left=1, right=1), pe.SwinBias(heads=N, window=(2, 2))
    tables = {"table_0": values(N, 3), "table_1": values(N, 9, seed=1)}
    at = pe.positions.grid((2, 2, 2))
    scheme = pe.AxisBias(biases=(time, plane))
    assert scheme.position_axes == 3
    want = time.bind({"table": tables["table_0"]})(at[:, 0], at[:, 0])
    want = want + plane.bind({"table": tables["table_1"]})(at[:, 1:], at[:, 1:])
    np.testing.assert_array_equal(scheme.bind(tables)(at, at), want)


# Boxes


@pytest.mark.slow
def test_box_rpb_is_sam3s():
    """Prepended: a query without a box. Keys in another order, and in rows of their own."""
    case = np.load(CASES / "bias_box_relation__sam3__log_rpb.npz")
    params = {}
    for axis in "xy":
        layer = f"par.box_rpb_embed_{axis}.layer"
        params |= {
            f"hidden_kernel_{axis}": case[f"{layer}1.weight"].T[None],
            f"hidden_bias_{axis}": case[f"{layer}1.bias"][None],
            f"out_kernel_{axis}": case[f"{layer}2.weight"],
            f"out_bias_{axis}": case[f"{layer}2.bias"],
        }
    bound, at = pe.BoxRPB(heads=N, shape=(3, 4), hidden=8).bind(params), pe.positions.grid((3, 4))
    boxes = np.concatenate([np.array([[[0, 0, -1, -1]]], np.float32), case["in.boxes"]], axis=1)
    nothing, keys = jnp.zeros((3, 2), jnp.int32), jnp.ones((1, 12, 1, 1))
    got = bound(boxes, keys, nothing, at)
    np.testing.assert_array_equal(got[:, :, 0], 0.0)
    np.testing.assert_allclose(got[:, :, 1:], case["out.rpb"], rtol=0, atol=1e-6)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(12), (2, 1)), axis=1)
    rows = bound(np.tile(boxes, (2, 1, 1)), jnp.ones((2, 12, 1, 1)), nothing, at[orders])
    for row, order in zip(rows, orders, strict=True):
        np.testing.assert_allclose(row, got[0][..., order], rtol=0, atol=1e-6)
    outside = jax.jit(lambda at: bound(boxes, keys, nothing, at))(at.at[5, 0].set(3).at[7, 1].set(-1))
    assert np.isnan(outside[:, :, 1:]).any((0, 1, 2)).tolist() == [i in (5, 7) for i in range(12)]


# transformers 5.23.0: `PPDocLayoutV2PositionRelationEmbedding`, 2 heads, 4 features, with the parameters of the test.
PP_DOCLAYOUT = [
    [[1.665992, 0.716630, 2.639037], [-0.147572, 1.665992, -0.037481], [0.521862, 0.509976, 1.665992]],
    [[-1.886119, -0.788133, -2.722855], [-0.198367, -1.886119, -1.081849], [-1.163704, -0.832132, -1.886119]],
]
BOXES = np.array([[[10, 20, 8, 4], [30, 25, 2, 6], [11, 80, 40, 30]]], np.float32)


def test_box_relation_is_pp_doclayouts():
    """Angles of some hundreds, in float32: 1e-4."""
    params = {"kernel": wave(2, 16), "bias": wave(2, seed=3)}
    bound = pe.BoxRelationBias(heads=2, features=4, denominator=1.0).bind(params)
    at = pe.positions.arange(3)
    np.testing.assert_allclose(bound(BOXES, BOXES, at, at)[0], PP_DOCLAYOUT, rtol=0, atol=2e-4)


def test_box_relation_is_relation_detrs():
    """Each number's sines and cosines side by side, a linear layer and a ReLU; in float64."""
    rng, features, heads = np.random.default_rng(0), 8, 3
    here, there = rng.uniform(0.1, 0.9, (2, 5, 4)), rng.uniform(0.1, 0.9, (2, 7, 4))
    kernel, bias = rng.normal(size=(heads, 4 * features)), rng.normal(size=heads)
    (xy, wh), (xy2, wh2) = ((x[..., :2], x[..., 2:]) for x in (here[:, :, None], there[:, None]))
    relation = [np.log(np.abs(xy - xy2) / (wh + 1e-5) + 1), np.log((wh + 1e-5) / (wh2 + 1e-5))]
    angle = np.concatenate(relation, -1)[..., None] * 100 / 1e4 ** (2 * np.arange(features // 2) / features)
    embedding = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(*angle.shape[:3], -1)
    want = np.maximum(np.moveaxis(embedding @ kernel.T + bias, -1, 1), 0)
    ours = kernel.reshape(heads, 4, features // 2, 2).swapaxes(2, 3).reshape(heads, -1)
    params = {"kernel": jnp.asarray(ours, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    bound = pe.BoxRelationBias(heads=heads, features=features, relu=True).bind(params)
    boxes, at = [jnp.asarray(x, jnp.float32) for x in (here, there)], [pe.positions.arange(n) for n in (5, 7)]
    np.testing.assert_allclose(bound(*boxes, *at), want, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["box_rpb", "box_relation"])
def test_biases_of_boxes_tile_by_tile(name):
    """With the gradients of boxes as well."""
    scheme = next(row.scheme for row in TABLE if row.name == name)
    batch, lengths = 3, (29, 29)
    boxes = jnp.abs(values(batch, 29, 4, seed=3)) + 0.1
    bias = scheme.bind(random_params(scheme)).of(boxes, boxes if scheme.content_axes[1] == "S, 4" else None)
    at = {}
    if name == "box_rpb":
        keys = pe.positions.grid((5, 6))[:29]
        at = {"query_positions": jnp.zeros((29, 2), jnp.int32), "key_positions": keys}
    compare(bias, at, lengths=lengths, heads=(scheme.heads, 2), causal=True)


def test_t5_buckets_of_the_longest_distance_are_found_at_once():
    """Bucket j of 16 begins at the smallest d with d^16 >= 16^(16 - j) max_distance^j; counting up takes minutes."""
    last = 2**31 - 1
    bucket = jax.jit(pe.T5Bias(heads=1, buckets=32, max_distance=last, bidirectional=False).bucket)
    for j in range(1, 16):
        bound = 16 ** (16 - j) * last**j
        d = round(bound ** (1 / 16)) - 2
        while d**16 < bound:
            d += 1
        assert bucket(jnp.array([-d, 1 - d])).tolist() == [16 + j, 15 + j]
