"""Visiting the tiles of the logits that are alive, each with its bias, and collecting the gradient of the bias.

A `DistanceBias` is the same for all tiles of one diagonal when positions count up, and takes `2 size - 1` values a
head. Such tiles are visited diagonal by diagonal; the gradients of a diagonal are summed into one tile, that over equal
distances, and that goes through `at`, whose own gradient sums in a fixed order: nothing is scattered. Any other bias is
called with the positions (a `ContentBias` also with the queries and keys) of each tile, and differentiated there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.attention.inputs import BIAS_SHAPES, check_broadcasts
from posembed_jax.attention.tiles import (
    Tiles,
    add_block,
    block,
    both,
    fill,
    fill_unless_shared,
    spread,
    sum_diagonals,
)
from posembed_jax.contracts import BoundContentBias, BoundDistanceBias
from posembed_jax.scheme import Bound

# visit(state, i, j, bias, allowed) -> (state, gradient of the logits [B, N, size, size] or None)
Visit = Callable[..., tuple[Any, Any]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Closed:
    """A function with the arrays that it had captured, as a pytree."""

    function: Callable[..., jax.Array] = dataclasses.field(metadata={"static": True})
    position_axes: int | None = dataclasses.field(metadata={"static": True})
    captured: list[Any]

    def __call__(self, *arguments: jax.Array) -> jax.Array:
        return self.function(*arguments, *self.captured)


def as_arrays(bias: Any, tiles: Tiles, *before: jax.ShapeDtypeStruct) -> Any:
    """The bias as a pytree of arrays only, which `jax.custom_vjp` can differentiate.

    before: examples of what it is called with in front of the positions.
    """
    if bias is None:
        return None
    if isinstance(bias, jax.Array):
        return fill_unless_shared(bias, tiles.size)
    if isinstance(bias, BoundContentBias):
        filled = (None if x is None else fill(jnp.asarray(x), 1, tiles.size) for x in bias.content)
        return dataclasses.replace(bias, arrays=jax.tree.map(_promote, bias.arrays)).of(*filled)
    if isinstance(bias, Bound):  # so that what each tile adds to their gradients is rounded only in the end
        return jax.tree.map(_promote, bias)
    if all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(bias)):
        return bias
    zero = jnp.int32(0)
    function, captured = jax.closure_convert(bias, *before, *tiles.positions_for(bias, zero, zero))
    return Closed(function, getattr(bias, "position_axes", None), captured)


def _promote(x: jax.Array) -> jax.Array:
    return x.astype(checks.compute_dtype(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def split(bias: Any) -> tuple[list[jax.Array], Callable[..., Any]]:
    """The floating arrays of the bias, and what puts others in their place: a bias, or (None elsewhere) a gradient."""
    leaves, structure = jax.tree_util.tree_flatten(bias)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def rebuild(values: list[Any], *, gradient: bool = False) -> Any:
        rest = iter(values)
        others = [None] * len(leaves) if gradient else leaves
        values = [next(rest) if own else other for own, other in zip(floating, others, strict=True)]
        return jax.tree_util.tree_unflatten(structure, values)

    return [leaf for leaf, own in zip(leaves, floating, strict=True) if own], rebuild


def bare(bias: Any) -> Any:
    """The bias without the content that `of` gave it."""
    return bias.of() if isinstance(bias, BoundContentBias) else bias


def content_of(bias: Any, query: jax.Array, key: jax.Array) -> list[jax.Array]:
    """What a `ContentBias` is a function of, `[B, T, ...]` and `[B, S, ...]`; nothing for others.

    query, key: `[B, N, T, D]`, `[B, K, S, D]`.
    """
    if not isinstance(bias, BoundContentBias):
        return []
    sides = zip(bias.content, (query, key), strict=True)
    return [jnp.swapaxes(x, 1, 2) if given is None else given for given, x in sides]


def zero_gradients(bias: Any, query: jax.Array, key: jax.Array) -> list[jax.Array]:
    """Of what the bias is a function of: its floating arrays, and the content of a `ContentBias`."""
    inputs = [*split(bare(bias))[0], *content_of(bias, query, key)]
    return [jnp.zeros(x.shape, checks.compute_dtype(x.dtype)) for x in inputs]


def gradient_of(bias: Any, gradients: list[jax.Array]) -> tuple[Any, list[jax.Array | None]]:
    """`gradients`, grown from `zero_gradients`, as the gradient of the bias, and those of query and key or None."""
    learned, rebuild = split(bare(bias))
    of_arrays, of_content = gradients[: len(learned)], gradients[len(learned) :]
    bar = rebuild([x.astype(like.dtype) for x, like in zip(of_arrays, learned, strict=True)], gradient=True)
    if not isinstance(bias, BoundContentBias):
        return bar, [None, None]
    sides = list(zip(bias.content, of_content, strict=True))
    bar = bar.of(*(None if given is None else x.astype(given.dtype) for given, x in sides))
    return bar, [jnp.swapaxes(x, 1, 2) if given is None else None for given, x in sides]


def walk(
    tiles: Tiles,
    bias: Any,
    query: jax.Array,
    key: jax.Array,
    state: Any,
    visit: Visit,
    *,
    soft_cap: bool,
    gradients: list[jax.Array] | None = None,
) -> tuple[Any, Any]:
    """Calls `state, logits_bar = visit(state, i, j, bias, allowed)` for every tile that is alive.

    `gradients`, from `zero_gradients`, grow by what `logits_bar` `[B, N, size, size]` passes back to the bias.
    """
    aligned, offset = tiles.alignment()
    i, j, count = tiles.order(aligned, offset)
    start, carry = jnp.int32(0), (state, gradients)
    content, bias = content_of(bias, query, key), bare(bias)
    if isinstance(bias, BoundDistanceBias) and bias.position_axes is None:
        start = jnp.where(aligned, count, 0)
        carry = _walk_diagonals(tiles, bias, (i, j, start), offset, query, carry, visit, soft_cap)

    def tile(number: jax.Array, carry: Any) -> Any:
        (state, gradients), row, column = carry, i[number], j[number]
        query_positions, key_positions = tiles.positions(row, column)
        allowed = tiles.allowed_at(key_positions[..., None, :] - query_positions[..., :, None])
        if allowed is not None:
            allowed = jnp.expand_dims(allowed, (0, 1) if allowed.ndim == 2 else 1)
        allowed = both(allowed, tiles.allowed_in(row, column))
        sides = zip(content, (row, column), strict=False)
        contents = [block(x, place, tiles.size, 1) for x, place in sides]
        if gradients is None or bias is None:
            given = None if bias is None else _tile_of(bias, tiles, row, column, contents, query)
            return visit(state, row, column, given, allowed)[0], gradients

        learned, rebuild = split(bias)

        def tile_of(learned: list[jax.Array], contents: list[jax.Array]) -> jax.Array:
            return _tile_of(rebuild(learned), tiles, row, column, contents, query)

        values, pull_back = jax.vjp(tile_of, learned, contents)
        state, logits_bar = visit(state, row, column, values, allowed)
        logits_bar = sum_to(logits_bar, values.shape)
        if isinstance(bias, jax.Array):  # pulled back, every tile would be a whole array of zeros around it
            return state, [_add_tile(gradients[0], logits_bar, row, column, tiles.size)]
        learned_bar, contents_bar = pull_back(logits_bar)
        updated = [_add(x, y) for x, y in zip(gradients, learned_bar, strict=False)]
        for total, bar, place in zip(gradients[len(learned) :], contents_bar, (row, column), strict=False):
            updated.append(add_block(total, bar.astype(total.dtype), place, tiles.size, 1))
        return state, updated

    return lax.fori_loop(start, count, tile, carry)


def _walk_diagonals(
    tiles: Tiles,
    bias: BoundDistanceBias,
    order: tuple[jax.Array, jax.Array, jax.Array],
    offset: jax.Array,
    query: jax.Array,
    carry: Any,
    visit: Visit,
    soft_cap: bool,
) -> Any:
    i, j, count = order
    size, dtype = tiles.size, checks.compute_dtype(query.dtype)
    learned, rebuild = split(bias)

    def diagonal(carry: Any) -> Any:
        number, (state, gradients) = carry
        blocks = j[number] - i[number]
        distance = blocks * size + offset + jnp.arange(1 - size, size, dtype=jnp.int32)
        by_distance, pull_back = jax.vjp(lambda learned: rebuild(learned).at(distance).astype(dtype), learned)
        allowed, values = tiles.allowed_at(distance), by_distance
        if allowed is not None and not soft_cap:  # one array for each tile to read instead of two
            values, allowed = jnp.where(allowed[None], values, -jnp.inf), None
        values = spread(values)[None]
        _check_tile(values, query, size)
        allowed = None if allowed is None else spread(allowed[None])[None]

        def tile(carry: Any) -> Any:
            number, state, total = carry
            row, column = i[number], j[number]
            state, logits_bar = visit(state, row, column, values, both(allowed, tiles.allowed_in(row, column)))
            return number + 1, state, None if total is None else total + logits_bar

        def on_this_diagonal(carry: Any) -> jax.Array:
            return (carry[0] < count) & (j[carry[0]] - i[carry[0]] == blocks)

        total = None if gradients is None else jnp.zeros((*query.shape[:2], size, size), dtype)
        number, state, total = lax.while_loop(on_this_diagonal, tile, (number, state, total))
        if gradients is not None and total is not None:
            values_bar = jax.vmap(sum_diagonals)(total).sum(axis=0)  # rows last: they may be on several devices
            (learned_bar,) = pull_back(sum_to(values_bar, by_distance.shape))
            gradients = [_add(x, y) for x, y in zip(gradients, learned_bar, strict=True)]
        return number, (state, gradients)

    return lax.while_loop(lambda carry: carry[0] < count, diagonal, (jnp.int32(0), carry))[1]


def _tile_of(
    bias: Any, tiles: Tiles, i: jax.Array, j: jax.Array, contents: list[jax.Array], query: jax.Array
) -> jax.Array:
    """The bias of tile i, j, with its contents `[B, size, ...]`: `[B or 1, N or 1, size, size]`."""
    dtype = checks.compute_dtype(query.dtype)
    if isinstance(bias, jax.Array):
        return block(block(bias, i, tiles.size, 2), j, tiles.size, 3).astype(dtype)
    values = bias(*contents, *tiles.positions_for(bias, i, j))
    values = values[None] if values.ndim == 3 else values
    _check_tile(values, query, tiles.size)
    return values.astype(dtype)


def _check_tile(values: jax.Array, query: jax.Array, size: int) -> None:
    check_broadcasts("the value of bias", values, (*query.shape[:2], size, size), f"{BIAS_SHAPES} in a tile")


def sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """x summed over the axes that have length 1 in `shape`: the transpose of broadcasting."""
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and x.shape[axis] > 1)
    return x.sum(axes, keepdims=True) if axes else x


def _add(total: jax.Array, update: jax.Array) -> jax.Array:
    return total + update.astype(total.dtype)


def _add_tile(total: jax.Array, update: jax.Array, i: jax.Array, j: jax.Array, size: int) -> jax.Array:
    """`total` `[B or 1, N or 1, T or 1, S or 1]` with `update` added to its tile i, j."""
    starts = (0, 0, 0 if total.shape[2] == 1 else i * size, 0 if total.shape[3] == 1 else j * size)
    before = lax.dynamic_slice(total, starts, update.shape)
    return lax.dynamic_update_slice(total, before + update, starts)
