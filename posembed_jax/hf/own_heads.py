"""Dots 3, where each type of layer has a head of its own: how wide it is, how much turns, and its softmax scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]

PASSING = "qk_nope_head_dim"
OWN_HEADS = "swa_qk_rope_head_dim"
WINDOWED_HEAD = {"swa_head_dim": 256, "swa_qk_nope_head_dim": 192}  # its defaults


def has_own_heads(known: Values) -> bool:
    return OWN_HEADS in known.get("legacy_keys", ())


def own_scale(layer: str, given: Values, values: Values) -> float:
    """Dots 3: by which logits of this type of layer are multiplied."""
    _, turning = own_head(layer, given, values)
    passing = values["qk_nope_head_dim"]
    if layer == "sliding_attention":
        own = [part for part in (given.get("per_layer_config") or {}).values() if PASSING in part]
        passing = own[0][PASSING] if own else given.get("swa_qk_nope_head_dim", WINDOWED_HEAD["swa_qk_nope_head_dim"])
    return (passing + turning) ** -0.5


def own_head(layer: str, given: Values, values: Values) -> tuple[int, int]:
    """Dots 3: the width of a head of this type of layer, and how many of its channels turn."""
    if layer != "sliding_attention":
        return values["head_dim"], values["qk_rope_head_dim"]
    for own in (given.get("per_layer_config") or {}).values():
        if "qk_rope_head_dim" in own:
            return own["head_dim"], own["qk_rope_head_dim"]
    width, passing = (given.get(key, default) for key, default in WINDOWED_HEAD.items())
    return width, given.get(OWN_HEADS, width - passing)
