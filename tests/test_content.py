"""Biases that are functions of content, and vectors beside values: references of a few lines in float64."""

from decimal import ROUND_CEILING, Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schemes import TABLE, random_params, values
from test_blockwise import compare, tiles_of

import posembed_jax as pe
from posembed_jax import lookup
from posembed_jax.schemes import relative_scores
from posembed_jax.schemes.deberta import log_buckets

B, T, S, N, D = 2, 5, 7, 3, 4
AT, KEYS_AT = jnp.array([3, 9, 0, 2, 7]), jnp.array([5, 1, 2, 9, 0, 20, 3])


def content(seed=0, keys=S, queries=T, heads=N, dim=D):
    return values(B, queries, heads, dim, seed=seed), values(B, keys, heads, dim, seed=seed + 1)


# Rows of relative tables


@pytest.mark.parametrize("size", [6, 200_000])
def test_pick_and_collect_in_both_ways(size):
    """As products and as additions one by one; what is outside of the table is 0 and passes nothing back."""
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.integers(-2, size + 2, (B, 1, T, S)), jnp.int32)
    rows = rows.at[0, 0, 0, :2].set(jnp.array([2**31 - 1, -1]))
    assert (rows.size * size > lookup.LARGEST_PRODUCT) == (size > 6)
    scores, weights = values(B, N, T, size), values(B, N, T, S, seed=1)
    inside = np.asarray((rows >= 0) & (rows < size))
    at = np.where(inside, rows, 0)
    want = np.take_along_axis(np.asarray(scores), np.broadcast_to(at, weights.shape), -1) * inside
    found, pull_back = jax.vjp(lambda scores: relative_scores.pick(scores, rows), scores)
    np.testing.assert_array_equal(found, want)
    sums = np.zeros(scores.shape)
    for b, n, t, s in np.ndindex(*weights.shape):
        if inside[b, 0, t, s]:
            sums[b, n, t, rows[b, 0, t, s]] += weights[b, n, t, s]
    np.testing.assert_allclose(pull_back(weights)[0], sums, rtol=0, atol=1e-6)
    np.testing.assert_allclose(relative_scores.collect(weights, rows, size), sums, rtol=0, atol=1e-6)
    _, pull_back = jax.vjp(lambda weights: relative_scores.collect(weights, rows, size), weights)
    np.testing.assert_array_equal(pull_back(scores)[0], want)


@pytest.mark.parametrize("start", [-9, 0, 25, 399])
@pytest.mark.parametrize("counted", [True, False])
def test_products_with_rows_of_distances(start, counted):
    """By reshaping and by picking; near the ends of the table, and outside of it."""
    distance = start + jnp.arange(S)[None, None] - jnp.arange(T)[None, :, None]
    distance = distance if counted else distance.at[0, 2, 3].set(30)
    query, table, weights = values(B, T, N, D), values(1, 400, D, seed=1), values(B, N, T, S, seed=2)

    def product(query, table):
        return relative_scores.of_rows(query, table, lambda d: 2 * d, distance)

    rows = 2 * np.asarray(distance)
    inside = (rows >= 0) & (rows < 400)
    vectors = np.float64(table)[0, np.where(inside, rows, 0)] * inside[..., None]
    found, pull_back = jax.vjp(jax.jit(product), query, table)
    np.testing.assert_allclose(found, np.einsum("btnd,otsd->bnts", np.float64(query), vectors), rtol=0, atol=1e-6)
    query_bar, table_bar = pull_back(weights)
    np.testing.assert_allclose(query_bar, np.einsum("bnts,otsd->btnd", np.float64(weights), vectors), rtol=0, atol=1e-6)
    want = np.zeros((400, D))
    np.add.at(want, np.where(inside, rows, 0)[0], np.einsum("bnts,btnd->tsd", weights, query) * inside[0, ..., None])
    np.testing.assert_allclose(table_bar[0], want, rtol=0, atol=2e-6)


