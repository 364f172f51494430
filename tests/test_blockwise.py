"""Attention tile by tile is attention: outputs and all gradients against the reference.

Tiles of 8 x 8 are forced on lengths that would be a single tile otherwise, so every case has many, and most have some
that are filled up.
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes
from schemes import every, random_params, spread, values

import posembed_jax as pe
from posembed_jax.attention import blockwise

B, T, S, N, K, D = 3, 29, 45, 4, 2, 5
SIZE = 8
HIGHEST = jax.lax.Precision.HIGHEST
LESS_COMPILING = {"xla_backend_optimization_level": 0}  # the program is the same, LLVM spends half the time on it


@contextlib.contextmanager
def tiles_of(size):
    """For functions that are traced inside: one query is left to the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "tile_size", lambda shape: None if shape[2] == 1 else size)
        yield


def itself(bias):
    return bias


@functools.cache
def compiled(implementation, size, bias_of, **settings):
    """`(query, key, value, bias, arrays) -> ((loss, out), gradients of the first four)`, jitted."""

    def loss(query, key, value, bias, arrays):
        bias = bias_of(bias)
        out = pe.attend(query, key, value, bias=bias, implementation=implementation, **settings, **arrays)
        return jnp.sum(out.astype(jnp.float32) * values(*out.shape, seed=9)), out

    both = jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True, allow_int=True)
    return jax.jit(both, compiler_options=LESS_COMPILING)


def inputs(batch=B, lengths=(S, S), heads=(N, K), width=D, dtype=jnp.float32):
    shapes = [(batch, length, n, width) for length, n in zip((*lengths, lengths[1]), (*heads, heads[1]), strict=True)]
    return [2 * values(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]


def run(implementation, qkv, bias, arrays, size=SIZE, bias_of=itself, **settings):
    """Output and the gradients of query, key, value and each floating array of the bias, in float32."""
    with tiles_of(size):
        (_, out), gradients = compiled(implementation, size, bias_of, **settings)(*qkv, bias, arrays)
    floats = [x for x in jax.tree.leaves((out, gradients)) if jnp.issubdtype(x.dtype, jnp.floating)]
    return [np.asarray(x.astype(jnp.float32)) for x in floats]


def compare(bias=None, arrays=None, *, lengths=(S, S), heads=(N, K), width=D, size=SIZE, bias_of=itself, **settings):
    """Asserts that tile by tile is the reference, and returns the former."""
    qkv, arrays = inputs(lengths=lengths, heads=heads, width=width), arrays or {}
    got, want = (run(i, qkv, bias, arrays, size, bias_of, **settings) for i in ("xla", "reference"))
    assert len(got) == len(want) > 3
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * max(1.0, np.abs(y).max(initial=0.0)))
    return got


