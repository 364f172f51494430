"""How models of several modalities number their tokens: the settings of `posembed_jax.mrope.positions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FRAMES_ALONE = {"qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe", "glm46v", "glm_ocr"}
FRAMES_ALONE |= {"cohere_compass", "cosmos3_edge"}
FRAMES_TOGETHER = {"qwen2_vl", "paddleocr_vl", "qwen2_5_vl", "ernie4_5_vl_moe", "qwen2_5_omni", "qwen2_5_omni_thinker"}


def multimodal(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `mrope.positions` with which a composite numbers its text, images and videos.

    config: the dict of a config.json.

    Raises:
        ValueError: the model_type does not number its tokens by this rule.

    >>> from posembed_jax import hf
    >>> hf.multimodal({"model_type": "qwen3_vl", "vision_config": {"spatial_merge_size": 2}})
    {'merge': 2, 'split_frames': True}

    Source: https://arxiv.org/abs/2409.12191, section 2.1.
    """
    name = config.get("model_type")
    known = FRAMES_ALONE | FRAMES_TOGETHER
    if name not in known:
        raise ValueError(f"model_type is {name!r}; it needs to be one of {sorted(known)}.")
    vision = config.get("vision_config") or {}
    settings: dict[str, Any] = {"merge": vision.get("spatial_merge_size", 2), "split_frames": name in FRAMES_ALONE}
    if "temporal_merge_size" in vision:
        settings["time_merge"] = vision["temporal_merge_size"]
    if name.startswith("qwen2_5_omni"):
        settings |= {"tokens_per_second": config.get("position_id_per_seconds", 25), "after": "largest"}
    elif name == "qwen2_5_vl":
        settings["tokens_per_second"] = vision.get("tokens_per_second", 4)
    return settings
