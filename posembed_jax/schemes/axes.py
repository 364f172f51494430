"""RoPE in several dimensions, as data: which number of a position turns which pair of channels."""

from __future__ import annotations

import dataclasses

from posembed_jax import checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axes:
    """Which number of a position turns which pair of channels, and by which frequency: RoPE in two and more dimensions.

        angle[i] = position[axis[i]] * frequencies[index[i]],    frequencies[k] = base ** (-k / count), scaled

    Args:
        axis: for each of the dim / 2 pairs, a number of the position: 0 ... A - 1. Or for each of dim channels, in
            order, where the two of a pair turn by different angles (Hunyuan's xDRoPE, V-JEPA 2).
        index: for each pair, or channel, a frequency.
        count: how many frequencies there are.

    `sections`, `interleaved` and `blocks` make the usual ones.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> rope = pe.RoPE(dim=8, layout="half", axes=pe.Axes.blocks(axes=2, count=2))
    >>> rope.bind({})(jnp.ones((6, 4, 8)), pe.positions.grid((2, 3))).shape
    (6, 4, 8)

    Source: https://arxiv.org/abs/2409.12191, section 2.1.
    """

    axis: tuple[int, ...]
    index: tuple[int, ...]
    count: int

    def __post_init__(self):
        checks.integer_setting("count", self.count)
        for name, limit in (("axis", len(self.axis)), ("index", self.count)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(i, int) and 0 <= i < limit for i in values):
                raise ValueError(f"{name} is {values!r}; it needs to be a tuple of ints in 0 ... {limit - 1}.")
        if len(self.axis) != len(self.index):
            raise ValueError(f"index is {self.index}; it needs one int for each of axis, {len(self.axis)}.")

    @classmethod
    def sections(cls, sizes: tuple[int, ...]) -> Axes:
        """Runs of pairs, one for each axis; frequencies go on from run to run. Qwen2-VL's time, height, width."""
        _check_sizes(sizes)
        axis = tuple(a for a, size in enumerate(sizes) for _ in range(size))
        return cls(axis=axis, index=tuple(range(len(axis))), count=len(axis))

    @classmethod
    def interleaved(cls, sizes: tuple[int, ...]) -> Axes:
        """Axes in turn, 0 1 2 0 1 2 ..., until each has its size, or there are no more pairs; others are of axis 0.

        Qwen3-VL.
        """
        _check_sizes(sizes)
        count, number = sum(sizes), len(sizes)
        axis = tuple(i % number if i // number < sizes[i % number] else 0 for i in range(count))
        return cls(axis=axis, index=tuple(range(count)), count=count)

    @classmethod
    def blocks(cls, *, axes: int, count: int) -> Axes:
        """A block of `count` pairs for each axis, with the same frequencies in each: vision transformers."""
        axis = tuple(a for a in range(axes) for _ in range(count))
        return cls(axis=axis, index=tuple(range(count)) * axes, count=count)


def _check_sizes(sizes: tuple[int, ...]) -> None:
    if not sizes or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ValueError(f"sizes is {sizes!r}; it needs to be a number of pairs for each axis, such as (16, 24, 24).")
