"""The rotary dicts of a transformers configuration, one for each layer type, from all the forms that files have.

A file may have `rope_parameters` (5.x), `rope_scaling` beside `rope_theta` (4.x), or names of its model's own; what a
model's class makes of each key was found out by trying, and is in `rotary_types.json` under `sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.keys import FOLLOW, WHOLE, check_numbers
from posembed_jax.hf.layers import of_layer
from posembed_jax.hf.model import Model
from posembed_jax.hf.own_heads import has_own_heads
from posembed_jax.hf.rope_parameters import check_kinds
from posembed_jax.hf.top_level import Form, fill_original, is_entry, settle, settle_own_heads

Values = Mapping[str, Any]
Entries = dict[str, dict[str, Any] | None]  # by layer type; by "" where all layers are alike

LONGROPE_TYPES = {"su", "yarn"}  # Phi-3's files say these and have longrope's factors


def entries(model: Model) -> Entries:
    """layer type -> its rotary dict, complete; None for a layer that does not rotate."""
    default = _default(model)
    labels = {key for key, value in default.items() if is_entry(value)}
    if model.has_dicts_by_layer:
        labels |= {*model.layer_types, *(model.known["config"].get("_rope_type_labels") or ())}
    name, raw = _raw(model)
    if model.known.get("null_theta_is_none") and raw is not None and raw.get("rope_theta", "") is None:
        return {"": None}
    form = name
    if raw is None:
        found = {key: None if value is None else dict(value) for key, value in _by_layer(default).items()}
    elif any(key in labels for key in raw):
        form = f"nested {name}"
        found = _nested(raw, labels, name, model)
    else:
        found = _spread(raw, name, default, model)
    for entry in found.values():
        check_kinds(entry or {})
    kinds = {entry.get("rope_type", entry.get("type", "default")) for entry in found.values() if entry}
    scaled = bool(kinds - {"default", "mrope", model.known.get("default_rope_type")})
    for layer, entry in found.items():
        if entry is not None:
            found[layer] = _complete(layer, entry, of_layer(layer, model), Form(form, found.keys(), scaled))
    return found


def _default(model: Model) -> dict[str, Any]:
    """The rotary dicts of a file that has none."""
    default = model.known["config"].get("rope_parameters", {})
    if "labels_of_layers" not in model.known or not model.layer_types:
        return default
    return {kind: default.get(kind, {"rope_type": "default"}) for kind in dict.fromkeys(model.layer_types)}


def _by_layer(parameters: Values) -> Entries:
    nested = {key: value for key, value in parameters.items() if is_entry(value)}
    return nested or {"": dict(parameters)}


def _raw(model: Model) -> tuple[str, Values | None]:
    """What the file says, and where."""
    found = {name: model.given[name] for name in WHOLE if model.given.get(name) not in (None, {})}
    flat = "rope_type" in model.known["config"].get("rope_parameters", {}) or has_own_heads(model.known)
    if flat and not found and model.given.get("rope_parameters") == {}:  # which is not the default of the class
        return "rope_parameters", {}
    for name, value in found.items():
        if not isinstance(value, Mapping):
            raise ValueError(
                f"{name} is {value!r}; it needs to be a dict, such as {{'rope_type': 'linear', 'factor': 2.0}}."
            )
    if "rope_scaling" in found and model.known["reached"].get("rope_scaling") == []:
        if not model.follow:
            raise ValueError(
                f"rope_scaling is {found['rope_scaling']}, which transformers does not read for this model_type; it "
                "needs to be said in rope_parameters."
            )
        del found["rope_scaling"]
    if len(found) == 2 and model.follow:
        del found["rope_parameters"]
    if len(found) == 2 and found["rope_parameters"] != found["rope_scaling"]:
        raise ValueError(
            f"rope_scaling is {found['rope_scaling']} beside rope_parameters {found['rope_parameters']}; it needs to "
            "be one of them: rope_scaling is the older name."
        )
    return next(iter(found.items()), ("", None))


def _nested(raw: Values, labels: set[str], name: str, model: Model) -> Entries:
    """One dict for each type of layer."""
    wrong = sorted(key for key, value in raw.items() if key in labels and not is_entry(value))
    if wrong:
        raise ValueError(f"{name} is {dict(raw)}; it needs a dict for each of {wrong}.")
    read = model.known["reached"].get(f"nested {name}") != []
    found = {key: None if value is None else dict(value) for key, value in raw.items() if key in labels}
    if not read and model.follow:
        return {key: {"rope_type": "default"} for key in found}
    if not read:
        raise ValueError(
            f"{name} is {dict(raw)}, which transformers does not read by the types of layers for this model_type; it "
            f"needs to be said in rope_parameters. {FOLLOW}"
        )
    every = model.known["config"].get("_rope_type_labels") or ()
    if not {*every} <= {*found}:
        if model.follow:
            return {key: {"rope_type": "default"} for key in every}
        raise ValueError(f"{name} is {dict(raw)}; it needs a dict for each of {sorted(every)}. {FOLLOW}")
    if None in found.values() and "keeps_null_entries" not in model.known:
        if not model.follow:
            raise ValueError(
                f"{name} is {dict(raw)}; it needs a dict for each of {sorted(found)}, of which this model type turns "
                f"all. {FOLLOW}"
            )
        found = {key: {"rope_type": "default"} if value is None else value for key, value in found.items()}
    others = {key: value for key, value in raw.items() if key not in labels}
    if others and not model.follow:
        raise ValueError(
            f"{name} is {dict(raw)}; beside the layer types {sorted(found)} it needs to be without {sorted(others)}, "
            "which transformers does not read there."
        )
    return found


def _spread(raw: Values, name: str, default: Values, model: Model) -> Entries:
    """One dict for every layer, put where the model's class puts it."""
    nested = {key: value for key, value in default.items() if is_entry(value)}
    reached = model.known["reached"].get(name, [])
    if not nested:
        return {"": dict(raw)}
    if "" in reached or not (reached or model.follow):
        raise ValueError(
            f"{name} is {dict(raw)}; this model type needs one dict for each of {sorted(nested)}: of a dict for all, "
            "transformers reads nothing, or it fails."
        )
    if not reached:
        return {key: None if value is None else dict(value) for key, value in nested.items()}
    found: Entries = {}
    for layer in nested:
        entry: dict[str, Any] = {"rope_type": "default"}
        if layer in reached:
            entry = dict(raw)
            if layer == "compress" and raw.get("rope_type", raw.get("type")) == "yarn":  # so DeepSeek-V4's class
                entry.setdefault("attention_factor", 1.0)
        found[layer] = entry
    return found


def _complete(layer: str, entry: dict[str, Any], model: Model, form: Form) -> dict[str, Any]:
    """The entry with its type, base and partial factor, from wherever this model keeps them."""
    entry = {key: value for key, value in entry.items() if value is not None or key in ("factor", "truncate")}
    if model.follow and form.name in model.known.get("older_type_is_lost", ()):
        entry.pop("type", None)
    if LONGROPE_TYPES & {entry.get("rope_type"), entry.get("type")} and "short_factor" in entry:
        entry |= {"rope_type": "longrope", "type": "longrope"}
    entry.setdefault("rope_type", entry.get("type", "default"))
    if entry["rope_type"] in ("default", "mrope") and "default_rope_type" in model.known:
        entry["rope_type"] = model.known["default_rope_type"]
        entry.pop("type", None)
    check_numbers(entry)
    settle("rope_theta", layer, entry, model, form)
    if has_own_heads(model.known):
        settle_own_heads(layer, entry, model, form)
    else:
        settle("partial_rotary_factor", layer, entry, model, form)
    fill_original(layer, entry, model)
    return entry
