"""Of which type each layer is by a configuration class of transformers: rules written from reading the classes.

Each is an expression, in the language of `posembed_jax.hf.expressions`, over the layer `i`, `num_hidden_layers`, and
the keys of a file that the class makes layer types of, which `reads` has with their defaults. `layer_types` holds every
rule against its class before it is written down.
"""

import ast
import inspect

from posembed_jax.hf.expressions import evaluate

COUNTS = (*range(1, 15), 26, 54)
FULL, SLIDING, LINEAR, INDEXED = "full_attention", "sliding_attention", "linear_attention", "indexed_attention"
LAST = "i == num_hidden_layers - 1"


def either(condition, one, other=FULL):
    return f"={one!r} if {condition} else {other!r}"


def every(number, others=SLIDING, one=FULL):
    """The last of each group of so many layers is `one`."""
    return either(f"(i + 1) % {number}", others, one)


def same(kind):
    return f"={kind!r}"


SOME_WINDOWS = {
    "rule": either("sliding_window != None and not i < max_window_layers", SLIDING),
    "reads": {"max_window_layers": 28, "sliding_window": None},
}
USED_WINDOWS = {
    "rule": either("use_sliding_window and sliding_window != None and not i < max_window_layers", SLIDING),
    "reads": SOME_WINDOWS["reads"] | {"use_sliding_window": False},
}
PATTERN = {"sliding_window_pattern": 6}
INTERVAL = {"full_attention_interval": 4}
GROUPS = {"rule": every("global_attn_every_n_layers"), "reads": {"global_attn_every_n_layers": 4}}
BY_PATTERN = {"rule": every("sliding_window_pattern"), "reads": PATTERN}
GLOBAL = {"rule": either("i % global_attn_every_n_layers", SLIDING), "reads": {"global_attn_every_n_layers": 3}}
LINEAR_FIRST = {"rule": every("full_attention_interval", LINEAR), "reads": INTERVAL}
EXAONE = {
    "rule": either("sliding_window != None and (i + 1) % sliding_window_pattern", SLIDING),
    "reads": {"sliding_window": 4096, "sliding_window_pattern": 4},
}
FOURTH_FROM_FIRST = {"rule": either("i % 4", SLIDING)}
FOURTH_FROM_LAST = {"rule": either("(num_hidden_layers - 1 - i) % 4", SLIDING)}
FULL_LAST = {  # whatever the file's list says
    "rule": either(f"(i + 1) % 6 and not {LAST}", SLIDING),
    "as_given": f"={FULL!r} if {LAST} else kind",
    "forces": True,
}
VISION = {"rule": either(f"(i + 1) % 4 and not {LAST}", "window_attention")}
ALL_FULL, ALL_INDEXED = {"rule": same(FULL)}, {"rule": same(INDEXED)}
ZAMBA2 = (6, 12, 18, 24, 30, 36, 42, 47, 51)

