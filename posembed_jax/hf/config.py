"""A transformers configuration -> the position schemes of its model, and back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.entries import entries
from posembed_jax.hf.expressions import evaluate
from posembed_jax.hf.facts import facts
from posembed_jax.hf.found import Positions, Rotations
from posembed_jax.hf.layers import keys_of_layers, layer_types_of
from posembed_jax.hf.multimodal import numbering
from posembed_jax.hf.places import placed
from posembed_jax.hf.rope_parameters import only_read, rope_parameters
from posembed_jax.hf.rotations import rotates_values, rotation, without_dict, without_parameters
from posembed_jax.hf.scales import BETA, softmax_scale, temperature
from posembed_jax.schemes.rotary import RoPE
from posembed_jax.schemes.scaling import Linear

Values = Mapping[str, Any]
SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers")
WIDTHS = ("num_attention_heads", "num_heads", "head_dim", "memory_attention_hidden_size")  # of a model that attends


def from_config(config: Values | str | os.PathLike[str], *, follow_upstream_bugs: bool = False) -> Positions:
    """The position schemes of a transformers model, from its configuration.

    Args:
        config: the dict of a config.json, of transformers 4 or 5, or the path of the file or its folder.
        follow_upstream_bugs: do with contradictions and unread keys what transformers 5.23 does: take one, silently.

    Raises:
        ValueError: an unknown model_type, a key, type or value that the model does not know, or two that contradict
            each other; the message names it.

    >>> from posembed_jax import hf
    >>> hf.from_config({"model_type": "llama", "rope_theta": 500000.0}).rotation.base
    500000.0

    Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/modeling_rope_utils.py.
    """
    if isinstance(config, str | os.PathLike):
        path = os.path.join(config, "config.json") if os.path.isdir(config) else config
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    if not isinstance(config, Mapping):
        raise TypeError(f"config is {config!r}; it needs to be a dict or the path of a config.json.")
    return _positions(config, facts(), follow_upstream_bugs)


def _positions(config: Values, known: Values, follow: bool) -> Positions:
    name = str(config.get("model_type"))
    others = known["others"]
    found = known["types"].get(name) or known["composites"].get(name) or others["composites"].get(name) or {}
    if name in others["no_scheme"]:
        raise ValueError(
            f"model_type is {name!r}, of whose positions this library has none: {others['no_scheme'][name]}."
        )
    if not _is_known(name, known):
        raise ValueError(f"model_type is {name!r}; it needs to be one of transformers', such as 'llama' or 'bert'.")
    parts = found.get("sub_configs", {})
    towers = {
        key: _positions(part, known, follow)
        for key, kind in parts.items()
        if (part := _part(config, key, kind, parts, known)) is not None
    }
    whole = Positions(model_type=name)
    if "modeling" in found and any(size in found["config"] for size in WIDTHS):
        whole = _leaf(config, name, found, follow)
    if name in others["types"]:
        places = placed(config, name, others["types"][name], rotary="modeling" in found, follow=follow)
        whole = dataclasses.replace(
            whole,
            additive=places.additive,
            biases=places.biases,
            about=places.about,
            config={**places.values, **whole.config},
        )
        if places.instead_of_rotation:
            whole = dataclasses.replace(whole, rotations={}, rotates_values=False, layers=())
    if name in others["rotations"]:
        whole = _standing(whole, config, others["rotations"][name])
    rule, settings = numbering(config, known) or (whole.position_ids, None)
    return dataclasses.replace(whole, towers=towers, position_ids=rule, numbering=settings)


def _standing(found: Positions, config: Values, known: Values) -> Positions:
    """With what is known of where patches stand for the rotation."""
    values = {key: config.get(key, default) for key, default in known["config"].items()}
    about = evaluate(known["about"], values)
    if "layers" in known:
        found = _of_layers(found, known["layers"], values)
    rule = "grid" if found.position_ids == "tokens" else found.position_ids
    return dataclasses.replace(found, about={**found.about, "rotation": about}, position_ids=rule)


def _of_layers(found: Positions, known: Values, values: Values) -> Positions:
    """With a rotation for each kind of layers: those that see windows, and those that see pictures, stretched."""
    try:
        factors = evaluate(known["factors"], values)
    except ArithmeticError as error:
        raise ValueError(f"config has {values}; it needs windows of at least 1 patch ({error}).") from error
    kinds = tuple(evaluate(known["kind"], {**values, "i": i}) for i in evaluate(known["kinds"], values))
    rope = found.rotation
    rotations: Rotations = {kind: rope for kind in kinds}
    for kind in {*factors} & {*kinds}:
        if isinstance(rope, RoPE):
            rotations[kind] = dataclasses.replace(rope, scaling=Linear(factor=factors[kind]))
    return dataclasses.replace(found, rotations=rotations, layers=kinds)


def _is_known(name: Any, known: Values) -> bool:
    others = known["others"]
    found = (known["types"], known["composites"], others["types"], others["composites"], others["without"])
    return any(name in names for names in found)


def _part(config: Values, key: str, kind: str | None, parts: Values, known: Values) -> Values | None:
    """The dict of one part, None if nothing is known of it; older files have that of the text beside the others'."""
    part = config.get(key)
    if not _is_known((part or {}).get("model_type", kind), known):
        return None
    if part is None and key == "text_config" and any(size in config for size in SIZES):
        part = {name: value for name, value in config.items() if name not in parts}
    return {**(part or {}), "model_type": (part or {}).get("model_type", kind) if part and key in config else kind}


