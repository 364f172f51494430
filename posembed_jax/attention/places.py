"""Where the queries and keys of an attention call stand: what is given, checked, and what it defaults to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from posembed_jax import checks, positions

Shape = tuple[int, int, int, int]  # of the logits, [B, N, T, S]
Pair = tuple[jax.Array, jax.Array]


def positions_of(
    query_positions: Any, key_positions: Any, shape: Shape, *, uses_order: Mapping[str, bool], biases: Mapping[str, Any]
) -> tuple[Pair, Pair | None]:
    """Where queries and keys stand in order, int32 `[T]` or `[B, T]` each; and their coordinates if a bias has axes.

    uses_order: what goes by the order whether there are coordinates or not. biases: callables or None.
    """
    if shape[2] == shape[3]:
        query_positions = key_positions if query_positions is None else query_positions
        key_positions = query_positions if key_positions is None else key_positions
    axes: dict[str, Any] = {name: getattr(bias, "position_axes", None) for name, bias in biases.items()}
    needed_by = [name for name, uses in uses_order.items() if uses]
    needed_by += [name for name, bias in biases.items() if bias is not None and axes[name] is None]
    sizes = set(axes.values()) - {None}
    if not sizes:
        return _order(query_positions, key_positions, shape, needed_by), None
    if len(sizes) > 1:
        raise ValueError(f"bias and value_bias have positions of {sorted(sizes)} axes; they need to have as many.")
    (count,) = sizes
    if needed_by and shape[2] != shape[3]:
        raise ValueError(
            f"positions have {count} axes and so no order, which {' and '.join(needed_by)} with {shape[2]} queries and "
            f"{shape[3]} keys needs: pass a mask instead."
        )
    coordinates = _coordinates(query_positions, key_positions, shape, count)
    return (positions.arange(shape[2]), positions.arange(shape[3])), coordinates


def _order(query_positions: Any, key_positions: Any, shape: Shape, needed_by: list[str]) -> Pair:
    batch, _, queries, keys = shape
    found = []
    for name, x, size in (("query_positions", query_positions, queries), ("key_positions", key_positions, keys)):
        if x is not None:
            x = checks.positions(name, x)
            checks.shape(name, x, (batch, size)[-x.ndim :], f"int32 [{size}] or [{batch}, {size}]")
        elif needed_by and queries != keys:
            raise ValueError(
                f"{name} is None; {' and '.join(needed_by)} with {queries} queries and {keys} keys needs it, to know "
                "where the queries stand among the keys: pass posembed_jax.positions.arange(length, offset)."
            )
        else:
            x = positions.arange(size)
        found.append(x)
    return found[0], found[1]


def _coordinates(query_positions: Any, key_positions: Any, shape: Shape, axes: int) -> Pair:
    batch, _, queries, keys = shape
    found = []
    for name, x, size in (("query_positions", query_positions, queries), ("key_positions", key_positions, keys)):
        needs = f"int32 [{size}, {axes}] or [{batch}, {size}, {axes}], for a bias of {axes} axes"
        if x is None:
            raise ValueError(f"{name} is None; it needs to be {needs}: pass positions such as positions.grid(shape).")
        x = checks.positions(name, x, axes=axes)
        checks.shape(name, x, (batch, size, axes)[-x.ndim :], needs)
        found.append(x)
    return found[0], found[1]


def segment_ids_of(queries: Any, keys: Any, shape: Shape) -> tuple[Any, Any]:
    """Both, or neither."""
    if queries is None and keys is None:
        return None, None
    if queries is None:
        raise ValueError("query_segment_ids is None but key_segment_ids is not; pass both.")
    if keys is None:
        if shape[2] != shape[3]:
            raise ValueError(f"key_segment_ids is None; with {shape[2]} queries and {shape[3]} keys, pass both.")
        keys = queries
    found = []
    for name, ids, axis, size in (
        ("query_segment_ids", queries, "T", shape[2]),
        ("key_segment_ids", keys, "S", shape[3]),
    ):
        needs = f"int32 [B, {axis}], that is {[shape[0], size]}"
        found.append(checks.integers(name, ids, needs))
        checks.shape(name, found[-1], (shape[0], size), needs)
    return found[0], found[1]
