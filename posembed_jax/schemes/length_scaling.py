"""Rotary scalings that depend on the length of the sequence.

They take it as an int, exactly, or as an array, in the graph.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks
from posembed_jax.schemes import phase
from posembed_jax.schemes.frequencies import CONTEXT, Frequencies, divided, stretched
from posembed_jax.schemes.scaling import Scaling

UNKNOWN_LENGTH = (
    "length is None; {} depends on the length of the sequence: make RoPE with length=, or pass length= to bind or "
    "cos_sin, an int or int32 [] or [B]."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthScaling(Scaling):
    """A `Scaling` that depends on the length of the sequence. Cached keys turned at one length do not fit another."""

    original_length: int

    def __post_init__(self):
        checks.integer_setting("original_length", self.original_length)

    def scale(self, frequencies: Frequencies, base: float) -> Frequencies:
        raise ValueError(UNKNOWN_LENGTH.format(type(self).__name__))

    def amplitude_to(self, length: int) -> float:
        """By which cos and sin are multiplied, for sequences of `length`."""
        return self.amplitude()

    @abc.abstractmethod
    def scale_to(self, frequencies: Frequencies, length: int) -> Frequencies:
        """The frequencies for sequences of `length`."""

    @abc.abstractmethod
    def constants_at(self, frequencies: Frequencies, length: jax.Array, kind: str) -> dict[str, jax.Array]:
        """What `phase.constants` makes of `scale_to`, for lengths int32 `[]` or `[B]`, with a B in front.

        An "amplitude" beside them, float32 `[]` or `[B]`, is that of the lengths.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class DynamicNTK(LengthScaling):
    """NTK-aware, by as much as the length asks for; up to original_length nothing changes.

        NTK(factor=factor * length / original_length - (factor - 1))

    With a length in the graph the frequencies are float32.

    >>> import posembed_jax as pe
    >>> scaling = pe.DynamicNTK(factor=2.0, original_length=32)
    >>> [float(f) for f in pe.RoPE(dim=4, layout="half", scaling=scaling, length=64).frequencies()]
    [1.0, 0.0033333333333333335]

    Source: https://arxiv.org/abs/2309.00071, appendix A.2.
    """

    factor: float

    def __post_init__(self):
        super().__post_init__()
        checks.number_setting("factor", self.factor)

    def scale_to(self, frequencies: Frequencies, length: int) -> Frequencies:
        factor = Decimal(self.factor)
        with localcontext(CONTEXT):
            grown = factor * max(length, self.original_length) / self.original_length - (factor - 1)
        return stretched(frequencies, grown)

    def constants_at(self, frequencies: Frequencies, length: jax.Array, kind: str) -> dict[str, jax.Array]:
        # 1 + factor * (length - original) / original, in an order that loses no small difference of two lengths
        beyond = jnp.maximum(length - self.original_length, 0).astype(jnp.float32)
        grown = jnp.log1p(np.float32(self.factor / self.original_length) * beyond)
        per_frequency = (1,) * length.ndim + (-1,)
        power = (-np.arange(len(frequencies)) / max(1, len(frequencies) - 1)).astype(np.float32).reshape(per_frequency)
        plain = np.array(frequencies, np.float64).astype(np.float32).reshape(per_frequency)
        return {"frequencies": jnp.asarray(plain) * jnp.exp(grown[..., None] * power)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongRoPE(LengthScaling):
    """Each frequency is divided by its own factor: one set up to original_length, another for longer sequences.

    Args:
        short_factor, long_factor: dim / 2 numbers each.
        original_length: the longest sequence that short_factor serves.
        attention_factor: by which cos and sin are multiplied; usually `longrope_factor(...)`.
        long_attention_factor: the same for longer sequences (Phi-3.5-MoE). None: attention_factor at every length.

    >>> import posembed_jax as pe
    >>> scaling = pe.LongRoPE(short_factor=(1.0, 1.0), long_factor=(1.5, 4.0), original_length=16)
    >>> [float(f) for f in pe.RoPE(dim=4, layout="half", scaling=scaling, length=17).frequencies()]
    [0.6666666666666666, 0.0025]

    Source: https://arxiv.org/abs/2402.13753.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    attention_factor: float = 1.0
    long_attention_factor: float | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("short_factor", "long_factor"):
            factors = getattr(self, name)
            if not isinstance(factors, tuple) or not all(
                isinstance(x, float | int) and 0 < x < math.inf for x in factors
            ):
                raise ValueError(f"{name} is {factors!r}; it needs to be a tuple of dim / 2 finite numbers above 0.")
        checks.number_setting("attention_factor", self.attention_factor)
        if self.long_attention_factor is not None:
            checks.number_setting("long_attention_factor", self.long_attention_factor)

    def check(self, count: int) -> None:
        for name in ("short_factor", "long_factor"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"scaling is {self}; its {name} needs {count} numbers, dim / 2.")

    def amplitude(self) -> float:
        if self.long_attention_factor is not None:
            raise ValueError(UNKNOWN_LENGTH.format(type(self).__name__))
        return self.attention_factor

    def amplitude_to(self, length: int) -> float:
        long = self.attention_factor if self.long_attention_factor is None else self.long_attention_factor
        return long if length > self.original_length else self.attention_factor

    def scale_to(self, frequencies: Frequencies, length: int) -> Frequencies:
        return divided(frequencies, self.long_factor if length > self.original_length else self.short_factor)

    def constants_at(self, frequencies: Frequencies, length: jax.Array, kind: str) -> dict[str, jax.Array]:
        factors = self.short_factor, self.long_factor
        short, long = (phase.constants(divided(frequencies, by), kind) for by in factors)
        far = length > self.original_length
        found = {name: jnp.where(far.reshape(*far.shape, *[1] * x.ndim), long[name], x) for name, x in short.items()}
        if self.long_attention_factor is not None:
            found["amplitude"] = jnp.where(
                far, np.float32(self.long_attention_factor), np.float32(self.attention_factor)
            )
        return found


def longrope_factor(factor: float, original_length: int) -> float:
    """`sqrt(1 + ln(factor) / ln(original_length))` for factor > 1, else 1: LongRoPE's usual attention_factor.

    factor: the new length over the original one.

    >>> import posembed_jax as pe
    >>> round(pe.longrope_factor(32.0, 4096), 4)
    1.1902

    Raises:
        ValueError: a factor that is not a Python number above 0, or an original_length below 2.

    Source: https://arxiv.org/abs/2402.13753, section 3.
    """
    checks.number_setting("factor", factor)
    checks.integer_setting("original_length", original_length, 2)
    return math.sqrt(1.0 + math.log(factor) / math.log(original_length)) if factor > 1 else 1.0
