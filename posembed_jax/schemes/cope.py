"""Positions that count what a query finds worth counting (contextual position encoding)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import ContentBias
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes import relative_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoPE(ContentBias):
    """Contextual position encoding: the distance to a key is the sum of the gates of the keys from there on.

        bias[n, t, s] = query[t, n] . e(p[n, t, s])
        p[n, t, s] = min(sum_{l >= s} gate[n, t, l], length - 1)
        gate[n, t, l] = sigmoid(scale query[t, n] . key[l, n])                   0 where the mask forbids
        e(p) = (1 - p + floor(p)) table[floor(p)] + (p - floor(p)) table[ceil(p)]

    Keys count in the order in which they stand; positions are not used. A gate needs all the keys that its query
    attends, so whole rows of logits are in memory: tile by tile, `implementation="xla"`, it is refused.

    Args:
        heads: N.
        dim: D of a head.
        length: rows of the table (`npos_max`).
        scale: of the logits that the gates are of; `D ** -0.5` when None.
        stddev: of the normal initializer.

    Params: `{"table": [1, length, dim]}`.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme, x = pe.CoPE(heads=4, dim=8, length=16), jnp.ones((1, 3, 4, 8))
    >>> pe.attend(x, x, x, bias=scheme.bind(pe.init(scheme, jax.random.key(0))), causal=True).shape
    (1, 3, 4, 8)

    Source: https://arxiv.org/abs/2405.18719, section 4; not the CoPE of https://arxiv.org/abs/2602.05258.
    """

    heads: int
    dim: int
    length: int
    scale: float | None = None
    stddev: float = 0.02
    sees_mask = True

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("dim", self.dim)
        checks.integer_setting("length", self.length)
        checks.number_setting("stddev", self.stddev)
        if self.scale is not None:
            checks.number_setting("scale", self.scale)

    def inits(self) -> dict[str, Initializer]:
        return {"table": normal(self.stddev, (1, self.length, self.dim))}

    def pairs(  # type: ignore[override]
        self,
        arrays: Arrays,
        query: jax.Array,
        key: jax.Array,
        query_positions: jax.Array,
        key_positions: jax.Array,
        mask: jax.Array | None,
    ) -> jax.Array:
        relative_scores.check_heads("query", query, self.heads, self.dim)
        of_rows = relative_scores.scores(query, arrays["table"])
        query, key = query.astype(of_rows.dtype), relative_scores.of_all_heads(key, self.heads).astype(of_rows.dtype)
        logits = jnp.einsum("...tnd,...snd->...nts", query, key, precision=lax.Precision.HIGHEST)
        gates = jax.nn.sigmoid((self.dim**-0.5 if self.scale is None else self.scale) * logits)
        gates = gates if mask is None else jnp.where(mask, gates, 0.0)
        place = jnp.minimum(jnp.flip(jnp.cumsum(jnp.flip(gates, -1), axis=-1), -1), self.length - 1.0)
        below = jnp.floor(lax.stop_gradient(place))
        row = below.astype(jnp.int32)
        first = relative_scores.pick(of_rows, row)
        second = relative_scores.pick(of_rows, jnp.minimum(row + 1, self.length - 1))
        return first + (place - below) * (second - first)
