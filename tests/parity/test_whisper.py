"""Whisper: sinusoids in the encoder, a learned table in the decoder, both at their whole length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from layers import heads, layer_norm, linear, mlp, plus_bias
from models import Attention, Block, Encoded, Model, Tokens, embed, logits, run
from torch_models import assert_close, assert_same, recorded, tensor, tiny, tolerance, weights

import posembed_jax as pe

pytestmark = pytest.mark.parity

B, S, T, N, D, BINS, LAYERS = 2, 1500, 20, 3, 8, 5, 2
F = N * D
CONFIG = transformers.WhisperConfig(
    vocab_size=61,
    d_model=F,
    encoder_layers=LAYERS,
    decoder_layers=LAYERS,
    encoder_attention_heads=N,
    decoder_attention_heads=N,
    encoder_ffn_dim=40,
    decoder_ffn_dim=40,
    num_mel_bins=BINS,
    max_source_positions=S,
    max_target_positions=T,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=1,
)
gelu = functools.partial(jax.nn.gelu, approximate=False)


def qkv(w, x, rotate):
    return tuple(heads(linear(w / f"{name}_proj", x), D) for name in "qkv")


def stack(name, *, causal):
    block = Block(
        qkv=qkv,
        norm=functools.partial(layer_norm, eps=1e-5),
        mlp=functools.partial(mlp, act=gelu, up="fc1", down="fc2"),
        out="out_proj",
        cross="encoder_attn" if causal else None,
        feed_forward="",
        before_attention="self_attn_layer_norm",
        before_cross="encoder_attn_layer_norm",
        before_mlp="final_layer_norm",
    )
    return Model(
        block=block,
        attentions=(Attention(causal=causal),) * LAYERS,
        layers=f"model.{name}.layers",
        embedding=f"model.{name}.embed_tokens",
        last_norm=f"model.{name}.layer_norm",
        head="proj_out",
    )


ENCODER, DECODER = stack("encoder", causal=False), stack("decoder", causal=True)


def convolved(w, x):
    """Two convolutions over time, `[B, bins, 2 S]` -> `[B, S, F]`."""
    x = x.swapaxes(1, 2)
    for name, stride in (("conv1", 1), ("conv2", 2)):
        part = w / f"model.encoder.{name}"
        dimensions = ("NWC", "OIW", "NWC")
        x = jax.lax.conv_general_dilated(x, part["weight"], (stride,), [(1, 1)], dimension_numbers=dimensions)
        x = gelu(plus_bias(part, x))
    return x


def test_full_pass(dtype):
    theirs = tiny(transformers.WhisperForConditionalGeneration, CONFIG)
    w, rng = weights(theirs), np.random.default_rng(5)
    sound = jnp.asarray(rng.standard_normal((B, BINS, 2 * S)), jnp.float32)
    ids = jnp.asarray(rng.integers(3, 61, (B, T)), jnp.int32)
    with recorded(theirs, ENCODER) as encoder_calls, recorded(theirs, DECODER) as calls:
        want = theirs(input_features=tensor(sound), decoder_input_ids=tensor(ids), use_cache=False).logits

    sinusoids = pe.Sinusoidal(features=F, layout="sin_cos", denominator="half_minus_1").bind({})
    places = pe.positions.arange(S, jnp.zeros(B, jnp.int32))
    tokens = Tokens(jnp.ones_like(places), places, places)
    got, _ = run(ENCODER, w, convolved(w, sound) + sinusoids(places), tokens)
    within = tolerance(dtype, S)
    assert_same(got, encoder_calls[0], ..., within)

    encoded = Encoded(ENCODER.block.norm(w / ENCODER.last_norm, got.hidden[-1]), tokens.segment_ids)
    table = pe.LearnedPositions(length=T, features=F).bind({"table": w["model.decoder.embed_positions.weight"]})
    places = pe.positions.arange(T, jnp.zeros(B, jnp.int32))
    tokens = Tokens(jnp.ones_like(places), places, places)
    got, _ = run(DECODER, w, embed(DECODER, w, ids) + table(places), tokens, encoded=encoded)
    assert_same(got, calls[0], ..., within)
    assert_close("logits", logits(DECODER, w, got.hidden[-1]), want, within)
