"""The arguments of one attention call, checked once and handed to an implementation as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from posembed_jax import checks, masks
from posembed_jax.contracts import BoundContentBias

BIAS_SHAPES = "[N, T, S] or [B, N, T, S]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """See `attend` for what each is."""

    query: jax.Array  # [B, T, N, D]
    key: jax.Array  # [B, S, K, D]
    value: jax.Array  # [B, S, K, D]
    bias: Callable[..., jax.Array] | jax.Array | None
    value_bias: Callable[..., jax.Array] | None
    mask: jax.Array | None  # bool, [T, S] or [B or 1, N or 1, T or 1, S or 1]
    causal: bool
    window: tuple[int, int] | None
    query_positions: jax.Array  # int32 [T] or [B, T]
    key_positions: jax.Array  # int32 [S] or [B, S]
    coordinates: tuple[jax.Array, jax.Array] | None  # int32 [T, A] or [B, T, A], and of the keys, for biases of A axes
    query_segment_ids: jax.Array | None  # int32 [B, T]
    key_segment_ids: jax.Array | None  # int32 [B, S]
    scale: float
    logits_soft_cap: float | None
    dropout_rate: float
    dropout_key: jax.Array | None
    broadcast_dropout: bool
    precision: Any

    def positions_of(self, bias: Any) -> tuple[jax.Array, jax.Array]:
        """What a bias is a function of: the coordinates, where it has axes, or the positions."""
        if self.coordinates is not None and getattr(bias, "position_axes", None) is not None:
            return self.coordinates
        return self.query_positions, self.key_positions

    def bias_values(self, mask: jax.Array | None) -> jax.Array | None:
        """The whole bias, float32 `[B or 1, N or 1, T, S]`; mask is that of `mask_values`."""
        if self.bias is None:
            return None
        if isinstance(self.bias, jax.Array):
            return self.bias.astype(checks.compute_dtype(self.query.dtype))
        if isinstance(self.bias, BoundContentBias):
            values = self.bias(self.query, self.key, *self.positions_of(self.bias), mask)
        else:
            values = self.bias(*self.positions_of(self.bias))
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


def sees_mask(bias: Any) -> bool:
    """Whether the bias is a function of all the keys that a query attends."""
    return isinstance(bias, BoundContentBias) and bias.scheme.sees_mask


def check_broadcasts(name: str, x: jax.Array, shape: tuple[int, ...], needs: str) -> None:
    """Refuses x unless each of its axes has the size in `shape`, or 1."""
    needs = f"{needs}, that is {list(shape)} or 1 on an axis that is shared"
    checks.rank(name, x, {len(shape)}, needs)
    checks.shape(name, x, [size if got != 1 else 1 for got, size in zip(x.shape, shape, strict=True)], needs)
