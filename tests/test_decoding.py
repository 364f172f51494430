"""A cache changes nothing: token by token, in ragged chunks, padded on either side, and full."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from schemes import (
    LAYERS,
    TABLE,
    B,
    D,
    K,
    T,
    empty_cache,
    every,
    every_cached,
    every_face,
    full_pass,
    layer,
    layer_params,
    values,
)

import posembed_jax as pe

CLOSE = functools.partial(np.testing.assert_allclose, rtol=0, atol=3e-6)
HALF = T // 2
BY_NAME = {row.name: row for row in TABLE}


@pytest.mark.slow
@every_cached
def test_token_by_token_is_the_full_pass_in_one_trace(row, face):
    """16 steps, positions left to the cache."""
    x, want = full_pass(row)
    traces = []

    @jax.jit
    def step(params, token, cache):
        traces.append(cache)
        return LAYERS[face](row, params, token, None, cache=cache)

    params, cache, out = layer_params(row), empty_cache(), []
    for t in range(T):
        token_out, cache = step(params, x[:, t : t + 1], cache)
        out.append(token_out)
    CLOSE(jnp.concatenate(out, axis=1), want)
    assert len(traces) == 1
    assert cache.lengths.tolist() == [T] * B
    assert not cache.overflow.any()


@pytest.mark.slow
@every_cached
def test_prefill_in_ragged_chunks_is_the_full_pass(row, face):
    """Every row holds another length at every step, and a row may get nothing."""
    x, want = full_pass(row)
    params, cache, out = layer_params(row), empty_cache(), np.zeros(x.shape, np.float32)
    for lengths in ((5, 2, 0), (3, 8, 8), (8, 6, 8)):
        start = cache.lengths
        ids, tokens = chunk(x, start, lengths)
        positions = pe.positions.arange(HALF, start)
        chunk_out, cache = layer(face, row)(params, tokens, positions, segment_ids=ids, cache=cache)
        for b, n in enumerate(lengths):
            out[b, start[b] : start[b] + n] = chunk_out[b, :n]
    CLOSE(out, want)
    np.testing.assert_array_equal(cache.positions, pe.positions.arange(T, jnp.zeros(B, jnp.int32)))


def chunk(x, start, lengths):
    """Segment ids `[B, T / 2]` and the next `lengths` tokens of each row, padded on the right."""
    slots = np.arange(HALF)[None]
    ids = jnp.asarray(slots < np.array(lengths)[:, None], jnp.int32)
    index = np.minimum(np.asarray(start)[:, None] + slots, T - 1)
    return ids, jnp.take_along_axis(x, jnp.asarray(index)[..., None], axis=1)


@every_cached
def test_padding_on_either_side_changes_nothing(row, face):
    """Row 0 is full, row 1 has 9 tokens and row 2 has 4; causal, so they come out as the first 9 and 4 alone."""
    x, want = full_pass(row)
    lengths = np.array([T, 9, 4])[:, None]
    slots = np.arange(T)[None]
    rolled = jnp.stack([jnp.roll(x[b], T - n, axis=0) for b, n in enumerate(lengths[:, 0])])
    for content, real in ((rolled, slots >= T - lengths), (x, slots < lengths)):
        positions, ids = pe.positions.from_mask(real), jnp.asarray(real, jnp.int32)
        out = np.asarray(layer(face, row)(layer_params(row), content, positions, segment_ids=ids))
        np.testing.assert_array_equal(out[~real], 0.0)
        for b, n in enumerate(lengths[:, 0]):
            CLOSE(out[b][real[b]], want[b, :n])


@every(lambda row: row.cached, heavy=True)
def test_what_comes_after_is_not_seen(row):
    x, want = full_pass(row)
    ids = jnp.asarray(np.arange(T) < 9, jnp.int32)
    other = jnp.where(ids[None, :, None] == 1, x, 5.0)
    positions = pe.positions.arange(T, jnp.zeros(B, jnp.int32))
    out = layer("plain", row)(layer_params(row), other, positions, segment_ids=jnp.ones((B, T), jnp.int32))
    CLOSE(out[:, :9], want[:, :9])
    assert np.abs(np.asarray(out - want))[:, 9:].max() > 0.1


# Overflow, which no scheme takes part in: once for each face.

OVERFLOWING = BY_NAME["rope_half"]


def filled(*lengths, capacity=6):
    """A cache of 6 slots in which the rows hold `lengths` tokens."""
    x = values(B, T, OVERFLOWING.features)
    ids, tokens = chunk(x, np.zeros(B, int), lengths)
    _, cache = layer("plain", OVERFLOWING)(
        layer_params(OVERFLOWING), tokens, None, segment_ids=ids, cache=empty_cache(capacity)
    )
    return cache


@every_face
def test_overrun_is_an_error_when_it_can_be_told(face):
    x = values(B, 1, OVERFLOWING.features)
    with pytest.raises(ValueError, match="1 new tokens do not fit: the cache holds 6 of at most 6 tokens"):
        LAYERS[face](OVERFLOWING, layer_params(OVERFLOWING), x, None, cache=filled(6, 2, 5))


@every_face
def test_a_traced_overrun_is_flagged_and_spoils_only_its_row(face):
    x, cache = values(B, 1, OVERFLOWING.features, seed=9), filled(6, 2, 5)
    step = layer(face, OVERFLOWING)
    out, after = step(layer_params(OVERFLOWING), x, None, cache=cache)
    assert after.overflow.tolist() == [True, False, False]
    assert after.lengths.tolist() == [7, 3, 6]
    for name in ("keys", "values", "positions", "segment_ids"):
        np.testing.assert_array_equal(getattr(after, name)[0], getattr(cache, name)[0])
        np.testing.assert_array_equal(getattr(after, name)[1, :2], getattr(cache, name)[1, :2])
    want, _ = step(layer_params(OVERFLOWING), x, None, cache=filled(3, 2, 5))
    np.testing.assert_array_equal(out[1:], want[1:])
    # `attend` is given keys and values, not a cache: in plain JAX the flag is the caller's to read.
    assert np.isfinite(out[0]).all() if face == "plain" else np.isnan(out[0]).all()


def test_check_cache_fires_under_checkify():
    @jax.jit
    @checkify.checkify
    def append(cache, new):
        pe.positions.check_cache(cache.lengths, new, cache.capacity)
        return cache.append(*2 * [jnp.zeros((B, 1, K, D))], jnp.zeros((B, 1), jnp.int32), jnp.ones((B, 1), jnp.int32))

    full, room = filled(6, 2, 5), filled(5, 2, 4)
    error, _ = append(full, 1)
    assert "new tokens do not fit: the cache holds 6 of at most 6 tokens" in error.get()
    error, cache = append(room, 1)
    assert error.get() is None
    assert cache.lengths.tolist() == [6, 3, 5]


@pytest.mark.parametrize("face", ["linen", "nnx"])
def test_a_row_goes_on_in_its_last_document_from_its_last_position(face):
    """Neither positions nor segment ids are given after a prompt that is packed, padded or does not begin at 0."""
    row = BY_NAME["rope_half"]
    x, ids = full_pass(row)[0], jnp.array([[4, 4, 9, 9, 9, 9, 9], [0, 7, 7, 7, 7, 7, 7]])
    positions = jnp.array([[0, 1, 0, 1, 2, 3, 4], [0, 50, 51, 52, 53, 54, 55]])
    want = layer(face, row)(layer_params(row), x[:2, :7], positions, segment_ids=ids)
    prompt = slice(0, 2), slice(0, 5)
    cache = jax.tree.map(lambda leaf: leaf[:2], empty_cache())
    _, cache = layer(face, row)(layer_params(row), x[prompt], positions[prompt], segment_ids=ids[prompt], cache=cache)
    assert cache.last_segment_ids().tolist() == [9, 7]
    out, cache = layer(face, row)(layer_params(row), x[:2, 5:7], None, cache=cache)
    CLOSE(out, want[:, 5:])
    assert cache.next_positions(jnp.ones((2, 1), jnp.int32)).tolist() == [[5], [56]]
