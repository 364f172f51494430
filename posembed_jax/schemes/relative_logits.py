"""Logits of the distance that each token mixes from learned profiles (Inkling)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from posembed_jax import checks
from posembed_jax.contracts import ContentBias
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes import relative_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativeLogits(ContentBias):
    """A value for each distance back, mixed by each token from a bank of learned profiles.

        bias[n, t, s] = states[t, n] . profiles[d]      0 <= d = query_positions[t] - key_positions[s] < extent
        bias[n, t, s] = 0                               else

    The states are a projection of the hidden states; they go in by `scheme.bind(params).of(states)`.

    Args:
        heads: N.
        features: R of the states of a head.
        extent: distances that have a value (`rel_extent`; the window, in layers that have one).
        stddev: of the normal initializer.

    Params: `{"profiles": [1, extent, features]}`, the transpose of `proj` in `inkling_text`.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme, x = pe.RelativeLogits(heads=4, features=2, extent=16), jnp.ones((1, 3, 4, 8))
    >>> bias = scheme.bind(pe.init(scheme, jax.random.key(0))).of(jnp.ones((1, 3, 4, 2)))
    >>> pe.attend(x, x, x, bias=bias, causal=True).shape
    (1, 3, 4, 8)

    Source: https://github.com/huggingface/transformers, `InklingRelativeLogits` of version 5.23.
    """

    heads: int
    features: int
    extent: int
    stddev: float = 0.02
    content_axes = ("T, N, R", "S, K, D")

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("features", self.features)
        checks.integer_setting("extent", self.extent)
        checks.number_setting("stddev", self.stddev)

    def inits(self) -> dict[str, Initializer]:
        return {"profiles": normal(self.stddev, (1, self.extent, self.features))}

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        relative_scores.check_heads("query", query, self.heads, self.features)
        distance = relative_scores.distances(query_positions, key_positions)
        return relative_scores.of_rows(query, arrays["profiles"], jnp.negative, distance)
