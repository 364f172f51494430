"""The rotary dicts of a transformers configuration, one for each layer type, from all the forms that files have.

A file may have `rope_parameters` (5.x), `rope_scaling` beside `rope_theta` (4.x), or names of its model's own; what a
model's class makes of each key was found out by trying, and is in `rotary_types.json` under `reads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.keys import FOLLOW, OWN_HEADS, WHOLE, check_compressed, check_partial, has_own_heads, own_head
from posembed_jax.hf.layers import of_lists

Values = Mapping[str, Any]
Entries = dict[str, dict[str, Any] | None]  # by layer type; by "" where all layers are alike

PARTIAL_WIDTHS = ("rotary_dim", "qk_rope_head_dim")  # channels that turn, where a model's class makes a factor of them
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
        *(k for k in default if _is_entry(default[k])),
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


def _spread(raw: Values, name: str, given: Values, facts: Values, default: Values, follow: bool) -> Entries:
    """One dict for every layer, put where the model's class puts it."""
    own_heads = has_own_heads(facts)
    nested = {key: value for key, value in default.items() if _is_entry(value)}
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
        _turning(layer, entry, given, values, told=told, follow=follow)
    for key in ("rope_theta", "partial_rotary_factor"):
        _fill(key, layer, entry, given, facts, told=told, follow=follow)
    width = given.get("head_dim") or facts["config"].get("head_dim")
    for key in PARTIAL_WIDTHS:
        by_default = not told and given.get("partial_rotary_factor") is None
        unsaid = by_default or "partial_rotary_factor" not in entry
        if key not in facts.get("legacy_keys", ()) or not given.get(key) or not width:
            continue
        if unsaid:
            entry["partial_rotary_factor"] = given[key] / width
        elif not follow and entry["partial_rotary_factor"] != given[key] / width:
            raise ValueError(
                f"{key} is {given[key]}, but partial_rotary_factor is {entry['partial_rotary_factor']} of {width} "
                "channels; it needs to be said once, or the same."
            )
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
    key: str, layer: str, entry: dict[str, Any], given: Values, facts: Values, *, told: str, follow: bool
) -> None:
    """A value from the top of the file, where this model's class takes it from; the dict's own goes first."""
    place = [_like(layer, facts), key]
    sources = [name for name, places in facts["reads"].items() if name not in WHOLE and place in places]
    if key == "rope_theta":
        unprobed = key in facts.get("legacy_keys", ()) and key not in facts["reads"]  # which takes a list alone
        sources = [key] if unprobed or (told and not sources and not layer) else sources
    elif told in facts["partials_beside"]:
        reached = facts["partials_beside"][told]
        late = layer in facts.get("partials_of_scaled", ()) and entry["rope_type"] == "default"
        reads = (layer in reached or "" in reached) and not late
        sources = [key] if reads else [name for name in sources if name != key]
    elif told and not sources:
        sources = [key]
    if key == "partial_rotary_factor" and "partial_rotary_factors" in given and not (follow and told == WHOLE[0]):
        sources = ["partial_rotary_factors"]
        if told == WHOLE[0]:
            entry.setdefault(key, 1.0)
    if told and has_own_heads(facts):  # one base for all
        sources = ["rope_theta"] if key == "rope_theta" else []
    sources = [name for name in sources if given.get(name) is not None]
    if not follow and key == "rope_theta" and given.get(key) is not None and _unreached(_like(layer, facts), facts):
        raise ValueError(
            f"rope_theta is {given[key]}, which transformers gives to some layers and not to {layer!r}; it needs to be "
            f"said in rope_parameters for each layer type. {FOLLOW}"
        )
    for name in sources:
        value, before = given[name], entry.get(key) if told else None
        if before is None:
            entry[key] = value
        elif before != value and not follow:
            raise ValueError(
                f"{name} is {value}, but the rotary dict says {key} {before}; it needs to be said once, or the same."
            )


def _like(layer: str, facts: Values) -> str:
    """The layer type itself, or, where the default has none such, the one whose values it gets."""
    known = [key for key, value in facts["config"].get("rope_parameters", {}).items() if _is_entry(value)]
    return layer if layer in known or "labels_of_layers" not in facts else known[0]


def _turning(layer: str, entry: dict[str, Any], given: Values, values: Values, *, told: str, follow: bool) -> None:
    """Dots 3: how much of a head turns follows from the widths of its type of layer alone."""
    width, turning = own_head(layer, given, values)
    if turning > width:
        raise ValueError(
            f"the heads of {layer!r} have {width} channels, but {turning} need to turn: head_dim and qk_rope_head_dim "
            f"(swa_head_dim and {OWN_HEADS}) need to fit."
        )
    before = entry.get("partial_rotary_factor")
    if told and not follow and before not in (None, turning / width):
        raise ValueError(
            f"partial_rotary_factor of {layer!r} is {before}, but by head_dim and qk_rope_head_dim (swa_head_dim and "
            f"{OWN_HEADS}) {turning} of {width} channels turn; it needs to be the same: transformers reads the widths."
        )
    if not follow and told and given.get("swa_rope_theta") is not None:
        raise ValueError(
            f"swa_rope_theta is {given['swa_rope_theta']}, which transformers does not read beside {told}; it needs to "
            f"be said in rope_parameters for each layer type. {FOLLOW}"
        )
    entry["partial_rotary_factor"] = turning / width


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
