"""FoPE: each pair is turned by a Fourier series, of the frequencies that training has seen whole turns of."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import Rotation
from posembed_jax.scheme import Arrays, Initializer
from posembed_jax.schemes import phase
from posembed_jax.schemes.frequencies import Frequencies, geometric
from posembed_jax.schemes.heads import rotate_heads
from posembed_jax.schemes.layouts import LAYOUTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoPE(Rotation):
    """Fourier position embedding: each pair turns by a weighted sum of the frequencies.

        frequencies[f] = base ** (-2 f / dim), those of at least 2 pi / length
        cos[k, i] = sum_f cos(position * frequencies[f]) * params["cos"][k, f, i]
        sin[k, i] = sum_f sin(position * frequencies[f]) * params["sin"][k, f, i]
        out = rotate(x, cos, sin)

    A frequency that does not make a turn in the trained length is dropped, and pairs beyond `pairs` do not turn. The
    product of a query and a key depends on both positions, not on the difference alone: by as much as the coefficients
    differ from those of RoPE, ones on the diagonal.

    Args:
        dim: channels of the head; even.
        layout: "half" (the authors') or "interleaved".
        length: of the sequences in training.
        base: theta.
        key_value_heads: K, when each has its own coefficients; they divide the heads of x, in groups. None: all share.
        pairs: how many pairs turn. None: as many as there are frequencies (vLLM, InternS1); the authors' own code has
            at most dim / 4.
        pad_sin_with_one: pairs that do not turn have sin 1 and not 0, which adds them to each other, everywhere alike:
            the authors' own code.
        gain: coefficients begin as those of RoPE plus `N(0, stddev^2)`, with the stddev of Xavier's initialisation
            times gain. The authors keep them so: leave them out of the optimizer for that.

    `inverse` solves for x; where a pair's cos and sin are both near 0 it has lost what it would need.

    Params: `{"cos": [K or 1, F, pairs], "sin": [K or 1, F, pairs]}` for F frequencies.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> fope = pe.FoPE(dim=64, layout="half", length=512, key_value_heads=2)
    >>> params = pe.init(fope, jax.random.key(0))
    >>> params["sin"].shape
    (2, 16, 16)
    >>> fope.bind(params)(jnp.ones((3, 5, 4, 64)), pe.positions.arange(5)).shape
    (3, 5, 4, 64)

    Source: https://arxiv.org/abs/2412.17739.
    """

    dim: int
    layout: str
    length: int
    base: float = 10_000.0
    key_value_heads: int | None = None
    pairs: int | None = None
    pad_sin_with_one: bool = False
    gain: float = 0.3

    def __post_init__(self):
        checks.integer_setting("dim", self.dim)
        if self.dim % 2:
            raise ValueError(f"dim is {self.dim}; it needs to be even: channels turn in pairs.")
        checks.one_of("layout", self.layout, LAYOUTS)
        checks.integer_setting("length", self.length, minimum=7)  # less than a turn of the first frequency, 1
        checks.number_setting("base", self.base, above=1.0)
        if self.key_value_heads is not None:
            checks.integer_setting("key_value_heads", self.key_value_heads)
        if self.pairs is not None:
            checks.integer_setting("pairs", self.pairs)
            if self.pairs > self.dim // 2:
                raise ValueError(f"pairs is {self.pairs}; it needs to be at most dim / 2, {self.dim // 2}.")
        checks.flag("pad_sin_with_one", self.pad_sin_with_one)
        checks.number_setting("gain", self.gain)

    def frequencies(self) -> Frequencies:
        """The exact frequencies that are kept, radians per position."""
        count = self.dim // 2
        return tuple(f for f in geometric(count, self.base, count) if f * self.length >= phase.TAU)

    def inits(self) -> dict[str, Initializer]:
        frequencies = len(self.frequencies())
        heads, pairs = self.key_value_heads, self.pairs or frequencies
        # Xavier's, as the authors' framework counts the inputs and outputs of an array of two and of three axes.
        fans = frequencies + pairs if heads is None else (frequencies + heads) * pairs
        stddev, step = self.gain * math.sqrt(2.0 / fans), math.ceil(frequencies / pairs)
        plain = np.arange(frequencies)[:, None] == step * np.arange(pairs)

        def draw(key, shape, dtype):
            return jnp.asarray(plain[None], dtype) + (stddev * jax.random.normal(key, shape)).astype(dtype)

        initializer = Initializer((heads or 1, frequencies, pairs), draw)
        return {"cos": initializer, "sin": initializer}

    def constants(self) -> dict[str, np.ndarray]:
        return phase.constants(self.frequencies(), "exact")

    def at(self, arrays: Arrays, x: jax.Array, positions: jax.Array, inverse: bool) -> jax.Array:
        cos, sin = (
            jnp.einsum("...f,kfp->...kp", table, arrays[name].astype(jnp.float32), precision="highest")
            for name, table in zip(("cos", "sin"), phase.cos_sin(positions[..., None], arrays["turns"]), strict=True)
        )
        rest = [(0, 0)] * (cos.ndim - 1) + [(0, self.dim // 2 - cos.shape[-1])]
        cos = jnp.pad(cos, rest, constant_values=1.0)
        sin = jnp.pad(sin, rest, constant_values=1.0 if self.pad_sin_with_one else 0.0)
        if inverse:
            square = cos * cos + sin * sin
            cos, sin = cos / square, sin / square
        cos, sin = lax.optimization_barrier((cos, sin))
        return rotate_heads(x, cos, sin, layout=self.layout, inverse=inverse)
