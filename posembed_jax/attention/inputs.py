"""The arguments of one attention call, checked once and handed to an implementation as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from posembed_jax import checks, masks
from posembed_jax.scheme import BoundContentBias

BIAS_SHAPES = "[N, T, S] or [B, N, T, S]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """See `attend` for what each is."""

    query: jax.Array  # [B, T, N, D]
    key: jax.Array  # [B, S, K, D]
    value: jax.Array  # [B, S, K, D]
    bias: Callable[..., jax.Array] | jax.Array | None
    mask: jax.Array | None  # bool, [T, S] or [B or 1, N or 1, T or 1, S or 1]
    causal: bool
    window: int | tuple[int, int] | None
    query_positions: jax.Array  # int32 [T] or [B, T]
    key_positions: jax.Array  # int32 [S] or [B, S]
    query_segment_ids: jax.Array | None  # int32 [B, T]
    key_segment_ids: jax.Array | None  # int32 [B, S]
    scale: float
    logits_soft_cap: float | None
    dropout_rate: float
    dropout_key: jax.Array | None
    broadcast_dropout: bool
    precision: Any

    def bias_values(self) -> jax.Array | None:
        """The whole bias, float32 `[B or 1, N or 1, T, S]`."""
        if self.bias is None:
            return None
        if isinstance(self.bias, jax.Array):
            return self.bias.astype(checks.compute_dtype(self.query.dtype))
        if isinstance(self.bias, BoundContentBias):
            values = self.bias(self.query, self.key, self.query_positions, self.key_positions)
        else:
            values = self.bias(self.query_positions, self.key_positions)
        values = values[None] if values.ndim == 3 else values
        check_broadcasts("the value of bias", values, self.logits_shape(), BIAS_SHAPES)
        return values.astype(checks.compute_dtype(self.query.dtype))

    def mask_values(self) -> jax.Array | None:
        """All that forbids attending, as one boolean `[B or 1, N or 1, T or 1, S or 1]`."""
        found = [self.mask] if self.mask is not None else []
        if self.causal:
            found.append(masks.causal(self.query_positions, self.key_positions))
        if self.window is not None:
            found.append(masks.window(self.query_positions, self.key_positions, self.window))
        if self.query_segment_ids is not None and self.key_segment_ids is not None:
            found.append(masks.segment(self.query_segment_ids, self.key_segment_ids))
        whole = None
        for mask in found:
            mask = mask if mask.ndim == 4 else mask[None, None] if mask.ndim == 2 else mask[:, None]
            whole = mask if whole is None else whole & mask
        return whole

    def logits_shape(self) -> tuple[int, int, int, int]:
        batch, queries, heads, _ = self.query.shape
        return batch, heads, queries, self.key.shape[1]


def check_broadcasts(name: str, x: jax.Array, shape: tuple[int, ...], needs: str) -> None:
    """Refuses x unless each of its axes has the size in `shape`, or 1."""
    needs = f"{needs}, that is {list(shape)} or 1 on an axis that is shared"
    checks.rank(name, x, {len(shape)}, needs)
    checks.shape(name, x, [size if got != 1 else 1 for got, size in zip(x.shape, shape, strict=True)], needs)
