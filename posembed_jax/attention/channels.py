"""A bias of low rank as extra channels of queries and keys, for kernels that take no bias."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from posembed_jax import checks
from posembed_jax.attention.inputs import check_broadcasts


def bias_to_channels(
    query: jax.Array,
    key: jax.Array,
    query_factors: jax.Array,
    key_factors: jax.Array,
    *,
    scale: float | None = None,
    multiple_of: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Query and key whose product also has a bias that is a product of factors.

        scale new_query[t, n] . new_key[s, k] = scale query[t, n] . key[s, k] + query_factors[t, n] . key_factors[s, k]

    In float32 (and float64) each of the R factors becomes one channel. In bfloat16 it becomes six: every factor is cut
    into three parts of 8 bits, `x = x1 + x2 + x3` exactly, and of their nine products the six largest are kept.

    Error: of the bias, beside that of the kernel's own sum, at most `2^-23 sum_r abs(query_factors[r] key_factors[r])`:
    half a unit in the last place of float32 from the division by scale, and the three products left out.

    Args:
        query, key: `[B, T, N, D]` and `[B, S, K, D]`, both float32, bfloat16 or float64.
        query_factors: float32 `[T, N, R]` or `[B, T, N, R]`, 1 where N is shared.
        key_factors: float32 `[S, K, R]` or `[B, S, K, R]`, 1 where K is shared.
        scale: what the kernel multiplies the product with; `D ** -0.5`, of the given D, when None. Pass the kernel
            the same number: by default it would take the new width.
        multiple_of: fill up with zeros to a width that the kernel takes, such as 8 or 128.

    Returns:
        `[B, T, N, E]` and `[B, S, K, E]` of the dtypes of query and key.

    >>> import jax, posembed_jax as pe
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 6, 2, 4))
    >>> factors = pe.ALiBi(heads=2).factors(pe.positions.arange(6), pe.positions.arange(6))
    >>> new_q, new_k = pe.bias_to_channels(q, k, *factors)
    >>> out = pe.attend(new_q, new_k, jax.numpy.pad(v, [(0, 0)] * 3 + [(0, 2)]), scale=0.5, causal=True)[..., :4]
    >>> expected = pe.attend(q, k, v, bias=pe.ALiBi(heads=2).bind({}), causal=True)
    >>> bool(abs(out - expected).max() < 1e-5)
    True

    Source: https://arxiv.org/abs/1904.06376, section 2, for numbers as sums of bfloat16 parts.
    """
    for name, x in (("query", query), ("key", key)):
        checks.rank(name, x, {4}, "[B, T, N, D]" if name == "query" else "[B, S, K, D]")
        if x.dtype not in (jnp.float32, jnp.bfloat16, jnp.float64) or x.dtype != query.dtype:
            raise TypeError(
                f"{name} is {checks.describe(x)}; it needs to be float32, bfloat16 or float64, as the query is: "
                "float16 overflows at the biases of long distances."
            )
    width = query.shape[-1]
    checks.shape("key", key, (query.shape[0], None, None, width), f"[B, S, K, D] of {checks.describe(query)}")
    if scale is not None:
        checks.number_setting("scale", scale)
    checks.integer_setting("multiple_of", multiple_of)
    here = _parts("query_factors", query_factors, query, 1.0 / (width**-0.5 if scale is None else scale))
    there = _parts("key_factors", key_factors, key, 1.0)
    ranks = query_factors.shape[-1], key_factors.shape[-1]
    if ranks[0] != ranks[1]:
        raise ValueError(f"key_factors has {ranks[1]} factors; it needs {ranks[0]}, as query_factors: they are pairs.")
    kept = [(a, b) for a in range(len(here)) for b in range(len(there)) if a + b < len(here)]
    new_query = jnp.concatenate([query, *(here[a] for a, _ in kept)], axis=-1)
    new_key = jnp.concatenate([key, *(there[b] for _, b in kept)], axis=-1)
    fill = [(0, 0)] * 3 + [(0, -new_query.shape[-1] % multiple_of)]
    return jnp.pad(new_query, fill), jnp.pad(new_key, fill)


def _parts(name: str, factors: jax.Array, x: jax.Array, times: float) -> list[jax.Array]:
    """factors * times as a sum of arrays `[B, T, N, R]` of the dtype of x."""
    needs = f"floating [T, N, R] or [B, T, N, R], for {checks.describe(x)}"
    checks.rank(name, factors, {3, 4}, needs)
    checks.floating(name, factors, needs)
    shape = (*x.shape[:3], factors.shape[-1])
    check_broadcasts(name, factors, shape[-factors.ndim :], needs)
    factors = jnp.asarray(factors, checks.compute_dtype(x.dtype)) * times
    rest = jnp.broadcast_to(factors if factors.ndim == 4 else factors[None], shape)
    if x.dtype != jnp.bfloat16:
        return [rest]
    parts = []
    for _ in range(3):
        part = lax.reduce_precision(
            rest, exponent_bits=8, mantissa_bits=7
        )  # a cast there and back may be optimized away
        parts.append(part.astype(jnp.bfloat16))
        rest = rest - part
    return parts
