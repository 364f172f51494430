"""Refusals of transformers' files."""

import dataclasses

import jax.numpy as jnp
from refusals import FLAG, IDS, INT, KEYS, POSITIVE, REROTATE, ROPE, F, N, Q, good

import posembed_jax as pe
from posembed_jax import hf
from posembed_jax.hf.expressions import evaluate
from posembed_jax.hf.places import placed

FILE = good(hf.from_config)

SECTIONS = {"rope_type": "default", "mrope_section": [16, 24, 24]}

LAYERS = {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}


def rotation_of(config):
    return hf.from_config(config).rotation


T5 = good(pe.T5Bias, heads=N, bidirectional=True)

SLOPES = good(pe.ALiBi, heads=N)


class MyScaling(pe.Scaling):
    def scale(self, frequencies, base):
        return frequencies


PATCHES = good(hf.patch_table, table=jnp.ones((5, F)), shape=(2, 2), about={"prefix": 1, "shape": (2, 2)})

OF_FILE = good(hf.scaling, max_position_embeddings=16)

REROTATED = good(REROTATE, keys=KEYS, positions=Q)

ROWS = [
    # The models of transformers' files.
    (FILE, "config", 3, TypeError, "; it needs to be a dict or the path of a config.json"),
    (FILE, "config", {"model_type": "bart2"}, ValueError, "model_type is 'bart2'; it needs to be one of", ""),
    (FILE, "config", {"model_type": "rag"}, ValueError, "has none: made of two models that its file names", ""),
    (
        FILE,
        "config",
        {"model_type": "bert", "position_embedding_type": "relative_key"},
        ValueError,
        "config has {'position_embedding_type': 'relative_key'}, which transformers does not read",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "gpt2", "n_positions": 8, "max_position_embeddings": 9},
        ValueError,
        "max_position_embeddings is 9, but n_positions is 8; it needs to be said once",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "mpt", "attn_config": {"alibi": False}},
        ValueError,
        "which transformers' code for model_type 'mpt' does not follow; it needs attn_config['alibi']",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "mpt", "learned_pos_emb": False},
        ValueError,
        "learned_pos_emb is False, which transformers does not read for model_type 'mpt'; it needs to be True",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "bert", "hidden_size": "wide"},
        ValueError,
        "features is 'wide'",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "roberta", "max_position_embeddings": None},
        ValueError,
        "from which the 'learned' positions of 'roberta' do not follow",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "cohere2_moe", "rope_scaling": {"type": "linear", "factor": 2.0}},
        ValueError,
        "rope_scaling is {'type': 'linear', 'factor': 2.0}, which transformers does not read",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "recurrent_gemma", "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        ValueError,
        "rope_type is 'linear'; this model type needs 'default'",
        "",
    ),
    (good(rotation_of), "config", {"model_type": "gemma3_text"}, ValueError, "it needs one for all", ""),
    (
        FILE,
        "config",
        {"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": 3.0}},
        ValueError,
        "'alpha', which this model_type does not read",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "llama", "rope_scaling": {"type": "default"}, "rope_parameters": {"factor": 2.0}},
        ValueError,
        "rope_scaling is {'type': 'default'} beside rope_parameters {'factor': 2.0}; it needs",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "gemma3_text", "rope_parameters": {**LAYERS, "factor": 2.0}},
        ValueError,
        "it needs to be without ['factor']",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "gemma3_text", "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        ValueError,
        "needs one dict for each of ['full_attention', 'sliding_attention']",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "nemotron", "rope_percent": 0.25},
        ValueError,
        "config has ['rope_percent'], which",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "olmo3", "rope_theta": 1e6},
        ValueError,
        "rope_theta is 1000000.0, which ... to be",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "llama", "rope_theta": 1e6, "rope_parameters": {"rope_theta": 2e6}},
        ValueError,
        "rope_theta is 1000000.0, but the rotary dict says rope_theta 2000000.0; it needs to be said once",
        "",
    ),
    (
        FILE,
        "config",
        {
            "model_type": "llama",
            "max_position_embeddings": 8,
            "rope_scaling": {"type": "default", "max_position_embeddings": 9},
        },
        ValueError,
        "max_position_embeddings is 8, but the rotary",
        "",
    ),
    (
        FILE,
        "config",
        {
            "model_type": "phi3",
            "original_max_position_embeddings": 8,
            "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 9},
        },
        ValueError,
        "original_max_position_embeddings is 8, but the rotary dict says 9; it needs",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "ministral3", "rope_parameters": {"llama_4_scaling_beta": 0.1}},
        ValueError,
        "rope_parameters has llama_4_scaling_beta 0.1, which needs original_max_position_embeddings as well",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "llama", "rope_parameters": {"llama_4_scaling_beta": 0.1}},
        ValueError,
        "needs to be without ['llama_4_scaling_beta']",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "deepseek_v3", "head_dim": 48},
        ValueError,
        "head_dim is 48, but qk_rope_head_dim is 64; it needs to be the same",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "qwen2_vl_text", "hidden_size": 256, "num_attention_heads": 4, "rope_parameters": SECTIONS},
        ValueError,
        "the sections of rope_parameters are [16, 24, 24]; they need to sum to 32",
        "",
    ),
    (
        good(hf.to_config),
        "positions",
        dataclasses.replace(hf.from_config({"model_type": "llama"}), rotations={"": ROPE}),
        ValueError,
        "it needs to differ from the model's own in base and scaling of its rotations alone",
        "",
    ),
    (
        FILE,
        "config",
        {"model_type": "sam3_vit_model", "window_size": 0},
        ValueError,
        "it needs windows of at least 1 patch",
        "",
    ),
    (good(evaluate, names={}), "setting", "=lambda: 3", ValueError, "expression has lambda: 3; it needs", ""),
    (
        good(placed, config={}, name="mine", rotary=False, follow=False),
        "facts",
        {"config": {}, "keys": [], "places": [{"place": "", "kind": "mine", "settings": {}}]},
        ValueError,
        "model_type is 'mine', whose 'mine' positions this library has no scheme for",
        "",
    ),
    (
        good(hf.multimodal),
        "config",
        {"model_type": "llama"},
        ValueError,
        "model_type is 'llama'; it needs to be one",
        "",
    ),
    (
        good(hf.patch_positions, shape=(2, 2)),
        "about",
        {},
        ValueError,
        """; it needs to be about["rotation"] of a model that turns the patches of pictures""",
    ),
    (
        good(hf.patch_positions, about={"axes": ("row", "column")}),
        "shape",
        (4,),
        ValueError,
        "; it needs to be (height, width) or (frames, height, width)",
    ),
    (PATCHES, "about", {}, ValueError, "; it needs to be that of a table of patches, which has a shape"),
    (PATCHES, "shape", [2, 2], ValueError, "; it needs to be a tuple of sizes, such as (height, width)"),
    (PATCHES, "table", jnp.ones(5), AssertionError, "a floating table [1 + the product of (2, 2) + 0, F]"),
    (PATCHES, "shape", (3, 2), ValueError, "; the model of this table, of (2, 2), needs the same", ""),
    (PATCHES, "shape", (4,), ValueError, "; the model of this table, of (2, 2), needs", ""),
    (PATCHES, "table", jnp.ones((4, F)), AssertionError, "a floating table [1 + the product of (2, 2) + 0, F]"),
    (PATCHES, "table", jnp.ones((5, F), int), AssertionError, "a floating table [1 + the product of (2, 2) + 0, F]"),
    # transformers' files.
    (OF_FILE, "parameters", {"rope_type": "ntk-aware"}, ValueError, "its rope_type needs to be one of ['axial', "),
    (OF_FILE, "parameters", {"rope_type": "linear", "type": "yarn"}, ValueError, "not ['linear', 'yarn']"),
    (OF_FILE, "parameters", {"rope_type": "linear", "factor": None}, ValueError, "needs ['factor'] as well"),
    (OF_FILE, "parameters", {"type": "linear", "factor": 2.0, "beta_fast": 32}, ValueError, "be without ['beta_fast']"),
    (OF_FILE, "parameters", {"rope_type": "default", "factor": 2.0}, ValueError, "be without ['factor']"),
    (
        OF_FILE,
        "parameters",
        {"rope_type": "yarn"},
        ValueError,
        "needs factor or original_max_position_embeddings as well",
    ),
    (
        good(hf.scaling, parameters={"rope_type": "dynamic", "factor": 2.0}),
        "max_position_embeddings",
        None,
        ValueError,
        "without an original length in parameters it needs to be given",
    ),
    (
        good(hf.scaling, parameters={"rope_type": "yarn", "original_max_position_embeddings": 8}),
        "max_position_embeddings",
        None,
        ValueError,
        "without factor in parameters",
    ),
    (good(hf.rope_parameters, base=10_000.0), "scaling", MyScaling(), TypeError, "one that transformers has, or None"),
    (REROTATED, "keys", IDS, AssertionError, "floating [S, K, D] or [B, S, K, D]"),
    (T5, "heads", 0, ValueError, INT),
    (T5, "buckets", 2, ValueError, "at least 4"),
    (good(pe.T5Bias, heads=N, bidirectional=False), "buckets", 1, ValueError, "at least 2"),
    (good(pe.T5Bias, heads=N, bidirectional=False), "max_distance", 16, ValueError, "at least 17"),
    (T5, "stddev", -0.5, ValueError, POSITIVE),
    (good(pe.T5Bias, heads=N), "bidirectional", None, ValueError, "True (encoder) or False (decoder)"),
    (SLOPES, "heads", 4.0, ValueError, INT),
    (SLOPES, "bias_max", 0, ValueError, POSITIVE),
    (SLOPES, "symmetric", 0, ValueError, FLAG),
    (SLOPES, "slopes", (0.5,), ValueError, "a tuple of 4 numbers, one a head"),
    (SLOPES, "slopes", [0.5] * N, ValueError, "a tuple of 4 numbers, one a head"),
    (good(pe.ALiBi, heads=2), "slopes", (0.5, 0.0), ValueError, "slopes[1] is 0.0" + POSITIVE, ""),
    (good(pe.alibi_slopes, heads=N), "heads", 0, ValueError, INT),
    (good(pe.alibi_slopes, heads=N), "bias_max", "8", ValueError, POSITIVE),
]
