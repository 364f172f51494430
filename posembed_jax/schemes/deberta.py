"""Disentangled attention: content to position, and position to content (DeBERTa)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks
from posembed_jax.contracts import ContentBias
from posembed_jax.scheme import Arrays, Initializer, normal
from posembed_jax.schemes import relative_scores

KINDS = ("c2p", "p2c")


def log_buckets(buckets: int, max_distance: int) -> list[int]:
    """The smallest distance of each bucket 1, 2 ... buckets.

    Up to `middle = buckets // 2` a bucket is a distance. After it, bucket `middle + n` begins at the smallest d with
    `log(d / middle) / log((max_distance - 1) / middle) * (middle - 1) > n - 1`, decided in integers.
    """
    middle = buckets // 2
    smallest, d = list(range(1, middle + 1)), middle + 1
    for n in range(1, buckets - middle + 1):
        bound = (max_distance - 1) ** (n - 1) * middle ** (middle - 1)
        while d ** (middle - 1) * middle ** (n - 1) <= bound:
            d += 1
        smallest.append(d)
    return smallest


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeBERTaBias(ContentBias):
    """The products of a query with a vector of its distance to the key, and of the key with another.

        bias[n, t, s] = scale (query[t, n] . pos_key[n, row] + key[s, n] . pos_query[n, row])
        row = clip(bucket(query_positions[t] - key_positions[s]) + span, 0, 2 span - 1)
        bucket(d) = d                                                            span = max_distance
        bucket(d) = sign(d) (middle + ceil(log(abs(d) / middle) / log((max_distance - 1) / middle) (middle - 1)))
                    where abs(d) > middle = span // 2                            span = buckets

    The logits of content are scaled in the same way: pass `scale=scheme.softmax_scale` to `attend`.

    Args:
        heads: N.
        dim: D of a head.
        max_distance: `max_relative_positions`, or `max_position_embeddings` where that is -1.
        buckets: `position_buckets`, at least 4; None (-1 in transformers) is one row for each distance.
        kinds: `pos_att_type`: "c2p", the product with the query, "p2c", the product with the key, or both.
        stddev: of the normal initializer.

    Params: `{"pos_key": [heads, 2 span, dim], "pos_query": [heads, 2 span, dim]}`, the second without "c2p" alone and
    the first without "p2c" alone. In the models they are projections of one table of the embedding's width that all
    layers share: `pos_key_proj(rel_embeddings)` and `pos_query_proj(rel_embeddings)`, or, with `share_att_key`, those
    of the layer's own keys and queries. Bind the projections: gradients go through them to what they are made of.

    >>> import jax, jax.numpy as jnp, posembed_jax as pe
    >>> scheme, x = pe.DeBERTaBias(heads=4, dim=8, max_distance=512, buckets=16), jnp.ones((1, 3, 4, 8))
    >>> bias = scheme.bind(pe.init(scheme, jax.random.key(0)))
    >>> pe.attend(x, x, x, bias=bias, scale=scheme.softmax_scale).shape
    (1, 3, 4, 8)

    Source: https://arxiv.org/abs/2006.03654, section 3.1; buckets: https://arxiv.org/abs/2111.09543.
    """

    heads: int
    dim: int
    max_distance: int
    buckets: int | None = None
    kinds: tuple[str, ...] = KINDS
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("dim", self.dim)
        checks.integer_setting("max_distance", self.max_distance)
        checks.number_setting("stddev", self.stddev)
        if self.buckets is not None:
            checks.integer_setting("buckets", self.buckets, minimum=4)
            if self.max_distance <= self.buckets // 2 + 1:
                raise ValueError(
                    f"max_distance is {self.max_distance}; with buckets={self.buckets} it needs to be more than "
                    f"{self.buckets // 2 + 1}, or leave out buckets."
                )
        if not isinstance(self.kinds, tuple) or self.kinds not in (KINDS, KINDS[::-1], KINDS[:1], KINDS[1:]):
            raise ValueError(f"kinds is {self.kinds!r}; it needs to be a tuple of 'c2p', 'p2c' or both.")

    @property
    def span(self) -> int:
        """Rows on either side."""
        return self.buckets or self.max_distance

    @property
    def softmax_scale(self) -> float:
        """Of all parts of the logits: `(D (1 + the number of kinds)) ** -0.5`."""
        return (self.dim * (1 + len(self.kinds))) ** -0.5

    def inits(self) -> dict[str, Initializer]:
        shape, names = (self.heads, 2 * self.span, self.dim), {"c2p": "pos_key", "p2c": "pos_query"}
        return {names[kind]: normal(self.stddev, shape) for kind in KINDS if kind in self.kinds}

    def constants(self) -> dict[str, np.ndarray]:
        if self.buckets is None:
            return {}
        smallest = np.array(log_buckets(self.buckets, self.max_distance))
        away = np.searchsorted(smallest, np.arange(smallest[-1] + 1), side="right")
        return {"buckets": np.concatenate([-away[:0:-1], away]).astype(np.int32)[None]}

    def rows(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        """The row of each `query position - key position`: int32 `[...]` -> int32 `[...]`."""
        if self.buckets is not None:
            furthest = arrays["buckets"].shape[1] // 2
            index = jnp.clip(distance, -furthest, furthest) + furthest
            distance = arrays["buckets"][0].at[index].get(mode="promise_in_bounds")
        return jnp.clip(distance, -self.span, self.span - 1) + self.span

    def pairs(
        self, arrays: Arrays, query: jax.Array, key: jax.Array, query_positions: jax.Array, key_positions: jax.Array
    ) -> jax.Array:
        relative_scores.check_heads("query", query, self.heads, self.dim)
        key = relative_scores.of_all_heads(key, self.heads)
        relative_scores.check_heads("key", key, self.heads, self.dim)
        distance, found = relative_scores.distances(query_positions, key_positions), []
        if "c2p" in self.kinds:
            found.append(relative_scores.of_rows(query, arrays["pos_key"], lambda d: self.rows(arrays, -d), distance))
        if "p2c" in self.kinds:  # keys times vectors of the distances of queries from them
            back = -jnp.swapaxes(distance, -1, -2)
            of_key = relative_scores.of_rows(key, arrays["pos_query"], lambda d: self.rows(arrays, d), back)
            found.append(jnp.swapaxes(of_key, -1, -2))
        return self.softmax_scale * (found[0] if len(found) == 1 else found[0] + found[1])
