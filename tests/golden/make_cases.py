"""Makes golden cases of rotary tables with transformers' own classes, in the format of `cases`, for every model type.

    python tests/golden/make_cases.py DIR [model types]
    python -m pytest tests/golden --cases DIR

Needs transformers 5.23 and torch. Each type runs with its default configuration and with those of `VARIANTS` that it
accepts.
"""

import importlib
import json
import pathlib

import numpy as np
import torch
from makers import asked

TYPES = pathlib.Path(__file__).parents[2] / "posembed_jax" / "hf" / "rotary_types.json"
LONG = {"original_max_position_embeddings": 64}
FACTORS = {  # of Phi-3.5-MoE's heads, with an amplitude for sequences of either length
    "short_factor": [1.0 + i / 64 for i in range(64)],
    "long_factor": [2.0 + i for i in range(64)],
    "short_mscale": 1.25,
    "long_mscale": 1.75,
}
VARIANTS = {
    "default": {},
    "theta": {"rope_theta": 77777.0},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "linear5": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 34567.0}},
    "legacy": {"rope_scaling": {"type": "linear", "factor": 3.0}, "rope_theta": 54321.0},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, **LONG}},
    "llama3": {
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG}
    },
    "partial": {"partial_rotary_factor": 0.5},
    "partial_linear": {"partial_rotary_factor": 0.5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "longrope_short": {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 8192, **FACTORS}},
    "longrope_long": {"rope_scaling": {"type": "longrope", **LONG, **FACTORS}},
    "small": {"hidden_size": 256, "num_attention_heads": 4},
}
POSITIONS = np.array([0, 1, 7, 100, 1000, 5000])


def positions_for(facts, shape):
    """Positions as this kind of class takes them: `[1, T]`, `[3, 1, T]`, or `[T, axes]` of a picture."""
    rows = {"mrope": 3, "mrope_float32": 3, "mrope_per_layer": 3, "row_col_per_layer": 2, "xdrope": shape}
    forward = facts["modeling"]["forward"]
    if forward in rows:
        return np.stack([POSITIONS[None] + 3 * row for row in range(rows[forward])])
    if forward in ("recomposed", "recomposed_float32"):
        axes = 3 if facts["modeling"]["recompose"] == "thw_twice" else 2
        ids = np.stack([(POSITIONS + 3 * axis) % 50 for axis in range(axes)], axis=-1)
        return ids[None] if facts["modeling"]["recompose"] == "h_twice_w_twice" else ids
    return POSITIONS[None]


def tables(rotary, config, ids, facts):
    """{array name: array} of cosines and sines, by layer type where the class has several."""
    x, at = torch.zeros(1, 1, 1, dtype=torch.float32), torch.as_tensor(ids)
    per_layer = facts["modeling"]["forward"].endswith(("per_layer", "per_layer_float32"))
    found = {}
    if not per_layer:
        made = rotary(x, at)
        if torch.is_tensor(made):
            return {"out.freqs_cis": torch.view_as_real(made).numpy()}
        return {f"out.{name}": table.numpy() for name, table in zip(("cos", "sin"), made, strict=True)}
    for layer_type, entry in config.rope_parameters.items():
        if isinstance(entry, dict) and hasattr(rotary, f"{layer_type}_inv_freq"):
            made = rotary(x, at, layer_type)
            found |= {f"out.{name}.{layer_type}": t.numpy() for name, t in zip(("cos", "sin"), made, strict=True)}
    return found


def make(folder, model_type, facts, variant, settings):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    labels = facts["modeling"]
    settings = dict([facts["switch"]] if "switch" in facts else []) | settings  # which makes it rotate at all
    module = importlib.import_module(f"transformers.models.{labels['module']}")
    config = CONFIG_MAPPING[model_type](**json.loads(json.dumps(settings)))
    rotary = getattr(module, labels["rotary_class"])(config)
    sections = (getattr(config, "rope_parameters", None) or {}).get("mrope_section") or [0] * 4
    ids = positions_for(facts, len(sections))
    arrays = {"in.position_ids": ids, **tables(rotary, config, ids, facts)}
    name = f"sweep_rope__{model_type}__{variant}"
    meta = {"mechanism": "sweep_rope", "model_type": model_type, "variant": variant, "note": ""}
    meta |= {
        "config_input": settings,
        "config_saved": config.to_dict(),
        "ran": f"{labels['rotary_class']}(config)(x, position_ids)",
    }
    (folder / f"{name}.json").write_text(json.dumps(meta, sort_keys=True, default=str) + "\n")
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def main():
    arguments = asked(__doc__, types=True)
    known = json.loads(TYPES.read_text())
    leaves = known["types"] | {name: facts for name, facts in known["composites"].items() if facts.get("config")}
    made = 0
    for model_type in arguments.types or sorted(leaves):
        for variant, settings in VARIANTS.items():
            try:
                make(arguments.folder, model_type, leaves[model_type], variant, settings)
                made += 1
            except Exception as problem:  # what transformers refuses, we have nothing to compare with
                if variant == "default":
                    print(f"{model_type}: {type(problem).__name__}: {str(problem)[:150]}")
    print(f"{made} cases in {arguments.folder}")


if __name__ == "__main__":
    main()
