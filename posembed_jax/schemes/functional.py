"""Biases that are formulas of the distance `key position - query position`, with a few numbers for each head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from posembed_jax import checks
from posembed_jax.contracts import DistanceBias
from posembed_jax.scheme import Arrays, Initializer

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


def of_heads(x: jax.Array, distance: jax.Array) -> jax.Array:
    """`[N]` -> `[N, 1, ...]`, float32, to go with `distance[None]`."""
    return x.astype(checks.compute_dtype(x.dtype)).reshape(-1, *[1] * distance.ndim)
