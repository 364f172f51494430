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
    "context_size": 6,
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
    config.architectures = config.architectures or []  # Funnel has two, and AutoModel looks for one of them
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


TURNED = {  # (place, array, the parameter as transformers names it, what makes it ours)
    "xlnet": ("1", "kernel", "layer.1.rel_attn.r", lambda x: x.swapaxes(0, 1)),
    "funnel": ("encoder.1.2", "kernel", "encoder.blocks.1.2.attention.r_kernel", lambda x: x.swapaxes(0, 1)),
    "granite_speech5_encoder": ("1", "table", "layers.1.self_attn.rel_pos_emb.weight", lambda x: x[14:27][::-1][None]),
}


@pytest.mark.parametrize("model_type", TURNED)
def test_arrays_that_are_stored_otherwise(model_type, tmp_path):
    place, array, name, turn = TURNED[model_type]
    model, found = saved(model_type, tmp_path)
    np.testing.assert_array_equal(found.biases[place][array], turn(model.get_parameter(name).detach().numpy()))


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


def small(model_type, folder, **settings):
    """As `saved`, with settings of its own."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **settings)
    model = transformers.AutoModel.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if "parametrizations" not in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return model, hf.load(folder)


def array(parameter):
    return parameter.detach().numpy()


def test_swin(tmp_path):
    """Stages with tables of another number of heads, blocks with tables of their own."""
    sizes = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "window_size": 4, "use_absolute_embeddings": True}
    model, found = small("swin", tmp_path, depths=[2, 1], num_heads=[2, 4], **sizes)
    assert sorted(found.biases) == ["stages.0.0", "stages.0.1", "stages.1.0"]
    at = pe.positions.grid((4, 4))
    for place, params in found.biases.items():
        stage, block = map(int, place.split(".")[1:])
        module = model.encoder.layers[stage].blocks[block].attention.relative_position_bias
        bias = found.positions.biases[f"stages.{stage}"].bind(params)(at, at)
        np.testing.assert_array_equal(bias, array(module()).reshape(bias.shape))
    patches = found.positions.additive["patches"].bind(found.additive["patches"])(pe.positions.arange(256))
    np.testing.assert_array_equal(patches, array(model.embeddings.position_embeddings)[0])


@pytest.mark.parametrize("flag", ["use_relative_position_bias", "use_shared_relative_position_bias"])
def test_beit(flag, tmp_path):
    sizes = {"image_size": 12, "patch_size": 4, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    model, found = small("beit", tmp_path, num_hidden_layers=2, **sizes, **{flag: True})
    tables = {name: array(p).T for name, p in model.named_parameters() if "relative_position_bias_table" in name}
    assert len(found.biases) == len(tables) == (1 if "shared" in flag else 2)
    for params, (_, table) in zip(
        (found.biases[key] for key in sorted(found.biases)), sorted(tables.items()), strict=True
    ):
        np.testing.assert_array_equal(params["table"], table)
    for place, params in found.biases.items():
        found.positions.biases[place].bind(params)


def test_conformer(tmp_path):
    """The kernel of the relative keys, split into heads."""
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "conv_dim": [4] * 7}
    sizes |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    model, found = small("wav2vec2-conformer", tmp_path, num_hidden_layers=2, **sizes)
    assert sorted(found.biases) == ["attention.0", "attention.1"]
    x = torch.randn(5, 8)
    for layer, params in enumerate(found.biases[key] for key in sorted(found.biases)):
        module = model.encoder.layers[layer].self_attn
        theirs = array(module.linear_pos(x).view(5, 2, 4))
        ours = np.einsum("tf,nfd->tnd", x.numpy(), params["kernel"])
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(params["u"], array(module.pos_bias_u))
        np.testing.assert_array_equal(params["v"], array(module.pos_bias_v))


def test_clip_has_towers(tmp_path):
    text = {"vocab_size": 40, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    text |= {"intermediate_size": 8, "max_position_embeddings": 12}
    vision = {"image_size": 12, "patch_size": 4, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    model, found = small("clip", tmp_path, text_config=text, vision_config=vision | {"intermediate_size": 8})
    one, other = found.towers["text_config"], found.towers["vision_config"]
    embeddings = model.text_model.embeddings
    np.testing.assert_array_equal(one.tokens, array(embeddings.token_embedding.weight))
    np.testing.assert_array_equal(one.additive[""]["table"], array(embeddings.position_embedding.weight))
    theirs = array(model.vision_model.embeddings.position_embedding.weight)
    np.testing.assert_array_equal(other.additive[""]["table"], theirs)
    assert other.tokens is None


def test_sam_has_tables_of_rows_and_of_columns(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8}
    sizes |= {"window_size": 3, "global_attn_indexes": [1], "mlp_dim": 8, "output_channels": 4}
    model, found = small("sam_vision_model", tmp_path, **sizes)
    for layer, module in enumerate(model.vision_encoder.layers):
        params = found.biases[f"layers.{layer}"]
        np.testing.assert_array_equal(params["table_0"][0], array(module.attn.rel_pos_h))
        np.testing.assert_array_equal(params["table_1"][0], array(module.attn.rel_pos_w))
        found.positions.biases[f"layers.{layer}"].bind(params)
    np.testing.assert_array_equal(
        found.additive["patches"]["table"], array(model.vision_encoder.pos_embed).reshape(64, 8)
    )


def test_layoutlmv3_has_biases_of_tokens_and_of_boxes(tmp_path):
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 8, "input_size": 16}
    sizes |= {"num_hidden_layers": 1, "coordinate_size": 4, "shape_size": 4, "patch_size": 8}
    model, found = small("layoutlmv3", tmp_path, max_position_embeddings=300, **sizes)
    boxes, at = np.random.default_rng(0).integers(0, 1000, (250, 4)).astype(np.int32), pe.positions.arange(250)
    for place, theirs, of in (
        ("attention.tokens", model.encoder._cal_1d_pos_emb(torch.arange(250)[None]), at),
        ("attention.boxes", model.encoder._cal_2d_pos_emb(torch.tensor(boxes)[None]), boxes[:, [0, 3]]),
    ):
        ours = found.positions.biases[place].bind(found.biases[place])(of, of)
        np.testing.assert_array_equal(ours, array(theirs)[0])
