"""Bugs that other libraries had, or have: one test each. The docstring names the bug, not what is tested."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from schemes import TABLE, apply, every, values

import posembed_jax as pe
from posembed_jax import linen
from posembed_jax import nnx as pnnx

ROPE = pe.RoPE(dim=8, layout="half")


def turned(scheme, positions, dtype=jnp.float32):
    return scheme.bind({})(jnp.ones((len(positions), 1, 8), dtype), jnp.asarray(positions, jnp.int32))


def test_cache_key_without_theta():
    """equinox: a table cached by (size, dtype), so a second RoPE with another theta got the first one's table."""
    first = turned(ROPE, [3])
    second = turned(pe.RoPE(dim=8, layout="half", base=500_000.0), [3])
    assert np.abs(np.asarray(first - second)).max() > 0.01
    np.testing.assert_array_equal(turned(ROPE, [3]), first)


def test_bfloat16_call_poisons_a_float32_one():
    """rotary-embedding-torch: positions made in the dtype of x, and the bfloat16 table cached for later calls."""
    low = turned(ROPE, [1001, 1002, 4095], jnp.bfloat16)
    high = turned(ROPE, [1001, 1002, 4095])
    np.testing.assert_array_equal(low, high.astype(jnp.bfloat16))
    np.testing.assert_allclose(high[2, 0, 0], np.cos(4095.0) - np.sin(4095.0), atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_positions_in_a_floating_dtype(dtype):
    """keras-hub, attnax, transformers, gpt-neox, Megatron-LM: in bfloat16, 769 of the first 4,096 positions differ."""
    positions = jnp.arange(5).astype(dtype)
    for call in (
        lambda: ROPE.cos_sin(positions),
        lambda: pe.Sinusoidal(features=8).bind({})(positions),
        lambda: pe.ALiBi(heads=4).bind({})(positions, positions),
        lambda: ROPE.bind({})(jnp.ones((5, 1, 8)), positions),
    ):
        with pytest.raises(TypeError, match="never cast to the activation dtype"):
            call()


def test_all_4096_positions_differ_in_bfloat16_activations():
    """keras-hub `mixed_bfloat16`: 1,407 of 2,047 sinusoid rows equalled their neighbour."""
    x = pe.Sinusoidal(features=64).bind({})(pe.positions.arange(4096))
    assert len(np.unique(np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32)), axis=0)) == 4096


@pytest.mark.slow
def test_decoding_at_position_0():
    """Transformer Engine, flax.nnx.RoPE: positions were arange(1) in a decode step, so each token stood at 0."""
    module = linen.Attention(heads=1, head_dim=8, rotation=ROPE)
    x = values(1, 6, 8)
    variables = module.init(jax.random.key(0), x, pe.positions.arange(6))
    want = module.apply(variables, x, pe.positions.arange(6))
    cache = pe.KVCache.empty(batch=1, capacity=6, heads=1, dim=8)
    _, cache = module.apply(variables, x[:, :5], cache=cache)
    out, cache = module.apply(variables, x[:, 5:], cache=cache)
    np.testing.assert_allclose(out[:, 0], want[:, 5], rtol=0, atol=1e-6)
    assert cache.positions.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_positions_past_the_table_are_shifted_rows():
    """keras-hub: start_index 6 and length 4 with 8 rows gave rows 4 ... 7: `dynamic_slice` moves the window."""
    scheme = pe.LearnedPositions(length=8, features=3)
    bound = scheme.bind({"table": values(8, 3)})
    positions = pe.positions.arange(4, 6)
    with pytest.raises(ValueError, match="positions go from 6 to 9, but the table has rows 0 to 7"):
        bound(positions)
    out = jax.jit(bound.__call__)(positions)
    np.testing.assert_array_equal(out[:2], values(8, 3)[6:])
    assert np.isnan(out[2:]).all()