# Shaw


def vectors_of(table, left, right, outside):
    """float64 `[N or 1, T, S, D]`, as the paper writes it."""
    distance = np.asarray(KEYS_AT)[None] - np.asarray(AT)[:, None]
    found = np.float64(table)[:, np.clip(distance, -left, right) + left]
    within = (distance >= -left) & (distance <= right)
    return found * within[..., None] if outside == "zero" else found


@pytest.mark.parametrize("outside", ["clip", "zero"])
@pytest.mark.parametrize("shared", [True, False])
def test_shaw_bias_and_values(outside, shared):
    query, key = content()
    settings = {"heads": N, "dim": D, "left": 4, "right": 2, "outside": outside, "shared": shared}
    table = values(1 if shared else N, 7, D, seed=3)
    vectors = vectors_of(table, 4, 2, outside)
    bias = pe.ShawBias(**settings).bind({"table": table})
    want = np.sum(np.float64(query).swapaxes(1, 2)[:, :, :, None] * vectors, -1)
    np.testing.assert_allclose(bias(query, key, AT, KEYS_AT), want / 2, rtol=0, atol=1e-6)
    unscaled = pe.ShawBias(**settings, scale=1.0).bind({"table": table})
    np.testing.assert_allclose(unscaled(query, key, AT, KEYS_AT), want, rtol=0, atol=2e-6)
    beside, weights = pe.ShawValues(**settings).bind({"table": table}), values(B, N, T, S, seed=4)
    want = np.sum(np.float64(weights)[..., None] * vectors, -2).swapaxes(1, 2)
    np.testing.assert_allclose(beside(weights, AT, KEYS_AT), want, rtol=0, atol=1e-6)


def test_shaw_makes_no_array_of_vectors():
    """As compiled, forward and backward: an array [T, S, D] of 2,048 tokens would be 1 GiB."""
    scheme = pe.ShawBias(heads=2, dim=64, left=8, right=8)

    def loss(table, x):
        return jnp.sum(pe.attend(x, x, x, bias=scheme.bind({"table": table}), implementation="xla") ** 2)

    table, x = jax.ShapeDtypeStruct((1, 17, 64), jnp.float32), jax.ShapeDtypeStruct((1, 2048, 2, 64), jnp.float32)
    done = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(table, x).compile()
    assert done.memory_analysis().temp_size_in_bytes < 2**26


def test_values_of_shaw_tile_by_tile():
    scheme, table = pe.ShawValues(heads=4, dim=8, left=3, right=2), values(1, 6, 8)
    qkv = [values(2, 45, heads, 8, seed=i) for i, heads in enumerate((4, 2, 2))]

    def loss(implementation):
        def of(table, *qkv):
            out = pe.attend(*qkv, value_bias=scheme.bind({"table": table}), causal=True, implementation=implementation)
            return jnp.sum(jnp.sin(3 * out)), out

        return jax.jit(jax.grad(of, argnums=(0, 1, 2, 3), has_aux=True))(table, *qkv)

    with tiles_of(8):
        got, want = (jax.tree.leaves(loss(name)) for name in ("xla", "reference"))
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-6 * max(1.0, np.abs(y).max()))


