"""Documents packed into one row come out as they do alone."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from schemes import B, T, empty_cache, every, every_cached, layer, layer_params, of, random_params, spread, values

import posembed_jax as pe

PACKED = {
    "in_order": [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0],
    "any_order": [7, 7, 3, 3, 3, 3, 3, 0, 0, 9, 9, 9, 9, 1, 1, 1],
    "interrupted": [4, 4, 2, 2, 4, 0, 4, 2, 5, 5, 0, 4, 5, 2, 2, 2],
}


def documents(segment_ids):
    """The slots of each document."""
    return [np.flatnonzero(np.array(segment_ids) == i) for i in sorted(set(segment_ids) - {0})]


@pytest.mark.parametrize("segment_ids", PACKED.values(), ids=PACKED)
def test_positions_restart_in_each_document(segment_ids):
    """As integers: a shift that is the same in a whole document would cancel in every relative scheme."""
    positions = np.asarray(pe.positions.from_segment_ids(jnp.array(segment_ids)))
    for slots in documents(segment_ids):
        np.testing.assert_array_equal(positions[slots], np.arange(len(slots)))
    np.testing.assert_array_equal(positions[np.array(segment_ids) == 0], 0)


@pytest.mark.slow
@every(of(pe.Additive))
@pytest.mark.parametrize("segment_ids", PACKED.values(), ids=PACKED)
def test_packed_absolute_embeddings_are_those_of_the_documents(row, segment_ids):
    bound = row.scheme.bind(random_params(row.scheme))
    packed, alone = (
        np.asarray(bound(spread(row.scheme, at)))
        for at in (pe.positions.from_segment_ids(jnp.array(segment_ids)), pe.positions.arange(T))
    )
    for slots in documents(segment_ids):
        np.testing.assert_array_equal(packed[slots], alone[: len(slots)])


IDS = jnp.array(list(PACKED.values()))


@functools.cache
def separately(row):
    """`[B, T, F]`, and what becomes of it when each document has a row of its own; zeros for padding.

    Attention is causal, so what stands behind a document in its row is not seen.
    """
    x = values(B, T, row.features)
    found = [(b, slots) for b in range(B) for slots in documents(np.asarray(IDS[b]).tolist())]
    want = np.zeros(x.shape, np.float32)
    positions, ones = pe.positions.arange(T, jnp.zeros(B, jnp.int32)), jnp.ones((B, T), jnp.int32)
    for start in range(0, len(found), B):
        some = found[start : start + B]
        index = np.stack([np.pad(slots, (0, T - len(slots))) for _, slots in some])
        rows = np.array([b for b, _ in some])[:, None]
        out = layer("plain", row)(layer_params(row), x[rows, index], positions, segment_ids=ones)
        for (b, slots), one in zip(some, out, strict=True):
            want[b, slots] = one[: len(slots)]
    return x, want


@every_cached
def test_packed_is_separate(row, face):
    x, want = separately(row)
    packed = layer(face, row)(layer_params(row), x, pe.positions.from_segment_ids(IDS), segment_ids=IDS)
    np.testing.assert_allclose(packed, want, rtol=0, atol=3e-6)
    np.testing.assert_array_equal(packed[IDS == 0], 0.0)


@pytest.mark.slow
@every_cached
def test_a_cached_row_may_hold_several_documents(row, face):
    """A packed prompt prefilled in two chunks: positions and segment ids travel with the cache."""
    x, want = separately(row)
    cache, positions = empty_cache(), pe.positions.from_segment_ids(IDS)
    for part in (slice(0, T // 2), slice(T // 2, T)):
        out, cache = layer(face, row)(
            layer_params(row), x[:, part], positions[:, part], segment_ids=IDS[:, part], cache=cache
        )
        np.testing.assert_allclose(out, want[:, part], rtol=0, atol=3e-6)
