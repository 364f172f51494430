"""The contracts: what a position scheme is, and the four places in a transformer where one can act.

A scheme is a frozen dataclass of settings. It is hashable and comparable, so equal settings share one trace. It says
what it learns (`inits`), what it has fixed on the host (`constants`), and its mathematics over a dict of arrays.
`bind` joins settings and arrays into a callable that is a pytree: it passes through jit, grad, vmap and shard_map, and
attention calls it without knowing which scheme it is.

    Additive      bound(positions)                                        -> [..., T, F]      added to the embedding
    Rotation      bound(x, positions, inverse=False)                      -> like x           rotates queries and keys
    Bias          bound(query_positions, key_positions)                   -> [..., N, T, S]   added to the logits
    DistanceBias  the Bias that depends on key position - query position alone; it also has bound.at(distance)
    ContentBias   bound(query, key, query_positions, key_positions)       -> [..., N, T, S]   added to the logits

Positions are int32 `[T]`, or `[B, T]` when every row has its own. Keys are rotated by `bound.for_keys()`, the same
as bound wherever a scheme treats queries and keys alike.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks

Arrays = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Initializer:
    """How one learned array begins: `initializer(key, dtype)` draws it, with `draw` from `jax.nn.initializers`."""

    shape: tuple[int, ...]
    draw: Callable[..., jax.Array]

    def __call__(self, key: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
        return self.draw(key, self.shape, dtype)


def normal(stddev: float, shape: tuple[int, ...]) -> Initializer:
    """An `Initializer` with `N(0, stddev^2)` entries.

    >>> import jax, posembed_jax as pe
    >>> pe.normal(0.02, (3, 4))(jax.random.key(0)).shape
    (3, 4)
    """
    checks.number_setting("stddev", stddev)
    for axis, size in enumerate(shape):
        checks.integer_setting(f"shape[{axis}]", size)
    return Initializer(shape, jax.nn.initializers.normal(stddev))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme(abc.ABC):
    """Settings of a position scheme. Subclass one of the contracts below, not this."""

    def inits(self) -> dict[str, Initializer]:
        """What is learned: name -> initializer. Empty for a scheme that learns nothing."""
        return {}

    def constants(self) -> dict[str, np.ndarray]:
        """What is fixed: name -> host array. Neither a parameter nor saved in a checkpoint."""
        return {}

    def arrays(self, params: Arrays) -> dict[str, jax.Array]:
        """`params`, checked against `inits` by name, shape and dtype, together with `constants`."""
        inits, name = self.inits(), type(self).__name__
        if not isinstance(params, Mapping) or set(params) != set(inits):
            came = sorted(params) if isinstance(params, Mapping) else checks.describe(params)
            raise ValueError(
                f"params is {came}; {name} needs a dict with exactly the names {sorted(inits)}: "
                "make it with `posembed_jax.init(scheme, key)`."
            )
        for key, initializer in inits.items():
            needs = f"floating {list(initializer.shape)} as the settings of {name} say"
            checks.shape(f"params[{key!r}]", params[key], initializer.shape, needs)
            checks.floating(f"params[{key!r}]", params[key], needs)
        return {key: jnp.asarray(value) for key, value in {**params, **self.constants()}.items()}

    @abc.abstractmethod
    def bind(self, params: Arrays) -> Bound[Any]:
        """The callable of this scheme with these learned arrays (`{}` when it learns nothing)."""


def init(scheme: Scheme, key: jax.Array, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """The learned arrays of `scheme`, drawn from `key`: name -> array of `dtype`.

    >>> import jax, posembed_jax as pe
    >>> params = pe.init(pe.T5Bias(heads=8, bidirectional=False), jax.random.key(0))
    >>> params["table"].shape
    (8, 32)
    """
    checks.contract("scheme", scheme, Scheme, "a scheme such as T5Bias(...)")
    return {
        name: initializer(jax.random.fold_in(key, index), dtype)
        for index, (name, initializer) in enumerate(scheme.inits().items())
    }


SchemeT = TypeVar("SchemeT", bound=Scheme)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bound(Generic[SchemeT]):
    """A scheme with its arrays: a pytree whose leaves are the arrays and whose structure is the settings."""

    scheme: SchemeT = dataclasses.field(metadata={"static": True})
    arrays: dict[str, jax.Array]


class Additive(Scheme):
    """Added to the token embedding."""

    fractional = False

    def bind(self, params: Arrays) -> BoundAdditive:
        return BoundAdditive(self, self.arrays(params))

    @abc.abstractmethod
    def at(self, arrays: Arrays, positions: jax.Array) -> jax.Array:
        """positions `[...]` -> float32 `[..., features]`."""


class Rotation(Scheme):
    """Rotates queries and keys, so that their product depends on the difference of their positions."""

    fractional = False

    @property
    def position_axes(self) -> int | None:
        """How many numbers a position is: the last axis of positions. None where it is one, without that axis."""
        return None

    def for_keys(self) -> Rotation:
        """The rotation of the keys, of the same arrays: this one, unless queries and keys are treated differently."""
        return self

    def bind(self, params: Arrays) -> BoundRotation:
        return BoundRotation(self, self.arrays(params))

    @abc.abstractmethod
    def at(self, arrays: Arrays, x: jax.Array, positions: jax.Array, inverse: bool) -> jax.Array:
        """x `[..., T, N, D]`, positions `[T]` or `[..., T]` -> the shape and dtype of x."""


class Bias(Scheme):
    """Added to the attention logits, as a function of two positions. Every array it binds leads with heads or 1."""

    heads: int

    def bind(self, params: Arrays) -> BoundBias:
        return BoundBias(self, self.arrays(params))

    @abc.abstractmethod
    def pairs(self, arrays: Arrays, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        """int32 `[..., T, 1]` and `[..., 1, S]` -> float32 `[heads, ..., T, S]`."""


class DistanceBias(Bias):
    """The Bias that depends on `distance = key position - query position` alone: 2S - 1 values a head, not S^2."""

    def bind(self, params: Arrays) -> BoundDistanceBias:
        return BoundDistanceBias(self, self.arrays(params))

    @abc.abstractmethod
    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        """int32 `[...]` -> float32 `[heads, ...]`."""

    def pairs(self, arrays: Arrays, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        return self.at(arrays, key_positions - query_positions)


class ContentBias(Scheme):
    """Added to the attention logits, as a function of the queries and keys as well as of their positions."""

    heads: int

    def bind(self, params: Arrays) -> BoundContentBias:
        return BoundContentBias(self, self.arrays(params))

    @abc.abstractmethod
    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        """query `[..., T, N, D]`, key `[..., S, K, D]`, positions -> float32 `[..., heads, T, S]`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundAdditive(Bound[Additive]):
    def __call__(self, positions: jax.Array) -> jax.Array:
        """positions int32 `[T]` or `[B, T]` -> float32 `[..., T, features]`: add it to the embeddings, cast after."""
        positions = checks.positions("positions", positions, fractional=self.scheme.fractional)
        return self.scheme.at(self.arrays, positions)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundRotation(Bound[Rotation]):
    def __call__(self, x: jax.Array, positions: jax.Array, *, inverse: bool = False) -> jax.Array:
        """x `[T, N, D]` or `[B, T, N, D]` with positions `[T]` or `[B, T]` -> the shape and dtype of x.

        Where the scheme has `position_axes`, positions end in so many numbers: `[T, A]` or `[B, T, A]`.
        """
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundBias(Bound[Bias]):
    def __call__(self, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        """int32 `[T]`, `[S]` -> float32 `[heads, T, S]`; with `[B, T]` or `[B, S]`, `[B, heads, T, S]`.

        Positions `[T]` beside `[B, S]` (or the reverse) are the same in every row.
        """
        query_positions, key_positions = check_pair(query_positions, key_positions)
        values = self.scheme.pairs(self.arrays, query_positions[..., :, None], key_positions[..., None, :])
        return jnp.moveaxis(values, 0, -3)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundDistanceBias(BoundBias):
    scheme: DistanceBias = dataclasses.field(metadata={"static": True})

    def at(self, distance: jax.Array) -> jax.Array:
        """int32 `[...]` -> float32 `[heads, ...]`; distance = key position - query position."""
        return self.scheme.at(self.arrays, checks.integers("distance", distance, "int32 distances of any shape"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundContentBias(Bound[ContentBias]):
    def __call__(
        self, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        """query `[B, T, N, D]`, key `[B, S, K, D]`, positions -> float32 `[B, heads, T, S]`."""
        query_needs, key_needs = "floating [T, N, D] or [B, T, N, D]", "floating [S, K, D] or [B, S, K, D]"
        for name, x, needs in (("query", query, query_needs), ("key", key, key_needs)):
            checks.rank(name, x, {3, 4}, needs)
            checks.floating(name, x, needs)
        query_positions, key_positions = check_pair(query_positions, key_positions)
        return self.scheme.pairs(self.arrays, query, key, query_positions, key_positions)


def check_pair(query_positions: Any, key_positions: Any) -> tuple[jax.Array, jax.Array]:
    """Both as int32 `[T]` or `[B, T]`; two batches must be of one size."""
    query_positions = checks.positions("query_positions", query_positions)
    key_positions = checks.positions("key_positions", key_positions)
    if query_positions.ndim == key_positions.ndim == 2:
        needs = f"[B, S] with the B of query_positions, which is {checks.describe(query_positions)}"
        checks.shape("key_positions", key_positions, (query_positions.shape[0], None), needs)
    elif query_positions.ndim == 2:
        key_positions = key_positions[None]
    elif key_positions.ndim == 2:
        query_positions = query_positions[None]
    return query_positions, key_positions
