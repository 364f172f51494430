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
from posembed_jax.schemes.frequencies import geometric

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
        x[t] = sin(positions[t] frequencies) | cos(positions[t] frequencies)

    Args:
        features: F.
        base: the ratio of the longest wavelength to the shortest, nearly.
        layout: "sin_cos" (Marian, Whisper, fairseq), "cos_sin" (MusicGen, diffusion timesteps) or "interleaved"
            (the original transformer, BERT-likes).
        denominator: "half", F / 2 (the original transformer), or "half_minus_1", F // 2 - 1 (tensor2tensor, fairseq,
            Whisper), which ends exactly at 1 / base.
        odd: what the last channel of an odd F holds: "truncate", one sine more than cosines (Marian), or "zero"
            (fairseq).
        phase: "exact", or "float32" for the usual rounded angle.
        fractional: also take float32 positions, such as times; they need frequencies of at most pi.

    Params: none.

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

    def __post_init__(self):
        checks.integer_setting("features", self.features)
        checks.number_setting("base", self.base, above=1.0)
        checks.one_of("layout", self.layout, LAYOUTS)
        checks.one_of("denominator", self.denominator, ("half", "half_minus_1"))
        checks.one_of("odd", self.odd, ("truncate", "zero"))
        checks.one_of("phase", self.phase, phase.PHASES)
        checks.flag("fractional", self.fractional)
        if self.denominator == "half_minus_1" and self.features < 4:
            raise ValueError(
                f"features is {self.features}; denominator='half_minus_1' needs at least 4: F // 2 - 1 divides."
            )

    def constants(self) -> dict[str, np.ndarray]:
        half = self.features // 2 if self.odd == "zero" else (self.features + 1) // 2
        denominator = self.features / 2 if self.denominator == "half" else self.features // 2 - 1
        return phase.constants(geometric(half, self.base, denominator), self.phase)

    def at(self, arrays: Arrays, positions: jax.Array) -> jax.Array:
        cos, sin = phase.of_constants(positions[..., None], arrays)
        if self.odd == "zero" and self.features % 2:
            x = sinusoids(cos, sin, self.features - 1, self.layout)
            return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])
        return sinusoids(cos, sin, self.features, self.layout)
