"""`hf.load`: what a checkpoint has at each place, as the schemes take it; and what it refuses to leave out."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import posembed_jax as pe
from posembed_jax import hf

RNG = np.random.default_rng(0)
BERT = {"model_type": "bert", "vocab_size": 11, "max_position_embeddings": 6, "hidden_size": 4}
UMT5 = {"model_type": "umt5", "vocab_size": 11, "d_model": 4, "num_heads": 2, "relative_attention_num_buckets": 8}
UMT5["relative_attention_max_distance"] = 20
UMT5_BIAS = "{}.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"


def array(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def bert(prefix=""):
    return {
        f"{prefix}embeddings.word_embeddings.weight": array(11, 4),
        f"{prefix}embeddings.position_embeddings.weight": array(6, 4),
        f"{prefix}embeddings.position_ids": np.arange(6)[None],
        f"{prefix}embeddings.LayerNorm.weight": array(4),
    }


def umt5():
    biases = {UMT5_BIAS.format(part, i): array(8, 2) for part in ("encoder", "decoder") for i in range(3)}
    return {"shared.weight": array(11, 4), **biases}


def saved(folder, config, tensors):
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_tokens_and_a_learned_table(prefix, tmp_path):
    tensors = bert(prefix)
    found = hf.load(saved(tmp_path, BERT, tensors))
    np.testing.assert_array_equal(found.tokens, tensors[f"{prefix}embeddings.word_embeddings.weight"])
    x = found.positions.additive[""].bind(found.additive[""])(pe.positions.arange(3))
    np.testing.assert_array_equal(x, tensors[f"{prefix}embeddings.position_embeddings.weight"][:3])
    assert not found.biases and not found.towers


def test_layers_with_tables_of_their_own(tmp_path):
    tensors = umt5()
    found = hf.load(saved(tmp_path, UMT5, tensors), dtype=jnp.bfloat16)
    assert sorted(found.biases) == [f"{part}.{i}" for part in ("decoder", "encoder") for i in range(3)]
    for place, params in found.biases.items():
        part, i = place.split(".")
        bias = found.positions.biases[part].bind(params)
        expected = tensors[UMT5_BIAS.format(part, i)].astype(jnp.bfloat16)[0].astype(np.float32)  # of distance 0
        np.testing.assert_array_equal(bias(jnp.array([2]), jnp.array([2]))[:, 0, 0], expected)
        assert params["table"].dtype == jnp.bfloat16


def test_a_rotary_model_has_tokens_alone(tmp_path):
    config = {"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "num_attention_heads": 2}
    tensors = {"model.embed_tokens.weight": array(11, 8), "model.layers.0.self_attn.rotary_emb.inv_freq": array(2)}
    found = hf.load(saved(tmp_path, config, tensors))
    assert found.tokens.shape == (11, 8) and not found.additive and found.positions.rotation.dim == 4


@pytest.mark.parametrize(
    "config, tensors, says",
    [
        (BERT, {**bert(), "pooler.weight": array(4)}, None),
        (
            BERT,
            bert() | {"encoder.relative_position.weight": array(4)},
            "has .'encoder.relative_position.weight'., which",
        ),
        (
            BERT,
            {k: v for k, v in bert().items() if "position_e" not in k},
            "has .'embeddings.position_embeddings.weight'",
        ),
        (BERT | {"max_position_embeddings": 7}, bert(), r"position_embeddings.weight is F32\[6, 4\]; .* \[7, 4\]"),
        (BERT, {k: v for k, v in bert().items() if "word" not in k}, "has .'embeddings.word_embeddings.weight'"),
        (UMT5, {k: v for k, v in umt5().items() if "encoder.block.1" not in k}, r"there for \[0, 2\]"),
        (UMT5, {k: v for k, v in umt5().items() if "encoder" not in k}, r"there for \[\]"),
        (UMT5 | {"num_heads": 8, "relative_attention_num_buckets": 2}, umt5(), "buckets is 2"),
        (UMT5 | {"num_heads": 4}, umt5(), r"is F32\[8, 2\]; it needs to be floating \[8, 4\]"),
    ],
)
def test_nothing_is_left_out_in_silence(config, tensors, says, tmp_path):
    saved(tmp_path, config, tensors)
    if says is None:
        hf.load(tmp_path)
    else:
        with pytest.raises(ValueError, match=says):
            hf.load(tmp_path)


def test_patches_are_no_tokens(tmp_path):
    config = {"model_type": "pix2struct_vision_model", "hidden_size": 4, "seq_len": 3, "patch_embed_hidden_size": 5}
    tensors = {f"embeddings.{axis}_embedder.weight": array(3, 4) for axis in ("row", "column")}
    found = hf.load(saved(tmp_path, config, tensors | {"embeddings.patch_projection.weight": array(4, 5)}))
    assert found.tokens is None
    np.testing.assert_array_equal(found.additive[""]["table_1"], tensors["embeddings.column_embedder.weight"])
