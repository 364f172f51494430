"""Which layers rotate: those in which a small model of transformers calls its function that rotates.

python -m pytest tests/parity/test_rotating_layers.py -m parity
"""

import dataclasses
import importlib
import logging
import re
import warnings

import pytest

from posembed_jax import hf

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

FULL, SLIDING = "full_attention", "sliding_attention"
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "linear_key_head_dim": 16}
HEADS |= {"linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "v_head_dim": 16}
HEADS |= {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
HEADS |= {"index_head_dim": 16, "index_n_heads": 2, "index_topk": 4}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 1}
EXPERTS |= {"n_group": 1, "topk_group": 1, "moe_intermediate_size": 32}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "n_mamba_heads": 2}
MAMBA |= {"mamba_ngroups": 1, "mamba_d_ssm": 128, "lru_width": 64}
SMALL = {"hidden_size": 64, "intermediate_size": 64, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1}
SMALL |= HEADS | EXPERTS | MAMBA | {"eos_token_id": 2, "max_position_embeddings": 64}
COUNT = 6
ROTATES = {"granitemoehybrid": {"position_embedding_type": "rope"}, "zamba2": {"use_mem_rope": True}}
FILES = [
    {"model_type": "afmoe"},
    {"model_type": "afmoe", "global_attn_every_n_layers": 2},
    {"model_type": "bailing_hybrid"},
    {"model_type": "bailing_hybrid", "layer_group_size": 2},
    {"model_type": "bamba", "attn_layer_indices": [1, 4]},
    {"model_type": "beam"},
    {"model_type": "cohere2"},
    {"model_type": "cohere2", "sliding_window_pattern": 3},
    {"model_type": "cohere2_moe"},
    {"model_type": "cohere2_moe", "first_k_dense_replace": 2},
    {"model_type": "cohere2_moe", "first_k_dense_replace": 3, "prefix_dense_sliding_window_pattern": 2},
    {"model_type": "exaone4"},
    {"model_type": "exaone4", "sliding_window_pattern": 2},
    {"model_type": "exaone4", "sliding_window": None, "layer_types": [FULL] * 6},
    {"model_type": "exaone_moe", "sliding_window_pattern": 3},
    {"model_type": "falcon_h1"},
    {"model_type": "flint"},
    {"model_type": "gemma4_text"},
    {"model_type": "granite_swa", "layer_rope_theta": [1e4, 0, 1e4, 1e4, 0, 0]},
    {"model_type": "granitemoe_swa", "layer_rope_theta": [0, 1e4, 1e4, 1e4, 0, 0]},
    {"model_type": "granitemoehybrid", "layer_types": ["mamba", "attention", "mamba"] * 2},
    {"model_type": "granitemoehybrid", "layers_block_type": ["attention", "mamba", "mamba"] * 2},
    {"model_type": "kolibri1"},
    {"model_type": "lfm2", "full_attn_idxs": [2, 5]},
    {"model_type": "lfm2_moe", "layer_types": ["conv", FULL] * 3},
    {"model_type": "lfm3"},
    {"model_type": "llama4_text"},
    {"model_type": "llama4_text", "no_rope_layer_interval": 3},
    {"model_type": "llama4_text", "no_rope_layers": [0, 1, 1, 0, 0, 1]},
    {"model_type": "minimax"},
    {"model_type": "minimax", "layer_types": ["linear_attention", "attention", FULL] * 2},
    {"model_type": "mistral_large4_text", "no_rope_layer_interval": 2},
    {"model_type": "muse_glimmer_text"},
    {"model_type": "muse_glimmer_text", "layer_types": [SLIDING, FULL] * 3},
    {"model_type": "muse_spark_text"},
    {"model_type": "olmo_hybrid"},
    {"model_type": "olmo_hybrid", "num_hidden_layers": 3},
    {"model_type": "qwen3_5_text", "full_attention_interval": 2},
    {"model_type": "qwen3_5_moe_text", "full_attention_interval": 3},
    {"model_type": "qwen3_next", "full_attention_interval": 3},
    {"model_type": "recurrent_gemma", "block_types": ["recurrent", "attention"]},
    {"model_type": "smollm3"},
    {"model_type": "smollm3", "no_rope_layer_interval": 3},
    {"model_type": "smollm3", "use_sliding_window": True, "sliding_window": 4, "no_rope_layers": [0, 1, 1, 0, 0, 1]},
    {"model_type": "zamba2", "layers_block_type": ["mamba", "mamba", "hybrid"] * 2},
    {"model_type": "zaya"},
]


def rotating(file):
    """The layers in which the model of transformers rotates."""
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[file["model_type"]]
    fields = {field.name for field in dataclasses.fields(config_class)}
    sizes = {key: value for key, value in SMALL.items() if key in fields}
    config = config_class(**sizes | {key: value for key, value in file.items() if key != "model_type"})
    model = AutoModel.from_config(config, attn_implementation="eager")
    layers = next(
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers
    )
    at, found = [None], set()
    for i, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, i=i: at.__setitem__(0, i))
    module = importlib.import_module(type(model).__module__)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for name in dir(module):
            if re.match(r"apply.*(rotary|rope)", name):
                turn = getattr(module, name)
                patch.setattr(module, name, lambda *a, turn=turn, **k: (found.add(at[0]), turn(*a, **k))[1])
        model(input_ids=torch.zeros(1, 4, dtype=torch.long), use_cache=False)
    return found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_layers_that_rotate(file):
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    file = {"num_hidden_layers": COUNT, **ROTATES.get(file["model_type"], {}), **file}
    wanted = rotating(file)
    logging.disable(logging.NOTSET)
    assert wanted
    found = hf.from_config(file, follow_upstream_bugs=True).layers
    assert {i for i, layer in enumerate(found) if layer is not None} == wanted
    assert hf.from_config(file).layers == found
