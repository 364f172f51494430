"""The layers of a model, and which rotation each of them has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]


def layer_types_of(given: Values, known: Values, values: Values) -> tuple[str, ...]:
    """The file's; else the default ones, whose pattern goes on for as many layers as the file has."""
    if given.get("layer_types") is not None:
        return tuple(given["layer_types"])
    default = [kind for kind, count in known["config"].get("layer_types_runs", ()) for _ in range(count)]
    count = values.get("num_hidden_layers") or 0
    for period in range(1, len(default) + 1):
        if all(default[i] == default[i % period] for i in range(len(default))):
            return tuple(default[i % period] for i in range(count))
    return ()


def keys_of_layers(rotations: Values, layer_types: tuple[str, ...], values: Values) -> tuple[str | None, ...]:
    """The key of rotations for each layer. `no_rope_layers` says 1 where a layer rotates."""
    count = values.get("num_hidden_layers") or 0
    kinds: tuple[str | None, ...] = layer_types if set(layer_types) & set(rotations) else ("",) * count
    rotates = values.get("no_rope_layers")
    if rotates is None and "no_rope_layers_runs" in values:
        interval = values.get("no_rope_layer_interval") or 4
        rotates = [int((i + 1) % interval != 0) for i in range(len(kinds))]
    if rotates:
        kinds = tuple(kind if on else None for kind, on in zip(kinds, rotates, strict=False))
    return tuple(None if kind is None or rotations.get(kind) is None else kind for kind in kinds)
