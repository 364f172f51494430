"""xPos: RoPE whose product of a query and a key also decays with their distance, in each pair at its own rate."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import Rotation
from posembed_jax.scheme import Arrays, Initializer
from posembed_jax.schemes import phase
from posembed_jax.schemes.frequencies import CONTEXT
from posembed_jax.schemes.length_scaling import LengthScaling
from posembed_jax.schemes.rotary import RoPE

SIDES = ("query", "key")
LARGEST = 60  # amplitudes are 2^-60 ... 2^60, so that a product of two, with content, is a float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class XPos(Rotation):
    """Queries are rotated and multiplied, keys rotated and divided, so that their product decays with the distance.

        zeta[i] = (2 i / dim + gamma) / (1 + gamma)                     # of pair i
        query = rope(query) * zeta ** ((position - centre) / scale_base)
        key = rope(key) / zeta ** ((position - centre) / scale_base)
        query @ key decays as zeta ** ((query position - key position) / scale_base)

    The centre cancels in the product. It is a setting: where it follows the length of the sequence, as in the first
    code, keys in a cache no longer fit new queries.

    The powers are exact to 1e-7 up to `reach` positions from the centre, where one is 2^60: 16,997 by default, twice
    as many for twice the scale_base. Further away concrete positions are refused and traced ones give NaN. A float16
    holds 2^15, and so a quarter of that. A cache that outgrows the reach is moved to another centre by
    `rerotate(keys, positions, old=old.for_keys(), new=new.for_keys())`.

    Args:
        rope: the rotation, of int32 positions without axes, blocks and length. The authors' layout is "interleaved".
        centre: the position at which nothing is multiplied, best in the middle of the positions in use.
        scale_base: larger decays more slowly.
        gamma: larger decays more slowly.
        side: what is rotated, the "query" or the "key". `for_keys()` is the same with "key"; attention layers call it.

    Params: those of rope.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> xpos = pe.XPos(rope=pe.RoPE(dim=8, layout="interleaved"), centre=512).bind({})
    >>> at, q, k = pe.positions.arange(5, 1000), jnp.ones((5, 4, 8)), jnp.ones((5, 2, 8))
    >>> q, k = xpos(q, at), xpos.for_keys()(k, at)
    >>> q.shape, k.shape, xpos.scheme.reach
    ((5, 4, 8), (5, 2, 8), 16997)

    Source: https://arxiv.org/abs/2212.10554.
    """

    rope: RoPE
    centre: int
    scale_base: float = 512.0
    gamma: float = 0.4
    side: str = "query"

    def __post_init__(self):
        checks.contract("rope", self.rope, RoPE, "RoPE(...)")
        if self.rope.axes is not None or self.rope.fractional:
            raise ValueError(f"rope is {self.rope}; it needs to be of int32 positions: without axes and fractional.")
        if self.rope.blocks > 1 or isinstance(self.rope.scaling, LengthScaling):
            raise ValueError(
                f"rope is {self.rope}; it needs to be without blocks, and without a scaling that depends on the length."
            )
        checks.integer_setting("centre", self.centre, minimum=0)
        checks.number_setting("scale_base", self.scale_base)
        checks.number_setting("gamma", self.gamma)
        checks.one_of("side", self.side, SIDES)

    def for_keys(self) -> XPos:
        return dataclasses.replace(self, side="key")

    def inits(self) -> dict[str, Initializer]:
        return self.rope.inits()

    def constants(self) -> dict[str, np.ndarray]:
        # As turns, because their fixed point is of turns: what is left of whole ones is the fraction of the power.
        return {**self.rope.constants(), "rates": phase.turns(tuple(r * phase.TAU for r in self._rates()))}

    @property
    def reach(self) -> int:
        """How far from the centre a position may be."""
        return min(math.floor(LARGEST / max(abs(rate) for rate in self._rates())), 2**31 - 1)

    def _rates(self) -> tuple[Decimal, ...]:
        """`log2(zeta) / scale_base`: the query's power of two per position, at most 0."""
        count, gamma = self.rope.dim // 2, Decimal(self.gamma)
        with localcontext(CONTEXT):
            zetas = [(Decimal(i) / count + gamma) / (1 + gamma) for i in range(count)]
            return tuple(zeta.ln() / Decimal(2).ln() / Decimal(self.scale_base) for zeta in zetas)

    def at(self, arrays: Arrays, x: jax.Array, positions: jax.Array, inverse: bool) -> jax.Array:
        lowest, highest = self.centre - self.reach, self.centre + self.reach
        if checks.is_concrete(positions):
            at = np.asarray(positions)
            if at.size and (at.min() < lowest or at.max() > highest):
                raise ValueError(
                    f"positions go from {at.min()} to {at.max()}, but xPos with centre {self.centre} reaches from "
                    f"{lowest} to {highest}: move the centre, or make scale_base larger."
                )
        inside = (positions >= max(lowest, -(2**31))) & (positions <= min(highest, 2**31 - 1))
        powers = self._powers(arrays["rates"], positions, (self.side == "key") != inverse, x.shape[-1])
        scale = lax.optimization_barrier(jnp.where(inside[..., None], powers, jnp.nan))[..., None, :]
        compute = checks.compute_dtype(x.dtype)
        scaled = x.astype(compute) * scale.astype(compute).reshape(*[1] * (x.ndim - scale.ndim), *scale.shape)
        return self.rope.at(arrays, scaled, positions, inverse).astype(x.dtype)

    def _powers(self, rates: jax.Array, positions: jax.Array, divide: bool, width: int) -> jax.Array:
        """`zeta ** ((position - centre) / scale_base)` or its inverse for each channel: float32 `[..., T, width]`."""
        rope, rate = self.rope, np.array(self._rates(), np.float64).astype(np.float32)
        count = len(rate)
        start = 0 if rope.rotated == "first" else width - rope.dim
        pair = np.full(width, count)  # what does not turn is not multiplied: rate 0
        pair[start : start + rope.dim] = (
            np.tile(np.arange(count), 2) if rope.layout == "half" else np.arange(count).repeat(2)
        )
        words = jnp.pad(rates, ((0, 0), (0, 1)))[:, pair]
        distance = (positions - self.centre)[..., None]
        part = phase.travelled(distance, words).astype(jnp.float32) * np.float32(2.0**-32)  # -1/2 ... 1/2
        approximate = distance.astype(jnp.float32) * np.append(rate, np.float32(0))[pair].reshape(
            *[1] * positions.ndim, -1
        )
        whole, sign = jnp.round(approximate - part).astype(jnp.int32), -1 if divide else 1
        return jnp.ldexp(jnp.exp2(sign * part), sign * whole)
