"""`hf.load` of what transformers' `save_pretrained` writes: the arrays, and what the models make of them."""

import numpy as np
import pytest
import torch
import transformers

import posembed_jax as pe
from posembed_jax import hf

pytestmark = pytest.mark.parity

SMALL = {
    "vocab_size": 40,
    "hidden_size": 8,
    "d_model": 8,
    "n_embd": 8,
    "word_embed_proj_dim": 8,
    "num_attention_heads": 2,
    "num_heads": 2,
    "n_head": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "d_kv": 4,
    "d_ff": 16,
    "intermediate_size": 16,
    "ffn_dim": 16,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "max_position_embeddings": 20,
    "n_positions": 20,
    "max_target_positions": 20,
    "max_source_positions": 20,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
# model type -> place -> the module that has its table, as transformers names it
LEARNED = {
    "bert": {"": "embeddings.position_embeddings"},
    "roberta": {"": "embeddings.position_embeddings"},
    "gpt2": {"": "wpe"},
    "opt": {"": "decoder.embed_positions"},
    "bart": {"encoder": "encoder.embed_positions", "decoder": "decoder.embed_positions"},
    "whisper": {"decoder": "decoder.embed_positions"},
    "mpnet": {"tokens": "embeddings.position_embeddings"},
}
BIASES = {  # place -> the module whose compute_bias makes it
    "t5": {place: f"{place}.block.0.layer.0.SelfAttention" for place in ("encoder", "decoder")},
    "umt5": {f"{p}.{i}": f"{p}.block.{i}.layer.0.SelfAttention" for p in ("encoder", "decoder") for i in range(2)},
    "mt5": {place: f"{place}.block.0.layer.0.SelfAttention" for place in ("encoder", "decoder")},
}


def saved(model_type, folder, dtype=torch.float32, shards=False):
    """A small model of this type with numbers of its own, saved; and loaded."""
    torch.manual_seed(0)
    keys = transformers.AutoConfig.for_model(model_type)
    known = set(keys.to_dict()) | set(keys.attribute_map)
    aliases = set(keys.attribute_map)
    config = transformers.AutoConfig.for_model(
        model_type, **{key: value for key, value in SMALL.items() if key in known - aliases}
    )
    model = transformers.AutoModel.from_config(config, dtype=dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder, **({"max_shard_size": "2KB"} if shards else {}))
    return model, hf.load(folder)


@pytest.mark.parametrize("model_type", LEARNED)
def test_learned_tables(model_type, tmp_path):
    model, found = saved(model_type, tmp_path)
    np.testing.assert_array_equal(found.tokens, model.get_input_embeddings().weight.detach().numpy())
    assert set(LEARNED[model_type]) == set(found.additive)
    for place, module in LEARNED[model_type].items():
        scheme = found.positions.additive[place]
        rows = model.get_submodule(module).weight.detach().numpy()[scheme.index_offset :]
        np.testing.assert_array_equal(scheme.bind(found.additive[place])(pe.positions.arange(12)), rows[:12])


@pytest.mark.parametrize("model_type", BIASES)
def test_biases(model_type, tmp_path):
    model, found = saved(model_type, tmp_path)
    assert set(BIASES[model_type]) == set(found.biases)
    positions = pe.positions.arange(150)
    for place, module in BIASES[model_type].items():
        with torch.no_grad():
            theirs = model.get_submodule(module).compute_bias(150, 150)[0].numpy()
        scheme = found.positions.biases[place.partition(".")[0]]
        np.testing.assert_array_equal(scheme.bind(found.biases[place])(positions, positions), theirs)


def test_shards_in_bfloat16(tmp_path):
    model, found = saved("bert", tmp_path, torch.bfloat16, shards=True)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    table = found.additive[""]["table"]
    assert table.dtype == "bfloat16"
    theirs = model.embeddings.position_embeddings.weight.detach().float().numpy()
    np.testing.assert_array_equal(np.asarray(table, np.float32), theirs)


def test_a_model_with_a_head(tmp_path):
    config = transformers.BertConfig(**{k: v for k, v in SMALL.items() if hasattr(transformers.BertConfig(), k)})
    model = transformers.BertForMaskedLM(config)
    model.save_pretrained(tmp_path)
    found = hf.load(tmp_path)
    np.testing.assert_array_equal(found.tokens, model.bert.embeddings.word_embeddings.weight.detach().numpy())
