"""Multipliers of the logits: of each query, by its position, and of all, by a scaling of RoPE.

Layers without positions, and contexts longer than those of training, sharpen attention so. `attend` takes the value of
a temperature, float32 `[T]` or `[B, T]`; the attention layers take the temperature itself.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks
from posembed_jax.schemes.scaling import yarn_mscale


@dataclasses.dataclass(frozen=True, kw_only=True)
class SteppedTemperature:
    """A step up at each multiple of a length: for layers without positions (iRoPE), or RoPE in long contexts.

        temperature(positions) = 1 + beta * log(1 + floor((positions + offset) / length))

    Ministral 3 and Mistral 4: beta is `llama_4_scaling_beta`, length the original one, offset 0. Llama 4, in its layers
    without RoPE: beta is `attn_scale`, length `floor_scale`, offset 1. The step is found in integers.

    Args:
        beta: how much a step is.
        length: positions from step to step.
        offset: 0 or 1.

    Calling it: int32 `[...]`, of the queries; those below 0 count as 0 -> float32 `[...]`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> temperature = pe.SteppedTemperature(beta=0.1, length=8192, offset=1)
    >>> [round(t, 4) for t in temperature(jnp.array([0, 8191, 16383, 10**6])).tolist()]
    [1.0, 1.0693, 1.1099, 1.4812]

    Source: https://arxiv.org/abs/2501.19399.
    """

    beta: float
    length: int
    offset: int = 0

    def __post_init__(self):
        checks.number_setting("beta", self.beta)
        checks.integer_setting("length", self.length)
        if self.offset not in (0, 1):
            raise ValueError(f"offset is {self.offset!r}; it needs to be 0 (Ministral 3) or 1 (Llama 4).")

    def __call__(self, positions: jax.Array) -> jax.Array:
        positions = jnp.maximum(checks.integers("positions", positions, "int32 positions [...]"), 0)
        # In two parts, because position + 1 may pass the last int32.
        whole, last = positions // self.length, (positions % self.length + self.offset) // self.length
        return 1.0 + np.float32(self.beta) * jnp.log1p(whole.astype(jnp.float32) + last.astype(jnp.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogTemperature:
    """The logarithm of how many keys a causal query sees, over that of the trained length, and at least 1: log-n.

        temperature(positions) = max(1, log(positions + 1) / log(length))

    Args:
        length: of the sequences in training.

    Calling it: int32 `[...]`, of the queries -> float32 `[...]`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.LogTemperature(length=16)(jnp.array([0, 15, 255])).tolist()
    [1.0, 1.0, 2.0]

    Source: https://arxiv.org/abs/2309.16609, section 3.3.
    """

    length: int

    def __post_init__(self):
        checks.integer_setting("length", self.length, minimum=2)

    def __call__(self, positions: jax.Array) -> jax.Array:
        positions = checks.integers("positions", positions, "int32 positions [...]")
        # beyond 1 by the logarithm of a ratio, so that the trained length has 1 exactly
        beyond = jnp.maximum(positions - (self.length - 1), 0).astype(jnp.float32)
        return 1.0 + jnp.log1p(beyond * np.float32(1.0 / self.length)) * np.float32(1.0 / math.log(self.length))


def yarn_softmax_scale(dim: int, *, factor: float, mscale_all_dim: float) -> float:
    """`dim ** -0.5 * yarn_mscale(factor, mscale_all_dim) ** 2`: DeepSeek's softmax scale beside YaRN.

    Beside the factor of cos and sin, which `YaRN` has. Pass it to `attend` as `scale`.

    Args:
        dim: of the whole head, with the channels that do not turn.
        factor, mscale_all_dim: as in `YaRN`; mscale_all_dim 0, as in some configurations, changes nothing.

    >>> import posembed_jax as pe
    >>> round(pe.yarn_softmax_scale(192, factor=40.0, mscale_all_dim=1.0), 4)
    0.1352

    Source: https://arxiv.org/abs/2309.00071, equation 22.
    """
    checks.integer_setting("dim", dim)
    checks.number_setting("factor", factor)
    if mscale_all_dim != 0:
        checks.number_setting("mscale_all_dim", mscale_all_dim)
    return dim**-0.5 * yarn_mscale(factor, mscale_all_dim) ** 2
