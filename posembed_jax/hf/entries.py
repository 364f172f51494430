"""The rotary dicts of a transformers configuration, one for each layer type, from all the forms that files have.

A file may have `rope_parameters` (5.x), `rope_scaling` beside `rope_theta` (4.x), or names of its model's own; what a
model's class makes of each key was found out by trying, and is in `rotary_types.json` under `reads`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]
Entries = dict[str, dict[str, Any] | None]  # by layer type; by "" where all layers are alike

POSITIONAL = re.compile(r"rope|rotary|theta|yarn|ntk|base_freq|emb_base|xpos|alibi|original_max_position")
# What these keys say is not the rotation: dropout, sizes of grids, an attention bias, how weights are kept.
BESIDES = re.compile(r"dropout|feat_sizes|k_sizes|rope_head_dim|rotary_value|use_mem_rope|use_rotary|^alibi$|_layers$")
WHOLE = "rope_parameters", "rope_scaling"
PARTIAL_WIDTHS = ("rotary_dim", "qk_rope_head_dim")  # channels that turn, where a model's class makes a factor of them
LONGROPE_TYPES = {"su", "yarn"}  # Phi-3's files say these and have longrope's factors


def entries(given: Values, facts: Values, layer_types: tuple[str, ...], *, follow: bool) -> Entries:
    """layer type -> its rotary dict, complete; None for a layer that does not rotate.

    Args:
        given: the configuration's file.
        facts: of its model type.
        layer_types: of its layers.
        follow: do what transformers does with what it does not read, silently.
    """
    default = facts["config"].get("rope_parameters", {})
    labels = {
        *layer_types,
        *(facts["config"].get("_rope_type_labels") or ()),
        *(k for k in default if _is_entry(default[k])),
    }
    _check_keys(given, facts, follow)
    name, raw = _raw(given, facts, follow)
    if raw is not None and any(key in labels for key in raw):
        found = _nested(raw, labels, name, follow)
    elif raw is not None:
        found = _spread(raw, name, given, facts, follow)
    else:
        found = {key: None if value is None else dict(value) for key, value in _by_layer(default).items()}
    return {
        layer: None if entry is None else _complete(layer, entry, given, facts, told=raw is not None, follow=follow)
        for layer, entry in found.items()
    }


def _is_entry(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _by_layer(parameters: Values) -> Entries:
    nested = {key: value for key, value in parameters.items() if _is_entry(value)}
    return nested or {"": dict(parameters)}


def _raw(given: Values, facts: Values, follow: bool) -> tuple[str, Values | None]:
    """What the file says, and where."""
    found = {name: given[name] for name in WHOLE if given.get(name)}
    if "rope_scaling" in found and facts["told_theta"] is None:
        if not follow:
            raise ValueError(
                f"rope_scaling is {found['rope_scaling']}, which transformers does not read for this model_type; it "
                "needs to be said in rope_parameters."
            )
        del found["rope_scaling"]
    if len(found) == 2 and found["rope_parameters"] != found["rope_scaling"]:
        raise ValueError(
            f"rope_scaling is {found['rope_scaling']} beside rope_parameters {found['rope_parameters']}; it needs to "
            "be one of them: rope_scaling is the older name."
        )
    return next(iter(found.items()), ("", None))


def _nested(raw: Values, labels: set[str], name: str, follow: bool) -> Entries:
    found = {key: None if value is None else dict(value) for key, value in raw.items() if key in labels}
    others = {key: value for key, value in raw.items() if key not in labels}
    if others and not follow:
        raise ValueError(
            f"{name} is {dict(raw)}; beside the layer types {sorted(found)} it needs to be without {sorted(others)}, "
            "which transformers does not read there."
        )
    return found


def _spread(raw: Values, name: str, given: Values, facts: Values, follow: bool) -> Entries:
    """One dict for every layer, put where the model's class puts it."""
    default = facts["config"].get("rope_parameters", {})
    nested = {key: value for key, value in default.items() if _is_entry(value)}
    targets = [layer for layer, _ in facts["reads"].get(name, ())]
    if not nested or "" in targets:
        return {"": dict(raw)}
    if not targets:
        if follow:
            return {key: None if value is None else dict(value) for key, value in nested.items()}
        raise ValueError(
            f"{name} is {dict(raw)}; this model type needs one dict for each of {sorted(nested)}: transformers reads "
            "nothing of a dict for all."
        )
    found: Entries = {}
    for layer, own in nested.items():
        entry: dict[str, Any] = {"rope_type": "default"}
        if given.get("partial_rotary_factor") is None and (own or {}).get("partial_rotary_factor") is not None:
            entry["partial_rotary_factor"] = own["partial_rotary_factor"]
        if layer in targets:
            entry |= {key: value for key, value in raw.items() if layer != "compress" or key != "rope_theta"}
            if layer == "compress" and raw.get("rope_type", raw.get("type")) == "yarn":  # so DeepSeek-V4's class
                entry.setdefault("attention_factor", 1.0)
            if (
                not follow or layer == "compress"
            ):  # elsewhere transformers keeps "default" beside an older file's "type"
                entry["rope_type"] = raw.get("rope_type") or raw.get("type") or "default"
        found[layer] = entry
    return found


