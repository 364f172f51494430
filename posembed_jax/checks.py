"""The door of every public function: shapes and dtypes are chex assertions, settings and values are `ValueError`s.

Every message names the argument, what came, what is needed and the remedy.
"""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np


def describe(x: Any) -> str:
    """`float32[2, 5]` for an array, its type and value for anything else."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}{list(x.shape)}"
    return f"{type(x).__name__} {reprlib.repr(x)}"


def is_concrete(x: Any) -> bool:
    """Whether the values can be read now: not under jit, vmap or grad, and all on this host."""
    return not isinstance(x, jax.core.Tracer) and getattr(x, "is_fully_addressable", True)


def compute_dtype(dtype: Any) -> Any:
    """What sums and products of this floating dtype are done in: float32, or float64 for float64."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def array(name: str, x: Any, needs: str) -> None:
    """Refuses what is not an array (a list, a number, a Flax variable)."""
    if not isinstance(x, jax.Array | np.ndarray):
        raise TypeError(f"{name} is {describe(x)}; it needs to be {needs}: pass a jax or numpy array.")


def rank(name: str, x: Any, ranks: Collection[int], needs: str) -> None:
    array(name, x, needs)
    chex.assert_rank(
        x, set(ranks), custom_message=f"{name} is {describe(x)}; it needs to be {needs}.", include_default_message=False
    )


def shape(name: str, x: Any, expected: Sequence[int | None], needs: str) -> None:
    """`None` stands for any size."""
    array(name, x, needs)
    chex.assert_shape(
        x,
        tuple(expected),
        custom_message=f"{name} is {describe(x)}; it needs to be {needs}.",
        include_default_message=False,
    )


def floating(name: str, x: Any, needs: str) -> None:
    array(name, x, needs)
    chex.assert_type(
        x, float, custom_message=f"{name} is {describe(x)}; it needs to be {needs}.", include_default_message=False
    )


def boolean(name: str, x: Any, needs: str) -> None:
    array(name, x, needs)
    chex.assert_type(
        x,
        bool,
        custom_message=f"{name} is {describe(x)}; it needs to be {needs}: True = attend; `mask > 0` makes one.",
        include_default_message=False,
    )


def integers(name: str, x: Any, needs: str) -> jax.Array:
    """`x` as int32: any integer array whose every value fits, by its dtype or because it can be read on the host."""
    if isinstance(x, int | list | tuple | np.generic):
        x = np.asarray(x)
        x = x if x.size else x.astype(np.int32)  # of [] numpy makes floats
    array(name, x, needs)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        remedy = "an int32 array; positions and ids are never cast to the activation dtype, which merges neighbours"
        raise TypeError(f"{name} is {describe(x)}; it needs to be {needs}: pass {remedy}.")
    if x.dtype.itemsize > 4 or x.dtype == jnp.uint32:
        host = isinstance(x, np.ndarray)
        if not host or (x.size and (x.min() < -(2**31) or x.max() >= 2**31)):
            raise TypeError(f"{name} is {describe(x)}; it needs to be {needs}: cast it with `.astype(jnp.int32)`.")
    return jnp.asarray(x, jnp.int32)


def positions(
    name: str, x: Any, *, fractional: bool = False, ranks: Collection[int] = (1, 2), axes: int | None = None
) -> jax.Array:
    """Positions as int32, or float32 where the scheme was told `fractional=True`; of several axes, the axes last."""
    needs = "int32 positions [T] or [B, T]" if axes is None else f"int32 positions [T, {axes}] or [B, T, {axes}]"
    if fractional and hasattr(x, "dtype") and x.dtype == jnp.float32:
        x = jnp.asarray(x)
    elif fractional and hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} is {describe(x)}; fractional positions need to be float32: narrower floats merge neighbours."
        )
    else:
        hint = "" if fractional else " (float32 with `fractional=True`, in schemes that have it)"
        x = integers(name, x, needs + hint)
    rank(name, x, ranks if axes is None else [r + 1 for r in ranks], needs)
    if axes is not None:
        shape(name, x, (*[None] * (x.ndim - 1), axes), needs)
    return x


def one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it needs to be one of {', '.join(map(repr, choices))}.")


def rate(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or not 0.0 <= float(value) < 1.0:
        raise ValueError(f"{name} is {value!r}; it needs to be a Python number of at least 0 and below 1.")


def contract(name: str, value: Any, contracts: Any, example: str) -> None:
    if not isinstance(value, contracts):
        raise TypeError(f"{name} is {reprlib.repr(value)}; it needs to be {example}: check which argument it is for.")


def axis_names(name: str, value: Any, arrays: Collection[str]) -> None:
    """Axes of arrays by name, or None: a name that no array has would leave one unsharded without a word."""
    if value is not None and not (isinstance(value, Mapping) and set(value) <= set(arrays)):
        came = repr(dict(value)) if isinstance(value, Mapping) else describe(value)
        raise ValueError(f"{name} is {came}; it needs to be a dict of axes by name, and the names are {list(arrays)}.")


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it needs to be True or False.")


def integer_setting(name: str, value: Any, minimum: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} is {value!r}; it needs to be a Python int of at least {minimum}.")


def number_setting(name: str, value: Any, above: float = 0.0) -> None:
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value <= above:
        raise ValueError(f"{name} is {value!r}; it needs to be a finite Python number above {above:g}.")


def float_dtype(name: str, value: Any) -> None:
    try:
        floating = value is None or jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(f"{name} is {value!r}; it needs to be a floating dtype such as jnp.bfloat16.")


def factor(name: str, value: Any) -> None:
    """A Python number, or an array of rank 0, which may be traced."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        number_setting(name, value)
    elif value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{name} is {describe(value)}; it needs to be a Python number or a floating array of rank 0.")


def window_sizes(size: Any) -> tuple[int, int]:
    """How far a window goes to the left and to the right, from `(left, right)` or one int for both."""
    left, right = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    integer_setting("left size of the window", left, minimum=0)
    integer_setting("right size of the window", right, minimum=0)
    return left, right


def are_integers(value: Any) -> bool:
    """Whether it is a tuple of Python ints."""
    return isinstance(value, tuple) and all(isinstance(x, int) and not isinstance(x, bool) for x in value)


def sizes(name: str, value: Any, minimum: int = 1) -> None:
    if not isinstance(value, tuple) or not value:
        raise ValueError(f"{name} is {value!r}; it needs to be a tuple of sizes, such as (height, width).")
    for axis, size in enumerate(value):
        integer_setting(f"{name}[{axis}]", size, minimum)
