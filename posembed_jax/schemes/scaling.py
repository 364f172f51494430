"""Rotary scalings: what is done to the frequencies of RoPE so that a model reaches further than it was trained.

A scaling is `frequencies -> frequencies` on the host, and a factor for cos and sin. Those that depend on the length of
the sequence are in `length_scaling`.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from decimal import Decimal, localcontext

from posembed_jax import checks
from posembed_jax.schemes import phase
from posembed_jax.schemes.frequencies import CONTEXT, Frequencies, divided, partly_divided, stretched


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling(abc.ABC):
    """What is done to the frequencies `base ** (-i / n)`, i = 0 ... n - 1. Hashable settings; subclass to add one."""

    def amplitude(self) -> float:
        """By which cos and sin are multiplied, and so the logits twice."""
        return 1.0

    def check(self, count: int) -> None:  # noqa: B027
        """Refuses what does not fit `count` frequencies."""

    @abc.abstractmethod
    def scale(self, frequencies: Frequencies, base: float) -> Frequencies:
        """The frequencies to use instead, as many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Scaling):
    """Position interpolation: `frequencies / factor`.

    >>> import posembed_jax as pe
    >>> rope = pe.RoPE(dim=4, layout="half", scaling=pe.Linear(factor=8.0))
    >>> [float(f) for f in rope.frequencies()]
    [0.125, 0.00125]

    Source: https://arxiv.org/abs/2306.15595.
    """

    factor: float

    def __post_init__(self):
        checks.number_setting("factor", self.factor)

    def scale(self, frequencies: Frequencies, base: float) -> Frequencies:
        return divided(frequencies, [self.factor] * len(frequencies))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NTK(Scaling):
    """NTK-aware: `base * factor ** (dim / (dim - 2))` for base. Hunyuan's alpha is this factor.

    >>> import posembed_jax as pe
    >>> rope = pe.RoPE(dim=4, layout="half", scaling=pe.NTK(factor=8.0))
    >>> [float(f) for f in rope.frequencies()]
    [1.0, 0.00125]

    Source: https://arxiv.org/abs/2309.00071, definition 1.
    """

    factor: float

    def __post_init__(self):
        checks.number_setting("factor", self.factor)

    def scale(self, frequencies: Frequencies, base: float) -> Frequencies:
        return stretched(frequencies, Decimal(self.factor))


