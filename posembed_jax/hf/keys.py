"""Which keys of a file speak of rotation, and which of them a model does not read: refused, not silently ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from posembed_jax.hf.model import Model
from posembed_jax.hf.own_heads import WINDOWED_HEAD, has_own_heads
from posembed_jax.hf.rope_parameters import ORIGINAL, is_list_of_numbers

Values = Mapping[str, Any]
Dicts = Mapping[str, dict[str, Any] | None]  # rotary dicts by layer type

FOLLOW = "To do as transformers does, pass follow_upstream_bugs=True."
POSITIONAL = re.compile(
    r"rope|rotary|theta|yarn|ntk|base_freq|emb_base|xpos|alibi|original_max_position|(qk_nope|global|swa)_head_dim"
)
BASE = re.compile(r"(theta|base_freq|emb_base|embedding_base)$")
PART = re.compile(r"(partial_rotary_factor|rotary_pct)$")
NEEDED = {"hidden_size", "num_attention_heads", "num_heads", "qk_rope_head_dim", "qk_nope_head_dim"}  # where known
SIZES = NEEDED | {"head_dim", "embed_dim", "rotary_dim", "global_head_dim", "swa_head_dim", ORIGINAL}
LISTS = {"no_rope_layers", "layer_rope_theta", "cross_attention_layers", "rope_scaling_layers"}
NUMBERS = {"max_position_embeddings", "query_pre_attn_scalar", "attention_multiplier", "attn_scale", "floor_scale"}
# What these keys say is not the rotation: dropout, sizes of grids, an attention bias.
BESIDES = re.compile(r"dropout|feat_sizes|k_sizes|^alibi$")
# Layouts of transformers' functions: whatever else these say of dtypes and of how tables are stored.
INTERLEAVED = (
    "deinterleave_then_half",
    "complex",
    "pairs_matrix",
    "pairs_sin_cos_halves_and_values",
    "narrow_tables_to_pairs",
)
WHOLE = "rope_parameters", "rope_scaling"
OWN, LISTED = "own", "[]"  # in the order of sources: the dict's own value, and that of a list for each layer


def check_keys(model: Model, so: Values) -> None:
    """A key that speaks of rotation and that the model does not read would be another model, silently.

    so: what such a key may say all the same.
    """
    known = model.known
    read = {*known["keys"], *known["config"], *known.get("legacy_keys", ()), *known["config"].get("attribute_map", ())}
    if model.has_dicts:
        read |= {*WHOLE, *top_names(known, "rope_theta"), *top_names(known, "partial_rotary_factor"), "attn_rotary_emb"}
        read |= {ORIGINAL} if _is_flat(known["config"].get("rope_parameters", {})) else set()
    read |= set(WINDOWED_HEAD) if has_own_heads(known) else set()
    read |= {key.removesuffix("_runs") for key in known["config"]}
    unknown = sorted(
        key
        for key, value in model.given.items()
        if is_rotary(key) and key not in read and value is not None and not (key in so and value == so[key])
    )
    if unknown and not model.follow:
        raise ValueError(
            f"config has {unknown}, which transformers does not read for this model_type; it needs to be without them. "
            f"{FOLLOW}"
        )


def top_names(known: Values, key: str) -> list[str]:
    """The names at the top of a file under which the base, or the partial factor, of some layers may be."""
    orders = (layer.get(key, ()) for form in known.get("sources", {}).values() for layer in form.values())
    names = {name for order in orders for name in order if isinstance(name, str)}
    return sorted({key, f"{key}{LISTED}"} | names - {OWN})


def check_file(values: Values, needed: Collection[str]) -> None:
    """The numbers, lists and dicts of a file that speak of rotation; needed: sizes that may not be null."""
    for key, value in values.items():
        if key in LISTS and not (value is None or is_list_of_numbers(value)):
            raise ValueError(f"{key} is {value!r}; it needs to be a list with a number for each layer.")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if key in NUMBERS and not (value is None or number):
            raise ValueError(f"{key} is {value!r}; it needs to be a number.")
        if key == "per_layer_config" and not (value is None or _is_dict_of_dicts(value)):
            raise ValueError(f"{key} is {value!r}; it needs to be a dict, with a dict for each layer of its own sizes.")
    of_layers = {key for key, value in values.items() if isinstance(value, list)}  # bases and partial factors
    check_numbers({key: value for key, value in values.items() if key not in of_layers - SIZES}, needed)


def check_numbers(values: Values, needed: Collection[str] = ()) -> None:
    """The bases, the partial factors and the sizes of a file, or of a rotary dict."""
    for key, value in values.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if key in SIZES and not whole and not (value is None and key not in needed):
            raise ValueError(f"{key} is {value!r}; it needs to be a whole number from 1 on.")
        if BASE.search(key) and value is not None:
            _check_above(key, value, 1.0)
        if PART.search(key) and value is not None:
            _check_above(key, value, 0.0)


def _is_dict_of_dicts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, Mapping) for each in value.values())


def _check_above(key: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < math.inf:
        raise ValueError(f"{key} is {value!r}; it needs to be a number above {least:g}.")


def _is_flat(parameters: Values) -> bool:
    """Whether it is one rotary dict, for all layers."""
    return not any(isinstance(value, Mapping) for value in parameters.values())


def pairs_neighbours(labels: Values) -> bool:
    """Whether the pairs of channels are neighbours, the layout "interleaved"."""
    return (labels["rotate"] or "").startswith("pairs") or labels["apply"] in INTERLEAVED


def is_rotary(key: str) -> bool:
    return bool(POSITIONAL.search(key)) and not BESIDES.search(key)


def check_original(model: Model, found: Dicts) -> None:
    """An original length says nothing where no scaling asks for it; Phi-3's files have it all the same."""
    told, longest = model.given.get(ORIGINAL), model.values.get("max_position_embeddings")
    asked = any(entry and entry["rope_type"] in ("llama3", "yarn", "longrope") for entry in found.values())
    if not asked and told not in (None, longest, model.known["config"].get(ORIGINAL)):
        raise ValueError(
            f"{ORIGINAL} is {told}, which no scaling of this file asks for; it needs to be max_position_embeddings, "
            f"{longest}, or left out."
        )
