"""DeBERTa v2 and v3: tables that all layers share and project, with the layers of their own keys and queries."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from layers import heads, layer_norm, linear
from models import Outputs
from torch_models import assert_same, recorded, tensor, tiny, tolerance, weights

import posembed_jax as pe

pytestmark = pytest.mark.parity

B, T, N, D, LAYERS = 3, 90, 4, 6, 2  # longer than the buckets, in which distances are single up to 8
CONFIG = transformers.DebertaV2Config(
    vocab_size=61,
    hidden_size=N * D,
    intermediate_size=40,
    num_hidden_layers=LAYERS,
    num_attention_heads=N,
    relative_attention=True,
    max_relative_positions=-1,
    max_position_embeddings=64,
    position_buckets=16,
    norm_rel_ebd="layer_norm",
    share_att_key=True,
    pos_att_type=["c2p", "p2c"],
    position_biased_input=False,
    type_vocab_size=0,
)
SCHEME = pe.DeBERTaBias(heads=N, dim=D, max_distance=64, buckets=16)
PARTS = types.SimpleNamespace(
    attentions=range(LAYERS),
    layers="encoder.layer",
    block=types.SimpleNamespace(attention="attention.output", out="dense"),
)
norm = functools.partial(layer_norm, eps=1e-7)
gelu = functools.partial(jax.nn.gelu, approximate=False)


def attention(w, x, real, table):
    """What the layer's projection puts out, of x and of the shared table `[rows, F]`."""
    query, key, value = (heads(linear(w / f"self.{name}_proj", x), D) for name in ("query", "key", "value"))
    params = {"pos_key": linear(w / "self.key_proj", table), "pos_query": linear(w / "self.query_proj", table)}
    bias = SCHEME.bind({name: jnp.swapaxes(heads(y, D), 0, 1) for name, y in params.items()})
    ids = real.astype(jnp.int32)
    out = pe.attend(query, key, value, bias=bias, scale=SCHEME.softmax_scale, query_segment_ids=ids)
    return linear(w / "output.dense", out.reshape(*x.shape[:2], -1))


@jax.jit
def run(w, ids, real):
    x = norm(w / "embeddings.LayerNorm", pe.embed(w["embeddings.word_embeddings.weight"], ids))
    x = jnp.where(real[..., None], x, 0.0)
    table, outputs = norm(w / "encoder.LayerNorm", w["encoder.rel_embeddings.weight"]), Outputs([], [])
    for i in range(LAYERS):
        part = w / f"encoder.layer.{i}"
        out = attention(part / "attention", x, real, table)
        x = norm(part / "attention.output.LayerNorm", out + x)
        fed = linear(part / "output.dense", gelu(linear(part / "intermediate.dense", x)))
        x = norm(part / "output.LayerNorm", fed + x)
        outputs.attention.append(out)
        outputs.hidden.append(x)
    return outputs


def test_full_pass(dtype):
    theirs = tiny(transformers.DebertaV2Model, CONFIG)
    ids = jnp.asarray(np.random.default_rng(3).integers(1, 61, (B, T)), jnp.int32)
    slot = jnp.arange(T)[None]
    real = (slot >= jnp.array([[0], [9], [0]])) & (slot < jnp.array([[T], [T], [T - 40]]))
    with recorded(theirs, PARTS) as calls:
        theirs(input_ids=tensor(ids), attention_mask=tensor(real))
    assert_same(run(weights(theirs), ids, real), calls[0], np.array(real), tolerance(dtype, 0))
