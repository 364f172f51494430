"""Multipliers of the logits: of each query, by its position, and of all, by a scaling of RoPE.

Layers without positions, and contexts longer than those of training, sharpen attention so. A temperature is float32
`[..., T]`, and multiplies queries:

    query = (query * temperature[..., None, None]).astype(query.dtype)      # [..., T, N, D]
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from posembed_jax import checks
from posembed_jax.schemes.scaling import yarn_mscale


def stepped_temperature(positions: jax.Array, *, beta: float, length: int, offset: int = 0) -> jax.Array:
    """A step up at each multiple of a length: for layers without positions (iRoPE), or RoPE in long contexts.

        1 + beta * log(1 + floor((position + offset) / length))

    Ministral 3 and Mistral 4: beta is `llama_4_scaling_beta`, length the original one, offset 0. Llama 4, in its layers
    without RoPE: beta is `attn_scale`, length `floor_scale`, offset 1. The step is found in integers.

    Args:
        positions: int32 `[...]`, of the queries. Those below 0 count as 0.
        beta: how much a step is.
        length: positions from step to step.
        offset: 0 or 1.

    Returns:
        float32 `[...]`, to multiply queries `[..., N, D]`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> at = jnp.array([0, 8191, 16383, 10**6])
    >>> [round(t, 4) for t in pe.stepped_temperature(at, beta=0.1, length=8192, offset=1).tolist()]
    [1.0, 1.0693, 1.1099, 1.4812]

    Source: https://arxiv.org/abs/2501.19399.
    """
    positions = checks.integers("positions", positions, "int32 positions [...]")
    checks.number_setting("beta", beta)
    checks.integer_setting("length", length)
    if offset not in (0, 1):
        raise ValueError(f"offset is {offset!r}; it needs to be 0 (Ministral 3) or 1 (Llama 4).")
    positions = jnp.maximum(positions, 0)
    # In two parts, because position + 1 may pass the last int32.
    whole, last = positions // length, (positions % length + offset) // length
    return 1.0 + np.float32(beta) * jnp.log1p(whole.astype(jnp.float32) + last.astype(jnp.float32))


def log_temperature(positions: jax.Array, *, length: int) -> jax.Array:
    """The logarithm of how many keys a causal query sees, over that of the trained length, and at least 1: log-n.

        max(1, log(position + 1) / log(length))

    Args:
        positions: int32 `[...]`, of the queries.
        length: of the sequences in training.

    Returns:
        float32 `[...]`, to multiply queries `[..., N, D]`.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> pe.log_temperature(jnp.array([0, 15, 255]), length=16).tolist()
    [1.0, 1.0, 2.0]

    Source: https://arxiv.org/abs/2309.16609, section 3.3.
    """
    positions = checks.integers("positions", positions, "int32 positions [...]")
    checks.integer_setting("length", length, minimum=2)
    # beyond 1 by the logarithm of a ratio, so that the trained length has 1 exactly
    beyond = jnp.maximum(positions - (length - 1), 0).astype(jnp.float32)
    return 1.0 + jnp.log1p(beyond * np.float32(1.0 / length)) * np.float32(1.0 / math.log(length))


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
