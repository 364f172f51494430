"""Wav2Vec2-Conformer with relative positions, from samples of sound on: Transformer-XL's biases, both ways."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from layers import heads, layer_norm, linear
from models import Outputs
from torch_models import assert_close, assert_same, recorded, tensor, tiny, tolerance, weights

import posembed_jax as pe

pytestmark = pytest.mark.parity

B, SAMPLES, N, D, LAYERS = 2, 905, 4, 6, 2
F = N * D
CONFIG = transformers.Wav2Vec2ConformerConfig(
    hidden_size=F,
    num_hidden_layers=LAYERS,
    num_attention_heads=N,
    intermediate_size=40,
    position_embeddings_type="relative",
    conv_dim=(8, 8),
    conv_kernel=(10, 3),
    conv_stride=(5, 2),
    feat_extract_norm="layer",
    conv_bias=True,
    conv_depthwise_kernel_size=7,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    hidden_act="swish",
)
SCHEME = pe.TransformerXLBias(heads=N, dim=D, sinusoid=pe.Sinusoidal(features=F, layout="interleaved"))
PARTS = types.SimpleNamespace(
    attentions=range(LAYERS),
    layers="encoder.layers",
    block=types.SimpleNamespace(attention="self_attn", out="linear_out"),
)
norm = functools.partial(layer_norm, eps=1e-5)
gelu = functools.partial(jax.nn.gelu, approximate=False)


def convolved(w, x, *, stride=1, padding=0, groups=1):
    """x `[B, T, F]`, as torch's `Conv1d`."""
    x = jax.lax.conv_general_dilated(
        x,
        w["weight"],
        (stride,),
        [(padding, padding)],
        dimension_numbers=("NWC", "OIW", "NWC"),
        feature_group_count=groups,
        precision="highest",
    )
    bias = w.get("bias")
    return x if bias is None else x + bias[None, None]


def features(w, samples):
    """Samples `[B, T]` -> what the first layer of the encoder gets."""
    x = samples[..., None]
    for i, stride in enumerate(CONFIG.conv_stride):
        part = w / f"feature_extractor.conv_layers.{i}"
        x = gelu(norm(part / "layer_norm", convolved(part / "conv", x, stride=stride)))
    return linear(w / "feature_projection.projection", norm(w / "feature_projection.layer_norm", x))


def attention(w, x):
    query, key, value = (heads(linear(w / f"linear_{name}", x), D) for name in "qkv")
    kernel = jnp.swapaxes(w["linear_pos.weight"].reshape(N, D, F), 1, 2)
    bias = SCHEME.bind({"kernel": kernel, "u": w["pos_bias_u"], "v": w["pos_bias_v"]})
    return linear(w / "linear_out", pe.attend(query, key, value, bias=bias).reshape(x.shape))


def convolution(w, x):
    value, gate = jnp.split(convolved(w / "pointwise_conv1", norm(w / "layer_norm", x)), 2, axis=-1)
    x = convolved(w / "depthwise_conv", value * jax.nn.sigmoid(gate), padding=3, groups=F)
    part = w / "batch_norm"
    mean, deviation, scale, shift = (
        y[None, None]
        for y in (part["running_mean"], jnp.sqrt(part["running_var"] + 1e-5), part["weight"], part["bias"])
    )
    return convolved(w / "pointwise_conv2", jax.nn.swish((x - mean) / deviation * scale + shift))


def fed(w, x):
    return linear(w / "output_dense", jax.nn.swish(linear(w / "intermediate_dense", x)))


@jax.jit
def run(w, samples):
    x, outputs = features(w, samples), Outputs([], [])
    for i in range(LAYERS):
        part = w / f"encoder.layers.{i}"
        x = x + fed(part / "ffn1", norm(part / "ffn1_layer_norm", x)) / 2
        out = attention(part / "self_attn", norm(part / "self_attn_layer_norm", x))
        x = x + out
        x = x + convolution(part / "conv_module", x)
        x = norm(part / "final_layer_norm", x + fed(part / "ffn2", norm(part / "ffn2_layer_norm", x)) / 2)
        outputs.attention.append(out)
        outputs.hidden.append(x)
    return outputs, norm(w / "encoder.layer_norm", x)


def test_full_pass(dtype):
    theirs = tiny(transformers.Wav2Vec2ConformerModel, CONFIG)
    samples = jnp.asarray(np.random.default_rng(3).normal(size=(B, SAMPLES)), jnp.float32)
    with recorded(theirs, PARTS) as calls:
        want = theirs(tensor(samples)).last_hidden_state
    outputs, last = run(weights(theirs), samples)
    within = tolerance(dtype, last.shape[1])
    assert_same(outputs, calls[0], ..., within)
    assert_close("the last hidden state", last, want, within)
