"""Files as their models' authors published them, what speaks of positions in them: from memory, not fetched."""

import dataclasses
import math

import jax.numpy as jnp
import pytest

import posembed_jax as pe
from posembed_jax import hf

OTHERS = {"architectures": ["Some"], "torch_dtype": "bfloat16", "auto_map": {}, "use_cache": True, "vocab_size": 100}
SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4}
FULL, SLIDING = "full_attention", "sliding_attention"


def sizes(hidden_size, num_attention_heads, num_hidden_layers=4):
    return {
        "hidden_size": hidden_size,
        "num_attention_heads": num_attention_heads,
        "num_hidden_layers": num_hidden_layers,
    }


def factors(count):
    return {"short_factor": [1.0 + 0.01 * i for i in range(count)], "long_factor": [1.0 + i for i in range(count)]}


YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA3 |= {"rope_type": "llama3"}
INTERLEAVED = {"interleaved": True, "mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}
DEEPSEEK = {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 4096}
LATENT = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "rope_theta": 10000}
PHI = {"rope_theta": 10000.0, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
GPT_OSS = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
GPT_OSS |= {"original_max_position_embeddings": 4096}
STEP = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 32.0}
STEP |= {"original_max_position_embeddings": 131072}
HUNYUAN = {"use_rotary_pos_emb": True, "position_embedding_xdrope": False, "rope_theta": 10000.0}
NOMIC = {"rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False}
NOMIC |= {"rotary_emb_scale_base": None, "rotary_scaling_factor": None}
MIMO = {"rope_theta": 5000000, "swa_rope_theta": 10000, "partial_rotary_factor": 0.334, "head_dim": 192}

# name -> (the file, {layers: (base, channels that turn, scaling)}, the softmax scale)
PUBLISHED = {
    "SmolLM2": (
        {"model_type": "llama", "rope_interleaved": False, "rope_theta": 100000, **SMALL},
        {"": (1e5, 16, None)},
        0.25,
    ),
    "Llama 3.1 8B": (
        {"model_type": "llama", "rope_theta": 500000.0, "rope_scaling": LLAMA3, **sizes(4096, 32)},
        {"": (5e5, 128, pe.Llama3)},
        128**-0.5,
    ),
    "Mistral 7B v0.3": (
        {"model_type": "mistral", "rope_theta": 1e6, "sliding_window": None, **sizes(4096, 32)},
        {"": (1e6, 128, None)},
        128**-0.5,
    ),
    "Mixtral 8x7B": (
        {"model_type": "mixtral", "rope_theta": 1e6, "sliding_window": None, **sizes(4096, 32)},
        {"": (1e6, 128, None)},
        128**-0.5,
    ),
    "Qwen2.5 7B": (
        {"model_type": "qwen2", "rope_theta": 1e6, "use_sliding_window": False, "max_window_layers": 28}
        | {"sliding_window": 131072, **sizes(3584, 28)},
        {"": (1e6, 128, None)},
        128**-0.5,
    ),
    "Qwen3 0.6B": (
        {"model_type": "qwen3", "head_dim": 128, "rope_theta": 1000000, "rope_scaling": None, **sizes(1024, 16)},
        {"": (1e6, 128, None)},
        128**-0.5,
    ),
    "Gemma 2 27B": (
        {
            "model_type": "gemma2",
            "head_dim": 128,
            "query_pre_attn_scalar": 144,
            "rope_theta": 10000.0,
            **sizes(4608, 32),
        },
        {"": (1e4, 128, None)},
        1 / 12,
    ),
    "Gemma 3 1B": (
        {"model_type": "gemma3_text", "head_dim": 256, "query_pre_attn_scalar": 256, "rope_theta": 1000000}
        | {"rope_local_base_freq": 10000, "sliding_window_pattern": 6, "rope_scaling": None, **sizes(1152, 4, 6)},
        {FULL: (1e6, 256, None), SLIDING: (1e4, 256, None)},
        1 / 16,
    ),
    "Phi-2": (
        {"model_type": "phi", "partial_rotary_factor": 0.4, "rope_theta": 10000.0, **sizes(2560, 32)},
        {"": (1e4, 32, None)},
        80**-0.5,
    ),
    "Phi-3 mini 128k": (
        {"model_type": "phi3", "rope_scaling": {"type": "longrope", **factors(48)}, **PHI, **sizes(3072, 32)},
        {"": (1e4, 96, pe.LongRoPE)},
        96**-0.5,
    ),
    "Phi-4 mini": (
        {"model_type": "phi3", "partial_rotary_factor": 0.75, "rope_scaling": {"type": "longrope", **factors(48)}}
        | {**PHI, **sizes(3072, 24)},
        {"": (1e4, 96, pe.LongRoPE)},
        128**-0.5,
    ),
    "Pythia 1.4B": (
        {"model_type": "gpt_neox", "rotary_pct": 0.25, "rotary_emb_base": 10000, **sizes(2048, 16)},
        {"": (1e4, 32, None)},
        128**-0.5,
    ),
    "GPT-J 6B": (
        {"model_type": "gptj", "rotary": True, "rotary_dim": 64, "n_embd": 4096, "n_head": 16, "n_layer": 4},
        {"": (1e4, 64, None)},
        1 / 16,
    ),
    "Falcon 7B": ({"model_type": "falcon", "alibi": False, **sizes(4544, 71)}, {"": (1e4, 64, None)}, 0.125),
    "GLM-4 9B": (
        {"model_type": "glm", "head_dim": 128, "partial_rotary_factor": 0.5, "rope_theta": 10000.0, **sizes(4096, 32)},
        {"": (1e4, 64, None)},
        128**-0.5,
    ),
    "GLM-5": (
        {"model_type": "glm_moe_dsa", "rope_interleave": True, "indexer_rope_interleave": True, **SMALL},
        {"": (1e4, 64, None)},
        256**-0.5,
    ),
    "DeepSeek V3": (
        {"model_type": "deepseek_v3", "rope_scaling": DEEPSEEK | {"mscale": 1.0, "mscale_all_dim": 1.0}}
        | {**LATENT, **sizes(7168, 128)},
        {"": (1e4, 64, pe.YaRN)},
        192**-0.5 * (0.1 * math.log(40) + 1) ** 2,
    ),
    "StarCoder2 3B": (
        {"model_type": "starcoder2", "rope_theta": 999999.4420358813, **sizes(3072, 24)},
        {"": (999999.4420358813, 128, None)},
        128**-0.5,
    ),
    "StableLM 2 1.6B": (
        {"model_type": "stablelm", "partial_rotary_factor": 0.25, "rope_theta": 10000, **sizes(2048, 32)},
        {"": (1e4, 16, None)},
        0.125,
    ),
    "Persimmon 8B": (
        {"model_type": "persimmon", "partial_rotary_factor": 0.5, "rope_theta": 25000.0, **sizes(4096, 64)},
        {"": (25e3, 32, None)},
        0.125,
    ),
    "Granite 3.0 8B": (
        {"model_type": "granite", "attention_multiplier": 0.0078125, "rope_theta": 10000.0, **sizes(4096, 32)},
        {"": (1e4, 128, None)},
        0.0078125,
    ),
    "gpt-oss 20B": (
        {"model_type": "gpt_oss", "head_dim": 64, "rope_theta": 150000, "rope_scaling": GPT_OSS, **sizes(2880, 64)}
        | {"layer_types": [SLIDING, FULL] * 2, "initial_context_length": 4096},
        {"": (15e4, 64, pe.YaRN)},
        0.125,
    ),
    "Command R": (
        {"model_type": "cohere", "rope_theta": 8000000.0, **sizes(8192, 64)},
        {"": (8e6, 128, None)},
        128**-0.5,
    ),
    "Command R7B": (
        {"model_type": "cohere2", "rotary_pct": 1.0, "rope_theta": 50000, "sliding_window_pattern": 4}
        | {"position_embedding_type": "rope_gptj", **sizes(4096, 32)},
        {"": (5e4, 128, None)},
        128**-0.5,
    ),
    "Hunyuan": (
        {"model_type": "hunyuan_v1_dense", "rope_scaling": {"type": "dynamic", "alpha": 9.0}, **HUNYUAN, **SMALL},
        {"": (1e4, 16, pe.NTK)},
        0.25,
    ),
    "OLMo 3": (
        {"model_type": "olmo3", "rope_theta": 500000, "rope_scaling": YARN, **SMALL},
        {FULL: (5e5, 16, pe.YaRN), SLIDING: (5e5, 16, None)},
        0.25,
    ),
    "Apertus": (
        {"model_type": "apertus", "rope_theta": 5e5, "rope_scaling": LLAMA3, **SMALL},
        {"": (5e5, 16, pe.Llama3)},
        0.25,
    ),
    "CWM": (
        {"model_type": "cwm", "rope_theta": 1e6, "rope_scaling": LLAMA3, "head_dim": 16, **SMALL},
        {"": (1e6, 16, pe.Llama3)},
        0.25,
    ),
    "LFM2": ({"model_type": "lfm2", "theta": 1e6, **SMALL}, {"": (1e6, 16, None)}, 0.25),
    "LFM2, twice": ({"model_type": "lfm2", "theta": 1e6, "rope_theta": 1e6, **SMALL}, {"": (1e6, 16, None)}, 0.25),
    "Qwen3-Omni": (
        {"model_type": "qwen3_omni_moe_text", "head_dim": 16, "rope_theta": 1e6, "rope_scaling": INTERLEAVED, **SMALL},
        {"": (1e6, 16, None)},
        0.25,
    ),
    "DBRX": (
        {"model_type": "dbrx", "d_model": 64, "n_heads": 4, "n_layers": 4}
        | {"attn_config": {"rope_theta": 5e5, "kv_n_heads": 2}},
        {"": (5e5, 16, None)},
        0.25,
    ),
    "MiMo V2 Flash": (
        {"model_type": "mimo_v2_flash", "swa_head_dim": 192, **MIMO, **sizes(4096, 64)},
        {FULL: (5e6, 64, None), SLIDING: (1e4, 64, None)},
        192**-0.5,
    ),
    "Step 3.5 Flash": (
        {"model_type": "step3p5", "head_dim": 128, "layer_types": [FULL, SLIDING, SLIDING, SLIDING]}
        | {"rope_theta": [5e6, 1e4, 1e4, 1e4], "partial_rotary_factors": [0.5, 1.0, 1.0, 1.0]}
        | {"rope_scaling": STEP, "yarn_only_types": [FULL], **sizes(4096, 64)},
        {FULL: (5e6, 64, pe.Llama3), SLIDING: (1e4, 128, None)},
        128**-0.5,
    ),
    "ModernBERT": (
        {"model_type": "modernbert", "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
        | {"global_attn_every_n_layers": 3, "position_embedding_type": "absolute", **sizes(768, 12)},
        {FULL: (16e4, 64, None), SLIDING: (1e4, 64, None)},
        0.125,
    ),
    "Nomic BERT": (
        {"model_type": "nomic_bert", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 8192, **NOMIC},
        {"": (1e3, 64, None)},
        0.125,
    ),
    "StableLM Zephyr 3B": (
        {"model_type": "stablelm", "partial_rotary_factor": 0.25, "rotary_scaling_factor": 1.0, "rope_theta": 10000}
        | sizes(2560, 32),
        {"": (1e4, 20, None)},
        80**-0.5,
    ),
    "Hunyuan A13B": (
        {"model_type": "hunyuan_v1_moe", "head_dim": 128, "qk_nope_head_dim": None, "qk_rope_head_dim": None, **HUNYUAN}
        | {"rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}, **sizes(4096, 32)},
        {"": (1e4, 128, pe.NTK)},
        128**-0.5,
    ),
    "Ring 2.5": (
        {"model_type": "bailing_hybrid", "head_dim": 128, "partial_rotary_factor": 0.5, "rotary_dim": 64, **LATENT}
        | {"rope_theta": 6000000, **sizes(4096, 32)},
        {"": (6e6, 64, None)},
        192**-0.5,
    ),
    "ESM-2": (
        {"model_type": "esm", "position_embedding_type": "rotary", "pad_token_id": 1, **sizes(640, 20)},
        {"": (1e4, 32, None)},
        32**-0.5,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name):
    file, layers, scale = PUBLISHED[name]
    found = hf.from_config({**OTHERS, **file})
    assert {layer: (rope.base, rope.dim) for layer, rope in found.rotations.items()} == {
        layer: told[:2] for layer, told in layers.items()
    }
    for layer, (_, _, scaling) in layers.items():
        assert isinstance(found.rotations[layer].scaling, scaling or type(None))
    assert found.softmax_scale == pytest.approx(scale, rel=1e-12)
    assert hf.from_config(hf.to_config(found)) == found
    if "rope_parameters" in found.config:
        other = {layer: dataclasses.replace(rope, base=7777.0) for layer, rope in found.rotations.items()}
        changed = dataclasses.replace(found, rotations=other)
        assert hf.from_config(hf.to_config(changed)) == changed


@pytest.mark.parametrize(
    ("file", "dim", "scale"),
    [
        ({"model_type": "hyperclovax", "head_dim": 64}, 64, 1 / 8),
        ({"model_type": "hyperclovax", "hidden_size": 1024, "num_attention_heads": 8}, 128, 128**-0.5),
        ({"model_type": "hyperclovax", "head_dim": 64, "attention_multiplier": 0.5}, 64, 0.5),
        ({"model_type": "hyperclovax", "head_dim": None, "num_attention_heads": 64}, 64, 1 / 8),
        ({"model_type": "step3p5", "head_dim": 64}, 64, 1 / 8),
        ({"model_type": "mistral4", "qk_rope_head_dim": 32}, 32, 96**-0.5 * pe.yarn_mscale(128.0, 1.0) ** 2),
        ({"model_type": "dots3_note_audio_encoder", "num_attention_heads": 16}, 40, 80**-0.5),
        ({"model_type": "pocket_tts", "num_attention_heads": 8}, 128, 128**-0.5),
        ({"model_type": "musicflamingo", "audio_config": {"hidden_size": 640}}, 256, None),
        ({"model_type": "deepseek_v3", "qk_rope_head_dim": 32}, 32, 160**-0.5),
        ({"model_type": "deepseek_v4", "head_dim": 128}, 16, 128**-0.5),
        ({"model_type": "gpt_oss", "rope_parameters": {}}, 64, 1 / 8),
    ],
)
def test_what_follows_from_other_sizes(file, dim, scale):
    """Numbers of transformers 5.23's classes; the defaults of these files' keys are other ones."""
    found = hf.from_config(file)
    assert {rope.dim for rope in found.rotations.values()} == {dim}
    assert found.softmax_scale == (scale and pytest.approx(scale, rel=1e-12))
    assert hf.from_config(hf.to_config(found)) == found


def test_an_empty_dict_is_not_the_default():
    """gpt-oss has YaRN over a base of 150,000; of an empty dict its class makes neither."""
    rope = hf.from_config({"model_type": "gpt_oss", "rope_parameters": {}}).rotation
    assert (rope.base, rope.scaling) == (150_000.0, None)


@pytest.mark.parametrize("truncate", [None, False, True])
def test_a_null_for_truncate_is_false(truncate):
    """What transformers makes of it; without the key it is True."""
    scaling = {"rope_type": "yarn", "factor": 4.0, "truncate": truncate}
    found = hf.from_config({"model_type": "llama", "rope_scaling": scaling})
    assert found.rotation.scaling.truncate is bool(truncate)
    assert hf.from_config(hf.to_config(found)) == found


@pytest.mark.parametrize("width", [6, 42])
def test_tables_that_are_wider_than_the_head(width):
    """transformers makes them of heads whose width is no multiple of 4, and then fails, as this does."""
    rope = hf.from_config({"model_type": "qwen2_vl_vision", "embed_dim": 2 * width, "num_heads": 2}).rotation
    assert rope.dim == 4 * -(-width // 4)
    half = width // 2
    wanted = [10_000.0 ** (-2 * i / half) for i in range((half + 1) // 2)]
    assert [float(each) for each in rope.frequencies()[: len(wanted)]] == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(ValueError, match=f"turns {rope.dim} channels, but x has {width}"):
        rope.bind({})(jnp.zeros((1, 2, 1, width)), jnp.zeros((1, 2, 2), jnp.int32))


@pytest.mark.parametrize("file", [("llama", "rope_interleaved", False), ("glm_moe_dsa", "rope_interleave", True)])
def test_a_layout_that_is_not_the_models_is_refused(file):
    model_type, key, value = file
    hf.from_config({"model_type": model_type, key: value})
    with pytest.raises(ValueError, match=key):
        hf.from_config({"model_type": model_type, key: not value})


@pytest.mark.parametrize(
    "file",
    [
        ("phi", {"rotary_pct": 0.5}, {"rotary_pct": 1.0}),
        ("nemotron", {"rope_percent": 0.5}, {"rope_percent": 0.25}),
        ("nomic_bert", {"rotary_emb_base": 1000}, {"rotary_emb_base": 10000}),
        ("gptj", {"rotary": True}, {"rotary": False}),
        ("hunyuan_v1_dense", {"position_embedding_xdrope": False}, {"position_embedding_xdrope": True}),
        ("mimo_v2_flash", {"rope_theta": 5e6, "swa_rope_theta": 1e4}, {"rope_theta": 5e6, "swa_rope_theta": 2e4}),
        ("step3p5", {"yarn_only_types": ["full_attention"]}, {"yarn_only_types": ["sliding_attention"]}),
    ],
)
def test_what_nothing_reads_needs_to_be_so(file):
    """Of the models, not of the keys: half of a head of Phi turns, and a file may say that, and nothing else."""
    model_type, right, wrong = file
    assert hf.from_config({"model_type": model_type, **right}).rotations
    with pytest.raises(ValueError, match="|".join(wrong)):
        hf.from_config({"model_type": model_type, **wrong})
