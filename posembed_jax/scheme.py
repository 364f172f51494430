"""What a position scheme is.

A scheme is a frozen dataclass of settings. It is hashable and comparable, so equal settings share one trace. It says
what it learns (`inits`), what it has fixed on the host (`constants`), and its mathematics over a dict of arrays.
`bind` joins settings and arrays into a callable that is a pytree: it passes through jit, grad, vmap and shard_map, and
attention calls it without knowing which scheme it is. `contracts.py` has the places where schemes can act.
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
    if not isinstance(shape, tuple):
        raise ValueError(f"shape is {shape!r}; it needs to be a tuple of sizes.")
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

    @property
    def position_axes(self) -> int | None:
        """How many numbers a position is: the last axis of positions. None where it is one, without that axis."""
        return None

    @abc.abstractmethod
    def bind(self, params: Arrays) -> Bound[Any]:
        """The callable of this scheme with these learned arrays (`{}` when it learns nothing)."""


def check_settings(scheme: Any) -> None:
    """Refuses what is not the settings of a scheme, such as its class or a bound one."""
    checks.contract("scheme", scheme, Scheme, "a scheme such as T5Bias(...)")


def init(scheme: Scheme, key: jax.Array, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """The learned arrays of `scheme`, drawn from `key`: name -> array of `dtype`.

    >>> import jax, posembed_jax as pe
    >>> params = pe.init(pe.T5Bias(heads=8, bidirectional=False), jax.random.key(0))
    >>> params["table"].shape
    (8, 32)
    """
    check_settings(scheme)
    checks.float_dtype("dtype", dtype)
    return {
        name: initializer(jax.random.fold_in(key, index), dtype)
        for index, (name, initializer) in enumerate(scheme.inits().items())
    }


SchemeT = TypeVar("SchemeT", bound=Scheme)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)  # by identity: arrays have no hash, and `jax.jit(bound)` asks for one
class Bound(Generic[SchemeT]):
    """A scheme with its arrays: a pytree whose leaves are the arrays and whose structure is the settings."""

    scheme: SchemeT = dataclasses.field(metadata={"static": True})
    arrays: dict[str, jax.Array]

    @property
    def position_axes(self) -> int | None:
        return self.scheme.position_axes
