"""Which keys of a file speak of rotation, and which of them a model does not read: refused, not silently ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.rope_parameters import ORIGINAL

Values = Mapping[str, Any]
Dicts = Mapping[str, dict[str, Any] | None]  # rotary dicts by layer type

FOLLOW = "To do as transformers does, pass follow_upstream_bugs=True."
POSITIONAL = re.compile(
    r"rope|rotary|theta|yarn|ntk|base_freq|emb_base|xpos|alibi|original_max_position|(qk_nope|global|swa)_head_dim"
)
# What these keys say is not the rotation: dropout, sizes of grids, an attention bias.
BESIDES = re.compile(r"dropout|feat_sizes|k_sizes|^alibi$")
# What published files say that is so anyway, and that nothing reads; with other values it is refused.
NEUTRAL = {
    "rotary_pct": 1.0,  # Cohere 2
    "rotary": True,  # GPT-J
    "use_rotary_pos_emb": True,  # Hunyuan
    "position_embedding_xdrope": False,
}
PAIRS_NEIGHBOURS = {  # the same of the layout: the value where neighbours are pairs
    "rope_interleaved": True,  # SmolLM
    "rope_interleave": True,  # GLM-5
    "indexer_rope_interleave": True,
    "rope_is_neox_style": False,  # PaddleOCR-VL
}
# Layouts of transformers' functions: whatever else these say of dtypes and of how tables are stored.
INTERLEAVED = (
    "deinterleave_then_half",
    "complex",
    "pairs_matrix",
    "pairs_sin_cos_halves_and_values",
    "narrow_tables_to_pairs",
)
WHOLE = "rope_parameters", "rope_scaling"
PASSING = "qk_nope_head_dim"
OWN_HEADS = "swa_qk_rope_head_dim"  # Dots 3: each type of layer has a head of its own
WINDOWED_HEAD = {"swa_head_dim": 256, "swa_qk_nope_head_dim": 192}  # and its defaults for those with a window


def check_keys(given: Values, facts: Values, follow: bool, *, dicts: bool) -> None:
    """A key that speaks of rotation and that the model does not read would be another model, silently.

    dicts: the model has rotary dicts.
    """
    known = {*facts["keys"], *facts["config"], *facts.get("legacy_keys", ()), *facts["config"].get("attribute_map", ())}
    known |= {*WHOLE, *facts["reads"], "partial_rotary_factor", "attn_rotary_emb"} if dicts else set()
    if dicts and _is_flat(facts["config"].get("rope_parameters", {})):
        known |= {ORIGINAL}
        # GPT-NeoX has another name for it.
        elsewhere = any(["", "rope_theta"] in places for places in facts["reads"].values())
        known |= {"rope_theta"} if any(given.get(name) for name in WHOLE) and not elsewhere else set()
    known |= set(WINDOWED_HEAD) if has_own_heads(facts) else set()
    known |= {key.removesuffix("_runs") for key in facts["config"]}
    unknown = sorted(
        key
        for key, value in given.items()
        if is_rotary(key) and key not in known and value is not None and not _is_so_anyway(key, value, given, facts)
    )
    if unknown and not follow:
        raise ValueError(
            f"config has {unknown}, which transformers does not read for this model_type; it needs to be without them. "
            f"{FOLLOW}"
        )


def _is_flat(parameters: Values) -> bool:
    """Whether it is one rotary dict, for all layers."""
    return not any(isinstance(value, Mapping) for value in parameters.values())


def _is_so_anyway(key: str, value: Any, given: Values, facts: Values) -> bool:
    if key in PAIRS_NEIGHBOURS:
        return (value == PAIRS_NEIGHBOURS[key]) == pairs_neighbours(facts)
    if key == "theta":  # LFM2's files say it twice
        return value == given.get("rope_theta")
    return key in NEUTRAL and value == NEUTRAL[key]


def pairs_neighbours(facts: Values) -> bool:
    """Whether the pairs of channels are neighbours, the layout "interleaved"."""
    labels = facts["modeling"]
    return (labels["rotate"] or "").startswith("pairs") or labels["apply"] in INTERLEAVED


def is_rotary(key: str) -> bool:
    return bool(POSITIONAL.search(key)) and not BESIDES.search(key)


def check_original(given: Values, facts: Values, values: Values, found: Dicts) -> None:
    """An original length says nothing where no scaling asks for it; Phi-3's files have it all the same."""
    told, longest = given.get(ORIGINAL), values.get("max_position_embeddings")
    asked = any(entry and entry["rope_type"] in ("llama3", "yarn", "longrope") for entry in found.values())
    if not asked and told not in (None, longest, facts["config"].get(ORIGINAL)):
        raise ValueError(
            f"{ORIGINAL} is {told}, which no scaling of this file asks for; it needs to be max_position_embeddings, "
            f"{longest}, or left out."
        )


def check_partial(given: Values, facts: Values, name: str, found: Dicts) -> None:
    """A factor at the top of the file that reaches no layer."""
    told = given.get("partial_rotary_factor")
    if told not in (None, 1.0) and not any(
        entry and entry.get("partial_rotary_factor") == told for entry in found.values()
    ):
        raise ValueError(
            f"partial_rotary_factor is {told}, which transformers does not read for this model_type"
            f"{f' beside {name}' if name else ''}; it needs to be said in rope_parameters. {FOLLOW}"
        )


def check_compressed(raw: Values, given: Values, facts: Values) -> None:
    """DeepSeek-V4 keeps its two bases beside the dict."""
    base = given.get("rope_theta") or facts["config"]["rope_theta"]
    if raw.get("rope_theta") not in (None, base):
        raise ValueError(
            f"rope_theta of the rotary dict is {raw['rope_theta']}, which transformers does not read for this "
            f"model_type; it needs to be said by rope_theta and compress_rope_theta at the top of the file. {FOLLOW}"
        )


def has_own_heads(facts: Values) -> bool:
    return OWN_HEADS in facts.get("legacy_keys", ())


def own_scale(layer: str, given: Values, values: Values) -> float:
    """Dots 3: by which logits of this type of layer are multiplied."""
    _, turning = own_head(layer, given, values)
    passing = values["qk_nope_head_dim"]
    if layer == "sliding_attention":
        own = [part for part in (given.get("per_layer_config") or {}).values() if PASSING in part]
        passing = own[0][PASSING] if own else given.get("swa_qk_nope_head_dim", WINDOWED_HEAD["swa_qk_nope_head_dim"])
    return (passing + turning) ** -0.5


def own_head(layer: str, given: Values, values: Values) -> tuple[int, int]:
    """Dots 3: the width of a head of this type of layer, and how many of its channels turn."""
    if layer != "sliding_attention":
        return values["head_dim"], values["qk_rope_head_dim"]
    for own in (given.get("per_layer_config") or {}).values():
        if "qk_rope_head_dim" in own:
            return own["head_dim"], own["qk_rope_head_dim"]
    width, passing = (given.get(key, default) for key, default in WINDOWED_HEAD.items())
    return width, given.get(OWN_HEADS, width - passing)