# Biases that a user brings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fire:
    """A pytree of both positions, not of their distance alone; one of its arrays is of integers."""

    strength: jax.Array
    floor: jax.Array

    def __call__(self, query_positions, key_positions):
        distance = jnp.abs(key_positions[..., None, :] - query_positions[..., :, None])
        far = jnp.log1p(jnp.maximum(jnp.abs(query_positions), self.floor).astype(jnp.float32))[..., :, None]
        ratio = jnp.expand_dims(jnp.log1p(distance.astype(jnp.float32)) / far, -3)
        return 2 * jnp.tanh(self.strength.reshape(*[1] * (ratio.ndim - 3), -1, 1, 1) * ratio)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wave(pe.DistanceBias):
    heads: int

    def inits(self):
        return {"strength": pe.normal(1.0, (self.heads,)), "rate": pe.normal(1.0, (1,))}

    def at(self, arrays, distance):
        strength, rate = (x.reshape(-1, *[1] * distance.ndim) for x in (arrays["strength"], arrays["rate"]))
        return strength * jnp.sin(rate * distance[None].astype(jnp.float32) + 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shaw(pe.ContentBias):
    """query . a[clip(distance)] + the same of the sum of the keys: https://arxiv.org/abs/1803.02155."""

    heads: int
    reach: int = 6

    def inits(self):
        return {name: pe.normal(1.0, (2 * self.reach + 1, D)) for name in ("for_query", "for_key")}

    def pairs(self, arrays, query, key, query_positions, key_positions):
        distance = key_positions[..., None, :] - query_positions[..., :, None]
        row = jnp.clip(distance, -self.reach, self.reach) + self.reach
        row = jnp.broadcast_to(row, (query.shape[0], *row.shape[-2:]))
        here = jnp.einsum("btnd,btsd->bnts", query, arrays["for_query"][row], precision=HIGHEST)
        return here + jnp.einsum("bskd,btsd->bts", key, arrays["for_key"][row], precision=HIGHEST)[:, None]


def closure(arrays):
    """A plain function, over arrays that are traced."""
    strength, order = arrays

    def bias(query_positions, key_positions):
        ranks = jnp.take(order, key_positions, mode="clip")
        return jnp.sin(strength[:, None, None] * (ranks[None, :] - query_positions[:, None])[None].astype(jnp.float32))

    return bias


def bound(scheme):
    return scheme.bind(random_params(scheme))


T5 = bound(pe.T5Bias(heads=N, buckets=8, max_distance=20, bidirectional=False))
T5_BOTH_WAYS = bound(pe.T5Bias(heads=N, buckets=8, max_distance=20, bidirectional=True))
FIRE = Fire(values(N), jnp.int32(3))
SHAW = bound(Shaw(heads=N))
CLOSED_OVER = values(N, seed=3), jnp.arange(S, dtype=jnp.int32) * 7 % S


# One call each

CHUNK = {"query_positions": pe.positions.arange(T, S - T), "key_positions": pe.positions.arange(S)}
AHEAD = {"query_positions": pe.positions.arange(T, 3), "key_positions": pe.positions.arange(S, 7)}
RANDOM = np.random.default_rng(0)
SCATTERED = jnp.asarray(RANDOM.integers(0, 60, (2, S)), jnp.int32)
MASK = jnp.asarray(RANDOM.random((B, 1, T, S)) < 0.3).at[:, :, 4].set(False).at[1].set(False)
HOLES = (
    jnp.where(jnp.asarray(RANDOM.random((B, N, T, S)) < 0.2), -jnp.inf, values(B, N, T, S)).at[0, :, 7].set(-jnp.inf)
)
CROSS = {"lengths": (T, S)}

CALLS = {
    "nothing": {"heads": (N, N)},
    "more keys than queries": {**CROSS, "heads": (N, 1), "scale": 0.7},
    "fewer keys than queries": {"lengths": (S, 11)},
    "causal, whole tiles": {
        "bias": T5,
        "lengths": (32, 48),
        "causal": True,
        "arrays": {"query_positions": pe.positions.arange(32, 16), "key_positions": pe.positions.arange(48)},
    },
    "the last chunk": {**CROSS, "bias": T5, "arrays": CHUNK, "causal": True},
    "window, both from other positions": {**CROSS, "bias": T5_BOTH_WAYS, "arrays": AHEAD, "window": (9, 3)},
    "causal window": {"bias": T5, "window": 5, "causal": True, "heads": (N, 1)},
    "soft cap": {"bias": T5, "causal": True, "logits_soft_cap": 1.5},
    "soft cap, mask": {**CROSS, "arrays": {"mask": MASK}, "logits_soft_cap": 1.5},
    "mask [T, S]": {**CROSS, "bias": T5, "arrays": {**CHUNK, "mask": MASK[0, 0]}},
    "mask [1, N, 1, S]": {**CROSS, "bias": FIRE, "arrays": {**CHUNK, "mask": values(1, N, 1, S, seed=5) > -0.5}},
    "scattered": {
        "bias": T5_BOTH_WAYS,
        "window": (20, 30),
        "arrays": {"query_positions": SCATTERED[0], "key_positions": SCATTERED[1]},
    },
    "array with -inf": {**CROSS, "bias": HOLES},
    "array [1, N, 1, S]": {**CROSS, "bias": values(1, N, 1, S), "arrays": {"mask": MASK[:1, :, :, :1]}},
    "array [B, 1, T, 1]": {**CROSS, "bias": values(B, 1, T, 1), "logits_soft_cap": 2.0},
    "closure": {**CROSS, "bias": CLOSED_OVER, "bias_of": closure, "arrays": CHUNK, "causal": True},
    "own distances": {**CROSS, "bias": bound(Wave(heads=N)), "arrays": AHEAD, "logits_soft_cap": 3.0},
    "own content": {**CROSS, "bias": SHAW, "arrays": CHUNK, "causal": True, "heads": (N, N)},
}


IN_DEFAULT_RUNS = ("causal, whole tiles", "the last chunk", "causal window", "soft cap, mask", "scattered", "closure")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in IN_DEFAULT_RUNS else [pytest.mark.slow]) for name in CALLS]
)
def test_is_the_reference(name):
    out, query_bar, *_ = compare(**CALLS[name])
    if name == "soft cap, mask":  # rows without a key
        for x in (out, query_bar):
            np.testing.assert_array_equal(x[:, 4], 0.0)
            np.testing.assert_array_equal(x[1], 0.0)


