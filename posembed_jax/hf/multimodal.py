"""How models of several modalities number their tokens: the settings of the functions of `posembed_jax.mrope`.

Which rule a model type has was found out by running its own, and is in `rotary_types.json` under `numbering`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posembed_jax import checks
from posembed_jax.hf.facts import facts

Values = Mapping[str, Any]


def multimodal(config: Values) -> dict[str, Any]:
    """The settings with which a model numbers its text, images and videos: `from_config(config).numbering`.

    They are those of `mrope.positions`; HunyuanVL's, of `mrope.xdrope_positions`; MiniCPM-V 4.7's, of
    `mrope.canvas_positions`, where an id that the file lacks is None.

    config: the dict of a config.json.

    Raises:
        ValueError: the model_type has no such numbers, or the downsample_mode is not known.

    >>> from posembed_jax import hf
    >>> hf.multimodal({"model_type": "qwen3_vl", "vision_config": {"spatial_merge_size": 2}})
    {'split_frames': True, 'merge': 2}

    Source: https://arxiv.org/abs/2409.12191, section 2.1.
    """
    known = facts()
    found = numbering(config, known)
    if found is None:
        names = sorted(
            name for name, of_type in known["composites"].items() if {"numbering", "numbering_part"} & {*of_type}
        )
        raise ValueError(f"model_type is {config.get('model_type')!r}; it needs to be one of {names}.")
    return found[1]


def numbering(config: Values, known: Values) -> tuple[str, dict[str, Any]] | None:
    """The name of the rule and its settings; None for a model that has text alone.

    known: what `facts` gives.
    """
    name = config.get("model_type")
    of_type = known["composites"].get(name) or known["types"].get(name) or {}
    if key := of_type.get("numbering_part"):
        part = {**config, **(config.get(key) or {}), "model_type": of_type["sub_configs"][key]}
        return numbering(part, known)
    rule = of_type.get("numbering")
    if rule is None:
        return None
    settings = dict(rule["settings"])
    settings |= {name: _at(config, path, default) for name, (path, default) in rule["places"].items()}
    if rule["position_ids"] == "xdrope":
        settings["axes"] = len(_sections(config)) or 4
    if rule["position_ids"] == "canvas":
        settings["merge"] = _merge(config.get("downsample_mode", "16x"))
    return rule["position_ids"], settings


def _at(config: Values, path: str, default: Any) -> Any:
    """What a configuration says under a path such as "vision_config.spatial_merge_size"."""
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return default if value is None else value


def _merge(downsample_mode: Any) -> int:
    """MiniCPM-V 4.7's: patches along each side of one token, of which "16x" counts those of both sides."""
    checks.one_of("downsample_mode", downsample_mode, ("4x", "16x"))
    return 2 if downsample_mode == "4x" else 4


def _sections(config: Values) -> list[int]:
    """HunyuanVL's, one for each axis."""
    for part in (config.get("text_config") or {}, config):
        parameters = part.get("rope_parameters") or part.get("rope_scaling") or {}
        for key in ("mrope_section", "xdrope_section"):
            if parameters.get(key):
                return parameters[key]
    return []
