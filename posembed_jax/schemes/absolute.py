"""Schemes that are added to the token embedding: a learned table, and sinusoids."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks, lookup
from posembed_jax.contracts import Additive
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes import phase
from posembed_jax.schemes.frequencies import CONTEXT, geometric

LAYOUTS = ("sin_cos", "cos_sin", "interleaved")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedPositions(Additive):
    """A learned table: `x[t] = table[positions[t] + index_offset]`.

    Args:
        length: positions 0 ... length - 1 have a row.
        features: F.
        index_offset: rows in front of position 0: 2 in OPT and BART, `padding_idx + 1` in RoBERTa. A position as low as
            `-index_offset` has a row: RoBERTa and OPT put padding at position -1.
        stddev: of the normal initializer.
        out_of_range: what a position without a row does, as in `embed`: "error", "clip" or "checkify". The default
            is a `ValueError` when positions are concrete and NaN when they are traced, never another position's row.

    Params: `{"table": [length + index_offset, features]}`.

    >>> import jax, posembed_jax as pe
    >>> scheme = pe.LearnedPositions(length=16, features=8)
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(pe.positions.arange(4)).shape
    (4, 8)

    Source: https://arxiv.org/abs/1705.03122, section 3.1.
    """

    length: int
    features: int
    index_offset: int = 0
    stddev: float = 0.02
    out_of_range: str = "error"

    def __post_init__(self):
        checks.integer_setting("length", self.length)
        checks.integer_setting("features", self.features)
        checks.integer_setting("index_offset", self.index_offset, minimum=0)
        checks.number_setting("stddev", self.stddev)
        checks.one_of("out_of_range", self.out_of_range, lookup.OUT_OF_RANGE)

    def inits(self) -> dict[str, Initializer]:
        return {"table": normal(self.stddev, (self.length + self.index_offset, self.features))}

    def at(self, arrays: Arrays, positions: jax.Array) -> jax.Array:
        name = f"positions + {self.index_offset} (index_offset)" if self.index_offset else "positions"
        return lookup.rows(arrays["table"], positions + self.index_offset, name=name, out_of_range=self.out_of_range)


def sinusoids(cos: jax.Array, sin: jax.Array, features: int, layout: str) -> jax.Array:
    """cos and sin `[..., n]` laid out over `features` channels.

    "sin_cos" is sin | cos, "cos_sin" is cos | sin, "interleaved" is sin, cos, sin, cos ... For odd `features` there are
    n = (features + 1) / 2 frequencies and the last cosine (in "cos_sin", the last sine) has no room.
    """
    first, second = (cos, sin) if layout == "cos_sin" else (sin, cos)
    if layout == "interleaved":
        return jnp.stack([first, second], axis=-1).reshape(*sin.shape[:-1], -1)[..., :features]
    return jnp.concatenate([first, second], axis=-1)[..., :features]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sinusoidal(Additive):
    """Sinusoids of geometrically spaced frequencies, with exact phases at every int32 position.

        frequencies[i] = base ** (-i / denominator)
        x[t] = amplitude (sin(scale positions[t] frequencies) | cos(scale positions[t] frequencies))

    Args:
        features: F.
        base: the ratio of the longest wavelength to the shortest, nearly.
        layout: "sin_cos" (Marian, Whisper, fairseq), "cos_sin" (MusicGen, diffusion timesteps) or "interleaved"
            (the original transformer, BERT-likes, DETR).
        denominator: "half", F / 2 (the original transformer), or "half_minus_1", F // 2 - 1 (tensor2tensor, fairseq,
            Whisper), which ends exactly at 1 / base.
        odd: what the last channel of an odd F holds: "truncate", one sine more than cosines (Marian), or "zero"
            (fairseq).
        phase: "exact", or "float32" for the usual rounded angle.
        fractional: also take float32 positions, such as times; they need frequencies of at most pi.
        axes: A, of positions `[..., A]`; each has F / A channels, with that for F in the formula above, one axis after
            the other: 2 for (row, column) (MAE, DETR). None for positions of one number.
        order: the axes in the order of their channels, such as (1, 0) for boxes of (x, y) whose y comes first.
        scale: what positions are multiplied by: 2 pi for coordinates between 0 and 1, 1000 for times. Where they are
            fractional, in float32; else it is part of the exact frequencies.
        learned_amplitude: one number that all is multiplied by, 1 at first (SpeechT5).

    Params: none, or `{"amplitude": [1]}`.

    >>> import posembed_jax as pe
    >>> pe.Sinusoidal(features=8).bind({})(pe.positions.arange(4, 10**9)).shape
    (4, 8)

    Source: https://arxiv.org/abs/1706.03762, section 3.5.
    """

    features: int
    base: float = 10_000.0
    layout: str = "sin_cos"
    denominator: str = "half"
    odd: str = "truncate"
    phase: str = "exact"
    fractional: bool = False
    axes: int | None = None
    order: tuple[int, ...] | None = None
    scale: float = 1.0
    learned_amplitude: bool = False

    def __post_init__(self):
        checks.integer_setting("features", self.features)
        checks.number_setting("base", self.base, above=1.0)
        checks.one_of("layout", self.layout, LAYOUTS)
        checks.one_of("denominator", self.denominator, ("half", "half_minus_1"))
        checks.one_of("odd", self.odd, ("truncate", "zero"))
        checks.one_of("phase", self.phase, phase.PHASES)
        checks.flag("fractional", self.fractional)
        checks.number_setting("scale", self.scale)
        checks.flag("learned_amplitude", self.learned_amplitude)
        if self.axes is not None:
            checks.integer_setting("axes", self.axes)
            if self.features % self.axes:
                raise ValueError(f"features is {self.features}; it needs to be a multiple of axes, {self.axes}.")
        check_order(self.order, self.axes)
        if self.denominator == "half_minus_1" and self.per_axis < 4:
            raise ValueError(
                f"features is {self.features}; denominator='half_minus_1' needs at least 4 an axis: F // 2 - 1 divides."
            )

    @property
    def position_axes(self) -> int | None:
        return self.axes

    @property
    def per_axis(self) -> int:
        """How many channels each axis has."""
        return self.features // (self.axes or 1)

    def inits(self) -> dict[str, Initializer]:
        return {"amplitude": Initializer((1,), jax.nn.initializers.ones)} if self.learned_amplitude else {}

    def constants(self) -> dict[str, np.ndarray]:
        features = self.per_axis
        half = features // 2 if self.odd == "zero" else (features + 1) // 2
        denominator = features / 2 if self.denominator == "half" else features // 2 - 1
        scale = CONTEXT.create_decimal(1.0 if self.fractional else self.scale)
        frequencies = tuple(CONTEXT.multiply(f, scale) for f in geometric(half, self.base, denominator))
        return phase.constants(frequencies, self.phase)

    def at(self, arrays: Arrays, positions: jax.Array) -> jax.Array:
        if self.order is not None:
            positions = positions[..., np.array(self.order)]
        if self.fractional and self.scale != 1.0:
            positions = positions.astype(jnp.float32) * np.float32(self.scale)
        cos, sin = phase.of_constants(positions[..., None], arrays)
        if self.odd == "zero" and self.per_axis % 2:
            x = sinusoids(cos, sin, self.per_axis - 1, self.layout)
            x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])
        else:
            x = sinusoids(cos, sin, self.per_axis, self.layout)
        x = x if self.axes is None else x.reshape(*x.shape[:-2], self.features)
        return x * arrays["amplitude"].astype(x.dtype).reshape((1,) * x.ndim) if self.learned_amplitude else x


def check_order(order: tuple[int, ...] | None, axes: int | None) -> None:
    """Refuses what is not a permutation of the axes."""
    if order is not None and (not checks.are_integers(order) or sorted(order) != list(range(axes or 0))):
        raise ValueError(f"order is {order!r}; it needs to be a tuple of each of the {axes or 0} axes once.")
