"""Biases that are formulas of the distance `key position - query position`, with a few numbers for each head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import Bias, DistanceBias
from posembed_jax.scheme import Arrays, Initializer
from posembed_jax.schemes import phase
from posembed_jax.schemes.frequencies import geometric
from posembed_jax.schemes.mlp import mlp, mlp_inits

KERNELS = ("log", "power")


@dataclasses.dataclass(frozen=True, kw_only=True)
class KERPLE(DistanceBias):
    """A penalty that grows with the logarithm, or a power, of the distance, learned for each head.

        bias[n, t, s] = -r1[n] log(1 + r2[n] d)        kind="log"
        bias[n, t, s] = -r1[n] d ** r2[n]              kind="power"
        d = abs(key_positions[s] - query_positions[t])

    The kernels need r1 > 0, and r2 > 0 or 0 < r2 < 2. The authors clamp both after every step; here what is learned is
    `log(r1)`, and `log(r2)` or `logit(r2 / 2)`, which may be any numbers.

    Args:
        heads: N.
        kind: "log", the better one in the paper, or "power".

    Params: `{"log_r1": [heads], "log_r2": [heads]}`, or `{"log_r1": [heads], "logit_r2": [heads]}` of kind "power". r1
    and r2 begin as the authors' do, uniform: r1 below 2 and r2 below 1 (log), r1 below 1 and r2 below 2 (power).

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> scheme = pe.KERPLE(heads=1, kind="power")
    >>> bound = scheme.bind({"log_r1": jnp.zeros(1), "logit_r2": jnp.zeros(1)})  # r1 = r2 = 1: -d
    >>> bound(pe.positions.arange(1, 2), pe.positions.arange(4)).tolist()
    [[[-2.0, -1.0, -0.0, -1.0]]]

    Source: https://arxiv.org/abs/2205.09921, section 4.
    """

    heads: int
    kind: str = "log"

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.one_of("kind", self.kind, KERNELS)

    def inits(self) -> dict[str, Initializer]:
        def uniform(most: float, then: Callable[[jax.Array], jax.Array]) -> Initializer:
            return Initializer(
                (self.heads,), lambda key, shape, dtype: then(most * jax.random.uniform(key, shape, dtype, 0.01, 0.99))
            )

        if self.kind == "log":
            return {"log_r1": uniform(2.0, jnp.log), "log_r2": uniform(1.0, jnp.log)}
        return {"log_r1": uniform(1.0, jnp.log), "logit_r2": uniform(1.0, jax.scipy.special.logit)}

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        given = {name: of_heads(x, distance) for name, x in arrays.items()}
        r1 = jnp.exp(given["log_r1"])
        away = jnp.abs(distance)[None].astype(r1.dtype)
        if self.kind == "log":
            return -r1 * jnp.log1p(jnp.exp(given["log_r2"]) * away)
        power = jnp.maximum(away, 1.0) ** (2.0 * jax.nn.sigmoid(given["logit_r2"]))  # 0 ** r2 has no finite gradient
        return -r1 * jnp.where(away > 0.0, power, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sandwich(DistanceBias):
    """The product of two sinusoidal embeddings, divided by a compression of each head.

        bias[n, t, s] = sum_i cos((key_positions[s] - query_positions[t]) base ** (-2 i / features)) / compression[n]
        compression[n] = 8 (n + 1) / heads

    with i = 0 ... features / 2 - 1. (NeMo counts i from 1 and subtracts `features / 2` from the sum.)

    Args:
        heads: N.
        features: of the sinusoidal embeddings, even; 128 in the paper, whatever the width of the model.
        base: of the frequencies.

    Params: none.

    >>> import posembed_jax as pe
    >>> pe.Sandwich(heads=2, features=4).bind({}).at(jax.numpy.zeros(1, int)).tolist()  # features / 2 / compression
    [[0.5], [0.25]]

    Source: https://arxiv.org/abs/2212.10356, section 5, and its appendix for the code.
    """

    heads: int
    features: int = 128
    base: float = 10_000.0

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("features", self.features)
        checks.number_setting("base", self.base, above=1.0)
        if self.features % 2:
            raise ValueError(f"features is {self.features}; it needs to be even: a sine and a cosine a frequency.")

    def constants(self) -> dict[str, np.ndarray]:
        frequencies = geometric(self.features // 2, self.base, self.features / 2)
        compression = 8.0 * np.arange(1, self.heads + 1) / self.heads
        return {"turns": phase.turns(frequencies)[None], "factors": (1.0 / compression).astype(np.float32)}

    def at(self, arrays: Arrays, distance: jax.Array) -> jax.Array:
        def add(total: jax.Array, words: jax.Array) -> tuple[jax.Array, None]:
            return total + phase.cos_sin(distance[..., None], words[:, None])[0][..., 0], None

        # one frequency after the other: all at once are features / 2 arrays as large as the bias
        total, _ = lax.scan(add, jnp.zeros_like(distance, jnp.float32), arrays["turns"][0].T)
        return of_heads(arrays["factors"], distance) * total[None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FIRE(Bias):
    """A small network of the logarithm of the distance, relative to that of the query's position.

        bias[n, t, s] = out_kernel[n] . relu(hidden_kernel x + hidden_bias) + out_bias[n]
        x = log(1 + c abs(key_positions[s] - query_positions[t])) / log(1 + c max(length, query_positions[t]))

    x is at most 1 for every key before the query, whatever the length of the sequence. The query's position is that in
    its own document: `positions.from_segment_ids` for packed rows.

    Args:
        heads: N.
        hidden: H.
        c, length: what `exp(log_c)` and `exp(log_length)` begin with; both are learned.

    Params: `{"log_c": [1], "log_length": [1], "hidden_kernel": [1, 1, H], "hidden_bias": [1, H], "out_kernel":
    [heads, H], "out_bias": [heads]}`. (The paper's code learns c and a factor of length, and takes absolute values.)

    >>> import jax, posembed_jax as pe
    >>> scheme = pe.FIRE(heads=4)
    >>> scheme.bind(pe.init(scheme, jax.random.key(0)))(pe.positions.arange(3, 2), pe.positions.arange(5)).shape
    (4, 3, 5)

    Source: https://arxiv.org/abs/2310.04418, section 3.
    """

    heads: int
    hidden: int = 32
    c: float = 0.1
    length: float = 512.0

    def __post_init__(self):
        checks.integer_setting("heads", self.heads)
        checks.integer_setting("hidden", self.hidden)
        checks.number_setting("c", self.c)
        checks.number_setting("length", self.length)

    def inits(self) -> dict[str, Initializer]:
        logs = {"log_c": math.log(self.c), "log_length": math.log(self.length)}
        begin = {name: Initializer((1,), jax.nn.initializers.constant(x)) for name, x in logs.items()}
        return begin | mlp_inits(1, self.hidden, self.heads)

    def pairs(self, arrays: Arrays, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        c, length = (jnp.exp(of_heads(arrays[name], query_positions)) for name in ("log_c", "log_length"))
        away = jnp.abs(key_positions - query_positions)[None].astype(c.dtype)
        furthest = jnp.maximum(query_positions[None].astype(c.dtype), length)
        return mlp(arrays, (jnp.log1p(c * away) / jnp.log1p(c * furthest))[0, ..., None])


def of_heads(x: jax.Array, distance: jax.Array) -> jax.Array:
    """`[N]` -> `[N, 1, ...]`, float32, to go with `distance[None]`."""
    return x.astype(checks.compute_dtype(x.dtype)).reshape(-1, *[1] * distance.ndim)
