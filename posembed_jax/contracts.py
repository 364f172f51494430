"""The contracts: the places in a transformer where a scheme can act, and the bound scheme of each, which is called.

    Additive      bound(positions)                                        -> [..., T, F]      added to the embedding
    Rotation      bound(x, positions, inverse=False)                      -> like x           rotates queries and keys
    Bias          bound(query_positions, key_positions)                   -> [..., N, T, S]   added to the logits
    DistanceBias  the Bias that depends on key position - query position alone; it also has bound.at(distance)
    ContentBias   bound(query, key, query_positions, key_positions)       -> [..., N, T, S]   added to the logits
    ValueBias     bound(weights, query_positions, key_positions)          -> [..., T, N, D]   added to the output

Positions are int32 `[T]`, or `[B, T]` when every row has its own; `[T, A]` or `[B, T, A]` in schemes whose
`position_axes` is A. Keys are rotated by `bound.for_keys()`, the same as bound where a scheme treats both alike.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from posembed_jax import checks
from posembed_jax.scheme import Arrays, Bound, Scheme


class Additive(Scheme):
    """Added to the token embedding."""

    fractional = False

    def bind(self, params: Arrays) -> BoundAdditive:
        return BoundAdditive(self, self.arrays(params))

    @abc.abstractmethod
    def at(self, arrays: Arrays, positions: jax.Array) -> jax.Array:
        """positions `[...]` -> float32 `[..., features]`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundAdditive(Bound[Additive]):
    def __call__(self, positions: jax.Array) -> jax.Array:
        """positions int32 `[T]` or `[B, T]` -> float32 `[..., T, features]`: add it to the embeddings, cast after."""
        scheme = self.scheme
        positions = checks.positions("positions", positions, fractional=scheme.fractional, axes=scheme.position_axes)
        return scheme.at(self.arrays, positions)