RULES = {
    "afmoe": GROUPS,
    "axk2": ALL_INDEXED,
    "bailing_hybrid": {"rule": every("layer_group_size", LINEAR), "reads": {"layer_group_size": 7}},
    "bamba": {
        "rule": either("attn_layer_indices and i in attn_layer_indices", FULL, LINEAR),
        "reads": {"attn_layer_indices": None},
        "computed": True,
    },
    "beam": {"rule": either(f"(i + 1) % 6 and not {LAST}", SLIDING)},
    "cohere2": {"rule": every("sliding_window_pattern"), "reads": {"sliding_window_pattern": 4}},
    "cohere2_moe": {
        "rule": either(
            "((i + 1) % prefix_dense_sliding_window_pattern if i < first_k_dense_replace"
            " else (i - first_k_dense_replace + 1) % sliding_window_pattern)",
            SLIDING,
        ),
        "reads": {"first_k_dense_replace": 0, "prefix_dense_sliding_window_pattern": 1, "sliding_window_pattern": 4},
    },
    "cohere_compass_text": ALL_FULL,
    "cwm": FOURTH_FROM_FIRST,
    "deepseek_ocr2_encoder": USED_WINDOWS,
    "deepseek_v32": ALL_INDEXED,
    "deepseek_v4": {
        "rule": "=('sliding_attention' if compress_ratios[i] == 0 else 'compressed_sparse_attention' if"
        " compress_ratios[i] == 4 else 'heavily_compressed_attention') if compress_ratios else"
        " 'compressed_sparse_attention' if i > 1 and i % 2 else 'heavily_compressed_attention'",
        "reads": {"compress_ratios": None},
        "longer_by": "=max(len(told) - num_hidden_layers, 0)",
    },
    "diffusion_gemma_text": FULL_LAST,
    "dots1": SOME_WINDOWS,
    "dots3_note_text": {
        "rule": "=('full_attention' if use_dsa == False else 'indexed_attention')"
        " if not use_sliding_window or i < 2 or i % 4 == 1 else 'sliding_attention'",
        # Older files say "full_attention" of layers with an indexer; those with per_layer_config mean it.
        "as_given": "=kind if use_dsa == None or (use_dsa == 'unsaid' and per_layer_config != None)"
        " else 'indexed_attention' if use_dsa and kind == 'full_attention'"
        " else 'full_attention' if not use_dsa and kind == 'indexed_attention' else kind",
        "reads": {"per_layer_config": None, "use_dsa": "unsaid", "use_sliding_window": True},
    },
    "embedding_gemma2_text": FULL_LAST
    | {"rule": either(f"(i + 1) % sliding_window_pattern and not {LAST}", SLIDING), "reads": PATTERN},
    "exaone4": EXAONE,
    "exaone_moe": EXAONE,
    "falcon_h1": {"rule": same("hybrid"), "computed": True},
    "flint": {"rule": either(f"i < 2 or i % 4 == 1 or {LAST}", FULL, SLIDING)},
    "gemma2": {"rule": every(2)},
    "gemma3_text": BY_PATTERN,
    "gemma3n_text": {"rule": every(5)},
    "gemma4_text": FULL_LAST,
    "gemma4_unified_text": FULL_LAST,
    "glm_moe_dsa": ALL_INDEXED,
    "gpt_oss": {"rule": every(2)},
    "granite_swa": FOURTH_FROM_FIRST,
    "granitemoe_swa": FOURTH_FROM_FIRST,
    "granitemoehybrid": {"rule": same(LINEAR)},
    "hy_v4": ALL_INDEXED,
    "kolibri1": {"rule": every(5)},
    "laguna": ALL_FULL,
    "lfm2": {
        "rule": either("full_attn_idxs == None or i in full_attn_idxs", FULL, "conv"),
        "reads": {"full_attn_idxs": None},
    },
    "lfm2_moe": {"rule": None},  # the file needs to say them
    "lfm3": {"rule": "='full_attention' if i % 4 == 2 else 'sliding_attention' if i % 4 == 0 and i > 0 else 'conv'"},
    "lfm3_vl_vision": {"rule": either("i < 2 or i % 2", "conv")},
    "llama4_text": {"rule": either("no_rope_layers[i]", "chunked_attention"), "reads": {"no_rope_layers": None}},
    "mellum": ALL_FULL,
    "mimo_v2_flash": {"rule": either("i > 0 and (i + 1) % 6", SLIDING)},
    "minimax": {"rule": every(2, FULL, LINEAR)},
    "minimax_m3_vl_text": {
        "rule": either(
            "sparse_attention_config and"
            " get(sparse_attention_config, 'sparse_attention_freq', (0,) * num_hidden_layers)[i]",
            "minimax_m3_sparse",
        ),
        "reads": {"sparse_attention_config": None},
    },
    "ministral": {"rule": either("sliding_window != None", SLIDING), "reads": {"sliding_window": 4096}},
    "mistral_large4_text": ALL_INDEXED,
    "modernbert": GLOBAL,
    "modernbert-decoder": GLOBAL,
    "muse_glimmer_assistant": {"rule": same(SLIDING)},
    "muse_glimmer_text": FOURTH_FROM_LAST,
    "muse_glimmer_vision": VISION,
    "muse_spark_text": FOURTH_FROM_LAST,
    "muse_spark_vision": VISION,
    "neomme": {"rule": either(f"(i + 1) % 6 and not {LAST}", SLIDING)},
    "olmo3": {"rule": every(4)},
    "olmo_hybrid": {"rule": either(f"i % 4 == 3 or (num_hidden_layers < 4 and {LAST})", FULL, LINEAR)},
    "qwen2": USED_WINDOWS,
    "qwen2_5_omni_talker": USED_WINDOWS,
    "qwen2_5_omni_text": USED_WINDOWS,
    "qwen2_5_vl_text": USED_WINDOWS,
    "qwen2_moe": {
        "rule": either("use_sliding_window and i % 2 == 0 and i < max_window_layers", SLIDING),
        "reads": {"max_window_layers": 28, "use_sliding_window": False},
    },
    "qwen2_vl_text": USED_WINDOWS,
    "qwen3": USED_WINDOWS,
    "qwen3_5_moe_text": LINEAR_FIRST,
    "qwen3_5_text": LINEAR_FIRST,
    "qwen3_next": LINEAR_FIRST,
    "qwen3_omni_moe_talker_code_predictor": SOME_WINDOWS,
    "qwen4_exp_text": {
        "rule": every("full_attention_interval", LINEAR, INDEXED),
        "as_given": either("kind == 'full_attention'", INDEXED, "").replace("''", "kind"),
        "reads": INTERVAL,
    },
    "recurrent_gemma": {
        "rule": either("block_types[i % len(block_types)] == 'recurrent'", LINEAR, SLIDING),
        "reads": {"block_types": ["recurrent", "recurrent", "attention"]},
        "computed": True,
    },
    "smollm3": {
        "rule": either("use_sliding_window and sliding_window != None and not no_rope_layers[i]", SLIDING),
        "reads": {"no_rope_layers": None, "sliding_window": None, "use_sliding_window": False},
    },
    "step3p5": ALL_FULL | {"longer_by": "=num_nextn_predict_layers", "reads": {"num_nextn_predict_layers": 0}},
    "t5_gemma_module": {"rule": every(2)},
    "t5gemma2_decoder": BY_PATTERN,
    "t5gemma2_text": BY_PATTERN,
    "ultrabert": {
        "rule": "=('sliding_attention' if attention_windows[i] else 'full_attention') if attention_windows != None"
        " else 'sliding_attention' if (i + 1) % 3 else 'full_attention'",
        "reads": {"attention_windows": None},
    },
    "unlimited_ocr_text": {
        "rule": either("sliding_window != None", "reference_sliding_attention"),
        "reads": {"sliding_window": 128},
    },
    "vaultgemma": {"rule": every(2)},
    "zamba2": {"rule": either(f"i in {ZAMBA2}", "hybrid", LINEAR), "needs": 54},
    "zaya": {"rule": same("hybrid")},
}
# What class and code mention, and is no type that a layer of the model can have.
MENTIONED = {
    "deepseek_v4": {"moe"},
    "falcon_h1": {FULL, LINEAR},
    "step3p5": {"minimax_m3_sparse"},
    "zamba2": {FULL},
    "zaya": {"conv"},
}
ROTATES = {  # which layers do, where no key of the file says it
    "muse_glimmer_text": "=(num_hidden_layers - 1 - i) % 4 > 0",
    "muse_spark_text": "=(num_hidden_layers - 1 - i) % 4 > 0",
}


