"""T5: biases that the layers of a stack share, of both directions in the encoder and of one in the decoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from layers import heads, linear, mlp, rms_norm
from models import Attention, Block, Encoded, Model, Tokens, embed, logits, run
from torch_models import assert_close, assert_same, generate, recorded, tensor, tiny, tolerance, weights

import posembed_jax as pe

pytestmark = pytest.mark.parity

B, S, T, NEW, N, D, F, LAYERS = 3, 150, 140, 5, 4, 8, 24, 2  # longer than max_distance, 128
CONFIG = transformers.T5Config(
    vocab_size=61,
    d_model=F,
    d_kv=D,
    d_ff=40,
    num_layers=LAYERS,
    num_heads=N,
    eos_token_id=None,
    decoder_start_token_id=0,
)


def qkv(w, x, rotate):
    return tuple(heads(linear(w / name, x), D) for name in "qkv")


def stack(name, *, bidirectional):
    """The encoder or the decoder. Its first layer holds the table of all, transposed; q k is not scaled."""
    settings = CONFIG.to_dict()
    scheme = pe.T5Bias(
        heads=settings["num_heads"],
        buckets=settings["relative_attention_num_buckets"],
        max_distance=settings["relative_attention_max_distance"],
        bidirectional=bidirectional,
    )
    table = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    last = 1 if bidirectional else 2
    block = Block(
        qkv=qkv,
        norm=functools.partial(rms_norm, eps=1e-6),
        mlp=functools.partial(mlp, act=jax.nn.relu, up="wi", down="wo"),
        attention="layer.0.SelfAttention",
        out="o",
        cross=None if bidirectional else "layer.1.EncDecAttention",
        feed_forward=f"layer.{last}.DenseReluDense",
        before_attention="layer.0.layer_norm",
        before_cross="layer.1.layer_norm",
        before_mlp=f"layer.{last}.layer_norm",
    )
    return Model(
        block=block,
        attentions=(Attention(bias=lambda w: scheme.bind({"table": w[table].T}), causal=not bidirectional, scale=1.0),)
        * LAYERS,
        layers=f"{name}.block",
        embedding="shared",
        last_norm=f"{name}.final_layer_norm",
        logits_scale=F**-0.5,
    )


ENCODER, DECODER = stack("encoder", bidirectional=True), stack("decoder", bidirectional=False)


@functools.cache
def load(dtype):
    theirs = tiny(transformers.T5ForConditionalGeneration, CONFIG)
    return theirs, weights(theirs)


def source():
    """Rows without padding, with padding in front and with padding behind."""
    ids = jnp.asarray(np.random.default_rng(3).integers(1, 61, (B, S)), jnp.int32)
    slot = jnp.arange(S)[None]
    return ids, (slot >= jnp.array([[0], [9], [0]])) & (slot < jnp.array([[S], [S], [S - 70]]))


def encode(w, ids, real):
    places = pe.positions.from_mask(real)
    got, _ = run(ENCODER, w, embed(ENCODER, w, ids), Tokens(real.astype(jnp.int32), places, places))
    last = ENCODER.block.norm(w / ENCODER.last_norm, got.hidden[-1])
    return got, Encoded(last, real.astype(jnp.int32))


def test_full_pass(dtype):
    theirs, w = load(dtype)
    ids, real = source()
    targets = jnp.asarray(np.random.default_rng(4).integers(1, 61, (B, T)), jnp.int32)
    with recorded(theirs, ENCODER) as encoder_calls, recorded(theirs, DECODER) as calls:
        want = theirs(
            input_ids=tensor(ids), attention_mask=tensor(real), decoder_input_ids=tensor(targets), use_cache=False
        ).logits
    got, encoded = encode(w, ids, real)
    assert_same(got, encoder_calls[0], np.array(real), tolerance(dtype, 0))
    places = pe.positions.arange(T, jnp.zeros(B, jnp.int32))
    tokens = Tokens(jnp.ones_like(targets), places, places)
    got, _ = run(DECODER, w, embed(DECODER, w, targets), tokens, encoded=encoded)
    assert_same(got, calls[0], ..., tolerance(dtype, 0))
    assert_close("logits", logits(DECODER, w, got.hidden[-1]), want, tolerance(dtype, 0))


def test_cached_decoding(dtype):
    theirs, w = load(dtype)
    ids, real = source()
    with recorded(theirs, DECODER) as calls:
        done = generate(theirs, NEW, input_ids=tensor(ids), attention_mask=tensor(real))
    ids, (_, encoded) = jnp.asarray(done.sequences.numpy(), jnp.int32), encode(w, ids, real)
    caches, one = [pe.KVCache.empty(batch=B, capacity=NEW, heads=N, dim=D)] * LAYERS, jnp.ones((B, 1), jnp.int32)
    for i in range(NEW):
        places = caches[0].next_positions(one)
        x = embed(DECODER, w, ids[:, i, None])
        got, caches = run(DECODER, w, x, Tokens(one, places, places), caches, encoded)
        assert_same(got, calls[i], ..., tolerance(dtype, 0))
        assert_close("logits", logits(DECODER, w, got.hidden[-1])[:, 0], done.logits[i], tolerance(dtype, 0))
    assert len(calls) == NEW
