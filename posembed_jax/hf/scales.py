"""By which numbers a model multiplies its logits, and its queries by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.grids import has_heads, head_width
from posembed_jax.hf.model import Model
from posembed_jax.hf.own_heads import has_own_heads, own_scale
from posembed_jax.hf.rope_parameters import ORIGINAL, factor_of
from posembed_jax.schemes.scaling import yarn_mscale
from posembed_jax.schemes.temperature import SteppedTemperature

Values = Mapping[str, Any]
BETA = "llama_4_scaling_beta"


def softmax_scale(model: Model, dicts: Values) -> float | dict[str, float] | None:
    """One number, or one for each type of layers.

    dicts: the rotary dicts, complete.
    """
    known, values = model.known, model.values
    if has_own_heads(known):
        return {layer: own_scale(layer, model.given, values) for layer in dicts}
    rule = (known["softmax_scale"] or [None])[0]
    width = None if "attention_computes_head_dim" in known else values.get("head_dim")
    if has_heads(model.code, values):
        width = head_width(model.code, values, width)
    if rule == "head_dim" and width:
        return width**-0.5
    if rule == "half_head_dim" and width:  # Zamba 2, whose heads see two states side by side
        return (width / 2) ** -0.5
    if rule == "one":
        return 1.0
    if rule == "attention_multiplier":
        return values.get(rule)
    if rule == "query_pre_attn_scalar" and values.get(rule):
        return values[rule] ** -0.5
    if rule in ("qk_head_dim", "qk_head_dim_yarn"):
        if "qk_nope_head_dim" not in values or "qk_rope_head_dim" not in values:
            return None
        scale = (values["qk_nope_head_dim"] + values["qk_rope_head_dim"]) ** -0.5
        entry = dicts.get("") or {}
        weight, scaled = entry.get("mscale_all_dim"), entry.get("rope_type", "default") != "default"
        if rule == "qk_head_dim_yarn" and weight and scaled:
            scale *= yarn_mscale(factor_of(entry, values.get("max_position_embeddings")), weight) ** 2
        return scale
    return None


def temperature(model: Model, entry: Values) -> SteppedTemperature | None:
    """Of the queries: Llama 4's on its layers without rotation, Ministral 3's and Mistral 4's on all.

    entry: the rotary dict of all layers, complete.
    """
    rule, values = model.known.get("temperature"), model.values
    if rule == "floor_scale" and values.get("attn_temperature_tuning") and values["attn_scale"]:
        return SteppedTemperature(beta=values["attn_scale"], length=int(values["floor_scale"]), offset=1)
    if rule == BETA and entry.get(BETA):
        scaled = entry.get("rope_type") in ("yarn", "llama3", "longrope")
        length = entry.get(ORIGINAL) or (values.get("max_position_embeddings") if scaled else None)
        if length is None:
            raise ValueError(f"rope_parameters has {BETA} {entry[BETA]}, which needs {ORIGINAL} as well.")
        return SteppedTemperature(beta=entry[BETA], length=int(length))
    return None