@pytest.mark.parametrize("bad", [-1, 5, 2**31 - 1, -(2**31)])
def test_ids_that_clamp_or_wrap(bad):
    """`table[[100]]` is the last row, nnx.Embed(-1) too: an id outside is an error, or NaN when traced."""
    table, ids = values(5, 3), jnp.array([1, bad])
    with pytest.raises(ValueError, match="the table has rows 0 to 4"):
        pe.embed(table, ids)
    out = jax.jit(pe.embed)(table, ids)
    np.testing.assert_array_equal(out[0], table[1])
    assert np.isnan(out[1]).all()


def test_a_table_of_one_row():
    """nnx.Embed(num_embeddings=1) returned row 0 for every id."""
    module = pnnx.TokenEmbed(1, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="ids go from 99 to 99"):
        module(jnp.array([99]))
    assert np.isnan(nnx.jit(lambda m, i: m(i))(module, jnp.array([99]))).all()


def test_alibi_slopes_the_wrong_way_in_decoding():
    """attnax: the query of a decode step was taken to stand at 0, so nearer keys were punished more."""
    bias = pe.ALiBi(heads=4).bind({})
    whole = bias(pe.positions.arange(6), pe.positions.arange(6))
    step = bias(pe.positions.arange(1, 5), pe.positions.arange(6))
    np.testing.assert_array_equal(step[:, 0], whole[:, 5])
    assert (np.diff(np.asarray(step[:, 0])) > 0).all()


def test_alibi_of_the_key_alone_in_bfloat16():
    """Bloom, Falcon and keras-hub: slope * key in bfloat16 is off by 8 next to a query at 8,192."""
    keys = pe.positions.arange(8192)
    bias = pe.ALiBi(heads=8, symmetric=False).bind({})(pe.positions.arange(1, 8191), keys)
    near = bias[:, 0, -64:].astype(jnp.bfloat16).astype(jnp.float32)
    distance = np.arange(-63, 1, dtype=np.float32)
    np.testing.assert_array_equal(near, np.array(pe.alibi_slopes(8), np.float32)[:, None] * distance[None])


def test_alibi_slopes_for_other_head_counts():
    """EasyDeL, mlx, attention-gym: 2^(-8 (n + 1) / N) for every N is not the paper's rule."""
    assert pe.alibi_slopes(8) == tuple(2.0**-n for n in range(1, 9))
    np.testing.assert_allclose(pe.alibi_slopes(6), [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])


def test_a_shape_made_by_jnp_prod():
    """axial-positional-embedding-jax: worked eagerly, a TypeError under jit."""
    np.testing.assert_array_equal(jax.jit(lambda: pe.positions.grid((2, 3)))(), pe.positions.grid((2, 3)))


def test_packed_documents_are_guessed_from_positions():
    """transformers: jumps in position_ids were read as documents, so PoSE's skipped ids were torn apart."""
    skipped = jnp.array([0, 1, 2, 3, 100, 101, 102, 103])
    q, k, v = values(3, 1, 8, 2, 8)
    out = pe.attend(q, k, v, causal=True, query_positions=skipped, key_positions=skipped)
    np.testing.assert_allclose(out, pe.attend(q, k, v, causal=True), rtol=0, atol=1e-6)


