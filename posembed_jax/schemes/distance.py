"""Biases that depend on the distance `key position - query position` alone."""

from __future__ import annotations

import bisect
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks, lookup
from posembed_jax.contracts import DistanceBias
from posembed_jax.scheme import Arrays, Initializer, normal


def t5_thresholds(buckets: int, max_distance: int) -> list[int]:
    """The smallest distance in each bucket after the first, for one direction.

    Distances below `exact = buckets // 2` have a bucket each. Bucket `exact + j` begins where
    `log(distance / exact) / log(max_distance / exact) * (buckets - exact) = j`, which is found in integers, as
    `distance^(buckets - exact) >= exact^(buckets - exact - j) * max_distance^j`: no logarithm to round.
    """
    exact = buckets // 2
    spread = buckets - exact
    thresholds, every = list(range(1, exact + 1)), range(max_distance + 1)
    for j in range(1, spread):
        bound = exact ** (spread - j) * max_distance**j
        thresholds.append(bisect.bisect_left(every, bound, key=lambda distance: distance**spread))
    return thresholds


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Bias(DistanceBias):
    """A learned value for each head and bucket of distances; buckets widen with the distance.

        bias[n, t, s] = table[n, bucket(key_positions[s] - query_positions[t])]

    Args:
        heads: N.
        buckets: B, for both directions together; of an odd number the last is of neither, as in transformers.
        max_distance: from here on all distances share the last bucket.
        bidirectional: True in an encoder, where keys after the query have half of the buckets; False in a decoder,
            where they share the bucket of distance 0 (and are masked). There is no default: the two differ silently.
        stddev: of the normal initializer.

    Params: `{"table": [heads, buckets]}` (transformers and Mesh TensorFlow store `[buckets, heads]`, T5X this).

    T5 does not divide its logits by sqrt(D): use it with `attend(..., scale=1.0)` for T5 weights.

    >>> import jax, posembed_jax as pe
    >>> scheme = pe.T5Bias(heads=4, bidirectional=True)
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(pe.positions.arange(3), pe.positions.arange(5)).shape
    (4, 3, 5)

    Source: https://arxiv.org/abs/1910.10683, section 2.1.
    """

    heads: int
    buckets: int = 32
    max_distance: int = 128
    bidirectional: bool
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("buckets", self.buckets, minimum=4 if self.bidirectional else 2)
        checks.number_setting("stddev", self.stddev)
        if not isinstance(self.bidirectional, bool):
            raise ValueError(
                f"bidirectional is {self.bidirectional!r}; it needs to be True (encoder) or False (decoder)."
            )
        exact = self._one_way() // 2
        checks.integer_setting("max_distance", self.max_distance, minimum=exact + 1)

    def _one_way(self) -> int:
        return self.buckets // 2 if self.bidirectional else self.buckets

    def inits(self) -> dict[str, Initializer]:
        return {"table": normal(self.stddev, (self.heads, self.buckets))}

    def bucket(self, distance: jax.Array) -> jax.Array:
        """The bucket of each distance: int32 `[...]` -> int32 `[...]`."""
        one_way = self._one_way()
        thresholds = np.array(t5_thresholds(one_way, self.max_distance), np.int32)
        away = jnp.abs(distance) if self.bidirectional else jnp.maximum(-distance, 0)
        bucket = jnp.searchsorted(thresholds, away, side="right", method="compare_all").astype(jnp.int32)
        return bucket + jnp.where(distance > 0, one_way, 0) if self.bidirectional else bucket

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        return lookup.columns(arrays["table"], self.bucket(distance))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedBias(DistanceBias):
    """A learned value for each head and distance; beyond the ends of the table, that of its end.

        bias[n, t, s] = table[n, clip(distance, -left, right) + left]
        bias[n, t, s] = table[n, min(abs(distance), left)]                     symmetric=True
        distance = key_positions[s] - query_positions[t]

    Args:
        heads: N.
        left, right: how far before and after the query keys have values of their own. The audio encoder of
            Phi-4-multimodal has `left = bias_max_distance` and `right = left - 1`.
        symmetric: the same values before and after; right is left.
        stddev: of the normal initializer.

    Params: `{"table": [heads, left + right + 1]}`; when symmetric, `[heads, left + 1]`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> bound = pe.ClippedBias(heads=1, left=2, right=1).bind({"table": jnp.array([[-2.0, -1.0, 0.0, 1.0]])})
    >>> bound(pe.positions.arange(2, 2), pe.positions.arange(5)).tolist()
    [[[-2.0, -1.0, 0.0, 1.0, 1.0], [-2.0, -2.0, -1.0, 0.0, 1.0]]]

    Source: https://arxiv.org/abs/1803.02155, section 3.2, for the clipping.
    """

    heads: int
    left: int
    right: int
    symmetric: bool = False
    stddev: float = 0.02

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("left", self.left, minimum=0)
        checks.integer_setting("right", self.right, minimum=0)
        checks.flag("symmetric", self.symmetric)
        checks.number_setting("stddev", self.stddev)
        if self.symmetric and self.left != self.right:
            raise ValueError(f"right is {self.right}; with symmetric=True it needs to be left, {self.left}.")

    def inits(self) -> dict[str, Initializer]:
        entries = self.left + 1 + (0 if self.symmetric else self.right)
        return {"table": normal(self.stddev, (self.heads, entries))}

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        clipped = jnp.clip(distance, -self.left, self.right)
        return lookup.columns(arrays["table"], jnp.abs(clipped) if self.symmetric else clipped + self.left)


