"""A bias of several axes as a sum of distance biases, one for each."""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import TypeVar

import jax
import numpy as np

from posembed_jax import checks
from posembed_jax.contracts import DistanceBias
from posembed_jax.scheme import Arrays, Initializer

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxisBias(DistanceBias):
    """The sum of distance biases, each a function of its own axis of the positions.

        bias[n, t, s] = sum_a biases[a](query_positions[t, a], key_positions[s, a])[n]

    LayoutLMv2 and LayoutLMv3 have three of T5: of the position in the text, of the left of a token's box and of its
    bottom, whose weights are tables as here; the latter divides all three by `sqrt(D)`. A bias that has several axes,
    such as `SwinBias`, takes as many.

    Args:
        biases: one `DistanceBias` for each axis, all of the same heads.

    Params: those of the biases, with their number: `{"table_0": ..., "table_1": ...}`.

    >>> import jax, posembed_jax as pe
    >>> scheme = pe.AxisBias(biases=(pe.ALiBi(heads=2), pe.T5Bias(heads=2, bidirectional=True)))
    >>> params, at = pe.init(scheme, jax.random.key(0)), pe.positions.grid((2, 3))
    >>> {name: x.shape for name, x in params.items()}, scheme.bind(params)(at, at).shape
    ({'table_1': (2, 32)}, (2, 6, 6))

    Source: https://arxiv.org/abs/2012.14740, section 2.1.
    """

    biases: tuple[DistanceBias, ...]

    def __post_init__(self):
        if not isinstance(self.biases, tuple) or not self.biases:
            raise ValueError(f"biases is {self.biases!r}; it needs to be a tuple of a DistanceBias for each axis.")
        for index, bias in enumerate(self.biases):
            checks.contract(f"biases[{index}]", bias, DistanceBias, "a DistanceBias such as T5Bias(...)")
            if bias.heads != self.heads:
                raise ValueError(f"biases[{index}] has {bias.heads} heads; it needs {self.heads}, as the first.")

    @property
    def heads(self) -> int:  # type: ignore[override]
        return self.biases[0].heads

    @property
    def position_axes(self) -> int:
        return sum(bias.position_axes or 1 for bias in self.biases)

    def inits(self) -> dict[str, Initializer]:
        return _numbered([bias.inits() for bias in self.biases])

    def constants(self) -> dict[str, np.ndarray]:
        return _numbered([bias.constants() for bias in self.biases])

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        values, axis = [], 0
        for index, bias in enumerate(self.biases):
            own = {name: arrays[f"{name}_{index}"] for name in (*bias.inits(), *bias.constants())}
            axes = bias.position_axes
            values.append(bias.at(own, distance[..., axis] if axes is None else distance[..., axis : axis + axes]))
            axis += axes or 1
        dtype = np.result_type(*(x.dtype for x in values))  # float64 where any table is
        return functools.reduce(operator.add, (x.astype(dtype) for x in values))


def _numbered(of_biases: list[dict[str, T]]) -> dict[str, T]:
    return {f"{name}_{index}": x for index, found in enumerate(of_biases) for name, x in found.items()}