@dataclasses.dataclass(frozen=True, kw_only=True)
class YaRN(Scaling):
    """Low frequencies are divided by factor, high ones kept, and those between mixed: NTK-by-parts.

        turns[i] = original_length * frequencies[i] / (2 pi)            # over the original length
        index(x) = the real i at which turns[i] = x
        low, high = index(beta_fast), index(beta_slow)                  # rounded outwards if truncate, then clipped
        ramp[i] = clip((i - low) / (high - low), 0, 1)
        frequencies * (1 - ramp) + frequencies / factor * ramp

    Args:
        factor: the new length over the original one.
        original_length: positions that the model was trained with.
        beta_fast, beta_slow: turns over the original length above which a frequency stays, below which it is divided.
        truncate: round low down and high up to whole indices.
        attention_factor: by which cos and sin are multiplied. None: `m(factor, 1)`, with `m(s, w) = 0.1 w ln(s) + 1`
            for s > 1, else 1; or, where both mscale and mscale_all_dim are given and not 0, the ratio
            `m(factor, mscale) / m(factor, mscale_all_dim)` (DeepSeek). 1.0 is NTK-by-parts alone.

    >>> import posembed_jax as pe
    >>> round(pe.YaRN(factor=4.0, original_length=4096).amplitude(), 4)
    1.1386

    Source: https://arxiv.org/abs/2309.00071, section 3.
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None

    def __post_init__(self):
        checks.number_setting("factor", self.factor)
        checks.integer_setting("original_length", self.original_length)
        checks.number_setting("beta_slow", self.beta_slow)
        checks.number_setting("beta_fast", self.beta_fast)
        if self.beta_fast < self.beta_slow:
            raise ValueError(f"beta_fast is {self.beta_fast}; it needs to be at least beta_slow, {self.beta_slow}.")
        checks.flag("truncate", self.truncate)
        for name in ("attention_factor", "mscale", "mscale_all_dim"):
            if getattr(self, name):  # DeepSeek's configs write 0 for none
                checks.number_setting(name, getattr(self, name))
        weights = [weight for weight in (self.mscale, self.mscale_all_dim) if weight]
        if weights and (self.attention_factor or (len(weights) == 1 and weights != [1.0])):
            raise ValueError(
                f"mscale is {self.mscale} and mscale_all_dim {self.mscale_all_dim} beside attention_factor "
                f"{self.attention_factor}; it needs to be both without attention_factor, or neither."
            )

    def amplitude(self) -> float:
        if self.attention_factor:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return yarn_mscale(self.factor, self.mscale) / yarn_mscale(self.factor, self.mscale_all_dim)
        return yarn_mscale(self.factor, 1.0)

    def scale(self, frequencies: Frequencies, base: float) -> Frequencies:
        n = len(frequencies)
        low, high = (
            n * math.log(self.original_length / (beta * math.tau)) / math.log(base)
            for beta in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * n - 1)  # of the channels, as published
        width = Decimal(high - low if high != low else 0.001)
        with localcontext(CONTEXT):
            ramp = [(i - Decimal(low)) / width for i in range(n)]
        return partly_divided(frequencies, self.factor, ramp)


def yarn_mscale(factor: float, weight: float) -> float:
    """`0.1 weight ln(factor) + 1` for factor > 1, else 1: by how much YaRN sharpens attention.

    DeepSeek multiplies the softmax scale by the square of it, with weight mscale_all_dim.

    >>> import posembed_jax as pe
    >>> round(pe.yarn_mscale(40.0, 1.0), 4)
    1.3689

    Raises:
        ValueError: a factor that is not a Python number above 0, or a weight that is none and not 0.

    Source: https://arxiv.org/abs/2309.00071, equation 22.
    """
    checks.number_setting("factor", factor)
    if weight != 0:
        checks.number_setting("weight", weight)
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3(Scaling):
    """Wavelengths beyond `original_length / low_freq_factor` are stretched by factor, short ones kept.

        turns = original_length * frequencies / (2 pi)
        smooth = clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
        frequencies * smooth + frequencies / factor * (1 - smooth)

    >>> import posembed_jax as pe
    >>> scaling = pe.Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=8192)
    >>> [float(f) for f in pe.RoPE(dim=4, layout="half", base=500_000.0, scaling=scaling).frequencies()][0]
    1.0

    Source: https://arxiv.org/abs/2407.21783 and Meta's `apply_scaling` in llama-models.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    def __post_init__(self):
        checks.number_setting("factor", self.factor)
        checks.number_setting("low_freq_factor", self.low_freq_factor)
        checks.number_setting("high_freq_factor", self.high_freq_factor)
        if self.high_freq_factor < self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor is {self.high_freq_factor}; it needs to be at least low_freq_factor, "
                f"{self.low_freq_factor}."
            )
        checks.integer_setting("original_length", self.original_length)

    def scale(self, frequencies: Frequencies, base: float) -> Frequencies:
        low, high = Decimal(self.low_freq_factor), Decimal(self.high_freq_factor)
        with localcontext(CONTEXT):
            width = high - low or Decimal("1e-30")  # Llama 4's two are the same: a step
            shares = [(high - self.original_length * f / phase.TAU) / width for f in frequencies]
        return partly_divided(frequencies, self.factor, shares)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proportional(Scaling):
    """Only the first, highest frequencies turn, `int(fraction * dim / 2)` of them; the others are 0: p-RoPE.

    Unlike a smaller `dim`, the pairs and the exponents are those of the whole head. Gemma 4's full-attention layers.

    >>> import posembed_jax as pe
    >>> rope = pe.RoPE(dim=8, layout="half", scaling=pe.Proportional(fraction=0.5))
    >>> [float(f) for f in rope.frequencies()]
    [1.0, 0.1, 0.0, 0.0]

    Source: https://arxiv.org/abs/2410.06205.
    """

    fraction: float
    factor: float = 1.0

    def __post_init__(self):
        checks.number_setting("fraction", self.fraction)
        if self.fraction > 1:
            raise ValueError(f"fraction is {self.fraction}; it needs to be a share of the frequencies, at most 1.")
        checks.number_setting("factor", self.factor)

    def check(self, count: int) -> None:
        if int(self.fraction * count) == 0:
            raise ValueError(f"fraction is {self.fraction}; of {count} frequencies it needs to leave at least one.")

    def scale(self, frequencies: Frequencies, base: float) -> Frequencies:
        kept = int(self.fraction * len(frequencies))
        return divided(frequencies[:kept], [self.factor] * kept) + (Decimal(0),) * (len(frequencies) - kept)