def alibi_slopes(heads: int, *, bias_max: float = 8.0) -> tuple[float, ...]:
    """The slopes of the paper, for every head count.

    `2^(-bias_max (n + 1) / heads)` when `heads` is a power of two. Otherwise those of the next lower power of two,
    followed by every other slope of the next higher one.

    >>> import posembed_jax as pe
    >>> pe.alibi_slopes(3)
    (0.0625, 0.00390625, 0.25)

    Source: https://arxiv.org/abs/2108.12409, section 3.
    """
    checks.integer_setting("heads", heads)
    checks.number_setting("bias_max", bias_max)
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-bias_max * n / power) for n in range(1, power + 1)]
    between = [2.0 ** (-bias_max * n / (2 * power)) for n in range(1, 2 * power + 1, 2)]
    return tuple(slopes + between[: heads - power])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ALiBi(DistanceBias):
    """A penalty that is linear in the distance, with a slope of its own for each head.

        bias[n, t, s] = -slopes[n] abs(key_positions[s] - query_positions[t])

    Args:
        heads: N.
        bias_max: the smallest slope is `2 ** -bias_max` (`alibi_bias_max` in MPT).
        symmetric: True as above. False is `slopes[n] (key_positions[s] - query_positions[t])`, which equals the
            `slope * key position` of Bloom, Falcon and MPT in the softmax and rises for keys after the query; the two
            are the same where attention is causal.
        slopes: one positive slope for each head instead of the paper's.

    Params: none.

    >>> import posembed_jax as pe
    >>> pe.ALiBi(heads=2).bind({})(pe.positions.arange(1, 2), pe.positions.arange(3)).tolist()
    [[[-0.125, -0.0625, 0.0]], [[-0.0078125, -0.00390625, 0.0]]]

    Source: https://arxiv.org/abs/2108.12409, section 3.
    """

    heads: int
    bias_max: float = 8.0
    symmetric: bool = True
    slopes: tuple[float, ...] | None = None

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.number_setting("bias_max", self.bias_max)
        checks.flag("symmetric", self.symmetric)
        if self.slopes is not None:
            if not isinstance(self.slopes, tuple) or len(self.slopes) != self.heads:
                raise ValueError(
                    f"slopes is {self.slopes!r}; it needs to be a tuple of {self.heads} numbers, one a head."
                )
            for index, slope in enumerate(self.slopes):
                checks.number_setting(f"slopes[{index}]", slope)

    @classmethod
    def bloom(cls, heads: int) -> ALiBi:
        """Of Bloom: `slopes[n] key_positions[s]` there, which is the same in the softmax.

        Its positions count the real tokens of a row: `positions.from_mask(mask)`.

        >>> import posembed_jax as pe
        >>> pe.ALiBi.bloom(heads=12) == pe.ALiBi(heads=12, symmetric=False)
        True
        """
        return cls(heads=heads, symmetric=False)

    @classmethod
    def falcon(cls, heads: int, *, head_dim: int) -> ALiBi:
        """Of Falcon: the slopes are rounded to bfloat16, and divided by `sqrt(head_dim)` as the logits are.

        Falcon rounds the products `slopes[n] key_positions[s]` to bfloat16 as well, so that at position 4,000 sixteen
        neighbours share one; here they stay apart. (transformers' eager attention adds the bias twice, its default
        once, as here.) Positions as in `bloom`.

        >>> import posembed_jax as pe
        >>> pe.ALiBi.falcon(heads=2, head_dim=64).slopes
        (0.0078125, 0.00048828125)
        """
        checks.integer_setting("head_dim", head_dim)
        slopes = np.array(alibi_slopes(heads)).astype(jnp.bfloat16).astype(np.float64)
        return cls(heads=heads, symmetric=False, slopes=tuple((slopes * head_dim**-0.5).tolist()))

    @classmethod
    def mpt(cls, heads: int, *, bias_max: float = 8.0) -> ALiBi:
        """Of MPT, whose `alibi_bias_max` is bias_max: `slopes[n] (s + 1 - S)` there, the same in the softmax.

        >>> import posembed_jax as pe
        >>> pe.ALiBi.mpt(heads=12) == pe.ALiBi.bloom(heads=12)
        True
        """
        return cls(heads=heads, symmetric=False, bias_max=bias_max)

    def constants(self) -> dict[str, np.ndarray]:
        return {"slopes": np.array(self.slopes or alibi_slopes(self.heads, bias_max=self.bias_max), np.float32)}

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        slopes = arrays["slopes"].reshape(-1, *[1] * distance.ndim)
        return slopes * (-jnp.abs(distance) if self.symmetric else distance).astype(jnp.float32)[None]

    def factors(self, query_positions: jax.Array, key_positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Two factors of `slopes[n] (key_positions[s] - query_positions[t])`, for `bias_to_channels`.

        They give the bias with `symmetric=False`, and with `symmetric=True` where no query attends a key after it.

        Args:
            query_positions, key_positions: int32 `[T]` or `[B, T]`, `[S]` or `[B, S]`.

        Returns:
            float32 `[..., T, heads, 2]` and `[..., S, 1, 2]`.
        """
        query_positions = checks.positions("query_positions", query_positions)
        key_positions = checks.positions("key_positions", key_positions)
        slopes = jnp.asarray(self.constants()["slopes"])
        query, key = (x.astype(jnp.float32)[..., None] for x in (query_positions, key_positions))
        slopes = jnp.broadcast_to(slopes, (*query_positions.shape, self.heads))
        return jnp.stack([slopes, -slopes * query], axis=-1), jnp.stack([key, jnp.ones_like(key)], axis=-1)
