"""The decoders: the configuration of each tiny model, and its `Model` made from that configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import transformers
from blocks import BLOOM, DEEPSEEK, EPS, GEMMA, LLAMA, MPT, NOPE, PHI, RANK, TURNING, VALUE, D, K, N
from models import Attention, Model

import posembed_jax as pe
from posembed_jax import hf

LAYERS, ORIGINAL, WINDOW = 2, 16, 7
SIZES = {
    "vocab_size": 61,
    "hidden_size": N * D,
    "intermediate_size": 80,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": N,
    "num_key_value_heads": K,
    "max_position_embeddings": 2 * ORIGINAL,
    "rms_norm_eps": EPS,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


def rotary(config: dict[str, Any]) -> tuple[Attention, ...]:
    """What hf.from_config finds for each layer; the window it leaves to the masks."""
    found, window = hf.from_config(config), config.get("sliding_window")
    return tuple(
        Attention(
            rotation=found.rotations[kind],
            scale=found.softmax_scale,
            window=(window - 1, 0) if kind == "sliding_attention" else None,
        )
        for kind in found.layers
    )


def alibi(scheme: pe.ALiBi) -> tuple[Attention, ...]:
    return (Attention(bias=lambda w: scheme.bind({})),) * LAYERS


class Decoder(NamedTuple):
    kind: Any  # transformers' class
    config: Any
    model: Callable[[dict[str, Any]], Model]  # from the configuration's dict
    takes_positions: bool = True  # whether transformers' class takes position_ids


LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e2,
    "factor": 40.0,
    "original_max_position_embeddings": ORIGINAL,
    "beta_fast": 0.5,  # of the four frequencies two are kept, one is divided in part and one whole
    "beta_slow": 0.1,
    "mscale": 0.7,
    "mscale_all_dim": 1.0,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": ORIGINAL,
    "partial_rotary_factor": 0.75,
}
GEMMA_ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
}

DECODERS = {
    "llama3": Decoder(
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(**SIZES, head_dim=D, rope_parameters=LLAMA3_SCALING),
        lambda config: Model(block=LLAMA, attentions=rotary(config)),
    ),
    "gemma3": Decoder(
        transformers.Gemma3ForCausalLM,
        transformers.Gemma3TextConfig(
            **SIZES,
            head_dim=D,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=24,
            rope_parameters=GEMMA_ROPES,
        ),
        lambda config: Model(
            block=GEMMA, attentions=rotary(config), embedding_scale=float(np.sqrt(config["hidden_size"]))
        ),
    ),
    "deepseek_v3": Decoder(
        transformers.DeepseekV3ForCausalLM,
        transformers.DeepseekV3Config(
            **SIZES | {"num_key_value_heads": N, "max_position_embeddings": 40 * ORIGINAL},
            q_lora_rank=20,
            kv_lora_rank=RANK,
            qk_nope_head_dim=NOPE,
            qk_rope_head_dim=TURNING,
            v_head_dim=VALUE,
            first_k_dense_replace=LAYERS,  # no experts: they know nothing of positions
            rope_parameters=YARN,
        ),
        lambda config: Model(block=DEEPSEEK, attentions=rotary(config)),
    ),
    "phi3": Decoder(
        transformers.Phi3ForCausalLM,
        transformers.Phi3Config(**SIZES, original_max_position_embeddings=ORIGINAL, rope_parameters=LONGROPE),
        lambda config: Model(block=PHI, attentions=rotary(config)),
    ),
    "bloom": Decoder(
        transformers.BloomForCausalLM,
        transformers.BloomConfig(
            vocab_size=61, hidden_size=6 * D, n_layer=LAYERS, n_head=6, layer_norm_epsilon=EPS, pad_token_id=0
        ),
        lambda config: Model(
            block=BLOOM,
            attentions=alibi(pe.ALiBi(heads=config["n_head"])),
            layers="transformer.h",
            embedding="transformer.word_embeddings",
            after_embedding="transformer.word_embeddings_layernorm",
            last_norm="transformer.ln_f",
        ),
        takes_positions=False,
    ),
    "mpt": Decoder(
        transformers.MptForCausalLM,
        transformers.MptConfig(
            vocab_size=61,
            d_model=6 * D,
            n_layers=LAYERS,
            n_heads=6,
            max_seq_len=64,
            layer_norm_epsilon=EPS,
            pad_token_id=0,
            use_cache=True,
        ),
        lambda config: Model(
            block=MPT,
            attentions=alibi(pe.ALiBi(heads=config["n_heads"])),  # its class does not read alibi_bias_max
            layers="transformer.blocks",
            embedding="transformer.wte",
            last_norm="transformer.norm_f",
        ),
        takes_positions=False,
    ),
}
