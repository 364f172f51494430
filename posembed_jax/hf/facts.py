"""What is known of transformers' model types."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

ROTARY = "rotary_types.json"
OTHERS = "position_types.json"
PARTS = "part_types.json"


def facts() -> dict[str, Any]:
    """What is known of transformers' model types, as tests/golden/make_types.py and its neighbours write it.

    `types` and `composites` are of rotation, `others` of all other positions; `parts` and `tops` say how composites
    read their files.
    """
    folder = resources.files("posembed_jax.hf")
    rotary, others, parts = (json.loads(folder.joinpath(name).read_text()) for name in (ROTARY, OTHERS, PARTS))
    return {**rotary, "others": others, "parts": parts["parts"], "tops": parts["tops"]}
