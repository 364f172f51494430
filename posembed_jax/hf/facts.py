"""What is known of transformers' model types."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

ROTARY = "rotary_types.json"
OTHERS = "position_types.json"


def facts() -> dict[str, Any]:
    """What is known of transformers' model types: `tests/golden/make_types.py` and `make_positions.py` write it.

    `types` and `composites` are of rotation, `others` of all other positions.
    """
    folder = resources.files("posembed_jax.hf")
    rotary, others = (json.loads(folder.joinpath(name).read_text()) for name in (ROTARY, OTHERS))
    return {**rotary, "others": others}