def layer_types(config_class, parts):
    """The rule of a class, with the defaults that the class has, and the types that its model knows."""
    from transformers.configuration_utils import ALLOWED_ATTN_LAYER_TYPES

    name = config_class.model_type
    text = "".join(ast.unparse(node) for _, node in parts.nodes)
    bases = [base for base in config_class.__mro__ if base.__module__.startswith("transformers.models.")]
    text += "".join(ast.unparse(ast.parse(inspect.getsource(base))) for base in bases)
    mentioned = {kind for kind in ALLOWED_ATTN_LAYER_TYPES if repr(kind) in text} - MENTIONED.get(name, set())
    rule = dict(RULES.get(name, {}))
    if rule.get("reads"):
        rule["reads"] = {key: own_default(config_class, key, value) for key, value in rule["reads"].items()}
    check(config_class, rule)
    if not rule:
        mentioned |= {FULL, SLIDING}
    return rule | {"known": sorted(mentioned)}


def own_default(config_class, key, value):
    """What the class itself has for a key; what its code takes where it has none is in RULES."""
    own = getattr(config_class, key, None)
    if key not in getattr(config_class, "__dataclass_fields__", ()):
        return value
    if callable(own) or own is None:
        return value
    return list(own) if isinstance(own, tuple) else own


def check(config_class, rule):
    """Whether this is the rule: the layers of the class at many lengths."""
    for count in COUNTS if rule.get("needs") is None else (rule["needs"],):
        try:
            config = config_class(num_hidden_layers=count)
            built = getattr(config, "layer_types", None)
        except Exception:
            continue
        names = rule.get("reads", {}) | {"num_hidden_layers": count}
        names |= {"no_rope_layers": getattr(config, "no_rope_layers", None)}
        found = [evaluate(rule["rule"], names | {"i": i}) for i in range(count)] if rule.get("rule") else None
        if found != (None if built is None else list(built)):
            raise SystemExit(f"{config_class.model_type}: of {count} layers {found}, not {built}")
