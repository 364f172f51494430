"""The rotation of one model type from its configuration, which has no parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.entries import Entries, entries
from posembed_jax.hf.found import Positions, Rotations
from posembed_jax.hf.grids import SECTIONS
from posembed_jax.hf.heads import head_dim_of, is_what_turns, says_what_turns, with_derived, with_head_dim
from posembed_jax.hf.keys import FOLLOW, NEEDED, check_file, check_keys, check_original, top_names
from posembed_jax.hf.layer_types import layer_types_of
from posembed_jax.hf.layers import by_layer, of_layer
from posembed_jax.hf.model import Model
from posembed_jax.hf.own_heads import has_own_heads
from posembed_jax.hf.rope_parameters import MSCALES, only_read
from posembed_jax.hf.rotations import (
    rotates_values,
    rotation,
    so_anyway,
    without_parameters,
)
from posembed_jax.hf.scales import BETA, softmax_scale, temperature
from posembed_jax.hf.top_level import PARTIAL, PARTIAL_WIDTHS
from posembed_jax.schemes.rotary import RoPE

Values = Mapping[str, Any]


def leaf(config: Values, name: str, known: Values, follow: bool) -> Positions:
    given = _renamed(config, known)
    if name == "dbrx" and not follow:
        given = _with_base_of_attention(given)
    needed = NEEDED | ({"head_dim"} if has_own_heads(known) else set())
    check_file(given, needed & {*known["keys"], *known["config"]})
    model = with_derived(with_head_dim(Model(given, known, known["config"] | given, follow)))
    model = model._replace(layer_types=layer_types_of(model))
    dicts = entries(model) if model.has_dicts else {}
    rotations = _rotations(dicts, model) if model.has_dicts else {"": without_parameters(of_layer("", model))}
    if "switch" in known and model.values.get(known["switch"][0]) != known["switch"][1]:
        rotations = {"": None}
    so = so_anyway(model, rotations)
    check_keys(model, so)
    values = _said_once(dicts, so, model)
    rotations, layers = by_layer(rotations, model)
    return Positions(
        model_type=name,
        rotations=rotations,
        rotates_values=rotates_values(model) and any(rotations.values()),
        layers=layers,
        softmax_scale=softmax_scale(model, dicts),
        temperature=temperature(model, dicts.get("") or {}),
        position_ids=POSITION_IDS.get(model.code["forward"] or "", "tokens"),
        config=values,
    )


POSITION_IDS = {
    "mrope": "multimodal",
    "mrope_float32": "multimodal",
    "mrope_per_layer": "multimodal",
    "xdrope": "xdrope",
    "recomposed": "grid",
    "recomposed_float32": "grid",
    "row_col_per_layer": "grid",
    "efficientloftr": "grid_from_1",
    "stored_complex": "grid_from_1",
    "dinov3": "centers",
    "musicflamingo_time": "times",
}


def _renamed(config: Values, known: Values) -> dict[str, Any]:
    """The file's values under the names that the code reads."""
    found = dict(config)
    for alias, name in known["config"].get("attribute_map", {}).items():
        for one, other in ((alias, name), (name, alias)):
            if one in config and other not in config:
                found[other] = config[one]
    return found


def _with_base_of_attention(given: dict[str, Any]) -> dict[str, Any]:
    """DBRX's base is among the settings of its attention, where transformers forgets it."""
    attention, base = dict(given.get("attn_config") or {}), given.get("rope_theta")
    told = attention.pop("rope_theta", None)
    if told is None:
        return given
    if base not in (None, told):
        raise ValueError(
            f"rope_theta is {base}, but rope_theta of attn_config is {told}; it needs to be said once, or the same."
        )
    return {**given, "attn_config": attention, "rope_theta": told}


def _rotations(dicts: Entries, model: Model) -> Rotations:
    """Of each rotary dict."""
    found: Rotations = {}
    for layer, entry in dicts.items():
        found[layer] = None if entry is None else _rotation(layer, entry, model)
    of_all = dicts.get("")
    if of_all and not _all_scaled(model):
        plain = {"rope_type": "default", "rope_theta": of_all["rope_theta"]}
        found = {"scaled": found[""], "unscaled": _rotation("", plain, model)}
    if not model.follow:
        check_original(model, dicts)
        _check_width(found, model)
    return found