# Transformer-XL


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["sin_cos", "cos_sin", "interleaved"])
@pytest.mark.parametrize("far", [0, 2**30])
def test_transformer_xl(layout, far):
    """In float64, also where float32 angles have no fraction any more; then with clipped distances."""
    query, key = content(heads=N)
    sinusoid = pe.Sinusoidal(features=6, layout=layout)
    scheme = pe.TransformerXLBias(heads=N, dim=D, sinusoid=sinusoid)
    params = {"kernel": values(N, 6, D, seed=5), "u": values(N, D, seed=6), "v": values(N, D, seed=7)}
    q, k, kernel, u, v = (np.float64(x) for x in (query, key, *params.values()))
    distance = np.asarray(AT)[:, None] - np.asarray(KEYS_AT)[None]
    for furthest in (None, 3):
        apart = distance if furthest is None else np.clip(distance, -furthest, furthest)
        angle = apart[..., None] * 10_000.0 ** (-np.arange(3) / 3)
        x = {"sin_cos": (np.sin(angle), np.cos(angle)), "cos_sin": (np.cos(angle), np.sin(angle))}
        rows = np.concatenate(x.get(layout, x["sin_cos"]), -1)
        rows = rows[..., [0, 3, 1, 4, 2, 5]] if layout == "interleaved" else rows
        r = np.einsum("tsf,nfd->ntsd", rows, kernel)
        want = np.einsum("btnd,ntsd->bnts", q + v, r) + np.einsum("nd,bsnd->bns", u, k)[:, :, None]
        clipped = pe.TransformerXLBias(heads=N, dim=D, sinusoid=sinusoid, max_distance=furthest)
        got = clipped.bind(params)(query, key, AT + far, KEYS_AT + far)
        np.testing.assert_allclose(got, want / 2, rtol=0, atol=2e-6)
    plain = pe.TransformerXLBias(heads=N, dim=D, sinusoid=sinusoid, biases=False, scale=1.0)
    want = scheme.bind(params | {"u": jnp.zeros((N, D)), "v": jnp.zeros((N, D))})(query, key, AT, KEYS_AT)
    got = plain.bind({"kernel": params["kernel"]})(query, key, AT, KEYS_AT)
    np.testing.assert_allclose(got, 2 * want, rtol=0, atol=2e-6)


# DeBERTa


@pytest.mark.parametrize("buckets,furthest", [(256, 512), (8, 16), (6, 9), (4, 8), (33, 100)])
def test_log_buckets(buckets, furthest):
    """With 60 digits, beyond the last bucket; a result within 1e-40 of a whole number is that number."""
    middle, smallest = buckets // 2, np.array(log_buckets(buckets, furthest))
    distances = range(1, 2 * furthest)
    ours = np.searchsorted(smallest, distances, side="right")
    with localcontext() as context:
        context.prec = 60
        for d, bucket in zip(distances, ours, strict=True):
            n = Decimal(0)
            if d > middle:
                ratio = (Decimal(d) / middle).ln() / (Decimal(furthest - 1) / middle).ln() * (middle - 1)
                n = (ratio - Decimal("1e-40")).to_integral_value(rounding=ROUND_CEILING)
            assert bucket == (d if d <= middle else min(middle + n, buckets)), d


@pytest.mark.slow
@pytest.mark.parametrize("buckets,span", [(6, 6), (None, 8)])
def test_deberta(buckets, span):
    """In float64; keys that heads share are those of each."""
    query, key = content(heads=4)
    scheme = pe.DeBERTaBias(heads=4, dim=D, max_distance=8, buckets=buckets)
    tables = {name: values(4, 2 * span, D, seed=i) for i, name in enumerate(("pos_key", "pos_query"))}
    distance = np.asarray(AT)[:, None] - np.asarray(KEYS_AT)[None]
    if buckets:  # ceil(2 log(d / 3) / log(7 / 3)) from 3 on
        away = np.maximum(np.abs(distance), 3)
        logarithmic = 3 + np.ceil(2 * np.log(away / 3) / np.log(7 / 3))
        distance = np.where(np.abs(distance) <= 3, distance, np.sign(distance) * logarithmic)
    row = np.clip(distance, -span, span - 1).astype(int) + span
    c2p = np.einsum("btnd,ntsd->bnts", np.float64(query), np.float64(tables["pos_key"])[:, row])
    p2c = np.einsum("bsnd,ntsd->bnts", np.float64(key), np.float64(tables["pos_query"])[:, row])
    for kinds, want in ((("c2p", "p2c"), (c2p + p2c) / 12**0.5), (("c2p",), c2p / 8**0.5), (("p2c",), p2c / 8**0.5)):
        of_kinds = pe.DeBERTaBias(heads=4, dim=D, max_distance=8, buckets=buckets, kinds=kinds)
        bound = of_kinds.bind({name: tables[name] for name in of_kinds.inits()})
        np.testing.assert_allclose(bound(query, key, AT, KEYS_AT), want, rtol=0, atol=2e-6)
    bound, two = scheme.bind(tables), key[:, :, :2]
    want = bound(query, jnp.repeat(two, 2, axis=2), AT, KEYS_AT)
    np.testing.assert_allclose(bound(query, two, AT, KEYS_AT), want, rtol=0, atol=1e-6)


