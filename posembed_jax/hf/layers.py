"""The layers of a model, and which rotation each of them has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from posembed_jax.hf.expressions import evaluate
from posembed_jax.hf.found import Rotations
from posembed_jax.hf.keys import FOLLOW, LISTED
from posembed_jax.hf.layer_types import no_rope_layers
from posembed_jax.hf.model import Model
from posembed_jax.schemes.rotary import RoPE

Values = Mapping[str, Any]
WITHOUT_ATTENTION = ("linear_attention", "conv")
LISTS = {"rope_theta", "partial_rotary_factor", "partial_rotary_factors"}  # that may have a value for each layer
COMPRESSED = ["main", "compress"]  # DeepSeek-V4's two dicts: of layers with a window, and of those that compress


def by_layer(rotations: Rotations, model: Model) -> tuple[Rotations, tuple[str | None, ...]]:
    """The rotations, one more for layers with a base of their own, and for each layer the key of its rotation.

    rotations: of the rotary dicts.
    """
    count = len(model.layer_types) or model.number_of_layers
    keys = _of_kinds(rotations, count, model)
    bases = _bases(count, model)
    if bases and model.known["layer_bases"] == "own":
        rotations, keys = _of_bases(rotations, bases)
    elif model.given.get("layer_rope_theta") and not model.follow:
        _check_bases(rotations, bases)
    default = model.known.get("rotates", True)  # Muse counts from the last layer
    rotates = [bool(evaluate(default, {"num_hidden_layers": count, "i": i})) for i in range(count)]
    rotates = [bool(base) for base in bases] or rotates
    rotates = [a and b for a, b in zip(rotates, _rotating(len(keys), model), strict=True)]
    found = (key if on else None for key, on in zip(keys, rotates, strict=True))
    return rotations, tuple(None if key is None or rotations.get(key) is None else key for key in found)


def _of_kinds(rotations: Rotations, count: int, model: Model) -> tuple[str, ...]:
    """The key of the rotary dict of each layer."""
    kinds = model.layer_types
    if model.known["config"].get("_rope_type_labels") == COMPRESSED:
        return tuple("main" if kind == "sliding_attention" else "compress" for kind in kinds)
    if "unscaled" in rotations:
        return tuple("scaled" if i in model.given["rope_scaling_layers"] else "unscaled" for i in range(count))
    if "" in rotations or not rotations:
        return ("",) * count
    unknown = {kind for kind in kinds if kind not in rotations and kind not in WITHOUT_ATTENTION}
    if unknown:
        raise ValueError(
            f"layer_types has {sorted(unknown)}, but rope_parameters is of {sorted(rotations)}; it needs a dict for "
            "each type of layer."
        )
    return kinds


def _rotating(count: int, model: Model) -> list[bool]:
    """Which layers the model's code rotates. `no_rope_layers` says 1 where a layer rotates."""
    kinds = model.layer_types
    rotates = [kind not in WITHOUT_ATTENTION for kind in kinds] if len(kinds) == count else [True] * count
    across = model.values.get("cross_attention_layers") or ()  # Mllama's, which attend to pictures instead
    rotates = [on and i not in across for i, on in enumerate(rotates)]
    windowed = model.values.get("sliding_window") is not None
    rule = model.known.get("rotating_layers")
    if rule == "sliding" or (rule == "sliding_if_windowed" and windowed):
        rotates = [kind == "sliding_attention" for kind in kinds]
    elif rule in ("windowed", "windowed_or_dense"):
        dense = _mlp_types(model.given, count)
        forced = rule == "windowed_or_dense" and model.given.get("prefix_dense_sliding_window_pattern", 1) == 1
        rotates = [
            (kind == "sliding_attention" and windowed) or (forced and mlp == "dense")
            for kind, mlp in zip(kinds, dense, strict=True)
        ]
    told = no_rope_layers(model)
    return [a and bool(b) for a, b in zip(rotates, told, strict=True)] if told else rotates


def _mlp_types(given: Values, count: int) -> list[str]:
    """ "dense" or "sparse" for each layer: Cohere 2's first dense ones rotate, too."""
    first = given.get("first_k_dense_replace", 0)
    kinds = given.get("mlp_layer_types") or ["dense" if i < first else "sparse" for i in range(count)]
    if len(kinds) != count:
        raise ValueError(
            f"mlp_layer_types has {len(kinds)} names, and num_hidden_layers is {count}; it needs one name for each "
            "layer."
        )
    return kinds


def _bases(count: int, model: Model) -> list[float]:
    """`layer_rope_theta`: the base of each layer, 0 for one that does not rotate; [] where the file says none."""
    if "layer_bases" not in model.known:
        return []
    told = model.given.get("layer_rope_theta")
    if told is not None and len(told) != count:
        raise ValueError(f"layer_rope_theta is {told}; it needs {count} numbers, as num_hidden_layers is.")
    return list(told or ())


def _of_bases(rotations: Rotations, bases: list[float]) -> tuple[Rotations, tuple[str, ...]]:
    """Granite's layers turn each with a base of its own: one rotation for each, named by it where there are more."""
    rope = rotations[""]
    different = [base for base in dict.fromkeys(bases) if base and isinstance(rope, RoPE)]
    own = {base: dataclasses.replace(rope, base=float(base)) for base in different if rope}
    if len(own) <= 1:
        return {"": next(iter(own.values()), None)}, ("",) * len(bases)
    return {str(float(base)): turn for base, turn in own.items()}, tuple(str(float(base)) for base in bases)


def _check_bases(rotations: Rotations, bases: list[float]) -> None:
    """Muse's code turns every layer whose number is not 0 by the base of the rotary dict, whatever the number is."""
    rope = rotations[""]
    if not isinstance(rope, RoPE):
        return
    others = sorted({base for base in bases if base not in (0, rope.base)})
    if others:
        raise ValueError(
            f"layer_rope_theta has {others}, which transformers does not read for this model_type; each needs to be 0 "
            f"or rope_theta of the rotary dict, {rope.base}. {FOLLOW}"
        )


def of_layer(layer: str, model: Model) -> Model:
    """The model whose file has no lists, but what those with a value for each layer say of this type of layer, under
    "name[]"."""
    given, layer_types = model.given, model.layer_types
    found = {key: value for key, value in given.items() if not isinstance(value, list)}
    for key in LISTS & {*given}:
        if not isinstance(given[key], list) or (layer_types and layer not in layer_types and layer):
            continue
        values = {value for value, kind in zip(given[key], layer_types, strict=False) if kind == layer}
        if len(given[key]) < len(layer_types) or len(values) != 1:
            raise ValueError(
                f"{key} is {given[key]}, for layer_types {list(layer_types)}; it needs one value for each layer, the "
                "same for all of a type, or to be a number."
            )
        found[f"{key}{LISTED}"] = values.pop()
    return model._replace(given=found)
