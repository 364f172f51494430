"""Kinds of positions, as `position_types.json` names them, and what makes each of its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from posembed_jax.scheme import Scheme
from posembed_jax.schemes.absolute import LearnedPositions, Sinusoidal
from posembed_jax.schemes.axial import AxialPositions
from posembed_jax.schemes.axis_bias import AxisBias
from posembed_jax.schemes.boxes import BoxRPB
from posembed_jax.schemes.deberta import DeBERTaBias
from posembed_jax.schemes.decomposed import DecomposedBias
from posembed_jax.schemes.distance import ALiBi, ClippedBias, T5Bias
from posembed_jax.schemes.fourier import FourierFeatures
from posembed_jax.schemes.gated import GatedBias
from posembed_jax.schemes.image_tiles import TilePositions
from posembed_jax.schemes.relative_logits import RelativeLogits
from posembed_jax.schemes.shaw import ShawBias, ShawValues
from posembed_jax.schemes.transformer_xl import TransformerXLBias
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


def transformer_xl(
    heads: int,
    dim: int,
    features: int,
    layout: str,
    denominator: str,
    biases: bool,
    max_distance: int | None = None,
) -> TransformerXLBias:
    """Its sinusoid is told by layout and denominator alone."""
    sinusoid = Sinusoidal(features=features, layout=layout, denominator=denominator)
    return TransformerXLBias(heads=heads, dim=dim, sinusoid=sinusoid, biases=biases, max_distance=max_distance)


def gated_t5(heads: int, features: int, buckets: int, max_distance: int) -> GatedBias:
    """WavLM's."""
    bias = T5Bias(heads=heads, buckets=buckets, max_distance=max_distance, bidirectional=True)
    return GatedBias(bias=bias, features=features)


def deberta(heads: int, dim: int, max_distance: int, buckets: int | None, kinds: Any) -> DeBERTaBias:
    """Files say the kinds as "c2p|p2c" or as a list; fewer than one bucket is none."""
    kinds = tuple(kinds.lower().split("|")) if isinstance(kinds, str) else tuple(kinds)
    buckets = buckets if buckets and buckets > 0 else None
    ordered = tuple(kind for kind in ("c2p", "p2c") if kind in kinds)
    return DeBERTaBias(heads=heads, dim=dim, max_distance=max_distance, buckets=buckets, kinds=ordered)


CONVOLUTION = "convolution"  # whose settings are those of `conv_positions`: a function of the tokens, no scheme
BUILDERS: dict[str, Callable[..., Scheme]] = {
    "alibi": ALiBi,
    "alibi_bfloat16": rounded_alibi,
    "axial": AxialPositions,
    "beit": BEiTBias,
    "box_rpb": BoxRPB,
    "clipped": ClippedBias,
    "deberta": deberta,
    "decomposed": DecomposedBias,
    "fourier": FourierFeatures,
    "gated_t5": gated_t5,
    "learned": LearnedPositions,
    "levit": LeViTBias,
    "relative_logits": RelativeLogits,
    "shaw": ShawBias,
    "shaw_values": ShawValues,
    "sinusoidal": Sinusoidal,
    "swin": SwinBias,
    "swin_v2": SwinV2Bias,
    "t5": T5Bias,
    "t5_axes": t5_of_axes,
    "tiles": TilePositions,
    "transformer_xl": transformer_xl,
}