def test_rotation_that_is_not_a_rotation():
    """EasyDeL, vjepa2: tables tiled for one pairing and applied with the other, so that norms change."""
    for layout in ("half", "interleaved"):
        x = values(7, 4, 8)
        out = pe.RoPE(dim=8, layout=layout).bind({})(x, pe.positions.arange(7, 100))
        np.testing.assert_allclose(jnp.linalg.norm(out, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-6)


def test_half_and_interleaved_are_mistaken_for_each_other():
    """Llama weights in the other pairing: fluent garbage. Checked away from position 0, where both are the identity."""
    x, positions = values(5, 4, 8), pe.positions.arange(5, 1)
    interleaved = pe.RoPE(dim=8, layout="interleaved").bind({})(x, positions)
    half = ROPE.bind({})(x, positions)
    assert np.abs(np.asarray(half - interleaved)).max() > 0.1
    convert = functools.partial(pe.permute_layout, source="interleaved", target="half")
    np.testing.assert_allclose(ROPE.bind({})(convert(x), positions), convert(interleaved), rtol=0, atol=1e-6)


def test_partial_rotary_touches_the_rest():
    """vLLM, MiniMax, cascadia: partial rotary applied twice, to all channels, or with the frequencies of all."""
    x, positions = values(5, 4, 8), pe.positions.arange(5, 70)
    first = pe.RoPE(dim=4, layout="half").bind({})(x, positions)
    np.testing.assert_array_equal(first[..., 4:], x[..., 4:])
    np.testing.assert_array_equal(first[..., :4], pe.RoPE(dim=4, layout="half").bind({})(x[..., :4], positions))
    last = pe.RoPE(dim=4, layout="half", rotated="last").bind({})(x, positions)
    np.testing.assert_array_equal(last[..., :4], x[..., :4])


def test_batched_positions_are_flattened():
    """flax.nnx.RoPE: jnp.outer flattened positions [B, T]."""
    x, positions = values(2, 5, 4, 8), pe.positions.arange(5, jnp.array([3, 40]))
    out = ROPE.bind({})(x, positions)
    np.testing.assert_allclose(out[1], ROPE.bind({})(x[1], positions[1]), rtol=0, atol=2e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_rotated_queries_come_back_in_float32(dtype):
    """flax.nnx.RoPE, MaxText, Megatron-LM: float32 queries and keys beside bfloat16 values."""
    q = values(2, 5, 4, 8).astype(dtype)
    rotated = ROPE.bind({})(q, pe.positions.arange(5))
    assert rotated.dtype == dtype
    assert pe.attend(rotated, rotated, q, causal=True).dtype == dtype


def test_the_head_axis_is_rotated():
    """open_lm: with x as [B, N, T, D] the heads were taken for positions. Sizes that do not fit are refused."""
    with pytest.raises(AssertionError, match="positions is"):
        ROPE.bind({})(values(2, 4, 5, 8), pe.positions.arange(5))


def test_a_row_with_nothing_to_attend_is_nan():
    """Flax, Automodel, torch: -inf masks, or two saturated ones added, in a padded row."""
    q, k, v = values(3, 2, 5, 4, 8)
    bias = pe.ALiBi(heads=4).bind({})

    def loss(q, k, v):
        return jnp.sum(pe.attend(q, k, v, bias=bias, mask=jnp.zeros((5, 5), bool), causal=True))

    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        value, grads = jax.value_and_grad(loss, argnums=(0, 1, 2))(*(x.astype(dtype) for x in (q, k, v)))
        assert value == 0
        assert all((np.asarray(g, np.float32) == 0).all() for g in grads)


def test_a_position_bias_is_not_finite():
    """Masks folded into the bias overflow when they are summed: position biases are finite at every distance.

    Tables of offsets within an image end, and refuse what is outside.
    """
    ends = jnp.array([0, 2**31 - 1])
    for row in TABLE:
        if isinstance(row.scheme, pe.Bias) and row.axes is None:
            bias = row.scheme.bind(pe.init(row.scheme, jax.random.key(0)))(ends, ends)
            assert np.isfinite(bias).all()


def test_a_three_dimensional_bias_is_guessed():
    """jax.nn.dot_product_attention: with B == N, [B, T, S] was read as [N, T, S]."""
    q, k, v = values(3, 4, 5, 4, 8)
    with pytest.raises(AssertionError, match=r"bias\[None\] or bias\[:, None\]"):
        pe.attend(q, k, v, bias=jnp.zeros((4, 5, 5)))


def test_an_additive_float_mask_is_taken_for_a_boolean():
    """Linen's default masks are float32; one is never silently used as True where it is not 0."""
    q, k, v = values(3, 2, 5, 4, 8)
    with pytest.raises(AssertionError, match="mask is float32"):
        pe.attend(q, k, v, mask=jnp.zeros((5, 5)))


def test_a_learned_bias_in_a_partial_never_trains():
    """flax: a module inside functools.partial is invisible to nnx.state. The hook is a module."""
    hook = pnnx.AttentionFn(bias=pe.T5Bias(heads=4, bidirectional=True), rngs=nnx.Rngs(0))
    module = nnx.MultiHeadAttention(4, 8, attention_fn=hook, decode=False, rngs=nnx.Rngs(1))
    assert "attention_fn" in nnx.to_pure_dict(nnx.state(module, nnx.Param))


def test_keywords_swallow_the_mask():
    """Linen passes only the keywords that an attention_fn spells out: with **kw the mask was silently lost."""
    module = nn.MultiHeadDotProductAttention(4, attention_fn=linen.AttentionFn())
    x, mask = values(2, 5, 8), nn.make_causal_mask(jnp.ones((2, 5)))
    variables = module.init(jax.random.key(0), x)
    want = nn.MultiHeadDotProductAttention(4).apply(variables, x, mask=mask)
    np.testing.assert_allclose(module.apply(variables, x, mask=mask), want, rtol=0, atol=1e-6)
    assert not np.allclose(module.apply(variables, x), want, atol=1e-3)


def test_a_decode_step_compiles_for_each_offset():
    """equinox: a Python offset retraced at every step."""
    traces = []

    @jax.jit
    def step(x, offset):
        traces.append(offset)
        return ROPE.bind({})(x, pe.positions.arange(1, offset))

    for t in range(16):
        step(jnp.ones((1, 1, 8)), t)
    assert len(traces) == 1


def test_cache_overrun_is_silent():
    """nnx.MultiHeadAttention: six steps into a cache of four overwrote the last slot without a word."""
    cache = pe.KVCache.empty(batch=1, capacity=4, heads=1, dim=2)
    append = jax.jit(lambda c: c.append(*2 * [jnp.ones((1, 1, 1, 2))], c.lengths[:, None], jnp.ones((1, 1), jnp.int32)))
    for _ in range(6):
        cache = append(cache)
    assert cache.overflow.tolist() == [True]
    assert cache.positions.tolist() == [[0, 1, 2, 3]]
    with pytest.raises(ValueError, match="new tokens do not fit"):
        pe.positions.check_cache(jnp.array([4]), 1, 4)


def test_left_padding_counts_from_the_padding():
    """transformers, keras-hub: a left-padded row whose first real token did not stand at 0."""
    mask = jnp.array([[False, False, True, True], [True, True, True, False]])
    assert pe.positions.from_mask(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 0]]


def test_packed_positions_that_go_on_counting():
    """Megatron-LM, axolotl, OLMo-core: packed documents that did not start at 0."""
    assert pe.positions.from_segment_ids(jnp.array([5, 5, 2, 2, 2, 0])).tolist() == [0, 1, 0, 1, 2, 0]


def test_positions_do_not_follow_the_reordered_tokens():
    """Megatron-LM, MaxText: context-parallel ranks need [0, 3, 4, 7] and got [0, 3, 0, 3]."""
    assert pe.positions.zigzag(8, 2).reshape(2, 4).tolist() == [[0, 1, 6, 7], [2, 3, 4, 5]]


@every(heavy=True)
def test_tables_closed_over_as_large_constants(row):
    """jax#14655: a [512, 512] constant stalled the compiler for seconds. No constant passes 64 KiB."""
    params = pe.init(row.scheme, jax.random.key(0))
    positions = jnp.arange(512) % 20
    call = jax.jit(lambda params, x: apply(row.scheme.bind(params), positions, positions, x))
    # A constant is written out in the lowered module, wherever in it the constant stands.
    assert len(call.lower(params, jnp.ones((512, row.heads, 8))).as_text()) < 2**16


def test_tables_are_weight_decayed():
    """levanter: cos and sin were parameters, and decayed."""
    for row in TABLE:
        variables = jax.eval_shape(lambda row=row: pe.init(row.scheme, jax.random.key(0)))
        assert bool(variables) == bool(row.learned)
    module = linen.Attention(heads=4, rotation=pe.RoPE(dim=2, layout="half"), bias=pe.ALiBi(heads=4))
    params = module.init(jax.random.key(0), jnp.ones((1, 5, 8)), pe.positions.arange(5))["params"]
    assert set(params) == {"query", "key", "value", "out"}
    assert len(jax.tree.leaves(optax.adamw(1e-3).init(params)[0].mu)) == 4


def test_t5_buckets_by_a_rounded_logarithm():
    """transformers under jax.jit on CPU, tt-xla, mindone: a rounded logarithm moves distances to the next bucket."""
    scheme = pe.T5Bias(heads=1, buckets=128, max_distance=100, bidirectional=False)
    distance = -jnp.arange(200)
    buckets = np.asarray(jax.jit(scheme.bucket)(distance))
    # Bucket 64 + j begins at the least d with (d / 64)^64 >= (100 / 64)^j; in integers, nothing is rounded.
    want = [d if d < 64 else max(64 + j for j in range(64) if d**64 * 64**j >= 64**64 * 100**j) for d in range(200)]
    np.testing.assert_array_equal(buckets, want)


def test_t5_divides_by_the_square_root_of_the_head_dim():
    """transformers ports: T5 has no 1 / sqrt(D), and Flax's attention functions always divide."""
    q, k, v = values(3, 1, 5, 4, 8)
    np.testing.assert_allclose(pe.attend(q, k, v, scale=1.0), pe.attend(q * 8**0.5, k, v), rtol=0, atol=1e-6)


def test_the_embedding_scale_of_gemma():
    """Gemma multiplies by sqrt(3072) in bfloat16, which is 55.5 and not 55.4256: parity needs the rounding."""
    table = jnp.ones((1, 2), jnp.bfloat16)
    embed = functools.partial(pe.embed, table, jnp.array([0]), scale=3072**0.5)
    assert embed(scale_dtype=jnp.bfloat16).tolist() == [[55.5, 55.5]]
    assert embed(dtype=jnp.float32).tolist() == [[np.float32(3072**0.5)] * 2]


def test_learned_positions_with_an_offset():
    """OPT and RoBERTa: position 0 is row 2 (padding_idx + 1), which ports forget."""
    table = values(10, 3)
    bound = pe.LearnedPositions(length=8, features=3, index_offset=2).bind({"table": table})
    np.testing.assert_array_equal(bound(jnp.array([-1, 0, 7])), table[jnp.array([1, 2, 9])])


def test_bias_built_from_lengths_in_a_decode_step():
    """candle, TensorRT-LLM, rust-bert: a T5 bias for a query length of 1 is row 0, whichever token it is."""
    scheme = pe.T5Bias(heads=4, bidirectional=False)
    bias = scheme.bind({"table": values(4, 32)})
    whole = bias(pe.positions.arange(40), pe.positions.arange(40))
    for t in (0, 17, 39):
        np.testing.assert_array_equal(bias(jnp.array([t]), pe.positions.arange(40))[:, 0], whole[:, t])


def test_causal_decoding_sees_key_0_only():
    """flax 0.12.8 and jax.nn: `is_causal` with one query of a longer cache masked all keys but the first."""
    q, k, v = values(3, 1, 6, 4, 8)
    whole = pe.attend(q, k, v, causal=True)
    step = pe.attend(q[:, 5:], k, v, causal=True, query_positions=jnp.array([5]), key_positions=pe.positions.arange(6))
    np.testing.assert_allclose(step[:, 0], whole[:, 5], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="query_positions is None"):
        pe.attend(q[:, 5:], k, v, causal=True)