def _check_keys(given: Values, facts: Values, follow: bool) -> None:
    """A key that speaks of rotation and that the model does not read would be another model, silently."""
    known = {*WHOLE, *facts["keys"], *facts["config"], *facts.get("legacy_keys", ()), *facts["reads"]}
    known |= set(facts["config"].get("attribute_map", ()))
    unknown = sorted(
        key
        for key, value in given.items()
        if POSITIONAL.search(key) and not BESIDES.search(key) and key not in known and value is not None
    )
    if unknown and not follow:
        raise ValueError(
            f"config has {unknown}, which transformers does not read for this model_type; it needs to be without them. "
            "To do as transformers does, pass follow_upstream_bugs=True."
        )


def _complete(layer: str, entry: dict[str, Any], given: Values, facts: Values, *, told: bool, follow: bool) -> dict:
    """The entry with its type, theta and partial factor, from wherever this model keeps them."""
    entry = {key: value for key, value in entry.items() if value is not None or key == "factor"}
    if LONGROPE_TYPES & {entry.get("rope_type"), entry.get("type")} and "short_factor" in entry:
        entry |= {"rope_type": "longrope", "type": "longrope"}
    entry.setdefault("rope_type", entry.get("type", "default"))
    if entry["rope_type"] in ("default", "mrope") and "default_rope_type" in facts:
        entry["rope_type"] = facts["default_rope_type"]
        entry.pop("type", None)
    own = _by_layer(facts["config"].get("rope_parameters", {})).get(layer) or {}
    for key in ("rope_theta", "partial_rotary_factor"):
        _fill(key, layer, entry, given, facts, told=told, follow=follow)
    width = given.get("head_dim") or facts["config"].get("head_dim")
    for key in PARTIAL_WIDTHS:
        unsaid = not told or "partial_rotary_factor" not in entry
        if unsaid and key in facts.get("legacy_keys", ()) and given.get(key) and width:
            entry["partial_rotary_factor"] = given[key] / width
    partials, scaled = facts.get("layer_partials", {}), entry["rope_type"] != "default"
    if "partial_rotary_factor" not in entry and layer in partials:
        entry["partial_rotary_factor"] = partials[layer]
    elif "partial_rotary_factor" not in entry and layer and scaled and "partial_rotary_factor" in facts["config"]:
        entry["partial_rotary_factor"] = facts["config"]["partial_rotary_factor"]
    theta = (facts["told_theta"] or {}).get(layer) if told else None
    theta = theta or (own.get("rope_theta") if isinstance(facts["default_theta"], Mapping) or not told else None)
    entry.setdefault("rope_theta", theta or facts["default_theta"])
    return _originals(layer, entry, {**_default_original(facts), **given}, follow)


def _fill(
    key: str, layer: str, entry: dict[str, Any], given: Values, facts: Values, *, told: bool, follow: bool
) -> None:
    """A value from the top of the file, where this model's class takes it from; the dict's own goes first."""
    sources = [name for name, places in facts["reads"].items() if name not in WHOLE and [layer, key] in places]
    scaled = key == "partial_rotary_factor" and entry["rope_type"] != "default"  # every scaled rule asks for it
    if told and not sources and (not layer or scaled):
        sources = [key]
    sources = [name for name in sources if given.get(name) is not None]
    if not follow and key == "rope_theta" and given.get(key) is not None and _unreached(layer, facts):
        raise ValueError(
            f"rope_theta is {given[key]}, which transformers gives to some layers and not to {layer!r}; it needs to be "
            "said in rope_parameters for each layer type. To do as transformers does, pass follow_upstream_bugs=True."
        )
    for name in sources:
        value, before = given[name], entry.get(key) if told else None
        if before is None:
            entry[key] = value
        elif before != value and not follow:
            raise ValueError(
                f"{name} is {value}, but the rotary dict says {key} {before}; it needs to be said once, or the same."
            )


def _unreached(layer: str, facts: Values) -> bool:
    """Whether a top-level theta goes to other layers, and none of another name to this one: OLMo 3's sliding layers."""
    places = facts["reads"].get("rope_theta", ())
    others = [place for found in facts["reads"].values() for place in found]
    return bool(places) and [layer, "rope_theta"] not in others


def _default_original(facts: Values) -> dict[str, Any]:
    key = "original_max_position_embeddings"
    return {key: facts["config"][key]} if key in facts["config"] else {}


def _originals(layer: str, entry: dict[str, Any], given: Values, follow: bool) -> dict[str, Any]:
    """The original length at the top of the file, which Phi-3 began; it goes before the dict's."""
    key = "original_max_position_embeddings"
    top, inside = given.get(key), entry.get(key)
    if top is not None and not layer and entry["rope_type"] in ("llama3", "yarn", "longrope"):
        if inside not in (None, top) and not follow:
            raise ValueError(
                f"{key} is {top}, but the rotary dict says {inside}; it needs to be said once, or the same."
            )
        entry[key] = top
    longest, said = given.get("max_position_embeddings"), entry.pop("max_position_embeddings", None)
    if said is not None and longest is not None and said != longest and not follow:
        raise ValueError(
            f"max_position_embeddings is {longest}, but the rotary dict says {said}; it needs to be said once, or "
            "the same."
        )
    return entry