class Rotation(Scheme):
    """Rotates queries and keys, so that their product depends on the difference of their positions."""

    fractional = False

    def for_keys(self) -> Rotation:
        """The rotation of the keys, of the same arrays: this one, unless queries and keys are treated differently."""
        return self

    def bind(self, params: Arrays, *, length: int | jax.Array | None = None) -> BoundRotation:
        """As every scheme's; `length` is for rotations that depend on the length of the sequence."""
        if length is not None:
            raise ValueError(
                f"length is given, but {self} does not depend on it: it needs a scaling such as DynamicNTK(...), or "
                "leave out length."
            )
        return BoundRotation(self, self.arrays(params))

    @abc.abstractmethod
    def at(self, arrays: Arrays, x: jax.Array, positions: jax.Array, inverse: bool) -> jax.Array:
        """x `[..., T, N, D]`, positions `[T]` or `[..., T]` -> the shape and dtype of x."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundRotation(Bound[Rotation]):
    def __call__(self, x: jax.Array, positions: jax.Array, *, inverse: bool = False) -> jax.Array:
        """x `[T, N, D]` or `[B, T, N, D]` with positions `[T]` or `[B, T]` -> the shape and dtype of x."""
        needs = "floating [T, N, D] or [B, T, N, D]"
        checks.rank("x", x, {3, 4}, needs)
        checks.floating("x", x, needs)
        axes = self.scheme.position_axes
        positions = checks.positions("positions", positions, fractional=self.scheme.fractional, axes=axes)
        last = () if axes is None else (axes,)
        batch = positions.ndim - len(last) == 2
        expected = (*(x.shape[:-2] if batch else x.shape[-3:-2]), *last)
        checks.shape("positions", positions, expected, f"[T] or [B, T] as x, which is {checks.describe(x)}, has them")
        return self.scheme.at(self.arrays, x, positions, inverse)

    def for_keys(self) -> BoundRotation:
        """What rotates the keys: itself, but in schemes such as `XPos`, which multiply a query and divide a key."""
        return BoundRotation(self.scheme.for_keys(), self.arrays)


class Bias(Scheme):
    """Added to the attention logits, as a function of two positions. Every array it binds leads with heads or 1."""

    heads: int

    def bind(self, params: Arrays) -> BoundBias:
        return BoundBias(self, self.arrays(params))

    @abc.abstractmethod
    def pairs(self, arrays: Arrays, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        """int32 `[..., T, 1]` and `[..., 1, S]` -> float32 `[heads, ..., T, S]`; the axes of positions come last."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundBias(Bound[Bias]):
    def __call__(self, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        """int32 `[T]`, `[S]` -> float32 `[heads, T, S]`; with `[B, T]` or `[B, S]`, `[B, heads, T, S]`.

        Positions `[T]` beside `[B, S]` (or the reverse) are the same in every row.
        """
        axes = self.scheme.position_axes
        query_positions, key_positions = check_pair(query_positions, key_positions, axes=axes)
        here, there = (-1, -2) if axes is None else (-2, -3)
        query_positions, key_positions = jnp.expand_dims(query_positions, here), jnp.expand_dims(key_positions, there)
        return jnp.moveaxis(self.scheme.pairs(self.arrays, query_positions, key_positions), 0, -3)


class DistanceBias(Bias):
    """The Bias that depends on `distance = key position - query position` alone: 2S - 1 values a head, not S^2."""

    def bind(self, params: Arrays) -> BoundDistanceBias:
        return BoundDistanceBias(self, self.arrays(params))

    @abc.abstractmethod
    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        """int32 `[...]` -> float32 `[heads, ...]`; where positions have axes, `[..., A]`."""

    def pairs(self, arrays: Arrays, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        return self.at(arrays, key_positions - query_positions)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundDistanceBias(BoundBias):
    scheme: DistanceBias = dataclasses.field(metadata={"static": True})

    def at(self, distance: jax.Array) -> jax.Array:
        """int32 `[...]` -> float32 `[heads, ...]`; distance = key position - query position, its axes last."""
        distance, axes = (
            checks.integers("distance", distance, "int32 distances of any shape"),
            self.scheme.position_axes,
        )
        if axes is not None:
            checks.rank("distance", distance, range(1, 9), f"int32 distances [..., {axes}]")
            checks.shape("distance", distance, (*distance.shape[:-1], axes), f"int32 distances [..., {axes}]")
        return self.scheme.at(self.arrays, distance)


class ContentBias(Scheme):
    """Added to the attention logits, as a function of the queries and keys as well as of their positions.

    `content_axes` names the axes of the content of either side, without a batch. A scheme that `sees_mask` is a
    function of all the keys that a query attends; its `pairs` has a last argument, boolean
    `[B or 1, N or 1, T or 1, S or 1]` or None, and only implementations that hold whole rows of logits take it.
    """

    heads: int
    content_axes = ("T, N, D", "S, K, D")
    sees_mask = False

    def bind(self, params: Arrays) -> BoundContentBias:
        return BoundContentBias(self, self.arrays(params))

    @abc.abstractmethod
    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        """query `[..., T, N, D]`, key `[..., S, K, D]`, positions -> float32 `[..., heads, T, S]`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundContentBias(Bound[ContentBias]):
    content: tuple[jax.Array | None, jax.Array | None] = (None, None)

    def of(self, query: jax.Array | None = None, key: jax.Array | None = None) -> BoundContentBias:
        """The bias of other content than attention's queries or keys: `[B, T, ...]` and `[B, S, ...]`, or None."""
        return dataclasses.replace(self, content=(query, key))

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        query_positions: jax.Array,
        key_positions: jax.Array,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """query `[B, T, N, D]`, key `[B, S, K, D]`, positions -> float32 `[B, heads, T, S]`.

        What `of` was given goes before query and key. mask is for a scheme that `sees_mask`.
        """
        query, key = (given if own is None else own for own, given in zip(self.content, (query, key), strict=True))
        for name, x, axes in zip(("query", "key"), (query, key), self.scheme.content_axes, strict=True):
            needs, count = f"floating [{axes}] or [B, {axes}]", axes.count(",") + 1
            checks.rank(name, x, {count, count + 1}, needs)
            checks.floating(name, x, needs)
        positions = check_pair(query_positions, key_positions, axes=self.scheme.position_axes)
        sizes = [x.shape[-axes.count(",") - 1] for x, axes in zip((query, key), self.scheme.content_axes, strict=True)]
        _check_sizes(positions, sizes, "query and key", self.scheme.position_axes)
        if self.scheme.sees_mask:
            return self.scheme.pairs(self.arrays, query, key, *positions, mask)  # type: ignore[call-arg]
        return self.scheme.pairs(self.arrays, query, key, *positions)


class ValueBias(Scheme):
    """Added to the output of attention: to each value, a vector of the two positions."""

    def bind(self, params: Arrays) -> BoundValueBias:
        return BoundValueBias(self, self.arrays(params))

    @abc.abstractmethod
    def summed(
        self, arrays: Arrays, weights: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        """weights float32 `[..., N, T, S]`, positions -> float32 `[..., T, N, D]`, linear in weights."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundValueBias(Bound[ValueBias]):
    def __call__(self, weights: jax.Array, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        """weights `[N, T, S]` or `[B, N, T, S]`, positions -> float32 `[..., T, N, D]`: the sum over keys."""
        needs = "floating [N, T, S] or [B, N, T, S]"
        checks.rank("weights", weights, {3, 4}, needs)
        checks.floating("weights", weights, needs)
        positions = check_pair(query_positions, key_positions, axes=self.scheme.position_axes)
        _check_sizes(positions, weights.shape[-2:], "weights", self.scheme.position_axes)
        return self.scheme.summed(self.arrays, weights, *positions)


def check_pair(query_positions: Any, key_positions: Any, *, axes: int | None = None) -> tuple[jax.Array, jax.Array]:
    """Both as int32 `[T]` or `[B, T]`, of several axes `[..., A]`; two batches must be of one size."""
    query_positions = checks.positions("query_positions", query_positions, axes=axes)
    key_positions = checks.positions("key_positions", key_positions, axes=axes)
    batched = 2 if axes is None else 3
    if query_positions.ndim == key_positions.ndim == batched:
        needs = f"[B, S] with the B of query_positions, which is {checks.describe(query_positions)}"
        checks.shape("key_positions", key_positions, (query_positions.shape[0], *[None] * (batched - 1)), needs)
    elif query_positions.ndim == batched:
        key_positions = key_positions[None]
    elif key_positions.ndim == batched:
        query_positions = query_positions[None]
    return query_positions, key_positions


def _check_sizes(positions: Sequence[jax.Array], sizes: Sequence[int], of: str, axes: int | None) -> None:
    """Refuses positions of more or fewer queries or keys than there are."""
    for name, x, size in zip(("query_positions", "key_positions"), positions, sizes, strict=True):
        expected = (size,) if axes is None else (size, axes)
        shape = (*[None] * (x.ndim - len(expected)), *expected)
        checks.shape(name, x, shape, f"int32 {list(expected)} or [B, {str(list(expected))[1:]}, as {of} have them")
