"""Kinds of positions, as `position_types.json` names them, and what makes each of its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from posembed_jax.scheme import Scheme
from posembed_jax.schemes.absolute import LearnedPositions, Sinusoidal
from posembed_jax.schemes.distance import ALiBi, T5Bias
from posembed_jax.schemes.windows import BEiTBias, LeViTBias, SwinBias, SwinV2Bias


def rounded_alibi(heads: int, **settings: Any) -> ALiBi:
    """Falcon rounds the slopes to bfloat16 before it multiplies them with positions."""
    slopes = np.asarray(ALiBi(heads=heads, **settings).bind({}).arrays["slopes"])
    rounded = np.asarray(jnp.asarray(slopes, jnp.bfloat16).astype(jnp.float32))
    return ALiBi(heads=heads, slopes=tuple(map(float, rounded)), **settings)


BUILDERS: dict[str, Callable[..., Scheme]] = {
    "alibi": ALiBi,
    "alibi_bfloat16": rounded_alibi,
    "beit": BEiTBias,
    "learned": LearnedPositions,
    "levit": LeViTBias,
    "sinusoidal": Sinusoidal,
    "swin": SwinBias,
    "swin_v2": SwinV2Bias,
    "t5": T5Bias,
}
