"""Kinds of positions, as `position_types.json` names them, and what makes each of its settings."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from posembed_jax.scheme import Scheme
from posembed_jax.schemes.absolute import LearnedPositions, Sinusoidal
from posembed_jax.schemes.axis_bias import AxisBias
from posembed_jax.schemes.distance import ALiBi, T5Bias
from posembed_jax.schemes.windows import BEiTBias, LeViTBias, SwinBias, SwinV2Bias


def rounded_alibi(heads: int, symmetric: bool) -> ALiBi:
    """Falcon rounds the slopes to bfloat16 before it multiplies them with positions."""
    slopes = ALiBi(heads=heads).bind({}).arrays["slopes"]
    rounded = tuple(float(jnp.asarray(slope, jnp.bfloat16)) for slope in slopes)
    return ALiBi(heads=heads, slopes=rounded, symmetric=symmetric)


def t5_of_axes(heads: int, axes: int, buckets: int, max_distance: int) -> AxisBias:
    """LayoutLMv2's and LayoutLMv3's bias of boxes: T5's, of each of two edges."""
    bias = T5Bias(heads=heads, buckets=buckets, max_distance=max_distance, bidirectional=True)
    return AxisBias(biases=(bias,) * axes)


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
    "t5_axes": t5_of_axes,
}