# Images, and profiles of the distance


@pytest.mark.parametrize("shared", [True, False])
def test_decomposed_bias(shared):
    shape, at = (2, 3), np.asarray(pe.positions.grid((2, 3)))
    query, _ = content(queries=6)
    scheme = pe.DecomposedBias(heads=N, dim=D, shape=shape, shared=shared, scale=0.5)
    params = {name: values(*x.shape, seed=i) for i, (name, x) in enumerate(scheme.inits().items())}
    offset = at[:, None] - at[None] + np.array([1, 2])
    rows = sum(np.float64(params[f"table_{axis}"])[:, offset[..., axis]] for axis in range(2))
    want = 0.5 * np.sum(np.float64(query).swapaxes(1, 2)[:, :, :, None] * rows, -1)
    np.testing.assert_allclose(scheme.bind(params)(query, query, at, at), want, rtol=0, atol=2e-6)
    outside = jax.jit(lambda at: scheme.bind(params)(query, query, at, at))(jnp.asarray(at).at[0, 1].set(9))
    assert np.isnan(outside[:, :, 0, 1:]).all() and not np.isnan(outside[:, :, 1:, 1:]).any()


def test_relative_logits():
    states, keys = values(B, T, N, 2), jnp.zeros((B, S, 1, 1))
    profiles = values(1, 4, 2, seed=1)
    bound = pe.RelativeLogits(heads=N, features=2, extent=4).bind({"profiles": profiles})
    d = np.asarray(AT)[:, None] - np.asarray(KEYS_AT)[None]
    inside = (d >= 0) & (d < 4)
    want = np.einsum("btnr,tsr->bnts", np.float64(states), np.float64(profiles)[0, np.where(inside, d, 0)]) * inside
    np.testing.assert_allclose(bound(states, keys, AT, KEYS_AT), want, rtol=0, atol=1e-6)


# Gates


@pytest.mark.slow
def test_sums_of_gates_of_many_tokens():
    """Right to a unit of the last place of what is summed, and the gradient counts those that come after."""
    gates = -jnp.abs(values(70_000, 1)) - 1e-3
    exact = np.cumsum(np.asarray(gates, np.longdouble), axis=0)
    sums = np.asarray(jax.jit(pe.cumulative_gates)(gates), np.longdouble)
    for back in (1, 10, 1000, 50_000):
        apart = (sums[back:] - sums[:-back]).sum(-1)
        np.testing.assert_allclose(np.float64(apart), np.float64(exact[back:] - exact[:-back]), rtol=1e-7, atol=1e-7)
    gradient = jax.grad(lambda x: jnp.sum(pe.cumulative_gates(x)[..., 0]))(gates[:100])
    np.testing.assert_array_equal(gradient[:, 0], np.arange(100, 0, -1))


def test_forgetting_gate():
    """The sum of the gates after the key; in decoding, with the sums of the keys so far."""
    gates = -jnp.abs(values(B, S, N))
    c, at = pe.cumulative_gates(gates), pe.positions.arange(S)
    bound, q = pe.ForgettingGate(heads=N).bind({}), values(B, S, N, D)
    bias = bound(c, c, at, at)
    for t, s in ((5, 2), (6, 0), (3, 3)):
        want = np.sum(np.float64(gates)[:, s + 1 : t + 1], axis=1)
        np.testing.assert_allclose(bias[:, :, t, s], want, rtol=0, atol=1e-6)
    whole = pe.attend(q, q, q, bias=bound.of(c, c), causal=True)
    last = pe.attend(q[:, -1:], q, q, bias=bound.of(c[:, -1:], c), query_positions=at[-1:], key_positions=at)
    np.testing.assert_allclose(last, whole[:, -1:], rtol=0, atol=1e-6)


