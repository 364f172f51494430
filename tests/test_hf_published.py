"""Files as their models' authors published them, what speaks of positions in them: from memory, not fetched."""

import pytest

import posembed_jax as pe
from posembed_jax import hf

OTHERS = {"architectures": ["Some"], "torch_dtype": "bfloat16", "auto_map": {}, "use_cache": True, "vocab_size": 100}
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA3 |= {"rope_type": "llama3"}
INTERLEAVED = {"interleaved": True, "mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}
# name -> (model_type, keys, base of the first rotation, its scaling)
PUBLISHED = {
    "SmolLM2": ("llama", {"rope_interleaved": False, "rope_theta": 100000}, 1e5, None),
    "Llama 3.1": ("llama", {"rope_theta": 500000.0, "rope_scaling": LLAMA3}, 5e5, pe.Llama3),
    "GPT-J": ("gptj", {"rotary": True, "rotary_dim": 16, "n_embd": 64, "n_head": 4}, 1e4, None),
    "Hunyuan": (
        "hunyuan_v1_dense",
        {
            "use_rotary_pos_emb": True,
            "position_embedding_xdrope": False,
            "rope_scaling": {"type": "dynamic", "alpha": 9.0},
        }
        | {"rope_theta": 10000.0},
        1e4,
        pe.NTK,
    ),
    "GLM-5": ("glm_moe_dsa", {"rope_interleave": True, "indexer_rope_interleave": True}, 1e4, None),
    "OLMo 3": ("olmo3", {"rope_theta": 500000, "rope_scaling": YARN}, 5e5, pe.YaRN),
    "Apertus": ("apertus", {"rope_theta": 5e5, "rope_scaling": LLAMA3}, 5e5, pe.Llama3),
    "CWM": ("cwm", {"rope_theta": 1e6, "rope_scaling": LLAMA3}, 1e6, pe.Llama3),
    "LFM2": ("lfm2", {"theta": 1e6, "rope_theta": 1e6}, 1e6, None),
    "Qwen3-Omni": ("qwen3_omni_moe_text", {"head_dim": 16, "rope_theta": 1e6, "rope_scaling": INTERLEAVED}, 1e6, None),
    "DBRX": ("dbrx", {"d_model": 64, "n_heads": 4, "attn_config": {"rope_theta": 5e5, "kv_n_heads": 2}}, 5e5, None),
    "Cohere 2": ("cohere2", {"rotary_pct": 1.0, "rope_theta": 50000}, 5e4, None),
    "ESM": ("esm", {"position_embedding_type": "rotary", "pad_token_id": 1}, 1e4, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name):
    model_type, keys, base, scaling = PUBLISHED[name]
    found = hf.from_config({"model_type": model_type, **OTHERS, **SIZES, **keys})
    rope = next(rope for rope in found.rotations.values() if rope is not None)
    assert rope.base == base and isinstance(rope.scaling, scaling or type(None))


def test_esm_scales_its_queries_before_it_rotates_them():
    assert hf.from_config({"model_type": "esm", **SIZES, **PUBLISHED["ESM"][1]}).softmax_scale == 0.25


@pytest.mark.parametrize("file", [("llama", "rope_interleaved", False), ("glm_moe_dsa", "rope_interleave", True)])
def test_a_layout_that_is_not_the_models_is_refused(file):
    model_type, key, value = file
    hf.from_config({"model_type": model_type, key: value})
    with pytest.raises(ValueError, match=key):
        hf.from_config({"model_type": model_type, key: not value})