def _leaf(config: Values, name: str, known: Values, follow: bool) -> Positions:
    given = _renamed(config, known)
    values = known["config"] | given
    if "head_dim" not in given and known["head_dim_follows_hidden_size"] and "head_dim" in values:
        whole = known["config"]["hidden_size"] // known["config"]["num_attention_heads"]  # Zamba 2's heads are twice it
        share = known["config"]["head_dim"] // whole
        values["head_dim"] = share * values["hidden_size"] // values["num_attention_heads"]
    layer_types = layer_types_of(given, known, values)
    if not {"rope_parameters", "rope_theta"} & {*known["keys"], *known["config"]} or without_dict(known):
        rotations, dicts = {"": without_parameters(known, values)}, {}
    else:
        dicts = entries(given, known, layer_types, follow=follow)
        rotations = {
            layer: None if entry is None else _rotation(layer, entry, known, given, values, layer_types, follow)
            for layer, entry in dicts.items()
        }
        elsewhere = {"rope_scaling", "rope_theta", "partial_rotary_factor", *known["reads"]}
        values = {key: value for key, value in values.items() if key not in elsewhere}
        values["rope_parameters"] = dicts.get("", dicts)
    return Positions(
        model_type=name,
        rotations=rotations,
        rotates_values=rotates_values(known, values) and any(rotations.values()),
        layers=keys_of_layers(rotations, layer_types, values),
        softmax_scale=softmax_scale(known, values, rotations),
        temperature=temperature(known, values, dicts.get("") or {}),
        position_ids=POSITION_IDS.get(known["modeling"]["forward"] or "", "tokens"),
        config=dict(values),
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


def _rotation(
    layer: str,
    entry: dict[str, Any],
    known: Values,
    given: Values,
    values: Values,
    layers: tuple[str, ...],
    follow: bool,
) -> RoPE:
    entry = dict(entry)
    init = known["modeling"]["init"] or ""
    if known.get("temperature") == BETA:
        entry.pop(BETA, None)  # of the queries
    if "alpha" in entry and "ntk_alpha" not in init:
        if not follow:
            raise ValueError(
                "rope_parameters has 'alpha', which this model_type does not read; it needs to be without."
            )
        entry.pop("alpha")
    if follow:
        entry = only_read(entry)
    turning = known["config"].get("qk_rope_head_dim")
    of_turning = layer == "" and turning and known["config"].get("head_dim") == turning
    if of_turning and not follow and given.get("head_dim") not in (None, values["qk_rope_head_dim"]):
        raise ValueError(
            f"head_dim is {given['head_dim']}, but qk_rope_head_dim is {values['qk_rope_head_dim']}; it needs to be "
            "the same: these are the channels of a head that turn."
        )
    if init.startswith("default_only") and entry["rope_type"] != "default":
        raise ValueError(f"rope_type is {entry['rope_type']!r}; this model type needs 'default'.")
    return rotation(
        entry,
        known,
        values,
        head_dim=_head_dim(layer, known, given, values, layers),
        truncate_ignored=follow and bool(layer),
    )


def _head_dim(layer: str, known: Values, given: Values, values: Values, layers: tuple[str, ...]) -> int | None:
    """That of a layer type: its own, that of the part of an MLA head that turns, or the model's."""
    for index, own in (given.get("per_layer_config") or {}).items():
        if layer and int(index) < len(layers) and layers[int(index)] == layer and "head_dim" in own:
            return own["head_dim"]
    if layer in known.get("layer_head_dims", {}) and "per_layer_config" not in given:
        return given.get("global_head_dim") or known["layer_head_dims"][layer]
    turning = known["config"].get("qk_rope_head_dim")
    if layer == "" and turning and known["config"].get("head_dim") == turning:
        return values["qk_rope_head_dim"]
    return values.get("head_dim")


def to_config(positions: Positions) -> dict[str, Any]:
    """The configuration of these positions: `from_config` of it is the same again.

    A rotation may have been given another base or scaling since; what else it is, its model_type says.

    Raises:
        ValueError: positions that transformers has no words for, or that config does not say.

    >>> from posembed_jax import hf
    >>> found = hf.from_config({"model_type": "llama", "rope_theta": 500000.0})
    >>> sorted(hf.to_config(found)["rope_parameters"].items())
    [('rope_theta', 500000.0), ('rope_type', 'default')]
    """
    written = {key: value for key, value in positions.config.items() if not key.endswith("_runs")}
    written |= {key: to_config(tower) for key, tower in positions.towers.items()}
    written["model_type"] = positions.model_type
    again = _positions(written, facts(), False)
    if again.rotations != positions.rotations and positions.rotations:
        written["rope_parameters"] = _changed(written.get("rope_parameters") or {}, positions.rotations)
        again = _positions(written, facts(), False)
    if again != positions:
        raise ValueError(
            f"positions is {positions}; it needs to differ from the model's own in base and scaling of its rotations "
            "alone: what else it is, its config says."
        )
    return written


def _changed(parameters: Values, rotations: Rotations) -> dict[str, Any]:
    """The rotary dicts with the base and the scaling of the rotations."""
    found: dict[str, Any] = {}
    for layer, rope in rotations.items():
        before = parameters if layer == "" else parameters.get(layer) or {}
        kept = {key: before[key] for key in ("mrope_section", "partial_rotary_factor") if key in before}
        found[layer] = kept | rope_parameters(rope.scaling, base=rope.base) if isinstance(rope, RoPE) else None
    return found.get("", found)
