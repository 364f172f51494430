"""Attention tile by tile is attention, whatever the documents, padding, positions, masks, lengths and tiles."""

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from schemes import values
from test_blockwise import (
    BIASES,
    FIRE,
    ONES,
    SETTINGS,
    SHAW,
    T5,
    T5_BOTH_WAYS,
    B,
    N,
    S,
    compare,
    compiled,
    layout,
    runs,
)

import posembed_jax as pe

DOCUMENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, S)), max_size=6)
POSITIONS = st.sampled_from(["counted", "throughout", "by row", "scattered", "shifted"])


@st.composite
def layouts(draw):
    """Documents, padding, positions and mask of B rows."""
    ids = runs(*(draw(DOCUMENTS) for _ in range(B)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind, offset = draw(POSITIONS), draw(st.integers(-40, 1000))
    ids = ONES if draw(st.booleans()) else ids
    counted = np.asarray(pe.positions.from_segment_ids(jnp.asarray(ids)))
    positions = {
        "counted": counted,
        "throughout": np.arange(S) + np.full((B, 1), offset),
        "by row": np.arange(S) + random.integers(0, 50, (B, 1)),
        "scattered": random.integers(-50, 50, (B, S)),
        "shifted": counted + random.integers(0, 3, (B, S)).cumsum(1),
    }[kind]
    key_ids = runs(*(draw(DOCUMENTS) for _ in range(B))) if draw(st.integers(0, 3)) == 0 else ids
    key_positions = positions + draw(st.sampled_from([0, 0, -3, 20]))
    mask = random.random((B, 1, S, S)) < 0.3 if draw(st.booleans()) else None
    return layout(ids, positions, mask, key_ids, key_positions)


LIKE_ANY = hypothesis.settings(deadline=None, derandomize=True, database=None)


@hypothesis.settings(LIKE_ANY, max_examples=60)
@hypothesis.given(st.sampled_from(list(BIASES)), layouts())
def test_any_rows(bias, arrays):
    compare(BIASES[bias], arrays, **SETTINGS)


@st.composite
def calls(draw):
    """Everything that is static, with the rows of `layouts` cut to lengths."""
    queries, keys = draw(st.integers(2, S)), draw(st.integers(1, S))
    arrays = draw(layouts())
    for name in ("query_segment_ids", "query_positions"):
        arrays[name] = arrays[name][:, :queries]
    for name in ("key_segment_ids", "key_positions"):
        arrays[name] = arrays[name][:, :keys]
    arrays["mask"] = arrays["mask"][:, :, :queries, :keys]
    if draw(st.booleans()):
        del arrays["mask"]
    if draw(st.booleans()):
        del arrays["query_segment_ids"], arrays["key_segment_ids"]
    if draw(st.booleans()):
        arrays |= {name: arrays[name][0] for name in ("query_positions", "key_positions")}
    bias = draw(
        st.sampled_from([None, T5, T5_BOTH_WAYS, FIRE, SHAW, values(B, N, queries, keys), values(1, N, queries, 1)])
    )
    sizes = st.integers(0, 2 * S)
    return {
        "bias": bias,
        "arrays": arrays,
        "lengths": (queries, keys),
        "heads": (N, draw(st.sampled_from([1, 2, 4]))),
        "size": draw(st.sampled_from([2, 3, 5, 8, 16, 40])),
        "causal": draw(st.booleans()),
        "window": draw(st.none() | sizes | st.tuples(sizes, sizes)),
        "logits_soft_cap": draw(st.sampled_from([None, None, 2.0])),
    }


@pytest.mark.slow
@hypothesis.settings(LIKE_ANY, max_examples=60)
@hypothesis.given(calls())
def test_any_call(call):
    compiled.cache_clear()
    compare(**call)
