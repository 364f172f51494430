"""Sinusoids of random or learned directions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import Additive
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes import phase
from posembed_jax.schemes.absolute import sinusoids


@dataclasses.dataclass(frozen=True, kw_only=True)
class FourierFeatures(Additive):
    """Sinusoids whose frequencies are drawn from a normal distribution, of all axes at once.

        turns[t, i] = sum_a positions[t, a] frequencies[a, i]
        x[t] = sin(2 pi turns[t]) | cos(2 pi turns[t])

    At int32 positions the sum is exact; at float32 ones it is rounded, and whole turns are taken off before the sine.

    Args:
        features: F, even.
        axes: A.
        stddev: of the frequencies, in turns: the larger, the finer.
        layout: "sin_cos", "cos_sin" or "interleaved".

    Positions are float32 (or int32). SAM's points are between 0 and 1, and its positions `2 * points - 1`.

    Params: `{"frequencies": [A, F / 2]}`, SAM's `positional_embedding`. SAM does not train them: `lax.stop_gradient`.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme = pe.FourierFeatures(features=8)
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(jnp.array([[-0.5, 0.25]])).shape
    (1, 8)

    Source: https://arxiv.org/abs/2006.10739, section 6.1.
    """

    features: int
    axes: int = 2
    stddev: float = 1.0
    layout: str = "sin_cos"
    fractional = True

    def __post_init__(self):
        checks.integer_setting("features", self.features)
        checks.integer_setting("axes", self.axes)
        checks.number_setting("stddev", self.stddev)
        checks.one_of("layout", self.layout, ("sin_cos", "cos_sin", "interleaved"))
        if self.features % 2:
            raise ValueError(f"features is {self.features}; it needs to be even: a sine and a cosine a frequency.")

    @property
    def position_axes(self) -> int:
        return self.axes

    def inits(self) -> dict[str, Initializer]:
        return {"frequencies": normal(self.stddev, (self.axes, self.features // 2))}

    def at(self, arrays: Arrays, positions: jax.Array) -> jax.Array:
        if jnp.issubdtype(positions.dtype, jnp.integer):
            radians = arrays["frequencies"].astype(jnp.float32) * np.float32(2 * np.pi)
            return sinusoids(*phase.summed_cos_sin(positions, radians), self.features, self.layout)
        dtype = checks.compute_dtype(arrays["frequencies"].dtype)
        frequencies = arrays["frequencies"].astype(dtype)
        turns = jnp.einsum("...a,an->...n", positions.astype(dtype), frequencies, precision=lax.Precision.HIGHEST)
        angle = (turns - jnp.round(turns)) * np.array(2 * np.pi, dtype)
        return sinusoids(jnp.cos(angle), jnp.sin(angle), self.features, self.layout)