def _said_once(dicts: Entries, so: Values, model: Model) -> dict[str, Any]:
    """The values that all this was read from, with the rotary dicts complete, and without what they say."""
    known = model.known
    unread = so.keys() - {*known["keys"], *known["config"]}
    values = {key: value for key, value in model.values.items() if key not in unread}
    if not model.has_dicts:
        return values
    elsewhere = {*PARTIAL_WIDTHS} & {*known.get("legacy_keys", ())}
    elsewhere |= {*ELSEWHERE, *top_names(known, "rope_theta"), *top_names(known, "partial_rotary_factor")}
    values = {key: value for key, value in values.items() if key not in elsewhere}
    return values | {"rope_parameters": dicts.get("", dicts) or {"rope_type": "default", "rope_theta": None}}


IN_FORWARD = "scaled_in_forward"  # Phi-3.5-MoE
ONE_TYPE = {"axial_only": "axial", "llama4_vision": "default"}  # the latter's code reads theta alone
ELSEWHERE = {"rope_scaling", "partial_rotary_factors", "rotary_dim", "attn_rotary_emb"}  # what rope_parameters says


def _all_scaled(model: Model) -> bool:
    """Whether the scaling is that of all layers: Molmo 2 may name some, and the others turn without it."""
    scaled = model.given.get("rope_scaling_layers") if "rope_scaling_layers" in model.known["keys"] else None
    return scaled is None or set(scaled) == set(range(model.values["num_hidden_layers"]))


def _check_width(rotations: Rotations, model: Model) -> None:
    """How many channels turn, where it is said twice; MiniMax M3's class writes another number, which nothing reads."""
    found = [rope.dim for rope in rotations.values() if rope]
    for key in ("rotary_dim", "attn_rotary_emb"):
        told = model.given.get(key)
        if told not in (None, model.known["config"].get(key)) and any(dim != told for dim in found):
            raise ValueError(
                f"{key} is {told}, but by the rotary dict and head_dim {found[0]} channels turn; it needs to be "
                "said once, or the same: by partial_rotary_factor."
            )


def _rotation(layer: str, entry: dict[str, Any], model: Model) -> RoPE:
    head_dim, told = head_dim_of(layer, model), model.given.get("head_dim")
    same = told in (None, head_dim) or says_what_turns(entry.get(PARTIAL), model)
    if layer == "" and is_what_turns(model) and not (model.follow or same):
        raise ValueError(
            f"head_dim is {told}, but qk_rope_head_dim is {head_dim}; it needs to be the same: these are the channels "
            "of a head that turn."
        )
    return rotation(_as_read(entry, model), model, head_dim=head_dim, layer=layer)


def _as_read(entry: Values, model: Model) -> dict[str, Any]:
    """What this model type reads of a rotary dict; the rest is refused, or left out where transformers is followed."""
    entry, init, follow = dict(entry), model.init, model.follow
    if model.known.get("temperature") == BETA:
        entry.pop(BETA, None)  # of the queries
    if "alpha" in entry and "ntk_alpha" not in init:
        if not follow:
            raise ValueError(
                "rope_parameters has 'alpha', which this model_type does not read; it needs to be without."
            )
        entry.pop("alpha")
    if init == IN_FORWARD:
        _check_phimoe(entry)
    elif MSCALES & {*entry} and not follow:
        raise ValueError(
            f"rope_parameters has {sorted(MSCALES & {*entry})}, which this model_type does not read; it needs to be "
            f"without. {FOLLOW}"
        )
    if follow:
        entry = only_read({key: value for key, value in entry.items() if key not in MSCALES or init == IN_FORWARD})
        if init == IN_FORWARD and "long_factor" in entry:  # its frequencies are those of short sequences at any length
            entry["long_factor"] = entry["short_factor"]
    kind, needs = entry["rope_type"], ("default" if init.startswith("default_only") else None) or ONE_TYPE.get(init)
    if kind == "axial" or (kind == "mrope" and model.code["recompose"] not in SECTIONS):
        needs = needs or "default"
    if needs is not None and kind != needs and not (follow and init == "llama4_vision"):
        raise ValueError(f"rope_type is {kind!r}; this model type needs {needs!r}.")
    return entry


def _check_phimoe(entry: Values) -> None:
    kind = entry["rope_type"]
    if kind != "default" and not (kind == "longrope" and set(entry) >= MSCALES):
        raise ValueError(
            f"rope_parameters is {dict(entry)}; this model type needs rope_type 'default', or 'longrope' with "
            f"{sorted(MSCALES)}."
        )
