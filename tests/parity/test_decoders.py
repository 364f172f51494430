"""Decoders: every layer's attention, every layer and the logits as transformers has them, wherever the tokens stand."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import DECODERS, ORIGINAL
from models import Tokens, embed, logits, run
from torch_models import ROUNDING, assert_close, assert_same, generate, recorded, tensor, tiny, tolerance, weights

import posembed_jax as pe
from posembed_jax import hf

pytestmark = pytest.mark.parity

B, T, NEW = 3, 29, 5
ROTARY = [name for name, decoder in DECODERS.items() if decoder.takes_positions]
every = functools.partial(pytest.mark.parametrize, "name")


@functools.cache
def ours(name):
    return DECODERS[name].model(DECODERS[name].config.to_dict())


@functools.cache
def load(name, dtype):
    """transformers' model, ours, and the weights of both."""
    theirs = tiny(DECODERS[name].kind, DECODERS[name].config)
    return theirs, ours(name), weights(theirs)


def token_ids(length):
    return jnp.asarray(np.random.default_rng(1).integers(1, 61, (B, length)), jnp.int32)


def left_padded(length):
    """Tokens in rows of length, length - 5 and 3, and which of them are real."""
    return token_ids(length), jnp.arange(length)[None] >= jnp.array([[0], [5], [length - 3]])


def check_full_pass(name, dtype, ids, segment_ids, places, **told):
    """All tokens at once, without a cache. told: where they stand, as transformers takes it."""
    theirs, model, w = load(name, dtype)
    with recorded(theirs, model) as calls:
        want = theirs(tensor(ids), use_cache=False, **told).logits.numpy()
    got, _ = run(model, w, embed(model, w, ids), Tokens(segment_ids, places, places))
    scores, real, within = logits(model, w, got.hidden[-1]), np.array(segment_ids) != 0, tolerance(dtype, places)
    assert_same(got, calls[0], real, within)
    assert_close("logits", np.asarray(scores)[real], want[real], within)
    return scores


@every(ROTARY)
def test_positions_in_the_thousands(name, dtype):
    """Against float64 also one at a billion: the angles are exact everywhere."""
    places = pe.positions.arange(T, jnp.array([3001, 8192, 5 if dtype == "float32" else 10**9]))
    ids = token_ids(T)
    check_full_pass(name, dtype, ids, jnp.ones_like(ids), places, position_ids=tensor(places))


@pytest.mark.parametrize("length", [ORIGINAL, T])
@every(ROTARY)
def test_up_to_the_original_length_and_past_it(name, length, dtype):
    ids, places = token_ids(length), pe.positions.arange(length, jnp.zeros(B, jnp.int32))
    check_full_pass(name, dtype, ids, jnp.ones_like(ids), places)


@every(ROTARY)
def test_packed_documents(name, dtype):
    """transformers tells them by the position ids, which begin again."""
    ids, segment_ids = token_ids(T), 1 + (jnp.arange(T)[None] >= jnp.array([[9], [17], [28]])).astype(jnp.int32)
    places = pe.positions.from_segment_ids(segment_ids)
    check_full_pass(name, dtype, ids, segment_ids, places, position_ids=tensor(places))


@every(DECODERS)
def test_left_padding(name, dtype):
    """Without position ids transformers counts the padding as well: only distances matter."""
    ids, real = left_padded(T)
    check_full_pass(name, dtype, ids, real.astype(jnp.int32), pe.positions.from_mask(real), attention_mask=tensor(real))


@pytest.mark.parametrize("length", [ORIGINAL - NEW, ORIGINAL - 2, T - NEW])
@every(DECODERS)
def test_cached_decoding(name, length, dtype):
    """transformers' `generate` call by call, prompt and steps: up to the original length, over it and beyond it."""
    theirs, model, w = load(name, dtype)
    prompt, real = left_padded(length)
    with recorded(theirs, model) as calls:
        done = generate(theirs, NEW, input_ids=tensor(prompt), attention_mask=tensor(real))
    ids, real = jnp.asarray(done.sequences.numpy(), jnp.int32), jnp.pad(real, ((0, 0), (0, NEW)), constant_values=True)

    caches, scores, within = empty_caches(model, w), [], tolerance(dtype, length + NEW)
    for i, end in enumerate(range(length, length + NEW)):
        anew = i == 0 or (name == "phi3" and end == ORIGINAL + 1)  # LongRoPE turns all keys otherwise from here on
        start, caches = (0, empty_caches(model, w)) if anew else (end - 1, caches)
        segment_ids = real[:, start:end].astype(jnp.int32)
        places = caches[0].next_positions(segment_ids)
        got, caches = run(model, w, embed(model, w, ids[:, start:end]), Tokens(segment_ids, places, places), caches)
        scores.append(logits(model, w, got.hidden[-1])[:, -1])
        assert_same(got, calls[i], np.array(real[:, start:end]), within)
        assert_close("logits", scores[-1], done.logits[i], within)
    assert len(calls) == NEW
    assert caches[0].lengths.tolist() == [length + NEW - 1, length + NEW - 6, NEW + 2]

    if name != "phi3" or length != ORIGINAL - 2:  # where the early steps turned otherwise than the whole
        places = pe.positions.from_mask(real)
        told = {"attention_mask": tensor(real)}
        whole = check_full_pass(name, dtype, ids, real.astype(jnp.int32), places, **told)
        assert_close("cached", jnp.stack(scores, axis=1), whole[:, -NEW - 1 : -1], ROUNDING)


def empty_caches(model, w):
    """One for each layer, for T tokens with keys and values as wide as those of the model."""
    x, w = jnp.zeros((B, 1, w[f"{model.embedding}.weight"].shape[1])), w / f"{model.layers}.0"
    _, keys, values = jax.eval_shape(lambda: model.block.qkv(w / model.block.attention, x, lambda y: y))
    _, _, heads, dim = keys.shape
    cache = pe.KVCache.empty(batch=B, capacity=T, heads=heads, dim=dim, value_dim=values.shape[3])
    return [cache] * len(model.attentions)


@every(ROTARY)
def test_the_saved_file_says_the_same(name):
    config = DECODERS[name].config
    assert hf.from_config(json.loads(config.to_json_string())) == hf.from_config(config.to_dict())
