"""By which numbers a model multiplies its logits, and its queries by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.schemes.mixed import RoPEMixed
from posembed_jax.schemes.rotary import RoPE
from posembed_jax.schemes.scaling import YaRN, yarn_mscale

Values = Mapping[str, Any]
Rotations = Mapping[str, RoPE | RoPEMixed | None]


def softmax_scale(known: Values, values: Values, rotations: Rotations) -> float | None:
    rule = (known["softmax_scale"] or [None])[0]
    width = values.get("head_dim")
    whole = "embed_dim" if known["modeling"]["axial"] == "half_head_of_embed_dim" else "hidden_size"
    if width is None and values.get(whole) and values.get("num_attention_heads"):
        width = values[whole] // values["num_attention_heads"]
    if rule == "head_dim" and width:
        return width**-0.5
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
        rope = rotations.get("")
        scaling = rope.scaling if isinstance(rope, RoPE) else None
        if rule == "qk_head_dim_yarn" and isinstance(scaling, YaRN) and scaling.mscale_all_dim:
            scale *= yarn_mscale(scaling.factor, scaling.mscale_all_dim) ** 2
        return scale
    return None


def query_scale(given: Values, known: Values) -> dict[str, float] | None:
    """Llama 4's attn_scale and floor_scale, on its layers without rotation; Mistral's llama_4_scaling_beta, on all."""
    if "attn_temperature_tuning" in given:
        if not given["attn_temperature_tuning"]:
            return None
        return {key: given[key] for key in ("attn_scale", "floor_scale") if key in given}
    parameters = (
        given.get("rope_parameters") or given.get("rope_scaling") or known["config"].get("rope_parameters") or {}
    )
    beta = parameters.get("llama_4_scaling_beta")
    return None if beta is None else {"llama_4_scaling_beta": beta}
