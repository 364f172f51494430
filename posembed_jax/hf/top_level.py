"""The values at the top of a transformers configuration that belong into its rotary dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.keys import FOLLOW, OWN_HEADS, WHOLE, has_own_heads, own_head

Values = Mapping[str, Any]

PARTIAL_WIDTHS = ("rotary_dim", "qk_rope_head_dim")  # channels that turn, where a model's class makes a factor of them


def is_entry(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def fill(key: str, layer: str, entry: dict[str, Any], given: Values, facts: Values, *, told: str, follow: bool) -> None:
    """A value from the top of the file, where this model's class takes it from; the dict's own goes first."""
    if key == "partial_rotary_factor" and told == WHOLE[0] and _by_lists(given, told, follow):
        entry.setdefault(key, 1.0)
    for name in _sources(key, layer, entry, given, facts, told=told, follow=follow):
        value, before = given.get(name), entry.get(key) if told else None
        if value is None:
            continue
        if before is None:
            entry[key] = value
        elif before != value and not follow:
            raise ValueError(
                f"{name} is {value}, but the rotary dict says {key} {before}; it needs to be said once, or the same."
            )


def _by_lists(given: Values, told: str, follow: bool) -> bool:
    """Whether a list says the partial factor of each layer, which transformers does not read beside rope_parameters."""
    return "partial_rotary_factors" in given and not (follow and told == WHOLE[0])


def _sources(
    key: str, layer: str, entry: Values, given: Values, facts: Values, *, told: str, follow: bool
) -> list[str]:
    """The names at the top of a file under which this model's class finds the value of a layer."""
    if told and has_own_heads(facts):  # one base for all
        return ["rope_theta"] if key == "rope_theta" else []
    if key == "partial_rotary_factor" and _by_lists(given, told, follow):
        return ["partial_rotary_factors"]
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
    return sources


def _like(layer: str, facts: Values) -> str:
    """The layer type itself, or, where the default has none such, the one whose values it gets."""
    known = [key for key, value in facts["config"].get("rope_parameters", {}).items() if is_entry(value)]
    return layer if layer in known or "labels_of_layers" not in facts else known[0]


def check_reached(layer: str, entry: Values, given: Values, facts: Values) -> None:
    """A base at the top of the file that these layers do not get, and that is not theirs all the same."""
    told = given.get("rope_theta")
    if told is not None and entry["rope_theta"] != told and _unreached(_like(layer, facts), facts):
        raise ValueError(
            f"rope_theta is {told}, which transformers gives to some layers and not to {layer!r}; it needs to be said "
            f"in rope_parameters for each layer type. {FOLLOW}"
        )


def _unreached(layer: str, facts: Values) -> bool:
    """Whether a top-level theta goes to other layers, and none of another name to this one: OLMo 3's sliding layers."""
    places = facts["reads"].get("rope_theta", ())
    others = [place for found in facts["reads"].values() for place in found]
    return bool(places) and [layer, "rope_theta"] not in others


def fill_widths(entry: dict[str, Any], given: Values, facts: Values, *, told: str, follow: bool) -> None:
    """The partial factor from a number of channels that turn."""
    width = given.get("head_dim") or facts["config"].get("head_dim")
    unsaid = not told and given.get("partial_rotary_factor") is None
    for key in PARTIAL_WIDTHS:
        if key not in facts.get("legacy_keys", ()) or not given.get(key) or not width:
            continue
        if unsaid or "partial_rotary_factor" not in entry:
            entry["partial_rotary_factor"] = given[key] / width
        elif not follow and entry["partial_rotary_factor"] != given[key] / width:
            raise ValueError(
                f"{key} is {given[key]}, but partial_rotary_factor is {entry['partial_rotary_factor']} of {width} "
                "channels; it needs to be said once, or the same."
            )


def fill_own_heads(
    layer: str, entry: dict[str, Any], given: Values, values: Values, *, told: str, follow: bool
) -> None:
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


def fill_original(layer: str, entry: dict[str, Any], given: Values, facts: Values, *, follow: bool) -> None:
    """The original length at the top of the file, which Phi-3 began; it goes before the dict's."""
    key = "original_max_position_embeddings"
    top, inside = given.get(key, facts["config"].get(key)), entry.get(key)
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
