"""Resonance RoPE: wavelengths that are whole numbers of positions."""

from __future__ import annotations

import dataclasses
from decimal import Decimal, localcontext

from posembed_jax.schemes import phase
from posembed_jax.schemes.frequencies import CONTEXT, Frequencies
from posembed_jax.schemes.length_scaling import LengthScaling
from posembed_jax.schemes.scaling import Scaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resonance(Scaling):
    """Each wavelength is rounded to a whole number of positions, after another scaling or none: Resonance RoPE.

        frequencies = 2 pi / round(2 pi / frequencies)

    A pair then turns through the same angles in every period, so longer sequences bring it none that are new.

    >>> import math
    >>> import posembed_jax as pe
    >>> rope = pe.RoPE(dim=4, layout="half", scaling=pe.Resonance())
    >>> [round(math.tau / float(f), 9) for f in rope.frequencies()]
    [6.0, 628.0]

    Source: https://arxiv.org/abs/2403.00071.
    """

    scaling: Scaling | None = None

    def __post_init__(self):
        if isinstance(self.scaling, LengthScaling) or not isinstance(self.scaling, Scaling | None):
            raise TypeError(f"scaling is {self.scaling}; it needs to be None or a Scaling that depends on no length.")

    def amplitude(self) -> float:
        return self.scaling.amplitude() if self.scaling else 1.0

    def check(self, count: int) -> None:
        if self.scaling:
            self.scaling.check(count)

    def scale(self, frequencies: Frequencies, base: float) -> Frequencies:
        if self.scaling:
            frequencies = self.scaling.scale(frequencies, base)
        if max(frequencies, default=Decimal(0)) >= 2 * phase.TAU:
            raise ValueError(f"scaling is {self}; a wavelength of less than half a position has no whole number.")
        with localcontext(CONTEXT):
            return tuple(f and phase.TAU / (phase.TAU / f).to_integral_value() for f in frequencies)