@pytest.mark.slow
@every(lambda row: row.place == "bias" and row.in_layers and not getattr(row.scheme, "sees_mask", False), heavy=True)
def test_every_bias_is_the_reference(row):
    """With positions that all fit into the tables of the schemes."""
    at = {"query_positions": spread(row.scheme, pe.positions.arange(S) // 2)} if row.axes else {}
    compare(bound(row.scheme), at, heads=(row.heads, K), width=schemes.D, causal=True)


def table_of_the_length(tables):
    """NaN beyond its end, as `jnp.take` is: where only what fills up the last tile stands."""
    return lambda q, k: jnp.take(tables[0], q, axis=1)[:, :, None] + jnp.take(tables[1], k, axis=1)[:, None]


@pytest.mark.parametrize("queries, keys, cap", [(T, 40, None), (S, S, 2.0)])
def test_what_fills_up_tiles_spoils_nothing(queries, keys, cap):
    tables = values(N, queries), values(N, keys, seed=3)
    arrays = {"query_positions": pe.positions.arange(queries), "key_positions": pe.positions.arange(keys)}
    compare(tables, arrays, lengths=(queries, keys), bias_of=table_of_the_length, logits_soft_cap=cap)


# Packed, padded and scattered rows: one compiled call for each bias, and the rows are its arguments


def layout(ids, positions=None, mask=None, key_ids=None, key_positions=None):
    """The arrays of a call in which everything is given."""
    ids = jnp.asarray(ids, jnp.int32)
    positions = pe.positions.from_segment_ids(ids) if positions is None else jnp.asarray(positions, jnp.int32)
    return {
        "query_segment_ids": ids,
        "key_segment_ids": ids if key_ids is None else jnp.asarray(key_ids, jnp.int32),
        "query_positions": positions,
        "key_positions": positions if key_positions is None else jnp.asarray(key_positions, jnp.int32),
        "mask": jnp.ones((B, 1, S, S), bool) if mask is None else jnp.asarray(mask),
    }


def runs(*rows):
    """Segment ids `[B, S]` from (id, how often) pairs, 0 after them."""
    flat = [[one for one, often in row for _ in range(often)][:S] for row in rows]
    return np.array([row + [0] * (S - len(row)) for row in flat])


ONES = np.ones((B, S), int)
IN_ORDER = runs([(1, 10), (2, 20), (3, 10)], [(4, 3), (7, 22), (9, 20)], [(1, 45)])
RECURRING = runs([(1, 10), (2, 20), (1, 10)], [(9, 9), (0, 9), (9, 9), (3, 18)], [(5, 1), (6, 1), (5, 20), (6, 23)])
PADDED = runs([(0, 11), (1, 34)], [(1, 30)], [(1, 5), (0, 4), (1, 17), (0, 9), (1, 10)])
OTHER_KEYS = runs([(3, 15), (1, 30)], [(7, 45)], [(0, 5), (1, 40)])
UNEVEN = pe.positions.arange(S, jnp.array([0, 5, 100]))
LAYOUTS = {
    "packed": layout(IN_ORDER),
    "ids recur": layout(RECURRING),
    "padding, counted": layout(PADDED, pe.positions.from_mask(jnp.asarray(PADDED != 0))),
    "padding, not counted": layout(PADDED, pe.positions.arange(S, jnp.zeros(B, jnp.int32))),
    "rows of padding": layout(runs([], [(1, 45)], []), UNEVEN),
    "every row from elsewhere": layout(ONES, UNEVEN),
    "queries before their keys": layout(ONES, UNEVEN, key_positions=UNEVEN + 13),
    "one row jumps": layout(IN_ORDER, pe.positions.from_segment_ids(jnp.asarray(IN_ORDER)).at[1, 30:].add(9)),
    "scattered": layout(ONES, RANDOM.integers(0, 60, (B, S))),
    "scattered in documents": layout(RECURRING, RANDOM.permuted(np.tile(np.arange(S), (B, 1)), axis=1)),
    "other documents": layout(IN_ORDER, key_ids=OTHER_KEYS),
    "masked too": layout(IN_ORDER, mask=RANDOM.random((B, 1, S, S)) < 0.2),
}
BIASES = {"distances": T5, "pytree": FIRE, "content": SHAW}
SETTINGS = {"causal": True, "window": (25, 5)}


@pytest.mark.slow
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_packed_padded_and_scattered_rows(name, bias):
    arrays = LAYOUTS[name]
    out, query_bar, key_bar, value_bar, *_ = compare(BIASES[bias], arrays, **SETTINGS)
    nobody = np.asarray(arrays["query_segment_ids"] == 0)
    no_key = np.asarray(arrays["key_segment_ids"] == 0)
    for x, where in ((out, nobody), (query_bar, nobody), (key_bar, no_key), (value_bar, no_key)):
        np.testing.assert_array_equal(x[where], 0.0)


def test_documents_and_padding_change_nothing():
    """Two documents in one row, each in a row of its own, padded on the left, and with a hole."""
    one, two, other = [1] * 17, [2] * 21, [3] * 7
    apart = np.array([one + [0] * 28, two + [0] * 24, other + [0] * 38])
    together = np.array([one + two + other, [0] * 28 + one, two[:9] + [0] * 24 + two[9:]])
    qkv = inputs()
    start = {1: 0, 2: 17, 3: 38}

    def rearranged(ids):
        """The tokens of the documents, wherever they stand now."""
        index = np.asarray(pe.positions.from_segment_ids(jnp.asarray(ids))) + np.vectorize(lambda i: start.get(i, 0))(
            ids
        )
        return [x[0][index] for x in qkv], index

    outs = []
    for ids in (apart, together):
        rows, index = rearranged(ids)
        out, *_ = run("xla", rows, T5, layout(ids), **SETTINGS)
        outs.append({int(t): out[b, s] for b, s in zip(*np.nonzero(ids), strict=True) for t in [index[b, s]]})
        np.testing.assert_array_equal(out[ids == 0], 0.0)
    assert len(outs[0]) == len(outs[1]) == S
    for t in range(S):
        np.testing.assert_allclose(outs[0][t], outs[1][t], rtol=0, atol=2e-6)


@pytest.mark.parametrize("chunk", [1, 16])
def test_decoding_is_the_full_pass(chunk):
    """Against a cache with room behind its tokens, each row being at another place."""
    query, key, value = inputs()
    positions = pe.positions.arange(S, jnp.zeros(B, jnp.int32))
    want, *_ = run("xla", (query, key, value), T5, layout(ONES, positions), **SETTINGS)
    for starts in ((0, 10, 29), (28, 3, 17)):
        at = pe.positions.arange(chunk, jnp.array(starts))
        arrays = {
            "query_positions": at,
            "key_positions": positions,
            "query_segment_ids": jnp.ones_like(at),
            "key_segment_ids": jnp.asarray(positions <= at[:, -1:], jnp.int32),
        }
        tokens = jnp.take_along_axis(query, at[:, :, None, None], axis=1)
        got, *_ = run("xla", (tokens, key, value), T5, arrays, **SETTINGS)
        np.testing.assert_allclose(
            got, np.take_along_axis(want, np.asarray(at)[:, :, None, None], 1), rtol=0, atol=2e-6
        )


# Narrow floats, and dropout


def test_bfloat16_is_as_near_as_that_of_the_reference():
    arrays, wide, narrow = LAYOUTS["packed"], inputs(), inputs(dtype=jnp.bfloat16)
    rounded = [x.astype(jnp.float32) for x in narrow]
    assert not np.array_equal(rounded[0], wide[0])
    want = run("reference", rounded, T5, arrays, **SETTINGS)
    got, like = (run(i, narrow, T5, arrays, **SETTINGS) for i in ("xla", "reference"))
    for x, y, z in zip(got, like, want, strict=True):
        scale = np.abs(z).max()
        np.testing.assert_allclose(x, z, rtol=0, atol=1e-2 * scale)
        assert np.sqrt(np.mean((x - z) ** 2)) <= 1.5 * np.sqrt(np.mean((y - z) ** 2)) + 1e-4 * scale


RATE = 0.3


@pytest.mark.slow
@pytest.mark.parametrize("broadcast", [False, True])
def test_dropout(broadcast):
    """What is kept is read off a call whose weights are all equal; with that as a mask, the rest is the definition."""
    rate, key = {"dropout_rate": RATE, "broadcast_dropout": broadcast}, jax.random.key(5)
    zero, one_hot = jnp.zeros((B, S, N, S)), jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, N, S))
    with tiles_of(SIZE):
        flat = jax.jit(lambda key: pe.attend(zero, zero, one_hot, implementation="xla", dropout_key=key, **rate))(key)
    times = jnp.moveaxis(jnp.asarray(flat), 1, 2) * S  # 0, or 1 / (1 - RATE)
    assert set(np.unique(np.round(times, 4))) == {0.0, np.float32(np.round(1 / (1 - RATE), 4))}
    kept = np.asarray(times) > 0.5
    for axis in (0, 1):
        same = np.all(kept == kept.take([0], axis=axis))
        assert same == broadcast
    assert abs(kept.mean() - (1 - RATE)) < 5 * np.sqrt(RATE * (1 - RATE) / (S * S if broadcast else kept.size))
    blocks = kept[0, 0, :40, :40].reshape(5, SIZE, 5, SIZE).swapaxes(1, 2).reshape(25, -1)
    assert len(np.unique(blocks, axis=0)) == 25  # each tile draws its own

    def defined(query, key, value, bias):
        key, value = (jnp.repeat(x, N // K, axis=2) for x in (key, value))
        logits = D**-0.5 * jnp.einsum("btnd,bsnd->bnts", query, key, precision=HIGHEST)
        logits = logits + bias(pe.positions.arange(S), pe.positions.arange(S))[None]
        weights = jax.nn.softmax(jnp.where(jnp.tri(S, dtype=bool)[None, None], logits, -jnp.inf))
        out = jnp.einsum("bnts,bsnd->btnd", weights * times, value, precision=HIGHEST)
        return jnp.sum(out * values(*out.shape, seed=9)), out

    gradient = jax.jit(jax.value_and_grad(defined, (0, 1, 2, 3), has_aux=True), compiler_options=LESS_COMPILING)
    (_, out), gradients = gradient(*inputs(), T5)
    got = run("xla", inputs(), T5, {"dropout_key": key}, causal=True, **rate)
    for x, y in zip(got, jax.tree.leaves((out, gradients)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * max(1.0, np.abs(y).max()))