def test_cope():
    """In float64, of the keys that each query attends; tile by tile it is refused."""
    query, key = content(keys=T, heads=N)
    scheme, table = pe.CoPE(heads=N, dim=D, length=3), values(1, 3, D, seed=3)
    mask = np.tril(np.ones((T, T), bool))
    mask[3, 1] = False
    q, k, rows = np.float64(query), np.float64(key), np.float64(table)[0]
    gates = mask / (1 + np.exp(-np.einsum("btnd,bsnd->bnts", q, k) / 2))
    place = np.minimum(np.cumsum(gates[..., ::-1], -1)[..., ::-1], 2)
    below = np.floor(place).astype(int)
    logits = np.einsum("btnd,rd->bntr", q, rows)
    first, second = (np.take_along_axis(logits, np.minimum(below + i, 2), -1) for i in (0, 1))
    want, at = first + (place - below) * (second - first), pe.positions.arange(T)
    bound = scheme.bind({"table": table})
    np.testing.assert_allclose(bound(query, key, at, at, jnp.asarray(mask)[None, None]), want, rtol=0, atol=2e-6)
    out = pe.attend(query, key, key, bias=bound, causal=True, mask=jnp.asarray(mask))
    same = pe.attend(query, key, key, bias=jnp.asarray(want, jnp.float32), mask=jnp.asarray(mask))
    np.testing.assert_allclose(out, same, rtol=0, atol=2e-6)
    with tiles_of(2), pytest.raises(ValueError, match="needs implementation='reference'"):
        pe.attend(query, key, key, bias=bound, causal=True, implementation="xla")


# What needs no scheme


def test_pope_is_rope_of_prepared_queries_and_keys():
    """https://arxiv.org/abs/2509.10534: magnitudes of the content, phases of the position and of a learned offset."""
    query, key = (jax.nn.softplus(x) for x in content())
    offset, rope = values(N, D, seed=3), pe.RoPE(dim=2 * D, layout="half").bind({})
    turned = rope(jnp.concatenate([query, jnp.zeros_like(query)], -1), AT)
    phases = jnp.concatenate([key * jnp.cos(offset)[None, None], key * jnp.sin(offset)[None, None]], -1)
    got = jnp.einsum("btnd,bsnd->bnts", turned, rope(phases, KEYS_AT), precision="highest")
    distance = np.asarray(KEYS_AT)[None] - np.asarray(AT)[:, None]
    angle = distance[:, :, None, None] * 10_000.0 ** (-np.arange(D) / D) + np.float64(offset)
    want = np.einsum("btnd,bsnd,tsnd->bnts", np.float64(query), np.float64(key), np.cos(angle))
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)


# All of them, tile by tile


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decomposed", "relative_logits", "gated", "forgetting"])
def test_of_content_of_ones_own_tile_by_tile(name):
    """With the gradients of that content as well."""
    scheme, length = next(row.scheme for row in TABLE if row.name == name), 29
    states = values(3, length, scheme.heads, 8, seed=3)
    bias, at = scheme.bind(random_params(scheme)), {}
    if name == "decomposed":
        at = {"query_positions": pe.positions.grid((5, 6))[:length]}
    elif name == "forgetting":
        bias = bias.of(-jnp.abs(states[..., :2]), -jnp.abs(states[..., 1:3]))
    else:
        bias = bias.of(states if name == "relative_logits" else states.reshape(3, length, -1))
    compare(bias, at, lengths=(length, length), heads=(scheme.heads, 2), width=8, causal=True)
