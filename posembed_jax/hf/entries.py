"""The rotary dicts of a transformers configuration, one for each layer type, from all the forms that files have.

A file may have `rope_parameters` (5.x), `rope_scaling` beside `rope_theta` (4.x), or names of its model's own; what a
model's class makes of each key was found out by trying, and is in `rotary_types.json` under `reads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.keys import WHOLE, check_compressed, check_partial, has_own_heads
from posembed_jax.hf.layers import of_lists
from posembed_jax.hf.top_level import check_reached, fill, fill_original, fill_own_heads, fill_widths, is_entry

Values = Mapping[str, Any]
Entries = dict[str, dict[str, Any] | None]  # by layer type; by "" where all layers are alike

LONGROPE_TYPES = {"su", "yarn"}  # Phi-3's files say these and have longrope's factors


def entries(given: Values, facts: Values, values: Values, layer_types: tuple[str, ...], *, follow: bool) -> Entries:
    """layer type -> its rotary dict, complete; None for a layer that does not rotate.

    Args:
        given: the configuration's file.
        facts: of its model type.
        values: the file's, and the defaults.
        layer_types: of its layers.
        follow: do what transformers does with what it does not read, silently.
    """
    default = _default(facts, layer_types)
    labels = {
        *layer_types,
        *(facts["config"].get("_rope_type_labels") or ()),
        *(k for k in default if is_entry(default[k])),
    }
    name, raw = _raw(given, facts, follow)
    if facts.get("null_theta_is_none") and raw is not None and raw.get("rope_theta", "") is None:
        return {"": None}
    if raw is not None and any(key in labels for key in raw):
        found = _nested(raw, labels, name, follow)
    elif raw is not None:
        found = _spread(raw, name, given, facts, default, follow)
        name = "" if "" not in found and not facts["reads"].get(name) else name  # unread
    else:
        found = {key: None if value is None else dict(value) for key, value in _by_layer(default).items()}
    file = {key: value for key, value in given.items() if not isinstance(value, list)}
    complete: Entries = {}
    for layer, entry in found.items():
        of_layer = file | of_lists(given, layer, layer_types)
        if entry is not None:
            entry = _complete(layer, entry, of_layer, facts, values, told=name, follow=follow)
        complete[layer] = entry
    if not follow:
        check_partial(given, facts, name, complete)
    return complete


def _default(facts: Values, layer_types: tuple[str, ...]) -> dict[str, Any]:
    """The rotary dicts of a file that has none."""
    default = facts["config"].get("rope_parameters", {})
    if "labels_of_layers" not in facts or not layer_types:
        return default
    return {kind: default.get(kind, {"rope_type": "default"}) for kind in dict.fromkeys(layer_types)}


def _by_layer(parameters: Values) -> Entries:
    nested = {key: value for key, value in parameters.items() if is_entry(value)}
    return nested or {"": dict(parameters)}


def _raw(given: Values, facts: Values, follow: bool) -> tuple[str, Values | None]:
    """What the file says, and where."""
    found = {name: given[name] for name in WHOLE if given.get(name)}
    for name, value in found.items():
        if not isinstance(value, Mapping):
            raise ValueError(
                f"{name} is {value!r}; it needs to be a dict, such as {{'rope_type': 'linear', 'factor': 2.0}}."
            )
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


def _spread(raw: Values, name: str, given: Values, facts: Values, default: Values, follow: bool) -> Entries:
    """One dict for every layer, put where the model's class puts it."""
    own_heads = has_own_heads(facts)
    nested = {key: value for key, value in default.items() if is_entry(value)}
    targets = [layer for layer, _ in facts["reads"].get(name, ())]
    if not nested:
        return {"": dict(raw)}
    if "" in targets or not (targets or follow):
        raise ValueError(
            f"{name} is {dict(raw)}; this model type needs one dict for each of {sorted(nested)}: of a dict for all, "
            "transformers reads nothing, or it fails."
        )
    if not targets:
        return {key: None if value is None else dict(value) for key, value in nested.items()}
    found: Entries = {}
    for layer, own in nested.items():
        entry: dict[str, Any] = {"rope_type": "default"}
        if given.get("partial_rotary_factor") is None and (own or {}).get("partial_rotary_factor") is not None:
            entry["partial_rotary_factor"] = own["partial_rotary_factor"]
        if layer in targets:
            entry |= {key: value for key, value in raw.items() if layer != "compress" or key != "rope_theta"}
            if layer == "compress" and raw.get("rope_type", raw.get("type")) == "yarn":  # so DeepSeek-V4's class
                entry.setdefault("attention_factor", 1.0)
            if layer == "compress" and not follow:
                check_compressed(raw, given, facts)
            # elsewhere transformers keeps "default" beside an older file's "type"
            if not follow or layer == "compress" or own_heads:
                entry["rope_type"] = raw.get("rope_type") or raw.get("type") or "default"
        found[layer] = entry
    return found


def _complete(
    layer: str, entry: dict[str, Any], given: Values, facts: Values, values: Values, *, told: str, follow: bool
) -> dict:
    """The entry with its type, theta and partial factor, from wherever this model keeps them.

    told: the name of the dict that the file has, or "".
    """
    entry = {key: value for key, value in entry.items() if value is not None or key == "factor"}
    if LONGROPE_TYPES & {entry.get("rope_type"), entry.get("type")} and "short_factor" in entry:
        entry |= {"rope_type": "longrope", "type": "longrope"}
    entry.setdefault("rope_type", entry.get("type", "default"))
    if entry["rope_type"] in ("default", "mrope") and "default_rope_type" in facts:
        entry["rope_type"] = facts["default_rope_type"]
        entry.pop("type", None)
    own = _by_layer(facts["config"].get("rope_parameters", {})).get(layer) or {}
    if has_own_heads(facts):
        fill_own_heads(layer, entry, given, values, told=told, follow=follow)
    for key in ("rope_theta", "partial_rotary_factor"):
        fill(key, layer, entry, given, facts, told=told, follow=follow)
    fill_widths(entry, given, facts, told=told, follow=follow)
    partials, scaled = facts.get("layer_partials", {}), entry["rope_type"] != "default"
    if "partial_rotary_factor" not in entry and layer in partials:
        entry["partial_rotary_factor"] = partials[layer]
    elif "partial_rotary_factor" not in entry and layer and scaled and "partial_rotary_factor" in facts["config"]:
        entry["partial_rotary_factor"] = facts["config"]["partial_rotary_factor"]
    theta = (facts["told_theta"] or {}).get(layer) if told else None
    theta = theta or (own.get("rope_theta") if isinstance(facts["default_theta"], Mapping) or not told else None)
    entry.setdefault("rope_theta", theta or facts["default_theta"])
    if not follow:
        check_reached(layer, entry, given, facts)
    fill_original(layer, entry, given, facts, follow=follow)
    return entry
