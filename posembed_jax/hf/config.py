"""A transformers configuration -> the position schemes of its model, and back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.expressions import evaluate
from posembed_jax.hf.facts import facts
from posembed_jax.hf.found import Positions, Rotations
from posembed_jax.hf.leaf import leaf
from posembed_jax.hf.multimodal import numbering
from posembed_jax.hf.parts import check_alike, check_top, is_another, is_known, part_of
from posembed_jax.hf.places import placed
from posembed_jax.hf.rope_parameters import rope_parameters
from posembed_jax.schemes.rotary import RoPE
from posembed_jax.schemes.scaling import Linear

Values = Mapping[str, Any]
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
    found = known["types"].get(name) or known["composites"].get(name) or {}
    if name in others["no_scheme"]:
        raise ValueError(
            f"model_type is {name!r}, of whose positions this library has none: {others['no_scheme'][name]}."
        )
    if not is_known(name, known):
        raise ValueError(f"model_type is {name!r}; it needs to be one of transformers', such as 'llama' or 'bert'.")
    towers = _towers(config, name, known, follow)
    parts = known["parts"].get(name, {})
    config = {key: value for key, value in config.items() if value is not None or key not in parts}  # null is missing
    whole = Positions(model_type=name)
    if "modeling" in found and any(size in found["config"] for size in WIDTHS):
        whole = leaf(config, name, found, follow)
    elif towers and not follow:
        check_top(config, known)
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


def _towers(config: Values, name: str, known: Values, follow: bool) -> dict[str, Positions]:
    """The positions of each part of a composite; none for other models."""
    towers = {}
    for key, of_part in known["parts"].get(name, {}).items():
        part = part_of(config, key, of_part, known, follow)
        if part is None:
            continue
        towers[key] = _positions(part, known, follow)
        given = config.get(key) or {}
        if not follow and is_another(given, of_part, known):
            check_alike(key, towers[key], _named(given, known))
    return towers


def _named(given: Values, known: Values) -> Positions | None:
    """A part as the type that its file names; None where the file is not of that type: its other keys contradict it."""
    try:
        return _positions(given, known, False)
    except ValueError:
        return None


def _standing(found: Positions, config: Values, known: Values) -> Positions:
    """With what is known of where patches stand for the rotation."""
    values = {key: config.get(key, default) for key, default in known["config"].items()}
    try:
        about = evaluate(known["about"], values)
    except (TypeError, ArithmeticError) as error:
        raise ValueError(
            f"config has {values}, from which the positions of patches do not follow ({error}); it needs whole numbers."
        ) from error
    if "layers" in known:
        found = _of_layers(found, known["layers"], values)
    rule = "grid" if found.position_ids == "tokens" else found.position_ids
    return dataclasses.replace(found, about={**found.about, "rotation": about}, position_ids=rule)


def _of_layers(found: Positions, known: Values, values: Values) -> Positions:
    """With a rotation for each kind of layers: those that see windows, and those that see pictures, stretched."""
    try:
        factors = evaluate(known["factors"], values)
        kinds = tuple(evaluate(known["kind"], {**values, "i": i}) for i in evaluate(known["kinds"], values))
    except (TypeError, ArithmeticError) as error:
        raise ValueError(
            f"config has {values}; it needs a number of layers, and windows of at least 1 patch ({error})."
        ) from error
    rope = found.rotation
    rotations: Rotations = {kind: rope for kind in kinds}
    for kind in {*factors} & {*kinds}:
        if isinstance(rope, RoPE):
            rotations[kind] = dataclasses.replace(rope, scaling=Linear(factor=factors[kind]))
    return dataclasses.replace(found, rotations=rotations, layers=kinds)


def to_config(positions: Positions) -> dict[str, Any]:
    """The configuration of these positions: `from_config` of it is the same again.

    A rotation may have been given another base or scaling since; what else it is, its model_type says.

    Raises:
        ValueError: positions that transformers has no words for, or that config does not say, as what was read with
            `follow_upstream_bugs` from a file that contradicts itself.

    >>> from posembed_jax import hf
    >>> found = hf.from_config({"model_type": "llama", "rope_theta": 500000.0})
    >>> sorted(hf.to_config(found)["rope_parameters"].items())
    [('rope_theta', 500000.0), ('rope_type', 'default')]
    """
    written = {key: value for key, value in positions.config.items() if not key.endswith("_runs")}
    written |= {key: to_config(tower) for key, tower in positions.towers.items()}
    written["model_type"] = positions.model_type
    again = _positions(written, facts(), False)
    if again.rotations != positions.rotations and "rope_parameters" in written:
        written["rope_parameters"] = _changed(written.get("rope_parameters") or {}, positions.rotations)
        again = _positions(written, facts(), False)
    if again != positions:
        raise ValueError(
            f"positions is {positions}; it needs to differ from the model's own in base and scaling of its rotations "
            "alone, and of a model without rope_parameters in nothing: what else it is, its config says."
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
