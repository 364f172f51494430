"""Relative attention with projected sinusoids of the distance (Transformer-XL)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import ContentBias
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes import phase, relative_scores
from posembed_jax.schemes.absolute import Sinusoidal

HIGHEST = lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerXLBias(ContentBias):
    """The product of each query with a projected sinusoid of its distance to the key, and two biases of the queries.

        bias[n, t, s] = scale (u[n] . key[s, n] + (query[t, n] + v[n]) . r[n])
        r[n] = sinusoid(query_positions[t] - key_positions[s]) @ kernel[n]

    It is `scale ((query + u) . key + (query + v) . r)` without attention's own part. Where positions count up, r is
    made for the distances that there are. Elsewhere the sine and cosine of a difference are sums of products of those
    of the two positions, so the second product is one of a vector of the query, rotated by its position, with the
    sinusoid of the key's: there is never an r for each pair.

    Args:
        heads: N.
        dim: D of a head.
        sinusoid: a `Sinusoidal` of an even number of features F. Its layout is "interleaved" in Wav2Vec2-Conformer,
            SeamlessM4T, FastSpeech2-Conformer, Parakeet and Nemotron, "sin_cos" in Transformer-XL, XLNet, Funnel, and
            with `denominator="half_minus_1"` in the audio encoders of Gemma 3n and 4.
        biases: whether there are u and v; Gemma's audio encoders have none.
        max_distance: distances are clipped to `-max_distance ... max_distance` (`clamp_len`); None: they are not.
        scale: as that of `attend`; `D ** -0.5` when None.
        stddev: of the normal initializer.

    Params: `{"kernel": [heads, F, dim], "u": [heads, dim], "v": [heads, dim]}`. The first is `linear_pos.weight` or
    `relative_k_proj.weight`, split into heads and each transposed, the others are `pos_bias_u` and `pos_bias_v`; in
    XLNet they are `r` (its heads first), `r_w_bias` and `r_r_bias`, and the backward half of `bi_data` sees positions
    times -1.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme = pe.TransformerXLBias(heads=4, dim=8, sinusoid=pe.Sinusoidal(features=32, layout="interleaved"))
    >>> bias, x = scheme.bind(pe.init(scheme, jax.random.key(0))), jnp.ones((1, 3, 4, 8))
    >>> pe.attend(x, x, x, bias=bias).shape
    (1, 3, 4, 8)

    Source: https://arxiv.org/abs/1901.02860, section 3.3.
    """

    heads: int
    dim: int
    sinusoid: Sinusoidal
    biases: bool = True
    max_distance: int | None = None
    scale: float | None = None
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("dim", self.dim)
        checks.contract("sinusoid", self.sinusoid, Sinusoidal, "a Sinusoidal(features=...)")
        checks.flag("biases", self.biases)
        checks.number_setting("stddev", self.stddev)
        if self.max_distance is not None:
            checks.integer_setting("max_distance", self.max_distance)
        if self.scale is not None:
            checks.number_setting("scale", self.scale)
        if self.sinusoid.features % 2:
            raise ValueError(
                f"sinusoid is {self.sinusoid}; its features need to be even: a sine and a cosine a frequency."
            )
        if self.sinusoid.axes is not None or self.sinusoid.fractional or self.sinusoid.learned_amplitude:
            raise ValueError(
                f"sinusoid is {self.sinusoid}; it is of int32 distances of one number and has no amplitude here: leave "
                "out axes, fractional and learned_amplitude."
            )

    def inits(self) -> dict[str, Initializer]:
        found = {"kernel": normal(self.stddev, (self.heads, self.sinusoid.features, self.dim))}
        own = {name: normal(self.stddev, (self.heads, self.dim)) for name in ("u", "v")}
        return {**found, **own} if self.biases else found

    def constants(self) -> dict[str, np.ndarray]:
        return {name: x[None] for name, x in self.sinusoid.constants().items()}

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        relative_scores.check_heads("query", query, self.heads, self.dim)
        query, key = (x.astype(checks.compute_dtype(x.dtype)) for x in (query, key))
        arrays = {name: x if name in self.sinusoid.constants() else x.astype(query.dtype) for name, x in arrays.items()}
        shifted = query + arrays["v"].reshape(*[1] * (query.ndim - 2), *arrays["v"].shape) if self.biases else query

        def otherwise() -> jax.Array:
            return self._elsewhere(arrays, shifted, query_positions, key_positions)

        distance = relative_scores.distances(query_positions, key_positions)
        found = relative_scores.of_distances(shifted, lambda d: self._vectors(arrays, -d), distance, otherwise)
        if self.biases:
            key = relative_scores.of_all_heads(key, self.heads)
            found = found + jnp.einsum("...snd,nd->...ns", key, arrays["u"], precision=HIGHEST)[..., None, :]
        return (self.dim**-0.5 if self.scale is None else self.scale) * found

    def _vectors(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        """r of each `query position - key position`: int32 `[W]` -> `[heads, W, D]`."""
        if self.max_distance is not None:
            distance = jnp.clip(distance, -self.max_distance, self.max_distance)
        cos, sin = self._cos_sin(arrays, distance, arrays["kernel"].dtype)
        of_sines, of_cosines = (
            jnp.einsum("wf,nfd->nwd", x, part, precision=HIGHEST)
            for x, part in zip((sin, cos), _sines_and_cosines(arrays["kernel"], self.sinusoid.layout), strict=True)
        )
        return of_sines + of_cosines

    def _elsewhere(
        self, arrays: Arrays, query: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        """sin((t - s) f) and cos((t - s) f) as sums of products of those of t f and s f; clipped, from a table."""
        if self.max_distance is not None:
            furthest, distance = self.max_distance, -relative_scores.distances(query_positions, key_positions)
            table = self._vectors(arrays, jnp.arange(-furthest, furthest + 1, dtype=jnp.int32))
            rows = jnp.clip(distance, -furthest, furthest) + furthest
            return relative_scores.pick(relative_scores.scores(query, table), rows)
        sine, cosine = (
            jnp.einsum("...tnd,nfd->...tnf", query, kernel, precision=HIGHEST)
            for kernel in _sines_and_cosines(arrays["kernel"], self.sinusoid.layout)
        )
        (cos, sin), (key_cos, key_sin) = (
            self._cos_sin(arrays, positions, query.dtype) for positions in (query_positions, key_positions)
        )
        cos, sin = (jnp.expand_dims(x, (-2, *range(query.ndim - x.ndim - 1))) for x in (cos, sin))
        turned = jnp.concatenate([sine * sin + cosine * cos, cosine * sin - sine * cos], axis=-1)
        key_side = jnp.concatenate([key_cos, key_sin], axis=-1)
        return jnp.einsum("...tnf,...sf->...nts", turned, key_side, precision=HIGHEST)

    def _cos_sin(self, arrays: Arrays, positions: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
        own = {name: arrays[name][0] for name in self.sinusoid.constants()}
        cos, sin = phase.of_constants(positions[..., None], own)
        return cos.astype(dtype), sin.astype(dtype)


def _sines_and_cosines(kernel: jax.Array, layout: str) -> tuple[jax.Array, jax.Array]:
    """The rows `[heads, F / 2, D]` of `kernel` that are for sines, and those for cosines."""
    if layout == "interleaved":
        return kernel[:, ::2], kernel[:, 1::2]
    first, second = jnp.split(kernel, 2, axis=1)
    return (second, first) if layout == "cos_sin" else (first, second)
