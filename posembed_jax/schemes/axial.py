"""Learned tables of each axis, added or side by side: far fewer rows than positions."""

from __future__ import annotations

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks, lookup
from posembed_jax.contracts import Additive
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes.absolute import check_order


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxialPositions(Additive):
    """A learned table for each axis of the positions.

        x[t] = table_0[positions[t, 0]] | table_1[positions[t, 1]] | ...          join="concatenate"
        x[t] = table_0[positions[t, 0]] + table_1[positions[t, 1]] + ...          join="add"

    Args:
        shape: how many rows each table has, such as (height, width).
        features: F, of the result.
        join: "concatenate" (Reformer, DETR, LayoutLMv3) or "add" (Pix2Struct, Kosmos-2.5, LayoutLM).
        channels: of each table when they are concatenated, F in all; None shares F evenly.
        order: the axes in the order of their channels: (1, 0) in DETR, whose columns come first.
        tables: for each axis the number of its table, where axes share one: (0, 1, 0, 1, 2, 3) for LayoutLM's left,
            top, right, bottom, height and width. None is 0, 1, ...
        stddev: of the normal initializer.
        out_of_range: as in `LearnedPositions`.

    Positions are `positions.grid(shape)`, or `positions.unravel(numbers, shape)` for tokens that are counted through,
    as in Reformer, where a number past the product of shape is past the first table and so an error.

    Params: `{"table_0": [shape[0], channels[0]], "table_1": ...}`.

    >>> import jax, posembed_jax as pe
    >>> scheme = pe.AxialPositions(shape=(2, 3), features=8, join="concatenate", channels=(2, 6))
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(pe.positions.grid((2, 3))).shape
    (6, 8)

    Source: https://arxiv.org/abs/1912.12180, section 2.
    """

    shape: tuple[int, ...]
    features: int
    join: str
    channels: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    tables: tuple[int, ...] | None = None
    stddev: float = 0.02
    out_of_range: str = "error"

    def __post_init__(self):
        checks.sizes("shape", self.shape)
        checks.integer_setting("features", self.features)
        checks.one_of("join", self.join, ("concatenate", "add"))
        checks.number_setting("stddev", self.stddev)
        checks.one_of("out_of_range", self.out_of_range, lookup.OUT_OF_RANGE)
        if self.tables is not None and (
            not checks.are_integers(self.tables) or set(self.tables) != set(range(len(self.shape)))
        ):
            raise ValueError(f"tables is {self.tables!r}; it needs to name each of {len(self.shape)} tables: 0, 1, ...")
        check_order(self.order, self.position_axes)
        if self.channels is None and self.join == "concatenate" and self.features % self.position_axes:
            raise ValueError(
                f"features is {self.features}; it needs to be a multiple of the {self.position_axes} axes: pass "
                "channels=, one for each table."
            )
        if self.channels is not None:
            checks.sizes("channels", self.channels)
            total = sum(self.channels[table] for table in self.of_axes) if len(self.channels) == len(self.shape) else 0
            if self.join == "add" or total != self.features:
                raise ValueError(
                    f"channels is {self.channels}; with join='concatenate' it needs one for each of the tables of "
                    f"{self.shape} and {self.features} in all, and with 'add' None."
                )

    @property
    def of_axes(self) -> tuple[int, ...]:
        """The table of each axis."""
        return tuple(range(len(self.shape))) if self.tables is None else self.tables

    @property
    def position_axes(self) -> int:
        return len(self.of_axes)

    def inits(self) -> dict[str, Initializer]:
        even = self.features if self.join == "add" else self.features // self.position_axes
        channels = self.channels or (even,) * len(self.shape)
        rows = zip(self.shape, channels, strict=True)
        return {f"table_{index}": normal(self.stddev, sizes) for index, sizes in enumerate(rows)}

    def at(self, arrays: Arrays, positions: jax.Array) -> jax.Array:
        read = [
            lookup.rows(
                arrays[f"table_{self.of_axes[axis]}"],
                positions[..., axis],
                name=f"positions[..., {axis}]",
                out_of_range=self.out_of_range,
            )
            for axis in self.order or range(self.position_axes)
        ]
        dtype = np.result_type(*(x.dtype for x in read))  # float64 where any table is
        read = [x.astype(dtype) for x in read]
        return jnp.concatenate(read, axis=-1) if self.join == "concatenate" else functools.reduce(operator.add, read)
